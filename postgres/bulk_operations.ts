/**
 * What operators do to many jobs at once: first look at which ones, then do it to those and no others.
 *
 * @example
 * ```ts ignore
 * import { previewJobs, requeueJobs } from "@runledger/postgres";
 *
 * const scope = { organizationId } as const;
 * const { items } = await previewJobs(sql, { scope, status: "DEAD_LETTERED", errorCode: "mail.bounced" });
 * show(items); // and have somebody say yes
 * const { applied, skipped } = await requeueJobs(sql, items, { scope, reason: "the mail server is back", actor: "ada" });
 * ```
 *
 * @module
 */

import { RunledgerError } from "@runledger/core";
import type { JobStatus } from "@runledger/core";
import { readPage, StatementValues } from "./_keyset_page.ts";
import type { KeysetList } from "./_keyset_page.ts";
import { present, readInstant, readInteger, readJobStatus, readKnown, readOptionalText, readText } from "./_rows.ts";
import { EDIT_PENDING, editValues } from "./job_edits.ts";
import type { EditTarget, JobScheduling } from "./job_edits.ts";
import { requeueHeld } from "./job_requeue.ts";
import { jobsThat } from "./jobs.ts";
import type { JobFilter } from "./jobs.ts";
import { choiceValue, counterValue, operatorNote, uuidValue } from "./operator_note.ts";
import type { OperatorNote } from "./operator_note.ts";
import type { Page, PageOptions } from "./pages.ts";
import { runStatement } from "./queryable.ts";
import type { Queryable, Row } from "./queryable.ts";
import { inScope, scopeValues } from "./scope.ts";
import type { Scope } from "./scope.ts";

/** The most jobs that one bulk operation takes. */
export const MAX_BULK_JOBS = 1000;

/**
 * Which job, and how it was: every change to a job but a heartbeat adds an event, so a count of them says whether it is
 * still so.
 */
export interface FrozenJob {
  /** The job. */
  readonly jobId: string;
  /** How many events its ledger had. */
  readonly eventSeq: number;
}

/** A job as a preview shows it. */
export interface PreviewedJob extends FrozenJob {
  /** Its type. */
  readonly jobType: string;
  /** Whose job it is; absent for a job of no organization. */
  readonly organizationId?: string;
  /** Where it stands. */
  readonly status: JobStatus;
  /** How urgent it is. */
  readonly priority: number;
  /** When it is or was due. */
  readonly nextRunAt: Date;
  /** Why it stands where it stands. */
  readonly statusReason?: string;
  /** The code of its last failure. */
  readonly lastErrorCode?: string;
  /** The workflow run of the step that it carries out. */
  readonly workflowRunId?: string;
}

/** Which jobs to look at, and which page of them. */
export interface PreviewJobsOptions extends JobFilter, PageOptions {
  /**
   * Where they stand. What can be done to them follows: `PENDING` can be edited and cancelled, `LEASED` cancelled,
   * `DEAD_LETTERED` and `CANCELED` requeued.
   */
  readonly status: "PENDING" | "LEASED" | "DEAD_LETTERED" | "CANCELED";
}

/** What became of the jobs that a bulk operation was given: each is in one of the two. */
export interface BulkResult {
  /** The jobs to which it was done, in the order given. */
  readonly applied: readonly string[];
  /** Those that were left as they are, in the order given. */
  readonly skipped: readonly SkippedJob[];
}

/**
 * Why a job was left as it is.
 *
 * - `changed`: something has happened to it since it was looked at.
 * - `not_found`: it is not there, or not in the scope.
 * - `not_applicable`: what was asked for cannot be done to a job that stands where it stands.
 * - `workflow_step`: it cannot be done to the job of a workflow step.
 * - `not_quiesced`: it was cancelled, and its handler may still be at work.
 * - `unchanged`: it is so already.
 */
export type SkipReason =
  | "changed"
  | "not_found"
  | "not_applicable"
  | "workflow_step"
  | "not_quiesced"
  | "unchanged";

const SKIP_REASONS: readonly SkipReason[] = [
  "changed",
  "not_found",
  "not_applicable",
  "workflow_step",
  "not_quiesced",
  "unchanged",
];

