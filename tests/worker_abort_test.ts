/**
 * Handlers that must stop: timeouts, lost leases, cancellations, and what is written for them.
 *
 * @module
 */

import { continueNow, defineJob, isRunledgerError } from "@runledger/core";
import { cancelJob, claimJobs, listJobs } from "@runledger/postgres";
import type { Queryable } from "@runledger/postgres";
import { JobCatalog } from "@runledger/runtime";
import assert from "node:assert/strict";
import { openTestDatabase } from "./support/database.ts";
import {
  abortOf,
  connectionReset,
  countdown,
  endedJobs,
  enqueue,
  eventTypes,
  expireLease,
  faultyDatabase,
  gate,
  readJob,
  startWorker,
} from "./support/worker_harness.ts";

function isHeartbeat(text: string): boolean {
  return text.includes("then 'extended'");
}

/** Lets another worker claim and settle a job so many times. */
async function ticks(db: Queryable, times: number): Promise<void> {
  const clock = defineJob({ type: "clock" });
  const catalog = new JobCatalog().handle(clock, (_payload, { runNumber }) => {
    if (runNumber < times) return continueNow();
  });
  await catalog.sync(db);
  await enqueue(db, clock.request({}));
  const ended = endedJobs(catalog, 1);
  await using _worker = startWorker(db, catalog);
  await ended;
}

Deno.test("a handler that ignores its timeout fails as TIMEOUT, and keeps its slot until it ends", async () => {
  await using db = await openTestDatabase();
  const stuck = defineJob({ type: "stuck", timeoutSeconds: 1, maxAttempts: 1, priority: 1 });
  const next = defineJob({ type: "next" });
  const release = gate();
  const order: string[] = [];
  const failed = countdown(1);
  const catalog = new JobCatalog()
    .handle(stuck, async () => {
      await release.opened;
      order.push("stuck ended");
      throw new Error("too late");
    })
    .handle(next, () => void order.push("next started"))
    .onJobDeadLettered(failed.count);
  await catalog.sync(db.sql);
  const stuckId = await enqueue(db.sql, stuck.request({}));
  await enqueue(db.sql, next.request({}));
  const ended = endedJobs(catalog, 2);
  await using worker = startWorker(db.sql, catalog, { config: { maxGlobalConcurrency: 1 } });
  await failed.done;
  const stored = await readJob(db.sql, stuckId);
  assert.deepEqual([stored.status, stored.lastErrorCode, stored.statusReason], [
    "DEAD_LETTERED",
    "job.timeout_exceeded",
    "TIMEOUT",
  ]);
  // Long enough for the free slot, if there were one, to be filled.
  await ticks(db.sql, 10);
  assert.deepEqual(order, []);
  release.open();
  await ended;
  await worker.stop();
  assert.deepEqual(order, ["stuck ended", "next started"]);
  assert.deepEqual(await eventTypes(db.sql, stuckId), ["ENQUEUED", "LEASED", "FAILED", "DEAD_LETTERED"]);
});

Deno.test("the signal of a handler aborts at its deadline with job.timeout_exceeded", async () => {
  await using db = await openTestDatabase();
  const job = defineJob({ type: "slow", timeoutSeconds: 1, maxAttempts: 1 });
  let aborted: { readonly code: string } | undefined;
  let overMs = 0;
  const catalog = new JobCatalog().handle(job, async (_payload, context) => {
    const { deadline } = context;
    aborted = await abortOf(context.signal);
    overMs = Date.now() - deadline.getTime();
  });
  await catalog.sync(db.sql);
  await enqueue(db.sql, job.request({}));
  const ended = endedJobs(catalog, 1);
  await using _worker = startWorker(db.sql, catalog);
  await ended;
  assert.equal(aborted?.code, "job.timeout_exceeded");
  assert.ok(overMs > -50, `aborted ${-overMs} ms early`);
});

Deno.test("a lease lost while its handler runs aborts the handler, and its completion is not written", async () => {
  await using db = await openTestDatabase();
  const job = defineJob({ type: "lost" });
  const started = gate<string>();
  const aborted = gate<{ readonly code: string }>();
  const told = countdown(1);
  const catalog = new JobCatalog().handle(job, async (_payload, context) => {
    started.open(context.jobId);
    aborted.open(await abortOf(context.signal));
    return "done after all";
  }).onLeaseLost(told.count);
  await catalog.sync(db.sql);
  await enqueue(db.sql, job.request({}));
  await using worker = startWorker(db.sql, catalog);
  const jobId = await started.opened;
  await expireLease(db.sql, jobId);
  assert.equal((await aborted.opened).code, "job.lease_owner_mismatch");
  await told.done;
  await worker.stop();
  assert.equal((await readJob(db.sql, jobId)).status, "LEASED");
  assert.deepEqual(await eventTypes(db.sql, jobId), ["ENQUEUED", "LEASED"]);
});

