/**
 * What the test kit does with a catalog: everything that is due, one thing after the other.
 *
 * @module
 */

import { expireWorkflowGates, listJobs, materializeDueSchedules } from "@runledger/postgres";
import type { FiredSchedule } from "@runledger/postgres";
import type { JobCatalog } from "@runledger/runtime";
import type { AttemptFaults } from "./attempt_faults.ts";
import { pullForward, readAgenda } from "./kit_agenda.ts";
import type { AgendaJob } from "./kit_agenda.ts";
import type { KitClock } from "./kit_clock.ts";
import { reapLeases, runOneJob } from "./kit_worker.ts";
import type { KitWorkerOptions } from "./kit_worker.ts";
import { TestJob } from "./test_job.ts";

/** One attempt that was run. */
export interface RunAttempt {
  /** The job. */
  readonly jobId: string;
  /** Its type. */
  readonly jobType: string;
}

/** What was done until nothing was left to do. */
export interface IdleReport {
  /** The attempts that were run, in order. */
  readonly attempts: readonly RunAttempt[];
  /** The schedules that fired. */
  readonly fired: readonly FiredSchedule[];
  /** How many expired leases were reaped. */
  readonly reapedLeases: number;
  /** How many gates got their default outcome. */
  readonly expiredGates: number;
  /** Types of due jobs that the catalog has no handler for: their jobs wait. */
  readonly unhandled: readonly string[];
}

/** How far to go. */
export interface RunOptions {
  /** How many attempts at most; more are taken for an endless chain. @default {1000} */
  readonly maxAttempts?: number;
}

/** How many attempts one call runs before it takes them for endless. */
const MAX_ATTEMPTS = 1000;

/** Runs what is due, while nothing else comes to be due. */
export class KitEngine {
  readonly #options: KitWorkerOptions;
  readonly #clock: KitClock;
  #isBusy = false;

  /** Starts idle. */
  constructor(options: KitWorkerOptions, clock: KitClock) {
    this.#options = options;
    this.#clock = clock;
  }

  /** What is run. */
  get catalog(): JobCatalog {
    return this.#options.catalog;
  }

  /** What happens to the next attempts. */
  get faults(): AttemptFaults {
    return this.#options.faults;
  }

  /** The date of the calendar. */
  get now(): Date {
    return this.#clock.now;
  }

  /** Lets time pass, and runs nothing. */
  async advance(ms: number): Promise<void> {
    await this.#exclusively(() => this.#clock.advance(ms));
  }

  /** Runs what is due until nothing is. */
  async runUntilIdle(options: RunOptions): Promise<IdleReport> {
    return await this.#stepping(() => this.#runUntilIdle(new Tally(), options));
  }

