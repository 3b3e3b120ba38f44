/**
 * The scheduler's loop: what is due becomes jobs.
 *
 * @module
 */

import { materializeDueSchedules } from "@runledger/postgres";
import type { DeferredSchedule, Queryable } from "@runledger/postgres";
import { JobsConfig } from "./config.ts";
import { guardedLogger, silentLogger } from "./logger.ts";
import type { Logger } from "./logger.ts";
import { answered, runLoop } from "./loop.ts";

/** How many schedules one statement fires. */
const BATCH = 100;

/** What a scheduler does, and until when. */
export interface SchedulerOptions {
  /** Settings; what is left out has its default. */
  readonly config?: Partial<JobsConfig>;
  /** Stops the scheduler. */
  readonly signal: AbortSignal;
  /** Where the scheduler reports. @default nowhere */
  readonly logger?: Logger;
}

/** What a scheduler did. */
export interface SchedulerReport {
  /** How many times it fired a schedule. */
  readonly fired: number;
  /** How many times it put off a schedule that could not fire. */
  readonly deferred: number;
}

/**
 * Fires due schedules until the signal aborts. It wakes when the earliest of them is due by the database's clock, and every
 * `schedulePollIntervalSeconds`, since new ones may have come.
 *
 * Any number of schedulers may run at once: none fires what another has fired. Database errors are waited out; the loop
 * never ends by itself. A fire whose outcome was lost with the connection is looked for again, and is never doubled.
 *
 * @param db A pool, or a handle of one session that nobody else uses.
 * @param options What to do, and until when.
 * @returns What it did, after the last statement, or a few seconds after the signal if that is never answered.
 * @throws {TypeError} When a setting cannot be.
 */
export async function runScheduler(db: Queryable, options: SchedulerOptions): Promise<SchedulerReport> {
  const { signal } = options;
  const config = JobsConfig.of(options.config);
  const logger = guardedLogger(options.logger ?? silentLogger);
  const intervalMs = config.schedulePollIntervalSeconds * 1000;
  let fired = 0;
  let deferred = 0;

  async function fireDue(): Promise<number | void> {
    const result = await answered(materializeDueSchedules(db, { limit: BATCH }), signal);
    fired += result.fired.length;
    deferred += result.deferred.length;
    for (const { name, jobId, scheduledFor } of result.fired) {
      logger.debug("a schedule fired", { name, jobId, scheduledFor });
    }
    for (const schedule of result.deferred) report(schedule);
    const { hasMore, nextInMs } = result;
    // With no progress, everything at the front is in a rival's hands: he needs a moment.
    if (hasMore && result.fired.length + result.deferred.length > 0) return 0;
    if (nextInMs !== undefined && nextInMs < intervalMs) return Math.max(nextInMs, 1);
  }

  function report({ name, code, scheduledFor, nextFireAt }: DeferredSchedule): void {
    logger.error("a schedule cannot fire and was put off", { name, code, scheduledFor, nextFireAt });
  }

  await runLoop({ name: "scheduler", signal, logger, intervalMs, maxBackoffMs: 30_000, round: fireDue });
  return { fired, deferred };
}
