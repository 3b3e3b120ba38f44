-- purpose: what operators look things up by, and the view of jobs in words
-- locks: job_queue, job_events, job_dead_letters and workflow_runs, share, while their indexes are built: they may be read, not written
-- rewrites: nothing
-- breaking: no
--
-- Each index on job_queue is paid for by what moves jobs, so there is one more, and jobs that go well are not in it. One
-- by organization would let tenants see their own jobs at once, but it costs a sixth of claim and settlement and a tenth
-- of enqueue of their jobs (bench/README.md): reads look through the newest jobs instead.

-- What has failed for good or was called off, newest first.
create index job_queue_failed_index on runledger.job_queue (id)
where status in ('DEAD_LETTERED', 'CANCELED');

create index job_dead_letters_organization_index
on runledger.job_dead_letters (organization_id, failed_at desc, job_id desc)
where organization_id is not null;

-- Lets the ledger be followed as it grows, by any number of readers: what a reader has not seen lies at its end. Entries of
-- one transaction share their key: 8 bytes an event in batches of 16. The server then takes 5% more of its time for claim
-- and settlement and writes 200 bytes of WAL a job more, of 1900.
create index job_events_posted_index on runledger.job_events (posted_xid);

create index workflow_runs_live_index on runledger.workflow_runs (id)
where finished_at is null;

create index workflow_runs_unsuccessful_index on runledger.workflow_runs (id)
where status in ('COMPLETED_WITH_ERRORS', 'CANCELED');

-- Jobs in words, for people.
create view runledger.jobs as
select
  queue.id as job_id,
  queue.job_type,
  queue.status,
  case queue.status
    when 'PENDING' then
      case
        when queue.next_run_at <= now() then 'waiting for a worker'
        when queue.attempt > 0 then 'waiting to be tried again'
        else 'scheduled'
      end
    when 'LEASED' then
      case when queue.lease_expires_at <= now() then 'lost by its worker' else 'running' end
    when 'SUCCEEDED' then 'succeeded'
    when 'DEAD_LETTERED' then 'failed for good'
    else case when queue.lease_expires_at > now() then 'cancelled, handler may be at work' else 'cancelled' end
  end as state,
  case queue.status
    when 'PENDING' then
      case
        when queue.next_run_at <= now() then
          format('due for %s, not claimed yet', date_trunc('second', now() - queue.next_run_at))
        else format('due in %s', date_trunc('second', queue.next_run_at - now()))
      end
      || case
        when queue.attempt > 0 then format(
          '; attempt %s of %s failed: %s', queue.attempt, queue.max_attempts, coalesce(queue.last_error_code, 'unknown')
        )
        when queue.status_reason is not null then format('; %s', queue.status_reason)
        else ''
      end
    when 'LEASED' then
      format('attempt %s of %s by %s; ', queue.attempt, queue.max_attempts, queue.worker_id)
      || case
        when queue.lease_expires_at <= now() then
          format('lease ran out %s ago, waits for a reaper', date_trunc('second', now() - queue.lease_expires_at))
        else format('lease runs out in %s', date_trunc('second', queue.lease_expires_at - now()))
      end
    when 'DEAD_LETTERED' then
      format('%s: %s after %s of %s attempts', queue.status_reason, queue.last_error_code, queue.attempt, queue.max_attempts)
    when 'CANCELED' then queue.status_reason
  end as why,
  queue.organization_id,
  queue.priority,
  queue.run_number,
  queue.attempt,
  queue.max_attempts,
  queue.created_at,
  queue.next_run_at,
  queue.started_at,
  queue.finished_at,
  queue.worker_id,
  queue.lease_expires_at,
  queue.progress_done,
  queue.progress_total,
  queue.last_error_code,
  queue.last_error_message,
  queue.workflow_run_id,
  queue.replay_of_job_id,
  queue.idempotency_key,
  queue.payload,
  queue.checkpoint,
  queue.output
from runledger.job_queue as queue;

