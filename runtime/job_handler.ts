/**
 * Handlers: the functions that do the work, typed by the definitions and workflows that they are for.
 *
 * @module
 */

import type { AnyJobDefinition, JobCompletion, WorkflowStepKeys } from "@runledger/core";
import type { JobContext, StepContext } from "./job_context.ts";

/**
 * Does the work of one attempt.
 *
 * What it returns is the job's output, or one of core's completions (`complete`, `continueNow`, `continueAfter`,
 * `snooze`, `callOff`). A `JobFailure` that it throws means what it says; anything else it throws is retried. It may run
 * more than once for a job: side effects belong into {@linkcode JobContext.transaction} or must bear repetition.
 *
 * @typeParam Payload What the definition's schema makes of the payload.
 * @typeParam Output What the definition's output schema accepts.
 */
export type JobHandler<Payload, Output> = (
  payload: Payload,
  context: JobContext<Output>,
) => Output | JobCompletion<Output> | Promise<Output | JobCompletion<Output>>;

/**
 * Does the work of one attempt at a step of a workflow; otherwise as {@linkcode JobHandler}.
 *
 * @typeParam Payload What the definition's schema makes of the payload.
 * @typeParam Output What the definition's output schema accepts.
 * @typeParam Prerequisites What the step learns of its direct prerequisites.
 */
export type StepHandler<Payload, Output, Prerequisites> = (
  payload: Payload,
  context: StepContext<Output, Prerequisites>,
) => Output | JobCompletion<Output> | Promise<Output | JobCompletion<Output>>;

/**
 * A step of a workflow: the function that builds its run, for the compiler only, and the step's key.
 *
 * @typeParam Run The type of the built run.
 * @typeParam StepKey The step.
 */
export interface WorkflowStepOf<Run, StepKey extends string> {
  /** Builds the run. It is never called. */
  readonly workflow: (...args: never[]) => Run | Promise<Run>;
  /** The step. */
  readonly stepKey: StepKey & WorkflowStepKeys<Run>;
}

/** A definition with its handler, whatever their types. */
export interface RegisteredJob {
  /** The definition. */
  readonly definition: AnyJobDefinition;
  /** Its {@linkcode JobHandler}. */
  readonly handler: (payload: never, context: never) => unknown;
}
