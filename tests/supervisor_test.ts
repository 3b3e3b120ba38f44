/**
 * The supervisor starts its loops together and stops them together.
 *
 * @module
 */

import { defineJob } from "@runledger/core";
import { claimJobs } from "@runledger/postgres";
import { JobCatalog, Supervisor } from "@runledger/runtime";
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { openTestDatabase } from "./support/database.ts";
import {
  abortOf,
  countdown,
  endedJobs,
  enqueue,
  expireLease,
  faultyDatabase,
  gate,
  readJob,
  recordingLogger,
} from "./support/worker_harness.ts";

const QUICK = { pollIntervalMs: 20, reaperIntervalSeconds: 1, reaperRetryDelayMs: 1 };

Deno.test("a supervisor runs from its construction on, and reports when it has stopped", async () => {
  await using db = await openTestDatabase();
  const job = defineJob({ type: "supervised" });
  const catalog = new JobCatalog().handle(job, () => "done");
  await catalog.sync(db.sql);
  const jobId = await enqueue(db.sql, job.request({}));
  const ended = endedJobs(catalog, 1);
  const supervisor = new Supervisor(db.sql, { catalog, config: QUICK });
  await ended;
  const report = await supervisor.shutdown();
  assert.deepEqual(report, {
    worker: { drained: 0, aborted: 0, handedBack: 0, left: [] },
    reaper: { reaped: 0, expiredGates: 0, deleted: 0, deletedRuns: 0 },
    scheduler: { fired: 0, deferred: 0 },
  });
  assert.deepEqual(await supervisor.finished, report);
  assert.equal((await readJob(db.sql, jobId)).output, "done");
});

Deno.test("shutting down twice, at once or after the end, is safe", async () => {
  await using db = await openTestDatabase();
  const supervisor = new Supervisor(db.sql, { catalog: new JobCatalog() });
  const first = supervisor.shutdown();
  const second = supervisor.shutdown({ timeoutMs: 0 });
  assert.deepEqual(await first, await second);
  assert.deepEqual(await supervisor.shutdown(), await first);
  await supervisor[Symbol.asyncDispose]();
});

Deno.test("a second, shorter shutdown aborts what the first would have waited for", async () => {
  await using db = await openTestDatabase();
  const job = defineJob({ type: "patient" });
  const started = gate();
  const catalog = new JobCatalog().handle(job, async (_payload, context) => {
    started.open();
    return (await abortOf(context.signal)).code;
  });
  await catalog.sync(db.sql);
  const jobId = await enqueue(db.sql, job.request({}));
  await using supervisor = new Supervisor(db.sql, { catalog, config: QUICK });
  await started.opened;
  const patient = supervisor.shutdown({ timeoutMs: 3_600_000 });
  const report = await supervisor.shutdown({ timeoutMs: 0 });
  assert.equal(report.worker?.aborted, 1);
  assert.equal(await patient, report);
  assert.equal((await readJob(db.sql, jobId)).output, "worker.shutdown");
});

Deno.test("one AbortController stops a supervisor with everything else", async () => {
  await using db = await openTestDatabase();
  const everything = new AbortController();
  const byOption = new Supervisor(db.sql, { catalog: new JobCatalog(), signal: everything.signal });
  const byCall = new Supervisor(db.sql, { catalog: new JobCatalog() }).runUntilShutdown({ signal: everything.signal });
  everything.abort();
  assert.deepEqual(await byOption.finished, await byCall);
});

Deno.test("loops can be left out", async () => {
  await using db = await openTestDatabase();
  const job = defineJob({ type: "left.out" });
  const catalog = new JobCatalog().handle(job, () => assert.fail("there is no worker"));
  await catalog.sync(db.sql);
  const jobId = await enqueue(db.sql, job.request({}));
  await claimJobs(db.sql, { jobTypes: ["left.out"], workerId: "gone", limit: 1 });
  await expireLease(db.sql, jobId);
  const reaped = gate();
  catalog.onJobRetryScheduled(() => reaped.open());
  const reaper = new Supervisor(db.sql, { catalog, config: QUICK, worker: false, scheduler: false });
  await reaped.opened;
  assert.deepEqual(await reaper.shutdown(), { reaper: { reaped: 1, expiredGates: 0, deleted: 0, deletedRuns: 0 } });
  const worker = new Supervisor(db.sql, { catalog: new JobCatalog(), reaper: false });
  assert.deepEqual(Object.keys(await worker.shutdown()), ["worker", "scheduler"]);
  assert.throws(() => new Supervisor(db.sql, { catalog, worker: false, reaper: false, scheduler: false }), TypeError);
});

