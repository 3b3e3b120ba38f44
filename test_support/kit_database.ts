/**
 * The database of a test kit: one of its own, one in this process, or one that the test brings.
 *
 * @module
 */

import { ensureSchemaCompatible, listJobs } from "@runledger/postgres";
import type { Queryable } from "@runledger/postgres";
import postgres from "postgres";
import { createEphemeralDatabase } from "./ephemeral_database.ts";
import { openInProcessDatabase } from "./pglite_database.ts";

/** A database, and what ends its use. */
export interface KitDatabase extends AsyncDisposable {
  readonly db: Queryable;
}

/**
 * Opens a migrated database.
 *
 * @param database Where.
 * @param options Whether a database that is brought may have jobs that wait or run.
 * @returns The database.
 * @throws {RunledgerError} `schema.*` for one that is not migrated.
 * @throws {Error} When there are jobs, or the database cannot be had.
 */
export async function openKitDatabase(
  database: "ephemeral" | "pglite" | Queryable,
  options: { readonly takesOverJobs: boolean },
): Promise<KitDatabase> {
  if (database === "pglite") return await openInProcessDatabase();
  if (database === "ephemeral") return await openEphemeral();
  await ensureSchemaCompatible(database);
  if (!options.takesOverJobs) await assertNoJobs(database);
  return { db: database, [Symbol.asyncDispose]: () => Promise.resolve() };
}

async function openEphemeral(): Promise<KitDatabase> {
  const database = await createEphemeralDatabase();
  const db = postgres(database.url, { max: 4, onnotice: () => {} });
  return {
    db,
    async [Symbol.asyncDispose]() {
      await db.end({ timeout: 1 });
      await database[Symbol.asyncDispose]();
    },
  };
}

/** The kit moves everything that waits, and runs it: nobody wants that to happen to a database by mistake. */
async function assertNoJobs(db: Queryable): Promise<void> {
  for (const status of ["PENDING", "LEASED"] as const) {
    const { items } = await listJobs(db, { scope: "all", status, limit: 1 });
    if (items.length === 0) continue;
    throw new Error(
      "This database has jobs that wait or run. A test kit moves their times and runs them, so it wants a database that " +
        "nobody else uses; takesOverJobs: true says that this is one.",
    );
  }
}
