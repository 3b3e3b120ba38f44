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
    const { code, text, details } = described(problem);
    super(code, { message: `The workflow cannot be: ${text}.`, details: { problem: problem.kind, ...details } });
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

interface Description {
  readonly code: RunledgerErrorCode;
  /** What follows "The workflow cannot be:", without the full stop. */
  readonly text: string;
  readonly details?: Readonly<Record<string, RunledgerErrorDetail>>;
}

/** The one place that gives each problem its code and its words. */
function described(problem: WorkflowBuildProblem): Description {
  switch (problem.kind) {
    case "blank_workflow_type":
      return blank("workflow.invalid_dag_workflow_type_blank", "its workflow type", "workflowType");
    case "blank_idempotency_key":
      return blank("workflow.invalid_dag_idempotency_key_blank", "its idempotency key", "idempotencyKey");
    case "blank_active_key":
      return blank("workflow.invalid_dag_active_key_blank", "its active key", "activeKey");
    case "blank_result_step_key":
      return blank("workflow.invalid_dag_result_step_key_blank", "the key of its result step", "resultStepKey");
    case "blank_step_key":
      return problem.stepIndex === undefined
        ? blank("workflow.invalid_dag_step_key_blank", "a step key", "stepKey")
        : blank("workflow.invalid_dag_step_key_blank", `the key of step ${problem.stepIndex + 1}`, "stepKey", {
          stepIndex: problem.stepIndex,
        });
    case "blank_job_type":
      return blank(
        "workflow.invalid_dag_job_type_blank",
        `the job type of step ${quoted(problem.stepKey)}`,
        "jobType",
        stepDetails(problem),
      );
    case "blank_dependency_step_key":
      return blank(
        "workflow.invalid_dag_dependency_step_key_blank",
        `a key that step ${quoted(problem.stepKey)} waits for`,
        "prerequisiteStepKey",
        stepDetails(problem),
      );
    case "name_too_long":
      return {
        code: "workflow.invalid_dag_name_too_long",
        text: `${problem.field}${ofStep(problem)} must take at most ${problem.maxBytes} bytes of UTF-8`,
        details: { field: problem.field, maxBytes: problem.maxBytes, ...stepDetails(problem) },
      };
    case "invalid_name":
      return {
        code: "workflow.invalid_dag_name_invalid",
        text: `${problem.field}${ofStep(problem)} ${problem.problem}`,
        details: { field: problem.field, ...stepDetails(problem) },
      };
    case "empty_steps":
      return { code: "workflow.invalid_dag_empty", text: "it needs at least one step" };
    case "duplicate_step":
      return {
        code: "workflow.invalid_dag_duplicate_step_key",
        text: `there is more than one step ${quoted(problem.stepKey)}`,
        details: stepDetails(problem),
      };
    case "unknown_step":
      return {
        code: "workflow.invalid_dag_unknown_step_key",
        text: `step ${quoted(problem.stepKey)} must be declared before what it waits for`,
        details: stepDetails(problem),
      };
    case "missing_dependency":
      return {
        code: "workflow.invalid_dag_missing_dependency",
        text: `step ${quoted(problem.stepKey)} waits for ${
          quoted(problem.prerequisiteStepKey)
        }, which is not a step of it`,
        details: edgeDetails(problem),
      };
    case "self_dependency":
      return {
        code: "workflow.invalid_dag_self_dependency",
        text: `step ${quoted(problem.stepKey)} waits for itself`,
        details: stepDetails(problem),
      };
    case "duplicate_dependency":
      return {
        code: "workflow.invalid_dag_duplicate_dependency",
        text: `step ${quoted(problem.stepKey)} waits for ${quoted(problem.prerequisiteStepKey)} more than once`,
        details: edgeDetails(problem),
      };
    case "cycle":
      return {
        code: "workflow.invalid_dag_cycle",
        text: `its steps wait for each other in a circle, ${circle(problem.stepKeys)}`,
        details: {
          stepKeys: problem.stepKeys.slice(0, MAX_LISTED_KEYS).map(shortened),
          cycleLength: problem.stepKeys.length,
        },
      };
    case "unknown_result_step":
      return {
        code: "workflow.invalid_dag_unknown_result_step",
        text: `its result step ${quoted(problem.stepKey)} is not a step of it`,
        details: stepDetails(problem),
      };
    case "non_positive_setting":
      return {
        code: problem.setting === "maxAttempts"
          ? "workflow.invalid_dag_step_max_attempts_non_positive"
          : "workflow.invalid_dag_step_timeout_seconds_non_positive",
        text: `${problem.setting}${ofStep(problem)} must be at least 1`,
        details: { setting: problem.setting, ...stepDetails(problem) },
      };
    case "invalid_setting":
      return {
        code: "workflow.invalid_dag_setting_invalid",
        text: `${problem.setting}${ofStep(problem)} ${problem.problem}`,
        details: { setting: problem.setting, ...stepDetails(problem) },
      };
    case "unknown_field":
      return {
        code: "workflow.invalid_dag_unknown_field",
        text: `${quoted(problem.field)}${ofStep(problem)} is not a field that it can have`,
        details: { field: shortened(problem.field), ...stepDetails(problem) },
      };
    case "external_job_type_not_allowed":
      return {
        code: "workflow.invalid_dag_external_step_job_type_not_allowed",
        text: `step ${quoted(problem.stepKey)} is external, so it has no job type`,
        details: stepDetails(problem),
      };
    case "external_queue_setting_not_allowed":
      return {
        code: "workflow.invalid_dag_external_step_queue_settings_not_allowed",
        text: `step ${quoted(problem.stepKey)} is external, so it has no ${problem.setting}`,
        details: { setting: problem.setting, ...stepDetails(problem) },
      };
    case "invalid_gate_timeout":
      return {
        code: "workflow.invalid_dag_gate_timeout_invalid",
        text: `${problem.field}${ofStep(problem)} ${problem.problem}`,
        details: { field: problem.field, ...stepDetails(problem) },
      };
    case "request_setting_not_allowed":
      return {
        code: "workflow.invalid_dag_request_setting_not_allowed",
        text: `the job request of step ${quoted(problem.stepKey)} must not have ${problem.setting}, ${
          problem.setting === "nextRunAt" ? "since its prerequisites decide when it starts" : "since its run has one"
        }`,
        details: { setting: problem.setting, ...stepDetails(problem) },
      };
    case "invalid_payload":
      return {
        code: "workflow.invalid_dag_payload_invalid",
        text: `the payload${ofStep(problem)} cannot be stored as JSON: at ${problem.path}, ${problem.problem}`,
        details: { path: problem.path, ...stepDetails(problem) },
      };
    case "invalid_metadata":
      return {
        code: "workflow.invalid_dag_metadata_invalid",
        text: `its metadata cannot be stored as JSON: at ${problem.path}, ${problem.problem}`,
        details: { path: problem.path },
      };
  }
}

function blank(
  code: RunledgerErrorCode,
  what: string,
  field: WorkflowNameField,
  details: Readonly<Record<string, RunledgerErrorDetail>> = {},
): Description {
  return { code, text: `${what} must not be blank`, details: { field, ...details } };
}

function stepDetails({ stepKey }: { readonly stepKey?: string }): Readonly<Record<string, RunledgerErrorDetail>> {
  return stepKey === undefined ? {} : { stepKey: shortened(stepKey) };
}

function edgeDetails(
  edge: { readonly stepKey: string; readonly prerequisiteStepKey: string },
): Readonly<Record<string, RunledgerErrorDetail>> {
  return { ...stepDetails(edge), prerequisiteStepKey: shortened(edge.prerequisiteStepKey) };
}

function ofStep({ stepKey }: { readonly stepKey?: string }): string {
  return stepKey === undefined ? "" : ` of step ${quoted(stepKey)}`;
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
