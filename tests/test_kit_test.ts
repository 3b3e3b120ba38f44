/**
 * The test kit: time stands still until a test moves it, faults happen when they are asked for, and a failed assert shows
 * what happened.
 *
 * @module
 */

import { continueNow, defineJob, JobFailure, snooze, WorkflowDagBuilder } from "@runledger/core";
import {
  cancelJob,
  enqueueJob,
  getJobScheduleByName,
  requeueJob,
  setJobScheduleActive,
  upsertJobSchedule,
} from "@runledger/postgres";
import type { Queryable } from "@runledger/postgres";
import { JobCatalog } from "@runledger/runtime";
import { createEphemeralDatabase, createTestKit } from "@runledger/test-support";
import type { RunledgerTestKit } from "@runledger/test-support";
import assert, { AssertionError } from "node:assert/strict";
import pg from "pg";
import postgres from "postgres";
import type { Sql } from "postgres";
import { z } from "zod";

const charge = defineJob({
  type: "kit.charge",
  payload: z.object({ cents: z.number() }),
  output: z.object({ chargeId: z.string() }),
  maxAttempts: 3,
  retry: { kind: "fixed", delayMs: 50 },
});
const notify = defineJob({ type: "kit.notify" });
const digest = defineJob({
  type: "kit.digest",
  payload: z.object({ _schedule: z.object({ scheduled_for: z.string() }).optional() }),
});

/** What a test works with: a kit, and what its handlers did, in order. */
interface Bench {
  readonly kit: RunledgerTestKit<Sql>;
  readonly trace: string[];
}

/** Runs a test with a kit over the jobs above, and what the test adds to them. */
async function withKit(
  test: (bench: Bench) => Promise<void>,
  extend: (catalog: JobCatalog, trace: string[], db: () => Queryable) => void = () => {},
): Promise<void> {
  const trace: string[] = [];
  const catalog = traced(trace);
  const late: { db?: Queryable } = {};
  extend(catalog, trace, () => late.db ?? assert.fail("the kit is not there yet"));
  await using kit = await createTestKit({ catalog });
  late.db = kit.db;
  await test({ kit, trace });
}

function traced(trace: string[]): JobCatalog {
  return new JobCatalog()
    .handle(charge, ({ cents }, { attempt }) => {
      trace.push(`charge ${cents}, attempt ${attempt}`);
      return { chargeId: `ch-${cents}` };
    })
    .handle(notify, (payload) => void trace.push(`notify ${JSON.stringify(payload)}`))
    .handle(digest, ({ _schedule }) => void trace.push(`digest ${_schedule?.scheduled_for}`));
}

const RETRIED = ["ENQUEUED", "LEASED", "FAILED", "RETRY_SCHEDULED"] as const;

/** Lets real time pass, by the clock that decides what is due. */
async function passRealTime(sql: Sql): Promise<void> {
  await sql`select pg_sleep(0.1)`;
}

Deno.test("runUntilIdle: runs what is due in claim order, with what it leads to, and leaves the rest", async () => {
  const parent = defineJob({ type: "kit.parent" });
  await withKit(async ({ kit, trace }) => {
    await kit.enqueue(notify.request("low"));
    await kit.enqueue(notify.request("high", { priority: 5 }));
    await kit.enqueue(notify.request("later", { nextRunAt: new Date(Date.now() + 3_600_000) }));
    await kit.enqueue(parent.request(null, { priority: 9 }));
    const { attempts } = await kit.runUntilIdle();
    assert.deepEqual(trace, ['notify "child"', 'notify "high"', 'notify "low"']);
    assert.deepEqual(attempts.map(({ jobType }) => jobType), ["kit.parent", "kit.notify", "kit.notify", "kit.notify"]);
    await kit.advanceTime({ minutes: 59 });
    assert.deepEqual((await kit.runUntilIdle()).attempts, []);
    await kit.advanceTime({ minutes: 1 });
    await kit.runUntilIdle();
    assert.equal(trace.at(-1), 'notify "later"');
    assert.deepEqual((await kit.jobs({ jobType: "kit.notify" })).map(({ payload }) => payload), [
      "low",
      "high",
      "later",
      "child",
    ]);
  }, (catalog, _trace, db) => {
    catalog.handle(parent, async () => void await enqueueJob(db(), notify.request("child", { priority: 7 })));
  });
});

