/**
 * Reaping: what becomes of jobs whose worker was lost.
 *
 * @module
 */

import { RunledgerError } from "@runledger/core";
import type { JobStatus } from "@runledger/core";
import { present, readInteger, readJobStatus, readOptionalInstant, readOptionalText, readText } from "./_rows.ts";
import { runStatement } from "./queryable.ts";
import type { Queryable } from "./queryable.ts";
import { decodeReleases } from "./workflow_release.ts";
import type { WorkflowRelease } from "./workflow_release.ts";

/** How many expired leases to reap, and when their jobs are due again. */
export interface ReapOptions {
  /** How many leases at most, 1 to 1000. @default {100} */
  readonly limit?: number;
  /** How long retried jobs wait, in milliseconds: the same for every attempt. @default {30000} */
  readonly retryDelayMs?: number;
}

/** A job whose expired lease was reaped. */
export interface ReapedJob {
  /** The job. */
  readonly jobId: string;
  /** Its type. */
  readonly jobType: string;
  /** Whose job it is; absent for a job of no organization. */
  readonly organizationId?: string;
  /** The run that the lost attempt belonged to. */
  readonly runNumber: number;
  /** The lost attempt. */
  readonly attempt: number;
  /** `PENDING` when it is retried, `DEAD_LETTERED` when its attempts are used up. */
  readonly status: JobStatus;
  /** When it is due again, if it is. */
  readonly nextRunAt?: Date;
  /** Which step of which run it is, if it is one. */
  readonly workflow?: { readonly runId: string; readonly stepKey: string };
  /** What else happened in its run, if anything did: of several jobs of one run, the last one has it. */
  readonly release?: WorkflowRelease;
}

/** How many overdue leases beyond the limit a call looks at, in case rivals are reaping the first ones. */
const SPARE_CANDIDATES = 256;

// locks: the workflow runs in id order, then the jobs, oldest expiry first, skipping what others hold: whoever holds a row
// is settling it. index: job_queue_lease_index, workflow_runs_pkey, job_queue_pkey, workflow_steps_pkey. no row: no lease
// has expired. One row without a job tells what was released.
const REAP = `
with overdue as materialized (
  select queue.id, queue.workflow_run_id
  from runledger.job_queue as queue
  where queue.status = 'LEASED'
    and queue.lease_expires_at <= statement_timestamp()
  order by queue.lease_expires_at, queue.id
  limit $1::integer + ${SPARE_CANDIDATES}
),
runs as materialized (
  select run.id
  from runledger.workflow_runs as run
  where run.id = any (array(select overdue.workflow_run_id from overdue where overdue.workflow_run_id is not null))
  order by run.id
  for update skip locked
),
expired as materialized (
  select
    queue.id, queue.job_type, queue.organization_id, queue.run_number, queue.attempt, queue.lease_token,
    queue.workflow_run_id
  from runledger.job_queue as queue
  where queue.id = any (
      array(
        select overdue.id
        from overdue
        where overdue.workflow_run_id is null
          or overdue.workflow_run_id in (select runs.id from runs)
      )
    )
    and queue.status = 'LEASED'
    and queue.lease_expires_at <= statement_timestamp()
  order by queue.lease_expires_at, queue.id
  limit $1::integer
  for update skip locked
),
batch as (
  select expired.*, row_number() over (order by expired.id) as place
  from expired
)
select
  batch.id as job_id, batch.job_type, batch.organization_id, batch.run_number, batch.attempt, settled.status,
  settled.next_run_at,
  batch.workflow_run_id,
  (
    select step.step_key
    from runledger.workflow_steps as step
    where step.id = case when batch.workflow_run_id is not null then batch.id end
  ) as step_key,
  settled.release::text as release
from runledger.settle_jobs(
  array(select batch.id from batch order by batch.place),
  array(select batch.run_number from batch order by batch.place),
  array(select batch.attempt from batch order by batch.place),
  array(select batch.lease_token from batch order by batch.place),
  array(select batch.workflow_run_id from batch order by batch.place),
  array(select 'failed' from batch),
  array(
    select jsonb_build_object(
      'failure_kind', 'LEASE_EXPIRED', 'error_code', 'job.lease_expired',
      'error_message', 'The lease expired before the attempt was settled.', 'delay_ms', $2::bigint
    )
    from batch
  ),
  true,
  true
) as settled
left join batch on batch.place = any (settled.places)
where batch.id is not null
  or settled.release is not null
`;

/**
 * Settles attempts whose lease has expired: a retry after a constant delay, or a dead letter when the attempts are used
 * up, both with the code `job.lease_expired`.
 *
 * One statement. Any number of processes may reap at once: each lease is reaped by one of them. A settlement that
 * reaches the job first wins; one that comes later is refused.
 *
 * @param db A pool, client or open transaction.
 * @param options How many, and when they are due again.
 * @returns The reaped jobs; as many as the limit when there may be more.
 * @throws {RangeError} If `retryDelayMs` is not an integer from 1 to 86,400,000.
 * @throws {RunledgerError} `job.invalid_pagination` if `limit` is not an integer from 1 to 1000; `db.*` codes.
 */
export async function reapExpiredLeases(db: Queryable, options: ReapOptions = {}): Promise<readonly ReapedJob[]> {
  const { limit = 100, retryDelayMs = 30_000 } = options;
  assertLimit(limit);
  if (!Number.isInteger(retryDelayMs) || retryDelayMs < 1 || retryDelayMs > 86_400_000) {
    throw new RangeError(`Cannot retry after '${retryDelayMs}': retryDelayMs must be an integer from 1 to 86400000`);
  }
  const rows = await runStatement(db, REAP, [limit, String(retryDelayMs)], { write: true });
  const told = rows.find((row) => row["job_id"] === null);
  const releases = new Map(told === undefined ? [] : decodeReleases(readText(told, "release")));
  const reaped = rows.filter((row) => row !== told).reverse().map((row): ReapedJob => {
    const runId = readOptionalText(row, "workflow_run_id");
    const release = runId === undefined ? undefined : releases.get(runId);
    if (runId !== undefined) releases.delete(runId);
    return present({
      jobId: readText(row, "job_id"),
      jobType: readText(row, "job_type"),
      organizationId: readOptionalText(row, "organization_id"),
      runNumber: readInteger(row, "run_number"),
      attempt: readInteger(row, "attempt"),
      status: readJobStatus(row, "status"),
      nextRunAt: readOptionalInstant(row, "next_run_at"),
      workflow: runId === undefined ? undefined : { runId, stepKey: readText(row, "step_key") },
      release,
    });
  });
  return reaped.reverse();
}

/** Refuses a limit that cannot be. */
export function assertLimit(limit: number): void {
  if (!Number.isInteger(limit) || limit < 1 || limit > 1000) {
    throw new RunledgerError("job.invalid_pagination", { details: { field: "limit" } });
  }
}
