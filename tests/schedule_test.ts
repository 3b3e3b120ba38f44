/**
 * Schedules, one after the other: what is stored, what fires, and with what.
 *
 * @module
 */

import { newId } from "@runledger/core";
import type { JsonValue, RunledgerErrorCode } from "@runledger/core";
import {
  atomically,
  claimJobs,
  deleteJobSchedule,
  enqueueJob,
  listJobSchedules,
  materializeDueSchedules,
  setJobDefinitionEnabled,
  setJobScheduleActive,
  setJobScheduleNextFireAt,
  upsertJobDefinitions,
  upsertJobSchedule,
  upsertJobSchedules,
} from "@runledger/postgres";
import type { JobScheduleInput, Queryable } from "@runledger/postgres";
import assert from "node:assert/strict";
import { MIGRATIONS } from "../postgres/_migrations.ts";
import { applyMigrations } from "../postgres/migrate.ts";
import { nextFireAt, parseCron } from "../postgres/schedule_cron.ts";
import { openTestDatabase, request, testDefinition } from "./support/database.ts";
import { DRIVERS, sharedPGlite } from "./support/drivers.ts";
import { ORM_DRIVERS } from "./support/orm_drivers.ts";
import { ALL, firedJobs, hasCode, makeSchedulesDue, schedule, stored } from "./support/schedules.ts";

await sharedPGlite(); // before the first test: it is kept for all of them

Deno.test("a new schedule is active, and due at the first date of its expression after the database's now", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const before = new Date();
  const made = await upsertJobSchedule(sql, schedule({ organizationId: newId().toUpperCase(), cron: " 30  3 * * * " }));
  const expected = parseCron("30 3 * * *").next(before);
  assert.deepEqual(made, {
    scheduleId: made.scheduleId,
    name: "nightly",
    jobType: "a",
    organizationId: made.organizationId,
    cron: "30 3 * * *",
    timezone: "UTC",
    payload: { n: 1 },
    isActive: true,
    nextFireAt: expected,
    maxJitterSeconds: 0,
    createdAt: made.createdAt,
    updatedAt: made.createdAt,
  });
  assert.deepEqual(await stored(sql), made);
  const zoned = await upsertJobSchedule(sql, schedule({ name: "zoned", timezone: "Asia/Kolkata" }));
  assert.deepEqual(zoned.nextFireAt, parseCron("30 3 * * *", "Asia/Kolkata").next(before));
  const jittered = await upsertJobSchedule(sql, schedule({ name: "jittered", maxJitterSeconds: 3600 }));
  assert.deepEqual(jittered.nextFireAt, nextFireAt(parseCron("30 3 * * *"), jittered, before));
});

Deno.test("an upsert keeps what an operator switched off, whose it is, and when it fires", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const organizationId = newId();
  const made = await upsertJobSchedule(sql, schedule({ organizationId }));
  await setJobScheduleActive(sql, "nightly", { ...ALL, isActive: false });
  const nextFireAt = new Date("2099-01-01T00:00:00.123Z");
  await setJobScheduleNextFireAt(sql, "nightly", { ...ALL, nextFireAt });
  const paused = await stored(sql);
  // An equal one changes nothing at all.
  assert.deepEqual(await upsertJobSchedule(sql, schedule({ organizationId, cron: "30\t3 * * *" })), paused);
  const changed = { jobType: "b", payload: [2], maxJitterSeconds: 7, organizationId: newId(), isActive: true };
  const upserted = await upsertJobSchedule(sql, schedule(changed));
  assert.deepEqual(upserted, {
    ...made,
    jobType: "b",
    payload: [2],
    maxJitterSeconds: 7,
    isActive: false,
    nextFireAt,
    updatedAt: upserted.updatedAt,
  });
  assert(upserted.updatedAt > paused.updatedAt);
});

Deno.test("an upsert moves the next fire only when the expression or the zone changes", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  await upsertJobSchedule(sql, schedule());
  for (const change of [{ cron: "31 3 * * *" }, { cron: "31 3 * * *", timezone: "Europe/Berlin" }]) {
    const odd = new Date("2099-01-01T00:00:00Z");
    await setJobScheduleNextFireAt(sql, "nightly", { ...ALL, nextFireAt: odd });
    const { nextFireAt: moved } = await upsertJobSchedule(sql, schedule(change));
    assert.deepEqual(moved, parseCron(change.cron, change.timezone).next(new Date()));
    await setJobScheduleNextFireAt(sql, "nightly", { ...ALL, nextFireAt: odd });
    assert.deepEqual((await upsertJobSchedule(sql, schedule(change))).nextFireAt, odd);
  }
});

