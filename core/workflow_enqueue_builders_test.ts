/// <reference lib="deno.ns" />
import assert from "node:assert/strict";
import type { WorkflowRunRequest, WorkflowStepRequest } from "./workflow_run.ts";
import { WorkflowRunEnqueueBuilder } from "./workflow_run_enqueue_builder.ts";
import type { WorkflowRunSetting } from "./workflow_run_enqueue_builder.ts";
import { WorkflowStepEnqueueBuilder } from "./workflow_step_enqueue_builder.ts";
import type { WorkflowStepSetting } from "./workflow_step_enqueue_builder.ts";

const organizationId = "0191d8a0-7c1e-7c3b-8f6a-1b2c3d4e5f60";

const bareJob = WorkflowStepEnqueueBuilder.job("a", "work", 1);
const bareGate = WorkflowStepEnqueueBuilder.external("g");

/** Each setting: set on a step that can have it, with the data that it leads to. */
const STEP_SETTINGS: Readonly<
  Record<WorkflowStepSetting, readonly [WorkflowStepEnqueueBuilder, Readonly<Record<string, unknown>>]>
> = {
  organization: [bareJob.organization(organizationId), { organizationId }],
  priority: [bareJob.priority(-3), { priority: -3 }],
  maxAttempts: [bareJob.maxAttempts(7), { maxAttempts: 7 }],
  timeoutSeconds: [bareJob.timeoutSeconds(60), { timeoutSeconds: 60 }],
  stage: [bareJob.stage("scheduled"), { stage: "scheduled" }],
  allowContinuation: [bareJob.allowContinuation(), { allowsContinuation: true }],
  gateTimeout: [bareGate.gateTimeout({ afterMs: 9, outcome: "CANCELED" }), {
    timeout: { afterMs: 9, outcome: "CANCELED" },
  }],
};

Deno.test("every setting of a step can be set, replaced and cleared", () => {
  for (const [setting, [builder, fields]] of Object.entries(STEP_SETTINGS)) {
    const bare = setting === "gateTimeout" ? bareGate.build() : bareJob.build();
    assert.deepEqual(builder.build(), { ...bare, ...fields });
    assert.deepEqual(builder.clear(setting as WorkflowStepSetting).build(), bare);
    // Clearing another one, or one that was not set, does nothing.
    const other = setting === "priority" ? "stage" : "priority";
    assert.deepEqual(builder.clear(other).build(), builder.build());
  }
  assert.deepEqual(bareJob.priority(1).priority(2).build(), { ...bareJob.build(), priority: 2 });
  const all = bareJob.priority(1).stage("scheduled").maxAttempts(2);
  assert.deepEqual(all.clear("priority", "stage").build(), { ...bareJob.build(), maxAttempts: 2 });
  assert.deepEqual(bareJob.allowContinuation(false).build(), { ...bareJob.build(), allowsContinuation: false });
});

Deno.test("dependencies are added in the order of the calls, or replaced", () => {
  const modes = (step: WorkflowStepRequest) =>
    step.dependencies.map((edge) => `${edge.prerequisiteStepKey} ${edge.releaseMode}`);
  const builder = bareJob
    .dependsOnSuccess(["x", "y"])
    .dependsOnTerminal(new Set(["z"]))
    .dependency({ prerequisiteStepKey: "w", releaseMode: "ON_SUCCESS" });
  assert.deepEqual(modes(builder.build()), ["x ON_SUCCESS", "y ON_SUCCESS", "z ON_TERMINAL", "w ON_SUCCESS"]);
  const replaced = builder.setDependencies([{ prerequisiteStepKey: "v", releaseMode: "ON_TERMINAL" }]);
  assert.deepEqual(modes(replaced.build()), ["v ON_TERMINAL"]);
  assert.deepEqual(modes(builder.setDependencies([]).build()), []);
  assert.deepEqual(modes(bareJob.build()), []);
  assert.throws(() => bareJob.dependsOnSuccess("fetch"), TypeError);
});

