/**
 * Random operations on workflow runs, their jobs, and other jobs beside them: an intent is a few small numbers and a graph,
 * which are turned into an operation on whatever there is when its turn comes.
 *
 * @module
 */

import { newId } from "@runledger/core";
import type {
  JobLease,
  JobOutcome,
  JsonValue,
  TerminalWorkflowStepStatus,
  WorkflowDependency,
  WorkflowRunRequest,
  WorkflowStepRequest,
} from "@runledger/core";
import type { GateCompletion, Scope } from "@runledger/postgres";
import fc from "fast-check";
import { altered, NO_LEASE, outcomeOf } from "./random_operation.ts";
import type { ModelRun, WorkflowModel } from "./workflow_model.ts";
import type { WorkflowOperation } from "./workflow_operation.ts";

/** What is done at one step of a random run. */
export type WorkflowStep =
  | { readonly step: "operation"; readonly operation: WorkflowOperation }
  | { readonly step: "expireLease"; readonly jobId: string }
  | { readonly step: "makeDue"; readonly jobId: string }
  | { readonly step: "expireGate"; readonly runId: string; readonly stepKey: string };

const WEIGHTS = {
  enqueueRun: 4,
  enqueueKeyed: 3,
  enqueueMany: 1,
  enqueueJob: 1,
  claim: 16,
  settle: 5,
  settleMany: 18,
  release: 1,
  heartbeat: 1,
  completeGate: 12,
  expireGate: 4,
  expireGates: 3,
  append: 5,
  cancelRun: 2,
  cancelJob: 3,
  recover: 6,
  requeue: 1,
  replay: 1,
  expireLease: 3,
  makeDue: 3,
  reap: 3,
  runRetention: 3,
  jobRetention: 1,
  setEnabled: 1,
  result: 2,
  read: 3,
} as const;

type IntentKind = keyof typeof WEIGHTS;

/** A step of a graph: which others it waits for and how, as bits. */
interface Node {
  readonly kind: number;
  readonly after: number;
  readonly modes: number;
  readonly how: number;
}

/** A step that waits for its turn to be told apart. */
export interface WorkflowIntent {
  readonly kind: IntentKind;
  /** Which run, step, job or lease. */
  readonly which: number;
  /** Which variant of it. */
  readonly how: number;
  /** A second one. */
  readonly other: number;
  readonly graph: readonly Node[];
  /** Whether the step's transaction is rolled back. */
  readonly isRolledBack: boolean;
}

/** Intents in a mix that takes runs through their whole lives. */
export const workflowIntents: fc.Arbitrary<WorkflowIntent> = fc.record({
  kind: fc.oneof(
    ...(Object.entries(WEIGHTS) as [IntentKind, number][]).map(([kind, weight]) => ({
      weight,
      arbitrary: fc.constant(kind),
    })),
  ),
  which: fc.nat(63),
  how: fc.nat(63),
  other: fc.nat(63),
  graph: fc.array(
    fc.record({ kind: fc.nat(7), after: fc.nat(255), modes: fc.nat(255), how: fc.nat(63) }),
    { minLength: 1, maxLength: 5 },
  ),
  isRolledBack: fc.oneof({ weight: 19, arbitrary: fc.constant(false) }, { weight: 1, arbitrary: fc.constant(true) }),
});

const ALL = "all";
const ORGANIZATION = "0197a000-0000-7000-8000-000000000001";

/**
 * Turns an intent into a step.
 *
 * @param intent What is wanted.
 * @param model What there is.
 * @param leases Every lease that was ever given, newest last.
 */
