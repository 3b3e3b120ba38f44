/**
 * How an attempt can end: the outcome that settlement posts, and the lease it is fenced by.
 *
 * @module
 */

import { assertDelay, assertReason, refuse } from "./outcome_fields.ts";
import { assertRetryNotBefore, assertStoredFailure } from "./job_failure.ts";
import type { RetryNotBefore, StoredFailure } from "./job_failure.ts";
import { assertJsonValue } from "./json.ts";
import type { JsonValue } from "./json.ts";

/** How much of a job is done, in units that its handler chooses: `0 <= done <= total`, whole numbers. */
export interface JobProgress {
  /** Units done so far. */
  readonly done: number;
  /** Units in all; absent when that is unknown or stays as stored. */
  readonly total?: number;
}

/** What every write of an attempt is fenced by. Once the lease is lost, all of them are refused. */
export interface JobLease {
  /** The job. */
  readonly jobId: string;
  /** Which run of the job: one more after each continuation and requeue. */
  readonly runNumber: number;
  /** Which attempt of the run, from 1. */
  readonly attempt: number;
  /** The secret of this one claim, a UUID. */
  readonly leaseToken: string;
  /** The workflow run whose step the job is; absent for other jobs. A lease is passed on as the claim gave it. */
  readonly workflowRunId?: string;
}

/** What may be kept with the end of an attempt, for the next one and for people. */
export interface AttemptRecord {
  /** How much is done. Absent leaves it as stored. */
  readonly progress?: JobProgress;
  /** Where to go on: shown to the next attempt. Absent leaves it as stored. */
  readonly checkpoint?: JsonValue;
}

/** The attempt finished the job. */
export interface SucceededOutcome extends AttemptRecord {
  /** Tells the outcomes apart. */
  readonly kind: "succeeded";
  /** The job's result, if it has one. */
  readonly output?: JsonValue;
}

/** The attempt failed: a retry, or a dead letter when the kind forbids one or attempts are used up. */
export interface FailedOutcome extends AttemptRecord {
  /** Tells the outcomes apart. */
  readonly kind: "failed";
  /** What to store of the failure. */
  readonly failure: StoredFailure;
  /** The retry policy's delay, in milliseconds. Absent means the default policy of the settlement. */
  readonly retryDelayMs?: number;
  /** A lower bound beside `retryDelayMs`, if the handler gave one. */
  readonly retryNotBefore?: RetryNotBefore;
}

/** The attempt ended a bounded slice: the same job goes on as a new run with all its attempts. */
export interface ContinuedOutcome extends AttemptRecord {
  /** Tells the outcomes apart. */
  readonly kind: "continued";
  /** How long to wait, in milliseconds. @default 0 */
  readonly delayMs?: number;
}

/** The job is put back for later; the attempt is not counted. */
export interface SnoozedOutcome extends AttemptRecord {
  /** Tells the outcomes apart. */
  readonly kind: "snoozed";
  /** How long to wait, in milliseconds. */
  readonly delayMs: number;
  /** Why, for people. */
  readonly reason?: string;
}

/** The handler called its job off: it ends as CANCELED. */
export interface CanceledOutcome {
  /** Tells the outcomes apart. */
  readonly kind: "canceled";
  /** Why, for people. */
  readonly reason?: string;
}

/** How an attempt ended, in the form that settlement posts, fenced by a {@linkcode JobLease}. */
export type JobOutcome = SucceededOutcome | FailedOutcome | ContinuedOutcome | SnoozedOutcome | CanceledOutcome;

/**
 * Checks an outcome before any SQL. The size of its output and checkpoint is checked where they are encoded.
 *
 * @param outcome What is to be settled.
 * @throws {RunledgerError} `job.invalid_outcome` naming the field: a delay that is not a whole number of milliseconds from
 * 0 to ten years, a blank or too long failure code, text that cannot be stored or is not bounded (see
 * {@linkcode storedFailure}), or an unknown kind.
 * @throws {RunledgerError} `job.invalid_progress` unless `0 <= done <= total`, whole numbers.
 * @throws {RunledgerError} `job.invalid_payload` when output or checkpoint is not JSON.
 * @throws {TypeError} When it is not an object.
 *
 * @example
 * ```ts
 * import { assertJobOutcome } from "@runledger/core";
 * import assert from "node:assert/strict";
 *
 * assertJobOutcome({ kind: "succeeded", output: { rows: 12 }, progress: { done: 12, total: 12 } });
 * assert.throws(() => assertJobOutcome({ kind: "snoozed", delayMs: 0.5 }), { code: "job.invalid_outcome" });
 * ```
 */
export function assertJobOutcome(outcome: JobOutcome): void {
  if (typeof outcome !== "object" || outcome === null) throw new TypeError("A job outcome must be an object");
  switch (outcome.kind) {
    case "succeeded":
      if (outcome.output !== undefined) assertJsonValue(outcome.output, { field: "output" });
      break;
    case "failed":
      assertStoredFailure(outcome.failure);
      if (outcome.retryDelayMs !== undefined) assertDelay(outcome.retryDelayMs, "retryDelayMs");
      if (outcome.retryNotBefore !== undefined) assertRetryNotBefore(outcome.retryNotBefore, "retryNotBefore");
      break;
    case "continued":
      if (outcome.delayMs !== undefined) assertDelay(outcome.delayMs, "delayMs");
      break;
    case "snoozed":
      assertDelay(outcome.delayMs, "delayMs");
      assertReason(outcome.reason);
      break;
    case "canceled":
      assertReason(outcome.reason);
      return;
    default:
      refuse("kind", "must be succeeded, failed, continued, snoozed or canceled");
  }
  if (outcome.progress !== undefined) assertProgress(outcome.progress, "progress");
  if (outcome.checkpoint !== undefined) assertJsonValue(outcome.checkpoint, { field: "checkpoint" });
}

/**
 * Checks progress: `0 <= done <= total`, whole numbers up to `Number.MAX_SAFE_INTEGER`.
 *
 * @param progress What is reported.
 * @param field What to call it in the error.
 * @throws {RunledgerError} `job.invalid_progress` naming the field.
 */
export function assertProgress(progress: JobProgress, field: string = "progress"): void {
  if (typeof progress !== "object" || progress === null) {
    refuse(field, "must be an object with done and total", "job.invalid_progress");
  }
  const { done, total } = progress;
  if (!Number.isSafeInteger(done) || done < 0) {
    refuse(`${field}.done`, "must be a whole number from 0", "job.invalid_progress");
  }
  if (total === undefined) return;
  if (!Number.isSafeInteger(total) || total < done) {
    refuse(`${field}.total`, "must be a whole number, at least done", "job.invalid_progress");
  }
}
