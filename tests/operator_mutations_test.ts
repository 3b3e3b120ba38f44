/**
 * What operators change: what a job that waits is given and when, many jobs at once, job types and schedules. Whatever they
 * do is on record with reason and actor, and is done to what they looked at or not at all.
 *
 * @module
 */

import { isRunledgerError, newId } from "@runledger/core";
import type { WorkflowRunRequest } from "@runledger/core";
import * as runledger from "@runledger/postgres";
import assert from "node:assert/strict";
import type { Sql } from "postgres";
import { MIGRATIONS } from "../postgres/_migrations.ts";
import { applyMigrations } from "../postgres/migrate.ts";
import {
  claimOne,
  expireLeases,
  jobIn,
  makeDue,
  openTestDatabase,
  request,
  testDefinition,
} from "./support/database.ts";
import { DRIVERS, sharedPGlite } from "./support/drivers.ts";
import { ORM_DRIVERS } from "./support/orm_drivers.ts";

await sharedPGlite(); // before the first test: it is kept for all of them

const ALL = { scope: "all" } as const;
const NOTE = { reason: "asked for by a customer", actor: "ada" } as const;
const LATER = new Date("2200-01-01T00:00:00.000Z");

/** The newest event of a job. */
async function newestEvent(sql: Sql, jobId: string): Promise<runledger.ListedJobEvent> {
  const event = (await runledger.listJobEvents(sql, jobId, ALL)).items.at(-1);
  assert(event !== undefined);
  return event;
}

async function frozenOf(sql: Sql, jobId: string): Promise<runledger.FrozenJob> {
  const job = await runledger.getJob(sql, jobId, ALL);
  assert(job !== undefined);
  return job;
}

Deno.test("whatever an operator does to a job is in its ledger with reason and actor", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const expected = { ...ALL, ...NOTE, expectedRunNumber: 1 };
  const calls: Readonly<Record<string, (status: Parameters<typeof jobIn>[1]) => Promise<string>>> = {
    async cancelJob(status) {
      const { jobId } = await jobIn(sql, status);
      return (await runledger.cancelJob(sql, jobId, { ...ALL, ...NOTE })).jobId;
    },
    async cancelJobs(status) {
      const { jobId } = await jobIn(sql, status);
      return (await runledger.cancelJobs(sql, [await frozenOf(sql, jobId)], { ...ALL, ...NOTE })).applied[0] ?? "";
    },
    async editJob() {
      const { jobId } = await jobIn(sql, "PENDING");
      await runledger.editJob(sql, jobId, { ...ALL, ...NOTE, priority: 1 });
      return jobId;
    },
    async editJobs() {
      const { jobId } = await jobIn(sql, "PENDING");
      const options = { ...ALL, ...NOTE, nextRunAt: LATER };
      return (await runledger.editJobs(sql, [await frozenOf(sql, jobId)], options)).applied[0] ?? "";
    },
    async requeueJob() {
      const { jobId } = await jobIn(sql, "DEAD_LETTERED");
      await runledger.requeueJob(sql, jobId, { ...expected, expectedStatus: "DEAD_LETTERED" });
      return jobId;
    },
    async requeueJobs() {
      const { jobId } = await jobIn(sql, "CANCELED");
      return (await runledger.requeueJobs(sql, [await frozenOf(sql, jobId)], { ...ALL, ...NOTE })).applied[0] ?? "";
    },
    async requeueDeadLetters() {
      await jobIn(sql, "DEAD_LETTERED");
      return (await runledger.requeueDeadLetters(sql, { ...ALL, ...NOTE }))[0] ?? "";
    },
    async replayJob() {
      const { jobId } = await jobIn(sql, "SUCCEEDED");
      return (await runledger.replayJob(sql, jobId, { ...ALL, ...NOTE, replayKey: "k" })).jobId;
    },
    async runJobScheduleNow() {
      await runledger.upsertJobSchedule(sql, { name: "nightly", jobType: "a", cron: "@daily", payload: {} });
      return (await runledger.runJobScheduleNow(sql, "nightly", { ...ALL, ...NOTE })).jobId;
    },
  };
  for (const [name, call] of Object.entries(calls)) {
    for (const status of name.startsWith("cancel") ? ["PENDING", "LEASED"] as const : ["PENDING"] as const) {
      const { details } = await newestEvent(sql, await call(status));
      assert(details !== undefined && "actor" in details && "reason" in details, name);
      assert.deepEqual([details.reason, details.actor], [NOTE.reason, NOTE.actor], name);
    }
  }
});

