/**
 * The worker: claims jobs, runs their handlers, writes how they ended.
 *
 * @module
 */

import type { JobOutcome } from "@runledger/core";
import { RunledgerError } from "@runledger/core";
import { claimJobs, releaseJobs } from "@runledger/postgres";
import type { ClaimedJob, Queryable, SettledJob } from "@runledger/postgres";
import { Announcer } from "./announcer.ts";
import type { JobCatalog } from "./catalog.ts";
import { ClaimPlan } from "./claim_plan.ts";
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
import { backoffMs, runLoop, settledWithin, Waker, within } from "./loop.ts";
import { SettlementBatcher } from "./settlement_batcher.ts";
import { WakeUps } from "./wake_ups.ts";

/** What a worker runs, and how it stops. */
export interface WorkerOptions {
  /** The job types to claim, with their handlers. */
  readonly catalog: JobCatalog;
  /** Settings; what is left out has its default. */
  readonly config?: Partial<JobsConfig>;
  /** How many jobs of a type run at once in this process, for types that need a limit of their own. */
  readonly concurrencyByType?: Readonly<Record<string, number>>;
  /**
   * Whether an idle worker is woken when jobs become due, where the handle can listen. Without it, and behind a pooler
   * that hands sessions around, it finds them at its next poll. @default {true}
   */
  readonly wake?: boolean;
  /** Stops the worker: no more claims, and what was not started is handed back. */
  readonly signal: AbortSignal;
  /** How long running handlers may go on after that, in milliseconds, before their signals abort. @default {30000} */
  readonly shutdownTimeoutMs?: number;
  /** Aborts the running handlers at once, whatever time is left. */
  readonly abortSignal?: AbortSignal;
  /** How long handlers have to end after their signals aborted, in milliseconds. @default {2000} */
  readonly abortGraceMs?: number;
  /** Where the worker reports. @default nowhere */
  readonly logger?: Logger;
}

/** A job that a worker left behind: its lease will run out, and the reaper finds it. */
export interface LeftJob {
  /** The job. */
  readonly jobId: string;
  /** Its type. */
  readonly jobType: string;
}

/** How a worker stopped. */
export interface WorkerReport {
  /** How many handlers ended by themselves after the stop was asked for. */
  readonly drained: number;
  /** How many ended after their signals had been aborted. */
  readonly aborted: number;
  /** How many claims were handed back unstarted; they cost no attempt. */
  readonly handedBack: number;
  /** What did not end, or could not be written. */
  readonly left: readonly LeftJob[];
}

/** How far ahead the worker claims: jobs that are likely to start within this time, in milliseconds. */
const PREFETCH_HORIZON_MS = 100;

/** How long a claimed job may wait for a slot before another process gets a chance at it, in milliseconds. */
const MAX_PREFETCH_WAIT_MS = 2000;

/** How soon a worker that has found work and still has room looks again, in milliseconds. */
const BRISK_POLL_MS = 1;

/** A wait this long is sleep: the worker wants to be woken from it. */
const SLEEP_FROM_MS = 50;

