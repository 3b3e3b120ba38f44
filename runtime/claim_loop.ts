/**
 * When a worker claims, how many jobs, and how long it waits when there are none.
 *
 * @module
 */

import { RunledgerError } from "@runledger/core";
import { claimJobs } from "@runledger/postgres";
import type { ClaimedJob, Queryable } from "@runledger/postgres";
import { ClaimPlan } from "./claim_plan.ts";
import type { JobsConfig } from "./config.ts";
import type { Logger } from "./logger.ts";
import { nextTurn, runLoop, Waker, within } from "./loop.ts";
import { WakeUps } from "./wake_ups.ts";

/** How far ahead jobs are claimed: those that are likely to start within this time, in milliseconds. */
const PREFETCH_HORIZON_MS = 100;

/** How long handlers are counted before their pace is reckoned anew, in milliseconds. */
const PACE_SAMPLE_MS = 20;

/**
 * How soon a busy worker that still has room looks again, in milliseconds, at least; and not before it has waited for as
 * long as a claim takes: a database that is slow has enough to do.
 */
const BRISK_POLL_MS = 1;

/** After so many full claims in a row a worker does not want to be woken. */
const BUSY_FROM = 8;

/**
 * How long notifications are counted, in milliseconds. If so many come that claims could do nothing else, a worker does not
 * want to be woken: commits that notify wait for one another, for a part of the time that a claim takes. Not sooner, since
 * after a moment in which the database stood still many come at once.
 */
const NOTICE_MS = 100;

/** After how long without work or notifications a busy worker sleeps, in milliseconds; it looks as often at least. */
const QUIET_MS = 100;

/**
 * After how long a busy worker tries whether it may sleep between jobs, in milliseconds, at least; twice as long each time
 * that it is busy again within as much time.
 */
const BUSY_MS = { least: 1000, most: 60_000 };

/** How long a worker that was woken again and again for jobs that others took leaves between its looks, in milliseconds. */
const MAX_VAIN_GAP_MS = 64;

/** How many jobs a worker has at each stage. */
export interface WorkerLoad {
  /** That take a slot. */
  readonly running: number;
  /** Claimed, waiting for a slot or to be started. */
  readonly prefetched: number;
  /** Whose outcome has not been written. */
  readonly unsettled: number;
}

/** What the loop needs of the worker. */
export interface ClaimLoopOptions {
  readonly db: Queryable;
  readonly config: JobsConfig;
  /** What the worker has handlers for. */
  readonly jobTypes: () => readonly string[];
  /** How many jobs of a type run at once, for types with a limit of their own. */
  readonly concurrencyByType: Readonly<Record<string, number>>;
  /** Whether it wants to be woken from sleep. */
  readonly wake: boolean;
  readonly logger: Logger;
  /** Ends the claims. */
  readonly stopSignal: AbortSignal;
  /** Gives up a claim that is under way. */
  readonly endSignal: AbortSignal;
  readonly load: () => WorkerLoad;
  /** The types of the jobs that take a slot or are about to. */
  readonly typesUnderWay: () => Iterable<string>;
  /** Takes jobs on, with the time before which their leases were not given, by `performance.now()`. */
  readonly onClaimed: (claimed: readonly ClaimedJob[], sentAt: number) => void;
  /** Starts what was taken on, as far as there are slots. */
  readonly start: () => void;
}

/** Claims for free slots, and for a few more that are about to be free. */
export class ClaimLoop {
  readonly #options: ClaimLoopOptions;
  readonly #plan: ClaimPlan;
  readonly #wakeUps: WakeUps | undefined;
  readonly #leaseMs: number;
  readonly #maxUnsettled: number;
  readonly #capacity = new Waker();
  readonly #poll = new Waker();
  /** How many claims in a row brought nothing. */
  #emptyClaims = 0;
  /** Whether there is so much to do that it does not want to be woken. */
  #isBusy = false;
  /** When it last became busy, or the contrary. */
  #turnedAt = -Infinity;
  /** How long it stays busy while there is work. */
  #busyMs = BUSY_MS.least;
  /** How many claims in a row were full. */
  #fullClaims = 0;
  /** Since when notifications are counted, and how many there were. */
  #noticedAt = -Infinity;
  #notices = 0;
  /** When a claim last brought something. */
  #foundAt = -Infinity;
  /** When it was last woken. */
  #wokenAt = -Infinity;
  /** How long a claim that brings something takes, lately. */
  #claimMs = 1;
  /** How many handlers ended in a millisecond, lately. */
  #pace = 0;
  #ended = 0;
  #pacedAt = performance.now();
  #awakened: Promise<void> | undefined;
  #isWoken = false;
  /** How many times in a row it was woken and found nothing. */
  #vainWakes = 0;
  #lookedAt = -Infinity;
  #wakeTimer: ReturnType<typeof setTimeout> | undefined;

