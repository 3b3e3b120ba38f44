/**
 * What a handler returns instead of a plain output, to end its attempt in another way.
 *
 * @module
 */

import { assertDelay, assertReason } from "./outcome_fields.ts";
import { assertProgress } from "./job_outcome.ts";
import type {
  AttemptRecord,
  CanceledOutcome,
  ContinuedOutcome,
  SnoozedOutcome,
  SucceededOutcome,
} from "./job_outcome.ts";

/** What may be kept beside a snooze. */
export interface SnoozeOptions extends AttemptRecord {
  /** Why, for people; at most 8192 bytes. */
  readonly reason?: string;
}

/**
 * What a handler may return instead of a plain output, to end its attempt in another way. Made by {@linkcode complete},
 * {@linkcode continueNow}, {@linkcode continueAfter}, {@linkcode snooze} and {@linkcode callOff}.
 */
export type JobCompletion<Output = unknown> =
  & CompletionMark
  & (
    | (Omit<SucceededOutcome, "output"> & { readonly output?: Output })
    | ContinuedOutcome
    | SnoozedOutcome
    | CanceledOutcome
  );

/** What tells a {@linkcode JobCompletion} from a plain output, in types. */
export interface CompletionMark {
  /** At run time a registered symbol counts, which no JSON value can hold. */
  readonly "~runledger": "JobCompletion";
}

/**
 * Ends the job well, like returning the output itself, and keeps progress or a checkpoint with it.
 *
 * @param output The job's result, if it has one.
 * @param options Progress and checkpoint to keep.
 * @returns What the handler returns.
 * @throws {RunledgerError} `job.invalid_progress` when the progress cannot be.
 *
 * @example
 * ```ts
 * import { complete, isJobCompletion } from "@runledger/core";
 * import assert from "node:assert/strict";
 *
 * const completion = complete({ rows: 12 }, { progress: { done: 12, total: 12 } });
 * assert(isJobCompletion(completion));
 * assert(!isJobCompletion({ rows: 12 }));
 * ```
 */
export function complete<Output = undefined>(output?: Output, options: AttemptRecord = {}): JobCompletion<Output> {
  return mark({ kind: "succeeded", ...(output === undefined ? {} : { output }), ...kept(options) });
}

/**
 * Ends this slice of the work: the job goes on at once as a new run, with all its attempts and the checkpoint.
 *
 * @param options Progress and checkpoint to keep.
 * @returns What the handler returns.
 * @throws {RunledgerError} `job.invalid_progress` when the progress cannot be.
 *
 * @example
 * ```ts
 * import { continueNow } from "@runledger/core";
 * import assert from "node:assert/strict";
 *
 * assert.equal(continueNow({ checkpoint: { afterId: 500 } }).kind, "continued");
 * ```
 */
export function continueNow(options: AttemptRecord = {}): JobCompletion<never> {
  return mark({ kind: "continued", ...kept(options) });
}

/**
 * Ends this slice of the work: the job goes on after a delay as a new run, with all its attempts and the checkpoint.
 *
 * @param delayMs How long to wait, in milliseconds by the database's clock: 0 to ten years.
 * @param options Progress and checkpoint to keep.
 * @returns What the handler returns.
 * @throws {RunledgerError} `job.invalid_outcome` when the delay cannot be, `job.invalid_progress` when the progress cannot.
 *
 * @example
 * ```ts
 * import { continueAfter } from "@runledger/core";
 * import assert from "node:assert/strict";
 *
 * assert.equal(continueAfter(60_000).kind, "continued");
 * assert.throws(() => continueAfter(-1), { code: "job.invalid_outcome" });
 * ```
 */
export function continueAfter(delayMs: number, options: AttemptRecord = {}): JobCompletion<never> {
  assertDelay(delayMs, "delayMs");
  return mark({ kind: "continued", delayMs, ...kept(options) });
}

/**
 * Puts the job back for later without spending an attempt, such as when a resource is busy.
 *
 * @param delayMs How long to wait, in milliseconds by the database's clock: 0 to ten years.
 * @param options A reason for people, progress and checkpoint to keep.
 * @returns What the handler returns.
 * @throws {RunledgerError} `job.invalid_outcome` when the delay or the reason cannot be, `job.invalid_progress` when the
 * progress cannot.
 *
 * @example
 * ```ts
 * import { snooze } from "@runledger/core";
 * import assert from "node:assert/strict";
 *
 * assert.equal(snooze(5_000, { reason: "ledger closed" }).kind, "snoozed");
 * ```
 */
export function snooze(delayMs: number, options: SnoozeOptions = {}): JobCompletion<never> {
  assertDelay(delayMs, "delayMs");
  assertReason(options.reason);
  return mark({
    kind: "snoozed",
    delayMs,
    ...(options.reason === undefined ? {} : { reason: options.reason }),
    ...kept(options),
  });
}

/**
 * Calls the job off from inside its handler: it ends as CANCELED, neither a success nor a failure.
 *
 * @param reason Why, for people; at most 8192 bytes.
 * @returns What the handler returns.
 * @throws {RunledgerError} `job.invalid_outcome` when the reason cannot be stored.
 *
 * @example
 * ```ts
 * import { callOff } from "@runledger/core";
 * import assert from "node:assert/strict";
 *
 * assert.equal(callOff("the customer left").kind, "canceled");
 * ```
 */
export function callOff(reason?: string): JobCompletion<never> {
  assertReason(reason);
  return mark({ kind: "canceled", ...(reason === undefined ? {} : { reason }) });
}

/**
 * Says whether a returned value is a {@linkcode JobCompletion} rather than a plain output.
 *
 * @param value What a handler returned.
 * @returns Whether one of this module's functions made it, in whichever copy of the package.
 */
export function isJobCompletion(value: unknown): value is JobCompletion {
  return typeof value === "object" && value !== null && COMPLETION in value;
}

// Registered, so that two copies of the package know each other's completions; a symbol, so that no JSON can forge one.
const COMPLETION = Symbol.for("runledger.JobCompletion");

function mark<Fields>(fields: Fields): Fields & CompletionMark {
  return Object.freeze({ ...fields, "~runledger": "JobCompletion" as const, [COMPLETION]: true });
}

/** Keeps what was given: an absent field leaves the stored one as it is. */
function kept(options: AttemptRecord): AttemptRecord {
  if (options.progress !== undefined) assertProgress(options.progress, "progress");
  return {
    ...(options.progress === undefined ? {} : { progress: options.progress }),
    ...(options.checkpoint === undefined ? {} : { checkpoint: options.checkpoint }),
  };
}
