/// <reference lib="deno.ns" />
import assert from "node:assert/strict";
import { ERROR_CODES } from "./error_catalogue.ts";
import { isRunledgerError, RunledgerError } from "./errors.ts";
import { isWorkflowBuildError, WorkflowBuildError } from "./workflow_build_error.ts";
import type { WorkflowBuildProblem } from "./workflow_build_error.ts";

const stepKey = "charge";

/** One of each kind: a missing one does not compile. */
const PROBLEMS: { readonly [Kind in WorkflowBuildProblem["kind"]]: Extract<WorkflowBuildProblem, { kind: Kind }> } = {
  blank_workflow_type: { kind: "blank_workflow_type" },
  blank_idempotency_key: { kind: "blank_idempotency_key" },
  blank_active_key: { kind: "blank_active_key" },
  blank_result_step_key: { kind: "blank_result_step_key" },
  blank_step_key: { kind: "blank_step_key", stepIndex: 2 },
  blank_job_type: { kind: "blank_job_type", stepKey },
  blank_dependency_step_key: { kind: "blank_dependency_step_key", stepKey },
  name_too_long: { kind: "name_too_long", field: "jobType", maxBytes: 255, stepKey },
  invalid_name: { kind: "invalid_name", field: "activeKey", problem: "must be a string" },
  empty_steps: { kind: "empty_steps" },
  duplicate_step: { kind: "duplicate_step", stepKey },
  unknown_step: { kind: "unknown_step", stepKey },
  missing_dependency: { kind: "missing_dependency", stepKey, prerequisiteStepKey: "fetchh" },
  self_dependency: { kind: "self_dependency", stepKey },
  duplicate_dependency: { kind: "duplicate_dependency", stepKey, prerequisiteStepKey: "fetch" },
  cycle: { kind: "cycle", stepKeys: ["fetch", "charge", "refund"] },
  unknown_result_step: { kind: "unknown_result_step", stepKey },
  non_positive_setting: { kind: "non_positive_setting", stepKey, setting: "maxAttempts" },
  invalid_setting: { kind: "invalid_setting", setting: "priority", problem: "must be a 32-bit integer", stepKey },
  unknown_field: { kind: "unknown_field", field: "idempotencykey" },
  external_job_type_not_allowed: { kind: "external_job_type_not_allowed", stepKey },
  external_queue_setting_not_allowed: { kind: "external_queue_setting_not_allowed", stepKey, setting: "stage" },
  invalid_gate_timeout: { kind: "invalid_gate_timeout", stepKey, field: "timeout.afterMs", problem: "must be 1" },
  request_setting_not_allowed: { kind: "request_setting_not_allowed", stepKey, setting: "nextRunAt" },
  invalid_payload: { kind: "invalid_payload", stepKey, path: "$.price", problem: "a number must be finite" },
  invalid_metadata: { kind: "invalid_metadata", path: "$.price", problem: "a number must be finite" },
};

Deno.test("each problem has a code of its own and a text that names the keys it is about", () => {
  const codes = new Set<string>();
  for (const problem of Object.values(PROBLEMS)) {
    const error = new WorkflowBuildError(problem);
    codes.add(error.code);
    assert.equal(error.category, "validation");
    assert.equal(error.problem, problem);
    assert.equal(error.details?.problem, problem.kind);
    assert(error.message.startsWith("The workflow cannot be: ") && error.message.endsWith("."), error.message);
    if ("stepKey" in problem) {
      assert(error.message.includes('"charge"'), error.message);
      assert.equal(error.details?.stepKey, "charge");
    }
    if ("prerequisiteStepKey" in problem) {
      assert(error.message.includes(`"${problem.prerequisiteStepKey}"`), error.message);
      assert.equal(error.details?.prerequisiteStepKey, problem.prerequisiteStepKey);
    }
  }
  assert.equal(codes.size, Object.keys(PROBLEMS).length);
  codes.add(
    new WorkflowBuildError({ kind: "non_positive_setting", stepKey, setting: "timeoutSeconds" }).code,
  );
  assert.deepEqual([...codes].sort(), ERROR_CODES.filter((code) => code.startsWith("workflow.invalid_dag")).toSorted());
});

Deno.test("texts say what is wrong in plain words", () => {
  const texts = Object.values(PROBLEMS).map((problem) =>
    new WorkflowBuildError(problem).message.slice("The workflow cannot be: ".length)
  );
  assert.deepEqual(texts, [
    "its workflow type must not be blank.",
    "its idempotency key must not be blank.",
    "its active key must not be blank.",
    "the key of its result step must not be blank.",
    "the key of step 3 must not be blank.",
    'the job type of step "charge" must not be blank.',
    'a key that step "charge" waits for must not be blank.',
    'jobType of step "charge" must take at most 255 bytes of UTF-8.',
    "activeKey must be a string.",
    "it needs at least one step.",
    'there is more than one step "charge".',
    'step "charge" must be declared before what it waits for.',
    'step "charge" waits for "fetchh", which is not a step of it.',
    'step "charge" waits for itself.',
    'step "charge" waits for "fetch" more than once.',
    'its steps wait for each other in a circle, "fetch" -> "charge" -> "refund" -> "fetch".',
    'its result step "charge" is not a step of it.',
    'maxAttempts of step "charge" must be at least 1.',
    'priority of step "charge" must be a 32-bit integer.',
    '"idempotencykey" is not a field that it can have.',
    'step "charge" is external, so it has no job type.',
    'step "charge" is external, so it has no stage.',
    'timeout.afterMs of step "charge" must be 1.',
    'the job request of step "charge" must not have nextRunAt, since its prerequisites decide when it starts.',
    'the payload of step "charge" cannot be stored as JSON: at $.price, a number must be finite.',
    "its metadata cannot be stored as JSON: at $.price, a number must be finite.",
  ]);
});

Deno.test("huge keys and circles are cut for people and clients, and whole in the problem", () => {
  const stepKeys = Array.from({ length: 5000 }, (_, index) => `${index}${"x".repeat(500)}`);
  const error = new WorkflowBuildError({ kind: "cycle", stepKeys });
  assert(error.message.length < 2500);
  assert(JSON.stringify(error).length < 5000);
  assert(error.message.includes("4980 more"));
  assert.equal(error.details?.cycleLength, 5000);
  assert.deepEqual(error.problem, { kind: "cycle", stepKeys });
  const emoji = new WorkflowBuildError({ kind: "self_dependency", stepKey: "x" + "📨".repeat(100) });
  assert(emoji.message.isWellFormed() && String(emoji.details?.stepKey).isWellFormed());
});

Deno.test("a build error is a RunledgerError, and is told apart from others", () => {
  const error: unknown = new WorkflowBuildError({ kind: "empty_steps" });
  assert(error instanceof RunledgerError);
  assert(isRunledgerError(error, "workflow.invalid_dag_empty") && isWorkflowBuildError(error));
  assert.deepEqual(JSON.parse(JSON.stringify(error)), {
    name: "RunledgerError",
    code: "workflow.invalid_dag_empty",
    category: "validation",
    message: "The workflow cannot be: it needs at least one step.",
    details: { problem: "empty_steps" },
  });
  for (const other of [new RunledgerError("workflow.run_not_found"), new Error("x"), null, "x"]) {
    assert(!isWorkflowBuildError(other));
  }
});
