/**
 * Handles over the transactions of Drizzle, Kysely and Prisma, so that a job is enqueued together with the rows that an
 * application writes by them.
 *
 * An ORM's transaction is no driver: it sends a statement by a method of its own, gives rows in its own shape and wraps
 * what the driver throws. Each function here makes a {@linkcode Queryable} of it. Nothing is imported: the ORM is known by
 * its methods, so this entry point adds no dependency.
 *
 * @example A transaction of Drizzle
 * ```ts ignore
 * import { enqueueJob } from "@runledger/postgres";
 * import { fromDrizzle } from "@runledger/postgres/orm";
 * import { sql } from "drizzle-orm";
 *
 * await db.transaction(async (tx) => {
 *   await tx.insert(orders).values({ id, item });
 *   await enqueueJob(fromDrizzle(tx, sql), confirmOrder.request({ orderId: id }));
 * });
 * ```
 *
 * @module
 */

import { RunledgerError } from "@runledger/core";
import { createScope, registerDriver } from "./_driver.ts";
import { createPGliteTransactionDriver } from "./_driver_pglite.ts";
import type { Queryable, StatementValue } from "./queryable.ts";

/** What is used of a Drizzle database or transaction; `Query` is what Drizzle's `sql` makes. */
export interface DrizzleHandle<Query> {
  /** Runs a query. */
  execute(query: Query): PromiseLike<unknown>;
  /** Runs a function in a transaction, or in a savepoint of this one. */
  transaction(fn: (tx: DrizzleHandle<Query>) => Promise<unknown>): Promise<unknown>;
}

/** Drizzle's tag `sql`, as `drizzle-orm` exports it. */
export type DrizzleSql<Query> = (strings: TemplateStringsArray, ...values: StatementValue[]) => Query;

/** A statement as Kysely compiles it. */
export interface KyselyStatement {
  /** The text, with `$1` and so on. */
  readonly sql: string;
  /** The values. */
  readonly parameters: readonly unknown[];
  /** The tree that it was compiled of: here the text again. */
  readonly query: {
    readonly kind: "RawNode";
    readonly sqlFragments: readonly string[];
    readonly parameters: readonly never[];
  };
  /** By what plugins know a query again. */
  readonly queryId: { readonly queryId: string };
}

/** What is used of a `Kysely` or its `Transaction`. */
export interface KyselyHandle {
  /** Whether it is a transaction. */
  readonly isTransaction: boolean;
  /** Gives the same handle without plugins. */
  withoutPlugins(): KyselyHandle;
  /** Runs a compiled statement. */
  executeQuery(statement: KyselyStatement): Promise<unknown>;
  /** Begins to build a transaction; a transaction has it, too, and refuses. */
  transaction(): { execute(fn: (trx: KyselyHandle) => Promise<unknown>): Promise<unknown> };
}

/** What is used of a `PrismaClient` or the client of its interactive transaction. */
export interface PrismaHandle {
  /** Runs a statement and gives its rows. */
  $queryRawUnsafe(text: string, ...values: unknown[]): PromiseLike<unknown>;
  /** Runs a statement and gives how many rows it changed. */
  $executeRawUnsafe(text: string, ...values: unknown[]): PromiseLike<number>;
}

/** An ORM's handle, reduced to what this module does with it. */
interface OrmHandle {
  readonly isTransaction: boolean;
  /** Runs a statement; gives rows or `{ rows }`. */
  readonly send: (text: string, values: readonly StatementValue[]) => Promise<unknown>;
  /** Runs a text of several statements. */
  readonly sendScript: (text: string) => Promise<unknown>;
  /** Opens a transaction, or a savepoint of this one; absent in a transaction: savepoints are sent as statements. */
  readonly begin?: (fn: (tx: Queryable) => Promise<unknown>) => Promise<unknown>;
}

/** A transaction has one handle, however often it is asked for: whether it is busy is known by the handle. */
const handles = new WeakMap<object, Queryable>();

/**
 * Makes a handle of a Drizzle transaction, or of a Drizzle database.
 *
 * Statements run in that transaction and are undone with it; {@linkcode atomically} inside of it is a savepoint. On a
 * database each call is a transaction of its own; there its pool, `db.$client`, is the better handle, since a worker can
 * listen on it. For drizzle-orm over postgres.js and node-postgres.
 *
 * @param db The transaction that `db.transaction(...)` gives, or the database.
 * @param sql The tag `sql` of `drizzle-orm`: by it values are sent as parameters.
 * @returns The handle, good as long as the transaction. The same one for the same transaction.
 * @throws {RunledgerError} `db.unsupported_driver` if the first argument has not Drizzle's methods, or the second is no
 * function.
 */