Deno.test("a job that waits is given another payload, due time and priority, and its ledger keeps what was before", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const nextRunAt = new Date("2020-01-01T00:00:00.123Z");
  const { jobId } = await runledger.enqueueJob(
    sql,
    request({ payload: { n: [null, 1] }, nextRunAt: LATER, priority: 2 }),
  );
  const edit = { ...ALL, ...NOTE, payload: null, nextRunAt, priority: -(2 ** 31), expectedEventSeq: 1 };
  assert.deepEqual(await runledger.editJob(sql, jobId, edit), { kind: "edited", eventSeq: 2 });
  const event = await newestEvent(sql, jobId);
  assert.deepEqual(event.details, {
    eventType: "EDITED",
    ...NOTE,
    nextRunAt,
    previousNextRunAt: LATER,
    priority: -(2 ** 31),
    previousPriority: 2,
    replacesPayload: true,
  });
  const raw = event.payload as Readonly<Record<string, unknown>>;
  assert.deepEqual(raw["previous_payload"], { n: [null, 1] });
  // The same once more, as after a lost answer: nothing happens, and the caller learns what is so.
  assert.deepEqual(await runledger.editJob(sql, jobId, edit), { kind: "mismatch", status: "PENDING", eventSeq: 2 });
  const { expectedEventSeq: _, ...again } = edit;
  assert.deepEqual(await runledger.editJob(sql, jobId, again), { kind: "unchanged", eventSeq: 2 });
  const lease = await claimOne(sql);
  assert.deepEqual([lease.jobId, lease.payload, lease.priority], [jobId, null, -(2 ** 31)]);
  // What runs is not changed, nor what has ended.
  assert.deepEqual(await runledger.editJob(sql, jobId, again), { kind: "mismatch", status: "LEASED", eventSeq: 3 });
  await runledger.settleJob(sql, lease, { kind: "succeeded" });
  assert.deepEqual(await runledger.editJob(sql, jobId, again), { kind: "mismatch", status: "SUCCEEDED", eventSeq: 4 });
  await assert.rejects(runledger.editJob(sql, newId(), again), { code: "job.not_found" });
});

Deno.test("an edit leaves what it does not name: a retry keeps its attempt, error and checkpoint", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  await runledger.enqueueJob(sql, request({ payload: { at: 1 } }));
  const lease = await claimOne(sql);
  const failure = { kind: "RETRYABLE", code: "x.y", message: "no" } as const;
  await runledger.settleJob(sql, lease, { kind: "failed", failure, retryDelayMs: 3_600_000, checkpoint: "c" });
  const before = await runledger.getJob(sql, lease.jobId, ALL);
  const nextRunAt = new Date(0);
  await runledger.editJob(sql, lease.jobId, { ...ALL, nextRunAt });
  assert.deepEqual(await runledger.getJob(sql, lease.jobId, ALL), { ...before, nextRunAt, eventSeq: 5 });
  const retry = await claimOne(sql);
  assert.deepEqual([retry.attempt, retry.checkpoint, retry.payload], [2, "c", { at: 1 }]);
});

Deno.test("an idempotency key stands for what was asked for first, whatever an operator made of it", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const asked = request({ idempotencyKey: "k", payload: "asked", priority: 1 });
  const { jobId } = await runledger.enqueueJob(sql, asked);
  await runledger.editJob(sql, jobId, { ...ALL, payload: "edited", priority: 5, nextRunAt: LATER });
  assert.equal((await runledger.enqueueJob(sql, asked)).disposition, "existing");
  await assert.rejects(
    runledger.enqueueJob(sql, { ...asked, payload: "edited", priority: 5, nextRunAt: LATER }),
    (error) => {
      assert(isRunledgerError(error, "job.idempotency_conflict"));
      assert.deepEqual(error.details, { fields: ["next_run_at", "payload", "priority"] });
      return true;
    },
  );
  assert.equal((await runledger.getJob(sql, jobId, ALL))?.payload, "edited");
});

