/**
 * A worker process: runs jobs until SIGINT or SIGTERM, then lets running handlers end. A second signal ends it at once.
 *
 * Run: `deno task worker`, and in another terminal `deno task produce`. Uses the database of `DATABASE_URL`, or an embedded
 * PostgreSQL that it shares with the other examples of this checkout. Settings are read from `JOBS_*` variables.
 *
 * @module
 */

import { JobFailure } from "@runledger/core";
import { consoleLogger, JobCatalog, JobsConfig, shutdownSignal, Supervisor } from "@runledger/runtime";
import { setTimeout as delay } from "node:timers/promises";
import { makeReport, sendEmail } from "./jobs.ts";
import { openDatabase } from "./support/database.ts";

const catalog = new JobCatalog()
  .handle(sendEmail, async ({ to, subject }, context) => {
    await delay(100, undefined, { signal: context.signal }); // stands for a call to a mail service
    if (subject.includes("bounce")) throw JobFailure.terminal("mail.rejected", `the mail server refuses ${to}`);
    console.log(`sent "${subject}" to ${to}`);
    return { messageId: context.jobId };
  })
  .handle(makeReport, async ({ month, pages }, context) => {
    // The attempt before this one may have been cut off by a deploy: go on where it stopped.
    for (let done = context.progressDone ?? 0; done < pages; done++) {
      await delay(50, undefined, { signal: context.signal });
      if (done % 10 === 9) await context.progress({ progress: { done: done + 1, total: pages } });
    }
    console.log(`made the report of ${month} with ${pages} pages`);
    return { pages };
  });

/** Enough for the slowest handler to come to an end or to its next checkpoint. */
const SHUTDOWN_TIMEOUT_MS = 10_000;

// Before anything else, so that a signal during the start is not lost.
const signal = shutdownSignal();
const config = readConfig();

await using database = await openDatabase(signal);
await catalog.sync(database.sql);

const supervisor = new Supervisor(database.sql, {
  catalog,
  config,
  // Ended jobs stay for a week; without this they stay for ever.
  retention: { olderThanMs: 7 * 24 * 60 * 60 * 1000 },
  logger: { ...consoleLogger, debug: () => {}, info: () => {} },
});
console.log(`worker ready on ${database.place}: ${catalog.jobTypes.join(", ")}`);

signal.addEventListener(
  "abort",
  () => console.log("worker stops when its jobs have ended; a second signal ends it now"),
);
const { worker } = await supervisor.runUntilShutdown({ signal, timeoutMs: SHUTDOWN_TIMEOUT_MS });
if (worker !== undefined) {
  const { drained, aborted, handedBack, left } = worker;
  console.log(`worker stopped: ${drained} drained, ${aborted} aborted, ${handedBack} handed back, ${left.length} left`);
}

/** A setting that cannot be is the operator's mistake, not a bug: one message, no stack. */
function readConfig(): JobsConfig {
  try {
    return JobsConfig.fromEnv();
  } catch (error) {
    console.error(error instanceof TypeError ? error.message : error);
    Deno.exit(1);
  }
}