-- How job types are doing: how much waits and for how long, how fast and how well jobs end.
--
-- Cheap at any size of the tables, since it reads a bounded part of indexes. What waits is counted along the claim index,
-- up to a number of entries for each (type, priority) that shrinks as there are more of these. How jobs end is told by
-- the newest ones that ended, up to sample_limit: a busy database is judged by its last minutes, a quiet one by the
-- whole window. Of each of these jobs the newest 50 events are read.
-- scope_kind: 'all', or 'one' for the organization given, null being none. No row for a type that has nothing to tell.
-- With its owner's rights, so that whoever watches may be shown figures and no payloads.
-- Index: job_queue_claim_index, job_queue_lease_index, job_queue_finished_index, job_events_pkey.
create function runledger.job_metrics(
  scope_kind text,
  scope_organization_id uuid,
  only_job_type text,
  since timestamptz,
  sample_limit integer
) returns table (
  job_type text,
  due bigint,
  scheduled bigint,
  leased bigint,
  leases_run_out bigint,
  is_depth_complete boolean,
  oldest_due_ms bigint,
  oldest_lease_ms bigint,
  sampled_since timestamptz,
  is_sample_complete boolean,
  succeeded bigint,
  dead_lettered bigint,
  canceled bigint,
  ended_per_minute double precision,
  attempts bigint,
  retries bigint,
  timeouts bigint,
  lease_expiries bigint,
  panics bigint,
  continuations bigint,
  wait_ms_p50 double precision,
  wait_ms_p95 double precision,
  wait_ms_p99 double precision,
  run_ms_p50 double precision,
  run_ms_p95 double precision,
  run_ms_p99 double precision
)
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
-- A plan made while the tables were empty must not last until they are full.
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_custom_plan
set jit = off
as $fn$
with recursive lane as (
  (
    select head.job_type, head.priority, 1 as place
    from (
      select definition.job_type
      from runledger.job_definitions as definition
      where only_job_type is null
        or definition.job_type = only_job_type
      order by definition.job_type
    ) as defined
    cross join lateral (
      select queue.job_type, queue.priority
      from runledger.job_queue as queue
      where queue.status = 'PENDING'
        and queue.job_type = defined.job_type
      order by queue.priority desc
      limit 1
    ) as head
  )
  union all
  select head.job_type, head.priority, lane.place + 1
  from lane
  cross join lateral (
    select queue.job_type, queue.priority
    from runledger.job_queue as queue
    where queue.status = 'PENDING'
      and queue.job_type = lane.job_type
      and queue.priority < lane.priority
    order by queue.priority desc
    limit 1
  ) as head
  where lane.place < 20
),
budget as materialized (
  select greatest(100, 50000 / greatest(count(*), 1))::integer as entries
  from lane
),
waiting as materialized (
  select
    lane.job_type,
    count(*) filter (where entry.is_in_scope and entry.next_run_at <= statement_timestamp()) as due,
    count(*) filter (where entry.is_in_scope and entry.next_run_at > statement_timestamp()) as scheduled,
    min(entry.next_run_at) filter (where entry.is_in_scope) as oldest_at,
    count(*) < (select budget.entries from budget) and lane.place < 20 as is_complete
  from lane
  cross join lateral (
    select
      queue.next_run_at,
      scope_kind = 'all' or queue.organization_id is not distinct from scope_organization_id as is_in_scope
    from runledger.job_queue as queue
    where queue.status = 'PENDING'
      and queue.job_type = lane.job_type
      and queue.priority = lane.priority
    order by queue.next_run_at
    limit (select budget.entries from budget)
  ) as entry
  group by lane.job_type, lane.priority, lane.place
),
depth as (
  select
    waiting.job_type, sum(waiting.due)::bigint as due, sum(waiting.scheduled)::bigint as scheduled,
    bool_and(waiting.is_complete) as is_complete,
    min(waiting.oldest_at) filter (where waiting.oldest_at <= statement_timestamp()) as oldest_at
  from waiting
  group by waiting.job_type
),
held as (
  select
    lease.job_type, count(*) as leased,
    count(*) filter (where lease.lease_expires_at <= statement_timestamp()) as run_out, min(lease.started_at) as oldest_at
  from (
    select queue.job_type, queue.organization_id, queue.lease_expires_at, queue.started_at
    from runledger.job_queue as queue
    where queue.status = 'LEASED'
    order by queue.lease_expires_at
    limit 20000
  ) as lease
  where (only_job_type is null or lease.job_type = only_job_type)
    and (scope_kind = 'all' or lease.organization_id is not distinct from scope_organization_id)
  group by lease.job_type
),
-- Each half of the index of ended jobs by itself: only so is it read in order, and no further than the limit. Halves are
-- compared with a column, since a comparison with a constant becomes a null test, which the index does not know.
newest as materialized (
  select latest.id, latest.job_type, latest.organization_id, latest.status, latest.finished_at
  from (values (true), (false)) as half (is_unkeyed)
  cross join lateral (
    select queue.id, queue.job_type, queue.organization_id, queue.status, queue.finished_at
    from runledger.job_queue as queue
    where (queue.idempotency_key is null) = half.is_unkeyed
      and queue.finished_at >= since
    order by queue.finished_at desc
    limit sample_limit
  ) as latest
  order by latest.finished_at desc
  limit sample_limit
),
sample as materialized (
  select newest.id, newest.job_type, newest.status
  from newest
  where (only_job_type is null or newest.job_type = only_job_type)
    and (scope_kind = 'all' or newest.organization_id is not distinct from scope_organization_id)
),
covered as materialized (
  select
    count(*) < sample_limit as is_complete,
    case when count(*) < sample_limit then since else min(newest.finished_at) end as since
  from newest
),
event as (
  select
    sample.job_type, posted.event_type, posted.payload, posted.occurred_at,
    lag(posted.event_type) over story as event_type_before, lag(posted.payload) over story as payload_before,
    lag(posted.occurred_at) over story as occurred_before, sample_job.next_run_at, sample_job.is_first
  from sample
  cross join lateral (
    select queue.next_run_at, queue.run_number = 1 and queue.attempt = 1 as is_first
    from runledger.job_queue as queue
    where queue.id = sample.id
    offset 0
  ) as sample_job
  cross join lateral (
    select latest.job_id, latest.seq, latest.event_type, latest.payload, latest.occurred_at
    from (
      select ledger.job_id, ledger.seq, ledger.event_type, ledger.payload, ledger.occurred_at
      from runledger.job_events as ledger
      where ledger.job_id = sample.id
      order by ledger.seq desc
      limit 50
    ) as latest
    where latest.event_type not in ('PROGRESS', 'HEARTBEAT', 'STAGE_CHANGED')
  ) as posted
  window story as (partition by posted.job_id order by posted.seq)
),
attempt as (
  select
    event.job_type, event.event_type, event.payload,
    case
      when event.event_type <> 'LEASED' then null
      -- Only of a job that was claimed once is it still known when it was due first.
      when event.event_type_before in ('ENQUEUED', 'EDITED') and event.is_first then event.occurred_at - event.next_run_at
      when event.event_type_before in ('RETRY_SCHEDULED', 'REQUEUED') then
        event.occurred_at - coalesce((event.payload_before ->> 'next_run_at')::timestamptz, event.occurred_before)
    end as waited,
    case
      when event.event_type_before = 'LEASED' and event.event_type in ('SUCCEEDED', 'FAILED', 'CANCELED', 'REQUEUED') then
        event.occurred_at - event.occurred_before
    end as ran
  from event
),
tally as (
  select
    attempt.job_type,
    count(*) filter (where attempt.event_type = 'LEASED') as attempts,
    count(*) filter (where attempt.event_type = 'RETRY_SCHEDULED') as retries,
    count(*) filter (where attempt.event_type = 'FAILED' and attempt.payload ->> 'kind' = 'TIMEOUT') as timeouts,
    count(*) filter (where attempt.event_type = 'FAILED' and attempt.payload ->> 'kind' = 'LEASE_EXPIRED') as lease_expiries,
    count(*) filter (where attempt.event_type = 'FAILED' and attempt.payload ->> 'kind' = 'PANICKED') as panics,
    count(*) filter (
      where attempt.event_type = 'REQUEUED' and attempt.payload ->> 'requeue_kind' = 'HANDLER_CONTINUATION'
    ) as continuations,
    percentile_cont(array[0.5, 0.95, 0.99]) within group (
      order by greatest(extract(epoch from attempt.waited) * 1000, 0)::double precision
    ) filter (where attempt.waited is not null) as wait_ms,
    percentile_cont(array[0.5, 0.95, 0.99]) within group (
      order by (extract(epoch from attempt.ran) * 1000)::double precision
    ) filter (where attempt.ran is not null) as run_ms
  from attempt
  group by attempt.job_type
),
outcome as (
  select
    sample.job_type, count(*) as ended, count(*) filter (where sample.status = 'SUCCEEDED') as succeeded,
    count(*) filter (where sample.status = 'DEAD_LETTERED') as dead_lettered,
    count(*) filter (where sample.status = 'CANCELED') as canceled
  from sample
  group by sample.job_type
)
select
  known.job_type, coalesce(depth.due, 0), coalesce(depth.scheduled, 0), coalesce(held.leased, 0), coalesce(held.run_out, 0),
  coalesce(depth.is_complete, true),
  (extract(epoch from statement_timestamp() - depth.oldest_at) * 1000)::bigint,
  (extract(epoch from statement_timestamp() - held.oldest_at) * 1000)::bigint,
  covered.since, covered.is_complete, coalesce(outcome.succeeded, 0), coalesce(outcome.dead_lettered, 0),
  coalesce(outcome.canceled, 0),
  coalesce(outcome.ended, 0)
  / greatest(extract(epoch from statement_timestamp() - covered.since)::double precision / 60, 1.0 / 60),
  coalesce(tally.attempts, 0), coalesce(tally.retries, 0), coalesce(tally.timeouts, 0), coalesce(tally.lease_expiries, 0),
  coalesce(tally.panics, 0), coalesce(tally.continuations, 0), tally.wait_ms[1], tally.wait_ms[2], tally.wait_ms[3],
  tally.run_ms[1], tally.run_ms[2], tally.run_ms[3]
