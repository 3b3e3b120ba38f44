/**
 * Reading jobs, their ledger, their attempts and the dead letters.
 *
 * @module
 */

import { isUuid, RunledgerError } from "@runledger/core";
import type { JobEvent, JobFailureKind, JobStage, JobStatus, JsonValue } from "@runledger/core";
import {
  present,
  readInstant,
  readInteger,
  readJobEventType,
  readJobStatus,
  readJson,
  readOptionalInstant,
  readOptionalInteger,
  readOptionalJobStage,
  readOptionalJson,
  readOptionalText,
  readText,
} from "./_rows.ts";
import { assertLimit } from "./job_reap.ts";
import { noteText, uuidValue } from "./operator_note.ts";
import { runStatement } from "./queryable.ts";
import type { Queryable, Row } from "./queryable.ts";
import { scopeValues } from "./scope.ts";
import type { Scope } from "./scope.ts";

/** A job as it stands. */
export interface Job {
  /** The job. */
  readonly jobId: string;
  /** Its type. */
  readonly jobType: string;
  /** Whose job it is; absent for a job of no organization. */
  readonly organizationId?: string;
  /** Where it stands. */
  readonly status: JobStatus;
  /** How far it has come, for people. */
  readonly stage: JobStage;
  /** How urgent it is; higher goes first. */
  readonly priority: number;
  /** When it is or was due. */
  readonly nextRunAt: Date;
  /** Its run: one more after each continuation and requeue. */
  readonly runNumber: number;
  /** The newest attempt of the run; 0 before the first. */
  readonly attempt: number;
  /** How many attempts a run may take. */
  readonly maxAttempts: number;
  /** How long an attempt may take, in seconds. */
  readonly timeoutSeconds: number;
  /** Who holds it, while it is leased. */
  readonly workerId?: string;
  /** Until when it is held; for a cancelled job, until when its handler may still be at work. */
  readonly leaseExpiresAt?: Date;
  /** When its worker last gave a sign of life, while it is leased. */
  readonly lastHeartbeatAt?: Date;
  /** When the run was first claimed. */
  readonly startedAt?: Date;
  /** When it ended. */
  readonly finishedAt?: Date;
  /** When it was enqueued. */
  readonly createdAt: Date;
  /** Units done. */
  readonly progressDone?: number;
  /** Units in all. */
  readonly progressTotal?: number;
  /** Its idempotency key. */
  readonly idempotencyKey?: string;
  /** The job that it replays. */
  readonly replayOfJobId?: string;
  /** Why it stands where it stands. */
  readonly statusReason?: string;
  /** The code of its last failure. */
  readonly lastErrorCode?: string;
  /** The message of its last failure. */
  readonly lastErrorMessage?: string;
  /** What was enqueued. */
  readonly payload: JsonValue;
  /** Where its next attempt goes on. */
  readonly checkpoint?: JsonValue;
  /** What it gave. */
  readonly output?: JsonValue;
  /** How many events its ledger has. */
  readonly eventSeq: number;
}

// index: job_queue_pkey. no row: no such job in scope.
const GET_JOB = `
select
  queue.id as job_id, queue.job_type, queue.organization_id, queue.status, queue.stage, queue.priority,
  extract(epoch from queue.next_run_at)::text as next_run_at, queue.run_number, queue.attempt, queue.max_attempts,
  queue.timeout_seconds, queue.worker_id, extract(epoch from queue.lease_expires_at)::text as lease_expires_at,
  extract(epoch from queue.last_heartbeat_at)::text as last_heartbeat_at,
  extract(epoch from queue.started_at)::text as started_at,
  extract(epoch from queue.finished_at)::text as finished_at,
  extract(epoch from queue.created_at)::text as created_at, queue.progress_done::text as progress_done,
  queue.progress_total::text as progress_total, queue.idempotency_key, queue.replay_of_job_id, queue.status_reason,
  queue.last_error_code, queue.last_error_message, queue.payload::text as payload,
  queue.checkpoint::text as checkpoint, queue.output::text as output, queue.event_seq
from runledger.job_queue as queue
where queue.id = $1::uuid
  and ($2::text = 'all' or queue.organization_id is not distinct from $3::uuid)
`;

