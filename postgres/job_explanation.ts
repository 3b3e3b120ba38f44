/**
 * Why a job is not running, or what became of it.
 *
 * @module
 */

import { JOB_FAILURE_KINDS } from "@runledger/core";
import type { DeadLetterReason, JobFailureKind, TerminalWorkflowStepStatus, WorkflowStepStatus } from "@runledger/core";
import {
  present,
  readBoolean,
  readInstant,
  readInteger,
  readJson,
  readKnown,
  readOptionalInstant,
  readOptionalText,
  readText,
} from "./_rows.ts";
import { liveJobSituation, liveStepSituation, SITUATION_COLUMNS } from "./job_situation.ts";
import type { LiveJobSituation, LiveStep, LiveStepSituation, OpenGate } from "./job_situation.ts";
import { uuidValue } from "./operator_note.ts";
import { runStatement } from "./queryable.ts";
import type { Queryable, Row } from "./queryable.ts";
import { scopeValues } from "./scope.ts";
import type { Scope } from "./scope.ts";

/** An attempt that failed. */
export interface FailedAttempt {
  /** Its number within the run, from 1. */
  readonly attempt: number;
  /** How it failed. */
  readonly failureKind: JobFailureKind;
  /** The code of the failure. */
  readonly errorCode: string;
  /** Its message. */
  readonly errorMessage: string;
  /** When. */
  readonly failedAt: Date;
}

/** What else is known of a type while a job of it waits to be claimed. Of jobs, those in the scope. */
export interface ClaimOutlook {
  /** How many due jobs of the type go before it. */
  readonly aheadCount: number;
  /** Whether that is all; if not, there are at least so many. */
  readonly isAheadComplete: boolean;
  /** How many jobs of the type are leased, of the 10,000 leases that run out first. */
  readonly leasedCount: number;
  /** How many workers sleep that have a handler for the type. */
  readonly idleWorkerCount: number;
  /** When a worker last claimed a job of the type, as far as was looked back. */
  readonly lastClaimedAt?: Date;
  /** How far back: the older of the ended jobs that were looked at. Absent if all of them were. */
  readonly lookedBackTo?: Date;
}

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

/** The workflow step that a job carries out. */
export interface ExplainedStepPlace {
  /** The run. */
  readonly runId: string;
  /** The step's name within the run. */
  readonly stepKey: string;
  /** Which kind of workflow; absent if the run is outside the scope. */
  readonly workflowType?: string;
}

/** What every explanation of a job says. */
export interface JobExplanationBase {
  /** The job; a step has its id before it is a job. */
  readonly jobId: string;
  /** When this was so, by the database's clock. */
  readonly observedAt: Date;
  /** Its type; absent for a gate. */
  readonly jobType?: string;
  /** The step that it carries out. */
  readonly step?: ExplainedStepPlace;
  /** Whether its type is enabled; a disabled one takes no new jobs, but runs those that it has. Absent for a gate. */
  readonly isTypeEnabled?: boolean;
  /** Attempts of its present run that failed, oldest first; the newest 20, within its newest 10,000 events. */
  readonly failedAttempts: readonly FailedAttempt[];
  /** Who requeued it, and why, if an operator did. */
  readonly requeued?: { readonly at: Date; readonly reason?: string; readonly actor?: string };
}

/** What a job waits for, who has it, or how it ended; `kind` says which fields there are. */
export type JobExplanation = JobExplanationBase & JobVerdict;

/** The part of a {@linkcode JobExplanation} that depends on its kind. */
export type JobVerdict =
  | Exclude<LiveJobSituation, { readonly kind: "due" }>
  | (Extract<LiveJobSituation, { readonly kind: "due" }> & {
    /** Why nobody may have come for it. */
    readonly outlook: ClaimOutlook;
  })
  | OpenGate
  | {
    /** It is a step that waits for others. */
    readonly kind: "blocked";
    /** For how many. */
    readonly pendingCount: number;
    /** The first ten of them; none if the run is outside the scope. */
    readonly waitsFor: readonly AwaitedPrerequisite[];
  }
  | {
    /** It succeeded. */
    readonly kind: "succeeded";
    /** When. */
    readonly finishedAt: Date;
    /** At which attempt of its run. */
    readonly attempt: number;
  }
  | {
    /** It failed for good. */
    readonly kind: "dead_lettered";
    /** When. */
    readonly finishedAt: Date;
    /** Why no attempt followed. */
    readonly reason?: DeadLetterReason;
    /** How many attempts were made. */
    readonly attempt: number;
    /** How many a run may take. */
    readonly maxAttempts: number;
  }
  | {
    /** It was called off. */
    readonly kind: "canceled";
    /** When. */
    readonly finishedAt: Date;
    /** Why. */
    readonly reason?: string;
    /** Who did it, if he said so. */
    readonly actor?: string;
    /** Until when its handler may still be at work. */
    readonly leaseQuiescesAt?: Date;
  }
  | {
    /** It is a step that ended without a job: a gate, one that was cancelled first, or one that a recovery took over. */
    readonly kind: "ended_without_job";
    /** How. */
    readonly status: TerminalWorkflowStepStatus;
    /** When. */
    readonly finishedAt: Date;
    /** Why. */
    readonly reason?: string;
    /** The code of its failure. */
    readonly errorCode?: string;
    /** What should have succeeded and did not, the first ten. */
    readonly unsatisfied: readonly UnsatisfiedPrerequisite[];
  };