export function fromDrizzle<Query>(db: DrizzleHandle<Query>, sql: DrizzleSql<Query>): Queryable {
  assertHas("a Drizzle database or transaction", db, ["execute", "transaction"]);
  if (typeof sql !== "function") throw unsupported("The second argument must be the tag `sql` of drizzle-orm.");
  const execute = async (strings: readonly string[], values: readonly StatementValue[]) =>
    await db.execute(sql(Object.assign([...strings], { raw: strings }), ...values));
  return handleOf(db, {
    isTransaction: "rollback" in db,
    // Drizzle numbers parameters itself, in the order of the text: a value that is used twice is sent twice.
    send: (text, values) => {
      const order = [...text.matchAll(/\$(\d+)/g)].map(([, number]) => values[Number(number) - 1] ?? null);
      return execute(text.split(/\$\d+/), order);
    },
    sendScript: (text) => execute([text], []),
    begin: (fn) => db.transaction((tx) => fn(fromDrizzle(tx, sql))),
  });
}

/**
 * Makes a handle of a Kysely transaction, or of a Kysely instance.
 *
 * Statements run in that transaction and are undone with it; {@linkcode atomically} inside of it is a savepoint. On an
 * instance each call is a transaction of its own; there the `Pool` that its dialect was given is the better handle, since a
 * worker can listen on it. Plugins are left aside: `CamelCasePlugin` would rename the keys of stored payloads. For
 * `PostgresDialect`.
 *
 * @param db The transaction that `db.transaction().execute` or `startTransaction()` gives, or the instance.
 * @returns The handle, good as long as the transaction. The same one for the same transaction.
 * @throws {RunledgerError} `db.unsupported_driver` if it has not Kysely's methods.
 */
export function fromKysely(db: KyselyHandle): Queryable {
  assertHas("a Kysely instance or transaction", db, ["executeQuery", "withoutPlugins", "transaction"]);
  const send = async (text: string, values: readonly StatementValue[]) => {
    const query = { kind: "RawNode", sqlFragments: [text], parameters: [] } as const;
    const queryId = { queryId: "runledger" };
    return await db.withoutPlugins().executeQuery({ sql: text, parameters: values, query, queryId });
  };
  return handleOf(db, {
    isTransaction: db.isTransaction,
    send,
    sendScript: (text) => send(text, []),
    ...(db.isTransaction ? {} : { begin: (fn) => db.transaction().execute((trx) => fn(fromKysely(trx))) }),
  });
}

/**
 * Makes a handle of the client of an interactive Prisma transaction, or of a `PrismaClient`.
 *
 * Statements run in that transaction and are undone with it; {@linkcode atomically} inside of it is a savepoint. On a
 * `PrismaClient` each call is a transaction of its own; there the `Pool` that its adapter was given is the better handle,
 * since a worker can listen on it. For `@prisma/adapter-pg`.
 *
 * Prisma ends an interactive transaction after five seconds, unless its `timeout` says otherwise: then nothing was kept,
 * and calls throw `db.unavailable`.
 *
 * @param db The client that `$transaction(async (tx) => ...)` gives, or the `PrismaClient`.
 * @returns The handle, good as long as the transaction. The same one for the same transaction.
 * @throws {RunledgerError} `db.unsupported_driver` if it has not Prisma's methods.
 */
export function fromPrisma(db: PrismaHandle): Queryable {
  assertHas("a PrismaClient or the client of its transaction", db, ["$queryRawUnsafe", "$executeRawUnsafe"]);
  return handleOf(db, {
    isTransaction: !isPrismaClient(db),
    send: async (text, values) => await db.$queryRawUnsafe(text, ...values),
    sendScript: async (text) => await db.$executeRawUnsafe(text),
    ...(isPrismaClient(db) ? { begin: (fn) => db.$transaction((tx) => fn(fromPrisma(tx))) } : {}),
  });
}

/** A `PrismaClient`, as opposed to the client of a transaction. */
interface PrismaClientHandle extends PrismaHandle {
  $connect(): Promise<unknown>;
  $transaction(fn: (tx: PrismaHandle) => Promise<unknown>): Promise<unknown>;
}

/** The client of a transaction has `$transaction`, too, but it cannot connect. */
function isPrismaClient(db: PrismaHandle): db is PrismaClientHandle {
  return hasMethod(db, "$connect") && hasMethod(db, "$transaction");
}

function handleOf(db: object, orm: OrmHandle): Queryable {
  const known = handles.get(db);
  if (known !== undefined) return known;
  const query = (text: string, values?: readonly StatementValue[]) =>
    values === undefined ? orm.sendScript(text) : orm.send(text, values);
  const { begin } = orm;
  const handle = begin === undefined ? { query } : { query, transaction: begin };
  if (orm.isTransaction) {
    const scope = createScope("transaction", { isLost: false });
    registerDriver(handle, createPGliteTransactionDriver(handle, scope));
  }
  handles.set(db, handle);
  return handle;
}

function assertHas(what: string, db: object, methods: readonly string[]): void {
  const isObject = typeof db === "object" && db !== null;
  const missing = isObject ? methods.filter((name) => !hasMethod(db, name)) : [];
  if (isObject && missing.length === 0) return;
  const found = isObject ? `It has no method ${missing.join(", ")}.` : `A value of type ${typeof db} was passed.`;
  throw unsupported(`This is not ${what}. ${found}`);
}

function hasMethod(value: object, name: string): boolean {
  return typeof (value as Readonly<Record<string, unknown>>)[name] === "function";
}

function unsupported(message: string): RunledgerError {
  return new RunledgerError("db.unsupported_driver", { message });
}
