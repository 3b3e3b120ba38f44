/**
 * Why a job or a run does not go on, or what became of it: the truth in every state, as data and as text.
 *
 * @module
 */

import { newId } from "@runledger/core";
import type { WorkflowRunRequest } from "@runledger/core";
import * as runledger from "@runledger/postgres";
import type { JobExplanation } from "@runledger/postgres";
import assert from "node:assert/strict";
import type { Sql } from "postgres";
import { claimOne, expireLeases, jobIn, makeDue, openTestDatabase, request } from "./support/database.ts";

const ALL = { scope: "all" } as const;

/** Explains a job that must be there, and checks that its text holds some texts. */
async function explained(sql: Sql, jobId: string, ...texts: readonly string[]): Promise<JobExplanation> {
  const explanation = await runledger.explainJob(sql, jobId, ALL);
  assert(explanation !== undefined, "there is such a job");
  const text = runledger.formatJobExplanation(explanation);
  for (const part of texts) assert(text.includes(part), `${part}\nis not in\n${text}`);
  return explanation;
}

async function explainedRun(
  sql: Sql,
  runId: string,
  ...texts: readonly string[]
): Promise<runledger.WorkflowRunExplanation> {
  const explanation = await runledger.explainWorkflowRun(sql, runId, ALL);
  assert(explanation !== undefined, "there is such a run");
  const text = runledger.formatWorkflowRunExplanation(explanation);
  for (const part of texts) assert(text.includes(part), `${part}\nis not in\n${text}`);
  return explanation;
}

Deno.test("a job says in every state of its life what it waits for or what became of it", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const later = await runledger.enqueueJob(sql, request({ nextRunAt: new Date(Date.now() + 7_260_000) }));
  const scheduled = await explained(sql, later.jobId, "It is scheduled: due at", "(in 2 h");
  assert.equal(scheduled.kind, "scheduled");
  assert.equal(scheduled.isTypeEnabled, true);

  const { jobId } = await runledger.enqueueJob(sql, request());
  await explained(
    sql,
    jobId,
    "It is due since",
    "not claimed",
    "No worker has ever claimed a job of its type",
    "Is a worker with a handler for this type running?",
  );
  const lease = await claimOne(sql, { leaseMs: 60_000 });
  const running = await explained(sql, jobId, "It is leased by w until", "attempt 1 of 3");
  assert(running.kind === "running" && running.leaseExpiresAt > running.observedAt);

  const failure = { kind: "RETRYABLE", code: "app.broken", message: "it broke\nat a line" } as const;
  await runledger.settleJob(sql, lease, { kind: "failed", failure, retryDelayMs: 630_000 });
  const retried = await explained(
    sql,
    jobId,
    "waits to be tried again: attempt 1 of 3 failed with app.broken, next attempt at",
    "(in 10 min",
    "attempt 1 failed",
    "RETRYABLE app.broken: it broke",
  );
  assert(retried.kind === "waiting_to_retry");
  assert.deepEqual(retried.failedAttempts.map(({ attempt, errorCode }) => [attempt, errorCode]), [[1, "app.broken"]]);

  await makeDue(sql);
  await runledger.cancelJob(sql, later.jobId, { ...ALL, reason: "no longer wanted", actor: "ada" });
  await explained(sql, later.jobId, "It was cancelled", "by ada: no longer wanted.");
  await claimOne(sql);
  await expireLeases(sql);
  await explained(sql, jobId, "It was lost by w in attempt 2 of 3: its lease ran out", "no reaper has come yet");
  await runledger.reapExpiredLeases(sql);
  await makeDue(sql);
  const last = await claimOne(sql);
  await runledger.settleJob(sql, last, { kind: "failed", failure: { ...failure, code: "app.again" } });
  const dead = await explained(
    sql,
    jobId,
    "It failed for good",
    "after 3 of 3 attempts.",
    "attempt 1 failed",
    "attempt 2 failed",
    "LEASE_EXPIRED job.lease_expired",
    "attempt 3 failed",
    "app.again",
  );
  assert(dead.kind === "dead_lettered" && dead.reason === "ATTEMPTS_EXHAUSTED");

  await runledger.requeueJob(sql, jobId, {
    ...ALL,
    expectedStatus: "DEAD_LETTERED",
    expectedRunNumber: 1,
    reason: "mended",
    actor: "grace",
  });
  const requeued = await explained(sql, jobId, "by grace: mended.", "No worker has claimed a job of its type for");
  assert(requeued.kind === "due");
  assert.deepEqual(requeued.failedAttempts, [], "those of the run before are not its own");
  await runledger.settleJob(sql, await claimOne(sql), { kind: "succeeded" });
  await explained(sql, jobId, "It succeeded", "at attempt 1.");

  const { jobId: doomed } = await jobIn(sql, "DEAD_LETTERED");
  await explained(sql, doomed, "after 1 of 3 attempts, with a failure that is not retried.");
  assert.equal(await runledger.explainJob(sql, newId(), ALL), undefined);
});

