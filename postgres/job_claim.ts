/**
 * Claiming: a worker takes due jobs and a lease on each.
 *
 * @module
 */

import { MAX_JOB_TYPE_BYTES, RunledgerError } from "@runledger/core";
import type { JobLease, JsonValue, WorkflowPrerequisite } from "@runledger/core";
import {
  present,
  readInteger,
  readJson,
  readOptionalInteger,
  readOptionalJson,
  readOptionalText,
  readText,
} from "./_rows.ts";
import { noteText } from "./operator_note.ts";
import { runStatement } from "./queryable.ts";
import type { Queryable, Row } from "./queryable.ts";

/** Which jobs to claim, how many, for whom and for how long. */
export interface ClaimJobsOptions {
  /** The job types that the worker has handlers for. An empty list claims nothing. */
  readonly jobTypes: readonly string[];
  /** Who claims: shown to operators. Not blank, at most 255 bytes. */
  readonly workerId: string;
  /** How many jobs at most, 1 to 1000. */
  readonly limit: number;
  /** How long the lease lasts, in milliseconds by the database's clock, 1 to 86,400,000. @default {60000} */
  readonly leaseMs?: number;
  /**
   * Where the claims of one worker have got to, from {@linkcode createClaimCursor}: the same for all its claims, kept and
   * changed by them. It keeps claims fast while some long transaction keeps the database from tidying up. For it, and only
   * while there is more to do than a claim takes, a job that turns up in front of jobs already claimed (its transaction
   * committed late, its `nextRunAt` lies in the past, or its priority was not in use) may be passed over for a moment: nine
   * times as long as it takes to look everywhere, a second at most. Without a cursor every claim looks everywhere.
   */
  readonly cursor?: ClaimCursor;
}

/** Where the claims of one worker have got to. */
export interface ClaimCursor {
  /** What the last claim gave: not to be read or changed. */
  position: string | undefined;
}

/**
 * Makes a cursor for the claims of one worker.
 *
 * It holds no resources and may be lost at any time: then the next claim looks everywhere. One cursor serves one database.
 *
 * @returns A cursor that has seen nothing yet.
 */
export function createClaimCursor(): ClaimCursor {
  return { position: undefined };
}

/** A job that is leased to the caller, with everything its handler needs. */
export interface ClaimedJob extends JobLease {
  /** Its type. */
  readonly jobType: string;
  /** Whose job it is; absent for a job of no organization. */
  readonly organizationId?: string;
  /** How urgent it is; higher goes first. */
  readonly priority: number;
  /** How many attempts a run may take. */
  readonly maxAttempts: number;
  /** How long an attempt may take, in seconds. */
  readonly timeoutSeconds: number;
  /** What was enqueued. */
  readonly payload: JsonValue;
  /** What an earlier attempt or run left for this one, if anything. */
  readonly checkpoint?: JsonValue;
  /** Units that earlier attempts reported as done, if any. */
  readonly progressDone?: number;
  /** Units in all, if an earlier attempt reported them. */
  readonly progressTotal?: number;
  /** Which step of which run it is, if it is one. */
  readonly workflow?: ClaimedWorkflowStep;
}

/** What the handler of a workflow step is told of its run. */
export interface ClaimedWorkflowStep {
  /** The run. */
  readonly runId: string;
  /** The step. */
  readonly stepKey: string;
  /** How each direct prerequisite ended, by step key. */
  readonly prerequisites: Readonly<Record<string, WorkflowPrerequisite>>;
}

/** The longest lease, in milliseconds: a day. */
export const MAX_LEASE_MS = 86_400_000;

/** How many candidates beyond the limit a claim looks at in each try: rivals may hold the first ones, a thousand each. */
const SPARE_CANDIDATES: readonly number[] = [64, 1000, 4000, 16_000];

