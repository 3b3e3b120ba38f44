/**
 * Firing: due schedules become jobs.
 *
 * @module
 */

import { isRunledgerError, newId, RunledgerError } from "@runledger/core";
import type { RunledgerErrorCode } from "@runledger/core";
import {
  present,
  readBoolean,
  readInstant,
  readInteger,
  readOptionalInstant,
  readOptionalText,
  readText,
} from "./_rows.ts";
import { assertLimit } from "./job_reap.ts";
import { atomically, runStatement } from "./queryable.ts";
import type { Queryable, Row } from "./queryable.ts";
import { nextFireAt, parseCron } from "./schedule_cron.ts";

/** How many schedules are fired. */
export interface MaterializeOptions {
  /** How many at most, 1 to 1000. @default {100} */
  readonly limit?: number;
}

/** A schedule that fired. */
export interface FiredSchedule {
  /** The schedule. */
  readonly scheduleId: string;
  /** What it is called. */
  readonly name: string;
  /** The job that it enqueued. */
  readonly jobId: string;
  /** The type of the job. */
  readonly jobType: string;
  /** Whose job it is; absent for nobody's. */
  readonly organizationId?: string;
  /** When it was due: `_schedule.scheduled_for` of the payload. */
  readonly scheduledFor: Date;
  /** When it fires next; absent when its expression has no further date. */
  readonly nextFireAt?: Date;
}

/** A schedule that was due and could not fire. */
export interface DeferredSchedule {
  /** The schedule. */
  readonly scheduleId: string;
  /** What it is called. */
  readonly name: string;
  /** When it was due. */
  readonly scheduledFor: Date;
  /** When it is looked at again, unless somebody mends it before. */
  readonly nextFireAt: Date;
  /** Why it could not fire. */
  readonly code: RunledgerErrorCode;
}

/** What became of the schedules that were due. */
export interface MaterializedSchedules {
  /** Those that fired. */
  readonly fired: readonly FiredSchedule[];
  /** Those that could not, put off by 30 seconds. */
  readonly deferred: readonly DeferredSchedule[];
  /** Whether more were due than the limit allowed. */
  readonly hasMore: boolean;
  /** In how many milliseconds there may be something to do again, by the database's clock; absent if nothing is known. */
  readonly nextInMs?: number;
}

/** When to look again after a rival was faster: what he moved the cursor to is not known here. */
const RIVAL_CHECK_MS = 1000;

// locks: none. index: job_schedules_due_index. no row: no active schedule has a date to come.
// One row more than may be fired tells whether there are more, or when the next one is due.
const READ_EARLIEST = `
select
  schedule.id as schedule_id, schedule.name, schedule.cron_expression, schedule.timezone, schedule.max_jitter_seconds,
  extract(epoch from schedule.next_fire_at)::text as next_fire_at, extract(epoch from clock.now)::text as now,
  schedule.next_fire_at <= clock.now as is_due
from (select clock_timestamp() as now) as clock
cross join (
  select
    earliest.id, earliest.name, earliest.cron_expression, earliest.timezone, earliest.max_jitter_seconds,
    earliest.next_fire_at
  from runledger.job_schedules as earliest
  where earliest.is_active
    and earliest.next_fire_at is not null
  order by earliest.next_fire_at
  limit $1::integer + 1
) as schedule
order by schedule.next_fire_at
`;

/** The payload of a job that a schedule makes: SQL, of a row with the columns of a schedule and of an instant. */
export const scheduledPayload = (schedule: string, scheduledFor: string): string => `
      case jsonb_typeof(${schedule}.payload_template)
        when 'object' then ${schedule}.payload_template
        else jsonb_build_object('payload', ${schedule}.payload_template)
      end
      || jsonb_build_object('_schedule', jsonb_build_object(
        'schedule_id', ${schedule}.id, 'schedule_name', ${schedule}.name,
        'scheduled_for', to_char(${scheduledFor} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
      ))`;

