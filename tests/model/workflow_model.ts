/**
 * A reference model of workflow runs, around the model of the queue: what each operation must answer and what it must
 * change. It holds no counters and no waves: a step is released when all that it waits for has ended, and where a run
 * stands follows from its steps, by core's own rule.
 *
 * @module
 */

import assert from "node:assert/strict";
import {
  canonicalWorkflowRequest,
  canonicalWorkflowSteps,
  isTerminalWorkflowRunStatus,
  isTerminalWorkflowStepStatus,
  workflowRunStatus,
  workflowStepPositions,
} from "@runledger/core";
import type {
  JsonValue,
  TerminalWorkflowStepStatus,
  WorkflowPrerequisite,
  WorkflowRunRequest,
  WorkflowRunStatus,
  WorkflowStepRequest,
  WorkflowStepStatus,
} from "@runledger/core";
import type { CanceledWorkflowRun, ClaimedJob, EnqueuedWorkflowRun, Scope } from "@runledger/postgres";
import { JobModel } from "./job_model.ts";
import type { ModelDefinition } from "./job_model.ts";
import { assertRefused, assertValue, isSame, valueOf } from "./operation.ts";
import type { OperationResult } from "./operation.ts";
import type { RunReading, RunTarget, WorkflowOperation } from "./workflow_operation.ts";

/** How a step ended, as it is stored. */
interface StepEnd {
  readonly status: TerminalWorkflowStepStatus;
  readonly reason?: string | undefined;
  readonly errorCode?: string | undefined;
  readonly errorMessage?: string | undefined;
  /** Of a gate, or of a step that a recovery took over; what a job gave is with the job. */
  readonly output?: JsonValue | undefined;
}

/** A step as the model has it. */
export interface ModelStep {
  readonly stepId: string;
  readonly position: number;
  /** As asked for, with the settings that its definition had then. */
  readonly request: WorkflowStepRequest;
  /** Taken over by a recovery as succeeded. */
  readonly isKept: boolean;
  status: Exclude<WorkflowStepStatus, "RUNNING">;
  wasReleased: boolean;
  /** The moment at which an open gate's time was over; infinite while it runs, undefined where there is none. */
  gateEnd: number | undefined;
  end: StepEnd | undefined;
  /** What the counters were when the run was cancelled: nothing is counted after that. */
  lastCounts: StepCounts | undefined;
}

/** How many prerequisites of a step have not ended, and how many did not succeed although they should have. */
export interface StepCounts {
  readonly pending: number;
  readonly unsatisfied: number;
}

/** A run as the model has it. */
export interface ModelRun {
  readonly runId: string;
  /** As it was asked for, without what was appended. */
  readonly request: WorkflowRunRequest;
  readonly recovery: { readonly runId: string; readonly key: string; readonly mode: "REPLAY" | "RESUME" } | undefined;
  canceledFor: string | undefined;
  finishedAt: number | undefined;
  /** By key. */
  readonly steps: Map<string, ModelStep>;
  readonly mutations: Map<string, { readonly request: unknown; readonly metadata: JsonValue }>;
}

/** What only the database knows: ids of steps, and which runs are left. */
export interface KnownIds {
  stepId(runId: string, stepKey: string): string;
  hasRun(runId: string): boolean;
}

const UNSATISFIED: StepEnd = {
  status: "CANCELED",
  reason: "workflow.dependency_unsatisfied",
  errorCode: "workflow.dependency_unsatisfied",
};

/** The runs as they must be after the operations so far. */
export class WorkflowModel {
  readonly runs: Map<string, ModelRun> = new Map();
  /** The queue, in which the released steps have their jobs. */
  jobs: JobModel;
  #moment = 0;

  constructor(definitions: Readonly<Record<string, ModelDefinition>>) {
    this.jobs = new JobModel(definitions);
  }

  /** A copy that goes its own way. */
  clone(): WorkflowModel {
    const copy = new WorkflowModel({});
    copy.jobs = this.jobs.clone();
    for (const [runId, run] of this.runs) {
      const steps = new Map([...run.steps].map(([key, step]) => [key, { ...step }]));
      copy.runs.set(runId, { ...run, steps, mutations: new Map(run.mutations) });
    }
    copy.#moment = this.#moment;
    return copy;
  }

