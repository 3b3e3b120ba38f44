/**
 * What operators do with schedules: look, pause, move, delete.
 *
 * @module
 */

import { RunledgerError } from "@runledger/core";
import { equalConditions, readPage, scopeConditions, StatementValues, textConditions } from "./_keyset_page.ts";
import type { KeysetList } from "./_keyset_page.ts";
import { readText } from "./_rows.ts";
import { instantValue, noteText, operatorNote, switchValue } from "./operator_note.ts";
import type { OperatorNote } from "./operator_note.ts";
import type { Page, ScopedPageOptions } from "./pages.ts";
import { runStatement } from "./queryable.ts";
import type { Queryable, Row } from "./queryable.ts";
import { nextFireAt, parseCron } from "./schedule_cron.ts";
import { decodeSchedule, SCHEDULE_COLUMNS, scheduleName } from "./schedules.ts";
import type { JobSchedule } from "./schedules.ts";
import { inScope, scopeValues } from "./scope.ts";
import type { Scope } from "./scope.ts";

/** Whose schedule it must be, and what to record among the actions of operators. */
export interface ScheduleOperationOptions extends OperatorNote {
  /** Whose schedule it must be; outside it the schedule is not found. */
  readonly scope: Scope;
}

const IN_SCOPE = inScope("schedule");

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
locked as materialized (
  select schedule.id, schedule.is_active <> $4::boolean as differs
  from runledger.job_schedules as schedule
  where not exists (select from defined where not defined.is_enabled)
    and schedule.id in (select named.id from named)
  for no key update
),
changed as (
  update runledger.job_schedules as schedule
  set is_active = $4::boolean,
    updated_at = case when locked.differs then now() else schedule.updated_at end
  from locked
  where schedule.id = locked.id
  returning ${SCHEDULE_COLUMNS}, locked.differs
),
recorded as (
  insert into runledger.operator_actions (action, subject, organization_id, reason, actor)
  select
    case when $4::boolean then 'SCHEDULE_RESUMED' else 'SCHEDULE_PAUSED' end, changed.name, changed.organization_id,
    $5::text::jsonb ->> 'reason', $5::text::jsonb ->> 'actor'
  from changed
  where changed.differs
)
select named.job_type, (select to_jsonb(changed)::text from changed) as changed
from named
`;

/**
 * Pauses a schedule or lets it go on. A paused one fires nothing; when it goes on, fires that it missed count as one. A
 * change is recorded among the actions of operators.
 *
 * @param db A pool, client or open transaction.
 * @param name The schedule.
 * @param options Whose schedule it must be, whether it shall fire, and what to record.
 * @returns The schedule as it is now.
 * @throws {RunledgerError} `job_schedule.not_found`; `job_schedule.definition_not_found_or_disabled`; `job.invalid_request`
 * for a note that cannot be; `db.*` codes.
 */
export async function setJobScheduleActive(
  db: Queryable,
  name: string,
  options: ScheduleOperationOptions & { readonly isActive: boolean },
): Promise<JobSchedule> {
  const values = [
    scheduleName(name),
    ...scopeValues(options.scope),
    switchValue("isActive", options.isActive),
    operatorNote(options),
  ];
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
with locked as materialized (
  select schedule.id, schedule.next_fire_at
  from runledger.job_schedules as schedule
  where schedule.name = $1::text
    and ${IN_SCOPE}
  for no key update
),
moved as (
  update runledger.job_schedules as schedule
  set next_fire_at = $4::timestamptz,
    updated_at = now()
  from locked
  where schedule.id = locked.id
  returning ${SCHEDULE_COLUMNS}, schedule.next_fire_at as moved_to, locked.next_fire_at as moved_from
),
recorded as (
  insert into runledger.operator_actions (action, subject, organization_id, reason, actor, details)
  select
    'SCHEDULE_MOVED', moved.name, moved.organization_id, $5::text::jsonb ->> 'reason', $5::text::jsonb ->> 'actor',
    jsonb_strip_nulls(jsonb_build_object('next_fire_at', moved.moved_to, 'previous_next_fire_at', moved.moved_from))
  from moved
)
select to_jsonb(moved)::text as moved
from moved
`;

/**
 * Sets when a schedule fires next: any instant. A past one is due at once. After it the expression counts again. Recorded
 * among the actions of operators.
 *
 * @param db A pool, client or open transaction.
 * @param name The schedule.
 * @param options Whose schedule it must be, when it shall fire, in whole milliseconds, and what to record.
 * @returns The schedule as it is now.
 * @throws {RunledgerError} `job_schedule.not_found`; `job.invalid_request`; `db.*` codes.
 */
export async function setJobScheduleNextFireAt(
  db: Queryable,
  name: string,
  options: ScheduleOperationOptions & { readonly nextFireAt: Date },
): Promise<JobSchedule> {
  const values = [
    scheduleName(name),
    ...scopeValues(options.scope),
    instantValue("nextFireAt", options.nextFireAt),
    operatorNote(options),
  ];
  const [row] = await runStatement(db, SET_NEXT_FIRE_AT, values, { write: true });
  if (row === undefined) throw new RunledgerError("job_schedule.not_found");
  return decodeSchedule(JSON.parse(readText(row, "moved")) as Row);
}

// locks: the schedule. index: job_schedules_name_unique. no row: no such schedule in scope.
const DELETE = `
with deleted as (
  delete from runledger.job_schedules as schedule
  where schedule.name = $1::text
    and ${IN_SCOPE}
  returning schedule.id, schedule.name, schedule.organization_id
),
recorded as (
  insert into runledger.operator_actions (action, subject, organization_id, reason, actor)
  select
    'SCHEDULE_DELETED', deleted.name, deleted.organization_id, $4::text::jsonb ->> 'reason',
    $4::text::jsonb ->> 'actor'
  from deleted
)
select deleted.id as schedule_id
from deleted
`;

/**
 * Deletes a schedule. Jobs that it has enqueued stay. Recorded among the actions of operators.
 *
 * @param db A pool, client or open transaction.
 * @param name The schedule.
 * @param options Whose schedule it must be, and what to record.
 * @returns Whether there was one.
 * @throws {RunledgerError} `job_schedule.invalid_name`; `job.invalid_request` for a note that cannot be; `db.*` codes.
 */
export async function deleteJobSchedule(
  db: Queryable,
  name: string,
  options: ScheduleOperationOptions,
): Promise<boolean> {
  const values = [scheduleName(name), ...scopeValues(options.scope), operatorNote(options)];
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