// locks: the claimed jobs, in claim order, skipping those that others hold; it waits for nobody.
// index: job_queue_claim_index, entered once for each (type, priority) that has a pending job.
// no row with a job: nothing is due, or rivals hold all of it.
//
// scanned hops along the index from one (type, priority) to the next, so that neither finished jobs, nor jobs of other
// types, nor a million jobs scheduled for next year are ever read. candidates merges the due ones of each into one
// order, starting at the head and so behind the dead index entries of jobs that were claimed before. due locks them one
// by one and stops at the limit; by ctid, since the row was just read there (0.7 of the time that going by id takes).
//
// bound keeps the merge from reading a whole batch of every type: among a few jobs of each of many heads, the last key
// that can still be wanted is known. Up to four heads there is little to save.
//
// While some transaction holds an old snapshot, dead index entries cannot be removed, and to find a head all jobs claimed
// since must be walked over: 0.2 to 0.3 microseconds each, in every claim. When that takes more than a millisecond, a
// claim with a cursor gives a position, and until rescan_at the next ones start there. So at most a tenth of the time is
// spent on finding heads, and it is done once a second at least.
const HEADS_EVERYWHERE = `
with recursive wanted as (
  -- The array makes PostgreSQL expect a few types rather than a hundred.
  select wanted.job_type
  from unnest(array(select jsonb_array_elements_text($1::text::jsonb))) as wanted (job_type)
),
scanned as (
  select head.job_type, head.priority, head.next_run_at, head.id
  from wanted
  cross join lateral (
    select queue.job_type, queue.priority, queue.next_run_at, queue.id
    from runledger.job_queue as queue
    where queue.job_type = wanted.job_type
      and queue.status = 'PENDING'
    order by queue.priority desc, queue.next_run_at, queue.id
    limit 1
  ) as head
  union all
  select head.job_type, head.priority, head.next_run_at, head.id
  from scanned
  cross join lateral (
    select queue.job_type, queue.priority, queue.next_run_at, queue.id
    from runledger.job_queue as queue
    where queue.job_type = scanned.job_type
      and queue.status = 'PENDING'
      and queue.priority < scanned.priority
    order by queue.priority desc, queue.next_run_at, queue.id
    limit 1
  ) as head
),
heads as materialized (
  select scanned.job_type, scanned.priority, scanned.next_run_at, scanned.id
  from scanned
),
measured as materialized (
  select
    count(*) as head_count,
    clock_timestamp() + least(9 * (clock_timestamp() - statement_timestamp()), interval '1 second') as rescan_at,
    $5::text is not null and clock_timestamp() - statement_timestamp() > interval '1 millisecond' as has_position
  from heads
),`;

const HEADS_FROM_POSITION = `
with heads as materialized (
  select floor.job_type, floor.priority, floor.next_run_at, floor.id
  from jsonb_to_recordset($5::text::jsonb -> 'floors') as floor (
    job_type text, priority integer, next_run_at timestamptz, id uuid
  )
  where ($5::text::jsonb ->> 'rescan_at')::timestamptz > clock_timestamp()
    and $5::text::jsonb ->> 'job_types' = $1::text
),
measured as materialized (
  select
    count(*) as head_count, ($5::text::jsonb ->> 'rescan_at')::timestamptz as rescan_at, count(*) > 0 as has_position
  from heads
),`;

