/**
 * The reaper's loop finds jobs whose worker was lost, and removes what retention allows.
 *
 * @module
 */

import { defineJob } from "@runledger/core";
import { claimJobs, enqueueJobs } from "@runledger/postgres";
import { JobCatalog, runReaper } from "@runledger/runtime";
import assert from "node:assert/strict";
import { openTestDatabase } from "./support/database.ts";
import { countdown, faultyDatabase, gate, readJob, recordingLogger } from "./support/worker_harness.ts";

const CONFIG = { reaperIntervalSeconds: 1, reaperRetryDelayMs: 1 };

Deno.test("expired leases become retries or dead letters, all of them in one round, and hooks hear of each", async () => {
  await using db = await openTestDatabase();
  const job = defineJob({ type: "abandoned" });
  const catalog = new JobCatalog().handle(job, () => {});
  await catalog.sync(db.sql);
  // More than one statement takes; half of them may be tried once only.
  const jobs = await enqueueJobs(
    db.sql,
    Array.from({ length: 1100 }, (_, n) => job.request(n, { maxAttempts: 1 + n % 2 })),
  );
  for (let claimed = 0; claimed < 1100;) {
    claimed += (await claimJobs(db.sql, { jobTypes: ["abandoned"], workerId: "gone", limit: 1000 })).length;
  }
  await db.sql`update runledger.job_queue set lease_expires_at = clock_timestamp() - interval '1 second'`;
  const { done, count } = countdown(1100);
  const codes = new Set<string>();
  catalog.onJobFailed(({ failure }) => codes.add(failure.code)).onJobRetryScheduled(count).onJobDeadLettered(count);
  const stop = new AbortController();
  const run = runReaper(db.sql, { catalog, config: { ...CONFIG, reaperIntervalSeconds: 3600 }, signal: stop.signal });
  await done;
  stop.abort();
  assert.deepEqual(await run, { reaped: 1100, expiredGates: 0, deleted: 0, deletedRuns: 0 });
  assert.deepEqual([...codes], ["job.lease_expired"]);
  assert.equal((await readJob(db.sql, jobs[0]?.jobId ?? "")).status, "DEAD_LETTERED");
  assert.equal((await readJob(db.sql, jobs[1]?.jobId ?? "")).status, "PENDING");
});

Deno.test("a reaper survives errors of the database and works again", async () => {
  await using db = await openTestDatabase();
  const faulty = faultyDatabase(db.sql);
  const logger = recordingLogger();
  let failures = 0;
  faulty.onStatement = () => {
    if (++failures <= 3) throw Object.assign(new Error("no"), { code: "ECONNREFUSED", syscall: "connect" });
  };
  const stop = new AbortController();
  const run = runReaper(faulty, { config: CONFIG, signal: stop.signal, logger });
  await logger.line("reaper works again");
  stop.abort();
  await run;
  assert.equal(logger.lines.filter((line) => line.includes("reaper failed")).length, 3);
});

Deno.test("retention removes old jobs after each round, and only if it was asked for", async () => {
  await using db = await openTestDatabase();
  const job = defineJob({ type: "old" });
  const catalog = new JobCatalog().handle(job, () => {});
  await catalog.sync(db.sql);
  await enqueueJobs(db.sql, Array.from({ length: 3 }, (_, n) => job.request(n)));
  await db.sql`
    update runledger.job_queue
    set status = 'CANCELED', finished_at = clock_timestamp() - interval '1 day', status_reason = 'test'`;
  const faulty = faultyDatabase(db.sql);
  const count = async () => Number((await db.sql`select count(*)::integer as jobs from runledger.job_queue`)[0]?.jobs);

  const keep = new AbortController();
  const reaped = gate();
  faulty.onStatement = () => reaped.open();
  const keeping = runReaper(faulty, { config: CONFIG, signal: keep.signal });
  await reaped.opened;
  keep.abort();
  await keeping;
  assert.equal(await count(), 3);

  const remove = new AbortController();
  const { done, count: removed } = countdown(1);
  faulty.onStatement = (text) => text.includes("delete_finished_jobs") ? removed() : undefined;
  const removing = runReaper(faulty, { config: CONFIG, signal: remove.signal, retention: { olderThanMs: 3_600_000 } });
  await done;
  remove.abort();
  assert.deepEqual(await removing, { reaped: 0, expiredGates: 0, deleted: 3, deletedRuns: 0 });
  assert.equal(await count(), 0);
});

Deno.test("a lease that runs out while retention has much to remove is reaped before all of it is removed", async () => {
  await using db = await openTestDatabase();
  const job = defineJob({ type: "old" });
  const catalog = new JobCatalog().handle(job, () => {});
  await catalog.sync(db.sql);
  await enqueueJobs(db.sql, Array.from({ length: 1600 }, (_, n) => job.request(n)));
  await db.sql`
    update runledger.job_queue
    set status = 'CANCELED', finished_at = clock_timestamp() - interval '1 day', status_reason = 'test'`;
  const { jobId } = (await enqueueJobs(db.sql, [job.request("held")]))[0] ?? { jobId: "" };
  await claimJobs(db.sql, { jobTypes: ["old"], workerId: "gone", limit: 1 });
  const faulty = faultyDatabase(db.sql);
  const { done: removed, count } = countdown(4);
  let batches = 0;
  let statusThen = "";
  faulty.onStatement = async (text) => {
    if (!text.includes("delete_finished_jobs")) return;
    batches++;
    if (batches === 2) {
      await db.sql`update runledger.job_queue set lease_expires_at = clock_timestamp() where id = ${jobId}`;
    }
    if (batches === 3) statusThen = (await readJob(db.sql, jobId)).status;
    count();
  };
  const stop = new AbortController();
  const config = { ...CONFIG, reaperIntervalSeconds: 3600 };
  const run = runReaper(faulty, { config, signal: stop.signal, retention: { olderThanMs: 3_600_000 } });
  await removed;
  stop.abort();
  assert.deepEqual(await run, { reaped: 1, expiredGates: 0, deleted: 1600, deletedRuns: 0 });
  assert.equal(statusThen, "PENDING");
});
