/**
 * A producer beside `examples/worker.ts`: enqueues a few jobs and ends. The worker may run already, start later, or be on
 * another machine.
 *
 * Run: `deno task produce [how many emails]`, while `deno task worker` runs in another terminal.
 *
 * @module
 */

import { isRunledgerError } from "@runledger/core";
import { enqueueJobs } from "@runledger/postgres";
import process from "node:process";
import { makeReport, sendEmail } from "./jobs.ts";
import { openDatabase } from "./support/database.ts";

const count = Number(process.argv[2] ?? "20");
if (!Number.isInteger(count) || count < 1 || count > 5000) {
  console.error("How many emails? A whole number from 1 to 5000.");
  process.exit(1);
}

const emails = Array.from(
  { length: count },
  (_, n) => sendEmail.request({ to: `reader${n}@example.com`, subject: n % 10 === 9 ? "will bounce" : `Issue ${n}` }),
);
const report = makeReport.request({ month: "2026-11", pages: 30 }, { priority: 10 });

await using database = await openDatabase();
try {
  // One statement, however many there are: all of them exist, or none.
  const enqueued = await enqueueJobs(database.sql, [...emails, report]);
  console.log(`enqueued ${enqueued.length} jobs on ${database.place}`);
} catch (error) {
  if (!isRunledgerError(error, "job.definition_not_found_or_disabled")) throw error;
  // Definitions are rows that the worker's catalog writes: until it has, nobody could run these jobs.
  console.error(`${error.message} Start "deno task worker" once before.`);
  process.exitCode = 1;
}
