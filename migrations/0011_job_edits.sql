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
