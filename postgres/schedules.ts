/**
 * Schedules: what is enqueued again and again, and when.
 *
 * @module
 */

import { encodeJson, nameProblem, newId, RunledgerError } from "@runledger/core";
import type { JsonValue } from "@runledger/core";
import {
  present,
  readBoolean,
  readInstant,
  readInteger,
  readJson,
  readOptionalInstant,
  readOptionalText,
  readText,
} from "./_rows.ts";
import { noteText, switchValue, uuidValue } from "./operator_note.ts";
import { runStatement } from "./queryable.ts";
import type { Queryable, Row } from "./queryable.ts";
import { MAX_JITTER_SECONDS, nextFireAt, parseCron } from "./schedule_cron.ts";
import type { CronSchedule } from "./schedule_cron.ts";

/** The most bytes of UTF-8 that the name of a schedule may take. */
export const MAX_SCHEDULE_NAME_BYTES = 255;

/** What to enqueue, and when. */
export interface JobScheduleInput {
  /** What the schedule is called; unique across organizations. */
  readonly name: string;
  /** The type of its jobs. */
  readonly jobType: string;
  /**
   * When it fires: minute, hour, day of month, month, day of week; seconds may go first, a year last. Sunday is 0 or 7.
   * `@daily` and the like are understood.
   */
  readonly cron: string;
  /** The IANA time zone that the expression is meant in. @default {"UTC"} */
  readonly timezone?: string;
  /** The payload of its jobs, to which `_schedule` is added. */
  readonly payload: JsonValue;
  /** Whose jobs they are. Of a schedule that is there already it stays as it is. @default nobody's */
  readonly organizationId?: string;
  /** Whether it fires. Of a schedule that is there already it stays as it is. @default {true} */
  readonly isActive?: boolean;
  /** Up to how many seconds later it fires than its expression says; see {@linkcode JobSchedule}. @default {0} */
  readonly maxJitterSeconds?: number;
}

/**
 * A stored schedule.
 *
 * Its jitter is no chance: (its id XOR the date in milliseconds) modulo (the most seconds + 1), so that many schedules of
 * one expression spread out, and each keeps its place.
 */
export interface JobSchedule {
  /** The schedule. */
  readonly scheduleId: string;
  /** What it is called. */
  readonly name: string;
  /** The type of its jobs. */
  readonly jobType: string;
  /** Whose jobs they are; absent for nobody's. */
  readonly organizationId?: string;
  /** When it fires. */
  readonly cron: string;
  /** The time zone of the expression. */
  readonly timezone: string;
  /** The payload of its jobs, without `_schedule`. */
  readonly payload: JsonValue;
  /** Whether it fires. */
  readonly isActive: boolean;
  /** When it fires next, jitter included; absent when its expression has no further date. */
  readonly nextFireAt?: Date;
  /** When it fired last. */
  readonly lastFiredAt?: Date;
  /** Up to how many seconds later it fires than its expression says. */
  readonly maxJitterSeconds: number;
  /** When it was first stored. */
  readonly createdAt: Date;
  /** When it was last changed; firing is no change. */
  readonly updatedAt: Date;
}

/** What {@linkcode decodeSchedule} reads. */
export const SCHEDULE_COLUMNS = `
  schedule.id as schedule_id, schedule.name, schedule.job_type, schedule.organization_id, schedule.cron_expression,
  schedule.timezone, schedule.payload_template::text as payload, schedule.is_active,
  extract(epoch from schedule.next_fire_at)::text as next_fire_at,
  extract(epoch from schedule.last_fired_at)::text as last_fired_at, schedule.max_jitter_seconds,
  extract(epoch from schedule.created_at)::text as created_at,
  extract(epoch from schedule.updated_at)::text as updated_at`;

