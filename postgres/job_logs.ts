/**
 * Log lines that handlers keep with their job.
 *
 * @module
 */

import { boundedText, encodeJson, isBlankText, RunledgerError } from "@runledger/core";
import type { JobLease, JsonValue } from "@runledger/core";
import { present, readInstant, readInteger, readOptionalJson, readText } from "./_rows.ts";
import { assertLimit } from "./job_reap.ts";
import { assertLease } from "./job_settlement.ts";
import { uuidValue } from "./operator_note.ts";
import { runStatement } from "./queryable.ts";
import type { Queryable } from "./queryable.ts";
import { scopeValues } from "./scope.ts";
import type { Scope } from "./scope.ts";

/** How much a log line matters. */
export type JobLogLevel = "debug" | "info" | "warn" | "error";

/** Every {@linkcode JobLogLevel}. */
export const JOB_LOG_LEVELS: readonly JobLogLevel[] = ["debug", "info", "warn", "error"];

/** The most bytes of UTF-8 that a log message takes; longer ones are cut. */
export const MAX_LOG_MESSAGE_BYTES = 8192;

/** A line that a handler writes. */
export interface JobLogEntry {
  /** The lease under which it is written. */
  readonly lease: JobLease;
  /** How much it matters. */
  readonly level: JobLogLevel;
  /** What to say. Not blank; cut to 8192 bytes. */
  readonly message: string;
  /** More, for programs. */
  readonly payload?: JsonValue;
}

/** A stored line. */
export interface JobLog {
  /** Its place among all log lines: give it as `after` to go on behind it. */
  readonly id: string;
  /** The run that wrote it. */
  readonly runNumber: number;
  /** The attempt that wrote it. */
  readonly attempt: number;
  /** How much it matters. */
  readonly level: JobLogLevel;
  /** What it says. */
  readonly message: string;
  /** More, for programs. */
  readonly payload?: JsonValue;
  /** When it was stored, by the database's clock. */
  readonly occurredAt: Date;
}

// locks: the jobs against deletion. index: job_queue_pkey. A line whose lease is lost is left out.
const APPEND = `
with input as materialized (
  select line.ord, line.job_id, line.run_number, line.attempt, line.lease_token, line.level, line.message, line.payload
  from jsonb_to_recordset($1::text::jsonb) as line (
    ord integer, job_id uuid, run_number integer, attempt integer, lease_token uuid, level text, message text,
    payload jsonb
  )
),
appended as (
  insert into runledger.job_logs (job_id, run_number, attempt, level, message, payload)
  -- In an array of one, since a JSON null by itself would be read as no payload.
  select input.job_id, input.run_number, input.attempt, input.level, input.message, input.payload -> 0
  from input
  join runledger.job_queue as queue
    on queue.id = input.job_id
    and queue.status = 'LEASED'
    and queue.run_number = input.run_number
    and queue.attempt = input.attempt
    and queue.lease_token = input.lease_token
    and queue.lease_expires_at > clock_timestamp()
  order by input.ord
  returning id
)
select count(*)::integer as appended
from appended
`;

/**
 * Stores log lines of leased jobs, in one statement. Lines whose lease is lost are left out.
 *
 * @param db A pool, client or open transaction.
 * @param entries The lines, in order.
 * @returns How many were stored.
 * @throws {RunledgerError} `job.invalid_request` for a blank message or an unknown level, `job.invalid_payload`; `db.*`.
 */
export async function appendJobLogs(db: Queryable, entries: readonly JobLogEntry[]): Promise<number> {
  if (entries.length === 0) return 0;
  // Array.from, since map would leave the holes of a sparse array in the JSON.
  const lines = Array.from(entries, ({ lease, level, message, payload }, ord) => {
    assertLease(lease);
    if (!JOB_LOG_LEVELS.includes(level)) throw invalidLine("level", "a level must be debug, info, warn or error");
    if (typeof message !== "string" || isBlankText(message)) {
      throw invalidLine("message", "a message must be text that is not blank");
    }
    const line = JSON.stringify({
      ord,
      job_id: lease.jobId,
      run_number: lease.runNumber,
      attempt: lease.attempt,
      lease_token: lease.leaseToken,
      level,
      message: boundedText(message, MAX_LOG_MESSAGE_BYTES),
    });
    return payload === undefined
      ? line
      : `${line.slice(0, -1)},"payload":[${encodeJson(payload, { field: "payload" })}]}`;
  });
  const [row] = await runStatement(db, APPEND, [`[${lines.join(",")}]`], { write: true });
  return row === undefined ? 0 : readInteger(row, "appended");
}

/** Which lines to list. */
export interface ListJobLogsOptions {
  /** Whose job it must be. */
  readonly scope: Scope;
  /** Only lines behind this one. */
  readonly after?: string;
  /** How many at most, 1 to 1000. @default {100} */
  readonly limit?: number;
}

// index: job_logs_job_index. no row: no lines, or no such job in scope.
const LIST = `
select
  log.id::text as id, log.run_number, log.attempt, log.level, log.message, log.payload::text as payload,
  extract(epoch from log.occurred_at)::text as occurred_at
from runledger.job_queue as queue
join runledger.job_logs as log on log.job_id = queue.id
where queue.id = $1::uuid
  and ($2::text = 'all' or queue.organization_id is not distinct from $3::uuid)
  and log.id > $4::bigint
order by log.id
limit $5::integer
`;

/**
 * Lists the log lines of a job, oldest first.
 *
 * @param db A pool, client or open transaction.
 * @param jobId The job.
 * @param options Whose job, from where on, and how many.
 * @returns The lines; none for a job outside the scope.
 * @throws {RunledgerError} `job.invalid_pagination`; `db.*` codes.
 */
export async function listJobLogs(
  db: Queryable,
  jobId: string,
  options: ListJobLogsOptions,
): Promise<readonly JobLog[]> {
  const { scope, after = "0", limit = 100 } = options;
  assertLimit(limit);
  if (!/^\d{1,18}$/.test(after)) throw new RunledgerError("job.invalid_pagination", { details: { field: "after" } });
  const rows = await runStatement(db, LIST, [uuidValue("jobId", jobId), ...scopeValues(scope), after, limit]);
  return rows.map((row) =>
    present({
      id: readText(row, "id"),
      runNumber: readInteger(row, "run_number"),
      attempt: readInteger(row, "attempt"),
      level: readText(row, "level") as JobLogLevel,
      message: readText(row, "message"),
      payload: readOptionalJson(row, "payload"),
      occurredAt: readInstant(row, "occurred_at"),
    })
  );
}

function invalidLine(field: string, problem: string): RunledgerError {
  return new RunledgerError("job.invalid_request", { message: `A log line: ${problem}.`, details: { field } });
}