/** After so many claims with work in them, without sleep in between, a worker does not want to be woken any more. */
const BUSY_CLAIMS = 8;

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
  readonly #maxUnsettled: number;

  /** Everything whose lease this process keeps alive. */
  readonly #held = new Set<HeldJob>();
  /** Everything that takes a slot, whether or not its outcome is known. */
  readonly #running = new Set<HeldJob>();
  /** Claimed and waiting for a slot, in claim order. */
  readonly #prefetched: HeldJob[] = [];

  readonly #plan: ClaimPlan;
  readonly #wakeUps: WakeUps | undefined;
  /** How many claims in a row brought nothing. */
  #emptyClaims = 0;
  /** How many claims brought something since the worker last slept. */
  #busyClaims = 0;
  readonly #capacity = new Waker();
  readonly #poll = new Waker();
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
  #handingBack: Promise<void> | undefined;
  #handedBack = 0;
  #drained = 0;
  #aborted = 0;

  /** How many handlers ended in a millisecond, lately. */
  #endRate = 0;
  #ended = 0;
  #rateSampledAt = performance.now();

  constructor(db: Queryable, options: WorkerOptions) {
    this.#db = db;
    this.#options = options;
    this.#catalog = options.catalog;
    this.#config = JobsConfig.of(options.config);
    this.#logger = guardedLogger(options.logger ?? silentLogger);
    this.#leaseMs = this.#config.leaseTtlSeconds * 1000;
    this.#plan = new ClaimPlan(options.concurrencyByType ?? {});
    this.#wakeUps = options.wake === false ? undefined : new WakeUps({
      db,
      workerId: this.#config.workerId,
      jobTypes: () => this.#catalog.jobTypes,
      pollIntervalMs: this.#config.pollIntervalMs,
      signal: this.#stop.signal,
      logger: this.#logger,
      onWake: () => this.#poll.wake(),
    });
    this.#maxUnsettled = 2 * (this.#config.maxGlobalConcurrency + this.#config.claimBatchSize);
    this.#announcer = new Announcer(options.catalog, this.#logger, this.#config.workerId);
    this.#logs = new JobLogBuffer(db, this.#logger);
    this.#batcher = new SettlementBatcher({
      db,
      logs: this.#logs,
      logger: this.#logger,
      tellsRelease: () => this.#announcer.tellsRelease,
      onAnswer: (job, outcome, answer) => this.#onAnswer(job, outcome, answer),
      onUnstorable: (job, error) => this.#onUnstorable(job, error),
      onExpired: (job) => this.#lose(job, "its lease ran out before its outcome could be written"),
    });
    this.#contextTools = {
      db,
      workerId: this.#config.workerId,
      logs: this.#logs,
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
    const wakeUps = this.#wakeUps?.run();
    const claims = runLoop({
      name: "claim",
      signal: this.#stop.signal,
      logger: this.#logger,
      intervalMs: this.#config.pollIntervalMs,
      waker: this.#poll,
      round: () => this.#claimRound(),
    });
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
      await Promise.all([claims, heartbeats, wakeUps]);
      for (const job of this.#held) {
        job.phase = "over";
        this.#announcer.telemetry.left(job, "worker.shutdown");
      }
      stopObserving();
    }
  }

  // Claiming

  /** Claims once; gives how long to wait then, in milliseconds, or nothing for the interval between polls. */
  async #claimRound(): Promise<number | void> {
    const room = await this.#capacityToClaim();
    if (room === 0) return;
    const planned = this.#plan.next(this.#catalog.jobTypes, room, this.#typesUnderWay());
    if (planned === undefined) return;
    const { jobTypes, limit, cursor } = planned;
    const { workerId } = this.#config;
    const sentAt = performance.now();
    const claim = claimJobs(this.#db, { jobTypes, workerId, limit, leaseMs: this.#leaseMs, cursor })
      .then((claimed) => this.#accept(claimed, sentAt));
    // An answer that comes later than its leases last is of no use, but must not stop the loop.
    const count = await within(claim, {
      timeoutMs: this.#leaseMs,
      signal: this.#end.signal,
      late: () => new RunledgerError("db.unavailable", { internalMessage: "a claim was not answered in time" }),
    });
    this.#emptyClaims = count === 0 ? this.#emptyClaims + 1 : 0;
    if (count > 0 && ++this.#busyClaims === BUSY_CLAIMS) void this.#wakeUps?.wakeUp();
    return this.#plan.onClaimed(planned, count) ? 0 : await this.#pause();
  }

  /** Gives how long to wait when there is nothing to claim: longer each time, and asleep where somebody wakes it. */
  async #pause(): Promise<number | void> {
    const waitMs = BRISK_POLL_MS * 4 ** this.#emptyClaims;
    if (waitMs < SLEEP_FROM_MS) return Math.min(waitMs, this.#config.pollIntervalMs);
    this.#busyClaims = 0;
    switch (await this.#wakeUps?.fallAsleep()) {
      case "announced":
        // What became due while it was being said was told to nobody.
        return 0;
      case "sleeps":
        return;
      default:
        if (waitMs < this.#config.pollIntervalMs) return waitMs;
    }
  }

  /** The types of the jobs that take a slot or are about to. */
  *#typesUnderWay(): Iterable<string> {
    for (const { claim } of this.#running) yield claim.jobType;
    for (const { claim } of this.#prefetched) yield claim.jobType;
  }

  /** Waits until a claim is worth its round trip. */
  async #capacityToClaim(): Promise<number> {
    while (!this.#isStopping) {
      const limit = this.#claimable();
      if (limit > 0) return limit;
      await this.#capacity.wait();
    }
    return 0;
  }

  #claimable(): number {
    const { claimBatchSize, maxGlobalConcurrency } = this.#config;
    const free = maxGlobalConcurrency - this.#running.size - this.#prefetched.length;
    const unsettled = this.#maxUnsettled - this.#batcher.size;
    if (unsettled <= 0) return 0;
    const ahead = this.#prefetchTarget();
    // Half of it at a time: a claim for each single job that ends would be all the database does.
    if (free <= 0 && -free > ahead / 2) return 0;
    return Math.max(Math.min(free + ahead, claimBatchSize, unsettled), 0);
  }

  /** As many as are likely to start soon: slow jobs are left for processes that are idle. */
  #prefetchTarget(): number {
    const now = performance.now();
    const elapsedMs = now - this.#rateSampledAt;
    if (elapsedMs >= 20) {
      this.#endRate = (this.#endRate + this.#ended / elapsedMs) / 2;
      this.#ended = 0;
      this.#rateSampledAt = now;
    }
    const { claimBatchSize, maxGlobalConcurrency } = this.#config;
    return Math.min(Math.floor(this.#endRate * PREFETCH_HORIZON_MS), claimBatchSize, maxGlobalConcurrency);
  }

  #accept(claimed: readonly ClaimedJob[], sentAt: number): number {
    const now = performance.now();
    const leaseUntil = sentAt + this.#leaseMs;
    if (this.#end.signal.aborted) return 0;
    for (const claim of claimed) {
      const job = new HeldJob(claim, now, leaseUntil);
      if (leaseUntil <= now) {
        this.#logger.warn("a claim came back after its lease", { jobId: claim.jobId, jobType: claim.jobType });
        continue;
      }
      this.#held.add(job);
      this.#prefetched.push(job);
    }
    this.#announcer.telemetry.claimed(claimed.length);
    if (claimed.length > 0) this.#watch.expect(leaseUntil);
    this.#startPrefetched();
    if (this.#prefetched.length > 0) this.#watch.expect(now + MAX_PREFETCH_WAIT_MS);
    return claimed.length;
  }

  #startPrefetched(): void {
    while (!this.#isStopping && this.#running.size < this.#config.maxGlobalConcurrency) {
      const job = this.#prefetched.shift();
      if (job === undefined) return;
      if (job.phase === "prefetched") this.#start(job);
    }
  }

  // One job

  #start(job: HeldJob): void {
    const registered = this.#catalog.get(job.claim.jobType);
    job.phase = "running";
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
    this.#ended++;
    if (this.#isStopping) job.abortReason?.code === "worker.shutdown" ? this.#aborted++ : this.#drained++;
    if (job.phase === "running") this.#settle(job, outcome);
    // A transaction that the handler did not wait for decides.
    else if (job.phase === "finishing") job.outcome = outcome;
    this.#startPrefetched();
    if (this.#capacity.isWaiting) this.#capacity.wake();
    if (this.#plan.isLimited(job.claim.jobType)) this.#poll.wake();
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
    const [oldest] = this.#prefetched;
    if (oldest === undefined || this.#isStopping) return next;
    if (this.#handingBack !== undefined) return Math.min(next, now + MAX_PREFETCH_WAIT_MS);
    if (oldest.claimedAt + MAX_PREFETCH_WAIT_MS > now) return Math.min(next, oldest.claimedAt + MAX_PREFETCH_WAIT_MS);
    this.#handBackSlow();
    return Math.min(next, now + MAX_PREFETCH_WAIT_MS);
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
    if (this.#capacity.isWaiting) this.#capacity.wake();
  }

  // Telling

  /** Tells the hooks how an attempt ended, which is committed. */
  #announce(job: HeldJob, outcome: JobOutcome, answer: SettledJob): void {
    if (!answer.settled) return;
    // Dependents that it released, and jobs that go on at once, are due already.
    const isEnd = answer.nextRunAt === undefined;
    if (isEnd ? job.claim.workflow !== undefined : isDueAtOnce(outcome)) this.#poll.wake();
    this.#announcer.settled(job, outcome, answer);
  }

  #fields(job: HeldJob): { readonly jobId: string; readonly jobType: string; readonly attempt: number } {
    const { jobId, jobType, attempt } = job.claim;
    return { jobId, jobType, attempt };
  }

  // Handing back

  /** Jobs that turned out to be slower than the ones before keep claims waiting that others could run. */
  #handBackSlow(): void {
    this.#endRate = 0;
    this.#ended = 0;
    const jobs = this.#prefetched.splice(0);
    this.#handingBack = this.#handBack(jobs, "PREFETCH_EXPIRED").then(() => {}, (error) => {
      this.#logger.warn("claims could not be handed back and are kept", errorFields(error));
      this.#prefetched.unshift(...jobs);
      this.#startPrefetched();
    }).finally(() => this.#handingBack = undefined);
  }

  async #handBack(jobs: readonly HeldJob[], reason: string): Promise<number> {
    const unstarted = jobs.filter(({ phase }) => phase === "prefetched");
    if (unstarted.length === 0) return 0;
    const released = await releaseJobs(this.#db, unstarted.map(({ claim }) => claim), { reason });
    for (const job of unstarted) this.#forget(job);
    return released.length;
  }

  // Stopping

  #stopClaims(): void {
    this.#isStopping = true;
    this.#stop.abort();
    this.#capacity.wake();
  }

  async #shutDown(claims: Promise<void>): Promise<WorkerReport> {
    const { shutdownTimeoutMs = 30_000, abortSignal, abortGraceMs = 2000 } = this.#options;
    const deadline = performance.now() + shutdownTimeoutMs;
    this.#logger.info("worker stops", { running: this.#running.size, prefetched: this.#prefetched.length });

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
    await Promise.all([this.#handBackAll(claims), this.#handlersEnded()]);
  }

  async #handBackAll(claims: Promise<void>): Promise<void> {
    // A claim under way still brings jobs.
    await Promise.all([claims, this.#handingBack]);
    for (let failures = 0; this.#prefetched.length > 0 && failures < 3;) {
      try {
        this.#handedBack += await this.#handBack(this.#prefetched, "WORKER_SHUTDOWN");
        this.#prefetched.length = 0;
      } catch (error) {
        failures++;
        this.#logger.warn("claims could not be handed back", { failures, ...errorFields(error) });
        await new Waker().wait(backoffMs(failures, 1000));
      }
    }
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
