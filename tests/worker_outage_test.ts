/**
 * The database goes away and comes back while jobs run.
 *
 * @module
 */

import { defineJob, isRunledgerError } from "@runledger/core";
import { claimJobs, enqueueJobs } from "@runledger/postgres";
import { JobCatalog, Supervisor } from "@runledger/runtime";
import assert from "node:assert/strict";
import pg from "pg";
import { HeldJob } from "../runtime/held_job.ts";
import { Prefetch } from "../runtime/prefetch.ts";
import { openTestDatabase } from "./support/database.ts";
import {
  endedJobs,
  enqueue,
  eventTypes,
  faultyDatabase,
  gate,
  readJob,
  recordingLogger,
  startWorker,
} from "./support/worker_harness.ts";

Deno.test("every job ends although all connections are cut again and again", async () => {
  await using db = await openTestDatabase();
  const job = defineJob({ type: "steady", maxAttempts: 50, retry: { kind: "fixed", delayMs: 0 } });
  // postgres.js may leave a timer behind that reconnects; the tests of faults have it in processes of their own.
  const pool = new pg.Pool({ connectionString: db.url, application_name: "cut", max: 4, idleTimeoutMillis: 0 });
  pool.on("error", () => {});
  let cuts = 0;
  let cutting: Promise<unknown> | undefined;
  const finished = new Set<string>();
  const catalog = new JobCatalog().handle(job, async (_payload, context) => {
    await context.progress({ checkpoint: { attempt: context.attempt } });
    finished.add(context.jobId);
    if (finished.size < 40 * (cuts + 1) || cuts === 3) return;
    cuts++;
    cutting = db.sql`select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'cut'`;
    await cutting;
  });
  await catalog.sync(db.sql);
  const jobs = await enqueueJobs(db.sql, Array.from({ length: 200 }, (_, n) => job.request(n)));
  const supervisor = new Supervisor(pool, {
    catalog,
    config: { pollIntervalMs: 20, leaseTtlSeconds: 1, reaperIntervalSeconds: 1, reaperRetryDelayMs: 1 },
  });
  // Hooks may be lost with an answer, so the table is asked.
  for (let open = true; open;) {
    [{ open }] = await db.sql<[{ readonly open: boolean }]>`
      select exists (select from runledger.job_queue where status <> 'SUCCEEDED') as open, pg_sleep(0.02)`;
  }
  const report = await supervisor.shutdown();
  await cutting;
  await pool.end();
  assert.equal(cuts, 3);
  assert.deepEqual(report.worker?.left, []);
  for (const { jobId } of jobs) assert.equal((await readJob(db.sql, jobId)).status, "SUCCEEDED");
});

Deno.test("claims, heartbeats and settlements that fail are tried again", async () => {
  await using db = await openTestDatabase();
  const job = defineJob({ type: "retried" });
  const faulty = faultyDatabase(db.sql);
  const refused = new Set<string>();
  // Each statement is refused at its first try.
  faulty.onStatement = (text) => {
    if (refused.has(text)) return;
    refused.add(text);
    throw Object.assign(new Error("connect ECONNREFUSED"), { code: "ECONNREFUSED", syscall: "connect" });
  };
  const catalog = new JobCatalog().handle(job, (_payload, context) => context.log("info", "a line"));
  await catalog.sync(db.sql);
  const jobId = await enqueue(db.sql, job.request({}));
  const ended = endedJobs(catalog, 1);
  await using _worker = startWorker(faulty, catalog);
  await ended;
  assert.ok(refused.size >= 3);
  assert.deepEqual(await eventTypes(db.sql, jobId), ["ENQUEUED", "LEASED", "SUCCEEDED"]);
  const [row] = await db.sql`select count(*)::integer as lines from runledger.job_logs where job_id = ${jobId}`;
  assert.equal(row?.lines, 1);
});

Deno.test("a settlement whose answer is lost is repeated, and stays what it was", async () => {
  await using db = await openTestDatabase();
  const job = defineJob({ type: "answer" });
  const faulty = faultyDatabase(db.sql);
  const { query } = faulty;
  let lost = 0;
  faulty.query = async (text, values) => {
    const rows = await query(text, values);
    if (!text.includes("runledger.settle_jobs(") || lost++ > 0) return rows;
    throw Object.assign(new Error("read ECONNRESET"), { code: "ECONNRESET" });
  };
  const catalog = new JobCatalog().handle(job, () => "kept");
  await catalog.sync(db.sql);
  const jobId = await enqueue(db.sql, job.request({}));
  await using worker = startWorker(faulty, catalog);
  await worker.logger.line("an earlier write of the outcome was applied");
  await worker.stop();
  assert.equal((await readJob(db.sql, jobId)).output, "kept");
  assert.deepEqual(await eventTypes(db.sql, jobId), ["ENQUEUED", "LEASED", "SUCCEEDED"]);
  assert.ok(!worker.logger.lines.some((line) => line.includes("the lease on a job was lost")));
});

Deno.test("claims whose hand-back is never answered wait for a slot again", async () => {
  await using db = await openTestDatabase();
  const job = defineJob({ type: "ahead" });
  const catalog = new JobCatalog().handle(job, () => {});
  await catalog.sync(db.sql);
  await enqueue(db.sql, job.request({}));
  const [claim] = await claimJobs(db.sql, { jobTypes: ["ahead"], workerId: "w", limit: 1 });
  assert.ok(claim);
  const mute = faultyDatabase(db.sql);
  mute.onStatement = () => new Promise<never>(() => {});
  const kept = gate();
  const prefetch = new Prefetch({
    db: mute,
    logger: recordingLogger(),
    endSignal: new AbortController().signal,
    onHandedBack: () => assert.fail("it is not known to be handed back"),
    onKept: () => kept.open(),
  });
  const now = performance.now();
  const held = new HeldJob(claim, now, now + 60_000);
  prefetch.push(held);
  assert.equal(prefetch.check(now).isSlow, false);
  assert.equal(prefetch.check(prefetch.deadline(now)).isSlow, true);
  assert.equal(prefetch.size, 0);
  await kept.opened;
  assert.equal(prefetch.take(() => true), held);
});

