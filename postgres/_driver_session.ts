/**
 * Transactions by statement, for handles that are one session: node-postgres clients, reserved postgres.js connections,
 * PGlite transactions and plain `{ query }` objects.
 *
 * @module
 */

import { RunledgerError } from "@runledger/core";
import {
  assertConnected,
  connectionLostError,
  createScope,
  encodeText,
  noteFailure,
  readReply,
  registerDriver,
  swallowedFailure,
} from "./_driver.ts";
import type { Driver, Reply, Scope } from "./_driver.ts";
import { isConnectionLost, mapDatabaseError, sqlStateOf } from "./_errors.ts";
import type { NodePostgresClient, NodePostgresPool, Queryable, StatementRunner, StatementValue } from "./queryable.ts";

/** One session, whatever its driver. */
export interface Session {
  readonly send: (text: string, values: readonly StatementValue[]) => Promise<Reply>;
  readonly sendScript: (text: string) => Promise<void>;
  /** What the driver knows about the session without asking the server; undefined if it does not know. */
  readonly isInTransaction: () => boolean | undefined;
  /** Whether replies tell the command tag. Without it nothing shows that COMMIT rolled back. */
  readonly tellsCommand: boolean;
  /** What a function given to `atomically` sees. */
  readonly runner: StatementRunner;
}

// One name is enough: equal names nest, and a second savepoint on the same handle is refused while one is open.
const SAVEPOINT = "savepoint runledger";
const ROLLBACK_TO_SAVEPOINT = "rollback to savepoint runledger";
const RELEASE_SAVEPOINT = "release savepoint runledger";

/** Makes the driver of a session. */
export function createSessionDriver(session: Session, scope: Scope): Driver {
  return {
    scope,
    send: session.send,
    sendScript: session.sendScript,
    atomically: async (fn) => {
      if (await openSavepoint(session, scope)) return await runInSavepoint(session, scope, fn);
      return await runInTransaction(session, fn);
    },
  };
}

async function control(session: Session, scope: Scope, text: string): Promise<Reply> {
  try {
    return await session.send(text, []);
  } catch (error) {
    throw noteFailure(scope, error, text, false);
  }
}

/** Opens a savepoint, or gives false outside a transaction; where nobody knows, the server is asked by trying. */
async function openSavepoint(session: Session, scope: Scope): Promise<boolean> {
  const isInTransaction = scope.kind === "transaction" ? true : session.isInTransaction();
  if (isInTransaction === false) return false;
  try {
    await session.send(SAVEPOINT, []);
    return true;
  } catch (error) {
    if (sqlStateOf(error) === "25P01") return false; // no_active_sql_transaction; harmless
    throw noteFailure(scope, error, SAVEPOINT, false);
  }
}

/** Runs a function on a handle of its own, which is dead when the function has settled. */
async function callWithHandle<T>(session: Session, scope: Scope, fn: (tx: Queryable) => Promise<T>): Promise<T> {
  const handle: StatementRunner = {
    query: async (text, values) => {
      assertConnected(scope);
      return await session.runner.query(text, values);
    },
  };
  registerDriver(handle, createSessionDriver(session, scope));
  try {
    return await fn(handle);
  } finally {
    scope.hasEnded = true;
  }
}

async function runInSavepoint<T>(session: Session, outer: Scope, fn: (tx: Queryable) => Promise<T>): Promise<T> {
  const scope = createScope("transaction", outer.connection ?? { isLost: false });
  const undo = async () => {
    if (scope.connection?.isLost === true) return;
    await control(session, outer, ROLLBACK_TO_SAVEPOINT);
    await control(session, outer, RELEASE_SAVEPOINT);
  };
  let value: T;
  try {
    value = await callWithHandle(session, scope, fn);
  } catch (error) {
    await undo().catch(() => {}); // the outer scope has noted it; what the function threw says more
    throw error;
  }
  if (scope.connection?.isLost === true) throw connectionLostError();
  try {
    await session.send(RELEASE_SAVEPOINT, []);
  } catch (error) {
    if (sqlStateOf(error) !== "25P02") throw noteFailure(outer, error, RELEASE_SAVEPOINT, false);
    await undo();
    throw swallowedFailure(scope);
  }
  return value;
}

/** Begins, runs and commits on a session that is outside a transaction. */
export async function runInTransaction<T>(session: Session, fn: (tx: Queryable) => Promise<T>): Promise<T> {
  const scope = createScope("transaction", { isLost: false });
  const rollback = async () => {
    if (scope.connection?.isLost !== true) await control(session, scope, "rollback");
  };
  await control(session, scope, "begin");
  if (!session.tellsCommand) await assertOneSession(session);
  let value: T;
  try {
    value = await callWithHandle(session, scope, fn);
  } catch (error) {
    await rollback().catch(() => {}); // a connection that cannot roll back is gone, and the transaction with it
    throw error;
  }
  if (scope.connection?.isLost === true) throw connectionLostError();
  if (!session.tellsCommand) await assertNotFailed(session, scope, rollback);
  return await commit(session, scope, value);
}

