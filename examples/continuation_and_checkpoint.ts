/**
 * A long import in short slices: each slice ends its run and continues the same job, and a checkpoint says where to go on,
 * after a crash as well as after a slice.
 *
 * Run: `deno run -A examples/continuation_and_checkpoint.ts`
 *
 * @module
 */

import { complete, continueNow, defineJob } from "@runledger/core";
import { enqueueJob } from "@runledger/postgres";
import { consoleLogger, JobCatalog, Supervisor } from "@runledger/runtime";
import { z } from "zod";
import { openDatabase } from "./support/database.ts";
import { printLedger, waitForJob } from "./support/ledger.ts";

const importRows = defineJob({
  type: "example.import_rows",
  payload: z.object({ rows: z.int().positive() }),
  output: z.object({ imported: z.int() }),
  maxAttempts: 3,
  // An attempt is one slice, so this is how long a slice may take, however long the whole import is.
  timeoutSeconds: 10,
  retry: { kind: "fixed", delayMs: 50 },
});

/** What a checkpoint of this job looks like: it is JSON from the database, so it is checked like any input. */
const checkpointSchema = z.object({ next: z.int() }).default({ next: 0 });

const SLICE = 40;
const PAGE = 10;
let hasCrashed = false;

const catalog = new JobCatalog().handle(importRows, async ({ rows }, context) => {
  let { next } = checkpointSchema.parse(context.checkpoint);
  console.log(`run ${context.runNumber}, attempt ${context.attempt}: from row ${next}`);
  const end = Math.min(next + SLICE, rows);
  while (next < end) {
    // Aborts when the time is up, the job is cancelled, the lease is lost or the worker shuts down.
    context.signal.throwIfAborted();
    next = Math.min(next + PAGE, end); // stands for importing a page of rows
    await context.progress({ progress: { done: next, total: rows }, checkpoint: { next } });
    if (next === 60 && !hasCrashed) {
      hasCrashed = true;
      throw new Error("the network went away");
    }
  }
  // Each continuation is a new run, with all its attempts: a long job does not use them up.
  if (next < rows) return continueNow();
  return complete({ imported: next });
});

await using database = await openDatabase();
const { sql } = database;
await catalog.sync(sql);
await using _supervisor = new Supervisor(sql, {
  catalog,
  config: { pollIntervalMs: 25 },
  logger: { ...consoleLogger, debug: () => {}, info: () => {} },
});

const { jobId } = await enqueueJob(sql, importRows.request({ rows: 100 }));
const job = await waitForJob(sql, jobId);
console.log(`the job is ${job.status} in run ${job.runNumber}: ${JSON.stringify(job.output)}`);
console.log(`progress: ${job.progressDone} of ${job.progressTotal}`);
await printLedger(sql, jobId);
