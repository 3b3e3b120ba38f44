/**
 * Log lines that handlers keep with their job.
 *
 * @module
 */

import { boundedText, encodeJson, isBlankText, RunledgerError } from "@runledger/core";
import type { JobLease, JsonValue } from "@runledger/core";
import { equalConditions, readPage, StatementValues } from "./_keyset_page.ts";
import type { KeysetList } from "./_keyset_page.ts";
import { present, readInstant, readInteger, readOptionalJson, readText } from "./_rows.ts";
import { assertLease } from "./job_settlement.ts";
import { jobInScope } from "./jobs.ts";
import { choiceValue } from "./operator_note.ts";
import type { Page, ScopedPageOptions } from "./pages.ts";
import { runStatement } from "./queryable.ts";
import type { Queryable, Row } from "./queryable.ts";

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
  /** Its place among all log lines. */
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

// locks: the jobs against deletion, in id order, since the foreign key looks at them in the order of insertion.
// index: job_queue_pkey. A line whose lease is lost is left out.
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
  order by input.job_id, input.ord
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

/** Which lines of a job, and which page of them. */
export interface ListJobLogsOptions extends ScopedPageOptions {
  /** Only lines of this level. */
  readonly level?: JobLogLevel;
}

const LOGS: KeysetList<JobLog> = {
  name: "job_logs",
  alias: "log",
  keys: [{ column: "job_id", type: "uuid" }, { column: "id", type: "bigint" }],
  direction: "asc",
  item: `
    log.id::text as id, log.run_number, log.attempt, log.level, log.message, log.payload::text as payload,
    extract(epoch from log.occurred_at)::text as occurred_at
  from runledger.job_logs as log
  where log.id = page.key_2`,
  decode: decodeLog,
};

/**
 * Lists the log lines of a job, oldest first.
 *
 * @param db A pool, client or open transaction.
 * @param jobId The job.
 * @param options Whose job, which lines, from where on, and how many.
 * @returns A page of lines; an empty one for a job outside the scope.
 * @throws {RunledgerError} `job.invalid_pagination`; `job.invalid_request` for an unknown level; `db.*` codes.
 */
export async function listJobLogs(db: Queryable, jobId: string, options: ListJobLogsOptions): Promise<Page<JobLog>> {
  const { scope, level } = options;
  if (level !== undefined) choiceValue("level", level, JOB_LOG_LEVELS);
  const bound = new StatementValues();
  // index: job_logs_job_index, job_queue_pkey. A range of one job: were it an equality, the order would be by id alone, and
  // for a job with many of all lines the planner would walk the primary key over everybody's.
  const [ofJob = "", ...inScope] = jobInScope(bound, jobId, { scope, column: "log.job_id" });
  const source = {
    from: "runledger.job_logs as log",
    where: [ofJob.replace("=", ">="), ofJob.replace("=", "<="), ...inScope],
    examines: ["log.level"],
    filters: equalConditions(bound, { "log.level": level }),
  };
  return await readPage(db, LOGS, { source, bound, options });
}

function decodeLog(row: Row): JobLog {
  return present({
    id: readText(row, "id"),
    runNumber: readInteger(row, "run_number"),
    attempt: readInteger(row, "attempt"),
    level: readText(row, "level") as JobLogLevel,
    message: readText(row, "message"),
    payload: readOptionalJson(row, "payload"),
    occurredAt: readInstant(row, "occurred_at"),
  });
}

function invalidLine(field: string, problem: string): RunledgerError {
  return new RunledgerError("job.invalid_request", { message: `A log line: ${problem}.`, details: { field } });
}
