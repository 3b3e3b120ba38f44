/**
 * What is done to workflow runs from several sides, and the states in which it has something to do.
 *
 * @module
 */

import assert from "node:assert/strict";
import type { JobOutcome, WorkflowRunRequest, WorkflowStepRequest } from "@runledger/core";
import {
  appendJobLogs,
  appendWorkflowSteps,
  atomically,
  cancelJob,
  cancelJobs,
  cancelWorkflowRun,
  claimJobs,
  completeExternalStep,
  deleteFinishedWorkflowRuns,
  enqueueWorkflowRuns,
  expireWorkflowGates,
  heartbeatJobs,
  reapExpiredLeases,
  recordJobProgress,
  recoverWorkflowRun,
  releaseJobs,
  settleJob,
  settleJobs,
} from "@runledger/postgres";
import type { GateCompletion, Queryable } from "@runledger/postgres";
import { FAILURE, leaseOf, MAIN } from "./workflow_states.ts";
import type { WorkflowFixture, WorkflowState } from "./workflow_states.ts";

/** One call of the library. */
export interface WorkflowCall {
  readonly op: string;
  readonly call: (db: Queryable) => Promise<unknown>;
}

/** An operation, and the states in which it has something to do; the first is where it meets what has none of them. */
export interface WorkflowCase {
  readonly name: string;
  readonly states: readonly WorkflowState[];
  /** What it answers when it leaves everything to a rival that holds it; then it also promises never to wait. */
  readonly skipped?: (fixture: WorkflowFixture) => unknown;
  /** Opens a transaction of its own. */
  readonly isTransaction?: boolean;
  readonly call: (db: Queryable, fixture: WorkflowFixture) => Promise<unknown>;
}

const ALL = { scope: "all" } as const;
const SUCCESS: JobOutcome = { kind: "succeeded", output: 1 };

function settle(
  name: string,
  stepKeys: readonly string[],
  outcome: JobOutcome,
  states: readonly WorkflowState[],
): WorkflowCase {
  return {
    name,
    states,
    call: (db, { leases }) => settleJobs(db, stepKeys.map((stepKey) => ({ lease: leaseOf(leases, stepKey), outcome }))),
  };
}

function complete(name: string, completion: GateCompletion, states: readonly WorkflowState[]): WorkflowCase {
  return {
    name,
    states,
    call: (db, { mainId }) => completeExternalStep(db, mainId, "g", { scope: "all", completion }),
  };
}

function append(name: string, steps: readonly WorkflowStepRequest[]): WorkflowCase {
  return {
    name,
    states: ["running", "overdue"],
    call: (db, { mainId }) =>
      appendWorkflowSteps(db, mainId, { scope: "all", windowStepKey: "g", mutationKey: "m", steps }),
  };
}

function appended(stepKey: string, prerequisiteStepKey: string): WorkflowStepRequest {
  const dependencies = [{ prerequisiteStepKey, releaseMode: "ON_SUCCESS" }] as const;
  return { executionKind: "JOB", stepKey, jobType: "b", payload: null, dependencies };
}

function recover(
  name: string,
  recoveryKey: string,
  mode: "REPLAY" | "RESUME",
  states: readonly WorkflowState[],
): WorkflowCase {
  return {
    name,
    states,
    call: (db, { mainId }) => recoverWorkflowRun(db, mainId, { scope: "all", recoveryKey, mode }),
  };
}

function enqueue(name: string, runs: readonly WorkflowRunRequest[], states: readonly WorkflowState[]): WorkflowCase {
  return { name, states, call: (db) => enqueueWorkflowRuns(db, runs) };
}

function active(workflowType: string, activeKey: string): WorkflowRunRequest {
  return { workflowType, activeKey, metadata: {}, steps: [{ ...appended("s", ""), dependencies: [] }] };
}

function keyed(idempotencyKey: string, activeKey: string): WorkflowRunRequest {
  return { ...active("keyed", activeKey), idempotencyKey };
}

