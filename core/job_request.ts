/**
 * A job that is asked for, before it is enqueued.
 *
 * @module
 */

import { RunledgerError } from "./errors.ts";
import { isUuid } from "./id.ts";
import { ENQUEUE_STAGES } from "./job_status.ts";
import type { EnqueueStage } from "./job_status.ts";
import type { JsonValue } from "./json.ts";
import { nameProblem } from "./stored_text.ts";
import { parseTraceparent } from "./trace_context.ts";

/** The most bytes of UTF-8 that a job type takes. */
export const MAX_JOB_TYPE_BYTES = 255;

/** The most bytes of UTF-8 that an idempotency key takes. */
export const MAX_IDEMPOTENCY_KEY_BYTES = 512;

/** The largest value of PostgreSQL's `integer`. */
export const MAX_INTEGER = 2_147_483_647;

/** What may be asked for beside a job's type and payload. What is left out comes from the stored job definition. */
export interface JobRequestOptions {
  /** The tenant that the job belongs to, a UUID. Absent means none. */
  readonly organizationId?: string;
  /** Higher goes first; any 32-bit integer. */
  readonly priority?: number;
  /** How often the job may be tried, from 1. */
  readonly maxAttempts?: number;
  /** How long one attempt may run, in seconds, from 1. */
  readonly timeoutSeconds?: number;
  /** Not before this instant. Absent means at once. */
  readonly nextRunAt?: Date;
  /** Makes the enqueue idempotent for ever, within the job's type and organization; at most 512 bytes of UTF-8. */
  readonly idempotencyKey?: string;
  /** Shown to people while the job waits. */
  readonly stage?: EnqueueStage;
  /**
   * Where the job is asked for, as a W3C `traceparent`: tracing links each attempt to it. No part of what an idempotency
   * key stands for.
   */
  readonly traceparent?: string;
}

/**
 * A job that is asked for: plain data, usually made by {@linkcode JobDefinition.request}.
 *
 * @typeParam Output What its handler returns, if that is known.
 */
export interface JobRequest<Output = unknown> extends JobRequestOptions {
  /** Which kind of job; at most 255 bytes of UTF-8. */
  readonly jobType: string;
  /** What the handler is given: any JSON value. */
  readonly payload: JsonValue;
  /** For the compiler only, never set: what a request of this kind of job leads to. */
  readonly "~output"?: Output;
}

const FIELDS: ReadonlySet<string> = new Set<keyof JobRequest>([
  "jobType",
  "payload",
  "organizationId",
  "priority",
  "maxAttempts",
  "timeoutSeconds",
  "nextRunAt",
  "idempotencyKey",
  "stage",
  "traceparent",
]);

/**
 * Checks a job request before any SQL. Its payload is checked where it is encoded, by {@linkcode encodeJson}.
 *
 * A field that a request does not have is refused too: a mistyped `idempotencykey` would lose idempotency in silence.
 *
 * @param request What is asked for.
 * @throws {RunledgerError} `job.invalid_request` with `details.field`: a blank, too long or unstorable type or key, a
 * number that is not a 32-bit integer or not positive, an organization that is not a UUID, a time outside the years 1 to
 * 9999, an unknown stage or field, a `traceparent` that is none.
 * @throws {TypeError} When it is not an object.
 *
 * @example
 * ```ts
 * import { assertJobRequest } from "@runledger/core";
 * import assert from "node:assert/strict";
 *
 * assertJobRequest({ jobType: "email.send", payload: { to: "ada@example.com" }, priority: 10 });
 * assert.throws(() => assertJobRequest({ jobType: " ", payload: null }), {
 *   code: "job.invalid_request",
 *   details: { field: "jobType" },
 * });
 * ```
 */
export function assertJobRequest(request: JobRequest): void {
  if (typeof request !== "object" || request === null || Array.isArray(request)) {
    throw new TypeError("A job request must be an object, such as definition.request(payload) gives");
  }
  for (const field of Object.keys(request)) {
    if (!FIELDS.has(field)) refuse(quoted(field), `is not one of ${[...FIELDS].join(", ")}`, field);
  }
  const { organizationId, priority, maxAttempts, timeoutSeconds, nextRunAt, idempotencyKey, stage, traceparent } =
    request;
  assertName(request.jobType, "jobType", MAX_JOB_TYPE_BYTES);
  if (organizationId !== undefined && !(typeof organizationId === "string" && isUuid(organizationId))) {
    refuse("organizationId", "must be a UUID");
  }
  if (
    priority !== undefined && !(Number.isInteger(priority) && priority >= -MAX_INTEGER - 1 && priority <= MAX_INTEGER)
  ) {
    refuse("priority", "must be a 32-bit integer");
  }
  if (maxAttempts !== undefined) assertPositive(maxAttempts, "maxAttempts");
  if (timeoutSeconds !== undefined) assertPositive(timeoutSeconds, "timeoutSeconds");
  if (nextRunAt !== undefined && !isStorableInstant(nextRunAt)) {
    refuse("nextRunAt", "must be a valid Date of the years 1 to 9999");
  }
  if (idempotencyKey !== undefined) assertName(idempotencyKey, "idempotencyKey", MAX_IDEMPOTENCY_KEY_BYTES);
  if (stage !== undefined && !ENQUEUE_STAGES.includes(stage)) {
    refuse("stage", `must be one of ${ENQUEUE_STAGES.join(", ")}`);
  }
  if (traceparent !== undefined && (typeof traceparent !== "string" || parseTraceparent(traceparent) === undefined)) {
    refuse("traceparent", "must be a W3C traceparent");
  }
}

function assertName(name: string, field: string, maxBytes: number): void {
  const problem = nameProblem(name, maxBytes);
  if (problem !== undefined) refuse(field, problem);
}

function assertPositive(value: number, field: string): void {
  if (!Number.isInteger(value) || value < 1 || value > MAX_INTEGER) {
    refuse(field, `must be a whole number from 1 to ${MAX_INTEGER}`);
  }
}

function isStorableInstant(value: unknown): boolean {
  if (!(value instanceof Date)) return false;
  const year = value.getUTCFullYear();
  return year >= 1 && year <= 9999;
}

/** A misspelt field is shown, but not at any length. */
function quoted(field: string): string {
  return JSON.stringify(field.length > 64 ? `${field.slice(0, 64)}…` : field);
}

function refuse(shown: string, problem: string, field: string = shown): never {
  throw new RunledgerError("job.invalid_request", {
    message: `The job cannot be enqueued: ${shown} ${problem}.`,
    details: { field: field.slice(0, 64).toWellFormed() },
  });
}
