/**
 * Schedules in the hands of many at once: no fire is lost, none is doubled, whoever dies or changes what on the way; and an
 * active schedule has an enabled definition, in whatever order things happen.
 *
 * @module
 */

import { isRunledgerError } from "@runledger/core";
import {
  deleteJobSchedule,
  enqueueJob,
  materializeDueSchedules,
  setJobDefinitionEnabled,
  setJobScheduleActive,
  setJobScheduleNextFireAt,
  upsertJobDefinitions,
  upsertJobSchedule,
  upsertJobSchedules,
} from "@runledger/postgres";
import type { Queryable, StatementRunner } from "@runledger/postgres";
import { startTcpProxy } from "@runledger/test-support";
import type { TcpProxyMode } from "@runledger/test-support";
import assert from "node:assert/strict";
import postgres from "postgres";
import { openTestDatabase, request, testDefinition } from "./support/database.ts";
import type { TestDatabase } from "./support/database.ts";
import {
  ALL,
  assertFiredOnce,
  firedJobs,
  hasCode,
  killSchedulersUntilFired,
  makeSchedulesDue,
  names,
  openDueSchedules,
  RARELY,
  schedule,
  stored,
  untilWaiting,
} from "./support/schedules.ts";

Deno.test("many schedulers at once fire each due schedule once", async () => {
  await using database = await openTestDatabase({ max: 10 });
  const { sql } = database;
  const due = await openDueSchedules(sql, 200);
  const results = await Promise.all(Array.from({ length: 30 }, () => materializeDueSchedules(sql, { limit: 50 })));
  let fired = results.reduce((sum, result) => sum + result.fired.length, 0);
  for (let hasMore = true; hasMore;) {
    const result = await materializeDueSchedules(sql);
    fired += result.fired.length;
    hasMore = result.hasMore || result.fired.length > 0;
  }
  assert.equal(fired, 200, "what was reported is what was done");
  await assertFiredOnce(sql, due);
});

Deno.test("five schedulers on a thousand due schedules, killed at random: every fire once", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const due = await openDueSchedules(sql, 1000);
  const kills = await killSchedulersUntilFired(sql, database.url);
  await assertFiredOnce(sql, due);
  assert(kills >= 10, `${kills} kills`);
});

/** Runs something between the two statements of a firing. */
async function fireWhile(sql: postgres.Sql, meanwhile: () => Promise<unknown>) {
  let statements = 0;
  const db: StatementRunner = {
    async query(text, values) {
      if (++statements === 2) await meanwhile();
      return await sql.unsafe(text, [...values ?? []]);
    },
  };
  const result = await materializeDueSchedules(db);
  assert.equal(statements, 2);
  return result;
}

Deno.test("what another scheduler fired since it was read is not fired again", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const due = await openDueSchedules(sql, 3);
  const result = await fireWhile(sql, async () => {
    assert.equal((await materializeDueSchedules(sql, { limit: 2 })).fired.length, 2);
  });
  assert.equal(result.fired.length, 1);
  assert(result.nextInMs !== undefined && result.nextInMs <= 1000, "it looks again soon");
  await assertFiredOnce(sql, due);
});

const MEANWHILE: Readonly<Record<string, (sql: postgres.Sql) => Promise<unknown>>> = {
  paused: (sql) => setJobScheduleActive(sql, "nightly", { ...ALL, isActive: false }),
  moved: (sql) => setJobScheduleNextFireAt(sql, "nightly", { ...ALL, nextFireAt: new Date("2099-01-01") }),
  "given another expression": (sql) => upsertJobSchedule(sql, schedule({ cron: "31 3 * * *" })),
  "given another zone": (sql) => upsertJobSchedule(sql, schedule({ timezone: "Asia/Tokyo" })),
  deleted: (sql) => deleteJobSchedule(sql, "nightly", ALL),
  "deleted and made anew": async (sql) => {
    await deleteJobSchedule(sql, "nightly", ALL);
    await upsertJobSchedule(sql, schedule());
  },
};

for (const [change, make] of Object.entries(MEANWHILE)) {
  Deno.test(`a schedule that is ${change} between reading and firing does not fire`, async () => {
    await using database = await openTestDatabase();
    const { sql } = database;
    await upsertJobSchedule(sql, schedule());
    await makeSchedulesDue(sql);
    assert.deepEqual((await fireWhile(sql, () => make(sql))).fired, []);
    assert.deepEqual(await firedJobs(sql), []);
  });
}

