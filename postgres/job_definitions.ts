/**
 * Job definitions: the defaults of each job type and its switch.
 *
 * @module
 */

import { isRunledgerError, RunledgerError } from "@runledger/core";
import type { RunledgerErrorCode, RunledgerErrorDetail } from "@runledger/core";
import { equalConditions, readPage, StatementValues, textConditions } from "./_keyset_page.ts";
import type { KeysetList } from "./_keyset_page.ts";
import { readBoolean, readInstant, readInteger, readText } from "./_rows.ts";
import { noteText, operatorNote, switchValue } from "./operator_note.ts";
import type { OperatorNote } from "./operator_note.ts";
import type { Page, PageOptions } from "./pages.ts";
import { runStatement } from "./queryable.ts";
import type { Queryable, Row } from "./queryable.ts";

/** What a definition holds; a value of `defineJob` is one. */
export interface JobDefinitionSettings {
  /** The job type. Not blank, at most 255 bytes. */
  readonly type: string;
  /** The version of the definition, for people. */
  readonly version: number;
  /** How many attempts a run may take, unless the request says otherwise. */
  readonly maxAttempts: number;
  /** How long an attempt may take, in seconds, unless the request says otherwise. */
  readonly timeoutSeconds: number;
  /** How urgent jobs are, higher first, unless the request says otherwise. */
  readonly priority: number;
}

/** A stored definition. */
export interface StoredJobDefinition extends JobDefinitionSettings {
  /** Whether new jobs of the type may be enqueued. */
  readonly isEnabled: boolean;
  /** When it was first stored. */
  readonly createdAt: Date;
  /** When it last changed. */
  readonly updatedAt: Date;
}

const COLUMNS = `
  definition.job_type, definition.version, definition.max_attempts, definition.timeout_seconds, definition.priority,
  definition.is_enabled, extract(epoch from definition.created_at)::text as created_at,
  extract(epoch from definition.updated_at)::text as updated_at`;

// New ones first, with any unique index as the judge: "do update" goes by one of the two, and may then fail at the other,
// when somebody else inserts the type at once (1% of calls, eight connections that began together) or switches it on or off
// (PostgreSQL's look for a conflict can miss a row that is being changed). What a rival inserts meanwhile stays as he wants
// it, as if this one had gone first.
// locks: the new definitions in order of type, then those that change in order of type. index: job_definitions_pkey.
const UPSERT = `
with input as materialized (
  select input.job_type, input.version, input.max_attempts, input.timeout_seconds, input.priority
  from jsonb_to_recordset($1::text::jsonb) as input (
    job_type text, version integer, max_attempts integer, timeout_seconds integer, priority integer
  )
),
inserted as (
  insert into runledger.job_definitions (job_type, version, max_attempts, timeout_seconds, priority)
  select input.job_type, input.version, input.max_attempts, input.timeout_seconds, input.priority
  from input
  order by input.job_type
  on conflict do nothing
  returning job_type
),
changing as materialized (
  select definition.job_type, input.version, input.max_attempts, input.timeout_seconds, input.priority
  from input
  join runledger.job_definitions as definition on definition.job_type = input.job_type
  where input.job_type <> all (array(select inserted.job_type from inserted))
    and (definition.version, definition.max_attempts, definition.timeout_seconds, definition.priority)
      is distinct from (input.version, input.max_attempts, input.timeout_seconds, input.priority)
  order by definition.job_type
  for no key update of definition
)
update runledger.job_definitions as definition
set version = changing.version,
  max_attempts = changing.max_attempts,
  timeout_seconds = changing.timeout_seconds,
  priority = changing.priority,
  updated_at = now()
from changing
where definition.job_type = changing.job_type
`;

/**
 * Stores definitions, in one statement: new ones enabled, known ones with these settings. Whether a known one is enabled
 * stays as it is, so that an operator's pause survives a deployment. Safe to repeat; what does not change is not written.
 *
 * @param db A pool, client or open transaction.
 * @param definitions The definitions, no type twice.
 * @throws {RunledgerError} `job.invalid_definition` naming the field; `db.*` codes.
 */
export async function upsertJobDefinitions(
  db: Queryable,
  definitions: readonly JobDefinitionSettings[],
): Promise<void> {
  const seen = new Set<string>();
  for (const definition of definitions) {
    assertDefinition(definition);
    if (seen.has(definition.type)) {
      throw new RunledgerError("job.invalid_definition", {
        message: "A job type is defined twice.",
        details: { field: "type", jobType: definition.type },
      });
    }
    seen.add(definition.type);
  }
  if (definitions.length === 0) return;
  const input = definitions.map(({ type, version, maxAttempts, timeoutSeconds, priority }) => ({
    job_type: type,
    version,
    max_attempts: maxAttempts,
    timeout_seconds: timeoutSeconds,
    priority,
  }));
  await runStatement(db, UPSERT, [JSON.stringify(input)], { write: true });
}

// locks: the definitions in order of type, against schedules being activated (see migrations/0006_schedules.sql).
// index: job_definitions_pkey.
const SET_ENABLED =
  "select runledger.set_job_definitions_enabled($1::text::jsonb, $2::boolean, $3::text::jsonb)::text as answer";

/** What runledger.set_job_definitions_enabled answers. */
interface SetEnabledAnswer {
  readonly error?: RunledgerErrorCode;
  readonly details?: Readonly<Record<string, RunledgerErrorDetail>>;
  readonly definitions?: readonly Row[];
  readonly changed?: readonly string[];
}

/** Whether new jobs of a type may be enqueued, and what to record. */
export interface SetJobDefinitionEnabledOptions extends OperatorNote {
  /** Whether they may. */
  readonly isEnabled: boolean;
}

