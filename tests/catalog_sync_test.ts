/**
 * A catalog in the database: additive sync keeps what operators did, exact sync keeps what the catalog says.
 *
 * @module
 */

import { defineJob } from "@runledger/core";
import {
  claimJobs,
  enqueueJob,
  listJobDefinitions,
  listJobSchedules,
  materializeDueSchedules,
  setJobDefinitionEnabled,
  setJobScheduleActive,
  setJobScheduleNextFireAt,
  syncJobCatalogExactly,
  upsertJobDefinitions,
  upsertJobSchedule,
} from "@runledger/postgres";
import { JobCatalog } from "@runledger/runtime";
import assert from "node:assert/strict";
import type postgres from "postgres";
import { z } from "zod";
import { openTestDatabase, testDefinition } from "./support/database.ts";
import { ALL, hasCode, makeSchedulesDue, schedule, stored, untilWaiting } from "./support/schedules.ts";

const mail = defineJob({ type: "mail", payload: z.object({ to: z.string() }), maxAttempts: 5, priority: 2 });
const report = defineJob({ type: "report" });
const daily = { name: "daily", cron: "0 9 * * *", payload: { to: "ada" } };
const weekly = { name: "weekly", cron: "0 9 * * MON", payload: { to: "grace" }, timezone: "Europe/Berlin" };

/** Handles both types, and has both schedules. */
function fullCatalog(): JobCatalog {
  return new JobCatalog().handle(mail, () => {}).handle(report, () => {}).schedule(mail, daily).schedule(mail, weekly);
}

const OWNED = { jobTypes: ["mail", "report"], scheduleNames: ["daily", "weekly"] } as const;

/** What is enabled and active, in a line. */
async function state(sql: postgres.Sql): Promise<string> {
  const mark = (isOn: boolean) => isOn ? "+" : "-";
  const types = (await listJobDefinitions(sql)).items.filter(({ type }) => type.length > 1);
  return [
    ...types.map(({ type, isEnabled }) => mark(isEnabled) + type),
    ...(await listJobSchedules(sql, ALL)).items.map(({ name, isActive }) => mark(isActive) + name),
  ].join(" ");
}

Deno.test("sync stores definitions and schedules together, and is safe to repeat, also at once", async () => {
  await using database = await openTestDatabase({ max: 8 });
  const { sql } = database;
  await Promise.all(Array.from({ length: 8 }, () => fullCatalog().sync(sql)));
  assert.equal(await state(sql), "+mail +report +daily +weekly");
  const before = await listJobSchedules(sql, ALL);
  await fullCatalog().sync(sql);
  assert.deepEqual(await listJobSchedules(sql, ALL), before);
  const { cron, timezone, payload, jobType } = await stored(sql, "weekly");
  assert.deepEqual([cron, timezone, payload, jobType], ["0 9 * * MON", "Europe/Berlin", { to: "grace" }, "mail"]);
});

Deno.test("sync keeps what an operator paused and moved, and what the catalog does not have", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  await fullCatalog().sync(sql);
  await upsertJobSchedule(sql, schedule({ name: "foreign" }));
  await setJobScheduleActive(sql, "daily", { ...ALL, isActive: false });
  const nextFireAt = new Date("2099-01-01T00:00:00Z");
  await setJobScheduleNextFireAt(sql, "weekly", { ...ALL, nextFireAt });
  await setJobDefinitionEnabled(sql, "report", { isEnabled: false });
  await new JobCatalog().handle(report, () => {}).schedule(mail, { ...weekly, payload: { to: "you" } }).sync(sql);
  assert.equal(await state(sql), "+mail -report -daily +foreign +weekly");
  const kept = await stored(sql, "weekly");
  assert.deepEqual([kept.payload, kept.nextFireAt], [{ to: "you" }, nextFireAt]);
});

Deno.test("sync is all or nothing", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  await fullCatalog().sync(sql);
  for (const name of ["daily", "weekly"]) await setJobScheduleActive(sql, name, { ...ALL, isActive: false });
  await setJobDefinitionEnabled(sql, "mail", { isEnabled: false });
  // Paused schedules of a paused type are no hindrance, a new one is.
  await fullCatalog().sync(sql);
  const fresh = defineJob({ type: "fresh" });
  await assert.rejects(
    fullCatalog().handle(fresh, () => {}).schedule(mail, { ...daily, name: "new" }).sync(sql),
    hasCode("job_schedule.definition_not_found_or_disabled", { jobTypes: ["mail"] }),
  );
  await assert.rejects(
    fullCatalog().handle(fresh, () => {}).schedule(fresh, { name: "over", cron: "0 0 0 1 1 * 2020", payload: {} })
      .sync(sql),
    hasCode("job_schedule.invalid_cron"),
  );
  assert.equal(await state(sql), "-mail +report -daily -weekly");
});