Deno.test("many schedules are stored at once, all or none, and come back in their order", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const inputs = ["c", "a", "b"].map((name) => schedule({ name }));
  assert.deepEqual((await upsertJobSchedules(sql, inputs)).map(({ name }) => name), ["c", "a", "b"]);
  assert.deepEqual(await upsertJobSchedules(sql, []), []);
  await assert.rejects(
    upsertJobSchedules(sql, [schedule({ name: "new" }), schedule({ name: "bad", jobType: "none" })]),
    hasCode("job_schedule.definition_not_found_or_disabled", { jobTypes: ["none"] }),
  );
  await assert.rejects(
    upsertJobSchedules(sql, [schedule({ name: "new" }), schedule({ name: "new" })]),
    hasCode("job_schedule.invalid_name", { schedule: "new" }),
  );
  assert.deepEqual((await listJobSchedules(sql, ALL)).items.map(({ name }) => name), ["a", "b", "c"]);
});

Deno.test("what cannot be a schedule is refused with its own code before anything is written", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const refused: readonly (readonly [RunledgerErrorCode, Partial<Record<keyof JobScheduleInput, unknown>>])[] = [
    ["job_schedule.invalid_name", { name: "" }],
    ["job_schedule.invalid_name", { name: " \u0085" }],
    ["job_schedule.invalid_name", { name: " padded" }],
    ["job_schedule.invalid_name", { name: "a\0b" }],
    ["job_schedule.invalid_name", { name: "n".repeat(256) }],
    ["job_schedule.invalid_name", { name: 5 }],
    ["job_schedule.invalid_cron", { cron: "" }],
    ["job_schedule.invalid_cron", { cron: "@reboot" }],
    ["job_schedule.invalid_cron", { cron: "0 0 31 2 *" }],
    ["job_schedule.invalid_cron", { cron: "2099-01-01T00:00:00" }],
    ["job_schedule.invalid_cron", { cron: "0 0 0 1 1 * 2020" }],
    ["job_schedule.invalid_timezone", { timezone: "Nope/Zone" }],
    ["job_schedule.invalid_timezone", { timezone: "+01:00" }],
    ["job_schedule.invalid_jitter", { maxJitterSeconds: -1 }],
    ["job_schedule.invalid_jitter", { maxJitterSeconds: 1.5 }],
    ["job_schedule.invalid_jitter", { maxJitterSeconds: 86_401 }],
    ["job_schedule.invalid_jitter", { maxJitterSeconds: NaN }],
    ["job.invalid_request", { jobType: " " }],
    ["job.invalid_request", { organizationId: "me" }],
    ["job.invalid_payload", { payload: { at: [1n] } }],
    ["job.invalid_payload", { payload: undefined }],
    ["job_schedule.definition_not_found_or_disabled", { jobType: "none" }],
    ["job_schedule.definition_not_found_or_disabled", { jobType: "none", isActive: false }],
  ];
  for (const [code, fields] of refused) {
    await assert.rejects(upsertJobSchedule(sql, schedule(fields as Partial<JobScheduleInput>)), hasCode(code));
  }
  for (
    const fields of [{ cron: 5 }, { timezone: null }, { isActive: "no" }, { organizationId: 5 }, { jobType: null }]
  ) {
    await assert.rejects(upsertJobSchedule(sql, schedule(fields as never)), TypeError);
  }
  await assert.rejects(upsertJobSchedule(sql, null as never), TypeError);
  assert.deepEqual(await listJobSchedules(sql, ALL), { items: [] });
});

