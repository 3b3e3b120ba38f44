/**
 * What operators do with schedules: look, pause, move, delete.
 *
 * @module
 */

import { RunledgerError } from "@runledger/core";
import { equalConditions, readPage, scopeConditions, StatementValues, textConditions } from "./_keyset_page.ts";
import type { KeysetList } from "./_keyset_page.ts";
import { readText } from "./_rows.ts";
import { instantValue, noteText, switchValue } from "./operator_note.ts";
import type { Page, ScopedPageOptions } from "./pages.ts";
import { runStatement } from "./queryable.ts";
import type { Queryable, Row } from "./queryable.ts";
import { nextFireAt, parseCron } from "./schedule_cron.ts";
import { decodeSchedule, SCHEDULE_COLUMNS, scheduleName } from "./schedules.ts";
import type { JobSchedule } from "./schedules.ts";
import { scopeValues } from "./scope.ts";
import type { Scope } from "./scope.ts";

const IN_SCOPE = "($2::text = 'all' or schedule.organization_id is not distinct from $3::uuid)";

// locks: the definition against being disabled, if the schedule is switched on; then the schedule.
// index: job_schedules_name_unique, job_definitions_pkey. no row: no such schedule in scope.
const SET_ACTIVE = `
with named as materialized (
  select schedule.id, schedule.job_type
  from runledger.job_schedules as schedule
  where schedule.name = $1::text
    and ${IN_SCOPE}
),
defined as materialized (
  select definition.is_enabled
  from runledger.job_definitions as definition
  where $4::boolean
    and definition.job_type in (select named.job_type from named)
  for key share
),
changed as (
  update runledger.job_schedules as schedule
  set is_active = $4::boolean,
    updated_at = case when schedule.is_active = $4::boolean then schedule.updated_at else now() end
  where not exists (select from defined where not defined.is_enabled)
    and schedule.id in (select named.id from named)
  returning ${SCHEDULE_COLUMNS}
)
select named.job_type, (select to_jsonb(changed)::text from changed) as changed
from named
`;

/**
 * Pauses a schedule or lets it go on. A paused one fires nothing; when it goes on, fires that it missed count as one.
 *
 * @param db A pool, client or open transaction.
 * @param name The schedule.
 * @param options Whose schedule it must be, and whether it shall fire.
 * @returns The schedule as it is now.
 * @throws {RunledgerError} `job_schedule.not_found`; `job_schedule.definition_not_found_or_disabled`; `db.*` codes.
 */
export async function setJobScheduleActive(
  db: Queryable,
  name: string,
  options: { readonly scope: Scope; readonly isActive: boolean },
): Promise<JobSchedule> {
  const values = [scheduleName(name), ...scopeValues(options.scope), switchValue("isActive", options.isActive)];
  const [row] = await runStatement(db, SET_ACTIVE, values, { write: true });
  if (row === undefined) throw new RunledgerError("job_schedule.not_found");
  if (row["changed"] === null) {
    throw new RunledgerError("job_schedule.definition_not_found_or_disabled", {
      details: { jobTypes: [readText(row, "job_type")] },
    });
  }
  return decodeSchedule(JSON.parse(readText(row, "changed")) as Row);
}

// locks: the schedule. index: job_schedules_name_unique. no row: no such schedule in scope.
const SET_NEXT_FIRE_AT = `
update runledger.job_schedules as schedule
set next_fire_at = $4::timestamptz,
  updated_at = now()
where schedule.name = $1::text
  and ${IN_SCOPE}
returning ${SCHEDULE_COLUMNS}
`;

/**
 * Sets when a schedule fires next: any instant. A past one is due at once. After it the expression counts again.
 *
 * @param db A pool, client or open transaction.
 * @param name The schedule.
 * @param options Whose schedule it must be, and when it shall fire, in whole milliseconds.
 * @returns The schedule as it is now.
 * @throws {RunledgerError} `job_schedule.not_found`; `job.invalid_request`; `db.*` codes.
 */
export async function setJobScheduleNextFireAt(
  db: Queryable,
  name: string,
  options: { readonly scope: Scope; readonly nextFireAt: Date },
): Promise<JobSchedule> {
  const values = [
    scheduleName(name),
    ...scopeValues(options.scope),
    instantValue("nextFireAt", options.nextFireAt),
  ];
  const [row] = await runStatement(db, SET_NEXT_FIRE_AT, values, { write: true });
  if (row === undefined) throw new RunledgerError("job_schedule.not_found");
  return decodeSchedule(row);
}

// locks: the schedule. index: job_schedules_name_unique. no row: no such schedule in scope.
const DELETE = `
delete from runledger.job_schedules as schedule
where schedule.name = $1::text
  and ${IN_SCOPE}
returning schedule.id as schedule_id
`;

