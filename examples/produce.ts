/**
 * A producer beside `examples/worker.ts`: enqueues a few jobs and ends. The worker may run already, start later, or be on
 * another machine.
 *
 * Run: `deno task produce [how many emails] [name of the issue]`, while `deno task worker` runs in another terminal. An
 * issue that has a name is sent once, however often the command is repeated.
 *
 * @module
 */

import { isRunledgerError } from "@runledger/core";
import { enqueueJobs, readJobMetrics } from "@runledger/postgres";
import process from "node:process";
import { makeReport, sendEmail } from "./jobs.ts";
import { openDatabase } from "./support/database.ts";

const [, , howMany = "20", issue] = process.argv;
const count = Number(howMany);
if (!Number.isInteger(count) || count < 1 || count > 5000) {
  console.error("How many emails? A whole number from 1 to 5000.");
  process.exit(1);
}
if (issue !== undefined && !/^[\w.-]{1,100}$/.test(issue)) {
  console.error("The name of an issue has up to a hundred letters, digits, dots and dashes.");
  process.exit(1);
}

/** A worker that has nothing better to do claims within milliseconds. */
const PATIENCE_MS = 10_000;

/** The key of a job that must not exist twice. Without a name there is nothing to tell a repetition by. */
const once = (what: string) => issue === undefined ? {} : { idempotencyKey: `${issue}:${what}` };

const emails = Array.from({ length: count }, (_, n) =>
  sendEmail.request(
    { to: `reader${n}@example.com`, subject: n % 10 === 9 ? "will bounce" : `Issue ${n}` },
    once(`reader${n}`),
  ));
const report = makeReport.request({ month: "2026-11", pages: 30 }, { priority: 10, ...once("report") });

await using database = await openDatabase();
try {
  // One statement, however many there are: all of them exist, or none.
  const answers = await enqueueJobs(database.sql, [...emails, report]);
  const enqueued = answers.filter(({ disposition }) => disposition === "inserted");
  console.log(`enqueued ${enqueued.length} jobs on ${database.place}`);
  // Equal requests under the same keys are found, not made again.
  if (enqueued.length < answers.length) console.log(`${answers.length - enqueued.length} were there already`);

  for (const { jobType, due, leased, oldestDueMs = 0 } of await readJobMetrics(database.sql, { scope: "global" })) {
    if (due + leased === 0) continue;
    console.log(`  ${jobType}: ${due} wait for a worker, ${leased} are being worked on`);
    if (oldestDueMs > PATIENCE_MS) console.log("    some have waited for a while: is a worker running?");
  }
} catch (error) {
  if (!isRunledgerError(error, "job.definition_not_found_or_disabled")) throw error;
  // Definitions are rows that the worker's catalog writes: until it has, nobody could run these jobs.
  console.error(`${error.message} Start "deno task worker" once before.`);
  process.exitCode = 1;
}
