/**
 * What is told only after a commit: hooks must not hear of jobs that a rollback takes back.
 *
 * @module
 */

import { atomically } from "@runledger/postgres";
import type { Queryable } from "@runledger/postgres";

/** What waits for the commit of a transaction, by the handle that its function was given. */
const waiting = new WeakMap<object, (() => void)[]>();

/**
 * Runs a function as `atomically` does, and afterwards what {@linkcode afterCommit} was given for its handle.
 *
 * On a handle that is itself a transaction of this kind, it waits for that one. A transaction that somebody else opened
 * commits unseen: then nothing is told.
 */
export async function atomicallyAnnounced<Result>(
  db: Queryable,
  fn: (tx: Queryable) => Promise<Result>,
): Promise<Result> {
  const calls: (() => void)[] = [];
  const value = await atomically(db, (tx) => {
    waiting.set(tx, calls);
    return fn(tx);
  });
  for (const call of calls) afterCommit(db, call);
  return value;
}

/** Calls a function when what was written through a handle is committed; never, if nobody can know. */
export function afterCommit(db: Queryable, call: () => void): void {
  const outer = waiting.get(db);
  if (outer !== undefined) outer.push(call);
  else if (commitsEachStatement(db)) call();
}

/** Pools commit each statement. A client of its own may be inside a transaction, which nobody can see. */
function commitsEachStatement(db: Queryable): boolean {
  return "begin" in db || "totalCount" in db || "transaction" in db;
}
