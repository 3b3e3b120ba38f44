/**
 * Hooks hear what was committed and have no other effect; log lines are kept with their job.
 *
 * @module
 */

import { callOff, defineJob, JobFailure, WorkflowDagBuilder } from "@runledger/core";
import { atomically, claimJobs, enqueueWorkflowRun, listJobLogs } from "@runledger/postgres";
import type { StatementValue } from "@runledger/postgres";
import { JobCatalog, runReaper } from "@runledger/runtime";
import assert from "node:assert/strict";
import { openTestDatabase } from "./support/database.ts";
import {
  countdown,
  endedJobs,
  enqueue,
  expireLease,
  gate,
  pretendJson,
  readJob,
  recordingLogger,
  startWorker,
} from "./support/worker_harness.ts";

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
  // Each hook reads for itself, so the answers come in any order.
  assert.deepEqual(statuses.toSorted(), ["CANCELED", "DEAD_LETTERED", "SUCCEEDED"]);
});

Deno.test("an attempt starts after the hooks heard how the one before ended, however late the answer comes", async () => {
  await using db = await openTestDatabase();
  const { sql } = db;
  const job = defineJob({ type: "again", maxAttempts: 3, retry: { kind: "fixed", delayMs: 0 } });
  const heard: string[] = [];
  const catalog = new JobCatalog().handle(job, (_payload, { attempt }) => {
    if (attempt < 3) throw new Error("again");
  });
  catalog
    .onJobStarted(({ attempt }) => heard.push(`started ${attempt}`))
    .onJobFailed(({ attempt }) => heard.push(`failed ${attempt}`))
    .onJobSucceeded(({ attempt }) => heard.push(`succeeded ${attempt}`));
  await catalog.sync(sql);
  // Each settlement is committed at once and answered when the next attempt was claimed, by which the answer is late.
  const late = {
    query: async (text: string, values: readonly StatementValue[] = []) => {
      const result = await sql.unsafe(text, [...values]);
      if (!text.includes("settle_jobs")) return result;
      const [row] = await sql`select status from runledger.job_queue`;
      for (let status = row?.["status"]; status === "PENDING";) {
        await new Promise((resolve) => setTimeout(resolve, 2));
        status = (await sql`select status from runledger.job_queue`)[0]?.["status"];
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
      return result;
    },
  };
  const ended = endedJobs(catalog, 1);
  await using _worker = startWorker(late, catalog, { config: { pollIntervalMs: 5 } });
  await enqueue(sql, job.request(null));
  await ended;
  assert.deepEqual(heard, ["started 1", "failed 1", "started 2", "failed 2", "started 3", "succeeded 3"]);
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

Deno.test("hooks of steps and runs hear what a settlement led to, in order", async () => {
  await using db = await openTestDatabase();
  const good = defineJob({ type: "good" });
  const bad = defineJob({ type: "bad", maxAttempts: 2, retry: { kind: "fixed", delayMs: 0 } });
  const heard: string[] = [];
  const finished = gate<unknown>();
  const catalog = new JobCatalog()
    .handle(good, () => ({ ok: true }))
    .handle(bad, () => Promise.reject(new Error("no")))
    .onStepEnqueued(({ stepKey, status, jobType }) => heard.push(`${stepKey} enqueued ${status} ${jobType}`))
    .onStepStarted(({ stepKey, attempt }) => heard.push(`${stepKey} started ${attempt}`))
    .onStepSucceeded(({ stepKey, output }) => heard.push(`${stepKey} succeeded ${JSON.stringify(output)}`))
    .onStepFailed(({ stepKey, isFinal, failure }) => heard.push(`${stepKey} failed ${failure.code} ${isFinal}`))
    .onStepRetryScheduled(({ stepKey }) => heard.push(`${stepKey} retry`))
    .onStepDeadLettered(({ stepKey }) => heard.push(`${stepKey} dead`))
    .onStepCanceled(({ stepKey, jobType }) => heard.push(`${stepKey} canceled ${jobType}`))
    .onJobEnqueued(({ jobType }) => heard.push(`job enqueued ${jobType}`))
    .onRunFinished(finished.open);
  await catalog.sync(db.sql);
  const run = new WorkflowDagBuilder("heard")
    .job("first", good.request(null))
    .job("second", bad.request(null)).afterSuccess("second", ["first"])
    .external("never").afterSuccess("never", ["second"])
    .build();
  await using _worker = startWorker(db.sql, catalog);
  const { runId } = await catalog.enqueueWorkflowRun(db.sql, run);
  assert.deepEqual(await finished.opened, { runId, workflowType: "heard", status: "COMPLETED_WITH_ERRORS" });
  // A claim that was under way may bring what a settlement made due before that settlement is answered.
  const isStart = (line: string) => line.includes(" started ");
  assert.deepEqual(heard.filter(isStart), ["first started 1", "second started 1", "second started 2"]);
  assert.deepEqual(heard.filter((line) => !isStart(line)), [
    'first succeeded {"ok":true}',
    "job enqueued bad",
    "second enqueued ENQUEUED bad",
    "second failed job.handler_threw false",
    "second retry",
    "second failed job.handler_threw true",
    "second dead",
    "never canceled undefined",
  ]);
});

Deno.test("a run that a handler ends in its own transaction, or a reaper by a lost lease, is heard of", async () => {
  await using db = await openTestDatabase();
  const own = defineJob({ type: "own" });
  const lost = defineJob({ type: "lost", maxAttempts: 1 });
  const catalog = new JobCatalog().handle(
    own,
    (_payload, context) => context.transaction(async (_tx, finish) => await finish()),
  );
  catalog.define(lost);
  await catalog.sync(db.sql);
  const runOf = (key: string, type: typeof own) =>
    new WorkflowDagBuilder(`run.${key}`).job("only", type.request(null)).build();
  const first = gate<unknown>();
  catalog.onRunFinished(first.open);
  await using worker = startWorker(db.sql, catalog);
  const { runId } = await enqueueWorkflowRun(db.sql, runOf("own", own));
  assert.deepEqual(await first.opened, { runId, workflowType: "run.own", status: "SUCCEEDED" });
  await worker.stop();

  const reaped: unknown[] = [];
  const stop = new AbortController();
  const other = new JobCatalog()
    .onStepDeadLettered(({ stepKey, workerId }) => reaped.push([stepKey, workerId]))
    .onRunFinished(({ status }) => {
      reaped.push(status);
      stop.abort();
    });
  await enqueueWorkflowRun(db.sql, runOf("lost", lost));
  const [claimed] = await claimJobs(db.sql, { jobTypes: ["lost"], workerId: "gone", limit: 1 });
  await expireLease(db.sql, claimed?.jobId ?? "");
  await runReaper(db.sql, { catalog: other, config: { workerId: "reaper" }, signal: stop.signal });
  assert.deepEqual(reaped, [["only", "reaper"], "COMPLETED_WITH_ERRORS"]);
});

Deno.test("an enqueue is heard of once it is committed, and never if it is rolled back or made nothing new", async () => {
  await using db = await openTestDatabase();
  const job = defineJob({ type: "heard_enqueue" });
  const logger = recordingLogger();
  const heard: unknown[] = [];
  const organizationId = "018f0000-0000-7000-8000-000000000001";
  const catalog = new JobCatalog({ logger }).handle(job, async (_payload, context) => {
    await context.transaction(async (tx, finish) => {
      await catalog.enqueueJob(tx, job.request("by a handler", { nextRunAt: new Date(Date.now() + 3_600_000) }));
      heard.push("not yet");
      return await finish();
    });
  });
  catalog.onJobEnqueued(({ jobId, ...event }) => heard.push([typeof jobId, event])).onJobEnqueued(() => {
    throw new Error("the hook threw");
  });
  await catalog.sync(db.sql);
  const later = { nextRunAt: new Date(Date.now() + 3_600_000) };
  const keyed = job.request(null, { ...later, idempotencyKey: "k", organizationId });
  await catalog.enqueueJobs(db.sql, [keyed, keyed]);
  await catalog.enqueueJob(db.sql, keyed);
  assert.deepEqual(heard.splice(0), [["string", { jobType: "heard_enqueue", organizationId }]]);
  await logger.line("the hook threw");

  await catalog.transaction(db.sql, async (tx) => {
    await catalog.transaction(tx, (inner) => catalog.enqueueJob(inner, job.request(1, later)));
    assert.deepEqual(heard, []);
  });
  assert.deepEqual(heard.splice(0), [["string", { jobType: "heard_enqueue" }]]);
  const rolledBack = catalog.transaction(db.sql, async (tx) => {
    await catalog.enqueueJob(tx, job.request(2, later));
    throw new Error("rolled back");
  });
  await assert.rejects(rolledBack, /rolled back/);
  // In a transaction that the catalog did not open nobody can know.
  await atomically(db.sql, (tx) => catalog.enqueueJob(tx, job.request(3, later)));
  await db.sql.begin((tx) => catalog.enqueueJob(tx, job.request(4, later)));
  assert.deepEqual(heard, []);

  const ended = endedJobs(catalog, 1);
  await using _worker = startWorker(db.sql, catalog);
  await catalog.enqueueJob(db.sql, job.request(null));
  await ended;
  assert.deepEqual(heard, [["string", { jobType: "heard_enqueue" }], "not yet", ["string", {
    jobType: "heard_enqueue",
  }]]);
});
