/**
 * Why a workflow run goes on or does not, or what became of it.
 *
 * @module
 */

import { WORKFLOW_STEP_STATUSES } from "@runledger/core";
import type { WorkflowStepStatus } from "@runledger/core";
import {
  present,
  readBoolean,
  readInstant,
  readInteger,
  readOptionalInstant,
  readOptionalText,
  readText,
} from "./_rows.ts";
import { liveStepSituation, SITUATION_COLUMNS } from "./job_situation.ts";
import type { LiveStep } from "./job_situation.ts";
import { runStatement } from "./queryable.ts";
import type { Queryable, Row } from "./queryable.ts";
import type { Scope } from "./scope.ts";
import { getWorkflowRun } from "./workflow_runs.ts";
import type { WorkflowRun } from "./workflow_runs.ts";

/** Some of the steps of a run that have something in common, and how many there are. */
export interface StepSample<Step> {
  /** How many. */
  readonly count: number;
  /** The first ten of them; which come first depends on what they have in common. */
  readonly steps: readonly Step[];
}

/** A step that failed. */
export interface FailedStep {
  /** The step, and the job that ran it. */
  readonly stepId: string;
  /** Its name within the run. */
  readonly stepKey: string;
  /** When. */
  readonly failedAt?: Date;
  /** The code of its failure. */
  readonly errorCode?: string;
  /** The message of its failure. */
  readonly errorMessage?: string;
}

/** What every explanation of a run says. */
export interface WorkflowRunExplanationBase {
  /** The run. */
  readonly run: WorkflowRun;
  /** When this was so, by the database's clock. */
  readonly observedAt: Date;
  /** How many steps stand where. */
  readonly stepCounts: Readonly<Record<WorkflowStepStatus, number>>;
  /** Steps that failed, those first that failed first. */
  readonly failed: StepSample<FailedStep>;
}

/** What may be going on in a run that has not ended. */
export interface LiveWorkflowRun {
  /** Steps that a worker holds, those first that were claimed first. */
  readonly running: StepSample<LiveStep>;
  /** Steps that are due and wait for a worker, those first that are due longest. */
  readonly due: StepSample<LiveStep>;
  /** Steps that wait for their time, as a rule to be tried again, those first that are due first. */
  readonly scheduled: StepSample<LiveStep>;
  /** Gates that are open, those first that are open longest. */
  readonly gates: StepSample<LiveStep>;
}

/** What a run waits for, or how it ended; `kind` says which fields there are. */
export type WorkflowRunExplanation =
  & WorkflowRunExplanationBase
  & (
    | ({
      /**
       * What has to happen next: a running step has to end; a worker has to claim one; the time of one has to come; a gate
       * has to be completed.
       */
      readonly kind: "running" | "waiting_for_workers" | "waiting_for_time" | "waiting_for_gates";
    } & LiveWorkflowRun)
    | {
      /** How it ended. */
      readonly kind: "succeeded" | "completed_with_errors" | "canceled";
      /** When. */
      readonly finishedAt: Date;
    }
  );

/** In which of its places a step is told of. */
type Section = "running" | "due" | "scheduled" | "gates" | "failed" | "other";