/**
 * Enables or disables a job type. Disabling refuses new jobs of the type; those already queued still run.
 *
 * An enqueue that began before the change was committed may still land. A type that an active schedule uses cannot be
 * disabled, nor can a schedule of a disabled type be activated, whoever else does what at the same time. A change is recorded
 * among the actions of operators, with reason and actor.
 *
 * @param db A pool, client or open transaction.
 * @param jobType The job type.
 * @param options Whether new jobs may be enqueued, and the reason and actor to record.
 * @returns The definition as it is now.
 * @throws {RunledgerError} `job.definition_not_found`; `job_definition.active_schedule_exists` with the first hundred of
 * them in `details.schedules`; `job.invalid_request` for a type or note that cannot be; `db.*` codes.
 */
export async function setJobDefinitionEnabled(
  db: Queryable,
  jobType: string,
  options: SetJobDefinitionEnabledOptions,
): Promise<StoredJobDefinition> {
  const jobTypes = [noteText("jobType", jobType, 255)];
  const isEnabled = switchValue("isEnabled", options.isEnabled);
  const { definitions } = await switchJobDefinitions(db, jobTypes, { isEnabled, note: operatorNote(options) });
  const [definition] = definitions;
  if (definition === undefined) throw new RunledgerError("job.definition_not_found");
  return definition;
}

/**
 * Enables or disables job types, all or none; unknown ones are left out.
 *
 * @internal
 * @param db A pool, client or open transaction.
 * @param jobTypes The types.
 * @param change Whether new jobs may be enqueued, and the note of the operator who says so; none for a sync.
 * @returns The definitions as they are now, by type, and which of them changed.
 */
export async function switchJobDefinitions(
  db: Queryable,
  jobTypes: readonly string[],
  change: { readonly isEnabled: boolean; readonly note?: string },
): Promise<{ readonly definitions: readonly StoredJobDefinition[]; readonly changed: readonly string[] }> {
  let row: Row | undefined;
  try {
    [row] = await runStatement(db, SET_ENABLED, [JSON.stringify(jobTypes), change.isEnabled, change.note ?? null], {
      write: true,
    });
  } catch (error) {
    // A snapshot that is older than the schedule: only the foreign key saw it, and calls it by its other end.
    if (!isRunledgerError(error, "job_schedule.definition_not_found_or_disabled")) throw error;
    throw new RunledgerError("job_definition.active_schedule_exists", { cause: error, details: { jobTypes } });
  }
  if (row === undefined) throw new RunledgerError("db.unexpected_result");
  const answer = JSON.parse(readText(row, "answer")) as SetEnabledAnswer;
  if (answer.error !== undefined) {
    throw new RunledgerError(answer.error, answer.details === undefined ? {} : { details: answer.details });
  }
  return { definitions: (answer.definitions ?? []).map(decodeDefinition), changed: answer.changed ?? [] };
}

/** Which definitions, and which page of them. */
export interface ListJobDefinitionsOptions extends PageOptions {
  /** Only enabled ones, or only disabled ones. */
  readonly isEnabled?: boolean;
  /** Only types with this text in them. */
  readonly text?: string;
}

const DEFINITIONS: KeysetList<StoredJobDefinition> = {
  name: "job_definitions",
  alias: "definition",
  keys: [{ column: "job_type", type: "text" }],
  direction: "asc",
  item: `${COLUMNS}
  from runledger.job_definitions as definition
  where definition.job_type = page.key_1`,
  decode: decodeDefinition,
};

/**
 * Lists definitions, by type. They belong to no organization.
 *
 * @param db A pool, client or open transaction.
 * @param options Which ones, from where on, and how many.
 * @returns A page.
 * @throws {RunledgerError} `job.invalid_pagination`; `job.invalid_request` for a filter that cannot be; `db.*` codes.
 */
export async function listJobDefinitions(
  db: Queryable,
  options: ListJobDefinitionsOptions = {},
): Promise<Page<StoredJobDefinition>> {
  const { isEnabled } = options;
  if (isEnabled !== undefined) switchValue("isEnabled", isEnabled);
  const bound = new StatementValues();
  // index: job_definitions_pkey.
  const source = {
    from: "runledger.job_definitions as definition",
    where: [],
    examines: ["definition.is_enabled"],
    filters: [
      ...equalConditions(bound, { "definition.is_enabled": isEnabled }),
      ...textConditions(bound, "definition.job_type", options.text),
    ],
  };
  return await readPage(db, DEFINITIONS, { source, bound, options });
}

function assertDefinition(definition: JobDefinitionSettings): void {
  noteText("type", definition.type, 255);
  for (const field of ["version", "maxAttempts", "timeoutSeconds"] as const) {
    const value = definition[field];
    if (!Number.isInteger(value) || value < 1 || value > 2_147_483_647) throw invalidDefinition(field);
  }
  if (!Number.isInteger(definition.priority) || Math.abs(definition.priority) > 2_147_483_647) {
    throw invalidDefinition("priority");
  }
}

function invalidDefinition(field: string): RunledgerError {
  return new RunledgerError("job.invalid_definition", { details: { field } });
}

function decodeDefinition(row: Row): StoredJobDefinition {
  return {
    type: readText(row, "job_type"),
    version: readInteger(row, "version"),
    maxAttempts: readInteger(row, "max_attempts"),
    timeoutSeconds: readInteger(row, "timeout_seconds"),
    priority: readInteger(row, "priority"),
    isEnabled: readBoolean(row, "is_enabled"),
    createdAt: readInstant(row, "created_at"),
    updatedAt: readInstant(row, "updated_at"),
  };
}
