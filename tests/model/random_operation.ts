/**
 * Random operations: an intent is a few small numbers, which are turned into an operation on whatever jobs and leases there
 * are when its turn comes. So any part of a sequence of intents is a sequence too, which is what shrinking needs.
 *
 * @module
 */

import { newId } from "@runledger/core";
import type { JobLease, JobOutcome, JobRequest, JobStatus } from "@runledger/core";
import fc from "fast-check";
import { LATER, PAST_TIMES } from "./job_model.ts";
import type { JobModel } from "./job_model.ts";
import type { Operation } from "./operation.ts";

/** What is done at one step of a random run. */
export type Step =
  | { readonly step: "operation"; readonly operation: Operation }
  | { readonly step: "expire"; readonly jobId: string }
  | { readonly step: "makeDue"; readonly jobId: string };

/** A step that waits for its turn to be told apart. */
export interface Intent {
  readonly kind: IntentKind;
  /** Which job, lease or request. */
  readonly which: number;
  /** Which variant of it. */
  readonly how: number;
  /** A second one, for batches. */
  readonly other: number;
  /** Whether the step's transaction is rolled back. */
  readonly isRolledBack: boolean;
}

const WEIGHTS = {
  enqueue: 6,
  enqueueKeyed: 5,
  claim: 8,
  heartbeat: 2,
  progress: 3,
  log: 1,
  settle: 9,
  settleMany: 2,
  release: 2,
  cancel: 2,
  cancelMany: 1,
  edit: 4,
  editMany: 2,
  requeue: 3,
  requeueDeadLetters: 1,
  requeueMany: 2,
  replay: 3,
  reap: 2,
  retention: 2,
  setEnabled: 1,
  expire: 3,
  makeDue: 4,
} as const;

type IntentKind = keyof typeof WEIGHTS;

/** Intents in a mix that takes jobs through their whole lives. */
export const intents: fc.Arbitrary<Intent> = fc.record({
  kind: fc.oneof(
    ...(Object.entries(WEIGHTS) as [IntentKind, number][]).map(([kind, weight]) => ({
      weight,
      arbitrary: fc.constant(kind),
    })),
  ),
  which: fc.nat(63),
  how: fc.nat(63),
  other: fc.nat(63),
  isRolledBack: fc.oneof({ weight: 19, arbitrary: fc.constant(false) }, { weight: 1, arbitrary: fc.constant(true) }),
});

/** A lease of a job that never was. */
export const NO_LEASE: JobLease = { jobId: newId(), runNumber: 1, attempt: 1, leaseToken: newId() };

/**
 * Turns an intent into a step.
 *
 * @param intent What is wanted.
 * @param model What there is.
 * @param leases Every lease that was ever given, newest last.
 */
