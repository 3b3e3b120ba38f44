/**
 * The database handle: anything that runs a statement, told apart by its methods.
 *
 * @module
 */

import { RunledgerError } from "@runledger/core";
import { assertOpen, createScope, noteFailure, registerDriver, registeredDriver } from "./_driver.ts";
import type { Driver } from "./_driver.ts";
import { createPostgresJsDriver } from "./_driver_postgres_js.ts";
import { createPGliteTransactionDriver, createTransactionRunnerDriver } from "./_driver_pglite.ts";
import {
  createNodePostgresClientDriver,
  createNodePostgresPoolDriver,
  createStatementRunnerDriver,
} from "./_driver_session.ts";

/** A value that may be sent with a statement: everything else goes as text and is cast in the SQL. */
export type StatementValue = string | number | boolean | null;

/** One row of a result, by column name. */
export type Row = Readonly<Record<string, unknown>>;

/** What is used of every postgres.js handle; a reserved connection is no more than this. */
export interface PostgresJsHandle {
  /** The pool's options; transactions have none. */
  readonly options?: {
    /** Rewriting of names and values, which Runledger refuses. */
    readonly transform?: {
      readonly column?: { readonly from?: unknown; readonly to?: unknown };
      readonly value?: { readonly from?: unknown };
      readonly row?: { readonly from?: unknown };
    };
  };
  /** Runs a text as it is. */
  unsafe(text: string, values?: unknown[], options?: { prepare?: boolean; simple?: boolean }): PromiseLike<unknown>;
  /** Gives a value the type that the server is told. */
  typed(value: unknown, type: number): unknown;
}

/** A postgres.js pool, as `postgres()` gives it. */
export interface PostgresJsPool extends PostgresJsHandle {
  /** Runs a function in a transaction. */
  begin(fn: (tx: PostgresJsTransaction) => Promise<unknown>): Promise<unknown>;
}

/** A postgres.js transaction, as `begin` and `savepoint` give it. */
export interface PostgresJsTransaction extends PostgresJsHandle {
  /** Runs a function in a savepoint. */
  savepoint(fn: (tx: PostgresJsTransaction) => Promise<unknown>): Promise<unknown>;
}

/** A node-postgres `Client` or `PoolClient`. */
export interface NodePostgresClient {
  /** Runs a statement. */
  query(text: string, values?: unknown[]): Promise<unknown>;
  /** Tells a client from a plain runner. */
  connect(...rest: never[]): unknown;
  /** `I` outside a transaction, `T` inside, `E` inside a failed one; pg 8.17 and later. */
  getTransactionStatus?(): string | null;
  /** Adds a listener. */
  on(event: "error", listener: (error: Error) => void): unknown;
  /** Removes a listener. */
  removeListener(event: "error", listener: (error: Error) => void): unknown;
}

/** A node-postgres `Pool`. */
export interface NodePostgresPool {
  /** How many clients it has; tells a pool from a client. */
  readonly totalCount: number;
  /** Runs a statement on any client. */
  query(text: string, values?: unknown[]): Promise<unknown>;
  /** Takes a client out. */
  connect(): Promise<NodePostgresClient & { release(destroy?: boolean): void }>;
}

/** A PGlite transaction. */
export interface PGliteTransaction {
  /** Runs a statement. */
  query(text: string, values?: unknown[]): Promise<unknown>;
  /** Runs several statements. */
  exec(text: string): Promise<unknown>;
  /** Undoes the transaction. */
  rollback(): Promise<unknown>;
}

/**
 * A PGlite instance, or any other object that runs a statement and opens transactions by itself.
 *
 * A transaction that has such a method, too, is asked for the savepoints of {@linkcode atomically}.
 */
export interface TransactionRunner {
  /** Runs a statement and commits it. */
  query(text: string, values?: StatementValue[]): Promise<unknown>;
  /** Runs several statements; without it, `query` is called with a text of several statements and no values. */
  exec?(text: string): Promise<unknown>;
  /** Runs a function in a transaction, which is undone if it throws. */
  transaction(fn: (tx: PGliteTransaction | StatementRunner | TransactionRunner) => Promise<unknown>): Promise<unknown>;
}