Deno.test("what waited for a slot is not started when the process was held up until its lease had run out", async () => {
  await using db = await openTestDatabase();
  const job = defineJob({ type: "held_up" });
  const started: string[] = [];
  const waiting = gate<string>();
  const catalog = new JobCatalog().handle(job, async (_payload, { jobId }) => {
    started.push(jobId);
    // By then the worker knows that its jobs are quick, and claims one ahead.
    if (started.length !== 100) return;
    while (true) {
      const leased = await listJobs(db.sql, { scope: "all", status: "LEASED" });
      const ahead = leased.items.find((other) => other.jobId !== jobId && !started.includes(other.jobId));
      if (ahead !== undefined) {
        waiting.open(ahead.jobId);
        break;
      }
    }
    const until = performance.now() + 1100;
    while (performance.now() < until);
  });
  await catalog.sync(db.sql);
  for (let count = 0; count < 200; count++) await enqueue(db.sql, job.request({}));
  const lost = countdown(2);
  catalog.onLeaseLost(lost.count);
  await using worker = startWorker(db.sql, catalog, { config: { maxGlobalConcurrency: 1, leaseTtlSeconds: 1 } });
  const ahead = await waiting.opened;
  await lost.done;
  await worker.stop();
  assert.ok(!started.includes(ahead));
});

Deno.test("progress under a lost lease throws, and aborts the handler", async () => {
  await using db = await openTestDatabase();
  const job = defineJob({ type: "lost" });
  const seen = gate<readonly unknown[]>();
  const catalog = new JobCatalog().handle(job, async (_payload, context) => {
    await context.progress({ progress: { done: 1, total: 2 }, checkpoint: { page: 1 } });
    assert.deepEqual([context.progressDone, context.progressTotal, context.checkpoint], [1, 2, { page: 1 }]);
    await expireLease(db.sql, context.jobId);
    const error = await context.progress({ progress: { done: 2 } }).catch((error: unknown) => error);
    seen.open([isRunledgerError(error) && error.code, context.signal.reason?.code]);
  });
  await catalog.sync(db.sql);
  const jobId = await enqueue(db.sql, job.request({}));
  await using worker = startWorker(db.sql, catalog, { config: { leaseTtlSeconds: 60 } });
  assert.deepEqual(await seen.opened, ["job.lease_owner_mismatch", "job.lease_owner_mismatch"]);
  await worker.stop();
  assert.deepEqual(await eventTypes(db.sql, jobId), ["ENQUEUED", "LEASED", "PROGRESS"]);
});

Deno.test("cancelling a job reaches its running handler, and nothing is written for it", async () => {
  await using db = await openTestDatabase();
  const job = defineJob({ type: "canceled" });
  const started = gate<string>();
  const aborted = gate<{ readonly code: string }>();
  const told = countdown(1);
  const catalog = new JobCatalog().handle(job, async (_payload, context) => {
    started.open(context.jobId);
    const reason = await abortOf(context.signal);
    aborted.open(reason);
    throw reason;
  }).onJobCanceled(told.count);
  await catalog.sync(db.sql);
  await enqueue(db.sql, job.request({}));
  await using worker = startWorker(db.sql, catalog);
  const jobId = await started.opened;
  await cancelJob(db.sql, jobId, { scope: "all" });
  assert.equal((await aborted.opened).code, "job.canceled");
  await told.done;
  await worker.stop();
  assert.deepEqual(await eventTypes(db.sql, jobId), ["ENQUEUED", "LEASED", "CANCELED"]);
});

