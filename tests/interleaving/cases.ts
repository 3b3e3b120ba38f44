/**
 * The operations whose interleavings are tried, and the states of two jobs in which they meet.
 *
 * @module
 */

import assert from "node:assert/strict";
import { newId } from "@runledger/core";
import type { JobLease, JobOutcome, JobRequest } from "@runledger/core";
import type { ClaimedJob, FrozenJob } from "@runledger/postgres";
import type postgres from "postgres";
import { LATER, PAST_TIMES } from "../model/job_model.ts";
import type { JobModel } from "../model/job_model.ts";
import { perform } from "../model/operation.ts";
import type { Operation } from "../model/operation.ts";
import { emptyModel, expireLease, removeAllJobs } from "../model/stored_jobs.ts";

/** Where both jobs stand before the sessions begin. */
export type StartState =
  | "none"
  | "pending"
  | "leased"
  | "reported"
  | "last attempt"
  | "expired"
  | "last expired"
  | "succeeded"
  | "replayed"
  | "dead"
  | "canceled"
  | "canceling";

/** Two jobs in one state: the first has an idempotency key and is due first. */
export interface Fixture {
  readonly model: JobModel;
  readonly jobIds: readonly [string, string];
  readonly leases: readonly [JobLease, JobLease];
}

/** An operation, and the states in which it has something to do. */
export interface Case {
  readonly name: string;
  readonly states: readonly StartState[];
  /** Promises never to wait for a lock. */
  readonly neverWaits?: boolean;
  readonly operation: (fixture: Fixture) => Operation;
}

const FAILURE = { code: "test.failed", message: "no" } as const;
const RETRY: JobOutcome = { kind: "failed", failure: { kind: "RETRYABLE", ...FAILURE }, retryDelayMs: 0 };
const DEAD: JobOutcome = { kind: "failed", failure: { kind: "TERMINAL", ...FAILURE } };

function keyed(idempotencyKey: string, n: number): JobRequest {
  return { jobType: "a", payload: { n }, idempotencyKey };
}

const FIRST: JobRequest = { ...keyed("first", 1), nextRunAt: PAST_TIMES[0] as Date };
const SECOND: JobRequest = { jobType: "a", payload: { n: 2 }, nextRunAt: PAST_TIMES[1] as Date };

function enqueue(name: string, requests: readonly JobRequest[], states: readonly StartState[]): Case {
  return { name, states, operation: () => ({ op: "enqueue", requests }) };
}

function settle(name: string, outcome: JobOutcome, states: readonly StartState[]): Case {
  return { name, states, operation: ({ leases: [lease] }) => ({ op: "settle", settlements: [{ lease, outcome }] }) };
}

function settleBoth(name: string, outcome: JobOutcome, isReversed: boolean): Case {
  return {
    name,
    states: ["leased"],
    operation: ({ leases }) => ({
      op: "settle",
      settlements: (isReversed ? leases.toReversed() : leases).map((lease) => ({ lease, outcome })),
    }),
  };
}

function heartbeat(name: string, postsEvents: boolean, isReversed: boolean): Case {
  return {
    name,
    states: ["leased"],
    neverWaits: true,
    operation: ({ leases }) => ({
      op: "heartbeat",
      leases: isReversed ? leases.toReversed() : leases.slice(0, 1),
      postsEvents,
    }),
  };
}

function claim(name: string, limit: number): Case {
  return {
    name,
    states: ["pending"],
    neverWaits: true,
    operation: () => ({ op: "claim", jobTypes: ["a", "b"], limit }),
  };
}

/** Both jobs as they are before the sessions begin. */
function frozen({ model, jobIds }: Fixture): readonly FrozenJob[] {
  return jobIds.map((jobId) => ({ jobId, eventSeq: model.jobs.get(jobId)?.events.length ?? 1 }));
}

function requeue(name: string, expectedStatus: "DEAD_LETTERED" | "CANCELED", states: readonly StartState[]): Case {
  return {
    name,
    states,
    operation: ({ jobIds: [jobId] }) => ({
      op: "requeue",
      jobId,
      expectedStatus,
      expectedRunNumber: 1,
      progress: "keep",
    }),
  };
}