export function resolveIntent(intent: Intent, model: JobModel, leases: readonly JobLease[]): Step {
  const { kind, which, how, other } = intent;
  const jobs = [...model.jobs.keys()];
  const jobId = jobs[which % (jobs.length + 1)] ?? NO_LEASE.jobId;
  const oftenOneIn = (statuses: readonly JobStatus[]): string => {
    const fit = jobs.filter((id) => statuses.includes(model.jobs.get(id)?.status ?? "PENDING"));
    return (which % 4 === 0 ? undefined : fit[which % Math.max(fit.length, 1)]) ?? jobId;
  };
  // Current leases are met twice as often as lost ones.
  const current = leases.filter((lease) => model.jobs.get(lease.jobId)?.leaseToken === lease.leaseToken);
  const choice = [...current, ...current, ...leases];
  const lease = altered(choice[which % Math.max(choice.length, 1)] ?? NO_LEASE, other);
  const second = choice[other % Math.max(choice.length, 1)] ?? NO_LEASE;
  const both = second.jobId === lease.jobId ? [lease] : [lease, second];
  // Now and then as they were some events ago.
  const frozen = (statuses: readonly JobStatus[]) =>
    jobs.filter((id, index) => statuses.includes(model.jobs.get(id)?.status ?? "PENDING") || index % 8 === other)
      .slice(which % 3, which % 3 + 3)
      .map((id) => ({
        jobId: id,
        eventSeq: Math.max((model.jobs.get(id)?.events.length ?? 1) - (other % 5 === 0 ? 1 : 0), 1),
      }));
  const operation = (): Operation => {
    switch (kind) {
      case "enqueue":
        return { op: "enqueue", requests: how % 4 === 0 ? [plain(which), plain(other)] : [plain(which)] };
      case "enqueueKeyed":
        return { op: "enqueue", requests: how % 3 === 0 ? [keyed(which), keyed(other), plain(how)] : [keyed(which)] };
      case "claim":
        return { op: "claim", jobTypes: how % 4 === 0 ? ["b"] : ["a", "b"], limit: 1 + which % 3 };
      case "heartbeat":
        return { op: "heartbeat", leases: both, postsEvents: how % 2 === 0 };
      case "progress": {
        const update = how % 4 === 0 ? {} : { progress: progressOf(how), checkpoint: how };
        return { op: "progress", lease, update };
      }
      case "log":
        return { op: "log", lease };
      case "settle":
        return { op: "settle", settlements: [{ lease, outcome: outcomeOf(how) }] };
      case "settleMany":
        return {
          op: "settle",
          settlements: both.map((each, index) => ({ lease: each, outcome: outcomeOf(how + 5 * index) })),
        };
      case "release":
        return { op: "release", leases: both };
      case "cancel":
        return { op: "cancel", jobId };
      case "cancelMany":
        return { op: "cancelMany", jobs: frozen(["PENDING", "LEASED"]) };
      case "edit": {
        const id = oftenOneIn(["PENDING"]);
        const eventSeq = (model.jobs.get(id)?.events.length ?? 1) + (other % 4 === 0 ? 1 : 0);
        const change = { ...schedulingOf(how), ...(how % 3 === 0 ? { payload: { n: other % 4 } } : {}) };
        return { op: "edit", jobId: id, change, ...(how % 2 === 0 ? { expectedEventSeq: eventSeq } : {}) };
      }
      case "editMany":
        return { op: "editMany", jobs: frozen(["PENDING"]), change: schedulingOf(how) };
      case "requeue":
        return {
          op: "requeue",
          jobId: oftenOneIn(["DEAD_LETTERED", "CANCELED"]),
          expectedStatus: how % 2 === 0 ? "CANCELED" : "DEAD_LETTERED",
          expectedRunNumber: (model.jobs.get(oftenOneIn(["DEAD_LETTERED", "CANCELED"]))?.runNumber ?? 1) +
            (other % 5 === 0 ? 1 : 0),
          progress: how % 4 < 2 ? "keep" : "reset",
        };
      case "requeueDeadLetters":
        return { op: "requeueDeadLetters", limit: 1 + which % 3, ...(how % 2 === 0 ? {} : { jobType: "a" }) };
      case "requeueMany":
        return {
          op: "requeueMany",
          jobs: frozen(["DEAD_LETTERED", "CANCELED"]),
          progress: how % 2 === 0 ? "keep" : "reset",
        };
      case "replay":
        return {
          op: "replay",
          jobId: oftenOneIn(["SUCCEEDED"]),
          replayKey: `key ${how % 2}`,
          reason: `reason ${other % 5 === 0 ? 1 : 0}`,
        };
      case "reap":
        return { op: "reap", limit: 1 + which % 5 };
      case "retention":
        return {
          op: "retention",
          statuses: how % 3 === 0 ? ["DEAD_LETTERED"] : ["SUCCEEDED", "CANCELED"],
          expiresIdempotencyKeys: other % 3 === 0,
        };
      case "setEnabled":
        return { op: "setEnabled", jobType: which % 2 === 0 ? "a" : "b", isEnabled: how % 3 !== 0 };
      default:
        throw new TypeError(kind);
    }
  };
  if (kind === "expire") return { step: "expire", jobId: lease.jobId };
  if (kind === "makeDue") return { step: "makeDue", jobId };
  return { step: "operation", operation: operation() };
}

