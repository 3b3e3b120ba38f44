/**
 * A workflow run that is asked for, before it is enqueued: plain data, and the canonical form that requests are compared in.
 *
 * @module
 */

import { MAX_IDEMPOTENCY_KEY_BYTES } from "./job_request.ts";
import type { EnqueueStage } from "./job_status.ts";
import type { JsonValue } from "./json.ts";
import type { ReleaseMode, TerminalWorkflowStepStatus } from "./workflow_status.ts";

/** The most bytes of UTF-8 that a workflow type takes. */
export const MAX_WORKFLOW_TYPE_BYTES = 255;

/** The most bytes of UTF-8 that a step key takes. */
export const MAX_STEP_KEY_BYTES = 512;

/** The most bytes of UTF-8 that an active key takes. */
export const MAX_ACTIVE_KEY_BYTES: number = MAX_IDEMPOTENCY_KEY_BYTES;

/** One edge of the graph, kept with the step that waits. */
export interface WorkflowDependency {
  /** The step that has to end first. */
  readonly prerequisiteStepKey: string;
  /** What is asked of it. */
  readonly releaseMode: ReleaseMode;
}

/** What happens to a gate that nobody completes in time. */
export interface GateTimeout {
  /** How long the gate stays open, in milliseconds from its release; from 1 to {@linkcode MAX_DELAY_MS}. */
  readonly afterMs: number;
  /** How it is completed then. */
  readonly outcome: TerminalWorkflowStepStatus;
  /** What it gives to its dependents then. Only with the outcome `SUCCEEDED`. */
  readonly output?: JsonValue;
}

/** A step that a job of the queue carries out. What is left out comes from the stored job definition. */
export interface WorkflowJobStepRequest {
  /** Tells the two kinds of step apart. */
  readonly executionKind: "JOB";
  /** Its name, unique within the run; at most 512 bytes of UTF-8. */
  readonly stepKey: string;
  /** Which kind of job; at most 255 bytes of UTF-8. */
  readonly jobType: string;
  /** What the handler is given: any JSON value. */
  readonly payload: JsonValue;
  /** The tenant that the step belongs to, a UUID. Absent means the run's. */
  readonly organizationId?: string;
  /** Higher goes first; any 32-bit integer. */
  readonly priority?: number;
  /** How often the job may be tried, from 1. */
  readonly maxAttempts?: number;
  /** How long one attempt may run, in seconds, from 1. */
  readonly timeoutSeconds?: number;
  /** Shown to people while the job waits. @default "queued" */
  readonly stage?: EnqueueStage;
  /** Whether its handler may end a slice and continue, see {@linkcode continueNow}. @default false */
  readonly allowsContinuation?: boolean;
  /** What it waits for, in any order. */
  readonly dependencies: readonly WorkflowDependency[];
}

/** A gate: a step that is completed from outside. */
export interface WorkflowExternalStepRequest {
  /** Tells the two kinds of step apart. */
  readonly executionKind: "EXTERNAL";
  /** Its name, unique within the run; at most 512 bytes of UTF-8. */
  readonly stepKey: string;
  /** Shown to whoever is to complete it: any JSON value. */
  readonly payload: JsonValue;
  /** The tenant that the step belongs to, a UUID. Absent means the run's. */
  readonly organizationId?: string;
  /** What happens when nobody completes it. Absent means that it waits for ever. */
  readonly timeout?: GateTimeout;
  /** What it waits for before it opens, in any order. */
  readonly dependencies: readonly WorkflowDependency[];
}

/** One step of a workflow run. */
export type WorkflowStepRequest = WorkflowJobStepRequest | WorkflowExternalStepRequest;

/**
 * A workflow run that is asked for: plain data, usually made by {@linkcode WorkflowDagBuilder}.
 *
 * @typeParam Graph What the compiler knows of its graph, see {@linkcode WorkflowPrerequisites}.
 */
export interface WorkflowRunRequest<Graph = unknown> {
  /** Which kind of workflow; at most 255 bytes of UTF-8. */
  readonly workflowType: string;
  /** Whatever the producer wants to keep with the run: any JSON value. */
  readonly metadata: JsonValue;
  /** The tenant that the run belongs to, a UUID. Absent means none. */
  readonly organizationId?: string;
  /** Makes the enqueue idempotent for ever, within the workflow type and organization; at most 512 bytes of UTF-8. */
  readonly idempotencyKey?: string;
  /** At most one run that has not ended holds it, within the organization; at most 512 bytes of UTF-8. */
  readonly activeKey?: string;
  /** The step whose output is the run's result. */
  readonly resultStepKey?: string;
  /** Where the run is asked for, as {@linkcode JobRequestOptions.traceparent}; the jobs of its steps have it. */
  readonly traceparent?: string;
  /** Its steps, in the order in which they were declared. */
  readonly steps: readonly WorkflowStepRequest[];
  /** For the compiler only, never set: what it knows of the graph. */
  readonly "~graph"?: Graph;
}

/** A {@linkcode WorkflowDependency} in canonical form. */
export interface CanonicalWorkflowDependency {
  /** See {@linkcode WorkflowDependency.prerequisiteStepKey}. */
  readonly prerequisite_step_key: string;
  /** See {@linkcode WorkflowDependency.releaseMode}. */
  readonly release_mode: ReleaseMode;
}

