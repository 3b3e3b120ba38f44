/**
 * Jobs that were claimed and have not started.
 *
 * @module
 */

import { RunledgerError } from "@runledger/core";
import { releaseJobs } from "@runledger/postgres";
import type { Queryable } from "@runledger/postgres";
import type { HeldJob } from "./held_job.ts";
import { errorFields } from "./logger.ts";
import type { Logger } from "./logger.ts";
import { backoffMs, Waker, within } from "./loop.ts";

/** How long a claimed job may wait for a slot before another process gets a chance at it, in milliseconds. */
const MAX_WAIT_MS = 2000;

/** How long an answer is waited for, in milliseconds: meanwhile the leases are kept alive, and nobody runs the jobs. */
const ANSWER_MS = 2000;

/** How often claims that are left at the end are tried to be handed back. */
const MAX_FAILURES = 3;

/** What the queue needs of the worker. */
export interface PrefetchOptions {
  readonly db: Queryable;
  readonly logger: Logger;
  /** Gives up what is not answered. */
  readonly endSignal: AbortSignal;
  /** The job is no longer this process's. */
  readonly onHandedBack: (job: HeldJob) => void;
  /** Jobs that could not be handed back wait for a slot again. */
  readonly onKept: () => void;
}

/** A queue in claim order, which hands back what waits for too long. */
export class Prefetch {
  readonly #options: PrefetchOptions;
  readonly #jobs: HeldJob[] = [];
  #handingBack: Promise<void> | undefined;

  /** Starts empty. */
  constructor(options: PrefetchOptions) {
    this.#options = options;
  }

  /** How many wait. */
  get size(): number {
    return this.#jobs.length;
  }

  /** Those that wait. */
  get jobs(): readonly HeldJob[] {
    return this.#jobs;
  }

  /** Appends a job. */
  push(job: HeldJob): void {
    this.#jobs.push(job);
  }

  /** Takes the first that is still this process's and may start. */
  take(mayStart: (job: HeldJob) => boolean): HeldJob | undefined {
    for (let index = 0; index < this.#jobs.length;) {
      const job = this.#jobs[index];
      if (job?.phase === "prefetched" && !mayStart(job)) {
        index++;
        continue;
      }
      this.#jobs.splice(index, 1);
      if (job?.phase === "prefetched") return job;
    }
  }

  /** When a job that comes now will have waited for too long, by `performance.now()`. */
  deadline(now: number): number {
    return now + MAX_WAIT_MS;
  }

  /**
   * Hands back what has waited for too long, and what came after it: slow jobs keep claims waiting that others could run.
   *
   * @returns When to look again, by `performance.now()`, and whether anything is handed back now.
   */
  check(now: number): { readonly next: number; readonly isSlow: boolean } {
    const [oldest] = this.#jobs;
    if (oldest === undefined) return { next: Infinity, isSlow: false };
    if (this.#handingBack !== undefined) return { next: now + MAX_WAIT_MS, isSlow: false };
    const due = oldest.claimedAt + MAX_WAIT_MS;
    if (due > now) return { next: due, isSlow: false };
    const jobs = this.#jobs.splice(0);
    this.#handingBack = this.#handBack(jobs, "PREFETCH_EXPIRED").then(() => {}, (error) => {
      this.#options.logger.warn("claims could not be handed back and are kept", errorFields(error));
      this.#jobs.unshift(...jobs);
      this.#options.onKept();
    }).finally(() => this.#handingBack = undefined);
    return { next: now + MAX_WAIT_MS, isSlow: true };
  }

  /**
   * Hands everything back because the worker stops.
   *
   * @param claims Ends with the last claim, which may still bring jobs.
   * @returns How many were handed back.
   */
  async handBackAll(claims: Promise<void>): Promise<number> {
    await Promise.all([claims, this.#handingBack]);
    let count = 0;
    for (let failures = 0; this.#jobs.length > 0 && failures < MAX_FAILURES;) {
      try {
        count += await this.#handBack(this.#jobs, "WORKER_SHUTDOWN");
        this.#jobs.length = 0;
      } catch (error) {
        failures++;
        this.#options.logger.warn("claims could not be handed back", { failures, ...errorFields(error) });
        await new Waker().wait(backoffMs(failures, 1000));
      }
    }
    return count;
  }

  async #handBack(jobs: readonly HeldJob[], reason: string): Promise<number> {
    const unstarted = jobs.filter(({ phase }) => phase === "prefetched");
    if (unstarted.length === 0) return 0;
    const { db, endSignal } = this.#options;
    // Should it be applied later, the fence refuses what is written for these jobs.
    const released = await within(releaseJobs(db, unstarted.map(({ claim }) => claim), { reason }), {
      timeoutMs: ANSWER_MS,
      signal: endSignal,
      late: () => new RunledgerError("db.unavailable", { internalMessage: "a hand-back was not answered in time" }),
    });
    for (const job of unstarted) this.#options.onHandedBack(job);
    return released.length;
  }
}
