/**
 * The ceiling: the least SQL that could enqueue, claim and settle jobs and keep a ledger, sent through the same driver in the
 * same batches. One queue row, one event row for each transition, one index to claim by and one to find leases by; jobs are
 * locked before they are settled. No checks, no definitions, no job types to choose among, no idempotency, no fence, no
 * retries. The lean form goes below that: it settles by id, whoever may hold the job.
 *
 * @module
 */

import { newId } from "@runledger/core";
import type { JsonValue } from "@runledger/core";
import type postgres from "postgres";

const SCHEMA = `
create schema ceiling;
create table ceiling.jobs (
  id uuid primary key, job_type text not null, payload jsonb not null, status text not null default 'PENDING',
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
with inserted as (
  insert into ceiling.jobs (id, job_type, payload)
  select request.id, request.job_type, request.payload
  from jsonb_to_recordset($1::text::jsonb) as request (id uuid, job_type text, payload jsonb)
  returning id
)
insert into ceiling.events (job_id, seq, event_type) select id, 0, 'ENQUEUED' from inserted`;

const ENQUEUE_ON_SERVER = `
with inserted as (
  insert into ceiling.jobs (id, job_type, payload)
  select runledger.new_id(), 'noop', $2::text::jsonb from generate_series(1, $1::integer)
  returning id
)
insert into ceiling.events (job_id, seq, event_type) select id, 0, 'ENQUEUED' from inserted`;

// The limit is written out, so that the planner knows it.
const claimText = (limit: number) => `
with due as (
  select id from ceiling.jobs where status = 'PENDING' and next_run_at <= now()
  order by priority desc, next_run_at, id limit ${limit} for update skip locked
),
claimed as (
  update ceiling.jobs as job
  set status = 'LEASED', attempt = attempt + 1, worker_id = $1::text, lease_id = gen_random_uuid(), started_at = now(),
    lease_expires_at = now() + interval '60 s'
  from due where job.id = due.id
  returning job.id, job.attempt, job.lease_id, job.payload, job.job_type, job.max_attempts
),
posted as (
  insert into ceiling.events (job_id, seq, attempt, event_type) select id, 1, attempt, 'LEASED' from claimed
)
select id, attempt, lease_id, payload::text as payload, job_type, max_attempts from claimed`;

// Not "skip locked": the claim of somebody else that has seen a row as it was holds its lock for a moment.
const settleText = (limit: number) => `
with held as (
  select id from ceiling.jobs where status = 'LEASED' and worker_id = $1::text
  order by lease_expires_at limit ${limit} for update
),
settled as (
  update ceiling.jobs as job
  set status = 'SUCCEEDED', worker_id = null, lease_id = null, lease_expires_at = null, finished_at = now()
  from held where job.id = held.id
  returning job.id, job.attempt
),
posted as (
  insert into ceiling.events (job_id, seq, attempt, event_type) select id, 2, attempt, 'SUCCEEDED' from settled
)
select id from settled`;

// The same by arrays of ids: the fastest that was found, when nobody may have changed what the worker holds.
const LEAN_CLAIM = claimText(0)
  .replace("limit 0", "limit $2::integer")
  .replace("from due where job.id = due.id", "where job.id = any (array(select due.id from due))");

const LEAN_SETTLE = `
with settled as (
  update ceiling.jobs as job
  set status = 'SUCCEEDED', worker_id = null, lease_id = null, lease_expires_at = null, finished_at = now()
  where id = any (array(select input::uuid from jsonb_array_elements_text($1::text::jsonb) as input))
  returning job.id, job.attempt
),
posted as (
  insert into ceiling.events (job_id, seq, attempt, event_type) select id, 2, attempt, 'SUCCEEDED' from settled
)
select id from settled`;

// What postgres.js must be told so that it sends text as it is; see the driver of @runledger/postgres.
const UNKNOWN_TYPE = 705;

async function run(sql: postgres.Sql, text: string, values: readonly string[]): Promise<readonly postgres.Row[]> {
  const parameters = values.map((value) => sql.typed(value, UNKNOWN_TYPE));
  return await sql.unsafe(text, parameters as never[], { prepare: true });
}

/** Makes the tables. */
export async function createCeiling(sql: postgres.Sql): Promise<void> {
  await sql.unsafe(SCHEMA);
}

/** Inserts jobs from one JSON parameter. */
export async function enqueueAtCeiling(sql: postgres.Sql, payloads: readonly JsonValue[]): Promise<void> {
  const jobs = payloads.map((payload) => ({ id: newId(), job_type: "noop", payload }));
  await run(sql, ENQUEUE, [JSON.stringify(jobs)]);
}

/** Inserts jobs that the server makes by itself: nothing is sent, nothing is decoded. */
export async function enqueueOnServer(sql: postgres.Sql, count: number, payload: JsonValue): Promise<void> {
  await run(sql, ENQUEUE_ON_SERVER, [String(count), JSON.stringify(payload)]);
}

/** Claims up to `limit` jobs and settles what the worker holds; gives how many. */
export async function claimAndSettleAtCeiling(sql: postgres.Sql, limit: number, workerId: string): Promise<number> {
  const jobs = decodeClaimed(await run(sql, claimText(limit), [workerId]));
  if (jobs.length > 0) await run(sql, settleText(limit), [workerId]);
  return jobs.length;
}

/** The same by arrays of ids, without a lock or a check before the settlement. */
export async function claimAndSettleLean(sql: postgres.Sql, limit: number, workerId: string): Promise<number> {
  const jobs = decodeClaimed(await run(sql, LEAN_CLAIM, [workerId, String(limit)]));
  if (jobs.length > 0) await run(sql, LEAN_SETTLE, [JSON.stringify(jobs.map(({ id }) => id))]);
  return jobs.length;
}

function decodeClaimed(rows: readonly postgres.Row[]): readonly { readonly id: string; readonly payload: unknown }[] {
  return rows.map((row) => ({ id: row["id"] as string, payload: JSON.parse(row["payload"] as string) }));
}
