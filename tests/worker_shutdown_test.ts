/**
 * How a worker stops: nothing is lost, nothing is left behind unsaid.
 *
 * @module
 */

import { defineJob } from "@runledger/core";
import { JobCatalog } from "@runledger/runtime";
import assert from "node:assert/strict";
import { openTestDatabase } from "./support/database.ts";
import {
  abortOf,
  countdown,
  enqueue,
  eventTypes,
  faultyDatabase,
  gate,
  readJob,
  startWorker,
} from "./support/worker_harness.ts";

Deno.test("running handlers end by themselves within the time, and are settled", async () => {
  await using db = await openTestDatabase();
  const job = defineJob({ type: "drained" });
  const started = gate();
  const release = gate();
  const catalog = new JobCatalog().handle(job, async (_payload, context) => {
    started.open();
    await release.opened;
    return context.signal.aborted;
  });
  await catalog.sync(db.sql);
  const jobId = await enqueue(db.sql, job.request({}));
  await using worker = startWorker(db.sql, catalog);
  await started.opened;
  const stopped = worker.stop();
  release.open();
  assert.deepEqual(await stopped, { drained: 1, aborted: 0, handedBack: 0, left: [] });
  assert.equal((await readJob(db.sql, jobId)).output, false);
});

Deno.test("handlers that run for too long are aborted with worker.shutdown and retried", async () => {
  await using db = await openTestDatabase();
  const job = defineJob({ type: "aborted" });
  const started = gate();
  const catalog = new JobCatalog().handle(job, async (_payload, context) => {
    started.open();
    throw await abortOf(context.signal);
  });
  await catalog.sync(db.sql);
  const jobId = await enqueue(db.sql, job.request({}));
  await using worker = startWorker(db.sql, catalog, { shutdownTimeoutMs: 0 });
  await started.opened;
  assert.deepEqual(await worker.stop(), { drained: 0, aborted: 1, handedBack: 0, left: [] });
  const stored = await readJob(db.sql, jobId);
  assert.deepEqual([stored.status, stored.attempt, stored.lastErrorCode], ["PENDING", 1, "worker.shutdown"]);
});

Deno.test("an outcome that the database refuses is replaced by a failure before the worker has stopped", async () => {
  await using db = await openTestDatabase();
  const job = defineJob({ type: "refused" });
  const started = gate();
  const release = gate();
  const catalog = new JobCatalog().handle(job, async () => {
    started.open();
    await release.opened;
    return "refused";
  });
  await catalog.sync(db.sql);
  await db.sql`alter table runledger.job_queue add check (output <> '"refused"')`;
  const jobId = await enqueue(db.sql, job.request({}));
  await using worker = startWorker(db.sql, catalog);
  await started.opened;
  const stopped = worker.stop();
  release.open();
  assert.deepEqual(await stopped, { drained: 1, aborted: 0, handedBack: 0, left: [] });
  const stored = await readJob(db.sql, jobId);
  assert.deepEqual([stored.status, stored.lastErrorCode], ["DEAD_LETTERED", "job.handler_panic"]);
});

Deno.test("a handler that ends well after its abort succeeds", async () => {
  await using db = await openTestDatabase();
  const job = defineJob({ type: "late" });
  const started = gate();
  const catalog = new JobCatalog().handle(job, async (_payload, context) => {
    started.open();
    return (await abortOf(context.signal)).code;
  });
  await catalog.sync(db.sql);
  const jobId = await enqueue(db.sql, job.request({}));
  await using worker = startWorker(db.sql, catalog, { shutdownTimeoutMs: 0 });
  await started.opened;
  await worker.stop();
  assert.equal((await readJob(db.sql, jobId)).output, "worker.shutdown");
});

Deno.test("a handler that does not end is left to the reaper, and what it gives later is not written", async () => {
  await using db = await openTestDatabase();
  const job = defineJob({ type: "hung" });
  const started = gate();
  const release = gate();
  const catalog = new JobCatalog().handle(job, async () => {
    started.open();
    await release.opened;
  });
  await catalog.sync(db.sql);
  const jobId = await enqueue(db.sql, job.request({}));
  await using worker = startWorker(db.sql, catalog, { shutdownTimeoutMs: 0, abortGraceMs: 10 });
  await started.opened;
  const report = await worker.stop();
  assert.deepEqual(report, { drained: 0, aborted: 0, handedBack: 0, left: [{ jobId, jobType: "hung" }] });
  release.open();
  await release.opened;
  assert.deepEqual(await eventTypes(db.sql, jobId), ["ENQUEUED", "LEASED"]);
});