  /**
   * Claims nothing yet.
   *
   * @throws {TypeError} When a limit of a type cannot be.
   */
  constructor(options: ClaimLoopOptions) {
    const { db, config, jobTypes, stopSignal, logger } = options;
    this.#options = options;
    this.#plan = new ClaimPlan(options.concurrencyByType);
    this.#leaseMs = config.leaseTtlSeconds * 1000;
    this.#maxUnsettled = 2 * (config.maxGlobalConcurrency + config.claimBatchSize);
    this.#wakeUps = !options.wake ? undefined : new WakeUps({
      db,
      workerId: config.workerId,
      jobTypes,
      pollIntervalMs: config.pollIntervalMs,
      signal: stopSignal,
      logger,
      onWake: () => this.#onWake(),
    });
  }

  /** Claims until it is stopped, and the last claim is answered. */
  async run(): Promise<void> {
    const { stopSignal: signal, logger, config } = this.#options;
    this.#awakened = this.#wakeUps?.run();
    const onStop = () => this.#capacity.wake();
    signal.addEventListener("abort", onStop, { once: true });
    try {
      await runLoop({
        name: "claim",
        signal,
        logger,
        intervalMs: config.pollIntervalMs,
        waker: this.#poll,
        round: () => this.#claim(),
      });
    } finally {
      signal.removeEventListener("abort", onStop);
      clearTimeout(this.#wakeTimer);
    }
  }

  /** Waits until nobody wakes the worker any more. */
  async closed(): Promise<void> {
    await this.#awakened;
  }

  /** There may be something to claim. */
  look(): void {
    this.#poll.wake();
  }

  /** There may be room. */
  onRoom(): void {
    if (this.#capacity.isWaiting) this.#capacity.wake();
  }

  /** A handler has ended, and its slot is free. */
  onHandlerEnd(jobType: string): void {
    this.#ended++;
    this.onRoom();
    if (this.#plan.isLimited(jobType)) this.#poll.wake();
  }

  /** Jobs turned out to be slower than the ones before. */
  slowDown(): void {
    this.#pace = 0;
    this.#ended = 0;
  }

  /**
   * Somebody has made jobs due. All who listen are told, and most find that others were faster: without a gap between
   * their looks, a fleet of idle workers would claim as fast as the database answers.
   */
  #onWake(): void {
    if (this.#options.stopSignal.aborted) return;
    this.#isWoken = true;
    const now = performance.now();
    this.#wokenAt = now;
    if (now - this.#noticedAt >= NOTICE_MS) {
      this.#noticedAt = now;
      this.#notices = 0;
    }
    if (++this.#notices * this.#claimMs >= NOTICE_MS) this.#getBusy();
    const gapMs = this.#vainWakes === 0 ? 0 : Math.min(2 ** this.#vainWakes, MAX_VAIN_GAP_MS);
    const waitMs = this.#lookedAt + gapMs - now;
    if (waitMs <= 0) return this.#poll.wake();
    this.#wakeTimer ??= setTimeout(() => {
      this.#wakeTimer = undefined;
      this.#poll.wake();
    }, waitMs);
  }

  /** Claims once; gives how long to wait then, in milliseconds, or nothing for the interval between polls. */
  async #claim(): Promise<number | void> {
    const { db, config, endSignal, jobTypes, typesUnderWay, onClaimed, start } = this.#options;
    const room = await this.#roomToClaim();
    const planned = room === 0 ? undefined : this.#plan.next(jobTypes(), room, typesUnderWay());
    if (planned === undefined) return start();
    const { workerId } = config;
    const { jobTypes: wanted, limit, cursor } = planned;
    const sentAt = performance.now();
    const wasWoken = this.#isWoken;
    this.#isWoken = false;
    this.#lookedAt = sentAt;
    const claim = claimJobs(db, { jobTypes: wanted, workerId, limit, leaseMs: this.#leaseMs, cursor }).then(
      (claimed) => {
        if (!endSignal.aborted) onClaimed(claimed, sentAt);
        return claimed.length;
      },
    );
    if (this.#fullClaims > 0) void this.#startSoon();
    // An answer that comes later than its leases last is of no use, but must not stop the loop.
    const count = await within(claim, {
      timeoutMs: this.#leaseMs,
      signal: endSignal,
      late: () => new RunledgerError("db.unavailable", { internalMessage: "a claim was not answered in time" }),
    });
    this.#emptyClaims = count === 0 ? this.#emptyClaims + 1 : 0;
    if (count > 0) this.#vainWakes = 0;
    else if (wasWoken) this.#vainWakes++;
    const isMore = this.#plan.onClaimed(planned, count);
    if (count > 0) {
      this.#foundAt = performance.now();
      this.#claimMs += (this.#foundAt - sentAt - this.#claimMs) / 8;
    }
    this.#fullClaims = isMore ? this.#fullClaims + 1 : 0;
    if (!isMore) {
      start();
      return await this.#pause();
    }
    if (this.#fullClaims >= BUSY_FROM) this.#getBusy();
    return 0;
  }

  /**
   * Starts the jobs of a full claim when the next one has left: the database finds more of them while this process runs
   * handlers. Drivers send what is small in the next turn of the event loop, and begin to do so in this one.
   */
  async #startSoon(): Promise<void> {
    await nextTurn();
    await nextTurn();
    this.#options.start();
  }

  #getBusy(): void {
    if (this.#isBusy) return;
    const now = performance.now();
    this.#busyMs = now - this.#turnedAt < BUSY_MS.least ? Math.min(2 * this.#busyMs, BUSY_MS.most) : BUSY_MS.least;
    this.#isBusy = true;
    this.#turnedAt = now;
    void this.#wakeUps?.wakeUp();
  }

  /** A busy worker that neither finds work nor hears of any, or has been busy for long, wants to be woken again. */
  #calmDown(): void {
    const now = performance.now();
    const isQuiet = now - Math.max(this.#turnedAt, this.#foundAt, this.#wokenAt) >= QUIET_MS;
    if (!this.#isBusy || !isQuiet && now - this.#turnedAt < this.#busyMs) return;
    this.#isBusy = false;
    this.#turnedAt = now;
    this.#notices = 0;
  }

  /** Gives how long to wait when there is no more to claim: asleep where somebody wakes it, else longer each time. */
  async #pause(): Promise<number | void> {
    const { pollIntervalMs } = this.#options.config;
    this.#calmDown();
    if (!this.#isBusy) {
      switch (await this.#wakeUps?.fallAsleep()) {
        case "announced":
          // What became due while it was being said was told to nobody.
          return 0;
        case "sleeps":
          return;
      }
    }
    const waitMs = Math.max(this.#claimMs, BRISK_POLL_MS) * 2 ** Math.max(this.#emptyClaims - 1, 0);
    if (this.#isBusy) return Math.min(waitMs, QUIET_MS, pollIntervalMs);
    return waitMs < pollIntervalMs ? waitMs : undefined;
  }

  /** Waits until a claim is worth its round trip. */
  async #roomToClaim(): Promise<number> {
    while (!this.#options.stopSignal.aborted) {
      const room = this.#room();
      if (room > 0) return room;
      this.#options.start();
      if (this.#room() === 0) await this.#capacity.wait();
    }
    return 0;
  }

  #room(): number {
    const { claimBatchSize, maxGlobalConcurrency } = this.#options.config;
    const { running, prefetched, unsettled } = this.#options.load();
    const free = maxGlobalConcurrency - running - prefetched;
    const unwritten = this.#maxUnsettled - unsettled;
    if (unwritten <= 0) return 0;
    const ahead = this.#prefetchTarget();
    // Half of it at a time: a claim for each single job that ends would be all the database does.
    if (free <= 0 && -free > ahead / 2) return 0;
    return Math.max(Math.min(free + ahead, claimBatchSize, unwritten), 0);
  }

  /** As many as are likely to start soon: slow jobs are left for processes that are idle. */
  #prefetchTarget(): number {
    const now = performance.now();
    const elapsedMs = now - this.#pacedAt;
    if (elapsedMs >= PACE_SAMPLE_MS) {
      this.#pace = (this.#pace + this.#ended / elapsedMs) / 2;
      this.#ended = 0;
      this.#pacedAt = now;
    }
    const { claimBatchSize, maxGlobalConcurrency } = this.#options.config;
    return Math.min(Math.floor(this.#pace * PREFETCH_HORIZON_MS), claimBatchSize, maxGlobalConcurrency);
  }
}
