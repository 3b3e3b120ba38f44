-- purpose: runledger.claim_jobs and runledger.settle_jobs, what every worker calls again and again
-- locks: none
-- rewrites: nothing
-- breaking: no
--
-- Functions, because planning these statements takes as long as running them for a few jobs. A function's plans are made
-- once a session, also for clients that cannot prepare statements. They are made for any values, in sessions of their own
-- settings and perhaps before the tables were first analyzed, so the settings fix what a good plan must look like. They
-- hold for what the functions call, too: finish_workflow_steps must be free to hash.

-- Claims up to wanted_count due jobs and starts a lease of lease_ms on each, all with one token.
--
-- wanted_types: an array of texts. spare_count: how many candidates beyond the wanted ones to look at. last_position: the
-- position that an earlier claim of this worker gave, {} for none yet, null for a worker that keeps none; resumes: whether
-- to start there. The first row tells of the claim, in more: candidate_count, is_everywhere (whether it looked at all jobs)
-- and the position to keep, if any. Each other row is a claimed job, with what only some have in more; in no order: claim
-- order is priority, the highest first, then waited_us, the longest first, then id.
--
-- Locks: the claimed jobs, in claim order, skipping those that others hold; it waits for nobody.
-- Index: job_queue_claim_index, entered once for each (type, priority) that has a pending job; workflow_steps_pkey,
-- workflow_runs_pkey, workflow_step_dependencies_pkey for jobs that are steps.
create function runledger.claim_jobs(
  wanted_types jsonb,
  wanted_count integer,
  spare_count integer,
  claimer text,
  lease_ms integer,
  new_lease_token uuid,
  last_position jsonb,
  resumes boolean
) returns table (
  job_id uuid,
  job_type text,
  organization_id uuid,
  priority integer,
  run_number integer,
  attempt integer,
  max_attempts integer,
  timeout_seconds integer,
  waited_us text,
  payload text,
  more text
)
language plpgsql
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_mergejoin = off
set jit = off
as $fn$
#variable_conflict use_column
declare
  starts_everywhere boolean := not coalesce(
    resumes
    and (last_position ->> 'rescan_at')::timestamptz > clock_timestamp()
    and last_position -> 'job_types' = wanted_types,
    false
  );
  leased_payload jsonb := jsonb_build_object('worker_id', claimer, 'lease_ms', lease_ms);
  due_rows tid[];
  claimed_at timestamptz;
