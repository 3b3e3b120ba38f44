/**
 * Where replays and recoveries come from, and what became of them.
 *
 * @module
 */

import { isWorkflowRunStatus } from "@runledger/core";
import type { JobStatus, WorkflowRunStatus } from "@runledger/core";
import { present, readInstant, readInteger, readJobStatus, readKnown, readOptionalText, readText } from "./_rows.ts";
import { uuidValue } from "./operator_note.ts";
import { runStatement } from "./queryable.ts";
import type { Queryable } from "./queryable.ts";
import { inScope, scopeValues } from "./scope.ts";
import type { Scope } from "./scope.ts";

/** A job among those that replay one another. */
export interface JobDescent {
  /** The job. */
  readonly jobId: string;
  /** The job that it replays; absent for the first. */
  readonly replayOfJobId?: string;
  /** Where it stands. */
  readonly status: JobStatus;
  /** Its run. */
  readonly runNumber: number;
  /** When it was enqueued. */
  readonly createdAt: Date;
}

/** A run among those that recover one another. */
export interface WorkflowRunDescent {
  /** The run. */
  readonly runId: string;
  /** The run that it recovers; absent for the first. */
  readonly recoveryOfRunId?: string;
  /** How it recovers that run. */
  readonly recoveryMode?: "REPLAY" | "RESUME";
  /** Where it stands. */
  readonly status: WorkflowRunStatus;
  /** When it was enqueued. */
  readonly createdAt: Date;
}

/** How many rows a lineage has at most, and how many steps back it is followed. */
const MOST_RELATIVES = 1000;

// Of a table whose rows name the one that they are a copy of. Each step looks rows up by an index and nothing else, which
// `offset 0` sees to. index: the primary key; job_queue_replay_unique or workflow_runs_recovery_unique.
const lineageText = (table: string, parent: string, columns: string) => `
with recursive ancestor as (
  select own.id, own.${parent}, 0 as steps
  from ${table} as own
  where own.id = $1::uuid
    and ${inScope("own")}
  union all
  select source.id, source.${parent}, ancestor.steps + 1
  from ancestor
  cross join lateral (
    select own.id, own.${parent}
    from ${table} as own
    where own.id = ancestor.${parent}
      and ${inScope("own")}
    offset 0
  ) as source
  where ancestor.steps < ${MOST_RELATIVES}
),
descendant as (
  (
    select ancestor.id
    from ancestor
    order by ancestor.steps desc
    limit 1
  )
  union all
  select copy.id
  from descendant
  cross join lateral (
    select own.id
    from ${table} as own
    where own.${parent} = descendant.id
      and ${inScope("own")}
    offset 0
  ) as copy
),
relative as materialized (
  select descendant.id
  from descendant
  limit ${MOST_RELATIVES}
)
select item.*
from relative
cross join lateral (
  select ${columns}
  from ${table} as own
  where own.id = relative.id
  offset 0
) as item
order by item.created_at, item.id
`;

const JOB_LINEAGE = lineageText(
  "runledger.job_queue",
  "replay_of_job_id",
  "own.id, own.replay_of_job_id, own.status, own.run_number, extract(epoch from own.created_at)::text as created_at",
);

/**
 * Gives everything that is a replay of the same job as a given one: that job, its replays, theirs, and so on.
 *
 * @param db A pool, client or open transaction.
 * @param jobId Any of these jobs.
 * @param options Whose jobs.
 * @returns The jobs, oldest first, 1000 at most; the job alone if nothing was replayed, none if it is not in the scope.
 * @throws {RunledgerError} `db.*` codes.
 */
export async function getJobLineage(
  db: Queryable,
  jobId: string,
  options: { readonly scope: Scope },
): Promise<readonly JobDescent[]> {
  const rows = await runStatement(db, JOB_LINEAGE, [uuidValue("jobId", jobId), ...scopeValues(options.scope)]);
  return rows.map((row) =>
    present({
      jobId: readText(row, "id"),
      replayOfJobId: readOptionalText(row, "replay_of_job_id"),
      status: readJobStatus(row, "status"),
      runNumber: readInteger(row, "run_number"),
      createdAt: readInstant(row, "created_at"),
    })
  );
}

const RUN_LINEAGE = lineageText(
  "runledger.workflow_runs",
  "recovery_of_run_id",
  "own.id, own.recovery_of_run_id, own.recovery_mode, own.status, extract(epoch from own.created_at)::text as created_at",
);

/**
 * Gives everything that recovers the same run as a given one: that run, its recoveries, theirs, and so on.
 *
 * @param db A pool, client or open transaction.
 * @param runId Any of these runs.
 * @param options Whose runs.
 * @returns The runs, oldest first, 1000 at most; the run alone if nothing was recovered, none if it is not in the scope.
 * @throws {RunledgerError} `db.*` codes.
 */
export async function getWorkflowRunLineage(
  db: Queryable,
  runId: string,
  options: { readonly scope: Scope },
): Promise<readonly WorkflowRunDescent[]> {
  const rows = await runStatement(db, RUN_LINEAGE, [uuidValue("runId", runId), ...scopeValues(options.scope)]);
  return rows.map((row) =>
    present({
      runId: readText(row, "id"),
      recoveryOfRunId: readOptionalText(row, "recovery_of_run_id"),
      recoveryMode: readOptionalText(row, "recovery_mode") as WorkflowRunDescent["recoveryMode"],
      status: readKnown(row, "status", isWorkflowRunStatus),
      createdAt: readInstant(row, "created_at"),
    })
  );
}