Deno.test("time stands still: a retry after 50 ms waits for advanceTime, however long the test takes", async () => {
  await withKit(async ({ kit, trace }) => {
    kit.failNextAttempt(charge);
    const job = await kit.enqueue(charge.request({ cents: 1 }));
    const slow = await kit.enqueue(notify.request("slow"));
    await kit.runUntilIdle();
    await job.assertLedger(RETRIED);
    await passRealTime(kit.db);
    await kit.runUntilIdle();
    await kit.advanceTime({ milliseconds: 48 });
    await passRealTime(kit.db);
    await kit.runUntilIdle();
    await job.assertLedger(RETRIED);
    await kit.advanceTime({ milliseconds: 2 });
    await kit.runUntilIdle();
    await job.assertStatus("SUCCEEDED");
    await slow.assertStatus("SUCCEEDED");
    assert.deepEqual(trace, ['notify "slow"', "charge 1, attempt 2"]);
  });
});

Deno.test("time stands still: a handler that outlasts a delay does not let it pass", async () => {
  const slow = defineJob({ type: "kit.slow" });
  await withKit(async ({ kit }) => {
    kit.failNextAttempt(charge);
    const job = await kit.enqueue(charge.request({ cents: 1 }, { priority: 1 }));
    await kit.enqueue(slow.request(null));
    await kit.runUntilIdle();
    await job.assertLedger(RETRIED);
    await kit.advanceTime({ milliseconds: 50 });
    await kit.runUntilIdle();
    await job.assertStatus("SUCCEEDED");
  }, (catalog, _trace, db) => {
    catalog.handle(slow, async () => await passRealTime(db() as Sql));
  });
});

Deno.test("advanceTime: changes due times only, never the ledger or what has ended", async () => {
  await withKit(async ({ kit }) => {
    kit.failNextAttempt(charge);
    const waiting = await kit.enqueue(charge.request({ cents: 1 }));
    const done = await kit.enqueue(notify.request(null));
    await kit.runUntilIdle();
    const before = [await waiting.ledger(), await done.ledger(), await done.get()];
    const { nextRunAt, ...rest } = await waiting.get();
    await kit.advanceTime({ days: 3, hours: 2, minutes: 1, seconds: 5, milliseconds: 7 });
    assert.deepEqual([await waiting.ledger(), await done.ledger(), await done.get()], before);
    const { nextRunAt: movedAt, ...same } = await waiting.get();
    assert.deepEqual(same, rest);
    assert.ok(nextRunAt.getTime() - movedAt.getTime() > 250_000_000);
  });
});

Deno.test("advanceTime: refuses what is no duration, and a calendar beyond the present", async () => {
  await withKit(async ({ kit }) => {
    await assert.rejects(kit.advanceTime({ minutes: -1 }), RangeError);
    await assert.rejects(kit.advanceTime({ minutes: NaN }), RangeError);
    await assert.rejects(kit.advanceTime({ days: 36_500 }), /cannot go past the present.*startsAt/);
    assert.equal(kit.now.toISOString(), "2024-01-01T00:00:00.000Z");
  });
  const startsAt = new Date(Date.now() + 60_000);
  await assert.rejects(createTestKit({ catalog: new JobCatalog(), startsAt }), RangeError);
  await assert.rejects(createTestKit({ catalog: new JobCatalog(), attemptTimeoutMs: Infinity }), RangeError);
});

