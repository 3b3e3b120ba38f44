/**
 * Why nobody may have come for a due job: what goes before it, and who claims jobs of its type.
 *
 * @module
 */

import { present, readBoolean, readInteger, readOptionalInstant } from "./_rows.ts";
import { runStatement } from "./queryable.ts";
import type { Queryable, Row } from "./queryable.ts";
import { inScope, scopeValues } from "./scope.ts";
import type { Scope } from "./scope.ts";

/** What else is known of a type while a job of it waits to be claimed. Of jobs, those in the scope. */
export interface ClaimOutlook {
  /** How many due jobs of the type go before it. */
  readonly aheadCount: number;
  /** Whether that is all; if not, there are at least so many. */
  readonly isAheadComplete: boolean;
  /** How many jobs of the type are leased, of the 10,000 leases that run out first. */
  readonly leasedCount: number;
  /** How many workers sleep that have a handler for the type. */
  readonly idleWorkerCount: number;
  /** When a worker last claimed a job of the type, as far as was looked back. */
  readonly lastClaimedAt?: Date;
  /** How far back: the older of the ended jobs that were looked at. Absent if all of them were. */
  readonly lookedBackTo?: Date;
}

// Each part looks at a bounded piece of an index: what goes before the job, who has others of its type, and which jobs of
// the type ended last. When a job was claimed is in its ledger.
// index: job_queue_claim_index, job_queue_lease_index, job_queue_finished_index, job_events_pkey, sleeping_workers_pkey.
const OUTLOOK = `
with ahead as (
  select
    count(*) filter (
      where seen.next_run_at <= statement_timestamp()
        and ${inScope("seen")}
        and (seen.priority > own.priority or (seen.next_run_at, seen.id) < (own.next_run_at, own.id))
    ) as jobs,
    count(*) < 10000 as is_complete
  from runledger.job_queue as own
  cross join lateral (
    select other.id, other.priority, other.next_run_at, other.organization_id
    from runledger.job_queue as other
    where other.status = 'PENDING'
      and other.job_type = own.job_type
      and other.priority >= own.priority
    order by other.priority desc, other.next_run_at, other.id
    limit 10000
  ) as seen
  where own.id = $1::uuid
),
lease as materialized (
  select held.id, held.last_heartbeat_at
  from (
    select queue.id, queue.job_type, queue.organization_id, queue.last_heartbeat_at
    from runledger.job_queue as queue
    where queue.status = 'LEASED'
    order by queue.lease_expires_at
    limit 10000
  ) as held
  where held.job_type = $4::text
    and ${inScope("held")}
),
ended as materialized (
  select latest.id, latest.job_type, latest.organization_id, latest.finished_at, latest.place
  from (values (true), (false)) as half (is_unkeyed)
  cross join lateral (
    select
      queue.id, queue.job_type, queue.organization_id, queue.finished_at,
      row_number() over (order by queue.finished_at desc) as place
    from (
      select own.id, own.job_type, own.organization_id, own.finished_at
      from runledger.job_queue as own
      where (own.idempotency_key is null) = half.is_unkeyed
        and own.finished_at is not null
      order by own.finished_at desc
      limit 1000
    ) as queue
  ) as latest
),
candidate as (
  select $1::uuid as id
  union
  (
    select lease.id
    from lease
    order by lease.last_heartbeat_at desc
    limit 20
  )
  union
  (
    select ended.id
    from ended
    where ended.job_type = $4::text
      and ${inScope("ended")}
    order by ended.finished_at desc
    limit 20
  )
  union
  (
    select tried.id
    from (
      select queue.id, queue.started_at, queue.organization_id
      from runledger.job_queue as queue
      where queue.status = 'PENDING'
        and queue.job_type = $4::text
      order by queue.priority desc, queue.next_run_at, queue.id
      limit 1000
    ) as tried
    where tried.started_at is not null
      and ${inScope("tried")}
    order by tried.started_at desc
    limit 20
  )
)
select
  ahead.jobs::text as ahead_count, ahead.is_complete as is_ahead_complete,
  (select count(*) from lease)::text as leased_count,
  (
    select count(*)
    from runledger.sleeping_workers as sleeper
    where sleeper.sleeps_until > clock_timestamp()
      and $4::text = any (sleeper.job_types)
  )::text as idle_worker_count,
  (
    select extract(epoch from max(claimed.occurred_at))::text
    from candidate
    cross join lateral (
      select latest.occurred_at
      from (
        select event.event_type, event.occurred_at, event.seq
        from runledger.job_events as event
        where event.job_id = candidate.id
        order by event.seq desc
        limit 100
      ) as latest
      where latest.event_type = 'LEASED'
      order by latest.seq desc
      limit 1
    ) as claimed
  ) as last_claimed_at,
  (
    select extract(epoch from max(ended.finished_at))::text
    from ended
    where ended.place = 1000
  ) as looked_back_to
from ahead
`;

/** Looks around for a due job. One statement. */
export async function readClaimOutlook(
  db: Queryable,
  { jobId, jobType }: { readonly jobId: string; readonly jobType: string },
  { scope }: { readonly scope: Scope },
): Promise<ClaimOutlook> {
  const [row] = await runStatement(db, OUTLOOK, [jobId, ...scopeValues(scope), jobType]);
  // No row: the job was deleted meanwhile.
  return row === undefined
    ? { aheadCount: 0, isAheadComplete: true, leasedCount: 0, idleWorkerCount: 0 }
    : decodeOutlook(row);
}

function decodeOutlook(row: Row): ClaimOutlook {
  return present({
    aheadCount: readInteger(row, "ahead_count"),
    isAheadComplete: readBoolean(row, "is_ahead_complete"),
    leasedCount: readInteger(row, "leased_count"),
    idleWorkerCount: readInteger(row, "idle_worker_count"),
    lastClaimedAt: readOptionalInstant(row, "last_claimed_at"),
    lookedBackTo: readOptionalInstant(row, "looked_back_to"),
  });
}
