/**
 * What is done to a workflow run from outside: completing a gate, appending steps, cancelling, recovering, removing.
 *
 * @module
 */

import {
  assertWorkflowStepAppend,
  canonicalWorkflowSteps,
  encodeJson,
  newId,
  RunledgerError,
  WorkflowBuildError,
  workflowStepPositions,
} from "@runledger/core";
import type {
  JsonValue,
  RunledgerErrorCode,
  RunledgerErrorDetail,
  WorkflowRunStatus,
  WorkflowStepRequest,
} from "@runledger/core";
import { readInteger } from "./_rows.ts";
import { assertLimit } from "./job_reap.ts";
import { ageValue, noteText, operatorNote, switchValue, uuidValue } from "./operator_note.ts";
import type { OperatorNote } from "./operator_note.ts";
import { runStatement } from "./queryable.ts";
import type { Queryable, StatementValue } from "./queryable.ts";
import { scopeValues } from "./scope.ts";
import type { Scope } from "./scope.ts";

/** What the functions of migrations/0005_workflow_operations.sql answer. */
interface OperationAnswer {
  readonly error?: RunledgerErrorCode;
  readonly details?: Readonly<Record<string, RunledgerErrorDetail>>;
  readonly is_applied?: boolean;
  readonly status?: WorkflowRunStatus;
  readonly lease_quiesces_at?: number | null;
  readonly run_id?: string;
  readonly disposition?: "inserted" | "existing";
}

async function runOperation(
  db: Queryable,
  statement: string,
  values: readonly StatementValue[],
): Promise<OperationAnswer> {
  const [row] = await runStatement(db, statement, values, { write: true });
  const text = row?.["answer"];
  if (typeof text !== "string") throw new RunledgerError("db.unexpected_result");
  const answer = JSON.parse(text) as OperationAnswer;
  if (answer.error !== undefined) throw refusal(answer.error, answer.details);
  return answer;
}

function refusal(code: RunledgerErrorCode, details: OperationAnswer["details"]): RunledgerError {
  const { stepKey, prerequisiteStepKey } = details ?? {};
  if (code === "workflow.invalid_dag_duplicate_step_key" && typeof stepKey === "string") {
    return new WorkflowBuildError({ kind: "duplicate_step", stepKey });
  }
  if (
    code === "workflow.invalid_dag_missing_dependency" && typeof stepKey === "string" &&
    typeof prerequisiteStepKey === "string"
  ) {
    return new WorkflowBuildError({ kind: "missing_dependency", stepKey, prerequisiteStepKey });
  }
  return new RunledgerError(code, details === undefined ? {} : { details });
}

/** How a gate is completed. */
export type GateCompletion =
  | {
    /** The condition was met. */
    readonly status: "SUCCEEDED";
    /** What the gate gives to its dependents. */
    readonly output?: JsonValue;
    /** Why, for people. */
    readonly reason?: string;
  }
  | {
    /** The condition was not met, or was called off. */
    readonly status: "FAILED" | "CANCELED";
    /** Why, for people. */
    readonly reason?: string;
    /** A stable code for programs. */
    readonly errorCode?: string;
    /** More, for operators. */
    readonly errorMessage?: string;
  };

// locks: the run; then what its release touches. index: workflow_runs_pkey, workflow_steps_key_unique.
const COMPLETE = `
select runledger.complete_external_step(
  $1::uuid, $2::text, $3::uuid, $4::text, $5::text, $6::text, $7::text, $8::text, $9::text::jsonb
)::text as answer
`;

/**
 * Completes an open gate, and releases what waits for it, in one statement.
 *
 * Safe to repeat: an equal completion changes nothing; a different one is refused.
 *
 * @param db A pool, client or open transaction.
 * @param runId The run.
 * @param stepKey The gate.
 * @param options Whose run it must be, and how the gate is completed.
 * @returns Whether this call completed it, or an equal earlier one had.
 * @throws {RunledgerError} `workflow.run_not_found`, also for a run outside the scope;
 * `workflow.external_step_not_found`, `workflow.external_step_not_external`, `workflow.external_step_not_waiting`,
 * `workflow.external_step_conflicting_completion_retry`; `job.invalid_payload` for an output that is not JSON; `db.*`.
 */
