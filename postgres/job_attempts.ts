/**
 * Reading the attempts of a job.
 *
 * @module
 */

import type { JobFailureKind } from "@runledger/core";
import { equalConditions, readPage, StatementValues } from "./_keyset_page.ts";
import type { KeysetList } from "./_keyset_page.ts";
import {
  present,
  readInstant,
  readInteger,
  readOptionalInstant,
  readOptionalInteger,
  readOptionalText,
  readText,
} from "./_rows.ts";
import { jobInScope } from "./jobs.ts";
import { noteText } from "./operator_note.ts";
import type { Page, ScopedPageOptions } from "./pages.ts";
import type { Queryable, Row } from "./queryable.ts";

/** One attempt of a job, as the ledger tells it. */
export interface JobAttempt {
  /** The `seq` of the event that began it. */
  readonly seq: number;
  /** The run it belongs to. */
  readonly runNumber: number;
  /** Its number within the run, from 1. */
  readonly attempt: number;
  /** Who made it. */
  readonly workerId: string;
  /** When it began. */
  readonly leasedAt: Date;
  /** When it ended, if it has. */
  readonly finishedAt?: Date;
  /** How it ended, if it has. */
  readonly closedBy?: "SUCCEEDED" | "FAILED" | "CANCELED" | "REQUEUED";
  /** The kind of failure, if it failed. */
  readonly outcome?: JobFailureKind;
  /** The code of the failure, if it failed. */
  readonly errorCode?: string;
  /** The message of the failure, if it failed. */
  readonly errorMessage?: string;
  /** The delay of the retry policy, in milliseconds, if a retry follows. */
  readonly retryDelayMs?: number;
  /** When the retry was due, if one follows. */
  readonly nextRunAt?: Date;
}

/** Which attempts of a job, and which page of them. */
export interface ListJobAttemptsOptions extends ScopedPageOptions {
  /** Only attempts that failed with this code. */
  readonly errorCode?: string;
}

const ATTEMPTS: KeysetList<JobAttempt> = {
  name: "job_attempts",
  alias: "attempt",
  keys: [{ column: "job_id", type: "uuid" }, { column: "seq", type: "integer" }],
  direction: "asc",
  item: `
    attempt.seq, attempt.run_number, attempt.attempt, attempt.worker_id,
    extract(epoch from attempt.leased_at)::text as leased_at,
    extract(epoch from attempt.finished_at)::text as finished_at, attempt.closed_by, attempt.outcome,
    attempt.error_code, attempt.error_message, attempt.retry_delay_ms::text as retry_delay_ms,
    extract(epoch from attempt.next_run_at)::text as next_run_at
  from runledger.job_attempts as attempt
  where attempt.job_id = page.key_1
    and attempt.seq = page.key_2`,
  decode: decodeAttempt,
};

/**
 * Lists the attempts of a job, oldest first. A claim that was handed back unstarted, or snoozed, is no attempt.
 *
 * @param db A pool, client or open transaction.
 * @param jobId The job.
 * @param options Whose job, which attempts, from where on, and how many.
 * @returns A page of attempts; an empty one for a job outside the scope.
 * @throws {RunledgerError} `job.invalid_pagination`; `job.invalid_request` for a filter that cannot be; `db.*` codes.
 */
export async function listJobAttempts(
  db: Queryable,
  jobId: string,
  options: ListJobAttemptsOptions,
): Promise<Page<JobAttempt>> {
  const { scope, errorCode } = options;
  if (errorCode !== undefined) noteText("errorCode", errorCode, 512);
  const bound = new StatementValues();
  // index: job_events_pkey, job_queue_pkey.
  const source = {
    from: "runledger.job_attempts as attempt",
    where: jobInScope(bound, jobId, { scope, column: "attempt.job_id" }),
    examines: ["attempt.error_code"],
    filters: equalConditions(bound, { "attempt.error_code": errorCode }),
  };
  return await readPage(db, ATTEMPTS, { source, bound, options });
}

function decodeAttempt(row: Row): JobAttempt {
  return present({
    seq: readInteger(row, "seq"),
    runNumber: readInteger(row, "run_number"),
    attempt: readInteger(row, "attempt"),
    workerId: readText(row, "worker_id"),
    leasedAt: readInstant(row, "leased_at"),
    finishedAt: readOptionalInstant(row, "finished_at"),
    closedBy: readOptionalText(row, "closed_by") as JobAttempt["closedBy"],
    outcome: readOptionalText(row, "outcome") as JobFailureKind | undefined,
    errorCode: readOptionalText(row, "error_code"),
    errorMessage: readOptionalText(row, "error_message"),
    retryDelayMs: readOptionalInteger(row, "retry_delay_ms"),
    nextRunAt: readOptionalInstant(row, "next_run_at"),
  });
}