/** A job that was left as it is. */
export interface SkippedJob {
  /** The job. */
  readonly jobId: string;
  /** Why. */
  readonly reason: SkipReason;
}

const PREVIEWED: KeysetList<PreviewedJob> = {
  name: "previewed_jobs",
  alias: "queue",
  keys: [{ column: "id", type: "uuid" }],
  direction: "desc",
  item: `
    queue.id as job_id, queue.event_seq, queue.job_type, queue.organization_id, queue.status, queue.priority,
    extract(epoch from queue.next_run_at)::text as next_run_at, queue.status_reason, queue.last_error_code,
    queue.workflow_run_id
  from runledger.job_queue as queue
  where queue.id = page.key_1`,
  decode: decodePreviewedJob,
};

/**
 * Finds the jobs that a bulk operation is meant for, newest id first, without changing or locking anything.
 *
 * What it gives is frozen: {@linkcode cancelJobs}, {@linkcode requeueJobs} and {@linkcode editJobs} touch only jobs of the
 * list that they are given, and of these only the ones to which nothing has happened since. Jobs that come to match
 * meanwhile are not touched. A job of `listJobs` has an `eventSeq`, too, and may be passed in place of one of these. It
 * looks at as many jobs as `listJobs` does.
 *
 * @param db A pool, client or open transaction.
 * @param options Which ones, from where on, and how many.
 * @returns A page; see {@linkcode Page}.
 * @throws {RunledgerError} `job.invalid_pagination`; `job.invalid_request` for a filter that cannot be; `db.*` codes.
 */
export async function previewJobs(db: Queryable, options: PreviewJobsOptions): Promise<Page<PreviewedJob>> {
  choiceValue("status", options.status, ["PENDING", "LEASED", "DEAD_LETTERED", "CANCELED"]);
  const bound = new StatementValues();
  return await readPage(db, PREVIEWED, { source: jobsThat(options, bound), bound, options });
}

function decodePreviewedJob(row: Row): PreviewedJob {
  return present({
    jobId: readText(row, "job_id"),
    eventSeq: readInteger(row, "event_seq"),
    jobType: readText(row, "job_type"),
    organizationId: readOptionalText(row, "organization_id"),
    status: readJobStatus(row, "status"),
    priority: readInteger(row, "priority"),
    nextRunAt: readInstant(row, "next_run_at"),
    statusReason: readOptionalText(row, "status_reason"),
    lastErrorCode: readOptionalText(row, "last_error_code"),
    workflowRunId: readOptionalText(row, "workflow_run_id"),
  });
}

/** Whose jobs they must be, and what to record about each. */
export interface BulkOptions extends OperatorNote {
  /** Whose jobs they must be; outside it a job is not found. */
  readonly scope: Scope;
}

// The jobs that were asked for, and those of them that are in scope as they stand, unlocked. index: job_queue_pkey.
const ASKED_AND_FOUND = `
with asked as materialized (
  select asked.id, asked.event_seq
  from jsonb_to_recordset($1::text::jsonb) as asked (id uuid, event_seq integer)
),
found as materialized (
  select queue.id, queue.event_seq, queue.status, queue.workflow_run_id
  from runledger.job_queue as queue
  where queue.id = any (array(select asked.id from asked))
    and ${inScope("queue")}
)`;

