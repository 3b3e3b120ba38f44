/**
 * Runtime configs: one JSON object for each job type that operators may change while workers run.
 *
 * @module
 */

import { encodeJson, RunledgerError } from "@runledger/core";
import type { JsonValue } from "@runledger/core";
import { readPage, StatementValues, textConditions } from "./_keyset_page.ts";
import type { KeysetList } from "./_keyset_page.ts";
import { present, readInstant, readInteger, readJson, readOptionalText, readText } from "./_rows.ts";
import { noteText, uuidValue } from "./operator_note.ts";
import type { Page, PageOptions } from "./pages.ts";
import { runStatement } from "./queryable.ts";
import type { Queryable, Row } from "./queryable.ts";

/** A JSON object. */
export type JobRuntimeConfigValue = { readonly [name: string]: JsonValue };

/** What to store for a job type. */
export interface JobRuntimeConfigInput {
  /** The job type; it must be defined. */
  readonly jobType: string;
  /** The version of the config's shape, from 1, for the code that reads it. */
  readonly schemaVersion: number;
  /** The config. */
  readonly config: JobRuntimeConfigValue;
  /** Who stores it, a UUID; opaque to this library. */
  readonly updatedByUserId?: string;
}

/** A stored config. */
export interface JobRuntimeConfig extends JobRuntimeConfigInput {
  /** When it was first stored. */
  readonly createdAt: Date;
  /** When it was last stored. */
  readonly updatedAt: Date;
}

const COLUMNS = `
  stored.job_type, stored.schema_version, stored.config::text as config, stored.updated_by_user_id,
  extract(epoch from stored.created_at)::text as created_at, extract(epoch from stored.updated_at)::text as updated_at`;

// locks: the config. index: job_runtime_configs_pkey. no row: there is one already, and $5 says to keep it.
const UPSERT = `
insert into runledger.job_runtime_configs as stored (job_type, schema_version, config, updated_by_user_id)
values ($1::text, $2::integer, $3::text::jsonb, $4::uuid)
on conflict (job_type) do update
set schema_version = excluded.schema_version,
  config = excluded.config,
  updated_by_user_id = excluded.updated_by_user_id,
  updated_at = now()
where not $5::boolean
returning ${COLUMNS}
`;

/**
 * Stores the config of a job type in place of what is there.
 *
 * @param db A pool, client or open transaction.
 * @param input What to store.
 * @param options `onlyIfMissing` keeps what is there. @default `{ onlyIfMissing: false }`
 * @returns The config that stands now.
 * @throws {RunledgerError} `job.definition_not_found` for an unknown type; `job.invalid_request`, `job.invalid_payload`;
 * `db.*` codes.
 */
export async function upsertJobRuntimeConfig(
  db: Queryable,
  input: JobRuntimeConfigInput,
  options: { readonly onlyIfMissing?: boolean } = {},
): Promise<JobRuntimeConfig> {
  const { jobType, schemaVersion, config, updatedByUserId } = input;
  noteText("jobType", jobType, 255);
  if (!Number.isInteger(schemaVersion) || schemaVersion < 1 || schemaVersion > 2_147_483_647) {
    throw new RunledgerError("job.invalid_request", { details: { field: "schemaVersion" } });
  }
  const text = encodeJson(config, { field: "config" });
  if (!text.startsWith("{")) {
    throw new RunledgerError("job.invalid_request", {
      message: "A runtime config must be a JSON object.",
      details: { field: "config" },
    });
  }
  const [row] = await runStatement(db, UPSERT, [
    jobType,
    schemaVersion,
    text,
    updatedByUserId === undefined ? null : uuidValue("updatedByUserId", updatedByUserId),
    options.onlyIfMissing === true,
  ], { write: true });
  return row === undefined ? await getRequiredJobRuntimeConfig(db, jobType) : decodeConfig(row);
}

// index: job_runtime_configs_pkey. no row: none is stored.
const GET = `
select ${COLUMNS}
from runledger.job_runtime_configs as stored
where stored.job_type = $1::text
`;

/**
 * Reads the config of a job type.
 *
 * @param db A pool, client or open transaction.
 * @param jobType The job type.
 * @returns The config, or `undefined` if none is stored.
 * @throws {RunledgerError} `db.*` codes.
 */
export async function getJobRuntimeConfig(db: Queryable, jobType: string): Promise<JobRuntimeConfig | undefined> {
  const [row] = await runStatement(db, GET, [noteText("jobType", jobType, 255)]);
  return row === undefined ? undefined : decodeConfig(row);
}

/**
 * Reads the config of a job type that must have one.
 *
 * @param db A pool, client or open transaction.
 * @param jobType The job type.
 * @returns The config.
 * @throws {RunledgerError} `job.runtime_config_not_found`; `db.*` codes.
 */
export async function getRequiredJobRuntimeConfig(db: Queryable, jobType: string): Promise<JobRuntimeConfig> {
  const config = await getJobRuntimeConfig(db, jobType);
  if (config === undefined) throw new RunledgerError("job.runtime_config_not_found");
  return config;
}

/** Which configs, and which page of them. */
export interface ListJobRuntimeConfigsOptions extends PageOptions {
  /** Only types with this text in them. */
  readonly text?: string;
}

const CONFIGS: KeysetList<JobRuntimeConfig> = {
  name: "job_runtime_configs",
  alias: "stored",
  keys: [{ column: "job_type", type: "text" }],
  direction: "asc",
  item: `${COLUMNS}
  from runledger.job_runtime_configs as stored
  where stored.job_type = page.key_1`,
  decode: decodeConfig,
};

/**
 * Lists configs, by job type. They belong to no organization.
 *
 * @param db A pool, client or open transaction.
 * @param options Which ones, from where on, and how many.
 * @returns A page.
 * @throws {RunledgerError} `job.invalid_pagination`; `job.invalid_request` for a filter that cannot be; `db.*` codes.
 */
export async function listJobRuntimeConfigs(
  db: Queryable,
  options: ListJobRuntimeConfigsOptions = {},
): Promise<Page<JobRuntimeConfig>> {
  const bound = new StatementValues();
  // index: job_runtime_configs_pkey.
  const source = {
    from: "runledger.job_runtime_configs as stored",
    where: [],
    filters: textConditions(bound, "stored.job_type", options.text),
  };
  return await readPage(db, CONFIGS, { source, bound, options });
}

function decodeConfig(row: Row): JobRuntimeConfig {
  return present({
    jobType: readText(row, "job_type"),
    schemaVersion: readInteger(row, "schema_version"),
    config: readJson(row, "config") as JobRuntimeConfigValue,
    updatedByUserId: readOptionalText(row, "updated_by_user_id"),
    createdAt: readInstant(row, "created_at"),
    updatedAt: readInstant(row, "updated_at"),
  });
}