async function commit<T>(session: Session, scope: Scope, value: T): Promise<T> {
  let reply: Reply;
  try {
    reply = await session.send("commit", []);
  } catch (error) {
    throw mapDatabaseError(error, { statement: "commit", isOutcomeOpen: true });
  }
  if (reply.command === "ROLLBACK") throw swallowedFailure(scope);
  return value;
}

/** A plain object may hide a pool, where BEGIN and the next statement meet different sessions. */
async function assertOneSession(session: Session): Promise<void> {
  try {
    await session.send(SAVEPOINT, []);
  } catch (error) {
    if (sqlStateOf(error) !== "25P01") throw mapDatabaseError(error, { statement: SAVEPOINT });
    throw new RunledgerError("db.unsupported_driver", {
      message: "The `query` of this handle does not run its statements in one session, so it cannot hold a " +
        "transaction. Give the handle a `transaction(fn)` method, or pass a handle of one connection.",
    });
  }
}

async function assertNotFailed(session: Session, scope: Scope, rollback: () => Promise<void>): Promise<void> {
  try {
    await session.send("select 1", []);
  } catch (error) {
    const mapped = noteFailure(scope, error, "select 1", false);
    await rollback().catch(() => {});
    throw sqlStateOf(error) === "25P02" ? swallowedFailure(scope) : mapped;
  }
}

/** Makes the driver of a node-postgres `Client` or `PoolClient`. */
export function createNodePostgresClientDriver(client: NodePostgresClient): Driver {
  // Not bound to the loss of its connection: node-postgres itself refuses a client that lost it.
  return createSessionDriver(nodePostgresSession(client), createScope("session"));
}

// Statements stay unnamed. node-postgres would prepare named ones once per client, but keeps no count of what other
// users of a server connection prepared: behind PgBouncer in transaction mode names collide or are missing.
function nodePostgresSession(client: NodePostgresClient): Session {
  return {
    send: async (text, values) => readReply(await client.query(text, encodeText(values))),
    sendScript: async (text) => void await client.query(text),
    // Status of the last ReadyForQuery; pg before 8.17 has no such method, then the server is asked.
    isInTransaction: () => {
      const status = client.getTransactionStatus?.();
      return typeof status === "string" ? status !== "I" : undefined;
    },
    tellsCommand: true,
    runner: { query: (text, values) => client.query(text, values === undefined ? undefined : [...values]) },
  };
}

/** Makes the driver of a node-postgres `Pool`. */
export function createNodePostgresPoolDriver(pool: NodePostgresPool): Driver {
  hearErrors(pool);
  return {
    scope: createScope("autocommit"),
    send: async (text, values) => readReply(await pool.query(text, encodeText(values))),
    sendScript: async (text) => void await pool.query(text),
    atomically: async (fn) => {
      const client = await pool.connect().catch((error: unknown) => {
        throw mapDatabaseError(error);
      });
      // While a client is checked out nobody else listens, and an unheard `error` event ends the process.
      let isBroken = false;
      const onError = () => {
        isBroken = true;
      };
      client.on("error", onError);
      try {
        return await runInTransaction(nodePostgresSession(client), fn);
      } catch (error) {
        isBroken ||= isConnectionLost(error);
        throw error;
      } finally {
        client.removeListener("error", onError);
        // A session that is not idle, for whatever reason, must not meet the pool's next user.
        const status = client.getTransactionStatus?.();
        client.release(isBroken || (typeof status === "string" && status !== "I"));
      }
    },
  };
}

/**
 * Listens to every client of a pool. Between the pool's own listener and that of whoever checks a client out there is a
 * gap: an error that came with the last bytes of the start of its session, such as the end of that session by an
 * administrator, would be unheard there and end the process. The client's next statement reports it.
 */
function hearErrors(pool: NodePostgresPool): void {
  const { on } = pool as {
    readonly on?: (event: "acquire", listener: (client: NodePostgresClient) => void) => unknown;
  };
  const heard = new WeakSet<NodePostgresClient>();
  on?.call(pool, "acquire", (client) => {
    if (heard.has(client)) return;
    heard.add(client);
    client.on("error", () => {});
  });
}

/** Makes the driver of a plain `{ query }` object. */
export function createStatementRunnerDriver(runner: StatementRunner): Driver {
  const session: Session = {
    send: async (text, values) => readReply(await runner.query(text, values)),
    sendScript: async (text) => void await runner.query(text),
    isInTransaction: () => undefined,
    tellsCommand: false,
    runner,
  };
  return createSessionDriver(session, createScope("session"));
}
