/**
 * Makes a database as large as operators meet them, in SQL alone: `deno run -A bench/operator_data.ts [jobs]` fills the
 * empty one of DATABASE_URL, a million jobs by default, with a tenth as many workflow runs and five times as many events.
 *
 * Everything is as the library would have left it: each ledger replays to its job, each counter equals its recount. Jobs
 * came in over the last 30 days, of 40 types and half of them of 200 organizations, few with many jobs. 3 in 100 wait,
 * 1 in 100 failed for good, 1 in 200 was cancelled, 1 in 8 was tried again, 1 in 2000 is leased, some of them to nobody.
 *
 * @module
 */

import { migrate } from "@runledger/postgres";
import process from "node:process";
import postgres from "postgres";

/** What there is after filling. */
export interface OperatorData {
  readonly jobs: number;
  readonly events: number;
  readonly runs: number;
  readonly seconds: number;
}

const PREPARE = `
create function pg_temp.id_at(at timestamptz, number bigint) returns uuid
language sql immutable
return (
  lpad(to_hex(floor(extract(epoch from at) * 1000)::bigint), 12, '0') || '7' || substr(md5(number::text), 1, 3)
  || '8' || substr(md5(number::text), 4, 15)
)::uuid;

-- A number from 0 to 9999 that has nothing to do with its neighbours.
create function pg_temp.dice(number bigint, salt integer) returns integer
language sql immutable
return ((hashint8extended(number, salt) & 2147483647) % 10000)::integer;

create function pg_temp.organization_of(number bigint) returns uuid
language sql immutable
return case
  when pg_temp.dice(number, 1) < 5000
    then ('00000000-0000-7000-8000-' || lpad(to_hex((power(pg_temp.dice(number, 2) / 10000.0, 3) * 200)::integer), 12, '0'))::uuid
end`;

const DEFINITIONS = `
insert into runledger.job_definitions (job_type, max_attempts, is_enabled)
select 'app.type_' || lpad(number::text, 2, '0'), 3, number <> 39
from generate_series(0, 39) as number;

insert into runledger.job_runtime_configs (job_type, schema_version, config)
select definition.job_type, 1, '{"batch": 10}'
from runledger.job_definitions as definition
where definition.job_type like 'app.type_%';

insert into runledger.job_schedules (
  id, name, job_type, organization_id, payload_template, cron_expression, is_active, next_fire_at
)
select
  runledger.new_id(), 'report ' || lpad(number::text, 6, '0'), 'app.type_' || lpad((number % 39)::text, 2, '0'),
  pg_temp.organization_of(number), '{}', '0 6 * * *', number % 10 <> 0, now() + number * interval '1 second'
from generate_series(1, 5000) as number`;