/**
 * Deletes a schedule. Jobs that it has enqueued stay.
 *
 * @param db A pool, client or open transaction.
 * @param name The schedule.
 * @param options Whose schedule it must be.
 * @returns Whether there was one.
 * @throws {RunledgerError} `db.*` codes.
 */
export async function deleteJobSchedule(
  db: Queryable,
  name: string,
  options: { readonly scope: Scope },
): Promise<boolean> {
  const values = [scheduleName(name), ...scopeValues(options.scope)];
  return (await runStatement(db, DELETE, values, { write: true })).length > 0;
}

// index: job_schedules_name_unique. no row: no such schedule in scope.
const GET = `
select ${SCHEDULE_COLUMNS}
from runledger.job_schedules as schedule
where schedule.name = $1::text
  and ${IN_SCOPE}
`;

/**
 * Reads a schedule.
 *
 * @param db A pool, client or open transaction.
 * @param name The schedule.
 * @param options Whose schedule it must be.
 * @returns The schedule, or `undefined` if there is none of that name in the scope.
 * @throws {RunledgerError} `job_schedule.invalid_name`; `db.*` codes.
 */
export async function getJobScheduleByName(
  db: Queryable,
  name: string,
  options: { readonly scope: Scope },
): Promise<JobSchedule | undefined> {
  const [row] = await runStatement(db, GET, [scheduleName(name), ...scopeValues(options.scope)]);
  return row === undefined ? undefined : decodeSchedule(row);
}

/** Which schedules, and which page of them. */
export interface ListJobSchedulesOptions extends ScopedPageOptions {
  /** Only schedules of this job type. */
  readonly jobType?: string;
  /** Only active ones, or only paused ones. */
  readonly isActive?: boolean;
  /** Only schedules with this text in their name. */
  readonly text?: string;
}

const SCHEDULES: KeysetList<JobSchedule> = {
  name: "job_schedules",
  alias: "schedule",
  keys: [{ column: "name", type: "text" }],
  direction: "asc",
  item: `${SCHEDULE_COLUMNS}
  from runledger.job_schedules as schedule
  where schedule.name = page.key_1`,
  decode: decodeSchedule,
};

/**
 * Lists schedules by name. What comes behind the next fire of one, {@linkcode nextScheduleFires} tells.
 *
 * @param db A pool, client or open transaction.
 * @param options Which ones, from where on, and how many.
 * @returns A page; see {@linkcode Page}.
 * @throws {RunledgerError} `job.invalid_pagination`; `job.invalid_request` for a filter that cannot be; `db.*` codes.
 */
export async function listJobSchedules(db: Queryable, options: ListJobSchedulesOptions): Promise<Page<JobSchedule>> {
  const { scope, jobType, isActive, text } = options;
  if (jobType !== undefined) noteText("jobType", jobType, 255);
  if (isActive !== undefined) switchValue("isActive", isActive);
  const bound = new StatementValues();
  // index: job_schedules_name_unique.
  const source = {
    from: "runledger.job_schedules as schedule",
    where: [],
    examines: ["schedule.organization_id", "schedule.job_type", "schedule.is_active"],
    filters: [
      ...scopeConditions(bound, scope, "schedule.organization_id"),
      ...equalConditions(bound, { "schedule.job_type": jobType, "schedule.is_active": isActive }),
      ...textConditions(bound, "schedule.name", text),
    ],
  };
  return await readPage(db, SCHEDULES, { source, bound, options });
}

/**
 * Computes when a schedule fires next, as its stored cursor and its expression have it. Reads no database and no clock.
 *
 * What is missed is not fired twice: if the first of these instants is past when a scheduler comes to it, the next one is
 * the first after that moment.
 *
 * @param schedule The schedule; a paused one gives the fires that it would have.
 * @param count How many, 1 to 100.
 * @returns The instants, soonest first; fewer if the expression has no more dates.
 * @throws {RunledgerError} `job_schedule.invalid_cron` or `job_schedule.invalid_timezone` when the stored expression means
 * nothing here; `job.invalid_pagination` for the count.
 */
export function nextScheduleFires(schedule: JobSchedule, count: number): readonly Date[] {
  if (!Number.isInteger(count) || count < 1 || count > 100) {
    throw new RunledgerError("job.invalid_pagination", { details: { field: "count" } });
  }
  const parsed = parseCron(schedule.cron, schedule.timezone);
  const fires: Date[] = [];
  for (let fire = schedule.nextFireAt; fire !== undefined && fires.length < count;) {
    fires.push(fire);
    fire = nextFireAt(parsed, schedule, fire);
  }
  return fires;
}