Deno.test("failNextAttempt: fails attempts in turn, as a JobFailure says, of a type or of one job", async () => {
  await withKit(async ({ kit, trace }) => {
    kit.failNextAttempt(charge, JobFailure.retryable("card.busy", "try again"));
    kit.failNextAttempt("kit.charge", JobFailure.terminal("card.declined", "no"), { afterHandler: true });
    const one = await kit.enqueue(charge.request({ cents: 1 }, { priority: 1 }));
    const other = await kit.enqueue(charge.request({ cents: 2 }));
    kit.failNextAttempt(other, new Error("a bug"));
    await kit.runUntilIdle();
    await one.assertLedger([...RETRIED.slice(0, 2), { event: "FAILED", code: "card.busy" }, "RETRY_SCHEDULED"]);
    await other.assertLedger([
      ...RETRIED.slice(0, 2),
      { event: "FAILED", code: "job.handler_threw" },
      "RETRY_SCHEDULED",
    ]);
    assert.deepEqual(trace, []);
    await kit.advanceTime({ milliseconds: 50 });
    await kit.runUntilIdle();
    await one.assertLedger([
      ...RETRIED,
      { event: "LEASED", attempt: 2 },
      { event: "FAILED", code: "card.declined", payload: { kind: "TERMINAL" } },
      "DEAD_LETTERED",
    ]);
    assert.deepEqual(trace, ["charge 1, attempt 2", "charge 2, attempt 2"]);
    assert.deepEqual(await other.output(), { chargeId: "ch-2" });
    assert.throws(() => kit.failNextAttempt("kit.chrage"), { code: "job.handler_not_registered" });
  });
});

Deno.test("timeoutNextAttempt: the handler's signal aborts, late writes are refused, and the attempt is a TIMEOUT", async () => {
  const careful = defineJob({ type: "kit.careful", retry: { kind: "fixed", delayMs: 1000 } });
  await withKit(async ({ kit, trace }) => {
    kit.timeoutNextAttempt(careful);
    const job = await kit.enqueue(careful.request(null));
    await kit.runUntilIdle();
    assert.deepEqual(trace, ["started, false", "job.timeout_exceeded", "job.timeout_exceeded"]);
    await job.assertLedger([
      "ENQUEUED",
      "LEASED",
      { event: "FAILED", code: "job.timeout_exceeded", payload: { kind: "TIMEOUT" } },
      "RETRY_SCHEDULED",
    ]);
    await kit.advanceTime({ seconds: 1 });
    await kit.runUntilIdle();
    await job.assertOutput("done");
  }, (catalog, trace) => {
    catalog.handle(careful, async (_payload, context) => {
      trace.push(`started, ${context.signal.aborted}`);
      await Promise.resolve();
      if (!context.signal.aborted) return "done";
      trace.push(context.signal.reason.code);
      await context.progress({ checkpoint: 1 }).catch((error) => trace.push(error.code));
      return "too late";
    });
  });
});

Deno.test("crashNextAttempt: nothing is written until the lease ends; then the job goes on and hooks hear of it", async () => {
  await withKit(async ({ kit, trace }) => {
    kit.crashNextAttempt(charge, { afterHandler: true });
    kit.crashNextAttempt(charge);
    const job = await kit.enqueue(charge.request({ cents: 1 }, { maxAttempts: 2 }));
    const other = await kit.enqueue(notify.request("other"));
    await kit.runUntilIdle();
    await other.assertStatus("SUCCEEDED");
    await job.assertLedger(["ENQUEUED", "LEASED"]);
    await kit.advanceTime({ seconds: 59 });
    assert.equal((await kit.runUntilIdle()).reapedLeases, 0);
    await job.assertStatus("LEASED");
    await kit.advanceTime({ seconds: 1 });
    assert.equal((await kit.runUntilIdle()).reapedLeases, 1);
    await job.assertLedger(["ENQUEUED", "LEASED", { event: "FAILED", code: "job.lease_expired" }, "RETRY_SCHEDULED"]);
    await kit.advanceTime({ seconds: 30 });
    await kit.runUntilIdle();
    await kit.advanceTime({ seconds: 60 });
    await kit.runUntilIdle();
    await job.assertStatus("DEAD_LETTERED");
    assert.deepEqual(trace, ["charge 1, attempt 1", 'notify "other"', "hook: dead"]);
  }, (catalog, trace) => {
    catalog.onJobDeadLettered(() => trace.push("hook: dead"));
  });
});

