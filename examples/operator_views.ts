/**
 * What an admin page shows and does: how job types are doing, which jobs failed and why, all that happened to one of them,
 * and a repair of many at once that touches only what was looked at.
 *
 * Run: `deno run -A examples/operator_views.ts`
 *
 * @module
 */

import { defineJob, JobFailure, newId } from "@runledger/core";
import {
  countJobs,
  enqueueJobs,
  explainJob,
  formatJobExplanation,
  listJobAttempts,
  listJobs,
  previewJobs,
  readJobMetrics,
  requeueJobs,
} from "@runledger/postgres";
import { consoleLogger, JobCatalog, Supervisor } from "@runledger/runtime";
import { z } from "zod";
import { openDatabase } from "./support/database.ts";
import { waitForJob } from "./support/ledger.ts";

const syncInvoice = defineJob({
  type: "example.sync_to_ledger",
  payload: z.object({ invoice: z.int() }),
  maxAttempts: 2,
  retry: { kind: "fixed", delayMs: 10 },
});

/** Stands for a certificate that has run out, and that somebody renews. */
let isRenewed = false;

const catalog = new JobCatalog().handle(syncInvoice, ({ invoice }) => {
  if (invoice % 2 === 0 && !isRenewed) throw JobFailure.retryable("bank.certificate", "the certificate has run out");
});

await using database = await openDatabase();
const { sql } = database;
await catalog.sync(sql);
await using _supervisor = new Supervisor(sql, {
  catalog,
  config: { pollIntervalMs: 25 },
  logger: { ...consoleLogger, debug: () => {}, info: () => {} },
});

// A tenant of its own, so that the example counts only what it made.
const organizationId = newId();
const requests = Array.from({ length: 10 }, (_, invoice) => syncInvoice.request({ invoice }, { organizationId }));
const jobs = await enqueueJobs(sql, requests);
await Promise.all(jobs.map(({ jobId }) => waitForJob(sql, jobId)));

// Every read says whose rows it may show: a tenant's, those of nobody ("global"), or everybody's ("all").
const scope = { organizationId };
const { count, isComplete } = await countJobs(sql, { scope, status: "SUCCEEDED" });
console.log(`succeeded: ${count}${isComplete ? "" : " or more"}`);
for (const { jobType, deadLettered, retries, runMs } of await readJobMetrics(sql, { scope })) {
  console.log(`${jobType}: ${deadLettered} dead letters, ${retries} retries, p95 known: ${runMs !== undefined}`);
}

// Lists are pages: as many as fit, and a cursor for the rest. They stay stable while jobs arrive.
const failed = { scope, status: "DEAD_LETTERED", errorCode: "bank.certificate" } as const;
const first = await listJobs(sql, { ...failed, limit: 3 });
const cursor = first.nextCursor === undefined ? {} : { cursor: first.nextCursor };
const second = await listJobs(sql, { ...failed, limit: 3, ...cursor });
console.log(`failed: ${first.items.length} on the first page, ${second.items.length} on the second`);

// One of them: why it stands where it stands, and each of its attempts.
const [job] = first.items;
if (job === undefined) throw new Error("nothing has failed");
const explanation = await explainJob(sql, job.jobId, { scope });
if (explanation !== undefined) console.log(formatJobExplanation(explanation).replaceAll(/^/gm, "  "));
const { items: attempts } = await listJobAttempts(sql, job.jobId, { scope });
console.log(`attempts: ${attempts.map(({ outcome, errorCode }) => `${outcome} ${errorCode}`).join(", ")}`);

// The repair: look first, and what is done then is done to exactly these, unless something has happened to them since.
isRenewed = true;
const { items: doomed } = await previewJobs(sql, failed);
const note = { scope, reason: "the certificate was renewed", actor: "grace" };
const { applied } = await requeueJobs(sql, doomed, note);
const again = await requeueJobs(sql, doomed, note);
console.log(`requeued: ${applied.length}; a second click: ${again.applied.length}, ${again.skipped.length} skipped`);
await Promise.all(applied.map((jobId) => waitForJob(sql, jobId, ({ status }) => status === "SUCCEEDED")));
console.log(`succeeded: ${(await countJobs(sql, { scope, status: "SUCCEEDED" })).count}`);