export async function completeExternalStep(
  db: Queryable,
  runId: string,
  stepKey: string,
  options: { readonly scope: Scope; readonly completion: GateCompletion },
): Promise<{ readonly isApplied: boolean }> {
  const { scope, completion } = options;
  if (!["SUCCEEDED", "FAILED", "CANCELED"].includes(completion.status)) {
    throw new RunledgerError("job.invalid_request", {
      message: "A gate is completed as SUCCEEDED, FAILED or CANCELED.",
      details: { field: "status" },
    });
  }
  const isSuccess = completion.status === "SUCCEEDED";
  const answer = await runOperation(db, COMPLETE, [
    uuidValue("runId", runId),
    ...scopeValues(scope),
    noteText("stepKey", stepKey, 512),
    completion.status,
    optionalText("reason", completion.reason, 8192),
    isSuccess ? null : optionalText("errorCode", completion.errorCode, 512),
    isSuccess ? null : optionalText("errorMessage", completion.errorMessage, 8192),
    isSuccess && completion.output !== undefined ? encodeJson(completion.output, { field: "output" }) : null,
  ]);
  return { isApplied: answer.is_applied === true };
}

// locks: the runs of overdue gates in id order, skipping locked ones. index: workflow_steps_gate_index.
const EXPIRE = "select runledger.expire_workflow_gates($1::integer) as expired";

/**
 * Gives gates whose timeout has passed their default outcome, and releases what waits for them.
 *
 * Any number of processes may do so at once. Repeat it while it gives as many as the limit.
 *
 * @param db A pool, client or open transaction.
 * @param options How many at most, 1 to 1000. @default `{ limit: 100 }`
 * @returns How many gates were ended.
 * @throws {RunledgerError} `job.invalid_pagination`; `db.*` codes.
 */
export async function expireWorkflowGates(db: Queryable, options: { readonly limit?: number } = {}): Promise<number> {
  const { limit = 100 } = options;
  assertLimit(limit);
  const [row] = await runStatement(db, EXPIRE, [limit], { write: true });
  if (row === undefined) throw new RunledgerError("db.unexpected_result");
  return readInteger(row, "expired");
}

/** Whose run may be cancelled, and what to record about it. */
export interface CancelWorkflowRunOptions extends OperatorNote {
  /** Whose run it must be; outside it the run is not found. */
  readonly scope: Scope;
}

/** What cancelling a run led to. */
export interface CanceledWorkflowRun {
  /** Whether this call cancelled it; a run that had ended is left as it is. */
  readonly isApplied: boolean;
  /** Where the run stands now. */
  readonly status: WorkflowRunStatus;
  /** Until when handlers of its jobs may still be at work, by the database's clock; absent when none is. */
  readonly leaseQuiescesAt?: Date;
}

// locks: the run, then its waiting and leased jobs in id order. index: workflow_runs_pkey, workflow_steps_key_unique.
const CANCEL = `
select runledger.cancel_workflow_run($1::uuid, $2::text, $3::uuid, $4::text::jsonb)::text as answer
`;

/**
 * Cancels a run with all of its steps that have not ended, and their jobs, in one statement. Nothing is released.
 *
 * Racing with a settlement, one of the two wins and the other gets a truthful answer.
 *
 * @param db A pool, client or open transaction.
 * @param runId The run.
 * @param options Whose run it must be, and the reason and actor to record, with each cancelled job and among the actions of
 * operators.
 * @returns Whether it was cancelled, and until when handlers may be at work.
 * @throws {RunledgerError} `workflow.run_not_found`, also for a run outside the scope; `db.*` codes.
 */
export async function cancelWorkflowRun(
  db: Queryable,
  runId: string,
  options: CancelWorkflowRunOptions,
): Promise<CanceledWorkflowRun> {
  const answer = await runOperation(db, CANCEL, [
    uuidValue("runId", runId),
    ...scopeValues(options.scope),
    operatorNote(options),
  ]);
  if (answer.status === undefined) throw new RunledgerError("db.unexpected_result");
  const canceled = { isApplied: answer.is_applied === true, status: answer.status };
  return typeof answer.lease_quiesces_at === "number"
    ? { ...canceled, leaseQuiescesAt: new Date(answer.lease_quiesces_at * 1000) }
    : canceled;
}

