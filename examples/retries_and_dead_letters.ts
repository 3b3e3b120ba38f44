/**
 * Failures: some pass by themselves, some never do. What cannot be mended waits as a dead letter until somebody has fixed
 * the cause and requeues it.
 *
 * Run: `deno run -A examples/retries_and_dead_letters.ts`
 *
 * @module
 */

import { defineJob, JobFailure } from "@runledger/core";
import { enqueueJob, listDeadLetters, listJobAttempts, requeueJob } from "@runledger/postgres";
import { consoleLogger, JobCatalog, Supervisor } from "@runledger/runtime";
import { z } from "zod";
import { openDatabase } from "./support/database.ts";
import { printLedger, waitForJob } from "./support/ledger.ts";

const sendInvoice = defineJob({
  type: "example.send_invoice",
  payload: z.object({ to: z.string() }),
  maxAttempts: 4,
  // Plain data. Without it the delays are about 10 s, 20 s, 40 s and so on up to 5 minutes.
  retry: { kind: "exponential", baseMs: 50, maxMs: 2000, byCode: { "mail.rate_limited": 200 } },
});

/** Stands for the world outside, which is mended while the example runs. */
const blocked = new Set(["grace@example.com"]);

const catalog = new JobCatalog().handle(sendInvoice, ({ to }, context) => {
  if (blocked.has(to)) {
    // No retry can help: the job is dead-lettered at once, whatever attempts are left.
    throw JobFailure.terminal("mail.rejected", `the mail server refuses ${to}`);
  }
  if (context.attempt === 1) {
    // A stable code: for alerts to count, for retry policies to look up, for people to search by.
    throw JobFailure.retryable("mail.rate_limited", "the mail server asks to wait");
  }
  // Whatever else a handler throws is retried, too, under the code job.handler_threw.
  if (context.attempt === 2) throw new Error("the connection was reset");
  return { sentTo: to };
});

await using database = await openDatabase();
const { sql } = database;
await catalog.sync(sql);
await using _supervisor = new Supervisor(sql, {
  catalog,
  config: { pollIntervalMs: 25 },
  logger: { ...consoleLogger, debug: () => {}, info: () => {} },
});

// Fails twice, then succeeds.
const { jobId: flaky } = await enqueueJob(sql, sendInvoice.request({ to: "ada@example.com" }));
console.log(`flaky: ${(await waitForJob(sql, flaky)).status}`);
for (const attempt of (await listJobAttempts(sql, flaky, { scope: "global" })).items) {
  const end = attempt.errorCode === undefined ? "succeeded" : `${attempt.outcome} ${attempt.errorCode}`;
  const next = attempt.retryDelayMs === undefined ? "" : `, next one in ${attempt.retryDelayMs} ms`;
  console.log(`  attempt ${attempt.attempt}: ${end}${next}`);
}

// Fails for good. The dead letter keeps payload and checkpoint as they were.
const { jobId: poisoned } = await enqueueJob(sql, sendInvoice.request({ to: "grace@example.com" }));
const dead = await waitForJob(sql, poisoned);
const { items: deadLetters } = await listDeadLetters(sql, { scope: "global", errorCode: "mail.rejected", limit: 1 });
console.log(`poisoned: ${dead.status}, ${deadLetters[0]?.reason}: ${deadLetters[0]?.errorMessage}`);

// Somebody mends the cause and requeues the job, saying what they saw: of two people who do so, one is told
// that the job is no longer like that.
blocked.clear();
const options = {
  scope: "global",
  expectedStatus: "DEAD_LETTERED",
  expectedRunNumber: dead.runNumber,
  reason: "address was unblocked",
} as const;
const results = await Promise.all([requeueJob(sql, poisoned, options), requeueJob(sql, poisoned, options)]);
console.log(`two requeues at once: ${results.map(({ kind }) => kind).sort().join(", ")}`);
const requeued = await waitForJob(sql, poisoned, ({ status }) => status === "SUCCEEDED");
console.log(`requeued: ${requeued.status} in run ${requeued.runNumber}`);
await printLedger(sql, poisoned);
