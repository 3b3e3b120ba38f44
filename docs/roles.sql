-- Roles of Runledger: four groups without login, each with no more than its work takes. See docs/security.md.
--
--   runledger_owner     owns the schema and everything in it; used to migrate and by no running process
--   runledger_enqueue   enqueues jobs and workflow runs by calling two functions, and sees nothing at all
--   runledger_worker    claims, settles, reaps, fires schedules, writes logs, stores definitions and schedules, enqueues
--   runledger_operator  reads everything; cancels, requeues, replays, edits what waits, completes gates, switches types and
--                       schedules on and off, runs schedules and retention
--
-- Run it in the database after every migration, as a superuser or as the role that migrated and has CREATEROLE. It may run
-- again at any time, and is all or nothing. Then grant a group to a login: grant runledger_worker to my_worker;

begin;

do $do$
declare
  group_role text;
begin
  foreach group_role in array array['runledger_owner', 'runledger_enqueue', 'runledger_worker', 'runledger_operator'] loop
    begin
      if to_regrole(group_role) is null then
        execute format('create role %I nologin', group_role);
      end if;
    exception
      -- Roles belong to the whole server: the same script may be running in another database.
      when duplicate_object or unique_violation then null;
    end;
  end loop;
  -- To give something away one must be a member of the group that takes it. Superusers are members of all.
  if not pg_has_role('runledger_owner', 'usage') then
    execute format('grant runledger_owner to %I', current_user);
  end if;
end
$do$;

-- Ownership. A function that runs with its owner's rights must not run with those of a superuser who migrated.
do $do$
declare
  relation record;
  routine record;
begin
  if to_regnamespace('runledger') is null then
    create schema runledger;
  end if;
  alter schema runledger owner to runledger_owner;
  for relation in
    select class.oid::regclass as name, class.relkind
    from pg_catalog.pg_class as class
    where class.relnamespace = 'runledger'::regnamespace
      and class.relkind in ('r', 'p', 'v', 'm')
      and class.relowner <> 'runledger_owner'::regrole
  loop
    execute format(
      'alter %s %s owner to runledger_owner',
      case relation.relkind when 'v' then 'view' when 'm' then 'materialized view' else 'table' end, relation.name
    );
  end loop;
  for routine in
    select proc.oid::regprocedure as name
    from pg_catalog.pg_proc as proc
    where proc.pronamespace = 'runledger'::regnamespace
      and proc.proowner <> 'runledger_owner'::regrole
  loop
    execute format('alter routine %s owner to runledger_owner', routine.name);
  end loop;
end
$do$;

-- From nothing: what an older version of this script granted goes too.
revoke all on schema runledger from public, runledger_enqueue, runledger_worker, runledger_operator;
revoke all on all tables in schema runledger from public, runledger_enqueue, runledger_worker, runledger_operator;
revoke all on all sequences in schema runledger from public, runledger_enqueue, runledger_worker, runledger_operator;
revoke all on all routines in schema runledger from public, runledger_enqueue, runledger_worker, runledger_operator;

grant usage on schema runledger to runledger_enqueue, runledger_worker, runledger_operator;

