/**
 * What a step waits for, and what that waits for in turn; or which of its prerequisites failed it, and what failed them.
 *
 * @module
 */

import type { WorkflowStepStatus } from "@runledger/core";
import { present, readOptionalText, readText } from "./_rows.ts";
import { liveStepSituation, SITUATION_COLUMNS } from "./job_situation.ts";
import type { LiveStep } from "./job_situation.ts";
import { runStatement } from "./queryable.ts";
import type { Queryable, Row } from "./queryable.ts";

/** A prerequisite that a step waits for, and what that one waits for, down to what is not blocked itself. */
export interface AwaitedPrerequisite {
  /** The prerequisite and what it waits for, the nearest first; of a long way, its first eight steps and its last two. */
  readonly path: readonly LiveStep[];
  /** How many steps of the way were left out, between the last but one and the one before. */
  readonly omittedCount: number;
}

/** A prerequisite that should have succeeded. */
export interface UnsatisfiedPrerequisite {
  /** The steps from the prerequisite to the one where it began, each cancelled because of the next. */
  readonly path: readonly EndedStep[];
  /** How many steps of the way were left out. */
  readonly omittedCount: number;
}

/** A step that has ended without success. */
export interface EndedStep {
  /** The step, and the job that ran it. */
  readonly stepId: string;
  /** Its name within the run. */
  readonly stepKey: string;
  /** How it ended. */
  readonly status: WorkflowStepStatus;
  /** The code of its failure. */
  readonly errorCode?: string;
}

// From each step of a way the first prerequisite in the order of positions leads on. Ways that meet are walked once, so
// that no more steps are looked at than the run has. Each is looked up by its key, which `offset 0` sees to: joined as a
// planner likes that knows nothing of recursion, a chain of 10,000 steps took 17 s, like this 0.2. index: workflow_step_dependencies_dependent_index,
// workflow_steps_pkey, job_queue_pkey. no row: nothing is in the way.
const prerequisitesOf = (stepId: string) =>
  `(
    select edge.prerequisite_step_id, edge.release_mode
    from runledger.workflow_step_dependencies as edge
    where edge.dependent_step_id = ${stepId}
    offset 0
  ) as edge
  cross join lateral (
    select step.id, step.position, step.status
    from runledger.workflow_steps as step
    where step.id = edge.prerequisite_step_id
    offset 0
  ) as prerequisite`;

const walkText = (isInTheWay: string, leadsOn: string) => `
with recursive direct as materialized (
  select prerequisite.id, prerequisite.position
  from ${prerequisitesOf("$1::uuid")}
  where ${isInTheWay}
  order by prerequisite.position
  limit 10
),
way as (
  select null::uuid as from_id, direct.id
  from direct
  union
  select way.id, next.id
  from way
  cross join lateral (
    select prerequisite.id
    from (
      select step.status, step.last_error_code
      from runledger.workflow_steps as step
      where step.id = way.id
      offset 0
    ) as own
    cross join lateral ${prerequisitesOf("way.id")}
    where ${leadsOn}
      and ${isInTheWay}
    order by prerequisite.position
    limit 1
  ) as next
)
select
  way.from_id, way.id as step_id, step.step_key, step.status as step_status,
  extract(epoch from step.released_at)::text as released_at,
  extract(epoch from step.gate_expires_at)::text as gate_expires_at,
  coalesce(step.last_error_code, job.last_error_code) as error_code,
  ${SITUATION_COLUMNS}
from way
cross join lateral (
  select own.id, own.step_key, own.status, own.position, own.released_at, own.gate_expires_at, own.last_error_code
  from runledger.workflow_steps as own
  where own.id = way.id
  offset 0
) as step
left join lateral (
  select
    own.status, own.attempt, own.max_attempts, own.worker_id, own.last_error_code, own.next_run_at,
    own.lease_expires_at, own.last_heartbeat_at, own.started_at
  from runledger.job_queue as own
  where own.id = way.id
    and step.status in ('ENQUEUED', 'FAILED', 'CANCELED')
  offset 0
) as job on true
order by step.position, step.id
`;

const WAITING_WALK = walkText(
  "prerequisite.status in ('BLOCKED', 'WAITING_FOR_EXTERNAL', 'ENQUEUED', 'RUNNING')",
  "own.status = 'BLOCKED'",
);

const UNSATISFIED_WALK = walkText(
  "edge.release_mode = 'ON_SUCCESS' and prerequisite.status in ('FAILED', 'CANCELED')",
  "own.last_error_code = 'workflow.dependency_unsatisfied'",
);

/** Tells the first ten prerequisites that a blocked step waits for. One statement. */
export async function readAwaitedPrerequisites(db: Queryable, stepId: string): Promise<readonly AwaitedPrerequisite[]> {
  const rows = await runStatement(db, WAITING_WALK, [stepId]);
  return waysOf(rows, (step): LiveStep => ({
    stepId: readText(step, "step_id"),
    stepKey: readText(step, "step_key"),
    situation: liveStepSituation(step),
  }));
}

/** Tells the first ten prerequisites that should have succeeded for a cancelled step and did not. One statement. */
export async function readUnsatisfiedPrerequisites(
  db: Queryable,
  stepId: string,
): Promise<readonly UnsatisfiedPrerequisite[]> {
  const rows = await runStatement(db, UNSATISFIED_WALK, [stepId]);
  return waysOf(rows, (step): EndedStep =>
    present({
      stepId: readText(step, "step_id"),
      stepKey: readText(step, "step_key"),
      status: readText(step, "step_status") as WorkflowStepStatus,
      errorCode: readOptionalText(step, "error_code"),
    }));
}

/** How many steps of a way are told: its first ones and its last two. */
const TOLD_STEPS = 10;

function waysOf<Step>(
  rows: readonly Row[],
  decode: (row: Row) => Step,
): readonly { readonly path: readonly Step[]; readonly omittedCount: number }[] {
  const next = new Map<string, Row>();
  for (const row of rows) {
    const from = readOptionalText(row, "from_id");
    if (from !== undefined) next.set(from, row);
  }
  return rows.filter((row) => row["from_id"] === null).map((first) => {
    const way: Row[] = [];
    for (let row: Row | undefined = first; row !== undefined; row = next.get(readText(row, "step_id"))) way.push(row);
    const omittedCount = Math.max(way.length - TOLD_STEPS, 0);
    const told = omittedCount === 0 ? way : [...way.slice(0, TOLD_STEPS - 2), ...way.slice(-2)];
    return { path: told.map(decode), omittedCount };
  });
}
