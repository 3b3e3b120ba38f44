/**
 * Every kind of database handle, so that a test can run its operations over all of them.
 *
 * @module
 */

import { PGlite } from "@electric-sql/pglite";
import type { Queryable, StatementValue } from "@runledger/postgres";
import pg from "pg";
import postgres from "postgres";
import { silenceIntervalTimer } from "../../test_support/pglite_database.ts";

/** An open handle. Closing it undoes what a transaction handle did. */
export interface OpenHandle extends AsyncDisposable {
  readonly db: Queryable;
}

/** One kind of handle. */
export interface TestDriver {
  readonly name: string;
  /** Whether statements commit by themselves, so that another connection sees them. */
  readonly commits: boolean;
  /** Opens a handle on the database; PGlite has one of its own, which all tests of a file share. */
  open(url: string): Promise<OpenHandle>;
}

/** A small pool that prints no notices. */
export function quietPool(url: string, options: Record<string, unknown> = {}): postgres.Sql {
  return postgres(url, { max: 2, connect_timeout: 0, onnotice: () => {}, ...options });
}

/** Without a timeout, postgres.js waits for ever for a connection that broke during a statement and was not reopened. */
export function endPool(sql: postgres.Sql): Promise<void> {
  return sql.end({ timeout: 0.1 });
}

/** Keeps the transaction that `begin` opens until the handle is closed. */
export async function holdTransaction<Tx extends object>(
  begin: (fn: (tx: Tx) => Promise<void>) => Promise<unknown>,
  close: () => Promise<unknown>,
  handleOf: (tx: Tx) => Queryable,
): Promise<OpenHandle> {
  const opened = Promise.withResolvers<Tx>();
  const released = Promise.withResolvers<void>();
  const undo = new Error("undo");
  const ended = begin(async (tx) => {
    opened.resolve(tx);
    await released.promise;
    throw undo;
  }).catch((error: unknown) => {
    opened.reject(error);
  });
  return {
    db: handleOf(await opened.promise),
    async [Symbol.asyncDispose]() {
      released.resolve();
      await ended;
      await close();
    },
  };
}

let pglite: Promise<PGlite> | undefined;

/** PGlite takes two seconds and half a gigabyte, so there is one. Open it before the first test. */
export function sharedPGlite(): Promise<PGlite> {
  return pglite ??= startPGlite();
}

async function startPGlite(): Promise<PGlite> {
  silenceIntervalTimer();
  const database = await PGlite.create();
  await database.exec("create table warm_up (); drop table warm_up;");
  return database;
}

/** The drivers, by the kind of handle. */
export const DRIVERS: readonly TestDriver[] = [
  {
    name: "postgres.js pool",
    commits: true,
    open(url) {
      const sql = quietPool(url);
      return Promise.resolve({ db: sql, [Symbol.asyncDispose]: () => endPool(sql) });
    },
  },
  {
    name: "postgres.js pool without prepared statements",
    commits: true,
    open(url) {
      const sql = quietPool(url, { prepare: false });
      return Promise.resolve({ db: sql, [Symbol.asyncDispose]: () => endPool(sql) });
    },
  },
  {
    name: "postgres.js transaction",
    commits: false,
    open(url) {
      const sql = quietPool(url);
      return holdTransaction<postgres.TransactionSql>((fn) => sql.begin(fn), () => endPool(sql), (tx) => tx);
    },
  },
  {
    name: "postgres.js savepoint",
    commits: false,
    open(url) {
      const sql = quietPool(url);
      return holdTransaction<postgres.TransactionSql>(
        (fn) => sql.begin((tx) => tx.savepoint(fn)),
        () => endPool(sql),
        (tx) => tx,
      );
    },
  },
  {
    name: "postgres.js reserved connection",
    commits: true,
    async open(url) {
      const sql = quietPool(url);
      const reserved = await sql.reserve();
      return {
        db: reserved,
        async [Symbol.asyncDispose]() {
          reserved.release();
          await endPool(sql);
        },
      };
    },
  },
  {
    name: "node-postgres Pool",
    commits: true,
    open(url) {
      // A pool that is ended leaves the timers of its idle clients behind.
      const pool = new pg.Pool({ idleTimeoutMillis: 0, connectionString: url, max: 2 });
      return Promise.resolve({ db: pool, [Symbol.asyncDispose]: () => pool.end() });
    },
  },
  {
    name: "node-postgres Client",
    commits: true,
    async open(url) {
      const client = new pg.Client({ connectionString: url });
      await client.connect();
      return { db: client, [Symbol.asyncDispose]: () => client.end() };
    },
  },
  {
    name: "node-postgres PoolClient in a transaction",
    commits: false,
    async open(url) {
      const pool = new pg.Pool({ idleTimeoutMillis: 0, connectionString: url, max: 2 });
      const client = await pool.connect();
      await client.query("begin");
      return {
        db: client,
        async [Symbol.asyncDispose]() {
          await client.query("rollback");
          client.release();
          await pool.end();
        },
      };
    },
  },
  {
    name: "PGlite",
    commits: true,
    async open() {
      return { db: await sharedPGlite(), [Symbol.asyncDispose]: () => Promise.resolve() };
    },
  },
  {
    name: "PGlite transaction",
    commits: false,
    async open() {
      const database = await sharedPGlite();
      return holdTransaction<Parameters<Parameters<PGlite["transaction"]>[0]>[0]>(
        (fn) => database.transaction(fn),
        () => Promise.resolve(),
        (tx) => tx,
      );
    },
  },
  {
    name: "plain query object",
    commits: true,
    async open(url) {
      const client = new pg.Client({ connectionString: url });
      await client.connect();
      const query = async (text: string, values?: readonly StatementValue[]) =>
        (await client.query(text, values === undefined ? undefined : [...values])).rows;
      return { db: { query }, [Symbol.asyncDispose]: () => client.end() };
    },
  },
  {
    name: "plain query object on postgres.js",
    commits: true,
    async open(url) {
      const sql = quietPool(url, { max: 1 });
      const reserved = await sql.reserve();
      const query = async (text: string, values?: readonly StatementValue[]) =>
        await reserved.unsafe(text, values === undefined ? undefined : [...values]);
      return {
        db: { query },
        async [Symbol.asyncDispose]() {
          reserved.release();
          await endPool(sql);
        },
      };
    },
  },
];
