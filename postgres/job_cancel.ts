/**
 * Calling jobs off.
 *
 * @module
 */

import { RunledgerError } from "@runledger/core";
import { readJobStatus, readOptionalInstant } from "./_rows.ts";
import { operatorNote, uuidValue } from "./operator_note.ts";
import type { OperatorNote } from "./operator_note.ts";
import { runStatement } from "./queryable.ts";
import type { Queryable } from "./queryable.ts";
import { scopeValues } from "./scope.ts";
import type { Scope } from "./scope.ts";

/** Whose job may be cancelled, and what to record about it. */
export interface CancelJobOptions extends OperatorNote {
  /** Whose job it must be; outside it the job is not found. */
  readonly scope: Scope;
}

/** What a cancellation led to. */
export interface CanceledJob {
  /** The job. */
  readonly jobId: string;
  /**
   * Until when a handler may still be at work, by the database's clock: the expiry of the lease that the job had. Its
   * `signal` aborts at the next heartbeat at the latest. Absent when nobody had the job.
   */
  readonly leaseQuiescesAt?: Date;
}

// locks: the job. index: job_queue_pkey. no row: no such job in scope.
const CANCEL = `
with locked as materialized (
  select queue.id, queue.status, queue.lease_expires_at
  from runledger.job_queue as queue
  where queue.id = $1::uuid
    and ($2::text = 'all' or queue.organization_id is not distinct from $3::uuid)
  for update
),
canceled as (
  update runledger.job_queue as queue
  set status = 'CANCELED',
    event_seq = queue.event_seq + 1,
    worker_id = null,
    lease_token = null,
    lease_expires_at = case when queue.lease_expires_at > clock_timestamp() then queue.lease_expires_at end,
    last_heartbeat_at = null,
    finished_at = clock_timestamp(),
    status_reason = coalesce($4::text::jsonb ->> 'reason', 'CANCELED')
  from locked
  where queue.id = locked.id
    and locked.status in ('PENDING', 'LEASED')
  returning queue.id, queue.event_seq, queue.run_number, queue.attempt, queue.stage, queue.lease_expires_at
),
posted as (
  insert into runledger.job_events (job_id, seq, run_number, attempt, event_type, stage, payload)
  select
    canceled.id, canceled.event_seq, canceled.run_number, nullif(canceled.attempt, 0), 'CANCELED', canceled.stage,
    $4::text::jsonb || jsonb_strip_nulls(jsonb_build_object('lease_quiesces_at', canceled.lease_expires_at))
  from canceled
)
select
  locked.status, canceled.id is not null as is_canceled,
  extract(epoch from canceled.lease_expires_at)::text as lease_quiesces_at
from locked
left join canceled on canceled.id = locked.id
`;

/**
 * Cancels a job that waits or is being worked on.
 *
 * One statement; posts a CANCELED event. The handler's later writes are refused. Racing with a settlement, one of the
 * two wins and the other gets a truthful error.
 *
 * @param db A pool, client or open transaction.
 * @param jobId The job.
 * @param options Whose job it must be, and the reason and actor to record.
 * @returns Until when a handler may still be at work.
 * @throws {RunledgerError} `job.not_found`, also for a job outside the scope; `job.invalid_state_transition` with
 * `details.status` when the job has ended; `db.*` codes.
 */
export async function cancelJob(db: Queryable, jobId: string, options: CancelJobOptions): Promise<CanceledJob> {
  const [row] = await runStatement(db, CANCEL, [
    uuidValue("jobId", jobId),
    ...scopeValues(options.scope),
    operatorNote(options),
  ], {
    write: true,
  });
  if (row === undefined) throw new RunledgerError("job.not_found");
  if (row["is_canceled"] !== true) {
    throw new RunledgerError("job.invalid_state_transition", { details: { status: readJobStatus(row, "status") } });
  }
  const leaseQuiescesAt = readOptionalInstant(row, "lease_quiesces_at");
  return leaseQuiescesAt === undefined ? { jobId } : { jobId, leaseQuiescesAt };
}