const IN_SCOPE = (table: string) => `($2::text = 'all' or ${table}.organization_id is not distinct from $3::uuid)`;

// What ended attempts or put the job back, of its newest 10,000 events: progress may be most of them.
// index: workflow_steps_pkey, job_queue_pkey, workflow_runs_pkey, job_definitions_pkey, job_events_pkey.
// no row: neither a job nor a step of that id in scope.
const EXPLAIN = `
select
  extract(epoch from statement_timestamp())::text as now, coalesce(job.job_type, step.job_type) as job_type,
  ${SITUATION_COLUMNS},
  job.run_number, job.status_reason, extract(epoch from job.finished_at)::text as finished_at,
  step.step_key, step.run_id, step.status as step_status, step.pending_count,
  extract(epoch from step.released_at)::text as released_at,
  extract(epoch from step.gate_expires_at)::text as gate_expires_at,
  extract(epoch from step.finished_at)::text as step_finished_at, step.status_reason as step_reason,
  step.last_error_code as step_error_code, run.workflow_type, definition.is_enabled, letter.reason as dead_reason,
  (
    select coalesce(jsonb_agg(jsonb_build_object(
      'run_number', story.run_number, 'attempt', story.attempt, 'event_type', story.event_type,
      'payload', story.payload, 'occurred_at', extract(epoch from story.occurred_at)::text
    ) order by story.seq), '[]')
    from (
      select event.seq, event.run_number, event.attempt, event.event_type, event.payload, event.occurred_at
      from runledger.job_events as event
      where event.job_id = job.id
        and event.seq > job.event_seq - 10000
        and event.event_type in ('FAILED', 'CANCELED', 'REQUEUED')
      order by event.seq desc
      limit 20
    ) as story
  )::text as story
from (select $1::uuid as id) as asked
left join runledger.job_queue as job on job.id = asked.id and ${IN_SCOPE("job")}
left join runledger.workflow_steps as step on step.id = asked.id and ${IN_SCOPE("step")}
left join runledger.workflow_runs as run on run.id = step.run_id and ${IN_SCOPE("run")}
left join runledger.job_definitions as definition on definition.job_type = coalesce(job.job_type, step.job_type)
left join runledger.job_dead_letters as letter on letter.job_id = job.id
where job.id is not null
  or step.id is not null
`;