Deno.test("a schedule's mistakes are found when it is added to the catalog", () => {
  const add = (fields: Record<string, unknown>) => () =>
    fullCatalog().schedule(mail, { ...daily, name: "more", ...fields } as typeof daily);
  assert.throws(add({ name: "daily" }), { code: "job_schedule.invalid_name" });
  assert.throws(add({ name: " " }), { code: "job_schedule.invalid_name" });
  assert.throws(add({ cron: "often" }), { code: "job_schedule.invalid_cron" });
  assert.throws(add({ cron: "0 0 30 2 *" }), { code: "job_schedule.invalid_cron" });
  assert.throws(add({ timezone: "Moon" }), { code: "job_schedule.invalid_timezone" });
  assert.throws(add({ maxJitterSeconds: -1 }), { code: "job_schedule.invalid_jitter" });
  assert.throws(add({ payload: { to: 5 } }), { code: "job.invalid_payload" });
  const other = defineJob({ type: "mail" });
  assert.throws(() => fullCatalog().schedule(other, { ...daily, name: "more" }), { code: "job.invalid_definition" });
  assert.throws(() => new JobCatalog().schedule(other, daily).handle(mail, () => {}), {
    code: "job.invalid_definition",
  });
  // What firing adds must be something that the job's schema takes.
  const strict = defineJob({ type: "strict", payload: z.strictObject({ to: z.string() }) });
  assert.throws(() => new JobCatalog().schedule(strict, daily), { code: "job.invalid_payload" });
  const text = defineJob({ type: "text", payload: z.string() });
  assert.throws(() => new JobCatalog().schedule(text, { ...daily, payload: "x" }), { code: "job.invalid_payload" });
  // @ts-expect-error: the payload is not what the schema wants
  assert.throws(() => new JobCatalog().schedule(mail, { ...daily, payload: { from: "ada" } }));
});

Deno.test("a catalog may have schedules of jobs that run elsewhere", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const catalog = new JobCatalog().schedule(mail, daily);
  assert.deepEqual([catalog.jobTypes, catalog.definitions], [[], [mail]]);
  await catalog.sync(sql);
  await makeSchedulesDue(sql);
  await materializeDueSchedules(sql);
  const [job] = await claimJobs(sql, { jobTypes: ["mail"], workerId: "w", limit: 1 });
  assert.deepEqual([job?.maxAttempts, (await mail.decodePayload(job?.payload ?? null)).to], [5, "ada"]);
});

Deno.test("exact sync disables owned types and pauses owned schedules that the catalog lost, and nothing else", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  await fullCatalog().sync(sql);
  await enqueueJob(sql, report.request({}));
  const foreign = defineJob({ type: "foreign" });
  await new JobCatalog().handle(foreign, () => {}).schedule(foreign, { ...daily, name: "theirs" }).sync(sql);
  const smaller = new JobCatalog().handle(mail, () => {}).schedule(mail, weekly);
  const expected = { disabledJobTypes: ["report"], enabledJobTypes: [], pausedSchedules: ["daily"] };
  assert.deepEqual(await smaller.syncExact(sql, OWNED), expected);
  assert.equal(await state(sql), "+foreign +mail -report -daily +theirs +weekly");
  const nothing = { disabledJobTypes: [], enabledJobTypes: [], pausedSchedules: [] };
  assert.deepEqual(await smaller.syncExact(sql, OWNED), nothing);
  // What was queued still runs.
  assert.equal((await claimJobs(sql, { jobTypes: ["report"], workerId: "w", limit: 1 })).length, 1);
});

Deno.test("exact sync switches on again what the catalog has, whoever switched it off", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  await fullCatalog().sync(sql);
  for (const name of ["daily", "weekly"]) await setJobScheduleActive(sql, name, { ...ALL, isActive: false });
  await setJobDefinitionEnabled(sql, "mail", { isEnabled: false });
  await setJobDefinitionEnabled(sql, "report", { isEnabled: false });
  assert.deepEqual(await fullCatalog().syncExact(sql, { jobTypes: ["mail", "report"] }), {
    disabledJobTypes: [],
    enabledJobTypes: ["mail", "report"],
    pausedSchedules: [],
  });
  assert.equal(await state(sql), "+mail +report -daily -weekly", "schedules that it does not own keep their pause");
  await fullCatalog().syncExact(sql, OWNED);
  assert.equal(await state(sql), "+mail +report +daily +weekly");
  const paused = new JobCatalog().handle(mail, () => {}).handle(report, () => {}).schedule(mail, {
    ...daily,
    isActive: false,
  });
  assert.deepEqual((await paused.syncExact(sql, OWNED)).pausedSchedules, ["weekly"]);
  assert.equal(await state(sql), "+mail +report -daily -weekly");
});

