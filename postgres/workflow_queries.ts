/**
 * Reading workflow runs, their steps, edges, mutations and results.
 *
 * @module
 */

import {
  isReleaseMode,
  isStepExecutionKind,
  isTerminalWorkflowRunStatus,
  isWorkflowRunStatus,
  isWorkflowStepStatus,
  RunledgerError,
} from "@runledger/core";
import type { JsonValue, ReleaseMode, StepExecutionKind, WorkflowRunStatus, WorkflowStepStatus } from "@runledger/core";
import {
  present,
  readInstant,
  readInteger,
  readJson,
  readOptionalInstant,
  readOptionalInteger,
  readOptionalJson,
  readOptionalText,
  readText,
} from "./_rows.ts";
import { assertLimit } from "./job_reap.ts";
import { uuidValue } from "./operator_note.ts";
import { runStatement } from "./queryable.ts";
import type { Queryable, Row } from "./queryable.ts";
import { scopeValues } from "./scope.ts";
import type { Scope } from "./scope.ts";

/** A workflow run as it stands. */
export interface WorkflowRun {
  /** The run. */
  readonly runId: string;
  /** Which kind of workflow. */
  readonly workflowType: string;
  /** Whose run it is; absent for a run of no organization. */
  readonly organizationId?: string;
  /** Where it stands. */
  readonly status: WorkflowRunStatus;
  /** How many steps it has. */
  readonly stepCount: number;
  /** How many steps are blocked, queued or running. */
  readonly openCount: number;
  /** How many gates are open. */
  readonly waitingCount: number;
  /** How many steps failed or were cancelled. */
  readonly unsuccessfulCount: number;
  /** When it was enqueued. */
  readonly createdAt: Date;
  /** When it ended. */
  readonly finishedAt?: Date;
  /** Its idempotency key. */
  readonly idempotencyKey?: string;
  /** Its active key. */
  readonly activeKey?: string;
  /** The step whose output is its result. */
  readonly resultStepKey?: string;
  /** The run that it recovers. */
  readonly recoveryOfRunId?: string;
  /** How it recovers that run. */
  readonly recoveryMode?: "REPLAY" | "RESUME";
  /** Why it was cancelled. */
  readonly statusReason?: string;
  /** What the producer kept with it. */
  readonly metadata: JsonValue;
}

const RUN_COLUMNS = `
  run.id as run_id, run.workflow_type, run.organization_id, run.status, run.step_count, run.open_count,
  run.waiting_count, run.unsuccessful_count, extract(epoch from run.created_at)::text as created_at,
  extract(epoch from run.finished_at)::text as finished_at, run.idempotency_key, run.active_key,
  run.enqueue_request ->> 'result_step_key' as result_step_key, run.recovery_of_run_id, run.recovery_mode,
  run.status_reason, (run.enqueue_request -> 'metadata')::text as metadata`;

// index: workflow_runs_pkey. no row: no such run in scope.
const GET_RUN = `
select ${RUN_COLUMNS}
from runledger.workflow_runs as run
where run.id = $1::uuid
  and ($2::text = 'all' or run.organization_id is not distinct from $3::uuid)
`;

/**
 * Reads a workflow run.
 *
 * @param db A pool, client or open transaction.
 * @param runId The run.
 * @param options Whose run it must be.
 * @returns The run, or `undefined` if there is none in the scope.
 * @throws {RunledgerError} `db.*` codes.
 */
export async function getWorkflowRun(
  db: Queryable,
  runId: string,
  options: { readonly scope: Scope },
): Promise<WorkflowRun | undefined> {
  const [row] = await runStatement(db, GET_RUN, [uuidValue("runId", runId), ...scopeValues(options.scope)]);
  return row === undefined ? undefined : decodeRun(row);
}