/** Chains of four steps; $1 runs. */
const RUNS = `
create temp table planned_runs as
select
  number, made.at as made_at, pg_temp.id_at(made.at, number * 10) as id, pg_temp.organization_of(number) as organization_id,
  case
    when pg_temp.dice(number, 3) < 100 then 'RUNNING'
    when pg_temp.dice(number, 3) < 200 then 'WAITING_FOR_EXTERNAL'
    when pg_temp.dice(number, 3) < 500 then 'COMPLETED_WITH_ERRORS'
    when pg_temp.dice(number, 3) < 600 then 'CANCELED'
    else 'SUCCEEDED'
  end as status
from generate_series(1, $1::integer) as number
cross join lateral (select now() - interval '30 days' * (1 - number / ($1::integer + 1.0)) as at) as made;

create temp table planned_steps as
select
  run.number, run.id as run_id, run.organization_id, run.made_at, run.status as run_status, position,
  pg_temp.id_at(run.made_at, run.number * 10 + position) as id,
  run.status = 'WAITING_FOR_EXTERNAL' and position = 4 as is_gate,
  case run.status
    when 'RUNNING' then (array['SUCCEEDED', 'ENQUEUED', 'BLOCKED', 'BLOCKED'])[position]
    when 'WAITING_FOR_EXTERNAL' then (array['SUCCEEDED', 'SUCCEEDED', 'SUCCEEDED', 'WAITING_FOR_EXTERNAL'])[position]
    when 'COMPLETED_WITH_ERRORS' then (array['SUCCEEDED', 'FAILED', 'CANCELED', 'CANCELED'])[position]
    when 'CANCELED' then (array['SUCCEEDED', 'CANCELED', 'CANCELED', 'CANCELED'])[position]
    else 'SUCCEEDED'
  end as status
from planned_runs as run
cross join generate_series(1, 4) as position;

insert into runledger.workflow_runs (
  id, workflow_type, organization_id, status, step_count, open_count, waiting_count, unsuccessful_count, created_at,
  finished_at, idempotency_key, enqueue_request
)
select
  run.id, 'app.flow_' || pg_temp.dice(run.number, 4) % 20, run.organization_id, run.status, 4,
  case run.status when 'RUNNING' then 3 else 0 end,
  case run.status when 'WAITING_FOR_EXTERNAL' then 1 else 0 end,
  case run.status when 'COMPLETED_WITH_ERRORS' then 3 when 'CANCELED' then 3 else 0 end,
  run.made_at,
  case when run.status not in ('RUNNING', 'WAITING_FOR_EXTERNAL') then run.made_at + interval '2 minutes' end,
  case when run.number % 2 = 0 then 'order:' || run.number end,
  '{"metadata": {"source": "bench"}, "steps": []}'
from planned_runs as run;

insert into runledger.workflow_steps (
  id, run_id, step_key, position, execution_kind, status, organization_id, priority, max_attempts, timeout_seconds,
  dependency_count, pending_count, unsatisfied_count, released_at, finished_at, job_type, stage, payload, status_reason,
  last_error_code
)
select
  step.id, step.run_id, 'step_' || step.position, step.position, case when step.is_gate then 'EXTERNAL' else 'JOB' end,
  step.status, step.organization_id, case when not step.is_gate then 0 end, case when not step.is_gate then 3 end,
  case when not step.is_gate then 300 end, (step.position > 1)::integer, (step.status = 'BLOCKED')::integer,
  (step.run_status = 'COMPLETED_WITH_ERRORS' and step.position > 2)::integer,
  case
    when step.status <> 'BLOCKED' and not (step.status = 'CANCELED' and step.position > 2)
      then step.made_at + (step.position - 1) * interval '30 seconds'
  end,
  case
    when step.status in ('SUCCEEDED', 'FAILED', 'CANCELED') then step.made_at + step.position * interval '30 seconds'
  end,
  case when not step.is_gate then 'app.type_' || lpad((step.number % 20)::text, 2, '0') end,
  case when not step.is_gate then 'queued' end, '{"n": 1}',
  case when step.status = 'CANCELED' then 'CANCELED' end,
  case when step.status = 'FAILED' then 'app.error_1' end
from planned_steps as step;

insert into runledger.workflow_step_dependencies (prerequisite_step_id, dependent_step_id, release_mode)
select prerequisite.id, dependent.id, 'ON_SUCCESS'
from planned_steps as dependent
join planned_steps as prerequisite
  on prerequisite.run_id = dependent.run_id and prerequisite.position = dependent.position - 1;

insert into runledger.workflow_run_mutations (run_id, mutation_key, mutation_kind, request)
select run.id, 'more', 'APPEND_STEPS', '{"steps": []}'
from planned_runs as run
where run.number % 100 = 0`;

