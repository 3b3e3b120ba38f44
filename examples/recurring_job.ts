/**
 * A job that recurs: a schedule beside its definition, fired once by however many schedulers there are, paused and moved by an
 * operator, and kept as he left it by the next deployment.
 *
 * Run: `deno run -A examples/recurring_job.ts`
 *
 * @module
 */

import { defineJob, isRunledgerError } from "@runledger/core";
import {
  getJobScheduleByName,
  setJobDefinitionEnabled,
  setJobScheduleActive,
  setJobScheduleNextFireAt,
} from "@runledger/postgres";
import { consoleLogger, JobCatalog, Supervisor } from "@runledger/runtime";
import { z } from "zod";
import { openDatabase } from "./support/database.ts";

const sendDigest = defineJob({
  type: "example.send_digest",
  payload: z.object({
    audience: z.string(),
    // Added by the schedule; a job that somebody enqueues by hand has none.
    _schedule: z.object({ schedule_name: z.string(), scheduled_for: z.iso.datetime() }).optional(),
  }),
});

const fires: string[] = [];
const fired = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];

const catalog = new JobCatalog()
  .handle(sendDigest, ({ audience, _schedule }) => {
    console.log(`a digest for ${audience}`);
    // The date at which it was due, not the one at which it runs: the digest of Monday is that of Monday on Tuesday, too.
    fires.push(_schedule?.scheduled_for ?? "");
    fired[fires.length - 1]?.resolve();
  })
  .schedule(sendDigest, {
    name: "example.weekday_digest",
    cron: "0 9 * * MON-FRI",
    timezone: "Europe/Berlin",
    payload: { audience: "subscribers" },
    // Spreads schedules of the same time over a minute; each keeps its place.
    maxJitterSeconds: 60,
  });

const scope = { scope: "global" } as const;
const name = "example.weekday_digest";
await using database = await openDatabase();
const { sql } = database;

// Not needed in real life: an earlier run of this example may have left its pause behind.
await catalog.syncExact(sql, { jobTypes: [sendDigest.type], scheduleNames: [name] });

const { nextFireAt } = await setJobScheduleNextFireAt(sql, name, {
  ...scope,
  nextFireAt: new Date("2026-01-05T08:00Z"),
});
console.log(`due since ${nextFireAt?.toISOString()}`);

// Two processes would do the same: any number of schedulers fire a schedule once.
const options = {
  catalog,
  config: { pollIntervalMs: 25, schedulePollIntervalSeconds: 1 },
  logger: { ...consoleLogger, debug: () => {}, info: () => {} },
};
await using _one = new Supervisor(sql, options);
await using _other = new Supervisor(sql, options);
await fired[0]?.promise;

// Hundreds of Mondays to Fridays were missed since then: they count as one, and the next is to come.
const after = await getJobScheduleByName(sql, name, scope);
console.log(`fired ${fires.length} time, for ${fires[0]}`);
console.log(`the next fire is to come: ${after?.nextFireAt !== undefined && after.nextFireAt > new Date()}`);

// While a schedule fires into a type, the type cannot be switched off by mistake.
try {
  await setJobDefinitionEnabled(sql, sendDigest.type, { isEnabled: false });
} catch (error) {
  if (!isRunledgerError(error, "job_definition.active_schedule_exists")) throw error;
  console.log(`switching the type off: ${error.code}, because of ${error.details?.["schedules"]}`);
}

// A pause survives the next deployment, which is what sync does.
await setJobScheduleActive(sql, name, { ...scope, isActive: false });
await catalog.sync(sql);
console.log(`active after the next deployment: ${(await getJobScheduleByName(sql, name, scope))?.isActive}`);

// What is due when it goes on fires at once.
await setJobScheduleNextFireAt(sql, name, { ...scope, nextFireAt: new Date("2026-01-06T08:00Z") });
await setJobScheduleActive(sql, name, { ...scope, isActive: true });
await fired[1]?.promise;
console.log(`fired ${fires.length} times, for ${fires[1]}`);
await setJobScheduleActive(sql, name, { ...scope, isActive: false });
