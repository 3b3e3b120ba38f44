/**
 * Generated from `migrations/` by `deno task migrations:embed`. Do not edit.
 *
 * @module
 */

/** One migration file. */
export interface Migration {
  /** The number at the start of the file's name. */
  readonly version: number;
  /** The rest of the file's name. */
  readonly name: string;
  /** The file's text. */
  readonly sql: string;
}

/** Every migration, in version order. */
export const MIGRATIONS: readonly Migration[] = [
  {
    version: 1,
    name: "jobs",
    sql: `\
-- purpose: job definitions, the queue, its append-only ledger, dead letters, logs, runtime configs
-- locks: none on existing tables (creates only)
-- rewrites: nothing
-- breaking: no
--
-- One job is one row of runledger.job_queue, the projection of the present, and one row of runledger.job_events for
-- everything that ever happened to it, keyed (job_id, seq) without gaps. Both are written by the same statement.
-- enqueue -> PENDING -> claim -> LEASED -> settle -> SUCCEEDED, or PENDING again, or DEAD_LETTERED, or CANCELED.

-- Makes a UUIDv7 where SQL itself must make an id: by the server's own function where it has one (18), else from the
-- clock in milliseconds and 74 random bits.
do $do$
begin
  if to_regprocedure('pg_catalog.uuidv7()') is not null then
    execute $fn$
      create function runledger.new_id() returns uuid
      language sql volatile parallel safe
      return pg_catalog.uuidv7()
    $fn$;
  else
    execute $fn$
      create function runledger.new_id() returns uuid
      language sql volatile parallel safe
      return (
        lpad(to_hex((extract(epoch from clock_timestamp()) * 1000)::bigint), 12, '0')
        || '7' || substr(replace(gen_random_uuid()::text, '-', ''), 14, 19)
      )::uuid
    $fn$;
  end if;
end
$do$;

create table runledger.job_definitions (
  job_type text not null,
  version integer not null default 1,
  max_attempts integer not null default 3,
  timeout_seconds integer not null default 300,
  priority integer not null default 0,
  is_enabled boolean not null default true,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint job_definitions_pkey primary key (job_type),
  constraint job_definitions_job_type_check check (job_type ~ '\\S' and octet_length(job_type) <= 255),
  constraint job_definitions_version_check check (version > 0),
  constraint job_definitions_max_attempts_check check (max_attempts > 0),
  constraint job_definitions_timeout_seconds_check check (timeout_seconds > 0)
);

create table runledger.job_queue (
  id uuid not null,
  job_type text not null,
  organization_id uuid,
  status text not null default 'PENDING',
  stage text not null default 'queued',
  priority integer not null,
  next_run_at timestamptz not null,
  run_number integer not null default 1,
  attempt integer not null default 0,
  max_attempts integer not null,
  timeout_seconds integer not null,
  event_seq integer not null default 1,
  lease_token uuid,
  lease_expires_at timestamptz,
  last_heartbeat_at timestamptz,
  started_at timestamptz,
  finished_at timestamptz,
  created_at timestamptz not null default clock_timestamp(),
  progress_done bigint,
  progress_total bigint,
  -- The run whose step this job is; the step has the job's id.
  workflow_run_id uuid,
  replay_of_job_id uuid,
  replay_of_run_number integer,
  worker_id text,
  idempotency_key text,
  replay_key text,
  -- W3C trace context of whoever enqueued it; no part of what an idempotency key stands for.
  traceparent text,
  status_reason text,
  last_error_code text,
  last_error_message text,
  payload jsonb not null,
  checkpoint jsonb,
  output jsonb,
  enqueue_request jsonb,
  constraint job_queue_pkey primary key (id),
  -- What a job of each status looks like. A lease is whole or absent; a cancelled job may keep the expiry of the lease it
  -- had, as a quiescence mark. One check, since every transition pays for each that there is.
  constraint job_queue_state_check check (
    case status
      when 'LEASED' then
        stage = 'running' and lease_token is not null and lease_expires_at is not null and worker_id is not null
        and attempt > 0 and started_at is not null and finished_at is null and output is null
      when 'SUCCEEDED' then
        stage = 'completed' and lease_token is null and lease_expires_at is null and worker_id is null
        and finished_at is not null
      when 'PENDING' then
        stage in ('queued', 'scheduled') and lease_token is null and lease_expires_at is null and worker_id is null
        and finished_at is null and output is null
      when 'DEAD_LETTERED' then
        stage in ('queued', 'scheduled', 'running') and lease_token is null and lease_expires_at is null
        and worker_id is null and finished_at is not null and output is null
      when 'CANCELED' then
        stage in ('queued', 'scheduled', 'running') and lease_token is null and worker_id is null
        and finished_at is not null and output is null
      else false
    end
  ),
  constraint job_queue_traceparent_check check (octet_length(traceparent) = 55),
  constraint job_queue_counters_check check (
    run_number > 0 and attempt >= 0 and attempt <= max_attempts and timeout_seconds > 0 and event_seq > 0
  ),
  -- Null means that nothing is known of it, and passes.
  constraint job_queue_progress_check
    check (progress_done >= 0 and progress_total >= 0 and progress_done <= progress_total),
  -- A keyed job always has the canonical request that its key stands for.
  constraint job_queue_idempotency_check check (
    idempotency_key is null
    or (enqueue_request is not null and idempotency_key ~ '\\S' and octet_length(idempotency_key) <= 512)
  ),
  constraint job_queue_replay_check check (
    (replay_of_job_id is null) = (replay_key is null) and (replay_of_job_id is null) = (replay_of_run_number is null)
    and replay_of_job_id <> id
  ),
  constraint job_queue_workflow_check
    check (workflow_run_id is null or (idempotency_key is null and replay_of_job_id is null))
)
-- A job's row is rewritten two times in its life and then never again: vacuum early and often, by dead rows alone.
with (
  autovacuum_vacuum_scale_factor = 0.02,
  autovacuum_vacuum_threshold = 1000,
  autovacuum_analyze_scale_factor = 0.05,
  autovacuum_vacuum_cost_delay = 0
);

-- A claim reads the due jobs of each (type, priority) in order from here; finished jobs are not in it.
create index job_queue_claim_index on runledger.job_queue (job_type, priority desc, next_run_at, id)
where status = 'PENDING';

create index job_queue_lease_index on runledger.job_queue (lease_expires_at)
where status = 'LEASED';

-- Retention walks finished jobs from the oldest; those whose idempotency key must live on do not lie in its way.
create index job_queue_finished_index on runledger.job_queue ((idempotency_key is null), finished_at)
where finished_at is not null;

create unique index job_queue_idempotency_unique
on runledger.job_queue (job_type, organization_id, idempotency_key) nulls not distinct
where idempotency_key is not null;

create unique index job_queue_replay_unique
on runledger.job_queue (replay_of_job_id, replay_of_run_number, replay_key)
where replay_of_job_id is not null;

-- The state machine of core/job_status.ts. The function is called for the rare changes alone: a lease may end in any way,
-- and a claim is the only way to one. PostgreSQL reads the WHEN clause from its text once for each statement, so it is short.
create function runledger.refuse_job_transition() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $fn$
begin
  if new.status = old.status
    or old.status = 'PENDING' and new.status = 'CANCELED'
    or old.status in ('DEAD_LETTERED', 'CANCELED') and new.status = 'PENDING'
  then
    return null;
  end if;
  raise exception using
    errcode = '23514', constraint = 'job_queue_transition_check', schema = 'runledger', table = 'job_queue',
    message = format('job status cannot change from %s to %s', old.status, new.status);
end
$fn$;

create trigger job_queue_transition_check
after update of status on runledger.job_queue
for each row
when (old.status <> 'LEASED' and (old.status <> 'PENDING' or new.status <> 'LEASED'))
execute function runledger.refuse_job_transition();

-- The ledger. It has no foreign key to job_queue: the check would read the job's row once more for each event, and the
-- only writers are statements that insert or update that row themselves. run_number and attempt name the run and the
-- attempt that the event belongs to; posted_xid lets a reader follow the ledger without gaps.
create table runledger.job_events (
  job_id uuid not null,
  seq integer not null,
  run_number integer not null,
  attempt integer,
  event_type text not null,
  stage text,
  occurred_at timestamptz not null default clock_timestamp(),
  posted_xid xid8 not null default pg_current_xact_id(),
  progress_done bigint,
  progress_total bigint,
  payload jsonb,
  constraint job_events_pkey primary key (job_id, seq),
  constraint job_events_event_type_check check (
    event_type in (
      'ENQUEUED', 'LEASED', 'HEARTBEAT', 'PROGRESS', 'STAGE_CHANGED', 'SUCCEEDED', 'FAILED', 'RETRY_SCHEDULED',
      'DEAD_LETTERED', 'CANCELED', 'REQUEUED', 'EDITED'
    )
  ),
  constraint job_events_counters_check check (seq > 0 and run_number > 0 and attempt > 0)
)
with (autovacuum_vacuum_insert_scale_factor = 0.1);

-- Append-only for everybody, the owner included: only runledger.delete_finished_jobs may remove rows, together with
-- their job. Statement triggers cost an insert nothing.
create function runledger.refuse_ledger_change() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $fn$
begin
  if tg_op = 'DELETE' and current_setting('runledger.retention', true) = 'on' then
    return null;
  end if;
  raise exception using
    errcode = '42501', message = format('%I.%I is append-only: %s refused', tg_table_schema, tg_table_name, tg_op);
end
$fn$;

create trigger job_events_append_only
before update or delete or truncate on runledger.job_events
for each statement
execute function runledger.refuse_ledger_change();

create table runledger.job_dead_letters (
  job_id uuid not null,
  job_type text not null,
  organization_id uuid,
  run_number integer not null,
  attempt integer not null,
  failure_kind text not null,
  reason text not null,
  error_code text not null,
  error_message text not null,
  failed_at timestamptz not null,
  payload_snapshot jsonb not null,
  checkpoint_snapshot jsonb,
  constraint job_dead_letters_pkey primary key (job_id),
  constraint job_dead_letters_job_fkey foreign key (job_id) references runledger.job_queue (id) on delete cascade,
  constraint job_dead_letters_failure_kind_check
    check (failure_kind in ('RETRYABLE', 'TERMINAL', 'PANICKED', 'TIMEOUT', 'LEASE_EXPIRED')),
  constraint job_dead_letters_reason_check
    check (reason in ('FAILURE_KIND_NON_RETRYABLE', 'ATTEMPTS_EXHAUSTED', 'LEASE_EXPIRED'))
);

create index job_dead_letters_failed_at_index on runledger.job_dead_letters (failed_at desc, job_id desc);

create table runledger.job_logs (
  id bigint generated always as identity,
  job_id uuid not null,
  run_number integer not null,
  attempt integer not null,
  level text not null,
  message text not null,
  payload jsonb,
  occurred_at timestamptz not null default clock_timestamp(),
  constraint job_logs_pkey primary key (id),
  constraint job_logs_job_fkey foreign key (job_id) references runledger.job_queue (id) on delete cascade,
  constraint job_logs_level_check check (level in ('debug', 'info', 'warn', 'error')),
  constraint job_logs_message_check check (message ~ '\\S')
);

create index job_logs_job_index on runledger.job_logs (job_id, id);

create table runledger.job_runtime_configs (
  job_type text not null,
  schema_version integer not null,
  config jsonb not null,
  updated_by_user_id uuid,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint job_runtime_configs_pkey primary key (job_type),
  constraint job_runtime_configs_job_type_fkey
    foreign key (job_type) references runledger.job_definitions (job_type) on delete cascade,
  constraint job_runtime_configs_schema_version_check check (schema_version > 0),
  constraint job_runtime_configs_config_check check (jsonb_typeof(config) = 'object')
);

-- The attempts of a job, read from the ledger: a claim opens one; success, failure, cancellation or continuation closes
-- it. A claim that was handed back unstarted, or snoozed, is no attempt.
create view runledger.job_attempts as
select
  leased.job_id,
  leased.seq,
  leased.run_number,
  leased.attempt,
  leased.payload ->> 'worker_id' as worker_id,
  leased.occurred_at as leased_at,
  closed.occurred_at as finished_at,
  closed.event_type as closed_by,
  closed.payload ->> 'kind' as outcome,
  closed.payload ->> 'error_code' as error_code,
  closed.payload ->> 'error_message' as error_message,
  (retried.payload ->> 'retry_delay_ms')::bigint as retry_delay_ms,
  (retried.payload ->> 'next_run_at')::timestamptz as next_run_at
from runledger.job_events as leased
left join lateral (
  select event.seq, event.event_type, event.occurred_at, event.payload
  from runledger.job_events as event
  where event.job_id = leased.job_id
    and event.seq > leased.seq
    and event.event_type in ('SUCCEEDED', 'FAILED', 'CANCELED', 'REQUEUED')
  order by event.seq
  limit 1
) as closed on true
left join runledger.job_events as retried
  on retried.job_id = leased.job_id and retried.seq = closed.seq + 1 and retried.event_type = 'RETRY_SCHEDULED'
where leased.event_type = 'LEASED'
  and (
    closed.event_type is distinct from 'REQUEUED'
    or closed.payload ->> 'requeue_kind' not in ('UNSTARTED_RELEASE', 'SNOOZE')
  );
`,
  },
  {
    version: 2,
    name: "enqueue",
    sql: `\
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
`,
  },
  {
    version: 3,
    name: "retention",
    sql: `\
-- purpose: runledger.delete_finished_jobs, the only way out for jobs and their ledger
-- locks: none
-- rewrites: nothing
-- breaking: no

-- Deletes up to batch_limit finished jobs, oldest first, with their ledger, logs and dead letter, and returns how many.
--
-- A job with an idempotency key is kept unless expires_keys, since its key stands for ever; a replay is kept while the
-- job that it replays is there, so that the replay key still finds it; a cancelled job is kept until the lease that it
-- had has run out; a job of a workflow step goes with its run. Rows that somebody else has locked are left for the next batch.
-- Locks: the jobs it deletes and as many more at most, skipping locked ones. Index: job_queue_finished_index.
create function runledger.delete_finished_jobs(
  statuses jsonb,
  older_than interval,
  batch_limit integer,
  expires_keys boolean
) returns integer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
-- A plan made while the tables were empty must not last until they are full.
set enable_seqscan = off
set enable_bitmapscan = off
as $fn$
declare
  deleted_count integer;
begin
  -- Not a SET clause: giving a function a parameter that no extension has declared takes a superuser.
  perform set_config('runledger.retention', 'on', true);
  -- A branch for each half of the index: only so is it read in order, and no further than the limit. Compared with a
  -- constant false, "is null" would become "is not null", which the index does not know: a batch of 100 then took 1 s
  -- beside a million ended jobs.
  with ended as (
    select unkeyed.id, unkeyed.finished_at
    from (
      select queue.id, queue.finished_at
      from runledger.job_queue as queue
      where queue.idempotency_key is null
        and queue.finished_at < statement_timestamp() - older_than
        and statuses ? queue.status
        and queue.workflow_run_id is null
        and (queue.lease_expires_at is null or queue.lease_expires_at < statement_timestamp())
        and not exists (select from runledger.job_queue as source where source.id = queue.replay_of_job_id)
      order by queue.finished_at
      limit batch_limit
      for update skip locked
    ) as unkeyed
    union all
    select keyed.id, keyed.finished_at
    from (
      select queue.id, queue.finished_at
      from runledger.job_queue as queue
      where expires_keys
        and (queue.idempotency_key is null) = (select false)
        and queue.finished_at < statement_timestamp() - older_than
        and statuses ? queue.status
        and queue.workflow_run_id is null
        and (queue.lease_expires_at is null or queue.lease_expires_at < statement_timestamp())
        and not exists (select from runledger.job_queue as source where source.id = queue.replay_of_job_id)
      order by queue.finished_at
      limit batch_limit
      for update skip locked
    ) as keyed
  ),
  finished as materialized (
    select ended.id
    from ended
    order by ended.finished_at
    limit batch_limit
  ),
  erased as (
    delete from runledger.job_events as event
    where event.job_id = any (array(select finished.id from finished))
  ),
  deleted as (
    delete from runledger.job_queue as queue
    where queue.id = any (array(select finished.id from finished))
    returning queue.id
  )
  select count(*)
  into deleted_count
  from deleted;
  perform set_config('runledger.retention', 'off', true);
  return deleted_count;
end
$fn$;

revoke all on function runledger.delete_finished_jobs(jsonb, interval, integer, boolean) from public;
`,
  },
  {
    version: 4,
    name: "workflows",
    sql: `\
-- purpose: workflow runs, their steps and edges, and what moves them: enqueue, release, gates, append, cancel, recover
-- locks: none on existing tables (creates only)
-- rewrites: nothing
-- breaking: no
--
-- A run is one row, a step is one row, an edge is one row. The job that runs a step has the step's id, so there is no
-- link to keep. Whoever changes a run locks its row first: the row is the run's mutex. The lock order of the whole
-- schema is runs by id, then jobs by id; steps and edges change only under their run's lock and need none of their own.

create table runledger.workflow_runs (
  id uuid not null,
  workflow_type text not null,
  organization_id uuid,
  status text not null,
  step_count integer not null,
  -- Counters over the steps, so that the run's status follows without reading ten thousand of them:
  -- BLOCKED and ENQUEUED; WAITING_FOR_EXTERNAL; FAILED and CANCELED.
  open_count integer not null,
  waiting_count integer not null,
  unsuccessful_count integer not null default 0,
  created_at timestamptz not null default clock_timestamp(),
  finished_at timestamptz,
  recovery_of_run_id uuid,
  idempotency_key text,
  active_key text,
  recovery_key text,
  recovery_mode text,
  -- As in job_queue: the jobs of all its steps have this one.
  traceparent text,
  status_reason text,
  -- The canonical request: metadata, result step, steps and edges as they were asked for.
  enqueue_request jsonb not null,
  constraint workflow_runs_pkey primary key (id),
  constraint workflow_runs_status_check
    check (status in ('RUNNING', 'WAITING_FOR_EXTERNAL', 'SUCCEEDED', 'COMPLETED_WITH_ERRORS', 'CANCELED')),
  constraint workflow_runs_traceparent_check check (octet_length(traceparent) = 55),
  constraint workflow_runs_type_check check (workflow_type ~ '\\S'),
  -- The status is a function of the counters; only a cancelled run is what it is.
  constraint workflow_runs_status_of_counters_check check (
    status = case
      when status = 'CANCELED' then 'CANCELED'
      when open_count > 0 then 'RUNNING'
      when waiting_count > 0 then 'WAITING_FOR_EXTERNAL'
      when unsuccessful_count > 0 then 'COMPLETED_WITH_ERRORS'
      else 'SUCCEEDED'
    end
  ),
  constraint workflow_runs_counters_check check (
    step_count > 0 and open_count >= 0 and waiting_count >= 0 and unsuccessful_count >= 0
    and open_count + waiting_count + unsuccessful_count <= step_count
    and (status <> 'CANCELED' or open_count + waiting_count = 0)
  ),
  constraint workflow_runs_finished_check
    check ((finished_at is not null) = (status in ('SUCCEEDED', 'COMPLETED_WITH_ERRORS', 'CANCELED'))),
  constraint workflow_runs_keys_check check (
    (idempotency_key ~ '\\S' and octet_length(idempotency_key) <= 512) is not false
    and (active_key ~ '\\S' and octet_length(active_key) <= 512) is not false
  ),
  constraint workflow_runs_recovery_check check (
    (recovery_of_run_id is null) = (recovery_key is null) and (recovery_of_run_id is null) = (recovery_mode is null)
    and recovery_mode in ('REPLAY', 'RESUME')
  )
)
with (fillfactor = 75, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);

create unique index workflow_runs_idempotency_unique
on runledger.workflow_runs (workflow_type, organization_id, idempotency_key) nulls not distinct
where idempotency_key is not null;

-- At most one live run for each active key and organization, whatever its type.
create unique index workflow_runs_active_unique
on runledger.workflow_runs (organization_id, active_key) nulls not distinct
where active_key is not null and status in ('RUNNING', 'WAITING_FOR_EXTERNAL');

create unique index workflow_runs_recovery_unique
on runledger.workflow_runs (recovery_of_run_id, recovery_key)
where recovery_of_run_id is not null;

create index workflow_runs_finished_index on runledger.workflow_runs ((idempotency_key is null), finished_at)
where finished_at is not null;

-- Steps have no foreign key to their run, nor edges to their steps: the functions below insert all of them together.
create table runledger.workflow_steps (
  id uuid not null,
  run_id uuid not null,
  step_key text not null,
  position integer not null,
  execution_kind text not null,
  status text not null,
  organization_id uuid,
  priority integer,
  max_attempts integer,
  timeout_seconds integer,
  dependency_count integer not null,
  pending_count integer not null,
  unsatisfied_count integer not null default 0,
  allows_continuation boolean not null default false,
  released_at timestamptz,
  finished_at timestamptz,
  gate_expires_at timestamptz,
  gate_timeout_ms bigint,
  job_type text,
  stage text,
  gate_outcome text,
  status_reason text,
  last_error_code text,
  last_error_message text,
  payload jsonb not null,
  gate_output jsonb,
  -- What a gate was completed with, or what a recovered run took over. The output of a job step is with its job.
  output jsonb,
  constraint workflow_steps_pkey primary key (id),
  constraint workflow_steps_key_unique unique (run_id, step_key),
  constraint workflow_steps_status_check check (
    status in ('BLOCKED', 'WAITING_FOR_EXTERNAL', 'ENQUEUED', 'RUNNING', 'SUCCEEDED', 'FAILED', 'CANCELED')
  ),
  constraint workflow_steps_kind_check check (
    case execution_kind
      when 'JOB' then
        job_type is not null and priority is not null and max_attempts > 0 and timeout_seconds > 0
        and stage is not null and gate_timeout_ms is null and status <> 'WAITING_FOR_EXTERNAL'
      when 'EXTERNAL' then
        job_type is null and priority is null and max_attempts is null and timeout_seconds is null and stage is null
        and not allows_continuation and status not in ('ENQUEUED', 'RUNNING')
      else false
    end
  ),
  constraint workflow_steps_counters_check check (
    position > 0 and pending_count >= 0 and unsatisfied_count >= 0 and pending_count <= dependency_count
    and unsatisfied_count <= dependency_count
  ),
  -- Nothing starts before the last of its prerequisites has ended.
  constraint workflow_steps_released_check check (
    case status
      when 'BLOCKED' then pending_count > 0 and released_at is null
      when 'CANCELED' then true
      else pending_count = 0 and unsatisfied_count = 0 and released_at is not null
    end
  ),
  constraint workflow_steps_finished_check
    check ((finished_at is not null) = (status in ('SUCCEEDED', 'FAILED', 'CANCELED'))),
  constraint workflow_steps_gate_check check (
    (gate_timeout_ms is null) = (gate_outcome is null) and gate_outcome in ('SUCCEEDED', 'FAILED', 'CANCELED')
    and (gate_expires_at is null or status = 'WAITING_FOR_EXTERNAL')
  )
)
with (fillfactor = 75);

-- Only an open gate has a time. No index of steps knows their status, and pages keep room, so that most changes of a
-- step are heap-only: 0.73 of them (of a run's counters 0.65), where otherwise each would write an entry to every
-- index; ten steps in a chain then take 0.78 of the time, for a tenth more space.
create index workflow_steps_gate_index on runledger.workflow_steps (gate_expires_at)
where gate_expires_at is not null;

create table runledger.workflow_step_dependencies (
  prerequisite_step_id uuid not null,
  dependent_step_id uuid not null,
  release_mode text not null,
  constraint workflow_step_dependencies_pkey primary key (prerequisite_step_id, dependent_step_id),
  constraint workflow_step_dependencies_mode_check check (release_mode in ('ON_TERMINAL', 'ON_SUCCESS')),
  constraint workflow_step_dependencies_self_check check (prerequisite_step_id <> dependent_step_id)
);

create index workflow_step_dependencies_dependent_index
on runledger.workflow_step_dependencies (dependent_step_id, prerequisite_step_id);

-- The state machines of core/workflow_status.ts, as for jobs: AFTER triggers whose WHEN clause is false call nothing.
create function runledger.refuse_workflow_transition() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $fn$
begin
  raise exception using
    errcode = '23514', constraint = tg_name, schema = 'runledger', table = tg_table_name,
    message = format('the status of %I cannot change from %s to %s', tg_table_name, old.status, new.status);
end
$fn$;

create trigger workflow_runs_transition_check
after update of status on runledger.workflow_runs
for each row
when (new.status <> old.status and old.status not in ('RUNNING', 'WAITING_FOR_EXTERNAL'))
execute function runledger.refuse_workflow_transition();

create trigger workflow_steps_transition_check
after update of status on runledger.workflow_steps
for each row
when (
  new.status <> old.status
  and not case old.status
    when 'ENQUEUED' then new.status in ('RUNNING', 'SUCCEEDED', 'FAILED', 'CANCELED')
    when 'RUNNING' then new.status in ('ENQUEUED', 'SUCCEEDED', 'FAILED', 'CANCELED')
    when 'WAITING_FOR_EXTERNAL' then new.status in ('SUCCEEDED', 'FAILED', 'CANCELED')
    when 'BLOCKED' then new.status in ('WAITING_FOR_EXTERNAL', 'ENQUEUED', 'CANCELED')
    else false
  end
)
execute function runledger.refuse_workflow_transition();

-- What was done to a run after it was enqueued.
create table runledger.workflow_run_mutations (
  run_id uuid not null,
  mutation_key text not null,
  mutation_kind text not null,
  occurred_at timestamptz not null default clock_timestamp(),
  metadata jsonb,
  request jsonb not null,
  constraint workflow_run_mutations_pkey primary key (run_id, mutation_key),
  constraint workflow_run_mutations_kind_check check (mutation_kind in ('APPEND_STEPS')),
  constraint workflow_run_mutations_key_check check (mutation_key ~ '\\S' and octet_length(mutation_key) <= 512)
);

-- Inserts the steps and edges of runs whose rows are there and locked, and releases those that wait for nothing.
--
-- requests: an array of {id (of the run), organization_id? (for steps that name none), request: {steps: [as in the
-- canonical request]}, and in the order of steps: step_ids, positions, dependency_counts, pending_counts? (if not all),
-- unsatisfied_counts?, kept?: [{output?} or null]; edge_prerequisites, edge_dependents: ids, edge_modes: "s" (on
-- success) or "t"}; only_run_ids: whose steps, if not all. The lists may be texts of PostgreSQL's: they are read in
-- less than half the time of objects. A kept step is one that a recovered run takes over as succeeded. Returns the job
-- types that have no enabled definition, if any; then nothing was inserted.
-- Locks: nothing more: the caller holds the runs' rows, and what is inserted is new.
create function runledger.place_workflow_steps(requests jsonb, only_run_ids uuid[] default null) returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
set jit = off
as $fn$
declare
  undefined_types jsonb;
begin
  with step as materialized (
    select
      run.id as run_id, run.organization_id as run_organization_id, zipped.step_key, zipped.execution_kind,
      zipped.job_type, zipped.organization_id, zipped.payload, zipped.priority, zipped.max_attempts,
      zipped.timeout_seconds, zipped.stage, zipped.allow_handler_continuation, zipped.gate, zipped.id,
      zipped.position, zipped.dependency_count, coalesce(zipped.pending_count, zipped.dependency_count) as pending_count,
      coalesce(zipped.unsatisfied_count, 0) as unsatisfied_count, nullif(zipped.kept, 'null') as kept
    from jsonb_to_recordset(requests) as run (
      id uuid, organization_id uuid, request jsonb, step_ids uuid[], positions integer[], dependency_counts integer[],
      pending_counts integer[], unsatisfied_counts integer[], kept jsonb
    )
    cross join lateral rows from (
      jsonb_to_recordset(run.request -> 'steps') as (
        step_key text, execution_kind text, job_type text, organization_id uuid, payload jsonb, priority integer,
        max_attempts integer, timeout_seconds integer, stage text, allow_handler_continuation boolean, gate jsonb
      ),
      unnest(run.step_ids), unnest(run.positions), unnest(run.dependency_counts), unnest(run.pending_counts),
      unnest(run.unsatisfied_counts), jsonb_array_elements(run.kept)
    ) as zipped (
      step_key, execution_kind, job_type, organization_id, payload, priority, max_attempts, timeout_seconds, stage,
      allow_handler_continuation, gate, id, "position", dependency_count, pending_count, unsatisfied_count, kept
    )
    where only_run_ids is null
      or run.id = any (only_run_ids)
  ),
  defined as materialized (
    select definition.job_type, definition.priority, definition.max_attempts, definition.timeout_seconds
    from runledger.job_definitions as definition
    where definition.is_enabled
      and definition.job_type = any (array(select distinct step.job_type from step where step.job_type is not null))
  ),
  undefined as materialized (
    select jsonb_agg(distinct step.job_type) as job_types
    from step
    where step.job_type is not null
      and not exists (select from defined where defined.job_type = step.job_type)
  ),
  inserted as (
    insert into runledger.workflow_steps (
      id, run_id, step_key, position, execution_kind, status, organization_id, priority, max_attempts, timeout_seconds,
      dependency_count, pending_count, unsatisfied_count, allows_continuation, released_at, finished_at,
      gate_timeout_ms, gate_expires_at, job_type, stage, gate_outcome, gate_output, payload, output, status_reason,
      last_error_code
    )
    select
      step.id, step.run_id, step.step_key, step.position, step.execution_kind,
      case
        when step.kept is not null then 'SUCCEEDED'
        when step.pending_count > 0 then 'BLOCKED'
        when step.unsatisfied_count > 0 then 'CANCELED'
        when step.execution_kind = 'EXTERNAL' then 'WAITING_FOR_EXTERNAL'
        else 'ENQUEUED'
      end,
      coalesce(step.organization_id, step.run_organization_id), coalesce(step.priority, defined.priority),
      coalesce(step.max_attempts, defined.max_attempts), coalesce(step.timeout_seconds, defined.timeout_seconds),
      step.dependency_count, step.pending_count, step.unsatisfied_count,
      coalesce(step.allow_handler_continuation, false),
      case when step.pending_count = 0 and step.unsatisfied_count = 0 then clock_timestamp() end,
      case when step.pending_count = 0 and (step.unsatisfied_count > 0 or step.kept is not null) then clock_timestamp() end,
      (step.gate ->> 'after_ms')::bigint,
      case
        when step.pending_count = 0 and step.unsatisfied_count = 0 and step.kept is null then
          clock_timestamp() + (step.gate ->> 'after_ms')::bigint * interval '1 millisecond'
      end,
      step.job_type, step.stage, step.gate ->> 'outcome', step.gate -> 'output',
      coalesce(step.payload, 'null'), step.kept -> 'output',
      case
        when step.pending_count = 0 and step.unsatisfied_count > 0 then 'workflow.dependency_unsatisfied'
      end,
      case
        when step.pending_count = 0 and step.unsatisfied_count > 0 then 'workflow.dependency_unsatisfied'
      end
    from step
    left join defined on defined.job_type = step.job_type
    where (select undefined.job_types from undefined) is null
    returning
      id, run_id, status, job_type, organization_id, priority, max_attempts, timeout_seconds, stage, payload
  ),
  linked as (
    insert into runledger.workflow_step_dependencies (prerequisite_step_id, dependent_step_id, release_mode)
    select edge.prerequisite_id, edge.dependent_id, case edge.mode when 's' then 'ON_SUCCESS' else 'ON_TERMINAL' end
    from jsonb_to_recordset(requests) as run (
      id uuid, edge_prerequisites uuid[], edge_dependents uuid[], edge_modes text[]
    )
    cross join lateral unnest(run.edge_prerequisites, run.edge_dependents, run.edge_modes) as edge (
      prerequisite_id, dependent_id, mode
    )
    where (select undefined.job_types from undefined) is null
      and (only_run_ids is null or run.id = any (only_run_ids))
  ),
  enqueued as (
    insert into runledger.job_queue (
      id, workflow_run_id, job_type, organization_id, stage, priority, next_run_at, max_attempts, timeout_seconds,
      payload
    )
    select
      inserted.id, inserted.run_id, inserted.job_type, inserted.organization_id, inserted.stage, inserted.priority,
      clock_timestamp(), inserted.max_attempts, inserted.timeout_seconds, inserted.payload
    from inserted
    where inserted.status = 'ENQUEUED'
    returning id, stage
  ),
  posted as (
    insert into runledger.job_events (job_id, seq, run_number, event_type, stage)
    select enqueued.id, 1, 1, 'ENQUEUED', enqueued.stage
    from enqueued
  )
  select undefined.job_types
  into undefined_types
  from undefined;
  return undefined_types;
end
$fn$;

-- Enqueues a batch of runs, all or nothing.
--
-- requests: an array of {ord, id, workflow_type, organization_id?, idempotency_key?, active_key?, step_count,
-- open_count, waiting_count, request, and what place_workflow_steps reads}; request is the canonical request.
-- Returns null when every request became a new run; {"existing": [{ord, run_id, status, disposition}]} for those that
-- met an equal earlier request of their key ("existing") or a live run of their active key ("active");
-- {"error": code, "details": {...}} when the batch was refused and nothing was written.
-- Locks: new rows only, inserted by type, organization, idempotency key; before that, for a batch that wants active keys,
-- their turns by number. A run takes both of its keys at once, so no order of the runs is an order of both kinds: without
-- turns, one batch could hold the first of two active keys and wait for the second, and another one the other way round.
create function runledger.enqueue_workflow_runs(requests jsonb) returns jsonb
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
set jit = off
as $fn$
declare
  answer jsonb;
  inserted_ids uuid[];
  undefined_types jsonb;
begin
  if requests @? '$[*] ? (@.idempotency_key != null || @.active_key != null)'
    and current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
    return '{"error": "workflow.enqueue_idempotency_unsupported_isolation"}';
  end if;

  -- 256 turns for all active keys: a batch must not fill the server's table of locks.
  if jsonb_array_length(requests) > 1 and requests @? '$[*] ? (@.active_key != null)' then
    perform pg_advisory_xact_lock(turn.id)
    from (
      select distinct
        hashtextextended(
          'runledger.active_key', hashtextextended(concat_ws(' ', run.organization_id, run.active_key), 0) & 255
        ) as id
      from jsonb_to_recordset(requests) as run (organization_id uuid, active_key text)
      where run.active_key is not null
      order by id
    ) as turn;
  end if;

  for pass in 1..10 loop
    with input as materialized (
      select run.*
      from jsonb_to_recordset(requests) as run (
        ord integer, id uuid, workflow_type text, organization_id uuid, idempotency_key text, active_key text,
        step_count integer, open_count integer, waiting_count integer, request jsonb, traceparent text
      )
    ),
    led as materialized (
      select
        input.*,
        case when input.idempotency_key is null then input.id else first_value(input.id) over key_order end as leader_id,
        case
          when input.idempotency_key is null then input.request
          else first_value(input.request) over key_order
        end as leader_request
      from input
      window key_order as (
        partition by input.workflow_type, input.organization_id, input.idempotency_key order by input.ord
      )
    ),
    existing as materialized (
      select led.ord, found.id, found.status, found.enqueue_request, 'existing' as disposition
      from led
      cross join lateral (
        select run.id, run.status, run.enqueue_request
        from runledger.workflow_runs as run
        where run.workflow_type = led.workflow_type
          and run.organization_id = led.organization_id
          and run.idempotency_key = led.idempotency_key
        union all
        select run.id, run.status, run.enqueue_request
        from runledger.workflow_runs as run
        where led.organization_id is null
          and run.workflow_type = led.workflow_type
          and run.organization_id is null
          and run.idempotency_key = led.idempotency_key
      ) as found
      where led.idempotency_key is not null
    ),
    -- A live run that holds the active key, unless the request's own idempotency key found its run.
    active as materialized (
      select led.ord, found.id, found.status, 'active' as disposition
      from led
      cross join lateral (
        select run.id, run.status
        from runledger.workflow_runs as run
        where run.organization_id = led.organization_id
          and run.active_key = led.active_key
          and run.status in ('RUNNING', 'WAITING_FOR_EXTERNAL')
        union all
        select run.id, run.status
        from runledger.workflow_runs as run
        where led.organization_id is null
          and run.organization_id is null
          and run.active_key = led.active_key
          and run.status in ('RUNNING', 'WAITING_FOR_EXTERNAL')
      ) as found
      where led.active_key is not null
        and not exists (select from existing where existing.ord = led.ord)
    ),
    compared as materialized (
      select led.request as asked, coalesce(existing.enqueue_request, led.leader_request) as stands
      from led
      left join existing on existing.ord = led.ord
      where existing.ord is not null
        or led.id <> led.leader_id
    ),
    differing as materialized (
      select jsonb_agg(distinct field.key) as fields
      from compared
      cross join lateral (
        select asked.key
        from jsonb_each(compared.asked) as asked
        where asked.value is distinct from compared.stands -> asked.key
        union all
        select omitted.key
        from jsonb_object_keys(compared.stands) as omitted (key)
        where not compared.asked ? omitted.key
      ) as field
      where compared.asked <> compared.stands
    ),
    fresh as materialized (
      select led.*
      from led
      where led.id = led.leader_id
        and not exists (select from existing where existing.ord = led.ord)
        and not exists (select from active where active.ord = led.ord)
        and (pass = 1 or led.idempotency_key is not null or led.active_key is not null)
    ),
    inserted as (
      insert into runledger.workflow_runs (
        id, workflow_type, organization_id, status, step_count, open_count, waiting_count, idempotency_key, active_key,
        enqueue_request, traceparent
      )
      select
        fresh.id, fresh.workflow_type, fresh.organization_id,
        case when fresh.open_count > 0 then 'RUNNING' else 'WAITING_FOR_EXTERNAL' end, fresh.step_count,
        fresh.open_count, fresh.waiting_count, fresh.idempotency_key, fresh.active_key, fresh.request, fresh.traceparent
      from fresh
      where (select differing.fields from differing) is null
      order by fresh.workflow_type, fresh.organization_id, fresh.idempotency_key, fresh.active_key, fresh.ord
      on conflict do nothing
      returning id
    )
    select
      case
        when differing.fields is not null then
          jsonb_build_object(
            'error', 'workflow.enqueue_conflicting_retry', 'details', jsonb_build_object('fields', differing.fields)
          )
        when (select count(*) from fresh) > (select count(*) from inserted) then '{"again": true}'
        else (
          select jsonb_build_object('existing', jsonb_agg(jsonb_build_object(
            'ord', led.ord,
            'run_id', coalesce(existing.id, active.id, led.leader_id),
            'status', coalesce(
              existing.status, active.status, case when led.open_count > 0 then 'RUNNING' else 'WAITING_FOR_EXTERNAL' end
            ),
            'disposition', coalesce(existing.disposition, active.disposition, 'existing')
          )))
          from led
          left join existing on existing.ord = led.ord
          left join active on active.ord = led.ord
          where led.id <> coalesce(existing.id, active.id, led.leader_id)
          having count(*) > 0
        )
      end,
      array(select inserted.id from inserted)
    into answer, inserted_ids
    from differing;

    if answer ? 'error' then
      if pass > 1 and jsonb_array_length(requests) > 1 then
        raise exception using
          errcode = 'RL000', message = answer ->> 'error', detail = coalesce(answer ->> 'details', '{}');
      end if;
      return answer;
    end if;

    if cardinality(inserted_ids) > 0 then
      undefined_types := runledger.place_workflow_steps(
        requests, case when cardinality(inserted_ids) < jsonb_array_length(requests) then inserted_ids end
      );
      if undefined_types is not null then
        -- The runs are in: only undoing the statement takes them out again.
        raise exception using
          errcode = 'RL000', message = 'workflow.definition_not_found_or_disabled',
          detail = jsonb_build_object('jobTypes', undefined_types);
      end if;
    end if;
    if answer is null or answer ? 'existing' then
      perform runledger.wake_workers(null, null);
      return answer;
    end if;
  end loop;
  raise exception using errcode = '40001', message = 'a workflow key is being taken and freed without end';
end
$fn$;

revoke all on function runledger.enqueue_workflow_runs(jsonb) from public;

-- Counts the edges of steps that have ended, releases or cancels dependents, wave after wave, and rolls up their runs.
--
-- run_ids, closed_counts, no_longer_waiting_counts, new_unsuccessful_counts: the runs, each once; how many of their
-- steps that ended were counted open or waiting until now, and how many did not succeed. succeeded_ids,
-- unsuccessful_ids: those steps. With tells, returns {steps: [{run_id, step_id, step_key, status, job_type,
-- organization_id}], runs: [{run_id, workflow_type, organization_id, status}]}: each step that was released or cancelled,
-- each run that has ended (perhaps more than once), null for none. The caller holds the locks of the runs. Nothing is released under a cancelled run: it
-- has no blocked steps.
--
-- This and the other functions of the hot path look rows up by the elements of an array, which PostgreSQL expects to be
-- few and so finds by index. Their plans are made once a session and must not depend on what the tables held at that
-- time: one that was made while few steps were blocked compared 9,900 released steps with one another in 8 seconds.
-- Locks: nothing more. Steps change under their run's lock alone, and the jobs that are inserted are new.
create function runledger.release_workflow_dependents(
  run_ids uuid[],
  closed_counts integer[],
  no_longer_waiting_counts integer[],
  new_unsuccessful_counts integer[],
  succeeded_ids uuid[],
  unsuccessful_ids uuid[],
  tells boolean default false
) returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_nestloop = off
set plan_cache_mode = force_generic_plan
set jit = off
as $fn$
declare
  ended_count integer := coalesce(cardinality(succeeded_ids), 0) + coalesce(cardinality(unsuccessful_ids), 0);
  notification_count integer;
  wave_enqueued_count integer;
  enqueued_count integer := 0;
  wave_steps jsonb;
  wave_runs jsonb;
  all_steps jsonb;
  all_runs jsonb;
begin
  while run_ids is not null loop
    with counted as materialized (
      select
        ended.dependent_step_id as id, count(*)::integer as ended_count,
        (count(*) filter (where ended.is_unsatisfied))::integer as unsatisfied_count
      from (
        select edge.dependent_step_id, false as is_unsatisfied
        from runledger.workflow_step_dependencies as edge
        where edge.prerequisite_step_id = any (succeeded_ids)
        union all
        select edge.dependent_step_id, edge.release_mode = 'ON_SUCCESS'
        from runledger.workflow_step_dependencies as edge
        where edge.prerequisite_step_id = any (unsuccessful_ids)
      ) as ended
      group by ended.dependent_step_id
    ),
    touched as (
      update runledger.workflow_steps as step
      set pending_count = step.pending_count - counted.ended_count,
        unsatisfied_count = step.unsatisfied_count + counted.unsatisfied_count,
        status = case
          when step.pending_count > counted.ended_count then step.status
          when step.unsatisfied_count + counted.unsatisfied_count > 0 then 'CANCELED'
          when step.execution_kind = 'EXTERNAL' then 'WAITING_FOR_EXTERNAL'
          else 'ENQUEUED'
        end,
        released_at = case
          when step.pending_count = counted.ended_count and step.unsatisfied_count + counted.unsatisfied_count = 0 then
            clock_timestamp()
        end,
        gate_expires_at = case
          when step.pending_count = counted.ended_count and step.unsatisfied_count + counted.unsatisfied_count = 0 then
            clock_timestamp() + step.gate_timeout_ms * interval '1 millisecond'
        end,
        finished_at = case
          when step.pending_count = counted.ended_count and step.unsatisfied_count + counted.unsatisfied_count > 0 then
            clock_timestamp()
        end,
        status_reason = case
          when step.pending_count = counted.ended_count and step.unsatisfied_count + counted.unsatisfied_count > 0 then
            'workflow.dependency_unsatisfied'
        end,
        last_error_code = case
          when step.pending_count = counted.ended_count and step.unsatisfied_count + counted.unsatisfied_count > 0 then
            'workflow.dependency_unsatisfied'
        end
      from counted
      where step.id = any (array(select counted.id from counted))
        and step.id = counted.id
        and step.status = 'BLOCKED'
      returning
        step.id, step.run_id, step.step_key, step.status, step.job_type, step.organization_id, step.priority,
        step.max_attempts, step.timeout_seconds, step.stage, step.payload
    ),
    enqueued as (
      insert into runledger.job_queue (
        id, workflow_run_id, job_type, organization_id, stage, priority, next_run_at, max_attempts, timeout_seconds,
        payload
      )
      select
        touched.id, touched.run_id, touched.job_type, touched.organization_id, touched.stage, touched.priority,
        clock_timestamp(), touched.max_attempts, touched.timeout_seconds, touched.payload
      from touched
      where touched.status = 'ENQUEUED'
      returning id, stage
    ),
    posted as (
      insert into runledger.job_events (job_id, seq, run_number, event_type, stage)
      select enqueued.id, 1, 1, 'ENQUEUED', enqueued.stage
      from enqueued
    ),
    tallied as materialized (
      select
        change.run_id, sum(change.closed)::integer as closed, sum(change.no_longer_waiting)::integer as no_longer_waiting,
        sum(change.unsuccessful)::integer as unsuccessful, sum(change.now_waiting)::integer as now_waiting,
        sum(change.canceled)::integer as canceled
      from (
        select ended.run_id, ended.closed, ended.no_longer_waiting, ended.unsuccessful, 0 as now_waiting, 0 as canceled
        from unnest(run_ids, closed_counts, no_longer_waiting_counts, new_unsuccessful_counts) as ended (
          run_id, closed, no_longer_waiting, unsuccessful
        )
        union all
        select
          touched.run_id, 0, 0, 0, (touched.status = 'WAITING_FOR_EXTERNAL')::integer,
          (touched.status = 'CANCELED')::integer
        from touched
        where touched.status in ('WAITING_FOR_EXTERNAL', 'CANCELED')
      ) as change
      group by change.run_id
    ),
    -- What ended in this wave was counted open or waiting; what it cancels is taken from open here and now.
    rolled as (
      update runledger.workflow_runs as run
      set open_count = run.open_count - tallied.closed - tallied.now_waiting - tallied.canceled,
        waiting_count = run.waiting_count - tallied.no_longer_waiting + tallied.now_waiting,
        unsuccessful_count = run.unsuccessful_count + tallied.unsuccessful + tallied.canceled,
        status = case
          when run.status = 'CANCELED' then 'CANCELED'
          when run.open_count - tallied.closed - tallied.now_waiting - tallied.canceled > 0 then 'RUNNING'
          when run.waiting_count - tallied.no_longer_waiting + tallied.now_waiting > 0 then 'WAITING_FOR_EXTERNAL'
          when run.unsuccessful_count + tallied.unsuccessful + tallied.canceled > 0 then 'COMPLETED_WITH_ERRORS'
          else 'SUCCEEDED'
        end,
        finished_at = case
          when run.status = 'CANCELED' then run.finished_at
          when run.open_count - tallied.closed - tallied.canceled + run.waiting_count - tallied.no_longer_waiting = 0 then
            clock_timestamp()
        end
      from tallied
      where run.id = any (run_ids)
        and run.id = tallied.run_id
      -- Looked for at the end only: the request of a large run is megabytes.
      returning
        run.id, run.workflow_type, run.organization_id, run.status, run.finished_at,
        case when run.finished_at is not null then run.enqueue_request ? 'result_step_key' end as is_awaited
    ),
    -- Somebody may be waiting for the result. NOTIFY takes a lock of the whole database at commit, so runs without a
    -- declared result do without.
    notified as materialized (
      select count(pg_notify('runledger_workflow_run_ended', rolled.id::text))::integer as notification_count
      from rolled
      where rolled.is_awaited
    )
    select
      array_agg(tallied.run_id), array_agg(0),
      (select array_agg(touched.id) from touched where touched.status = 'CANCELED'),
      -- Asked for so that it is done.
      (select notified.notification_count from notified),
      (select count(*)::integer from enqueued),
      case
        when tells then
          (
            select jsonb_agg(jsonb_build_object(
              'run_id', touched.run_id, 'step_id', touched.id, 'step_key', touched.step_key, 'status', touched.status,
              'job_type', touched.job_type, 'organization_id', touched.organization_id
            ))
            from touched
            where touched.status <> 'BLOCKED'
          )
      end,
      case
        when tells then
          (
            select jsonb_agg(jsonb_build_object(
              'run_id', rolled.id, 'workflow_type', rolled.workflow_type, 'organization_id', rolled.organization_id,
              'status', rolled.status
            ))
            from rolled
            where rolled.finished_at is not null
          )
      end
    into
      run_ids, closed_counts, unsuccessful_ids, notification_count, wave_enqueued_count, wave_steps, wave_runs
    from tallied
    where tallied.canceled > 0;
    enqueued_count := enqueued_count + wave_enqueued_count;
    if tells then
      all_steps := coalesce(all_steps || wave_steps, wave_steps, all_steps);
      all_runs := coalesce(all_runs || wave_runs, wave_runs, all_runs);
    end if;
    succeeded_ids := null;
    no_longer_waiting_counts := closed_counts;
    new_unsuccessful_counts := closed_counts;
  end loop;
  -- Who ended the steps has as many hands free again, and looks for more by itself.
  if enqueued_count > ended_count then
    perform runledger.wake_workers(null, null);
  end if;
  return case
    when all_steps is not null or all_runs is not null then
      jsonb_strip_nulls(jsonb_build_object('steps', all_steps, 'runs', all_runs))
  end;
end
$fn$;

-- Posts the end of steps and everything that follows from it.
--
-- finished: an array of {step_id, run_id, status, reason?, error_code?, error_message?, result?: {output?}}.
-- The caller holds the locks of the runs, taken in order of id before any job's. A step that has ended already is left
-- as it is. With tells, returns what the release did, as above.
-- With its owner's rights: who ends a job need not be able to write steps, runs and new jobs.
-- Locks: nothing more.
create function runledger.finish_workflow_steps(finished jsonb, tells boolean default false) returns jsonb
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_nestloop = off
set plan_cache_mode = force_generic_plan
set jit = off
as $fn$
declare
  run_ids uuid[];
  closed_counts integer[];
  no_longer_waiting_counts integer[];
  unsuccessful_counts integer[];
  succeeded_ids uuid[];
  unsuccessful_ids uuid[];
begin
  with input as materialized (
    select step.*
    from jsonb_to_recordset(finished) as step (
      step_id uuid, status text, reason text, error_code text, error_message text, result jsonb
    )
  ),
  marked as (
    update runledger.workflow_steps as step
    set status = input.status,
      finished_at = clock_timestamp(),
      gate_expires_at = null,
      status_reason = input.reason,
      last_error_code = input.error_code,
      last_error_message = input.error_message,
      output = input.result -> 'output'
    from input
    where step.id = any (array(select input.step_id from input))
      and step.id = input.step_id
      and step.status in ('ENQUEUED', 'WAITING_FOR_EXTERNAL')
    returning step.id, step.run_id, step.status, step.execution_kind
  ),
  tallied as (
    select
      marked.run_id,
      (count(*) filter (where marked.execution_kind = 'JOB'))::integer as closed,
      (count(*) filter (where marked.execution_kind = 'EXTERNAL'))::integer as no_longer_waiting,
      (count(*) filter (where marked.status <> 'SUCCEEDED'))::integer as unsuccessful
    from marked
    group by marked.run_id
  )
  select
    array_agg(tallied.run_id), array_agg(tallied.closed), array_agg(tallied.no_longer_waiting),
    array_agg(tallied.unsuccessful),
    (select array_agg(marked.id) from marked where marked.status = 'SUCCEEDED'),
    (select array_agg(marked.id) from marked where marked.status <> 'SUCCEEDED')
  into run_ids, closed_counts, no_longer_waiting_counts, unsuccessful_counts, succeeded_ids, unsuccessful_ids
  from tallied;

  return runledger.release_workflow_dependents(
    run_ids, closed_counts, no_longer_waiting_counts, unsuccessful_counts, succeeded_ids, unsuccessful_ids, tells
  );
end
$fn$;

revoke all on function runledger.place_workflow_steps(jsonb, uuid[]) from public;
revoke all on function
  runledger.release_workflow_dependents(uuid[], integer[], integer[], integer[], uuid[], uuid[], boolean)
from public;
revoke all on function runledger.finish_workflow_steps(jsonb, boolean) from public;

-- The steps of all runs, for people: which workflow, which step of how many, where it stands, how long it took.
create view runledger.workflow_step_runs as
select
  step.run_id,
  run.workflow_type as workflow,
  step.step_key as step,
  step.position,
  run.step_count,
  case when step.status = 'ENQUEUED' and job.status = 'LEASED' then 'RUNNING' else step.status end as status,
  coalesce(step.finished_at, job.started_at, step.released_at, run.created_at) as posted_at,
  step.finished_at - coalesce(job.started_at, step.released_at, step.finished_at) as duration,
  job.attempt,
  coalesce(step.last_error_code, job.last_error_code) as error_code,
  coalesce(step.status_reason, job.status_reason) as reason,
  run.organization_id,
  run.status as run_status,
  step.id as step_id
from runledger.workflow_steps as step
join runledger.workflow_runs as run on run.id = step.run_id
left join runledger.job_queue as job on job.id = step.id;
`,
  },
  {
    version: 5,
    name: "workflow_operations",
    sql: `\
-- purpose: what is done to a workflow run from outside: complete a gate, append steps, cancel, recover, remove
-- locks: none
-- rewrites: nothing
-- breaking: no
--
-- Each function locks the run's row first. They answer {"error": code, "details": {...}} before anything is written, or
-- what the caller wants to know. They run with their owner's rights: a role that may do one of these things to a run need
-- not be able to write steps, runs and new jobs. enable_seqscan is off in them: a plan that was made while the tables
-- were empty must not last until they are full. Where the rows of a whole graph are joined, enable_nestloop is off too:
-- appending 1,000 steps, or recovering a run of 1,000, otherwise looked at millions of pairs.

-- Cancels jobs whose rows the caller has locked and found PENDING or LEASED.
-- Locks: nothing more. Index: job_queue_pkey.
create function runledger.cancel_locked_jobs(job_ids uuid[], note jsonb)
returns table (job_id uuid, workflow_run_id uuid, lease_quiesces_at timestamptz)
language sql
set search_path = pg_catalog, pg_temp
as $fn$
  with canceled as (
    update runledger.job_queue as queue
    set status = 'CANCELED',
      event_seq = queue.event_seq + 1,
      worker_id = null,
      lease_token = null,
      lease_expires_at = case when queue.lease_expires_at > clock_timestamp() then queue.lease_expires_at end,
      last_heartbeat_at = null,
      finished_at = clock_timestamp(),
      status_reason = coalesce(note ->> 'reason', 'CANCELED')
    where queue.id = any (job_ids)
    returning
      queue.id, queue.workflow_run_id, queue.event_seq, queue.run_number, queue.attempt, queue.stage,
      queue.lease_expires_at
  ),
  posted as (
    insert into runledger.job_events (job_id, seq, run_number, attempt, event_type, stage, payload)
    select
      canceled.id, canceled.event_seq, canceled.run_number, nullif(canceled.attempt, 0), 'CANCELED', canceled.stage,
      note || jsonb_strip_nulls(jsonb_build_object('lease_quiesces_at', canceled.lease_expires_at))
    from canceled
  )
  select canceled.id, canceled.workflow_run_id, canceled.lease_expires_at
  from canceled
$fn$;

-- Completes a gate. An equal repetition changes nothing; a different one is refused.
-- Locks: the run. What the gate releases changes under this lock. Index: workflow_runs_pkey, workflow_steps_key_unique.
create function runledger.complete_external_step(
  target_run_id uuid,
  scope_kind text,
  scope_organization_id uuid,
  target_step_key text,
  new_status text,
  reason text,
  error_code text,
  error_message text,
  new_output jsonb
) returns jsonb
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $fn$
declare
  gate record;
begin
  perform
  from runledger.workflow_runs as run
  where run.id = target_run_id
    and (scope_kind = 'all' or run.organization_id is not distinct from scope_organization_id)
  for update;
  if not found then
    return '{"error": "workflow.run_not_found"}';
  end if;

  select step.id, step.execution_kind, step.status, step.status_reason, step.last_error_code, step.last_error_message,
    step.output
  into gate
  from runledger.workflow_steps as step
  where step.run_id = target_run_id
    and step.step_key = target_step_key;
  if not found then
    return '{"error": "workflow.external_step_not_found"}';
  elsif gate.execution_kind <> 'EXTERNAL' then
    return '{"error": "workflow.external_step_not_external"}';
  elsif gate.status = 'BLOCKED' then
    return '{"error": "workflow.external_step_not_waiting"}';
  elsif gate.status <> 'WAITING_FOR_EXTERNAL' then
    if (gate.status, gate.status_reason, gate.last_error_code, gate.last_error_message, gate.output)
      is distinct from (new_status, reason, error_code, error_message, new_output) then
      return jsonb_build_object(
        'error', 'workflow.external_step_conflicting_completion_retry',
        'details', jsonb_build_object('status', gate.status)
      );
    end if;
    return '{"is_applied": false}';
  end if;

  perform runledger.finish_workflow_steps(jsonb_build_array(jsonb_strip_nulls(jsonb_build_object(
    'step_id', gate.id, 'run_id', target_run_id, 'status', new_status, 'reason', reason, 'error_code', error_code,
    'error_message', error_message
  )) || case
    when new_output is null then '{}' else jsonb_build_object('result', jsonb_build_object('output', new_output))
  end));
  perform runledger.wake_workers(null, null);
  return '{"is_applied": true}';
end
$fn$;

-- Gives overdue gates their default outcome; at most batch_limit of them. Runs that somebody else has locked are left for
-- the next call. Returns how many gates it ended.
-- Locks: the runs by id, skipping locked ones. Index: workflow_steps_gate_index, workflow_runs_pkey.
create function runledger.expire_workflow_gates(batch_limit integer) returns integer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $fn$
declare
  run_ids uuid[];
  overdue jsonb;
begin
  select array_agg(locked.id)
  into run_ids
  from (
    select run.id
    from runledger.workflow_runs as run
    where run.id = any (array(
      select step.run_id
      from runledger.workflow_steps as step
      where step.status = 'WAITING_FOR_EXTERNAL'
        and step.gate_expires_at <= statement_timestamp()
      order by step.gate_expires_at
      limit batch_limit
    ))
    order by run.id
    for update skip locked
  ) as locked;
  if run_ids is null then
    return 0;
  end if;

  select jsonb_agg(
    jsonb_build_object(
      'step_id', gate.id, 'run_id', gate.run_id, 'status', gate.gate_outcome, 'reason', 'workflow.gate_timed_out'
    )
    || case gate.gate_outcome
      when 'SUCCEEDED' then '{}'::jsonb
      else '{"error_code": "workflow.gate_timed_out", "error_message": "The gate was not completed in time."}'
    end
    || case
      when gate.gate_output is null then '{}'
      else jsonb_build_object('result', jsonb_build_object('output', gate.gate_output))
    end
  )
  into overdue
  from (
    select step.id, step.run_id, step.gate_outcome, step.gate_output
    from runledger.workflow_steps as step
    where step.run_id = any (run_ids)
      and step.status = 'WAITING_FOR_EXTERNAL'
      and step.gate_expires_at <= statement_timestamp()
    order by step.gate_expires_at
    limit batch_limit
  ) as gate;
  if overdue is null then
    return 0;
  end if;
  perform runledger.finish_workflow_steps(overdue);
  perform runledger.wake_workers(null, null);
  return jsonb_array_length(overdue);
end
$fn$;

-- Cancels a run with all of its steps and jobs. A terminal run is left as it is.
-- Locks: the run, then the jobs of its released steps by id, but not their keys. Index: workflow_runs_pkey,
-- workflow_steps_key_unique, job_queue_pkey.
create function runledger.cancel_workflow_run(
  target_run_id uuid,
  scope_kind text,
  scope_organization_id uuid,
  note jsonb
) returns jsonb
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $fn$
declare
  run_status text;
  quiesces_at timestamptz;
begin
  select run.status
  into run_status
  from runledger.workflow_runs as run
  where run.id = target_run_id
    and (scope_kind = 'all' or run.organization_id is not distinct from scope_organization_id)
  for update;
  if not found then
    return '{"error": "workflow.run_not_found"}';
  elsif run_status not in ('RUNNING', 'WAITING_FOR_EXTERNAL') then
    return jsonb_build_object('is_applied', false, 'status', run_status);
  end if;

  -- Whoever holds one of these rows without the run's lock only claims or extends a lease, and is soon done. No key, since
  -- a handler that finishes its job in a transaction has first stored what it logged, which locks the job's key.
  with locked as materialized (
    select queue.id, queue.status
    from runledger.job_queue as queue
    where queue.id = any (array(
      select step.id
      from runledger.workflow_steps as step
      where step.run_id = target_run_id
        and step.status = 'ENQUEUED'
    ))
    order by queue.id
    for no key update
  )
  select max(canceled.lease_quiesces_at)
  into quiesces_at
  from runledger.cancel_locked_jobs(
    array(select locked.id from locked where locked.status in ('PENDING', 'LEASED')), note
  ) as canceled;

  update runledger.workflow_steps as step
  set status = 'CANCELED',
    finished_at = clock_timestamp(),
    gate_expires_at = null,
    status_reason = coalesce(note ->> 'reason', 'workflow.run_canceled'),
    last_error_code = 'workflow.run_canceled'
  where step.run_id = target_run_id
    and step.status in ('BLOCKED', 'WAITING_FOR_EXTERNAL', 'ENQUEUED');

  update runledger.workflow_runs as run
  set status = 'CANCELED',
    finished_at = clock_timestamp(),
    unsuccessful_count = run.unsuccessful_count + run.open_count + run.waiting_count,
    open_count = 0,
    waiting_count = 0,
    status_reason = coalesce(note ->> 'reason', 'CANCELED')
  where run.id = target_run_id;
  -- A run has no ledger of its own, and it may be without a job whose ledger tells who did it.
  insert into runledger.operator_actions (action, subject, organization_id, reason, actor)
  select 'RUN_CANCELED', run.id::text, run.organization_id, note ->> 'reason', note ->> 'actor'
  from runledger.workflow_runs as run
  where run.id = target_run_id;
  perform pg_notify('runledger_workflow_run_ended', target_run_id::text);
  return jsonb_build_object(
    'is_applied', true, 'status', 'CANCELED', 'lease_quiesces_at', extract(epoch from quiesces_at)
  );
end
$fn$;

-- Appends steps to a run while one of its gates is open, once for each mutation key.
--
-- request: {window_step_key, steps: [as in the canonical request of a run]}; placements: an array of {id, place} in the
-- order of steps: the new id, and which of them it is in an order in which they can run, from 1.
-- Locks: the run, then new rows. Index: workflow_runs_pkey, workflow_steps_key_unique, workflow_run_mutations_pkey.
create function runledger.append_workflow_steps(
  target_run_id uuid,
  scope_kind text,
  scope_organization_id uuid,
  new_mutation_key text,
  mutation_metadata jsonb,
  new_request jsonb,
  placements jsonb
) returns jsonb
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_nestloop = off
set jit = off
as $fn$
declare
  target record;
  mutation record;
  gate record;
  problem jsonb;
  steps jsonb;
  edges jsonb;
  undefined_types jsonb;
begin
  select run.id, run.status, run.organization_id, run.step_count
  into target
  from runledger.workflow_runs as run
  where run.id = target_run_id
    and (scope_kind = 'all' or run.organization_id is not distinct from scope_organization_id)
  for update;
  if not found then
    return '{"error": "workflow.run_not_found"}';
  end if;

  select applied.request
  into mutation
  from runledger.workflow_run_mutations as applied
  where applied.run_id = target_run_id
    and applied.mutation_key = new_mutation_key;
  if found then
    if mutation.request <> new_request then
      return '{"error": "workflow.append_conflicting_retry"}';
    end if;
    return '{"is_applied": false}';
  end if;

  select step.execution_kind, step.status
  into gate
  from runledger.workflow_steps as step
  where step.run_id = target_run_id
    and step.step_key = new_request ->> 'window_step_key';
  if not found then
    return '{"error": "workflow.append_window_missing"}';
  elsif gate.execution_kind <> 'EXTERNAL' then
    return '{"error": "workflow.append_window_not_external"}';
  elsif target.status not in ('RUNNING', 'WAITING_FOR_EXTERNAL') then
    return '{"error": "workflow.append_terminal_run"}';
  elsif gate.status <> 'WAITING_FOR_EXTERNAL' then
    return '{"error": "workflow.append_window_not_open"}';
  end if;

  with added as materialized (
    select zipped.step_key, zipped.dependencies, zipped.id, zipped.place, zipped.ord
    from rows from (
      jsonb_to_recordset(new_request -> 'steps') as (step_key text, dependencies jsonb),
      jsonb_to_recordset(placements) as (id uuid, place integer)
    ) with ordinality as zipped (step_key, dependencies, id, place, ord)
  ),
  asked as materialized (
    select added.id as dependent_id, added.step_key, dependency.prerequisite_step_key, dependency.release_mode
    from added
    cross join lateral jsonb_to_recordset(added.dependencies) as dependency (
      prerequisite_step_key text, release_mode text
    )
  ),
  -- Of the steps that the run has, only those that are named.
  known as materialized (
    select standing.id, standing.step_key, standing.status
    from runledger.workflow_steps as standing
    where standing.run_id = target_run_id
      and standing.step_key = any (array(
        select added.step_key
        from added
        union
        select asked.prerequisite_step_key
        from asked
      ))
  ),
  edge as materialized (
    select
      asked.dependent_id, asked.step_key, asked.prerequisite_step_key, asked.release_mode,
      coalesce(sibling.id, known.id) as prerequisite_id,
      sibling.id is null and known.status in ('SUCCEEDED', 'FAILED', 'CANCELED') as has_ended,
      sibling.id is null and known.status in ('FAILED', 'CANCELED') and asked.release_mode = 'ON_SUCCESS'
        as is_unsatisfied
    from asked
    left join added as sibling on sibling.step_key = asked.prerequisite_step_key
    left join known on known.step_key = asked.prerequisite_step_key
  ),
  tally as materialized (
    select
      edge.dependent_id, count(*) as dependency_count, count(*) filter (where not edge.has_ended) as pending_count,
      count(*) filter (where edge.is_unsatisfied) as unsatisfied_count
    from edge
    group by edge.dependent_id
  )
  select
    coalesce(
      (
        select jsonb_build_object('error', 'workflow.invalid_dag_duplicate_step_key', 'details',
          jsonb_build_object('stepKey', min(added.step_key)))
        from added
        join known on known.step_key = added.step_key
        having count(*) > 0
      ),
      (
        select jsonb_build_object('error', 'workflow.invalid_dag_missing_dependency', 'details',
          jsonb_build_object('stepKey', edge.step_key, 'prerequisiteStepKey', edge.prerequisite_step_key))
        from edge
        where edge.prerequisite_id is null
        order by edge.step_key, edge.prerequisite_step_key
        limit 1
      )
    ),
    (
      select jsonb_build_object(
        'step_ids', array_agg(added.id order by added.ord),
        'positions', array_agg(target.step_count + added.place order by added.ord),
        'dependency_counts', array_agg(coalesce(tally.dependency_count, 0) order by added.ord),
        'pending_counts', array_agg(coalesce(tally.pending_count, 0) order by added.ord),
        'unsatisfied_counts', array_agg(coalesce(tally.unsatisfied_count, 0) order by added.ord)
      )
      from added
      left join tally on tally.dependent_id = added.id
    ),
    (
      select jsonb_build_object(
        'edge_prerequisites', array_agg(edge.prerequisite_id), 'edge_dependents', array_agg(edge.dependent_id),
        'edge_modes', array_agg(case edge.release_mode when 'ON_SUCCESS' then 's' else 't' end)
      )
      from edge
    )
  into problem, steps, edges;
  if problem is not null then
    return problem;
  end if;

  undefined_types := runledger.place_workflow_steps(jsonb_build_array(
    jsonb_build_object('id', target_run_id, 'organization_id', target.organization_id, 'request', new_request)
    || steps || edges
  ));
  if undefined_types is not null then
    return jsonb_build_object(
      'error', 'workflow.definition_not_found_or_disabled',
      'details', jsonb_build_object('jobTypes', undefined_types)
    );
  end if;

  insert into runledger.workflow_run_mutations (run_id, mutation_key, mutation_kind, metadata, request)
  values (target_run_id, new_mutation_key, 'APPEND_STEPS', mutation_metadata, new_request);

  update runledger.workflow_runs as run
  set step_count = run.step_count + tally.added,
    open_count = run.open_count + tally.open,
    waiting_count = run.waiting_count + tally.waiting,
    unsuccessful_count = run.unsuccessful_count + tally.unsuccessful,
    -- The window is still open, so the run is live.
    status = case when run.open_count + tally.open > 0 then 'RUNNING' else 'WAITING_FOR_EXTERNAL' end
  from (
    select
      count(*) as added, count(*) filter (where step.status in ('BLOCKED', 'ENQUEUED')) as open,
      count(*) filter (where step.status = 'WAITING_FOR_EXTERNAL') as waiting,
      count(*) filter (where step.status = 'CANCELED') as unsuccessful
    from runledger.workflow_steps as step
    where step.id = any (array(select added.id from jsonb_to_recordset(placements) as added (id uuid)))
  ) as tally
  where run.id = target_run_id;

  -- Steps that could never be released any more were born cancelled, and so are those that need them.
  perform runledger.release_workflow_dependents(array[target_run_id], '{0}', '{0}', '{0}', null, array(
    select step.id
    from runledger.workflow_steps as step
    where step.id = any (array(select added.id from jsonb_to_recordset(placements) as added (id uuid)))
      and step.status = 'CANCELED'
  ));
  perform runledger.wake_workers(null, null);
  return '{"is_applied": true}';
end
$fn$;

-- Runs a terminal run again as a new one: whole (REPLAY), or taking over the outputs of the steps that succeeded
-- (RESUME). Once for each source and key.
-- Locks: the source run, then new rows; it may wait for a run that is being enqueued with the same active key, or that
-- held it and is being ended. Index: workflow_runs_pkey, workflow_runs_recovery_unique, workflow_runs_active_unique.
create function runledger.recover_workflow_run(
  source_run_id uuid,
  scope_kind text,
  scope_organization_id uuid,
  new_run_id uuid,
  new_recovery_key text,
  new_recovery_mode text,
  note jsonb
) returns jsonb
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_nestloop = off
set jit = off
as $fn$
declare
  source record;
  standing record;
  batch jsonb;
  open_steps integer;
  waiting_steps integer;
  step_total integer;
  undefined_types jsonb;
begin
  select run.id, run.workflow_type, run.organization_id, run.status, run.active_key, run.enqueue_request
  into source
  from runledger.workflow_runs as run
  where run.id = source_run_id
    and (scope_kind = 'all' or run.organization_id is not distinct from scope_organization_id)
  for update;
  if not found then
    return '{"error": "workflow.run_not_found"}';
  end if;

  select run.id, run.recovery_mode
  into standing
  from runledger.workflow_runs as run
  where run.recovery_of_run_id = source_run_id
    and run.recovery_key = new_recovery_key;
  if found then
    if standing.recovery_mode <> new_recovery_mode then
      return '{"error": "workflow.recovery_request_conflict"}';
    end if;
    return jsonb_build_object('run_id', standing.id, 'disposition', 'existing');
  elsif source.status not in ('SUCCEEDED', 'COMPLETED_WITH_ERRORS', 'CANCELED') then
    return jsonb_build_object(
      'error', 'workflow.recovery_source_not_terminal', 'details', jsonb_build_object('status', source.status)
    );
  elsif new_recovery_mode = 'RESUME' and source.status = 'SUCCEEDED' then
    return '{"error": "workflow.recovery_nothing_to_resume"}';
  end if;

  with done as materialized (
    select job.id, job.output
    from runledger.job_queue as job
    where job.id = any (array(select step.id from runledger.workflow_steps as step where step.run_id = source_run_id))
      and job.output is not null
  ),
  copied as materialized (
    select
      runledger.new_id() as id, step.id as source_id, step.position, step.step_key, step.execution_kind, step.job_type,
      step.organization_id, step.payload, step.priority, step.max_attempts, step.timeout_seconds, step.stage,
      step.allows_continuation, step.gate_timeout_ms, step.gate_outcome, step.gate_output, step.dependency_count,
      new_recovery_mode = 'RESUME' and step.status = 'SUCCEEDED' as is_kept,
      coalesce(step.output, done.output) as output
    from runledger.workflow_steps as step
    left join done on done.id = step.id
    where step.run_id = source_run_id
  ),
  edge as materialized (
    select edge.release_mode, prerequisite.id as prerequisite_id, prerequisite.is_kept, dependent.id as dependent_id
    from runledger.workflow_step_dependencies as edge
    join copied as dependent on dependent.source_id = edge.dependent_step_id
    join copied as prerequisite on prerequisite.source_id = edge.prerequisite_step_id
    where edge.dependent_step_id = any (array(select copied.source_id from copied))
  ),
  tallied as materialized (
    select copied.*,
      case when copied.is_kept then 0 else coalesce(tally.pending_count, 0) end as pending_count
    from copied
    left join (
      select edge.dependent_id, count(*) filter (where not edge.is_kept) as pending_count
      from edge
      group by edge.dependent_id
    ) as tally on tally.dependent_id = copied.id
  )
  select
    jsonb_build_object(
      'id', new_run_id,
      'request', jsonb_build_object('steps', jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
        'step_key', tallied.step_key, 'execution_kind', tallied.execution_kind, 'job_type', tallied.job_type,
        'organization_id', tallied.organization_id, 'priority', tallied.priority,
        'max_attempts', tallied.max_attempts, 'timeout_seconds', tallied.timeout_seconds, 'stage', tallied.stage,
        'allow_handler_continuation', nullif(tallied.allows_continuation, false)
      )) || jsonb_build_object(
        'payload', tallied.payload,
        'gate', case
          when tallied.gate_timeout_ms is not null then jsonb_strip_nulls(jsonb_build_object(
            'after_ms', tallied.gate_timeout_ms, 'outcome', tallied.gate_outcome
          )) || case
            when tallied.gate_output is null then '{}' else jsonb_build_object('output', tallied.gate_output)
          end
        end
      ) order by tallied.position)),
      'step_ids', array_agg(tallied.id order by tallied.position),
      'positions', array_agg(tallied.position order by tallied.position),
      'dependency_counts', array_agg(tallied.dependency_count order by tallied.position),
      'pending_counts', array_agg(tallied.pending_count order by tallied.position),
      'kept', jsonb_agg(
        case
          when tallied.is_kept and tallied.output is not null then jsonb_build_object('output', tallied.output)
          when tallied.is_kept then '{}'
        end
        order by tallied.position
      )
    ) || (
      select jsonb_build_object(
        'edge_prerequisites', array_agg(edge.prerequisite_id), 'edge_dependents', array_agg(edge.dependent_id),
        'edge_modes', array_agg(case edge.release_mode when 'ON_SUCCESS' then 's' else 't' end)
      )
      from edge
    ),
    count(*) filter (where not tallied.is_kept and (tallied.pending_count > 0 or tallied.execution_kind = 'JOB')),
    count(*) filter (
      where not tallied.is_kept and tallied.pending_count = 0 and tallied.execution_kind = 'EXTERNAL'
    ),
    count(*)
  into batch, open_steps, waiting_steps, step_total
  from tallied;

  insert into runledger.workflow_runs (
    id, workflow_type, organization_id, status, step_count, open_count, waiting_count, active_key, recovery_of_run_id,
    recovery_key, recovery_mode, enqueue_request
  )
  values (
    new_run_id, source.workflow_type, source.organization_id,
    case when open_steps > 0 then 'RUNNING' else 'WAITING_FOR_EXTERNAL' end, step_total, open_steps, waiting_steps,
    source.active_key, source_run_id, new_recovery_key, new_recovery_mode, source.enqueue_request
  )
  on conflict (organization_id, active_key)
  where active_key is not null and status in ('RUNNING', 'WAITING_FOR_EXTERNAL')
  do nothing;
  if not found then
    return '{"error": "workflow.recovery_active_constraint"}';
  end if;

  undefined_types := runledger.place_workflow_steps(jsonb_build_array(batch));
  if undefined_types is not null then
    raise exception using
      errcode = 'RL000', message = 'workflow.definition_not_found_or_disabled',
      detail = jsonb_build_object('jobTypes', undefined_types);
  end if;
  insert into runledger.operator_actions (action, subject, organization_id, reason, actor, details)
  values (
    'RUN_RECOVERED', source_run_id::text, source.organization_id, note ->> 'reason', note ->> 'actor',
    jsonb_build_object('run_id', new_run_id, 'mode', new_recovery_mode)
  );
  return jsonb_build_object('run_id', new_run_id, 'disposition', 'inserted');
end
$fn$;

-- Deletes up to batch_limit finished runs, oldest first, with their steps, edges, mutations, jobs and ledger, and returns
-- how many. A run with an idempotency key is kept unless expires_keys; a recovery is kept while its source is there. A run
-- that somebody else has locked is left for the next call, and so is one with a locked job: a late heartbeat or log line
-- may hold it, in a transaction that wants the run next.
-- Locks: the runs and as many more at most, oldest first, then their jobs by id; it skips what is locked.
-- Index: workflow_runs_finished_index.
create function runledger.delete_finished_workflow_runs(
  older_than interval,
  batch_limit integer,
  expires_keys boolean
) returns integer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $fn$
declare
  run_ids uuid[];
  held_run_ids uuid[];
  step_ids uuid[];
begin
  -- A branch for each half of the index: only so is it read in order, and no further than the limit.
  with ended as (
    select unkeyed.id, unkeyed.finished_at
    from (
      select run.id, run.finished_at
      from runledger.workflow_runs as run
      where run.idempotency_key is null
        and run.finished_at < statement_timestamp() - older_than
        and not exists (select from runledger.workflow_runs as source where source.id = run.recovery_of_run_id)
      order by run.finished_at
      limit batch_limit
      for update skip locked
    ) as unkeyed
    union all
    select keyed.id, keyed.finished_at
    from (
      select run.id, run.finished_at
      from runledger.workflow_runs as run
      where expires_keys
        -- Not a constant: see runledger.delete_finished_jobs.
        and (run.idempotency_key is null) = (select false)
        and run.finished_at < statement_timestamp() - older_than
        and not exists (select from runledger.workflow_runs as source where source.id = run.recovery_of_run_id)
      order by run.finished_at
      limit batch_limit
      for update skip locked
    ) as keyed
  )
  select array_agg(finished.id)
  into run_ids
  from (
    select ended.id
    from ended
    order by ended.finished_at
    limit batch_limit
  ) as finished;
  if run_ids is null then
    return 0;
  end if;
  select array_agg(step.id)
  into step_ids
  from runledger.workflow_steps as step
  where step.run_id = any (run_ids);
  with locked as materialized (
    select queue.id
    from runledger.job_queue as queue
    where queue.id = any (step_ids)
    order by queue.id
    for update skip locked
  )
  select array_agg(distinct queue.workflow_run_id)
  into held_run_ids
  from runledger.job_queue as queue
  where queue.id = any (step_ids)
    and not exists (select from locked where locked.id = queue.id);
  if held_run_ids is not null then
    run_ids := array(select free.id from unnest(run_ids) as free (id) where free.id <> all (held_run_ids));
    step_ids := array(select step.id from runledger.workflow_steps as step where step.run_id = any (run_ids));
  end if;

  delete from runledger.workflow_step_dependencies as edge where edge.prerequisite_step_id = any (step_ids);
  delete from runledger.workflow_steps as step where step.id = any (step_ids);
  delete from runledger.workflow_run_mutations as mutation where mutation.run_id = any (run_ids);
  -- Not a SET clause: giving a function a parameter that no extension has declared takes a superuser.
  perform set_config('runledger.retention', 'on', true);
  delete from runledger.job_events as event where event.job_id = any (step_ids);
  perform set_config('runledger.retention', 'off', true);
  delete from runledger.job_queue as queue where queue.id = any (step_ids);
  delete from runledger.workflow_runs as run where run.id = any (run_ids);
  return cardinality(run_ids);
end
$fn$;

revoke all on function runledger.cancel_locked_jobs(uuid[], jsonb) from public;
revoke all on function runledger.complete_external_step(uuid, text, uuid, text, text, text, text, text, jsonb)
from public;
revoke all on function runledger.expire_workflow_gates(integer) from public;
revoke all on function runledger.cancel_workflow_run(uuid, text, uuid, jsonb) from public;
revoke all on function runledger.append_workflow_steps(uuid, text, uuid, text, jsonb, jsonb, jsonb) from public;
revoke all on function runledger.recover_workflow_run(uuid, text, uuid, uuid, text, text, jsonb) from public;
revoke all on function runledger.delete_finished_workflow_runs(interval, integer, boolean) from public;
`,
  },
  {
    version: 6,
    name: "schedules",
    sql: `\
-- purpose: schedules, the rule that an active one has an enabled definition, and what operators did to either
-- locks: job_definitions, share row exclusive, for an instant: it may be read and enqueued by, not written
-- rewrites: nothing
-- breaking: no
--
-- A schedule is one row. Its cursor, next_fire_at, is the only thing that firing changes: whoever moves it from the value
-- that he read enqueues the job in the same statement, so that any number of schedulers lose and double nothing. What
-- comes next is computed outside, from the expression; the database's clock decides what is due.

-- Lets schedules refer to a definition that is enabled. It makes is_enabled part of a key: changing it waits for whoever
-- is about to activate a schedule of the type, and the other way round, with row locks alone and in any isolation level.
create unique index job_definitions_enabled_unique on runledger.job_definitions (job_type, is_enabled);

create table runledger.job_schedules (
  id uuid not null,
  -- Unique across organizations.
  name text not null,
  job_type text not null,
  organization_id uuid,
  payload_template jsonb not null,
  cron_expression text not null,
  timezone text not null default 'UTC',
  is_active boolean not null default true,
  -- True or null: a paused schedule refers to nothing by it.
  needs_enabled boolean generated always as (nullif(is_active, false)) stored,
  -- In milliseconds, as everybody who compares the cursor reads it. Null: the expression has no further date.
  next_fire_at timestamptz(3),
  last_fired_at timestamptz,
  max_jitter_seconds integer not null default 0,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint job_schedules_pkey primary key (id),
  constraint job_schedules_name_unique unique (name),
  constraint job_schedules_job_type_fkey foreign key (job_type) references runledger.job_definitions (job_type),
  constraint job_schedules_enabled_definition_fkey
    foreign key (job_type, needs_enabled) references runledger.job_definitions (job_type, is_enabled),
  constraint job_schedules_name_check check (name ~ '\\S' and octet_length(name) <= 255),
  constraint job_schedules_cron_expression_check
    check (cron_expression ~ '\\S' and octet_length(cron_expression) <= 1000),
  constraint job_schedules_timezone_check check (timezone ~ '\\S' and octet_length(timezone) <= 255),
  -- What every client can read, and write as a date.
  constraint job_schedules_next_fire_at_check
    check (next_fire_at >= '0001-01-01 00:00:00+00' and next_fire_at < '10000-01-01 00:00:00+00'),
  constraint job_schedules_max_jitter_seconds_check check (max_jitter_seconds between 0 and 86400)
);

-- A scheduler reads the earliest cursors from here.
create index job_schedules_due_index on runledger.job_schedules (next_fire_at)
where is_active;

-- What operators did to what has no ledger of its own, with their reasons. A few rows a day at most, so no index but one.
create table runledger.operator_actions (
  id bigint generated always as identity,
  action text not null,
  -- The job type, the name of the schedule or the id of the run.
  subject text not null,
  organization_id uuid,
  reason text,
  actor text,
  details jsonb not null default '{}',
  occurred_at timestamptz not null default clock_timestamp(),
  constraint operator_actions_pkey primary key (id),
  constraint operator_actions_action_check check (
    action in (
      'JOB_TYPE_ENABLED', 'JOB_TYPE_DISABLED', 'SCHEDULE_RESUMED', 'SCHEDULE_PAUSED', 'SCHEDULE_MOVED', 'SCHEDULE_RUN',
      'SCHEDULE_DELETED', 'RUN_CANCELED', 'RUN_RECOVERED'
    )
  )
);

create trigger operator_actions_append_only
before update or delete or truncate on runledger.operator_actions
for each statement
execute function runledger.refuse_ledger_change();

-- Switches job types on or off, all or none; types that are not defined are left out.
--
-- note: {reason?, actor?} of the operator who does it, recorded for each type that changes; null: no operator does.
-- Returns {"definitions": [...], "changed": [types]}, or {"error": code, "details": {...}} with nothing written.
-- A function, since what is active must be looked up after the wait for the definitions, with a later snapshot.
-- Locks: the definitions, in order of type. Index: job_definitions_pkey.
create function runledger.set_job_definitions_enabled(job_types jsonb, new_is_enabled boolean, note jsonb) returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
as $fn$
declare
  changed_types jsonb;
  using_types jsonb;
  using_schedules jsonb;
begin
  perform
  from runledger.job_definitions as definition
  where definition.job_type in (select jsonb_array_elements_text(job_types))
  order by definition.job_type
  for update;

  if not new_is_enabled then
    select jsonb_agg(distinct schedule.job_type), jsonb_agg(schedule.name order by schedule.name)
    into using_types, using_schedules
    from (
      select schedule.job_type, schedule.name
      from runledger.job_schedules as schedule
      where schedule.is_active
        and job_types ? schedule.job_type
      order by schedule.name
      limit 100
    ) as schedule;
    if using_types is not null then
      return jsonb_build_object(
        'error', 'job_definition.active_schedule_exists',
        'details', jsonb_build_object('jobTypes', using_types, 'schedules', using_schedules)
      );
    end if;
  end if;

  with changed as (
    update runledger.job_definitions as definition
    set is_enabled = new_is_enabled,
      updated_at = now()
    where definition.job_type in (select jsonb_array_elements_text(job_types))
      and definition.is_enabled <> new_is_enabled
    returning definition.job_type
  ),
  recorded as (
    insert into runledger.operator_actions (action, subject, reason, actor)
    select
      case when new_is_enabled then 'JOB_TYPE_ENABLED' else 'JOB_TYPE_DISABLED' end, changed.job_type,
      note ->> 'reason', note ->> 'actor'
    from changed
    where note is not null
  )
  select coalesce(jsonb_agg(changed.job_type order by changed.job_type), '[]')
  into changed_types
  from changed;

  return (
    select jsonb_build_object(
      'changed', changed_types,
      'definitions', coalesce(jsonb_agg(jsonb_build_object(
        'job_type', definition.job_type, 'version', definition.version, 'max_attempts', definition.max_attempts,
        'timeout_seconds', definition.timeout_seconds, 'priority', definition.priority,
        'is_enabled', definition.is_enabled,
        'created_at', extract(epoch from definition.created_at)::text,
        'updated_at', extract(epoch from definition.updated_at)::text
      ) order by definition.job_type), '[]')
    )
    from runledger.job_definitions as definition
    where definition.job_type in (select jsonb_array_elements_text(job_types))
  );
end
$fn$;

revoke all on function runledger.set_job_definitions_enabled(jsonb, boolean, jsonb) from public;
`,
  },
  {
    version: 7,
    name: "claim_and_settle",
    sql: `\
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
`,
  },
  {
    version: 8,
    name: "operators",
    sql: `\
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
`,
  },
  {
    version: 9,
    name: "comments",
    sql: `\
-- purpose: what everything in the schema is, for \\d+ and \\df+
-- locks: share update exclusive on each table and view, for an instant
-- rewrites: nothing
-- breaking: no

comment on table runledger.migration_history is
  'What migrations were applied. Written by migrate() only.';
comment on column runledger.migration_history.version is 'Number of the file.';
comment on column runledger.migration_history.name is 'Name of the file.';
comment on column runledger.migration_history.checksum is 'SHA-256 of the file as it was applied, in hexadecimal.';
comment on column runledger.migration_history.is_breaking is 'Whether older releases of the library can no longer work with the schema.';
comment on column runledger.migration_history.applied_at is 'When it was applied.';

comment on table runledger.job_definitions is
  'Job types: the defaults of their jobs, and whether new ones may be enqueued.';
comment on column runledger.job_definitions.job_type is 'The type.';
comment on column runledger.job_definitions.version is 'Version of the definition, for people.';
comment on column runledger.job_definitions.max_attempts is 'How many attempts a run may take, unless the request says otherwise.';
comment on column runledger.job_definitions.timeout_seconds is 'How long an attempt may take, unless the request says otherwise.';
comment on column runledger.job_definitions.priority is 'How urgent jobs are, higher first, unless the request says otherwise.';
comment on column runledger.job_definitions.is_enabled is 'Whether new jobs may be enqueued. Those that are queued still run.';
comment on column runledger.job_definitions.created_at is 'When it was first stored.';
comment on column runledger.job_definitions.updated_at is 'When it last changed.';

comment on table runledger.job_queue is
  'Jobs as they stand: one row each. What happened to them is in job_events; runledger.jobs has the same in words.';
comment on column runledger.job_queue.id is 'The job: a UUIDv7, so ids sort by the time at which they were made. The job of a workflow step has the step''s id.';
comment on column runledger.job_queue.job_type is 'Its type.';
comment on column runledger.job_queue.organization_id is 'Whose it is; null for nobody''s.';
comment on column runledger.job_queue.status is 'PENDING: waits. LEASED: a worker has it. SUCCEEDED, DEAD_LETTERED (failed for good), CANCELED: ended.';
comment on column runledger.job_queue.stage is 'How far it has come, for people: queued, scheduled, running or completed.';
comment on column runledger.job_queue.priority is 'How urgent it is; higher goes first.';
comment on column runledger.job_queue.next_run_at is 'When it is or was due.';
comment on column runledger.job_queue.run_number is 'Its run, from 1: one more after each continuation and requeue.';
comment on column runledger.job_queue.attempt is 'The newest attempt of the run; 0 before the first claim.';
comment on column runledger.job_queue.max_attempts is 'How many attempts a run may take.';
comment on column runledger.job_queue.timeout_seconds is 'How long an attempt may take.';
comment on column runledger.job_queue.event_seq is 'How many events its ledger has.';
comment on column runledger.job_queue.lease_token is 'Proof of the lease; null unless leased.';
comment on column runledger.job_queue.lease_expires_at is 'Until when it is leased. Of a cancelled job: until when its handler may still be at work.';
comment on column runledger.job_queue.last_heartbeat_at is 'When its worker last gave a sign of life, while it is leased.';
comment on column runledger.job_queue.started_at is 'When the run was first claimed.';
comment on column runledger.job_queue.finished_at is 'When it ended.';
comment on column runledger.job_queue.created_at is 'When it was enqueued; of a workflow step, when the step was released.';
comment on column runledger.job_queue.progress_done is 'Units done, as the handler reports.';
comment on column runledger.job_queue.progress_total is 'Units in all, as the handler reports.';
comment on column runledger.job_queue.workflow_run_id is 'The workflow run of the step that it carries out.';
comment on column runledger.job_queue.replay_of_job_id is 'The job that it replays.';
comment on column runledger.job_queue.replay_of_run_number is 'The run of that job.';
comment on column runledger.job_queue.worker_id is 'Who holds it, while it is leased.';
comment on column runledger.job_queue.traceparent is 'Where it was asked for: W3C Trace Context, for tracing.';
comment on column runledger.job_queue.idempotency_key is 'The producer''s key: unique for each type and organization, for ever.';
comment on column runledger.job_queue.replay_key is 'The operator''s key: a replay is made once for each.';
comment on column runledger.job_queue.status_reason is 'Why it stands where it stands: a kind of failure, or what somebody said.';
comment on column runledger.job_queue.last_error_code is 'Code of its newest failure that is still open.';
comment on column runledger.job_queue.last_error_message is 'Message of that failure.';
comment on column runledger.job_queue.payload is 'What its handler is given: what was enqueued, or what an operator put in its place.';
comment on column runledger.job_queue.checkpoint is 'Where its next attempt goes on.';
comment on column runledger.job_queue.output is 'What it gave, if it succeeded.';
comment on column runledger.job_queue.enqueue_request is 'The request as it was made, to compare with later ones of its key.';

comment on table runledger.job_events is
  'The ledger: one row for everything that ever happened to a job. Append-only. Events add up to the row of job_queue.';
comment on column runledger.job_events.job_id is 'The job.';
comment on column runledger.job_events.seq is 'Its place among the job''s events: 1 to n without gaps.';
comment on column runledger.job_events.run_number is 'The run that it belongs to.';
comment on column runledger.job_events.attempt is 'The attempt that it belongs to; null if to none.';
comment on column runledger.job_events.event_type is 'ENQUEUED, LEASED, HEARTBEAT, PROGRESS, STAGE_CHANGED, SUCCEEDED, FAILED, RETRY_SCHEDULED, DEAD_LETTERED, CANCELED, REQUEUED or EDITED.';
comment on column runledger.job_events.stage is 'The stage after it.';
comment on column runledger.job_events.occurred_at is 'When it was posted, by the database''s clock.';
comment on column runledger.job_events.posted_xid is 'The transaction that posted it, for readers that follow the ledger.';
comment on column runledger.job_events.progress_done is 'Units done, where it tells.';
comment on column runledger.job_events.progress_total is 'Units in all, where it tells.';
comment on column runledger.job_events.payload is 'What else is known; the fields depend on the type.';

comment on table runledger.job_dead_letters is
  'Jobs that failed for good and wait for somebody. A requeue takes the row away.';
comment on column runledger.job_dead_letters.job_id is 'The job.';
comment on column runledger.job_dead_letters.job_type is 'Its type.';
comment on column runledger.job_dead_letters.organization_id is 'Whose it is; null for nobody''s.';
comment on column runledger.job_dead_letters.run_number is 'The run that failed.';
comment on column runledger.job_dead_letters.attempt is 'The attempt that failed last.';
comment on column runledger.job_dead_letters.failure_kind is 'How it failed: RETRYABLE, TERMINAL, TIMEOUT, PANICKED or LEASE_EXPIRED.';
comment on column runledger.job_dead_letters.reason is 'Why no retry followed: FAILURE_KIND_NON_RETRYABLE, ATTEMPTS_EXHAUSTED or LEASE_EXPIRED.';
comment on column runledger.job_dead_letters.error_code is 'Code of the last failure.';
comment on column runledger.job_dead_letters.error_message is 'Message of the last failure.';
comment on column runledger.job_dead_letters.failed_at is 'When it failed for good.';
comment on column runledger.job_dead_letters.payload_snapshot is 'The payload that it failed with.';
comment on column runledger.job_dead_letters.checkpoint_snapshot is 'The checkpoint that it failed with.';

comment on table runledger.job_logs is
  'Lines that handlers logged.';
comment on column runledger.job_logs.id is 'Place among all lines.';
comment on column runledger.job_logs.job_id is 'The job.';
comment on column runledger.job_logs.run_number is 'The run that wrote it.';
comment on column runledger.job_logs.attempt is 'The attempt that wrote it.';
comment on column runledger.job_logs.level is 'debug, info, warn or error.';
comment on column runledger.job_logs.message is 'What it says.';
comment on column runledger.job_logs.payload is 'More, for programs.';
comment on column runledger.job_logs.occurred_at is 'When it was stored.';

comment on table runledger.job_runtime_configs is
  'One JSON object for each job type that operators may change while workers run.';
comment on column runledger.job_runtime_configs.job_type is 'The type.';
comment on column runledger.job_runtime_configs.schema_version is 'Version of the object''s shape, for the code that reads it.';
comment on column runledger.job_runtime_configs.config is 'The object.';
comment on column runledger.job_runtime_configs.updated_by_user_id is 'Who stored it; opaque to the library.';
comment on column runledger.job_runtime_configs.created_at is 'When it was first stored.';
comment on column runledger.job_runtime_configs.updated_at is 'When it was last stored.';

comment on table runledger.job_schedules is
  'What is enqueued again and again.';
comment on column runledger.job_schedules.id is 'The schedule.';
comment on column runledger.job_schedules.name is 'What it is called; unique across organizations.';
comment on column runledger.job_schedules.job_type is 'The type of its jobs.';
comment on column runledger.job_schedules.organization_id is 'Whose its jobs are; null for nobody''s.';
comment on column runledger.job_schedules.payload_template is 'The payload of its jobs, to which _schedule is added.';
comment on column runledger.job_schedules.cron_expression is 'When it fires.';
comment on column runledger.job_schedules.timezone is 'The IANA zone of the expression.';
comment on column runledger.job_schedules.is_active is 'Whether it fires.';
comment on column runledger.job_schedules.needs_enabled is 'True while it is active, else null: refers to an enabled definition.';
comment on column runledger.job_schedules.next_fire_at is 'The cursor: when it fires next, jitter included. Null: never again.';
comment on column runledger.job_schedules.last_fired_at is 'When it fired last.';
comment on column runledger.job_schedules.max_jitter_seconds is 'Up to how many seconds later it fires than its expression says.';
comment on column runledger.job_schedules.created_at is 'When it was first stored.';
comment on column runledger.job_schedules.updated_at is 'When it was last changed; firing is no change.';

comment on table runledger.operator_actions is
  'What operators did to job types, schedules and workflow runs, which have no ledger of their own. Append-only. What a catalog''s sync does is not in it.';
comment on column runledger.operator_actions.id is 'Place among all actions.';
comment on column runledger.operator_actions.action is 'JOB_TYPE_ENABLED, JOB_TYPE_DISABLED, SCHEDULE_RESUMED, SCHEDULE_PAUSED, SCHEDULE_MOVED, SCHEDULE_RUN, SCHEDULE_DELETED, RUN_CANCELED or RUN_RECOVERED.';
comment on column runledger.operator_actions.subject is 'The job type, the name of the schedule, or the run.';
comment on column runledger.operator_actions.organization_id is 'Whose the schedule or run is; null for nobody''s, and for job types.';
comment on column runledger.operator_actions.reason is 'Why, as the operator said.';
comment on column runledger.operator_actions.actor is 'Who; opaque to the library.';
comment on column runledger.operator_actions.details is 'What else is known: the dates of SCHEDULE_MOVED, the job of SCHEDULE_RUN, the new run of RUN_RECOVERED.';
comment on column runledger.operator_actions.occurred_at is 'When, by the database''s clock.';

comment on table runledger.workflow_runs is
  'Workflow runs as they stand: one row each, which whoever changes the run locks first.';
comment on column runledger.workflow_runs.id is 'The run: a UUIDv7.';
comment on column runledger.workflow_runs.workflow_type is 'Which kind of workflow.';
comment on column runledger.workflow_runs.organization_id is 'Whose it is; null for nobody''s.';
comment on column runledger.workflow_runs.status is 'RUNNING, WAITING_FOR_EXTERNAL (only gates are open), SUCCEEDED, COMPLETED_WITH_ERRORS or CANCELED.';
comment on column runledger.workflow_runs.step_count is 'How many steps it has.';
comment on column runledger.workflow_runs.open_count is 'How many are blocked, queued or running.';
comment on column runledger.workflow_runs.waiting_count is 'How many gates are open.';
comment on column runledger.workflow_runs.unsuccessful_count is 'How many steps failed or were cancelled.';
comment on column runledger.workflow_runs.created_at is 'When it was enqueued.';
comment on column runledger.workflow_runs.finished_at is 'When it ended.';
comment on column runledger.workflow_runs.recovery_of_run_id is 'The run that it recovers.';
comment on column runledger.workflow_runs.traceparent is 'Where it was asked for: W3C Trace Context, for tracing.';
comment on column runledger.workflow_runs.idempotency_key is 'The producer''s key: unique for each type and organization, for ever.';
comment on column runledger.workflow_runs.active_key is 'At most one live run of an organization has it.';
comment on column runledger.workflow_runs.recovery_key is 'The operator''s key: a recovery is made once for each.';
comment on column runledger.workflow_runs.recovery_mode is 'REPLAY (from the start) or RESUME (from the steps that failed).';
comment on column runledger.workflow_runs.status_reason is 'Why it was cancelled.';
comment on column runledger.workflow_runs.enqueue_request is 'The canonical request: metadata, result step, steps and edges.';

comment on table runledger.workflow_steps is
  'Steps of workflow runs: one row each. What a job step does meanwhile is in job_queue, under the same id.';
comment on column runledger.workflow_steps.id is 'The step, and the job that carries it out.';
comment on column runledger.workflow_steps.run_id is 'The run.';
comment on column runledger.workflow_steps.step_key is 'Its name within the run.';
comment on column runledger.workflow_steps.position is 'Its place in an order in which the steps can run, from 1.';
comment on column runledger.workflow_steps.execution_kind is 'JOB, or EXTERNAL for a gate.';
comment on column runledger.workflow_steps.status is 'BLOCKED, WAITING_FOR_EXTERNAL, ENQUEUED (from release to end, also while it runs), SUCCEEDED, FAILED or CANCELED.';
comment on column runledger.workflow_steps.organization_id is 'Whose it is; null for nobody''s.';
comment on column runledger.workflow_steps.priority is 'Priority of its job.';
comment on column runledger.workflow_steps.max_attempts is 'Attempts of its job.';
comment on column runledger.workflow_steps.timeout_seconds is 'Timeout of an attempt of its job.';
comment on column runledger.workflow_steps.dependency_count is 'How many prerequisites it has.';
comment on column runledger.workflow_steps.pending_count is 'How many of them have not ended.';
comment on column runledger.workflow_steps.unsatisfied_count is 'How many of them should have succeeded and did not.';
comment on column runledger.workflow_steps.allows_continuation is 'Whether its handler may go on in a new run.';
comment on column runledger.workflow_steps.released_at is 'When it was queued or opened.';
comment on column runledger.workflow_steps.finished_at is 'When it ended.';
comment on column runledger.workflow_steps.gate_expires_at is 'When an open gate gets its default outcome.';
comment on column runledger.workflow_steps.gate_timeout_ms is 'How long the gate stays open, in milliseconds.';
comment on column runledger.workflow_steps.job_type is 'Type of its job; null for a gate.';
comment on column runledger.workflow_steps.stage is 'Stage that its job begins with.';
comment on column runledger.workflow_steps.gate_outcome is 'The default outcome of the gate.';
comment on column runledger.workflow_steps.status_reason is 'Why it stands where it stands.';
comment on column runledger.workflow_steps.last_error_code is 'Code of its failure.';
comment on column runledger.workflow_steps.last_error_message is 'Message of its failure.';
comment on column runledger.workflow_steps.payload is 'What it was given.';
comment on column runledger.workflow_steps.gate_output is 'What the gate gives by default.';
comment on column runledger.workflow_steps.output is 'What a gate was completed with, or what a recovered run took over. The output of a job step is with its job.';

comment on table runledger.workflow_step_dependencies is
  'Edges of workflow runs.';
comment on column runledger.workflow_step_dependencies.prerequisite_step_id is 'The step that has to end first.';
comment on column runledger.workflow_step_dependencies.dependent_step_id is 'The step that waits.';
comment on column runledger.workflow_step_dependencies.release_mode is 'ON_SUCCESS: it has to succeed. ON_TERMINAL: it has to end.';

comment on table runledger.workflow_run_mutations is
  'What was done to a run after it was enqueued.';
comment on column runledger.workflow_run_mutations.run_id is 'The run.';
comment on column runledger.workflow_run_mutations.mutation_key is 'The key under which it was done, once.';
comment on column runledger.workflow_run_mutations.mutation_kind is 'APPEND_STEPS.';
comment on column runledger.workflow_run_mutations.occurred_at is 'When.';
comment on column runledger.workflow_run_mutations.metadata is 'What the caller kept with it.';
comment on column runledger.workflow_run_mutations.request is 'What was asked for, in canonical form.';

comment on view runledger.job_attempts is
  'Attempts of jobs, read from the ledger. Ask for one job_id: without it the whole ledger is read.';
comment on column runledger.job_attempts.job_id is 'The job.';
comment on column runledger.job_attempts.seq is 'The event that began it.';
comment on column runledger.job_attempts.run_number is 'The run that it belongs to.';
comment on column runledger.job_attempts.attempt is 'Its number within the run, from 1.';
comment on column runledger.job_attempts.worker_id is 'Who made it.';
comment on column runledger.job_attempts.leased_at is 'When it began.';
comment on column runledger.job_attempts.finished_at is 'When it ended.';
comment on column runledger.job_attempts.closed_by is 'The event that ended it: SUCCEEDED, FAILED, CANCELED or REQUEUED.';
comment on column runledger.job_attempts.outcome is 'The kind of failure.';
comment on column runledger.job_attempts.error_code is 'Code of the failure.';
comment on column runledger.job_attempts.error_message is 'Message of the failure.';
comment on column runledger.job_attempts.retry_delay_ms is 'Delay of the retry policy, if a retry follows.';
comment on column runledger.job_attempts.next_run_at is 'When the retry was due.';

comment on view runledger.workflow_step_runs is
  'Steps of workflow runs, with what their jobs do. Ask for one run_id, or for few: without it all steps are read.';
comment on column runledger.workflow_step_runs.run_id is 'The run.';
comment on column runledger.workflow_step_runs.workflow is 'Its type.';
comment on column runledger.workflow_step_runs.step is 'The step''s name.';
comment on column runledger.workflow_step_runs.position is 'Its place in the run, from 1.';
comment on column runledger.workflow_step_runs.step_count is 'How many steps the run has.';
comment on column runledger.workflow_step_runs.status is 'Where the step stands, RUNNING included.';
comment on column runledger.workflow_step_runs.posted_at is 'When it got there.';
comment on column runledger.workflow_step_runs.duration is 'How long it took, from the first claim or the opening of the gate.';
comment on column runledger.workflow_step_runs.attempt is 'The newest attempt of its job.';
comment on column runledger.workflow_step_runs.error_code is 'Code of its failure.';
comment on column runledger.workflow_step_runs.reason is 'Why it stands where it stands.';
comment on column runledger.workflow_step_runs.organization_id is 'Whose run it is; null for nobody''s.';
comment on column runledger.workflow_step_runs.run_status is 'Where the run stands.';
comment on column runledger.workflow_step_runs.step_id is 'The step, and its job.';

comment on view runledger.jobs is
  'Jobs in words. For the newest: order by job_id desc limit 20. Filters that no index serves read the whole table; listJobs() of the library does not.';
comment on column runledger.jobs.job_id is 'The job.';
comment on column runledger.jobs.job_type is 'Its type.';
comment on column runledger.jobs.status is 'Where it stands, as stored.';
comment on column runledger.jobs.state is 'Where it stands, in words.';
comment on column runledger.jobs.why is 'Why it waits, who has it, how it failed.';
comment on column runledger.jobs.organization_id is 'Whose it is; null for nobody''s.';
comment on column runledger.jobs.priority is 'How urgent it is; higher goes first.';
comment on column runledger.jobs.run_number is 'Its run, from 1.';
comment on column runledger.jobs.attempt is 'The newest attempt of the run; 0 before the first claim.';
comment on column runledger.jobs.max_attempts is 'How many attempts a run may take.';
comment on column runledger.jobs.created_at is 'When it was enqueued.';
comment on column runledger.jobs.next_run_at is 'When it is or was due.';
comment on column runledger.jobs.started_at is 'When the run was first claimed.';
comment on column runledger.jobs.finished_at is 'When it ended.';
comment on column runledger.jobs.worker_id is 'Who holds it.';
comment on column runledger.jobs.lease_expires_at is 'Until when it is held; of a cancelled job, until when its handler may be at work.';
comment on column runledger.jobs.progress_done is 'Units done.';
comment on column runledger.jobs.progress_total is 'Units in all.';
comment on column runledger.jobs.last_error_code is 'Code of its newest failure that is still open.';
comment on column runledger.jobs.last_error_message is 'Message of that failure.';
comment on column runledger.jobs.workflow_run_id is 'The workflow run that it belongs to.';
comment on column runledger.jobs.replay_of_job_id is 'The job that it replays.';
comment on column runledger.jobs.idempotency_key is 'The producer''s key.';
comment on column runledger.jobs.payload is 'What was enqueued.';
comment on column runledger.jobs.checkpoint is 'Where its next attempt goes on.';
comment on column runledger.jobs.output is 'What it gave.';

comment on view runledger.job_metrics_rollup is
  'How job types are doing, told by the newest 2000 jobs that ended within a day, and by what waits. Cheap at any size of the tables.';
comment on column runledger.job_metrics_rollup.job_type is 'The type.';
comment on column runledger.job_metrics_rollup.due is 'Jobs that are due and wait for a worker; at least so many unless is_depth_complete.';
comment on column runledger.job_metrics_rollup.scheduled is 'Jobs that wait for their time, retries included; at least so many unless is_depth_complete.';
comment on column runledger.job_metrics_rollup.leased is 'Jobs that are leased.';
comment on column runledger.job_metrics_rollup.leases_run_out is 'Of these, jobs whose lease has run out.';
comment on column runledger.job_metrics_rollup.is_depth_complete is 'Whether all that wait were counted.';
comment on column runledger.job_metrics_rollup.oldest_due_ms is 'How long the job that is due longest has waited.';
comment on column runledger.job_metrics_rollup.oldest_lease_ms is 'How long ago the run of a leased job began, at most.';
comment on column runledger.job_metrics_rollup.sampled_since is 'The jobs that the rest is told of ended at this time or later.';
comment on column runledger.job_metrics_rollup.is_sample_complete is 'Whether these are all of the last day.';
comment on column runledger.job_metrics_rollup.succeeded is 'Jobs that succeeded.';
comment on column runledger.job_metrics_rollup.dead_lettered is 'Jobs that failed for good.';
comment on column runledger.job_metrics_rollup.canceled is 'Jobs that were cancelled.';
comment on column runledger.job_metrics_rollup.ended_per_minute is 'How many jobs ended in a minute, since sampled_since.';
comment on column runledger.job_metrics_rollup.attempts is 'Claims of these jobs.';
comment on column runledger.job_metrics_rollup.retries is 'Failed attempts that were followed by another one.';
comment on column runledger.job_metrics_rollup.timeouts is 'Attempts that took too long.';
comment on column runledger.job_metrics_rollup.lease_expiries is 'Attempts whose worker died or hung.';
comment on column runledger.job_metrics_rollup.panics is 'Attempts that failed in a way that no retry mends.';
comment on column runledger.job_metrics_rollup.continuations is 'Slices after which a handler went on in a new run.';
comment on column runledger.job_metrics_rollup.wait_ms_p50 is 'From being due to being claimed: half took no longer, in milliseconds.';
comment on column runledger.job_metrics_rollup.wait_ms_p95 is 'From being due to being claimed: 95 of 100 took no longer, in milliseconds.';
comment on column runledger.job_metrics_rollup.wait_ms_p99 is 'From being due to being claimed: 99 of 100 took no longer, in milliseconds.';
comment on column runledger.job_metrics_rollup.run_ms_p50 is 'From a claim to the end of its attempt: half took no longer, in milliseconds.';
comment on column runledger.job_metrics_rollup.run_ms_p95 is 'From a claim to the end of its attempt: 95 of 100 took no longer, in milliseconds.';
comment on column runledger.job_metrics_rollup.run_ms_p99 is 'From a claim to the end of its attempt: 99 of 100 took no longer, in milliseconds.';

comment on function runledger.new_id is 'A UUIDv7.';
comment on function runledger.refuse_job_transition is 'Trigger: refuses changes of a job''s status that the state machine does not have.';
comment on function runledger.refuse_workflow_transition is 'Trigger: refuses changes of a run''s or step''s status that the state machine does not have.';
comment on function runledger.refuse_ledger_change is 'Trigger: the ledger and the actions of operators are append-only.';
comment on function runledger.enqueue_jobs is 'Enqueues jobs, all or none. Called by enqueueJobs().';
comment on function runledger.claim_jobs is 'Claims due jobs. Called by claimJobs().';
comment on function runledger.settle_jobs is 'Ends attempts. Called by settleJobs() and reapExpiredLeases().';
comment on function runledger.delete_finished_jobs is 'Retention: the only way out for jobs and their ledger. Called by deleteFinishedJobs().';
comment on function runledger.delete_finished_workflow_runs is 'Retention: the only way out for workflow runs. Called by deleteFinishedWorkflowRuns().';
comment on function runledger.enqueue_workflow_runs is 'Enqueues workflow runs, all or none. Called by enqueueWorkflowRuns().';
comment on function runledger.place_workflow_steps is 'Inserts the steps and edges of runs and releases those that wait for nothing. Part of other functions.';
comment on function runledger.release_workflow_dependents is 'Counts the edges of steps that ended and releases or cancels what waited for them. Part of other functions.';
comment on function runledger.finish_workflow_steps is 'Ends steps whose jobs ended. Part of whatever ends jobs.';
comment on function runledger.cancel_locked_jobs is 'Cancels jobs that the caller has locked. Part of cancelJob() and cancelWorkflowRun().';
comment on function runledger.complete_external_step is 'Completes a gate. Called by completeExternalStep().';
comment on function runledger.expire_workflow_gates is 'Gives gates whose time is over their default outcome. Called by expireWorkflowGates().';
comment on function runledger.cancel_workflow_run is 'Cancels a run with its steps and jobs. Called by cancelWorkflowRun().';
comment on function runledger.append_workflow_steps is 'Appends steps while a gate is open. Called by appendWorkflowSteps().';
comment on function runledger.recover_workflow_run is 'Replays or resumes a run as a new one. Called by recoverWorkflowRun().';
comment on function runledger.set_job_definitions_enabled is 'Switches job types on or off. Called by setJobDefinitionEnabled().';
comment on function runledger.job_metrics is 'How job types are doing. Called by readJobMetrics(); runledger.job_metrics_rollup shows it for everything.';
`,
  },
  {
    version: 10,
    name: "wake_ups",
    sql: `\
-- purpose: waking idle workers when jobs become due
-- locks: none
-- rewrites: nothing
-- breaking: no
--
-- Workers poll; being woken only shortens the wait. NOTIFY takes a lock of the whole database at commit, which would put
-- all commits of a busy system in a row, so whoever makes jobs due notifies only while a worker sleeps that wants them. A
-- worker says that it sleeps here, for a few seconds at a time, so that nothing must be taken back when it dies. What is
-- lost on the way (a worker that fell asleep just now, a connection, this table in a crash) costs one poll.

-- Unlogged: after a crash everybody says it again.
create unlogged table runledger.sleeping_workers (
  worker_id text not null,
  job_types text[] not null,
  sleeps_until timestamptz not null,
  constraint sleeping_workers_pkey primary key (worker_id)
)
-- A few rows that change all the time.
with (fillfactor = 50, autovacuum_vacuum_threshold = 100, autovacuum_vacuum_scale_factor = 0);

-- Says that a worker sleeps and wants these job types, or, without a time, that it is awake.
--
-- Locks: the worker's row; then rows that nobody renews, skipping what others hold. Index: sleeping_workers_pkey; the table is
-- as small as the number of workers.
create function runledger.announce_sleep(sleeper_id text, wanted_types jsonb, sleep_ms integer) returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $fn$
begin
  if sleep_ms is null then
    delete from runledger.sleeping_workers as sleeper
    where sleeper.worker_id = sleeper_id;
    return;
  end if;
  insert into runledger.sleeping_workers as sleeper (worker_id, job_types, sleeps_until)
  values (
    sleeper_id, array(select jsonb_array_elements_text(wanted_types)),
    clock_timestamp() + sleep_ms * interval '1 millisecond'
  )
  on conflict (worker_id) do update
  set job_types = excluded.job_types,
    sleeps_until = excluded.sleeps_until;
  -- Last: whoever waits for his own row, which somebody clears away, must not hold the rows of others.
  delete from runledger.sleeping_workers as sleeper
  where sleeper.worker_id in (
    select gone.worker_id
    from runledger.sleeping_workers as gone
    where gone.sleeps_until < clock_timestamp() - interval '1 minute'
    for update skip locked
  );
end
$fn$;

revoke all on function runledger.announce_sleep(text, jsonb, integer) from public;

-- Wakes the workers that sleep, at the caller's commit.
--
-- wanted_types, settings: what enqueue_jobs has, for the workers that want one of those that are due; null: all workers.
-- Locks: none; the commit of a transaction that notifies takes its turn among all such commits of the database.
create function runledger.wake_workers(wanted_types text[], settings jsonb) returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $fn$
begin
  -- The rule is that nobody sleeps, or that the first one who does wants the job.
  if exists (
    select
    from runledger.sleeping_workers as sleeper
    where sleeper.sleeps_until > clock_timestamp()
      and (
        wanted_types is null or exists (
          select
          from rows from (unnest(wanted_types), jsonb_array_elements(settings)) as given (job_type, setting)
          where coalesce(given.job_type, wanted_types[cardinality(wanted_types)]) = any (sleeper.job_types)
            and coalesce((given.setting ->> 'next_run_at')::timestamptz <= clock_timestamp(), true)
        )
      )
  ) then
    perform pg_notify('runledger_jobs_due', '');
  end if;
end
$fn$;

revoke all on function runledger.wake_workers(text[], jsonb) from public;

comment on table runledger.sleeping_workers is
  'Workers that have nothing to do and want to be woken: who makes jobs due looks here before it notifies.';
comment on column runledger.sleeping_workers.worker_id is 'The worker.';
comment on column runledger.sleeping_workers.job_types is 'What it has handlers for.';
comment on column runledger.sleeping_workers.sleeps_until is 'Until when it is worth waking; it says so again before.';
comment on function runledger.announce_sleep(text, jsonb, integer) is
  'Says that a worker sleeps, or that it is awake. Called by workers.';
comment on function runledger.wake_workers(text[], jsonb) is
  'Wakes the workers that sleep and want one of these jobs. Called by whatever makes jobs due.';
`,
  },
  {
    version: 11,
    name: "job_edits",
    sql: `\
-- purpose: runledger.edit_pending_jobs, which changes jobs while they wait
-- locks: none
-- rewrites: nothing
-- breaking: no
--
-- A function with its owner's rights, so that who may edit payloads through it cannot write them otherwise: not without an
-- event, not while a worker has the job, and not those of workflow steps.

-- Changes when jobs are due, how urgent they are, or their payload, and posts EDITED for each.
--
-- targets: an array of {id, event_seq?}, no id twice; a job that has another event_seq is left as it is. change:
-- {next_run_at?, priority?, payload?}. note: {reason?, actor?}. What idempotency keys stand for is not touched.
-- Returns a row for each target: outcome is edited, unchanged (it is so already), not_found, changed (its event_seq is
-- another one, or became so during a wait), workflow_step (only for payloads) or not_applicable (it does not wait).
-- Locks: the jobs that wait, by id; not their keys. Index: job_queue_pkey.
create function runledger.edit_pending_jobs(
  targets jsonb,
  scope_kind text,
  scope_organization_id uuid,
  change jsonb,
  note jsonb
) returns table (job_id uuid, outcome text, status text, event_seq integer)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $fn$
#variable_conflict use_column
begin
  return query
  with asked as materialized (
    select asked.id, asked.event_seq
    from jsonb_to_recordset(targets) as asked (id uuid, event_seq integer)
  ),
  locked as materialized (
    select queue.id, queue.event_seq, queue.next_run_at, queue.priority, queue.payload
    from runledger.job_queue as queue
    where queue.id = any (array(select asked.id from asked))
      and (scope_kind = 'all' or queue.organization_id is not distinct from scope_organization_id)
      and queue.status = 'PENDING'
      and (queue.workflow_run_id is null or not change ? 'payload')
    order by queue.id
    for no key update
  ),
  held as materialized (
    select
      locked.id, locked.event_seq, locked.next_run_at, locked.priority, locked.payload,
      (change ? 'next_run_at' and locked.next_run_at <> (change ->> 'next_run_at')::timestamptz)
      or (change ? 'priority' and locked.priority <> (change ->> 'priority')::integer)
      or (change ? 'payload' and locked.payload <> change -> 'payload') as differs
    from locked
    join asked on asked.id = locked.id
    where asked.event_seq is null
      or asked.event_seq = locked.event_seq
  ),
  edited as (
    update runledger.job_queue as queue
    set next_run_at = case
        when change ? 'next_run_at' then (change ->> 'next_run_at')::timestamptz
        else queue.next_run_at
      end,
      priority = case when change ? 'priority' then (change ->> 'priority')::integer else queue.priority end,
      payload = case when change ? 'payload' then change -> 'payload' else queue.payload end,
      event_seq = queue.event_seq + 1
    from held
    where queue.id = held.id
      and queue.id = any (array(select held.id from held where held.differs))
    returning
      queue.id, queue.event_seq, queue.run_number, queue.attempt, queue.next_run_at, queue.priority,
      held.next_run_at as previous_next_run_at, held.priority as previous_priority, held.payload as previous_payload
  ),
  posted as (
    insert into runledger.job_events (job_id, seq, run_number, attempt, event_type, payload)
    select
      edited.id, edited.event_seq, edited.run_number, nullif(edited.attempt, 0), 'EDITED',
      note
      || jsonb_build_object('replaces_payload', change ? 'payload')
      || case
        when change ? 'next_run_at' then
          jsonb_build_object('next_run_at', edited.next_run_at, 'previous_next_run_at', edited.previous_next_run_at)
        else '{}'
      end
      || case
        when change ? 'priority' then
          jsonb_build_object('priority', edited.priority, 'previous_priority', edited.previous_priority)
        else '{}'
      end
      || case
        when change ? 'payload' then jsonb_build_object('previous_payload', edited.previous_payload)
        else '{}'
      end
    from edited
  )
  select
    asked.id,
    case
      when edited.id is not null then 'edited'
      when held.id is not null then 'unchanged'
      when queue.id is null then 'not_found'
      when asked.event_seq <> coalesce(locked.event_seq, queue.event_seq) then 'changed'
      when queue.workflow_run_id is not null and change ? 'payload' then 'workflow_step'
      when queue.status <> 'PENDING' then 'not_applicable'
      else 'changed'
    end,
    queue.status,
    coalesce(edited.event_seq, locked.event_seq, queue.event_seq)
  from asked
  left join runledger.job_queue as queue
    on queue.id = asked.id
    -- Said twice: a table that was never analyzed is then still read by its key.
    and queue.id = any (array(select asked.id from asked))
    and (scope_kind = 'all' or queue.organization_id is not distinct from scope_organization_id)
  left join locked on locked.id = asked.id
  left join held on held.id = asked.id
  left join edited on edited.id = asked.id;
end
$fn$;

revoke all on function runledger.edit_pending_jobs(jsonb, text, uuid, jsonb, jsonb) from public;

comment on function runledger.edit_pending_jobs(jsonb, text, uuid, jsonb, jsonb) is
  'Changes jobs while they wait. Called by editJob() and editJobs().';
`,
  },
];
