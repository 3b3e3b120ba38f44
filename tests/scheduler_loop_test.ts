/**
 * The scheduler's loop wakes when something is due, and goes on whatever happens.
 *
 * @module
 */

import { defineJob } from "@runledger/core";
import { upsertJobSchedule, upsertJobSchedules } from "@runledger/postgres";
import { JobCatalog, JobsConfig, runScheduler, Supervisor } from "@runledger/runtime";
import assert from "node:assert/strict";
import { openTestDatabase } from "./support/database.ts";
import { firedJobs, makeSchedulesDue, schedule } from "./support/schedules.ts";
import { connectionReset, countdown, faultyDatabase, recordingLogger } from "./support/worker_harness.ts";

/** An hour: a loop that only polls would never come back within a test. */
const SELDOM = { schedulePollIntervalSeconds: 3600 };

Deno.test("a scheduler wakes when the next schedule is due, long before it would poll", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  await upsertJobSchedules(sql, [schedule({ cron: "* * * * * *" }), schedule({ name: "later" })]);
  const stop = new AbortController();
  const { done, count } = countdown(3);
  const logger = { ...recordingLogger(), debug: count };
  const run = runScheduler(sql, { config: SELDOM, signal: stop.signal, logger });
  await done;
  stop.abort();
  const { fired, deferred } = await run;
  assert.equal(deferred, 0);
  const jobs = await firedJobs(sql);
  assert.equal(jobs.length, fired);
  const seconds = jobs.map(({ scheduledFor }) => Date.parse(scheduledFor) / 1000);
  assert(seconds.every((second) => Number.isInteger(second)));
  assert.equal(new Set(seconds).size, seconds.length);
});

Deno.test("a scheduler fires everything that is due in one go, though it is more than a statement takes", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const names = Array.from({ length: 250 }, (_, index) => `s${index}`);
  await upsertJobSchedules(sql, names.map((name) => schedule({ name })));
  await makeSchedulesDue(sql);
  const stop = new AbortController();
  const { done, count } = countdown(250);
  const run = runScheduler(sql, {
    config: SELDOM,
    signal: stop.signal,
    logger: { ...recordingLogger(), debug: count },
  });
  await done;
  stop.abort();
  assert.deepEqual(await run, { fired: 250, deferred: 0 });
  assert.equal((await firedJobs(sql)).length, 250);
});

Deno.test("a scheduler finds schedules that were made while it waited, at its next poll", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const stop = new AbortController();
  const logger = recordingLogger();
  const run = runScheduler(sql, { config: { schedulePollIntervalSeconds: 1 }, signal: stop.signal, logger });
  await upsertJobSchedule(sql, schedule());
  await makeSchedulesDue(sql);
  await logger.line("a schedule fired");
  stop.abort();
  assert.deepEqual(await run, { fired: 1, deferred: 0 });
});

Deno.test("a schedule that cannot fire is reported by name, and the loop goes on", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  await upsertJobSchedules(sql, [schedule({ name: "bad" }), schedule({ name: "good" })]);
  await sql`update runledger.job_schedules set cron_expression = 'sometimes' where name = 'bad'`;
  await makeSchedulesDue(sql);
  const stop = new AbortController();
  const logger = recordingLogger();
  const run = runScheduler(sql, { config: SELDOM, signal: stop.signal, logger });
  await logger.line("was put off");
  await logger.line("a schedule fired");
  stop.abort();
  assert.deepEqual(await run, { fired: 1, deferred: 1 });
  const line = logger.lines.find((text) => text.startsWith("error a schedule cannot fire")) ?? "";
  assert(line.includes('"name":"bad","code":"job_schedule.invalid_cron"'), line);
});

Deno.test("a scheduler survives errors of the database, and fires what they held up once", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  await upsertJobSchedule(sql, schedule());
  await makeSchedulesDue(sql);
  const faulty = faultyDatabase(sql);
  const logger = recordingLogger();
  let statements = 0;
  faulty.onStatement = async (text) => {
    statements++;
    if (statements === 1) throw connectionReset(); // while reading
    if (statements === 3) {
      // The firing is done, and its answer lost.
      const [row] = await sql`select count(*)::integer as count from runledger.job_queue`;
      assert.equal(row?.["count"], 0);
      assert(text.includes("enqueue_jobs"));
      throw connectionReset();
    }
  };
  const stop = new AbortController();
  const run = runScheduler(faulty, { config: SELDOM, signal: stop.signal, logger });
  await logger.line("scheduler works again");
  await logger.line("a schedule fired");
  stop.abort();
  assert.deepEqual(await run, { fired: 1, deferred: 0 });
  assert.equal(logger.lines.filter((text) => text.includes("scheduler failed")).length, 2);
  assert.equal((await firedJobs(sql)).length, 1);
});

Deno.test("a supervisor fires and runs a schedule of its catalog, and does not when its scheduler is left out", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const tick = defineJob({ type: "tick" });
  const { done, count } = countdown(2);
  const catalog = new JobCatalog()
    .handle(tick, (payload) => payload)
    .schedule(tick, { name: "tick", cron: "* * * * * *", payload: { n: 1 } })
    .onJobSucceeded(count);
  await catalog.sync(sql);
  const config = { ...SELDOM, pollIntervalMs: 20 };
  const without = new Supervisor(sql, { catalog, config, scheduler: false, reaper: false });
  assert.deepEqual(Object.keys(await without.shutdown()), ["worker"]);
  const supervisor = new Supervisor(sql, { catalog, config });
  await done;
  const report = await supervisor.shutdown();
  assert((report.scheduler?.fired ?? 0) >= 2);
});

Deno.test("how often a scheduler polls is JOBS_SCHEDULE_POLL_INTERVAL_SECONDS, 30 by default", () => {
  assert.equal(JobsConfig.fromEnv({}).schedulePollIntervalSeconds, 30);
  assert.equal(JobsConfig.fromEnv({ JOBS_SCHEDULE_POLL_INTERVAL_SECONDS: "5" }).schedulePollIntervalSeconds, 5);
});
