/**
 * Time as the test kit has it: it stands still until somebody advances it.
 *
 * The database's clock decides what is due, and it cannot be turned. So what waits is moved instead: the due times of
 * jobs, the ends of leases and the timeouts of gates keep their distance from now however long a test takes, and come
 * nearer when time is advanced. Schedules fire by dates, so the kit has a calendar for them.
 *
 * @module
 */

import { listJobSchedules, nextScheduleFires, setJobScheduleNextFireAt } from "@runledger/postgres";
import type { JobSchedule, Queryable } from "@runledger/postgres";
import { askDatabase } from "./kit_statement.ts";
import { readAll } from "./whole_lists.ts";

/** How far away everything that waits is kept while the kit runs jobs, in milliseconds: no step of it takes a day. */
const GUARD_MS = 86_400_000;

// What waits keeps its distance from the time at which it was last held, or at which it came to wait if that is later: an
// event of its job, a heartbeat, or its release tells. Then the step is taken off. What is due already stays so. Distances
// are whole milliseconds: a row and its event are some microseconds apart, by which a delay of 50 ms would be 51, and on a
// busy machine milliseconds, so an event that tells the delay is believed.
const MOVE = `
with step as materialized (
  select
    clock_timestamp() as now, $1::text::timestamptz as held_at,
    $2::text::bigint * interval '1 millisecond' as old_guard, $3::text::bigint * interval '1 millisecond' as guard,
    $4::text::bigint * interval '1 millisecond' as ms
),
job as materialized (
  select
    queue.id, queue.status,
    case queue.status when 'PENDING' then queue.next_run_at else queue.lease_expires_at end as due_at,
    greatest(
      least(posted.occurred_at, case queue.status when 'PENDING' then queue.next_run_at - posted.delay end),
      queue.last_heartbeat_at
    ) as changed_at
  from runledger.job_queue as queue
  cross join lateral (
    select
      event.occurred_at,
      coalesce(event.payload ->> 'retry_delay_ms', event.payload ->> 'delay_ms')::bigint * interval '1 millisecond'
        as delay
    from runledger.job_events as event
    where event.job_id = queue.id
    order by event.seq desc
    limit 1
  ) as posted
  where queue.status = 'PENDING'
    or queue.lease_expires_at is not null
),
waiting as materialized (
  select
    each_job.id, each_job.status,
    ceil(extract(epoch from each_job.due_at - since.at) * 1000 - 0.1) * interval '1 millisecond' as left_over
  from job as each_job
  cross join step
  cross join lateral (
    select case when each_job.changed_at > step.held_at then each_job.changed_at else step.held_at + step.old_guard end as at
  ) as since
),
moved_jobs as (
  update runledger.job_queue as queue
  set next_run_at = case when waiting.status = 'PENDING' then target.at else queue.next_run_at end,
    lease_expires_at = case when waiting.status = 'PENDING' then queue.lease_expires_at else target.at end
  from waiting
  cross join step
  cross join lateral (
    select step.now + waiting.left_over - step.ms
      + case when waiting.left_over > step.ms then step.guard else interval '0' end as at
  ) as target
  where queue.id = waiting.id
    and waiting.left_over > interval '0'
),
gate as materialized (
  select
    step_row.id,
    case
      when step_row.released_at > step.held_at then step_row.gate_timeout_ms
      else ceil(extract(epoch from step_row.gate_expires_at - step.held_at - step.old_guard) * 1000 - 0.1)
    end * interval '1 millisecond' as left_over
  from runledger.workflow_steps as step_row
  cross join step
  where step_row.gate_expires_at is not null
),
moved_gates as (
  update runledger.workflow_steps as step_row
  set gate_expires_at = step.now + gate.left_over - step.ms
    + case when gate.left_over > step.ms then step.guard else interval '0' end
  from gate
  cross join step
  where step_row.id = gate.id
    and gate.left_over > interval '0'
)
select to_jsonb(to_char(step.now at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))::text as answer
from step
`;

