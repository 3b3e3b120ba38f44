/**
 * A process for the tests of signals: one job, whose handler runs when the signal comes, and ends then or never.
 *
 * @module
 */

import { defineJob } from "@runledger/core";
import { enqueueJob } from "@runledger/postgres";
import { JobCatalog, shutdownSignal, Supervisor } from "@runledger/runtime";
import process from "node:process";
import postgres from "postgres";

const [url = "", end] = process.argv.slice(2);
const sql = postgres(url, { max: 4, onnotice: () => {} });
const signal = shutdownSignal();
const job = defineJob({ type: "signalled" });
const catalog = new JobCatalog().handle(job, async () => {
  console.log("started");
  await new Promise<void>((resolve) => {
    if (end === "ends") signal.addEventListener("abort", () => resolve());
  });
});
await catalog.sync(sql);
await enqueueJob(sql, job.request({}));
signal.addEventListener("abort", () => console.log("stopping"));
const supervisor = new Supervisor(sql, { catalog, config: { pollIntervalMs: 20 } });
const report = await supervisor.runUntilShutdown({ signal, timeoutMs: 30_000 });
console.log(JSON.stringify(report.worker));
await sql.end();
