/**
 * How an attempt can end: what handlers return and throw, and the outcome that settlement posts.
 *
 * @module
 */

import { RunledgerError } from "./errors.ts";
import type { RunledgerErrorCode } from "./error_code.ts";
import { assertJsonValue } from "./json.ts";
import type { JsonValue } from "./json.ts";
import { boundedText, isBlankText, isStorableText, nameProblem, utf8Length } from "./stored_text.ts";

/** The longest delay that may be asked for, in milliseconds: ten years of 365 days. */
export const MAX_DELAY_MS = 315_360_000_000;

/** The most bytes of UTF-8 that the message of a stored failure takes. */
export const MAX_FAILURE_MESSAGE_BYTES = 8192;

/** The most bytes of UTF-8 that a failure code takes. */
export const MAX_FAILURE_CODE_BYTES = 512;

/** The most bytes of UTF-8 that the reason of a snooze or a cancellation takes. */
export const MAX_REASON_BYTES = 8192;

/**
 * Why an attempt failed, which decides whether another one may follow.
 *
 * - `RETRYABLE`: it may work next time. Retried while attempts remain.
 * - `TERMINAL`: no retry can help. The job is dead-lettered at once.
 * - `TIMEOUT`: the attempt ran longer than it may. Retried while attempts remain.
 * - `LEASE_EXPIRED`: its worker was lost. Set by the reaper; retried while attempts remain.
 * - `PANICKED`: the handler broke its contract, such as an output that is not JSON. Dead-lettered at once.
 */
export type JobFailureKind = "RETRYABLE" | "TERMINAL" | "TIMEOUT" | "LEASE_EXPIRED" | "PANICKED";

/** Every {@linkcode JobFailureKind}. */
export const JOB_FAILURE_KINDS: readonly JobFailureKind[] = [
  "RETRYABLE",
  "TERMINAL",
  "TIMEOUT",
  "LEASE_EXPIRED",
  "PANICKED",
];

/** The kinds of failure after which another attempt is made while attempts remain. */
export const RETRYABLE_FAILURE_KINDS: readonly JobFailureKind[] = ["RETRYABLE", "TIMEOUT", "LEASE_EXPIRED"];

/**
 * Says whether a kind of failure leads to another attempt while attempts remain.
 *
 * @param kind A failure kind.
 * @returns `false` for `TERMINAL` and `PANICKED`.
 *
 * @example
 * ```ts
 * import { isRetryableFailureKind } from "@runledger/core";
 * import assert from "node:assert/strict";
 *
 * assert(isRetryableFailureKind("TIMEOUT"));
 * assert(!isRetryableFailureKind("PANICKED"));
 * ```
 */
export function isRetryableFailureKind(kind: JobFailureKind): boolean {
  return RETRYABLE_FAILURE_KINDS.includes(kind);
}

/**
 * The earliest time of the next attempt: a lower bound beside the policy's delay, such as the `Retry-After` of a remote
 * service. A relative one counts from the settlement, by the database's clock.
 */
export type RetryNotBefore =
  /** Not before so many milliseconds have passed. */
  | { readonly delayMs: number }
  /** Not before this instant. */
  | { readonly at: Date };

/** What a {@linkcode JobFailure} may carry besides its code and message. */
export interface JobFailureOptions {
  /** The earliest time of the next attempt, if there is one. */
  readonly retryNotBefore?: RetryNotBefore;
  /** What was caught, for the worker's logs. It is not stored. */
  readonly cause?: unknown;
}

