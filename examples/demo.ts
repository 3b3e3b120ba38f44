/**
 * The demo: enqueues jobs of every fate, runs a worker until all have ended, and shows the ledger as it grows.
 *
 * Run: `deno task demo`. Uses the database of `DATABASE_URL`, or an embedded PostgreSQL 18 that it stops at its end.
 *
 * @module
 */

import { drawWorkflowRun } from "@runledger/postgres";
import { TERMINAL_JOB_STATUSES } from "@runledger/core";
import { consoleLogger, shutdownSignal, Supervisor } from "@runledger/runtime";
import process from "node:process";
import { setTimeout as delay } from "node:timers/promises";
import type postgres from "postgres";
import { ACTS } from "./demo/acts.ts";
import type { WatchedJob } from "./demo/acts.ts";
import { handleInvoice, invoiceAct, renderStepRuns } from "./demo/invoice.ts";
import type { InvoiceRun } from "./demo/invoice.ts";
import { createDemoCatalog } from "./demo/jobs.ts";
import { followLedger } from "./demo/ledger_feed.ts";
import { createLedgerTable } from "./demo/ledger_table.ts";
import type { Screen } from "./demo/ledger_table.ts";
import { renderSummary, summarize } from "./demo/summary.ts";
import { INTERRUPTED, openDatabase } from "./support/database.ts";

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

process.exitCode = await runDemo(shutdownSignal());

async function runDemo(signal: AbortSignal): Promise<number> {
  await using database = await openDatabase(signal);
  const { sql } = database;
  if (signal.aborted) return INTERRUPTED;
  screen.write(`Runledger on ${database.place}\n\n`);

  const catalog = handleInvoice(createDemoCatalog());
  await catalog.sync(sql);
  const watched: WatchedJob[] = [];
  const invoice: InvoiceRun = { runId: undefined };
  const acts = [...ACTS, invoiceAct(invoice)];
  for (const { title, enqueue } of acts) {
    watched.push(...await enqueue(sql));
    screen.write(`  enqueued ${title}\n`);
  }
  screen.write("\n");

  const supervisor = new Supervisor(sql, {
    catalog,
    config: { pollIntervalMs: 50, maxGlobalConcurrency: 4, claimBatchSize: 4 },
    logger: { ...consoleLogger, debug: () => {}, info: () => {} },
  });
  const outside = Promise.allSettled(acts.map(({ meanwhile }) => meanwhile?.(sql, signal)));
  const hasEnded = await showLedger(sql, watched, signal);
  await outside;
  await supervisor.shutdown({ timeoutMs: hasEnded ? 5000 : 500 });

  if (!hasEnded) {
    screen.write("\ninterrupted; what has not ended waits in the database\n");
    return INTERRUPTED;
  }
  const summary = await summarize(sql, watched.map(({ jobId }) => jobId));
  screen.write(`\n${renderSummary(summary)}\n`);
  if (invoice.runId !== undefined) {
    screen.write(`\nselect * from runledger.workflow_step_runs\n${await renderStepRuns(sql, invoice.runId)}\n`);
    screen.write(`\n${await drawWorkflowRun(sql, invoice.runId, { scope: "all" })}\n`);
  }
  return 0;
}

/** Prints the ledger until every job has ended; gives false when it was interrupted. */
async function showLedger(sql: postgres.Sql, watched: readonly WatchedJob[], signal: AbortSignal): Promise<boolean> {
  const feed = followLedger(sql, watched.map(({ jobId }) => jobId));
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
