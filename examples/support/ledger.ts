/**
 * What most examples end with: waiting for a job, and showing what the ledger says about it.
 *
 * @module
 */

import { isTerminalJobStatus } from "@runledger/core";
import { getJob, listJobEvents } from "@runledger/postgres";
import type { Job, Queryable } from "@runledger/postgres";
import { setTimeout as delay } from "node:timers/promises";

/** No job of an example takes longer. */
const PATIENCE_MS = 30_000;

/**
 * Waits until a job is as somebody wants it.
 *
 * @param sql The database.
 * @param jobId The job.
 * @param isReached What to wait for. @default the end of the job
 * @returns The job as it is then.
 */
export async function waitForJob(
  sql: Queryable,
  jobId: string,
  isReached: (job: Job) => boolean = ({ status }) => isTerminalJobStatus(status),
): Promise<Job> {
  const deadline = performance.now() + PATIENCE_MS;
  while (true) {
    const job = await getJob(sql, jobId, { scope: "all" });
    if (job === undefined) throw new Error(`There is no job ${jobId}`);
    if (isReached(job)) return job;
    if (performance.now() > deadline) throw new Error(`Job ${jobId} is still ${job.status}. Is a worker running?`);
    await delay(25);
  }
}

/**
 * Prints every event of a job.
 *
 * @param sql The database.
 * @param jobId The job.
 */
export async function printLedger(sql: Queryable, jobId: string): Promise<void> {
  for (const event of (await listJobEvents(sql, jobId, { scope: "all" })).items) {
    const attempt = event.attempt === undefined ? "" : `run ${event.runNumber}, attempt ${event.attempt}`;
    console.log(`  ${String(event.seq).padStart(2)}  ${event.eventType.padEnd(15)}  ${attempt}`.trimEnd());
  }
}
