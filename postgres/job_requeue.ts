/**
 * Giving ended jobs another run: requeue for dead letters and cancelled jobs, replay for those that succeeded.
 *
 * @module
 */

import { newId, RunledgerError } from "@runledger/core";
import type { JobStatus } from "@runledger/core";
import { readBoolean, readInteger, readJobStatus, readOptionalInstant, readOptionalText, readText } from "./_rows.ts";
import { assertLimit } from "./job_reap.ts";
import { choiceValue, counterValue, instantValue, noteText, operatorNote, uuidValue } from "./operator_note.ts";
import type { OperatorNote } from "./operator_note.ts";
import { runStatement } from "./queryable.ts";
import type { Queryable } from "./queryable.ts";
import { inScope, scopeValues } from "./scope.ts";
import type { Scope } from "./scope.ts";

/** Which job to requeue, what the caller believes of it, and what to record. */
export interface RequeueJobOptions extends OperatorNote {
  /** Whose job it must be; outside it the job is not found. */
  readonly scope: Scope;
  /** The status that the caller saw. */
  readonly expectedStatus: "DEAD_LETTERED" | "CANCELED";
  /** The run that the caller saw. */
  readonly expectedRunNumber: number;
  /** Whether progress and checkpoint stay for the next run. @default {"keep"} */
  readonly progress?: "keep" | "reset";
}

/** What a requeue led to. Only `requeued` changed anything. */
export type RequeueResult =
  | {
    /** The job is PENDING again, as a new run with all its attempts. */
    readonly kind: "requeued";
    /** The new run. */
    readonly runNumber: number;
  }
  | {
    /** The job is not as the caller believes. */
    readonly kind: "mismatch";
    /** Its status. */
    readonly status: JobStatus;
    /** Its run. */
    readonly runNumber: number;
  }
  | {
    /** The job was cancelled under a lease that still runs: its handler may be at work. */
    readonly kind: "not_quiesced";
    /** When that lease ends, by the database's clock. */
    readonly leaseQuiescesAt: Date;
  };

/** What every requeue does to jobs whose rows are locked in a CTE `held (id, attempt)`; `reset` and `note` are SQL. */
export const requeueHeld = (reset: string, note: string): string => `
requeued as (
  update runledger.job_queue as queue
  set status = 'PENDING',
    stage = 'queued',
    run_number = queue.run_number + 1,
    attempt = 0,
    event_seq = queue.event_seq + 1,
    next_run_at = clock_timestamp(),
    lease_expires_at = null,
    started_at = null,
    finished_at = null,
    progress_done = case when ${reset} then null else queue.progress_done end,
    progress_total = case when ${reset} then null else queue.progress_total end,
    checkpoint = case when ${reset} then null else queue.checkpoint end,
    status_reason = coalesce(${note} ->> 'reason', 'COMPARE_AND_REQUEUE'),
    last_error_code = null,
    last_error_message = null
  from held
  where queue.id = held.id
  returning queue.id, queue.run_number, queue.event_seq, queue.stage, held.attempt
),
posted as (
  insert into runledger.job_events (job_id, seq, run_number, attempt, event_type, stage, payload)
  select
    requeued.id, requeued.event_seq, requeued.run_number - 1, nullif(requeued.attempt, 0), 'REQUEUED', requeued.stage,
    ${note} || jsonb_build_object('requeue_kind', 'COMPARE_AND_REQUEUE', 'reset_progress', ${reset})
  from requeued
),
exhumed as (
  delete from runledger.job_dead_letters as letter
  using requeued
  where letter.job_id = requeued.id
)`;