/** The jobs of the steps, and as many others as make $1 in all, in the order of time. */
const JOBS = `
create temp table planned_jobs as
select
  step.number * 10 + step.position as number, step.id, step.made_at + (step.position - 1) * interval '30 seconds' as made_at,
  step.run_id, step.organization_id, 'app.type_' || lpad((step.number % 20)::text, 2, '0') as job_type,
  case step.status when 'ENQUEUED' then 'PENDING' when 'FAILED' then 'DEAD_LETTERED' else step.status end as status
from planned_steps as step
where not step.is_gate
  and step.status <> 'BLOCKED'
  and not (step.status = 'CANCELED' and step.position > 2);

insert into planned_jobs
select
  number, pg_temp.id_at(made.at, number), made.at, null, pg_temp.organization_of(number),
  'app.type_' || lpad((power(pg_temp.dice(number, 5) / 10000.0, 2) * 40)::integer % 40 || '', 2, '0'),
  case
    when pg_temp.dice(number, 6) < 100 then 'DEAD_LETTERED'
    when pg_temp.dice(number, 6) < 150 then 'CANCELED'
    when pg_temp.dice(number, 6) < 160 then 'PENDING'
    -- What came in last has not been worked off.
    when made.at > now() - interval '18 hours' and number % 1000 = 0 then 'LEASED'
    when made.at > now() - interval '18 hours' then 'PENDING'
    else 'SUCCEEDED'
  end
from (
  select 100000000 + generate_series as number, generate_series as place, $1::integer - planned.count as total
  from (select count(*)::integer as count from planned_jobs) as planned
  cross join generate_series(1, $1::integer - planned.count)
) as direct
cross join lateral (select now() - interval '30 days' * (1 - direct.place / (direct.total + 1.0)) as at) as made;

insert into runledger.job_queue (
  id, job_type, organization_id, status, stage, priority, next_run_at, attempt, max_attempts, timeout_seconds, event_seq,
  lease_token, lease_expires_at, last_heartbeat_at, started_at, finished_at, created_at, progress_done, progress_total,
  workflow_run_id, worker_id, idempotency_key, status_reason, last_error_code, last_error_message, payload, output,
  enqueue_request
)
select
  job.id, job.job_type, job.organization_id, job.status,
  case job.status
    when 'SUCCEEDED' then 'completed'
    when 'PENDING' then 'queued'
    else case when story.attempt > 0 then 'running' else 'queued' end
  end,
  pg_temp.dice(job.number, 7) % 3,
  case when job.status = 'PENDING' and job.number % 4 = 0 then now() + interval '1 day' else job.made_at end,
  story.attempt, 3, 300, 1 + 3 * story.failures + story.progress + story.ending,
  case when job.status = 'LEASED' then gen_random_uuid() end,
  case when job.status = 'LEASED' then now() + interval '1 minute' * (job.number % 7000 / 1000 - 1) end,
  case when job.status = 'LEASED' then now() end,
  case when story.attempt > 0 then job.made_at + story.wait end,
  case
    when job.status in ('SUCCEEDED', 'DEAD_LETTERED', 'CANCELED') then job.made_at + story.wait + story.run
  end,
  job.made_at, nullif(story.progress, 0), case when story.progress > 0 then 10 end, job.run_id,
  case when job.status = 'LEASED' then 'worker-' || job.number % 8 end,
  story.idempotency_key,
  case
    when job.status = 'SUCCEEDED' then null
    when job.status = 'CANCELED' then 'CANCELED'
    else story.failure_kind
  end,
  case when job.status <> 'SUCCEEDED' and story.failure_kind is not null then story.error_code end,
  case when job.status <> 'SUCCEEDED' and story.failure_kind is not null then 'it did not go well' end,
  '{"customer": "c-1", "amount": 12.5}', case when job.status = 'SUCCEEDED' then '{"ok": true}'::jsonb end,
  case when story.idempotency_key is not null then '{}'::jsonb end
from planned_jobs as job
cross join lateral (
  select
    case
      when job.status = 'PENDING' then (pg_temp.dice(job.number, 8) < 1250)::integer
      when job.status = 'CANCELED' then 0
      when job.status = 'DEAD_LETTERED' then case when pg_temp.dice(job.number, 9) < 5000 then 1 else 3 end
      else 1 + (pg_temp.dice(job.number, 8) < 1250)::integer
    end as attempt
) as tried
cross join lateral (
  select
    tried.attempt,
    case when job.status = 'PENDING' then tried.attempt else greatest(tried.attempt - 1, 0) end as failures,
    case when job.status in ('PENDING', 'CANCELED') then 0 else 1 + (job.number % 4 <> 0)::integer end as progress,
    case job.status
      when 'SUCCEEDED' then 2 when 'CANCELED' then 1 when 'DEAD_LETTERED' then 3 when 'LEASED' then 1 else 0
    end as ending,
    case
      when job.status = 'DEAD_LETTERED' and tried.attempt = 1 then
        case when pg_temp.dice(job.number, 10) < 2000 then 'PANICKED' else 'TERMINAL' end
      when job.status = 'DEAD_LETTERED' then
        case when pg_temp.dice(job.number, 10) < 3000 then 'LEASE_EXPIRED' else 'RETRYABLE' end
      when job.status = 'CANCELED' then null
      when job.status = 'PENDING' and tried.attempt = 0 then null
      when job.status <> 'PENDING' and tried.attempt = 1 then null
      else 'RETRYABLE'
    end as failure_kind,
    'app.error_' || pg_temp.dice(job.number, 11) % 10 as error_code,
    interval '1 millisecond' * pg_temp.dice(job.number, 12) as wait,
    interval '1 millisecond' * (50 + power(pg_temp.dice(job.number, 13) / 1000.0, 4)) as run,
    case when job.run_id is null and job.number % 3 = 0 then 'invoice:' || job.number end as idempotency_key
) as story
order by job.made_at`;