export function resolveWorkflowIntent(
  intent: WorkflowIntent,
  model: WorkflowModel,
  leases: readonly JobLease[],
): WorkflowStep {
  const { kind, which, how, other } = intent;
  switch (kind) {
    case "expireLease": {
      const lease = pick(currentLeases(model, leases), which) ?? NO_LEASE;
      return { step: "expireLease", jobId: lease.jobId };
    }
    case "makeDue": {
      const waiting = [...model.jobs.jobs.values()].filter(({ status }) => status === "PENDING");
      const late = waiting.filter(({ due }) => due.at === Infinity);
      return { step: "makeDue", jobId: pick(late.length > 0 ? late : waiting, which)?.jobId ?? NO_LEASE.jobId };
    }
    case "expireGate": {
      const open = stepsThat(model, (step) => step.gateEnd === Infinity);
      return { step: "expireGate", ...pick(open, other) ?? { runId: NO_LEASE.jobId, stepKey: "" } };
    }
    default: {
      const operation = operationOf({ ...intent, kind: other % 8 === 0 ? kind : fitting(kind, model) }, model, leases);
      return { step: "operation", operation };
    }
  }

  function operationOf(
    intent: WorkflowIntent & { readonly kind: OperationKind },
    model: WorkflowModel,
    leases: readonly JobLease[],
  ): WorkflowOperation {
    const jobIds = [...model.jobs.jobs.keys()];
    const jobId = pick(jobIds, which) ?? NO_LEASE.jobId;
    const run = pick([...model.runs.values()], which);
    const target = { runId: run?.runId ?? NO_LEASE.jobId, scope: scopeOf(how, run) };
    const live = [...model.runs.values()].filter(({ finishedAt }) => finishedAt === undefined);
    const ended = [...model.runs.values()].filter(({ finishedAt }) => finishedAt !== undefined);
    const ofEnded = { ...target, runId: (other % 4 === 0 ? run : pick(ended, which))?.runId ?? NO_LEASE.jobId };
    // Now and then a lease that was lost.
    const lease = altered(pick(other % 5 === 0 ? leases : currentLeases(model, leases), which) ?? NO_LEASE, how);
    switch (intent.kind) {
      case "enqueueRun":
        return { op: "enqueueRuns", runs: [runOf(intent)] };
      case "enqueueKeyed":
        return { op: "enqueueRuns", runs: [keyedRun(which, how)] };
      case "enqueueMany":
        return { op: "enqueueRuns", runs: [keyedRun(which, how), runOf(intent), keyedRun(other, how >> 2)] };
      case "enqueueJob":
        return { op: "enqueue", requests: [{ jobType: which % 2 === 0 ? "a" : "b", payload: { n: how } }] };
      case "claim":
        return { op: "claim", jobTypes: how % 4 === 0 ? ["b"] : ["a", "b"], limit: 1 + which % 8 };
      case "settle":
        return { op: "settle", settlements: [{ lease, outcome: endOf(how) }] };
      case "settleMany": {
        // All that is leased, or every second one.
        const held = currentLeases(model, leases).filter((_, index) => which % 2 === 0 || (index + other) % 2 === 0);
        const outcome = (index: number): JobOutcome =>
          how % 3 > 0 ? { kind: "succeeded", output: index } : endOf(how + 7 * index);
        return { op: "settle", settlements: held.map((lease, index) => ({ lease, outcome: outcome(index) })) };
      }
      case "release":
        return { op: "release", leases: [lease] };
      case "heartbeat":
        return { op: "heartbeat", leases: [lease], postsEvents: how % 2 === 0 };
      case "completeGate": {
        const gates = stepsThat(model, ({ request }) => request.executionKind === "EXTERNAL");
        const open = stepsThat(model, ({ status }) => status === "WAITING_FOR_EXTERNAL");
        const all = stepsThat(model, () => true);
        const gate = pick(other % 8 === 0 ? all : other % 4 === 0 ? gates : open, which);
        const runId = gate?.runId ?? target.runId;
        const scope = scopeOf(how, model.runs.get(runId));
        return { op: "completeGate", runId, scope, stepKey: gate?.stepKey ?? "none", completion: completionOf(how) };
      }
      case "expireGates":
        return { op: "expireGates", limit: 1 + which % 3 };
      case "append": {
        const open = stepsThat(model, ({ status }) => status === "WAITING_FOR_EXTERNAL");
        const window = pick(other % 5 === 0 ? stepsThat(model, () => true) : open, which);
        const windowRun = model.runs.get(window?.runId ?? "");
        return {
          op: "append",
          runId: windowRun?.runId ?? target.runId,
          scope: scopeOf(how, windowRun),
          windowStepKey: other % 16 === 0 ? "none" : window?.stepKey ?? "s0",
          mutationKey: `mutation ${how % 3}`,
          metadata: { n: how },
          steps: appendedSteps(intent, windowRun),
        };
      }
      case "cancelRun": {
        const { runId } = pick(live, which) ?? target;
        return { op: "cancelRun", runId, scope: ALL, ...(how % 2 === 0 ? {} : { reason: "moot" }) };
      }
      case "cancelJob":
        return { op: "cancel", jobId };
      case "recover":
        return { op: "recover", ...ofEnded, recoveryKey: `key ${how % 2}`, mode: how % 3 === 0 ? "REPLAY" : "RESUME" };
      case "requeue": {
        const expectedStatus = how % 2 === 0 ? "CANCELED" : "DEAD_LETTERED";
        return { op: "requeue", jobId, expectedStatus, expectedRunNumber: 1, progress: "keep" };
      }
      case "replay":
        return { op: "replay", jobId, replayKey: "key", reason: "reason" };
      case "reap":
        return { op: "reap", limit: 1 + which % 5 };
      case "runRetention":
        return { op: "runRetention", limit: 1 + which % 4, expiresIdempotencyKeys: how % 2 === 0 };
      case "jobRetention": {
        const statuses = ["SUCCEEDED", "CANCELED", "DEAD_LETTERED"] as const;
        return { op: "retention", statuses, expiresIdempotencyKeys: true };
      }
      case "setEnabled":
        return { op: "setEnabled", jobType: which % 2 === 0 ? "a" : "b", isEnabled: how % 4 !== 0 };
      case "result": {
        const declared = ended.filter(({ request }) => request.resultStepKey !== undefined);
        const { runId } = (how % 2 === 0 ? run : pick(declared, which)) ?? target;
        return { op: "result", runId, scope: target.scope };
      }
      case "read":
        return { op: "read", ...target };
    }
  }
}

