/**
 * How long to wait before the next attempt: a pure rule of the attempt, the job's id and the failure's code.
 *
 * @module
 */

import { RunledgerError } from "./errors.ts";
import { jobIdJitter } from "./id.ts";
import { MAX_DELAY_MS } from "./outcome_fields.ts";

/** Exact delays in milliseconds by failure code; they go before the rest of a policy. */
export interface RetryDelayByCode {
  /** For example `{ "mail.rate_limited": 60_000 }`. */
  readonly byCode?: Readonly<Record<string, number>>;
}

/** The default delays, with exceptions by failure code. See {@linkcode defaultRetryDelayMs}. */
export interface DefaultRetryPolicy extends RetryDelayByCode {
  /** Tells the policies apart. */
  readonly kind: "default";
}

/** The same delay after each attempt. */
export interface FixedRetryPolicy extends RetryDelayByCode {
  /** Tells the policies apart. */
  readonly kind: "fixed";
  /** The delay in milliseconds, 0 to ten years. */
  readonly delayMs: number;
}

/** A delay that grows by a factor: `min(baseMs * factor^(attempt - 1), maxMs)`, less jitter. */
export interface ExponentialRetryPolicy extends RetryDelayByCode {
  /** Tells the policies apart. */
  readonly kind: "exponential";
  /** The delay after the first attempt in milliseconds, 0 to ten years. */
  readonly baseMs: number;
  /** What each further delay is multiplied by, 1 to 100. @default 2 */
  readonly factor?: number;
  /** No delay is longer, in milliseconds; at least `baseMs`. */
  readonly maxMs: number;
  /** The share of a delay, 0 to 1, by which jobs may wait less, so that they do not all come back at once. @default 0 */
  readonly jitter?: number;
}

/** One delay for each attempt; the last one for all that follow. */
export interface ListedRetryPolicy extends RetryDelayByCode {
  /** Tells the policies apart. */
  readonly kind: "list";
  /** Delays in milliseconds, 0 to ten years; at least one. */
  readonly delaysMs: readonly number[];
}

/** How long to wait before the next attempt: plain data, so it can be stored, compared and shown. */
export type RetryPolicy =
  | "default"
  | DefaultRetryPolicy
  | FixedRetryPolicy
  | ExponentialRetryPolicy
  | ListedRetryPolicy;

/** What a delay depends on. */
export interface RetrySituation {
  /** The attempt that failed, from 1. */
  readonly attempt: number;
  /** The job's id, a UUID: jitter follows from it. */
  readonly jobId: string;
  /** The code of the failure. */
  readonly failureCode?: string;
}

/**
 * Gives the default delay before the next attempt: about 10 s, 20 s, 40 s, 80 s, 160 s and then 5 minutes, with half a
 * second more or less by the job's id.
 *
 * The rule is `max(1000, min(5000 * 2^clamp(attempt, 1, 10), 300000) + (jobId mod 1000) - 500)`.
 *
 * @param attempt The attempt that failed.
 * @param jobId The job's id, a UUID.
 * @returns Whole milliseconds. The same arguments always give the same delay.
 * @throws {RangeError} When the id is not a UUID.
 *
 * @example
 * ```ts
 * import { defaultRetryDelayMs } from "@runledger/core";
 * import assert from "node:assert/strict";
 *
 * const delayMs = defaultRetryDelayMs(1, "0191d8a0-7c1e-7c3b-8f6a-1b2c3d4e5f60");
 * assert(delayMs >= 9_500 && delayMs < 10_500);
 * ```
 */
export function defaultRetryDelayMs(attempt: number, jobId: string): number {
  const exponent = Math.min(Math.max(attempt, 1), 10);
  return Math.max(1000, Math.min(5000 * 2 ** exponent, 300_000) + jobIdJitter(jobId, 1000) - 500);
}

/**
 * Gives the delay before the next attempt by a policy. Whether there is a next attempt is not its matter.
 *
 * @param policy A policy that {@linkcode assertRetryPolicy} accepts.
 * @param situation The attempt that failed, the job, and the failure's code.
 * @returns Whole milliseconds, 0 to ten years. The same arguments always give the same delay.
 * @throws {RangeError} When the job's id is not a UUID and the delay depends on it.
 *
 * @example
 * ```ts
 * import { newId, retryDelayMs } from "@runledger/core";
 * import assert from "node:assert/strict";
 *
 * const policy = { kind: "list", delaysMs: [1_000, 60_000], byCode: { "mail.rate_limited": 30_000 } } as const;
 * const jobId = newId();
 * assert.equal(retryDelayMs(policy, { attempt: 1, jobId }), 1_000);
 * assert.equal(retryDelayMs(policy, { attempt: 7, jobId }), 60_000);
 * assert.equal(retryDelayMs(policy, { attempt: 1, jobId, failureCode: "mail.rate_limited" }), 30_000);
 * ```
 */
