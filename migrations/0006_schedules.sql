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
  constraint job_schedules_name_check check (name ~ '\S' and octet_length(name) <= 255),
  constraint job_schedules_cron_expression_check
    check (cron_expression ~ '\S' and octet_length(cron_expression) <= 1000),
  constraint job_schedules_timezone_check check (timezone ~ '\S' and octet_length(timezone) <= 255),
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
