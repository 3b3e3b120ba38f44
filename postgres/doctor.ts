/**
 * Examining a database: what is wrong with the schema, the server or those who should be at work, each with its mending.
 *
 * @module
 */

import { activityFindings, listenFindings } from "./_doctor_activity.ts";
import { roleFindings, schemaFindings, serverFindings } from "./_doctor_schema.ts";
import { counterValue } from "./operator_note.ts";
import type { Queryable } from "./queryable.ts";

/**
 * What can be wrong with a database.
 *
 * - `schema_incompatible`: migrations are missing, changed, or those of a newer release.
 * - `object_missing`: something that a migration made is gone: a table, view, index, constraint, trigger or function.
 * - `function_changed`: a function has another body than its migration gave it.
 * - `trigger_disabled`: a trigger that guards the data is switched off.
 * - `index_invalid`: an index is not used, since building it failed.
 * - `roles_missing`: some or all of the roles of docs/roles.sql are not there.
 * - `grants_missing`: the roles are there, but not all that they may do; the script was not run after a migration.
 * - `autovacuum_off`: nothing removes dead rows.
 * - `dead_rows`: more dead rows than autovacuum should leave.
 * - `index_bloated`: an index is many times as large as what is in it.
 * - `long_transaction`: a transaction keeps vacuum from removing what died since it began.
 * - `leases_not_reaped`: leases ran out and no reaper comes.
 * - `heartbeats_missed`: leases that should have been extended were not: a worker hangs or is gone.
 * - `schedules_overdue`: schedules should have fired and did not.
 * - `gates_overdue`: gates should have had their default outcome and have not.
 * - `jobs_not_claimed`: jobs of a type are due for long and nobody claims them.
 * - `ledger_ahead`: a dump was restored from a server with higher transaction numbers, and following the ledger suffers.
 * - `listen_broken`: notifications do not arrive on this way to the database, as behind a pooler in transaction mode.
 */
export type HealthCode =
  | "schema_incompatible"
  | "object_missing"
  | "function_changed"
  | "trigger_disabled"
  | "index_invalid"
  | "roles_missing"
  | "grants_missing"
  | "autovacuum_off"
  | "dead_rows"
  | "index_bloated"
  | "long_transaction"
  | "leases_not_reaped"
  | "heartbeats_missed"
  | "schedules_overdue"
  | "gates_overdue"
  | "jobs_not_claimed"
  | "ledger_ahead"
  | "listen_broken";

/** Something that is wrong. */
export interface HealthFinding {
  /** What it is. */
  readonly code: HealthCode;
  /** A `problem` stops work or endangers data; with a `warning` things go on, slower or less safely. */
  readonly severity: "problem" | "warning";
  /** What it is about: an object of the schema, a role, a worker, a type, a schedule; absent where it is about all. */
  readonly subject?: string;
  /** What was found, in a sentence. */
  readonly message: string;
  /** What to do about it. */
  readonly fix: string;
}

/** From where on something is wrong. */
export interface ExamineDatabaseOptions {
  /** For how long a transaction may be open, in milliseconds. @default {300000} */
  readonly longTransactionMs?: number;
  /** For how long jobs may be due, in milliseconds. @default {300000} */
  readonly unclaimedMs?: number;
  /** For how long leases, schedules and gates may be overdue, in milliseconds. @default {120000} */
  readonly overdueMs?: number;
  /** How many dead rows a table may have, if they are also more than a fifth of the living. @default {10000} */
  readonly deadRows?: number;
  /** How many bytes of an index may be empty; more than a thousand for each of its entries always may. @default {134217728} */
  readonly bloatedBytes?: number;
  /** How long to wait for a notification, in milliseconds. @default {2000} */
  readonly listenTimeoutMs?: number;
}

/** The same, all of them set. */
export type HealthLimits = Required<ExamineDatabaseOptions>;

/**
 * Examines a database. It only reads, apart from one notification on a channel of its own.
 *
 * Cheap at any size of the tables: a dozen statements, each of which looks at the catalogs, at the server's statistics or
 * at a bounded piece of an index. A role that is no member of `pg_monitor` does not see how long others' transactions are
 * open. Whether notifications arrive is tried only with a handle that can listen; see {@linkcode listenTo}.
 *
 * @param db A pool; with a client or an open transaction notifications are not tried.
 * @param options From where on something is wrong.
 * @returns What is wrong, problems first; nothing for a healthy database.
 * @throws {RunledgerError} `job.invalid_request` for an option that cannot be; `db.*` codes.
 */
export async function examineDatabase(
  db: Queryable,
  options: ExamineDatabaseOptions = {},
): Promise<readonly HealthFinding[]> {
  const {
    longTransactionMs = 300_000,
    unclaimedMs = 300_000,
    overdueMs = 120_000,
    deadRows = 10_000,
    bloatedBytes = 134_217_728,
    listenTimeoutMs = 2000,
  } = options;
  const limits = { longTransactionMs, unclaimedMs, overdueMs, deadRows, bloatedBytes, listenTimeoutMs };
  for (const [field, value] of Object.entries(limits)) counterValue(field, value);
  const schema = await schemaFindings(db);
  // Without the tables there is nothing more to be asked.
  const isThere = !schema.some(({ code, severity }) =>
    severity === "problem" && (code === "schema_incompatible" || code === "object_missing")
  );
  const findings = [...schema, ...await serverFindings(db, limits)];
  if (isThere) {
    findings.push(...await roleFindings(db), ...await activityFindings(db, limits));
  }
  findings.push(...await listenFindings(db, limits));
  return findings.toSorted((a, b) => Number(a.severity === "warning") - Number(b.severity === "warning"));
}
