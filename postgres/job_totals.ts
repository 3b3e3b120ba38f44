/**
 * How many jobs ended within a time, exactly: by type, and by how they ended.
 *
 * @module
 */

import { RunledgerError } from "@runledger/core";
import { readInstant, readInteger, readOptionalText, readText } from "./_rows.ts";
import { boundedValue } from "./job_metrics.ts";
import { instantValue, noteText } from "./operator_note.ts";
import { runStatement } from "./queryable.ts";
import type { Queryable, Row, StatementValue } from "./queryable.ts";
import { inScope, scopeValues } from "./scope.ts";
import type { Scope } from "./scope.ts";

/** Whose jobs, and when they ended. */
export interface JobTotalsOptions {
  /** Whose jobs. */
  readonly scope: Scope;
  /** Only this type. */
  readonly jobType?: string;
  /** Only jobs that ended at this instant or later. @default a day before `until` */
  readonly since?: Date;
  /** Only jobs that ended before this instant. @default now, by the database's clock */
  readonly until?: Date;
  /** After how many ended jobs, of all types and whoever's, counting stops: 1 to 100,000,000. @default {1000000} */
  readonly maxJobs?: number;
}

/** How many jobs of a type ended, and how. */
export interface JobTypeTotals {
  /** The type. */
  readonly jobType: string;
  /** Jobs that succeeded. */
  readonly succeeded: number;
  /** Jobs that were cancelled. */
  readonly canceled: number;
  /** Jobs that failed for good, for whatever reason. */
  readonly deadLettered: number;
  /** Of these, jobs whose last attempt failed with the kind `PANICKED`. */
  readonly panicked: number;
  /** Of these, jobs whose last attempt ended by a lease that ran out. */
  readonly leaseExpired: number;
  /** Of these, jobs whose last attempt took too long. */
  readonly timedOut: number;
}

/** What was counted. */
export interface JobTotals {
  /** One entry for each type of which a job ended, by type. */
  readonly types: readonly JobTypeTotals[];
  /** Everything that ended at this instant or later was counted: `since`, unless counting stopped before. */
  readonly countedSince: Date;
  /** Until when: exclusive. */
  readonly countedUntil: Date;
  /** Whether all of the time asked for was counted. */
  readonly isComplete: boolean;
}

/** How many jobs one statement looks at, of those with an idempotency key and of those without. */
const WINDOW_JOBS = 10_000;

// A window of each half of the index, as in runledger.job_metrics, with all that ended in the same instant as its last one:
// so the next window begins before an instant, and no job is in two of them. Where only one half is cut, the other one is
// counted no further than it: what is left of it comes with the next window.
// index: job_queue_finished_index. always a row.
const COUNT = `
with bounds as materialized (
  select
    coalesce($4::timestamptz, asked.until - interval '1 day') as since,
    least(asked.until, coalesce(to_timestamp($6::double precision), 'infinity')) as until
  -- Callers have milliseconds.
  from (select coalesce($5::timestamptz, date_trunc('milliseconds', statement_timestamp())) as until) as asked
),
ended as materialized (
  select
    half.is_unkeyed, latest.job_type, latest.organization_id, latest.status, latest.status_reason, latest.finished_at
  from bounds
  cross join (values (true), (false)) as half (is_unkeyed)
  cross join lateral (
    select queue.job_type, queue.organization_id, queue.status, queue.status_reason, queue.finished_at
    from runledger.job_queue as queue
    where (queue.idempotency_key is null) = half.is_unkeyed
      and queue.finished_at >= bounds.since
      and queue.finished_at < bounds.until
    order by queue.finished_at desc
    fetch first ${WINDOW_JOBS} rows with ties
  ) as latest
),
cut as materialized (
  select max(half.reached_at) as reached_at
  from (
    select min(ended.finished_at) as reached_at
    from ended
    group by ended.is_unkeyed
    having count(*) >= ${WINDOW_JOBS}
  ) as half
),
counted as (
  select
    ended.job_type, ended.status, case ended.status when 'DEAD_LETTERED' then ended.status_reason end as failure_kind,
    count(*) as jobs
  from ended
  cross join cut
  where (cut.reached_at is null or ended.finished_at >= cut.reached_at)
    and ${inScope("ended", 1)}
    and ($3::text is null or ended.job_type = $3::text)
  group by 1, 2, 3
)
select
  extract(epoch from bounds.since)::text as since, extract(epoch from bounds.until)::text as until,
  extract(epoch from cut.reached_at)::text as reached_at,
  extract(epoch from date_trunc('milliseconds', cut.reached_at + interval '999 microseconds'))::text as counted_since,
  (select count(*) from ended)::text as seen,
  counted.job_type, counted.status, counted.failure_kind, counted.jobs::text as jobs
from bounds
cross join cut
left join counted on true
`;