// Each part looks at a bounded piece of an index: what goes before the job, who has others of its type, and which jobs of
// the type ended last. When a job was claimed is in its ledger.
// index: job_queue_claim_index, job_queue_lease_index, job_queue_finished_index, job_events_pkey, sleeping_workers_pkey.
const OUTLOOK = `
with ahead as (
  select
    count(*) filter (
      where seen.next_run_at <= statement_timestamp()
        and ${IN_SCOPE("seen")}
        and (seen.priority > own.priority or (seen.next_run_at, seen.id) < (own.next_run_at, own.id))
    ) as jobs,
    count(*) < 10000 as is_complete
  from runledger.job_queue as own
  cross join lateral (
    select other.id, other.priority, other.next_run_at, other.organization_id
    from runledger.job_queue as other
    where other.status = 'PENDING'
      and other.job_type = own.job_type
      and other.priority >= own.priority
    order by other.priority desc, other.next_run_at, other.id
    limit 10000
  ) as seen
  where own.id = $1::uuid
),
lease as materialized (
  select held.id, held.last_heartbeat_at
  from (
    select queue.id, queue.job_type, queue.organization_id, queue.last_heartbeat_at
    from runledger.job_queue as queue
    where queue.status = 'LEASED'
    order by queue.lease_expires_at
    limit 10000
  ) as held
  where held.job_type = $4::text
    and ${IN_SCOPE("held")}
),
ended as materialized (
  select latest.id, latest.job_type, latest.organization_id, latest.finished_at, latest.place
  from (values (true), (false)) as half (is_unkeyed)
  cross join lateral (
    select
      queue.id, queue.job_type, queue.organization_id, queue.finished_at,
      row_number() over (order by queue.finished_at desc) as place
    from (
      select own.id, own.job_type, own.organization_id, own.finished_at
      from runledger.job_queue as own
      where (own.idempotency_key is null) = half.is_unkeyed
        and own.finished_at is not null
      order by own.finished_at desc
      limit 1000
    ) as queue
  ) as latest
),
candidate as (
  select $1::uuid as id
  union
  (
    select lease.id
    from lease
    order by lease.last_heartbeat_at desc
    limit 20
  )
  union
  (
    select ended.id
    from ended
    where ended.job_type = $4::text
      and ${IN_SCOPE("ended")}
    order by ended.finished_at desc
    limit 20
  )
  union
  (
    select tried.id
    from (
      select queue.id, queue.started_at, queue.organization_id
      from runledger.job_queue as queue
      where queue.status = 'PENDING'
        and queue.job_type = $4::text
      order by queue.priority desc, queue.next_run_at, queue.id
      limit 1000
    ) as tried
    where tried.started_at is not null
      and ${IN_SCOPE("tried")}
    order by tried.started_at desc
    limit 20
  )
)
select
  ahead.jobs::text as ahead_count, ahead.is_complete as is_ahead_complete,
  (select count(*) from lease)::text as leased_count,
  (
    select count(*)
    from runledger.sleeping_workers as sleeper
    where sleeper.sleeps_until > clock_timestamp()
      and $4::text = any (sleeper.job_types)
  )::text as idle_worker_count,
  (
    select extract(epoch from max(claimed.occurred_at))::text
    from candidate
    cross join lateral (
      select latest.occurred_at
      from (
        select event.event_type, event.occurred_at, event.seq
        from runledger.job_events as event
        where event.job_id = candidate.id
        order by event.seq desc
        limit 100
      ) as latest
      where latest.event_type = 'LEASED'
      order by latest.seq desc
      limit 1
    ) as claimed
  ) as last_claimed_at,
  (
    select extract(epoch from max(ended.finished_at))::text
    from ended
    where ended.place = 1000
  ) as looked_back_to
from ahead
`;

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

/**
 * Says why a job is not running, or what became of it. {@linkcode formatJobExplanation} makes a text of it.
 *
 * Also of a step of a workflow run that is no job yet: one that is blocked, or a gate. Two statements at most, each of
 * which looks at a bounded number of rows, however large the tables or the run. Of what others do, it tells what is in
 * the scope.
 *
 * @param db A pool, client or open transaction.
 * @param jobId The job or step.
 * @param options Whose job it must be.
 * @returns The explanation, or `undefined` if there is no such job or step in the scope.
 * @throws {RunledgerError} `job.invalid_request` for an id that is none; `db.*` codes.
 */
export async function explainJob(
  db: Queryable,
  jobId: string,
  options: { readonly scope: Scope },
): Promise<JobExplanation | undefined> {
  const { scope } = options;
  const id = uuidValue("jobId", jobId);
  const [row] = await runStatement(db, EXPLAIN, [id, ...scopeValues(scope)]);
  if (row === undefined) return undefined;
  const story = readJson(row, "story") as unknown as readonly StoryEvent[];
  const verdict = row["job_status"] === null
    ? await stepVerdict(db, id, row)
    : await jobVerdict(db, { id, scope, row, story });
  return { ...explanationBase(id, row, story), ...verdict };
}

/** What a row of the ledger says in the story of a job. */
interface StoryEvent {
  readonly run_number: number;
  readonly attempt: number | null;
  readonly event_type: "FAILED" | "CANCELED" | "REQUEUED";
  readonly payload: Readonly<Record<string, unknown>> | null;
  readonly occurred_at: string;
}

function textIn(event: StoryEvent, name: string): string | undefined {
  const value = event.payload?.[name];
  return typeof value === "string" ? value : undefined;
}

function timeOf(event: StoryEvent): Date {
  return readInstant({ at: event.occurred_at }, "at");
}

function isFailureKind(value: unknown): value is JobFailureKind {
  return (JOB_FAILURE_KINDS as readonly unknown[]).includes(value);
}