type OperationKind = Exclude<IntentKind, "expireLease" | "makeDue" | "expireGate">;

/** What leads on, where there is nothing that an operation could meet. */
function fitting(kind: OperationKind, model: WorkflowModel): OperationKind {
  if (model.runs.size === 0) return "enqueueRun";
  const needsGate = kind === "completeGate" || kind === "append";
  if (needsGate && stepsThat(model, ({ status }) => status === "WAITING_FOR_EXTERNAL").length === 0) return "claim";
  const needsEnd = kind === "recover" || kind === "runRetention" || kind === "result";
  if (needsEnd && [...model.runs.values()].every(({ finishedAt }) => finishedAt === undefined)) return "settleMany";
  return kind;
}

function pick<Item>(items: readonly Item[], number: number): Item | undefined {
  return items[number % Math.max(items.length, 1)];
}

/** Mostly everything, otherwise some organization, its own or not. */
function scopeOf(number: number, run: ModelRun | undefined): Scope {
  if (number % 8 === 1) return "global";
  if (number % 8 === 2) return { organizationId: run?.request.organizationId ?? ORGANIZATION };
  if (number % 16 === 3) return { organizationId: NO_LEASE.jobId };
  return ALL;
}

function currentLeases(model: WorkflowModel, leases: readonly JobLease[]): readonly JobLease[] {
  return leases.filter(({ jobId, leaseToken }) => model.jobs.jobs.get(jobId)?.leaseToken === leaseToken);
}

function stepsThat(
  model: WorkflowModel,
  isWanted: (step: ModelRun["steps"] extends Map<string, infer Step> ? Step : never) => boolean,
): readonly { readonly runId: string; readonly stepKey: string }[] {
  return [...model.runs.values()].flatMap(({ runId, steps }) =>
    [...steps].flatMap(([stepKey, step]) => isWanted(step) ? [{ runId, stepKey }] : [])
  );
}

/** Steps mostly succeed: otherwise little comes after them. */
function endOf(number: number): JobOutcome {
  if (number % 2 === 0) return { kind: "succeeded", output: OUTPUTS[number % OUTPUTS.length] as JsonValue };
  return outcomeOf(number >> 1);
}

const OUTPUTS: readonly JsonValue[] = [null, 0, { a: null, b: [null] }, "text"];

const ENDS: readonly TerminalWorkflowStepStatus[] = ["SUCCEEDED", "FAILED", "CANCELED"];

function completionOf(number: number): GateCompletion {
  const reason = number % 5 === 0 ? { reason: "because" } : {};
  if (number % 4 !== 3) {
    return {
      status: "SUCCEEDED",
      ...reason,
      ...(number % 3 === 0 ? {} : { output: OUTPUTS[number % 4] as JsonValue }),
    };
  }
  const status = number % 8 === 3 ? "FAILED" : "CANCELED";
  return { status, ...reason, ...(number % 3 === 0 ? { errorCode: "test.no", errorMessage: "No." } : {}) };
}

function dependenciesOf(node: Node, keys: readonly string[]): readonly WorkflowDependency[] {
  return keys.flatMap((prerequisiteStepKey, index) => {
    if ((node.after >> (index % 8)) % 2 === 0) return [];
    return [{ prerequisiteStepKey, releaseMode: (node.modes >> (index % 8)) % 2 === 0 ? "ON_SUCCESS" : "ON_TERMINAL" }];
  });
}