Deno.test("a due schedule becomes one job of its type, organization and definition, due now", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  await upsertJobDefinitions(sql, [{ type: "c", version: 1, maxAttempts: 9, timeoutSeconds: 8, priority: 7 }]);
  const organizationId = newId();
  const { scheduleId } = await upsertJobSchedule(sql, schedule({ jobType: "c", organizationId }));
  const { nextInMs, ...idle } = await materializeDueSchedules(sql);
  assert.deepEqual(idle, { fired: [], deferred: [], hasMore: false });
  assert(nextInMs !== undefined && nextInMs > 0);
  const dueAt = (await makeSchedulesDue(sql)).get("nightly") ?? "";
  const { fired: [fire, ...others], deferred } = await materializeDueSchedules(sql);
  assert(fire !== undefined);
  assert.deepEqual([others, deferred], [[], []]);
  const next = parseCron("30 3 * * *").next(new Date()) as Date;
  assert.deepEqual(fire, {
    scheduleId,
    name: "nightly",
    jobId: fire.jobId,
    jobType: "c",
    organizationId,
    scheduledFor: new Date(dueAt),
    nextFireAt: next,
  });
  const after = await stored(sql);
  assert.deepEqual(after.nextFireAt, next);
  assert(after.lastFiredAt !== undefined && after.lastFiredAt.getTime() - new Date(dueAt).getTime() >= 60_000);
  assert.deepEqual((await materializeDueSchedules(sql)).fired, []);
  const [job] = await claimJobs(sql, { jobTypes: ["c"], workerId: "w", limit: 9 });
  assert(job !== undefined);
  assert.deepEqual([job.jobId, job.organizationId, job.maxAttempts, job.timeoutSeconds], [
    fire.jobId,
    organizationId,
    9,
    8,
  ]);
  assert.deepEqual(job.payload, {
    n: 1,
    _schedule: { schedule_id: scheduleId, schedule_name: "nightly", scheduled_for: dueAt },
  });
  const [row] = await sql`
    select queue.priority, queue.idempotency_key, event.stage, queue.next_run_at >= now() - interval '30 seconds' as is_new
    from runledger.job_queue as queue join runledger.job_events as event on event.job_id = queue.id and event.seq = 1`;
  assert.deepEqual({ ...row }, { priority: 7, idempotency_key: null, stage: "scheduled", is_new: true });
});

Deno.test("each fire has its own copy of the template, whatever kind of JSON that is", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const templates: Readonly<Record<string, JsonValue>> = {
    object: { deep: { list: [1, null, "x"] } },
    empty: {},
    marked: { _schedule: "mine", n: 1 },
    list: [1, 2],
    text: "text",
    number: 0,
    no: false,
    nothing: null,
  };
  const names = Object.keys(templates);
  await upsertJobSchedules(sql, names.map((name) => schedule({ name, payload: templates[name] as JsonValue })));
  for (let round = 1; round <= 2; round++) {
    const due = await makeSchedulesDue(sql);
    await materializeDueSchedules(sql);
    for (const { name, payload } of (await firedJobs(sql)).filter((job) => job.scheduledFor === due.get(job.name))) {
      const template = templates[name] as JsonValue;
      const { scheduleId, payload: kept } = await stored(sql, name);
      const mark = { schedule_id: scheduleId, schedule_name: name, scheduled_for: due.get(name) };
      const isObject = typeof template === "object" && template !== null && !Array.isArray(template);
      assert.deepEqual(payload, { ...(isObject ? template : { payload: template }), _schedule: mark });
      assert.deepEqual(kept, template);
    }
    assert.equal((await firedJobs(sql)).length, round * names.length);
  }
});

Deno.test("fires that were missed count as one, and the next is the first after now", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  for (const [name, maxJitterSeconds] of [["plain", 0], ["jittered", 90]] as const) {
    const input = schedule({ name, cron: "* * * * *", maxJitterSeconds });
    const made = await upsertJobSchedule(sql, input);
    await makeSchedulesDue(sql, { names: [name], agoSeconds: 86_400 });
    const [before] = await sql<{ now: Date }[]>`select clock_timestamp() as now`;
    const { fired: [fire] } = await materializeDueSchedules(sql);
    const fired = await stored(sql, name);
    assert.deepEqual(fired.nextFireAt, fire?.nextFireAt);
    const expected = [before?.now, fired.lastFiredAt].map((now) =>
      nextFireAt(parseCron("* * * * *"), made, now as Date)?.getTime()
    );
    assert(expected.includes(fired.nextFireAt?.getTime()), `${fired.nextFireAt?.toISOString()}`);
    assert.deepEqual((await materializeDueSchedules(sql)).fired.filter((one) => one.name === name), []);
  }
  assert.equal((await firedJobs(sql)).length, 2);
});

