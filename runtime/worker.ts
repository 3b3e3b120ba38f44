/**
 * The worker: claims jobs, runs their handlers, writes how they ended.
 *
 * @module
 */

import type { JobOutcome } from "@runledger/core";
import { RunledgerError } from "@runledger/core";
import type { ClaimedJob, Queryable, SettledJob } from "@runledger/postgres";
import { Announcer } from "./announcer.ts";
import type { JobCatalog } from "./catalog.ts";
import { ClaimLoop } from "./claim_loop.ts";
import { JobsConfig } from "./config.ts";
import { DeadlineWatch } from "./deadline_watch.ts";
import { executeJob, panicOutcome, timeoutOutcome } from "./execution.ts";
import { runHeartbeats } from "./heartbeat.ts";
import { HeldJob } from "./held_job.ts";
import { createJobContext } from "./job_context.ts";
import type { JobContextTools } from "./job_context.ts";
import { JobLogBuffer } from "./job_log_buffer.ts";
import { errorFields, guardedLogger, silentLogger } from "./logger.ts";
import type { Logger } from "./logger.ts";
import { settledWithin } from "./loop.ts";
import { Prefetch } from "./prefetch.ts";
import { SettlementBatcher } from "./settlement_batcher.ts";
import type { WorkerOptions, WorkerReport } from "./worker_options.ts";

/** How long outcomes are still tried to be written at the end of a shutdown, in milliseconds. */
const FINAL_FLUSH_MS = 5000;

/**
 * Runs jobs until the signal aborts.
 *
 * Only types of the catalog are claimed, by priority, for free slots and a few more that are about to be free. Handlers
 * that run are never more than `maxGlobalConcurrency`: one that ignores its timeout keeps its slot until it ends.
 * Database errors are waited out; the worker never ends by itself. A crash costs each job that was claimed one attempt.
 *
 * When the signal aborts, claims stop, unstarted ones are handed back, and handlers go on until `shutdownTimeoutMs` has
 * passed. Then their signals abort with `worker.shutdown`: those that end settle as they say, or are retried. Those that
 * do not end are left to the reaper. No timer and no statement of the worker is left when the promise resolves, except
 * a statement that the database never answered.
 *
 * @param db A pool; a handle of one session serves only a concurrency of one.
 * @param options What to run, and how to stop.
 * @returns How it stopped.
 * @throws {TypeError} When a setting cannot be.
 */
export async function runWorker(db: Queryable, options: WorkerOptions): Promise<WorkerReport> {
  return await new Worker(db, options).run();
}

class Worker {
  readonly #db: Queryable;
  readonly #options: WorkerOptions;
  readonly #catalog: JobCatalog;
  readonly #config: JobsConfig;
  readonly #logger: Logger;
  readonly #leaseMs: number;

  /** Everything whose lease this process keeps alive. */
  readonly #held = new Set<HeldJob>();
  /** Everything that takes a slot, whether or not its outcome is known. */
  readonly #running = new Set<HeldJob>();
  /** Started and not over, by the job's id. */
  readonly #attempts = new Map<string, HeldJob>();
  /** Whether a next attempt waits until it is known how the one before ended. */
  #isAttemptWaiting = false;
  /** Claimed and waiting for a slot, or for the next claim to leave. */
  readonly #prefetch: Prefetch;

  readonly #claims: ClaimLoop;
  readonly #watch = new DeadlineWatch((now) => this.#checkDeadlines(now));
  readonly #logs: JobLogBuffer;
  readonly #batcher: SettlementBatcher;
  readonly #contextTools: JobContextTools;
  readonly #announcer: Announcer;

  /** Ends the claims. */
  readonly #stop = new AbortController();
  /** Ends what is left when the worker has stopped. */
  readonly #end = new AbortController();
  #isStopping = false;
  #onDrained: (() => void) | undefined;
  #handedBack = 0;
  #drained = 0;
  #aborted = 0;