/** Two roots and what waits for one of them. */
const RUN: WorkflowRunRequest = {
  workflowType: "w",
  metadata: null,
  steps: [
    { executionKind: "JOB", stepKey: "a", jobType: "a", payload: "asked", dependencies: [] },
    { executionKind: "JOB", stepKey: "b", jobType: "a", payload: "asked", dependencies: [] },
    {
      executionKind: "JOB",
      stepKey: "after",
      jobType: "b",
      payload: null,
      dependencies: [{ prerequisiteStepKey: "a", releaseMode: "ON_TERMINAL" }],
    },
    {
      executionKind: "JOB",
      stepKey: "if",
      jobType: "b",
      payload: null,
      dependencies: [{ prerequisiteStepKey: "b", releaseMode: "ON_SUCCESS" }],
    },
  ],
};

async function statuses(sql: Sql, runId: string): Promise<Readonly<Record<string, string>>> {
  const { items } = await runledger.listWorkflowSteps(sql, runId, ALL);
  return Object.fromEntries(items.map(({ stepKey, status }) => [stepKey, status]));
}

Deno.test("the job of a workflow step can be put off, but keeps the payload that its run was asked for", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const { runId } = await runledger.enqueueWorkflowRun(sql, RUN);
  const { items } = await runledger.previewJobs(sql, { ...ALL, status: "PENDING" });
  const [first] = items;
  assert(first !== undefined && first.workflowRunId === runId);
  for (const fields of [{}, { nextRunAt: LATER, priority: 1 }]) {
    await assert.rejects(
      runledger.editJob(sql, first.jobId, { ...ALL, payload: "edited", ...fields }),
      { code: "job.workflow_edit_not_supported" },
    );
  }
  assert.equal((await frozenOf(sql, first.jobId)).eventSeq, first.eventSeq);
  await runledger.editJob(sql, first.jobId, { ...ALL, nextRunAt: LATER });
  const lease = await claimOne(sql);
  assert.notEqual(lease.jobId, first.jobId);
  assert.deepEqual(await runledger.claimJobs(sql, { jobTypes: ["a"], workerId: "w", limit: 9 }), []);
  assert.deepEqual((await runledger.getJob(sql, first.jobId, ALL))?.nextRunAt, LATER);
});

Deno.test("a bulk operation touches what was previewed and nothing that came later, and says what it left and why", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const ids = (await runledger.enqueueJobs(sql, Array.from({ length: 6 }, () => request()))).map(({ jobId }) => jobId);
  const { items } = await runledger.previewJobs(sql, { ...ALL, status: "PENDING", jobType: "a" });
  assert.deepEqual(items.map(({ jobId }) => jobId), ids.toSorted().toReversed());
  assert.deepEqual(items.map(({ eventSeq }) => eventSeq), ids.map(() => 1));
  const [untouched, claimed, released, canceled, edited, deleted] = items.map(({ jobId }) => jobId) as [
    string,
    string,
    string,
    string,
    string,
    string,
  ];
  const only = async (jobId: string) => {
    for (const id of ids) {
      await sql`update runledger.job_queue set next_run_at = ${LATER} where id = ${id} and status = 'PENDING'`;
    }
    await sql`update runledger.job_queue set next_run_at = now() where id = ${jobId}`;
    return await claimOne(sql);
  };
  await only(claimed);
  await runledger.releaseJobs(sql, [await only(released)]);
  await runledger.cancelJob(sql, canceled, ALL);
  await runledger.editJob(sql, edited, { ...ALL, priority: 3 });
  await runledger.cancelJob(sql, deleted, ALL);
  await runledger.deleteFinishedJobs(sql, { olderThanMs: 0, statuses: ["CANCELED"] });
  const { jobId: late } = await runledger.enqueueJob(sql, request());
  const wanted = {
    applied: [untouched],
    skipped: [
      { jobId: claimed, reason: "changed" },
      { jobId: released, reason: "changed" },
      // Retention took both that were cancelled.
      { jobId: canceled, reason: "not_found" },
      { jobId: edited, reason: "changed" },
      { jobId: deleted, reason: "not_found" },
    ],
  };
  assert.deepEqual(await runledger.editJobs(sql, items, { ...ALL, nextRunAt: LATER, priority: 7 }), wanted);
  const { items: again } = await runledger.previewJobs(sql, { ...ALL, status: "PENDING", jobType: "a" });
  assert.deepEqual(
    again.filter(({ priority }) => priority === 7).map(({ jobId, eventSeq }) => [jobId, eventSeq]),
    [[untouched, 2]],
  );
  // The preview is spent: whoever wants to do more looks again.
  assert.deepEqual((await runledger.cancelJobs(sql, items, ALL)).applied, []);
  assert.deepEqual(
    (await runledger.cancelJobs(sql, again, ALL)).applied.toSorted(),
    [
      untouched,
      released,
      edited,
      late,
    ].toSorted(),
  );
  assert.equal((await frozenOf(sql, claimed)).eventSeq, 2);
});

