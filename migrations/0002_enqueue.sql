-- purpose: runledger.enqueue_jobs, the one way in for jobs
-- locks: none
-- rewrites: nothing
-- breaking: no
--
-- A function rather than a statement for two reasons. An idempotent enqueue that lost a race must look again with a new
-- snapshot, and in READ COMMITTED each statement of a volatile function has one: the caller still pays one round trip.
-- And it runs with its owner's rights, so that a role may be allowed to enqueue and to see nothing at all.

-- Enqueues a batch, all or nothing.
--
-- job_ids, job_types, payloads: one of each for a job, in the order of the batch; the last type holds for the rest.
-- settings: null, or for each job null or an object {organization_id?, priority?, max_attempts?, timeout_seconds?,
-- next_run_at?, idempotency_key?, stage?, traceparent?}. Settings that are left out come from the enabled definition.
-- (Columns rather than an array of objects: most jobs have nothing but a payload, and PostgreSQL reads a thousand of them
-- in half the time.)
-- Returns null when every request became a new job under the id it brought; {"existing": [{place, job_id, status,
-- run_number}]} for those that met an equal earlier request of their key, with their places in the batch, from 1;
-- {"error": code, "details": {...}} when the batch was refused and nothing was written.
-- Locks: new rows only. Two batches insert their keys in the same order, so they cannot deadlock.
create function runledger.enqueue_jobs(job_ids uuid[], job_types text[], payloads jsonb, settings jsonb) returns jsonb
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $fn$
declare
  answer jsonb;
  last_job_type text := job_types[cardinality(job_types)];
  enqueued_at timestamptz := clock_timestamp();
