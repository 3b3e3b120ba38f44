/**
 * The state machines of a workflow run and of its steps: statuses, what each means, and which may follow which.
 *
 * @module
 */

/**
 * Where a workflow run stands. All but `CANCELED` follow from its steps, see {@linkcode workflowRunStatus}.
 *
 * - `RUNNING`: a step is at work, or waits for one that is not a gate alone.
 * - `WAITING_FOR_EXTERNAL`: nothing is left to happen by itself; open gates wait for an answer.
 * - `SUCCEEDED`: every step succeeded. Terminal.
 * - `COMPLETED_WITH_ERRORS`: every step ended, and one or more of them failed or were canceled. Terminal.
 * - `CANCELED`: somebody called the run off. Terminal, and never overwritten by what its steps do later.
 */
export type WorkflowRunStatus = "RUNNING" | "WAITING_FOR_EXTERNAL" | "SUCCEEDED" | "COMPLETED_WITH_ERRORS" | "CANCELED";

/** Every {@linkcode WorkflowRunStatus}, in the order of a run's life. */
export const WORKFLOW_RUN_STATUSES: readonly WorkflowRunStatus[] = [
  "RUNNING",
  "WAITING_FOR_EXTERNAL",
  "SUCCEEDED",
  "COMPLETED_WITH_ERRORS",
  "CANCELED",
];

/** Which statuses may follow each status of a run. The database refuses every other change. */
export const WORKFLOW_RUN_TRANSITIONS: Readonly<Record<WorkflowRunStatus, readonly WorkflowRunStatus[]>> = {
  /** Its steps end, or only gates are left, or it is called off. */
  RUNNING: ["WAITING_FOR_EXTERNAL", "SUCCEEDED", "COMPLETED_WITH_ERRORS", "CANCELED"],
  /** A gate is answered, or steps are appended while one is open. */
  WAITING_FOR_EXTERNAL: ["RUNNING", "SUCCEEDED", "COMPLETED_WITH_ERRORS", "CANCELED"],
  /** Never changes again. */
  SUCCEEDED: [],
  /** Never changes again: recovery makes a new run. */
  COMPLETED_WITH_ERRORS: [],
  /** Never changes again: recovery makes a new run. */
  CANCELED: [],
};

/** The statuses of a run in which nothing is left to happen. */
export const TERMINAL_WORKFLOW_RUN_STATUSES: readonly WorkflowRunStatus[] = [
  "SUCCEEDED",
  "COMPLETED_WITH_ERRORS",
  "CANCELED",
];

/**
 * Where a step of a workflow run stands.
 *
 * - `BLOCKED`: a prerequisite has not ended yet.
 * - `WAITING_FOR_EXTERNAL`: an open gate. Only steps of kind `EXTERNAL`.
 * - `ENQUEUED`: its job waits for a worker, at first or after a retry or continuation. Only steps of kind `JOB`.
 * - `RUNNING`: a worker holds its job. Only steps of kind `JOB`. The database stores `ENQUEUED` from the release of such a
 *   step to its end, since claims do not touch steps; reads report `RUNNING` while the job is leased.
 * - `SUCCEEDED`: its job succeeded, or its gate was completed so. Terminal.
 * - `FAILED`: its job was dead-lettered, or its gate was completed so. Terminal.
 * - `CANCELED`: it, its job or its run was called off, or a prerequisite that it needed did not succeed. Terminal.
 */
export type WorkflowStepStatus =
  | "BLOCKED"
  | "WAITING_FOR_EXTERNAL"
  | "ENQUEUED"
  | "RUNNING"
  | "SUCCEEDED"
  | "FAILED"
  | "CANCELED";

/** Every {@linkcode WorkflowStepStatus}, in the order of a step's life. */
export const WORKFLOW_STEP_STATUSES: readonly WorkflowStepStatus[] = [
  "BLOCKED",
  "WAITING_FOR_EXTERNAL",
  "ENQUEUED",
  "RUNNING",
  "SUCCEEDED",
  "FAILED",
  "CANCELED",
];

/**
 * Which statuses may follow each status of a step, as reads report them. Without the passage through `RUNNING`, which is
 * never stored, these are the changes that the database allows.
 */
export const WORKFLOW_STEP_TRANSITIONS: Readonly<Record<WorkflowStepStatus, readonly WorkflowStepStatus[]>> = {
  /** Released by its last prerequisite, or called off by it. */
  BLOCKED: ["WAITING_FOR_EXTERNAL", "ENQUEUED", "CANCELED"],
  /** Completed from outside, by its timeout, or called off. */
  WAITING_FOR_EXTERNAL: ["SUCCEEDED", "FAILED", "CANCELED"],
  /** Claimed; or, as stored, ended: there the time under lease is part of it. */
  ENQUEUED: ["RUNNING", "SUCCEEDED", "FAILED", "CANCELED"],
  /** Ended; or back by retry, continuation, snooze, release of an unstarted claim, or the reaper. */
  RUNNING: ["ENQUEUED", "SUCCEEDED", "FAILED", "CANCELED"],
  /** Never changes again. */
  SUCCEEDED: [],
  /** Never changes again. */
  FAILED: [],
  /** Never changes again. */
  CANCELED: [],
};

/** How a step can have ended. */
export type TerminalWorkflowStepStatus = "SUCCEEDED" | "FAILED" | "CANCELED";

