/**
 * The schema's versions: applying what is missing, and telling whether this library fits the database.
 *
 * @module
 */

import { RunledgerError } from "@runledger/core";
import { MIGRATIONS } from "./_migrations.ts";
import type { Migration } from "./_migrations.ts";
import { atomically, runScript, runStatement } from "./queryable.ts";
import type { Queryable } from "./queryable.ts";

/** What {@linkcode migrate} can be told. */
export interface MigrateOptions {
  /** Stops before the next file; a file that is being applied is finished. */
  readonly signal?: AbortSignal;
}

/** What {@linkcode migrate} did. */
export interface MigrateResult {
  /** The versions that this call applied, in order; empty if there was nothing to do. */
  readonly applied: readonly number[];
  /** The highest version in the database. */
  readonly version: number;
}

/** One row of the history. */
interface AppliedMigration {
  readonly version: number;
  readonly name: string;
  readonly checksum: string;
  readonly isBreaking: boolean;
}

/** How the history and a list of migrations differ. */
interface SchemaDifference {
  /** Known here, not applied there. */
  readonly missing: readonly Migration[];
  /** Applied there with another text. */
  readonly changed: readonly Migration[];
  /** Applied there, unknown here, and marked as breaking. */
  readonly newer: readonly AppliedMigration[];
}

// Serializes the very first migration, before there is a table to lock. Each look is a query of its own, so that it
// sees what was committed during the wait; `if not exists` would still raise 23505 in a race, and print a notice.
// locks: an advisory lock of the transaction, not of the session, so it works behind PgBouncer
const BOOTSTRAP = `
do $do$
begin
  perform pg_advisory_xact_lock(hashtextextended('runledger.migrate', 0));
  if not exists (select from pg_catalog.pg_namespace where nspname = 'runledger')
    and to_regnamespace('runledger') is null
  then
    create schema runledger;
  end if;
  if not exists (select from pg_catalog.pg_tables where schemaname = 'runledger' and tablename = 'migration_history')
    and to_regclass('runledger.migration_history') is null
  then
    create table runledger.migration_history (
      version integer not null,
      name text not null,
      checksum text not null,
      is_breaking boolean not null,
      applied_at timestamptz not null default clock_timestamp(),
      constraint migration_history_pkey primary key (version),
      constraint migration_history_version_positive check (version > 0),
      constraint migration_history_checksum_sha256 check (checksum ~ '^[0-9a-f]{64}$')
    );
  end if;
end
$do$`;

const SELECT_BOOTSTRAPPED = `select to_regclass('runledger.migration_history') is not null as is_bootstrapped`;

// locks: the history, against other migrators; it can still be read. LOCK takes no snapshot, so what is read next is
//   current even if the role's default isolation level is REPEATABLE READ
const LOCK_HISTORY = `lock table runledger.migration_history in exclusive mode`;

// zero rows: migrating was interrupted before the first file
const SELECT_HISTORY = `
select history.version, history.name, history.checksum, history.is_breaking
from runledger.migration_history as history
order by history.version`;

const INSERT_HISTORY = `
insert into runledger.migration_history (version, name, checksum, is_breaking)
values ($1::integer, $2::text, $3::text, $4::boolean)`;

/**
 * Brings the Runledger schema of a database up to this library's version.
 *
 * Each file is applied in one transaction together with its row in `runledger.migration_history`: a crash leaves the
 * database before or after a file, never inside. Any number of processes may call this at once; one applies a file, the
 * others wait and find it done. It needs no session state. If there is nothing to do it only reads, and the role needs
 * no more than that. Given an open transaction, everything becomes part of it.
 *
 * @example At the start of a worker
 * ```ts ignore
 * import { migrate } from "@runledger/postgres";
 * import postgres from "postgres";
 *
 * const sql = postgres();
 * const { applied, version } = await migrate(sql);
 * console.log(`schema version ${version}, ${applied.length} migrations applied`);
 * ```
 *
 * @param db Pool or open transaction, of a role that may create the schema or owns it.
 * @param options A signal to stop early.
 * @returns What was applied, and the version reached.
 * @throws {RunledgerError} `schema.newer` if a newer release applied a breaking migration; `schema.changed` if an applied
 * file had another text; the mapped error if a file failed, which undid that file and kept those before it.
 */
export function migrate(db: Queryable, options: MigrateOptions = {}): Promise<MigrateResult> {
  return applyMigrations(db, MIGRATIONS, options);
}

/**
 * As {@linkcode migrate}, with a given list.
 *
 * @internal
 * @param db Pool or open transaction.
 * @param migrations The list, in version order.
 * @param options A signal to stop early.
 * @returns What was applied, and the version reached.
 */
export async function applyMigrations(
  db: Queryable,
  migrations: readonly Migration[],
  options: MigrateOptions = {},
): Promise<MigrateResult> {
  const { signal } = options;
  const applied: number[] = [];
  signal?.throwIfAborted();
  const [row] = await runStatement(db, SELECT_BOOTSTRAPPED, []);
  if (row?.is_bootstrapped !== true) {
    await runScript(db, BOOTSTRAP);
  } else {
    // Most calls find nothing to do: they take no lock.
    const history = await readHistory(db);
    if (await nextMissing(history, migrations) === undefined) return { applied, version: versionOf(history) };
  }
  for (;;) {
    signal?.throwIfAborted();
    const step = await atomically(db, (tx) => applyNext(tx, migrations));
    if (step.applied === undefined) return { applied, version: step.version };
    applied.push(step.applied);
  }
}