// index: job_schedules_name_unique. always one row.
const READ_PRESENT = `
select
  extract(epoch from clock_timestamp())::text as now,
  coalesce(jsonb_agg(jsonb_build_object(
    'id', schedule.id, 'name', schedule.name, 'cron', schedule.cron_expression, 'timezone', schedule.timezone
  )), '[]')::text as present
from runledger.job_schedules as schedule
where schedule.name = any (array(select jsonb_array_elements_text($1::text::jsonb)))
`;

// locks: the definitions in order of type, against being disabled; then the schedules in order of name.
// index: job_definitions_pkey, job_schedules_name_unique.
// Counting the definitions first is what makes the order. A schedule that a rival stored since the statement began is not
// in `found`; then the foreign key decides. What is inserted has an id of its own, also in place of one that was read
// and then deleted by a rival: two who both read that one would insert its id twice.
const upsertText = (isActive: string) => `
with input as materialized (
  select input.*
  from jsonb_to_recordset($1::text::jsonb) as input (
    id uuid, name text, job_type text, organization_id uuid, payload jsonb, cron_expression text, timezone text,
    is_active boolean, next_fire_at timestamptz, present_next_fire_at timestamptz, max_jitter_seconds integer
  )
),
defined as materialized (
  select definition.job_type, definition.is_enabled
  from runledger.job_definitions as definition
  where definition.job_type = any (array(select input.job_type from input))
  order by definition.job_type
  for key share
),
found as materialized (
  select schedule.name, schedule.is_active
  from runledger.job_schedules as schedule
  where (select count(*) from defined) >= 0
    and schedule.name = any (array(select input.name from input))
  order by schedule.name
  for no key update
),
refused as materialized (
  select jsonb_agg(distinct excluded.job_type) as job_types
  from input as excluded
  left join found as schedule on schedule.name = excluded.name
  left join defined on defined.job_type = excluded.job_type
  where defined.job_type is null
    or (not defined.is_enabled and coalesce(${isActive}, excluded.is_active))
),
stored as (
  insert into runledger.job_schedules as schedule (
    id, name, job_type, organization_id, payload_template, cron_expression, timezone, is_active, next_fire_at,
    max_jitter_seconds
  )
  select
    input.id, input.name, input.job_type, input.organization_id, coalesce(input.payload, 'null'),
    input.cron_expression, input.timezone, input.is_active, input.next_fire_at, input.max_jitter_seconds
  from input
  where (select refused.job_types from refused) is null
  order by input.name
  on conflict (name) do update
  set job_type = excluded.job_type,
    payload_template = excluded.payload_template,
    cron_expression = excluded.cron_expression,
    timezone = excluded.timezone,
    ${isActive === "schedule.is_active" ? "" : `is_active = ${isActive},`}
    next_fire_at = case
      when (schedule.cron_expression, schedule.timezone) = (excluded.cron_expression, excluded.timezone)
        then schedule.next_fire_at
      else (select input.present_next_fire_at from input where input.name = excluded.name)
    end,
    max_jitter_seconds = excluded.max_jitter_seconds,
    updated_at = case
      when (
        schedule.job_type, schedule.payload_template, schedule.cron_expression, schedule.timezone, schedule.is_active,
        schedule.max_jitter_seconds
      ) = (
        excluded.job_type, excluded.payload_template, excluded.cron_expression, excluded.timezone, ${isActive},
        excluded.max_jitter_seconds
      )
        then schedule.updated_at
      else now()
    end
  returning ${SCHEDULE_COLUMNS}
)
select
  (select refused.job_types::text from refused) as refused,
  (select jsonb_agg(to_jsonb(stored))::text from stored) as stored
`;

const UPSERT = upsertText("schedule.is_active");
const UPSERT_EXACTLY = upsertText("excluded.is_active");

/**
 * Stores a schedule under its name. See {@linkcode upsertJobSchedules}.
 *
 * @param db A pool, client or open transaction.
 * @param input The schedule.
 * @returns The schedule as it stands now.
 * @throws {RunledgerError} As {@linkcode upsertJobSchedules}.
 */