  /**
   * Applies an operation and checks its answer.
   *
   * @param operation What was called.
   * @param result What it answered.
   * @param ids What is stored since.
   * @throws {assert.AssertionError} The answer cannot be; the model is then of no more use.
   */
  apply(operation: WorkflowOperation, result: OperationResult, ids: KnownIds): void {
    this.#moment = this.jobs.nextMoment();
    switch (operation.op) {
      case "enqueueRuns":
        return this.#enqueue(operation.runs, result, ids);
      case "completeGate":
        return this.#complete(operation, result);
      case "expireGates":
        return this.#expireGates(operation.limit, result);
      case "append":
        return this.#append(operation, result, ids);
      case "cancelRun":
        return this.#cancel(operation, result);
      case "recover":
        return this.#recover(operation, result, ids);
      case "runRetention":
        return this.#retain(operation, result, ids);
      case "result":
        return this.#result(operation, result);
      case "read":
        return assertValue(result, this.#reading(operation));
      default:
        this.jobs.apply(operation, result);
        if (operation.op === "claim") this.#checkDelivery(valueOf(result) as readonly ClaimedJob[]);
        return this.#follow();
    }
  }

  /** The time of an open gate is over: done behind the library's back. */
  expireGate(runId: string, stepKey: string): void {
    const step = this.runs.get(runId)?.steps.get(stepKey);
    if (step?.gateEnd !== undefined) step.gateEnd = this.jobs.nextMoment();
  }

  /** Where a run stands. */
  status(run: ModelRun): WorkflowRunStatus {
    if (run.canceledFor !== undefined) return "CANCELED";
    return workflowRunStatus([...run.steps.values()].map(({ status }) => status));
  }

  /** What the counters of a step must be. */
  counts(run: ModelRun, step: ModelStep): StepCounts {
    if (step.lastCounts !== undefined) return step.lastCounts;
    if (step.isKept) return { pending: 0, unsatisfied: 0 };
    const prerequisites = this.#prerequisites(run, step);
    return {
      pending: prerequisites.filter(({ status }) => !isTerminalWorkflowStepStatus(status)).length,
      unsatisfied: prerequisites.filter(({ isSatisfied }) => !isSatisfied).length,
    };
  }

  /** What a step gave. */
  output(step: ModelStep): JsonValue | undefined {
    return step.end?.output === undefined ? this.jobs.jobs.get(step.stepId)?.output : step.end.output;
  }

  #prerequisites(run: ModelRun, step: ModelStep): readonly (ModelStep & { readonly isSatisfied: boolean })[] {
    return step.request.dependencies.map(({ prerequisiteStepKey, releaseMode }) => {
      const prerequisite = run.steps.get(prerequisiteStepKey);
      assert(prerequisite !== undefined);
      const { status } = prerequisite;
      const hasFailed = isTerminalWorkflowStepStatus(status) && status !== "SUCCEEDED";
      return { ...prerequisite, isSatisfied: !hasFailed || releaseMode === "ON_TERMINAL" };
    });
  }