Deno.test("exact sync is refused whole while a schedule that is not owned uses a type that would go", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  await fullCatalog().sync(sql);
  await upsertJobSchedule(sql, schedule({ name: "theirs", jobType: "report" }));
  const before = await state(sql);
  const smaller = new JobCatalog().handle(mail, () => {}).schedule(mail, { ...weekly, cron: "0 0 * * *" });
  const refused = hasCode("job_definition.active_schedule_exists", { jobTypes: ["report"], schedules: ["theirs"] });
  await assert.rejects(smaller.syncExact(sql, OWNED), refused);
  assert.equal(await state(sql), before);
  assert.equal((await stored(sql, "weekly")).cron, "0 9 * * MON");
  // In a transaction of the caller, too: what he did before stays.
  await sql.begin(async (tx) => {
    await tx`create table mine ()`;
    await assert.rejects(smaller.syncExact(tx, OWNED), refused);
  });
  await sql`select from mine`;
  await setJobScheduleActive(sql, "theirs", { ...ALL, isActive: false });
  assert.deepEqual((await smaller.syncExact(sql, OWNED)).disabledJobTypes, ["report"]);
});

Deno.test("exact sync refuses a catalog that is empty or reaches beyond what it owns", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  await assert.rejects(new JobCatalog().syncExact(sql, OWNED), hasCode("job.invalid_definition"));
  await assert.rejects(
    fullCatalog().syncExact(sql, { jobTypes: ["mail"] }),
    hasCode("job.invalid_definition", { field: "jobTypes", names: ["report"] }),
  );
  await assert.rejects(
    fullCatalog().syncExact(sql, { ...OWNED, scheduleNames: ["daily"] }),
    hasCode("job_schedule.invalid_name", { field: "scheduleNames", names: ["weekly"] }),
  );
  await assert.rejects(
    fullCatalog().syncExact(sql, { jobTypes: ["mail", "report", " "] }),
    hasCode("job.invalid_request"),
  );
  await assert.rejects(fullCatalog().syncExact(sql, {} as never), TypeError);
  await assert.rejects(fullCatalog().syncExact(sql, { jobTypes: "mail" as never }), TypeError);
  assert.equal(await state(sql), "");
});

Deno.test("exact syncs of different catalogs at once all succeed, the first ones too", async () => {
  await using database = await openTestDatabase({ max: 8 });
  const { sql } = database;
  const definitions = ["k", "l", "m", "n"].map(testDefinition);
  const scope = { jobTypes: ["k", "l", "m", "n"], scheduleNames: ["1", "2", "3", "4"] };
  const entries = (offset: number) => ({
    definitions: definitions.filter((_, index) => (index + offset) % 3 !== 0).reverse(),
    schedules: definitions.filter((_, index) => (index + offset) % 3 === 1)
      .map(({ type }, index) => schedule({ name: String(4 - index), jobType: type })),
  });
  for (let round = 0; round < 10; round++) {
    await Promise.all([0, 1, 2, 0, 1, 2].map((offset) => syncJobCatalogExactly(sql, entries(offset), scope)));
  }
});

Deno.test("workers that start at once and store the same new definitions all succeed", async () => {
  await using database = await openTestDatabase({ max: 8 });
  const { sql } = database;
  for (let round = 0; round < 300; round++) {
    const definitions = ["x", "y", "z"].map((name) => testDefinition(`${name}${round}`));
    await Promise.all(Array.from({ length: 8 }, () => upsertJobDefinitions(sql, definitions)));
  }
  const [row] =
    await sql`select count(*)::integer as stored from runledger.job_definitions where job_type ~ '^[xyz]\\d'`;
  assert.equal(row?.["stored"], 900);
});

Deno.test("definitions are stored while others switch them on and off", async () => {
  await using database = await openTestDatabase({ max: 8 });
  const { sql } = database;
  for (let round = 0; round < 1000; round++) {
    const store = () => upsertJobDefinitions(sql, [{ ...testDefinition("a"), maxAttempts: 1 + round % 2 }]);
    const toggle = (isEnabled: boolean) => setJobDefinitionEnabled(sql, "a", { isEnabled });
    await Promise.all([toggle(false), store(), store(), toggle(true), store(), store(), toggle(false), store()]);
  }
});

Deno.test("an exact sync waits for a schedule that is being activated, and is then refused", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  await fullCatalog().sync(sql);
  const smaller = new JobCatalog().handle(mail, () => {});
  let waiting: Promise<void> | undefined;
  await sql.begin(async (tx) => {
    await upsertJobSchedule(tx, schedule({ name: "theirs", jobType: "report" }));
    waiting = assert.rejects(smaller.syncExact(sql, OWNED), hasCode("job_definition.active_schedule_exists"));
    await untilWaiting(sql, 1);
  });
  await waiting;
});