/** The ledger follows from the jobs. */
const EVENTS = `
insert into runledger.job_events (
  job_id, seq, run_number, attempt, event_type, stage, occurred_at, posted_xid, progress_done, progress_total, payload
)
select
  queue.id, seq, 1,
  case
    when event.event_type = 'ENQUEUED' or queue.attempt = 0 then null
    when seq - 1 <= 3 * told.failures then (seq - 2) / 3 + 1
    else queue.attempt
  end,
  event.event_type,
  case event.event_type
    when 'ENQUEUED' then 'queued' when 'RETRY_SCHEDULED' then 'queued' when 'SUCCEEDED' then 'completed'
    when 'CANCELED' then 'queued' else 'running'
  end,
  case
    when seq = 1 then queue.created_at
    else
      queue.created_at
      + (coalesce(queue.finished_at, queue.started_at, queue.created_at + interval '1 minute') - queue.created_at)
      * (seq::double precision / queue.event_seq)
  end,
  -- As many transactions as there were until now, those of 40 days.
  (
    3 + floor(
      (pg_snapshot_xmin(pg_current_snapshot())::text::bigint - 4)
      * greatest(least(extract(epoch from queue.created_at - now()) / (40 * 86400) + 1, 1), 0)
    )
  )::bigint::text::xid8,
  case event.event_type when 'PROGRESS' then seq - 2 - 3 * told.failures end,
  case event.event_type when 'PROGRESS' then 10 end,
  case event.event_type
    when 'LEASED' then '{"worker_id": "worker-1", "lease_ms": 60000}'::jsonb
    when 'FAILED' then jsonb_build_object(
      'kind', told.failure_kind, 'error_code', told.error_code, 'error_message', 'it did not go well'
    )
    when 'RETRY_SCHEDULED' then jsonb_build_object(
      'kind', told.failure_kind, 'retry_delay_ms', 1000, 'next_run_at', queue.next_run_at
    )
    when 'DEAD_LETTERED' then jsonb_build_object(
      'kind', told.failure_kind, 'error_code', told.error_code, 'reason', case
        when told.failure_kind in ('TERMINAL', 'PANICKED') then 'FAILURE_KIND_NON_RETRYABLE'
        when told.failure_kind = 'LEASE_EXPIRED' then 'LEASE_EXPIRED' else 'ATTEMPTS_EXHAUSTED'
      end
    )
    when 'CANCELED' then '{}'
  end
from runledger.job_queue as queue
cross join lateral (
  select
    case when queue.status = 'PENDING' then queue.attempt else greatest(queue.attempt - 1, 0) end as failures,
    case queue.status when 'SUCCEEDED' then 1 when 'CANCELED' then 1 when 'DEAD_LETTERED' then 2 else 0 end as ending,
    coalesce(queue.status_reason, 'RETRYABLE') as failure_kind, coalesce(queue.last_error_code, 'app.error_0') as error_code
) as told
cross join lateral generate_series(1, queue.event_seq) as seq
cross join lateral (
  select case
    when seq = 1 then 'ENQUEUED'
    when seq > queue.event_seq - told.ending then
      case queue.status
        when 'DEAD_LETTERED' then case when seq = queue.event_seq then 'DEAD_LETTERED' else 'FAILED' end
        else queue.status
      end
    when seq - 1 <= 3 * told.failures then (array['LEASED', 'FAILED', 'RETRY_SCHEDULED'])[(seq - 2) % 3 + 1]
    when seq = 2 + 3 * told.failures then 'LEASED'
    else 'PROGRESS'
  end as event_type
) as event`;

