/**
 * A workflow run as text, for people.
 *
 * @module
 */

import type { WorkflowStepStatus } from "@runledger/core";
import { counterValue } from "./operator_note.ts";
import type { Queryable } from "./queryable.ts";
import type { Scope } from "./scope.ts";
import { listWorkflowStepDependencies, listWorkflowSteps } from "./workflow_steps.ts";
import type { WorkflowStep, WorkflowStepDependency } from "./workflow_steps.ts";

/** One sign for each status. */
const SIGNS: Readonly<Record<WorkflowStepStatus, string>> = {
  BLOCKED: " ",
  WAITING_FOR_EXTERNAL: "?",
  ENQUEUED: ".",
  RUNNING: ">",
  SUCCEEDED: "+",
  FAILED: "!",
  CANCELED: "x",
};

/** Steps deeper than this are drawn no further to the right. */
const DEEPEST = 20;

/** Whose run is drawn, and how much of it. */
export interface DrawWorkflowRunOptions {
  /** Whose run it must be. */
  readonly scope: Scope;
  /** How many steps at most, the first ones in an order in which they can run. @default {1000} */
  readonly maxSteps?: number;
}

/**
 * Draws the graph of a run: one line a step, after everything it waits for, with its status, its prerequisites and the code
 * of its last failure. A prerequisite that only had to end, well or not, has a star.
 *
 * @param db A pool, client or open transaction.
 * @param runId The run.
 * @param options Whose run it must be, and how many steps to draw.
 * @returns The lines; none for a run that is not there.
 * @throws {RunledgerError} `job.invalid_request` for an option that cannot be; `db.*` codes.
 */
export async function drawWorkflowRun(
  db: Queryable,
  runId: string,
  options: DrawWorkflowRunOptions,
): Promise<string> {
  const { scope, maxSteps = 1000 } = options;
  counterValue("maxSteps", maxSteps);
  const steps: WorkflowStep[] = [];
  let cursor: string | undefined;
  do {
    const limit = Math.min(maxSteps - steps.length, 1000);
    const page = await listWorkflowSteps(db, runId, { scope, limit, ...(cursor === undefined ? {} : { cursor }) });
    steps.push(...page.items);
    cursor = page.nextCursor;
  } while (cursor !== undefined && steps.length < maxSteps);
  const isPart = cursor !== undefined;
  const drawn = new Set(steps.map(({ stepKey }) => stepKey));
  const edges = new Map<string, WorkflowStepDependency[]>();
  // Edges come in the order of their dependents, so those of the drawn steps come first.
  for (let after: string | undefined, isOver = steps.length === 0; !isOver;) {
    const page = await listWorkflowStepDependencies(db, runId, {
      scope,
      limit: 1000,
      ...(after === undefined ? {} : { cursor: after }),
    });
    for (const edge of page.items) {
      const own = edges.get(edge.dependentStepKey);
      if (own === undefined) edges.set(edge.dependentStepKey, [edge]);
      else own.push(edge);
    }
    after = page.nextCursor;
    const last = page.items.at(-1);
    isOver = after === undefined || (last !== undefined && !drawn.has(last.dependentStepKey));
  }
  const text = drawSteps(steps, edges);
  return isPart ? `${text}\n  ... and more steps` : text;
}

function drawSteps(
  steps: readonly WorkflowStep[],
  edges: ReadonlyMap<string, readonly WorkflowStepDependency[]>,
): string {
  const depths = new Map<string, number>();
  const width = steps.reduce((most, { stepKey }) => Math.max(most, stepKey.length), 0);
  const lines = steps.map(({ stepKey, status, lastErrorCode }) => {
    const own = edges.get(stepKey) ?? [];
    const depth = own.reduce((most, edge) => Math.max(most, depths.get(edge.prerequisiteStepKey) ?? 0), -1) + 1;
    depths.set(stepKey, depth);
    const after = own.map((edge) => edge.prerequisiteStepKey + (edge.releaseMode === "ON_SUCCESS" ? "" : "*"));
    const branch = depth === 0 ? "" : `${"   ".repeat(Math.min(depth, DEEPEST) - 1)}└─ `;
    const told = after.length > 10 ? [...after.slice(0, 8), `and ${after.length - 8} more`] : after;
    const from = after.length === 0 ? "" : `  after ${told.join(", ")}`;
    const failure = lastErrorCode === undefined ? "" : `  (${lastErrorCode})`;
    const step = `${branch}[${SIGNS[status]}] ${stepKey}`.padEnd(width + 14);
    return `  ${step} ${status.padEnd(20)}${from}${failure}`.trimEnd();
  });
  return lines.join("\n");
}