/**
 * What a handler throws to say how its attempt failed. Any other thrown value is `RETRYABLE` with the code
 * `job.handler_threw`.
 *
 * @example Retry when a remote service says so, give up when it never will
 * ```ts
 * import { isJobFailure, JobFailure } from "@runledger/core";
 * import assert from "node:assert/strict";
 *
 * function failureOf(status: number): JobFailure {
 *   return status === 429
 *     ? JobFailure.retryable("mail.rate_limited", "The relay asks to wait.", { retryNotBefore: { delayMs: 60_000 } })
 *     : JobFailure.terminal("mail.rejected", `The relay answered ${status}.`);
 * }
 *
 * assert.equal(failureOf(429).kind, "RETRYABLE");
 * assert(isJobFailure(failureOf(550)));
 * ```
 */
export class JobFailure extends Error {
  /** Always `"JobFailure"`: copies of the package are recognised by it. */
  override readonly name: string = "JobFailure";
  /** Whether another attempt may follow, and why this one failed. */
  readonly kind: JobFailureKind;
  /** A stable string for code and alerts to branch on, such as `mail.rejected`. */
  readonly code: string;
  /** The earliest time of the next attempt, if one was asked for. */
  declare readonly retryNotBefore?: RetryNotBefore;

  /**
   * Makes a failure of any kind. Prefer {@linkcode JobFailure.retryable} and {@linkcode JobFailure.terminal}.
   *
   * @param kind Whether another attempt may follow, and why this one failed.
   * @param code A stable string; at most 512 bytes of UTF-8, not blank.
   * @param message For operators; stored, cut to 8192 bytes.
   * @param options The earliest time of the next attempt, and what was caught.
   * @throws {RunledgerError} `job.invalid_outcome` when the code is blank or too long, or the time cannot be.
   */
  constructor(kind: JobFailureKind, code: string, message: string, options: JobFailureOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    assertFailureKind(kind, "kind");
    assertFailureCode(code, "code");
    if (options.retryNotBefore !== undefined) assertRetryNotBefore(options.retryNotBefore, "retryNotBefore");
    this.kind = kind;
    this.code = code;
    if (options.retryNotBefore !== undefined) this.retryNotBefore = options.retryNotBefore;
  }

  /**
   * Makes a failure that another attempt may mend.
   *
   * @param code A stable string; at most 512 bytes of UTF-8, not blank.
   * @param message For operators; stored, cut to 8192 bytes.
   * @param options The earliest time of the next attempt, and what was caught.
   * @returns A failure of kind `RETRYABLE`, to be thrown.
   * @throws {RunledgerError} `job.invalid_outcome` when the code is blank or too long, or the time cannot be.
   */
  static retryable(code: string, message: string, options: JobFailureOptions = {}): JobFailure {
    return new JobFailure("RETRYABLE", code, message, options);
  }

  /**
   * Makes a failure that no other attempt can mend: the job is dead-lettered whatever attempts remain.
   *
   * @param code A stable string; at most 512 bytes of UTF-8, not blank.
   * @param message For operators; stored, cut to 8192 bytes.
   * @param options What was caught.
   * @returns A failure of kind `TERMINAL`, to be thrown.
   * @throws {RunledgerError} `job.invalid_outcome` when the code is blank or too long.
   */
  static terminal(code: string, message: string, options: JobFailureOptions = {}): JobFailure {
    return new JobFailure("TERMINAL", code, message, options);
  }
}

/**
 * Says whether a caught value is a {@linkcode JobFailure}.
 *
 * Goes by name and shape, not by class, since two copies of a package (npm and JSR) have two classes.
 *
 * @param value Anything that was caught.
 * @returns Whether it is one.
 */
export function isJobFailure(value: unknown): value is JobFailure {
  return value instanceof Error && value.name === "JobFailure" &&
    "kind" in value && isFailureKind(value.kind) &&
    "code" in value && typeof value.code === "string" && !isBlankText(value.code);
}

/** A failure as it is stored with its job: bounded, storable text. */
export interface StoredFailure {
  /** Whether another attempt may follow, and why this one failed. */
  readonly kind: JobFailureKind;
  /** A stable string to branch on; at most 512 bytes of UTF-8, not blank. */
  readonly code: string;
  /** For operators; at most 8192 bytes of UTF-8. */
  readonly message: string;
}

