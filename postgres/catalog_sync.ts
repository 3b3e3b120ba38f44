/**
 * Bringing a catalog, the definitions and schedules that a program declares, into the database.
 *
 * @module
 */

import { isRunledgerError, RunledgerError } from "@runledger/core";
import type { RunledgerErrorCode } from "@runledger/core";
import { readText } from "./_rows.ts";
import { switchJobDefinitions, upsertJobDefinitions } from "./job_definitions.ts";
import type { JobDefinitionSettings } from "./job_definitions.ts";
import { noteText } from "./operator_note.ts";
import { atomically, runStatement } from "./queryable.ts";
import type { Queryable } from "./queryable.ts";
import { MAX_SCHEDULE_NAME_BYTES, storeJobSchedules, upsertJobSchedules } from "./schedules.ts";
import type { JobScheduleInput } from "./schedules.ts";

/** What a program declares. */
export interface CatalogEntries {
  /** Its job types, none twice. */
  readonly definitions: readonly JobDefinitionSettings[];
  /** Its schedules, no name twice. @default none */
  readonly schedules?: readonly JobScheduleInput[];
}

/** What a catalog owns: what is in here and not in the catalog is switched off. */
export interface CatalogScope {
  /** The job types that it owns. Must hold every type of the catalog. */
  readonly jobTypes: readonly string[];
  /** The schedules that it owns. If given it must hold every schedule of the catalog. @default none */
  readonly scheduleNames?: readonly string[];
}

/** What an exact sync changed. */
export interface CatalogSyncReport {
  /** Owned job types that are not in the catalog and were enabled until now, sorted. */
  readonly disabledJobTypes: readonly string[];
  /** Job types of the catalog that were there and disabled until now, sorted. */
  readonly enabledJobTypes: readonly string[];
  /** Owned schedules that are not in the catalog and were active until now, sorted. */
  readonly pausedSchedules: readonly string[];
}

/**
 * Stores what a catalog declares, all or nothing. What it does not have is left alone, and what an operator paused, a job
 * type or a schedule, stays paused. Safe to repeat, and from any number of processes.
 *
 * @param db A pool, client or open transaction.
 * @param entries What the catalog declares.
 * @throws {RunledgerError} As `upsertJobDefinitions` and `upsertJobSchedules`.
 */
export async function syncJobCatalog(db: Queryable, entries: CatalogEntries): Promise<void> {
  const { definitions, schedules = [] } = entries;
  if (schedules.length === 0) return await upsertJobDefinitions(db, definitions);
  await undeadlocked(() =>
    atomically(db, async (tx) => {
      await upsertJobDefinitions(tx, definitions);
      await upsertJobSchedules(tx, schedules);
    })
  );
}

// locks: the definitions, in order of type, before anything else is locked. index: job_definitions_pkey.
const LOCK_DEFINITIONS = `
select definition.job_type
from runledger.job_definitions as definition
where definition.job_type = any (array(select jsonb_array_elements_text($1::text::jsonb)))
order by definition.job_type
for update
`;

// locks: the schedules, in order of name. index: job_schedules_name_unique. no row: none was active.
const PAUSE_SCHEDULES = `
with found as materialized (
  select schedule.id
  from runledger.job_schedules as schedule
  where schedule.name = any (array(select jsonb_array_elements_text($1::text::jsonb)))
    and schedule.is_active
  order by schedule.name
  for no key update
)
update runledger.job_schedules as schedule
set is_active = false,
  updated_at = now()
where schedule.id = any (array(select found.id from found))
returning schedule.name
`;

/**
 * Makes the database what a catalog declares, within what the catalog owns, all or nothing: job types of the catalog are
 * stored and enabled, its schedules are stored and active as it says; owned schedules that it does not have are paused,
 * owned job types that it does not have are disabled. An operator's pause does not survive this. Nothing is deleted, and
 * jobs that are queued still run.
 *
 * @param db A pool, client or open transaction.
 * @param entries What the catalog declares.
 * @param scope What it owns.
 * @returns What was switched on and off.
 * @throws {RunledgerError} `job_definition.active_schedule_exists` if an active schedule that the catalog does not own uses
 * a type that would be disabled; `job.invalid_definition` if the catalog is empty, or has what it does not own;
 * `job_schedule.invalid_name` if it has a schedule that it does not own; as `upsertJobDefinitions` and
 * `upsertJobSchedules`.
 */
export async function syncJobCatalogExactly(
  db: Queryable,
  entries: CatalogEntries,
  scope: CatalogScope,
): Promise<CatalogSyncReport> {
  const { definitions, schedules = [] } = entries;
  const present = definitions.map(({ type }) => type);
  if (present.length === 0) {
    throw new RunledgerError("job.invalid_definition", {
      message: "An empty catalog cannot be synced exactly: it would disable all that it owns.",
      details: { field: "definitions" },
    });
  }
  const ownedTypes = ownedNames("jobTypes", scope.jobTypes, 255);
  assertOwned("job.invalid_definition", "jobTypes", ownedTypes, present);
  const presentSchedules = schedules.map(({ name }) => name);
  const ownedSchedules = ownedNames("scheduleNames", scope.scheduleNames ?? [], MAX_SCHEDULE_NAME_BYTES);
  const ownsSchedules = scope.scheduleNames !== undefined;
  if (ownsSchedules) assertOwned("job_schedule.invalid_name", "scheduleNames", ownedSchedules, presentSchedules);
  const absentTypes = ownedTypes.filter((type) => !present.includes(type));
  const absentSchedules = ownedSchedules.filter((name) => !presentSchedules.includes(name));

  return await undeadlocked(() =>
    atomically(db, async (tx) => {
      await runStatement(tx, LOCK_DEFINITIONS, [JSON.stringify(ownedTypes)]);
      await upsertJobDefinitions(tx, definitions);
      const enabled = await switchJobDefinitions(tx, present, { isEnabled: true });
      await storeJobSchedules(tx, schedules, { restoresActive: ownsSchedules });
      const paused = await runStatement(tx, PAUSE_SCHEDULES, [JSON.stringify(absentSchedules)], { write: true });
      const disabled = await switchJobDefinitions(tx, absentTypes, { isEnabled: false });
      return {
        disabledJobTypes: disabled.changed,
        enabledJobTypes: enabled.changed,
        pausedSchedules: paused.map((row) => readText(row, "name")).sort(),
      };
    })
  );
}

/** How often a sync is tried when the database undid it for colliding with another one. */
const MAX_TRIES = 4;

/**
 * Definitions that are not there yet cannot be locked in order: two first syncs of different catalogs may wait for each
 * other's. The one that the server undoes finds them locked, in order, when it is tried again.
 */
async function undeadlocked<T>(sync: () => Promise<T>): Promise<T> {
  for (let tries = 1;; tries++) {
    try {
      return await sync();
    } catch (error) {
      if (tries >= MAX_TRIES || !isRunledgerError(error, "db.serialization_failure")) throw error;
    }
  }
}

function ownedNames(field: string, names: readonly string[], maxBytes: number): readonly string[] {
  if (!Array.isArray(names)) throw new TypeError(`'${field}' must be an array of names`);
  return [...new Set(names.map((name) => noteText(field, name, maxBytes)))];
}

function assertOwned(
  code: RunledgerErrorCode,
  field: string,
  owned: readonly string[],
  present: readonly string[],
): void {
  const names = present.filter((name) => !owned.includes(name));
  if (names.length === 0) return;
  throw new RunledgerError(code, {
    message: `The catalog has names that '${field}' of the scope does not hold: ${names.join(", ")}.`,
    details: { field, names },
  });
}
