/**
 * What hooks are told.
 *
 * @module
 */

import type { JobFailureKind, JsonValue } from "@runledger/core";
import type { FinishedRun, ReleasedStep } from "@runledger/postgres";

/** What every hook about an attempt is told. */
export interface JobHookEvent {
  /** The job. */
  readonly jobId: string;
  /** Its type. */
  readonly jobType: string;
  /** Which run of the job. */
  readonly runNumber: number;
  /** Which attempt of the run. */
  readonly attempt: number;
  /** Whose job it is; absent for a job of no organization. */
  readonly organizationId?: string;
  /** Who did it: the worker, or the reaper of the same process. */
  readonly workerId: string;
}

/** A job was enqueued: by the catalog, or as the job of a step that this process released. */
export interface JobEnqueuedEvent {
  /** The job. */
  readonly jobId: string;
  /** Its type. */
  readonly jobType: string;
  /** Whose job it is; absent for a job of no organization. */
  readonly organizationId?: string;
}

/** A handler is about to run. */
export type JobStartedEvent = JobHookEvent;

/** A job ended well. */
export interface JobSucceededEvent extends JobHookEvent {
  /** What its handler returned, if anything. */
  readonly output?: JsonValue;
}

/** An attempt failed, whatever follows from it. */
export interface JobFailedEvent extends JobHookEvent {
  /** Why: a code to branch on, and a text for operators that may quote what was processed. */
  readonly failure: { readonly kind: JobFailureKind; readonly code: string; readonly message: string };
  /** Whether no attempt follows: the job is a dead letter, and its step, if it is one, has FAILED. */
  readonly isFinal: boolean;
}

/** An attempt failed, and another one follows. */
export interface JobRetryScheduledEvent extends JobFailedEvent {
  /** When it is due. */
  readonly nextRunAt: Date;
}

/** A job failed for good. */
export type JobDeadLetteredEvent = JobFailedEvent;

/** A job was called off: by its handler, or by somebody else while its handler ran. */
export type JobCanceledEvent = JobHookEvent;

/** A lease was lost while its handler ran or its outcome waited: somebody else has the job now. */
export type LeaseLostEvent = JobHookEvent;

/** Which step of which run. */
export interface StepPlace {
  /** The run. */
  readonly runId: string;
  /** The step. */
  readonly stepKey: string;
}

/** A step was released by the end of another one: its job waits for a worker, or its gate for somebody outside. */
export type StepEnqueuedEvent = ReleasedStep;

/** The handler of a step is about to run. */
export type StepStartedEvent = JobStartedEvent & StepPlace;

/** A step ended well. */
export type StepSucceededEvent = JobSucceededEvent & StepPlace;

/** An attempt at a step failed, whatever follows from it. */
export type StepFailedEvent = JobFailedEvent & StepPlace;

/** An attempt at a step failed, and another one follows. */
export type StepRetryScheduledEvent = JobRetryScheduledEvent & StepPlace;

/** A step failed for good. */
export type StepDeadLetteredEvent = JobDeadLetteredEvent & StepPlace;

/** A step was called off, as its job was; or it was cancelled since a prerequisite did not succeed. */
export interface StepCanceledEvent extends StepPlace {
  /** The type of its job; absent for a gate. */
  readonly jobType?: string;
  /** Whose step it is; absent for one of no organization. */
  readonly organizationId?: string;
}

/** The lease on a step's job was lost. */
export type StepLeaseLostEvent = LeaseLostEvent & StepPlace;

/** The last step of a run has ended. */
export type RunFinishedEvent = FinishedRun;

/** The hooks by name, each with what it is told. */
export interface JobHookEvents {
  /** A job was enqueued. */
  readonly enqueued: JobEnqueuedEvent;
  /** A handler is about to run. */
  readonly started: JobStartedEvent;
  /** A job ended well. */
  readonly succeeded: JobSucceededEvent;
  /** An attempt failed. */
  readonly failed: JobFailedEvent;
  /** Another attempt follows. */
  readonly retryScheduled: JobRetryScheduledEvent;
  /** A job failed for good. */
  readonly deadLettered: JobDeadLetteredEvent;
  /** A job was called off. */
  readonly canceled: JobCanceledEvent;
  /** A lease was lost. */
  readonly leaseLost: LeaseLostEvent;
  /** A step was released. */
  readonly stepEnqueued: StepEnqueuedEvent;
  /** The handler of a step is about to run. */
  readonly stepStarted: StepStartedEvent;
  /** A step ended well. */
  readonly stepSucceeded: StepSucceededEvent;
  /** An attempt at a step failed. */
  readonly stepFailed: StepFailedEvent;
  /** Another attempt at a step follows. */
  readonly stepRetryScheduled: StepRetryScheduledEvent;
  /** A step failed for good. */
  readonly stepDeadLettered: StepDeadLetteredEvent;
  /** A step was called off or cancelled. */
  readonly stepCanceled: StepCanceledEvent;
  /** The lease on a step's job was lost. */
  readonly stepLeaseLost: StepLeaseLostEvent;
  /** A run has ended. */
  readonly runFinished: RunFinishedEvent;
}

/** A hook. What it throws is reported and has no other effect. */
export type JobHook<Event> = (event: Event) => unknown;

/** Every registered hook by name. */
export type JobHooks = { readonly [Name in keyof JobHookEvents]: JobHook<JobHookEvents[Name]>[] };