Deno.test("a schedule set to any instant fires there, and then by its expression again", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  await upsertJobSchedule(sql, schedule());
  for (
    const nextFireAt of [new Date("0001-01-01T00:00:00Z"), new Date("1970-01-01T00:00:00Z"), new Date(Date.now() - 1)]
  ) {
    const moved = await setJobScheduleNextFireAt(sql, "nightly", { ...ALL, nextFireAt });
    assert.deepEqual(moved.nextFireAt, nextFireAt);
    const { fired: [fire] } = await materializeDueSchedules(sql);
    assert.deepEqual(fire?.scheduledFor, nextFireAt);
    assert.deepEqual(fire?.nextFireAt, parseCron("30 3 * * *").next(new Date()));
  }
  assert.equal((await firedJobs(sql))[0]?.scheduledFor, "0001-01-01T00:00:00.000Z");
  for (const nextFireAt of [new Date(NaN), new Date(8.64e15), new Date("-000001-01-01T00:00:00Z")]) {
    await assert.rejects(
      setJobScheduleNextFireAt(sql, "nightly", { ...ALL, nextFireAt }),
      hasCode("job.invalid_request"),
    );
  }
});

Deno.test("a paused schedule fires nothing, and one fire that it missed when it goes on", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  await upsertJobSchedules(sql, [schedule({ cron: "* * * * * *", isActive: false }), schedule({ name: "other" })]);
  await setJobScheduleActive(sql, "other", { ...ALL, isActive: false });
  await makeSchedulesDue(sql);
  assert.deepEqual(await materializeDueSchedules(sql), { fired: [], deferred: [], hasMore: false });
  assert.equal((await setJobScheduleActive(sql, "nightly", { ...ALL, isActive: true })).isActive, true);
  assert.deepEqual((await materializeDueSchedules(sql)).fired.map(({ name }) => name), ["nightly"]);
  assert.equal((await firedJobs(sql)).length, 1);
});

Deno.test("the last date of an expression fires, and storing it again is no error", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const year = new Date().getUTCFullYear();
  const once = schedule({ cron: `0 0 0 1 1 * ${year + 1}` });
  assert.deepEqual((await upsertJobSchedule(sql, once)).nextFireAt, new Date(Date.UTC(year + 1, 0)));
  // As if that day had come.
  await sql`update runledger.job_schedules set cron_expression = ${`0 0 0 1 1 * ${year}`}`;
  await makeSchedulesDue(sql);
  const { fired: [fire], nextInMs } = await materializeDueSchedules(sql);
  assert(fire !== undefined && fire.nextFireAt === undefined && nextInMs === undefined);
  const over = await stored(sql);
  assert(over.isActive && over.nextFireAt === undefined);
  assert.deepEqual(await upsertJobSchedule(sql, schedule({ cron: `0 0 0 1 1 * ${year}` })), over);
  assert.deepEqual(await materializeDueSchedules(sql), { fired: [], deferred: [], hasMore: false });
  await assert.rejects(
    upsertJobSchedule(sql, schedule({ cron: `0 0 1 1 1 * ${year}` })),
    hasCode("job_schedule.invalid_cron"),
  );
});

Deno.test("fires are part of the caller's transaction: with it or not at all", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  await upsertJobSchedule(sql, schedule());
  const due = await makeSchedulesDue(sql);
  const fireAndThen = (end: (tx: Queryable) => Promise<void>) =>
    sql.begin(async (tx) => {
      await tx`create table if not exists mine (id integer)`;
      assert.equal((await materializeDueSchedules(tx)).fired.length, 1);
      await end(tx);
    });
  await assert.rejects(fireAndThen(() => Promise.reject(new Error("no"))), /no/);
  assert.equal((await firedJobs(sql)).length, 0);
  assert.equal((await stored(sql)).nextFireAt?.toISOString(), due.get("nightly"));
  await fireAndThen(async (tx) => {
    assert.equal((await materializeDueSchedules(tx)).fired.length, 0);
    await enqueueJob(tx, request());
  });
  assert.equal((await firedJobs(sql)).length, 1);
  assert.equal((await materializeDueSchedules(sql)).fired.length, 0);
});

