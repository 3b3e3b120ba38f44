/**
 * The shortest whole story: define a job, enqueue it, run a worker until it is done, read its ledger.
 *
 * Run: `deno run -A examples/quickstart.ts`. Uses the database of `DATABASE_URL`, or an embedded PostgreSQL.
 *
 * @module
 */

import { defineJob } from "@runledger/core";
import { enqueueJob, listJobLogs } from "@runledger/postgres";
import { consoleLogger, JobCatalog, Supervisor } from "@runledger/runtime";
import { z } from "zod";
import { openDatabase } from "./support/database.ts";
import { printLedger, waitForJob } from "./support/ledger.ts";

// 1. Define: a constant that the producer and the worker share. Payload and output are checked by their schemas.
const sendEmail = defineJob({
  type: "example.send_email",
  payload: z.object({ to: z.email(), subject: z.string() }),
  output: z.object({ messageId: z.string() }),
  maxAttempts: 5,
  timeoutSeconds: 30,
});

// 2. Handle: what a worker does with it. The types of payload and output follow from the definition.
const catalog = new JobCatalog().handle(sendEmail, (payload, context) => {
  context.log("info", `sending "${payload.subject}"`);
  return { messageId: `message-for-${payload.to}` };
});

await using database = await openDatabase();
const { sql } = database;

// The definitions are rows, too: enqueueing takes missing settings from them, and an operator can switch a type off.
await catalog.sync(sql);

// 3. Enqueue: one statement. The job exists as soon as it is committed, whether or not a worker runs.
const { jobId } = await enqueueJob(sql, sendEmail.request({ to: "ada@example.com", subject: "Your invoice" }));
console.log(`enqueued ${sendEmail.type}`);

// 4. Work: claims due jobs, runs their handlers, posts how they ended. It runs until it is disposed of.
await using _supervisor = new Supervisor(sql, {
  catalog,
  config: { pollIntervalMs: 50 },
  logger: { ...consoleLogger, debug: () => {} },
});

const job = await waitForJob(sql, jobId);
console.log(`the job is ${job.status}; its output is ${JSON.stringify(job.output)}`);

// 5. Read: everything that happened to the job is a row of runledger.job_events.
console.log("its ledger:");
await printLedger(sql, jobId);

// What its handler wrote is kept beside it.
for (const { level, message } of (await listJobLogs(sql, jobId, { scope: "global" })).items) {
  console.log(`its log: ${level} ${message}`);
}

// The supervisor and the database are disposed of here, in this order: handlers end first, then the pool is closed.