async function applyNext(
  tx: Queryable,
  migrations: readonly Migration[],
): Promise<{ readonly applied: number | undefined; readonly version: number }> {
  await runScript(tx, LOCK_HISTORY);
  const history = await readHistory(tx);
  const next = await nextMissing(history, migrations);
  if (next === undefined) return { applied: undefined, version: versionOf(history) };
  await runScript(tx, next.sql);
  const values = [next.version, next.name, await checksumOf(next), isBreaking(next)];
  await runStatement(tx, INSERT_HISTORY, values, { write: true });
  return { applied: next.version, version: Math.max(next.version, versionOf(history)) };
}

/** Gives the next file to apply, unless the history forbids to apply any. */
async function nextMissing(
  history: readonly AppliedMigration[],
  migrations: readonly Migration[],
): Promise<Migration | undefined> {
  const difference = await compareSchema(history, migrations);
  assertMigratable(difference);
  return difference.missing[0];
}

/**
 * Checks, by reading only, that this library can work with the schema of a database.
 *
 * One statement. Additive migrations of a newer release are accepted, so that workers of two releases can run side by
 * side while the newer one is rolled out.
 *
 * @example Refuse to start on a wrong schema
 * ```ts ignore
 * import { ensureSchemaCompatible } from "@runledger/postgres";
 * import postgres from "postgres";
 *
 * await ensureSchemaCompatible(postgres());
 * ```
 *
 * @param db Pool or open transaction of a role that may read `runledger.migration_history`.
 * @returns When the schema fits.
 * @throws {RunledgerError} `schema.missing`; `schema.outdated` with `details.missing`; `schema.newer` with
 * `details.newer`; `schema.changed` with `details.changed`. The details name migrations.
 */
export function ensureSchemaCompatible(db: Queryable): Promise<void> {
  return ensureMigrationsApplied(db, MIGRATIONS);
}

/**
 * As {@linkcode ensureSchemaCompatible}, with a given list.
 *
 * @internal
 * @param db Pool or open transaction.
 * @param migrations The list, in version order.
 */
export async function ensureMigrationsApplied(db: Queryable, migrations: readonly Migration[]): Promise<void> {
  const history = await readHistory(db);
  const difference = await compareSchema(history, migrations);
  assertMigratable(difference);
  if (difference.missing.length === 0) return;
  if (history.length === 0) throw new RunledgerError("schema.missing");
  throw new RunledgerError("schema.outdated", { details: { missing: difference.missing.map(titleOf) } });
}

function assertMigratable({ newer, changed }: SchemaDifference): void {
  if (newer.length > 0) throw new RunledgerError("schema.newer", { details: { newer: newer.map(titleOf) } });
  if (changed.length > 0) throw new RunledgerError("schema.changed", { details: { changed: changed.map(titleOf) } });
}

async function compareSchema(
  history: readonly AppliedMigration[],
  migrations: readonly Migration[],
): Promise<SchemaDifference> {
  const appliedByVersion = new Map(history.map((row) => [row.version, row]));
  const known = new Set(migrations.map(({ version }) => version));
  const missing: Migration[] = [];
  const changed: Migration[] = [];
  for (const migration of migrations) {
    const row = appliedByVersion.get(migration.version);
    if (row === undefined) missing.push(migration);
    else if (row.checksum !== await checksumOf(migration)) changed.push(migration);
  }
  return { missing, changed, newer: history.filter((row) => row.isBreaking && !known.has(row.version)) };
}

async function readHistory(db: Queryable): Promise<readonly AppliedMigration[]> {
  const rows = await runStatement(db, SELECT_HISTORY, []);
  return rows.map(({ version, name, checksum, is_breaking: isBreaking }) => {
    if (
      typeof version === "number" && typeof name === "string" && typeof checksum === "string" &&
      typeof isBreaking === "boolean"
    ) return { version, name, checksum, isBreaking };
    throw new RunledgerError("db.unexpected_result", { internalMessage: "A row of runledger.migration_history." });
  });
}

function versionOf(history: readonly AppliedMigration[]): number {
  return history.at(-1)?.version ?? 0;
}

function titleOf({ version, name }: { readonly version: number; readonly name: string }): string {
  return `${String(version).padStart(4, "0")}_${name}`;
}

/** The header says whether a release that does not know the file may go on working with the schema. */
function isBreaking(migration: Migration): boolean {
  const [, answer] = /^-- breaking: (yes|no)$/m.exec(migration.sql) ?? [];
  if (answer !== undefined) return answer === "yes";
  throw new Error(`Migration ${titleOf(migration)} has no header line "-- breaking: yes" or "-- breaking: no".`);
}

async function checksumOf(migration: Migration): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(migration.sql));
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