  /** Runs what is due, advances to the next instant at which something is, and so on. */
  async runFor(ms: number, options: RunOptions): Promise<IdleReport> {
    const tally = new Tally();
    return await this.#stepping(async () => {
      for (let leftMs = ms;;) {
        await this.#runUntilIdle(tally, options);
        if (leftMs === 0) return tally;
        await this.#clock.release();
        // What waits for less than a millisecond would otherwise never come.
        const nextMs = Math.max(await this.#clock.untilNext(this.catalog.jobTypes) ?? leftMs, 1);
        const stepMs = Math.min(nextMs, leftMs);
        await this.#clock.advance(stepMs);
        leftMs -= stepMs;
      }
    });
  }

  /** Runs the first attempt that is due, if there is one. */
  async runFirst(): Promise<RunAttempt | undefined> {
    return await this.#stepping(async () => {
      const job = await this.#nextDue(new Tally());
      return job === undefined ? undefined : await this.#runOne();
    });
  }

  /** Runs the first attempt of a type that is due. */
  async runType(jobType: string): Promise<RunAttempt> {
    return await this.#stepping(async () => {
      await this.#nextDue(new Tally());
      const { job } = await readAgenda(this.#options.db, [jobType], this.now);
      if (job === null) throw new Error(`No job of type ${jobType} is due. ${await this.#state()}`);
      return await this.#runOne([jobType]);
    });
  }

  /** Runs an attempt of one job. */
  async runJob(jobId: string): Promise<RunAttempt> {
    return await this.#stepping(async () => {
      await this.#nextDue(new Tally());
      return await this.#runNow(jobId);
    });
  }

  async #runUntilIdle(tally: Tally, options: RunOptions): Promise<IdleReport> {
    const { maxAttempts = MAX_ATTEMPTS } = options;
    for (;;) {
      const job = await this.#nextDue(tally);
      if (job === undefined) return tally;
      if (tally.attempts.length >= maxAttempts) throw endless(tally.attempts, job.job_type);
      tally.attempts.push(await this.#runOne());
    }
  }

  /** Moves everything that is due but jobs, then says which job is. */
  async #nextDue(tally: Tally): Promise<AgendaJob | undefined> {
    for (;;) {
      await this.#clock.hold();
      const agenda = await readAgenda(this.#options.db, this.catalog.jobTypes, this.now);
      if (agenda.unanchored.length > 0) await this.#clock.anchorSchedules(agenda.unanchored);
      if (agenda.leases + agenda.gates + agenda.schedules === 0) {
        tally.unhandled = agenda.unhandled;
        return agenda.job ?? undefined;
      }
      if (agenda.leases > 0) await reapLeases(this.#options, agenda.leases);
      const expired = agenda.gates === 0 ? 0 : await expireWorkflowGates(this.#options.db, { limit: 1000 });
      const fires = agenda.schedules === 0 ? 0 : await this.#fire(agenda.schedules, tally);
      if (agenda.leases + expired + fires === 0) {
        throw new Error(`What is due is held by somebody else. ${await this.#state()}`);
      }
      tally.reapedLeases += agenda.leases;
      tally.expiredGates += expired;
    }
  }

  /** Fires the schedules that are due by the calendar: the first so many, since the database's clock is far ahead. */
  async #fire(count: number, tally: Tally): Promise<number> {
    const { fired, deferred } = await materializeDueSchedules(this.#options.db, { limit: Math.min(count, 1000) });
    tally.fired.push(...fired);
    return fired.length + deferred.length;
  }

  async #runOne(jobTypes: readonly string[] = this.catalog.jobTypes): Promise<RunAttempt> {
    const jobId = await runOneJob(this.#options, jobTypes);
    const { jobType } = await new TestJob(this.#options.db, jobId).get();
    return { jobId, jobType };
  }

  async #runNow(jobId: string): Promise<RunAttempt> {
    const job = new TestJob(this.#options.db, jobId);
    const { jobType, priority } = await job.get();
    this.catalog.require(jobType);
    const isDue = await pullForward(this.#options.db, jobId, jobType);
    const { job: first } = await readAgenda(this.#options.db, [jobType], this.now);
    if (isDue && first?.id === jobId) return await this.#runOne([jobType]);
    const problem = isDue && first !== null
      ? `a job of its type has the priority ${first.priority} and comes first, since its own is ${priority}`
      : "it is not due";
    throw new Error(`Job ${jobId} (${jobType}) cannot be run now: ${problem}.\n${await job.draw()}`);
  }

  /** What waits, for the text of an error. */
  async #state(): Promise<string> {
    const counts = new Map<string, number>();
    for (const { jobType, status } of (await listJobs(this.#options.db, { scope: "all", limit: 1000 })).items) {
      const key = `${jobType} ${status}`;
      counts.set(key, (counts.get(key) ?? 0) + 1);
    }
    return `The jobs are: ${[...counts].map(([key, count]) => `${count} ${key}`).join(", ") || "none"}.`;
  }

  /** Keeps what waits away while something runs. */
  async #stepping<T>(fn: () => Promise<T>): Promise<T> {
    return await this.#exclusively(async () => {
      try {
        return await fn();
      } finally {
        await this.#clock.release();
      }
    });
  }

  async #exclusively<T>(fn: () => Promise<T>): Promise<T> {
    if (this.#isBusy) {
      throw new Error("The test kit is busy: an earlier call was not awaited, or a handler calls the kit.");
    }
    this.#isBusy = true;
    try {
      return await fn();
    } finally {
      this.#isBusy = false;
    }
  }
}

/** What was done so far. */
class Tally implements IdleReport {
  readonly attempts: RunAttempt[] = [];
  readonly fired: FiredSchedule[] = [];
  reapedLeases = 0;
  expiredGates = 0;
  unhandled: readonly string[] = [];
}

function endless(attempts: readonly RunAttempt[], jobType: string): Error {
  const counts = new Map<string, number>();
  for (const attempt of attempts.slice(-100)) counts.set(attempt.jobType, (counts.get(attempt.jobType) ?? 0) + 1);
  const last = [...counts].map(([type, count]) => `${count} of ${type}`).join(", ");
  return new Error(
    `Nothing is idle after ${attempts.length} attempts: a job of ${jobType} is due, and the last ones were ${last}. Does a ` +
      "job continue, or enqueue itself, without a delay? maxAttempts allows more.",
  );
}
