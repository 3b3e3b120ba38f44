import assert from "node:assert/strict";
import { isWorkflowBuildError } from "@runledger/core";
import type { JsonValue, WorkflowRunRequest, WorkflowStepRequest } from "@runledger/core";
import {
  appendWorkflowSteps,
  cancelJob,
  cancelWorkflowRun,
  claimJobs,
  completeExternalStep,
  deleteFinishedJobs,
  deleteFinishedWorkflowRuns,
  enqueueWorkflowRun,
  enqueueWorkflowRuns,
  expireWorkflowGates,
  getWorkflowResult,
  getWorkflowRun,
  listDeadLetters,
  listWorkflowRunMutations,
  listWorkflowStepDependencies,
  listWorkflowSteps,
  reapExpiredLeases,
  recoverWorkflowRun,
  replayJob,
  requeueJob,
  settleJob,
  settleJobs,
  WORKFLOW_RUN_ENDED_CHANNEL,
} from "@runledger/postgres";
import type { ClaimedJob } from "@runledger/postgres";
import type postgres from "postgres";
import { expireLeases, makeDue, openTestDatabase } from "./support/database.ts";

const ALL = { scope: "all" } as const;

function job(stepKey: string, after: readonly string[] = [], fields: Partial<WorkflowStepRequest> = {}) {
  return {
    executionKind: "JOB",
    stepKey,
    jobType: "a",
    payload: { step: stepKey },
    dependencies: after.map((key) => ({
      prerequisiteStepKey: key.replace("*", ""),
      releaseMode: key.endsWith("*") ? "ON_TERMINAL" : "ON_SUCCESS",
    })),
    ...fields,
  } as WorkflowStepRequest;
}

function gate(stepKey: string, after: readonly string[] = [], fields: Partial<WorkflowStepRequest> = {}) {
  return {
    executionKind: "EXTERNAL",
    stepKey,
    payload: null,
    dependencies: after.map((prerequisiteStepKey) => ({ prerequisiteStepKey, releaseMode: "ON_SUCCESS" })),
    ...fields,
  } as WorkflowStepRequest;
}

function run(steps: readonly WorkflowStepRequest[], fields: Partial<WorkflowRunRequest> = {}): WorkflowRunRequest {
  return { workflowType: "test.flow", metadata: {}, steps, ...fields };
}

async function claim(sql: postgres.Sql, limit = 100): Promise<readonly ClaimedJob[]> {
  return await claimJobs(sql, { jobTypes: ["a", "b"], workerId: "w", limit });
}

async function statuses(sql: postgres.Sql, runId: string): Promise<Record<string, string>> {
  const { items: steps } = await listWorkflowSteps(sql, runId, { scope: "all", limit: 1000 });
  return Object.fromEntries(steps.map(({ stepKey, status }) => [stepKey, status]));
}

/** Claims and finishes steps until nothing is due; `ends` says how a step ends when not well. */
async function drain(
  sql: postgres.Sql,
  ends: Record<string, "fail" | JsonValue> = {},
): Promise<readonly string[]> {
  const order: string[] = [];
  for (let jobs = await claim(sql); jobs.length > 0; jobs = await claim(sql)) {
    await settleJobs(
      sql,
      jobs.map((lease) => {
        const stepKey = lease.workflow?.stepKey ?? "";
        order.push(stepKey);
        if (ends[stepKey] === "fail") {
          const failure = { kind: "TERMINAL", code: "test.failed", message: stepKey } as const;
          return { lease, outcome: { kind: "failed", failure } };
        }
        return { lease, outcome: { kind: "succeeded", output: ends[stepKey] ?? { of: stepKey } } };
      }),
    );
  }
  return order;
}

