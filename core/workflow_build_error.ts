/**
 * What can be wrong with a workflow, each with its own variant and the keys it is about.
 *
 * @module
 */

import type { RunledgerErrorCode } from "./error_code.ts";
import { isRunledgerError, RunledgerError } from "./errors.ts";
import type { RunledgerErrorDetail } from "./errors.ts";

/** A name that a workflow is given. */
export type WorkflowNameField =
  | "workflowType"
  | "stepKey"
  | "jobType"
  | "idempotencyKey"
  | "activeKey"
  | "resultStepKey"
  | "prerequisiteStepKey";

/**
 * What is wrong with a workflow, told apart by `kind`. Step keys are those of the offending step, as they were given.
 *
 * A `switch` over `kind` can be exhaustive; a new variant is a breaking change.
 */
export type WorkflowBuildProblem =
  /** The workflow type is empty or white space. */
  | { readonly kind: "blank_workflow_type" }
  /** The idempotency key is empty or white space. */
  | { readonly kind: "blank_idempotency_key" }
  /** The active key is empty or white space. */
  | { readonly kind: "blank_active_key" }
  /** The key of the result step is empty or white space. */
  | { readonly kind: "blank_result_step_key" }
  /** A step key is empty or white space; `stepIndex` counts declared steps from 0. */
  | { readonly kind: "blank_step_key"; readonly stepIndex?: number }
  /** The job type of a step is empty or white space. */
  | { readonly kind: "blank_job_type"; readonly stepKey: string }
  /** A step waits for a key that is empty or white space. */
  | { readonly kind: "blank_dependency_step_key"; readonly stepKey: string }
  /** A name takes more bytes of UTF-8 than it may. */
  | {
    readonly kind: "name_too_long";
    readonly field: WorkflowNameField;
    readonly maxBytes: number;
    readonly stepKey?: string;
  }
  /** A name is no string, or one that cannot be stored. */
  | {
    readonly kind: "invalid_name";
    readonly field: WorkflowNameField;
    readonly problem: string;
    readonly stepKey?: string;
  }
  /** There are no steps. */
  | { readonly kind: "empty_steps" }
  /** Two steps have one key, or an appended step has that of an earlier one. */
  | { readonly kind: "duplicate_step"; readonly stepKey: string }
  /** A dependency was declared for a step that is not there (yet). */
  | { readonly kind: "unknown_step"; readonly stepKey: string }
  /** A step waits for one that is not there. */
  | { readonly kind: "missing_dependency"; readonly stepKey: string; readonly prerequisiteStepKey: string }
  /** A step waits for itself. */
  | { readonly kind: "self_dependency"; readonly stepKey: string }
  /** A step waits for another one twice, in the same mode or in two. */
  | { readonly kind: "duplicate_dependency"; readonly stepKey: string; readonly prerequisiteStepKey: string }
  /** Steps wait for each other: each key for the one before it, and the first for the last. */
  | { readonly kind: "cycle"; readonly stepKeys: readonly string[] }
  /** The result step is none of the steps. */
  | { readonly kind: "unknown_result_step"; readonly stepKey: string }
  /** A number that has to be positive is not. */
  | {
    readonly kind: "non_positive_setting";
    readonly stepKey: string;
    readonly setting: "maxAttempts" | "timeoutSeconds";
  }
  /** Another setting cannot be. Without a step key it is one of the run. */
  | {
    readonly kind: "invalid_setting";
    readonly setting: string;
    readonly problem: string;
    readonly stepKey?: string;
  }
  /** A field that is not known, perhaps misspelt. Without a step key it is one of the run. */
  | { readonly kind: "unknown_field"; readonly field: string; readonly stepKey?: string }
  /** A gate was given a job type. */
  | { readonly kind: "external_job_type_not_allowed"; readonly stepKey: string }
  /** A gate was given a setting that only jobs have. */
  | { readonly kind: "external_queue_setting_not_allowed"; readonly stepKey: string; readonly setting: string }
  /** The timeout of a gate cannot be. */
  | {
    readonly kind: "invalid_gate_timeout";
    readonly stepKey: string;
    readonly field: string;
    readonly problem: string;
  }
  /** A step's job request asks for what the run decides. */
  | {
    readonly kind: "request_setting_not_allowed";
    readonly stepKey: string;
    readonly setting: "idempotencyKey" | "nextRunAt";
  }
  /** A payload is not JSON. */
  | { readonly kind: "invalid_payload"; readonly stepKey: string; readonly path: string; readonly problem: string }
  /** The metadata is not JSON. */
  | { readonly kind: "invalid_metadata"; readonly path: string; readonly problem: string };

