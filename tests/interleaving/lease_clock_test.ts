import assert from "node:assert/strict";
import type { JobLease } from "@runledger/core";
import { perform } from "../model/operation.ts";
import type { Operation } from "../model/operation.ts";
import { claimOne, openTestDatabase, request } from "../support/database.ts";
import { enqueueJob } from "@runledger/postgres";
import type { Queryable } from "@runledger/postgres";
import type postgres from "postgres";

/** Every write that a lease allows, and what it answers when the lease is lost. */
const WRITES: readonly {
  readonly operation: (lease: JobLease) => Operation;
  readonly refusal: (jobId: string) => unknown;
}[] = [
  {
    operation: (lease) => ({ op: "settle", settlements: [{ lease, outcome: { kind: "succeeded" } }] }),
    refusal: (jobId) => ({ value: [{ jobId, settled: false, code: "job.lease_owner_mismatch" }] }),
  },
  {
    operation: (lease) => ({ op: "progress", lease, update: { checkpoint: 1 } }),
    refusal: () => ({ refused: "job.lease_owner_mismatch", details: {} }),
  },
  { operation: (lease) => ({ op: "release", leases: [lease] }), refusal: () => ({ value: [] }) },
  {
    operation: (lease) => ({ op: "heartbeat", leases: [lease], postsEvents: true }),
    refusal: (jobId) => ({ value: [{ jobId, state: "lost" }] }),
  },
  { operation: (lease) => ({ op: "log", lease }), refusal: () => ({ value: 0 }) },
];

Deno.test("a lease that runs out after the transaction began is lost", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  for (const { operation, refusal } of WRITES) {
    await enqueueJob(sql, request());
    const lease = await claimOne(sql);
    await sql.begin(async (tx) => {
      await tx`select now()`;
      await expireNow(sql, lease.jobId);
      assert.deepEqual(await perform(tx as Queryable, operation(lease)), refusal(lease.jobId));
    });
  }
});

Deno.test("a lease that runs out while a write waits for the job's row is lost", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  // Neither of the other two waits: a heartbeat skips the row, and a log line locks nothing that it compares.
  for (const { operation, refusal } of WRITES.slice(0, 3)) {
    await enqueueJob(sql, request());
    const lease = await claimOne(sql);
    await using waiter = await sql.reserve().then((reserved) => ({
      reserved,
      [Symbol.asyncDispose]: () => Promise.resolve(reserved.release()),
    }));
    const [backend] = await waiter.reserved`select pg_backend_pid() as pid`;
    let answer: Promise<unknown> = Promise.resolve();
    await sql.begin(async (holder) => {
      await holder`select id from runledger.job_queue where id = ${lease.jobId}::uuid for update`;
      answer = perform(waiter.reserved as Queryable, operation(lease));
      await untilBlocked(sql, backend?.["pid"]);
      await expireNow(holder, lease.jobId);
    });
    assert.deepEqual(await answer, refusal(lease.jobId));
  }
});

async function expireNow(sql: postgres.Sql | postgres.TransactionSql, jobId: string): Promise<void> {
  await sql`
    update runledger.job_queue set lease_expires_at = clock_timestamp() - interval '1 microsecond'
    where id = ${jobId}::uuid`;
}

async function untilBlocked(sql: postgres.Sql, pid: number): Promise<void> {
  for (;;) {
    const [row] = await sql`select cardinality(pg_blocking_pids(${pid}::integer)) as count`;
    if (row?.["count"] > 0) return;
  }
}
