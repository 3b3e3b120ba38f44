/**
 * What the workflow examples end with: waiting for a run, and drawing its graph with the statuses of its steps.
 *
 * @module
 */

import { isTerminalWorkflowRunStatus } from "@runledger/core";
import type { WorkflowStepStatus } from "@runledger/core";
import { getWorkflowRun, listWorkflowStepDependencies, listWorkflowSteps } from "@runledger/postgres";
import type { WorkflowRun } from "@runledger/postgres";
import { setTimeout as delay } from "node:timers/promises";
import type postgres from "postgres";

/** No run of an example takes longer. */
const PATIENCE_MS = 30_000;

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
 * Waits until a run is as somebody wants it.
 *
 * @param sql The database.
 * @param runId The run.
 * @param isReached What to wait for. @default the end of the run
 * @returns The run as it is then.
 */
export async function waitForRun(
  sql: postgres.Sql,
  runId: string,
  isReached: (run: WorkflowRun) => boolean = ({ status }) => isTerminalWorkflowRunStatus(status),
): Promise<WorkflowRun> {
  const deadline = performance.now() + PATIENCE_MS;
  while (true) {
    const run = await getWorkflowRun(sql, runId, { scope: "all" });
    if (run === undefined) throw new Error(`There is no run ${runId}`);
    if (isReached(run)) return run;
    if (performance.now() > deadline) throw new Error(`Run ${runId} is still ${run.status}. Is a worker running?`);
    await delay(25);
  }
}

/**
 * Draws the graph of a run: one line a step, after everything it waits for, with its status and its prerequisites. A
 * prerequisite that only had to end, well or not, has a star.
 *
 * @param sql The database.
 * @param runId The run.
 * @returns The lines.
 */
export async function drawRun(sql: postgres.Sql, runId: string): Promise<string> {
  const { items: steps } = await listWorkflowSteps(sql, runId, { scope: "all", limit: 1000 });
  const { items: edges } = await listWorkflowStepDependencies(sql, runId, { scope: "all", limit: 1000 });
  const depths = new Map<string, number>();
  const width = Math.max(...steps.map(({ stepKey }) => stepKey.length));
  const lines = steps.map(({ stepKey, status }) => {
    const own = edges.filter(({ dependentStepKey }) => dependentStepKey === stepKey);
    const depth = Math.max(-1, ...own.map((edge) => depths.get(edge.prerequisiteStepKey) ?? 0)) + 1;
    depths.set(stepKey, depth);
    const after = own.map((edge) => edge.prerequisiteStepKey + (edge.releaseMode === "ON_SUCCESS" ? "" : "*"));
    const branch = depth === 0 ? "" : `${"   ".repeat(depth - 1)}└─ `;
    const from = after.length === 0 ? "" : `  after ${after.join(", ")}`;
    return `  ${`${branch}[${SIGNS[status]}] ${stepKey}`.padEnd(width + 14)} ${status.padEnd(20)}${from}`.trimEnd();
  });
  return lines.join("\n");
}
