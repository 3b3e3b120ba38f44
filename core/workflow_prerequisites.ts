/**
 * What the compiler knows of a workflow's graph, and what a step learns of its prerequisites.
 *
 * @module
 */

import type { JsonValue } from "./json.ts";
import type { WorkflowRunRequest } from "./workflow_run.ts";
import type { ReleaseMode, TerminalWorkflowStepStatus } from "./workflow_status.ts";

/**
 * How a direct prerequisite of a step ended.
 *
 * @typeParam Output The JSON that its handler, or whoever completed its gate, gave.
 * @typeParam Status How it can have ended.
 */
export interface WorkflowPrerequisite<
  Output = JsonValue,
  Status extends TerminalWorkflowStepStatus = TerminalWorkflowStepStatus,
> {
  /** How it ended. */
  readonly status: Status;
  /** What it gave. Only with `SUCCEEDED`, and only if it gave anything. */
  readonly output?: Output;
}

/** What is known of a graph of which nothing is known: any key may be one of its steps. */
export type AnyWorkflowGraph = Readonly<Record<string, unknown>>;

/** A graph without steps. */
export type EmptyWorkflowGraph = Readonly<Record<never, unknown>>;

/** A graph with one more step. A key that is not a literal could be any key. */
export type WithStep<Graph, StepKey extends string, Output> =
  & Graph
  & { readonly [Key in StepKey]: string extends StepKey ? unknown : { readonly output: Output } };

/** A graph in which a step waits for others. */
export type WithDependencies<Graph, StepKey extends string, PrerequisiteKey extends string, Mode extends ReleaseMode> =
  string extends StepKey ? Graph
    : Graph & { readonly [Key in StepKey]: { readonly after: { readonly [Prerequisite in PrerequisiteKey]: Mode } } };

/** Accepts a key that was declared before. A key that is not a literal is left to `build()`. */
export type DeclaredStepKey<Graph, StepKey extends string> = string extends StepKey ? unknown : keyof Graph;

/** Accepts a key that was not declared before. A key that is not a literal is left to the call. */
export type NewStepKey<Graph, StepKey extends string> = string extends StepKey | keyof Graph ? unknown
  : StepKey extends keyof Graph ? never
  : unknown;

/** The keys of a run's steps, as far as the compiler knows them. */
export type WorkflowStepKeys<Run> = Run extends WorkflowRunRequest<infer Graph> ? keyof Graph & string : never;

/**
 * What a step of a run learns of its direct prerequisites: from each key to {@linkcode WorkflowPrerequisite}.
 *
 * The keys, the output types (from the job definitions whose `request()` made the steps) and the release modes (behind
 * `afterSuccess` a prerequisite has always succeeded) are those that the builder saw. It is a claim about data, not a check
 * of it: nothing ties a handler to a step, since a job type may be used by any workflow, and a stored output may be of an
 * older version of the code. Where that matters, give the output to `definition.decodeOutput`, which checks it. Not known
 * to the compiler are dependencies whose dependent is not a literal key, and those of steps given to `step`; outputs of gates and of requests written by hand
 * are any JSON value.
 *
 * @typeParam Run The type of the built run.
 * @typeParam StepKey The step that waits.
 *
 * @example
 * ```ts
 * import { defineJob, WorkflowDagBuilder } from "@runledger/core";
 * import type { WorkflowPrerequisites } from "@runledger/core";
 * import { z } from "zod";
 *
 * const fetchInvoice = defineJob({ type: "invoice.fetch", output: z.object({ cents: z.int() }) });
 * const charge = defineJob({ type: "invoice.charge" });
 *
 * const processInvoice = (invoiceId: string) =>
 *   new WorkflowDagBuilder("invoice.process")
 *     .job("fetch", fetchInvoice.request({ invoiceId }))
 *     .job("charge", charge.request({ invoiceId })).afterSuccess("charge", ["fetch"])
 *     .build();
 *
 * function chargeHandler(prerequisites: WorkflowPrerequisites<ReturnType<typeof processInvoice>, "charge">) {
 *   const cents: number | undefined = prerequisites.fetch.output?.cents;
 *   return { charged: cents ?? 0 };
 * }
 * ```
 */
export type WorkflowPrerequisites<Run, StepKey extends WorkflowStepKeys<Run>> = Run extends
  WorkflowRunRequest<infer Graph>
  ? StepKey extends keyof Graph ? Graph[StepKey] extends { readonly after: infer Modes } ? {
        readonly [Key in keyof Modes]: WorkflowPrerequisite<
          KnownStepOutput<Graph, Key>,
          Modes[Key] extends "ON_SUCCESS" ? "SUCCEEDED" : TerminalWorkflowStepStatus
        >;
      }
    : EmptyWorkflowGraph
  : never
  : never;

/** The output of one step of a graph: what its handler returns, or any JSON value if that is not known. */
export type KnownStepOutput<Graph, StepKey> = StepKey extends keyof Graph
  ? Graph[StepKey] extends { readonly output: infer Output }
    ? unknown extends Output ? JsonValue : Exclude<Output, void | undefined>
  : JsonValue
  : JsonValue;