Deno.test("a bulk operation leaves what it does not apply to, each with its reason", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const job = async (status: Parameters<typeof jobIn>[1]) => await frozenOf(sql, (await jobIn(sql, status)).jobId);
  const [pending, leased, succeeded, dead] = [
    await job("PENDING"),
    await job("LEASED"),
    await job("SUCCEEDED"),
    await job("DEAD_LETTERED"),
  ];
  const skipped = (result: runledger.BulkResult) => result.skipped.map(({ reason }) => reason);
  const jobs = [succeeded, pending, leased, dead];
  const edit = { ...ALL, nextRunAt: LATER };
  assert.deepEqual(await runledger.editJobs(sql, jobs, edit), {
    applied: [pending.jobId],
    skipped: [succeeded, leased, dead].map(({ jobId }) => ({ jobId, reason: "not_applicable" })),
  });
  assert.deepEqual(skipped(await runledger.editJobs(sql, [await frozenOf(sql, pending.jobId)], edit)), ["unchanged"]);
  assert.deepEqual(skipped(await runledger.cancelJobs(sql, [succeeded, dead], ALL)), [
    "not_applicable",
    "not_applicable",
  ]);
  assert.deepEqual(skipped(await runledger.requeueJobs(sql, [succeeded, leased], ALL)), [
    "not_applicable",
    "not_applicable",
  ]);
  // A handler may still be at work on what was cancelled just now.
  assert.deepEqual((await runledger.cancelJobs(sql, [leased], ALL)).applied, [leased.jobId]);
  const canceling = await frozenOf(sql, leased.jobId);
  assert.deepEqual(skipped(await runledger.requeueJobs(sql, [canceling], ALL)), ["not_quiesced"]);
  await expireLeases(sql, leased.jobId);
  assert.deepEqual(await runledger.requeueJobs(sql, [dead, canceling], { ...ALL, progress: "reset" }), {
    applied: [dead.jobId, canceling.jobId],
    skipped: [],
  });
  assert.equal((await runledger.countDeadLetters(sql, ALL)).count, 0);
  await runledger.enqueueWorkflowRun(sql, RUN);
  const { items: steps } = await runledger.previewJobs(sql, { ...ALL, status: "PENDING", jobType: "a" });
  await runledger.cancelJobs(sql, steps, ALL);
  const { items: ended } = await runledger.previewJobs(sql, { ...ALL, status: "CANCELED", jobType: "a" });
  assert.deepEqual(skipped(await runledger.requeueJobs(sql, ended, ALL)), ["workflow_step", "workflow_step"]);
  assert.deepEqual(await runledger.cancelJobs(sql, [], ALL), { applied: [], skipped: [] });
});

Deno.test("cancelling steps of several runs at once moves each run on as its edges say", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const runs = await runledger.enqueueWorkflowRuns(sql, [RUN, RUN, RUN]);
  await claimOne(sql);
  const { items: waiting } = await runledger.previewJobs(sql, { ...ALL, status: "PENDING" });
  const { items: held } = await runledger.previewJobs(sql, { ...ALL, status: "LEASED" });
  const { jobId } = await runledger.enqueueJob(sql, request());
  const jobs = [...waiting, { jobId, eventSeq: 1 }, ...held];
  const { applied } = await runledger.cancelJobs(sql, jobs, { ...ALL, ...NOTE });
  assert.deepEqual(applied, jobs.map((job) => job.jobId));
  for (const { runId } of runs) {
    assert.deepEqual(await statuses(sql, runId), { a: "CANCELED", b: "CANCELED", after: "ENQUEUED", if: "CANCELED" });
  }
});

