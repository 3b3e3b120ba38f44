/**
 * Enqueueing workflow runs.
 *
 * @module
 */

import {
  assertWorkflowRunRequest,
  canonicalWorkflowRequest,
  encodeJson,
  newId,
  RunledgerError,
  workflowStepPositions,
} from "@runledger/core";
import type { RunledgerErrorCode, RunledgerErrorDetail, WorkflowRunRequest, WorkflowRunStatus } from "@runledger/core";
import { runStatement } from "./queryable.ts";
import type { Queryable } from "./queryable.ts";

/** What enqueueing a run led to. */
export interface EnqueuedWorkflowRun {
  /** The run that stands for the request. */
  readonly runId: string;
  /**
   * `inserted`: the request made it; `existing`: an equal earlier request with the same idempotency key did; `active`:
   * another live run holds the active key, and stands in its place.
   */
  readonly disposition: "inserted" | "existing" | "active";
  /** Where the run stands. */
  readonly status: WorkflowRunStatus;
}

/** The most runs that one call takes. */
export const MAX_WORKFLOW_ENQUEUE_BATCH = 1000;

// locks: new rows only (see migrations/0004_workflows.sql). index: workflow_runs_idempotency_unique,
// workflow_runs_active_unique for keyed requests. null: every request became a new run.
const ENQUEUE = "select runledger.enqueue_workflow_runs($1::text::jsonb)::text as answer";

/** What runledger.enqueue_workflow_runs answers. */
interface EnqueueAnswer {
  readonly error?: RunledgerErrorCode;
  readonly details?: Readonly<Record<string, RunledgerErrorDetail>>;
  readonly existing?: readonly {
    readonly ord: number;
    readonly run_id: string;
    readonly status: WorkflowRunStatus;
    readonly disposition: "existing" | "active";
  }[];
}

/**
 * Enqueues a workflow run: the run, its steps and edges, and the jobs of its roots, in one statement.
 *
 * In a transaction it exists exactly when the transaction commits. With an idempotency key it is safe to repeat: an equal
 * request, whatever the order of its steps and edges, finds the first run, ended or not, and changes nothing. With an
 * active key at most one live run of the organization holds it: a second request resolves to that run.
 *
 * @param db A pool, client or open transaction (READ COMMITTED if there is a key).
 * @param run The run, usually from a builder.
 * @returns The run that stands for the request.
 * @throws {WorkflowBuildError} `workflow.invalid_dag_*` before anything is sent.
 * @throws {RunledgerError} `workflow.definition_not_found_or_disabled`, after which a transaction must be rolled back;
 * `workflow.enqueue_conflicting_retry`, naming the parts that differ; `workflow.enqueue_idempotency_unsupported_isolation`;
 * `db.*` codes.
 */
export async function enqueueWorkflowRun(db: Queryable, run: WorkflowRunRequest): Promise<EnqueuedWorkflowRun> {
  const [enqueued] = await enqueueWorkflowRuns(db, [run]);
  if (enqueued === undefined) throw new RunledgerError("db.unexpected_result");
  return enqueued;
}

/**
 * Enqueues many workflow runs in one statement, all or none. See {@linkcode enqueueWorkflowRun}.
 *
 * @param db A pool, client or open transaction (READ COMMITTED if there are keys).
 * @param runs At most 1000 runs; an empty list does nothing.
 * @returns One entry for each run, in the same order.
 * @throws {WorkflowBuildError} `workflow.invalid_dag_*` before anything is sent.
 * @throws {RunledgerError} As {@linkcode enqueueWorkflowRun}.
 * @throws {RangeError} If there are more than 1000 runs.
 */
export async function enqueueWorkflowRuns(
  db: Queryable,
  runs: readonly WorkflowRunRequest[],
): Promise<readonly EnqueuedWorkflowRun[]> {
  if (runs.length > MAX_WORKFLOW_ENQUEUE_BATCH) {
    throw new RangeError(`Cannot enqueue ${runs.length} runs at once: at most ${MAX_WORKFLOW_ENQUEUE_BATCH}`);
  }
  if (runs.length === 0) return [];
  const enqueued: EnqueuedWorkflowRun[] = [];
  // Array.from, since map would leave the holes of a sparse array in the JSON.
  const encoded = Array.from(runs, (run, ord) => {
    const { runId, status, text } = encodeRun(run, ord);
    enqueued.push({ runId, disposition: "inserted", status });
    return text;
  });
  const [row] = await runStatement(db, ENQUEUE, [`[${encoded.join(",")}]`], { write: true });
  if (row === undefined || (typeof row["answer"] !== "string" && row["answer"] !== null)) {
    throw new RunledgerError("db.unexpected_result", { internalMessage: "enqueue_workflow_runs gave no answer" });
  }
  if (row["answer"] === null) return enqueued;
  const answer = JSON.parse(row["answer"]) as EnqueueAnswer;
  if (answer.error !== undefined) {
    throw new RunledgerError(answer.error, answer.details === undefined ? {} : { details: answer.details });
  }
  for (const { ord, run_id, status, disposition } of answer.existing ?? []) {
    enqueued[ord] = { runId: run_id, disposition, status };
  }
  return enqueued;
}

/** Writes one run as the JSON that runledger.enqueue_workflow_runs reads. */
function encodeRun(
  run: WorkflowRunRequest,
  ord: number,
): { readonly runId: string; readonly status: WorkflowRunStatus; readonly text: string } {
  assertWorkflowRunRequest(run);
  const request = canonicalWorkflowRequest(run);
  const positions = workflowStepPositions(run.steps);
  const runId = newId();
  const stepIds = new Map(request.steps.map((step) => [step.step_key, newId()]));
  const prerequisites: (string | undefined)[] = [];
  const dependents: (string | undefined)[] = [];
  const modes: ("s" | "t")[] = [];
  let waitingCount = 0;
  for (const { step_key, execution_kind, dependencies } of request.steps) {
    const id = stepIds.get(step_key);
    for (const { prerequisite_step_key, release_mode } of dependencies) {
      prerequisites.push(stepIds.get(prerequisite_step_key));
      dependents.push(id);
      modes.push(release_mode === "ON_SUCCESS" ? "s" : "t");
    }
    if (dependencies.length === 0 && execution_kind === "EXTERNAL") waitingCount++;
  }
  const settings = {
    ord,
    id: runId,
    workflow_type: run.workflowType,
    organization_id: run.organizationId?.toLowerCase(),
    idempotency_key: run.idempotencyKey,
    active_key: run.activeKey,
    traceparent: run.traceparent,
    step_count: request.steps.length,
    open_count: request.steps.length - waitingCount,
    waiting_count: waitingCount,
    step_ids: arrayText([...stepIds.values()]),
    positions: arrayText(request.steps.map(({ step_key }) => positions.get(step_key))),
    dependency_counts: arrayText(request.steps.map(({ dependencies }) => dependencies.length)),
    edge_prerequisites: arrayText(prerequisites),
    edge_dependents: arrayText(dependents),
    edge_modes: arrayText(modes),
  };
  // The request is the one part that holds what the caller made up.
  const text = `${JSON.stringify(settings).slice(0, -1)},"request":${encodeJson(request, { field: "run" })}}`;
  return { runId, status: waitingCount === request.steps.length ? "WAITING_FOR_EXTERNAL" : "RUNNING", text };
}

/** Writes an array for PostgreSQL; the items are ids, numbers or letters. */
function arrayText(items: readonly (string | number | undefined)[]): string {
  return `{${items.join(",")}}`;
}
