/**
 * What every database handle is reduced to, and the rules that hold whichever driver is behind it.
 *
 * @module
 */

import { RunledgerError } from "@runledger/core";
import { isConnectionLost, mapDatabaseError } from "./_errors.ts";
import type { Queryable, Row, StatementValue } from "./queryable.ts";

/** What a driver answered. */
export interface Reply {
  readonly rows: readonly Row[];
  /** The command tag's first word, such as `COMMIT`; undefined where the driver does not tell. */
  readonly command: string | undefined;
}

/** What is known about the place that a handle's statements run in. */
export interface Scope {
  /** Pools commit each statement; of a session it is not known beforehand whether it is inside a transaction. */
  readonly kind: "autocommit" | "session" | "transaction";
  /** Shared by a transaction and its savepoints; undefined for handles that may come back on another connection. */
  readonly connection: { isLost: boolean } | undefined;
  /** Set when `atomically` is over: the connection may serve somebody else by now. */
  hasEnded: boolean;
  /** Set while `atomically` runs on this handle. */
  hasChild: boolean;
  /** The first statement that failed here. PostgreSQL ignores every later one until this scope is undone. */
  failure: RunledgerError | undefined;
}

/** One handle, reduced to what this package does with it. Errors of `send` and `sendScript` are the driver's own. */
export interface Driver {
  readonly scope: Scope;
  send(text: string, values: readonly StatementValue[]): Promise<Reply>;
  /** Runs several statements given as one text, without values. */
  sendScript(text: string): Promise<void>;
  /** As the public `atomically`, for a handle that is open. */
  atomically<T>(fn: (tx: Queryable) => Promise<T>): Promise<T>;
}

const drivers = new WeakMap<object, Driver>();

/** Gives the driver that a handle was registered with. */
export function registeredDriver(handle: object): Driver | undefined {
  return drivers.get(handle);
}

/** Remembers the driver of a handle: it is examined once, and a transaction's state lives as long as its handle. */
export function registerDriver<T extends object>(handle: T, driver: Driver): T {
  drivers.set(handle, driver);
  return handle;
}

export function createScope(kind: Scope["kind"], connection?: { isLost: boolean }): Scope {
  return { kind, connection, hasEnded: false, hasChild: false, failure: undefined };
}

/**
 * Refuses a handle that would run a statement somewhere else than its caller believes.
 *
 * While a savepoint is open, a statement of the outer handle would be undone with it, silently. After the end, or after
 * its connection broke, a transaction's handle may write into another transaction: postgres.js and pools reuse the
 * connection object.
 */
export function assertOpen(scope: Scope): void {
  if (scope.hasEnded) {
    throw new TypeError(
      "This handle was used after its transaction ended. Use it only until the function that it was given to settles.",
    );
  }
  if (scope.hasChild) {
    throw new TypeError(
      "This handle is busy: atomically is running on it. Use the handle that atomically gives to its function, " +
        "and await one atomically before the next statement of the same transaction or session.",
    );
  }
  if (scope.connection?.isLost === true) throw connectionLostError();
}

/** Refuses a statement that the caller sends by the driver's own means, where it would run outside of its transaction. */
export function assertConnected(scope: Scope): void {
  if (scope.hasEnded || scope.connection?.isLost === true) assertOpen(scope);
}

export function connectionLostError(): RunledgerError {
  return new RunledgerError("db.unavailable", {
    internalMessage: "The connection of this transaction or session was lost before.",
  });
}

/** What COMMIT means after a statement failed and its error was swallowed: PostgreSQL rolls back and reports success. */
export function swallowedFailure(scope: Scope): RunledgerError {
  return scope.failure ?? new RunledgerError("db.query_failed", {
    internalMessage:
      "A statement of this transaction failed before and its error was swallowed, so nothing was applied.",
  });
}

/** Maps what a statement threw and remembers what it means for the rest of its scope. */
export function noteFailure(scope: Scope, error: unknown, statement: string, isWrite: boolean): RunledgerError {
  const mapped = mapDatabaseError(error, { statement, isOutcomeOpen: isWrite && scope.kind !== "transaction" });
  if (scope.connection !== undefined && isConnectionLost(error)) scope.connection.isLost = true;
  if (scope.kind === "transaction") scope.failure ??= mapped;
  return mapped;
}

/** Values as text, for drivers that would else guess a type: the casts in the statement decide, as they do in psql. */
export function encodeText(values: readonly StatementValue[]): (string | null)[] {
  return values.map((value) => value === null ? null : String(value));
}

/** Reads what a driver's `query` gave: rows, or an object that holds them. */
export function readReply(result: unknown): Reply {
  if (Array.isArray(result)) return { rows: result, command: undefined };
  if (typeof result === "object" && result !== null && "rows" in result && Array.isArray(result.rows)) {
    const command = "command" in result && typeof result.command === "string" ? result.command : undefined;
    return { rows: result.rows, command };
  }
  throw new RunledgerError("db.unexpected_result", {
    internalMessage: "`query` of the database handle gave neither an array of rows nor an object with `rows`.",
  });
}