Deno.test("steps run after their prerequisites, and get their outputs with the claim", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const { runId, disposition, status } = await enqueueWorkflowRun(
    sql,
    run([job("a"), job("b", ["a"]), job("c", ["a*"]), job("d", ["b", "c"])], { resultStepKey: "d" }),
  );
  assert.deepEqual([disposition, status], ["inserted", "RUNNING"]);
  const [first, ...none] = await claim(sql);
  assert(first?.workflow !== undefined && none.length === 0);
  assert.deepEqual([first.workflow.runId, first.workflow.stepKey], [runId, "a"]);
  assert.deepEqual({ ...first.workflow.prerequisites }, {});
  assert.equal((await statuses(sql, runId))["a"], "RUNNING");
  await settleJob(sql, first, { kind: "succeeded", output: { n: 1 } });
  const middle = await claim(sql);
  assert.deepEqual(middle.map(({ workflow }) => workflow?.stepKey).sort(), ["b", "c"]);
  assert.deepEqual({ ...middle[0]?.workflow?.prerequisites }, { a: { status: "SUCCEEDED", output: { n: 1 } } });
  // Both prerequisites of d end in one batch: each edge counts once.
  await settleJobs(sql, middle.map((lease) => ({ lease, outcome: { kind: "succeeded" } })));
  const [last] = await claim(sql);
  assert.deepEqual({ ...last?.workflow?.prerequisites }, { b: { status: "SUCCEEDED" }, c: { status: "SUCCEEDED" } });
  await assert.rejects(getWorkflowResult(sql, runId, ALL), { code: "workflow.result_wait_timeout" });
  const waiting = getWorkflowResult(sql, runId, { scope: "all", timeoutMs: 10_000, pollIntervalMs: 10 });
  assert(last !== undefined);
  await settleJob(sql, last, { kind: "succeeded", output: [42] });
  assert.deepEqual(await waiting, [42]);
  const stored = await getWorkflowRun(sql, runId, ALL);
  assert.deepEqual([stored?.status, stored?.openCount, stored?.resultStepKey], ["SUCCEEDED", 0, "d"]);
  assert(stored?.finishedAt !== undefined);
  assert.deepEqual(
    (await listWorkflowStepDependencies(sql, runId, ALL)).items.map((edge) => Object.values(edge).join(" ")),
    ["a b ON_SUCCESS", "a c ON_TERMINAL", "b d ON_SUCCESS", "c d ON_SUCCESS"],
  );
});

Deno.test("waiting for a result ends with the run where there is a listener, and with the signal", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const listen = async (wake: () => void) => (await sql.listen(WORKFLOW_RUN_ENDED_CHANNEL, wake)).unlisten;
  const { runId } = await enqueueWorkflowRun(sql, run([job("a")], { resultStepKey: "a" }));
  const hour = { scope: "all", timeoutMs: 3_600_000, pollIntervalMs: 3_600_000 } as const;
  const stop = new AbortController();
  const stopped = getWorkflowResult(sql, runId, { ...hour, signal: stop.signal });
  const reason = new Error("enough");
  stop.abort(reason);
  await assert.rejects(stopped, reason);
  const listening = Promise.withResolvers<void>();
  const waiting = getWorkflowResult(sql, runId, {
    ...hour,
    listen: async (wake) => {
      const unlisten = await listen(wake);
      listening.resolve();
      return unlisten;
    },
  });
  await listening.promise;
  await drain(sql);
  assert.deepEqual(await waiting, { of: "a" });
});

Deno.test("a failure cancels what needed it, wave after wave, and lets run what only waited for its end", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const { runId } = await enqueueWorkflowRun(
    sql,
    run([
      job("a"),
      job("b", ["a"]),
      job("c", ["b"]),
      gate("g", ["c"]),
      job("cleanup", ["a*", "c*"]),
      job("after", ["cleanup"]),
    ]),
  );
  assert.deepEqual(await drain(sql, { a: "fail" }), ["a", "cleanup", "after"]);
  assert.deepEqual(await statuses(sql, runId), {
    a: "FAILED",
    b: "CANCELED",
    c: "CANCELED",
    g: "CANCELED",
    cleanup: "SUCCEEDED",
    after: "SUCCEEDED",
  });
  const { items: steps } = await listWorkflowSteps(sql, runId, ALL);
  const b = steps.find(({ stepKey }) => stepKey === "b");
  assert.deepEqual([b?.statusReason, b?.lastErrorCode], [
    "workflow.dependency_unsatisfied",
    "workflow.dependency_unsatisfied",
  ]);
  assert.equal((await getWorkflowRun(sql, runId, ALL))?.status, "COMPLETED_WITH_ERRORS");
  assert.equal((await listDeadLetters(sql, ALL)).items.length, 1);
});

