/**
 * No server at all: PGlite is PostgreSQL within this process, and producer, worker and application share it.
 *
 * Run: `deno run -A examples/pglite_in_process.ts`
 *
 * @module
 */

import { PGlite } from "@electric-sql/pglite";
import type { Transaction } from "@electric-sql/pglite";
import { newId, WorkflowDagBuilder } from "@runledger/core";
import { enqueueJob, enqueueWorkflowRun, migrate } from "@runledger/postgres";
import { silentLogger, Supervisor } from "@runledger/runtime";
import { waitForJob } from "./support/ledger.ts";
import { confirmOrder, orderCatalog, showFate } from "./support/orders.ts";
import { waitForRun } from "./support/workflow.ts";

// In memory; with a path, such as PGlite.create("./data"), what is stored is there again the next time.
const db = await PGlite.create();
await migrate(db);
await orderCatalog.sync(db);
await db.exec("create table example_orders (id uuid primary key, item text not null)");

async function placeOrder(tx: Transaction, orderId: string, item: string): Promise<string> {
  await tx.query("insert into example_orders (id, item) values ($1, $2)", [orderId, item]);
  const { jobId } = await enqueueJob(tx, confirmOrder.request({ orderId }));
  return jobId;
}

async function show(what: string, orderId: string, jobId: string): Promise<void> {
  const { rows: [order] } = await db.query("select item from example_orders where id = $1", [orderId]);
  await showFate(db, what, { order, jobId });
}

// Rolled back: neither is there.
const dropped = newId();
let droppedJob = "";
await db.transaction(async (tx) => {
  droppedJob = await placeOrder(tx, dropped, "a dragon");
  throw new Error("the dragon is out of stock");
}).catch(() => {});
await show("after rollback", dropped, droppedJob);

const kept = newId();
const keptJob = await db.transaction((tx) => placeOrder(tx, kept, "a pen"));
await show("after commit", kept, keptJob);

// PGlite has one session, so calls wait for each other: a transaction must not wait for something that another call does.
const supervisor = new Supervisor(db, { catalog: orderCatalog, logger: silentLogger });
console.log(`its job is ${(await waitForJob(db, keptJob)).status}`);

// Workflows are no different.
const run = new WorkflowDagBuilder("example.two_orders")
  .job("first", confirmOrder.request({ orderId: newId() }))
  .job("second", confirmOrder.request({ orderId: newId() })).afterSuccess("second", ["first"])
  .build();
const { runId } = await enqueueWorkflowRun(db, run);
console.log(`the run is ${(await waitForRun(db, runId)).status}`);

await supervisor.shutdown();
await db.close();
