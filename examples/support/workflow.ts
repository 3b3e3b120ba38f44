/**
 * What the workflow examples end with: waiting for a run.
 *
 * @module
 */

import { isTerminalWorkflowRunStatus } from "@runledger/core";
import { getWorkflowRun } from "@runledger/postgres";
import type { Queryable, WorkflowRun } from "@runledger/postgres";
import { setTimeout as delay } from "node:timers/promises";

/** No run of an example takes longer. */
const PATIENCE_MS = 30_000;

/**
 * Waits until a run is as somebody wants it.
 *
 * @param sql The database.
 * @param runId The run.
 * @param isReached What to wait for. @default the end of the run
 * @returns The run as it is then.
 */
export async function waitForRun(
  sql: Queryable,
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