  #enqueue(requests: readonly WorkflowRunRequest[], result: OperationResult, ids: KnownIds): void {
    const runs = [...this.runs.values()];
    const places = requests.map((request, ord) => {
      const { idempotencyKey, activeKey } = request;
      const existing = idempotencyKey === undefined ? undefined : runs.find((run) => isOfKey(run.request, request));
      const leader = idempotencyKey === undefined ? ord : requests.findIndex((other) => isOfKey(other, request));
      const holder = existing !== undefined || activeKey === undefined
        ? undefined
        : runs.find((run) => this.#holdsActiveKey(run, request));
      return { ord, request, existing, leader, holder };
    });
    const fields = new Set<string>();
    for (const { request, existing, leader } of places) {
      const asked = fieldsOf(request);
      const stands = fieldsOf(existing?.request ?? requests[leader] ?? request);
      for (const field of new Set([...Object.keys(asked), ...Object.keys(stands)])) {
        if (!isSame(asked[field], stands[field])) fields.add(field);
      }
    }
    if (fields.size > 0) {
      return assertRefused(result, "workflow.enqueue_conflicting_retry", { fields: [...fields].sort() });
    }
    // Of two that want the same active key, the one whose keys come first gets it.
    const fresh = places
      .filter(({ ord, existing, leader, holder }) => leader === ord && existing === undefined && holder === undefined)
      .toSorted((one, other) => byKeys(one.request, other.request) || one.ord - other.ord)
      .filter(({ request }, index, all) =>
        all.findIndex((other) => wantsSameActiveKey(other.request, request)) === index
      );
    const unknown = this.#unknownTypes(fresh.flatMap(({ request }) => request.steps));
    if (unknown.length > 0) {
      return assertRefused(result, "workflow.definition_not_found_or_disabled", { jobTypes: unknown });
    }
    const answers = valueOf(result) as readonly EnqueuedWorkflowRun[];
    assert.equal(answers.length, requests.length);
    const answerAt = (ord: number): EnqueuedWorkflowRun => {
      const answer = answers[ord];
      assert(answer !== undefined);
      return answer;
    };
    for (const { ord, request } of fresh) {
      const { runId, disposition, status } = answerAt(ord);
      assert(!this.runs.has(runId), "a new run has a new id");
      const run = this.#addRun(runId, request, undefined);
      this.#place(run, request.steps, workflowStepPositions(request.steps), ids);
      assert.deepEqual([disposition, status], ["inserted", this.status(run)]);
    }
    for (const { ord, request, existing, leader, holder } of places) {
      if (fresh.some((one) => one.ord === ord)) continue;
      const leads = fresh.find((one) => one.ord === leader);
      const stands = existing ?? holder ??
        this.runs.get(
          answerAt((leads ?? fresh.find((one) => wantsSameActiveKey(one.request, request)))?.ord ?? -1).runId,
        );
      assert(stands !== undefined);
      const disposition = existing !== undefined || (holder === undefined && leads !== undefined)
        ? "existing"
        : "active";
      assert.deepEqual(answerAt(ord), { runId: stands.runId, disposition, status: this.status(stands) });
    }
  }

