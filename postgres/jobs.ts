/**
 * Reading jobs.
 *
 * @module
 */

import { JOB_STATUSES, RunledgerError } from "@runledger/core";
import type { JobStage, JobStatus, JsonValue } from "@runledger/core";
import {
  countWithin,
  equalConditions,
  idConditions,
  keyTextConditions,
  readPage,
  scopeConditions,
  StatementValues,
} from "./_keyset_page.ts";
import type { KeysetList, KeysetSource } from "./_keyset_page.ts";
import {
  present,
  readInstant,
  readInteger,
  readJobStatus,
  readJson,
  readOptionalInstant,
  readOptionalInteger,
  readOptionalJobStage,
  readOptionalJson,
  readOptionalText,
  readText,
} from "./_rows.ts";
import { choiceValue, noteText, uuidValue } from "./operator_note.ts";
import type { BoundedCount, Page, ScopedPageOptions } from "./pages.ts";
import { runStatement } from "./queryable.ts";
import type { Queryable, Row } from "./queryable.ts";
import { inScope, keyScope, scopeValues } from "./scope.ts";
import type { KeyScope, Scope } from "./scope.ts";

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
  /** The workflow run of the step that it carries out; the step has the job's id. */
  readonly workflowRunId?: string;
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

const COLUMNS = `
  queue.id as job_id, queue.job_type, queue.organization_id, queue.status, queue.stage, queue.priority,
  extract(epoch from queue.next_run_at)::text as next_run_at, queue.run_number, queue.attempt, queue.max_attempts,
  queue.timeout_seconds, queue.worker_id, extract(epoch from queue.lease_expires_at)::text as lease_expires_at,
  extract(epoch from queue.last_heartbeat_at)::text as last_heartbeat_at,
  extract(epoch from queue.started_at)::text as started_at,
  extract(epoch from queue.finished_at)::text as finished_at,
  extract(epoch from queue.created_at)::text as created_at, queue.progress_done::text as progress_done,
  queue.progress_total::text as progress_total, queue.idempotency_key, queue.workflow_run_id,
  queue.replay_of_job_id, queue.status_reason,
  queue.last_error_code, queue.last_error_message, queue.payload::text as payload,
  queue.checkpoint::text as checkpoint, queue.output::text as output, queue.event_seq`;

// index: job_queue_pkey. no row: no such job in scope.
const GET_JOB = `
select ${COLUMNS}
from runledger.job_queue as queue
where queue.id = $1::uuid
  and ${inScope("queue")}
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

/**
 * Reads the job that an idempotency key of a job type stands for.
 *
 * @param db A pool, client or open transaction.
 * @param key The job type, and the key that the producer gave.
 * @param options Whose key it is: the same key may stand for a job of each organization, and for one of nobody's.
 * @returns The job, or `undefined` if the key stands for none: it was never used, or retention deleted its job.
 * @throws {RunledgerError} `job.invalid_request` for a type or key that cannot be; `db.*` codes.
 * @throws {TypeError} For the scope `"all"`.
 */
export async function getJobByIdempotencyKey(
  db: Queryable,
  key: { readonly jobType: string; readonly idempotencyKey: string },
  options: { readonly scope: KeyScope },
): Promise<Job | undefined> {
  const bound = new StatementValues();
  const conditions = [
    ...equalConditions(bound, {
      "queue.job_type": noteText("jobType", key.jobType, 255),
      "queue.idempotency_key": noteText("idempotencyKey", key.idempotencyKey, 512),
    }),
    ...scopeConditions(bound, keyScope(options.scope), "queue.organization_id"),
  ];
  // index: job_queue_idempotency_unique. no row: no such key in scope.
  const text = `