// locks: the workflow runs of the jobs, by id; then the jobs by id, not their keys. Those that were changed before are not
// locked. index: job_queue_pkey, workflow_runs_pkey. always a row for each job asked for.
const CANCEL_MANY = `${ASKED_AND_FOUND},
fit as materialized (
  select found.id, found.workflow_run_id, asked.event_seq
  from found
  join asked on asked.id = found.id and asked.event_seq = found.event_seq
  where found.status in ('PENDING', 'LEASED')
),
runs as materialized (
  select run.id
  from runledger.workflow_runs as run
  where run.id = any (array(select fit.workflow_run_id from fit where fit.workflow_run_id is not null))
  order by run.id
  for update
),
locked as materialized (
  select queue.id, queue.event_seq
  from runledger.job_queue as queue
  where queue.id = any (array(select fit.id from fit))
    and (select count(*) from runs) >= 0
  order by queue.id
  for no key update
),
canceled as materialized (
  select done.job_id, done.workflow_run_id
  from runledger.cancel_locked_jobs(
    array(select locked.id from locked join fit on fit.id = locked.id and fit.event_seq = locked.event_seq),
    $4::text::jsonb
  ) as done
),
released as materialized (
  select runledger.finish_workflow_steps(jsonb_agg(jsonb_build_object(
    'step_id', canceled.job_id, 'run_id', canceled.workflow_run_id, 'status', 'CANCELED',
    'reason', coalesce($4::text::jsonb ->> 'reason', 'CANCELED')
  )))
  from canceled
  where canceled.workflow_run_id is not null
  having count(*) > 0
)
select
  asked.id as job_id,
  case
    when canceled.job_id is not null then 'applied'
    when found.id is null then 'not_found'
    when found.event_seq <> asked.event_seq or fit.id is not null then 'changed'
    else 'not_applicable'
  end as outcome
from asked
left join found on found.id = asked.id
left join fit on fit.id = asked.id
left join canceled on canceled.job_id = asked.id
left join released on true
`;

/**
 * Cancels jobs that wait or are being worked on, as `cancelJob` does, if nothing has happened to them since they were looked
 * at. One statement: done to all of them, or, if it fails, to none. Posts a CANCELED event for each.
 *
 * @param db A pool, client or open transaction.
 * @param jobs The jobs as they were looked at, no job twice, at most 1000.
 * @param options Whose jobs they must be, and the reason and actor to record.
 * @returns Which were cancelled, and which were not and why.
 * @throws {RunledgerError} `job.invalid_request` for jobs or a note that cannot be; `db.*` codes.
 */
export async function cancelJobs(
  db: Queryable,
  jobs: readonly FrozenJob[],
  options: BulkOptions,
): Promise<BulkResult> {
  const targets = bulkTargets(jobs);
  const values = [JSON.stringify(targets), ...scopeValues(options.scope), operatorNote(options)];
  if (targets.length === 0) return NOTHING_DONE;
  return bulkResult(targets, await runStatement(db, CANCEL_MANY, values, { write: true }));
}

/** Whose jobs they must be, what becomes of their progress, and what to record about each. */
export interface RequeueJobsOptions extends BulkOptions {
  /** Whether progress and checkpoint stay for the next run. @default {"keep"} */
  readonly progress?: "keep" | "reset";
}

// locks: the jobs by id, only those that can be requeued and were not changed before. index: job_queue_pkey.
// always a row for each job asked for.
const REQUEUE_MANY = `${ASKED_AND_FOUND},
fit as materialized (
  select found.id, asked.event_seq
  from found
  join asked on asked.id = found.id and asked.event_seq = found.event_seq
  where found.status in ('DEAD_LETTERED', 'CANCELED')
    and found.workflow_run_id is null
),
locked as materialized (
  select queue.id, queue.event_seq, queue.attempt, queue.lease_expires_at
  from runledger.job_queue as queue
  where queue.id = any (array(select fit.id from fit))
  order by queue.id
  for update
),
same as materialized (
  select
    locked.id, locked.attempt,
    locked.lease_expires_at is null or locked.lease_expires_at <= clock_timestamp() as is_quiesced
  from locked
  join fit on fit.id = locked.id and fit.event_seq = locked.event_seq
),
held as materialized (
  select same.id, same.attempt
  from same
  where same.is_quiesced
),${requeueHeld("$4::boolean", "$5::text::jsonb")}
select
  asked.id as job_id,
  case
    when requeued.id is not null then 'applied'
    when found.id is null then 'not_found'
    when same.id is not null then 'not_quiesced'
    when found.event_seq <> asked.event_seq or fit.id is not null then 'changed'
    when found.workflow_run_id is not null then 'workflow_step'
    else 'not_applicable'
  end as outcome
from asked
left join found on found.id = asked.id
left join fit on fit.id = asked.id
left join same on same.id = asked.id
left join requeued on requeued.id = asked.id
`;

/**
 * Requeues dead-lettered and cancelled jobs, as `requeueJob` does, if nothing has happened to them since they were looked
 * at. One statement: done to all of them, or, if it fails, to none. Posts a REQUEUED event for each and removes the dead
 * letters.
 *
 * @param db A pool, client or open transaction.
 * @param jobs The jobs as they were looked at, no job twice, at most 1000.
 * @param options Whose jobs they must be, and what to record.
 * @returns Which were requeued, and which were not and why.
 * @throws {RunledgerError} `job.invalid_request` for jobs or a note that cannot be; `db.*` codes.
 */
