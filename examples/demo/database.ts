/**
 * Where the demo runs: on a server, or on PGlite within this process.
 *
 * @module
 */

import { migrate } from "@runledger/postgres";
import type { Queryable } from "@runledger/postgres";
import { openDatabase } from "../support/database.ts";

/** Runs a select and gives its rows. Its parameters are text, each with a cast. */
export type Read = <Row>(text: string, values: readonly string[]) => Promise<readonly Row[]>;

/** The demo's database. */
export interface DemoDatabase extends AsyncDisposable {
  /** The handle. */
  readonly db: Queryable;
  /** How the demo reads the schema's tables and views. */
  readonly read: Read;
  /** Where the database is, for people. */
  readonly place: string;
  /** Whether what is stored outlives the process. */
  readonly isKept: boolean;
}

/**
 * Opens the demo's database.
 *
 * @param isInProcess Whether to use PGlite, in memory, which needs no server.
 * @param signal Aborts when the program is asked to stop.
 * @returns The database. Use it with `await using`.
 */
export async function openDemoDatabase(isInProcess: boolean, signal: AbortSignal): Promise<DemoDatabase> {
  return isInProcess ? await openPGlite() : await openServer(signal);
}

async function openPGlite(): Promise<DemoDatabase> {
  const { PGlite } = await import("@electric-sql/pglite"); // 27 MB that the other way does without
  const db = await PGlite.create();
  await migrate(db);
  const read: Read = async <Row>(text: string, values: readonly string[]) =>
    (await db.query<Row>(text, [...values])).rows;
  const [server] = await read<{ version: string }>("select current_setting('server_version') as version", []);
  const place = `PGlite within this process, PostgreSQL ${server?.version}`;
  return { db, read, place, isKept: false, [Symbol.asyncDispose]: () => db.close() };
}

async function openServer(signal: AbortSignal): Promise<DemoDatabase> {
  const database = await openDatabase(signal);
  const read: Read = async <Row>(text: string, values: readonly string[]) =>
    await database.sql.unsafe<Row[]>(text, [...values]);
  return {
    db: database.sql,
    read,
    place: database.place,
    isKept: true,
    [Symbol.asyncDispose]: () => database[Symbol.asyncDispose](),
  };
}