Deno.test("a template, type or jitter that changes between reading and firing is the one that fires", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  await upsertJobSchedule(sql, schedule());
  await makeSchedulesDue(sql);
  const changed = schedule({ payload: { n: 2 }, jobType: "b", maxJitterSeconds: 5 });
  const { fired: [fire] } = await fireWhile(sql, () => upsertJobSchedule(sql, changed));
  assert.equal(fire?.jobType, "b");
  const [job] = await firedJobs(sql);
  assert.deepEqual([job?.jobType, (job?.payload as { n: number }).n], ["b", 2]);
});

Deno.test("a schedule that somebody holds is passed over without a wait, and fires when it is let go", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const due = await openDueSchedules(sql, 3);
  await sql.begin(async (tx) => {
    await tx`update runledger.job_schedules set updated_at = now() where name = 's1'`;
    const { fired, nextInMs } = await materializeDueSchedules(sql);
    assert.deepEqual(fired.map(({ name }) => name).sort(), ["s0", "s2"]);
    assert(nextInMs !== undefined && nextInMs <= 1000);
  });
  assert.deepEqual((await materializeDueSchedules(sql)).fired.map(({ name }) => name), ["s1"]);
  await assertFiredOnce(sql, due);
});

Deno.test("rivals that change schedules while they fire: what fires was due and active, once each", async () => {
  await using database = await openTestDatabase({ max: 8 });
  const { sql } = database;
  await upsertJobSchedules(sql, names(20).map((name) => schedule({ name, cron: RARELY })));
  const expected: string[] = [];
  for (let round = 0; round < 15; round++) {
    for (const [name, at] of await makeSchedulesDue(sql)) expected.push(`${name} ${at}`);
    await Promise.all([
      ...Array.from({ length: 4 }, () => materializeDueSchedules(sql, { limit: 7 })),
      ...names(20).map((name) => upsertJobSchedule(sql, schedule({ name, cron: RARELY, payload: { round } }))),
      upsertJobSchedules(
        sql,
        names(20).toReversed().map((name) => schedule({ name, cron: RARELY, payload: { round } })),
      ),
    ]);
    while ((await materializeDueSchedules(sql)).fired.length > 0);
  }
  const jobs = (await firedJobs(sql)).map(({ name, scheduledFor }) => `${name} ${scheduledFor}`);
  assert.deepEqual(jobs.sort(), expected.sort());
});

/** The end of every answer outside a transaction: the server has committed before it sends this. */
const READY_FOR_QUERY = "Z\0\0\0\x05I";

const LOSSES: Readonly<Record<string, TcpProxyMode>> = {
  "before the server has it": { kind: "cut-request", containing: "job_id", when: "before" },
  "after the server has committed": { kind: "cut-reply", containing: READY_FOR_QUERY },
};

for (const [when, mode] of Object.entries(LOSSES)) {
  Deno.test(`a firing lost ${when} is unknown to the caller; the next call fires what is left, and nothing twice`, async () => {
    await using database = await openTestDatabase();
    const due = await openDueSchedules(database.sql, 5);
    await using proxy = await startTcpProxy({ target: database.url });
    const sql = postgres(proxy.url, { max: 1, connect_timeout: 0, onnotice: () => {} });
    try {
      // Both statements are prepared now: from here on only their values are sent.
      assert.equal((await materializeDueSchedules(sql, { limit: 1 })).fired.length, 1);
      let statements = 0;
      const db: StatementRunner = {
        async query(text, values) {
          if (++statements === 2) proxy.setMode(mode);
          return await sql.unsafe(text, [...values ?? []], { prepare: true });
        },
      };
      await assert.rejects(materializeDueSchedules(db, { limit: 2 }), hasCode("db.commit_unknown"));
      assert.deepEqual([statements, proxy.counts.cut], [2, 1]);
      assert.equal((await firedJobs(database.sql)).length, mode.kind === "cut-reply" ? 3 : 1);
      while ((await materializeDueSchedules(sql, { limit: 2 })).fired.length > 0);
    } finally {
      await sql.end({ timeout: 0.1 });
    }
    await assertFiredOnce(database.sql, due);
  });
}