/** The statuses of a step in which nothing is left to happen. */
export const TERMINAL_WORKFLOW_STEP_STATUSES: readonly TerminalWorkflowStepStatus[] = [
  "SUCCEEDED",
  "FAILED",
  "CANCELED",
];

/** What carries a step out: `JOB`, a job of the queue, or `EXTERNAL`, a gate that waits to be completed from outside. */
export type StepExecutionKind = "JOB" | "EXTERNAL";

/** Every {@linkcode StepExecutionKind}. */
export const STEP_EXECUTION_KINDS: readonly StepExecutionKind[] = ["JOB", "EXTERNAL"];

/**
 * What a step asks of a prerequisite. Either way it waits until all of its prerequisites have ended.
 *
 * - `ON_TERMINAL`: that it ended, no matter how.
 * - `ON_SUCCESS`: that it succeeded. Otherwise the step becomes `CANCELED`, with the reason
 *   `workflow.dependency_unsatisfied`, and so on through its own dependents.
 */
export type ReleaseMode = "ON_TERMINAL" | "ON_SUCCESS";

/** Every {@linkcode ReleaseMode}. */
export const RELEASE_MODES: readonly ReleaseMode[] = ["ON_TERMINAL", "ON_SUCCESS"];

/**
 * Tells the status of a run from the statuses of its steps.
 *
 * Any step `BLOCKED`, `ENQUEUED` or `RUNNING`: the run is `RUNNING`. Otherwise any `WAITING_FOR_EXTERNAL`: that. Otherwise
 * any `FAILED` or `CANCELED`: `COMPLETED_WITH_ERRORS`. Otherwise `SUCCEEDED`. `CANCELED` is never the answer: only
 * cancelling the run itself makes it so.
 *
 * @param stepStatuses The status of each of its steps, in any order.
 * @returns The status of a run that nobody cancelled.
 * @throws {RangeError} When there are no steps: no run has none.
 *
 * @example
 * ```ts
 * import { workflowRunStatus } from "@runledger/core";
 * import assert from "node:assert/strict";
 *
 * assert.equal(workflowRunStatus(["SUCCEEDED", "WAITING_FOR_EXTERNAL", "BLOCKED"]), "RUNNING");
 * assert.equal(workflowRunStatus(["SUCCEEDED", "WAITING_FOR_EXTERNAL", "FAILED"]), "WAITING_FOR_EXTERNAL");
 * assert.equal(workflowRunStatus(["SUCCEEDED", "CANCELED"]), "COMPLETED_WITH_ERRORS");
 * ```
 */
export function workflowRunStatus(stepStatuses: Iterable<WorkflowStepStatus>): WorkflowRunStatus {
  const seen = new Set(stepStatuses);
  if (seen.size === 0) throw new RangeError("A workflow run has at least one step");
  if (seen.has("BLOCKED") || seen.has("ENQUEUED") || seen.has("RUNNING")) return "RUNNING";
  if (seen.has("WAITING_FOR_EXTERNAL")) return "WAITING_FOR_EXTERNAL";
  return seen.has("FAILED") || seen.has("CANCELED") ? "COMPLETED_WITH_ERRORS" : "SUCCEEDED";
}

/**
 * Says whether a value is the status of a workflow run.
 *
 * @param value Anything.
 * @returns Whether it is one of {@linkcode WORKFLOW_RUN_STATUSES}.
 */
export function isWorkflowRunStatus(value: unknown): value is WorkflowRunStatus {
  return (WORKFLOW_RUN_STATUSES as readonly unknown[]).includes(value);
}

/**
 * Says whether a value is the status of a workflow step.
 *
 * @param value Anything.
 * @returns Whether it is one of {@linkcode WORKFLOW_STEP_STATUSES}.
 */
export function isWorkflowStepStatus(value: unknown): value is WorkflowStepStatus {
  return (WORKFLOW_STEP_STATUSES as readonly unknown[]).includes(value);
}

/**
 * Says whether a value is the execution kind of a workflow step.
 *
 * @param value Anything.
 * @returns Whether it is one of {@linkcode STEP_EXECUTION_KINDS}.
 */
export function isStepExecutionKind(value: unknown): value is StepExecutionKind {
  return (STEP_EXECUTION_KINDS as readonly unknown[]).includes(value);
}

/**
 * Says whether a value is a release mode.
 *
 * @param value Anything.
 * @returns Whether it is one of {@linkcode RELEASE_MODES}.
 */
export function isReleaseMode(value: unknown): value is ReleaseMode {
  return (RELEASE_MODES as readonly unknown[]).includes(value);
}

/**
 * Says whether nothing is left to happen in a run.
 *
 * @param status The status of a run.
 * @returns Whether it is one of {@linkcode TERMINAL_WORKFLOW_RUN_STATUSES}.
 */
export function isTerminalWorkflowRunStatus(status: WorkflowRunStatus): boolean {
  return TERMINAL_WORKFLOW_RUN_STATUSES.includes(status);
}

/**
 * Says whether nothing is left to happen in a step.
 *
 * @param status The status of a step.
 * @returns Whether it is one of {@linkcode TERMINAL_WORKFLOW_STEP_STATUSES}.
 */
export function isTerminalWorkflowStepStatus(status: WorkflowStepStatus): status is TerminalWorkflowStepStatus {
  return (TERMINAL_WORKFLOW_STEP_STATUSES as readonly WorkflowStepStatus[]).includes(status);
}