Deno.test("a due job says what goes before it, who is at work on its type, and who could be", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const [first] = await runledger.enqueueJobs(sql, [request(), request(), request(), request({ priority: 9 })]);
  assert(first !== undefined);
  const { jobId } = await runledger.enqueueJob(sql, request());
  const before = await explained(sql, jobId, "4 due jobs of its type go first.");
  assert(before.kind === "due");
  assert.deepEqual(before.outlook, { aheadCount: 4, isAheadComplete: true, leasedCount: 0, idleWorkerCount: 0 });
  await claimOne(sql);
  await runledger.announceSleep(sql, { workerId: "idle", jobTypes: ["a"], sleepMs: 60_000 });
  await runledger.announceSleep(sql, { workerId: "other", jobTypes: ["b"], sleepMs: 60_000 });
  const after = await explained(
    sql,
    jobId,
    "3 due jobs of its type go first.",
    "1 worker with a handler for it is idle and should claim it at the next poll.",
    "1 job of its type is leased.",
    "A worker claimed a job of its type",
  );
  assert(after.kind === "due" && after.outlook.lastClaimedAt !== undefined);

  await runledger.setJobDefinitionEnabled(sql, "a", { isEnabled: false });
  await explained(sql, jobId, "Its type a is disabled: new jobs of it are refused, this one still runs.");

  // Of others' jobs, an organization is not told.
  const organizationId = newId();
  await runledger.setJobDefinitionEnabled(sql, "a", { isEnabled: true });
  const own = await runledger.enqueueJob(sql, request({ organizationId }));
  const scoped = await runledger.explainJob(sql, own.jobId, { scope: { organizationId } });
  assert(scoped?.kind === "due");
  assert.deepEqual(scoped.outlook, { aheadCount: 0, isAheadComplete: true, leasedCount: 0, idleWorkerCount: 1 });
});

type Steps = WorkflowRunRequest["steps"];

function run(steps: readonly (readonly [key: string, after: readonly string[], kind?: "gate"])[]): WorkflowRunRequest {
  return {
    workflowType: "w",
    metadata: null,
    steps: steps.map(([stepKey, after, kind]) => ({
      stepKey,
      payload: null,
      dependencies: after.map((prerequisiteStepKey) => ({ prerequisiteStepKey, releaseMode: "ON_SUCCESS" as const })),
      ...(kind === "gate" ? { executionKind: "EXTERNAL" as const } : { executionKind: "JOB" as const, jobType: "a" }),
    })) as Steps,
  };
}

async function stepIds(sql: Sql, runId: string): Promise<Readonly<Record<string, string>>> {
  const rows = await sql<{ step_key: string; id: string }[]>`
    select step_key, id from runledger.workflow_steps where run_id = ${runId}::uuid`;
  return Object.fromEntries(rows.map(({ step_key, id }) => [step_key, id]));
}

Deno.test("a blocked step names what it waits for, down to the gate that is open or the job that runs", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const { runId } = await runledger.enqueueWorkflowRun(
    sql,
    run([["gate", [], "gate"], ["work", []], ["middle", ["gate"]], ["last", ["middle", "work"]]]),
  );
  const ids = await stepIds(sql, runId);
  const last = await explained(
    sql,
    ids["last"] ?? "",
    "It waits for 2 prerequisites:",
    "work, which is due since",
    "middle, which waits for gate, which is a gate that is open since",
    `It is step last of run ${runId} of w.`,
  );
  assert(last.kind === "blocked");
  assert.deepEqual(last.waitsFor.map(({ path }) => path.map(({ stepKey }) => stepKey)), [["work"], ["middle", "gate"]]);
  await explained(sql, ids["gate"] ?? "", "It is a gate that is open since");
  const working = await explainedRun(
    sql,
    runId,
    "It waits for a worker to claim 1 step.",
    "4 steps: 2 BLOCKED, 1 WAITING_FOR_EXTERNAL, 1 ENQUEUED.",
    "work is due since",
    "gate is a gate that is open since",
  );
  assert.equal(working.kind, "waiting_for_workers");

  const lease = await claimOne(sql);
  await explained(sql, ids["last"] ?? "", "work, which is leased by w until");
  const running = await explainedRun(sql, runId, "It runs: 1 step in the hands of workers.", "1 RUNNING");
  assert.equal(running.kind, "running");
  await runledger.settleJob(sql, lease, {
    kind: "failed",
    failure: { kind: "RETRYABLE", code: "app.broken", message: "no" },
    retryDelayMs: 60_000,
  });
  const waiting = await explainedRun(sql, runId, "It waits for the time of 1 step.", "failed with app.broken");
  assert.equal(waiting.kind, "waiting_for_time");
  await makeDue(sql);
  await runledger.settleJob(sql, await claimOne(sql), { kind: "succeeded" });
  const gated = await explainedRun(sql, runId, "It waits for 1 gate to be completed.");
  assert.equal(gated.kind, "waiting_for_gates");

  await runledger.completeExternalStep(sql, runId, "gate", {
    ...ALL,
    completion: { status: "FAILED", reason: "refused", errorCode: "app.refused", errorMessage: "no" },
  });
  const ended = await explainedRun(
    sql,
    runId,
    "It ended",
    "but not all of it went well.",
    "gate failed",
    "app.refused: no",
  );
  assert(ended.kind === "completed_with_errors" && ended.failed.count === 1);
  const canceled = await explained(
    sql,
    ids["last"] ?? "",
    "as CANCELED: workflow.dependency_unsatisfied.",
    "middle was cancelled (workflow.dependency_unsatisfied), because gate failed (app.refused)",
  );
  assert(canceled.kind === "ended_without_job");
});

