/**
 * What the page on operations says can be typed in: each of its SQL blocks runs, each alert is silent on a healthy database
 * and speaks up when its problem is there, and none reads a large table from end to end.
 *
 * @module
 */

import { isRunledgerError } from "@runledger/core";
import * as runledger from "@runledger/postgres";
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import postgres from "postgres";
import type { Sql } from "postgres";
import { fillOperatorData } from "../bench/operator_data.ts";
import { openTestDatabase, request } from "./support/database.ts";
import { ExplainingSession } from "./support/explaining_session.ts";
import { openHealthyDatabase } from "./support/healthy_database.ts";

/** The page's SQL blocks. */
const BLOCKS: readonly string[] = Array.from(
  (await readFile(new URL("../docs/operations.md", import.meta.url), "utf8")).matchAll(/^```sql\n([^]*?)^```$/gm),
  ([, text = ""]) => text,
);

const ALERTS: ReadonlyMap<string, string> = new Map(
  BLOCKS.flatMap((text) => {
    const name = /^-- alert: (\w+)$/m.exec(text)?.[1];
    return name === undefined ? [] : [[name, text] as const];
  }),
);

async function endedJobs(sql: Sql, count: number, code: string): Promise<void> {
  await runledger.enqueueJobs(sql, Array.from({ length: count }, () => request({ priority: 1 })));
  const leases = await runledger.claimJobs(sql, { jobTypes: ["a"], workerId: "w", limit: count });
  assert.equal(leases.length, count);
  const failure = { kind: "TERMINAL", code, message: "no" } as const;
  await runledger.settleJobs(sql, leases.map((lease) => ({ lease, outcome: { kind: "failed", failure } })));
}

/** How to bring about what each alert is for. */
const PLANTS: Readonly<Record<string, (sql: Sql) => Promise<unknown>>> = {
  jobs_wait: (sql) =>
    sql`update runledger.job_queue set next_run_at = now() - interval '6 minutes' where status = 'PENDING'`,
  dead_letters: (sql) => endedJobs(sql, 1, "app.broken"),
  failure_rate: (sql) => endedJobs(sql, 10, "app.broken"),
  lease_expiries: async (sql) => {
    await runledger.enqueueJobs(sql, Array.from({ length: 6 }, () => request({ priority: 1, maxAttempts: 1 })));
    await runledger.claimJobs(sql, { jobTypes: ["a"], workerId: "w", limit: 6 });
    await sql`update runledger.job_queue set lease_expires_at = now() - interval '1 second' where status = 'LEASED'`;
    await runledger.reapExpiredLeases(sql, {});
  },
  leases_not_reaped: (sql) =>
    sql`update runledger.job_queue set lease_expires_at = now() - interval '3 minutes' where status = 'LEASED'`,
  schedules_overdue: (sql) => sql`update runledger.job_schedules set next_fire_at = now() - interval '3 minutes'`,
  gates_overdue: (sql) => sql`update runledger.workflow_steps set gate_expires_at = now() - interval '3 minutes'`,
  gates_forgotten: (sql) => sql`update runledger.workflow_runs set created_at = now() - interval '2 days'`,
  dead_rows: async (sql) => {
    await sql`alter table runledger.job_logs set (autovacuum_enabled = off)`;
    await sql`insert into runledger.job_logs (job_id, run_number, attempt, level, message)
      select queue.id, 1, 1, 'info', 'line'
      from generate_series(1, 10001), (select id from runledger.job_queue limit 1) as queue`;
    await sql.begin(async (tx) => {
      await tx`delete from runledger.job_logs`;
      await tx`select pg_stat_force_next_flush()`;
    });
  },
};

Deno.test("every SQL block of the page runs on a migrated database", async () => {
  await using database = await openHealthyDatabase();
  // As in psql: a block may be a transaction of its own.
  const sql = postgres(database.url, { max: 1, onnotice: () => {} });
  try {
    assert(BLOCKS.length > 20);
    // Roles belong to the server: a role that is made here must not stay.
    const own = `reader_${Math.random().toString(36).slice(2)}`;
    for (const text of BLOCKS) {
      await sql.unsafe(text.replaceAll(/\breader\b/g, own)).catch((error: Error) => {
        throw new Error(`${error.message} in\n${text}`);
      });
    }
    for (const view of ["jobs", "workflow_step_runs", "job_attempts", "job_metrics_rollup"]) {
      await sql.begin(async (tx) => {
        await tx.unsafe(`set local role ${own}`);
        await tx.unsafe(`select * from runledger.${view}`);
        if (view !== "jobs") return;
        await assert.rejects(
          tx.savepoint((inner) => inner.unsafe("select * from runledger.job_queue")),
          { code: "42501" },
          "the tables stay closed",
        );
      });
    }
    await sql.unsafe(`drop owned by ${own}; drop role ${own}`);
  } finally {
    await sql.end({ timeout: 1 });
  }
});