Deno.test("two that read a schedule before it was deleted store it once", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const before = await upsertJobSchedule(sql, schedule());
  const bothHaveRead = Promise.withResolvers<void>();
  const deleted = bothHaveRead.promise.then(() => deleteJobSchedule(sql, "nightly", ALL));
  let reads = 0;
  const results = await Promise.all([1, 2].map((n) => {
    let statements = 0;
    const db: StatementRunner = {
      async query(text, values) {
        if (++statements === 2) await deleted;
        const rows = await sql.unsafe(text, [...values ?? []]);
        if (statements === 1 && ++reads === 2) bothHaveRead.resolve();
        return rows;
      },
    };
    return upsertJobSchedule(db, schedule({ cron: `${n} 4 * * *` }));
  }));
  const after = await stored(sql);
  assert.notEqual(after.scheduleId, before.scheduleId);
  assert.deepEqual(results.map(({ scheduleId }) => scheduleId), [after.scheduleId, after.scheduleId]);
});

/** Ways to come to an active schedule of the type `b`. */
const ACTIVATIONS: Readonly<Record<string, (db: Queryable) => Promise<unknown>>> = {
  "a new schedule": (db) => upsertJobSchedule(db, schedule({ name: "new", jobType: "b" })),
  "a schedule that is switched on": (db) => setJobScheduleActive(db, "paused", { ...ALL, isActive: true }),
  "a schedule that changes its type": (db) => upsertJobSchedule(db, schedule({ name: "other", jobType: "b" })),
};

async function prepareGuard(): Promise<TestDatabase> {
  const database = await openTestDatabase({ max: 6 });
  await upsertJobSchedules(database.sql, [
    schedule({ name: "paused", jobType: "b", isActive: false }),
    schedule({ name: "other" }),
  ]);
  return database;
}

/** Every active schedule has an enabled definition. */
async function assertGuard(sql: postgres.Sql): Promise<void> {
  const rows = await sql`
    select schedule.name from runledger.job_schedules as schedule
    left join runledger.job_definitions as definition on definition.job_type = schedule.job_type
    where schedule.is_active and definition.is_enabled is not true`;
  assert.deepEqual([...rows], []);
}

const undo = new Error("undo");

/** Runs one thing in a transaction, and another beside it that must wait, until the first is committed or undone. */
async function whileHeld(
  sql: postgres.Sql,
  ending: "commit" | "rollback",
  first: (tx: postgres.TransactionSql) => Promise<unknown>,
  second: () => Promise<unknown>,
): Promise<PromiseSettledResult<unknown>> {
  let waiting: Promise<PromiseSettledResult<unknown>> | undefined;
  await sql.begin(async (tx) => {
    await first(tx);
    waiting = Promise.allSettled([second()]).then(([result]) => result as PromiseSettledResult<unknown>);
    await untilWaiting(sql, 1);
    if (ending === "rollback") throw undo;
  }).catch((error: unknown) => {
    if (error !== undo) throw error;
  });
  return await (waiting as Promise<PromiseSettledResult<unknown>>);
}

for (const [way, activate] of Object.entries(ACTIVATIONS)) {
  for (const ending of ["commit", "rollback"] as const) {
    Deno.test(`${way} waits for the disabling of its type: ${ending}`, async () => {
      await using database = await prepareGuard();
      const { sql } = database;
      const result = await whileHeld(
        sql,
        ending,
        (tx) => setJobDefinitionEnabled(tx, "b", { isEnabled: false }),
        () => activate(sql),
      );
      if (ending === "rollback") assert.equal(result.status, "fulfilled");
      else {
        assert(result.status === "rejected");
        hasCode("job_schedule.definition_not_found_or_disabled", { jobTypes: ["b"] })(result.reason);
      }
      await assertGuard(sql);
    });

    Deno.test(`disabling a type waits for ${way}: ${ending}`, async () => {
      await using database = await prepareGuard();
      const { sql } = database;
      const result = await whileHeld(
        sql,
        ending,
        activate,
        () => setJobDefinitionEnabled(sql, "b", { isEnabled: false }),
      );
      if (ending === "rollback") assert.equal(result.status, "fulfilled");
      else {
        assert(result.status === "rejected");
        hasCode("job_definition.active_schedule_exists")(result.reason);
        assert.equal((result.reason as { details: { schedules: string[] } }).details.schedules.length, 1);
      }
      await assertGuard(sql);
    });
  }

  Deno.test(`a transaction with an older snapshot cannot disable a type under ${way}`, async () => {
    await using database = await prepareGuard();
    const { sql } = database;
    for (const isolation of ["repeatable read", "serializable"]) {
      await sql`update runledger.job_schedules set is_active = false, job_type = 'b'`;
      await sql`update runledger.job_schedules set job_type = 'a' where name = 'other'`;
      await sql`delete from runledger.job_schedules where name = 'new'`;
      await sql`update runledger.job_schedules set is_active = true where name = 'other'`;
      await assert.rejects(
        sql.begin(`isolation level ${isolation}`, async (tx) => {
          await tx`select from runledger.job_schedules`;
          await activate(sql);
          await setJobDefinitionEnabled(tx, "b", { isEnabled: false });
        }),
        (error) =>
          isRunledgerError(error, "job_definition.active_schedule_exists") ||
          isRunledgerError(error, "db.serialization_failure"),
      );
      await assertGuard(sql);
    }
  });

  Deno.test(`a transaction with an older snapshot cannot disable ${way} from under its type`, async () => {
    await using database = await prepareGuard();
    const { sql } = database;
    await assert.rejects(
      sql.begin("isolation level repeatable read", async (tx) => {
        await tx`select from runledger.job_definitions`;
        await setJobDefinitionEnabled(sql, "b", { isEnabled: false });
        await activate(tx);
      }),
      (error) => isRunledgerError(error) && error.code !== "db.query_failed",
    );
    await assertGuard(sql);
  });
}

