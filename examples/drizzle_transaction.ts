/**
 * Drizzle writes an order and Runledger enqueues its job in one transaction; the worker runs on Drizzle's own pool.
 *
 * Run: `deno run -A examples/drizzle_transaction.ts`
 *
 * @module
 */

import { newId } from "@runledger/core";
import { atomically, enqueueJob } from "@runledger/postgres";
import { fromDrizzle } from "@runledger/postgres/orm";
import { silentLogger, Supervisor } from "@runledger/runtime";
// With an import map or a package.json these are "drizzle-orm", "drizzle-orm/pg-core" and "drizzle-orm/postgres-js".
import { eq, sql } from "npm:drizzle-orm@0.45.4";
import { pgTable, text, uuid } from "npm:drizzle-orm@0.45.4/pg-core";
import { drizzle } from "npm:drizzle-orm@0.45.4/postgres-js";
import postgres from "postgres";
import { openDatabase } from "./support/database.ts";
import { waitForJob } from "./support/ledger.ts";
import { confirmOrder, orderCatalog, showFate } from "./support/orders.ts";

const orders = pgTable("example_drizzle_orders", { id: uuid().primaryKey(), item: text().notNull() });

await using database = await openDatabase();
const db = drizzle(postgres(database.url, { onnotice: () => {} }));
await db.execute(sql`create table if not exists example_drizzle_orders (id uuid primary key, item text not null)`);

// A pool needs no adapter: Drizzle shows its own as $client, and a worker is woken through it.
const pool = db.$client;
await orderCatalog.sync(pool);

/** A transaction of Drizzle, as its callbacks get it. */
type Transaction = Parameters<Parameters<typeof db.transaction>[0]>[0];

async function placeOrder(tx: Transaction, orderId: string, item: string): Promise<string> {
  await tx.insert(orders).values({ id: orderId, item });
  const { jobId } = await enqueueJob(fromDrizzle(tx, sql), confirmOrder.request({ orderId }));
  return jobId;
}

async function show(what: string, orderId: string, jobId: string): Promise<void> {
  const [order] = await db.select().from(orders).where(eq(orders.id, orderId));
  await showFate(pool, what, { order, jobId });
}

// Rolled back: neither is there.
const dropped = newId();
let droppedJob = "";
await db.transaction(async (tx) => {
  droppedJob = await placeOrder(tx, dropped, "a dragon");
  tx.rollback();
}).catch(() => {});
await show("after rollback", dropped, droppedJob);

// A nested transaction of Drizzle is a savepoint; so is atomically, which undoes its jobs and leaves the rest usable.
const outer = newId();
const inner = newId();
let innerJob = "";
const outerJob = await db.transaction(async (tx) => {
  await tx.transaction(async (nested) => {
    innerJob = await placeOrder(nested, inner, "ink");
    nested.rollback();
  }).catch(() => {});
  await atomically(fromDrizzle(tx, sql), async (nested) => {
    await enqueueJob(nested, confirmOrder.request({ orderId: inner }));
    throw new Error("nobody wants that");
  }).catch(() => {});
  return await placeOrder(tx, outer, "a pen");
});
await show("undone savepoint", inner, innerJob);
await show("after commit", outer, outerJob);

const supervisor = new Supervisor(pool, { catalog: orderCatalog, logger: silentLogger });
console.log(`its job is ${(await waitForJob(pool, outerJob)).status}`);
await supervisor.shutdown();
await pool.end();