export async function requeueJobs(
  db: Queryable,
  jobs: readonly FrozenJob[],
  options: RequeueJobsOptions,
): Promise<BulkResult> {
  const { scope, progress = "keep" } = options;
  const targets = bulkTargets(jobs);
  const values = [
    JSON.stringify(targets),
    ...scopeValues(scope),
    choiceValue("progress", progress, ["keep", "reset"]) === "reset",
    operatorNote(options),
  ];
  if (targets.length === 0) return NOTHING_DONE;
  return bulkResult(targets, await runStatement(db, REQUEUE_MANY, values, { write: true }));
}

/** Whose jobs they must be, what to change, and what to record about each. */
export interface EditJobsOptions extends BulkOptions, JobScheduling {}

/**
 * Changes when jobs that wait are due, or how urgent they are, as `editJob` does, if nothing has happened to them since they
 * were looked at. One statement: done to all of them, or, if it fails, to none. Posts an EDITED event for each.
 *
 * @param db A pool, client or open transaction.
 * @param jobs The jobs as they were looked at, no job twice, at most 1000.
 * @param options Whose jobs they must be, what to change, and what to record.
 * @returns Which were changed, and which were not and why.
 * @throws {RunledgerError} `job.invalid_request` for jobs or a field that cannot be, or if nothing is to be changed; `db.*`
 * codes.
 */
export async function editJobs(
  db: Queryable,
  jobs: readonly FrozenJob[],
  options: EditJobsOptions,
): Promise<BulkResult> {
  const { scope, nextRunAt, priority, reason, actor } = options;
  const targets = bulkTargets(jobs);
  // Named one by one: a payload that a caller slips in is that of one job, not of many.
  const values = editValues(targets, present({ scope, nextRunAt, priority, reason, actor }));
  if (targets.length === 0) return NOTHING_DONE;
  return bulkResult(targets, await runStatement(db, EDIT_PENDING, values, { write: true }));
}

const NOTHING_DONE: BulkResult = { applied: [], skipped: [] };

/** Refuses jobs that cannot be, too many of them, or one twice. */
function bulkTargets(jobs: readonly FrozenJob[]): readonly Required<EditTarget>[] {
  if (!Array.isArray(jobs)) throw new TypeError("'jobs' must be an array of jobs");
  if (jobs.length > MAX_BULK_JOBS) {
    throw new RunledgerError("job.invalid_request", {
      message: `A bulk operation takes at most ${MAX_BULK_JOBS} jobs: call it once for each so many.`,
      details: { field: "jobs" },
    });
  }
  const seen = new Set<string>();
  // Array.from visits holes, too.
  return Array.from(jobs, (job: FrozenJob) => {
    if (typeof job !== "object" || job === null) throw new TypeError("'jobs' must be an array of jobs");
    const target = { id: uuidValue("jobId", job.jobId), event_seq: counterValue("eventSeq", job.eventSeq) };
    if (seen.has(target.id)) {
      throw new RunledgerError("job.invalid_request", {
        message: "A bulk operation takes each job once.",
        details: { field: "jobs" },
      });
    }
    seen.add(target.id);
    return target;
  });
}

function bulkResult(targets: readonly EditTarget[], rows: readonly Row[]): BulkResult {
  const outcomes = new Map(rows.map((row) => [readText(row, "job_id"), row]));
  const applied: string[] = [];
  const skipped: SkippedJob[] = [];
  for (const { id } of targets) {
    const row = outcomes.get(id);
    if (row === undefined) throw new RunledgerError("db.unexpected_result");
    const outcome = readText(row, "outcome");
    if (outcome === "applied" || outcome === "edited") applied.push(id);
    else skipped.push({ jobId: id, reason: readKnown(row, "outcome", isSkipReason) });
  }
  return { applied, skipped };
}

function isSkipReason(value: unknown): value is SkipReason {
  return (SKIP_REASONS as readonly unknown[]).includes(value);
}