/** Which steps to append, while which gate is open. */
export interface AppendWorkflowStepsOptions {
  /** Whose run it must be; outside it the run is not found. */
  readonly scope: Scope;
  /** The open gate that makes room: an EXTERNAL step that waits. */
  readonly windowStepKey: string;
  /** Makes the call safe to repeat. Not blank, at most 512 bytes. */
  readonly mutationKey: string;
  /** The new steps. They may depend on each other and on any step of the run; no old step can depend on them. */
  readonly steps: readonly WorkflowStepRequest[];
  /** Kept with the mutation, not compared. */
  readonly metadata?: JsonValue;
}

// locks: the run. index: workflow_runs_pkey, workflow_steps_key_unique, workflow_run_mutations_pkey.
const APPEND = `
select runledger.append_workflow_steps(
  $1::uuid, $2::text, $3::uuid, $4::text, $5::text::jsonb, $6::text::jsonb, $7::text::jsonb
)::text as answer
`;

/**
 * Appends steps to a live run while one of its gates is open, in one statement, recorded in `workflow_run_mutations`.
 *
 * Safe to repeat with the same mutation key: an equal request, whatever the order of its steps and edges, changes nothing,
 * even when the gate is closed by now; a different one is refused. A new step whose prerequisites have all ended is released at once, or cancelled if one of
 * them did not succeed as it should.
 *
 * @param db A pool, client or open transaction.
 * @param runId The run.
 * @param options Which steps, and through which gate.
 * @returns Whether this call appended them, or an equal earlier one had.
 * @throws {WorkflowBuildError} `workflow.invalid_dag_*` before anything is sent, or for keys that the run contradicts.
 * @throws {RunledgerError} `workflow.run_not_found`, `workflow.append_window_missing`,
 * `workflow.append_window_not_external`, `workflow.append_window_not_open`, `workflow.append_terminal_run`,
 * `workflow.append_conflicting_retry`, `workflow.definition_not_found_or_disabled`; `db.*` codes.
 */
export async function appendWorkflowSteps(
  db: Queryable,
  runId: string,
  options: AppendWorkflowStepsOptions,
): Promise<{ readonly isApplied: boolean }> {
  const { scope, windowStepKey, mutationKey, steps, metadata } = options;
  // Which other keys the run has is for the database to say.
  const own = new Set(steps.map(({ stepKey }) => stepKey));
  const others = steps.flatMap(({ dependencies }) => dependencies.map((edge) => edge.prerequisiteStepKey))
    .filter((key) => !own.has(key));
  assertWorkflowStepAppend(others, steps);
  const positions = workflowStepPositions(steps);
  const canonical = canonicalWorkflowSteps(steps);
  const request = { window_step_key: noteText("windowStepKey", windowStepKey, 512), steps: canonical };
  const answer = await runOperation(db, APPEND, [
    uuidValue("runId", runId),
    ...scopeValues(scope),
    noteText("mutationKey", mutationKey, 512),
    metadata === undefined ? null : encodeJson(metadata, { field: "metadata" }),
    encodeJson(request, { field: "steps" }),
    JSON.stringify(canonical.map(({ step_key }) => ({ id: newId(), place: positions.get(step_key) }))),
  ]);
  return { isApplied: answer.is_applied === true };
}

/** How to run an ended run again, and under which key. */
export interface RecoverWorkflowRunOptions extends OperatorNote {
  /** Whose run it must be; outside it the run is not found. */
  readonly scope: Scope;
  /** Makes the recovery safe to repeat: one for each source run and key. Not blank, at most 512 bytes. */
  readonly recoveryKey: string;
  /** `REPLAY`: every step runs again; `RESUME`: steps that succeeded are taken over with their outputs. */
  readonly mode: "REPLAY" | "RESUME";
}