Deno.test("a preview walks through all that match, page by page, and tells nothing of others", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const [ours, theirs] = [newId(), newId()];
  const enqueued = await runledger.enqueueJobs(
    sql,
    Array.from({ length: 25 }, (_, n) => request({ organizationId: n % 5 === 0 ? theirs : ours })),
  );
  const scope = { organizationId: ours };
  const found: runledger.PreviewedJob[] = [];
  let cursor: string | undefined;
  do {
    const page = await runledger.previewJobs(sql, {
      scope,
      status: "PENDING",
      limit: 7,
      ...(cursor === undefined ? {} : { cursor }),
    });
    found.push(...page.items);
    cursor = page.nextCursor;
  } while (cursor !== undefined);
  assert.equal(found.length, 20);
  // Another's jobs are not found, whatever ids and versions are given.
  const all = enqueued.map(({ jobId }) => ({ jobId, eventSeq: 1 }));
  const { applied, skipped } = await runledger.cancelJobs(sql, all, { scope });
  assert.deepEqual(applied.toSorted(), found.map(({ jobId }) => jobId).toSorted());
  assert.deepEqual(new Set(skipped.map(({ reason }) => reason)), new Set(["not_found"]));
  assert.equal((await runledger.countJobs(sql, { ...ALL, status: "PENDING" })).count, 5);
});

Deno.test("bulk operations race with claims, settlements, cancellations and the reaper: each job goes one way, none is lost", async () => {
  await using database = await openTestDatabase({ max: 8 });
  const { sql } = database;
  const jobs = (await runledger.enqueueJobs(sql, Array.from({ length: 300 }, (_, n) => request({ payload: n }))))
    .map(({ jobId }) => ({ jobId, eventSeq: 1 }));
  await runledger.enqueueWorkflowRuns(sql, Array.from({ length: 30 }, () => RUN));
  const failure = { kind: "TERMINAL", code: "x.y", message: "no" } as const;
  let isOver = false;
  async function work(): Promise<number> {
    let ended = 0;
    while (!isOver) {
      const claimed = await runledger.claimJobs(sql, { jobTypes: ["a", "b"], workerId: "w", limit: 7 });
      const outcomes = claimed.slice(1).map((lease, index) => ({
        lease,
        outcome: index % 3 === 0 ? { kind: "failed", failure } as const : { kind: "succeeded" } as const,
      }));
      const answers = await runledger.settleJobs(sql, outcomes);
      ended += answers.filter(({ settled }) => settled).length;
      // One of each claim is left to the reaper.
      if (claimed[0] !== undefined) await expireLeases(sql, claimed[0].jobId);
    }
    return ended;
  }
  async function operate(round: number): Promise<void> {
    const part = jobs.slice(round * 30, round * 30 + 60);
    const edit = runledger.editJobs(sql, part, { ...ALL, priority: round });
    const cancel = runledger.cancelJobs(sql, part.toReversed(), ALL);
    const [edited, canceled] = await Promise.all([edit, cancel]);
    // Both were given the same version: no job took both.
    assert.deepEqual(edited.applied.filter((jobId) => canceled.applied.includes(jobId)), []);
    for (const status of ["PENDING", "LEASED"] as const) {
      const { items } = await runledger.previewJobs(sql, { ...ALL, status, limit: 40 });
      await Promise.all([
        runledger.cancelJobs(sql, items.slice(0, 20), ALL),
        runledger.cancelJobs(sql, items.slice(10, 30).toReversed(), ALL),
        runledger.editJobs(sql, items.slice(5, 25), { ...ALL, priority: -round }),
        ...items.slice(30).map(({ jobId }) => runledger.editJob(sql, jobId, { ...ALL, nextRunAt: new Date(0) })),
        runledger.reapExpiredLeases(sql, { retryDelayMs: 1 }),
      ]);
    }
    const { items: dead } = await runledger.previewJobs(sql, { ...ALL, status: "DEAD_LETTERED", limit: 20 });
    const requeues = await Promise.all([
      runledger.requeueJobs(sql, dead, ALL),
      runledger.requeueJobs(sql, dead.toReversed(), ALL),
    ]);
    const twice = requeues.flatMap(({ applied }) => applied);
    assert.equal(new Set(twice).size, twice.length, "no job was requeued twice");
  }
  const workers = [work(), work()];
  try {
    for (let round = 0; round < 8; round++) await operate(round);
  } finally {
    isOver = true;
  }
  assert((await Promise.all(workers)).some((ended) => ended > 0));
  await expireLeases(sql);
  await runledger.reapExpiredLeases(sql, { limit: 1000 });
  assert.equal((await runledger.countJobs(sql, { ...ALL, status: "LEASED" })).count, 0);
  // That all ledgers add up to their rows and no run is stuck, the invariants say when the database is closed.
});

