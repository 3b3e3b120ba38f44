/**
 * The operations of the library as plain data, so that they can be generated, printed, run, and given to the model.
 *
 * @module
 */

import assert from "node:assert/strict";
import { isRunledgerError } from "@runledger/core";
import type { JobLease, JobOutcome, JobRequest, JobStatus, JsonValue, RunledgerErrorDetail } from "@runledger/core";
import {
  appendJobLogs,
  cancelJob,
  cancelJobs,
  claimJobs,
  deleteFinishedJobs,
  editJob,
  editJobs,
  enqueueJobs,
  heartbeatJobs,
  reapExpiredLeases,
  recordJobProgress,
  releaseJobs,
  replayJob,
  requeueDeadLetters,
  requeueJob,
  requeueJobs,
  setJobDefinitionEnabled,
  settleJobs,
} from "@runledger/postgres";
import type { FrozenJob, JobProgressUpdate, Queryable } from "@runledger/postgres";

/** What an edit changes. */
export interface ModelChange {
  readonly nextRunAt?: Date;
  readonly priority?: number;
  readonly payload?: JsonValue;
}

/** One call of the library, with its arguments. */
export type Operation =
  | { readonly op: "enqueue"; readonly requests: readonly JobRequest[] }
  | { readonly op: "claim"; readonly jobTypes: readonly string[]; readonly limit: number }
  | { readonly op: "heartbeat"; readonly leases: readonly JobLease[]; readonly postsEvents: boolean }
  | { readonly op: "progress"; readonly lease: JobLease; readonly update: JobProgressUpdate }
  | { readonly op: "log"; readonly lease: JobLease }
  | {
    readonly op: "settle";
    readonly settlements: readonly { readonly lease: JobLease; readonly outcome: JobOutcome }[];
  }
  | { readonly op: "release"; readonly leases: readonly JobLease[] }
  | { readonly op: "cancel"; readonly jobId: string }
  | { readonly op: "edit"; readonly jobId: string; readonly change: ModelChange; readonly expectedEventSeq?: number }
  | { readonly op: "cancelMany"; readonly jobs: readonly FrozenJob[] }
  | { readonly op: "requeueMany"; readonly jobs: readonly FrozenJob[]; readonly progress: "keep" | "reset" }
  | { readonly op: "editMany"; readonly jobs: readonly FrozenJob[]; readonly change: Omit<ModelChange, "payload"> }
  | {
    readonly op: "requeue";
    readonly jobId: string;
    readonly expectedStatus: "DEAD_LETTERED" | "CANCELED";
    readonly expectedRunNumber: number;
    readonly progress: "keep" | "reset";
  }
  | { readonly op: "requeueDeadLetters"; readonly jobType?: string; readonly limit: number }
  | { readonly op: "replay"; readonly jobId: string; readonly replayKey: string; readonly reason: string }
  | { readonly op: "reap"; readonly limit: number }
  | { readonly op: "retention"; readonly statuses: readonly JobStatus[]; readonly expiresIdempotencyKeys: boolean }
  | { readonly op: "setEnabled"; readonly jobType: string; readonly isEnabled: boolean };

/** What a call led to: a value, or an error of the library that is an answer and no accident. */
export type OperationResult =
  | { readonly value: unknown }
  | { readonly refused: string; readonly details: Readonly<Record<string, RunledgerErrorDetail>> };

/**
 * Runs an operation.
 *
 * @throws {Error} Any error that is no answer, `db.*` among them.
 */
export function perform(db: Queryable, operation: Operation): Promise<OperationResult> {
  return answerOf(operation.op, call(db, operation));
}

/**
 * Tells what a call led to.
 *
 * @throws {Error} Any error that is no answer, `db.*` among them.
 */
export async function answerOf(op: string, work: Promise<unknown>): Promise<OperationResult> {
  try {
    return { value: await work };
  } catch (error) {
    if (!isRunledgerError(error)) throw error;
    if (!/^(job|workflow)\./.test(error.code)) {
      throw new Error(`${op}: ${error.code}: ${error.internalMessage}`, { cause: error });
    }
    return { refused: error.code, details: error.details ?? {} };
  }
}

function call(db: Queryable, operation: Operation): Promise<unknown> {
  switch (operation.op) {
    case "enqueue":
      return enqueueJobs(db, operation.requests);
    case "claim":
      return claimJobs(db, { jobTypes: operation.jobTypes, workerId: "w", limit: operation.limit });
    case "heartbeat":
      return heartbeatJobs(db, operation.leases, { postsEvents: operation.postsEvents });
    case "progress":
      return recordJobProgress(db, operation.lease, operation.update);
    case "log":
      return appendJobLogs(db, [{ lease: operation.lease, level: "info", message: "line" }]);
    case "settle":
      return settleJobs(db, operation.settlements);
    case "release":
      return releaseJobs(db, operation.leases);
    case "cancel":
      return cancelJob(db, operation.jobId, { scope: "all" });
    case "edit": {
      const { jobId, change, expectedEventSeq } = operation;
      const expected = expectedEventSeq === undefined ? {} : { expectedEventSeq };
      return editJob(db, jobId, { scope: "all", ...change, ...expected });
    }
    case "cancelMany":
      return cancelJobs(db, operation.jobs, { scope: "all" });
    case "requeueMany":
      return requeueJobs(db, operation.jobs, { scope: "all", progress: operation.progress });
    case "editMany":
      return editJobs(db, operation.jobs, { scope: "all", ...operation.change });
    case "requeue": {
      const { jobId, expectedStatus, expectedRunNumber, progress } = operation;
      return requeueJob(db, jobId, { scope: "all", expectedStatus, expectedRunNumber, progress });
    }
    case "requeueDeadLetters": {
      const { jobType, limit } = operation;
      return requeueDeadLetters(db, { scope: "all", limit, ...(jobType === undefined ? {} : { jobType }) });
    }
    case "replay": {
      const { jobId, replayKey, reason } = operation;
      return replayJob(db, jobId, { scope: "all", replayKey, reason });
    }
    case "reap":
      return reapExpiredLeases(db, { limit: operation.limit });
    case "retention": {
      const { statuses, expiresIdempotencyKeys } = operation;
      return deleteFinishedJobs(db, { olderThanMs: 0, statuses, expiresIdempotencyKeys });
    }
    case "setEnabled":
      return setJobDefinitionEnabled(db, operation.jobType, { isEnabled: operation.isEnabled });
  }
}

/** What a call gave. */
export function valueOf(result: OperationResult): unknown {
  assert("value" in result, `refused with ${"refused" in result ? result.refused : ""}`);
  return result.value;
}

/** Checks what a call gave. */
export function assertValue(result: OperationResult, value: unknown): void {
  assert.deepEqual(valueOf(result), value);
}

/** Checks that a call was refused, and with which words. */
export function assertRefused(result: OperationResult, code: string, details: unknown = {}): void {
  assert("refused" in result, `should be refused with ${code}`);
  assert.deepEqual([result.refused, result.details], [code, details]);
}

/** Whether two values are the same JSON, members in the same order. */
export function isSame(one: unknown, other: unknown): boolean {
  return JSON.stringify(one) === JSON.stringify(other);
}