// All steps of the run are read, and of those that a job may run, the job; each by a key.
// index: workflow_steps_key_unique, job_queue_pkey. no row: no such run.
const STEPS = `
with step as materialized (
  select
    own.id as step_id, own.step_key, own.position,
    case when own.status = 'ENQUEUED' and job.job_status = 'LEASED' then 'RUNNING' else own.status end as step_status,
    case
      when own.status = 'WAITING_FOR_EXTERNAL' then 'gates'
      when own.status = 'FAILED' then 'failed'
      when own.status <> 'ENQUEUED' then 'other'
      when job.job_status = 'LEASED' then 'running'
      when job.is_due then 'due'
      else 'scheduled'
    end as section,
    extract(epoch from own.released_at)::text as released_at,
    extract(epoch from own.gate_expires_at)::text as gate_expires_at,
    extract(epoch from own.finished_at)::text as failed_at,
    coalesce(own.last_error_code, job.last_error_code) as error_code,
    coalesce(own.last_error_message, job.last_error_message) as error_message,
    case
      when own.status = 'FAILED' then own.finished_at
      when own.status = 'WAITING_FOR_EXTERNAL' then own.released_at
      when job.job_status = 'LEASED' then job.began_at
      else job.due_at
    end as since,
    job.*
  from runledger.workflow_steps as own
  left join lateral (
    select ${SITUATION_COLUMNS}, job.last_error_message, job.started_at as began_at, job.next_run_at as due_at
    from runledger.job_queue as job
    where job.id = own.id
      and own.status in ('ENQUEUED', 'FAILED')
    offset 0
  ) as job on true
  where own.run_id = $1::uuid
),
told as (
  select
    step.*, count(*) over (partition by step.step_status)::text as status_count,
    count(*) over (partition by step.section)::text as section_count,
    row_number() over (partition by step.section order by step.since, step.position) as place,
    row_number() over (partition by step.step_status order by step.position) as status_place
  from step
)
select
  extract(epoch from statement_timestamp())::text as now, told.section, told.section_count,
  told.place <= 10 and told.section <> 'other' as is_told, told.status_count, told.step_id, told.step_key,
  told.step_status, told.released_at, told.gate_expires_at, told.failed_at, told.error_code, told.error_message,
  told.job_status, told.attempt, told.max_attempts, told.worker_id, told.last_error_code, told.is_due,
  told.has_run_out, told.next_run_at, told.lease_expires_at, told.last_heartbeat_at, told.started_at
from told
where told.status_place = 1
  or (told.place <= 10 and told.section <> 'other')
order by told.place
`;

/**
 * Says what a workflow run waits for, or what became of it. {@linkcode formatWorkflowRunExplanation} makes a text of it.
 *
 * Two statements. The second one reads all steps of the run, and gives ten of each kind: of a run of 10,000 steps it takes
 * about as long as listing a page.
 *
 * @param db A pool, client or open transaction.
 * @param runId The run.
 * @param options Whose run it must be.
 * @returns The explanation, or `undefined` if there is no such run in the scope.
 * @throws {RunledgerError} `job.invalid_request` for an id that is none; `db.*` codes.
 */
export async function explainWorkflowRun(
  db: Queryable,
  runId: string,
  options: { readonly scope: Scope },
): Promise<WorkflowRunExplanation | undefined> {
  const run = await getWorkflowRun(db, runId, options);
  if (run === undefined) return undefined;
  const rows = await runStatement(db, STEPS, [run.runId]);
  const [first] = rows;
  // The run was deleted between the two statements.
  if (first === undefined) return undefined;
  const sample = <Step>(section: Section, decode: (row: Row) => Step): StepSample<Step> => {
    const own = rows.filter((row) => row["section"] === section);
    return {
      count: own[0] === undefined ? 0 : readInteger(own[0], "section_count"),
      steps: own.filter((row) => readBoolean(row, "is_told")).map(decode),
    };
  };
  const counts = new Map(rows.map((row) => [row["step_status"], readInteger(row, "status_count")]));
  const base: WorkflowRunExplanationBase = {
    run,
    observedAt: readInstant(first, "now"),
    stepCounts: Object.fromEntries(
      WORKFLOW_STEP_STATUSES.map((status) => [status, counts.get(status) ?? 0]),
    ) as Record<WorkflowStepStatus, number>,
    failed: sample("failed", decodeFailed),
  };
  if (run.finishedAt !== undefined) {
    const kind = run.status === "CANCELED"
      ? "canceled"
      : run.status === "SUCCEEDED"
      ? "succeeded"
      : "completed_with_errors";
    return { ...base, kind, finishedAt: run.finishedAt };
  }
  const live: LiveWorkflowRun = {
    running: sample("running", decodeLive),
    due: sample("due", decodeLive),
    scheduled: sample("scheduled", decodeLive),
    gates: sample("gates", decodeLive),
  };
  const kind = live.running.count > 0
    ? "running"
    : live.due.count > 0
    ? "waiting_for_workers"
    : live.scheduled.count > 0
    ? "waiting_for_time"
    : "waiting_for_gates";
  return { ...base, kind, ...live };
}

function decodeLive(row: Row): LiveStep {
  return {
    stepId: readText(row, "step_id"),
    stepKey: readText(row, "step_key"),
    situation: liveStepSituation(row),
  };
}

function decodeFailed(row: Row): FailedStep {
  return present({
    stepId: readText(row, "step_id"),
    stepKey: readText(row, "step_key"),
    failedAt: readOptionalInstant(row, "failed_at"),
    errorCode: readOptionalText(row, "error_code"),
    errorMessage: readOptionalText(row, "error_message"),
  });
}