from (
  select depth.job_type from depth
  union
  select held.job_type from held
  union
  select outcome.job_type from outcome
) as known
cross join covered
left join depth on depth.job_type = known.job_type
left join held on held.job_type = known.job_type
left join outcome on outcome.job_type = known.job_type
left join tally on tally.job_type = known.job_type
where scope_kind = 'all'
  or depth.due + depth.scheduled > 0
  or held.leased > 0
  or outcome.ended > 0
order by known.job_type
$fn$;

revoke all on function runledger.job_metrics(text, uuid, text, timestamptz, integer) from public;

-- The metrics of all types over the last day, for people.
create view runledger.job_metrics_rollup as
select
  metrics.job_type, metrics.due, metrics.scheduled, metrics.leased, metrics.leases_run_out, metrics.is_depth_complete,
  metrics.oldest_due_ms, metrics.oldest_lease_ms, metrics.sampled_since, metrics.is_sample_complete, metrics.succeeded,
  metrics.dead_lettered, metrics.canceled, metrics.ended_per_minute, metrics.attempts, metrics.retries, metrics.timeouts,
  metrics.lease_expiries, metrics.panics, metrics.continuations, metrics.wait_ms_p50, metrics.wait_ms_p95,
  metrics.wait_ms_p99, metrics.run_ms_p50, metrics.run_ms_p95, metrics.run_ms_p99
from runledger.job_metrics('all', null, null, now() - interval '1 day', 2000) as metrics;