/**
 * Counts the jobs that ended within a time, a day if nothing else is said, by type and by how they ended.
 *
 * Exact, where {@linkcode readJobMetrics} tells rates by the newest jobs. So it takes as long as there are jobs to count:
 * it looks at up to 20,000 of them a statement, newest first, and stops behind `maxJobs`; `countedSince` says how far it
 * came. A job that was requeued meanwhile has not ended, and what retention deleted is not counted.
 *
 * @param db A pool, client or open transaction.
 * @param options Whose jobs, and when they ended.
 * @returns What was counted. On a pool, each statement sees what is committed by then.
 * @throws {RunledgerError} `job.invalid_request` for an option that cannot be; `db.*` codes.
 */
export async function countEndedJobs(db: Queryable, options: JobTotalsOptions): Promise<JobTotals> {
  const { scope, jobType, since, until, maxJobs = 1_000_000 } = options;
  boundedValue("maxJobs", maxJobs, 100_000_000);
  const filter: readonly StatementValue[] = [
    ...scopeValues(scope),
    jobType === undefined ? null : noteText("jobType", jobType, 255),
  ];
  const types = new Map<string, Tally>();
  let from = since === undefined ? null : instantValue("since", since);
  let to = until === undefined ? null : instantValue("until", until);
  let countedUntil: Date | undefined;
  let reached: string | null = null;
  for (let seen = 0;;) {
    const rows: readonly Row[] = await runStatement(db, COUNT, [...filter, from, to, reached]);
    const [first] = rows;
    if (first === undefined) throw new RunledgerError("db.unexpected_result");
    countedUntil ??= readInstant(first, "until");
    // What "now" was stays for all windows.
    from ??= readInstant(first, "since").toISOString();
    to ??= countedUntil.toISOString();
    for (const row of rows) if (row["job_type"] !== null) addTo(types, row);
    reached = readOptionalText(first, "reached_at") ?? null;
    seen += readInteger(first, "seen");
    if (reached !== null && seen < maxJobs) continue;
    return {
      types: [...types.entries()].sort(([a], [b]) => a < b ? -1 : 1).map(([type, tally]) => ({
        jobType: type,
        ...tally,
      })),
      countedSince: readInstant(first, reached === null ? "since" : "counted_since"),
      countedUntil,
      isComplete: reached === null,
    };
  }
}

type Tally = { -readonly [Name in Exclude<keyof JobTypeTotals, "jobType">]: number };

/** Which figures a row counts for, by status and kind of failure. */
const FIGURES: Readonly<Record<string, keyof Tally>> = {
  SUCCEEDED: "succeeded",
  CANCELED: "canceled",
  DEAD_LETTERED: "deadLettered",
  PANICKED: "panicked",
  LEASE_EXPIRED: "leaseExpired",
  TIMEOUT: "timedOut",
};

function addTo(types: Map<string, Tally>, row: Row): void {
  const jobType = readText(row, "job_type");
  const tally = types.get(jobType) ??
    { succeeded: 0, canceled: 0, deadLettered: 0, panicked: 0, leaseExpired: 0, timedOut: 0 };
  types.set(jobType, tally);
  const jobs = readInteger(row, "jobs");
  for (const name of [readText(row, "status"), readOptionalText(row, "failure_kind") ?? ""]) {
    const figure = FIGURES[name];
    if (figure !== undefined) tally[figure] += jobs;
  }
}
