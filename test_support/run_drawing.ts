/**
 * A workflow run as text, for people.
 *
 * @module
 */

import type { WorkflowStepStatus } from "@runledger/core";
import { listWorkflowStepDependencies, listWorkflowSteps } from "@runledger/postgres";
import type { Page, Queryable, WorkflowStep, WorkflowStepDependency } from "@runledger/postgres";

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

/**
 * Draws the graph of a run: one line a step, after everything it waits for, with its status, its prerequisites and the code
 * of its last failure. A prerequisite that only had to end, well or not, has a star.
 *
 * @param db A pool, client or open transaction.
 * @param runId The run.
 * @returns The lines; none for a run that is not there.
 * @throws {RunledgerError} `db.*` codes.
 */
export async function drawWorkflowRun(db: Queryable, runId: string): Promise<string> {
  const edges = await readWorkflowEdges(db, runId);
  const steps = await readWorkflowSteps(db, runId);
  const depths = new Map<string, number>();
  const width = Math.max(...steps.map(({ stepKey }) => stepKey.length));
  const lines = steps.map(({ stepKey, status, lastErrorCode }) => {
    const own = edges.filter(({ dependentStepKey }) => dependentStepKey === stepKey);
    const depth = Math.max(-1, ...own.map((edge) => depths.get(edge.prerequisiteStepKey) ?? 0)) + 1;
    depths.set(stepKey, depth);
    const after = own.map((edge) => edge.prerequisiteStepKey + (edge.releaseMode === "ON_SUCCESS" ? "" : "*"));
    const branch = depth === 0 ? "" : `${"   ".repeat(depth - 1)}└─ `;
    const from = after.length === 0 ? "" : `  after ${after.join(", ")}`;
    const failure = lastErrorCode === undefined ? "" : `  (${lastErrorCode})`;
    const step = `${branch}[${SIGNS[status]}] ${stepKey}`.padEnd(width + 14);
    return `  ${step} ${status.padEnd(20)}${from}${failure}`.trimEnd();
  });
  return lines.join("\n");
}

/** Reads all steps of a run, by position. */
export async function readWorkflowSteps(db: Queryable, runId: string): Promise<readonly WorkflowStep[]> {
  return await readAll((page) => listWorkflowSteps(db, runId, { scope: "all", limit: 1000, ...page }));
}

async function readWorkflowEdges(db: Queryable, runId: string): Promise<readonly WorkflowStepDependency[]> {
  return await readAll((page) => listWorkflowStepDependencies(db, runId, { scope: "all", limit: 1000, ...page }));
}

/** Reads a list to its end. */
export async function readAll<Item>(
  read: (page: { readonly cursor?: string }) => Promise<Page<Item>>,
): Promise<readonly Item[]> {
  const items: Item[] = [];
  for (let page: { readonly cursor?: string } | undefined = {}; page !== undefined;) {
    const { items: more, nextCursor }: Page<Item> = await read(page);
    items.push(...more);
    page = nextCursor === undefined ? undefined : { cursor: nextCursor };
  }
  return items;
}