Deno.test("a schedule that cannot fire is put off by 30 seconds and reported, and the others fire", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  await upsertJobDefinitions(sql, [testDefinition("gone")]);
  const names = ["bad_cron", "bad_date", "bad_zone", "disabled", "good_1", "good_2"];
  await upsertJobSchedules(
    sql,
    names.map((name) => schedule({ name, jobType: name === "disabled" ? "gone" : "a" })),
  );
  // Behind the back of every check, as an administrator may.
  await sql`update runledger.job_schedules set cron_expression = 'every night' where name = 'bad_cron'`;
  await sql`update runledger.job_schedules set cron_expression = '0 0 31 2 *' where name = 'bad_date'`;
  await sql`update runledger.job_schedules set timezone = 'Nope/Zone' where name = 'bad_zone'`;
  await sql.begin(async (tx) => {
    await tx`set local session_replication_role = replica`;
    await tx`update runledger.job_definitions set is_enabled = false where job_type = 'gone'`;
  });
  for (const run of [(db: Queryable) => materializeDueSchedules(db), inTransaction]) {
    const due = await makeSchedulesDue(sql);
    const [row] = await sql<{ now: Date }[]>`select clock_timestamp() as now`;
    const { fired, deferred, nextInMs } = await run(sql);
    assert.deepEqual(fired.map(({ name }) => name).sort(), ["good_1", "good_2"]);
    assert.deepEqual(
      deferred.map(({ name, code, scheduledFor }) => [name, code, scheduledFor.toISOString()]).sort(),
      [
        ["bad_cron", "job_schedule.invalid_cron", due.get("bad_cron")],
        ["bad_date", "job_schedule.invalid_cron", due.get("bad_date")],
        ["bad_zone", "job_schedule.invalid_timezone", due.get("bad_zone")],
        ["disabled", "job.definition_not_found_or_disabled", due.get("disabled")],
      ],
    );
    for (const { name, nextFireAt: at } of deferred) {
      const { nextFireAt: cursor, lastFiredAt } = await stored(sql, name);
      assert.deepEqual(cursor, at);
      assert.equal(lastFiredAt, undefined);
      const putOffMs = at.getTime() - (row?.now.getTime() ?? 0);
      assert(putOffMs >= 29_999 && putOffMs < 60_000, `${putOffMs}`);
    }
    assert(nextInMs !== undefined && nextInMs <= 60_000);
    assert.deepEqual((await materializeDueSchedules(sql)).fired, []);
  }
  assert.equal((await firedJobs(sql)).length, 4);
  // Mended, it goes on.
  await upsertJobSchedule(sql, schedule({ name: "bad_cron", cron: "* * * * *" }));
  await makeSchedulesDue(sql, { names: ["bad_cron"] });
  assert.deepEqual((await materializeDueSchedules(sql)).fired.map(({ name }) => name), ["bad_cron"]);
});

function inTransaction(db: Queryable) {
  return atomically(db, (tx) => materializeDueSchedules(tx));
}

Deno.test("a schedule whose job the database refuses does not hold up the others", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  await sql.unsafe(`
    create function refuse() returns trigger language plpgsql as $$ begin raise exception 'no'; end $$;
    create trigger refuse before insert on runledger.job_queue for each row
    when (new.payload ? 'poison') execute function refuse()`);
  await upsertJobSchedules(sql, [
    schedule({ name: "poison", payload: { poison: true } }),
    ...["1", "2", "3"].map((name) => schedule({ name })),
  ]);
  await makeSchedulesDue(sql);
  const { fired, deferred } = await materializeDueSchedules(sql);
  assert.deepEqual(fired.map(({ name }) => name).sort(), ["1", "2", "3"]);
  assert.deepEqual(deferred.map(({ name, code }) => [name, code]), [["poison", "db.query_failed"]]);
  assert.equal((await firedJobs(sql)).length, 3);
  // In a transaction of the caller the refusal is his: PostgreSQL would commit nothing anyway.
  await makeSchedulesDue(sql);
  await assert.rejects(sql.begin((tx) => materializeDueSchedules(tx)), hasCode("db.query_failed"));
  assert.equal((await firedJobs(sql)).length, 3);
});

Deno.test("the limit bounds a call, the longest due come first, and more is said to be there", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  await upsertJobSchedules(sql, ["1", "2", "3", "4"].map((name) => schedule({ name })));
  for (const name of ["1", "2", "3"]) await makeSchedulesDue(sql, { names: [name], agoSeconds: 10 * Number(name) });
  const first = await materializeDueSchedules(sql, { limit: 2 });
  assert.deepEqual(first.fired.map(({ name }) => name).sort(), ["2", "3"]);
  assert.equal(first.hasMore, true);
  const second = await materializeDueSchedules(sql, { limit: 2 });
  assert.deepEqual([second.fired.map(({ name }) => name), second.hasMore], [["1"], false]);
  for (const limit of [0, 1001, 1.5, NaN]) {
    await assert.rejects(materializeDueSchedules(sql, { limit }), hasCode("job.invalid_pagination"));
  }
});