  #holdsActiveKey(run: ModelRun, request: WorkflowRunRequest): boolean {
    return wantsSameActiveKey(run.request, request) && !isTerminalWorkflowRunStatus(this.status(run));
  }

  #unknownTypes(steps: readonly WorkflowStepRequest[]): readonly string[] {
    const types = new Set(steps.flatMap((step) => step.executionKind === "JOB" ? [step.jobType] : []));
    return [...types].filter((type) => this.jobs.definitions.get(type)?.isEnabled !== true).sort();
  }

  #addRun(runId: string, request: WorkflowRunRequest, recovery: ModelRun["recovery"]): ModelRun {
    const run: ModelRun = {
      runId,
      request,
      recovery,
      canceledFor: undefined,
      finishedAt: undefined,
      steps: new Map(),
      mutations: new Map(),
    };
    this.runs.set(runId, run);
    return run;
  }

  /** Adds steps, of which those that are kept have succeeded already, and releases what waits for nothing. */
  #place(
    run: ModelRun,
    steps: readonly WorkflowStepRequest[],
    positions: ReadonlyMap<string, number>,
    ids: KnownIds,
    kept: ReadonlyMap<string, JsonValue | undefined> = new Map(),
  ): void {
    for (const request of steps) {
      const { stepKey } = request;
      const isKept = kept.has(stepKey);
      run.steps.set(stepKey, {
        stepId: ids.stepId(run.runId, stepKey),
        position: positions.get(stepKey) ?? 0,
        request: this.#settled(request, run),
        isKept,
        status: isKept ? "SUCCEEDED" : "BLOCKED",
        wasReleased: isKept,
        gateEnd: undefined,
        end: isKept ? { status: "SUCCEEDED", output: kept.get(stepKey) } : undefined,
        lastCounts: undefined,
      });
    }
    this.#advance(run);
  }

  /** With the settings that are frozen when a step is stored. */
  #settled(request: WorkflowStepRequest, run: ModelRun): WorkflowStepRequest {
    const organizationId = request.organizationId ?? run.request.organizationId;
    const settled = organizationId === undefined ? request : { ...request, organizationId };
    if (settled.executionKind === "EXTERNAL") return settled;
    const definition = this.jobs.definitions.get(settled.jobType);
    assert(definition !== undefined);
    return {
      ...settled,
      priority: settled.priority ?? definition.priority,
      maxAttempts: settled.maxAttempts ?? definition.maxAttempts,
    };
  }

  /** Releases or calls off whatever waits for nothing any more, until there is no such step. */
  #advance(run: ModelRun): void {
    for (let hasMoved = true; hasMoved;) {
      hasMoved = false;
      for (const step of run.steps.values()) {
        if (step.status !== "BLOCKED") continue;
        const { pending, unsatisfied } = this.counts(run, step);
        if (pending > 0) continue;
        hasMoved = true;
        if (unsatisfied > 0) end(step, UNSATISFIED);
        else this.#release(run, step);
      }
    }
    if (isTerminalWorkflowRunStatus(this.status(run))) run.finishedAt ??= this.#moment;
  }

  #release(run: ModelRun, step: ModelStep): void {
    const { request } = step;
    step.wasReleased = true;
    if (request.executionKind === "EXTERNAL") {
      step.status = "WAITING_FOR_EXTERNAL";
      if (request.timeout !== undefined) step.gateEnd = Infinity;
      return;
    }
    step.status = "ENQUEUED";
    const allowsContinuation = request.allowsContinuation === true;
    this.jobs.addStep(step.stepId, request, { runId: run.runId, allowsContinuation });
  }

  /** Posts the ends of the jobs that ended. */
  #follow(): void {
    for (const run of this.runs.values()) {
      for (const step of run.steps.values()) {
        const job = this.jobs.jobs.get(step.stepId);
        if (step.status !== "ENQUEUED" || job === undefined) continue;
        const { status, statusReason: reason } = job;
        if (status === "SUCCEEDED") end(step, { status, reason: "SUCCEEDED" });
        if (status === "CANCELED") end(step, { status, reason });
        if (status === "DEAD_LETTERED") end(step, { status: "FAILED", reason, errorCode: job.lastErrorCode });
      }
      if (run.finishedAt === undefined) this.#advance(run);
    }
  }

  #checkDelivery(claimed: readonly ClaimedJob[]): void {
    for (const { jobId, workflow, workflowRunId } of claimed) {
      const runId = this.jobs.jobs.get(jobId)?.step?.runId;
      assert.deepEqual([workflow?.runId, workflowRunId], [runId, runId]);
      if (workflow === undefined || runId === undefined) continue;
      const run = this.runs.get(runId);
      const step = run?.steps.get(workflow.stepKey);
      assert(run !== undefined && step !== undefined && step.stepId === jobId, "the job has the id of its step");
      const wanted: Record<string, WorkflowPrerequisite> = {};
      for (const prerequisite of this.#prerequisites(run, step)) {
        const { status } = prerequisite;
        assert(isTerminalWorkflowStepStatus(status));
        const output = this.output(prerequisite);
        wanted[prerequisite.request.stepKey] = output === undefined ? { status } : { status, output };
      }
      assert.deepEqual({ ...workflow.prerequisites }, wanted, `the prerequisites of step ${workflow.stepKey}`);
    }
  }

  /** The run, if it is there and in the scope. */
  #target({ runId, scope }: RunTarget, result: OperationResult): ModelRun | undefined {
    const run = this.runs.get(runId);
    if (run !== undefined && isInScope(run, scope)) return run;
    assertRefused(result, "workflow.run_not_found");
    return undefined;
  }

  #complete(operation: Extract<WorkflowOperation, { op: "completeGate" }>, result: OperationResult): void {
    const { stepKey, completion } = operation;
    const run = this.#target(operation, result);
    if (run === undefined) return;
    const step = run.steps.get(stepKey);
    if (step === undefined) return assertRefused(result, "workflow.external_step_not_found");
    if (step.request.executionKind === "JOB") return assertRefused(result, "workflow.external_step_not_external");
    if (step.status === "BLOCKED") return assertRefused(result, "workflow.external_step_not_waiting");
    const wanted: StepEnd = completion;
    if (step.status !== "WAITING_FOR_EXTERNAL") {
      if (isSame(endFields(step.end), endFields(wanted))) return assertValue(result, { isApplied: false });
      const code = "workflow.external_step_conflicting_completion_retry";
      return assertRefused(result, code, { status: step.status });
    }
    assertValue(result, { isApplied: true });
    end(step, wanted);
    this.#advance(run);
  }

  #expireGates(limit: number, result: OperationResult): void {
    const overdue = [...this.runs.values()]
      .flatMap((run) => [...run.steps.values()].map((step) => ({ run, step, at: step.gateEnd ?? Infinity })))
      .filter(({ at }) => at < Infinity)
      .toSorted((one, other) => one.at - other.at)
      .slice(0, limit);
    assertValue(result, overdue.length);
    for (const { step } of overdue) {
      assert(step.request.executionKind === "EXTERNAL" && step.request.timeout !== undefined);
      const { outcome: status, output } = step.request.timeout;
      const reason = "workflow.gate_timed_out";
      const errorMessage = "The gate was not completed in time.";
      end(
        step,
        status === "SUCCEEDED" ? { status, reason, output } : { status, reason, errorCode: reason, errorMessage },
      );
    }
    for (const { run } of overdue) this.#advance(run);
  }

  #append(operation: Extract<WorkflowOperation, { op: "append" }>, result: OperationResult, ids: KnownIds): void {
    const { windowStepKey, mutationKey, metadata, steps } = operation;
    const run = this.#target(operation, result);
    if (run === undefined) return;
    const request = [windowStepKey, canonicalWorkflowSteps(steps)];
    const earlier = run.mutations.get(mutationKey);
    if (earlier !== undefined) {
      if (isSame(earlier.request, request)) return assertValue(result, { isApplied: false });
      return assertRefused(result, "workflow.append_conflicting_retry");
    }
    const window = run.steps.get(windowStepKey);
    if (window === undefined) return assertRefused(result, "workflow.append_window_missing");
    if (window.request.executionKind === "JOB") return assertRefused(result, "workflow.append_window_not_external");
    if (isTerminalWorkflowRunStatus(this.status(run))) return assertRefused(result, "workflow.append_terminal_run");
    if (window.status !== "WAITING_FOR_EXTERNAL") return assertRefused(result, "workflow.append_window_not_open");
    const keys = steps.map(({ stepKey }) => stepKey).sort();
    const stepKey = keys.find((key) => run.steps.has(key));
    if (stepKey !== undefined) {
      const details = { problem: "duplicate_step", stepKey };
      return assertRefused(result, "workflow.invalid_dag_duplicate_step_key", details);
    }
    const [missing] = steps
      .flatMap((step) => step.dependencies.map(({ prerequisiteStepKey: key }) => ({ stepKey: step.stepKey, key })))
      .filter(({ key }) => !keys.includes(key) && !run.steps.has(key))
      .toSorted((one, other) => compare(one.stepKey, other.stepKey) || compare(one.key, other.key));
    if (missing !== undefined) {
      const details = { problem: "missing_dependency", stepKey: missing.stepKey, prerequisiteStepKey: missing.key };
      return assertRefused(result, "workflow.invalid_dag_missing_dependency", details);
    }
    const unknown = this.#unknownTypes(steps);
    if (unknown.length > 0) {
      return assertRefused(result, "workflow.definition_not_found_or_disabled", { jobTypes: unknown });
    }
    assertValue(result, { isApplied: true });
    run.mutations.set(mutationKey, { request, metadata });
    const count = run.steps.size;
    const positions = [...workflowStepPositions(steps)].map(([key, position]) => [key, count + position] as const);
    this.#place(run, steps, new Map(positions), ids);
  }

  #cancel(operation: Extract<WorkflowOperation, { op: "cancelRun" }>, result: OperationResult): void {
    const run = this.#target(operation, result);
    if (run === undefined) return;
    const status = this.status(run);
    if (isTerminalWorkflowRunStatus(status)) return assertValue(result, { isApplied: false, status });
    const steps = [...run.steps.values()];
    const isQuiescing = steps.some(({ stepId, status }) =>
      status === "ENQUEUED" && this.jobs.jobs.get(stepId)?.leaseEnd === Infinity
    );
    const answer = valueOf(result) as CanceledWorkflowRun;
    assert.deepEqual([answer.isApplied, answer.status, answer.leaseQuiescesAt !== undefined], [
      true,
      "CANCELED",
      isQuiescing,
    ]);
    for (const step of steps) step.lastCounts = this.counts(run, step);
    const reason = operation.reason ?? "workflow.run_canceled";
    this.jobs.cancelSteps(steps.map(({ stepId }) => stepId), operation.reason ?? "CANCELED");
    for (const step of steps) {
      if (isTerminalWorkflowStepStatus(step.status)) continue;
      end(step, { status: "CANCELED", reason, errorCode: "workflow.run_canceled" });
    }
    run.canceledFor = operation.reason ?? "CANCELED";
    run.finishedAt = this.#moment;
  }

  #recover(operation: Extract<WorkflowOperation, { op: "recover" }>, result: OperationResult, ids: KnownIds): void {
    const { recoveryKey: key, mode } = operation;
    const source = this.#target(operation, result);
    if (source === undefined) return;
    const standing = [...this.runs.values()].find(({ recovery }) =>
      recovery?.runId === source.runId && recovery.key === key
    );
    if (standing !== undefined) {
      if (standing.recovery?.mode !== mode) return assertRefused(result, "workflow.recovery_request_conflict");
      return assertValue(result, { runId: standing.runId, disposition: "existing" });
    }
    const status = this.status(source);
    if (!isTerminalWorkflowRunStatus(status)) {
      return assertRefused(result, "workflow.recovery_source_not_terminal", { status });
    }
    if (mode === "RESUME" && status === "SUCCEEDED") {
      return assertRefused(result, "workflow.recovery_nothing_to_resume");
    }
    if ([...this.runs.values()].some((run) => this.#holdsActiveKey(run, source.request))) {
      return assertRefused(result, "workflow.recovery_active_constraint");
    }
    const steps = [...source.steps.values()];
    const requests = steps.map(({ request }) => request);
    const unknown = this.#unknownTypes(requests);
    if (unknown.length > 0) {
      return assertRefused(result, "workflow.definition_not_found_or_disabled", { jobTypes: unknown });
    }
    const { runId, disposition } = valueOf(result) as { readonly runId: string; readonly disposition: string };
    assert.equal(disposition, "inserted");
    assert(!this.runs.has(runId), "a recovery has a new id");
    const { idempotencyKey: _, ...request } = source.request;
    const run = this.#addRun(runId, request, { runId: source.runId, key, mode });
    const kept = steps.filter(({ status }) => mode === "RESUME" && status === "SUCCEEDED")
      .map((step) => [step.request.stepKey, this.output(step)] as const);
    const positions = steps.map((step) => [step.request.stepKey, step.position] as const);
    this.#place(run, requests, new Map(positions), ids, new Map(kept));
  }

  #retain(
    { limit, expiresIdempotencyKeys }: Extract<WorkflowOperation, { op: "runRetention" }>,
    result: OperationResult,
    ids: KnownIds,
  ): void {
    const ended = [...this.runs.values()].filter(({ finishedAt, request, recovery }) =>
      finishedAt !== undefined && (expiresIdempotencyKeys || request.idempotencyKey === undefined) &&
      (recovery === undefined || !this.runs.has(recovery.runId))
    );
    assertValue(result, Math.min(limit, ended.length));
    const gone = [...this.runs.values()].filter(({ runId }) => !ids.hasRun(runId));
    assert.equal(gone.length, Math.min(limit, ended.length), "what is told is what is done");
    const age = ({ finishedAt }: ModelRun): number => finishedAt ?? Infinity;
    const youngest = Math.max(...gone.map(age));
    for (const run of gone) assert(ended.includes(run), `run ${run.runId} should have been kept`);
    for (const run of ended) assert(gone.includes(run) || age(run) >= youngest, `run ${run.runId} is older`);
    for (const run of gone) {
      for (const { stepId } of run.steps.values()) this.jobs.jobs.delete(stepId);
      this.runs.delete(run.runId);
    }
  }

  #result(operation: RunTarget, result: OperationResult): void {
    const run = this.#target(operation, result);
    if (run === undefined) return;
    const { resultStepKey } = run.request;
    if (resultStepKey === undefined) return assertRefused(result, "workflow.result_not_declared");
    const status = this.status(run);
    if (!isTerminalWorkflowRunStatus(status)) {
      return assertRefused(result, "workflow.result_wait_timeout", { status });
    }
    if (status !== "SUCCEEDED") return assertRefused(result, "workflow.result_unsuccessful_terminal", { status });
    const step = run.steps.get(resultStepKey);
    assert(step !== undefined);
    const output = this.output(step);
    if (output === undefined) return assertRefused(result, "workflow.result_missing");
    assertValue(result, output);
  }

  #reading({ runId, scope }: RunTarget): RunReading {
    const run = this.runs.get(runId);
    if (run === undefined || !isInScope(run, scope)) return { status: undefined, steps: [], edges: [], mutations: [] };
    const ordered = [...run.steps.values()].sort((one, other) => one.position - other.position);
    const positionOf = (key: string): number => run.steps.get(key)?.position ?? 0;
    return {
      status: this.status(run),
      steps: ordered.map((step) => {
        const isRunning = this.jobs.jobs.get(step.stepId)?.status === "LEASED";
        return `${step.request.stepKey} ${isRunning ? "RUNNING" : step.status} ${JSON.stringify(this.output(step))}`;
      }),
      edges: ordered.flatMap(({ request: { stepKey, dependencies } }) =>
        dependencies
          .toSorted((one, other) => positionOf(one.prerequisiteStepKey) - positionOf(other.prerequisiteStepKey))
          .map(({ prerequisiteStepKey, releaseMode }) => `${prerequisiteStepKey} ${releaseMode} ${stepKey}`)
      ),
      mutations: [...run.mutations].map(([key, { metadata }]) => `${key} ${JSON.stringify(metadata)}`),
    };
  }
}

