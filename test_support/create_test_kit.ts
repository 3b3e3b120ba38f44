/**
 * Making a test kit: a database, the catalog's definitions in it, and a clock that stands still.
 *
 * @module
 */

import type { Queryable } from "@runledger/postgres";
import { silentLogger } from "@runledger/runtime";
import type { JobCatalog, JobsConfig, Logger } from "@runledger/runtime";
import type { Sql } from "postgres";
import { AttemptFaults } from "./attempt_faults.ts";
import { KitClock } from "./kit_clock.ts";
import { openKitDatabase } from "./kit_database.ts";
import { KitEngine } from "./kit_engine.ts";
import type { InProcessDatabase } from "./pglite_database.ts";
import { RunledgerTestKit } from "./test_kit.ts";

/** What a test kit runs, and on what. */
export interface TestKitOptions {
  /** The jobs, their handlers, schedules and hooks. Complete it before. */
  readonly catalog: JobCatalog;
  /** The date at which the calendar begins by which schedules fire. It must be past. @default Monday, 2024-01-01T00:00Z */
  readonly startsAt?: Date;
  /** Settings of the worker and the reaper: `leaseTtlSeconds`, `reaperRetryDelayMs`, `workerId`. */
  readonly config?: Pick<Partial<JobsConfig>, "leaseTtlSeconds" | "reaperRetryDelayMs" | "workerId">;
  /** Where worker and reaper report. @default nowhere */
  readonly logger?: Logger;
  /** How long one attempt may take, in milliseconds of real time. @default {10000} */
  readonly attemptTimeoutMs?: number;
}

/** What a test kit runs, on a database that the test brings. */
export interface TestKitDatabaseOptions<Db extends Queryable> extends TestKitOptions {
  /** A pool on a migrated database, as its owner: the kit updates Runledger's tables. */
  readonly database: Db;
  /** Says that jobs which wait or run there may be moved and run; otherwise there must be none. @default {false} */
  readonly takesOverJobs?: boolean;
}

/** The longest time that timers take. */
const MAX_TIMEOUT_MS = 2_147_483_647;

/** A Monday, the first day of a leap year, and past for years. */
const STARTS_AT = "2024-01-01T00:00:00.000Z";

/**
 * Makes a test kit on a database of its own: a copy of a migrated template on the server of the test run, see
 * `createEphemeralDatabase`. The first call of a checkout starts the server; later ones take some tens of milliseconds.
 *
 * The catalog is synced. Use the kit with `await using`, or dispose of it at the end of the test.
 *
 * @param options What to run.
 * @returns The kit; its `db` is a postgres.js pool.
 * @throws {RangeError} When the calendar would begin in the future, or `attemptTimeoutMs` cannot be.
 * @throws {RunledgerError} What `catalog.sync` throws.
 */
export function createTestKit(
  options: TestKitOptions & { readonly database?: "ephemeral" },
): Promise<RunledgerTestKit<Sql>>;

/**
 * Makes a test kit on PostgreSQL in this process, without any server: PGlite, the npm package `@electric-sql/pglite`. The
 * first instance takes some seconds and half a gigabyte; the kits after it clean it and use it again.
 *
 * @param options What to run.
 * @returns The kit; its `db` is a PGlite instance.
 * @throws {Error} When the package is not installed.
 * @throws {RangeError} When the calendar would begin in the future, or `attemptTimeoutMs` cannot be.
 * @throws {RunledgerError} What `catalog.sync` throws.
 */
export function createTestKit(
  options: TestKitOptions & { readonly database: "pglite" },
): Promise<RunledgerTestKit<InProcessDatabase>>;

/**
 * Makes a test kit on a migrated database that the test brings and closes.
 *
 * @param options What to run, and where.
 * @returns The kit; its `db` is the handle that was given.
 * @throws {Error} When jobs wait or run there, unless `takesOverJobs` is set.
 * @throws {RangeError} When the calendar would begin in the future, or `attemptTimeoutMs` cannot be.
 * @throws {RunledgerError} `schema.*` for a database that is not migrated; what `catalog.sync` throws.
 */
export function createTestKit<Db extends Queryable>(
  options: TestKitDatabaseOptions<Db>,
): Promise<RunledgerTestKit<Db>>;

export async function createTestKit(
  options: TestKitOptions & {
    readonly database?: "ephemeral" | "pglite" | Queryable;
    readonly takesOverJobs?: boolean;
  },
): Promise<RunledgerTestKit> {
  const { catalog, config = {}, logger = silentLogger, attemptTimeoutMs = 10_000, database = "ephemeral" } = options;
  if (!(attemptTimeoutMs > 0 && attemptTimeoutMs <= MAX_TIMEOUT_MS)) {
    throw new RangeError(`attemptTimeoutMs must be a number of milliseconds up to ${MAX_TIMEOUT_MS}`);
  }
  const startsAt = options.startsAt ?? new Date(STARTS_AT);
  if (!(startsAt.getTime() <= Date.now())) throw new RangeError("startsAt must be a date that has passed");
  const opened = await openKitDatabase(database, { takesOverJobs: options.takesOverJobs ?? false });
  const close = () => opened[Symbol.asyncDispose]();
  try {
    const { db } = opened;
    await catalog.sync(db);
    const clock = await KitClock.start(db, startsAt);
    await clock.anchorSchedules(catalog.schedules.map(({ name }) => name));
    const engine = new KitEngine({ db, catalog, faults: new AttemptFaults(), config, logger, attemptTimeoutMs }, clock);
    return new RunledgerTestKit(db, engine, close);
  } catch (error) {
    await close();
    throw error;
  }
}