Deno.test("of a run that was cancelled or succeeded the explanation tells so, and a foreign run is not told of", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const organizationId = newId();
  const { runId } = await runledger.enqueueWorkflowRun(sql, { ...run([["gate", [], "gate"]]), organizationId });
  assert.equal(await runledger.explainWorkflowRun(sql, runId, { scope: "global" }), undefined);
  await runledger.cancelWorkflowRun(sql, runId, { ...ALL, reason: "a mistake" });
  await explainedRun(sql, runId, "It was cancelled", ": a mistake.");
  const { runId: other } = await runledger.enqueueWorkflowRun(sql, run([["gate", [], "gate"]]));
  await runledger.completeExternalStep(sql, other, "gate", { ...ALL, completion: { status: "SUCCEEDED" } });
  await explainedRun(sql, other, "It succeeded");
});

Deno.test("a run of 10,000 steps is explained from both ends with as many statements and no more lines", async () => {
  await using database = await openTestDatabase({ checks: false });
  const { sql } = database;
  const keys = Array.from({ length: 10_000 }, (_, index) => `s${index}`);
  const chain = run(keys.map((key, index) => index === 0 ? [key, [], "gate"] : [key, [`s${index - 1}`]]));
  const { runId } = await runledger.enqueueWorkflowRun(sql, chain);
  const ids = await stepIds(sql, runId);
  const counting = new CountingSql(sql);
  const explanation = await runledger.explainJob(counting, ids["s9999"] ?? "", ALL);
  assert.equal(counting.count, 2);
  assert(explanation?.kind === "blocked");
  const [way] = explanation.waitsFor;
  assert.equal(way?.path.length, 10);
  assert.equal(way?.omittedCount, 9989);
  const text = runledger.formatJobExplanation(explanation);
  assert(text.includes("s9998, which waits for s9997"), text);
  assert(
    text.includes("which waits for 9989 more in a row, which waits for s1, which waits for s0, which is a gate"),
    text,
  );

  const wide = run([["gate", [], "gate"], ...keys.slice(2).map((key) => [key, []] as const), ["join", keys.slice(2)]]);
  const { runId: wideId } = await runledger.enqueueWorkflowRun(sql, wide);
  counting.count = 0;
  const whole = await runledger.explainWorkflowRun(counting, wideId, ALL);
  assert.equal(counting.count, 2);
  assert(whole?.kind === "waiting_for_workers");
  assert.equal(whole.due.count, 9998);
  assert.equal(whole.due.steps.length, 10);
  assert(runledger.formatWorkflowRunExplanation(whole).split("\n").length < 30);
  const join = await runledger.explainJob(sql, (await stepIds(sql, wideId))["join"] ?? "", ALL);
  assert(join?.kind === "blocked");
  assert.equal(join.pendingCount, 9998);
  assert(runledger.formatJobExplanation(join).includes("and 9988 more"));
});

/** Counts statements. */
class CountingSql {
  count = 0;
  readonly #sql: Sql;

  constructor(sql: Sql) {
    this.#sql = sql;
  }

  async query(text: string, values?: readonly runledger.StatementValue[]): Promise<readonly Record<string, unknown>[]> {
    this.count++;
    return await this.#sql.unsafe(text, values === undefined ? undefined : [...values]);
  }
}
