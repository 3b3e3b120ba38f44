/**
 * A reference model of the queue: what each operation must answer and what it must change, in a few hundred lines without
 * a database, a clock or concurrency. It is told what an operation answered, refuses an answer that cannot be, and takes
 * over the ids and tokens that only the database knows.
 *
 * @module
 */

import assert from "node:assert/strict";
import type {
  JobEventType,
  JobFailureKind,
  JobLease,
  JobOutcome,
  JobRequest,
  JobStage,
  JobStatus,
  JsonValue,
} from "@runledger/core";
import { isRetryableFailureKind, isTerminalJobStatus } from "@runledger/core";
import type {
  BulkResult,
  CanceledJob,
  ClaimedJob,
  EditJobResult,
  EnqueuedJob,
  FrozenJob,
  HeartbeatResult,
  ReapedJob,
  ReplayedJob,
  SettledJob,
} from "@runledger/postgres";
import { assertRefused, assertValue, isSame, valueOf } from "./operation.ts";
import type { ModelChange, Operation, OperationResult } from "./operation.ts";

/** The settings that a request leaves out. */
export interface ModelDefinition {
  readonly priority: number;
  readonly maxAttempts: number;
  readonly isEnabled: boolean;
}

/**
 * When a job is due. Times given by a request are exact and lie before every tick; a tick is the moment of a statement;
 * infinity is later than any test.
 */
interface Due {
  readonly at: number;
  readonly isExact: boolean;
}

/** A job as the model has it. */
export interface ModelJob {
  readonly jobId: string;
  readonly jobType: string;
  readonly maxAttempts: number;
  readonly idempotencyKey: string | undefined;
  readonly request: Readonly<Record<string, JsonValue>> | undefined;
  readonly replayOf: { readonly jobId: string; readonly replayKey: string; readonly reason: string } | undefined;
  /** Which run's step it is, if it is one. */
  readonly step: ModelJobOfStep | undefined;
  priority: number;
  payload: JsonValue;
  status: JobStatus;
  stage: JobStage;
  due: Due;
  runNumber: number;
  attempt: number;
  leaseToken: string | undefined;
  /** The tick at which the lease ran out; infinite while it runs, undefined where there is none. */
  leaseEnd: number | undefined;
  hasReported: boolean;
  finishedAt: number | undefined;
  progressDone: number | undefined;
  progressTotal: number | undefined;
  checkpoint: JsonValue | undefined;
  output: JsonValue | undefined;
  statusReason: string | undefined;
  lastErrorCode: string | undefined;
  deadLetter: ModelDeadLetter | undefined;
  /** `type run.attempt` of each event. */
  readonly events: string[];
  /** `run.attempt closing-event` of each attempt that counts. */
  readonly attempts: string[];
}

/** What the job of a workflow step knows of it. */
export interface ModelJobOfStep {
  readonly runId: string;
  readonly allowsContinuation: boolean;
}

/** What is kept of a dead-lettered job. */
export interface ModelDeadLetter {
  readonly runNumber: number;
  readonly attempt: number;
  readonly failureKind: JobFailureKind;
  readonly reason: string;
  readonly errorCode: string;
  readonly checkpoint: JsonValue | undefined;
}

const NOBODY: ReadonlySet<string> = new Set();

/** Requests may ask for these due times; all of them have passed, and `LATER` never will. */
export const PAST_TIMES: readonly Date[] = [0, 1, 2].map((minute) => new Date(Date.UTC(2020, 0, 1, 0, minute)));
/** A due time that no test lives to see. */
export const LATER: Date = new Date(Date.UTC(2200, 0, 1));

/** The queue as it must be after the operations so far. */
export class JobModel {
  readonly jobs: Map<string, ModelJob> = new Map();
  readonly definitions: Map<string, ModelDefinition> = new Map();
  #tick = 0;

  constructor(definitions: Readonly<Record<string, ModelDefinition>>) {
    for (const [jobType, definition] of Object.entries(definitions)) this.definitions.set(jobType, definition);
  }