Deno.test("when heartbeats fail for as long as a lease lasts, handlers are aborted and nothing is written", async () => {
  await using db = await openTestDatabase({ checks: false });
  const job = defineJob({ type: "cut" });
  const faulty = faultyDatabase(db.sql);
  const aborted = gate<{ readonly code: string }>();
  const catalog = new JobCatalog().handle(job, async (_payload, context) => {
    faulty.onStatement = () => {
      throw connectionReset();
    };
    aborted.open(await abortOf(context.signal));
    return "too late";
  });
  await catalog.sync(db.sql);
  const jobId = await enqueue(db.sql, job.request({}));
  await using worker = startWorker(faulty, catalog);
  assert.equal((await aborted.opened).code, "job.lease_owner_mismatch");
  faulty.onStatement = () => {};
  await worker.stop();
  assert.equal((await readJob(db.sql, jobId)).status, "LEASED");
});

Deno.test("a heartbeat that is never answered costs no lease", async () => {
  await using db = await openTestDatabase();
  const job = defineJob({ type: "hung" });
  const faulty = faultyDatabase(db.sql);
  const release = gate();
  let isFirst = true;
  let beats = 0;
  const catalog = new JobCatalog().handle(job, async (_payload, context) => {
    faulty.onStatement = (text) => {
      if (!isHeartbeat(text)) return;
      if (++beats === 6) release.open();
      if (!isFirst) return;
      isFirst = false;
      return new Promise(() => {});
    };
    await Promise.race([release.opened, abortOf(context.signal)]);
    return context.signal.aborted ? "aborted" : "held";
  });
  await catalog.sync(db.sql);
  const jobId = await enqueue(db.sql, job.request({}));
  const ended = endedJobs(catalog, 1);
  await using _worker = startWorker(faulty, catalog);
  await ended;
  assert.equal((await readJob(db.sql, jobId)).output, "held");
});

Deno.test("one statement keeps all leases alive for longer than they last", async () => {
  await using db = await openTestDatabase();
  const job = defineJob({ type: "long" });
  const faulty = faultyDatabase(db.sql);
  const release = gate();
  let beats = 0;
  faulty.onStatement = (text) => {
    // Every third of a second, so that the sixth comes when the first leases would be over.
    if (isHeartbeat(text) && ++beats === 6) release.open();
  };
  const catalog = new JobCatalog().handle(job, () => release.opened);
  await catalog.sync(db.sql);
  const ids: string[] = [];
  for (let n = 0; n < 4; n++) ids.push(await enqueue(db.sql, job.request({})));
  const ended = endedJobs(catalog, 4);
  await using worker = startWorker(faulty, catalog);
  await ended;
  await worker.stop();
  for (const jobId of ids) assert.deepEqual(await eventTypes(db.sql, jobId), ["ENQUEUED", "LEASED", "SUCCEEDED"]);
});

Deno.test("a job whose row somebody else has locked for long delays no other job", async () => {
  await using db = await openTestDatabase();
  const job = defineJob({ type: "locked" });
  const catalog = new JobCatalog().handle(job, async (payload, context) => {
    if (payload !== "locked") return;
    locking = db.sql.begin(async (tx) => {
      await tx`select from runledger.job_queue where id = ${context.jobId} for update`;
      isLocked.open();
      await unlock.opened;
    });
    await isLocked.opened;
  });
  const isLocked = gate();
  const unlock = gate();
  let locking: Promise<unknown> = Promise.resolve();
  await catalog.sync(db.sql);
  await enqueue(db.sql, job.request("locked"));
  await using _worker = startWorker(db.sql, catalog, { config: { maxGlobalConcurrency: 1, claimBatchSize: 1 } });
  await isLocked.opened;
  const others = endedJobs(catalog, 3);
  for (let n = 0; n < 3; n++) await enqueue(db.sql, job.request("free"));
  await others;
  unlock.open();
  await locking;
});

Deno.test("a claim that another process took over is not started twice by this one", async () => {
  await using db = await openTestDatabase();
  const job = defineJob({ type: "once" });
  let runs = 0;
  const catalog = new JobCatalog().handle(job, () => void runs++);
  await catalog.sync(db.sql);
  const jobId = await enqueue(db.sql, job.request({}));
  await claimJobs(db.sql, { jobTypes: ["once"], workerId: "other", limit: 1, leaseMs: 60_000 });
  const mine = await enqueue(db.sql, job.request({}));
  const ended = endedJobs(catalog, 1);
  await using worker = startWorker(db.sql, catalog);
  await ended;
  await worker.stop();
  assert.equal(runs, 1);
  assert.deepEqual([(await readJob(db.sql, jobId)).status, (await readJob(db.sql, mine)).status], [
    "LEASED",
    "SUCCEEDED",
  ]);
});
