/**
 * postgres.js handles: pools, transactions, savepoints and reserved connections.
 *
 * @module
 */

import { RunledgerError } from "@runledger/core";
import { assertConnected, connectionLostError, createScope, encodeText, readReply, registerDriver } from "./_driver.ts";
import type { Driver, Reply, Scope } from "./_driver.ts";
import { createSessionDriver } from "./_driver_session.ts";
import { isConnectionLost, mapDatabaseError } from "./_errors.ts";
import type {
  PostgresJsHandle,
  PostgresJsPool,
  PostgresJsTransaction,
  Queryable,
  StatementValue,
} from "./queryable.ts";

// The OID of the pseudo-type `unknown`. The server then takes a parameter's type from its cast, and postgres.js neither
// replaces the type by the described one nor serializes by it (it would make "true"::boolean false, cut microseconds
// from a timestamptz and quote a jsonb text twice). Null has the type too: the types are part of the key under which a
// statement is remembered as prepared, so a text is prepared once per connection, not once per pattern of nulls.
const UNKNOWN_TYPE = 705;

/** Makes the driver of any postgres.js handle, by the methods it has. */
export function createPostgresJsDriver(handle: PostgresJsHandle): Driver {
  assertNoTransform(handle);
  if ("begin" in handle && typeof handle.begin === "function") return createPoolDriver(handle as PostgresJsPool);
  if ("savepoint" in handle && typeof handle.savepoint === "function") {
    return createTransactionDriver(
      handle as PostgresJsTransaction,
      createScope("transaction", { isLost: false }),
    );
  }
  return createReservedDriver(handle);
}

async function send(handle: PostgresJsHandle, text: string, values: readonly StatementValue[]): Promise<Reply> {
  const parameters = encodeText(values).map((value) => handle.typed(value, UNKNOWN_TYPE));
  // `prepare: false` of the pool wins over this one. `simple: false` keeps statements without values preparable.
  return readReply(await handle.unsafe(text, parameters, { prepare: true, simple: false }));
}

async function sendScript(handle: PostgresJsHandle, text: string): Promise<void> {
  await handle.unsafe(text, [], { simple: true });
}

function createReservedDriver(handle: PostgresJsHandle): Driver {
  return createSessionDriver({
    send: (text, values) => send(handle, text, values),
    sendScript: (text) => sendScript(handle, text),
    isInTransaction: () => undefined,
    tellsCommand: false, // it does, but under another name
    runner: { query: async (text, values) => (await send(handle, text, values ?? [])).rows },
  }, createScope("session", { isLost: false }));
}

function createPoolDriver(pool: PostgresJsPool): Driver {
  return {
    scope: createScope("autocommit"),
    send: (text, values) => send(pool, text, values),
    sendScript: (text) => sendScript(pool, text),
    atomically: (fn) => runInBegin(pool, fn),
  };
}

function createTransactionDriver(tx: PostgresJsTransaction, scope: Scope): Driver {
  return {
    scope,
    send: (text, values) => send(tx, text, values),
    sendScript: (text) => sendScript(tx, text),
    atomically: (fn) => runInSavepoint(tx, scope, fn),
  };
}

/** How far a transaction or savepoint has come. */
type Progress<T> =
  | { readonly step: "opening" }
  | { readonly step: "running"; readonly body: Promise<T> }
  | { readonly step: "closing" }
  | { readonly step: "undoing"; readonly reason: unknown };

/**
 * Begins, runs and commits.
 *
 * When the connection breaks, postgres.js rejects `begin` at once, while the function still runs; when that settles,
 * it sends ROLLBACK or COMMIT to the same connection object, which by then may be closed (an uncaught TypeError) or be
 * serving another transaction. So after a loss the function given to `begin` never settles: nothing more is sent, and
 * the promise is garbage. The caller always waits for his own function.
 */
function runInBegin<T>(pool: PostgresJsPool, fn: (tx: Queryable) => Promise<T>): Promise<T> {
  const scope = createScope("transaction", { isLost: false });
  return runDriverScope(scope, (body) => pool.begin(body), fn, true);
}