/**
 * A workflow that cannot be. {@linkcode WorkflowBuildError.problem} tells what is wrong with it and where.
 *
 * @example
 * ```ts
 * import { assertWorkflowRunRequest, isWorkflowBuildError } from "@runledger/core";
 * import type { WorkflowStepRequest } from "@runledger/core";
 * import assert from "node:assert/strict";
 *
 * const gate = (stepKey: string, prerequisiteStepKey: string): WorkflowStepRequest => ({
 *   executionKind: "EXTERNAL",
 *   stepKey,
 *   payload: null,
 *   dependencies: [{ prerequisiteStepKey, releaseMode: "ON_SUCCESS" }],
 * });
 *
 * try {
 *   assertWorkflowRunRequest({ workflowType: "deadlock", metadata: null, steps: [gate("a", "b"), gate("b", "a")] });
 *   assert.fail("was accepted");
 * } catch (error) {
 *   assert(isWorkflowBuildError(error));
 *   assert.deepEqual(error.problem, { kind: "cycle", stepKeys: ["a", "b"] });
 *   assert.equal(error.code, "workflow.invalid_dag_cycle");
 * }
 * ```
 */
export class WorkflowBuildError extends RunledgerError {
  /** What is wrong: switch on its `kind`. */
  readonly problem: WorkflowBuildProblem;

  /**
   * Makes the error of one problem.
   *
   * @param problem What is wrong.
   */
  constructor(problem: WorkflowBuildProblem) {
    const [code, text, field] = described(problem);
    super(code, { message: `The workflow cannot be: ${text}.`, details: detailsOf(problem, field) });
    this.problem = problem;
  }
}

/**
 * Says whether a value is a {@linkcode WorkflowBuildError}, also of another copy of this package.
 *
 * @param value Anything that was caught.
 * @returns Whether it is one.
 */
export function isWorkflowBuildError(value: unknown): value is WorkflowBuildError {
  return isRunledgerError(value) && "problem" in value && value.code.startsWith("workflow.invalid_dag_");
}

/** The code, what follows "The workflow cannot be:" without the full stop, and which name it is if the problem does not say. */
type Description = readonly [code: RunledgerErrorCode, text: string, field?: WorkflowNameField];

