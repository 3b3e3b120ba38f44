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
import { inScope, scopeValues } from "./scope.ts";
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

// locks: the workflow run, if it is the job of a step, then the job; not its key, which log lines that are not committed
// hold. index: job_queue_pkey, workflow_runs_pkey. no row: no such job in scope.
const CANCEL = `
with runs as materialized (
  select run.id
  from runledger.workflow_runs as run
  where run.id = (
    select queue.workflow_run_id
    from runledger.job_queue as queue
    where queue.id = $1::uuid
      and ${inScope("queue")}
  )
  for update
),
locked as materialized (
  select queue.id, queue.status
  from runledger.job_queue as queue
  where queue.id = $1::uuid
    and ${inScope("queue")}
    and (select count(*) from runs) >= 0
  for no key update
),
canceled as materialized (
  select done.job_id, done.workflow_run_id, done.lease_quiesces_at
  from runledger.cancel_locked_jobs(
    array(select locked.id from locked where locked.status in ('PENDING', 'LEASED')), $4::text::jsonb
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
  locked.status, canceled.job_id is not null as is_canceled,
  extract(epoch from canceled.lease_quiesces_at)::text as lease_quiesces_at
from locked
left join canceled on canceled.job_id = locked.id
left join released on true
`;

/**
 * Cancels a job that waits or is being worked on.
 *
 * One statement; posts a CANCELED event. The handler's later writes are refused. The job of a workflow step takes its
 * step with it: dependents are released or cancelled as their edges say. Racing with a settlement, one of the
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