/** Every operation whose meetings with every other are tried. Those that lock jobs alone come first. */
export const WORKFLOW_CASES: readonly WorkflowCase[] = [
  {
    name: "heartbeat",
    states: ["running", "canceled"],
    skipped: ({ leases }) => [{ jobId: leaseOf(leases, "a").jobId, state: "busy" }],
    call: (db, { leases }) => heartbeatJobs(db, [leaseOf(leases, "a")]),
  },
  {
    name: "progress",
    states: ["running", "canceled"],
    call: (db, { leases }) => recordJobProgress(db, leaseOf(leases, "a"), { progress: { done: 1 } }),
  },
  {
    name: "log, reversed",
    states: ["running", "last a", "canceled"],
    call: (db, { leases }) =>
      appendJobLogs(
        db,
        ["b", "a"].map((stepKey) => ({ lease: leaseOf(leases, stepKey), level: "info", message: "line" })),
      ),
  },
  {
    name: "release, reversed",
    states: ["running", "canceled"],
    call: (db, { leases }) => releaseJobs(db, ["b", "a"].map((stepKey) => leaseOf(leases, stepKey))),
  },
  settle("settle", ["a"], SUCCESS, ["running", "last a", "overdue", "canceled"]),
  settle("settle sibling", ["b"], SUCCESS, ["running"]),
  settle("fail", ["a"], FAILURE, ["running", "last a"]),
  settle("settle both, reversed", ["b", "a"], SUCCESS, ["running"]),
  settle("settle of two runs", ["a", "o"], SUCCESS, ["running", "canceled"]),
  settle("fail of two runs, reversed", ["o", "a"], FAILURE, ["running", "last a"]),
  settle("settle last", ["end"], SUCCESS, ["last end"]),
  settle("fail last", ["end"], FAILURE, ["last end"]),
  {
    name: "cancel run",
    states: ["running", "overdue", "last a", "last end"],
    call: (db, { mainId }) => cancelWorkflowRun(db, mainId, ALL),
  },
  {
    name: "cancel job",
    states: ["running", "overdue", "last a"],
    call: (db, { leases }) => cancelJob(db, leaseOf(leases, "a").jobId, ALL),
  },
  {
    name: "cancel jobs of two runs, reversed",
    states: ["running"],
    // Enqueued and leased: two events.
    call: (db, { leases }) =>
      cancelJobs(db, ["o", "b", "a"].map((stepKey) => ({ ...leaseOf(leases, stepKey), eventSeq: 2 })), ALL),
  },
  complete("complete gate", { status: "SUCCEEDED", output: "yes" }, ["running", "overdue"]),
  complete("complete gate differently", { status: "FAILED", errorCode: "test.no" }, ["running", "overdue"]),
  {
    name: "expire gates",
    states: ["overdue"],
    skipped: () => 0,
    call: (db) => expireWorkflowGates(db),
  },
  append("append", [appended("late", "a"), appended("later", "join")]),
  append("append differently", [appended("other", "b")]),
  {
    name: "reap",
    states: ["overdue"],
    skipped: () => [],
    // It promises no order.
    call: async (db) => (await reapExpiredLeases(db)).map(({ jobId, status }) => `${jobId} ${status}`).sort(),
  },
  recover("recover by resuming", "r", "RESUME", ["ended", "canceled", "recovered", "last end"]),
  recover("recover by replaying", "r", "REPLAY", ["ended", "recovered"]),
  recover("recover under another key", "r2", "REPLAY", ["ended", "canceled", "last end"]),
  enqueue("enqueue equal", [MAIN], ["none", "running", "last end", "ended"]),
  enqueue("enqueue different", [{ ...MAIN, metadata: { other: 1 } }], ["none", "running"]),
  enqueue("enqueue same active key", [active("x", "k")], ["none", "last end", "ended", "canceled", "recovered"]),
  enqueue("enqueue active keys", [active("x", "k"), active("y", "l")], ["none", "ended"]),
  enqueue("enqueue active keys, reversed", [active("x", "l"), active("y", "k")], ["none", "ended"]),
  {
    name: "retention",
    states: ["ended", "canceled", "recovered"],
    skipped: () => 0,
    call: (db) => deleteFinishedWorkflowRuns(db, { olderThanMs: 0, expiresIdempotencyKeys: true }),
  },
  {
    name: "claim released",
    states: ["last a", "running"],
    skipped: () => [],
    call: async (db) =>
      (await claimJobs(db, { jobTypes: ["b"], workerId: "w", limit: 1 })).map(({ jobId, workflow }) => ({
        jobId,
        workflow,
      })),
  },
];

