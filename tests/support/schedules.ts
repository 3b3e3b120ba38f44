/**
 * What the tests of schedules share.
 *
 * @module
 */

import type { JsonValue } from "@runledger/core";
import { isRunledgerError } from "@runledger/core";
import type { RunledgerErrorCode, RunledgerErrorDetail } from "@runledger/core";
import { getJobScheduleByName, upsertJobSchedules } from "@runledger/postgres";
import type { JobSchedule, JobScheduleInput } from "@runledger/postgres";
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
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

/** Due again in a lifetime only. */
export const RARELY = "0 0 0 1 1 * 2099";

/** Names for so many schedules. */
export const names = (count: number): readonly string[] => Array.from({ length: count }, (_, index) => `s${index}`);

/** Stores schedules that are due now, and then not again. Gives their cursors by name. */
export async function openDueSchedules(
  sql: postgres.Sql,
  count: number,
  fields: Partial<JobScheduleInput> = {},
): Promise<ReadonlyMap<string, string>> {
  await upsertJobSchedules(sql, names(count).map((name) => schedule({ ...fields, name, cron: RARELY })));
  return await makeSchedulesDue(sql);
}

/** Checks that each schedule fired once, for the date at which it was due. */
export async function assertFiredOnce(sql: postgres.Sql, due: ReadonlyMap<string, string>): Promise<void> {
  const fires = (await firedJobs(sql)).map(({ name, scheduledFor }) => `${name} ${scheduledFor}`);
  const expected = [...due].map(([name, at]) => `${name} ${at}`);
  assert.deepEqual(expected.filter((fire) => !fires.includes(fire)), [], "fires are lost");
  assert.deepEqual(fires.filter((fire, index) => fires.indexOf(fire) !== index), [], "fires are doubled");
  assert.equal(fires.length, expected.length);
  const [left] = await sql`
    select count(*)::integer as count from runledger.job_schedules
    where next_fire_at <= clock_timestamp() or last_fired_at is null`;
  assert.equal(left?.["count"], 0, "a cursor was not moved");
}

/** Keeps five processes firing until nothing is due, and kills each at random, again and again. Gives how many kills. */
export async function killSchedulersUntilFired(sql: postgres.Sql, url: string): Promise<number> {
  const script = fileURLToPath(new URL("scheduler_process.ts", import.meta.url));
  let kills = 0;
  let isOver = false;
  const lives = async (limit: number) => {
    while (!isOver) {
      const child = new Deno.Command(Deno.execPath(), {
        args: ["run", "--allow-all", "--no-check", "--quiet", script, url, String(limit)],
        stdout: "piped",
        stderr: "null",
      }).spawn();
      const output = child.stdout.getReader();
      // It says so after each round: kill it somewhere in one of the first.
      for (let rounds = Math.random() * 5; rounds > 0; rounds--) await output.read();
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 20));
      child.kill("SIGKILL");
      kills++;
      await output.cancel();
      await child.status;
    }
  };
  const processes = [7, 20, 20, 50, 100].map(lives);
  for (const deadline = Date.now() + 120_000; !isOver;) {
    const [row] = await sql<{ left: number }[]>`
      select count(*)::integer as left from runledger.job_schedules where next_fire_at <= clock_timestamp()`;
    isOver = row?.left === 0 || Date.now() > deadline;
  }
  await Promise.all(processes);
  return kills;
}