Deno.test("claims that were not started are handed back at once and cost no attempt", async () => {
  await using db = await openTestDatabase();
  const quick = defineJob({ type: "mixed" });
  const faulty = faultyDatabase(db.sql);
  const claimed = gate();
  const answer = gate();
  const catalog = new JobCatalog().handle(quick, () => {});
  await catalog.sync(db.sql);
  const ids: string[] = [];
  for (let n = 0; n < 5; n++) ids.push(await enqueue(db.sql, quick.request({})));
  const { query } = faulty;
  // The claim is committed; its answer comes when the worker has been told to stop.
  faulty.query = async (text, values) => {
    const rows = await query(text, values);
    if (text.includes("runledger.claim_jobs(")) {
      claimed.open();
      await answer.opened;
    }
    return rows;
  };
  await using worker = startWorker(faulty, catalog);
  await claimed.opened;
  const stopped = worker.stop();
  answer.open();
  assert.deepEqual(await stopped, { drained: 0, aborted: 0, handedBack: 5, left: [] });
  for (const jobId of ids) {
    const stored = await readJob(db.sql, jobId);
    assert.deepEqual([stored.status, stored.attempt], ["PENDING", 0]);
  }
});

Deno.test("slow jobs are not claimed ahead: they are left for processes that are idle", async () => {
  await using db = await openTestDatabase();
  const job = defineJob({ type: "slow" });
  const release = gate();
  const both = countdown(2);
  const catalog = new JobCatalog().handle(job, async () => {
    both.count();
    await release.opened;
  });
  await catalog.sync(db.sql);
  for (let n = 0; n < 2; n++) await enqueue(db.sql, job.request({}));
  const config = { maxGlobalConcurrency: 1 };
  await using first = startWorker(db.sql, catalog, { config });
  await using second = startWorker(db.sql, catalog, { config });
  await both.done;
  release.open();
  await Promise.all([first.stop(), second.stop()]);
});

Deno.test("a worker whose signal is aborted before it starts claims nothing", async () => {
  await using db = await openTestDatabase();
  const job = defineJob({ type: "never" });
  let runs = 0;
  const catalog = new JobCatalog().handle(job, () => void runs++);
  await catalog.sync(db.sql);
  const jobId = await enqueue(db.sql, job.request({}));
  await using worker = startWorker(db.sql, catalog);
  const report = await worker.stop();
  assert.deepEqual(report, { drained: 0, aborted: 0, handedBack: report.handedBack, left: [] });
  assert.deepEqual([(await readJob(db.sql, jobId)).attempt, runs], [0, 0]);
});

Deno.test("what ended before the stop is written before the worker resolves", async () => {
  await using db = await openTestDatabase();
  const job = defineJob({ type: "many" });
  const all = countdown(200);
  const catalog = new JobCatalog().handle(job, all.count);
  await catalog.sync(db.sql);
  const ids: string[] = [];
  for (let n = 0; n < 200; n++) ids.push(await enqueue(db.sql, job.request(n)));
  await using worker = startWorker(db.sql, catalog);
  await all.done;
  await worker.stop();
  for (const jobId of ids) assert.equal((await readJob(db.sql, jobId)).status, "SUCCEEDED");
});

Deno.test("a stop while the database is away ends all the same, and says what was left", async () => {
  await using db = await openTestDatabase();
  const job = defineJob({ type: "away" });
  const faulty = faultyDatabase(db.sql);
  const started = gate();
  const catalog = new JobCatalog().handle(job, () => {
    started.open();
    faulty.onStatement = () => {
      throw Object.assign(new Error("connect ECONNREFUSED"), { code: "ECONNREFUSED", syscall: "connect" });
    };
  });
  await catalog.sync(db.sql);
  const jobId = await enqueue(db.sql, job.request({}));
  await using worker = startWorker(faulty, catalog, { shutdownTimeoutMs: 0 });
  await started.opened;
  const report = await worker.stop();
  assert.equal((await readJob(db.sql, jobId)).status, "LEASED");
  assert.ok(worker.logger.lines.some((line) => line.includes("are tried again")));
  assert.equal(report.handedBack, 0);
  await worker.logger.line("the lease on a job was lost");
});
