/**
 * Who is at work.
 *
 * @module
 */

import { present, readInteger, readJson, readOptionalInstant, readText } from "./_rows.ts";
import { runStatement } from "./queryable.ts";
import type { Queryable } from "./queryable.ts";
import { scopeValues } from "./scope.ts";
import type { Scope } from "./scope.ts";

/** A worker that holds jobs, or says that it sleeps. */
export interface ActiveWorker {
  /** The worker. */
  readonly workerId: string;
  /** How many jobs it holds. */
  readonly leasedCount: number;
  /** Of these, how many have a lease that has run out. */
  readonly runOutCount: number;
  /** The types of these jobs; of one that holds none, those that it has handlers for. */
  readonly jobTypes: readonly string[];
  /** When the run of the first of them was first claimed. */
  readonly oldestStartedAt?: Date;
  /** When it last gave a sign of life with one of them. */
  readonly lastHeartbeatAt?: Date;
}

// index: job_queue_lease_index, sleeping_workers_pkey. no row: nobody is at work.
const LIST_WORKERS = `
with lease as materialized (
  select held.worker_id, held.job_type, held.lease_expires_at, held.started_at, held.last_heartbeat_at
  from (
    select
      queue.worker_id, queue.job_type, queue.organization_id, queue.lease_expires_at, queue.started_at,
      queue.last_heartbeat_at
    from runledger.job_queue as queue
    where queue.status = 'LEASED'
    order by queue.lease_expires_at
    limit 10000
  ) as held
  where $1::text = 'all'
    or held.organization_id is not distinct from $2::uuid
),
busy as (
  select
    lease.worker_id, count(*) as leased_count,
    count(*) filter (where lease.lease_expires_at <= statement_timestamp()) as run_out_count,
    jsonb_agg(distinct lease.job_type) as job_types, min(lease.started_at) as started_at,
    max(lease.last_heartbeat_at) as heartbeat_at
  from lease
  group by lease.worker_id
)
select
  busy.worker_id, busy.leased_count::text as leased_count, busy.run_out_count::text as run_out_count,
  busy.job_types::text as job_types, extract(epoch from busy.started_at)::text as oldest_started_at,
  extract(epoch from busy.heartbeat_at)::text as last_heartbeat_at
from busy
union all
select sleeper.worker_id, '0', '0', to_jsonb(sleeper.job_types)::text, null, null
from runledger.sleeping_workers as sleeper
where $1::text = 'all'
  and sleeper.sleeps_until > statement_timestamp()
  and not exists (select from busy where busy.worker_id = sleeper.worker_id)
order by 1
limit 1000
`;

/**
 * Lists the workers that hold jobs, of the 10,000 leases that run out first; for `"all"` also those that sleep and said
 * so. A worker that has nothing to do and does not wait for notifications is not known to the database.
 *
 * @param db A pool, client or open transaction.
 * @param options Whose jobs.
 * @returns The workers by id, 1000 at most.
 * @throws {RunledgerError} `db.*` codes.
 */
export async function listActiveWorkers(
  db: Queryable,
  options: { readonly scope: Scope },
): Promise<readonly ActiveWorker[]> {
  const rows = await runStatement(db, LIST_WORKERS, [...scopeValues(options.scope)]);
  return rows.map((row) =>
    present({
      workerId: readText(row, "worker_id"),
      leasedCount: readInteger(row, "leased_count"),
      runOutCount: readInteger(row, "run_out_count"),
      jobTypes: readJson(row, "job_types") as readonly string[],
      oldestStartedAt: readOptionalInstant(row, "oldest_started_at"),
      lastHeartbeatAt: readOptionalInstant(row, "last_heartbeat_at"),
    })
  );
}
