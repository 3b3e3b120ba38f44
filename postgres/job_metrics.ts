/**
 * How job types are doing: what waits, how fast and how well jobs end.
 *
 * @module
 */

import { RunledgerError } from "@runledger/core";
import { present, readBoolean, readInstant, readInteger, readOptionalInteger, readText } from "./_rows.ts";
import { counterValue, noteText } from "./operator_note.ts";
import { runStatement } from "./queryable.ts";
import type { Queryable, Row } from "./queryable.ts";
import { scopeValues } from "./scope.ts";
import type { Scope } from "./scope.ts";

/** Whose metrics, and how far to look back. */
export interface JobMetricsOptions {
  /** Whose jobs. */
  readonly scope: Scope;
  /** Only this type. */
  readonly jobType?: string;
  /** How far to look back for jobs that ended, in seconds, 1 to 31,536,000. @default {86400} */
  readonly windowSeconds?: number;
  /** How many of the newest jobs that ended are looked at, 1 to 10,000, of all types together. @default {2000} */
  readonly sampleSize?: number;
}

/** Three percentiles, in milliseconds. */
export interface Percentiles {
  /** Half took no longer. */
  readonly p50: number;
  /** 95 of 100 took no longer. */
  readonly p95: number;
  /** 99 of 100 took no longer. */
  readonly p99: number;
}

/** How one job type is doing. */
export interface JobMetrics {
  /** The type. */
  readonly jobType: string;
  /** Jobs that are due and wait for a worker; at least so many unless `isDepthComplete`. */
  readonly due: number;
  /** Jobs that wait for their time, retries included; at least so many unless `isDepthComplete`. */
  readonly scheduled: number;
  /** Whether all that wait were counted. */
  readonly isDepthComplete: boolean;
  /** Jobs that are leased; the first 20,000 of all types are counted. */
  readonly leased: number;
  /** Of these, jobs whose lease has run out: a reaper is late, or there is none. */
  readonly leasesRunOut: number;
  /** How long the job that is due longest has waited, in milliseconds; absent when none is. */
  readonly oldestDueMs?: number;
  /** How long ago the run of a leased job first began, at most, in milliseconds; absent when none is leased. */
  readonly oldestLeaseMs?: number;
  /** The jobs that everything below is told of: those that ended at this instant or later. */
  readonly sampledSince: Date;
  /** Whether these are all that ended within the window. If not, `sampledSince` is later than the window's begin. */
  readonly isSampleComplete: boolean;
  /** Jobs that succeeded. */
  readonly succeeded: number;
  /** Jobs that failed for good. */
  readonly deadLettered: number;
  /** Jobs that were cancelled. */
  readonly canceled: number;
  /** How many jobs ended in a minute, on average since `sampledSince`. */
  readonly endedPerMinute: number;
  /** Claims of these jobs. */
  readonly attempts: number;
  /** Failed attempts that were followed by another one. */
  readonly retries: number;
  /** Attempts that failed with the kind `TIMEOUT`. */
  readonly timeouts: number;
  /** Attempts that ended by a lease that ran out: a worker died or hung. */
  readonly leaseExpiries: number;
  /** Attempts that failed with the kind `PANICKED`. */
  readonly panics: number;
  /** Slices after which a handler went on in a new run. */
  readonly continuations: number;
  /** From being due to being claimed; absent when no such wait is known. */
  readonly waitMs?: Percentiles;
  /** From a claim to the end of its attempt; absent when no attempt has ended. */
  readonly runMs?: Percentiles;
}