// locks: the job, only if it can be requeued at all, so that a mistaken call never holds up a heartbeat.
// index: job_queue_pkey. no row: no such job in scope.
const REQUEUE = `
with locked as materialized (
  select queue.id, queue.status, queue.run_number, queue.attempt, queue.lease_expires_at
  from runledger.job_queue as queue
  where queue.id = $1::uuid
    and ${inScope("queue")}
    and queue.status in ('DEAD_LETTERED', 'CANCELED')
    and queue.workflow_run_id is null
  for update
),
held as materialized (
  select locked.id, locked.attempt
  from locked
  where locked.status = $4::text
    and locked.run_number = $5::integer
    and (locked.lease_expires_at is null or locked.lease_expires_at <= clock_timestamp())
),${requeueHeld("$6::boolean", "$7::text::jsonb")}
select
  coalesce(locked.status, queue.status) as status, coalesce(locked.run_number, queue.run_number) as run_number,
  requeued.run_number as new_run_number, queue.workflow_run_id is not null as is_workflow_step,
  extract(epoch from locked.lease_expires_at)::text as lease_quiesces_at
from runledger.job_queue as queue
left join locked on locked.id = queue.id
left join requeued on requeued.id = queue.id
where queue.id = $1::uuid
  and ${inScope("queue")}
`;

/**
 * Requeues a dead-lettered or cancelled job as a new run, if it still is as the caller saw it.
 *
 * One statement; posts a REQUEUED event and removes the dead letter. Of two equal calls one requeues and the other is
 * told of the mismatch.
 *
 * @param db A pool, client or open transaction.
 * @param jobId The job.
 * @param options What the caller believes, whose job it must be, and what to record.
 * @returns What it led to; only `requeued` changed anything.
 * @throws {RunledgerError} `job.not_found`, also for a job outside the scope; `job.workflow_requeue_not_supported` for the
 * job of a workflow step; `db.*` codes.
 */
export async function requeueJob(db: Queryable, jobId: string, options: RequeueJobOptions): Promise<RequeueResult> {
  const { scope, expectedStatus, expectedRunNumber, progress = "keep" } = options;
  const values = [
    uuidValue("jobId", jobId),
    ...scopeValues(scope),
    choiceValue("expectedStatus", expectedStatus, ["DEAD_LETTERED", "CANCELED"]),
    counterValue("expectedRunNumber", expectedRunNumber),
    choiceValue("progress", progress, ["keep", "reset"]) === "reset",
    operatorNote(options),
  ];
  for (let tries = 0; tries < 5; tries++) {
    const [row] = await runStatement(db, REQUEUE, values, { write: true });
    if (row === undefined) throw new RunledgerError("job.not_found");
    if (readBoolean(row, "is_workflow_step")) throw new RunledgerError("job.workflow_requeue_not_supported");
    if (row["new_run_number"] !== null) return { kind: "requeued", runNumber: readInteger(row, "new_run_number") };
    const status = readJobStatus(row, "status");
    const runNumber = readInteger(row, "run_number");
    const leaseQuiescesAt = readOptionalInstant(row, "lease_quiesces_at");
    if (status !== expectedStatus || runNumber !== expectedRunNumber) return { kind: "mismatch", status, runNumber };
    if (leaseQuiescesAt !== undefined) return { kind: "not_quiesced", leaseQuiescesAt };
    // A rival requeued or deleted the job while this statement waited for it: what its snapshot says is no longer so.
  }
  throw new RunledgerError("db.serialization_failure");
}

/** Which dead letters to requeue, and what to record. */
export interface RequeueDeadLettersOptions extends OperatorNote {
  /** Whose dead letters. */
  readonly scope: Scope;
  /** How many at most, 1 to 1000, oldest first. @default {100} */
  readonly limit?: number;
  /** Only jobs of this type. */
  readonly jobType?: string;
  /** Only jobs whose last error has this code. */
  readonly errorCode?: string;
  /** Only jobs that failed at or after this instant. */
  readonly failedFrom?: Date;
  /** Only jobs that failed before this instant. */
  readonly failedBefore?: Date;
  /** Whether progress and checkpoint stay for the next run. @default {"keep"} */
  readonly progress?: "keep" | "reset";
}