function named(name: string): WorkflowCase {
  const found = WORKFLOW_CASES.find((one) => one.name === name);
  assert(found !== undefined, name);
  return found;
}

/** Operations that meet only in threes. */
const CANCEL_OTHER: WorkflowCase = {
  name: "cancel other run",
  states: ["running"],
  call: (db, { otherId }) => cancelWorkflowRun(db, otherId, ALL),
};
const CANCEL_SIBLING: WorkflowCase = {
  name: "cancel sibling",
  states: ["running"],
  call: (db, { leases }) => cancelJob(db, leaseOf(leases, "b").jobId, ALL),
};
const PROGRESS_SIBLING: WorkflowCase = {
  name: "progress of sibling",
  states: ["running", "canceled"],
  call: (db, { leases }) => recordJobProgress(db, leaseOf(leases, "b"), { progress: { done: 1 } }),
};

/** As a handler that finishes its job in a transaction of its own: what it logged goes first. */
const LOG_AND_SETTLE: WorkflowCase = {
  name: "log and settle",
  isTransaction: true,
  states: ["running"],
  call: (db, { leases }) =>
    atomically(db, async (tx) => {
      const lease = leaseOf(leases, "a");
      await appendJobLogs(tx, [{ lease, level: "info", message: "line" }]);
      return await settleJob(tx, lease, SUCCESS);
    }),
};
/** By a worker who lost the lease and does not know it. */
const SETTLE_LATE: WorkflowCase = {
  name: "settle late",
  states: ["running"],
  call: (db, { leases }) => {
    const { leaseToken } = leaseOf(leases, "o");
    return settleJobs(db, [{ lease: { ...leaseOf(leases, "a"), leaseToken }, outcome: SUCCESS }]);
  },
};

/**
 * Threes in which two operations want the same two rows or keys in opposite order and the third holds one of them, so that
 * both wait in the middle: without one order for all of them this is a deadlock.
 */
export const OPPOSED_WORKFLOW_CASES: readonly (readonly [WorkflowState, ...(readonly WorkflowCase[])])[] = [
  ["running", CANCEL_OTHER, named("settle of two runs"), named("fail of two runs, reversed")],
  ["running", CANCEL_OTHER, named("settle of two runs"), named("cancel jobs of two runs, reversed")],
  ["running", CANCEL_SIBLING, named("settle both, reversed"), named("cancel jobs of two runs, reversed")],
  ["running", PROGRESS_SIBLING, named("cancel run"), named("settle both, reversed")],
  ["running", PROGRESS_SIBLING, named("cancel run"), named("release, reversed")],
  ["running", LOG_AND_SETTLE, named("cancel run"), named("settle sibling")],
  ["running", LOG_AND_SETTLE, named("cancel job"), CANCEL_SIBLING],
  ["running", LOG_AND_SETTLE, named("append"), SETTLE_LATE],
  ["running", CANCEL_SIBLING, named("settle both, reversed"), named("log, reversed")],
  ["running", PROGRESS_SIBLING, named("settle both, reversed"), named("log, reversed")],
  ["running", named("progress"), named("release, reversed"), named("log, reversed")],
  ["canceled", PROGRESS_SIBLING, named("release, reversed"), named("retention")],
  [
    "none",
    enqueue("enqueue l", [active("z", "l")], []),
    named("enqueue active keys"),
    named("enqueue active keys, reversed"),
  ],
  [
    "none",
    enqueue("enqueue k", [active("z", "k")], []),
    named("enqueue active keys"),
    named("enqueue active keys, reversed"),
  ],
  [
    "none",
    enqueue("enqueue both keys", [keyed("2", "l")], []),
    enqueue("enqueue both keys of two", [keyed("1", "l"), keyed("2", "k")], []),
    enqueue("enqueue both keys of two, crossed", [keyed("1", "k"), keyed("2", "l")], []),
  ],
  ["ended", named("enqueue same active key"), named("recover by resuming"), named("recover under another key")],
];