for (
  const [what, statement] of Object.entries({ settlement: "settle_jobs", "batch of log lines": "runledger.job_logs" })
) {
  Deno.test(`a ${what} that is never answered is sent again, and the job ends`, async () => {
    await using db = await openTestDatabase();
    const job = defineJob({ type: "told" });
    const catalog = new JobCatalog().handle(job, (_payload, context) => context.log("info", "a line"));
    await catalog.sync(db.sql);
    const mute = faultyDatabase(db.sql);
    let sent = 0;
    mute.onStatement = (text) => text.includes(statement) && ++sent === 1 ? new Promise<never>(() => {}) : undefined;
    const jobId = await enqueue(db.sql, job.request({}));
    const ended = endedJobs(catalog, 1);
    await using worker = startWorker(mute, catalog);
    await ended;
    await worker.stop();
    assert.equal((await readJob(db.sql, jobId)).status, "SUCCEEDED");
    assert.ok(sent >= 2);
  });
}

Deno.test("progress that is never answered fails after a lease, and the next attempt goes on", async () => {
  await using db = await openTestDatabase();
  const job = defineJob({ type: "progressing", retry: { kind: "fixed", delayMs: 0 } });
  const errors: unknown[] = [];
  const catalog = new JobCatalog().handle(job, async (_payload, context) => {
    await context.progress({ checkpoint: context.attempt }).catch((error) => {
      errors.push(error);
      throw error;
    });
  });
  await catalog.sync(db.sql);
  const mute = faultyDatabase(db.sql);
  let sent = 0;
  mute.onStatement = (text) =>
    text.includes("progress_done =") && ++sent === 1 ? new Promise<never>(() => {}) : undefined;
  const jobId = await enqueue(db.sql, job.request({}));
  const ended = endedJobs(catalog, 1);
  await using worker = startWorker(mute, catalog);
  await ended;
  const report = await worker.stop();
  assert.equal(sent, 2);
  assert.deepEqual(errors.map((error) => isRunledgerError(error) && error.code), ["db.commit_unknown"]);
  assert.deepEqual(report.left, []);
  const { status, attempt, checkpoint } = await readJob(db.sql, jobId);
  assert.deepEqual([status, attempt, checkpoint], ["SUCCEEDED", 2, 2]);
});

Deno.test("an abort ends the wait for progress and for a transaction that has not begun, so that slots are not lost", async () => {
  await using db = await openTestDatabase();
  const job = defineJob({ type: "waiting", timeoutSeconds: 1, maxAttempts: 1 });
  const mute = faultyDatabase(db.sql);
  mute.onStatement = (text) => text.includes("progress_done =") ? new Promise<never>(() => {}) : undefined;
  const begin = gate();
  const transactions: Promise<unknown>[] = [];
  const { transaction } = mute;
  mute.transaction = (fn) => {
    const begun = begin.opened.then(() => transaction(fn));
    transactions.push(begun);
    return begun;
  };
  let entered = 0;
  const codes: unknown[] = [];
  const catalog = new JobCatalog().handle(job, async (what, context) => {
    const waiting = what === "progress"
      ? context.progress({ progress: { done: 1 } })
      : context.transaction(() => Promise.resolve(entered++));
    await waiting.catch((error) => codes.push(isRunledgerError(error) && error.code));
  });
  await catalog.sync(db.sql);
  await enqueueJobs(db.sql, [job.request("progress"), job.request("transaction")]);
  const ended = endedJobs(catalog, 2);
  await using worker = startWorker(mute, catalog, { config: { leaseTtlSeconds: 60 } });
  await ended;
  const report = await worker.stop();
  assert.deepEqual(codes, ["job.timeout_exceeded", "job.timeout_exceeded"]);
  assert.deepEqual(report.left, []);
  begin.open();
  assert.deepEqual((await Promise.allSettled(transactions)).map(({ status }) => status), ["rejected"]);
  assert.equal(entered, 0);
});

Deno.test("a few settlements that are never answered are given up, and then no more: each has a connection", async () => {
  await using db = await openTestDatabase();
  const job = defineJob({ type: "mute" });
  const catalog = new JobCatalog().handle(job, () => {});
  await catalog.sync(db.sql);
  const mute = faultyDatabase(db.sql);
  let sent = 0;
  let heartbeats = 0;
  const waited = gate();
  mute.onStatement = (text) => {
    // Four of them come in more than a lease.
    if (text.includes("last_heartbeat_at = clock_timestamp()") && sent === 5 && ++heartbeats === 4) waited.open();
    if (!text.includes("runledger.settle_jobs(")) return undefined;
    sent++;
    return new Promise<never>(() => {});
  };
  await enqueue(db.sql, job.request({}));
  await using worker = startWorker(mute, catalog, { shutdownTimeoutMs: 100 });
  await waited.opened;
  assert.equal(sent, 5);
  assert.ok(worker.logger.lines.some((line) => line.includes("too many writes of outcomes are not answered")));
  await worker.stop();
});