begin
  -- scanned hops along the index from one (type, priority) to the next, so that neither finished jobs, nor jobs of other
  -- types, nor a million jobs scheduled for next year are ever read. candidates merges the due ones of each into one
  -- order, starting at the head and so behind the dead index entries of jobs that were claimed before. due goes to their
  -- rows by ctid, since they were just read there, and locks one after the other in claim order until it has enough.
  --
  -- bound keeps the merge from reading a whole batch of every type: among a few jobs of each of many heads, the last key
  -- that can still be wanted is known. Up to four heads there is little to save.
  --
  -- While some transaction holds an old snapshot, dead index entries cannot be removed, and to find a head all jobs
  -- claimed since must be walked over: 0.2 to 0.3 microseconds each, in every claim. When that takes more than a
  -- millisecond, a position is given, and until rescan_at the next claims start there. So at most a tenth of the time is
  -- spent on finding heads, and it is done once a second at least.
  with recursive wanted as (
    -- The array makes PostgreSQL expect a few types rather than a hundred.
    select wanted.job_type
    from unnest(array(select jsonb_array_elements_text(wanted_types))) as wanted (job_type)
    where starts_everywhere
  ),
  scanned as (
    select head.job_type, head.priority, head.next_run_at, head.id
    from wanted
    cross join lateral (
      select queue.job_type, queue.priority, queue.next_run_at, queue.id
      from runledger.job_queue as queue
      where queue.job_type = wanted.job_type
        and queue.status = 'PENDING'
      order by queue.priority desc, queue.next_run_at, queue.id
      limit 1
    ) as head
    union all
    select head.job_type, head.priority, head.next_run_at, head.id
    from scanned
    cross join lateral (
      select queue.job_type, queue.priority, queue.next_run_at, queue.id
      from runledger.job_queue as queue
      where queue.job_type = scanned.job_type
        and queue.status = 'PENDING'
        and queue.priority < scanned.priority
      order by queue.priority desc, queue.next_run_at, queue.id
      limit 1
    ) as head
  ),
  heads as materialized (
    select scanned.job_type, scanned.priority, scanned.next_run_at, scanned.id
    from scanned
    union all
    select floor.job_type, floor.priority, floor.next_run_at, floor.id
    from jsonb_to_recordset(last_position -> 'floors') as floor (
      job_type text, priority integer, next_run_at timestamptz, id uuid
    )
    where not starts_everywhere
  ),
  measured as materialized (
    select
      count(*) as head_count,
      case
        when starts_everywhere then
          clock_timestamp() + least(9 * (clock_timestamp() - statement_timestamp()), interval '1 second')
        else (last_position ->> 'rescan_at')::timestamptz
      end as rescan_at,
      case
        when starts_everywhere then
          last_position is not null and clock_timestamp() - statement_timestamp() > interval '1 millisecond'
        else count(*) > 0
      end as has_position
    from heads
  ),
  bound as materialized (
    select sample.priority, sample.next_run_at
    from heads
    cross join lateral (
      select queue.id, queue.priority, queue.next_run_at
      from runledger.job_queue as queue
      where queue.job_type = heads.job_type
        and queue.priority = heads.priority
        and queue.status = 'PENDING'
        and (queue.next_run_at, queue.id) >= (heads.next_run_at, heads.id)
        and queue.next_run_at <= statement_timestamp()
      order by queue.next_run_at, queue.id
      limit (select 1 + 4 * (wanted_count + spare_count) / measured.head_count from measured)
    ) as sample
    where heads.next_run_at <= statement_timestamp()
      and (select measured.head_count from measured) > 4
    order by sample.priority desc, sample.next_run_at, sample.id
    offset wanted_count + spare_count - 1
    limit 1
  ),
  candidates as materialized (
    select candidate.ctid
    from heads
    left join bound on true
    cross join lateral (
      select queue.ctid, queue.id, queue.priority, queue.next_run_at
      from runledger.job_queue as queue
      where queue.job_type = heads.job_type
        and queue.priority = heads.priority
        and queue.status = 'PENDING'
        and (queue.next_run_at, queue.id) >= (heads.next_run_at, heads.id)
        and queue.next_run_at <= least(
          statement_timestamp(), case heads.priority when bound.priority then bound.next_run_at end
        )
      order by queue.next_run_at, queue.id
      limit wanted_count + spare_count
    ) as candidate
    where heads.next_run_at <= statement_timestamp()
      and (bound.priority is null or heads.priority >= bound.priority)
    order by candidate.priority desc, candidate.next_run_at, candidate.id
    limit wanted_count + spare_count
  ),
  due as materialized (
    select queue.ctid, queue.job_type, queue.priority, queue.next_run_at, queue.id
    from runledger.job_queue as queue
    where queue.ctid = any (array(select candidates.ctid from candidates))
      -- Without a lease and an end a job is PENDING; naming the status would let the index of pending jobs be chosen. Not
      -- every release of PostgreSQL drops a row by itself that a rival has moved meanwhile.
      and queue.lease_token is null
      and queue.finished_at is null
      and queue.next_run_at <= statement_timestamp()
    order by queue.priority desc, queue.next_run_at, queue.id
    limit wanted_count
    for update skip locked
  ),
  -- How far each (type, priority) has got. One that has no job now is entered at the time of this scan.
  reached as (
    select distinct on (place.job_type, place.priority)
      place.job_type, place.priority, place.next_run_at, place.id
    from (
      select due.job_type, due.priority, due.next_run_at, due.id
      from due
      union all
      select heads.job_type, heads.priority, heads.next_run_at, heads.id
      from heads
      union all
      select floor.job_type, floor.priority, statement_timestamp(), '00000000-0000-0000-0000-000000000000'::uuid
      from jsonb_to_recordset(last_position -> 'floors') as floor (job_type text, priority integer)
      where not exists (select from heads where heads.job_type = floor.job_type and heads.priority = floor.priority)
    ) as place
    order by place.job_type, place.priority, place.next_run_at desc, place.id desc
  )
  select
    array(select due.ctid from due),
    jsonb_build_object(
      'candidate_count', (select count(*) from candidates),
      'is_everywhere', starts_everywhere,
      'position', case
        when measured.has_position then
          jsonb_build_object(
            'job_types', wanted_types, 'rescan_at', measured.rescan_at,
            'floors', (select coalesce(jsonb_agg(reached), '[]') from reached)
          )::text
      end
    )::text
  into due_rows, more
  from measured;

  return next;
  if due_rows = '{}' then
    return;
  end if;
  claimed_at := clock_timestamp();

  -- The update is the statement itself and gives its rows straight out: as a part of a larger one, the rows are stored and
  -- read again. What is posted is read from the rows as they were, which are locked. Times are read in the statement, not
  -- before: a session plans it when it needs it first, and a row and its event belong close together.
  return query
  with posted as (
    insert into runledger.job_events (job_id, seq, run_number, attempt, event_type, stage, payload)
    select
      queue.id, queue.event_seq + 1, queue.run_number, queue.attempt + 1, 'LEASED', 'running', leased_payload
    from runledger.job_queue as queue
    where queue.ctid = any (due_rows)
  )
  update runledger.job_queue as queue
  set status = 'LEASED',
    stage = 'running',
    attempt = queue.attempt + 1,
    event_seq = queue.event_seq + 1,
    worker_id = claimer,
    lease_token = new_lease_token,
    lease_expires_at = clock_timestamp() + lease_ms * interval '1 millisecond',
    last_heartbeat_at = clock_timestamp(),
    started_at = coalesce(queue.started_at, clock_timestamp())
  where queue.ctid = any (due_rows)
  returning
    queue.id, queue.job_type, queue.organization_id, queue.priority, queue.run_number, queue.attempt, queue.max_attempts,
    queue.timeout_seconds, (date_part('epoch', claimed_at - queue.next_run_at) * 1000000)::bigint::text,
    queue.payload::text,
    case
      when num_nonnulls(
        queue.checkpoint, queue.progress_done, queue.progress_total, queue.traceparent, queue.workflow_run_id
      ) > 0 then (
        jsonb_build_object(
          'progress_done', queue.progress_done,
          'progress_total', queue.progress_total,
          'traceparent', coalesce(queue.traceparent, (
            select run.traceparent from runledger.workflow_runs as run where run.id = queue.workflow_run_id
          )),
          'workflow_run_id', queue.workflow_run_id
        )
        -- Left out if there is none: null is a checkpoint.
        || case
          when queue.checkpoint is null then '{}'
          else jsonb_build_object('checkpoint', queue.checkpoint)
        end
        || case
          when queue.workflow_run_id is null then '{}'
          else jsonb_build_object(
            'step_key', (select step.step_key from runledger.workflow_steps as step where step.id = queue.id),
            'prerequisites', (
              select jsonb_object_agg(
                prerequisite.step_key,
                jsonb_build_object('status', prerequisite.status)
                  || case
                    when coalesce(prerequisite.output, job.output) is null then '{}'
                    else jsonb_build_object('output', coalesce(prerequisite.output, job.output))
                  end
              )
              from runledger.workflow_step_dependencies as edge
              join runledger.workflow_steps as prerequisite on prerequisite.id = edge.prerequisite_step_id
              left join runledger.job_queue as job on job.id = prerequisite.id
              where edge.dependent_step_id = queue.id
            )
          )
        end
      )::text
    end;