export async function upsertJobSchedule(db: Queryable, input: JobScheduleInput): Promise<JobSchedule> {
  const [stored] = await upsertJobSchedules(db, [input]);
  if (stored === undefined) throw new RunledgerError("db.unexpected_result");
  return stored;
}

/**
 * Stores schedules under their names, all or none. Safe to repeat, and from any number of processes.
 *
 * Of a schedule that is there already, whether it is active and whose it is stay as they are, so that an operator's pause
 * survives a deployment. Its next fire stays too, unless the expression or the zone changes: then, as for a new one, it is
 * the first date after now, by the database's clock. Two statements: the first reads the clock.
 *
 * @param db A pool, client or open transaction.
 * @param inputs The schedules, no name twice.
 * @returns The schedules as they stand now, in the same order.
 * @throws {RunledgerError} `job_schedule.invalid_name`, `job_schedule.invalid_cron` (also for an expression without any
 * date to come), `job_schedule.invalid_timezone`, `job_schedule.invalid_jitter`, `job.invalid_payload`,
 * `job.invalid_request`, each with `details.schedule`; `job_schedule.definition_not_found_or_disabled`; `db.*` codes.
 */
export function upsertJobSchedules(
  db: Queryable,
  inputs: readonly JobScheduleInput[],
): Promise<readonly JobSchedule[]> {
  return storeJobSchedules(db, inputs, { restoresActive: false });
}

/**
 * As {@linkcode upsertJobSchedules}, or with the input's word on what is active.
 *
 * @internal
 * @param db A pool, client or open transaction.
 * @param inputs The schedules, no name twice.
 * @param options Whether the input decides on what is active.
 * @returns The schedules as they stand now, in the same order.
 */
export async function storeJobSchedules(
  db: Queryable,
  inputs: readonly JobScheduleInput[],
  options: { readonly restoresActive: boolean },
): Promise<readonly JobSchedule[]> {
  const checked = new Map<string, CheckedSchedule>();
  for (const input of inputs) {
    const one = checkedSchedule(input);
    if (checked.has(input.name)) {
      throw new RunledgerError("job_schedule.invalid_name", {
        message: "A schedule is given twice in one call.",
        details: { schedule: input.name },
      });
    }
    checked.set(input.name, one);
  }
  if (inputs.length === 0) return [];
  const [row] = await runStatement(db, READ_PRESENT, [JSON.stringify([...checked.keys()])]);
  if (row === undefined) throw new RunledgerError("db.unexpected_result");
  const now = readInstant(row, "now");
  const found = readJson(row, "present") as unknown as readonly PresentSchedule[];
  const foundByName = new Map(found.map((schedule) => [schedule.name, schedule]));
  const encoded = [...checked.values()].map((one) => encodeSchedule(one, now, foundByName.get(one.input.name)));

  const [answer] = await runStatement(
    db,
    options.restoresActive ? UPSERT_EXACTLY : UPSERT,
    [`[${encoded.join(",")}]`],
    {
      write: true,
    },
  );
  if (answer === undefined) throw new RunledgerError("db.unexpected_result");
  if (answer["refused"] !== null) {
    const jobTypes = readJson(answer, "refused") as readonly string[];
    throw new RunledgerError("job_schedule.definition_not_found_or_disabled", { details: { jobTypes } });
  }
  const rows = readJson(answer, "stored") as unknown as readonly Row[];
  const stored = new Map(rows.map((stored) => [stored["name"], decodeSchedule(stored)]));
  return inputs.map(({ name }) => {
    const schedule = stored.get(name);
    if (schedule === undefined) throw new RunledgerError("db.unexpected_result");
    return schedule;
  });
}

/** What is known of a schedule before it is stored. */
interface PresentSchedule {
  readonly id: string;
  readonly name: string;
  readonly cron: string;
  readonly timezone: string;
}

interface CheckedSchedule {
  readonly input: JobScheduleInput;
  readonly parsed: CronSchedule;
  readonly payload: string;
}