Deno.test("pausing waits for nobody who changes the definition", async () => {
  await using database = await prepareGuard();
  const { sql } = database;
  await sql.begin(async (tx) => {
    await setJobDefinitionEnabled(tx, "b", { isEnabled: false });
    await setJobScheduleActive(sql, "paused", { ...ALL, isActive: false });
  });
});

Deno.test("storing definitions and schedules waits for no schedule that is being activated", async () => {
  await using database = await prepareGuard();
  const { sql } = database;
  await sql.begin(async (tx) => {
    await upsertJobSchedule(tx, schedule({ name: "new", jobType: "b" }));
    await upsertJobDefinitions(sql, [{ ...testDefinition("b"), priority: 5 }]);
    await upsertJobSchedule(sql, schedule({ name: "newer", jobType: "b" }));
    await enqueueJob(sql, request({ jobType: "b" }));
  });
  await assertGuard(sql);
});

Deno.test("raw SQL keeps the rule too", async () => {
  await using database = await prepareGuard();
  const { sql } = database;
  await setJobDefinitionEnabled(sql, "b", { isEnabled: false });
  const refused = { code: "23503", constraint_name: "job_schedules_enabled_definition_fkey" };
  await assert.rejects(sql`update runledger.job_schedules set is_active = true where name = 'paused'`, refused);
  await assert.rejects(sql`update runledger.job_definitions set is_enabled = false where job_type = 'a'`, refused);
  await assert.rejects(sql`delete from runledger.job_definitions where job_type = 'b'`, { code: "23503" });
});

Deno.test("random rivals that enable, disable, activate and pause never deadlock or break the rule", async () => {
  await using database = await openTestDatabase({ max: 8 });
  const { sql } = database;
  const actions: readonly ((name: string, jobType: string) => Promise<unknown>)[] = [
    (_name, jobType) => setJobDefinitionEnabled(sql, jobType, { isEnabled: false }),
    (_name, jobType) => setJobDefinitionEnabled(sql, jobType, { isEnabled: true }),
    (name) => setJobScheduleActive(sql, name, { ...ALL, isActive: true }),
    (name) => setJobScheduleActive(sql, name, { ...ALL, isActive: false }),
    (name, jobType) => upsertJobSchedule(sql, schedule({ name, jobType })),
    () => upsertJobSchedules(sql, [schedule({ name: "x", jobType: "b" }), schedule({ name: "y" })]),
    () => upsertJobSchedules(sql, [schedule({ name: "y", jobType: "b" }), schedule({ name: "x" })]),
    (name) => deleteJobSchedule(sql, name, ALL),
  ];
  const expected = [
    "job_definition.active_schedule_exists",
    "job_schedule.definition_not_found_or_disabled",
    "job_schedule.not_found",
  ];
  const pick = <T>(values: readonly T[]) => values[Math.floor(Math.random() * values.length)] as T;
  for (let round = 0; round < 60; round++) {
    const calls = Array.from({ length: 8 }, () => pick(actions)(pick(["x", "y"]), pick(["a", "b"])));
    for (const result of await Promise.allSettled(calls)) {
      if (result.status === "fulfilled") continue;
      assert(isRunledgerError(result.reason), Deno.inspect(result.reason));
      assert(expected.includes(result.reason.code), `${result.reason.code}: ${result.reason.internalMessage}`);
    }
    await assertGuard(sql);
  }
});