function runInSavepoint<T>(
  tx: PostgresJsTransaction,
  outer: Scope,
  fn: (tx: Queryable) => Promise<T>,
): Promise<T> {
  const scope = createScope("transaction", outer.connection ?? { isLost: false });
  // The driver's own savepoint, not a statement: an error caught outside of it still makes `begin` reject in the end.
  return runDriverScope(scope, (body) => tx.savepoint(body), fn, false);
}

function runDriverScope<T>(
  scope: Scope,
  open: (body: (tx: PostgresJsTransaction) => Promise<unknown>) => Promise<unknown>,
  fn: (tx: Queryable) => Promise<T>,
  isWholeTransaction: boolean,
): Promise<T> {
  const connection = scope.connection ?? { isLost: false };
  let progress: Progress<T> = { step: "opening" };
  return new Promise<T>((resolve, reject) => {
    const body = (tx: PostgresJsTransaction) =>
      new Promise<T>((resolveBody, rejectBody) => {
        const guarded = guardTransaction(tx, scope);
        registerDriver(guarded, createTransactionDriver(tx, scope));
        const running = callFunction(fn, guarded);
        progress = { step: "running", body: running };
        running.then((value) => {
          scope.hasEnded = true;
          if (connection.isLost) return reject(connectionLostError());
          progress = { step: "closing" };
          resolveBody(value);
        }, (reason) => {
          scope.hasEnded = true;
          if (connection.isLost) return reject(reason);
          progress = { step: "undoing", reason };
          rejectBody(reason);
        });
      });
    const onError = (error: unknown) => {
      if (isConnectionLost(error)) connection.isLost = true;
      const { step } = progress;
      if (step === "running") return; // lost; the branches above report it when the function has settled
      if (step === "undoing") return reject((progress as { readonly reason: unknown }).reason);
      if (step === "closing" && !isConnectionLost(error) && scope.failure !== undefined) return reject(scope.failure);
      reject(mapDatabaseError(error, { isOutcomeOpen: isWholeTransaction && step === "closing" }));
    };
    let result: Promise<unknown>;
    try {
      result = open(body);
    } catch (error) {
      return onError(error);
    }
    result.then((value) => resolve(value as T), onError);
  });
}

/** What sends statements, beside calling the transaction itself. */
const SENDING = new Set<PropertyKey>(["unsafe", "savepoint", "file", "notify"]);

/**
 * Refuses the caller's own statements once the connection is lost or the transaction is over. postgres.js would send
 * them to the same connection object: an uncaught TypeError that ends the process while that is closed, and a statement
 * in somebody else's transaction when it is open again.
 */
function guardTransaction(tx: PostgresJsTransaction, scope: Scope): PostgresJsTransaction {
  return new Proxy(tx, {
    apply(target, self, args) {
      assertConnected(scope);
      return Reflect.apply(target as never, self, args);
    },
    get(target, key) {
      if (SENDING.has(key)) assertConnected(scope);
      return Reflect.get(target, key);
    },
  });
}

async function callFunction<T>(fn: (tx: Queryable) => Promise<T>, tx: PostgresJsTransaction): Promise<T> {
  return await fn(tx);
}

/**
 * Refuses a pool that rewrites names or values: the keys of payloads would change with them.
 *
 * A transaction does not show its pool's options. What it does show is how it would write a column's name, and the
 * ready-made transforms (camel, pascal, kebab) change names in both directions.
 */
function assertNoTransform(handle: PostgresJsHandle): void {
  const transform = handle.options?.transform;
  const found = [
    transform?.column?.from && "column.from",
    transform?.column?.to && "column.to",
    transform?.value?.from && "value.from",
    transform?.row?.from && "row.from",
  ].filter((name) => typeof name === "string");
  if (handle.options === undefined && rewritesNames(handle)) found.push("column.to");
  if (found.length === 0) return;
  throw new RunledgerError("db.unsupported_driver", {
    message:
      `This postgres.js pool rewrites columns or values (transform.${found.join(", transform.")}), which would ` +
      "change stored payloads. Give Runledger a pool of its own without `transform`.",
  });
}

function rewritesNames(handle: PostgresJsHandle): boolean {
  const probe = "aB-c_d";
  if (typeof handle !== "function") return false;
  const identifier: unknown = (handle as (name: string) => unknown)(probe);
  return typeof identifier === "object" && identifier !== null && "value" in identifier &&
    typeof identifier.value === "string" && identifier.value !== `"${probe}"`;
}
