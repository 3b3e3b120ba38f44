/**
 * Reading the graph of a workflow run: its steps and edges.
 *
 * @module
 */

import { isReleaseMode, isStepExecutionKind, isWorkflowStepStatus, WORKFLOW_STEP_STATUSES } from "@runledger/core";
import type { JsonValue, ReleaseMode, StepExecutionKind, WorkflowStepStatus } from "@runledger/core";
import { equalConditions, readPage, StatementValues } from "./_keyset_page.ts";
import type { KeysetList } from "./_keyset_page.ts";
import {
  present,
  readInteger,
  readJson,
  readKnown,
  readOptionalInstant,
  readOptionalInteger,
  readOptionalJson,
  readOptionalText,
  readText,
} from "./_rows.ts";
import { choiceValue, noteText } from "./operator_note.ts";
import type { Page, ScopedPageOptions } from "./pages.ts";
import type { Queryable, Row } from "./queryable.ts";
import { runInScope } from "./workflow_runs.ts";

/** A step of a workflow run as it stands. */
export interface WorkflowStep {
  /** The step, and the job that runs it once it is released. */
  readonly stepId: string;
  /** Its name within the run. */
  readonly stepKey: string;
  /** Its place in an order in which the steps can run, from 1. */
  readonly position: number;
  /** Whether a job or somebody outside carries it out. */
  readonly executionKind: StepExecutionKind;
  /** Where it stands. */
  readonly status: WorkflowStepStatus;
  /** Which kind of job, if it is one. */
  readonly jobType?: string;
  /** Whose step it is; absent for a step of no organization. */
  readonly organizationId?: string;
  /** How many prerequisites it has. */
  readonly dependencyCount: number;
  /** How many of them have not ended. */
  readonly pendingCount: number;
  /** How many of them should have succeeded and did not. */
  readonly unsatisfiedCount: number;
  /** The newest attempt of its job. */
  readonly attempt?: number;
  /** When its last prerequisite had ended and it was queued or opened. */
  readonly releasedAt?: Date;
  /** When its job was first claimed. */
  readonly startedAt?: Date;
  /** When it ended. */
  readonly finishedAt?: Date;
  /** When an open gate gets its default outcome. */
  readonly gateExpiresAt?: Date;
  /** Why it stands where it stands. */
  readonly statusReason?: string;
  /** The code of its last failure. */
  readonly lastErrorCode?: string;
  /** The message of its last failure. */
  readonly lastErrorMessage?: string;
  /** What it was given. */
  readonly payload: JsonValue;
  /** What it gave. */
  readonly output?: JsonValue;
}

/** Which steps of a run, and which page of them. */
export interface ListWorkflowStepsOptions extends ScopedPageOptions {
  /** Only steps that stand there. */
  readonly status?: WorkflowStepStatus;
  /** Only steps whose last failure has this code, also those whose job will be tried again. */
  readonly errorCode?: string;
}

/** A step stores ENQUEUED until it ends; it runs while its job is leased. */
const STATUS = "case when step.status = 'ENQUEUED' and job.status = 'LEASED' then 'RUNNING' else step.status end";

/** The failure of a gate is with the step, that of a job with the job. */
const ERROR_CODE = "coalesce(step.last_error_code, job.last_error_code)";

const STEPS: KeysetList<WorkflowStep> = {
  name: "workflow_steps",
  alias: "step",
  keys: [{ column: "run_id", type: "uuid" }, { column: "position", type: "integer" }, { column: "id", type: "uuid" }],
  direction: "asc",
  item: `
    step.id as step_id, step.step_key, step.position, step.execution_kind, ${STATUS} as status, step.job_type,
    step.organization_id, step.dependency_count, step.pending_count, step.unsatisfied_count, job.attempt,
    extract(epoch from step.released_at)::text as released_at, extract(epoch from job.started_at)::text as started_at,
    extract(epoch from step.finished_at)::text as finished_at,
    extract(epoch from step.gate_expires_at)::text as gate_expires_at,
    coalesce(step.status_reason, job.status_reason) as status_reason,
    ${ERROR_CODE} as last_error_code,
    coalesce(step.last_error_message, job.last_error_message) as last_error_message, step.payload::text as payload,
    coalesce(step.output, job.output)::text as output
  from runledger.workflow_steps as step
  left join runledger.job_queue as job on job.id = step.id
  where step.id = page.key_3`,
  decode: decodeStep,
};

/**
 * Lists the steps of a run by position: an order in which they can run.
 *
 * @param db A pool, client or open transaction.
 * @param runId The run.
 * @param options Whose run, which steps, from where on, and how many.
 * @returns A page of steps; an empty one for a run outside the scope.
 * @throws {RunledgerError} `job.invalid_pagination`; `job.invalid_request` for a filter that cannot be; `db.*` codes.
 */