// locks: the schedules, skip locked: who is locked is being fired or changed by somebody else. index: job_schedules_pkey.
// no row: no cursor was as it was read, so none of these is fired here.
const FIRE = `
with asked as materialized (
  select asked.*
  from jsonb_to_recordset($1::text::jsonb) as asked (
    id uuid, job_id uuid, cron_expression text, timezone text, fire_at timestamptz, next_fire_at timestamptz,
    defers boolean
  )
),
locked as materialized (
  select
    schedule.id, schedule.name, schedule.job_type, schedule.organization_id, schedule.payload_template,
    schedule.next_fire_at as fire_at, asked.job_id, asked.next_fire_at, asked.defers
  from asked
  join runledger.job_schedules as schedule on schedule.id = asked.id
  -- Said twice: a table that was never analyzed is then still read by its key.
  where schedule.id = any (array(select asked.id from asked))
    and schedule.is_active
    and schedule.next_fire_at = asked.fire_at
    and schedule.cron_expression = asked.cron_expression
    and schedule.timezone = asked.timezone
  for update of schedule skip locked
),
enqueued as materialized (
  select runledger.enqueue_jobs(
    array_agg(locked.job_id), array_agg(locked.job_type),
    jsonb_agg(${scheduledPayload("locked", "locked.fire_at")}),
    jsonb_agg(jsonb_build_object('organization_id', locked.organization_id, 'stage', 'scheduled'))
  ) ->> 'error' as error
  from locked
  where not locked.defers
  having count(*) > 0
),
advanced as (
  update runledger.job_schedules as schedule
  set next_fire_at = case
      when locked.defers then clock_timestamp() + interval '30 seconds'
      else locked.next_fire_at
    end,
    last_fired_at = case when locked.defers then schedule.last_fired_at else clock_timestamp() end
  from locked
  where schedule.id = locked.id
    and schedule.id = any (array(select locked.id from locked))
    and not exists (select from enqueued where enqueued.error is not null)
  returning
    schedule.id, schedule.name, locked.job_id, schedule.job_type, schedule.organization_id, locked.fire_at,
    schedule.next_fire_at
)
select
  advanced.id as schedule_id, advanced.name, advanced.job_id, advanced.job_type, advanced.organization_id,
  extract(epoch from advanced.fire_at)::text as fire_at,
  extract(epoch from advanced.next_fire_at)::text as next_fire_at, null as error
from advanced
union all
select null, null, null, null, null, null, null, enqueued.error
from enqueued
where enqueued.error is not null
`;

/** A due schedule as it was read, and what is to become of it. */
interface Fire {
  readonly scheduleId: string;
  readonly name: string;
  readonly cron: string;
  readonly timezone: string;
  readonly fireAt: Date;
  /** The cursor behind this fire; absent when there is none. */
  readonly nextFireAt: Date | undefined;
  /** Why it cannot fire. */
  readonly problem: RunledgerErrorCode | undefined;
}

/**
 * Fires the schedules that are due by the database's clock: each becomes one job of stage `scheduled`, and its cursor moves
 * on, both or neither.
 *
 * Any number of schedulers may do this at once: no fire is lost, none is doubled, also by a crash or a connection lost on
 * the way (then call again). Fires that were missed count as one; the next is the first after now. The job's payload is
 * the schedule's with `_schedule: { schedule_id, schedule_name, scheduled_for }`; one that is no object becomes
 * `{ payload, _schedule }`. A schedule that cannot fire, since its type was disabled or its stored expression means nothing
 * here, is put off by 30 seconds and reported; the others fire.
 *
 * Two statements, and no transaction between them: the first reads what is due, the second fires those whose cursor still
 * stands where it was read. What comes next is computed in between, so that no lock waits for this process, and a pooler
 * or a proxy is as good as a connection.
 *
 * @param db A pool, client or open transaction, which makes the fires part of it.
 * @param options How many at most.
 * @returns What fired, what did not, and when to look again.
 * @throws {RunledgerError} `job.invalid_pagination` for the limit; `db.*` codes.
 */
export async function materializeDueSchedules(
  db: Queryable,
  options: MaterializeOptions = {},
): Promise<MaterializedSchedules> {
  const { limit = 100 } = options;
  assertLimit(limit);
  const rows = await runStatement(db, READ_EARLIEST, [limit]);
  const first = rows[0];
  if (first === undefined) return { fired: [], deferred: [], hasMore: false };
  const now = readInstant(first, "now");
  const due = rows.filter((row) => readBoolean(row, "is_due"));
  const fires = due.slice(0, limit).map((row) => planFire(row, now));
  const { fired, deferred } = await fireAll(db, fires);

  const next = rows.slice(due.length).map((row) => readInstant(row, "next_fire_at"));
  for (const { nextFireAt: at } of [...fired, ...deferred]) if (at !== undefined) next.push(at);
  const waits = next.map((at) => Math.max(at.getTime() - now.getTime(), 0));
  if (fired.length + deferred.length < fires.length) waits.push(RIVAL_CHECK_MS);
  return present({
    fired,
    deferred,
    hasMore: due.length > limit,
    nextInMs: waits.length === 0 ? undefined : Math.min(...waits),
  });
}