Deno.test("a transaction that finished the job stands, whatever happens to its worker afterwards", async () => {
  const careful = defineJob({ type: "kit.transactional" });
  await withKit(async ({ kit }) => {
    await kit.db`create table effects ()`;
    kit.crashNextAttempt(careful, { afterHandler: true });
    const job = await kit.enqueue(careful.request(null));
    await kit.runUntilIdle();
    await job.assertStatus("SUCCEEDED");
    assert.equal((await kit.db`select from effects`).length, 1);
  }, (catalog) => {
    catalog.handle(careful, (_payload, context) =>
      context.transaction(async (tx: postgres.TransactionSql, finish) => {
        await tx`insert into effects default values`;
        return await finish();
      }));
  });
});

const payment = () =>
  new WorkflowDagBuilder("kit.payment")
    .job("left", notify.request("left"))
    .job("right", notify.request("right"))
    .job("charge", charge.request({ cents: 7 })).afterSuccess("charge", ["left", "right"])
    .external("approval", { timeout: { afterMs: 86_400_000, outcome: "FAILED" } }).afterSuccess("approval", ["charge"])
    .job("receipt", notify.request("receipt")).afterSuccess("receipt", ["approval"])
    .resultStep("charge")
    .build();

Deno.test("a run: branches in any order, a gate that is completed, outputs by step", async () => {
  await withKit(async ({ kit, trace }) => {
    const run = await kit.enqueueRun(payment());
    await kit.runNext(await run.step("right"));
    await run.assertSteps({ left: "ENQUEUED", right: "SUCCEEDED", charge: "BLOCKED" });
    await kit.runNext(notify);
    await kit.runNext();
    assert.deepEqual(trace, ['notify "right"', 'notify "left"', "charge 7, attempt 1"]);
    assert.equal(await kit.runNext(), undefined);
    await run.assertSteps({ approval: "WAITING_FOR_EXTERNAL", receipt: "BLOCKED" });
    const { chargeId } = await run.output("charge");
    assert.equal(chargeId, "ch-7");
    await run.completeGate("approval", { status: "SUCCEEDED", output: { by: "grace" } });
    await kit.runUntilIdle();
    await run.assertStatus("SUCCEEDED");
    assert.deepEqual(await run.output("approval"), { by: "grace" });
    assert.deepEqual((await kit.runs()).map(({ runId }) => runId), [run.runId]);
    // @ts-expect-error The compiler knows the steps.
    await assert.rejects(run.output("chrage"), RangeError);
  });
});

Deno.test("a run: a gate's timeout comes when time has advanced that far", async () => {
  await withKit(async ({ kit }) => {
    const run = await kit.enqueueRun(payment());
    await kit.runUntilIdle();
    await passRealTime(kit.db);
    await kit.advanceTime({ hours: 23, minutes: 59, seconds: 59, milliseconds: 999 });
    await kit.runUntilIdle();
    await run.assertSteps({ approval: "WAITING_FOR_EXTERNAL" });
    await kit.advanceTime({ milliseconds: 1 });
    assert.equal((await kit.runUntilIdle()).expiredGates, 1);
    await run.assertSteps({ approval: "FAILED", receipt: "CANCELED" });
    await run.assertStatus("COMPLETED_WITH_ERRORS");
  });
});

Deno.test("runNext: says why a target cannot run now", async () => {
  await withKit(async ({ kit }) => {
    const later = await kit.enqueue(notify.request(1, { nextRunAt: new Date(Date.now() + 60_000) }));
    await assert.rejects(async () => await kit.runNext(later), /cannot be run now: it is not due.*\n.*ENQUEUED/);
    await assert.rejects(
      async () => await kit.runNext(charge),
      /No job of type kit.charge is due.*1 kit.notify PENDING/,
    );
    const low = await kit.enqueue(notify.request(2));
    await kit.enqueue(notify.request(3, { priority: 1 }));
    await assert.rejects(async () => await kit.runNext(low), /priority 1 and comes first/);
    await assert.rejects(async () => await kit.runNext("kit.unknown"), { code: "job.handler_not_registered" });
  });
});

const daily = { name: "kit.daily", cron: "0 9 * * *", payload: {} } as const;

