/**
 * Handles over the transactions and databases of ORMs, as `tests/support/drivers.ts` has those of drivers.
 *
 * @module
 */

import { fromDrizzle, fromKysely, fromPrisma } from "@runledger/postgres/orm";
// Not in the import map: only what is about ORMs needs them.
import { sql as drizzleSql } from "npm:drizzle-orm@0.45.4";
import { drizzle as drizzlePg } from "npm:drizzle-orm@0.45.4/node-postgres";
import { drizzle as drizzleJs } from "npm:drizzle-orm@0.45.4/postgres-js";
import { CamelCasePlugin, Kysely, PostgresDialect } from "npm:kysely@0.28.18";
import type { Transaction } from "npm:kysely@0.28.18";
import { PrismaPg } from "npm:@prisma/adapter-pg@7.10.0";
import pg from "pg";
import { PrismaClient } from "../../examples/support/prisma_client.ts";
import type { PrismaTransaction } from "../../examples/support/prisma_client.ts";
import { endPool, holdTransaction, quietPool } from "./drivers.ts";
import type { TestDriver } from "./drivers.ts";

/** A client whose connection breaks while nobody listens to it or its pool ends the process; the ORMs do not listen. */
function openPool(url: string): pg.Pool {
  const pool = new pg.Pool({ connectionString: url, idleTimeoutMillis: 0, max: 2 });
  pool.on("error", () => {});
  pool.on("connect", (client) => client.on("error", () => {}));
  return pool;
}

/** The plugin renames the keys of every result, also within JSON; Runledger's results must not go through it. */
function openKysely(pool: pg.Pool): Kysely<unknown> {
  return new Kysely<unknown>({ dialect: new PostgresDialect({ pool }), plugins: [new CamelCasePlugin()] });
}

/** Prisma would end the transaction after five seconds. */
const NO_TIMEOUT = { timeout: 600_000 };

/** The ORMs, by the kind of handle. */
export const ORM_DRIVERS: readonly TestDriver[] = [
  {
    name: "Drizzle transaction on postgres.js",
    commits: false,
    open(url) {
      const pool = quietPool(url);
      const db = drizzleJs(pool);
      return holdTransaction<Parameters<Parameters<typeof db.transaction>[0]>[0]>(
        (fn) => db.transaction(fn),
        () => endPool(pool),
        (tx) => fromDrizzle(tx, drizzleSql),
      );
    },
  },
  {
    name: "Drizzle transaction on node-postgres",
    commits: false,
    open(url) {
      const pool = openPool(url);
      const db = drizzlePg(pool);
      return holdTransaction<Parameters<Parameters<typeof db.transaction>[0]>[0]>(
        (fn) => db.transaction(fn),
        () => pool.end(),
        (tx) => fromDrizzle(tx, drizzleSql),
      );
    },
  },
  {
    name: "Drizzle database on postgres.js",
    commits: true,
    open(url) {
      const pool = quietPool(url);
      const db = fromDrizzle(drizzleJs(pool), drizzleSql);
      return Promise.resolve({ db, [Symbol.asyncDispose]: () => endPool(pool) });
    },
  },
  {
    name: "Drizzle database on node-postgres",
    commits: true,
    open(url) {
      const pool = openPool(url);
      const db = fromDrizzle(drizzlePg(pool), drizzleSql);
      return Promise.resolve({ db, [Symbol.asyncDispose]: () => pool.end() });
    },
  },
  {
    // Drizzle changes how the pool that it is given reads times and writes JSON.
    name: "postgres.js pool that Drizzle has, too",
    commits: true,
    open(url) {
      const pool = quietPool(url);
      const { $client } = drizzleJs(pool);
      return Promise.resolve({ db: $client, [Symbol.asyncDispose]: () => endPool(pool) });
    },
  },
  {
    name: "Kysely transaction",
    commits: false,
    open(url) {
      const pool = openPool(url);
      const db = openKysely(pool);
      return holdTransaction<Transaction<unknown>>(
        (fn) => db.transaction().execute(fn),
        () => db.destroy(),
        (trx) => fromKysely(trx),
      );
    },
  },
  {
    name: "Kysely instance",
    commits: true,
    open(url) {
      const db = openKysely(openPool(url));
      return Promise.resolve({ db: fromKysely(db), [Symbol.asyncDispose]: () => db.destroy() });
    },
  },
  {
    name: "Prisma transaction",
    commits: false,
    open(url) {
      const pool = openPool(url);
      const prisma = new PrismaClient({ adapter: new PrismaPg(pool) });
      return holdTransaction<PrismaTransaction>(
        (fn) => prisma.$transaction(fn, NO_TIMEOUT),
        async () => {
          await prisma.$disconnect();
          await pool.end();
        },
        (tx) => fromPrisma(tx),
      );
    },
  },
  {
    name: "Prisma client",
    commits: true,
    open(url) {
      const pool = openPool(url);
      const prisma = new PrismaClient({ adapter: new PrismaPg(pool) });
      return Promise.resolve({
        db: fromPrisma(prisma),
        async [Symbol.asyncDispose]() {
          await prisma.$disconnect();
          await pool.end();
        },
      });
    },
  },
];