// locks: the jobs, oldest failure first, skipping those that others hold. index: job_dead_letters_failed_at_index.
// no row: nothing matches.
const REQUEUE_DEAD_LETTERS = `
with held as materialized (
  select queue.id, queue.attempt
  from runledger.job_dead_letters as letter
  join runledger.job_queue as queue on queue.id = letter.job_id
  where ${inScope("letter", 1)}
    and ($3::text is null or letter.job_type = $3::text)
    and ($4::text is null or letter.error_code = $4::text)
    and ($5::timestamptz is null or letter.failed_at >= $5::timestamptz)
    and ($6::timestamptz is null or letter.failed_at < $6::timestamptz)
    and queue.status = 'DEAD_LETTERED'
    and queue.workflow_run_id is null
  order by letter.failed_at, letter.job_id
  limit $7::integer
  for update of queue skip locked
),${requeueHeld("$8::boolean", "$9::text::jsonb")}
select requeued.id as job_id
from requeued
`;

/**
 * Requeues dead letters that match a filter, oldest first, in one statement. Repeat it while it gives as many as the
 * limit. Jobs of workflow steps are left out: their runs are recovered whole.
 *
 * @param db A pool, client or open transaction.
 * @param options Which ones, how many, and what to record.
 * @returns The ids of the requeued jobs.
 * @throws {RunledgerError} `job.invalid_pagination` for a limit that is not an integer from 1 to 1000; `db.*` codes.
 */
export async function requeueDeadLetters(
  db: Queryable,
  options: RequeueDeadLettersOptions,
): Promise<readonly string[]> {
  const { scope, limit = 100, progress = "keep" } = options;
  assertLimit(limit);
  const rows = await runStatement(db, REQUEUE_DEAD_LETTERS, [
    ...scopeValues(scope),
    options.jobType === undefined ? null : noteText("jobType", options.jobType, 255),
    options.errorCode === undefined ? null : noteText("errorCode", options.errorCode, 512),
    options.failedFrom === undefined ? null : instantValue("failedFrom", options.failedFrom),
    options.failedBefore === undefined ? null : instantValue("failedBefore", options.failedBefore),
    limit,
    choiceValue("progress", progress, ["keep", "reset"]) === "reset",
    operatorNote(options),
  ], { write: true });
  return rows.map((row) => readText(row, "job_id"));
}

/** Which run of a succeeded job to replay, and under which key. */
export interface ReplayJobOptions extends OperatorNote {
  /** Whose job it must be; outside it the job is not found. */
  readonly scope: Scope;
  /** Makes the replay safe to repeat: one replay for each source job, run and key. Not blank, at most 512 bytes. */
  readonly replayKey: string;
}

/** The job that replays another one. */
export interface ReplayedJob {
  /** The replay. */
  readonly jobId: string;
  /** Whether this call made it, or an equal earlier one did. */
  readonly disposition: "inserted" | "existing";
  /** The run of the source that it replays. */
  readonly sourceRunNumber: number;
}

