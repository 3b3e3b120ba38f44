import assert from "node:assert/strict";
import { cancelWorkflowRun, enqueueWorkflowRun } from "@runledger/postgres";
import type { Queryable } from "@runledger/postgres";
import postgres from "postgres";
import { runStatement } from "../postgres/queryable.ts";
import { claimOne, openTestDatabase } from "./support/database.ts";

const ALL = { scope: "all" } as const;

/** Looks for a deadlock once, so long after it began to wait: later than the rival needs to make one, sooner than he looks. */
const QUICK = { connection: { deadlock_timeout: 2000 }, connect_timeout: 0, onnotice: () => {} };

/** A cancellation that is drawn into a deadlock by a rival who locks the job of a step before its run. */
async function cancelAgainstRival(
  sql: postgres.Sql,
  cancel: (runId: string) => Promise<unknown>,
): Promise<{ readonly runId: string; readonly canceling: Promise<unknown> }> {
  const { runId } = await enqueueWorkflowRun(sql, {
    workflowType: "test",
    metadata: {},
    steps: [{ executionKind: "JOB", stepKey: "a", jobType: "a", payload: null, dependencies: [] }],
  });
  const { jobId } = await claimOne(sql);
  let canceling: Promise<unknown> = Promise.resolve();
  await sql.begin(async (rival) => {
    await rival`set local deadlock_timeout = '1min'`;
    await rival`select id from runledger.job_queue where id = ${jobId} for update`;
    canceling = cancel(runId);
    canceling.catch(() => {});
    await untilOneWaits(sql);
    // Now each of them has what the other wants.
    await rival`select id from runledger.workflow_runs where id = ${runId} for update`;
  });
  return { runId, canceling };
}

async function untilOneWaits(sql: postgres.Sql): Promise<void> {
  for (;;) {
    const [row] = await sql`
      select count(*)::integer as count from pg_stat_activity
      where datname = current_database() and cardinality(pg_blocking_pids(pid)) > 0`;
    if (row?.["count"] > 0) return;
  }
}

Deno.test("a statement that PostgreSQL undid for a deadlock is repeated, and done once", async () => {
  await using database = await openTestDatabase();
  const quick = postgres(database.url, { ...QUICK, max: 1 });
  try {
    const { canceling } = await cancelAgainstRival(database.sql, (runId) => cancelWorkflowRun(quick, runId, ALL));
    const { isApplied, status } = await canceling as Awaited<ReturnType<typeof cancelWorkflowRun>>;
    assert.deepEqual([isApplied, status], [true, "CANCELED"]);
    const events = await database.sql`select event_type from runledger.job_events order by seq`;
    assert.deepEqual(events.map((event) => event["event_type"]), ["ENQUEUED", "LEASED", "CANCELED"]);
  } finally {
    await quick.end({ timeout: 1 });
  }
});

Deno.test("in a transaction of the caller's a deadlock is an error that undoes all of it", async () => {
  await using database = await openTestDatabase();
  const quick = postgres(database.url, { ...QUICK, max: 1 });
  try {
    const { runId, canceling } = await cancelAgainstRival(
      database.sql,
      (runId) =>
        quick.begin(async (tx) => {
          await tx`create table of_the_caller ()`;
          await cancelWorkflowRun(tx as Queryable, runId, ALL);
        }),
    );
    await assert.rejects(canceling, { code: "db.serialization_failure" });
    const [left] = await database.sql`
      select run.status, to_regclass('of_the_caller') is null as is_undone
      from runledger.workflow_runs as run where run.id = ${runId}`;
    assert.deepEqual({ ...left }, { status: "RUNNING", is_undone: true });
  } finally {
    await quick.end({ timeout: 1 });
  }
});

Deno.test("a statement that deadlocks every time is given up after four tries", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  await sql.unsafe(`
    create sequence tries;
    create function deadlock() returns void language plpgsql as $$
    begin
      perform nextval('tries');
      raise exception using errcode = '40P01';
    end $$`).simple();
  await assert.rejects(runStatement(sql, "select deadlock()", [], { write: true }), {
    code: "db.serialization_failure",
  });
  const [tries] = await sql`select last_value::integer as count from tries`;
  assert.equal(tries?.["count"], 4);
});