/**
 * Makes a failure fit for storing: its message is cut to {@linkcode MAX_FAILURE_MESSAGE_BYTES} and what PostgreSQL cannot
 * store in it is replaced.
 *
 * @param failure A {@linkcode JobFailure}, or anything with its kind, code and message.
 * @returns A new record without anything else.
 *
 * @example
 * ```ts
 * import { JobFailure, storedFailure } from "@runledger/core";
 * import assert from "node:assert/strict";
 *
 * const stored = storedFailure(JobFailure.terminal("mail.rejected", "x".repeat(10_000)));
 * assert.equal(stored.message.length, 8192);
 * ```
 */
export function storedFailure(failure: StoredFailure): StoredFailure {
  return {
    kind: failure.kind,
    code: failure.code,
    message: boundedText(failure.message, MAX_FAILURE_MESSAGE_BYTES),
  };
}

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

/**
 * Says whether a returned value is a {@linkcode JobCompletion} rather than a plain output.
 *
 * @param value What a handler returned.
 * @returns Whether one of this module's functions made it, in whichever copy of the package.
 */
export function isJobCompletion(value: unknown): value is JobCompletion {
  return typeof value === "object" && value !== null && COMPLETION in value;
}

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

function assertStoredFailure(failure: StoredFailure): void {
  if (typeof failure !== "object" || failure === null) refuse("failure", "must have a kind, a code and a message");
  assertFailureKind(failure.kind, "failure.kind");
  assertFailureCode(failure.code, "failure.code");
  assertBoundedText(failure.message, "failure.message", MAX_FAILURE_MESSAGE_BYTES);
}

function isFailureKind(kind: unknown): kind is JobFailureKind {
  return (JOB_FAILURE_KINDS as readonly unknown[]).includes(kind);
}

function assertFailureKind(kind: JobFailureKind, field: string): void {
  if (!isFailureKind(kind)) refuse(field, `must be one of ${JOB_FAILURE_KINDS.join(", ")}`);
}

function assertFailureCode(code: string, field: string): void {
  const problem = nameProblem(code, MAX_FAILURE_CODE_BYTES);
  if (problem !== undefined) refuse(field, problem);
}

function assertReason(reason: string | undefined): void {
  if (reason !== undefined) assertBoundedText(reason, "reason", MAX_REASON_BYTES);
}

function assertBoundedText(text: string, field: string, maxBytes: number): void {
  if (typeof text !== "string") refuse(field, "must be a string");
  if (!isStorableText(text)) refuse(field, "must not hold U+0000 or a lone surrogate");
  // A unit takes at most three bytes, so most texts need no counting.
  if (text.length * 3 > maxBytes && utf8Length(text) > maxBytes) refuse(field, `must take at most ${maxBytes} bytes`);
}

function assertDelay(delayMs: number, field: string): void {
  if (!Number.isSafeInteger(delayMs) || delayMs < 0 || delayMs > MAX_DELAY_MS) {
    refuse(field, `must be a whole number of milliseconds from 0 to ${MAX_DELAY_MS}`);
  }
}

function assertRetryNotBefore(bound: RetryNotBefore, field: string): void {
  if (typeof bound !== "object" || bound === null) refuse(field, "must be { delayMs } or { at }");
  if ("delayMs" in bound) return assertDelay(bound.delayMs, `${field}.delayMs`);
  const year = bound.at instanceof Date ? bound.at.getUTCFullYear() : NaN;
  if (!(year >= 1 && year <= 9999)) refuse(`${field}.at`, "must be a valid Date of the years 1 to 9999");
}

function refuse(field: string, problem: string, code: RunledgerErrorCode = "job.invalid_outcome"): never {
  throw new RunledgerError(code, {
    message: `The outcome cannot be settled: ${field} ${problem}.`,
    details: { field, problem },
  });
}