function explanationBase(jobId: string, row: Row, story: readonly StoryEvent[]): JobExplanationBase {
  const runId = readOptionalText(row, "run_id");
  const requeue = story.findLast((event) =>
    event.event_type === "REQUEUED" && event.payload?.["requeue_kind"] === "COMPARE_AND_REQUEUE"
  );
  return present({
    jobId,
    observedAt: readInstant(row, "now"),
    jobType: readOptionalText(row, "job_type"),
    step: runId === undefined ? undefined : present({
      runId,
      stepKey: readText(row, "step_key"),
      workflowType: readOptionalText(row, "workflow_type"),
    }),
    isTypeEnabled: row["is_enabled"] === null ? undefined : readBoolean(row, "is_enabled"),
    failedAttempts: story
      .filter((event) => event.event_type === "FAILED" && event.run_number === row["run_number"])
      .map((event): FailedAttempt => ({
        attempt: event.attempt ?? 0,
        failureKind: readKnown({ kind: event.payload?.["kind"] }, "kind", isFailureKind),
        errorCode: textIn(event, "error_code") ?? "",
        errorMessage: textIn(event, "error_message") ?? "",
        failedAt: timeOf(event),
      })),
    requeued: requeue === undefined
      ? undefined
      : present({ at: timeOf(requeue), reason: textIn(requeue, "reason"), actor: textIn(requeue, "actor") }),
  });
}

interface Asked {
  readonly id: string;
  readonly scope: Scope;
  readonly row: Row;
  readonly story: readonly StoryEvent[];
}

async function jobVerdict(db: Queryable, { id, scope, row, story }: Asked): Promise<JobVerdict> {
  switch (row["job_status"]) {
    case "SUCCEEDED":
      return {
        kind: "succeeded",
        finishedAt: readInstant(row, "finished_at"),
        attempt: readInteger(row, "attempt"),
      };
    case "DEAD_LETTERED":
      return present({
        kind: "dead_lettered",
        finishedAt: readInstant(row, "finished_at"),
        reason: readOptionalText(row, "dead_reason") as DeadLetterReason | undefined,
        attempt: readInteger(row, "attempt"),
        maxAttempts: readInteger(row, "max_attempts"),
      });
    case "CANCELED": {
      const event = story.findLast(({ event_type }) => event_type === "CANCELED");
      return present({
        kind: "canceled",
        finishedAt: readInstant(row, "finished_at"),
        reason: readOptionalText(row, "status_reason"),
        actor: event === undefined ? undefined : textIn(event, "actor"),
        leaseQuiescesAt: row["has_run_out"] === false ? readOptionalInstant(row, "lease_expires_at") : undefined,
      });
    }
    default: {
      const situation = liveJobSituation(row);
      if (situation.kind !== "due") return situation;
      const values = [id, ...scopeValues(scope), readText(row, "job_type")];
      const [seen] = await runStatement(db, OUTLOOK, values);
      // The job was deleted between the two statements.
      const outlook = seen === undefined
        ? { aheadCount: 0, isAheadComplete: true, leasedCount: 0, idleWorkerCount: 0 }
        : decodeOutlook(seen);
      return { ...situation, outlook };
    }
  }
}

function decodeOutlook(row: Row): ClaimOutlook {
  return present({
    aheadCount: readInteger(row, "ahead_count"),
    isAheadComplete: readBoolean(row, "is_ahead_complete"),
    leasedCount: readInteger(row, "leased_count"),
    idleWorkerCount: readInteger(row, "idle_worker_count"),
    lastClaimedAt: readOptionalInstant(row, "last_claimed_at"),
    lookedBackTo: readOptionalInstant(row, "looked_back_to"),
  });
}

async function stepVerdict(db: Queryable, id: string, row: Row): Promise<JobVerdict> {
  const isRunSeen = row["workflow_type"] !== null;
  const situation: LiveStepSituation | undefined = row["step_finished_at"] === null
    ? liveStepSituation(row)
    : undefined;
  if (situation?.kind === "gate_open") return situation;
  if (situation !== undefined) {
    const walked = isRunSeen ? await runStatement(db, WAITING_WALK, [id]) : [];
    return {
      kind: "blocked",
      pendingCount: readInteger(row, "pending_count"),
      waitsFor: waysOf(walked, (step): LiveStep => ({
        stepId: readText(step, "step_id"),
        stepKey: readText(step, "step_key"),
        situation: liveStepSituation(step),
      })),
    };
  }
  const errorCode = readOptionalText(row, "step_error_code");
  const isUnsatisfied = errorCode === "workflow.dependency_unsatisfied" && isRunSeen;
  return present({
    kind: "ended_without_job",
    status: readText(row, "step_status") as TerminalWorkflowStepStatus,
    finishedAt: readInstant(row, "step_finished_at"),
    reason: readOptionalText(row, "step_reason"),
    errorCode,
    unsatisfied: waysOf(
      isUnsatisfied ? await runStatement(db, UNSATISFIED_WALK, [id]) : [],
      (step): EndedStep =>
        present({
          stepId: readText(step, "step_id"),
          stepKey: readText(step, "step_key"),
          status: readText(step, "step_status") as WorkflowStepStatus,
          errorCode: readOptionalText(step, "error_code"),
        }),
    ),
  });
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
