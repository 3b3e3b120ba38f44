/**
 * A job that is asked for, before it is enqueued.
 *
 * @module
 */

import type { EnqueueStage } from "./job_status.ts";
import type { JsonValue } from "./json.ts";

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
}

/** A job that is asked for: plain data, usually made by {@linkcode JobDefinition.request}. */
export interface JobRequest extends JobRequestOptions {
  /** Which kind of job; at most 255 bytes of UTF-8. */
  readonly jobType: string;
  /** What the handler is given: any JSON value. */
  readonly payload: JsonValue;
}