select ${COLUMNS}
from runledger.job_queue as queue
where ${conditions.join("\n  and ")}
`;
  const [row] = await runStatement(db, text, bound.values);
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
    workflowRunId: readOptionalText(row, "workflow_run_id"),
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

/** Which jobs. Filters that are left out let everything pass. */
export interface JobFilter {
  /** Whose jobs. */
  readonly scope: Scope;
  /** Only jobs that stand there. */
  readonly status?: JobStatus;
  /** Only jobs of this type. */
  readonly jobType?: string;
  /** Only jobs whose last failure has this code, also those that will be tried again. */
  readonly errorCode?: string;
  /**
   * Only jobs whose id was made at this instant or later. An id is made when its job is enqueued; that of a workflow step
   * when its run is.
   */
  readonly since?: Date;
  /** Only jobs whose id was made before this instant. */
  readonly until?: Date;
  /**
   * Only jobs whose id begins with this text, if it reads as the beginning of an id (eight hexadecimal digits or more, the
   * first a 0); otherwise jobs that have it in their idempotency key. Not blank, at most 512 bytes.
   */
  readonly text?: string;
}

/** Which jobs, and which page of them. */
export interface ListJobsOptions extends JobFilter, ScopedPageOptions {}

const JOBS: KeysetList<Job> = {
  name: "jobs",
  alias: "queue",
  keys: [{ column: "id", type: "uuid" }],
  direction: "desc",
  item: `${COLUMNS}
  from runledger.job_queue as queue
  where queue.id = page.key_1`,
  decode: decodeJob,
};

// What has failed or was called off lies in an index of its own. What waits or is leased is looked up where claims and the
// reaper find it, if there is no more of it than a window; otherwise the newest jobs are looked at. Whose they are is no
// index's: see migrations/0008_operators.sql.
// index: job_queue_failed_index, job_queue_claim_index, job_queue_lease_index, job_queue_pkey.
/** Where the jobs are looked for that a filter keeps. */
export function jobsThat(filter: JobFilter, bound: StatementValues): KeysetSource {
  const { scope, status, jobType, errorCode } = filter;
  if (status !== undefined) choiceValue("status", status, JOB_STATUSES);
  if (jobType !== undefined) noteText("jobType", jobType, 255);
  if (errorCode !== undefined) noteText("errorCode", errorCode, 512);
  const hasFailed = status === "DEAD_LETTERED" || status === "CANCELED";
  const filters = [
    ...scopeConditions(bound, scope, "queue.organization_id"),
    ...equalConditions(bound, {
      "queue.status": status,
      "queue.job_type": jobType,
      "queue.last_error_code": errorCode,
    }),
    ...keyTextConditions(bound, ["queue.idempotency_key"], filter.text),
  ];
  const where = [
    ...(hasFailed ? ["queue.status in ('DEAD_LETTERED', 'CANCELED')"] : []),
    ...idConditions(bound, "queue.id", filter),
  ];
  const few = status === "PENDING"
    ? {
      where: ["queue.status = 'PENDING'", ...equalConditions(bound, { "queue.job_type": jobType })],
      order: "queue.job_type, queue.priority desc, queue.next_run_at, queue.id",
    }
    : status === "LEASED"
    ? { where: ["queue.status = 'LEASED'"], order: "queue.lease_expires_at" }
    : undefined;
  return {
    from: "runledger.job_queue as queue",
    where,
    examines: ["organization_id", "status", "job_type", "last_error_code", "idempotency_key"].map((column) =>
      `queue.${column}`
    ),
    filters,
    ...(few === undefined ? {} : { few }),
  };
}

/**
 * Lists jobs, newest id first. Pages stay stable while jobs arrive.
 *
 * One call looks at 10,000 jobs at most: those that failed or were cancelled, if one of these statuses is asked for; all
 * that wait or are leased, if that is asked for and they are no more; otherwise the newest, whoever's they are. See
 * {@linkcode Page}.
 *
 * @param db A pool, client or open transaction.
 * @param options Which ones, from where on, and how many.
 * @returns A page.
 * @throws {RunledgerError} `job.invalid_pagination`; `job.invalid_request` for a filter that cannot be; `db.*` codes.
 */
export async function listJobs(db: Queryable, options: ListJobsOptions): Promise<Page<Job>> {
  const bound = new StatementValues();
  return await readPage(db, JOBS, { source: jobsThat(options, bound), bound, options });
}

/**
 * Counts jobs, among the 10,000 that {@linkcode listJobs} would look at for its first page.
 *
 * @param db A pool, client or open transaction.
 * @param filter Which ones.
 * @returns How many, and whether these are all.
 * @throws {RunledgerError} `job.invalid_request` for a filter that cannot be; `db.*` codes.
 */
export async function countJobs(db: Queryable, filter: JobFilter): Promise<BoundedCount> {
  const bound = new StatementValues();
  return await countWithin(db, JOBS, { source: jobsThat(filter, bound), bound });
}

/** The conditions that rows belong to one job, and that the job is in a scope: looked up once, not for each row. */
export function jobInScope(
  bound: StatementValues,
  jobId: string,
  where: { readonly scope: Scope; readonly column: string },
): readonly string[] {
  const id = bound.bind(uuidValue("jobId", jobId), "uuid");
  const inScope = scopeConditions(bound, where.scope, "owner.organization_id").map((condition) => ` and ${condition}`);
  return [
    `${where.column} = ${id}`,
    `exists (select from runledger.job_queue as owner where owner.id = ${id}${inScope.join("")})`,
  ];
}
