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