/** Every operation whose meetings with every other are tried. */
export const CASES: readonly Case[] = [
  enqueue("enqueue equal", [FIRST], ["none", "pending"]),
  enqueue("enqueue different", [{ ...FIRST, payload: { n: 9 } }], ["none", "pending"]),
  enqueue("enqueue keys in order", [keyed("k1", 1), keyed("k2", 2), SECOND], ["none"]),
  enqueue("enqueue keys reversed", [keyed("k2", 2), keyed("k1", 1)], ["none"]),
  enqueue("enqueue keys, one different", [keyed("k2", 2), keyed("k1", 9), SECOND], ["none"]),
  claim("claim one", 1),
  claim("claim both", 2),
  heartbeat("heartbeat", false, false),
  heartbeat("heartbeat both, posted", true, true),
  {
    name: "progress",
    states: ["leased"],
    operation: ({ leases: [lease] }) => ({ op: "progress", lease, update: { progress: { done: 1 }, checkpoint: 1 } }),
  },
  { name: "log", states: ["leased"], operation: ({ leases: [lease] }) => ({ op: "log", lease }) },
  settle("succeed", { kind: "succeeded", output: 1 }, ["leased", "expired"]),
  settle("fail", RETRY, ["leased", "last attempt"]),
  settle("fail for good", DEAD, ["leased"]),
  settle("continue", { kind: "continued", checkpoint: "next" }, ["leased"]),
  settle("snooze", { kind: "snoozed", delayMs: 0 }, ["leased"]),
  settle("call off", { kind: "canceled" }, ["leased"]),
  settleBoth("succeed both", { kind: "succeeded" }, false),
  settleBoth("fail both, reversed", RETRY, true),
  {
    name: "release both",
    states: ["leased", "reported"],
    operation: ({ leases }) => ({ op: "release", leases: leases.toReversed() }),
  },
  { name: "cancel", states: ["pending", "leased"], operation: ({ jobIds: [jobId] }) => ({ op: "cancel", jobId }) },
  {
    name: "edit",
    states: ["pending"],
    operation: ({ jobIds: [jobId] }) => ({ op: "edit", jobId, change: { priority: -1, payload: { n: 3 } } }),
  },
  {
    name: "edit as seen",
    states: ["pending"],
    operation: ({ jobIds: [jobId] }) => ({
      op: "edit",
      jobId,
      change: { nextRunAt: LATER },
      expectedEventSeq: 1,
    }),
  },
  {
    name: "edit both, reversed",
    states: ["pending"],
    operation: (fixture) => ({ op: "editMany", jobs: frozen(fixture).toReversed(), change: { nextRunAt: LATER } }),
  },
  {
    name: "cancel both, reversed",
    states: ["pending", "leased"],
    operation: (fixture) => ({ op: "cancelMany", jobs: frozen(fixture).toReversed() }),
  },
  {
    name: "requeue both, reversed",
    states: ["dead", "canceled", "canceling"],
    operation: (fixture) => ({ op: "requeueMany", jobs: frozen(fixture).toReversed(), progress: "keep" }),
  },
  requeue("requeue dead letter", "DEAD_LETTERED", ["dead"]),
  requeue("requeue canceled", "CANCELED", ["canceled", "canceling"]),
  {
    name: "requeue dead letters",
    states: ["dead"],
    neverWaits: true,
    operation: () => ({ op: "requeueDeadLetters", limit: 1 }),
  },
  {
    name: "replay",
    states: ["succeeded", "replayed"],
    operation: ({ jobIds: [, jobId] }) => ({ op: "replay", jobId, replayKey: "again", reason: "lost" }),
  },
  {
    name: "reap",
    states: ["expired", "last expired"],
    neverWaits: true,
    operation: () => ({ op: "reap", limit: 100 }),
  },
  {
    name: "retention",
    states: ["succeeded", "canceled", "replayed"],
    neverWaits: true,
    operation: () => ({
      op: "retention",
      statuses: ["SUCCEEDED", "CANCELED", "DEAD_LETTERED"],
      expiresIdempotencyKeys: true,
    }),
  },
];

/** Operations that meet only in threes. */
const ENQUEUE_FIRST_KEY = enqueue("enqueue first key", [keyed("k1", 1)], ["none"]);
const CANCEL_SECOND: Case = {
  name: "cancel second",
  states: ["leased"],
  operation: ({ jobIds: [, jobId] }) => ({ op: "cancel", jobId }),
};

