/**
 * A job for later: due at an instant, moved while it waits, and put off by its own handler without spending an attempt.
 *
 * Run: `deno run -A examples/delayed_job.ts`
 *
 * @module
 */

import { defineJob, snooze } from "@runledger/core";
import { editJob, enqueueJob, explainJob, formatJobExplanation, getJob, listJobEvents } from "@runledger/postgres";
import { consoleLogger, JobCatalog, Supervisor } from "@runledger/runtime";
import { z } from "zod";
import { openDatabase } from "./support/database.ts";
import { waitForJob } from "./support/ledger.ts";

const endTrial = defineJob({
  type: "example.end_trial",
  payload: z.object({ customer: z.string() }),
  output: z.object({ endedAfterAttempts: z.int() }),
  maxAttempts: 1,
});

const HOUR_MS = 3_600_000;
let isBooksClosed = true;

const catalog = new JobCatalog().handle(endTrial, ({ customer }, context) => {
  if (isBooksClosed) {
    isBooksClosed = false;
    // Not a failure: the job waits on, and has all its attempts. A failure would be final here, with one attempt.
    return snooze(100, { reason: "the books are closed until noon" });
  }
  console.log(`the trial of ${customer} ends`);
  return { endedAfterAttempts: context.attempt };
});

await using database = await openDatabase();
const { sql } = database;
await catalog.sync(sql);
await using _supervisor = new Supervisor(sql, {
  catalog,
  config: { pollIntervalMs: 25 },
  logger: { ...consoleLogger, debug: () => {}, info: () => {} },
});

// Due in two weeks. Nothing has to stay alive until then: the job is a row.
const nextRunAt = new Date(Date.now() + 14 * 24 * HOUR_MS);
const { jobId } = await enqueueJob(sql, endTrial.request({ customer: "ada" }, { nextRunAt }));
const waiting = await getJob(sql, jobId, { scope: "global" });
console.log(`it is ${waiting?.status}, stage ${waiting?.stage}`);

// Anybody may ask why it does not run.
const explanation = await explainJob(sql, jobId, { scope: "global" });
console.log(`asked why: ${explanation?.kind}`);
if (explanation !== undefined) console.log(formatJobExplanation(explanation).replaceAll(/^/gm, "  "));

// The customer ends it sooner. Who moved it, and why, goes into the ledger.
const edit = { scope: "global", nextRunAt: new Date(), reason: "the customer asked to", actor: "grace" } as const;
console.log(`moved: ${(await editJob(sql, jobId, edit)).kind}`);

const job = await waitForJob(sql, jobId);
console.log(`the job is ${job.status} with output ${JSON.stringify(job.output)}`);

// The ledger has all of it: the edit with reason and actor, and the attempt that was put off.
const { items } = await listJobEvents(sql, jobId, { scope: "global" });
console.log(items.map(({ eventType }) => eventType).join(", "));