Deno.test("a schedule is run by hand, also while it is paused, beside its fires and without moving them", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const organizationId = newId();
  const schedule = await runledger.upsertJobSchedule(sql, {
    name: "nightly",
    jobType: "a",
    cron: "@daily",
    payload: [1],
    organizationId,
    isActive: false,
  });
  await runledger.upsertJobDefinitions(sql, [{ ...testDefinition("a"), priority: 4, maxAttempts: 9 }]);
  await assert.rejects(runledger.runJobScheduleNow(sql, "nightly", { scope: "global" }), {
    code: "job_schedule.not_found",
  });
  const before = Date.now();
  const { jobId } = await runledger.runJobScheduleNow(sql, "nightly", { scope: { organizationId }, ...NOTE });
  const job = await runledger.getJob(sql, jobId, { scope: { organizationId } });
  assert.deepEqual([job?.status, job?.stage, job?.priority, job?.maxAttempts], ["PENDING", "scheduled", 4, 9]);
  const payload = job?.payload as { readonly payload: unknown; readonly _schedule: Readonly<Record<string, string>> };
  assert.deepEqual(payload.payload, [1]);
  const { schedule_id: id, schedule_name: name, scheduled_for: at } = payload._schedule;
  assert.deepEqual([id, name], [schedule.scheduleId, "nightly"]);
  assert(Math.abs(Date.parse(at ?? "") - before) < 600_000);
  const { details } = await newestEvent(sql, jobId);
  assert.deepEqual(details, { eventType: "ENQUEUED", scheduleName: "nightly", ...NOTE });
  assert.deepEqual(await runledger.getJobScheduleByName(sql, "nightly", ALL), schedule);
  await claimOne(sql);
  await runledger.setJobDefinitionEnabled(sql, "a", { isEnabled: false });
  await assert.rejects(runledger.runJobScheduleNow(sql, "nightly", ALL), {
    code: "job.definition_not_found_or_disabled",
  });
  const { items } = await runledger.listOperatorActions(sql, { scope: { organizationId } });
  assert.deepEqual(items.map(({ action, details }) => [action, details]), [["SCHEDULE_RUN", { job_id: jobId }]]);
});

Deno.test("pausing, resuming, moving and deleting what has no ledger is on record, once for each change", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const name = "nightly";
  await runledger.upsertJobSchedule(sql, { name, jobType: "a", cron: "@daily", payload: {} });
  const schedule = await runledger.getJobScheduleByName(sql, name, ALL);
  const note = (n: number) => ({ reason: `reason ${n}`, actor: n % 2 === 0 ? "ada" : "bob" });
  await runledger.setJobScheduleActive(sql, name, { ...ALL, ...note(0), isActive: true });
  await runledger.setJobScheduleActive(sql, name, { ...ALL, ...note(1), isActive: false });
  await runledger.setJobScheduleActive(sql, name, { ...ALL, ...note(2), isActive: false });
  await runledger.setJobScheduleActive(sql, name, { ...ALL, ...note(3), isActive: true });
  await runledger.setJobScheduleNextFireAt(sql, name, { ...ALL, ...note(4), nextFireAt: LATER });
  await runledger.setJobScheduleActive(sql, name, { ...ALL, isActive: false });
  await runledger.setJobDefinitionEnabled(sql, "a", { isEnabled: true, ...note(5) });
  await runledger.setJobDefinitionEnabled(sql, "a", { isEnabled: false, ...note(6) });
  await runledger.setJobDefinitionEnabled(sql, "a", { isEnabled: true, ...note(7) });
  assert(await runledger.deleteJobSchedule(sql, name, { ...ALL, ...note(8) }));
  assert(!(await runledger.deleteJobSchedule(sql, name, { ...ALL, ...note(9) })));
  // A change that is undone is none.
  await assert.rejects(runledger.atomically(sql, async (tx) => {
    await runledger.setJobDefinitionEnabled(tx, "b", { isEnabled: false, ...note(10) });
    throw new Error("undone");
  }));
  // What a deployment switches is no operator's action.
  const catalog = { definitions: [testDefinition("a")] };
  await runledger.syncJobCatalogExactly(sql, catalog, { jobTypes: ["a", "b"] });
  const { items } = await runledger.listOperatorActions(sql, ALL);
  assert.deepEqual(items.map(({ action, subject, reason, actor }) => [action, subject, reason, actor]), [
    ["SCHEDULE_DELETED", name, "reason 8", "ada"],
    ["JOB_TYPE_ENABLED", "a", "reason 7", "bob"],
    ["JOB_TYPE_DISABLED", "a", "reason 6", "ada"],
    ["SCHEDULE_PAUSED", name, undefined, undefined],
    ["SCHEDULE_MOVED", name, "reason 4", "ada"],
    ["SCHEDULE_RESUMED", name, "reason 3", "bob"],
    ["SCHEDULE_PAUSED", name, "reason 1", "bob"],
  ]);
  const moved = items[4]?.details as Readonly<Record<string, string>>;
  assert.deepEqual(
    [moved["next_fire_at"], moved["previous_next_fire_at"]].map((at) => new Date(at ?? "")),
    [LATER, schedule?.nextFireAt],
  );
  const ada = await runledger.listOperatorActions(sql, { ...ALL, actor: "ada", subject: name, limit: 1 });
  assert.deepEqual(ada.items.map(({ action }) => action), ["SCHEDULE_DELETED"]);
  const { nextCursor } = ada;
  assert(nextCursor !== undefined);
  const more = await runledger.listOperatorActions(sql, { ...ALL, actor: "ada", subject: name, cursor: nextCursor });
  assert.deepEqual(more.items.map(({ action }) => action), ["SCHEDULE_MOVED"]);
  const kind = await runledger.listOperatorActions(sql, { ...ALL, action: "JOB_TYPE_DISABLED", since: new Date(0) });
  assert.deepEqual(kind.items.map(({ reason }) => reason), ["reason 6"]);
  assert.deepEqual((await runledger.listOperatorActions(sql, { ...ALL, until: new Date(0) })).items, []);
  for (const text of ["update runledger.operator_actions set actor = 'x'", "truncate runledger.operator_actions"]) {
    await assert.rejects(sql.unsafe(text), { code: "42501" });
  }
});

