/**
 * Kysely writes an order and Runledger enqueues its job in one transaction; the worker runs on the pool of Kysely's dialect.
 *
 * Run: `deno run -A examples/kysely_transaction.ts`
 *
 * @module
 */

import { newId } from "@runledger/core";
import { enqueueJob } from "@runledger/postgres";
import { fromKysely } from "@runledger/postgres/orm";
import { silentLogger, Supervisor } from "@runledger/runtime";
// With an import map or a package.json this is "kysely".
import { CamelCasePlugin, Kysely, PostgresDialect } from "npm:kysely@0.28.18";
import type { Transaction } from "npm:kysely@0.28.18";
import pg from "pg";
import { openDatabase } from "./support/database.ts";
import { waitForJob } from "./support/ledger.ts";
import { confirmOrder, orderCatalog, showFate } from "./support/orders.ts";

/** The tables of the application. */
interface Tables {
  readonly exampleKyselyOrders: { readonly id: string; readonly itemName: string };
}

await using database = await openDatabase();
const pool = new pg.Pool({ connectionString: database.url });
// The plugin renames keys in every result. Runledger's handle leaves plugins aside, so payloads stay as they are.
const db = new Kysely<Tables>({ dialect: new PostgresDialect({ pool }), plugins: [new CamelCasePlugin()] });
await db.schema.createTable("exampleKyselyOrders").ifNotExists()
  .addColumn("id", "uuid", (column) => column.primaryKey())
  .addColumn("itemName", "text", (column) => column.notNull())
  .execute();

// The pool needs no adapter, and a worker is woken through it.
await orderCatalog.sync(pool);

async function placeOrder(trx: Transaction<Tables>, orderId: string, itemName: string): Promise<string> {
  await trx.insertInto("exampleKyselyOrders").values({ id: orderId, itemName }).execute();
  const { jobId } = await enqueueJob(fromKysely(trx), confirmOrder.request({ orderId }));
  return jobId;
}

async function show(what: string, orderId: string, jobId: string): Promise<void> {
  const order = await db.selectFrom("exampleKyselyOrders").selectAll().where("id", "=", orderId).executeTakeFirst();
  await showFate(pool, what, { order, jobId });
}

// Rolled back: neither is there.
const dropped = newId();
let droppedJob = "";
await db.transaction().execute(async (trx) => {
  droppedJob = await placeOrder(trx, dropped, "a dragon");
  throw new Error("the dragon is out of stock");
}).catch(() => {});
await show("after rollback", dropped, droppedJob);

// A transaction that is opened and closed by hand has savepoints; what is undone takes its jobs with it.
const kept = newId();
const undone = newId();
const trx = await db.startTransaction().execute();
const keptJob = await placeOrder(trx, kept, "a pen");
const savepoint = await trx.savepoint("ink").execute();
const undoneJob = await placeOrder(savepoint, undone, "ink");
await savepoint.rollbackToSavepoint("ink").execute();
await trx.commit().execute();
await show("undone savepoint", undone, undoneJob);
await show("after commit", kept, keptJob);

const supervisor = new Supervisor(pool, { catalog: orderCatalog, logger: silentLogger });
console.log(`its job is ${(await waitForJob(pool, keptJob)).status}`);
await supervisor.shutdown();
await db.destroy(); // ends the pool, too