  /** A copy that goes its own way. */
  clone(): JobModel {
    const copy = new JobModel(Object.fromEntries(this.definitions));
    for (const [jobId, job] of this.jobs) {
      copy.jobs.set(jobId, { ...job, events: [...job.events], attempts: [...job.attempts] });
    }
    copy.#tick = this.#tick;
    return copy;
  }

  /**
   * Applies an operation and checks its answer.
   *
   * @param operation What was called.
   * @param result What it answered.
   * @param locked Jobs that others had locked: operations that skip locked rows did not see them.
   * @throws {assert.AssertionError} The answer cannot be; the model is then of no more use.
   */
  apply(operation: Operation, result: OperationResult, locked: ReadonlySet<string> = NOBODY): void {
    this.nextMoment();
    switch (operation.op) {
      case "enqueue":
        return this.#enqueue(operation.requests, result);
      case "claim":
        return this.#claim(operation.jobTypes, operation.limit, result, locked);
      case "heartbeat":
        return this.#heartbeat(operation.leases, operation.postsEvents, result, locked);
      case "progress":
        return this.#progress(operation.lease, operation.update, result);
      case "log":
        return assertValue(result, this.#held(operation.lease) === undefined ? 0 : 1);
      case "settle":
        return this.#settle(operation.settlements, result);
      case "release":
        return this.#release(operation.leases, result);
      case "cancel":
        return this.#cancel(operation.jobId, result);
      case "edit":
        return this.#edit(operation, result);
      case "cancelMany":
        return this.#many(operation.jobs, result, (job) => {
          if (isTerminalJobStatus(job.status)) return "not_applicable";
          this.#callOff(job, "CANCELED");
          return undefined;
        });
      case "requeueMany":
        return this.#many(operation.jobs, result, (job) => {
          if (job.status !== "DEAD_LETTERED" && job.status !== "CANCELED") return "not_applicable";
          if (job.leaseEnd === Infinity) return "not_quiesced";
          this.#again(job, operation.progress === "reset");
          return undefined;
        });
      case "editMany":
        return this.#many(operation.jobs, result, (job, isApplied) => {
          if (job.status !== "PENDING") return "not_applicable";
          if (!(this.#differs(job, operation.change) ?? isApplied)) return "unchanged";
          this.#change(job, operation.change);
          return undefined;
        });
      case "requeue":
        return this.#requeue(operation, result);
      case "requeueDeadLetters":
        return this.#requeueDeadLetters(operation.jobType, operation.limit, result, locked);
      case "replay":
        return this.#replay(operation, result);
      case "reap":
        return this.#reap(operation.limit, result, locked);
      case "retention":
        return this.#retain(operation.statuses, operation.expiresIdempotencyKeys, result, locked);
      case "setEnabled": {
        const definition = this.definitions.get(operation.jobType);
        assert(definition !== undefined);
        this.definitions.set(operation.jobType, { ...definition, isEnabled: operation.isEnabled });
        return;
      }
    }
  }

  /** The lease of a job has run out: done behind the library's back. */
  expire(jobId: string): void {
    const job = this.jobs.get(jobId);
    if (job?.leaseEnd !== undefined) job.leaseEnd = this.nextMoment();
  }

  /** A waiting job is due: done behind the library's back. */
  makeDue(jobId: string): void {
    const job = this.jobs.get(jobId);
    if (job?.status === "PENDING") job.due = { at: this.nextMoment(), isExact: false };
  }

  /** Another statement begins. Gives its number: what happens in one of them is in no order. */
  nextMoment(): number {
    return ++this.#tick;
  }

  /** A step was released: its job has its id, and is due now. */
  addStep(
    jobId: string,
    request: Pick<JobRequest, "jobType" | "priority" | "maxAttempts" | "payload" | "stage">,
    step: ModelJobOfStep,
  ): void {
    this.#add(jobId, request, undefined, { step });
  }

  /** The run of these jobs was cancelled, and those that had not ended with it. */
  cancelSteps(jobIds: readonly string[], reason: string): void {
    for (const jobId of jobIds) {
      const job = this.jobs.get(jobId);
      if (job !== undefined && !isTerminalJobStatus(job.status)) this.#callOff(job, reason);
    }
  }

  #enqueue(requests: readonly JobRequest[], result: OperationResult): void {
    const canonical = requests.map(canonicalRequest);
    const standing = requests.map((request, index): ModelJob | number => {
      if (request.idempotencyKey === undefined) return index;
      const earlier = [...this.jobs.values()].find((job) => this.#isOfKey(job, request));
      if (earlier !== undefined) return earlier;
      return requests.findIndex((other) =>
        other.jobType === request.jobType && other.idempotencyKey === request.idempotencyKey
      );
    });
    const fields = new Set<string>();
    for (const [index, asked] of canonical.entries()) {
      const stands = standing[index] as ModelJob | number;
      const other = typeof stands === "number" ? canonical[stands] : stands.request;
      assert(other !== undefined);
      for (const [field, value] of Object.entries(asked)) if (!isSame(value, other[field] ?? null)) fields.add(field);
    }
    if (fields.size > 0) return assertRefused(result, "job.idempotency_conflict", { fields: [...fields].sort() });
    const fresh = requests.filter((_, index) => standing[index] === index);
    const undefinedTypes = new Set(
      fresh.map(({ jobType }) => jobType).filter((jobType) => this.definitions.get(jobType)?.isEnabled !== true),
    );
    if (undefinedTypes.size > 0) {
      const details = { jobTypes: [...undefinedTypes].sort() };
      return assertRefused(result, "job.definition_not_found_or_disabled", details);
    }
    const answers = valueOf(result) as readonly EnqueuedJob[];
    assert.equal(answers.length, requests.length);
    for (const [index, request] of requests.entries()) {
      const answer = answers[index];
      const stands = standing[index] as ModelJob | number;
      assert(answer !== undefined);
      if (stands === index) {
        assert.deepEqual([answer.disposition, answer.status, answer.runNumber], ["inserted", "PENDING", 1]);
        assert(!this.jobs.has(answer.jobId), "a new job has a new id");
        this.#add(answer.jobId, request, canonical[index]);
      } else if (typeof stands === "number") {
        const wanted = { jobId: answers[stands]?.jobId, disposition: "existing", status: "PENDING", runNumber: 1 };
        assert.deepEqual(answer, wanted);
      } else {
        const { jobId, status, runNumber } = stands;
        assert.deepEqual(answer, { jobId, disposition: "existing", status, runNumber });
      }
    }
  }

  #isOfKey(job: ModelJob, request: JobRequest): boolean {
    return job.jobType === request.jobType && job.idempotencyKey === request.idempotencyKey;
  }

  #add(
    jobId: string,
    request: JobRequest,
    canonical: ModelJob["request"],
    origin: { readonly replayOf?: ModelJob["replayOf"]; readonly step?: ModelJobOfStep } = {},
  ): void {
    const definition = this.definitions.get(request.jobType);
    assert(definition !== undefined);
    this.jobs.set(jobId, {
      jobId,
      jobType: request.jobType,
      priority: request.priority ?? definition.priority,
      maxAttempts: request.maxAttempts ?? definition.maxAttempts,
      payload: request.payload,
      idempotencyKey: request.idempotencyKey,
      request: request.idempotencyKey === undefined ? undefined : canonical,
      replayOf: origin.replayOf,
      step: origin.step,
      status: "PENDING",
      stage: request.stage ?? "queued",
      due: this.#requestedDue(request.nextRunAt),
      runNumber: 1,
      attempt: 0,
      leaseToken: undefined,
      leaseEnd: undefined,
      hasReported: false,
      finishedAt: undefined,
      progressDone: undefined,
      progressTotal: undefined,
      checkpoint: undefined,
      output: undefined,
      statusReason: undefined,
      lastErrorCode: undefined,
      deadLetter: undefined,
      events: ["ENQUEUED 1.-"],
      attempts: [],
    });
  }

  #requestedDue(nextRunAt: Date | undefined): Due {
    if (nextRunAt === undefined) return this.#now();
    if (nextRunAt >= LATER) return { at: Infinity, isExact: false };
    return { at: nextRunAt.getTime() - LATER.getTime(), isExact: true };
  }

  #now(): Due {
    return { at: this.#tick, isExact: false };
  }

  #claim(jobTypes: readonly string[], limit: number, result: OperationResult, locked: ReadonlySet<string>): void {
    const due = [...this.jobs.values()].filter((job) =>
      job.status === "PENDING" && job.due.at !== Infinity && jobTypes.includes(job.jobType) && !locked.has(job.jobId)
    );
    const claimed = valueOf(result) as readonly ClaimedJob[];
    assert.equal(claimed.length, Math.min(limit, due.length), "a claim takes what is due, up to its limit");
    const taken = claimed.map((claim) => {
      const job = due.find(({ jobId }) => jobId === claim.jobId);
      assert(job !== undefined, `job ${claim.jobId} is not due`);
      return job;
    });
    for (const [index, job] of taken.entries()) {
      for (const later of due) {
        if (taken.indexOf(later) < index && taken.includes(later)) continue;
        assert(!goesBefore(later, job), `job ${later.jobId} should have been claimed before ${job.jobId}`);
      }
    }
    for (const [index, job] of taken.entries()) {
      const claim = claimed[index] as ClaimedJob;
      job.status = "LEASED";
      job.stage = "running";
      job.attempt++;
      job.leaseToken = claim.leaseToken;
      job.leaseEnd = Infinity;
      job.hasReported = false;
      this.#post(job, "LEASED");
      job.attempts.push(`${job.runNumber}.${job.attempt} open`);
      assert.deepEqual(
        [claim.jobType, claim.runNumber, claim.attempt, claim.maxAttempts, claim.priority, claim.payload],
        [job.jobType, job.runNumber, job.attempt, job.maxAttempts, job.priority, job.payload],
      );
      assert.deepEqual(
        [claim.checkpoint, claim.progressDone, claim.progressTotal],
        [job.checkpoint, job.progressDone, job.progressTotal],
      );
    }
  }

  /** The job of a lease, if the lease is the one that it has and still runs. */
  #held(lease: JobLease): ModelJob | undefined {
    const job = this.jobs.get(lease.jobId);
    const isHeld = job?.status === "LEASED" && job.runNumber === lease.runNumber && job.attempt === lease.attempt &&
      job.leaseToken === lease.leaseToken && job.leaseEnd === Infinity;
    return isHeld ? job : undefined;
  }

  #heartbeat(
    leases: readonly JobLease[],
    postsEvents: boolean,
    result: OperationResult,
    locked: ReadonlySet<string>,
  ): void {
    const wanted = leases.map((lease): HeartbeatResult => {
      const { jobId } = lease;
      const job = this.jobs.get(jobId);
      if (locked.has(jobId) && job?.status === "LEASED" && job.leaseToken === lease.leaseToken) {
        return { jobId, state: "busy" };
      }
      if (!locked.has(jobId) && this.#held(lease) !== undefined) {
        if (postsEvents && job !== undefined) this.#post(job, "HEARTBEAT");
        return { jobId, state: "extended" };
      }
      const isCanceled = job?.status === "CANCELED" && job.runNumber === lease.runNumber;
      return { jobId, state: isCanceled ? "canceled" : "lost" };
    });
    assertValue(result, wanted);
  }

  #progress(
    lease: JobLease,
    update: { readonly progress?: { readonly done: number; readonly total?: number }; readonly checkpoint?: JsonValue },
    result: OperationResult,
  ): void {
    const job = this.#held(lease);
    if (job === undefined) return assertRefused(result, "job.lease_owner_mismatch");
    if (!isProgressPossible(job, update.progress)) return assertRefused(result, "job.invalid_progress");
    assertValue(result, undefined);
    this.#record(job, update);
    job.hasReported = true;
    this.#post(job, "PROGRESS");
  }

  #record(
    job: ModelJob,
    kept: { readonly progress?: { readonly done: number; readonly total?: number }; readonly checkpoint?: JsonValue },
  ): void {
    job.progressDone = kept.progress?.done ?? job.progressDone;
    job.progressTotal = kept.progress?.total ?? job.progressTotal;
    if (kept.checkpoint !== undefined) job.checkpoint = kept.checkpoint;
  }

  #settle(
    settlements: readonly { readonly lease: JobLease; readonly outcome: JobOutcome }[],
    result: OperationResult,
  ): void {
    const answers = valueOf(result) as readonly SettledJob[];
    assert.equal(answers.length, settlements.length);
    for (const [index, { lease, outcome }] of settlements.entries()) {
      const job = this.#held(lease);
      const answer = answers[index];
      const { jobId } = lease;
      // Without the run that the claim told, a settlement would not have locked it.
      if (job === undefined || job.step?.runId !== lease.workflowRunId) {
        assert.deepEqual(answer, { jobId, settled: false, code: "job.lease_owner_mismatch" });
      } else if (outcome.kind !== "canceled" && !isProgressPossible(job, outcome.progress)) {
        assert.deepEqual(answer, { jobId, settled: false, code: "job.invalid_progress" });
      } else if (outcome.kind === "continued" && job.step?.allowsContinuation === false) {
        const code = "job.workflow_handler_continuation_not_enabled";
        assert.deepEqual(answer, { jobId, settled: false, code });
      } else {
        this.#end(job, outcome);
        assert(answer?.settled === true, `the settlement of job ${jobId} should be taken`);
        assert.deepEqual([answer.status, answer.nextRunAt !== undefined], [job.status, job.status === "PENDING"]);
      }
    }
  }

  #end(job: ModelJob, outcome: JobOutcome): void {
    if (outcome.kind !== "canceled") this.#record(job, outcome);
    switch (outcome.kind) {
      case "succeeded":
        this.#finish(job, "SUCCEEDED");
        job.stage = "completed";
        job.output = outcome.output;
        job.statusReason = undefined;
        job.lastErrorCode = undefined;
        return;
      case "failed":
        return this.#fail(job, outcome.failure, outcome.retryDelayMs === 0);
      case "continued":
        this.#close(job, "REQUEUED");
        this.#wait(job, (outcome.delayMs ?? 0) === 0);
        job.runNumber++;
        job.attempt = 0;
        job.statusReason = "HANDLER_CONTINUATION";
        job.lastErrorCode = undefined;
        return;
      case "snoozed":
        this.#post(job, "REQUEUED");
        job.attempts.pop();
        this.#wait(job, outcome.delayMs === 0);
        job.attempt--;
        job.statusReason = outcome.reason ?? "SNOOZE";
        return;
      case "canceled":
        this.#finish(job, "CANCELED");
        job.statusReason = outcome.reason ?? "CANCELED";
        return;
    }
  }

  #fail(job: ModelJob, failure: { readonly kind: JobFailureKind; readonly code: string }, isDueAtOnce: boolean): void {
    this.#close(job, "FAILED");
    job.statusReason = failure.kind;
    job.lastErrorCode = failure.code;
    const isRetryable = isRetryableFailureKind(failure.kind);
    if (isRetryable && job.attempt < job.maxAttempts) {
      this.#post(job, "RETRY_SCHEDULED");
      this.#wait(job, isDueAtOnce);
      return;
    }
    this.#post(job, "DEAD_LETTERED");
    this.#free(job, "DEAD_LETTERED");
    job.finishedAt = this.#tick;
    const spent = failure.kind === "LEASE_EXPIRED" ? "LEASE_EXPIRED" : "ATTEMPTS_EXHAUSTED";
    job.deadLetter = {
      runNumber: job.runNumber,
      attempt: job.attempt,
      failureKind: failure.kind,
      reason: isRetryable ? spent : "FAILURE_KIND_NON_RETRYABLE",
      errorCode: failure.code,
      checkpoint: job.checkpoint,
    };
  }

  #release(leases: readonly JobLease[], result: OperationResult): void {
    const released = leases.flatMap((lease) => {
      const job = this.#held(lease);
      return job === undefined || job.hasReported ? [] : [job];
    });
    assert.deepEqual([...valueOf(result) as readonly string[]].sort(), released.map(({ jobId }) => jobId).sort());
    for (const job of released) {
      const { due } = job;
      this.#post(job, "REQUEUED");
      job.attempts.pop();
      this.#wait(job, true);
      job.due = due;
      job.attempt--;
      job.statusReason = "UNSTARTED_RELEASE";
    }
  }

  #cancel(jobId: string, result: OperationResult): void {
    const job = this.jobs.get(jobId);
    if (job === undefined) return assertRefused(result, "job.not_found");
    if (isTerminalJobStatus(job.status)) {
      return assertRefused(result, "job.invalid_state_transition", { status: job.status });
    }
    const isQuiescing = job.leaseEnd === Infinity;
    const answer = valueOf(result) as CanceledJob;
    assert.deepEqual([answer.jobId, answer.leaseQuiescesAt !== undefined], [jobId, isQuiescing]);
    this.#callOff(job, "CANCELED");
  }

  #edit(operation: Extract<Operation, { op: "edit" }>, result: OperationResult): void {
    const { jobId, change, expectedEventSeq } = operation;
    const job = this.jobs.get(jobId);
    if (job === undefined) return assertRefused(result, "job.not_found");
    const { status, events: { length: eventSeq } } = job;
    if (expectedEventSeq !== undefined && expectedEventSeq !== eventSeq) {
      return assertValue(result, { kind: "mismatch", status, eventSeq });
    }
    if (job.step !== undefined && change.payload !== undefined) {
      return assertRefused(result, "job.workflow_edit_not_supported");
    }
    if (status !== "PENDING") return assertValue(result, { kind: "mismatch", status, eventSeq });
    const isEdited = this.#differs(job, change) ?? (valueOf(result) as EditJobResult).kind === "edited";
    assertValue(result, isEdited ? { kind: "edited", eventSeq: eventSeq + 1 } : { kind: "unchanged", eventSeq });
    if (isEdited) this.#change(job, change);
  }

  /** Whether an edit changes anything; undefined if only the database knows, since a delay has no date here. */
  #differs(job: ModelJob, change: ModelChange): boolean | undefined {
    if (change.priority !== undefined && change.priority !== job.priority) return true;
    if (change.payload !== undefined && !isSame(change.payload, job.payload)) return true;
    if (change.nextRunAt === undefined) return false;
    const due = this.#requestedDue(change.nextRunAt);
    if (due.at === Infinity && job.due.at === Infinity) return undefined;
    return due.at !== job.due.at || due.isExact !== job.due.isExact;
  }

  #change(job: ModelJob, change: ModelChange): void {
    job.priority = change.priority ?? job.priority;
    job.payload = change.payload ?? job.payload;
    if (change.nextRunAt !== undefined) job.due = this.#requestedDue(change.nextRunAt);
    this.#post(job, "EDITED");
  }

  /** Does something to each job that is as it was looked at; `apply` says why it cannot, or nothing if it did. */
  #many(
    jobs: readonly FrozenJob[],
    result: OperationResult,
    apply: (job: ModelJob, isApplied: boolean) => BulkResult["skipped"][number]["reason"] | undefined,
  ): void {
    const answer = valueOf(result) as BulkResult;
    const applied: string[] = [];
    const skipped: BulkResult["skipped"][number][] = [];
    for (const { jobId, eventSeq } of jobs) {
      const job = this.jobs.get(jobId);
      const reason = job === undefined
        ? "not_found"
        : job.events.length !== eventSeq
        ? "changed"
        : apply(job, answer.applied.includes(jobId));
      if (reason === undefined) applied.push(jobId);
      else if (
        reason === "not_found" && answer.skipped.some((one) => one.jobId === jobId && one.reason === "changed")
      ) {
        // A job that was deleted while the statement waited for it was there when it began.
        skipped.push({ jobId, reason: "changed" });
      } else skipped.push({ jobId, reason });
    }
    assert.deepEqual(answer, { applied, skipped });
  }

  #callOff(job: ModelJob, reason: string): void {
    const isQuiescing = job.leaseEnd === Infinity;
    if (job.status === "LEASED") this.#finish(job, "CANCELED");
    else {
      this.#post(job, "CANCELED");
      this.#free(job, "CANCELED");
      job.finishedAt = this.#tick;
    }
    if (isQuiescing) job.leaseEnd = Infinity;
    job.statusReason = reason;
  }

  #requeue(operation: Extract<Operation, { op: "requeue" }>, result: OperationResult): void {
    const job = this.jobs.get(operation.jobId);
    if (job === undefined) return assertRefused(result, "job.not_found");
    if (job.step !== undefined) return assertRefused(result, "job.workflow_requeue_not_supported");
    const { status, runNumber } = job;
    if (status !== operation.expectedStatus || runNumber !== operation.expectedRunNumber) {
      return assertValue(result, { kind: "mismatch", status, runNumber });
    }
    if (job.leaseEnd === Infinity) {
      assert.equal((valueOf(result) as { kind: string }).kind, "not_quiesced");
      return;
    }
    assertValue(result, { kind: "requeued", runNumber: runNumber + 1 });
    this.#again(job, operation.progress === "reset");
  }

  #again(job: ModelJob, resets: boolean): void {
    this.#post(job, "REQUEUED");
    this.#wait(job, true);
    job.runNumber++;
    job.attempt = 0;
    job.statusReason = "COMPARE_AND_REQUEUE";
    job.lastErrorCode = undefined;
    job.deadLetter = undefined;
    if (resets) {
      job.progressDone = undefined;
      job.progressTotal = undefined;
      job.checkpoint = undefined;
    }
  }

  #requeueDeadLetters(
    jobType: string | undefined,
    limit: number,
    result: OperationResult,
    locked: ReadonlySet<string>,
  ): void {
    const dead = [...this.jobs.values()].filter((job) =>
      job.status === "DEAD_LETTERED" && job.step === undefined && (jobType === undefined || job.jobType === jobType) &&
      !locked.has(job.jobId)
    );
    const chosen = oldestFirst(dead, valueOf(result) as readonly string[], limit, ({ finishedAt }) => finishedAt ?? 0);
    for (const job of chosen) this.#again(job, false);
  }

  #replay(operation: Extract<Operation, { op: "replay" }>, result: OperationResult): void {
    const { jobId, replayKey, reason } = operation;
    const source = this.jobs.get(jobId);
    if (source === undefined) return assertRefused(result, "job.not_found");
    if (source.step !== undefined) return assertRefused(result, "job.workflow_requeue_not_supported");
    const earlier = [...this.jobs.values()].find(({ replayOf }) =>
      replayOf?.jobId === jobId && replayOf.replayKey === replayKey
    );
    if (earlier !== undefined) {
      if (earlier.replayOf?.reason !== reason) return assertRefused(result, "job.replay_idempotency_conflict");
      const wanted = { jobId: earlier.jobId, disposition: "existing", sourceRunNumber: source.runNumber };
      return assertValue(result, wanted);
    }
    if (source.status !== "SUCCEEDED") {
      return assertRefused(result, "job.invalid_state_transition", { status: source.status });
    }
    const { jobType, priority, maxAttempts, payload } = source;
    if (this.definitions.get(jobType)?.isEnabled !== true) {
      return assertRefused(result, "job.definition_not_found_or_disabled", { jobTypes: [jobType] });
    }
    const answer = valueOf(result) as ReplayedJob;
    assert.deepEqual([answer.disposition, answer.sourceRunNumber], ["inserted", source.runNumber]);
    assert(!this.jobs.has(answer.jobId), "a replay has a new id");
    this.#add(answer.jobId, { jobType, priority, maxAttempts, payload }, undefined, {
      replayOf: { jobId, replayKey, reason },
    });
  }

  #reap(limit: number, result: OperationResult, locked: ReadonlySet<string>): void {
    const expired = [...this.jobs.values()].filter((job) =>
      job.status === "LEASED" && job.leaseEnd !== Infinity && !locked.has(job.jobId)
    );
    const answers = valueOf(result) as readonly ReapedJob[];
    const ids = answers.map(({ jobId }) => jobId);
    for (const job of oldestFirst(expired, ids, limit, ({ leaseEnd }) => leaseEnd ?? 0)) {
      this.#fail(job, { kind: "LEASE_EXPIRED", code: "job.lease_expired" }, false);
      const answer = answers.find(({ jobId }) => jobId === job.jobId);
      assert.deepEqual(
        [answer?.jobType, answer?.runNumber, answer?.attempt, answer?.status],
        [job.jobType, job.runNumber, job.attempt, job.status],
      );
    }
  }

  #retain(
    statuses: readonly JobStatus[],
    expiresKeys: boolean,
    result: OperationResult,
    locked: ReadonlySet<string>,
  ): void {
    const finished = [...this.jobs.values()].filter((job) =>
      statuses.includes(job.status) && isTerminalJobStatus(job.status) && job.step === undefined &&
      job.leaseEnd !== Infinity &&
      (expiresKeys || job.idempotencyKey === undefined) &&
      (job.replayOf === undefined || !this.jobs.has(job.replayOf.jobId)) && !locked.has(job.jobId)
    );
    assertValue(result, finished.length);
    for (const { jobId } of finished) this.jobs.delete(jobId);
  }

  #post(job: ModelJob, eventType: JobEventType): void {
    job.events.push(`${eventType} ${job.runNumber}.${job.attempt === 0 ? "-" : job.attempt}`);
  }

  /** Ends an attempt that counts. */
  #close(job: ModelJob, eventType: JobEventType): void {
    this.#post(job, eventType);
    job.attempts[job.attempts.length - 1] = `${job.runNumber}.${job.attempt} ${eventType}`;
  }

  #free(job: ModelJob, status: JobStatus): void {
    job.status = status;
    job.leaseToken = undefined;
    job.leaseEnd = undefined;
  }

  #wait(job: ModelJob, isDueAtOnce: boolean): void {
    this.#free(job, "PENDING");
    job.stage = "queued";
    job.finishedAt = undefined;
    job.due = isDueAtOnce ? this.#now() : { at: Infinity, isExact: false };
  }

  #finish(job: ModelJob, status: "SUCCEEDED" | "CANCELED"): void {
    this.#close(job, status);
    this.#free(job, status);
    job.finishedAt = this.#tick;
  }
}

