/**
 * The result of a workflow run, and waiting for it.
 *
 * @module
 */

import { isTerminalWorkflowRunStatus, isWorkflowRunStatus, RunledgerError } from "@runledger/core";
import type { JsonValue } from "@runledger/core";
import { readKnown, readOptionalJson } from "./_rows.ts";
import { uuidValue } from "./operator_note.ts";
import { runStatement } from "./queryable.ts";
import type { Queryable } from "./queryable.ts";
import { inScope, scopeValues } from "./scope.ts";
import type { Scope } from "./scope.ts";

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
  and ${inScope("run")}
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
    const status = readKnown(row, "status", isWorkflowRunStatus);
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
