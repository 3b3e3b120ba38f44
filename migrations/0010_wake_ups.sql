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