begin
  if settings @? '$[*] ? (@.idempotency_key != null)' is not true then
    -- The distinct types are few: read each definition once, not once per request.
    with defined as materialized (
      select definition.job_type, definition.priority, definition.max_attempts, definition.timeout_seconds
      from runledger.job_definitions as definition
      where definition.is_enabled
        and definition.job_type = any (job_types)
    ),
    undefined as materialized (
      select jsonb_agg(distinct given.job_type) as job_types
      from unnest(job_types) as given (job_type)
      where not exists (select from defined where defined.job_type = given.job_type)
    ),
    inserted as (
      insert into runledger.job_queue (
        id, job_type, organization_id, stage, priority, next_run_at, max_attempts, timeout_seconds, created_at, payload,
        traceparent
      )
      select
        given.id, defined.job_type, (given.setting ->> 'organization_id')::uuid,
        coalesce(given.setting ->> 'stage', 'queued'),
        coalesce((given.setting ->> 'priority')::integer, defined.priority),
        coalesce((given.setting ->> 'next_run_at')::timestamptz, enqueued_at),
        coalesce((given.setting ->> 'max_attempts')::integer, defined.max_attempts),
        coalesce((given.setting ->> 'timeout_seconds')::integer, defined.timeout_seconds), enqueued_at, given.payload,
        given.setting ->> 'traceparent'
      from rows from (
        unnest(job_ids), unnest(job_types), jsonb_array_elements(payloads), jsonb_array_elements(settings)
      ) as given (id, job_type, payload, setting)
      -- All types are defined, or nothing is inserted; a job without any is refused by the table.
      left join defined on defined.job_type = coalesce(given.job_type, last_job_type)
      where (select undefined.job_types from undefined) is null
      returning id, stage
    ),
    posted as (
      insert into runledger.job_events (job_id, seq, run_number, event_type, stage, occurred_at)
      select inserted.id, 1, 1, 'ENQUEUED', inserted.stage, enqueued_at
      from inserted
    )
    select jsonb_build_object(
      'error', 'job.definition_not_found_or_disabled',
      'details', jsonb_build_object('jobTypes', undefined.job_types)
    )
    into answer
    from undefined
    where undefined.job_types is not null;
    if answer is null then
      perform runledger.wake_workers(job_types, settings);
    end if;
    return answer;
  end if;

  if current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
    return '{"error": "job.enqueue_idempotency_unsupported_isolation"}';
  end if;

  -- A pass inserts what it sees no earlier job for. A key that was taken by a transaction it could not see yet is
  -- neither inserted nor seen: the next pass sees it. Each further pass needs another rival, so a few are plenty.
  for pass in 1..10 loop
    with input as materialized (
      select
        request.*,
        jsonb_build_object(
          'payload', request.payload, 'priority', request.priority, 'max_attempts', request.max_attempts,
          'timeout_seconds', request.timeout_seconds, 'next_run_at', request.next_run_at,
          'stage', coalesce(request.stage, 'queued')
        ) as enqueue_request
      from (
        select
          given.place, given.id, coalesce(given.job_type, last_job_type) as job_type, given.payload,
          (given.setting ->> 'organization_id')::uuid as organization_id,
          (given.setting ->> 'priority')::integer as priority,
          (given.setting ->> 'max_attempts')::integer as max_attempts,
          (given.setting ->> 'timeout_seconds')::integer as timeout_seconds,
          given.setting ->> 'next_run_at' as next_run_at,
          given.setting ->> 'idempotency_key' as idempotency_key,
          given.setting ->> 'stage' as stage,
          given.setting ->> 'traceparent' as traceparent
        from rows from (
          unnest(job_ids), unnest(job_types), jsonb_array_elements(payloads), jsonb_array_elements(settings)
        ) with ordinality as given (id, job_type, payload, setting, place)
      ) as request
    ),
    -- Equal requests of one key collapse into the first of them.
    led as materialized (
      select
        input.*,
        case when input.idempotency_key is null then input.id else first_value(input.id) over key_order end as leader_id,
        case
          when input.idempotency_key is null then input.enqueue_request
          else first_value(input.enqueue_request) over key_order
        end as leader_request
      from input
      window key_order as (
        partition by input.job_type, input.organization_id, input.idempotency_key order by input.place
      )
    ),
    -- Two branches, since "is not distinct from" cannot use the index.
    existing as materialized (
      select
        led.place, led.id = job.id as is_own, job.id, job.status, job.run_number, job.enqueue_request
      from led
      cross join lateral (
        select queue.id, queue.status, queue.run_number, queue.enqueue_request
        from runledger.job_queue as queue
        where queue.job_type = led.job_type
          and queue.organization_id = led.organization_id
          and queue.idempotency_key = led.idempotency_key
        union all
        select queue.id, queue.status, queue.run_number, queue.enqueue_request
        from runledger.job_queue as queue
        where led.organization_id is null
          and queue.job_type = led.job_type
          and queue.organization_id is null
          and queue.idempotency_key = led.idempotency_key
      ) as job
      where led.idempotency_key is not null
    ),
    compared as materialized (
      select led.place, led.enqueue_request as asked, coalesce(existing.enqueue_request, led.leader_request) as stands
      from led
      left join existing on existing.place = led.place
    ),
    differing as materialized (
      select jsonb_agg(distinct field.key) as fields
      from compared
      cross join lateral jsonb_each(compared.asked) as field
      where compared.asked <> compared.stands
        and field.value is distinct from compared.stands -> field.key
    ),
    defined as materialized (
      select definition.job_type, definition.priority, definition.max_attempts, definition.timeout_seconds
      from runledger.job_definitions as definition
      where definition.is_enabled
        and definition.job_type = any (array(select distinct led.job_type from led))
    ),
    fresh as materialized (
      select led.*
      from led
      where led.id = led.leader_id
        and not exists (select from existing where existing.place = led.place)
        -- After the first pass the unkeyed jobs of the batch are in.
        and (pass = 1 or led.idempotency_key is not null)
    ),
    undefined as materialized (
      select jsonb_agg(distinct fresh.job_type) as job_types
      from fresh
      where not exists (select from defined where defined.job_type = fresh.job_type)
    ),
    inserted as (
      insert into runledger.job_queue (
        id, job_type, organization_id, stage, priority, next_run_at, max_attempts, timeout_seconds, created_at, payload,
        idempotency_key, enqueue_request, traceparent
      )
      select
        fresh.id, fresh.job_type, fresh.organization_id, coalesce(fresh.stage, 'queued'),
        coalesce(fresh.priority, defined.priority),
        coalesce(fresh.next_run_at::timestamptz, enqueued_at),
        coalesce(fresh.max_attempts, defined.max_attempts),
        coalesce(fresh.timeout_seconds, defined.timeout_seconds), enqueued_at, fresh.payload,
        fresh.idempotency_key,
        case when fresh.idempotency_key is not null then fresh.enqueue_request end, fresh.traceparent
      from fresh
      join defined on defined.job_type = fresh.job_type
      where (select undefined.job_types from undefined) is null
        and (select differing.fields from differing) is null
      order by fresh.job_type, fresh.organization_id, fresh.idempotency_key, fresh.place
      on conflict (job_type, organization_id, idempotency_key) where idempotency_key is not null do nothing
      returning id, stage
    ),
    posted as (
      insert into runledger.job_events (job_id, seq, run_number, event_type, stage, occurred_at)
      select inserted.id, 1, 1, 'ENQUEUED', inserted.stage, enqueued_at
      from inserted
    )
    select
      case
        when differing.fields is not null then
          jsonb_build_object(
            'error', 'job.idempotency_conflict', 'details', jsonb_build_object('fields', differing.fields)
          )
        when undefined.job_types is not null then
          jsonb_build_object(
            'error', 'job.definition_not_found_or_disabled',
            'details', jsonb_build_object('jobTypes', undefined.job_types)
          )
        -- Some key was taken by a rival this pass could not see.
        when (select count(*) from fresh) > (select count(*) from inserted) then '{"again": true}'
        else (
          select jsonb_build_object('existing', jsonb_agg(jsonb_build_object(
            'place', led.place, 'job_id', coalesce(existing.id, led.leader_id),
            'status', coalesce(existing.status, 'PENDING'), 'run_number', coalesce(existing.run_number, 1)
          )))
          from led
          left join existing on existing.place = led.place
          where led.id <> led.leader_id or not existing.is_own
          having count(*) > 0
        )
      end
    into answer
    from differing, undefined;

    if answer is null or answer ? 'existing' then
      perform runledger.wake_workers(job_types, settings);
      return answer;
    elsif answer ? 'error' then
      -- An earlier pass of a batch may have inserted: undo it with the caller's statement.
      if pass > 1 and cardinality(job_ids) > 1 then
        raise exception using
          errcode = 'RL000', message = answer ->> 'error', detail = coalesce(answer ->> 'details', '{}');
      end if;
      return answer;
    end if;
  end loop;
  raise exception using errcode = '40001', message = 'an idempotency key is being taken and freed without end';
end
$fn$;

revoke all on function runledger.enqueue_jobs(uuid[], text[], jsonb, jsonb) from public;
