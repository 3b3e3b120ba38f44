/**
 * An order and the job that follows from it are one transaction: both are there, or neither is.
 *
 * Run: `deno run -A examples/enqueue_in_transaction.ts`
 *
 * @module
 */

import { defineJob, newId } from "@runledger/core";
import { enqueueJob, getJob } from "@runledger/postgres";
import { JobCatalog } from "@runledger/runtime";
import type { TransactionSql } from "postgres";
import { z } from "zod";
import { openDatabase } from "./support/database.ts";

const confirmOrder = defineJob({
  type: "example.confirm_order",
  payload: z.object({ orderId: z.uuid() }),
});
const catalog = new JobCatalog().handle(confirmOrder, ({ orderId }) => console.log(`order ${orderId} is confirmed`));

await using database = await openDatabase();
const { sql } = database;
await catalog.sync(sql);
await sql`create table if not exists example_orders (id uuid primary key, item text not null)`;

/** A part of the application that knows nothing of workers: it takes the transaction that its caller has open. */
async function placeOrder(tx: TransactionSql, orderId: string, item: string): Promise<string> {
  await tx`insert into example_orders (id, item) values (${orderId}, ${item})`;
  const { jobId } = await enqueueJob(tx, confirmOrder.request({ orderId }));
  return jobId;
}

async function show(what: string, orderId: string, jobId: string): Promise<void> {
  const orders = await sql`select from example_orders where id = ${orderId}`;
  const job = await getJob(sql, jobId, { scope: "global" });
  console.log(`${what}: order ${orders.length > 0 ? "there" : "gone"}, job ${job === undefined ? "gone" : "there"}`);
}

// Committed: the order is there, and so is the job.
const kept = newId();
const keptJob = await sql.begin((tx) => placeOrder(tx, kept, "a ledger"));
await show("after commit", kept, keptJob);

// Rolled back: a check after the enqueue fails. No worker ever sees the job, however fast it polls.
const dropped = newId();
let droppedJob = "";
try {
  await sql.begin(async (tx) => {
    droppedJob = await placeOrder(tx, dropped, "a dragon");
    throw new Error("the dragon is out of stock");
  });
} catch (error) {
  console.log(`rolled back: ${error instanceof Error ? error.message : error}`);
}
await show("after rollback", dropped, droppedJob);

// A savepoint works the same way: what is undone takes its jobs with it, and the rest of the transaction goes on.
const outer = newId();
const inner = newId();
let innerJob = "";
const outerJob = await sql.begin(async (tx) => {
  const jobId = await placeOrder(tx, outer, "a pen");
  await tx.savepoint(async (nested) => {
    innerJob = await placeOrder(nested, inner, "ink");
    throw new Error("no ink");
  }).catch(() => {});
  return jobId;
});
await show("outer transaction", outer, outerJob);
await show("undone savepoint", inner, innerJob);