// locks: the source against deletion; its row is not changed. index: job_queue_pkey, job_queue_replay_unique.
// no row: no such job in scope. replay_id null with is_enabled: a rival made the replay just now, look again.
const REPLAY = `
with source as materialized (
  select
    queue.id, queue.status, queue.job_type, queue.organization_id, queue.priority, queue.max_attempts,
    queue.timeout_seconds, queue.run_number, queue.workflow_run_id, queue.payload
  from runledger.job_queue as queue
  where queue.id = $1::uuid
    and ${inScope("queue")}
  for key share
),
existing as materialized (
  select replay.id, event.payload ->> 'reason' as reason
  from source
  join runledger.job_queue as replay
    on replay.replay_of_job_id = source.id
    and replay.replay_of_run_number = source.run_number
    and replay.replay_key = $5::text
  join runledger.job_events as event on event.job_id = replay.id and event.seq = 1
),
inserted as (
  insert into runledger.job_queue (
    id, job_type, organization_id, priority, next_run_at, max_attempts, timeout_seconds, payload, replay_of_job_id,
    replay_of_run_number, replay_key
  )
  select
    $4::uuid, source.job_type, source.organization_id, source.priority, clock_timestamp(), source.max_attempts,
    source.timeout_seconds, source.payload, source.id, source.run_number, $5::text
  from source
  join runledger.job_definitions as definition on definition.job_type = source.job_type and definition.is_enabled
  where source.status = 'SUCCEEDED'
    and source.workflow_run_id is null
    and not exists (select from existing)
  on conflict (replay_of_job_id, replay_of_run_number, replay_key) where replay_of_job_id is not null do nothing
  returning id, stage, replay_of_job_id, replay_of_run_number
),
posted as (
  insert into runledger.job_events (job_id, seq, run_number, event_type, stage, payload)
  select
    inserted.id, 1, 1, 'ENQUEUED', inserted.stage,
    $6::text::jsonb || jsonb_build_object(
      'replay_of_job_id', inserted.replay_of_job_id, 'replay_of_run_number', inserted.replay_of_run_number,
      'replay_key', $5::text
    )
  from inserted
)
select
  source.status, source.run_number, inserted.id as inserted_id, existing.id as existing_id,
  existing.reason is not distinct from $6::text::jsonb ->> 'reason' as is_same_reason,
  exists (
    select from runledger.job_definitions as definition
    where definition.job_type = source.job_type and definition.is_enabled
  ) as is_enabled,
  source.job_type, source.workflow_run_id is not null as is_workflow_step
from source
left join inserted on true
left join existing on true
`;

/**
 * Runs a succeeded job again as a new job with the same type, organization, payload and settings.
 *
 * The source stays as it is; the new job knows it (`replayOfJobId`), and its ENQUEUED event tells reason and actor.
 * Safe to repeat with the same key and reason. Progress, checkpoint, output and idempotency key are not copied.
 *
 * @param db A pool, client or open transaction (READ COMMITTED).
 * @param jobId The succeeded job.
 * @param options Whose job it must be, the key, and what to record.
 * @returns The replay.
 * @throws {RunledgerError} `job.not_found`; `job.invalid_state_transition` unless it has succeeded;
 * `job.replay_idempotency_conflict` when the key was used with another reason;
 * `job.workflow_requeue_not_supported`; `job.definition_not_found_or_disabled`; `job.invalid_request` for a key that cannot be; `db.*` codes.
 */
export async function replayJob(db: Queryable, jobId: string, options: ReplayJobOptions): Promise<ReplayedJob> {
  const values = [
    uuidValue("jobId", jobId),
    ...scopeValues(options.scope),
    newId(),
    noteText("replayKey", options.replayKey, 512),
    operatorNote(options),
  ];
  for (let tries = 0; tries < 5; tries++) {
    const [row] = await runStatement(db, REPLAY, values, { write: true });
    if (row === undefined) throw new RunledgerError("job.not_found");
    if (readBoolean(row, "is_workflow_step")) throw new RunledgerError("job.workflow_requeue_not_supported");
    const sourceRunNumber = readInteger(row, "run_number");
    const inserted = readOptionalText(row, "inserted_id");
    if (inserted !== undefined) return { jobId: inserted, disposition: "inserted", sourceRunNumber };
    const existing = readOptionalText(row, "existing_id");
    if (existing !== undefined) {
      if (!readBoolean(row, "is_same_reason")) throw new RunledgerError("job.replay_idempotency_conflict");
      return { jobId: existing, disposition: "existing", sourceRunNumber };
    }
    const status = readJobStatus(row, "status");
    if (status !== "SUCCEEDED") throw new RunledgerError("job.invalid_state_transition", { details: { status } });
    if (!readBoolean(row, "is_enabled")) {
      throw new RunledgerError("job.definition_not_found_or_disabled", {
        details: { jobTypes: [readText(row, "job_type")] },
      });
    }
    // A rival made the same replay between this statement's snapshot and its insert: the next one sees it.
  }
  throw new RunledgerError("db.serialization_failure");
}