Deno.test("alerts are silent on a healthy database", async () => {
  await using database = await openHealthyDatabase();
  for (const [name, text] of ALERTS) assert.deepEqual([...await database.sql.unsafe(text)], [], name);
});

for (const [name, plant] of Object.entries(PLANTS)) {
  Deno.test(`the alert ${name} speaks up when it should`, async () => {
    await using database = await openHealthyDatabase();
    const { sql } = database;
    await plant(sql);
    const rows = await sql.unsafe(ALERTS.get(name) ?? "");
    assert.equal(rows.length, 1, JSON.stringify(rows));
  });
}

Deno.test("the alert vacuum_held names the transaction that is open for too long", async () => {
  await using database = await openHealthyDatabase();
  const { sql } = database;
  const text = ALERTS.get("vacuum_held") ?? "";
  assert(text.includes("interval '5 minutes'"));
  await sql.begin(async (tx) => {
    const [own] = await tx<{ pid: number }[]>`select pg_backend_pid() as pid`;
    const held = await sql.unsafe<{ name: string }[]>(text.replaceAll("interval '5 minutes'", "interval '0'"));
    assert(held.some(({ name }) => name === String(own?.pid)));
  });
});

Deno.test("there is a test for each alert", () => {
  assert.deepEqual([...ALERTS.keys()].toSorted(), [...Object.keys(PLANTS), "vacuum_held"].toSorted());
});

Deno.test("no alert scans a large table", async () => {
  await using database = await openTestDatabase({ checks: false });
  await fillOperatorData(database.sql, 60_000);
  const tables = ["job_queue", "job_events", "job_dead_letters", "workflow_runs", "workflow_steps"];
  await using session = new ExplainingSession(database.url, { tables, fewRows: 1000 });
  await session.begin();
  for (const [name, text] of ALERTS) await session.explain(name, () => session.sql.unsafe(text).then(() => {}));
  assert.deepEqual([...new Set(session.problems)], []);
  assert.equal(session.calls.size, ALERTS.size);
  for (const [name, plans] of session.calls) assert(plans > 0, `${name} told no plan`);
});

Deno.test("a ledger that came from a server with higher transaction numbers is followed after what the page says", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const { jobId } = await runledger.enqueueJob(sql, request());
  // What pg_restore does: it copies the column as it was.
  await sql.begin(async (tx) => {
    await tx`set local session_replication_role = replica`;
    await tx`update runledger.job_events set posted_xid = (pg_current_xact_id()::text::bigint + 5)::text::xid8`;
  });
  const start = await runledger.readLedger(sql, { scope: "all" });
  const follow = async () => {
    await runledger.enqueueJobs(sql, [request()]);
    for (let burnt = 0; burnt < 5; burnt++) await sql`select pg_current_xact_id()`;
    const { entries } = await runledger.readLedger(sql, { scope: "all", position: start.position });
    return entries.some((entry) => entry.jobId === jobId);
  };
  assert.equal(await follow(), true, "without it the past is told as news, or the rest of this test is worth nothing");
  await sql.begin(async (tx) => {
    await tx`set local session_replication_role = replica`;
    await tx`update runledger.job_events set posted_xid = (pg_current_xact_id()::text::bigint + 500)::text::xid8
      where job_id = ${jobId}`;
  });
  const mend = BLOCKS.find((text) => text.includes("disable trigger job_events_append_only")) ?? "";
  const owner = postgres(database.url, { max: 1, onnotice: () => {} });
  await owner.unsafe(mend);
  await owner.end({ timeout: 1 });
  const mended = await runledger.readLedger(sql, { scope: "all" });
  assert(mended.entries.some((entry) => entry.jobId === jobId));
  for (let burnt = 0; burnt < 600; burnt++) await sql`select pg_current_xact_id()`;
  assert.deepEqual((await runledger.readLedger(sql, { scope: "all", position: mended.position })).entries, []);
  await assert.rejects(sql`delete from runledger.job_events`, { code: "42501" }, "the ledger is closed again");
});

Deno.test("reads, explanations and metrics write nothing: they work where nothing can be written", async () => {
  await using database = await openHealthyDatabase();
  const separator = database.url.includes("?") ? "&" : "?";
  const sql = postgres(`${database.url}${separator}default_transaction_read_only=on`, { max: 1, onnotice: () => {} });
  try {
    const scope = "all";
    const { items: [job] } = await runledger.listJobs(sql, { scope });
    assert(job !== undefined);
    await runledger.explainJob(sql, job.jobId, { scope });
    await runledger.countJobs(sql, { scope });
    await runledger.readJobMetrics(sql, { scope });
    await runledger.readLedger(sql, { scope });
    await runledger.listWorkflowRuns(sql, { scope });
    await runledger.listDeadLetters(sql, { scope });
    await runledger.listJobSchedules(sql, { scope });
    await runledger.listActiveWorkers(sql, { scope });
    await assert.rejects(
      runledger.enqueueJob(sql, request()),
      (error) => isRunledgerError(error) && error.code.startsWith("db."),
    );
  } finally {
    await sql.end({ timeout: 1 });
  }
});
