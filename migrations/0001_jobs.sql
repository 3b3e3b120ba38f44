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
  constraint job_definitions_job_type_check check (job_type ~ '\S' and octet_length(job_type) <= 255),
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
    or (enqueue_request is not null and idempotency_key ~ '\S' and octet_length(idempotency_key) <= 512)
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
  constraint job_logs_message_check check (message ~ '\S')
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