/** The one place that gives each problem its code and its words. */
function described(problem: WorkflowBuildProblem): Description {
  switch (problem.kind) {
    case "blank_workflow_type":
      return ["workflow.invalid_dag_workflow_type_blank", blank("its workflow type"), "workflowType"];
    case "blank_idempotency_key":
      return ["workflow.invalid_dag_idempotency_key_blank", blank("its idempotency key"), "idempotencyKey"];
    case "blank_active_key":
      return ["workflow.invalid_dag_active_key_blank", blank("its active key"), "activeKey"];
    case "blank_result_step_key":
      return ["workflow.invalid_dag_result_step_key_blank", blank("the key of its result step"), "resultStepKey"];
    case "blank_step_key": {
      const what = problem.stepIndex === undefined ? "a step key" : `the key of step ${problem.stepIndex + 1}`;
      return ["workflow.invalid_dag_step_key_blank", blank(what), "stepKey"];
    }
    case "blank_job_type":
      return ["workflow.invalid_dag_job_type_blank", blank(`the job type${ofStep(problem)}`), "jobType"];
    case "blank_dependency_step_key":
      return [
        "workflow.invalid_dag_dependency_step_key_blank",
        blank(`a key that ${stepOf(problem)} waits for`),
        "prerequisiteStepKey",
      ];
    case "name_too_long":
      return [
        "workflow.invalid_dag_name_too_long",
        `${problem.field}${ofStep(problem)} must take at most ${problem.maxBytes} bytes of UTF-8`,
      ];
    case "invalid_name":
      return ["workflow.invalid_dag_name_invalid", `${problem.field}${ofStep(problem)} ${problem.problem}`];
    case "empty_steps":
      return ["workflow.invalid_dag_empty", "it needs at least one step"];
    case "duplicate_step":
      return ["workflow.invalid_dag_duplicate_step_key", `there is more than one ${stepOf(problem)}`];
    case "unknown_step":
      return [
        "workflow.invalid_dag_unknown_step_key",
        `${stepOf(problem)} must be declared before what it waits for`,
      ];
    case "missing_dependency":
      return [
        "workflow.invalid_dag_missing_dependency",
        `${stepOf(problem)} waits for ${quoted(problem.prerequisiteStepKey)}, which is not a step of it`,
      ];
    case "self_dependency":
      return ["workflow.invalid_dag_self_dependency", `${stepOf(problem)} waits for itself`];
    case "duplicate_dependency":
      return [
        "workflow.invalid_dag_duplicate_dependency",
        `${stepOf(problem)} waits for ${quoted(problem.prerequisiteStepKey)} more than once`,
      ];
    case "cycle":
      return [
        "workflow.invalid_dag_cycle",
        `its steps wait for each other in a circle, ${circle(problem.stepKeys)}`,
      ];
    case "unknown_result_step":
      return ["workflow.invalid_dag_unknown_result_step", `its result ${stepOf(problem)} is not a step of it`];
    case "non_positive_setting":
      return [
        problem.setting === "maxAttempts"
          ? "workflow.invalid_dag_step_max_attempts_non_positive"
          : "workflow.invalid_dag_step_timeout_seconds_non_positive",
        `${problem.setting}${ofStep(problem)} must be at least 1`,
      ];
    case "invalid_setting":
      return ["workflow.invalid_dag_setting_invalid", `${problem.setting}${ofStep(problem)} ${problem.problem}`];
    case "unknown_field":
      return [
        "workflow.invalid_dag_unknown_field",
        `${quoted(problem.field)}${ofStep(problem)} is not a field that it can have`,
      ];
    case "external_job_type_not_allowed":
      return [
        "workflow.invalid_dag_external_step_job_type_not_allowed",
        `${stepOf(problem)} is external, so it has no job type`,
      ];
    case "external_queue_setting_not_allowed":
      return [
        "workflow.invalid_dag_external_step_queue_settings_not_allowed",
        `${stepOf(problem)} is external, so it has no ${problem.setting}`,
      ];
    case "invalid_gate_timeout":
      return ["workflow.invalid_dag_gate_timeout_invalid", `${problem.field}${ofStep(problem)} ${problem.problem}`];
    case "request_setting_not_allowed":
      return [
        "workflow.invalid_dag_request_setting_not_allowed",
        `the job request${ofStep(problem)} must not have ${problem.setting}, ${
          problem.setting === "nextRunAt" ? "since its prerequisites decide when it starts" : "since its run has one"
        }`,
      ];
    case "invalid_payload":
      return ["workflow.invalid_dag_payload_invalid", `the payload${ofStep(problem)} ${notJson(problem)}`];
    case "invalid_metadata":
      return ["workflow.invalid_dag_metadata_invalid", `its metadata ${notJson(problem)}`];
  }
}

/** All that the problem says, fit for a client: long keys are cut, and its words are in the message. */
function detailsOf(
  { kind, ...facts }: WorkflowBuildProblem,
  field: WorkflowNameField | undefined,
): Readonly<Record<string, RunledgerErrorDetail>> {
  const details: Record<string, RunledgerErrorDetail> = { problem: kind };
  if (field !== undefined) details["field"] = field;
  for (const [name, value] of Object.entries<string | number | readonly string[]>(facts)) {
    if (name === "problem" || value === undefined) continue;
    if (typeof value === "object") {
      details[name] = value.slice(0, MAX_LISTED_KEYS).map(shortened);
      details["cycleLength"] = value.length;
    } else details[name] = typeof value === "string" && name !== "path" ? shortened(value) : value;
  }
  return details;
}

function blank(what: string): string {
  return `${what} must not be blank`;
}

function notJson({ path, problem }: { readonly path: string; readonly problem: string }): string {
  return `cannot be stored as JSON: at ${path}, ${problem}`;
}

function stepOf({ stepKey }: { readonly stepKey: string }): string {
  return `step ${quoted(stepKey)}`;
}

function ofStep({ stepKey }: { readonly stepKey?: string }): string {
  return stepKey === undefined ? "" : ` of ${stepOf({ stepKey })}`;
}

/** A cycle may have thousands of keys: people and clients are shown its beginning, the problem has them all. */
const MAX_LISTED_KEYS = 20;

function circle(stepKeys: readonly string[]): string {
  const listed = stepKeys.slice(0, MAX_LISTED_KEYS).map(quoted);
  if (stepKeys.length > MAX_LISTED_KEYS) listed.push(`${stepKeys.length - MAX_LISTED_KEYS} more`);
  return [...listed, ...listed.slice(0, 1)].join(" -> ");
}

function quoted(key: string): string {
  return JSON.stringify(shortened(key));
}

function shortened(key: string): string {
  return key.length > 64 ? `${key.slice(0, 64).toWellFormed()}…` : key;
}
