/**
 * The reaper's loop: jobs whose worker was lost go on elsewhere.
 *
 * @module
 */

import {
  deleteFinishedJobs,
  deleteFinishedWorkflowRuns,
  expireWorkflowGates,
  reapExpiredLeases,
} from "@runledger/postgres";
import type { DeleteFinishedJobsOptions, Queryable, ReapedJob } from "@runledger/postgres";
import { Announcer } from "./announcer.ts";
import type { JobCatalog } from "./catalog.ts";
import { JobsConfig } from "./config.ts";
import { guardedLogger, silentLogger } from "./logger.ts";
import type { Logger } from "./logger.ts";
import { answered, runLoop } from "./loop.ts";

/** How many leases or gates one statement ends, and how many jobs one removes. */
const BATCH = 500;

/** How many runs one statement removes: each may have thousands of steps. */
const RUN_BATCH = 100;

/** What a reaper does, and until when. */
export interface ReaperOptions {
  /** Settings; what is left out has its default. */
  readonly config?: Partial<JobsConfig>;
  /** Stops the reaper. */
  readonly signal: AbortSignal;
  /** Which ended jobs and workflow runs are removed after each round. @default none are ever removed */
  readonly retention?: Omit<DeleteFinishedJobsOptions, "limit">;
  /** Whose hooks hear of reaped jobs. @default nobody's */
  readonly catalog?: JobCatalog;
  /** Where the reaper reports. @default nowhere */
  readonly logger?: Logger;
}

/** What a reaper did. */
export interface ReaperReport {
  /** How many expired leases it reaped. */
  readonly reaped: number;
  /** How many gates of workflows got their default outcome, since their time was over. */
  readonly expiredGates: number;
  /** How many ended jobs it removed, those of workflow steps not counted. */
  readonly deleted: number;
  /** How many ended workflow runs it removed, with everything that belongs to them. */
  readonly deletedRuns: number;
}

/**
 * Reaps expired leases and ends overdue gates every `reaperIntervalSeconds`, at once while there are more, until the
 * signal aborts. Hooks hear of reaped jobs, not of gates.
 *
 * Any number of reapers may run at once. Database errors are waited out; the loop never ends by itself.
 *
 * @param db A pool, or a handle of one session that nobody else uses.
 * @param options What to do, and until when.
 * @returns What it did, after the last statement, or a few seconds after the signal if that is never answered.
 * @throws {TypeError} When a setting cannot be.
 */
export async function runReaper(db: Queryable, options: ReaperOptions): Promise<ReaperReport> {
  const { signal, retention } = options;
  const config = JobsConfig.of(options.config);
  const logger = guardedLogger(options.logger ?? silentLogger);
  const announcer = new Announcer(options.catalog, logger, config.workerId);
  let reaped = 0;
  let expiredGates = 0;
  let deleted = 0;
  let deletedRuns = 0;

  async function reapAll(): Promise<void> {
    for (let count = BATCH; count === BATCH && !signal.aborted;) {
      const statement = reapExpiredLeases(db, { limit: BATCH, retryDelayMs: config.reaperRetryDelayMs });
      const jobs = await answered(statement, signal);
      count = jobs.length;
      reaped += count;
      for (const job of jobs) announce(job);
    }
  }

  function announce(job: ReapedJob): void {
    const { jobId, jobType, attempt, status } = job;
    logger.warn("the lease on a job had expired", { jobId, jobType, attempt, status });
    announcer.reaped(job);
  }

  async function expireGates(): Promise<void> {
    for (let count = BATCH; count === BATCH && !signal.aborted;) {
      count = await answered(expireWorkflowGates(db, { limit: BATCH }), signal);
      expiredGates += count;
    }
  }

  /**
   * Removes a batch of each and says whether there may be more: the first time there may be millions, and leases that run
   * out meanwhile must not wait for all of them.
   */
  async function removeOld(rule: Omit<DeleteFinishedJobsOptions, "limit">): Promise<boolean> {
    const { olderThanMs, expiresIdempotencyKeys = false } = rule;
    const runs = await answered(
      deleteFinishedWorkflowRuns(db, { olderThanMs, expiresIdempotencyKeys, limit: RUN_BATCH }),
      signal,
    );
    deletedRuns += runs;
    if (signal.aborted) return false;
    const jobs = await answered(deleteFinishedJobs(db, { ...rule, limit: BATCH }), signal);
    deleted += jobs;
    return runs === RUN_BATCH || jobs === BATCH;
  }

  await runLoop({
    name: "reaper",
    signal,
    logger,
    intervalMs: config.reaperIntervalSeconds * 1000,
    maxBackoffMs: 30_000,
    round: async () => {
      await reapAll();
      await expireGates();
      if (retention !== undefined && !signal.aborted && await removeOld(retention)) return 0;
    },
  });
  await announcer.drain();
  return { reaped, expiredGates, deleted, deletedRuns };
}