const CLAIM_FROM_HEADS = `
bound as materialized (
  select sample.priority, sample.next_run_at
  from heads
  cross join lateral (
    select queue.id, queue.priority, queue.next_run_at
    from runledger.job_queue as queue
    where queue.job_type = heads.job_type
      and queue.priority = heads.priority
      and queue.status = 'PENDING'
      and (queue.next_run_at, queue.id) >= (heads.next_run_at, heads.id)
      and queue.next_run_at <= statement_timestamp()
    order by queue.next_run_at, queue.id
    limit (select 1 + 4 * ($2::integer + $6::integer) / measured.head_count from measured)
  ) as sample
  where heads.next_run_at <= statement_timestamp()
    and (select measured.head_count from measured) > 4
  order by sample.priority desc, sample.next_run_at, sample.id
  offset $2::integer + $6::integer - 1
  limit 1
),
candidates as materialized (
  select candidate.ctid
  from heads
  left join bound on true
  cross join lateral (
    select queue.ctid, queue.id, queue.priority, queue.next_run_at
    from runledger.job_queue as queue
    where queue.job_type = heads.job_type
      and queue.priority = heads.priority
      and queue.status = 'PENDING'
      and (queue.next_run_at, queue.id) >= (heads.next_run_at, heads.id)
      and queue.next_run_at <= least(
        statement_timestamp(), case heads.priority when bound.priority then bound.next_run_at end
      )
    order by queue.next_run_at, queue.id
    limit $2::integer + $6::integer
  ) as candidate
  where heads.next_run_at <= statement_timestamp()
    and (bound.priority is null or heads.priority >= bound.priority)
  order by candidate.priority desc, candidate.next_run_at, candidate.id
  limit $2::integer + $6::integer
),
due as materialized (
  select locked.ctid
  from candidates
  cross join lateral (
    select queue.ctid
    from runledger.job_queue as queue
    where queue.ctid = candidates.ctid
      and queue.status = 'PENDING'
      and queue.next_run_at <= statement_timestamp()
    for update skip locked
  ) as locked
  limit $2::integer
),
claimed as (
  update runledger.job_queue as queue
  set status = 'LEASED',
    stage = 'running',
    attempt = queue.attempt + 1,
    event_seq = queue.event_seq + 1,
    worker_id = $3::text,
    lease_token = gen_random_uuid(),
    lease_expires_at = clock_timestamp() + $4::integer * interval '1 millisecond',
    last_heartbeat_at = clock_timestamp(),
    started_at = coalesce(queue.started_at, clock_timestamp())
  where queue.ctid = any (array(select due.ctid from due))
  returning
    queue.id, queue.job_type, queue.organization_id, queue.priority, queue.next_run_at, queue.run_number, queue.attempt,
    queue.max_attempts, queue.timeout_seconds, queue.event_seq, queue.lease_token, queue.payload, queue.checkpoint,
    queue.progress_done, queue.progress_total, queue.workflow_run_id
),
posted as (
  insert into runledger.job_events (job_id, seq, run_number, attempt, event_type, stage, payload)
  select
    claimed.id, claimed.event_seq, claimed.run_number, claimed.attempt, 'LEASED', 'running',
    (select jsonb_build_object('worker_id', $3::text, 'lease_ms', $4::integer))
  from claimed
),
-- How far each (type, priority) has got. One that has no job now is entered at the time of this scan.
reached as (
  select distinct on (place.job_type, place.priority)
    place.job_type, place.priority, place.next_run_at, place.id
  from (
    select claimed.job_type, claimed.priority, claimed.next_run_at, claimed.id
    from claimed
    union all
    select heads.job_type, heads.priority, heads.next_run_at, heads.id
    from heads
    union all
    select floor.job_type, floor.priority, statement_timestamp(), '00000000-0000-0000-0000-000000000000'::uuid
    from jsonb_to_recordset($5::text::jsonb -> 'floors') as floor (job_type text, priority integer)
    where not exists (select from heads where heads.job_type = floor.job_type and heads.priority = floor.priority)
  ) as place
  where (select measured.has_position from measured)
  order by place.job_type, place.priority, place.next_run_at desc, place.id desc
)
select
  case when line.is_first then (select count(*)::integer from candidates) end as candidate_count,
  case when line.is_first and measured.has_position then
    jsonb_build_object(
      'job_types', $1::text, 'rescan_at', measured.rescan_at, 'floors', (select coalesce(jsonb_agg(reached), '[]') from reached)
    )::text
  end as position,
  claimed.id as job_id, claimed.job_type, claimed.organization_id, claimed.priority,
  claimed.run_number, claimed.attempt, claimed.max_attempts, claimed.timeout_seconds, claimed.lease_token,
  claimed.payload::text as payload, claimed.checkpoint::text as checkpoint,
  claimed.progress_done::text as progress_done, claimed.progress_total::text as progress_total,
  claimed.workflow_run_id, step.step_key, step.prerequisites::text as prerequisites
from measured
cross join (values (true), (false)) as line (is_first)
left join claimed on not line.is_first
left join lateral (
  select
    own.step_key,
    (
      select jsonb_object_agg(
        prerequisite.step_key,
        jsonb_build_object('status', prerequisite.status)
          || case
            when coalesce(prerequisite.output, job.output) is null then '{}'
            else jsonb_build_object('output', coalesce(prerequisite.output, job.output))
          end
      )
      from runledger.workflow_step_dependencies as edge
      join runledger.workflow_steps as prerequisite on prerequisite.id = edge.prerequisite_step_id
      left join runledger.job_queue as job on job.id = prerequisite.id
      where edge.dependent_step_id = own.id
    ) as prerequisites
  from runledger.workflow_steps as own
  where claimed.workflow_run_id is not null
    and own.id = claimed.id
) as step on true
order by line.is_first desc, claimed.priority desc, claimed.next_run_at, claimed.id
`;

const CLAIM = HEADS_EVERYWHERE + CLAIM_FROM_HEADS;
const CLAIM_FROM_POSITION = HEADS_FROM_POSITION + CLAIM_FROM_HEADS;

