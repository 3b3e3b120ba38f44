/**
 * Cancelling a job that is being worked on: the job ends at once, its handler is told through its `signal`, and what it
 * still writes is refused.
 *
 * Run: `deno run -A examples/cancel_running_job.ts`
 *
 * @module
 */

import { defineJob, isRunledgerError } from "@runledger/core";
import { cancelJob, enqueueJob } from "@runledger/postgres";
import { consoleLogger, JobCatalog, Supervisor } from "@runledger/runtime";
import { z } from "zod";
import { openDatabase } from "./support/database.ts";
import { printLedger, waitForJob } from "./support/ledger.ts";

const renderVideo = defineJob({
  type: "example.render_video",
  payload: z.object({ frames: z.int().positive() }),
  timeoutSeconds: 60,
});

const started = Promise.withResolvers<void>();
const told = Promise.withResolvers<string>();

const catalog = new JobCatalog().handle(renderVideo, async (_payload, context) => {
  started.resolve();
  // Most APIs take a signal: fetch, timers, child processes, this promise.
  await new Promise<void>((resolve) => context.signal.addEventListener("abort", () => resolve(), { once: true }));
  const { reason } = context.signal;
  told.resolve(isRunledgerError(reason) ? reason.code : String(reason));
  // A handler that is deaf to its signal changes nothing either: the job is no longer its own.
  return { rendered: true };
});

await using database = await openDatabase();
const { sql } = database;
await catalog.sync(sql);
await using _supervisor = new Supervisor(sql, {
  catalog,
  // A running handler hears of it at the worker's next heartbeat, every third of a lease. Leases are a minute unless
  // told otherwise; a short one makes a short example.
  config: { pollIntervalMs: 25, leaseTtlSeconds: 1 },
  logger: { ...consoleLogger, debug: () => {} },
});

const { jobId } = await enqueueJob(sql, renderVideo.request({ frames: 10_000 }));
await started.promise;
console.log("the handler is at work");

const { leaseQuiescesAt } = await cancelJob(sql, jobId, {
  scope: "global",
  reason: "the customer left",
});
console.log(`cancelled; a handler may still be at work for a moment: ${leaseQuiescesAt !== undefined}`);
console.log(`the handler's signal says: ${await told.promise}`);

const job = await waitForJob(sql, jobId);
console.log(`the job is ${job.status}: ${job.statusReason}`);
await printLedger(sql, jobId);

// The truth is told to whoever comes too late.
try {
  await cancelJob(sql, jobId, { scope: "global" });
} catch (error) {
  if (!isRunledgerError(error, "job.invalid_state_transition")) throw error;
  console.log(`a second cancellation: ${error.code}`);
}
