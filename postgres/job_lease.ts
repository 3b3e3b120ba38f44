/**
 * What a worker writes while it holds a lease: heartbeats, progress, and handing back what it never started.
 *
 * @module
 */

import { assertJobOutcome, encodeJson, MAX_REASON_BYTES, RunledgerError } from "@runledger/core";
import type { JobLease, JobProgress, JsonValue } from "@runledger/core";
import { readBoolean, readText } from "./_rows.ts";
import { assertLeaseMs } from "./job_claim.ts";
import { assertDistinctJobs } from "./job_settlement.ts";
import { noteText, switchValue } from "./operator_note.ts";
import { runStatement } from "./queryable.ts";
import type { Queryable } from "./queryable.ts";

/** How long to extend leases, and whether to post it. */
export interface HeartbeatOptions {
  /** How long the leases last from now, in milliseconds by the database's clock, 1 to 86,400,000. @default {60000} */
  readonly leaseMs?: number;
  /** Whether to append a HEARTBEAT event for each: they would soon be most of the ledger. @default {false} */
  readonly postsEvents?: boolean;
}

/**
 * What a heartbeat found.
 *
 * - `extended`: the lease runs on.
 * - `busy`: another transaction has the job's row locked, such as a settlement under way or the handler's own
 *   transaction. While the lock is held nobody can take the job; ask again.
 * - `canceled`: the job was cancelled. Stop working on it.
 * - `lost`: the lease is gone. Stop working on it.
 */
export type HeartbeatState = "extended" | "busy" | "canceled" | "lost";

/** What a heartbeat found for one lease. */
export interface HeartbeatResult {
  /** The job. */
  readonly jobId: string;
  /** What was found. */
  readonly state: HeartbeatState;
}

// locks: the jobs, in id order, skipping those that others hold: a handler that finishes its job inside a long
// transaction must not cost the other jobs of its worker their leases. index: job_queue_pkey.
const HEARTBEAT = `
with input as materialized (
  select lease.job_id, lease.run_number, lease.attempt, lease.lease_token
  from jsonb_to_recordset($1::text::jsonb) as lease (
    job_id uuid, run_number integer, attempt integer, lease_token uuid
  )
),
locked as materialized (
  select queue.id, queue.status, queue.run_number, queue.attempt, queue.lease_token, queue.lease_expires_at
  from runledger.job_queue as queue
  where queue.id = any (array(select input.job_id from input))
  order by queue.id
  for update skip locked
),
held as (
  select input.job_id
  from input
  join locked on locked.id = input.job_id
  where locked.status = 'LEASED'
    and locked.run_number = input.run_number
    and locked.attempt = input.attempt
    and locked.lease_token = input.lease_token
    and locked.lease_expires_at > clock_timestamp()
),
extended as (
  update runledger.job_queue as queue
  set lease_expires_at = clock_timestamp() + $2::integer * interval '1 millisecond',
    last_heartbeat_at = clock_timestamp(),
    event_seq = queue.event_seq + $3::boolean::integer
  from held
  where queue.id = held.job_id
  returning queue.id, queue.event_seq, queue.run_number, queue.attempt, queue.stage, queue.worker_id
),
posted as (
  insert into runledger.job_events (job_id, seq, run_number, attempt, event_type, stage, payload)
  select
    extended.id, extended.event_seq, extended.run_number, extended.attempt, 'HEARTBEAT', extended.stage,
    jsonb_build_object('worker_id', extended.worker_id)
  from extended
  where $3::boolean
)
select
  input.job_id,
  case
    when extended.id is not null then 'extended'
    when locked.id is null and queue.status = 'LEASED' and queue.lease_token = input.lease_token then 'busy'
    when coalesce(locked.status, queue.status) = 'CANCELED'
      and coalesce(locked.run_number, queue.run_number) = input.run_number then 'canceled'
    else 'lost'
  end as state
from input
left join extended on extended.id = input.job_id
left join locked on locked.id = input.job_id
left join runledger.job_queue as queue on queue.id = input.job_id
`;

/**
 * Extends the leases of all jobs of a worker, in one statement.
 *
 * A lease that has expired, even by a microsecond, is lost and stays so. Never waits for a lock.
 *
 * @param db A pool, client or open transaction.
 * @param leases The leases, no job twice; an empty list does nothing.
 * @param options How long, and whether to post it.
 * @returns One entry for each lease, in the same order.
 * @throws {RunledgerError} `job.invalid_lease_duration`; `job.invalid_outcome` for a job that is named twice; `db.*` codes.
 */