Deno.test("who cancelled or recovered a run is on record, also of a run without a job, and once", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const organizationId = newId();
  const scope = { organizationId };
  const { runId } = await runledger.enqueueWorkflowRun(sql, {
    workflowType: "w",
    metadata: null,
    organizationId,
    steps: [{ executionKind: "EXTERNAL", stepKey: "gate", payload: 1, dependencies: [] }],
  });
  for (let n = 0; n < 2; n++) await runledger.cancelWorkflowRun(sql, runId, { scope, ...NOTE });
  const recovery = { scope, recoveryKey: "k", mode: "REPLAY", actor: "bob" } as const;
  const { runId: newRunId } = await runledger.recoverWorkflowRun(sql, runId, recovery);
  assert.equal((await runledger.recoverWorkflowRun(sql, runId, recovery)).disposition, "existing");
  const { items } = await runledger.listOperatorActions(sql, { scope, subject: runId });
  assert.deepEqual(items.map(({ action, reason, actor, details }) => ({ action, reason, actor, details })), [
    { action: "RUN_RECOVERED", reason: undefined, actor: "bob", details: { run_id: newRunId, mode: "REPLAY" } },
    { action: "RUN_CANCELED", ...NOTE, details: {} },
  ]);
  assert.deepEqual((await runledger.listOperatorActions(sql, { scope: "global" })).items, []);
});

Deno.test("a claim that meets an edit takes the job as the edit left it, or leaves it", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  for (const nextRunAt of [new Date(0), LATER]) {
    const { jobId } = await runledger.enqueueJob(sql, request({ payload: "asked" }));
    const claimed = await sql.begin(async (tx) => {
      await runledger.editJob(tx, jobId, { ...ALL, payload: "edited", nextRunAt });
      // Not committed yet: a claim leaves it alone rather than wait.
      assert.deepEqual(await runledger.claimJobs(sql, { jobTypes: ["a"], workerId: "w", limit: 1 }), []);
    }).then(() => runledger.claimJobs(sql, { jobTypes: ["a"], workerId: "w", limit: 1 }));
    assert.deepEqual(claimed.map(({ payload }) => payload), nextRunAt === LATER ? [] : ["edited"]);
    if (nextRunAt === LATER) await makeDue(sql);
  }
});