Deno.test("a retry moves nothing on, and a dead letter by the reaper does", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const { runId } = await enqueueWorkflowRun(sql, run([job("a", [], { maxAttempts: 2 }), job("b", ["a*"])]));
  const [first] = await claim(sql);
  assert(first !== undefined);
  await settleJob(sql, first, { kind: "failed", failure: { kind: "RETRYABLE", code: "x.y", message: "" } });
  assert.deepEqual(await statuses(sql, runId), { a: "ENQUEUED", b: "BLOCKED" });
  await makeDue(sql);
  await claim(sql);
  await expireLeases(sql);
  const [reaped] = await reapExpiredLeases(sql);
  assert.equal(reaped?.status, "DEAD_LETTERED");
  assert.deepEqual(await statuses(sql, runId), { a: "FAILED", b: "ENQUEUED" });
  const [b] = await claim(sql);
  assert.deepEqual({ ...b?.workflow?.prerequisites }, { a: { status: "FAILED" } });
});

Deno.test("enqueueing is idempotent over the order of steps and edges, and conflicts name what differs", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const steps = [job("a"), job("b"), job("c", ["a", "b"])];
  const key = { idempotencyKey: "k" };
  const first = await enqueueWorkflowRun(sql, run(steps, key));
  const turned = [job("c", ["b", "a"]), job("b"), job("a")];
  assert.deepEqual(await enqueueWorkflowRun(sql, run(turned, key)), { ...first, disposition: "existing" });
  await assert.rejects(enqueueWorkflowRun(sql, run(steps, { ...key, metadata: { other: 1 } })), {
    code: "workflow.enqueue_conflicting_retry",
    details: { fields: ["metadata"] },
  });
  await assert.rejects(enqueueWorkflowRun(sql, run(steps, { ...key, resultStepKey: "c" })), {
    code: "workflow.enqueue_conflicting_retry",
    details: { fields: ["result_step_key"] },
  });
  const both = await enqueueWorkflowRuns(sql, [
    run(steps, { idempotencyKey: "l" }),
    run(turned, { idempotencyKey: "l" }),
  ]);
  assert.equal(both[0]?.runId, both[1]?.runId);
  assert.deepEqual(both.map(({ disposition }) => disposition), ["inserted", "existing"]);
  const gates = await enqueueWorkflowRuns(sql, [1, 2].map(() => run([gate("g")], { idempotencyKey: "gates" })));
  assert.deepEqual(gates.map(({ status }) => status), ["WAITING_FOR_EXTERNAL", "WAITING_FOR_EXTERNAL"]);
  const storm = await Promise.all(
    Array.from({ length: 12 }, () => enqueueWorkflowRun(sql, run(steps, { idempotencyKey: "storm" }))),
  );
  assert.equal(new Set(storm.map(({ runId }) => runId)).size, 1);
  assert.equal(storm.filter(({ disposition }) => disposition === "inserted").length, 1);
});

Deno.test("a run whose job type is not defined is refused whole", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  await assert.rejects(
    enqueueWorkflowRuns(sql, [run([job("a")]), run([job("a"), job("x", ["a"], { jobType: "nope" })])]),
    { code: "workflow.definition_not_found_or_disabled", details: { jobTypes: ["nope"] } },
  );
  const [count] = await sql`select count(*)::integer as runs from runledger.workflow_runs`;
  assert.equal(count?.["runs"], 0);
  assert.deepEqual(await claim(sql), []);
});