Deno.test("a loop that ends by itself is fatal: the others stop, and the error names it", async () => {
  await using db = await openTestDatabase();
  const logger = recordingLogger();
  // A catalog that breaks the worker's own code; nothing that a handler or a database does can.
  const broken = new JobCatalog();
  Object.defineProperty(broken, "jobTypes", { get: () => assert.fail("a bug") });
  const supervisor = new Supervisor(db.sql, { catalog: broken, logger, reaper: true });
  await assert.rejects(supervisor.finished, (error) => {
    assert.ok(error instanceof Error);
    assert.match(error.message, /worker of this supervisor ended by itself/);
    assert.ok(error.cause instanceof Error);
    return true;
  });
  await assert.rejects(supervisor.shutdown());
  await logger.line("ended by itself");
});

Deno.test("a supervisor stops although the database never answers again", async () => {
  await using db = await openTestDatabase();
  const faulty = faultyDatabase(db.sql);
  const { done, count } = countdown(3);
  // The first statements of the worker, the reaper and the scheduler.
  faulty.onStatement = () => {
    count();
    return new Promise(() => {});
  };
  const catalog = new JobCatalog().handle(defineJob({ type: "unanswered" }), () => {});
  const supervisor = new Supervisor(faulty, { catalog, config: { ...QUICK, leaseTtlSeconds: 1 } });
  await done;
  const report = await supervisor.shutdown();
  assert.deepEqual(Object.keys(report), ["worker", "reaper", "scheduler"]);
});

Deno.test("settings that cannot be are refused at once", async () => {
  await using db = await openTestDatabase();
  assert.throws(
    () => new Supervisor(db.sql, { catalog: new JobCatalog(), config: { claimBatchSize: 0, pollIntervalMs: NaN } }),
    (error) =>
      error instanceof TypeError && /claimBatchSize/.test(error.message) && /pollIntervalMs/.test(error.message),
  );
});

Deno.test("a supervisor without a database or a catalog is refused at once", async () => {
  await using db = await openTestDatabase();
  const catalog = new JobCatalog();
  for (const handle of [undefined, null, "postgres://localhost"]) {
    assert.throws(
      () => new Supervisor(handle as never, { catalog }),
      /^TypeError: A supervisor needs a database handle/,
    );
  }
  for (const options of [undefined, {}, { catalog: {} }]) {
    assert.throws(() => new Supervisor(db.sql, options as never), /^TypeError: A supervisor needs a JobCatalog/);
  }
});

for (const signal of ["SIGINT", "SIGTERM"] as const) {
  Deno.test(`${signal} drains a supervisor, and the process ends by itself`, async () => {
    await using db = await openTestDatabase();
    await using process = startProcess(db.url, "ends");
    await process.line("started");
    process.kill(signal);
    await process.line("stopping");
    await process.line('{"drained":1,"aborted":0,"handedBack":0,"left":[]}');
    assert.equal((await process.status).code, 0);
  });
}

Deno.test("a second signal ends the process at once", async () => {
  await using db = await openTestDatabase();
  await using process = startProcess(db.url, "hangs");
  await process.line("started");
  process.kill("SIGTERM");
  await process.line("stopping");
  // One that follows at once is an echo of the first, as from a task runner; only a later one is meant.
  const again = setInterval(() => process.killIfRunning("SIGTERM"), 20);
  const { signal } = await process.status;
  clearInterval(again);
  assert.equal(signal, "SIGTERM");
});

Deno.test("a signal that comes twice at once, as through a task runner, still drains", async () => {
  await using db = await openTestDatabase();
  await using process = startProcess(db.url, "ends");
  await process.line("started");
  process.kill("SIGINT");
  process.kill("SIGINT");
  process.kill("SIGTERM");
  await process.line('{"drained":1,"aborted":0,"handedBack":0,"left":[]}');
  assert.equal((await process.status).code, 0);
});

/** Runs a supervisor in a process of its own, whose one handler runs when the signal comes. */
function startProcess(url: string, handler: "ends" | "hangs") {
  const script = fileURLToPath(new URL("./support/supervised_process.ts", import.meta.url));
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "--allow-all", "--no-check", script, url, handler],
    stdout: "piped",
  }).spawn();
  const output = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  let seen = "";
  return {
    status: child.status,
    kill: (signal: Deno.Signal) => child.kill(signal),
    killIfRunning: (signal: Deno.Signal) => {
      try {
        child.kill(signal);
      } catch {
        // It has ended, and its status has not come yet.
      }
    },
    async line(text: string) {
      while (!seen.includes(text)) {
        const { done, value } = await output.read();
        if (done) assert.fail(`"${text}" was not printed, but:\n${seen}`);
        seen += value;
      }
    },
    async [Symbol.asyncDispose]() {
      await output.cancel();
      await child.status;
    },
  };
}
