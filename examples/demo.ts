/**
 * The demo: enqueues jobs of every fate, runs a worker until all have ended, and shows the ledger as it grows.
 *
 * Run: `deno task demo`. Uses the database of `DATABASE_URL`, or an embedded PostgreSQL 18 that it stops at its end. With
 * `deno task demo --pglite` the database is PGlite, within this process and in memory.
 *
 * @module
 */

import { drawWorkflowRun } from "@runledger/postgres";
import { TERMINAL_JOB_STATUSES } from "@runledger/core";
import { consoleLogger, shutdownSignal, Supervisor } from "@runledger/runtime";
import process from "node:process";
import { setTimeout as delay } from "node:timers/promises";
import { ACTS } from "./demo/acts.ts";
import type { WatchedJob } from "./demo/acts.ts";
import { openDemoDatabase } from "./demo/database.ts";
import type { DemoDatabase } from "./demo/database.ts";
import { handleInvoice, invoiceAct, renderStepRuns } from "./demo/invoice.ts";
import type { InvoiceRun } from "./demo/invoice.ts";
import { createDemoCatalog } from "./demo/jobs.ts";
import { followLedger } from "./demo/ledger_feed.ts";
import { createLedgerTable } from "./demo/ledger_table.ts";
import type { Screen } from "./demo/ledger_table.ts";
import { renderSummary, summarize } from "./demo/summary.ts";
import { INTERRUPTED } from "./support/database.ts";

/** How often the ledger is read, in milliseconds. */
const REFRESH_MS = 40;

/** The events that end a job have the names of the statuses that they lead to. */
const ENDS: ReadonlySet<string> = new Set(TERMINAL_JOB_STATUSES);

const screen: Screen = {
  write: (text) => void process.stdout.write(text),
  isLive: process.stdout.isTTY === true,
  hasColor: process.stdout.isTTY === true && (process.env.NO_COLOR ?? "") === "",
  // A file has no width.
  width: () => process.stdout.isTTY === true ? Math.max(process.stdout.columns || 80, 40) : 1000,
};

const PGLITE = "--pglite";

const unknown = process.argv.slice(2).filter((argument) => argument !== PGLITE);
if (unknown.length > 0) console.error(`The demo has one option, ${PGLITE}; it does not know ${unknown.join(" ")}`);
process.exitCode = unknown.length > 0 ? 1 : await runDemo(shutdownSignal());

async function runDemo(signal: AbortSignal): Promise<number> {
  await using database = await openDemoDatabase(process.argv.includes(PGLITE), signal);
  const { db, read } = database;
  if (signal.aborted) return INTERRUPTED;
  screen.write(`Runledger on ${database.place}\n\n`);

  const catalog = handleInvoice(createDemoCatalog());
  await catalog.sync(db);
  const watched: WatchedJob[] = [];
  const invoice: InvoiceRun = { runId: undefined };
  const acts = [...ACTS, invoiceAct(invoice)];
  for (const { title, enqueue } of acts) {
    watched.push(...await enqueue(db));
    screen.write(`  enqueued ${title}\n`);
  }
  screen.write("\n");

  const supervisor = new Supervisor(db, {
    catalog,
    config: { pollIntervalMs: 50, maxGlobalConcurrency: 4, claimBatchSize: 4 },
    logger: { ...consoleLogger, debug: () => {}, info: () => {} },
  });
  const outside = Promise.allSettled(acts.map(({ meanwhile }) => meanwhile?.(db, signal)));
  const hasEnded = await showLedger(read, watched, signal);
  await outside;
  await supervisor.shutdown({ timeoutMs: hasEnded ? 5000 : 500 });

  if (!hasEnded) {
    const rest = database.isKept ? "waits in the database" : "is gone with this process";
    screen.write(`\ninterrupted; what has not ended ${rest}\n`);
    return INTERRUPTED;
  }
  const summary = await summarize(read, watched.map(({ jobId }) => jobId));
  screen.write(`\n${renderSummary(summary)}\n`);
  if (invoice.runId !== undefined) {
    screen.write(`\nselect * from runledger.workflow_step_runs\n${await renderStepRuns(read, invoice.runId)}\n`);
    screen.write(`\n${await drawWorkflowRun(db, invoice.runId, { scope: "all" })}\n`);
  }
  return 0;
}

/** Prints the ledger until every job has ended; gives false when it was interrupted. */
async function showLedger(
  read: DemoDatabase["read"],
  watched: readonly WatchedJob[],
  signal: AbortSignal,
): Promise<boolean> {
  const feed = followLedger(read, watched.map(({ jobId }) => jobId));
  const table = createLedgerTable(screen, new Map(watched.map(({ jobId, label }) => [jobId, label])));
  const ended = new Set<string>();
  let events = 0;
  table.open();
  while (ended.size < watched.length && !signal.aborted) {
    const rows = await feed.next();
    for (const { jobId, eventType } of rows) if (ENDS.has(eventType)) ended.add(jobId);
    events += rows.length;
    table.append(rows, { ended: ended.size, total: watched.length, events });
    await delay(REFRESH_MS, undefined, { signal }).catch(() => {});
  }
  table.close();
  return ended.size === watched.length;
}
