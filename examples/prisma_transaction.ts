/**
 * Prisma writes an order and Runledger enqueues its job in one interactive transaction; the worker runs on the pool of
 * Prisma's adapter.
 *
 * Run: `deno run -A examples/prisma_transaction.ts`
 *
 * @module
 */

import { isRunledgerError, newId } from "@runledger/core";
import { enqueueJob } from "@runledger/postgres";
import { fromPrisma } from "@runledger/postgres/orm";
import { silentLogger, Supervisor } from "@runledger/runtime";
// With an import map or a package.json this is "@prisma/adapter-pg".
import { PrismaPg } from "npm:@prisma/adapter-pg@7.10.0";
import pg from "pg";
import { openDatabase } from "./support/database.ts";
import { waitForJob } from "./support/ledger.ts";
import { confirmOrder, orderCatalog, showFate } from "./support/orders.ts";
// In an application: what `prisma generate` made of schema.prisma.
import { PrismaClient } from "./support/prisma_client.ts";
import type { PrismaTransaction } from "./support/prisma_client.ts";

await using database = await openDatabase();
// One pool for both: given a connection string, the adapter would open one of its own, which Runledger cannot use.
const pool = new pg.Pool({ connectionString: database.url });
const prisma = new PrismaClient({ adapter: new PrismaPg(pool) });
await prisma.$executeRawUnsafe(
  "create table if not exists example_prisma_orders (id uuid primary key, item text not null)",
);

await orderCatalog.sync(pool);

async function placeOrder(tx: PrismaTransaction, orderId: string, item: string): Promise<string> {
  await tx.order.create({ data: { id: orderId, item } });
  const { jobId } = await enqueueJob(fromPrisma(tx), confirmOrder.request({ orderId }));
  return jobId;
}

async function show(what: string, orderId: string, jobId: string): Promise<void> {
  const order = await prisma.order.findUnique({ where: { id: orderId } });
  await showFate(pool, what, { order, jobId });
}

// Rolled back: neither is there.
const dropped = newId();
let droppedJob = "";
await prisma.$transaction(async (tx) => {
  droppedJob = await placeOrder(tx, dropped, "a dragon");
  throw new Error("the dragon is out of stock");
}).catch(() => {});
await show("after rollback", dropped, droppedJob);

// An idempotency key keeps its meaning: the error that Prisma wraps is Runledger's again, with the fields that differ.
const kept = newId();
const idempotencyKey = `order:${kept}`;
const keptJob = await prisma.$transaction((tx) => placeOrder(tx, kept, "a pen"));
await enqueueJob(fromPrisma(prisma), confirmOrder.request({ orderId: kept }, { idempotencyKey }));
try {
  await prisma.$transaction((tx) =>
    enqueueJob(fromPrisma(tx), confirmOrder.request({ orderId: newId() }, { idempotencyKey }))
  );
} catch (error) {
  if (!isRunledgerError(error, "job.idempotency_conflict")) throw error;
  console.log(`same key, another order: ${error.code}, which differs in ${error.details?.fields}`);
}
await show("after commit", kept, keptJob);

const supervisor = new Supervisor(pool, { catalog: orderCatalog, logger: silentLogger });
console.log(`its job is ${(await waitForJob(pool, keptJob)).status}`);
await supervisor.shutdown();
await prisma.$disconnect();
await pool.end();
