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
  constraint workflow_runs_type_check check (workflow_type ~ '\S'),
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
    (idempotency_key ~ '\S' and octet_length(idempotency_key) <= 512) is not false
    and (active_key ~ '\S' and octet_length(active_key) <= 512) is not false
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
  constraint workflow_run_mutations_key_check check (mutation_key ~ '\S' and octet_length(mutation_key) <= 512)
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
