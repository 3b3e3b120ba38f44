/**
 * Workflow runs for tests in which whoever works on them dies: however often that happens, each step ends as its key says.
 *
 * @module
 */

import { isRunledgerError } from "@runledger/core";
import type { JobOutcome, TerminalWorkflowStepStatus, WorkflowRunRequest, WorkflowStepRequest } from "@runledger/core";
import { atomically, claimJobs, enqueueJobs, settleJobs } from "@runledger/postgres";
import type { ClaimedJob, Queryable, SettledJob } from "@runledger/postgres";

const PARTS = Array.from({ length: 8 }, (_, n) => `part ${n}`);

function step(stepKey: string, after: readonly string[] = []): WorkflowStepRequest {
  const dependencies = after.map((key) => ({
    prerequisiteStepKey: key.replace("*", ""),
    releaseMode: key.endsWith("*") ? "ON_TERMINAL" : "ON_SUCCESS",
  } as const));
  if (stepKey === "gate") {
    const timeout = { afterMs: 1, outcome: "SUCCEEDED" } as const;
    return { executionKind: "EXTERNAL", stepKey, payload: null, timeout, dependencies };
  }
  return { executionKind: "JOB", stepKey, jobType: "a", payload: null, maxAttempts: 1000, dependencies };
}

/** A fan-out with its join, a step that fails with what needs it, a gate that nobody completes, and an end in any case. */
export const DOOMED_RUN: WorkflowRunRequest = {
  workflowType: "doomed",
  metadata: {},
  steps: [
    step("first"),
    ...PARTS.map((key) => step(key, ["first"])),
    step("join", PARTS),
    step("bad", ["first"]),
    step("never", ["bad"]),
    step("nor", ["never", "join"]),
    step("gate", ["first"]),
    step("end", ["join", "gate", "nor*"]),
  ],
};

/** How each step ends. */
export const DOOMED_ENDS: Readonly<Record<string, TerminalWorkflowStepStatus>> = Object.fromEntries(
  DOOMED_RUN.steps.map(({ stepKey }) => [
    stepKey,
    stepKey === "bad" ? "FAILED" : stepKey === "never" || stepKey === "nor" ? "CANCELED" : "SUCCEEDED",
  ]),
);

/** What the steps that were settled in a transaction give: each of them has a job of type `b`, and no other step has. */
export const IN_TRANSACTION = "in a transaction";

function outcomeOf({ workflow, attempt }: ClaimedJob, output: string): JobOutcome {
  const failure = { code: "doomed.failed", message: "no" };
  if (workflow?.stepKey === "bad") return { kind: "failed", failure: { kind: "TERMINAL", ...failure } };
  if (workflow?.stepKey === "part 0" && attempt === 1) {
    return { kind: "failed", failure: { kind: "RETRYABLE", ...failure }, retryDelayMs: 0 };
  }
  return { kind: "succeeded", output };
}

/**
 * Claims a batch of steps, of several runs, and settles it.
 *
 * @param db The pool.
 * @param limit How many steps at most.
 * @returns How many were claimed.
 * @throws {Error} A settlement was refused for another reason than that its lease is lost.
 */
export async function settleDoomedBatch(db: Queryable, limit: number): Promise<number> {
  const claimed = await claimJobs(db, { jobTypes: ["a"], workerId: "doomed", limit });
  const results = await settleJobs(db, claimed.map((lease) => ({ lease, outcome: outcomeOf(lease, "by itself") })));
  assertAllowed(results);
  return claimed.length;
}

/**
 * The same in a transaction that holds a side effect for each step that succeeds: a job that nobody claims. When nobody
 * knows if it was committed, the settlements are repeated without side effects.
 */
export async function settleDoomedBatchWithEffects(db: Queryable, limit: number): Promise<number> {
  const claimed = await claimJobs(db, { jobTypes: ["a"], workerId: "doomed", limit });
  if (claimed.length === 0) return 0;
  try {
    await atomically(db, async (tx) => {
      const settlements = claimed.map((lease) => ({ lease, outcome: outcomeOf(lease, IN_TRANSACTION) }));
      const results = await settleJobs(tx, settlements);
      assertAllowed(results);
      const succeeded = results.flatMap((one) => one.settled && one.status === "SUCCEEDED" ? [one.jobId] : []);
      await enqueueJobs(tx, succeeded.map((stepId) => ({ jobType: "b", payload: { stepId } })));
    });
  } catch (error) {
    if (!isRunledgerError(error, "db.commit_unknown")) throw error;
    assertAllowed(
      await settleJobs(db, claimed.map((lease) => ({ lease, outcome: outcomeOf(lease, "by itself") }))),
    );
  }
  return claimed.length;
}

function assertAllowed(results: readonly SettledJob[]): void {
  for (const result of results) {
    if (!result.settled && result.code !== "job.lease_owner_mismatch") {
      throw new Error(`${result.jobId}: ${result.code}`);
    }
  }
}