function planFire(row: Row, now: Date): Fire {
  const scheduleId = readText(row, "schedule_id");
  const cron = readText(row, "cron_expression");
  const timezone = readText(row, "timezone");
  const maxJitterSeconds = readInteger(row, "max_jitter_seconds");
  const due = { scheduleId, name: readText(row, "name"), cron, timezone, fireAt: readInstant(row, "next_fire_at") };
  try {
    const nextAt = nextFireAt(parseCron(cron, timezone), { scheduleId, maxJitterSeconds }, now);
    return { ...due, nextFireAt: nextAt, problem: undefined };
  } catch (error) {
    if (!isRunledgerError(error)) throw error;
    return { ...due, nextFireAt: undefined, problem: error.code };
  }
}

/** Fires a batch; if it is refused, one after the other, so that one bad schedule holds up no other. */
async function fireAll(
  db: Queryable,
  fires: readonly Fire[],
): Promise<Pick<MaterializedSchedules, "fired" | "deferred">> {
  if (fires.length === 0) return { fired: [], deferred: [] };
  try {
    return await fire(db, fires);
  } catch (error) {
    if (!isRefusal(error)) throw error;
    const fired: FiredSchedule[] = [];
    const deferred: DeferredSchedule[] = [];
    for (const one of fires) {
      const result = await fireOrDefer(db, one, error);
      fired.push(...result.fired);
      deferred.push(...result.deferred);
    }
    return { fired, deferred };
  }
}

async function fireOrDefer(
  db: Queryable,
  one: Fire,
  batchError: RunledgerError,
): Promise<Pick<MaterializedSchedules, "fired" | "deferred">> {
  let problem: RunledgerErrorCode;
  try {
    return await atomically(db, (tx) => fire(tx, [one]));
  } catch (error) {
    if (!isRefusal(error)) throw error;
    problem = error.code;
  }
  try {
    return await fire(db, [{ ...one, problem }]);
  } catch {
    throw batchError; // The caller's transaction had failed, or nothing can be written at all.
  }
}

/** Whether an error may be the fault of a schedule, rather than of the connection, the server or the caller's rights. */
function isRefusal(error: unknown): error is RunledgerError {
  return isRunledgerError(error) && error.category !== "unavailable" && error.category !== "forbidden";
}

async function fire(
  db: Queryable,
  fires: readonly Fire[],
): Promise<Pick<MaterializedSchedules, "fired" | "deferred">> {
  const asked = fires.map(({ scheduleId, cron, timezone, fireAt, nextFireAt: nextAt, problem }) => ({
    id: scheduleId,
    job_id: newId(),
    cron_expression: cron,
    timezone,
    fire_at: fireAt.toISOString(),
    next_fire_at: nextAt?.toISOString(),
    defers: problem !== undefined,
  }));
  const rows = await runStatement(db, FIRE, [JSON.stringify(asked)], { write: true });
  const problems = new Map(fires.map(({ scheduleId, problem }) => [scheduleId, problem]));
  const fired: FiredSchedule[] = [];
  const deferred: DeferredSchedule[] = [];
  for (const row of rows) {
    const error = readOptionalText(row, "error");
    if (error !== undefined) throw new RunledgerError(error as RunledgerErrorCode);
    const schedule = {
      scheduleId: readText(row, "schedule_id"),
      name: readText(row, "name"),
      scheduledFor: readInstant(row, "fire_at"),
    };
    const code = problems.get(schedule.scheduleId);
    if (code !== undefined) {
      deferred.push({ ...schedule, nextFireAt: readInstant(row, "next_fire_at"), code });
      continue;
    }
    fired.push(present({
      ...schedule,
      jobId: readText(row, "job_id"),
      jobType: readText(row, "job_type"),
      organizationId: readOptionalText(row, "organization_id"),
      nextFireAt: readOptionalInstant(row, "next_fire_at"),
    }));
  }
  return { fired, deferred };
}