const EDIT_SECOND: Case = {
  name: "edit second",
  states: ["pending"],
  operation: ({ jobIds: [, jobId] }) => ({ op: "edit", jobId, change: { payload: 0 } }),
};

/**
 * Threes in which two operations want the same two rows in opposite order and the third holds one of them, so that both
 * wait in the middle: without one order for all of them this is a deadlock.
 */
export const OPPOSED: readonly (readonly [Case, Case, Case])[] = [
  [
    CANCEL_SECOND,
    settleBoth("succeed both", { kind: "succeeded" }, false),
    settleBoth("fail both, reversed", RETRY, true),
  ],
  [CANCEL_SECOND, settleBoth("succeed both", { kind: "succeeded" }, false), namedCase("release both")],
  [CANCEL_SECOND, settleBoth("succeed both", { kind: "succeeded" }, false), namedCase("cancel both, reversed")],
  [EDIT_SECOND, namedCase("edit both, reversed"), namedCase("cancel both, reversed")],
  [CANCEL_SECOND, namedCase("heartbeat both, posted"), namedCase("release both")],
  [ENQUEUE_FIRST_KEY, namedCase("enqueue keys in order"), namedCase("enqueue keys reversed")],
  [ENQUEUE_FIRST_KEY, namedCase("enqueue keys in order"), namedCase("enqueue keys, one different")],
];

function namedCase(name: string): Case {
  const found = CASES.find((one) => one.name === name);
  assert(found !== undefined, name);
  return found;
}

/** Empties the database and brings two new jobs into a state, by the library's own operations. */
export async function prepare(sql: postgres.Sql, state: StartState): Promise<Fixture> {
  await removeAllJobs(sql);
  const model = emptyModel();
  const done = async (operation: Operation): Promise<unknown> => {
    const result = await perform(sql, operation);
    model.apply(operation, result);
    return "value" in result ? result.value : undefined;
  };
  if (state === "none") {
    const jobIds = [newId(), newId()] as const;
    return { model, jobIds, leases: [inventedLease(jobIds[0]), inventedLease(jobIds[1])] };
  }
  const maxAttempts = state.startsWith("last") ? { maxAttempts: 1 } : {};
  const requests = [{ ...FIRST, ...maxAttempts }, { ...SECOND, ...maxAttempts }];
  const enqueued = await done({ op: "enqueue", requests }) as readonly { jobId: string }[];
  const jobIds = enqueued.map(({ jobId }) => jobId) as [string, string];
  let leases: readonly [JobLease, JobLease] = [inventedLease(jobIds[0]), inventedLease(jobIds[1])];
  if (state === "pending") return { model, jobIds, leases };
  if (state !== "canceled") {
    const claimed = await done({ op: "claim", jobTypes: ["a"], limit: 2 }) as readonly ClaimedJob[];
    const [one, other] = claimed;
    assert(one !== undefined && other !== undefined);
    leases = [leaseOf(one), leaseOf(other)];
  }
  const settleAll = (outcome: JobOutcome) =>
    done({ op: "settle", settlements: leases.map((lease) => ({ lease, outcome })) });
  if (state === "succeeded" || state === "replayed") await settleAll({ kind: "succeeded" });
  if (state === "replayed") {
    const replay = await done({ op: "replay", jobId: jobIds[1], replayKey: "again", reason: "lost" });
    await done({ op: "cancel", jobId: (replay as { jobId: string }).jobId });
  }
  if (state === "dead") await settleAll(DEAD);
  if (state === "reported") await done({ op: "progress", lease: leases[0], update: { progress: { done: 1 } } });
  if (state.startsWith("cancel")) { for (const jobId of jobIds) await done({ op: "cancel", jobId }); }
  if (state.endsWith("expired")) { for (const jobId of jobIds) await expireLease(sql, model, jobId); }
  return { model, jobIds, leases };
}

function leaseOf({ jobId, runNumber, attempt, leaseToken }: JobLease): JobLease {
  return { jobId, runNumber, attempt, leaseToken };
}

/** A lease that nobody was given. */
function inventedLease(jobId: string): JobLease {
  return { jobId, runNumber: 1, attempt: 1, leaseToken: newId() };
}