function decodeRun(row: Row): WorkflowRun {
  return present({
    runId: readText(row, "run_id"),
    workflowType: readText(row, "workflow_type"),
    organizationId: readOptionalText(row, "organization_id"),
    status: readRunStatus(row, "status"),
    stepCount: readInteger(row, "step_count"),
    openCount: readInteger(row, "open_count"),
    waitingCount: readInteger(row, "waiting_count"),
    unsuccessfulCount: readInteger(row, "unsuccessful_count"),
    createdAt: readInstant(row, "created_at"),
    finishedAt: readOptionalInstant(row, "finished_at"),
    idempotencyKey: readOptionalText(row, "idempotency_key"),
    activeKey: readOptionalText(row, "active_key"),
    resultStepKey: readOptionalText(row, "result_step_key"),
    recoveryOfRunId: readOptionalText(row, "recovery_of_run_id"),
    recoveryMode: readOptionalText(row, "recovery_mode") as WorkflowRun["recoveryMode"],
    statusReason: readOptionalText(row, "status_reason"),
    metadata: readJson(row, "metadata"),
  });
}

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

/** A page of what belongs to one run. */
export interface WorkflowPageOptions {
  /** Whose run it must be. */
  readonly scope: Scope;
  /** Only steps behind this position. @default {0} */
  readonly afterPosition?: number;
  /** How many at most, 1 to 1000. @default {100} */
  readonly limit?: number;
}

// index: workflow_runs_pkey, workflow_steps_key_unique, job_queue_pkey. no row: no more steps, or no such run in scope.
const LIST_STEPS = `
select
  step.id as step_id, step.step_key, step.position, step.execution_kind,
  case when step.status = 'ENQUEUED' and job.status = 'LEASED' then 'RUNNING' else step.status end as status,
  step.job_type, step.organization_id, step.dependency_count, step.pending_count, step.unsatisfied_count, job.attempt,
  extract(epoch from step.released_at)::text as released_at, extract(epoch from job.started_at)::text as started_at,
  extract(epoch from step.finished_at)::text as finished_at,
  extract(epoch from step.gate_expires_at)::text as gate_expires_at,
  coalesce(step.status_reason, job.status_reason) as status_reason,
  coalesce(step.last_error_code, job.last_error_code) as last_error_code,
  coalesce(step.last_error_message, job.last_error_message) as last_error_message, step.payload::text as payload,
  coalesce(step.output, job.output)::text as output
from runledger.workflow_runs as run
join runledger.workflow_steps as step on step.run_id = run.id
left join runledger.job_queue as job on job.id = step.id
where run.id = $1::uuid
  and ($2::text = 'all' or run.organization_id is not distinct from $3::uuid)
  and step.position > $4::integer
order by step.position
limit $5::integer
`;

/**
 * Lists the steps of a run by position: an order in which they can run.
 *
 * @param db A pool, client or open transaction.
 * @param runId The run.
 * @param options Whose run, from where on, and how many.
 * @returns The steps; none for a run outside the scope.
 * @throws {RunledgerError} `job.invalid_pagination`; `db.*` codes.
 */