export async function heartbeatJobs(
  db: Queryable,
  leases: readonly JobLease[],
  options: HeartbeatOptions = {},
): Promise<readonly HeartbeatResult[]> {
  const { leaseMs = 60_000, postsEvents = false } = options;
  assertLeaseMs(leaseMs);
  switchValue("postsEvents", postsEvents);
  assertDistinctJobs(leases);
  if (leases.length === 0) return [];
  const rows = await runStatement(db, HEARTBEAT, [encodeLeases(leases), leaseMs, postsEvents], { write: true });
  const byJob = new Map(rows.map((row) => [readText(row, "job_id"), readText(row, "state") as HeartbeatState]));
  return leases.map(({ jobId }) => ({ jobId, state: byJob.get(jobId.toLowerCase()) ?? "lost" }));
}

// locks: the jobs, in id order. index: job_queue_pkey and job_events_pkey. is_released false: not released.
// is_ledger_unseen: while this waited for the job, somebody posted an event that its snapshot does not have, so it cannot
// tell whether anything was reported since the claim: look again.
const RELEASE = `
with input as materialized (
  select lease.job_id, lease.run_number, lease.attempt, lease.lease_token
  from jsonb_to_recordset($1::text::jsonb) as lease (
    job_id uuid, run_number integer, attempt integer, lease_token uuid
  )
),
locked as materialized (
  select
    queue.id, queue.status, queue.run_number, queue.attempt, queue.lease_token, queue.lease_expires_at, queue.event_seq
  from runledger.job_queue as queue
  where queue.id = any (array(select input.job_id from input))
  order by queue.id
  for update
),
held as materialized (
  select
    input.job_id,
    exists (
      select from runledger.job_events as newest where newest.job_id = locked.id and newest.seq = locked.event_seq
    ) as is_ledger_seen,
    not exists (
      select
      from runledger.job_events as reported
      where reported.job_id = locked.id
        and reported.event_type <> 'HEARTBEAT'
        and reported.seq > (
          select max(leased.seq)
          from runledger.job_events as leased
          where leased.job_id = locked.id and leased.event_type = 'LEASED'
        )
    ) as is_unstarted
  from input
  join locked on locked.id = input.job_id
  where locked.status = 'LEASED'
    and locked.run_number = input.run_number
    and locked.attempt = input.attempt
    and locked.lease_token = input.lease_token
    and locked.lease_expires_at > clock_timestamp()
),
released as (
  update runledger.job_queue as queue
  set status = 'PENDING',
    stage = 'queued',
    attempt = queue.attempt - 1,
    event_seq = queue.event_seq + 1,
    worker_id = null,
    lease_token = null,
    lease_expires_at = null,
    last_heartbeat_at = null,
    started_at = case queue.attempt when 1 then null else queue.started_at end,
    status_reason = $2::text
  from held
  where queue.id = held.job_id
    and held.is_ledger_seen
    and held.is_unstarted
  returning queue.id, queue.event_seq, queue.run_number, queue.attempt, queue.stage
),
posted as (
  insert into runledger.job_events (job_id, seq, run_number, attempt, event_type, stage, payload)
  select
    released.id, released.event_seq, released.run_number, released.attempt + 1, 'REQUEUED', released.stage,
    jsonb_build_object('requeue_kind', 'UNSTARTED_RELEASE', 'reason', $2::text)
  from released
)
select
  input.job_id, released.id is not null as is_released, coalesce(not held.is_ledger_seen, false) as is_ledger_unseen
from input
left join held on held.job_id = input.job_id
left join released on released.id = input.job_id
`;

/**
 * Hands claims back whose handlers never started, as a worker does at shutdown. The attempt is not counted, and the job
 * is due as it was before the claim.
 *
 * Fenced like a settlement. A claim that has reported progress, or whose lease is lost, is left alone.
 *
 * @param db A pool, client or open transaction.
 * @param leases The leases, no job twice; an empty list does nothing.
 * @param options Why, for operators. @default `{ reason: "UNSTARTED_RELEASE" }`
 * @returns The ids of the jobs that were handed back.
 * @throws {RunledgerError} `job.invalid_outcome` for a job that is named twice; `db.*` codes.
 */