// locks: the source run, then new rows. index: workflow_runs_pkey, workflow_runs_recovery_unique.
const RECOVER = `
select runledger.recover_workflow_run(
  $1::uuid, $2::text, $3::uuid, $4::uuid, $5::text, $6::text, $7::text::jsonb
)::text as answer
`;

/**
 * Runs an ended run again as a new run with lineage, in one statement: with the steps that were appended to it, and the
 * settings that were frozen when it was enqueued. Its idempotency key is not copied, its active key is. Recorded among the
 * actions of operators.
 *
 * @param db A pool, client or open transaction.
 * @param runId The ended run.
 * @param options Whose run it must be, how, under which key, and what to record.
 * @returns The new run.
 * @throws {RunledgerError} `workflow.run_not_found`; `workflow.recovery_source_not_terminal`;
 * `workflow.recovery_nothing_to_resume` for a run that succeeded; `workflow.recovery_request_conflict` when the key was
 * used with the other mode; `workflow.recovery_active_constraint` when a live run holds the active key;
 * `workflow.definition_not_found_or_disabled`; `db.*` codes.
 */
export async function recoverWorkflowRun(
  db: Queryable,
  runId: string,
  options: RecoverWorkflowRunOptions,
): Promise<{ readonly runId: string; readonly disposition: "inserted" | "existing" }> {
  if (options.mode !== "REPLAY" && options.mode !== "RESUME") {
    throw new RunledgerError("job.invalid_request", {
      message: "A run is recovered by REPLAY or RESUME.",
      details: { field: "mode" },
    });
  }
  const answer = await runOperation(db, RECOVER, [
    uuidValue("runId", runId),
    ...scopeValues(options.scope),
    newId(),
    noteText("recoveryKey", options.recoveryKey, 512),
    options.mode,
    operatorNote(options),
  ]);
  if (answer.run_id === undefined || answer.disposition === undefined) {
    throw new RunledgerError("db.unexpected_result");
  }
  return { runId: answer.run_id, disposition: answer.disposition };
}

/** Which ended runs to delete. */
export interface DeleteFinishedWorkflowRunsOptions {
  /** How long ago they must have ended, in milliseconds by the database's clock: 0 to a hundred years. */
  readonly olderThanMs: number;
  /** How many runs at most in this call, 1 to 1000. @default {100} */
  readonly limit?: number;
  /** Whether runs with an idempotency key are deleted too. Their keys are then free. @default {false} */
  readonly expiresIdempotencyKeys?: boolean;
}

// locks: the runs, oldest first, skipping locked ones. index: workflow_runs_finished_index.
const DELETE_FINISHED = `
select runledger.delete_finished_workflow_runs(
  $1::text::bigint * interval '1 millisecond', $2::integer, $3::boolean
) as deleted
`;

/**
 * Deletes a batch of runs that ended long ago, oldest first, with everything that belongs to them: steps, edges,
 * mutations, jobs and ledger. Repeat it while it gives as many as the limit.
 *
 * @param db A pool, client or open transaction.
 * @param options Which runs, and how many.
 * @returns How many runs were deleted.
 * @throws {RunledgerError} `job.invalid_request` for an age that cannot be; `job.invalid_pagination`;
 * `db.permission_denied` for a role that may not; other `db.*` codes.
 */
export async function deleteFinishedWorkflowRuns(
  db: Queryable,
  options: DeleteFinishedWorkflowRunsOptions,
): Promise<number> {
  const { olderThanMs, limit = 100, expiresIdempotencyKeys = false } = options;
  assertLimit(limit);
  const age = ageValue("olderThanMs", olderThanMs);
  switchValue("expiresIdempotencyKeys", expiresIdempotencyKeys);
  const [row] = await runStatement(db, DELETE_FINISHED, [age, limit, expiresIdempotencyKeys], {
    write: true,
  });
  if (row === undefined) throw new RunledgerError("db.unexpected_result");
  return readInteger(row, "deleted");
}

function optionalText(field: string, value: string | undefined, maxBytes: number): string | null {
  return value === undefined ? null : noteText(field, value, maxBytes);
}