Deno.test("at most one live run holds an active key in an organization", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const active = { activeKey: "nightly" };
  const storm = await Promise.all(
    Array.from({ length: 10 }, () => enqueueWorkflowRun(sql, run([job("a")], active))),
  );
  assert.equal(new Set(storm.map(({ runId }) => runId)).size, 1);
  assert.equal(storm.filter(({ disposition }) => disposition === "active").length, 9);
  const organizationId = "0197a000-0000-7000-8000-000000000001";
  assert.equal((await enqueueWorkflowRun(sql, run([job("a")], { ...active, organizationId }))).disposition, "inserted");
  await drain(sql);
  assert.equal((await enqueueWorkflowRun(sql, run([job("a")], active))).disposition, "inserted");
});

Deno.test("a gate is completed once, gives its output, and tells a different completion off", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const { runId } = await enqueueWorkflowRun(sql, run([job("a"), gate("ok", ["a"]), job("b", ["ok"])]));
  const done = { scope: "all", completion: { status: "SUCCEEDED", output: { by: "kim" } } } as const;
  await assert.rejects(completeExternalStep(sql, runId, "ok", done), { code: "workflow.external_step_not_waiting" });
  await assert.rejects(completeExternalStep(sql, runId, "a", done), { code: "workflow.external_step_not_external" });
  await assert.rejects(completeExternalStep(sql, runId, "x", done), { code: "workflow.external_step_not_found" });
  await drain(sql);
  assert.equal((await getWorkflowRun(sql, runId, ALL))?.status, "RUNNING", "b is blocked behind the gate");
  const twice = await Promise.all([1, 2].map(() => completeExternalStep(sql, runId, "ok", done)));
  assert.deepEqual(twice.map(({ isApplied }) => isApplied).sort(), [false, true]);
  await assert.rejects(
    completeExternalStep(sql, runId, "ok", { scope: "all", completion: { status: "FAILED" } }),
    { code: "workflow.external_step_conflicting_completion_retry" },
  );
  const [b] = await claim(sql);
  assert.deepEqual({ ...b?.workflow?.prerequisites }, { ok: { status: "SUCCEEDED", output: { by: "kim" } } });
});

Deno.test("a run with nothing but open gates left waits for somebody outside", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const { runId, status } = await enqueueWorkflowRun(sql, run([gate("g"), gate("h")]));
  assert.equal(status, "WAITING_FOR_EXTERNAL");
  await completeExternalStep(sql, runId, "g", { scope: "all", completion: { status: "SUCCEEDED" } });
  assert.equal((await getWorkflowRun(sql, runId, ALL))?.status, "WAITING_FOR_EXTERNAL");
  await completeExternalStep(sql, runId, "h", { scope: "all", completion: { status: "CANCELED", reason: "moot" } });
  assert.equal((await getWorkflowRun(sql, runId, ALL))?.status, "COMPLETED_WITH_ERRORS");
});

Deno.test("an overdue gate gets its default outcome", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const timeout = { afterMs: 3_600_000, outcome: "SUCCEEDED", output: { assumed: true } } as const;
  const { runId } = await enqueueWorkflowRun(sql, run([gate("g", [], { timeout }), job("b", ["g"])]));
  assert.equal(await expireWorkflowGates(sql), 0);
  await sql`update runledger.workflow_steps set gate_expires_at = clock_timestamp() where run_id = ${runId} and
    gate_expires_at is not null`;
  const expired = await Promise.all([expireWorkflowGates(sql), expireWorkflowGates(sql)]);
  assert.equal(expired[0] + expired[1], 1);
  const [b] = await claim(sql);
  assert.deepEqual({ ...b?.workflow?.prerequisites }, { g: { status: "SUCCEEDED", output: { assumed: true } } });
});

