/**
 * PGlite, and objects that open transactions by themselves, such as the handles over ORMs.
 *
 * @module
 */

import { assertOpen, createScope, encodeText, readReply, registerDriver, swallowedFailure } from "./_driver.ts";
import type { Driver, Scope } from "./_driver.ts";
import { createSessionDriver } from "./_driver_session.ts";
import { isConnectionLost, mapDatabaseError, sqlStateOf } from "./_errors.ts";
import type { PGliteTransaction, Queryable, StatementRunner, StatementValue, TransactionRunner } from "./queryable.ts";

/** Makes the driver of a PGlite instance, or of an object with `query` and `transaction`. */
export function createTransactionRunnerDriver(db: TransactionRunner): Driver {
  // PGlite reads values as text like node-postgres does; what another object does with "true" is not known.
  const isPGlite = typeof db.exec === "function";
  return {
    scope: createScope("autocommit"),
    send: async (text, values) => readReply(await db.query(text, isPGlite ? encodeText(values) : [...values])),
    sendScript: async (text) => void await (db.exec === undefined ? db.query(text) : db.exec(text)),
    atomically: (fn) => runInTransaction(db, fn),
  };
}

/**
 * Makes the driver of a transaction that a PGlite instance or such an object opened.
 *
 * If it opens savepoints by itself it is asked for them: under Drizzle, postgres.js would make the whole transaction
 * reject because of a statement that failed in a savepoint of which it does not know.
 */
export function createPGliteTransactionDriver(
  tx: PGliteTransaction | StatementRunner | TransactionRunner,
  scope: Scope,
): Driver {
  const exec = "rollback" in tx ? (text: string) => tx.exec(text) : (text: string) => tx.query(text);
  const encode = "rollback" in tx ? encodeText : (values: readonly StatementValue[]) => [...values];
  const driver = createSessionDriver({
    send: async (text, values) => readReply(await tx.query(text, encode(values))),
    sendScript: async (text) => void await exec(text),
    isInTransaction: () => true,
    tellsCommand: true,
    runner: { query: (text, values) => tx.query(text, values === undefined ? undefined : [...values]) },
  }, scope);
  return "transaction" in tx ? { ...driver, atomically: (fn) => runInTransaction(tx, fn, scope) } : driver;
}

/** Runs in a transaction, or in a savepoint of an outer one. */
async function runInTransaction<T>(
  db: TransactionRunner,
  fn: (tx: Queryable) => Promise<T>,
  outer?: Scope,
): Promise<T> {
  const scope = createScope("transaction", outer?.connection ?? { isLost: false });
  let hasBegun = false;
  let hasReturned = false;
  let thrown: { readonly reason: unknown } | undefined;
  let value: T;
  try {
    value = await db.transaction(async (tx) => {
      hasBegun = true;
      const handle = "rollback" in tx ? tx : ownHandle(tx);
      registerDriver(handle, createPGliteTransactionDriver(handle, scope));
      try {
        const result = await fn(handle);
        // Not every such object looks whether COMMIT rolled back, so a failure that was swallowed is asked after.
        if (scope.failure !== undefined) await assertAlive(tx, scope);
        hasReturned = true;
        return result;
      } catch (reason) {
        thrown = { reason };
        throw reason;
      } finally {
        scope.hasEnded = true;
      }
    }) as T;
  } catch (error) {
    if (thrown !== undefined) throw thrown.reason;
    // Drizzle's handle still sends after its transaction's end, on a session that may be somebody else's by now.
    if (outer !== undefined && !hasBegun && sqlStateOf(error) === "25P01") {
      outer.hasEnded = true;
      assertOpen(outer);
    }
    throw closingError(scope, error, hasReturned && outer === undefined);
  }
  return value;
}

/** Another object's transaction may be an object that is used again; a PGlite transaction is not. */
function ownHandle(tx: StatementRunner | TransactionRunner): StatementRunner | TransactionRunner {
  const query = (text: string, values?: readonly StatementValue[]) =>
    tx.query(text, values === undefined ? undefined : [...values]);
  return "transaction" in tx ? { query, transaction: (fn) => tx.transaction(fn) } : { query };
}

async function assertAlive(tx: PGliteTransaction | StatementRunner, scope: Scope): Promise<void> {
  try {
    await tx.query("select 1");
  } catch {
    throw swallowedFailure(scope);
  }
}

function closingError(scope: Scope, error: unknown, isCommit: boolean): unknown {
  if (scope.failure !== undefined && !isConnectionLost(error)) return swallowedFailure(scope);
  return mapDatabaseError(error, { statement: isCommit ? "commit" : "begin", isOutcomeOpen: isCommit });
}
