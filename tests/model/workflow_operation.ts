/**
 * The operations on workflow runs as plain data, beside those on jobs.
 *
 * @module
 */

import type { JsonValue, WorkflowRunRequest, WorkflowStepRequest } from "@runledger/core";
import {
  appendWorkflowSteps,
  cancelWorkflowRun,
  completeExternalStep,
  deleteFinishedWorkflowRuns,
  enqueueWorkflowRuns,
  expireWorkflowGates,
  getWorkflowResult,
  getWorkflowRun,
  listWorkflowRunMutations,
  listWorkflowStepDependencies,
  listWorkflowSteps,
  recoverWorkflowRun,
} from "@runledger/postgres";
import type { GateCompletion, Queryable, Scope } from "@runledger/postgres";
import { answerOf, perform } from "./operation.ts";
import type { Operation, OperationResult } from "./operation.ts";

/** Which run, and whose it must be. */
export interface RunTarget {
  readonly runId: string;
  readonly scope: Scope;
}

/** One call of the library, with its arguments. */
export type WorkflowOperation =
  | Operation
  | { readonly op: "enqueueRuns"; readonly runs: readonly WorkflowRunRequest[] }
  | RunTarget & { readonly op: "completeGate"; readonly stepKey: string; readonly completion: GateCompletion }
  | { readonly op: "expireGates"; readonly limit: number }
  | RunTarget & {
    readonly op: "append";
    readonly windowStepKey: string;
    readonly mutationKey: string;
    readonly metadata: JsonValue;
    readonly steps: readonly WorkflowStepRequest[];
  }
  | RunTarget & { readonly op: "cancelRun"; readonly reason?: string }
  | RunTarget & { readonly op: "recover"; readonly recoveryKey: string; readonly mode: "REPLAY" | "RESUME" }
  | { readonly op: "runRetention"; readonly limit: number; readonly expiresIdempotencyKeys: boolean }
  | RunTarget & { readonly op: "result" }
  | RunTarget & { readonly op: "read" };

/**
 * Runs an operation.
 *
 * @throws {Error} Any error that is no answer, `db.*` among them.
 */
export function performWorkflow(db: Queryable, operation: WorkflowOperation): Promise<OperationResult> {
  switch (operation.op) {
    case "enqueueRuns":
    case "completeGate":
    case "expireGates":
    case "append":
    case "cancelRun":
    case "recover":
    case "runRetention":
    case "result":
    case "read":
      return answerOf(operation.op, call(db, operation));
    default:
      return perform(db, operation);
  }
}

function call(db: Queryable, operation: Exclude<WorkflowOperation, Operation>): Promise<unknown> {
  switch (operation.op) {
    case "enqueueRuns":
      return enqueueWorkflowRuns(db, operation.runs);
    case "completeGate": {
      const { runId, scope, stepKey, completion } = operation;
      return completeExternalStep(db, runId, stepKey, { scope, completion });
    }
    case "expireGates":
      return expireWorkflowGates(db, { limit: operation.limit });
    case "append": {
      const { runId, op: _, ...options } = operation;
      return appendWorkflowSteps(db, runId, options);
    }
    case "cancelRun": {
      const { runId, op: _, ...options } = operation;
      return cancelWorkflowRun(db, runId, options);
    }
    case "recover": {
      const { runId, op: _, ...options } = operation;
      return recoverWorkflowRun(db, runId, options);
    }
    case "runRetention": {
      const { limit, expiresIdempotencyKeys } = operation;
      return deleteFinishedWorkflowRuns(db, { olderThanMs: 0, limit, expiresIdempotencyKeys });
    }
    case "result":
      return getWorkflowResult(db, operation.runId, { scope: operation.scope });
    case "read":
      return readRun(db, operation);
  }
}

/** What the library's reads tell of a run. */
export interface RunReading {
  readonly status: string | undefined;
  /** `key status output` of each step, in the order of their positions. */
  readonly steps: readonly string[];
  /** `prerequisite mode dependent` of each edge, in the order of their positions. */
  readonly edges: readonly string[];
  readonly mutations: readonly string[];
}

/** Pages of two: every list is read in several. */
async function readRun(db: Queryable, { runId, scope }: RunTarget): Promise<RunReading> {
  const all = async <Item>(
    list: (
      db: Queryable,
      runId: string,
      options: { readonly scope: Scope; readonly limit: number; readonly cursor?: string },
    ) => Promise<{ readonly items: readonly Item[]; readonly nextCursor?: string }>,
  ): Promise<readonly Item[]> => {
    const items: Item[] = [];
    for (let cursor: string | undefined, isOver = false; !isOver; isOver = cursor === undefined) {
      const page = await list(db, runId, { scope, limit: 2, ...(cursor === undefined ? {} : { cursor }) });
      items.push(...page.items);
      cursor = page.nextCursor;
    }
    return items;
  };
  const run = await getWorkflowRun(db, runId, { scope });
  const steps = await all(listWorkflowSteps);
  const edges = await all(listWorkflowStepDependencies);
  const mutations = await all(listWorkflowRunMutations);
  return {
    status: run?.status,
    steps: steps.map(({ stepKey, status, output }) => `${stepKey} ${status} ${JSON.stringify(output)}`),
    edges: edges.map((edge) => `${edge.prerequisiteStepKey} ${edge.releaseMode} ${edge.dependentStepKey}`),
    mutations: mutations.map(({ mutationKey, metadata }) => `${mutationKey} ${JSON.stringify(metadata)}`),
  };
}
