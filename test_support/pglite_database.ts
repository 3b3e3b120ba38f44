/**
 * PostgreSQL inside this process, for tests that want no server: PGlite, an optional package.
 *
 * @module
 */

import { migrate } from "@runledger/postgres";
import type { PGliteTransaction } from "@runledger/postgres";
import { importOptionalPackage } from "./optional_package.ts";

/** The version that Deno fetches when a test asks for it. */
const PGLITE_VERSION = "0.5.16";

/** A PGlite instance, as far as tests need it. Statements run one after the other, in one session. */
export interface InProcessDatabase {
  /** Runs a statement and commits it. */
  query(text: string, values?: unknown[]): Promise<{ readonly rows: readonly Readonly<Record<string, unknown>>[] }>;
  /** Runs several statements. */
  exec(text: string): Promise<unknown>;
  /** Runs a function in a transaction, which is undone if it throws. */
  transaction(fn: (tx: PGliteTransaction) => Promise<unknown>): Promise<unknown>;
}

/** Instances that no test uses. Making one takes two seconds, and cleaning one a fifth of a second. */
const idle: InProcessDatabase[] = [];

/** Nothing but what PostgreSQL itself brings. */
const CLEAN = `
do $do$
declare
  name text;
begin
  for name in
    select nspname from pg_catalog.pg_namespace where nspname !~ '^pg_' and nspname <> 'information_schema'
  loop
    execute format('drop schema %I cascade', name);
  end loop;
end
$do$;
create schema public;
`;

/**
 * Gives a migrated database in this process. Disposing gives the instance to the next test that asks; it is never closed.
 *
 * @returns The database, and what ends its use.
 * @throws {Error} When the package is not there.
 */
export async function openInProcessDatabase(): Promise<{ readonly db: InProcessDatabase } & AsyncDisposable> {
  const db = idle.pop() ?? await startPGlite();
  for (const text of ["rollback", "discard all", CLEAN]) await db.exec(text);
  await migrate(db);
  return {
    db,
    [Symbol.asyncDispose]() {
      idle.push(db);
      return Promise.resolve();
    },
  };
}

async function startPGlite(): Promise<InProcessDatabase> {
  const { PGlite } = await importPGlite();
  silenceIntervalTimer();
  return await PGlite.create();
}

async function importPGlite(): Promise<{ readonly PGlite: { create(): Promise<InProcessDatabase> } }> {
  try {
    return await importOptionalPackage("@electric-sql/pglite", PGLITE_VERSION) as {
      readonly PGlite: { create(): Promise<InProcessDatabase> };
    };
  } catch (error) {
    throw new Error(
      "A test kit on PGlite needs the npm package @electric-sql/pglite: add it to the development dependencies.",
      {
        cause: error,
      },
    );
  }
}

let isSilenced = false;

/**
 * PGlite emulates the interval timer of a server process and leaves it running: ten seconds in which a process does not end
 * and a test runner sees a leak. Nothing that tests do needs it.
 */
export function silenceIntervalTimer(): void {
  if (isSilenced) return;
  isSilenced = true;
  const { setTimeout } = globalThis;
  globalThis.setTimeout = ((...args: Parameters<typeof setTimeout>) => {
    const isIntervalTimer = Number(args[1]) >= 1000 && new Error().stack?.includes("__setitimer_js") === true;
    return isIntervalTimer ? 0 : setTimeout(...args);
  }) as typeof setTimeout;
}
