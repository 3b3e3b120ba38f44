/**
 * The ceiling of workflows: the least SQL that could enqueue runs, claim and settle their steps and release what waits for
 * them, sent through the same driver in the same batches. A run, a step, an edge and a job are one row each, as in Runledger,
 * and every transition of a job posts an event; a step's end subtracts one from the counter of each dependent, and whoever
 * reaches zero gets a job. No checks, no definitions, no canonical request, no keys, no gates, no failures, no cancellation,
 * no fence, no outputs of prerequisites in a claim. Runs are locked in the order of their ids, or two connections would block
 * each other for ever.
 *
 * @module
 */

import { newId } from "@runledger/core";
import type postgres from "postgres";
import type { Shape } from "./workflow_shapes.ts";

const SCHEMA = `
create schema ceiling;
create table ceiling.runs (
  id uuid primary key, workflow_type text not null, open_count integer not null, created_at timestamptz not null default now(),
  finished_at timestamptz
);
create table ceiling.steps (
  id uuid primary key, run_id uuid not null, step_key text not null, job_type text not null, status text not null,
  pending_count integer not null, payload jsonb not null
);
create index steps_run on ceiling.steps (run_id, step_key);
create table ceiling.edges (prerequisite_id uuid not null, dependent_id uuid not null, primary key (prerequisite_id, dependent_id));
create table ceiling.jobs (
  id uuid primary key, run_id uuid not null, job_type text not null, payload jsonb not null, status text not null default 'PENDING',
  priority integer not null default 0, next_run_at timestamptz not null default now(),
  attempt integer not null default 0, max_attempts integer not null default 3, worker_id text, lease_id uuid,
  started_at timestamptz, lease_expires_at timestamptz, created_at timestamptz not null default now(),
  finished_at timestamptz
);
create index jobs_claim on ceiling.jobs (priority desc, next_run_at, id) where status = 'PENDING';
create index jobs_lease on ceiling.jobs (lease_expires_at) where status = 'LEASED';
create table ceiling.events (
  job_id uuid not null, seq integer not null, attempt integer, event_type text not null,
  at timestamptz not null default now(), primary key (job_id, seq)
);`;

const ENQUEUE = `
with run as (
  insert into ceiling.runs (id, workflow_type, open_count)
  select run.id, run.workflow_type, run.open_count
  from jsonb_to_recordset($1::text::jsonb) as run (id uuid, workflow_type text, open_count integer)
),
step as (
  insert into ceiling.steps (id, run_id, step_key, job_type, status, pending_count, payload)
  select step.id, step.run_id, step.step_key, step.job_type, case step.pending_count when 0 then 'ENQUEUED' else 'BLOCKED' end,
    step.pending_count, step.payload
  from jsonb_to_recordset($2::text::jsonb) as step (
    id uuid, run_id uuid, step_key text, job_type text, pending_count integer, payload jsonb
  )
  returning id, run_id, job_type, pending_count, payload
),
edge as (
  insert into ceiling.edges (prerequisite_id, dependent_id)
  select edge.p, edge.d
  from jsonb_to_recordset($3::text::jsonb) as edge (p uuid, d uuid)
),
enqueued as (
  insert into ceiling.jobs (id, run_id, job_type, payload)
  select step.id, step.run_id, step.job_type, step.payload from step where step.pending_count = 0
  returning id
)
insert into ceiling.events (job_id, seq, event_type) select id, 0, 'ENQUEUED' from enqueued`;

const CLAIM = `
with due as (
  select id from ceiling.jobs where status = 'PENDING' and next_run_at <= now()
  order by priority desc, next_run_at, id limit $1::integer for update skip locked
),
claimed as (
  update ceiling.jobs as job
  set status = 'LEASED', attempt = attempt + 1, worker_id = $2::text, lease_id = gen_random_uuid(), started_at = now(),
    lease_expires_at = now() + interval '60 s'
  where job.id = any (array(select due.id from due))
  returning job.id, job.run_id, job.attempt, job.lease_id, job.payload, job.job_type, job.max_attempts
),
posted as (
  insert into ceiling.events (job_id, seq, attempt, event_type) select id, 1, attempt, 'LEASED' from claimed
)
select id, run_id, attempt, lease_id, payload::text as payload, job_type, max_attempts from claimed`;