/**
 * Checks a schedule without storing it. Whether its expression has a date to come is for the database's clock to say.
 *
 * @param input The schedule.
 * @throws {RunledgerError} As {@linkcode upsertJobSchedules}, as far as no database is needed.
 */
export function assertJobSchedule(input: JobScheduleInput): void {
  checkedSchedule(input);
}

function checkedSchedule(input: JobScheduleInput): CheckedSchedule {
  if (typeof input !== "object" || input === null) throw new TypeError("A schedule must be an object");
  const name = scheduleName(input.name);
  try {
    noteText("jobType", input.jobType, 255);
    const parsed = parseCron(input.cron, input.timezone);
    if (input.organizationId !== undefined) uuidValue("organizationId", input.organizationId);
    if (input.isActive !== undefined) switchValue("isActive", input.isActive);
    const jitter = input.maxJitterSeconds ?? 0;
    if (!Number.isInteger(jitter) || jitter < 0 || jitter > MAX_JITTER_SECONDS) {
      throw new RunledgerError("job_schedule.invalid_jitter");
    }
    return { input, parsed, payload: encodeJson(input.payload, { field: "payload" }) };
  } catch (error) {
    throw withSchedule(error, name);
  }
}

/** Refuses what cannot be the name of a schedule; gives it back otherwise. */
export function scheduleName(name: string): string {
  const problem = nameProblem(name, MAX_SCHEDULE_NAME_BYTES) ??
    (name.trim() === name ? undefined : "must not have white space around it");
  if (problem === undefined) return name;
  throw new RunledgerError("job_schedule.invalid_name", { message: `The name of a schedule ${problem}.` });
}

/** Says of which schedule an error speaks. */
function withSchedule(error: unknown, name: string): unknown {
  if (!(error instanceof RunledgerError)) return error;
  const { code, message, details } = error;
  return new RunledgerError(code, { message, details: { ...details, schedule: name } });
}

function encodeSchedule({ input, parsed, payload }: CheckedSchedule, now: Date, found?: PresentSchedule): string {
  const id = newId();
  const maxJitterSeconds = input.maxJitterSeconds ?? 0;
  const nextOf = (scheduleId: string) => nextFireAt(parsed, { scheduleId, maxJitterSeconds }, now)?.toISOString();
  const next = nextOf(id);
  // One whose last date has passed may be stored again: its cursor stays as it is.
  const isKnown = found?.cron === parsed.cron && found.timezone === parsed.timezone;
  if (next === undefined && !isKnown) {
    throw new RunledgerError("job_schedule.invalid_cron", {
      message: "The cron expression cannot be used: it has no date to come.",
      details: { problem: "it has no date to come", schedule: input.name },
    });
  }
  const fields = {
    id,
    name: input.name,
    job_type: input.jobType,
    organization_id: input.organizationId?.toLowerCase(),
    cron_expression: parsed.cron,
    timezone: parsed.timezone,
    is_active: input.isActive ?? true,
    next_fire_at: next,
    present_next_fire_at: found === undefined ? next : nextOf(found.id),
    max_jitter_seconds: maxJitterSeconds,
  };
  return `${JSON.stringify(fields).slice(0, -1)},"payload":${payload}}`;
}

/** Reads a row of {@linkcode SCHEDULE_COLUMNS}. */
export function decodeSchedule(row: Row): JobSchedule {
  return present({
    scheduleId: readText(row, "schedule_id"),
    name: readText(row, "name"),
    jobType: readText(row, "job_type"),
    organizationId: readOptionalText(row, "organization_id"),
    cron: readText(row, "cron_expression"),
    timezone: readText(row, "timezone"),
    payload: readJson(row, "payload"),
    isActive: readBoolean(row, "is_active"),
    nextFireAt: readOptionalInstant(row, "next_fire_at"),
    lastFiredAt: readOptionalInstant(row, "last_fired_at"),
    maxJitterSeconds: readInteger(row, "max_jitter_seconds"),
    createdAt: readInstant(row, "created_at"),
    updatedAt: readInstant(row, "updated_at"),
  });
}
