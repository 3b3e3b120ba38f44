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