/** What a key stands for. */
function canonicalRequest(request: JobRequest): Readonly<Record<string, JsonValue>> {
  return {
    payload: request.payload,
    priority: request.priority ?? null,
    max_attempts: request.maxAttempts ?? null,
    timeout_seconds: request.timeoutSeconds ?? null,
    next_run_at: request.nextRunAt?.toISOString() ?? null,
    stage: request.stage ?? "queued",
  };
}

/** Whether a claim must take one job before another. */
function goesBefore(one: ModelJob, other: ModelJob): boolean {
  if (one.priority !== other.priority) return one.priority > other.priority;
  if (one.due.at !== other.due.at) return one.due.at < other.due.at;
  return one.due.isExact && one.jobId < other.jobId;
}

function isProgressPossible(
  job: ModelJob,
  progress: { readonly done: number; readonly total?: number } | undefined,
): boolean {
  const done = progress?.done ?? job.progressDone;
  const total = progress?.total ?? job.progressTotal;
  return done === undefined || total === undefined || done <= total;
}

/** Checks that the oldest of some jobs were chosen, and gives them; those of one moment have no order. */
function oldestFirst(
  jobs: readonly ModelJob[],
  ids: readonly string[],
  limit: number,
  age: (job: ModelJob) => number,
): readonly ModelJob[] {
  assert.equal(ids.length, Math.min(limit, jobs.length), "a batch takes what there is, up to its limit");
  const chosen = ids.map((id) => {
    const job = jobs.find(({ jobId }) => jobId === id);
    assert(job !== undefined, `job ${id} should not have been chosen`);
    return job;
  });
  assert.equal(new Set(chosen).size, chosen.length, "no job is chosen twice");
  const youngest = Math.max(...chosen.map(age));
  for (const job of jobs) assert(chosen.includes(job) || age(job) >= youngest, `job ${job.jobId} is older`);
  return chosen;
}
