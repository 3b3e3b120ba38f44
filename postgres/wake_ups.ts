/**
 * Waking idle workers, and whoever else waits for something to happen in the database.
 *
 * @module
 */

import { RunledgerError } from "@runledger/core";
import { mapDatabaseError } from "./_errors.ts";
import { noteText } from "./operator_note.ts";
import { assertUsable, runStatement } from "./queryable.ts";
import type { NodePostgresClient, Queryable } from "./queryable.ts";

/** The channel that PostgreSQL notifies when jobs become due while a worker sleeps. It carries no text. */
export const JOBS_DUE_CHANNEL = "runledger_jobs_due";

/** The longest time for which a worker says that it sleeps, in milliseconds: an hour. */
const MAX_SLEEP_MS = 3_600_000;

/** Somebody who listens to a channel. */
export interface Listener {
  /** Ends the listening. */
  readonly unlisten: () => Promise<void>;
}

/** What a listener is told. */
export interface ListenOptions {
  /** Called for each notification. It must not throw. */
  readonly onNotify: () => void;
  /** Called once when the connection is gone and does not come back by itself. */
  readonly onLost?: () => void;
}

/**
 * Listens to a channel, where the handle has a way to: postgres.js pools (a connection of its own, which `sql.end()`
 * closes), node-postgres pools of more than one client (one client of it) and PGlite.
 *
 * A notification may be lost, with a connection or behind a pooler that hands sessions around; listening never replaces
 * looking.
 *
 * @param db A pool.
 * @param channel The channel: lower-case letters, digits and `_`, at most 63.
 * @param options Who is told.
 * @returns The listener, or undefined if the handle cannot listen.
 * @throws {RangeError} If the channel has another form.
 * @throws {RunledgerError} `db.unavailable` and other `db.*` codes when listening could not begin.
 */
export async function listenTo(
  db: Queryable,
  channel: string,
  options: ListenOptions,
): Promise<Listener | undefined> {
  if (!/^[a-z_][a-z0-9_]{0,62}$/.test(channel)) {
    throw new RangeError("A channel must be made of lower-case letters, digits and '_', at most 63");
  }
  assertUsable(db);
  try {
    if (isPostgresJsPool(db)) {
      const { unlisten } = await db.listen(channel, options.onNotify);
      return { unlisten: async () => void await unlisten() };
    }
    if (isPGlite(db)) {
      const unlisten = await db.listen(channel, options.onNotify);
      return { unlisten: async () => void await unlisten() };
    }
    if (isNodePostgresPool(db)) return db.options.max > 1 ? await listenOnClient(db, channel, options) : undefined;
  } catch (error) {
    throw error instanceof RunledgerError ? error : mapDatabaseError(error);
  }
  return undefined;
}

async function listenOnClient(pool: ListeningPool, channel: string, options: ListenOptions): Promise<Listener> {
  const client = await pool.connect();
  let hasEnded = false;
  const end = (isBroken: boolean) => {
    if (hasEnded) return;
    hasEnded = true;
    client.removeListener("notification", onNotification);
    client.removeListener("error", onError);
    client.removeListener("end", onError);
    client.release(isBroken);
  };
  const onNotification = (message: { readonly channel?: string }) => {
    if (message.channel === channel) options.onNotify();
  };
  const onError = () => {
    end(true);
    options.onLost?.();
  };
  client.on("notification", onNotification);
  client.on("error", onError);
  client.on("end", onError);
  try {
    await client.query(`listen ${channel}`);
  } catch (error) {
    end(true);
    throw error;
  }
  // The session of a client that listened is not for others: it is closed.
  return { unlisten: () => Promise.resolve(end(true)) };
}

interface ListeningPostgresJs {
  listen(channel: string, onNotify: () => void): Promise<{ unlisten(): Promise<unknown> }>;
}

interface ListeningPGlite {
  listen(channel: string, onNotify: () => void): Promise<() => Promise<unknown>>;
}

interface ListeningClient extends Omit<NodePostgresClient, "on" | "removeListener"> {
  on(event: string, listener: (message: { readonly channel?: string }) => void): unknown;
  removeListener(event: string, listener: (message: { readonly channel?: string }) => void): unknown;
  release(destroy?: boolean): void;
}

interface ListeningPool {
  readonly options: { readonly max: number };
  connect(): Promise<ListeningClient>;
}

function isPostgresJsPool(db: unknown): db is ListeningPostgresJs {
  return hasMethods(db, ["listen", "begin", "unsafe"]);
}

function isPGlite(db: unknown): db is ListeningPGlite {
  return hasMethods(db, ["listen", "query", "exec", "transaction"]);
}

function isNodePostgresPool(db: unknown): db is ListeningPool {
  return hasMethods(db, ["connect", "query"]) && typeof (db as { totalCount?: unknown }).totalCount === "number" &&
    typeof (db as { options?: { max?: unknown } }).options?.max === "number";
}

function hasMethods(value: unknown, names: readonly string[]): boolean {
  if ((typeof value !== "object" && typeof value !== "function") || value === null) return false;
  return names.every((name) => typeof (value as Readonly<Record<string, unknown>>)[name] === "function");
}

/** Who sleeps, and for what it wants to be woken. */
export interface AnnounceSleepOptions {
  /** The worker. Not blank, at most 255 bytes. */
  readonly workerId: string;
  /** What it has handlers for. */
  readonly jobTypes: readonly string[];
  /** For how long it is worth waking, in milliseconds, 1 to 3,600,000; absent: it is awake. */
  readonly sleepMs?: number;
}

// locks: the worker's row. index: sleeping_workers_pkey.
const ANNOUNCE = "select runledger.announce_sleep($1::text, $2::text::jsonb, $3::integer)::text";

/**
 * Says that a worker sleeps and wants to be woken, or that it is awake.
 *
 * Whoever makes a job of these types due meanwhile notifies {@linkcode JOBS_DUE_CHANNEL} when committing. What became due
 * in the instant before is not told: look once more afterwards. Safe to repeat; what nobody renews is over by itself.
 *
 * @param db A pool or client, not a transaction.
 * @param options Who sleeps, and how long.
 * @throws {RunledgerError} `job.invalid_request` for a worker id that cannot be; `db.*` codes.
 * @throws {RangeError} If `sleepMs` is out of range.
 */
export async function announceSleep(db: Queryable, options: AnnounceSleepOptions): Promise<void> {
  const { workerId, jobTypes, sleepMs } = options;
  noteText("workerId", workerId, 255);
  if (sleepMs !== undefined && !(Number.isInteger(sleepMs) && sleepMs >= 1 && sleepMs <= MAX_SLEEP_MS)) {
    throw new RangeError(`A worker cannot sleep for '${sleepMs}' ms: it must be an integer from 1 to ${MAX_SLEEP_MS}`);
  }
  await runStatement(db, ANNOUNCE, [workerId, JSON.stringify(jobTypes), sleepMs ?? null], { write: true });
}

const NOTIFY = "select pg_notify($1::text, '')::text";

/**
 * Notifies everybody who listens to {@linkcode JOBS_DUE_CHANNEL}. For a worker that wants to know whether notifications
 * reach it.
 *
 * @param db A pool or client.
 * @throws {RunledgerError} `db.*` codes.
 */
export async function notifyJobsDue(db: Queryable): Promise<void> {
  await runStatement(db, NOTIFY, [JOBS_DUE_CHANNEL], { write: true });
}
