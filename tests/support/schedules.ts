/**
 * What the tests of schedules share.
 *
 * @module
 */

import type { JsonValue } from "@runledger/core";
import { isRunledgerError } from "@runledger/core";
import type { RunledgerErrorCode, RunledgerErrorDetail } from "@runledger/core";
import { getJobScheduleByName } from "@runledger/postgres";
import type { JobSchedule, JobScheduleInput } from "@runledger/postgres";
import assert from "node:assert/strict";
import type postgres from "postgres";

export const ALL = { scope: "all" } as const;

/** Fires once a day; its name and everything else may be given. */
export function schedule(fields: Partial<JobScheduleInput> = {}): JobScheduleInput {
  return { name: "nightly", jobType: "a", cron: "30 3 * * *", payload: { n: 1 }, ...fields };
}

/** Reads a schedule that must be there. */
export async function stored(sql: postgres.Sql, name = "nightly"): Promise<JobSchedule> {
  const found = await getJobScheduleByName(sql, name, ALL);
  assert(found !== undefined, `there is no schedule ${name}`);
  return found;
}

/** Makes schedules due, as if the database's clock had come so far. Gives their cursors. */
export async function makeSchedulesDue(
  sql: postgres.Sql,
  options: { readonly names?: readonly string[]; readonly agoSeconds?: number } = {},
): Promise<ReadonlyMap<string, string>> {
  const { names, agoSeconds = 60 } = options;
  const rows = await sql<{ name: string; at: Date }[]>`
    update runledger.job_schedules set next_fire_at = clock_timestamp() - make_interval(secs => ${agoSeconds})
    where ${names === undefined} or name in (select jsonb_array_elements_text(${
    JSON.stringify(names ?? [])
  }::text::jsonb))
    returning name, next_fire_at as at`;
  return new Map(rows.map(({ name, at }) => [name, at.toISOString()]));
}

/** A fire, as its job tells of it. */
export interface FiredJob {
  readonly jobId: string;
  readonly jobType: string;
  readonly organizationId: string | null;
  readonly stage: string;
  readonly payload: JsonValue;
  readonly name: string;
  readonly scheduledFor: string;
}

/** Every job that a schedule made, in order of its due date. */
export async function firedJobs(sql: postgres.Sql): Promise<readonly FiredJob[]> {
  const rows = await sql<FiredJob[]>`
    select id as "jobId", job_type as "jobType", organization_id as "organizationId", stage, payload,
      payload -> '_schedule' ->> 'schedule_name' as name, payload -> '_schedule' ->> 'scheduled_for' as "scheduledFor"
    from runledger.job_queue where payload ? '_schedule'
    order by "scheduledFor", name`;
  return [...rows];
}

/** For `assert.rejects`: an error of a code, with these details if they are given. */
export function hasCode(
  code: RunledgerErrorCode,
  details?: Readonly<Record<string, RunledgerErrorDetail>>,
): (error: unknown) => boolean {
  return (error) => {
    assert(isRunledgerError(error), Deno.inspect(error));
    assert.equal(error.code, code, error.internalMessage);
    if (details !== undefined) assert.deepEqual(error.details, details);
    return true;
  };
}

/** Resolves when so many sessions of the database wait for a lock. */
export async function untilWaiting(sql: postgres.Sql, sessions: number): Promise<void> {
  for (const deadline = Date.now() + 20_000;;) {
    const [row] = await sql<{ count: number }[]>`
      select count(*)::integer as count from pg_stat_activity
      where datname = current_database() and wait_event_type = 'Lock'`;
    if ((row?.count ?? 0) >= sessions) return;
    assert(Date.now() < deadline, `${row?.count} of ${sessions} sessions wait`);
  }
}