Deno.test("steps are appended while a gate is open, once for each key", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const { runId } = await enqueueWorkflowRun(sql, run([job("a"), job("bad"), gate("g"), job("z", ["g"])]));
  await drain(sql, { bad: "fail" });
  const options = {
    scope: "all",
    windowStepKey: "g",
    mutationKey: "found",
    metadata: { pages: 2 },
    steps: [
      job("late", ["early"]),
      job("early", ["a"]),
      job("never", ["bad"]),
      job("nor", ["never"]),
      job("still", ["bad*", "g"]),
      gate("h", ["a"]),
    ],
  } as const;
  await assert.rejects(appendWorkflowSteps(sql, runId, { ...options, steps: [job("a")] }), {
    code: "workflow.invalid_dag_duplicate_step_key",
  });
  await assert.rejects(appendWorkflowSteps(sql, runId, { ...options, steps: [job("x", ["y"])] }), {
    code: "workflow.invalid_dag_missing_dependency",
  });
  await assert.rejects(appendWorkflowSteps(sql, runId, { ...options, windowStepKey: "a" }), {
    code: "workflow.append_window_not_external",
  });
  await assert.rejects(appendWorkflowSteps(sql, runId, { ...options, windowStepKey: "q" }), {
    code: "workflow.append_window_missing",
  });
  await assert.rejects(
    appendWorkflowSteps(sql, runId, { ...options, steps: [job("x", ["zz"]), job("y", ["aa"])] }),
    (error) => {
      assert(isWorkflowBuildError(error));
      const problem = { kind: "missing_dependency", stepKey: "x", prerequisiteStepKey: "zz" };
      assert.deepEqual(error.problem, problem, "a step and what it really waits for");
      return true;
    },
  );
  const both = await Promise.all([1, 2].map(() => appendWorkflowSteps(sql, runId, options)));
  assert.deepEqual(both.map(({ isApplied }) => isApplied).sort(), [false, true]);
  const turned = { ...options, steps: options.steps.toReversed() };
  assert.deepEqual(await appendWorkflowSteps(sql, runId, turned), { isApplied: false }, "in whatever order");
  await assert.rejects(appendWorkflowSteps(sql, runId, { ...options, steps: [job("other")] }), {
    code: "workflow.append_conflicting_retry",
  });
  assert.deepEqual(await statuses(sql, runId), {
    a: "SUCCEEDED",
    bad: "FAILED",
    g: "WAITING_FOR_EXTERNAL",
    z: "BLOCKED",
    early: "ENQUEUED",
    late: "BLOCKED",
    never: "CANCELED",
    nor: "CANCELED",
    still: "BLOCKED",
    h: "WAITING_FOR_EXTERNAL",
  });
  const { items: [mutation] } = await listWorkflowRunMutations(sql, runId, ALL);
  assert.deepEqual([mutation?.mutationKey, mutation?.metadata], ["found", { pages: 2 }]);
  for (const key of ["g", "h"]) {
    await completeExternalStep(sql, runId, key, { scope: "all", completion: { status: "SUCCEEDED" } });
  }
  await drain(sql);
  assert.equal((await getWorkflowRun(sql, runId, ALL))?.status, "COMPLETED_WITH_ERRORS");
  assert.deepEqual(await appendWorkflowSteps(sql, runId, options), { isApplied: false });
  await assert.rejects(appendWorkflowSteps(sql, runId, { ...options, mutationKey: "again", steps: [job("n")] }), {
    code: "workflow.append_terminal_run",
  });
});

Deno.test("cancelling a run ends its steps and jobs and releases nothing", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const { runId } = await enqueueWorkflowRun(
    sql,
    run([job("done"), job("busy", ["done"]), job("queued", ["done"]), gate("g"), job("z", ["busy*", "g*"])]),
  );
  const [done] = await claim(sql);
  assert(done !== undefined);
  await settleJob(sql, done, { kind: "succeeded" });
  const [busy] = await claim(sql, 1);
  assert(busy !== undefined);
  const canceled = await cancelWorkflowRun(sql, runId, { scope: "all", reason: "stop", actor: "kim" });
  assert.deepEqual([canceled.isApplied, canceled.status], [true, "CANCELED"]);
  assert(canceled.leaseQuiescesAt !== undefined);
  await assert.rejects(settleJob(sql, busy, { kind: "succeeded" }), { code: "job.lease_owner_mismatch" });
  const after = await statuses(sql, runId);
  assert.equal(after["done"], "SUCCEEDED");
  assert.deepEqual(new Set(["busy", "queued", "g", "z"].map((key) => after[key])), new Set(["CANCELED"]));
  assert.deepEqual(await claim(sql), []);
  assert.equal((await cancelWorkflowRun(sql, runId, ALL)).isApplied, false);
  await assert.rejects(
    cancelWorkflowRun(sql, runId, { scope: "global" }).then(() =>
      cancelWorkflowRun(sql, runId, { scope: { organizationId: "0197a000-0000-7000-8000-000000000001" } })
    ),
    { code: "workflow.run_not_found" },
  );
  const ended = await enqueueWorkflowRun(sql, run([job("a")]));
  await drain(sql);
  assert.deepEqual(await cancelWorkflowRun(sql, ended.runId, ALL), { isApplied: false, status: "SUCCEEDED" });
});