const READ_CLOCK = `
select to_jsonb(to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))::text as answer
`;

// How long it is until something that waits is due: what the kit's catalog runs, leases and gates.
const NEXT = `
select coalesce(to_jsonb(ceil(extract(epoch from min(due.at) - clock_timestamp()) * 1000)::bigint)::text, 'null') as answer
from (
  select queue.next_run_at as at
  from runledger.job_queue as queue
  where queue.status = 'PENDING'
    and queue.job_type in (select jsonb_array_elements_text($1::text::jsonb))
  union all
  select queue.lease_expires_at
  from runledger.job_queue as queue
  where queue.status = 'LEASED'
  union all
  select step_row.gate_expires_at
  from runledger.workflow_steps as step_row
  where step_row.gate_expires_at is not null
) as due
`;

/** The kit's clock and calendar. */
export class KitClock {
  readonly #db: Queryable;
  #now: Date;
  #heldAt: string;
  #guardMs = 0;

  private constructor(db: Queryable, startsAt: Date, heldAt: string) {
    this.#db = db;
    this.#now = startsAt;
    this.#heldAt = heldAt;
  }

  /** Starts a clock: from here on, time stands still. */
  static async start(db: Queryable, startsAt: Date): Promise<KitClock> {
    return new KitClock(db, startsAt, await askDatabase(db, READ_CLOCK, []) as string);
  }

  /** The date by which schedules fire. */
  get now(): Date {
    return new Date(this.#now);
  }

  /** Undoes the passing of real time, and keeps what waits at a safe distance until {@linkcode release}. */
  async hold(): Promise<void> {
    await this.#move(0, GUARD_MS);
  }

  /** Undoes the passing of real time, and puts what waits back to where it belongs. */
  async release(): Promise<void> {
    await this.#move(0, 0);
  }

  /** Lets time pass. */
  async advance(ms: number): Promise<void> {
    const now = new Date(this.#now.getTime() + ms);
    if (now.getTime() > Date.now()) {
      throw new RangeError(
        `The calendar of the test kit cannot go past the present, and this would be ${now.toISOString()}: a job of a ` +
          "schedule is never enqueued before its date. Start the calendar earlier, with startsAt.",
      );
    }
    await this.#move(ms, 0);
    this.#now = now;
  }

  /** Tells how long it is until something is due, in milliseconds; undefined if nothing ever is. */
  async untilNext(jobTypes: readonly string[]): Promise<number | undefined> {
    const ms = await askDatabase(this.#db, NEXT, [JSON.stringify(jobTypes)]) as number | null;
    const waits = ms === null ? [] : [Math.max(ms, 0)];
    for (const { nextFireAt } of await this.#activeSchedules()) {
      if (nextFireAt !== undefined) waits.push(Math.max(nextFireAt.getTime() - this.#now.getTime(), 0));
    }
    return waits.length === 0 ? undefined : Math.min(...waits);
  }

  /** Sets the cursors that the database's clock has set to what they are by the calendar. */
  async anchorSchedules(names: readonly string[]): Promise<void> {
    for (const schedule of await this.#activeSchedules()) {
      if (!names.includes(schedule.name)) continue;
      const [, nextFireAt] = nextScheduleFires({ ...schedule, nextFireAt: this.#now }, 2);
      if (nextFireAt === undefined || nextFireAt.getTime() === schedule.nextFireAt?.getTime()) continue;
      await setJobScheduleNextFireAt(this.#db, schedule.name, { scope: "all", nextFireAt });
    }
  }

  async #activeSchedules(): Promise<readonly JobSchedule[]> {
    return await readAll((page) => listJobSchedules(this.#db, { scope: "all", isActive: true, limit: 1000, ...page }));
  }

  async #move(ms: number, guardMs: number): Promise<void> {
    const values = [this.#heldAt, String(this.#guardMs), String(guardMs), String(ms)];
    this.#heldAt = await askDatabase(this.#db, MOVE, values) as string;
    this.#guardMs = guardMs;
  }
}