Deno.test("schedules fire by the kit's calendar, at dates that do not depend on today", async () => {
  await withKit(async ({ kit, trace }) => {
    assert.deepEqual((await kit.runUntilIdle()).fired, []);
    await kit.advanceTime({ hours: 8, minutes: 59 });
    assert.deepEqual((await kit.runUntilIdle()).fired, []);
    await kit.advanceTime({ minutes: 1 });
    assert.equal((await kit.runUntilIdle()).fired.length, 1);
    assert.deepEqual(trace, ["digest 2024-01-01T09:00:00.000Z"]);
    assert.deepEqual((await kit.runUntilIdle()).fired, []);
    await kit.advanceTime({ days: 3 }); // missed dates count as one, as in production
    await kit.runUntilIdle();
    assert.deepEqual(trace, ["digest 2024-01-01T09:00:00.000Z", "digest 2024-01-02T09:00:00.000Z"]);
    const { fired } = await kit.runFor({ days: 2 });
    assert.deepEqual(fired.map(({ scheduledFor }) => scheduledFor.toISOString()), [
      "2024-01-05T09:00:00.000Z",
      "2024-01-06T09:00:00.000Z",
    ]);
    assert.equal(kit.now.toISOString(), "2024-01-06T09:00:00.000Z");
  }, (catalog) => {
    catalog.schedule(digest, daily).schedule(digest, { ...daily, name: "kit.rare", cron: "0 0 1 12 *" });
  });
});

Deno.test("schedules: daylight saving, one that comes in the middle of a test, a pause", async () => {
  const catalog = traced([]);
  await using kit = await createTestKit({ catalog, startsAt: new Date("2026-03-28T07:00Z") });
  const berlin = { ...daily, jobType: "kit.digest", timezone: "Europe/Berlin" };
  await upsertJobSchedule(kit.db, berlin);
  const { fired } = await kit.runFor({ days: 2 });
  const dates = ["2026-03-28T08:00:00.000Z", "2026-03-29T07:00:00.000Z", "2026-03-30T07:00:00.000Z"];
  assert.deepEqual(fired.map(({ scheduledFor }) => scheduledFor.toISOString()), dates);
  await setJobScheduleActive(kit.db, daily.name, { scope: "global", isActive: false });
  assert.deepEqual((await kit.runFor({ days: 5 })).fired, []);
  const paused = await getJobScheduleByName(kit.db, daily.name, { scope: "global" });
  assert.equal(paused?.nextFireAt?.toISOString(), "2026-03-31T07:00:00.000Z");
});

Deno.test("runFor: lives through retries, leases and gates at the instants at which they come", async () => {
  await withKit(async ({ kit, trace }) => {
    kit.failNextAttempt(charge);
    kit.crashNextAttempt(charge);
    const run = await kit.enqueueRun(payment());
    const { attempts, reapedLeases, expiredGates } = await kit.runFor({ days: 1, minutes: 2 });
    assert.equal(reapedLeases, 1);
    assert.equal(expiredGates, 1);
    assert.equal(attempts.filter(({ jobType }) => jobType === "kit.charge").length, 3);
    await run.assertStatus("COMPLETED_WITH_ERRORS");
    assert.equal(trace.at(-1), "charge 7, attempt 3");
    assert.equal(kit.now.toISOString(), "2024-01-02T00:02:00.000Z");
  });
});

Deno.test("snoozes and continuations wait or go on as they say; an endless chain is named", async () => {
  const sliced = defineJob({ type: "kit.sliced" });
  const endless = defineJob({ type: "kit.endless" });
  await withKit(async ({ kit }) => {
    const job = await kit.enqueue(sliced.request(null));
    await kit.runUntilIdle();
    await job.assertLedger(["ENQUEUED", "LEASED", { event: "REQUEUED", runNumber: 1 }, "LEASED", "REQUEUED"]);
    await kit.advanceTime({ minutes: 5 });
    await kit.runUntilIdle();
    await job.assertStatus("SUCCEEDED");
    await kit.enqueue(endless.request(null));
    await assert.rejects(
      kit.runUntilIdle({ maxAttempts: 5 }),
      /after 5 attempts: a job of kit.endless is due, and the last ones were 5 of kit.endless/,
    );
  }, (catalog) => {
    catalog
      .handle(sliced, (_payload, { runNumber, checkpoint }) => {
        if (runNumber === 1) return continueNow({ checkpoint: "half" });
        return checkpoint === "half" ? snoozeOnce() : undefined;
      })
      .handle(endless, () => continueNow());
    let isSnoozed = false;
    const snoozeOnce = () => isSnoozed ? undefined : (isSnoozed = true, snooze(300_000));
  });
});