function stepOf(
  stepKey: string,
  { kind, how }: Node,
  dependencies: readonly WorkflowDependency[],
): WorkflowStepRequest {
  const payload = OUTPUTS[how % 4] as JsonValue;
  const shared = { stepKey, payload, dependencies, ...(how % 16 === 5 ? { organizationId: ORGANIZATION } : {}) };
  if (kind < 2) {
    const outcome = ENDS[how % 3] as TerminalWorkflowStepStatus;
    const output = outcome === "SUCCEEDED" && how % 2 === 0 ? { output: OUTPUTS[how % 4] as JsonValue } : {};
    const timeout = { afterMs: 86_400_000, outcome, ...output };
    return { executionKind: "EXTERNAL", ...shared, ...(kind === 0 && how % 2 === 0 ? {} : { timeout }) };
  }
  return {
    executionKind: "JOB",
    ...shared,
    jobType: how === 63 ? "nobody knows" : kind % 3 === 0 ? "b" : "a",
    ...(how % 5 === 0 ? { maxAttempts: 1 } : {}),
    ...(how % 7 < 2 ? { priority: how % 7 } : {}),
    ...(how % 3 === 0 ? { allowsContinuation: true } : {}),
    ...(how % 11 === 0 ? { stage: "scheduled" } : {}),
  };
}

function runOf({ graph, which, how, other }: WorkflowIntent): WorkflowRunRequest {
  const keys = graph.map((_, index) => `s${index}`);
  const steps = graph.map((node, index) => stepOf(`s${index}`, node, dependenciesOf(node, keys.slice(0, index))));
  return {
    workflowType: which % 2 === 0 ? "flow" : "grow",
    metadata: { n: how },
    // In any order: positions come from the graph.
    steps: how % 2 === 0 ? steps : steps.toReversed(),
    ...(how % 4 === 0 ? { organizationId: ORGANIZATION } : {}),
    ...(how % 4 === 1 ? { activeKey: `active ${other % 2}` } : {}),
    ...(other % 2 === 0 ? { resultStepKey: keys[other % keys.length] ?? "s0" } : {}),
  };
}

/** A few keys with few variants, so that requests meet equal and different ones. */
function keyedRun(number: number, how: number): WorkflowRunRequest {
  const node: Node = { kind: number % 2 === 0 ? 0 : 2, after: 255, modes: 0, how: number % 8 === 7 ? 1 : 2 };
  const steps = [
    stepOf("s0", node, []),
    stepOf("s1", { ...node, kind: number % 4 }, number % 3 === 0 ? [] : dependenciesOf(node, ["s0"])),
  ];
  return {
    workflowType: number % 2 === 0 ? "flow" : "grow",
    idempotencyKey: `key ${number % 6}`,
    metadata: { n: number % 16 === 15 ? 1 : 0 },
    steps: how % 2 === 0 ? steps : steps.toReversed(),
    ...(number % 5 === 4 ? { activeKey: `active ${number % 2}` } : {}),
    ...(number % 7 === 6 ? { organizationId: ORGANIZATION } : {}),
  };
}

/** The same each time, so that equal requests meet. */
const APPENDED_AGAIN: readonly Node[] = [{ kind: 2, after: 0, modes: 0, how: 1 }, {
  kind: 2,
  after: 1,
  modes: 0,
  how: 1,
}];

/** They may wait for each other and for what is there; now and then one has a key that is taken or waits for nothing real. */
function appendedSteps(intent: WorkflowIntent, run: ModelRun | undefined): readonly WorkflowStepRequest[] {
  const { which, how } = intent;
  const graph = how % 3 === 0 ? APPENDED_AGAIN : intent.graph;
  const prefix = `m${how % 3}-`;
  const keys = graph.map((_, index) => which % 16 === 15 && index > 0 ? `s${index}` : `${prefix}${index}`);
  const standing = [...run?.steps.keys() ?? []].filter((key) => !keys.includes(key));
  const steps = graph.map((node, index) => {
    const known = dependenciesOf(node, [...keys.slice(0, index), ...standing].slice(0, 8));
    const dependencies = node.how === 62 || node.how === 61
      ? [...known, { prerequisiteStepKey: `none ${node.how}`, releaseMode: "ON_SUCCESS" } as const]
      : known;
    return stepOf(keys[index] ?? newId(), node, dependencies);
  });
  return how % 2 === 0 ? steps : steps.toReversed();
}