/** A {@linkcode WorkflowStepRequest} in canonical form. What was omitted is absent. */
export interface CanonicalWorkflowStep {
  /** The step's name. */
  readonly step_key: string;
  /** Which kind of step. */
  readonly execution_kind: "JOB" | "EXTERNAL";
  /** Only for jobs. */
  readonly job_type?: string;
  /** The step's own or else the run's, in lowercase. */
  readonly organization_id?: string;
  /** The payload as given. */
  readonly payload: JsonValue;
  /** As given: the definition's is not filled in, so that a later change of it is no conflict. */
  readonly priority?: number;
  /** As given. */
  readonly max_attempts?: number;
  /** As given. */
  readonly timeout_seconds?: number;
  /** Always there for jobs. */
  readonly stage?: EnqueueStage;
  /** Only if true. */
  readonly allow_handler_continuation?: true;
  /** Only for gates with a timeout. */
  readonly gate?: {
    readonly after_ms: number;
    readonly outcome: TerminalWorkflowStepStatus;
    readonly output?: JsonValue;
  };
  /** By prerequisite, then by mode. */
  readonly dependencies: readonly CanonicalWorkflowDependency[];
}

/**
 * A {@linkcode WorkflowRunRequest} in canonical form. Workflow type, organization and idempotency key are not in it: they
 * are what an earlier request is found by.
 */
export interface CanonicalWorkflowRequest {
  /** The metadata as given. */
  readonly metadata: JsonValue;
  /** Only if set. */
  readonly active_key?: string;
  /** Only if set. */
  readonly result_step_key?: string;
  /** By step key. */
  readonly steps: readonly CanonicalWorkflowStep[];
}

/**
 * Gives the canonical form of a run: equal, as `jsonb`, for equal requests.
 *
 * Steps are sorted by key and dependencies by prerequisite and mode, both by UTF-16 code units; settings that were omitted
 * stay omitted; each step has its effective organization and stage. Later versions add fields only where something new
 * was asked for, so that stored forms stay comparable.
 *
 * @param run A request that {@linkcode assertWorkflowRunRequest} accepts.
 * @returns Plain data for {@linkcode encodeJson}.
 *
 * @example
 * ```ts
 * import { canonicalWorkflowRequest } from "@runledger/core";
 * import assert from "node:assert/strict";
 *
 * assert.deepEqual(
 *   canonicalWorkflowRequest({
 *     workflowType: "order.ship",
 *     metadata: { source: "api" },
 *     steps: [{ executionKind: "JOB", stepKey: "pack", jobType: "order.pack", payload: null, dependencies: [] }],
 *   }),
 *   {
 *     metadata: { source: "api" },
 *     steps: [
 *       { step_key: "pack", execution_kind: "JOB", job_type: "order.pack", payload: null, stage: "queued", dependencies: [] },
 *     ],
 *   },
 * );
 * ```
 */
export function canonicalWorkflowRequest(run: WorkflowRunRequest): CanonicalWorkflowRequest {
  return {
    metadata: run.metadata,
    ...(run.activeKey === undefined ? {} : { active_key: run.activeKey }),
    ...(run.resultStepKey === undefined ? {} : { result_step_key: run.resultStepKey }),
    steps: canonicalWorkflowSteps(run.steps, run.organizationId),
  };
}

/**
 * Gives the canonical form of steps, for comparing what is appended to a run.
 *
 * @param steps Steps that {@linkcode assertWorkflowStepAppend} accepts.
 * @param organizationId The run's organization, for steps that have none of their own.
 * @returns Plain data, sorted by step key.
 */
export function canonicalWorkflowSteps(
  steps: readonly WorkflowStepRequest[],
  organizationId?: string,
): readonly CanonicalWorkflowStep[] {
  return steps
    .map((step) => canonicalStep(step, step.organizationId ?? organizationId))
    .sort((a, b) => byCodeUnits(a.step_key, b.step_key));
}

function canonicalStep(step: WorkflowStepRequest, organizationId: string | undefined): CanonicalWorkflowStep {
  return {
    step_key: step.stepKey,
    execution_kind: step.executionKind,
    // The database would give it back in lowercase.
    ...(organizationId === undefined ? {} : { organization_id: organizationId.toLowerCase() }),
    payload: step.payload,
    ...(step.executionKind === "JOB" ? canonicalJobSettings(step) : canonicalGate(step.timeout)),
    dependencies: step.dependencies
      .map((edge) => ({ prerequisite_step_key: edge.prerequisiteStepKey, release_mode: edge.releaseMode }))
      .sort((a, b) =>
        byCodeUnits(a.prerequisite_step_key, b.prerequisite_step_key) || byCodeUnits(a.release_mode, b.release_mode)
      ),
  };
}

function canonicalJobSettings(step: WorkflowJobStepRequest): Partial<CanonicalWorkflowStep> {
  return {
    job_type: step.jobType,
    ...(step.priority === undefined ? {} : { priority: step.priority }),
    ...(step.maxAttempts === undefined ? {} : { max_attempts: step.maxAttempts }),
    ...(step.timeoutSeconds === undefined ? {} : { timeout_seconds: step.timeoutSeconds }),
    stage: step.stage ?? "queued",
    ...(step.allowsContinuation === true ? { allow_handler_continuation: true } : {}),
  };
}

function canonicalGate(timeout: GateTimeout | undefined): Partial<CanonicalWorkflowStep> {
  if (timeout === undefined) return {};
  const { afterMs, outcome, output } = timeout;
  return { gate: { after_ms: afterMs, outcome, ...(output === undefined ? {} : { output }) } };
}

function byCodeUnits(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
