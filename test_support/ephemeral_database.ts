/**
 * A database for one test file, gone when the file is done.
 *
 * @module
 */

import { migrate } from "@runledger/postgres";
import type { StatementRunner } from "@runledger/postgres";
import { createHash, randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import postgres from "postgres";
import { openTestServer } from "./test_server.ts";

/** A connection as the user who may create databases. */
type AdminSession = postgres.Sql;

/** What {@linkcode createEphemeralDatabase} can be told. */
export interface EphemeralDatabaseOptions {
  /** Apply Runledger's migrations; false gives an empty database. @default true */
  readonly migrated?: boolean;
  /** The server to make it on. @default the test run's, see `openTestServer` */
  readonly serverUrl?: string;
}

/** A database that no other test sees. */
export interface EphemeralDatabase extends AsyncDisposable {
  /** Connects to the database, as its owner. */
  readonly url: string;
  /** The database's name. */
  readonly name: string;
  /** The major version of the server, such as 18. */
  readonly version: number;
}

/** Databases of tests that were killed are younger than this only if the test may still run. */
const LEFTOVER_AGE_MS = 60 * 60 * 1000;

/** How long a session that was closed may take to end. */
const FAREWELL_MS = 500;

/**
 * Makes a database of its own for a test, in a few tens of milliseconds.
 *
 * Runledger's migrations run once per server and version of their text, into a template that every further database is a copy
 * of; test files and processes share it. Disposing drops the database, and with it the connections that are still open.
 *
 * @param options Migrated or empty, and where.
 * @returns The database. Use it with `await using`.
 * @throws {Error} There is no server, or its user may not create databases.
 */
export async function createEphemeralDatabase(options: EphemeralDatabaseOptions = {}): Promise<EphemeralDatabase> {
  const serverUrl = options.serverUrl ?? (await openTestServer()).url;
  // The time in the name tells a later run which databases were left behind.
  const name = `runledger_test_${Date.now().toString(36)}_${randomUUID().slice(0, 8)}`;
  const version = await withAdminSession(serverUrl, async (admin) => {
    if (options.migrated === false) await createDatabase(admin, name, "template0");
    else await copyTemplate(admin, name, serverUrl);
    const [row] = await admin<{ version: string }[]>`select current_setting('server_version_num') as version`;
    return Math.floor(Number(row?.version) / 10_000);
  });
  const drop = () => withAdminSession(serverUrl, (admin) => dropDatabase(admin, name));
  return { url: databaseUrl(serverUrl, name), name, version, [Symbol.asyncDispose]: drop };
}

/** A template may vanish between finding and copying it, when somebody changes the migrations meanwhile. */
async function copyTemplate(admin: AdminSession, name: string, serverUrl: string): Promise<void> {
  for (let tries = 1;; tries++) {
    const template = await ensureTemplate(admin, serverUrl);
    try {
      return await createDatabase(admin, name, template);
    } catch (error) {
      if (!hasCode(error, "3D000") || tries === 3) throw error;
    }
  }
}

/** Finds the migrated template, or makes it while all others wait. It gets its name when it is finished, not before. */
async function ensureTemplate(admin: AdminSession, serverUrl: string): Promise<string> {
  const template = `runledger_template_${await migrationsKey()}`;
  if (await databaseExists(admin, template)) return template;
  await admin`select pg_advisory_lock(hashtext('runledger test template'))`;
  try {
    if (await databaseExists(admin, template)) return template;
    await dropUnused(admin);
    const draft = `${template}_draft`;
    await createDatabase(admin, draft, "template0");
    await withAdminSession(databaseUrl(serverUrl, draft), migrate);
    await whenUnused(() => admin.unsafe(`alter database "${draft}" rename to "${template}"`));
    return template;
  } finally {
    await admin`select pg_advisory_unlock(hashtext('runledger test template'))`;
  }
}

/** Templates of other migrations, drafts whose maker died, and databases of tests that were killed. */
async function dropUnused(admin: AdminSession): Promise<void> {
  const rows = await admin<{ name: string }[]>`
    select datname as name from pg_database where datname ~ '^runledger_(template|test)_'`;
  for (const { name } of rows) {
    const created = /^runledger_test_([0-9a-z]+)_/.exec(name)?.[1];
    const inUse = created !== undefined && Date.now() - Number.parseInt(created, 36) < LEFTOVER_AGE_MS;
    if (!inUse) await dropDatabase(admin, name);
  }
}

let templateKey: Promise<string> | undefined;

/**
 * What the template is made from: every text that `migrate` sends to an empty database. Its files would not do: they may have
 * been changed since this process loaded them, and a package from a registry has none that could be read.
 */
function migrationsKey(): Promise<string> {
  return templateKey ??= recordMigrating();
}

async function recordMigrating(): Promise<string> {
  const hash = createHash("sha256");
  const history: Record<string, unknown>[] = [];
  const recorder: StatementRunner = {
    query(text, values = []) {
      hash.update(text);
      const columns = /insert into runledger\.migration_history \(([^)]*)\)/.exec(text)?.[1]?.split(", ");
      if (columns !== undefined) history.push(Object.fromEntries(columns.map((name, index) => [name, values[index]])));
      return Promise.resolve(/from runledger\.migration_history/.test(text) ? [...history] : []);
    },
  };
  await migrate(recorder);
  return hash.digest("hex").slice(0, 16);
}

async function createDatabase(admin: AdminSession, name: string, template: string): Promise<void> {
  try {
    await whenUnused(() => admin.unsafe(`create database "${name}" template "${template}"`));
  } catch (error) {
    if (!hasCode(error, "42501")) throw error;
    throw new Error("Tests make databases of their own: the user of the test server needs the CREATEDB privilege.", {
      cause: error,
    });
  }
}

/**
 * Ends whatever is still connected; but what was closed just now ends by itself. Told to end, it would answer with an error
 * that a driver may raise where nobody listens any more (node-postgres does).
 */
async function dropDatabase(admin: AdminSession, name: string): Promise<void> {
  const deadline = Date.now() + FAREWELL_MS;
  while (Date.now() < deadline) {
    const sessions = await admin`
      select from pg_stat_activity where datname = ${name} and backend_type = 'client backend'`;
    if (sessions.length === 0) break;
    await delay(20);
  }
  await admin.unsafe(`drop database if exists "${name}" with (force)`);
}

async function databaseExists(admin: AdminSession, name: string): Promise<boolean> {
  return (await admin`select from pg_database where datname = ${name}`).length > 0;
}

/** A database cannot be copied or renamed while somebody is connected, and a session that was closed takes a moment to end. */
async function whenUnused(statement: () => Promise<unknown>): Promise<void> {
  const deadline = Date.now() + 30_000;
  while (true) {
    try {
      await statement();
      return;
    } catch (error) {
      if (!hasCode(error, "55006") || Date.now() > deadline) throw error;
      await delay(20);
    }
  }
}

async function withAdminSession<T>(url: string, work: (admin: AdminSession) => Promise<T>): Promise<T> {
  const admin = postgres(url, { max: 1, onnotice: () => {} });
  try {
    return await work(admin);
  } finally {
    await admin.end({ timeout: 5 });
  }
}

function hasCode(error: unknown, code: string): boolean {
  return error instanceof postgres.PostgresError && error.code === code;
}

function databaseUrl(serverUrl: string, name: string): string {
  const url = new URL(serverUrl);
  url.pathname = `/${name}`;
  return url.href;
}