const REST = `
insert into runledger.job_dead_letters (
  job_id, job_type, organization_id, run_number, attempt, failure_kind, reason, error_code, error_message, failed_at,
  payload_snapshot
)
select
  queue.id, queue.job_type, queue.organization_id, 1, queue.attempt, queue.status_reason,
  case
    when queue.status_reason in ('TERMINAL', 'PANICKED') then 'FAILURE_KIND_NON_RETRYABLE'
    when queue.status_reason = 'LEASE_EXPIRED' then 'LEASE_EXPIRED' else 'ATTEMPTS_EXHAUSTED'
  end,
  queue.last_error_code, queue.last_error_message, queue.finished_at, queue.payload
from runledger.job_queue as queue
where queue.status = 'DEAD_LETTERED'
order by queue.finished_at;

insert into runledger.job_logs (job_id, run_number, attempt, level, message, occurred_at)
select queue.id, 1, 1, case when queue.event_seq % 5 = 0 then 'warn' else 'info' end, 'line', queue.created_at
from runledger.job_queue as queue
where queue.attempt > 0
  and queue.progress_done = 1;

-- One job that logs far too much.
insert into runledger.job_logs (job_id, run_number, attempt, level, message)
select chatty.id, 1, 1, case when number % 10000 = 0 then 'error' else 'debug' end, 'line ' || number
from (
  select queue.id from runledger.job_queue as queue where queue.attempt > 0 order by queue.id desc limit 1
) as chatty
cross join generate_series(1, 50000) as number`;

/** Fills an empty, migrated database. */
export async function fillOperatorData(sql: postgres.Sql, jobs: number): Promise<OperatorData> {
  const started = performance.now();
  const session = await sql.reserve();
  try {
    // What is made here can be made again.
    await session.unsafe("set synchronous_commit = off; set work_mem = '128MB'; set maintenance_work_mem = '256MB'");
    const runs = Math.floor(jobs / 10);
    for (
      const [texts, count] of [[PREPARE, 0], [DEFINITIONS, 0], [RUNS, runs], [JOBS, jobs], [EVENTS, 0], [
        REST,
        0,
      ]] as const
    ) {
      // A statement with a value must be alone; the values are whole numbers of this program.
      await session.unsafe(texts.replaceAll("$1::integer", String(count)));
    }
    await session.unsafe("drop table planned_jobs, planned_steps, planned_runs");
    await session.unsafe("vacuum (analyze)");
    const [row] = await session<{ events: number }[]>`
      select sum(queue.event_seq)::integer as events from runledger.job_queue as queue`;
    return { jobs, runs, events: row?.events ?? 0, seconds: (performance.now() - started) / 1000 };
  } finally {
    session.release();
  }
}

if (import.meta.main) {
  const url = process.env.DATABASE_URL;
  if (url === undefined || url === "") throw new Error("Set DATABASE_URL to an empty database.");
  const sql = postgres(url, { max: 1, onnotice: () => {} });
  await migrate(sql);
  console.log(await fillOperatorData(sql, Number(process.argv[2] ?? 1_000_000)));
  await sql.end();
}
