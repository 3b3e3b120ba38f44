/**
 * Keeps the leases of a worker alive: one statement for all of them.
 *
 * @module
 */

import { RunledgerError } from "@runledger/core";
import { heartbeatJobs } from "@runledger/postgres";
import type { Queryable } from "@runledger/postgres";
import type { HeldJob } from "./held_job.ts";
import type { Logger } from "./logger.ts";
import { runLoop, within } from "./loop.ts";

/** How soon a job is asked about again whose row somebody else had locked, in milliseconds. */
const BUSY_RETRY_MS = 1000;

/** What the heartbeat needs of the worker. */
export interface HeartbeatLoopOptions {
  readonly db: Queryable;
  readonly leaseMs: number;
  readonly signal: AbortSignal;
  readonly logger: Logger;
  /** Every job whose lease this process holds, running or not. */
  readonly held: ReadonlySet<HeldJob>;
  /** The database said that the lease is gone. */
  readonly onLost: (job: HeldJob) => void;
  /** The database said that the job was cancelled. */
  readonly onCanceled: (job: HeldJob) => void;
  /** Runs after every round. */
  readonly onRound: () => void;
}

/**
 * Extends all leases every third of their length, until the signal aborts.
 *
 * A statement that takes longer than that counts as failed, so that one dead connection does not cost all leases.
 *
 * @param options Which jobs, and what to do about those that are gone.
 * @returns When the loop is over.
 */
export function runHeartbeats(options: HeartbeatLoopOptions): Promise<void> {
  const intervalMs = options.leaseMs / 3;
  return runLoop({
    name: "heartbeat",
    signal: options.signal,
    logger: options.logger,
    intervalMs,
    startsWaiting: true,
    maxBackoffMs: Math.min(5000, intervalMs / 2),
    round: () => beat(options, intervalMs),
  });
}

async function beat(options: HeartbeatLoopOptions, intervalMs: number): Promise<number | void> {
  const { db, leaseMs, held, onLost, onCanceled, onRound } = options;
  onRound();
  const jobs = [...held].filter(({ phase }) => phase !== "over");
  if (jobs.length === 0) return;
  const sentAt = performance.now();
  const results = await within(
    heartbeatJobs(db, jobs.map(({ claim }) => claim), { leaseMs }),
    {
      timeoutMs: intervalMs,
      signal: options.signal,
      late: () => new RunledgerError("db.unavailable", { internalMessage: "a heartbeat was not answered in time" }),
    },
  );
  let busy = 0;
  for (const [index, job] of jobs.entries()) {
    switch (results[index]?.state) {
      case "extended":
        job.leaseUntil = sentAt + leaseMs;
        break;
      case "busy":
        if (job.phase === "running" || job.phase === "prefetched") busy++;
        break;
      case "canceled":
        onCanceled(job);
        break;
      case "lost":
        onLost(job);
        break;
    }
  }
  if (busy > 0) return Math.min(BUSY_RETRY_MS, intervalMs / 2);
}
