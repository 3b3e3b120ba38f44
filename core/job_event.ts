/**
 * The ledger of a job: its events, and the state that they add up to.
 *
 * @module
 */

import type { JobStage, JobStatus } from "./job_status.ts";
import type { JsonValue } from "./json.ts";

/**
 * What happened to a job. Each event names the run and the attempt that it belongs to.
 *
 * - `ENQUEUED`: the job came to be. Always the first event.
 * - `LEASED`: a worker claimed it, which begins an attempt.
 * - `HEARTBEAT`: the worker extended its lease. Posted only when asked for.
 * - `PROGRESS`: the handler reported progress or a checkpoint.
 * - `STAGE_CHANGED`: the stage shown to people changed without a change of status.
 * - `SUCCEEDED`: the attempt finished the job.
 * - `FAILED`: the attempt failed. Followed at once by `RETRY_SCHEDULED` or `DEAD_LETTERED`.
 * - `RETRY_SCHEDULED`: another attempt will be made.
 * - `DEAD_LETTERED`: no other attempt will be made.
 * - `CANCELED`: somebody called the job off.
 * - `REQUEUED`: it waits again without having failed; see {@linkcode RequeueKind}.
 */
export type JobEventType =
  | "ENQUEUED"
  | "LEASED"
  | "HEARTBEAT"
  | "PROGRESS"
  | "STAGE_CHANGED"
  | "SUCCEEDED"
  | "FAILED"
  | "RETRY_SCHEDULED"
  | "DEAD_LETTERED"
  | "CANCELED"
  | "REQUEUED";

/** Every {@linkcode JobEventType}. */
export const JOB_EVENT_TYPES: readonly JobEventType[] = [
  "ENQUEUED",
  "LEASED",
  "HEARTBEAT",
  "PROGRESS",
  "STAGE_CHANGED",
  "SUCCEEDED",
  "FAILED",
  "RETRY_SCHEDULED",
  "DEAD_LETTERED",
  "CANCELED",
  "REQUEUED",
];

/**
 * Why a job was put back without a failure: `payload.requeue_kind` of a `REQUEUED` event.
 *
 * - `UNSTARTED_RELEASE`: a worker gave back a claim that it never started. The attempt is not counted.
 * - `SNOOZE`: the handler put the job off. The attempt is not counted.
 * - `HANDLER_CONTINUATION`: the handler ended a slice of its work. A new run begins.
 * - `COMPARE_AND_REQUEUE`: an operator requeued a dead-lettered or cancelled job. A new run begins.
 */
export type RequeueKind = "UNSTARTED_RELEASE" | "SNOOZE" | "HANDLER_CONTINUATION" | "COMPARE_AND_REQUEUE";

/** Every {@linkcode RequeueKind}. */
export const REQUEUE_KINDS: readonly RequeueKind[] = [
  "UNSTARTED_RELEASE",
  "SNOOZE",
  "HANDLER_CONTINUATION",
  "COMPARE_AND_REQUEUE",
];

/** One row of the ledger. */
export interface JobEvent {
  /** The job. */
  readonly jobId: string;
  /** Its place among the job's events: 1 to n without gaps. */
  readonly seq: number;
  /** The run that it belongs to, from 1. An event that begins a new run belongs to the run that it ends. */
  readonly runNumber: number;
  /** The attempt that it belongs to, from 1; absent when it belongs to none. */
  readonly attempt?: number;
  /** What happened. */
  readonly eventType: JobEventType;
  /** The stage after it, where it sets one. */
  readonly stage?: JobStage;
  /** Units done, where it sets them. */
  readonly progressDone?: number;
  /** Units in all, where it sets them. */
  readonly progressTotal?: number;
  /** What else is known about it; the fields depend on the event type. */
  readonly payload: JsonValue | null;
  /** When it was posted, by the database's clock. */
  readonly occurredAt: Date;
}

/** What the events of a job add up to: the part of its `job_queue` row that the ledger determines. */
export interface JobProjection {
  /** Where the job stands. */
  readonly status: JobStatus;
  /** How far it has come, for people. */
  readonly stage: JobStage;
  /** The current run, from 1. */
  readonly runNumber: number;
  /** The newest attempt of the run; 0 before the first claim. */
  readonly attempt: number;
  /** Units done, if ever reported. */
  readonly progressDone?: number;
  /** Units in all, if ever reported. */
  readonly progressTotal?: number;
  /** Why it stands where it stands, if there is more to say. */
  readonly statusReason?: string;
  /** The code of the newest failure that is still open. */
  readonly lastErrorCode?: string;
  /** The message of the newest failure that is still open. */
  readonly lastErrorMessage?: string;
  /** The `seq` of the newest event. */
  readonly eventSeq: number;
}