function end(step: ModelStep, how: StepEnd): void {
  step.status = how.status;
  step.gateEnd = undefined;
  step.end = how;
}

/** What two completions of a gate are compared by. */
function endFields(end: StepEnd | undefined): JsonValue {
  return [end?.status, end?.reason, end?.errorCode, end?.errorMessage, end?.output === undefined ? [] : [end.output]]
    .map(
      (field) => field ?? null,
    );
}

function isInScope({ request }: ModelRun, scope: Scope): boolean {
  if (scope === "all") return true;
  return request.organizationId === (scope === "global" ? undefined : scope.organizationId);
}

function isOfKey(one: WorkflowRunRequest, other: WorkflowRunRequest): boolean {
  return one.idempotencyKey !== undefined && one.idempotencyKey === other.idempotencyKey &&
    one.workflowType === other.workflowType && one.organizationId === other.organizationId;
}

/** Whether two runs cannot both be live; each is its own rival. */
function wantsSameActiveKey(one: WorkflowRunRequest, other: WorkflowRunRequest): boolean {
  if (one === other) return true;
  return one.activeKey !== undefined && one.activeKey === other.activeKey &&
    one.organizationId === other.organizationId;
}

/** The order in which a batch takes its keys: those that are missing come last. */
function byKeys(one: WorkflowRunRequest, other: WorkflowRunRequest): number {
  for (const key of ["workflowType", "organizationId", "idempotencyKey", "activeKey"] as const) {
    const order = compare(one[key] ?? "\uffff", other[key] ?? "\uffff");
    if (order !== 0) return order;
  }
  return 0;
}

function compare(one: string, other: string): number {
  return one < other ? -1 : one > other ? 1 : 0;
}

/** What an idempotency key stands for, part by part. */
function fieldsOf(request: WorkflowRunRequest): Readonly<Record<string, unknown>> {
  return { ...canonicalWorkflowRequest(request) };
}