Deno.test("how long there is nothing to do is told by the database's clock", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  assert.deepEqual(await materializeDueSchedules(sql), { fired: [], deferred: [], hasMore: false });
  await upsertJobSchedules(sql, [schedule({ name: "far" }), schedule({ name: "near" })]);
  await makeSchedulesDue(sql, { names: ["near"], agoSeconds: -100 });
  const { nextInMs } = await materializeDueSchedules(sql);
  assert(nextInMs !== undefined && nextInMs > 60_000 && nextInMs <= 101_000, `${nextInMs}`);
});

Deno.test("schedules are listed by name in pages, by scope, type and state, and can be deleted", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const organizationId = newId();
  await upsertJobSchedules(sql, [
    ...["b", "d", "a"].map((name) => schedule({ name })),
    schedule({ name: "c", jobType: "b", organizationId, isActive: false }),
  ]);
  const names = async (options: Partial<Parameters<typeof listJobSchedules>[1]> = {}) =>
    (await listJobSchedules(sql, { ...ALL, ...options })).items.map(({ name }) => name).join("");
  assert.equal(await names(), "abcd");
  assert.equal(await names({ limit: 2 }), "ab");
  const { nextCursor: cursor = "" } = await listJobSchedules(sql, { ...ALL, limit: 2 });
  assert.equal(await names({ limit: 2, cursor }), "cd");
  assert.equal(await names({ text: "c" }), "c");
  assert.equal(await names({ scope: "global" }), "abd");
  assert.equal(await names({ scope: { organizationId } }), "c");
  assert.equal(await names({ jobType: "b" }), "c");
  assert.equal(await names({ isActive: true }), "abd");
  assert.equal(await names({ isActive: false }), "c");
  await assert.rejects(names({ limit: 0 }), hasCode("job.invalid_pagination"));
  await assert.rejects(names({ cursor: "b" }), hasCode("job.invalid_pagination"));
  assert.equal(await deleteJobSchedule(sql, "a", ALL), true);
  assert.equal(await deleteJobSchedule(sql, "a", ALL), false);
  assert.equal(await names(), "bcd");
  for (
    const call of [
      () => setJobScheduleActive(sql, "a", { ...ALL, isActive: true }),
      () => setJobScheduleNextFireAt(sql, "a", { ...ALL, nextFireAt: new Date() }),
    ]
  ) await assert.rejects(call(), hasCode("job_schedule.not_found"));
  // A type that had schedules only in the past can be switched off.
  await setJobDefinitionEnabled(sql, "b", { isEnabled: false });
});

for (const driver of [...DRIVERS, ...ORM_DRIVERS]) {
  Deno.test(`${driver.name}: schedules are stored, fired, paused and deleted through it`, async () => {
    await using database = await openTestDatabase({ checks: false });
    await using handle = await driver.open(database.url);
    const { db } = handle;
    await applyMigrations(db, MIGRATIONS);
    await upsertJobDefinitions(db, [testDefinition("a")]);
    const made = await upsertJobSchedule(db, schedule({ payload: { text: "ü\u2028", n: 1e21 } }));
    await setJobScheduleNextFireAt(db, "nightly", { ...ALL, nextFireAt: new Date(0) });
    const { fired: [fire, ...others] } = await materializeDueSchedules(db);
    assert.equal(others.length, 0);
    assert.deepEqual([fire?.scheduleId, fire?.scheduledFor], [made.scheduleId, new Date(0)]);
    assert.deepEqual((await materializeDueSchedules(db)).fired, []);
    const [job] = await claimJobs(db, { jobTypes: ["a"], workerId: "w", limit: 2 });
    assert.deepEqual(job?.payload, {
      text: "ü\u2028",
      n: 1e21,
      _schedule: {
        schedule_id: made.scheduleId,
        schedule_name: "nightly",
        scheduled_for: "1970-01-01T00:00:00.000Z",
      },
    });
    await assert.rejects(
      setJobDefinitionEnabled(db, "a", { isEnabled: false }),
      hasCode("job_definition.active_schedule_exists", { jobTypes: ["a"], schedules: ["nightly"] }),
    );
    await setJobScheduleActive(db, "nightly", { ...ALL, isActive: false });
    await setJobDefinitionEnabled(db, "a", { isEnabled: false });
    await assert.rejects(
      setJobScheduleActive(db, "nightly", { ...ALL, isActive: true }),
      hasCode("job_schedule.definition_not_found_or_disabled", { jobTypes: ["a"] }),
    );
    // What was refused left the transaction usable.
    await setJobDefinitionEnabled(db, "a", { isEnabled: true });
    assert(await deleteJobSchedule(db, "nightly", ALL));
  });
}