Deno.test("a bulk operation takes a thousand jobs at most, each once, and is refused whole before any SQL", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const made = await runledger.enqueueJobs(sql, Array.from({ length: runledger.MAX_BULK_JOBS + 1 }, () => request()));
  const jobs = made.map(({ jobId }) => ({ jobId, eventSeq: 1 }));
  const [first, ...rest] = jobs;
  assert(first !== undefined);
  const twice = [first, { ...first, jobId: first.jobId.toUpperCase() }];
  for (const call of [runledger.cancelJobs, runledger.requeueJobs]) {
    for (const many of [jobs, twice]) {
      await assert.rejects(call(sql, many, ALL), { code: "job.invalid_request", details: { field: "jobs" } });
    }
  }
  await assert.rejects(runledger.editJobs(sql, jobs, { ...ALL, priority: 1 }), { code: "job.invalid_request" });
  await assert.rejects(runledger.editJobs(sql, [first], ALL), { code: "job.invalid_request" });
  assert.equal((await runledger.editJobs(sql, rest, { ...ALL, priority: 1 })).applied.length, runledger.MAX_BULK_JOBS);
  // A payload is one job's: of many it is not taken, whatever a caller passes.
  const options: runledger.EditJobsOptions & { readonly payload: string } = { ...ALL, priority: 2, payload: "x" };
  await runledger.editJobs(sql, [first], options);
  assert.deepEqual((await runledger.getJob(sql, first.jobId, ALL))?.payload, request().payload);
});

Deno.test("how long a job waited is still told when it was edited meanwhile: from when it was due", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const { jobId } = await runledger.enqueueJob(sql, request({ nextRunAt: LATER }));
  await runledger.editJob(sql, jobId, { ...ALL, nextRunAt: new Date(Date.now() - 3_600_000) });
  await runledger.settleJob(sql, await claimOne(sql), { kind: "succeeded" });
  const [metrics] = await runledger.readJobMetrics(sql, { ...ALL, jobType: "a" });
  assert((metrics?.waitMs?.p50 ?? 0) >= 3_000_000, "it was due an hour ago");
});

for (const driver of [...DRIVERS, ...ORM_DRIVERS]) {
  Deno.test(`${driver.name}: jobs are edited, cancelled and requeued in bulk, and schedules are run through it`, async () => {
    await using database = await openTestDatabase({ checks: false });
    await using handle = await driver.open(database.url);
    const { db } = handle;
    await applyMigrations(db, MIGRATIONS);
    await runledger.upsertJobDefinitions(db, [testDefinition("a")]);
    // PGlite is one database for all tests of a file.
    const ours = { organizationId: newId() };
    const own = { scope: ours };
    const name = newId();
    const made = await runledger.enqueueJobs(db, [1, 2, 3].map(() => request(ours)));
    const payload = { text: "ü ", n: 1e21, none: null };
    const { jobId } = made[0] ?? { jobId: "" };
    const edit = await runledger.editJob(db, jobId, { ...own, ...NOTE, payload, nextRunAt: LATER, priority: -1 });
    assert.deepEqual(edit, { kind: "edited", eventSeq: 2 });
    const { items: [event] } = await runledger.listJobEvents(db, jobId, { ...own, eventType: "EDITED" });
    assert(event?.details?.eventType === "EDITED");
    assert.deepEqual([event.details.nextRunAt, event.details.priority], [LATER, -1]);
    assert.deepEqual((await runledger.getJob(db, jobId, own))?.payload, payload);
    const { items } = await runledger.previewJobs(db, { ...own, status: "PENDING" });
    assert.deepEqual(items.map(({ eventSeq }) => eventSeq).toSorted(), [1, 1, 2]);
    const ids = items.map((item) => item.jobId);
    const done = { applied: ids, skipped: [] };
    assert.deepEqual(await runledger.editJobs(db, items, { ...own, priority: 5 }), done);
    const next = (n: number) => items.map((item) => ({ jobId: item.jobId, eventSeq: item.eventSeq + n }));
    assert.deepEqual(await runledger.cancelJobs(db, next(1), own), done);
    assert.deepEqual(await runledger.requeueJobs(db, next(2), { ...own, progress: "reset" }), done);
    assert.deepEqual(
      (await runledger.requeueJobs(db, next(2), own)).skipped.map(({ reason }) => reason),
      ["changed", "changed", "changed"],
    );
    await runledger.upsertJobSchedule(db, { ...ours, name, jobType: "a", cron: "@daily", payload: {} });
    const ran = await runledger.runJobScheduleNow(db, name, { ...own, ...NOTE });
    const { items: [action] } = await runledger.listOperatorActions(db, { ...own, subject: name });
    assert.deepEqual([action?.action, action?.actor, action?.details], ["SCHEDULE_RUN", "ada", { job_id: ran.jobId }]);
    assert(action?.occurredAt instanceof Date);
  });
}