/** Now and then a lease of which one part is another's, as only a broken caller would give it. */
export function altered(lease: JobLease, number: number): JobLease {
  if (number === 1) return { ...lease, attempt: lease.attempt + 1 };
  if (number === 2) return { ...lease, runNumber: lease.runNumber + 1 };
  if (number === 3) return { ...lease, leaseToken: NO_LEASE.leaseToken };
  if (number === 4) return withoutRun(lease);
  return lease;
}

function withoutRun({ workflowRunId, ...lease }: JobLease): JobLease {
  return workflowRunId === undefined ? { ...lease, workflowRunId: newId() } : lease;
}

function plain(number: number): JobRequest {
  const times: readonly (Date | undefined)[] = [undefined, ...PAST_TIMES, LATER];
  const nextRunAt = times[number % times.length];
  return {
    jobType: number % 16 === 15 ? "nobody knows" : number % 3 === 0 ? "b" : "a",
    payload: { n: number % 4 },
    ...(nextRunAt === undefined ? {} : { nextRunAt }),
    ...(number % 7 < 2 ? { priority: number % 7 } : {}),
    ...(number % 5 === 0 ? { maxAttempts: 1 } : {}),
    ...(number % 6 === 0 ? { stage: "scheduled" } : {}),
  };
}

/** A few keys with few variants, so that requests meet equal and different ones. */
function keyed(number: number): JobRequest {
  return {
    jobType: number % 2 === 0 ? "a" : "b",
    idempotencyKey: `key ${number % 3}`,
    payload: { n: number % 8 === 7 ? 1 : 0 },
    ...(number % 11 === 10 ? { priority: 3 } : {}),
  };
}

function schedulingOf(number: number): { readonly priority?: number; readonly nextRunAt?: Date } {
  const nextRunAt = [...PAST_TIMES, LATER][number % 4];
  if (number % 5 === 0 && nextRunAt !== undefined) return { nextRunAt };
  return { priority: number % 3, ...(number % 2 === 0 && nextRunAt !== undefined ? { nextRunAt } : {}) };
}

function progressOf(number: number): { readonly done: number; readonly total?: number } {
  const done = number % 4;
  return number % 3 === 0 ? { done } : { done, total: done + number % 2 };
}

const FAILURE = { code: "test.failed", message: "no" } as const;

const OUTCOMES: readonly JobOutcome[] = [
  { kind: "succeeded" },
  { kind: "succeeded", output: { sum: 1 }, progress: { done: 2 } },
  { kind: "succeeded", progress: { done: 4 } },
  { kind: "failed", failure: { kind: "RETRYABLE", ...FAILURE }, retryDelayMs: 0, checkpoint: [1] },
  { kind: "failed", failure: { kind: "TIMEOUT", ...FAILURE } },
  { kind: "failed", failure: { kind: "TERMINAL", ...FAILURE } },
  { kind: "failed", failure: { kind: "PANICKED", ...FAILURE }, progress: { done: 1, total: 1 } },
  { kind: "continued", checkpoint: "next" },
  { kind: "continued", delayMs: 3_600_000 },
  { kind: "snoozed", delayMs: 0 },
  { kind: "snoozed", delayMs: 3_600_000, reason: "busy", progress: { done: 3 } },
  { kind: "canceled" },
  { kind: "canceled", reason: "moot" },
  { kind: "failed", failure: { kind: "RETRYABLE", ...FAILURE }, retryDelayMs: 0 },
];

/** An outcome of any kind. */
export function outcomeOf(number: number): JobOutcome {
  return OUTCOMES[number % OUTCOMES.length] as JobOutcome;
}
