/**
 * node-postgres writes an order and Runledger enqueues its job in one transaction; the worker runs on the same pool.
 *
 * Run: `deno run -A examples/node_postgres_transaction.ts`
 *
 * @module
 */

import { newId } from "@runledger/core";
import { atomically, enqueueJob } from "@runledger/postgres";
import { silentLogger, Supervisor } from "@runledger/runtime";
import pg from "pg";
import { openDatabase } from "./support/database.ts";
import { waitForJob } from "./support/ledger.ts";
import { confirmOrder, orderCatalog, showFate } from "./support/orders.ts";

await using database = await openDatabase();
const pool = new pg.Pool({ connectionString: database.url });
await pool.query("create table if not exists example_pg_orders (id uuid primary key, item text not null)");
await orderCatalog.sync(pool);

/** node-postgres has no function for a transaction: it is three statements on one client. */
async function inTransaction<T>(fn: (client: pg.PoolClient) => Promise<T>): Promise<T> {
  const client = await pool.connect();
  // A client whose connection breaks while nobody listens ends the process.
  const onError = () => {};
  client.on("error", onError);
  try {
    await client.query("begin");
    const result = await fn(client);
    await client.query("commit");
    return result;
  } catch (error) {
    await client.query("rollback").catch(() => {});
    throw error;
  } finally {
    client.off("error", onError);
    client.release();
  }
}

async function placeOrder(client: pg.PoolClient, orderId: string, item: string): Promise<string> {
  await client.query("insert into example_pg_orders (id, item) values ($1, $2)", [orderId, item]);
  const { jobId } = await enqueueJob(client, confirmOrder.request({ orderId }));
  return jobId;
}

async function show(what: string, orderId: string, jobId: string): Promise<void> {
  const { rows: [order] } = await pool.query("select item from example_pg_orders where id = $1", [orderId]);
  await showFate(pool, what, { order, jobId });
}

// Rolled back: neither is there.
const dropped = newId();
let droppedJob = "";
await inTransaction(async (client) => {
  droppedJob = await placeOrder(client, dropped, "a dragon");
  throw new Error("the dragon is out of stock");
}).catch(() => {});
await show("after rollback", dropped, droppedJob);

// Inside a transaction of the application atomically is a savepoint: what is undone leaves the rest usable.
const kept = newId();
const undone = newId();
let undoneJob = "";
const keptJob = await inTransaction(async (client) => {
  await atomically(client, async (nested) => {
    await client.query("insert into example_pg_orders (id, item) values ($1, 'ink')", [undone]);
    undoneJob = (await enqueueJob(nested, confirmOrder.request({ orderId: undone }))).jobId;
    throw new Error("no ink");
  }).catch(() => {});
  return await placeOrder(client, kept, "a pen");
});
await show("undone savepoint", undone, undoneJob);
await show("after commit", kept, keptJob);

const supervisor = new Supervisor(pool, { catalog: orderCatalog, logger: silentLogger });
console.log(`its job is ${(await waitForJob(pool, keptJob)).status}`);
await supervisor.shutdown();
await pool.end();
