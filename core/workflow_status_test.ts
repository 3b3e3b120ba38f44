/// <reference lib="deno.ns" />
import assert from "node:assert/strict";
import fc from "fast-check";
import {
  isReleaseMode,
  isStepExecutionKind,
  isTerminalWorkflowRunStatus,
  isTerminalWorkflowStepStatus,
  isWorkflowRunStatus,
  isWorkflowStepStatus,
  RELEASE_MODES,
  STEP_EXECUTION_KINDS,
  TERMINAL_WORKFLOW_RUN_STATUSES,
  TERMINAL_WORKFLOW_STEP_STATUSES,
  WORKFLOW_RUN_STATUSES,
  WORKFLOW_RUN_TRANSITIONS,
  WORKFLOW_STEP_STATUSES,
  WORKFLOW_STEP_TRANSITIONS,
  workflowRunStatus,
} from "./workflow_status.ts";
import type { WorkflowRunStatus, WorkflowStepStatus } from "./workflow_status.ts";

const anyStatuses = fc.array(fc.constantFrom(...WORKFLOW_STEP_STATUSES), { minLength: 1, maxLength: 12 });

Deno.test("the status of a run follows from its steps", () => {
  const cases: readonly (readonly [readonly WorkflowStepStatus[], WorkflowRunStatus])[] = [
    [["BLOCKED"], "RUNNING"],
    [["ENQUEUED"], "RUNNING"],
    [["RUNNING"], "RUNNING"],
    [["WAITING_FOR_EXTERNAL", "BLOCKED"], "RUNNING"],
    [["WAITING_FOR_EXTERNAL", "ENQUEUED", "FAILED"], "RUNNING"],
    [["WAITING_FOR_EXTERNAL"], "WAITING_FOR_EXTERNAL"],
    [["WAITING_FOR_EXTERNAL", "FAILED", "CANCELED", "SUCCEEDED"], "WAITING_FOR_EXTERNAL"],
    [["FAILED", "SUCCEEDED"], "COMPLETED_WITH_ERRORS"],
    [["SUCCEEDED", "CANCELED"], "COMPLETED_WITH_ERRORS"],
    [["CANCELED"], "COMPLETED_WITH_ERRORS"],
    [["SUCCEEDED", "SUCCEEDED"], "SUCCEEDED"],
  ];
  for (const [steps, status] of cases) assert.equal(workflowRunStatus(steps), status, steps.join());
  assert.throws(() => workflowRunStatus([]), RangeError);
});

Deno.test("the status of a run does not depend on the order of its steps, and is terminal exactly when they all are", () => {
  fc.assert(fc.property(anyStatuses, fc.infiniteStream(fc.nat()), (steps, keys) => {
    const status = workflowRunStatus(steps);
    const shuffled = steps.map((step) => [keys.next().value, step] as const).sort(([a], [b]) => a - b);
    assert.equal(workflowRunStatus(shuffled.map(([, step]) => step)), status);
    assert.equal(isTerminalWorkflowRunStatus(status), steps.every(isTerminalWorkflowStepStatus));
    assert.notEqual(status, "CANCELED");
  }));
});

Deno.test("when one step takes an allowed step of its life, so does the run, or it stays", () => {
  fc.assert(fc.property(anyStatuses, fc.nat(), fc.nat(), (steps, at, choice) => {
    const index = at % steps.length;
    const next = WORKFLOW_STEP_TRANSITIONS[steps[index] as WorkflowStepStatus];
    fc.pre(next.length > 0);
    const before = workflowRunStatus(steps);
    const after = workflowRunStatus(steps.with(index, next[choice % next.length] as WorkflowStepStatus));
    assert(before === after || WORKFLOW_RUN_TRANSITIONS[before].includes(after), `${before} -> ${after}`);
  }));
});

Deno.test("terminal statuses are those that nothing follows", () => {
  const dead = <Status extends string>(transitions: Readonly<Record<Status, readonly Status[]>>) =>
    (Object.keys(transitions) as Status[]).filter((status) => transitions[status].length === 0);
  assert.deepEqual(dead(WORKFLOW_RUN_TRANSITIONS), TERMINAL_WORKFLOW_RUN_STATUSES);
  assert.deepEqual(dead(WORKFLOW_STEP_TRANSITIONS), TERMINAL_WORKFLOW_STEP_STATUSES);
  assert.deepEqual(Object.keys(WORKFLOW_RUN_TRANSITIONS), WORKFLOW_RUN_STATUSES);
  assert.deepEqual(Object.keys(WORKFLOW_STEP_TRANSITIONS), WORKFLOW_STEP_STATUSES);
});

Deno.test("guards accept their own values only", () => {
  const guards: readonly (readonly [(value: unknown) => boolean, readonly string[]])[] = [
    [isWorkflowRunStatus, WORKFLOW_RUN_STATUSES],
    [isWorkflowStepStatus, WORKFLOW_STEP_STATUSES],
    [isStepExecutionKind, STEP_EXECUTION_KINDS],
    [isReleaseMode, RELEASE_MODES],
  ];
  for (const [guard, values] of guards) {
    for (const value of values) assert(guard(value), value);
    for (const value of ["PAUSED", "running", "", null, undefined, 0, [values[0]]]) {
      assert(!guard(value), String(value));
    }
  }
});