/**
 * Reads a job.
 *
 * @param db A pool, client or open transaction.
 * @param jobId The job.
 * @param options Whose job it must be.
 * @returns The job, or `undefined` if there is none in the scope.
 * @throws {RunledgerError} `db.*` codes.
 */
export async function getJob(
  db: Queryable,
  jobId: string,
  options: { readonly scope: Scope },
): Promise<Job | undefined> {
  const [row] = await runStatement(db, GET_JOB, [uuidValue("jobId", jobId), ...scopeValues(options.scope)]);
  return row === undefined ? undefined : decodeJob(row);
}

function decodeJob(row: Row): Job {
  const stage = readOptionalJobStage(row, "stage");
  if (stage === undefined) throw new RunledgerError("db.unexpected_result");
  return present({
    jobId: readText(row, "job_id"),
    jobType: readText(row, "job_type"),
    organizationId: readOptionalText(row, "organization_id"),
    status: readJobStatus(row, "status"),
    stage,
    priority: readInteger(row, "priority"),
    nextRunAt: readInstant(row, "next_run_at"),
    runNumber: readInteger(row, "run_number"),
    attempt: readInteger(row, "attempt"),
    maxAttempts: readInteger(row, "max_attempts"),
    timeoutSeconds: readInteger(row, "timeout_seconds"),
    workerId: readOptionalText(row, "worker_id"),
    leaseExpiresAt: readOptionalInstant(row, "lease_expires_at"),
    lastHeartbeatAt: readOptionalInstant(row, "last_heartbeat_at"),
    startedAt: readOptionalInstant(row, "started_at"),
    finishedAt: readOptionalInstant(row, "finished_at"),
    createdAt: readInstant(row, "created_at"),
    progressDone: readOptionalInteger(row, "progress_done"),
    progressTotal: readOptionalInteger(row, "progress_total"),
    idempotencyKey: readOptionalText(row, "idempotency_key"),
    replayOfJobId: readOptionalText(row, "replay_of_job_id"),
    statusReason: readOptionalText(row, "status_reason"),
    lastErrorCode: readOptionalText(row, "last_error_code"),
    lastErrorMessage: readOptionalText(row, "last_error_message"),
    payload: readJson(row, "payload"),
    checkpoint: readOptionalJson(row, "checkpoint"),
    output: readOptionalJson(row, "output"),
    eventSeq: readInteger(row, "event_seq"),
  });
}

/** A page of what belongs to one job. */
export interface JobPageOptions {
  /** Whose job it must be. */
  readonly scope: Scope;
  /** Only what comes behind this `seq`. @default {0} */
  readonly afterSeq?: number;
  /** How many at most, 1 to 1000. @default {100} */
  readonly limit?: number;
}

// index: job_events_pkey. no row: no events behind that, or no such job in scope.
const LIST_EVENTS = `
select
  event.job_id, event.seq, event.run_number, event.attempt, event.event_type, event.stage,
  event.progress_done::text as progress_done, event.progress_total::text as progress_total,
  event.payload::text as payload, extract(epoch from event.occurred_at)::text as occurred_at
from runledger.job_queue as queue
join runledger.job_events as event on event.job_id = queue.id
where queue.id = $1::uuid
  and ($2::text = 'all' or queue.organization_id is not distinct from $3::uuid)
  and event.seq > $4::integer
order by event.seq
limit $5::integer
`;

/**
 * Lists the events of a job, oldest first: everything that ever happened to it.
 *
 * @param db A pool, client or open transaction.
 * @param jobId The job.
 * @param options Whose job, from where on, and how many.
 * @returns The events; none for a job outside the scope.
 * @throws {RunledgerError} `job.invalid_pagination`; `db.*` codes.
 */