-- A schema that was never migrated has nothing to grant on: migrate as a member of runledger_owner and run this again.
do $do$
begin
  if to_regclass('runledger.job_queue') is null then
    return;
  end if;

  -- runledger_enqueue
  grant
    execute on function runledger.enqueue_jobs(uuid[], text[], jsonb, jsonb), runledger.enqueue_workflow_runs(jsonb)
  to runledger_enqueue;

  -- runledger_worker
  grant
    execute on function
      runledger.new_id(),
      runledger.enqueue_jobs(uuid[], text[], jsonb, jsonb),
      runledger.enqueue_workflow_runs(jsonb),
      runledger.append_workflow_steps(uuid, text, uuid, text, jsonb, jsonb, jsonb),
      runledger.expire_workflow_gates(integer),
      runledger.finish_workflow_steps(jsonb, boolean),
      runledger.cancel_locked_jobs(uuid[], jsonb),
      runledger.announce_sleep(text, jsonb, integer),
      runledger.claim_jobs(jsonb, integer, integer, text, integer, uuid, jsonb, boolean),
      runledger.settle_jobs(uuid[], integer[], integer[], uuid[], uuid[], text[], jsonb[], boolean, boolean)
  to runledger_worker;
  grant select on runledger.migration_history to runledger_worker;
  grant select on runledger.job_definitions, runledger.job_runtime_configs to runledger_worker;
  -- Not is_enabled: what an operator paused stays paused.
  grant
    insert (job_type, version, max_attempts, timeout_seconds, priority),
    update (version, max_attempts, timeout_seconds, priority, updated_at)
  on runledger.job_definitions to runledger_worker;
  -- Not is_active, nor whose a schedule is, once it is there.
  grant
    select,
    insert (
      id, name, job_type, organization_id, payload_template, cron_expression, timezone, is_active, next_fire_at,
      max_jitter_seconds
    ),
    update (
      job_type, payload_template, cron_expression, timezone, next_fire_at, last_fired_at, max_jitter_seconds, updated_at
    )
  on runledger.job_schedules to runledger_worker;
  -- Not the keys and requests of producers, and nothing of what was asked for can be changed.
  grant
    select (
      id, job_type, organization_id, status, stage, priority, next_run_at, run_number, attempt, max_attempts,
      timeout_seconds, event_seq, lease_token, lease_expires_at, last_heartbeat_at, started_at, finished_at, created_at,
      progress_done, progress_total, worker_id, status_reason, last_error_code, last_error_message, payload, checkpoint,
      output, workflow_run_id, traceparent, ctid
    ),
    update (
      status, stage, next_run_at, run_number, attempt, event_seq, lease_token, lease_expires_at, last_heartbeat_at,
      started_at, finished_at, progress_done, progress_total, worker_id, status_reason, last_error_code,
      last_error_message, checkpoint, output
    )
  on runledger.job_queue to runledger_worker;
  -- Time and transaction of an event are the database's word: neither can be given.
  grant
    select (job_id, seq, event_type),
    insert (job_id, seq, run_number, attempt, event_type, stage, progress_done, progress_total, payload)
  on runledger.job_events to runledger_worker;
  grant insert on runledger.job_dead_letters to runledger_worker;
  grant select (id), insert (job_id, run_number, attempt, level, message, payload)
  on runledger.job_logs to runledger_worker;
  grant
    select (id, run_id, step_key, status, output, allows_continuation)
  on runledger.workflow_steps to runledger_worker;
  grant select on runledger.workflow_step_dependencies to runledger_worker;
  -- Locking a row takes the right to change some column of it: this one is for people.
  grant
    select (id, organization_id, status, traceparent), update (status_reason)
  on runledger.workflow_runs to runledger_worker;

  -- runledger_operator
  grant select on all tables in schema runledger to runledger_operator;
  grant update (status_reason) on runledger.workflow_runs to runledger_operator;
  grant
    execute on function
      runledger.new_id(),
      runledger.job_metrics(text, uuid, text, timestamptz, integer),
      runledger.set_job_definitions_enabled(jsonb, boolean, jsonb),
      runledger.edit_pending_jobs(jsonb, text, uuid, jsonb, jsonb),
      runledger.delete_finished_jobs(jsonb, interval, integer, boolean),
      runledger.delete_finished_workflow_runs(interval, integer, boolean),
      runledger.append_workflow_steps(uuid, text, uuid, text, jsonb, jsonb, jsonb),
      runledger.cancel_workflow_run(uuid, text, uuid, jsonb),
      runledger.complete_external_step(uuid, text, uuid, text, text, text, text, text, jsonb),
      runledger.expire_workflow_gates(integer),
      runledger.recover_workflow_run(uuid, text, uuid, uuid, text, text, jsonb),
      runledger.finish_workflow_steps(jsonb, boolean),
      runledger.cancel_locked_jobs(uuid[], jsonb)
  to runledger_operator;
  grant
    insert (
      id, job_type, organization_id, stage, priority, next_run_at, max_attempts, timeout_seconds, payload,
      replay_of_job_id, replay_of_run_number, replay_key
    ),
    update (
      status, stage, next_run_at, run_number, attempt, event_seq, lease_token, lease_expires_at, last_heartbeat_at,
      started_at, finished_at, progress_done, progress_total, worker_id, status_reason, last_error_code,
      last_error_message, checkpoint
    )
  on runledger.job_queue to runledger_operator;
  grant insert (job_id, seq, run_number, attempt, event_type, stage, progress_done, progress_total, payload)
  on runledger.job_events to runledger_operator;
  grant delete on runledger.job_dead_letters to runledger_operator;
  grant update (is_enabled, updated_at) on runledger.job_definitions to runledger_operator;
  -- Time and id of an action are the database's word.
  grant insert (action, subject, organization_id, reason, actor, details) on runledger.operator_actions
  to runledger_operator;
  grant update (is_active, next_fire_at, updated_at), delete on runledger.job_schedules to runledger_operator;
  grant
    insert (job_type, schema_version, config, updated_by_user_id),
    update (schema_version, config, updated_by_user_id, updated_at)
  on runledger.job_runtime_configs to runledger_operator;
end
$do$;

commit;