Deno.test("cancelled jobs are quiet when time has advanced by their lease", async () => {
  await withKit(async ({ kit }) => {
    kit.crashNextAttempt(notify);
    const job = await kit.enqueue(notify.request(null));
    await kit.runUntilIdle();
    await cancelJob(kit.db, job.jobId, { scope: "global" });
    const expected = { scope: "global", expectedStatus: "CANCELED", expectedRunNumber: 1 } as const;
    assert.equal((await requeueJob(kit.db, job.jobId, expected)).kind, "not_quiesced");
    await kit.advanceTime({ minutes: 1 });
    assert.equal((await requeueJob(kit.db, job.jobId, expected)).kind, "requeued");
    await kit.runUntilIdle();
    await job.assertStatus("SUCCEEDED");
  });
});

Deno.test("an outcome that the database refuses ends the attempt as PANICKED, as in production", async () => {
  await withKit(async ({ kit }) => {
    await kit.db.unsafe(`alter table runledger.job_queue add check (output ->> 'chargeId' <> 'ch-13')`);
    const job = await kit.enqueue(charge.request({ cents: 13 }));
    await kit.runUntilIdle();
    const failed = { event: "FAILED", code: "job.handler_panic", payload: { kind: "PANICKED" } } as const;
    await job.assertLedger(["ENQUEUED", "LEASED", failed, "DEAD_LETTERED"]);
  });
});

Deno.test("due jobs without a handler are reported, and wait", async () => {
  await withKit(async ({ kit }) => {
    await kit.db`insert into runledger.job_definitions (job_type) values ('kit.elsewhere')`;
    const job = await kit.enqueue({ jobType: "kit.elsewhere", payload: null });
    assert.deepEqual((await kit.runUntilIdle()).unhandled, ["kit.elsewhere"]);
    await job.assertStatus("PENDING");
  });
});

Deno.test("a handler that hangs, and a call that was not awaited, are named", async () => {
  const stuck = defineJob({ type: "kit.stuck" });
  const catalog = new JobCatalog().handle(stuck, () => new Promise<never>(() => {}));
  await using kit = await createTestKit({ catalog, attemptTimeoutMs: 50 });
  const job = await kit.enqueue(stuck.request(null));
  const running = kit.runUntilIdle();
  await assert.rejects(kit.advanceTime({ seconds: 1 }), /busy: an earlier call was not awaited/);
  await assert.rejects(running, new RegExp(`${job.jobId} was not over after 50 ms`));
});

Deno.test("a claim that the database refuses is an error, not a wait", async () => {
  await withKit(async ({ kit }) => {
    await kit.enqueue(notify.request(null));
    await kit.db.unsafe("drop function if exists runledger.claim_jobs cascade");
    await kit.db.unsafe("alter table runledger.job_queue rename column worker_id to no_worker_id");
    await assert.rejects(kit.runUntilIdle(), /A job is due and cannot be claimed.*claim failed/);
  });
});

