/**
 * Hooks hear what was committed and have no other effect; log lines are kept with their job.
 *
 * @module
 */

import { callOff, defineJob, JobFailure } from "@runledger/core";
import { listJobLogs } from "@runledger/postgres";
import { JobCatalog } from "@runledger/runtime";
import assert from "node:assert/strict";
import { openTestDatabase } from "./support/database.ts";
import { countdown, endedJobs, enqueue, gate, pretendJson, readJob, startWorker } from "./support/worker_harness.ts";

Deno.test("hooks hear each step of a job in order, after it was committed", async () => {
  await using db = await openTestDatabase();
  const job = defineJob({ type: "heard", maxAttempts: 2, retry: { kind: "fixed", delayMs: 0 } });
  const heard: unknown[] = [];
  const statuses: unknown[] = [];
  const catalog = new JobCatalog().handle(job, (payload, context) => {
    if (payload === "off") return callOff();
    if (context.attempt === 1) throw new Error("first");
    if (payload === "dead") throw JobFailure.terminal("gone", "gone");
    return { ok: true };
  });
  const all = countdown(3);
  catalog
    .onJobStarted(({ jobType, attempt, workerId }) => heard.push(["started", jobType, attempt, workerId]))
    .onJobFailed(({ attempt, failure }) => heard.push(["failed", attempt, failure.code]))
    .onJobRetryScheduled(({ nextRunAt }) => heard.push(["retry", nextRunAt instanceof Date]))
    .onJobSucceeded(({ output }) => heard.push(["succeeded", output]))
    .onJobDeadLettered(({ failure }) => heard.push(["dead", failure.kind]))
    .onJobCanceled(({ attempt }) => heard.push(["canceled", attempt]));
  const status = async ({ jobId }: { readonly jobId: string }) => {
    statuses.push((await readJob(db.sql, jobId)).status);
    all.count();
  };
  catalog.onJobSucceeded(status).onJobDeadLettered(status).onJobCanceled(status);
  await catalog.sync(db.sql);
  await using _worker = startWorker(db.sql, catalog, { config: { workerId: "w", pollIntervalMs: 5 } });
  const expected: unknown[] = [];
  const one = async (payload: string, times: number) => {
    const ended = endedJobs(catalog, times);
    await enqueue(db.sql, job.request(payload));
    await ended;
  };
  await one("good", 1);
  expected.push(
    ["started", "heard", 1, "w"],
    ["failed", 1, "job.handler_threw"],
    ["retry", true],
    ["started", "heard", 2, "w"],
    ["succeeded", { ok: true }],
  );
  await one("dead", 1);
  expected.push(
    ["started", "heard", 1, "w"],
    ["failed", 1, "job.handler_threw"],
    ["retry", true],
    ["started", "heard", 2, "w"],
    ["failed", 2, "gone"],
    ["dead", "TERMINAL"],
  );
  await one("off", 1);
  expected.push(["started", "heard", 1, "w"], ["canceled", 1]);
  await all.done;
  assert.deepEqual(heard, expected);
  assert.deepEqual(statuses, ["SUCCEEDED", "DEAD_LETTERED", "CANCELED"]);
});

Deno.test("hooks that throw, reject or hang are reported and change nothing", async () => {
  await using db = await openTestDatabase();
  const job = defineJob({ type: "isolated" });
  const hang = gate();
  const catalog = new JobCatalog().handle(job, () => {});
  catalog
    .onJobSucceeded(() => {
      throw new Error("threw");
    })
    .onJobSucceeded(() => Promise.reject(new Error("rejected")))
    .onJobSucceeded(() => hang.opened);
  await catalog.sync(db.sql);
  for (let n = 0; n < 20; n++) await enqueue(db.sql, job.request({}));
  const ended = endedJobs(catalog, 20);
  await using worker = startWorker(db.sql, catalog);
  await ended;
  await worker.logger.line("threw");
  await worker.logger.line("rejected");
  hang.open();
  assert.deepEqual((await worker.stop()).left, []);
});

Deno.test("log lines are stored before the settlement, in order, and never fail a handler", async () => {
  await using db = await openTestDatabase();
  const job = defineJob({ type: "logging" });
  const cyclic: Record<string, unknown> = {};
  cyclic["self"] = cyclic;
  const shared = { n: 1 };
  const catalog = new JobCatalog().handle(job, (_payload, context) => {
    context.log("info", "first", shared);
    shared.n = 2;
    context.log("warn", "", pretendJson(cyclic));
    context.log("loud" as never, "x".repeat(10_000));
    context.log("debug", Symbol("s") as never, pretendJson("y".repeat(70_000)));
    context.log("error", "null", null);
  });
  await catalog.sync(db.sql);
  const jobId = await enqueue(db.sql, job.request({}));
  const ended = endedJobs(catalog, 1);
  await using _worker = startWorker(db.sql, catalog);
  await ended;
  const { items: lines } = await listJobLogs(db.sql, jobId, { scope: "all" });
  assert.deepEqual(lines.map(({ level }) => level), ["info", "warn", "info", "debug", "error"]);
  assert.deepEqual(lines[0]?.payload, { n: 1 });
  assert.equal(lines[1]?.message, "(blank)");
  assert.ok("unstorable" in (lines[1]?.payload as object));
  assert.equal(lines[2]?.message.length, 8192);
  assert.equal(lines[3]?.message, "Symbol(s)");
  assert.ok("unstorable" in (lines[3]?.payload as object));
});

Deno.test("log lines of a running handler are stored while it runs", async () => {
  await using db = await openTestDatabase();
  const job = defineJob({ type: "chatty" });
  const release = gate();
  const started = gate<string>();
  const catalog = new JobCatalog().handle(job, async (_payload, context) => {
    context.log("info", "at work");
    started.open(context.jobId);
    await release.opened;
  });
  await catalog.sync(db.sql);
  await enqueue(db.sql, job.request({}));
  const ended = endedJobs(catalog, 1);
  await using _worker = startWorker(db.sql, catalog);
  const jobId = await started.opened;
  while ((await listJobLogs(db.sql, jobId, { scope: "all" })).items.length === 0) await db.sql`select 1`;
  release.open();
  await ended;
});