Deno.test("cancelling the job of a step takes the step with it and moves the run on", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const { runId } = await enqueueWorkflowRun(sql, run([job("a"), job("b", ["a"]), job("c", ["a*"])]));
  const [a] = await claim(sql);
  assert(a !== undefined);
  await cancelJob(sql, a.jobId, { scope: "all", reason: "wrong" });
  assert.deepEqual(await statuses(sql, runId), { a: "CANCELED", b: "CANCELED", c: "ENQUEUED" });
});

Deno.test("the job of a step is neither requeued nor replayed, and continues only where that is allowed", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  await enqueueWorkflowRun(sql, run([job("a"), job("b", [], { allowsContinuation: true })]));
  const jobs = await claim(sql);
  const a = jobs.find(({ workflow }) => workflow?.stepKey === "a");
  const b = jobs.find(({ workflow }) => workflow?.stepKey === "b");
  assert(a !== undefined && b !== undefined);
  await assert.rejects(settleJob(sql, a, { kind: "continued" }), {
    code: "job.workflow_handler_continuation_not_enabled",
  });
  assert.equal((await settleJob(sql, b, { kind: "continued" })).status, "PENDING");
  await settleJob(sql, a, { kind: "succeeded" });
  await assert.rejects(replayJob(sql, a.jobId, { scope: "all", replayKey: "k" }), {
    code: "job.workflow_requeue_not_supported",
  });
  await assert.rejects(
    requeueJob(sql, a.jobId, { scope: "all", expectedStatus: "CANCELED", expectedRunNumber: 1 }),
    { code: "job.workflow_requeue_not_supported" },
  );
});

Deno.test("an ended run is replayed whole or resumed from where it failed, with lineage", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const { runId } = await enqueueWorkflowRun(
    sql,
    run([job("a"), job("b", ["a"]), job("c", ["b"]), gate("g", ["c"])], { resultStepKey: "c" }),
  );
  const resume = { scope: "all", recoveryKey: "r1", mode: "RESUME" } as const;
  await assert.rejects(recoverWorkflowRun(sql, runId, resume), { code: "workflow.recovery_source_not_terminal" });
  assert.deepEqual(await drain(sql, { b: "fail" }), ["a", "b"]);
  const storm = await Promise.all(Array.from({ length: 8 }, () => recoverWorkflowRun(sql, runId, resume)));
  assert.equal(new Set(storm.map((one) => one.runId)).size, 1);
  assert.equal(storm.filter(({ disposition }) => disposition === "inserted").length, 1);
  const resumed = storm[0]?.runId ?? "";
  assert.deepEqual(await statuses(sql, resumed), { a: "SUCCEEDED", b: "ENQUEUED", c: "BLOCKED", g: "BLOCKED" });
  const [b] = await claim(sql);
  assert.deepEqual({ ...b?.workflow?.prerequisites }, { a: { status: "SUCCEEDED", output: { of: "a" } } });
  assert(b !== undefined);
  await settleJob(sql, b, { kind: "succeeded" });
  assert.deepEqual(await drain(sql), ["c"]);
  await completeExternalStep(sql, resumed, "g", { scope: "all", completion: { status: "SUCCEEDED" } });
  assert.deepEqual(await getWorkflowResult(sql, resumed, ALL), { of: "c" });
  const stored = await getWorkflowRun(sql, resumed, ALL);
  assert.deepEqual([stored?.recoveryOfRunId, stored?.recoveryMode], [runId, "RESUME"]);
  await assert.rejects(recoverWorkflowRun(sql, resumed, resume), { code: "workflow.recovery_nothing_to_resume" });
  await assert.rejects(recoverWorkflowRun(sql, runId, { ...resume, mode: "REPLAY" }), {
    code: "workflow.recovery_request_conflict",
  });
  const replay = await recoverWorkflowRun(sql, runId, { scope: "all", recoveryKey: "r2", mode: "REPLAY" });
  assert.deepEqual(await drain(sql), ["a", "b", "c"]);
  assert.equal((await statuses(sql, replay.runId))["g"], "WAITING_FOR_EXTERNAL");
});