/**
 * Claims up to `limit` due jobs and starts a lease on each.
 *
 * Jobs are taken by priority, highest first, then by due time, then by id. Each claim counts as an attempt and posts a
 * LEASED event. Any number of processes may claim at once: each job goes to one of them, and none waits for another. One
 * statement; in a transaction the leases begin to run at once, so commit soon. A crash after it costs the attempt: the
 * reaper finds the job when its lease has expired.
 *
 * @param db A pool, client or open transaction.
 * @param options Which jobs, how many, for whom and for how long.
 * @returns The claimed jobs in claim order, possibly none.
 * @throws {RunledgerError} `job.invalid_lease_duration`; `job.invalid_request` for a worker id or a type that cannot be; `db.*` codes.
 * @throws {RangeError} If `limit` is not an integer from 1 to 1000.
 */
export async function claimJobs(db: Queryable, options: ClaimJobsOptions): Promise<readonly ClaimedJob[]> {
  const { jobTypes, workerId, limit, leaseMs = 60_000, cursor } = options;
  if (!Number.isInteger(limit) || limit < 1 || limit > 1000) {
    throw new RangeError(`Cannot claim '${limit}' jobs: the limit must be an integer from 1 to 1000`);
  }
  assertLeaseMs(leaseMs);
  noteText("workerId", workerId, 255);
  if (!Array.isArray(jobTypes)) throw new TypeError("'jobTypes' must be an array of job types");
  const types = [...new Set(jobTypes)];
  for (const jobType of types) noteText("jobTypes", jobType, MAX_JOB_TYPE_BYTES);
  if (types.length === 0) return [];
  const typesText = JSON.stringify(types);
  const claimed: ClaimedJob[] = [];
  // Once is the rule. When rivals hold every candidate that was looked at, there may be more behind them; and when there
  // was no more to do from where the last claim ended, only a look everywhere tells whether there is none at all.
  for (const [tries, spare] of SPARE_CANDIDATES.entries()) {
    const wanted = limit - claimed.length;
    const isResumed = tries === 0 && cursor?.position !== undefined;
    const rows = await runStatement(
      db,
      isResumed ? CLAIM_FROM_POSITION : CLAIM,
      [typesText, wanted, workerId, leaseMs, cursor === undefined ? null : cursor.position ?? "{}", spare],
      { write: true },
    );
    const [first] = rows;
    if (first === undefined) throw new RunledgerError("db.unexpected_result");
    for (const row of rows) if (row["job_id"] !== null) claimed.push(decodeClaimedJob(row));
    const position = readOptionalText(first, "position");
    // A position that was too old to be used still tells which priorities are in use.
    if (cursor !== undefined && (position !== undefined || !isResumed)) cursor.position = position;
    if (claimed.length >= limit) break;
    if (!isResumed && readInteger(first, "candidate_count") < wanted + spare) break;
  }
  return claimed;
}

/** Refuses a lease that cannot be. */
export function assertLeaseMs(leaseMs: number): void {
  if (!Number.isInteger(leaseMs) || leaseMs < 1 || leaseMs > MAX_LEASE_MS) {
    throw new RunledgerError("job.invalid_lease_duration", { details: { field: "leaseMs" } });
  }
}

function decodeClaimedJob(row: Row): ClaimedJob {
  const workflowRunId = readOptionalText(row, "workflow_run_id");
  return present({
    jobId: readText(row, "job_id"),
    jobType: readText(row, "job_type"),
    organizationId: readOptionalText(row, "organization_id"),
    priority: readInteger(row, "priority"),
    runNumber: readInteger(row, "run_number"),
    attempt: readInteger(row, "attempt"),
    maxAttempts: readInteger(row, "max_attempts"),
    timeoutSeconds: readInteger(row, "timeout_seconds"),
    leaseToken: readText(row, "lease_token"),
    payload: readJson(row, "payload"),
    checkpoint: readOptionalJson(row, "checkpoint"),
    progressDone: readOptionalInteger(row, "progress_done"),
    progressTotal: readOptionalInteger(row, "progress_total"),
    workflowRunId,
    workflow: workflowRunId === undefined ? undefined : {
      runId: workflowRunId,
      stepKey: readText(row, "step_key"),
      // A step key is any text: no prototype may stand between it and its step.
      prerequisites: Object.assign(Object.create(null), readOptionalJson(row, "prerequisites")) as Record<
        string,
        WorkflowPrerequisite
      >,
    },
  });
}