end
$fn$;

revoke all on function runledger.claim_jobs(jsonb, integer, integer, text, integer, uuid, jsonb, boolean) from public;

-- Posts how attempts ended. Every way in which an attempt can end meets here.
--
-- One array for each field, in the order of the batch: job, run, attempt, token, workflow run or null, the kind of a
-- JobOutcome or null for a success, and an object of what only some outcomes carry or null. An array may end before: the
-- last run, attempt and token hold for the rest, of the other arrays the rest is null. (Of 500 outcomes PostgreSQL reads
-- arrays in 0.7 ms, one JSON text in 1.9.) Attempts are settled under their unexpired lease; with reaps, only if it has
-- expired. Returns a row for each fate, with the places in the batch that met it, from 1: the status, with the time it is
-- due again if it is PENDING; or why nothing was written. A place that is in none has lost its lease, or still has it.
-- With tells, one more row if steps were released or cancelled or runs ended: what finish_workflow_steps says of it.
--
-- Locks: the workflow runs in order of id, then the jobs in order of id, but not their keys: a handler that finishes its
-- job in a transaction has stored what it logged, and so holds the key, before it wants the run. What the end of a step
-- releases is released under these locks. Index: workflow_runs_pkey, job_queue_pkey, workflow_steps_pkey.
create function runledger.settle_jobs(
  job_ids uuid[],
  run_numbers integer[],
  attempts integer[],
  lease_tokens uuid[],
  workflow_run_ids uuid[],
  kinds text[],
  mores jsonb[],
  reaps boolean,
  tells boolean default false
) returns table (status text, next_run_at text, refusal text, places integer[], release jsonb)
language plpgsql
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_nestloop = off
set jit = off
as $fn$
#variable_conflict use_column
declare
  last_run_number integer := run_numbers[cardinality(run_numbers)];
  last_attempt integer := attempts[cardinality(attempts)];
  last_lease_token uuid := lease_tokens[cardinality(lease_tokens)];
  settled_at timestamptz;
  ended_steps jsonb;