/**
 * The smallest handle: one method on one session.
 *
 * Single statements also work on an object that hides a pool. {@linkcode atomically} needs the session.
 */
export interface StatementRunner {
  /** Runs a statement; gives its rows, or an object that holds them. Without values the text may hold several. */
  query(text: string, values?: readonly StatementValue[]): Promise<unknown>;
}

/**
 * Anything that runs a statement: a pool or an open transaction, whatever opened it.
 *
 * - postgres.js: the pool, a transaction or savepoint, a reserved connection;
 * - node-postgres: `Pool`, `Client`, `PoolClient`;
 * - PGlite: the instance or its transaction;
 * - any object `{ query(text, values) }` that gives rows or `{ rows }`.
 *
 * A handle is told apart by its methods at its first use. Handles of one session (clients, transactions) serve one
 * caller at a time; a pool serves any number.
 */
export type Queryable =
  | PostgresJsPool
  | PostgresJsTransaction
  | PostgresJsHandle
  | NodePostgresPool
  | NodePostgresClient
  | TransactionRunner
  | PGliteTransaction
  | StatementRunner;

/** How a statement is run. */
export interface RunStatementOptions {
  /** Whether it changes anything: a connection lost during a write leaves its outcome unknown. @default {false} */
  readonly write?: boolean;
}

/** How often a statement on a pool is tried when the database undid it for colliding with another one. */
const MAX_TRIES = 4;

/**
 * Runs one statement on any handle and gives its rows.
 *
 * On a pool a statement that PostgreSQL undid because of a deadlock or a serialization failure is repeated a few times.
 *
 * @internal
 * @param db Pool or open transaction.
 * @param text Constant text, each parameter with a cast.
 * @param values Text, integers, booleans or null.
 * @param options Whether it writes.
 * @returns The rows, as the driver reads them.
 * @throws {TypeError} If a value has another type, or the handle is busy or over.
 * @throws {RunledgerError} Whatever the database answered, mapped; `db.unsupported_driver` for no handle at all.
 */
export async function runStatement(
  db: Queryable,
  text: string,
  values: readonly StatementValue[],
  options: RunStatementOptions = {},
): Promise<readonly Row[]> {
  const driver = driverOf(db);
  assertOpen(driver.scope);
  assertValues(values);
  for (let tries = 1;; tries++) {
    try {
      return (await driver.send(text, values)).rows;
    } catch (error) {
      const mapped = noteFailure(driver.scope, error, text, options.write === true);
      // A deadlock or serialization failure undid a statement that was a transaction of its own: it may be repeated.
      const isRepeatable = mapped.code === "db.serialization_failure" && driver.scope.kind === "autocommit";
      if (!isRepeatable || tries >= MAX_TRIES) throw mapped;
    }
  }
}

/**
 * Runs a text of several statements, without values or results.
 *
 * @internal
 * @param db A handle that `atomically` gave, or the statements may run apart.
 * @param text The statements.
 * @throws {RunledgerError} Whatever the database answered, mapped.
 */
export async function runScript(db: Queryable, text: string): Promise<void> {
  const driver = driverOf(db);
  assertOpen(driver.scope);
  try {
    await driver.sendScript(text);
  } catch (error) {
    throw noteFailure(driver.scope, error, text, true);
  }
}

/**
 * Runs a function so that everything it does in the database happens, or nothing.
 *
 * On a pool it is a transaction of its own; inside a transaction it is a savepoint, and the outer transaction stays
 * usable when the function throws. Calls may be nested through the handle that the function is given. One handle of a
 * transaction or a session takes one call at a time; a pool takes any number. A statement that failed fails the whole
 * call even if the function swallowed its error, since PostgreSQL would commit nothing.
 *
 * @example Two statements, one outcome
 * ```ts ignore
 * import { atomically, enqueueJob } from "@runledger/postgres";
 *
 * await atomically(sql, async (tx) => {
 *   await enqueueJob(tx, chargeCard.request({ orderId }));
 *   await enqueueJob(tx, sendReceipt.request({ orderId }));
 * });
 * ```
 *
 * @param db Pool, session or open transaction.
 * @param fn What to do; its handle is good until the promise it gives settles.
 * @returns What the function gave, once it is committed (on a pool) or part of the outer transaction.
 * @throws Whatever the function threw, unchanged, after everything was undone.
 * @throws {RunledgerError} `db.commit_unknown` if the connection broke while committing; `db.unavailable` if it broke
 * before, which undid everything; the mapped error if the database refused to commit.
 * @throws {TypeError} If the handle is busy with another call or its transaction is over.
 */
