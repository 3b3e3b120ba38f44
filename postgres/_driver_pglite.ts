/**
 * PGlite, and plain objects that open transactions by themselves.
 *
 * @module
 */

import { createScope, encodeText, readReply, registerDriver, swallowedFailure } from "./_driver.ts";
import type { Driver, Scope } from "./_driver.ts";
import { createSessionDriver } from "./_driver_session.ts";
import { isConnectionLost, mapDatabaseError } from "./_errors.ts";
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

/** Makes the driver of a transaction that a PGlite instance or such an object opened. */
export function createPGliteTransactionDriver(tx: PGliteTransaction | StatementRunner, scope: Scope): Driver {
  const exec = "exec" in tx ? (text: string) => tx.exec(text) : (text: string) => tx.query(text);
  const encode = "exec" in tx ? encodeText : (values: readonly StatementValue[]) => [...values];
  return createSessionDriver({
    send: async (text, values) => readReply(await tx.query(text, encode(values))),
    sendScript: async (text) => void await exec(text),
    isInTransaction: () => true,
    tellsCommand: true,
    runner: { query: (text, values) => tx.query(text, values === undefined ? undefined : [...values]) },
  }, scope);
}

async function runInTransaction<T>(db: TransactionRunner, fn: (tx: Queryable) => Promise<T>): Promise<T> {
  const scope = createScope("transaction", { isLost: false });
  let hasReturned = false;
  let thrown: { readonly reason: unknown } | undefined;
  let value: T;
  try {
    value = await db.transaction(async (tx) => {
      // Another object's transaction may be an object that is used again; a PGlite transaction is not.
      const handle: PGliteTransaction | StatementRunner = "rollback" in tx
        ? tx
        : { query: (text: string, values?: readonly StatementValue[]) => (tx as StatementRunner).query(text, values) };
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
    throw thrown === undefined ? closingError(scope, error, hasReturned) : thrown.reason;
  }
  return value;
}

async function assertAlive(tx: PGliteTransaction | StatementRunner, scope: Scope): Promise<void> {
  try {
    await tx.query("select 1");
  } catch {
    throw swallowedFailure(scope);
  }
}

function closingError(scope: Scope, error: unknown, hasReturned: boolean): unknown {
  if (scope.failure !== undefined && !isConnectionLost(error)) return swallowedFailure(scope);
  return mapDatabaseError(error, { statement: hasReturned ? "commit" : "begin", isOutcomeOpen: hasReturned });
}