Deno.test("a fan-in of 1,000 siblings that finish at once from several connections releases its join once", async () => {
  await using database = await openTestDatabase({ max: 6 });
  const { sql } = database;
  const keys = Array.from({ length: 1000 }, (_, n) => `s${n}`);
  const { runId } = await enqueueWorkflowRun(sql, run([...keys.map((key) => job(key)), job("join", keys)]));
  const jobs = await claim(sql, 1000);
  assert.equal(jobs.length, 1000);
  await Promise.all(Array.from({ length: 20 }, async (_, n) => {
    const batch = jobs.filter((_, index) => index % 20 === n);
    const results = await settleJobs(sql, batch.map((lease) => ({ lease, outcome: { kind: "succeeded" } })));
    assert(results.every(({ settled }) => settled));
  }));
  const [join, ...others] = await claim(sql);
  assert.deepEqual([join?.workflow?.stepKey, others.length], ["join", 0]);
  assert.equal(Object.keys(join?.workflow?.prerequisites ?? {}).length, 1000);
  assert(join !== undefined);
  await settleJob(sql, join, { kind: "succeeded" });
  assert.equal((await getWorkflowRun(sql, runId, ALL))?.status, "SUCCEEDED");
});

Deno.test("retention takes an ended run with all that belongs to it, and leaves live ones whole", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const ended = await enqueueWorkflowRun(sql, run([job("a"), job("b", ["a"])]));
  await drain(sql);
  const live = await enqueueWorkflowRun(sql, run([job("a"), gate("g", ["a"])]));
  await drain(sql);
  const keyed = await enqueueWorkflowRun(sql, run([job("a")], { idempotencyKey: "k" }));
  await drain(sql);
  assert.equal(await deleteFinishedJobs(sql, { olderThanMs: 0 }), 0);
  assert.equal(await deleteFinishedWorkflowRuns(sql, { olderThanMs: 3_600_000 }), 0);
  assert.equal(await deleteFinishedWorkflowRuns(sql, { olderThanMs: 0 }), 1);
  assert.equal(await getWorkflowRun(sql, ended.runId, ALL), undefined);
  assert(await getWorkflowRun(sql, live.runId, ALL) !== undefined);
  assert(await getWorkflowRun(sql, keyed.runId, ALL) !== undefined);
  assert.equal(await deleteFinishedWorkflowRuns(sql, { olderThanMs: 0, expiresIdempotencyKeys: true }), 1);
});

Deno.test("a run is enqueued and a step is finished inside the caller's transaction, or not at all", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const undo = new Error("undo");
  await assert.rejects(
    sql.begin(async (tx) => {
      await enqueueWorkflowRun(tx, run([job("a")]));
      throw undo;
    }),
    undo,
  );
  assert.deepEqual(await claim(sql), []);
  const { runId } = await enqueueWorkflowRun(sql, run([job("a"), job("b", ["a"])]));
  const [a] = await claim(sql);
  assert(a !== undefined);
  await assert.rejects(
    sql.begin(async (tx) => {
      await settleJob(tx, a, { kind: "succeeded" });
      throw undo;
    }),
    undo,
  );
  assert.deepEqual(await statuses(sql, runId), { a: "RUNNING", b: "BLOCKED" });
  await sql.begin(async (tx) => await settleJob(tx, a, { kind: "succeeded" }));
  assert.deepEqual(await statuses(sql, runId), { a: "SUCCEEDED", b: "ENQUEUED" });
});