  constructor(db: Queryable, options: WorkerOptions) {
    this.#db = db;
    this.#options = options;
    this.#catalog = options.catalog;
    this.#config = JobsConfig.of(options.config);
    this.#logger = guardedLogger(options.logger ?? silentLogger);
    this.#leaseMs = this.#config.leaseTtlSeconds * 1000;
    this.#prefetch = new Prefetch({
      db,
      logger: this.#logger,
      endSignal: this.#end.signal,
      onHandedBack: (job) => this.#forget(job),
      onKept: () => this.#startPrefetched(),
    });
    this.#claims = new ClaimLoop({
      db,
      config: this.#config,
      jobTypes: () => this.#catalog.jobTypes,
      concurrencyByType: options.concurrencyByType ?? {},
      wake: options.wake ?? true,
      logger: this.#logger,
      stopSignal: this.#stop.signal,
      endSignal: this.#end.signal,
      load: () => ({
        running: this.#running.size,
        prefetched: this.#prefetch.size,
        unsettled: this.#batcher.size,
      }),
      typesUnderWay: () => this.#typesUnderWay(),
      onClaimed: (claimed, sentAt) => this.#accept(claimed, sentAt),
      start: () => this.#startClaimed(),
    });
    this.#announcer = new Announcer(options.catalog, this.#logger, this.#config.workerId);
    this.#logs = new JobLogBuffer(db, this.#logger, this.#leaseMs / 3);
    this.#batcher = new SettlementBatcher({
      db,
      logs: this.#logs,
      logger: this.#logger,
      answerMs: this.#leaseMs,
      tellsRelease: () => this.#announcer.tellsRelease,
      onAnswer: (job, outcome, answer) => this.#onAnswer(job, outcome, answer),
      onUnstorable: (job, error) => this.#onUnstorable(job, error),
      onExpired: (job) => this.#lose(job, "its lease ran out before its outcome could be written"),
    });
    this.#contextTools = {
      db,
      workerId: this.#config.workerId,
      logs: this.#logs,
      answerMs: this.#leaseMs,
      tellsRelease: () => this.#announcer.tellsRelease,
      onLeaseLost: (job) => this.#lose(job, "the database refused a write of its handler"),
      onSettledInTransaction: (job, outcome, answer) => {
        this.#forget(job);
        this.#announce(job, outcome, answer);
      },
      onReleased: (job) => this.#onReleased(job),
    };
  }

  async run(): Promise<WorkerReport> {
    const { signal } = this.#options;
    const stopObserving = this.#announcer.telemetry.observeLeases(() => this.#held.size);
    const heartbeats = runHeartbeats({
      db: this.#db,
      leaseMs: this.#leaseMs,
      signal: this.#end.signal,
      logger: this.#logger,
      held: this.#held,
      onLost: (job) => {
        // The database may have settled it already, in a statement or transaction that has not come back.
        if (job.phase !== "settling" && job.phase !== "finishing") this.#lose(job, "a heartbeat found it lost");
      },
      onCanceled: (job) => this.#cancel(job),
      onRound: () => this.#batcher.nudge(),
    });
    const claims = this.#claims.run();
    try {
      this.#logger.info("worker started", { workerId: this.#config.workerId, jobTypes: this.#catalog.jobTypes });
      await aborted(signal);
      this.#stopClaims();
      return await this.#shutDown(claims);
    } finally {
      this.#stopClaims();
      this.#end.abort();
      this.#batcher.close();
      this.#watch.close();
      this.#logs.close();
      await Promise.all([claims, this.#claims.closed(), heartbeats]);
      for (const job of this.#held) {
        job.phase = "over";
        this.#announcer.telemetry.left(job, "worker.shutdown");
      }
      stopObserving();
    }
  }

  // Claiming

  /** The types of the jobs that take a slot or are about to. */
  *#typesUnderWay(): Iterable<string> {
    for (const { claim } of this.#running) yield claim.jobType;
    for (const { claim } of this.#prefetch.jobs) yield claim.jobType;
  }

  #accept(claimed: readonly ClaimedJob[], sentAt: number): void {
    const now = performance.now();
    const leaseUntil = sentAt + this.#leaseMs;
    for (const claim of claimed) {
      const job = new HeldJob(claim, now, leaseUntil);
      if (leaseUntil <= now) {
        this.#logger.warn("a claim came back after its lease", { jobId: claim.jobId, jobType: claim.jobType });
        continue;
      }
      this.#held.add(job);
      this.#prefetch.push(job);
    }
    this.#announcer.telemetry.claimed(claimed.length);
    if (claimed.length > 0) this.#watch.expect(leaseUntil);
  }

  #startClaimed(): void {
    this.#startPrefetched();
    if (this.#prefetch.size > 0) this.#watch.expect(this.#prefetch.deadline(performance.now()));
  }

  #startPrefetched(): void {
    while (!this.#isStopping && this.#running.size < this.#config.maxGlobalConcurrency) {
      const job = this.#prefetch.take((job) => this.#mayStart(job));
      if (job === undefined) return;
      // The process may have been held up for so long; the watch comes only after what ended meanwhile.
      if (job.leaseUntil > performance.now()) this.#start(job);
      else this.#lose(job, "its lease ran out before it could be started");
    }
  }

  /** A claim may answer before the settlement of the attempt before, whose end the hooks hear first. */
  #mayStart({ claim }: HeldJob): boolean {
    if (!this.#attempts.has(claim.jobId)) return true;
    this.#isAttemptWaiting = true;
    return false;
  }

  // One job

  #start(job: HeldJob): void {
    const registered = this.#catalog.get(job.claim.jobType);
    job.phase = "running";
    this.#attempts.set(job.claim.jobId, job);
    job.timeoutAt = performance.now() + job.claim.timeoutSeconds * 1000;
    this.#watch.expect(job.timeoutAt);
    this.#running.add(job);
    this.#announcer.started(job);
    const context = registered && createJobContext(job, registered, this.#contextTools);
    this.#announcer.telemetry.run(job, () => executeJob(job, registered, context))
      .then((outcome) => this.#onEnd(job, outcome));
  }

  /** The handler has really ended: its slot is free. */
  #onEnd(job: HeldJob, outcome: JobOutcome): void {
    this.#running.delete(job);
    if (this.#isStopping) job.abortReason?.code === "worker.shutdown" ? this.#aborted++ : this.#drained++;
    if (job.phase === "running") this.#settle(job, outcome);
    // A transaction that the handler did not wait for decides.
    else if (job.phase === "finishing") job.outcome = outcome;
    this.#startPrefetched();
    this.#claims.onHandlerEnd(job.claim.jobType);
    if (this.#running.size === 0) this.#onDrained?.();
  }

  #settle(job: HeldJob, outcome: JobOutcome): void {
    this.#batcher.add(job, outcome);
  }

  #onAnswer(job: HeldJob, outcome: JobOutcome, answer: SettledJob): void {
    if (answer.settled) {
      this.#forget(job);
      return this.#announce(job, outcome, answer);
    }
    if (answer.code !== "job.lease_owner_mismatch" && !job.isRewritten) {
      return this.#rewrite(job, new RunledgerError(answer.code));
    }
    if (job.isUncertain) {
      this.#logger.debug("an earlier write of the outcome was applied, or the lease was lost", this.#fields(job));
      this.#announcer.telemetry.left(job, "db.commit_unknown");
      return this.#forget(job);
    }
    this.#lose(job, `its outcome was refused (${outcome.kind})`);
  }

  #onUnstorable(job: HeldJob, error: unknown): void {
    if (!job.isRewritten) return this.#rewrite(job, error);
    this.#logger.error("an outcome cannot be stored; the job is left to the reaper", {
      ...this.#fields(job),
      ...errorFields(error),
    });
    this.#announcer.telemetry.left(job, "job.handler_panic");
    this.#forget(job);
  }

  /** What a handler returned cannot be stored, which only the database or the encoding found out. Once only. */
  #rewrite(job: HeldJob, error: unknown): void {
    job.isRewritten = true;
    this.#settle(job, panicOutcome(error));
  }

  // Deadlines, and jobs that are gone

  /** Deals with every deadline that has passed and gives the next. */
  #checkDeadlines(now: number): number {
    let next = Infinity;
    for (const job of this.#held) {
      if (job.phase === "finishing") {
        // Its row is locked by its transaction, whose fence has been passed: nobody can take it.
        if (job.timeoutAt <= now) job.abort("job.timeout_exceeded");
        else next = Math.min(next, job.timeoutAt);
        continue;
      }
      if (job.leaseUntil <= now) {
        if (job.phase !== "settling") this.#lose(job, "its lease ran out without a heartbeat");
        continue;
      }
      next = Math.min(next, job.leaseUntil);
      if (job.phase !== "running") continue;
      if (job.timeoutAt <= now) this.#timeOut(job);
      else next = Math.min(next, job.timeoutAt);
    }
    if (this.#isStopping) return next;
    const waiting = this.#prefetch.check(now);
    if (waiting.isSlow) this.#claims.slowDown();
    return Math.min(next, waiting.next);
  }

  #timeOut(job: HeldJob): void {
    job.abort("job.timeout_exceeded");
    this.#concludeAborted(job);
  }

  /** A transaction that might have settled the job has not. */
  #onReleased(job: HeldJob): void {
    this.#watch.expect(job.leaseUntil);
    this.#concludeAborted(job);
    if (job.phase === "running" && job.outcome !== undefined) this.#settle(job, job.outcome);
  }

  /** Settles an attempt whose time is over; not before a transaction that may settle it has ended. */
  #concludeAborted(job: HeldJob): void {
    if (job.phase !== "running" || job.abortReason?.code !== "job.timeout_exceeded") return;
    const registered = this.#catalog.get(job.claim.jobType);
    if (registered !== undefined) this.#settle(job, timeoutOutcome(job, registered));
  }

  #cancel(job: HeldJob): void {
    if (job.phase === "over") return;
    job.abort("job.canceled");
    this.#logger.info("a job was cancelled while this worker held it", this.#fields(job));
    this.#forget(job);
    this.#announcer.canceled(job);
  }

  #lose(job: HeldJob, how: string): void {
    if (job.phase === "over") return;
    job.abort("job.lease_owner_mismatch");
    this.#logger.warn("the lease on a job was lost", { ...this.#fields(job), how });
    this.#forget(job);
    this.#announcer.leaseLost(job);
  }

  /** Nothing more is written for the job. Its handler may still run, and then keeps its slot. */
  #forget(job: HeldJob): void {
    job.phase = "over";
    this.#held.delete(job);
    if (this.#attempts.get(job.claim.jobId) === job) this.#attempts.delete(job.claim.jobId);
    if (this.#isAttemptWaiting) {
      this.#isAttemptWaiting = false;
      // What is being forgotten is told first.
      queueMicrotask(() => this.#startPrefetched());
    }
    this.#claims.onRoom();
  }

  // Telling

  /** Tells the hooks how an attempt ended, which is committed. */
  #announce(job: HeldJob, outcome: JobOutcome, answer: SettledJob): void {
    if (!answer.settled) return;
    // Dependents that it released, and jobs that go on at once, are due already.
    const isEnd = answer.nextRunAt === undefined;
    if (isEnd ? job.claim.workflow !== undefined : isDueAtOnce(outcome)) this.#claims.look();
    this.#announcer.settled(job, outcome, answer);
  }

  #fields(job: HeldJob): { readonly jobId: string; readonly jobType: string; readonly attempt: number } {
    const { jobId, jobType, attempt } = job.claim;
    return { jobId, jobType, attempt };
  }

  // Stopping

  #stopClaims(): void {
    this.#isStopping = true;
    this.#stop.abort();
  }

  async #shutDown(claims: Promise<void>): Promise<WorkerReport> {
    const { shutdownTimeoutMs = 30_000, abortSignal, abortGraceMs = 2000 } = this.#options;
    const deadline = performance.now() + shutdownTimeoutMs;
    this.#logger.info("worker stops", { running: this.#running.size, prefetched: this.#prefetch.size });

    const isDrained = await settledWithin(this.#drain(claims), shutdownTimeoutMs, abortSignal);
    if (!isDrained) {
      for (const job of this.#running) job.abort("worker.shutdown");
      await settledWithin(this.#handlersEnded(), abortGraceMs);
    }
    const isFlushed = await settledWithin(this.#batcher.idle(), deadline - performance.now(), abortSignal) ||
      await settledWithin(this.#batcher.idle(), FINAL_FLUSH_MS);
    if (!isFlushed) {
      this.#logger.error("outcomes could not be written before the end", { outcomes: this.#batcher.size });
    }
    await settledWithin(this.#logs.flush(), FINAL_FLUSH_MS);
    await this.#announcer.drain();

    const left = new Set([...this.#running, ...this.#held]);
    const report: WorkerReport = {
      drained: this.#drained,
      aborted: this.#aborted,
      handedBack: this.#handedBack,
      left: [...left].map(({ claim }) => ({ jobId: claim.jobId, jobType: claim.jobType })),
    };
    this.#logger.info("worker stopped", { ...report });
    return report;
  }

  /** Hands back what was not started, and waits for what was. */
  async #drain(claims: Promise<void>): Promise<void> {
    const handBack = async () => this.#handedBack = await this.#prefetch.handBackAll(claims);
    await Promise.all([handBack(), this.#handlersEnded()]);
  }

  async #handlersEnded(): Promise<void> {
    if (this.#running.size === 0) return;
    await new Promise<void>((resolve) => this.#onDrained = resolve);
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}

function isDueAtOnce(outcome: JobOutcome): boolean {
  return (outcome.kind === "continued" || outcome.kind === "snoozed") && (outcome.delayMs ?? 0) === 0;
}