Deno.test("failed asserts are AssertionErrors that show what happened", async () => {
  await withKit(async ({ kit }) => {
    kit.failNextAttempt(charge, JobFailure.terminal("card.declined", "the card was declined"));
    const run = await kit.enqueueRun(payment());
    await kit.runUntilIdle();
    const job = await run.step("charge");
    const comparison = await thrownBy(job.assertLedger(["ENQUEUED", "LEASED", "SUCCEEDED"]));
    assert.deepEqual(comparison.message.split("\n").slice(1), [
      "    1  ENQUEUED",
      "    2  LEASED           run 1, attempt 1",
      "-      SUCCEEDED",
      "+   3  FAILED           run 1, attempt 1  TERMINAL card.declined: the card was declined",
      "+   4  DEAD_LETTERED    run 1, attempt 1  FAILURE_KIND_NON_RETRYABLE",
    ]);
    assert.deepEqual(comparison.expected, ["ENQUEUED", "LEASED", "SUCCEEDED"]);
    assert.deepEqual(comparison.actual, ["ENQUEUED", "LEASED", "FAILED", "DEAD_LETTERED"]);

    const status = await thrownBy(run.assertStatus("SUCCEEDED"));
    assert.match(status.message, /^Run .* \(kit.payment\) is COMPLETED_WITH_ERRORS, not SUCCEEDED\. Its steps:\n/);
    assert.match(status.message, /└─ \[!\] charge +FAILED +after left, right {2}\(card\.declined\)\n/);
    const steps = await thrownBy(run.assertSteps({ charge: "SUCCEEDED", left: "SUCCEEDED" }));
    assert.match(steps.message, /charge is FAILED, not SUCCEEDED\. Its steps:/);
    assert.match(
      (await thrownBy(job.output())).message,
      /has no output: it is DEAD_LETTERED\. Its ledger:\n.*ENQUEUED/,
    );
    assert.match((await thrownBy(run.output("charge"))).message, /no output at step charge, which is FAILED/);

    const good = await kit.enqueue(charge.request({ cents: 3 }));
    await kit.runUntilIdle();
    const output = await thrownBy(good.assertOutput({ chargeId: "other" }));
    assert.match(output.message, /gave \{"chargeId":"ch-3"\}, not \{"chargeId":"other"\}/);
  });
});

async function thrownBy(promise: Promise<unknown>): Promise<AssertionError> {
  const error: unknown = await promise.then(() => assert.fail("nothing was thrown"), (thrown: unknown) => thrown);
  assert.ok(error instanceof AssertionError);
  return error;
}

/** What must be the same whatever database is under the kit. */
async function assertWorks(kit: RunledgerTestKit, trace: string[]): Promise<void> {
  kit.failNextAttempt(charge);
  kit.crashNextAttempt(charge);
  const run = await kit.enqueueRun(payment());
  await kit.runFor({ minutes: 2 });
  assert.deepEqual(trace.splice(0), ['notify "left"', 'notify "right"', "charge 7, attempt 3"]);
  await run.completeGate("approval");
  const { fired } = await kit.runFor({ days: 1 });
  assert.equal(fired.length, 1);
  await run.assertStatus("SUCCEEDED");
  assert.deepEqual(trace.splice(0), ['notify "receipt"', "digest 2024-01-01T09:00:00.000Z"]);
}

Deno.test("PGlite: everything works without a server, and each kit begins with an empty database", async () => {
  for (const round of [1, 2]) {
    const trace: string[] = [];
    await using kit = await createTestKit({ catalog: traced(trace).schedule(digest, daily), database: "pglite" });
    assert.deepEqual(await kit.jobs(), [], `round ${round}`);
    await kit.db.exec("create table mine (id integer)");
    await assertWorks(kit, trace);
  }
});

Deno.test("PGlite: two kits at once do not see each other", async () => {
  await using one = await createTestKit({ catalog: traced([]), database: "pglite" });
  await using other = await createTestKit({ catalog: traced([]), database: "pglite" });
  await one.enqueue(notify.request(null));
  assert.deepEqual(await other.jobs(), []);
});

Deno.test("a database of the test's own: any pool, migrated, and without jobs unless it says so", async () => {
  await using database = await createEphemeralDatabase();
  const pool = new pg.Pool({ connectionString: database.url, max: 3, idleTimeoutMillis: 0 });
  try {
    const trace: string[] = [];
    const catalog = traced(trace).schedule(digest, daily);
    const kit = await createTestKit({ catalog, database: pool });
    await assertWorks(kit, trace);
    await kit.enqueue(notify.request("left over"));
    await kit[Symbol.asyncDispose]();
    await assert.rejects(createTestKit({ catalog, database: pool }), /has jobs that wait or run.*takesOverJobs/);
    const next = await createTestKit({ catalog, database: pool, takesOverJobs: true });
    await next.runUntilIdle();
    assert.deepEqual(trace, ['notify "left over"']);
  } finally {
    await pool.end();
  }
  await using empty = await createEphemeralDatabase({ migrated: false });
  const sql = postgres(empty.url, { max: 1 });
  try {
    await assert.rejects(createTestKit({ catalog: new JobCatalog(), database: sql }), { code: "schema.missing" });
  } finally {
    await sql.end();
  }
});
