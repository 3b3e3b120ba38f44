/**
 * How an attempt fails: what a handler throws, and what is stored of it.
 *
 * @module
 */

import { assertBoundedText, assertDelay, refuse } from "./outcome_fields.ts";
import { boundedText, isBlankText, nameProblem } from "./stored_text.ts";

/** The most bytes of UTF-8 that the message of a stored failure takes. */
export const MAX_FAILURE_MESSAGE_BYTES = 8192;

/** The most bytes of UTF-8 that a failure code takes. */
export const MAX_FAILURE_CODE_BYTES = 512;

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

/** Refuses what is no failure that can be stored. */
export function assertStoredFailure(failure: StoredFailure): void {
  if (typeof failure !== "object" || failure === null) refuse("failure", "must have a kind, a code and a message");
  assertFailureKind(failure.kind, "failure.kind");
  assertFailureCode(failure.code, "failure.code");
  assertBoundedText(failure.message, "failure.message", MAX_FAILURE_MESSAGE_BYTES);
}

/** Refuses a time that cannot be. */
export function assertRetryNotBefore(bound: RetryNotBefore, field: string): void {
  if (typeof bound !== "object" || bound === null) refuse(field, "must be { delayMs } or { at }");
  if ("delayMs" in bound) return assertDelay(bound.delayMs, `${field}.delayMs`);
  const year = bound.at instanceof Date ? bound.at.getUTCFullYear() : NaN;
  if (!(year >= 1 && year <= 9999)) refuse(`${field}.at`, "must be a valid Date of the years 1 to 9999");
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