export async function listJobEvents(
  db: Queryable,
  jobId: string,
  options: JobPageOptions,
): Promise<readonly JobEvent[]> {
  const rows = await runStatement(db, LIST_EVENTS, pageValues(jobId, options));
  return rows.map((row) =>
    present({
      jobId: readText(row, "job_id"),
      seq: readInteger(row, "seq"),
      runNumber: readInteger(row, "run_number"),
      attempt: readOptionalInteger(row, "attempt"),
      eventType: readJobEventType(row, "event_type"),
      stage: readOptionalJobStage(row, "stage"),
      progressDone: readOptionalInteger(row, "progress_done"),
      progressTotal: readOptionalInteger(row, "progress_total"),
      payload: row["payload"] === null ? null : readJson(row, "payload"),
      occurredAt: readInstant(row, "occurred_at"),
    })
  );
}

/** One attempt of a job, as the ledger tells it. */
export interface JobAttempt {
  /** The `seq` of the event that began it: give it as `afterSeq` to go on behind it. */
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

// index: job_events_pkey. no row: no attempts behind that, or no such job in scope.
const LIST_ATTEMPTS = `
select
  attempt.seq, attempt.run_number, attempt.attempt, attempt.worker_id,
  extract(epoch from attempt.leased_at)::text as leased_at,
  extract(epoch from attempt.finished_at)::text as finished_at, attempt.closed_by, attempt.outcome, attempt.error_code,
  attempt.error_message, attempt.retry_delay_ms::text as retry_delay_ms,
  extract(epoch from attempt.next_run_at)::text as next_run_at
from runledger.job_queue as queue
join runledger.job_attempts as attempt on attempt.job_id = queue.id
where queue.id = $1::uuid
  and ($2::text = 'all' or queue.organization_id is not distinct from $3::uuid)
  and attempt.seq > $4::integer
order by attempt.seq
limit $5::integer
`;

/**
 * Lists the attempts of a job, oldest first. A claim that was handed back unstarted, or snoozed, is no attempt.
 *
 * @param db A pool, client or open transaction.
 * @param jobId The job.
 * @param options Whose job, from where on, and how many.
 * @returns The attempts; none for a job outside the scope.
 * @throws {RunledgerError} `job.invalid_pagination`; `db.*` codes.
 */
export async function listJobAttempts(
  db: Queryable,
  jobId: string,
  options: JobPageOptions,
): Promise<readonly JobAttempt[]> {
  const rows = await runStatement(db, LIST_ATTEMPTS, pageValues(jobId, options));
  return rows.map((row) =>
    present({
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
    })
  );
}

/** A job that failed for good and waits for somebody to look at it. */
export interface DeadLetter {
  /** The job. */
  readonly jobId: string;
  /** Its type. */
  readonly jobType: string;
  /** Whose job it is; absent for a job of no organization. */
  readonly organizationId?: string;
  /** The run that failed. */
  readonly runNumber: number;
  /** The attempt that failed last. */
  readonly attempt: number;
  /** How it failed. */
  readonly failureKind: JobFailureKind;
  /** Why no retry followed. */
  readonly reason: "FAILURE_KIND_NON_RETRYABLE" | "ATTEMPTS_EXHAUSTED" | "LEASE_EXPIRED";
  /** The code of the last failure. */
  readonly errorCode: string;
  /** The message of the last failure. */
  readonly errorMessage: string;
  /** When it failed for good. */
  readonly failedAt: Date;
  /** The payload it failed with. */
  readonly payload: JsonValue;
  /** The checkpoint it failed with. */
  readonly checkpoint?: JsonValue;
}

/** Which dead letters to list. */
export interface ListDeadLettersOptions {
  /** Whose dead letters. */
  readonly scope: Scope;
  /** Only jobs of this type. */
  readonly jobType?: string;
  /** Only jobs whose last failure has this code. */
  readonly errorCode?: string;
  /** Go on behind this page: the `nextCursor` that it gave. */
  readonly cursor?: string;
  /** How many at most, 1 to 1000. @default {100} */
  readonly limit?: number;
}

/** A page of dead letters. */
export interface DeadLetterPage {
  /** The dead letters, newest failure first. */
  readonly deadLetters: readonly DeadLetter[];
  /** Where the next page begins; absent on the last one. */
  readonly nextCursor?: string;
}

// index: job_dead_letters_failed_at_index. no row: none match.
const LIST_DEAD_LETTERS = `
select
  letter.job_id, letter.job_type, letter.organization_id, letter.run_number, letter.attempt, letter.failure_kind,
  letter.reason, letter.error_code, letter.error_message, extract(epoch from letter.failed_at)::text as failed_at,
  letter.payload_snapshot::text as payload, letter.checkpoint_snapshot::text as checkpoint
from runledger.job_dead_letters as letter
where ($1::text = 'all' or letter.organization_id is not distinct from $2::uuid)
  and ($3::text is null or letter.job_type = $3::text)
  and ($4::text is null or letter.error_code = $4::text)
  and (letter.failed_at, letter.job_id) < (
    coalesce(to_timestamp($5::text::double precision), 'infinity'),
    coalesce($6::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
  )
order by letter.failed_at desc, letter.job_id desc
limit $7::integer + 1
`;

/**
 * Lists dead letters, newest failure first. Pages stay stable while others arrive. A requeued job is no dead letter any
 * more; its ledger still tells of it.
 *
 * @param db A pool, client or open transaction.
 * @param options Which ones, from where on, and how many.
 * @returns A page.
 * @throws {RunledgerError} `job.invalid_pagination`; `db.*` codes.
 */
export async function listDeadLetters(db: Queryable, options: ListDeadLettersOptions): Promise<DeadLetterPage> {
  const { scope, cursor, limit = 100 } = options;
  assertLimit(limit);
  const [seconds, jobId] = cursor === undefined ? [null, null] : decodeCursor(cursor);
  const rows = await runStatement(db, LIST_DEAD_LETTERS, [
    ...scopeValues(scope),
    options.jobType === undefined ? null : noteText("jobType", options.jobType, 255),
    options.errorCode === undefined ? null : noteText("errorCode", options.errorCode, 512),
    seconds,
    jobId,
    limit,
  ]);
  const deadLetters = rows.slice(0, limit).map(decodeDeadLetter);
  const last = rows[limit - 1];
  if (rows.length <= limit || last === undefined) return { deadLetters };
  return { deadLetters, nextCursor: `${readText(last, "failed_at")}_${readText(last, "job_id")}` };
}

function decodeCursor(cursor: string): readonly [seconds: string, jobId: string] {
  const [, seconds, jobId] = /^(\d{1,12}\.\d{6})_([0-9a-f-]{36})$/.exec(cursor) ?? [];
  if (seconds === undefined || jobId === undefined || !isUuid(jobId)) {
    throw new RunledgerError("job.invalid_pagination", { details: { field: "cursor" } });
  }
  return [seconds, jobId];
}

function decodeDeadLetter(row: Row): DeadLetter {
  return present({
    jobId: readText(row, "job_id"),
    jobType: readText(row, "job_type"),
    organizationId: readOptionalText(row, "organization_id"),
    runNumber: readInteger(row, "run_number"),
    attempt: readInteger(row, "attempt"),
    failureKind: readText(row, "failure_kind") as JobFailureKind,
    reason: readText(row, "reason") as DeadLetter["reason"],
    errorCode: readText(row, "error_code"),
    errorMessage: readText(row, "error_message"),
    failedAt: readInstant(row, "failed_at"),
    payload: readJson(row, "payload"),
    checkpoint: readOptionalJson(row, "checkpoint"),
  });
}

function pageValues(jobId: string, options: JobPageOptions): (string | number | null)[] {
  const { scope, afterSeq = 0, limit = 100 } = options;
  assertLimit(limit);
  if (!Number.isInteger(afterSeq) || afterSeq < 0 || afterSeq > 2_147_483_647) {
    throw new RunledgerError("job.invalid_pagination", { details: { field: "afterSeq" } });
  }
  return [uuidValue("jobId", jobId), ...scopeValues(scope), afterSeq, limit];
}