export async function listWorkflowSteps(
  db: Queryable,
  runId: string,
  options: ListWorkflowStepsOptions,
): Promise<Page<WorkflowStep>> {
  const { scope, status, errorCode } = options;
  if (status !== undefined) choiceValue("status", status, WORKFLOW_STEP_STATUSES);
  if (errorCode !== undefined) noteText("errorCode", errorCode, 512);
  const bound = new StatementValues();
  // index: workflow_steps_key_unique, workflow_runs_pkey; job_queue_pkey where status or code are asked for.
  const asksForJob = status !== undefined || errorCode !== undefined;
  const source = {
    from: asksForJob
      ? "runledger.workflow_steps as step left join runledger.job_queue as job on job.id = step.id"
      : "runledger.workflow_steps as step",
    where: runInScope(bound, runId, { scope, column: "step.run_id" }),
    examines: asksForJob ? [`${STATUS} as shown_status`, `${ERROR_CODE} as shown_code`] : [],
    filters: equalConditions(bound, { "step.shown_status": status, "step.shown_code": errorCode }),
  };
  return await readPage(db, STEPS, { source, bound, options });
}

function decodeStep(row: Row): WorkflowStep {
  return present({
    stepId: readText(row, "step_id"),
    stepKey: readText(row, "step_key"),
    position: readInteger(row, "position"),
    executionKind: readKnown(row, "execution_kind", isStepExecutionKind),
    status: readKnown(row, "status", isWorkflowStepStatus),
    jobType: readOptionalText(row, "job_type"),
    organizationId: readOptionalText(row, "organization_id"),
    dependencyCount: readInteger(row, "dependency_count"),
    pendingCount: readInteger(row, "pending_count"),
    unsatisfiedCount: readInteger(row, "unsatisfied_count"),
    attempt: readOptionalInteger(row, "attempt"),
    releasedAt: readOptionalInstant(row, "released_at"),
    startedAt: readOptionalInstant(row, "started_at"),
    finishedAt: readOptionalInstant(row, "finished_at"),
    gateExpiresAt: readOptionalInstant(row, "gate_expires_at"),
    statusReason: readOptionalText(row, "status_reason"),
    lastErrorCode: readOptionalText(row, "last_error_code"),
    lastErrorMessage: readOptionalText(row, "last_error_message"),
    payload: readJson(row, "payload"),
    output: readOptionalJson(row, "output"),
  });
}

/** An edge of a run's graph. */
export interface WorkflowStepDependency {
  /** The step that has to end first. */
  readonly prerequisiteStepKey: string;
  /** The step that waits. */
  readonly dependentStepKey: string;
  /** What is asked of the prerequisite. */
  readonly releaseMode: ReleaseMode;
}

const DEPENDENCIES: KeysetList<WorkflowStepDependency> = {
  name: "workflow_step_dependencies",
  alias: "edge",
  keys: [
    { column: "dependent_position", type: "integer" },
    { column: "prerequisite_position", type: "integer" },
    { column: "dependent_step_id", type: "uuid" },
    { column: "prerequisite_step_id", type: "uuid" },
  ],
  direction: "asc",
  item: `
    prerequisite.step_key as prerequisite_step_key, dependent.step_key as dependent_step_key, edge.release_mode
  from runledger.workflow_step_dependencies as edge
  join runledger.workflow_steps as dependent on dependent.id = edge.dependent_step_id
  join runledger.workflow_steps as prerequisite on prerequisite.id = edge.prerequisite_step_id
  where edge.dependent_step_id = page.key_3
    and edge.prerequisite_step_id = page.key_4`,
  decode: (row) => ({
    prerequisiteStepKey: readText(row, "prerequisite_step_key"),
    dependentStepKey: readText(row, "dependent_step_key"),
    releaseMode: readKnown(row, "release_mode", isReleaseMode),
  }),
};

/**
 * Lists the edges of a run, by the positions of dependent and prerequisite.
 *
 * @param db A pool, client or open transaction.
 * @param runId The run.
 * @param options Whose run it must be, from where on, and how many.
 * @returns A page of edges; an empty one for a run outside the scope.
 * @throws {RunledgerError} `job.invalid_pagination`; `db.*` codes.
 */
export async function listWorkflowStepDependencies(
  db: Queryable,
  runId: string,
  options: ScopedPageOptions,
): Promise<Page<WorkflowStepDependency>> {
  const bound = new StatementValues();
  // index: workflow_steps_key_unique, workflow_step_dependencies_dependent_index, workflow_runs_pkey.
  const source = {
    from: `(
      select
        edge.dependent_step_id, edge.prerequisite_step_id, dependent.run_id,
        dependent.position as dependent_position, prerequisite.position as prerequisite_position
      from runledger.workflow_steps as dependent
      join runledger.workflow_step_dependencies as edge on edge.dependent_step_id = dependent.id
      join runledger.workflow_steps as prerequisite on prerequisite.id = edge.prerequisite_step_id
    ) as edge`,
    where: runInScope(bound, runId, { scope: options.scope, column: "edge.run_id" }),
  };
  return await readPage(db, DEPENDENCIES, { source, bound, options });
}