export async function releaseJobs(
  db: Queryable,
  leases: readonly JobLease[],
  options: { readonly reason?: string } = {},
): Promise<readonly string[]> {
  const { reason = "UNSTARTED_RELEASE" } = options;
  noteText("reason", reason, MAX_REASON_BYTES);
  assertDistinctJobs(leases);
  const released: string[] = [];
  let left = leases;
  // Once is the rule. Each further try needs another event that was committed while the statement waited for its job.
  for (let tries = 0; tries < 5 && left.length > 0; tries++) {
    const rows = await runStatement(db, RELEASE, [encodeLeases(left), reason], { write: true });
    for (const row of rows) if (readBoolean(row, "is_released")) released.push(readText(row, "job_id"));
    const unseen = new Set(rows.filter((row) => readBoolean(row, "is_ledger_unseen")).map((row) => row["job_id"]));
    left = left.filter(({ jobId }) => unseen.has(jobId.toLowerCase()));
  }
  return released;
}

/** What a handler reports on its way. */
export interface JobProgressUpdate {
  /** How much is done. Absent leaves it as stored. */
  readonly progress?: JobProgress;
  /** Where to go on: shown to the next attempt. Absent leaves it as stored. */
  readonly checkpoint?: JsonValue;
}

// locks: the job. index: job_queue_pkey. no row: the lease is lost.
const PROGRESS = `
with locked as materialized (
  select
    queue.id, queue.status, queue.run_number, queue.attempt, queue.lease_token, queue.lease_expires_at,
    coalesce($5::bigint, queue.progress_done) as progress_done,
    coalesce($6::bigint, queue.progress_total) as progress_total
  from runledger.job_queue as queue
  where queue.id = $1::uuid
  for update
),
held as materialized (
  select
    locked.id, locked.progress_done, locked.progress_total,
    coalesce(locked.progress_done <= locked.progress_total, true) as is_valid
  from locked
  where locked.status = 'LEASED'
    and locked.run_number = $2::integer
    and locked.attempt = $3::integer
    and locked.lease_token = $4::uuid
    and locked.lease_expires_at > clock_timestamp()
),
updated as (
  update runledger.job_queue as queue
  set progress_done = held.progress_done,
    progress_total = held.progress_total,
    checkpoint = coalesce($7::text::jsonb, queue.checkpoint),
    event_seq = queue.event_seq + 1
  from held
  where queue.id = held.id
    and held.is_valid
  returning queue.id, queue.event_seq, queue.run_number, queue.attempt, queue.stage
),
posted as (
  insert into runledger.job_events (
    job_id, seq, run_number, attempt, event_type, stage, progress_done, progress_total, payload
  )
  select
    updated.id, updated.event_seq, updated.run_number, updated.attempt, 'PROGRESS', updated.stage, $5::bigint,
    $6::bigint, case when $7::text is not null then '{"checkpoint": true}'::jsonb end
  from updated
)
select held.is_valid
from held
`;

/**
 * Records how far a leased job has come, and where its next attempt should go on.
 *
 * Fenced like a settlement; posts a PROGRESS event. What is recorded survives retries, continuations and crashes.
 *
 * @param db A pool, client or open transaction.
 * @param lease The lease that the attempt runs under; a {@linkcode ClaimedJob} is one.
 * @param update What to record. An empty update still checks the lease.
 * @throws {RunledgerError} `job.lease_owner_mismatch` when the lease is lost; `job.invalid_progress` unless
 * 0 <= done <= total, also together with what is stored; `job.invalid_payload` for a checkpoint that is not JSON; `db.*`.
 */
export async function recordJobProgress(db: Queryable, lease: JobLease, update: JobProgressUpdate): Promise<void> {
  assertDistinctJobs([lease]);
  assertJobOutcome({ kind: "succeeded", ...update });
  const checkpoint = update.checkpoint === undefined ? null : encodeJson(update.checkpoint, { field: "checkpoint" });
  const [row] = await runStatement(db, PROGRESS, [
    lease.jobId,
    lease.runNumber,
    lease.attempt,
    lease.leaseToken,
    textOrNull(update.progress?.done),
    textOrNull(update.progress?.total),
    checkpoint,
  ], { write: true });
  if (row === undefined) throw new RunledgerError("job.lease_owner_mismatch");
  if (!readBoolean(row, "is_valid")) throw new RunledgerError("job.invalid_progress");
}

/** Big integers go as text: drivers differ on them. */
function textOrNull(value: number | undefined): string | null {
  return value === undefined ? null : String(value);
}

function encodeLeases(leases: readonly JobLease[]): string {
  return JSON.stringify(leases.map(({ jobId, runNumber, attempt, leaseToken }) => ({
    job_id: jobId,
    run_number: runNumber,
    attempt,
    lease_token: leaseToken,
  })));
}