// index: see runledger.job_metrics. no row: no type has anything to tell.
const READ = `
select
  metrics.job_type, metrics.due::text as due, metrics.scheduled::text as scheduled, metrics.leased::text as leased,
  metrics.leases_run_out::text as leases_run_out, metrics.is_depth_complete,
  metrics.oldest_due_ms::text as oldest_due_ms, metrics.oldest_lease_ms::text as oldest_lease_ms,
  extract(epoch from metrics.sampled_since)::text as sampled_since, metrics.is_sample_complete,
  metrics.succeeded::text as succeeded, metrics.dead_lettered::text as dead_lettered,
  metrics.canceled::text as canceled, metrics.ended_per_minute::text as ended_per_minute,
  metrics.attempts::text as attempts, metrics.retries::text as retries, metrics.timeouts::text as timeouts,
  metrics.lease_expiries::text as lease_expiries, metrics.panics::text as panics,
  metrics.continuations::text as continuations, metrics.wait_ms_p50::text as wait_ms_p50,
  metrics.wait_ms_p95::text as wait_ms_p95, metrics.wait_ms_p99::text as wait_ms_p99,
  metrics.run_ms_p50::text as run_ms_p50, metrics.run_ms_p95::text as run_ms_p95,
  metrics.run_ms_p99::text as run_ms_p99
from runledger.job_metrics(
  $1::text, $2::uuid, $3::text, statement_timestamp() - $4::integer * interval '1 second', $5::integer
) as metrics
order by metrics.job_type
`;

/**
 * Tells how job types are doing.
 *
 * Cheap however large the tables are: what waits is counted up to a bound, and how jobs end is told by the newest that did.
 * So a busy database is judged by its last minutes, a quiet one by the whole window; `sampledSince` says which. A rate is
 * right either way; {@linkcode countEndedJobs} has totals, at the price of counting.
 *
 * @param db A pool, client or open transaction.
 * @param options Whose jobs, and how far to look back.
 * @returns One entry for each type that waits, runs or ended within the sample, by type.
 * @throws {RunledgerError} `job.invalid_request` for an option that cannot be; `db.*` codes.
 */
export async function readJobMetrics(db: Queryable, options: JobMetricsOptions): Promise<readonly JobMetrics[]> {
  const { scope, jobType, windowSeconds = 86_400, sampleSize = 2000 } = options;
  const rows = await runStatement(db, READ, [
    ...scopeValues(scope),
    jobType === undefined ? null : noteText("jobType", jobType, 255),
    boundedValue("windowSeconds", windowSeconds, 31_536_000),
    boundedValue("sampleSize", sampleSize, 10_000),
  ]);
  return rows.map(decodeMetrics);
}

/** Refuses a number that is none from 1 to the most there may be; gives it back otherwise. */
export function boundedValue(field: string, value: number, most: number): number {
  counterValue(field, value);
  if (value <= most) return value;
  throw new RunledgerError("job.invalid_request", {
    message: `'${field}' must be a whole number from 1 to ${most}.`,
    details: { field },
  });
}

function decodeMetrics(row: Row): JobMetrics {
  return present({
    jobType: readText(row, "job_type"),
    due: readInteger(row, "due"),
    scheduled: readInteger(row, "scheduled"),
    isDepthComplete: readBoolean(row, "is_depth_complete"),
    leased: readInteger(row, "leased"),
    leasesRunOut: readInteger(row, "leases_run_out"),
    oldestDueMs: readOptionalInteger(row, "oldest_due_ms"),
    oldestLeaseMs: readOptionalInteger(row, "oldest_lease_ms"),
    sampledSince: readInstant(row, "sampled_since"),
    isSampleComplete: readBoolean(row, "is_sample_complete"),
    succeeded: readInteger(row, "succeeded"),
    deadLettered: readInteger(row, "dead_lettered"),
    canceled: readInteger(row, "canceled"),
    endedPerMinute: readDouble(row, "ended_per_minute"),
    attempts: readInteger(row, "attempts"),
    retries: readInteger(row, "retries"),
    timeouts: readInteger(row, "timeouts"),
    leaseExpiries: readInteger(row, "lease_expiries"),
    panics: readInteger(row, "panics"),
    continuations: readInteger(row, "continuations"),
    waitMs: readPercentiles(row, "wait_ms"),
    runMs: readPercentiles(row, "run_ms"),
  });
}

function readPercentiles(row: Row, name: string): Percentiles | undefined {
  if (row[`${name}_p50`] === null) return undefined;
  return {
    p50: readDouble(row, `${name}_p50`),
    p95: readDouble(row, `${name}_p95`),
    p99: readDouble(row, `${name}_p99`),
  };
}

function readDouble(row: Row, column: string): number {
  const value = Number(readText(row, column));
  if (Number.isFinite(value)) return value;
  throw new RunledgerError("db.unexpected_result", { internalMessage: `column ${column}: wanted a number` });
}