export function retryDelayMs(policy: RetryPolicy, situation: RetrySituation): number {
  const { attempt, jobId, failureCode } = situation;
  if (policy === "default") return defaultRetryDelayMs(attempt, jobId);
  // Own properties only: a failure code may be called "constructor".
  if (failureCode !== undefined && policy.byCode !== undefined && Object.hasOwn(policy.byCode, failureCode)) {
    const delayMs = policy.byCode[failureCode];
    if (delayMs !== undefined) return delayMs;
  }
  switch (policy.kind) {
    case "default":
      return defaultRetryDelayMs(attempt, jobId);
    case "fixed":
      return policy.delayMs;
    case "exponential":
      return exponentialDelayMs(policy, attempt, jobId);
    case "list":
      return policy.delaysMs[Math.min(Math.max(attempt, 1), policy.delaysMs.length) - 1] ?? 0;
  }
}

function exponentialDelayMs(policy: ExponentialRetryPolicy, attempt: number, jobId: string): number {
  // The exponent is bounded because 0 * Infinity is no number.
  const exponent = Math.min(Math.max(attempt, 1) - 1, 150);
  const full = Math.min(policy.baseMs * (policy.factor ?? 2) ** exponent, policy.maxMs);
  const jitter = policy.jitter ?? 0;
  return Math.round(jitter === 0 ? full : full * (1 - jitter * jobIdJitter(jobId, 1000) / 1000));
}

/**
 * Checks a retry policy.
 *
 * @param policy The policy.
 * @param field What to call it in the error.
 * @throws {RunledgerError} `job.invalid_definition` naming the field that cannot be.
 *
 * @example
 * ```ts
 * import { assertRetryPolicy } from "@runledger/core";
 * import assert from "node:assert/strict";
 *
 * assertRetryPolicy({ kind: "exponential", baseMs: 500, maxMs: 60_000, jitter: 0.5 });
 * assert.throws(() => assertRetryPolicy({ kind: "fixed", delayMs: -1 }), { details: { field: "retry.delayMs" } });
 * ```
 */
export function assertRetryPolicy(policy: RetryPolicy, field: string = "retry"): void {
  if (policy === "default") return;
  if (typeof policy !== "object" || policy === null) refuse(field, 'must be "default" or an object with a kind');
  switch (policy.kind) {
    case "default":
      break;
    case "fixed":
      assertDelay(policy.delayMs, `${field}.delayMs`);
      break;
    case "exponential":
      assertExponential(policy, field);
      break;
    case "list":
      if (!Array.isArray(policy.delaysMs) || policy.delaysMs.length === 0) {
        refuse(`${field}.delaysMs`, "must have a delay in it");
      }
      for (const [index, delayMs] of policy.delaysMs.entries()) assertDelay(delayMs, `${field}.delaysMs[${index}]`);
      break;
    default:
      refuse(`${field}.kind`, "must be default, fixed, exponential or list");
  }
  if (policy.byCode === undefined) return;
  if (typeof policy.byCode !== "object" || policy.byCode === null) {
    refuse(`${field}.byCode`, "must be an object of delays by failure code");
  }
  for (const [code, delayMs] of Object.entries(policy.byCode)) assertDelay(delayMs, `${field}.byCode.${code}`);
}

function assertExponential(policy: ExponentialRetryPolicy, field: string): void {
  assertDelay(policy.baseMs, `${field}.baseMs`);
  assertDelay(policy.maxMs, `${field}.maxMs`);
  if (policy.maxMs < policy.baseMs) refuse(`${field}.maxMs`, "must be at least baseMs");
  const { factor = 2, jitter = 0 } = policy;
  if (!(typeof factor === "number" && factor >= 1 && factor <= 100)) {
    refuse(`${field}.factor`, "must be a number from 1 to 100");
  }
  if (!(typeof jitter === "number" && jitter >= 0 && jitter <= 1)) {
    refuse(`${field}.jitter`, "must be a share from 0 to 1");
  }
}

function assertDelay(delayMs: number, field: string): void {
  if (!Number.isSafeInteger(delayMs) || delayMs < 0 || delayMs > MAX_DELAY_MS) {
    refuse(field, `must be a whole number of milliseconds from 0 to ${MAX_DELAY_MS}`);
  }
}

function refuse(field: string, problem: string): never {
  throw new RunledgerError("job.invalid_definition", {
    message: `The job definition cannot be: ${field} ${problem}.`,
    details: { field },
  });
}