const SETTLE = `
with locked as materialized (
  select run.id from ceiling.runs as run where run.id = any ($2::text::uuid[]) order by run.id for update
),
settled as (
  update ceiling.jobs as job
  set status = 'SUCCEEDED', worker_id = null, lease_id = null, lease_expires_at = null, finished_at = now()
  where job.id = any ($1::text::uuid[]) and (select count(*) from locked) >= 0
  returning job.id, job.run_id, job.attempt
),
posted as (
  insert into ceiling.events (job_id, seq, attempt, event_type) select id, 2, attempt, 'SUCCEEDED' from settled
),
ended as (
  update ceiling.steps as step set status = 'SUCCEEDED'
  where step.id = any (array(select settled.id from settled))
),
counted as materialized (
  select edge.dependent_id as id, count(*)::integer as ended_count
  from ceiling.edges as edge
  where edge.prerequisite_id = any (array(select settled.id from settled))
  group by edge.dependent_id
),
touched as (
  update ceiling.steps as step
  set pending_count = step.pending_count - counted.ended_count,
    status = case step.pending_count when counted.ended_count then 'ENQUEUED' else 'BLOCKED' end
  from counted
  where step.id = any (array(select counted.id from counted)) and step.id = counted.id
  returning step.id, step.run_id, step.job_type, step.pending_count, step.payload
),
enqueued as (
  insert into ceiling.jobs (id, run_id, job_type, payload)
  select touched.id, touched.run_id, touched.job_type, touched.payload from touched where touched.pending_count = 0
  returning id
),
opened as (
  insert into ceiling.events (job_id, seq, event_type) select id, 0, 'ENQUEUED' from enqueued
),
tallied as materialized (
  select settled.run_id as id, count(*)::integer as ended_count from settled group by settled.run_id
)
update ceiling.runs as run
set open_count = run.open_count - tallied.ended_count,
  finished_at = case run.open_count when tallied.ended_count then now() end
from tallied
where run.id = any (array(select tallied.id from tallied)) and run.id = tallied.id`;

// What postgres.js must be told so that it sends text as it is; see the driver of @runledger/postgres.
const UNKNOWN_TYPE = 705;

async function run(sql: postgres.Sql, text: string, values: readonly string[]): Promise<readonly postgres.Row[]> {
  const parameters = values.map((value) => sql.typed(value, UNKNOWN_TYPE));
  return await sql.unsafe(text, parameters as never[], { prepare: true });
}

/** Makes the tables. */
export async function createWorkflowCeiling(sql: postgres.Sql): Promise<void> {
  await sql.unsafe(SCHEMA);
}

/** Inserts `count` runs of a shape. */
export async function enqueueRunsAtCeiling(sql: postgres.Sql, shape: Shape, count: number): Promise<void> {
  const runs: unknown[] = [];
  const steps: unknown[] = [];
  const edges: unknown[] = [];
  for (let n = 0; n < count; n++) {
    const runId = newId();
    runs.push({ id: runId, workflow_type: shape.request.workflowType, open_count: shape.stepCount });
    const ids = new Map(shape.request.steps.map(({ stepKey }) => [stepKey, newId()]));
    for (const step of shape.request.steps) {
      if (step.executionKind !== "JOB") continue;
      const id = ids.get(step.stepKey);
      const { stepKey: step_key, jobType: job_type, payload, dependencies } = step;
      steps.push({ id, run_id: runId, step_key, job_type, pending_count: dependencies.length, payload });
      for (const { prerequisiteStepKey } of dependencies) edges.push({ p: ids.get(prerequisiteStepKey), d: id });
    }
  }
  await run(sql, ENQUEUE, [JSON.stringify(runs), JSON.stringify(steps), JSON.stringify(edges)]);
}

/** Claims up to `limit` steps and settles them; gives how many. */
export async function claimAndSettleStepsAtCeiling(
  sql: postgres.Sql,
  limit: number,
  workerId: string,
): Promise<number> {
  const rows = await run(sql, CLAIM, [String(limit), workerId]);
  if (rows.length === 0) return 0;
  const jobs = rows.map((row) => ({
    id: row["id"] as string,
    runId: row["run_id"] as string,
    payload: JSON.parse(row["payload"] as string),
  }));
  const runIds = new Set(jobs.map(({ runId }) => runId));
  await run(sql, SETTLE, [`{${jobs.map(({ id }) => id).join(",")}}`, `{${[...runIds].join(",")}}`]);
  return jobs.length;
}
