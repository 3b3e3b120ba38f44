/**
 * Claiming: a worker takes due jobs and a lease on each.
 *
 * @module
 */

import { MAX_JOB_TYPE_BYTES, RunledgerError } from "@runledger/core";
import type { JobLease, JsonValue, WorkflowPrerequisite } from "@runledger/core";
import {
  present,
  readBoolean,
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
  /** How far the next claims look beyond what rivals may hold: not to be read or changed. */
  reach: number;
  /** How many more claims do so: not to be read or changed. */
  wideClaims: number;
}

/**
 * Makes a cursor for the claims of one worker.
 *
 * It holds no resources and may be lost at any time: then the next claim looks everywhere. One cursor serves one database.
 *
 * @returns A cursor that has seen nothing yet.
 */
export function createClaimCursor(): ClaimCursor {
  return { position: undefined, reach: 0, wideClaims: 0 };
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
  /** How long it was due when it was claimed, in milliseconds by the database's clock. */
  readonly waitedMs: number;
  /** Where it was asked for, as a W3C `traceparent`, if that was told. */
  readonly traceparent?: string;
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

/**
 * How many candidates beyond the limit each try of a claim looks at, since rivals may hold the first ones: one rival that
 * takes as many, then more and larger ones. A candidate costs half a microsecond: with 64 to spare, claiming and settling
 * a lone job takes 1.04 times as long, and with 5000 in the third try two processes that take 500 at a time ran 0.7 as many.
 */
const SPARE_CANDIDATES: readonly ((limit: number) => number)[] = [
  (limit) => Math.min(8 + limit, 64),
  (limit) => 64 + limit,
  (limit) => Math.max(1000, 64 + 3 * limit),
  () => 16_000,
];

/**
 * After a claim that found too much in the hands of rivals, so many claims of its cursor begin with the next try: with two
 * workers that take 500 at a time, every other claim took two statements otherwise (1.2 to 1.36 of the rate).
 */
const WIDE_CLAIMS = 8;

// locks: the claimed jobs, in claim order, skipping those that others hold; it waits for nobody. See the function.
// a row that tells of the claim, then one for each claimed job.
const CLAIM = `
select *
from runledger.claim_jobs(
  $1::text::jsonb, $2::integer, $3::integer, $4::text, $5::integer, $6::text::uuid, $7::text::jsonb, $8::boolean
)
`;

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
  const firstReach = cursor?.reach ?? 0;
  if (cursor !== undefined && cursor.reach > 0 && --cursor.wideClaims <= 0) {
    cursor.reach--;
    cursor.wideClaims = WIDE_CLAIMS;
  }
  for (let reach = firstReach; reach < SPARE_CANDIDATES.length; reach++) {
    const spare = SPARE_CANDIDATES[reach]?.(limit) ?? 0;
    const wanted = limit - claimed.length;
    // One token for all: the fence compares the job, the run and the attempt besides.
    const leaseToken = crypto.randomUUID();
    const position = cursor === undefined ? null : cursor.position ?? "{}";
    const rows = await runStatement(
      db,
      CLAIM,
      [
        typesText,
        wanted,
        spare,
        workerId,
        leaseMs,
        leaseToken,
        position,
        reach === firstReach && cursor?.position !== undefined,
      ],
      { write: true },
    );
    const [first, ...jobs] = rows;
    if (first === undefined) throw new RunledgerError("db.unexpected_result");
    const taken = jobs.map((row) => decodeTakenJob(row, leaseToken));
    for (const { job } of taken.sort(compareClaimOrder)) claimed.push(job);
    const told = readJson(first, "more") as Row;
    if (cursor !== undefined) cursor.position = readOptionalText(told, "position");
    if (claimed.length >= limit) break;
    const areRivalsAhead = readInteger(told, "candidate_count") >= wanted + spare;
    if (areRivalsAhead && cursor !== undefined) {
      // A claim has two tries at least: the second one looks everywhere.
      cursor.reach = Math.min(reach + 1, SPARE_CANDIDATES.length - 2);
      cursor.wideClaims = WIDE_CLAIMS;
    }
    if (readBoolean(told, "is_everywhere") && !areRivalsAhead) break;
  }
  return claimed;
}

/** Refuses a lease that cannot be. */
export function assertLeaseMs(leaseMs: number): void {
  if (!Number.isInteger(leaseMs) || leaseMs < 1 || leaseMs > MAX_LEASE_MS) {
    throw new RunledgerError("job.invalid_lease_duration", { details: { field: "leaseMs" } });
  }
}

/** A claimed job, and for how long it was due to the microsecond, which puts jobs of one batch in order. */
interface TakenJob {
  readonly job: ClaimedJob;
  readonly waitedUs: number;
}

/** By priority, highest first, then by due time, then by id. */
function compareClaimOrder(one: TakenJob, other: TakenJob): number {
  return other.job.priority - one.job.priority || other.waitedUs - one.waitedUs ||
    (one.job.jobId < other.job.jobId ? -1 : 1);
}

function decodeTakenJob(row: Row, leaseToken: string): TakenJob {
  const waitedUs = readInteger(row, "waited_us");
  return { job: decodeClaimedJob(row, leaseToken, Math.floor(waitedUs / 1000)), waitedUs };
}

function decodeClaimedJob(row: Row, leaseToken: string, waitedMs: number): ClaimedJob {
  const organizationId = readOptionalText(row, "organization_id");
  // What only some jobs have.
  const more = readOptionalJson(row, "more") as Row | undefined;
  const job: ClaimedJob = {
    jobId: readText(row, "job_id"),
    jobType: readText(row, "job_type"),
    ...(organizationId === undefined ? {} : { organizationId }),
    priority: readInteger(row, "priority"),
    runNumber: readInteger(row, "run_number"),
    attempt: readInteger(row, "attempt"),
    maxAttempts: readInteger(row, "max_attempts"),
    timeoutSeconds: readInteger(row, "timeout_seconds"),
    leaseToken,
    payload: readJson(row, "payload"),
    waitedMs,
  };
  if (more === undefined) return job;
  const workflowRunId = readOptionalText(more, "workflow_run_id");
  return present({
    ...job,
    checkpoint: more["checkpoint"] as JsonValue | undefined,
    progressDone: readOptionalInteger(more, "progress_done"),
    progressTotal: readOptionalInteger(more, "progress_total"),
    traceparent: readOptionalText(more, "traceparent"),
    workflowRunId,
    workflow: workflowRunId === undefined ? undefined : {
      runId: workflowRunId,
      stepKey: readText(more, "step_key"),
      // A step key is any text: no prototype may stand between it and its step.
      prerequisites: Object.assign(Object.create(null), more["prerequisites"]) as Record<string, WorkflowPrerequisite>,
    },
  });
}