Deno.test("a step is checked by itself when it is built, not before", () => {
  const cases: readonly (readonly [WorkflowStepEnqueueBuilder, string])[] = [
    [WorkflowStepEnqueueBuilder.job(" ", "work", null), "workflow.invalid_dag_step_key_blank"],
    [WorkflowStepEnqueueBuilder.job("a", " ", null), "workflow.invalid_dag_job_type_blank"],
    [WorkflowStepEnqueueBuilder.external(""), "workflow.invalid_dag_step_key_blank"],
    [bareJob.maxAttempts(0), "workflow.invalid_dag_step_max_attempts_non_positive"],
    [bareJob.timeoutSeconds(0), "workflow.invalid_dag_step_timeout_seconds_non_positive"],
    [bareJob.priority(NaN), "workflow.invalid_dag_setting_invalid"],
    [bareGate.priority(1), "workflow.invalid_dag_external_step_queue_settings_not_allowed"],
    [bareGate.allowContinuation(), "workflow.invalid_dag_external_step_queue_settings_not_allowed"],
    [bareJob.gateTimeout({ afterMs: 1, outcome: "FAILED" }), "workflow.invalid_dag_unknown_field"],
    [bareGate.gateTimeout({ afterMs: 0, outcome: "FAILED" }), "workflow.invalid_dag_gate_timeout_invalid"],
  ];
  for (const [builder, code] of cases) assert.throws(() => builder.build(), { code });
  // What it waits for is checked with the run.
  assert.equal(bareJob.dependsOnSuccess(["nowhere"]).build().dependencies.length, 1);
});

const bareRun = new WorkflowRunEnqueueBuilder("any", { source: "test" }).step(bareJob.build());

const RUN_SETTINGS: Readonly<
  Record<WorkflowRunSetting, readonly [WorkflowRunEnqueueBuilder, Partial<WorkflowRunRequest>]>
> = {
  organization: [bareRun.organization(organizationId), { organizationId }],
  idempotencyKey: [bareRun.idempotencyKey("k"), { idempotencyKey: "k" }],
  activeKey: [bareRun.activeKey("k"), { activeKey: "k" }],
  resultStep: [bareRun.resultStep("a"), { resultStepKey: "a" }],
};

Deno.test("every setting of a run can be set and cleared", () => {
  const bare = { workflowType: "any", metadata: { source: "test" }, steps: [bareJob.build()] };
  assert.deepEqual(bareRun.build(), bare);
  for (const [setting, [builder, fields]] of Object.entries(RUN_SETTINGS)) {
    assert.deepEqual(builder.build(), { ...bare, ...fields });
    assert.deepEqual(builder.clear(setting as WorkflowRunSetting).build(), bare);
  }
  const all = bareRun.organization(organizationId).idempotencyKey("k").activeKey("k").resultStep("a");
  assert.deepEqual(all.clear("organization", "idempotencyKey", "activeKey", "resultStep").build(), bare);
});

Deno.test("steps are added in order or replaced, and older builders stay as they are", () => {
  const keys = (builder: WorkflowRunEnqueueBuilder) => builder.build().steps.map((step) => step.stepKey);
  const gates = (...names: readonly string[]) => names.map((name) => WorkflowStepEnqueueBuilder.external(name).build());
  const [b, c, d] = [bareRun.extendSteps(gates("b")), bareRun.extendSteps(gates("c", "d")), bareRun];
  assert.deepEqual(keys(b), ["a", "b"]);
  assert.deepEqual(keys(c), ["a", "c", "d"]);
  assert.deepEqual(keys(d), ["a"]);
  assert.deepEqual(keys(c.setSteps(gates("z"))), ["z"]);
  assert.deepEqual(keys(c), ["a", "c", "d"]);
});

Deno.test("a run is checked as a whole when it is built, not before", () => {
  assert.throws(() => new WorkflowRunEnqueueBuilder("any").build(), { code: "workflow.invalid_dag_empty" });
  assert.throws(() => new WorkflowRunEnqueueBuilder(" ").step(bareJob.build()).build(), {
    code: "workflow.invalid_dag_workflow_type_blank",
  });
  assert.throws(() => bareRun.step(bareJob.build()).build(), { code: "workflow.invalid_dag_duplicate_step_key" });
  assert.throws(() => bareRun.resultStep("b").build(), { code: "workflow.invalid_dag_unknown_result_step" });
  const waiting = WorkflowStepEnqueueBuilder.external("w").dependsOnTerminal(["later"]).build();
  assert.throws(() => bareRun.step(waiting).build(), { code: "workflow.invalid_dag_missing_dependency" });
  const later = WorkflowStepEnqueueBuilder.external("later").build();
  assert.equal(bareRun.step(waiting).step(later).build().steps.length, 3);
});