export async function atomically<T>(db: Queryable, fn: (tx: Queryable) => Promise<T>): Promise<T> {
  const driver = driverOf(db);
  const { scope } = driver;
  assertOpen(scope);
  if (scope.kind === "autocommit") return await driver.atomically(fn);
  scope.hasChild = true;
  try {
    return await driver.atomically(fn);
  } finally {
    scope.hasChild = false;
  }
}

/**
 * Examines a handle without a round trip.
 *
 * @internal
 * @param db What was passed as a database handle.
 * @throws {RunledgerError} `db.unsupported_driver` if it is none, or if it rewrites what passes through it.
 */
export function assertUsable(db: Queryable): void {
  driverOf(db);
}

/** By which method an ORM's handle is known, and what makes a database handle of it. */
const ORM_METHODS = [["$queryRawUnsafe", "fromPrisma"], ["executeQuery", "fromKysely"], [
  "execute",
  "fromDrizzle",
]] as const;

function driverOf(db: Queryable): Driver {
  const isHandle = typeof db === "function" || (typeof db === "object" && db !== null);
  if (!isHandle) throw unsupported(`${db === null ? "null" : `a value of type ${typeof db}`} was passed`);
  const known = registeredDriver(db);
  if (known !== undefined) return known;
  const driver = createDriver(db);
  registerDriver(db, driver);
  return driver;
}

/** Tells handles apart by their methods; the order matters, since every later kind is a part of an earlier one. */
function createDriver(db: Queryable): Driver {
  if (hasMethod(db, "unsafe") && hasMethod(db, "typed")) return createPostgresJsDriver(db as PostgresJsHandle);
  if (hasMethod(db, "query")) {
    if (hasMethod(db, "transaction")) return createTransactionRunnerDriver(db as TransactionRunner);
    if (hasMethod(db, "connect")) {
      return "totalCount" in db ? createNodePostgresPoolDriver(db) : createNodePostgresClientDriver(
        db as NodePostgresClient,
      );
    }
    if (hasMethod(db, "exec") && hasMethod(db, "rollback")) {
      return createPGliteTransactionDriver(
        db as PGliteTransaction,
        createScope("transaction", { isLost: false }),
      );
    }
    return createStatementRunnerDriver(db as StatementRunner);
  }
  if (hasMethod(db, "then")) throw unsupported("a promise was passed; await it first");
  for (const [method, adapter] of ORM_METHODS) {
    if (hasMethod(db, method)) throw unsupported(`make one of it with ${adapter} of @runledger/postgres/orm`);
  }
  throw unsupported(`${typeof db === "function" ? "a function" : "an object"} without a \`query\` method was passed`);
}

function hasMethod(value: object, name: string): boolean {
  return name in value && typeof (value as Readonly<Record<string, unknown>>)[name] === "function";
}

function unsupported(problem: string): RunledgerError {
  return new RunledgerError("db.unsupported_driver", {
    message: `This is not a database handle: ${problem}. Pass a postgres.js, node-postgres or PGlite pool, client or ` +
      "transaction, or an object { query(text, values) }.",
  });
}

function assertValues(values: readonly StatementValue[]): void {
  values.forEach((value, index) => {
    const isAllowed = value === null || typeof value === "string" || typeof value === "boolean" ||
      (typeof value === "number" && Number.isSafeInteger(value));
    if (isAllowed) return;
    const found = typeof value === "number" ? "a number that is no safe integer" : `a value of type ${typeof value}`;
    throw new TypeError(
      `$${index + 1} is ${found}; values are text, integers, booleans or null, everything else is passed as text.`,
    );
  });
}