begin
  if array_remove(workflow_run_ids, null) <> '{}' then
    perform
    from runledger.workflow_runs as run
    where run.id = any (workflow_run_ids)
    order by run.id
    for update;
  end if;

  -- Locked first and compared afterwards, by a statement of its own: one that has waited for a lock still sees what was
  -- there before, and a lease that ran out meanwhile would pass.
  perform
  from runledger.job_queue as queue
  where queue.id = any (job_ids)
  order by queue.id
  for no key update;

  settled_at := clock_timestamp();

  -- Most succeed, and need little of what the other outcomes need.
  if cardinality(kinds) < cardinality(job_ids) or array_position(kinds, null) > 0 then
    with settled as (
      update runledger.job_queue as queue
      set status = 'SUCCEEDED',
        stage = 'completed',
        event_seq = queue.event_seq + 1,
        worker_id = null,
        lease_token = null,
        lease_expires_at = null,
        last_heartbeat_at = null,
        finished_at = settled_at,
        progress_done = coalesce((outcome.more ->> 'progress_done')::bigint, queue.progress_done),
        progress_total = coalesce((outcome.more ->> 'progress_total')::bigint, queue.progress_total),
        checkpoint = coalesce(outcome.more -> 'checkpoint', queue.checkpoint),
        output = outcome.more -> 'output',
        status_reason = null,
        last_error_code = null,
        last_error_message = null
      from unnest(job_ids, run_numbers, attempts, lease_tokens, workflow_run_ids, kinds, mores) with ordinality
        as outcome (job_id, run_number, attempt, lease_token, workflow_run_id, kind, more, place)
      where outcome.kind is null
        and queue.id = outcome.job_id
        -- Said twice: with nested loops off, this is how the jobs are found.
        and queue.id = any (job_ids)
        -- A job has a token only while it is LEASED; naming the status would let the index of leases be chosen.
        and queue.lease_token = coalesce(outcome.lease_token, last_lease_token)
        and queue.run_number = coalesce(outcome.run_number, last_run_number)
        and queue.attempt = coalesce(outcome.attempt, last_attempt)
        and queue.workflow_run_id is not distinct from outcome.workflow_run_id
        and queue.lease_expires_at > settled_at
        and coalesce(
          coalesce((outcome.more ->> 'progress_done')::bigint, queue.progress_done)
            <= coalesce((outcome.more ->> 'progress_total')::bigint, queue.progress_total),
          true
        )
      returning
        queue.id, queue.event_seq, queue.run_number, queue.attempt, queue.progress_done, queue.progress_total,
        queue.workflow_run_id, outcome.place::integer as place
    ),
    posted as (
      insert into runledger.job_events (
        job_id, seq, run_number, attempt, event_type, stage, progress_done, progress_total
      )
      select
        settled.id, settled.event_seq, settled.run_number, settled.attempt, 'SUCCEEDED', 'completed',
        settled.progress_done, settled.progress_total
      from settled
    )
    select
      'SUCCEEDED', array_agg(settled.place),
      jsonb_agg(jsonb_build_object(
        'step_id', settled.id, 'run_id', settled.workflow_run_id, 'status', 'SUCCEEDED', 'reason', 'SUCCEEDED'
      )) filter (where settled.workflow_run_id is not null)
    into status, places, ended_steps
    from settled;
    if places is not null then
      return next;
    end if;
  end if;

  -- The others; and of the successes those that contradict what is stored, to say so.
  if coalesce(cardinality(places), 0) < cardinality(job_ids) then
    for status, next_run_at, refusal, places, release in
      with outcome as materialized (
        select given.*
        from unnest(job_ids, run_numbers, attempts, lease_tokens, workflow_run_ids, kinds, mores) with ordinality
          as given (job_id, run_number, attempt, lease_token, workflow_run_id, kind, more, place)
        where given.kind is not null
          or given.more ?| '{progress_done,progress_total}'
      ),
      fenced as materialized (
        select
          outcome.place::integer as place, queue.run_number, queue.attempt, outcome.kind, outcome.more, queue.id,
          case outcome.kind
            when 'canceled' then 'CANCELED'
            when 'failed' then
              case
                when outcome.more ->> 'failure_kind' in ('TERMINAL', 'PANICKED')
                  or queue.attempt >= queue.max_attempts
                  then 'DEAD_LETTERED'
                else 'PENDING'
              end
            else 'PENDING'
          end as next_status,
          case
            when coalesce((outcome.more ->> 'progress_done')::bigint, queue.progress_done)
              > coalesce((outcome.more ->> 'progress_total')::bigint, queue.progress_total)
              then 'job.invalid_progress'
            when outcome.kind = 'continued' and queue.workflow_run_id is not null and not exists (
              select
              from runledger.workflow_steps as step
              where step.id = queue.id
                and step.allows_continuation
            )
              then 'job.workflow_handler_continuation_not_enabled'
          end as refusal
        from outcome
        join runledger.job_queue as queue on queue.id = outcome.job_id
        where queue.id = any (array(select outcome.job_id from outcome))
          and queue.lease_token = coalesce(outcome.lease_token, last_lease_token)
          and queue.run_number = coalesce(outcome.run_number, last_run_number)
          and queue.attempt = coalesce(outcome.attempt, last_attempt)
          and queue.workflow_run_id is not distinct from outcome.workflow_run_id
          and (queue.lease_expires_at <= settled_at) = reaps
      ),
      settled as (
        update runledger.job_queue as queue
        set status = held.next_status,
          stage = case held.next_status when 'PENDING' then 'queued' else queue.stage end,
          run_number = queue.run_number + (held.kind = 'continued')::integer,
          attempt = case held.kind when 'continued' then 0 when 'snoozed' then queue.attempt - 1 else queue.attempt end,
          event_seq = queue.event_seq + 1 + (held.kind = 'failed')::integer,
          next_run_at = case
            when held.next_status = 'PENDING' then
              greatest(
                clock_timestamp() + (held.more ->> 'delay_ms')::bigint * interval '1 millisecond',
                clock_timestamp() + (held.more ->> 'not_before_delay_ms')::bigint * interval '1 millisecond',
                (held.more ->> 'not_before')::timestamptz
              )
            else queue.next_run_at
          end,
          worker_id = null,
          lease_token = null,
          lease_expires_at = null,
          last_heartbeat_at = null,
          started_at = case held.kind when 'continued' then null else queue.started_at end,
          finished_at = case when held.next_status <> 'PENDING' then clock_timestamp() end,
          progress_done = coalesce((held.more ->> 'progress_done')::bigint, queue.progress_done),
          progress_total = coalesce((held.more ->> 'progress_total')::bigint, queue.progress_total),
          checkpoint = coalesce(held.more -> 'checkpoint', queue.checkpoint),
          status_reason = case held.kind when 'failed' then held.more ->> 'failure_kind' else held.more ->> 'reason' end,
          -- Neither a snooze nor a cancellation says that it went well: what the last attempt met stays in sight.
          last_error_code = case
            when held.kind in ('snoozed', 'canceled') then queue.last_error_code
            else held.more ->> 'error_code'
          end,
          last_error_message = case
            when held.kind in ('snoozed', 'canceled') then queue.last_error_message
            else held.more ->> 'error_message'
          end
        from fenced as held
        where queue.id = held.id
          and queue.id = any (array(select fenced.id from fenced))
          and held.refusal is null
          and held.kind is not null
        returning
          queue.id, queue.status, queue.stage, queue.event_seq, queue.next_run_at, queue.finished_at, queue.progress_done,
          queue.progress_total, queue.job_type, queue.organization_id, queue.workflow_run_id,
          held.place, held.kind, held.run_number, held.attempt, held.more,
          case
            when queue.status <> 'DEAD_LETTERED' then null
            when held.more ->> 'failure_kind' in ('TERMINAL', 'PANICKED') then 'FAILURE_KIND_NON_RETRYABLE'
            when held.more ->> 'failure_kind' = 'LEASE_EXPIRED' then 'LEASE_EXPIRED'
            else 'ATTEMPTS_EXHAUSTED'
          end as dead_reason,
          case queue.status when 'DEAD_LETTERED' then queue.payload end as dead_payload,
          case queue.status when 'DEAD_LETTERED' then queue.checkpoint end as dead_checkpoint
      ),
      posted as (
        insert into runledger.job_events (
          job_id, seq, run_number, attempt, event_type, stage, progress_done, progress_total, payload
        )
        select
          settled.id, settled.event_seq - (settled.kind = 'failed')::integer, settled.run_number, settled.attempt,
          case settled.kind when 'failed' then 'FAILED' when 'canceled' then 'CANCELED' else 'REQUEUED' end,
          case settled.kind when 'failed' then 'running' else settled.stage end,
          settled.progress_done, settled.progress_total,
          case settled.kind
            when 'failed' then jsonb_build_object(
              'kind', settled.more ->> 'failure_kind', 'error_code', settled.more ->> 'error_code',
              'error_message', settled.more ->> 'error_message'
            )
            when 'canceled' then jsonb_strip_nulls(jsonb_build_object('reason', settled.more ->> 'reason'))
            when 'continued' then jsonb_build_object(
              'requeue_kind', 'HANDLER_CONTINUATION', 'reason', 'HANDLER_CONTINUATION',
              'next_run_number', settled.run_number + 1, 'next_run_at', settled.next_run_at,
              'delay_ms', settled.more -> 'delay_ms'
            )
            else jsonb_build_object(
              'requeue_kind', 'SNOOZE', 'reason', settled.more ->> 'reason', 'next_run_at', settled.next_run_at,
              'delay_ms', settled.more -> 'delay_ms'
            )
          end
        from settled
        union all
        select
          settled.id, settled.event_seq, settled.run_number, settled.attempt,
          case settled.status when 'PENDING' then 'RETRY_SCHEDULED' else 'DEAD_LETTERED' end,
          settled.stage, null, null,
          case settled.status
            when 'PENDING' then jsonb_strip_nulls(jsonb_build_object(
              'kind', settled.more ->> 'failure_kind', 'retry_delay_ms', settled.more -> 'delay_ms',
              'requested_retry_not_before', settled.more ->> 'not_before',
              'requested_retry_delay_ms', settled.more -> 'not_before_delay_ms', 'next_run_at', settled.next_run_at
            ))
            else jsonb_build_object(
              'kind', settled.more ->> 'failure_kind', 'error_code', settled.more ->> 'error_code',
              'reason', settled.dead_reason
            )
          end
        from settled
        where settled.kind = 'failed'
      ),
      buried as (
        insert into runledger.job_dead_letters (
          job_id, job_type, organization_id, run_number, attempt, failure_kind, reason, error_code, error_message,
          failed_at, payload_snapshot, checkpoint_snapshot
        )
        select
          settled.id, settled.job_type, settled.organization_id, settled.run_number, settled.attempt,
          settled.more ->> 'failure_kind', settled.dead_reason, settled.more ->> 'error_code',
          settled.more ->> 'error_message', settled.finished_at, settled.dead_payload, settled.dead_checkpoint
        from settled
        where settled.status = 'DEAD_LETTERED'
      )
      select
        settled.status, case settled.status when 'PENDING' then extract(epoch from settled.next_run_at)::text end, null,
        array_agg(settled.place), null::jsonb
      from settled
      group by 1, 2
      union all
      select null, null, fenced.refusal, array_agg(fenced.place), null
      from fenced
      where fenced.refusal is not null
      group by 3
      union all
      select
        null, null, null, null,
        jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
          'step_id', settled.id, 'run_id', settled.workflow_run_id,
          'status', case settled.status when 'DEAD_LETTERED' then 'FAILED' else settled.status end,
          'reason', coalesce(settled.more ->> 'reason', settled.more ->> 'failure_kind'),
          'error_code', settled.more ->> 'error_code', 'error_message', settled.more ->> 'error_message'
        )))
      from settled
      where settled.workflow_run_id is not null
        and settled.status <> 'PENDING'
      having count(*) > 0
    loop
      if release is null then
        return next;
      else
        ended_steps := coalesce(ended_steps, '[]') || release;
      end if;
    end loop;
  end if;

  if ended_steps is not null then
    release := runledger.finish_workflow_steps(ended_steps, tells);
    if release is not null then
      status := null;
      next_run_at := null;
      refusal := null;
      places := null;
      return next;
    end if;
  end if;
end
$fn$;

revoke all on function runledger.settle_jobs(
  uuid[], integer[], integer[], uuid[], uuid[], text[], jsonb[], boolean, boolean
) from public;