export async function listWorkflowSteps(
  db: Queryable,
  runId: string,
  options: WorkflowPageOptions,
): Promise<readonly WorkflowStep[]> {
  const { scope, afterPosition = 0, limit = 100 } = options;
  assertLimit(limit);
  if (!Number.isInteger(afterPosition) || afterPosition < 0 || afterPosition > 2_147_483_647) {
    throw new RunledgerError("job.invalid_pagination", { details: { field: "afterPosition" } });
  }
  const values = [uuidValue("runId", runId), ...scopeValues(scope), afterPosition, limit];
  return (await runStatement(db, LIST_STEPS, values)).map(decodeStep);
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

// index: workflow_steps_key_unique, workflow_step_dependencies_dependent_index. no row: no edges, or no such run in scope.
const LIST_DEPENDENCIES = `
select
  prerequisite.step_key as prerequisite_step_key, dependent.step_key as dependent_step_key, edge.release_mode
from runledger.workflow_runs as run
join runledger.workflow_steps as dependent on dependent.run_id = run.id
join runledger.workflow_step_dependencies as edge on edge.dependent_step_id = dependent.id
join runledger.workflow_steps as prerequisite on prerequisite.id = edge.prerequisite_step_id
where run.id = $1::uuid
  and ($2::text = 'all' or run.organization_id is not distinct from $3::uuid)
order by dependent.position, prerequisite.position
`;

/**
 * Lists all edges of a run, by dependent and prerequisite.
 *
 * @param db A pool, client or open transaction.
 * @param runId The run.
 * @param options Whose run it must be.
 * @returns The edges; none for a run outside the scope.
 * @throws {RunledgerError} `db.*` codes.
 */
export async function listWorkflowStepDependencies(
  db: Queryable,
  runId: string,
  options: { readonly scope: Scope },
): Promise<readonly WorkflowStepDependency[]> {
  const rows = await runStatement(db, LIST_DEPENDENCIES, [uuidValue("runId", runId), ...scopeValues(options.scope)]);
  return rows.map((row) => ({
    prerequisiteStepKey: readText(row, "prerequisite_step_key"),
    dependentStepKey: readText(row, "dependent_step_key"),
    releaseMode: readKnown(row, "release_mode", isReleaseMode),
  }));
}

/** Something that was done to a run after it was enqueued. */
export interface WorkflowRunMutation {
  /** The key under which it was done. */
  readonly mutationKey: string;
  /** What was done. */
  readonly mutationKind: "APPEND_STEPS";
  /** When, by the database's clock. */
  readonly occurredAt: Date;
  /** What the caller kept with it. */
  readonly metadata?: JsonValue;
  /** What was asked for, in canonical form. */
  readonly request: JsonValue;
}

// index: workflow_run_mutations_pkey. no row: no mutations, or no such run in scope.
const LIST_MUTATIONS = `
select
  mutation.mutation_key, mutation.mutation_kind, extract(epoch from mutation.occurred_at)::text as occurred_at,
  mutation.metadata::text as metadata, mutation.request::text as request
from runledger.workflow_runs as run
join runledger.workflow_run_mutations as mutation on mutation.run_id = run.id
where run.id = $1::uuid
  and ($2::text = 'all' or run.organization_id is not distinct from $3::uuid)
order by mutation.occurred_at, mutation.mutation_key
`;

/**
 * Lists what was done to a run after it was enqueued, oldest first.
 *
 * @param db A pool, client or open transaction.
 * @param runId The run.
 * @param options Whose run it must be.
 * @returns The mutations; none for a run outside the scope.
 * @throws {RunledgerError} `db.*` codes.
 */
export async function listWorkflowRunMutations(
  db: Queryable,
  runId: string,
  options: { readonly scope: Scope },
): Promise<readonly WorkflowRunMutation[]> {
  const rows = await runStatement(db, LIST_MUTATIONS, [uuidValue("runId", runId), ...scopeValues(options.scope)]);
  return rows.map((row) =>
    present({
      mutationKey: readText(row, "mutation_key"),
      mutationKind: readText(row, "mutation_kind") as "APPEND_STEPS",
      occurredAt: readInstant(row, "occurred_at"),
      metadata: readOptionalJson(row, "metadata"),
      request: readJson(row, "request"),
    })
  );
}

/** How to wait for a result. */
export interface GetWorkflowResultOptions {
  /** Whose run it must be. */
  readonly scope: Scope;
  /** How long to wait for the run to end, in milliseconds; 0 looks once. @default {0} */
  readonly timeoutMs?: number;
  /** How often to look, in milliseconds, at least 1. @default {500} */
  readonly pollIntervalMs?: number;
  /** Ends the wait: the call rejects with its reason. Nothing happens to the run. */
  readonly signal?: AbortSignal;
  /**
   * Has `wake` called when runs end, so that the wait ends sooner than the next poll: listens on
   * {@linkcode WORKFLOW_RUN_ENDED_CHANNEL} and gives what ends the listening. With postgres.js:
   * `async (wake) => (await sql.listen(WORKFLOW_RUN_ENDED_CHANNEL, wake)).unlisten`. Wake-ups may be lost or too many;
   * polling goes on beside them.
   */
  readonly listen?: (wake: () => void) => Promise<() => unknown>;
}

/** The channel that PostgreSQL notifies, with the run's id, when a run ends that declares a result or is cancelled. */
export const WORKFLOW_RUN_ENDED_CHANNEL = "runledger_workflow_run_ended";

// index: workflow_runs_pkey, workflow_steps_key_unique, job_queue_pkey. no row: no such run in scope.
const GET_RESULT = `
select
  run.status, run.enqueue_request ->> 'result_step_key' as result_step_key,
  coalesce(step.output, job.output)::text as output
from runledger.workflow_runs as run
left join runledger.workflow_steps as step
  on step.run_id = run.id and step.step_key = run.enqueue_request ->> 'result_step_key'
left join runledger.job_queue as job on job.id = step.id
where run.id = $1::uuid
  and ($2::text = 'all' or run.organization_id is not distinct from $3::uuid)
`;

/**
 * Gives the output of a run's result step, once the run has succeeded.
 *
 * Looks at once, then polls until the time is over, woken early where `listen` is given. Safe to repeat.
 *
 * @param db A pool or client; in a transaction of REPEATABLE READ it would never see the run end.
 * @param runId The run.
 * @param options Whose run, and how long to wait.
 * @returns The result.
 * @throws {RunledgerError} `workflow.run_not_found`; `workflow.result_not_declared` at once for a run without a result
 * step; `workflow.result_unsuccessful_terminal` with `details.status`; `workflow.result_missing` when the step gave no
 * output; `workflow.result_wait_timeout`; `db.*` codes.
 */
export async function getWorkflowResult(
  db: Queryable,
  runId: string,
  options: GetWorkflowResultOptions,
): Promise<JsonValue> {
  const { timeoutMs = 0, pollIntervalMs = 500, listen } = options;
  if (!(timeoutMs >= 0)) throw new RangeError(`Cannot wait for '${timeoutMs}' ms: timeoutMs must be 0 or more`);
  if (!(pollIntervalMs >= 1)) throw new RangeError(`Cannot poll each '${pollIntervalMs}' ms: it must be 1 or more`);
  const bell = new Bell();
  // Listening begins before the first look: a run that ends between the two is not missed.
  const unlisten = timeoutMs > 0 ? await listen?.(() => bell.ring()) : undefined;
  try {
    return await pollWorkflowResult(db, runId, { ...options, timeoutMs, pollIntervalMs }, bell);
  } finally {
    await unlisten?.();
  }
}

async function pollWorkflowResult(
  db: Queryable,
  runId: string,
  options: GetWorkflowResultOptions & { readonly timeoutMs: number; readonly pollIntervalMs: number },
  bell: Bell,
): Promise<JsonValue> {
  const { scope, timeoutMs, pollIntervalMs, signal } = options;
  const values = [uuidValue("runId", runId), ...scopeValues(scope)];
  const started = performance.now();
  while (true) {
    signal?.throwIfAborted();
    const [row] = await runStatement(db, GET_RESULT, values);
    if (row === undefined) throw new RunledgerError("workflow.run_not_found");
    if (row["result_step_key"] === null) throw new RunledgerError("workflow.result_not_declared");
    const status = readRunStatus(row, "status");
    if (status === "SUCCEEDED") {
      const output = readOptionalJson(row, "output");
      if (output === undefined) throw new RunledgerError("workflow.result_missing");
      return output;
    }
    if (isTerminalWorkflowRunStatus(status)) {
      throw new RunledgerError("workflow.result_unsuccessful_terminal", { details: { status } });
    }
    const left = timeoutMs - (performance.now() - started);
    if (left <= 0) throw new RunledgerError("workflow.result_wait_timeout", { details: { status } });
    await bell.wait(Math.min(left, pollIntervalMs), signal);
  }
}

/** Waits that a ring ends early. A ring while nobody waits ends the next wait at once. */
class Bell {
  #hasRung = false;
  #end: (() => void) | undefined;

  ring(): void {
    this.#hasRung = true;
    this.#end?.();
  }

  async wait(ms: number, signal: AbortSignal | undefined): Promise<void> {
    if (!this.#hasRung) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(() => this.#end?.(), Math.min(ms, 2_147_483_647));
        this.#end = () => {
          clearTimeout(timer);
          signal?.removeEventListener("abort", this.#end as () => void);
          this.#end = undefined;
          resolve();
        };
        signal?.addEventListener("abort", this.#end, { once: true });
      });
    }
    this.#hasRung = false;
  }
}

function readRunStatus(row: Row, column: string): WorkflowRunStatus {
  return readKnown(row, column, isWorkflowRunStatus);
}

function readKnown<Value extends string>(row: Row, column: string, isKnown: (value: unknown) => value is Value): Value {
  const value = row[column];
  if (!isKnown(value)) {
    throw new RunledgerError("db.unexpected_result", { internalMessage: `column ${column}: unknown value` });
  }
  return value;
}
