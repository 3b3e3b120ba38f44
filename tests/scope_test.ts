/**
 * Nobody reaches another organization's rows by mistake: every call says whose rows it may see or change.
 *
 * @module
 */

import { isRunledgerError, newId } from "@runledger/core";
import type { WorkflowRunRequest } from "@runledger/core";
import * as runledger from "@runledger/postgres";
import type { KeyScope, Scope } from "@runledger/postgres";
import assert from "node:assert/strict";
import fc from "fast-check";
import type { Sql } from "postgres";
import { jobIn, openTestDatabase, request } from "./support/database.ts";

/** A call of a function that takes a scope, on a job or a run. Repeating it may change nothing, or everything once more. */
type ScopedCall = (db: Sql, id: string, scope: Scope) => Promise<unknown>;

/** Functions on one job. */
const ON_JOBS: Readonly<Record<string, ScopedCall>> = {
  getJob: (db, id, scope) => runledger.getJob(db, id, { scope }),
  listJobEvents: (db, id, scope) => runledger.listJobEvents(db, id, { scope }),
  listJobAttempts: (db, id, scope) => runledger.listJobAttempts(db, id, { scope }),
  listJobLogs: (db, id, scope) => runledger.listJobLogs(db, id, { scope }),
  getJobLineage: (db, id, scope) => runledger.getJobLineage(db, id, { scope }),
  explainJob: (db, id, scope) => runledger.explainJob(db, id, { scope }),
  cancelJob: (db, id, scope) => runledger.cancelJob(db, id, { scope, reason: "because" }),
  requeueJob: (db, id, scope) =>
    runledger.requeueJob(db, id, { scope, expectedStatus: "DEAD_LETTERED", expectedRunNumber: 1 }),
  replayJob: (db, id, scope) => runledger.replayJob(db, id, { scope, replayKey: newId() }),
  editJob: (db, id, scope) => runledger.editJob(db, id, { scope, priority: nextPriority(), payload: "edited" }),
  // Their answers name the job, which the caller knows.
  cancelJobs: async (db, id, scope) =>
    withoutIds(await runledger.cancelJobs(db, [{ jobId: id, eventSeq: await eventSeqOf(db, id) }], { scope })),
  requeueJobs: async (db, id, scope) =>
    withoutIds(await runledger.requeueJobs(db, [{ jobId: id, eventSeq: await eventSeqOf(db, id) }], { scope })),
  editJobs: async (db, id, scope) =>
    withoutIds(
      await runledger.editJobs(db, [{ jobId: id, eventSeq: await eventSeqOf(db, id) }], {
        scope,
        priority: nextPriority(),
      }),
    ),
};

let priority = 0;

/** Another one each time, so that each edit changes something. */
function nextPriority(): number {
  return ++priority;
}

/** The version of a job, read behind the library's back: whoever guesses it must not get further. */
async function eventSeqOf(sql: Sql, id: string): Promise<number> {
  const [row] = await sql<{ event_seq: number }[]>`select event_seq from runledger.job_queue where id = ${id}::uuid`;
  return row?.event_seq ?? 1;
}

function withoutIds({ applied, skipped }: runledger.BulkResult): unknown {
  return { applied: applied.length, skipped: skipped.map(({ reason }) => reason) };
}

/** Functions on one workflow run. */
const ON_RUNS: Readonly<Record<string, ScopedCall>> = {
  getWorkflowRun: (db, id, scope) => runledger.getWorkflowRun(db, id, { scope }),
  listWorkflowSteps: (db, id, scope) => runledger.listWorkflowSteps(db, id, { scope }),
  listWorkflowStepDependencies: (db, id, scope) => runledger.listWorkflowStepDependencies(db, id, { scope }),
  listWorkflowRunMutations: (db, id, scope) => runledger.listWorkflowRunMutations(db, id, { scope }),
  drawWorkflowRun: (db, id, scope) => runledger.drawWorkflowRun(db, id, { scope }),
  getWorkflowRunLineage: (db, id, scope) => runledger.getWorkflowRunLineage(db, id, { scope }),
  explainWorkflowRun: (db, id, scope) => runledger.explainWorkflowRun(db, id, { scope }),
  getWorkflowResult: (db, id, scope) => runledger.getWorkflowResult(db, id, { scope }),
  completeExternalStep: (db, id, scope) =>
    runledger.completeExternalStep(db, id, "gate", { scope, completion: { status: "SUCCEEDED", output: 1 } }),
  appendWorkflowSteps: (db, id, scope) =>
    runledger.appendWorkflowSteps(db, id, {
      scope,
      windowStepKey: "gate",
      mutationKey: newId(),
      steps: [{ executionKind: "JOB", stepKey: newId(), jobType: "a", payload: 1, dependencies: [] }],
    }),
  cancelWorkflowRun: (db, id, scope) => runledger.cancelWorkflowRun(db, id, { scope }),
  recoverWorkflowRun: (db, id, scope) =>
    runledger.recoverWorkflowRun(db, id, { scope, recoveryKey: newId(), mode: "REPLAY" }),
};

/** Functions on one schedule, by its name. */
const ON_SCHEDULES: Readonly<Record<string, ScopedCall>> = {
  getJobScheduleByName: (db, name, scope) => runledger.getJobScheduleByName(db, name, { scope }),
  setJobScheduleActive: (db, name, scope) => runledger.setJobScheduleActive(db, name, { scope, isActive: false }),
  setJobScheduleNextFireAt: (db, name, scope) =>
    runledger.setJobScheduleNextFireAt(db, name, { scope, nextFireAt: new Date() }),
  deleteJobSchedule: (db, name, scope) => runledger.deleteJobSchedule(db, name, { scope }),
  runJobScheduleNow: (db, name, scope) => runledger.runJobScheduleNow(db, name, { scope }),
};

/** Of the ledger: nothing was seen yet. */
const FIRST_POSITION = encodeURIComponent(JSON.stringify(["ledger", "1:1:", null]));

/** Functions over many rows. */
const ON_MANY: Readonly<Record<string, (db: Sql, scope: Scope) => Promise<readonly string[]>>> = {
  listDeadLetters: async (db, scope) =>
    (await runledger.listDeadLetters(db, { scope, limit: 1000 })).items.map(({ jobId }) => jobId),
  // The count stands for as many rows: those of the scope.
  countDeadLetters: async (db, scope) => {
    const { count } = await runledger.countDeadLetters(db, { scope });
    const { items } = await runledger.listDeadLetters(db, { scope, limit: 1000 });
    assert.equal(count, items.length);
    return items.map(({ jobId }) => jobId);
  },
  listJobs: async (db, scope) => (await runledger.listJobs(db, { scope, limit: 1000 })).items.map(({ jobId }) => jobId),
  countJobs: async (db, scope) => {
    const ids: string[] = [];
    for (const status of ["PENDING", "LEASED", "SUCCEEDED", "DEAD_LETTERED", "CANCELED"] as const) {
      const { items } = await runledger.listJobs(db, { scope, status, limit: 1000 });
      assert.equal((await runledger.countJobs(db, { scope, status })).count, items.length);
      ids.push(...items.map(({ jobId }) => jobId));
    }
    assert.equal((await runledger.countJobs(db, { scope })).count, ids.length);
    return ids;
  },
  // Its numbers are those of the lists.
  readJobMetrics: async (db, scope) => {
    const metrics = await runledger.readJobMetrics(db, { scope });
    const ids: string[] = [];
    for (
      const [status, count] of [
        ["PENDING", metrics.reduce((sum, { due, scheduled }) => sum + due + scheduled, 0)],
        ["LEASED", metrics.reduce((sum, { leased }) => sum + leased, 0)],
        ["SUCCEEDED", metrics.reduce((sum, { succeeded }) => sum + succeeded, 0)],
        ["DEAD_LETTERED", metrics.reduce((sum, { deadLettered }) => sum + deadLettered, 0)],
        ["CANCELED", metrics.reduce((sum, { canceled }) => sum + canceled, 0)],
      ] as const
    ) {
      const { items } = await runledger.listJobs(db, { scope, status, limit: 1000 });
      assert.equal(count, items.length, status);
      ids.push(...items.map(({ jobId }) => jobId));
    }
    return ids;
  },
  // As many as the lists have; it says nothing else.
  countEndedJobs: async (db, scope) => {
    const { types } = await runledger.countEndedJobs(db, { scope });
    const ids: string[] = [];
    for (
      const [status, figure] of [
        ["SUCCEEDED", "succeeded"],
        ["DEAD_LETTERED", "deadLettered"],
        ["CANCELED", "canceled"],
      ] as const
    ) {
      const { items } = await runledger.listJobs(db, { scope, status, limit: 1000 });
      assert.equal(types.reduce((sum, type) => sum + type[figure], 0), items.length, status);
      ids.push(...items.map(({ jobId }) => jobId));
    }
    return ids;
  },
  listWorkflowRuns: async (db, scope) =>
    (await runledger.listWorkflowRuns(db, { scope, limit: 1000 })).items.map(({ runId }) => runId),
  countWorkflowRuns: async (db, scope) => {
    const ids: string[] = [];
    for (const status of ["RUNNING", "CANCELED"] as const) {
      const { items } = await runledger.listWorkflowRuns(db, { scope, status, limit: 1000 });
      assert.equal((await runledger.countWorkflowRuns(db, { scope, status })).count, items.length);
      ids.push(...items.map(({ runId }) => runId));
    }
    return ids;
  },
  readLedger: async (db, scope) => {
    const ids: string[] = [];
    for (let piece = await runledger.readLedger(db, { scope, position: FIRST_POSITION }); ids.length < 10_000;) {
      ids.push(...piece.entries.map(({ jobId }) => jobId));
      if (!piece.hasMore) break;
      piece = await runledger.readLedger(db, { scope, position: piece.position });
    }
    return ids;
  },
  previewJobs: async (db, scope) => {
    const ids: string[] = [];
    for (const status of ["PENDING", "LEASED", "DEAD_LETTERED", "CANCELED"] as const) {
      ids.push(...(await runledger.previewJobs(db, { scope, status, limit: 1000 })).items.map(({ jobId }) => jobId));
    }
    return ids;
  },
  // They name schedules, whose ids the test knows.
  listOperatorActions: async (db, scope) => {
    for (const { name } of (await runledger.listJobSchedules(db, { scope, limit: 1 })).items) {
      await runledger.setJobScheduleNextFireAt(db, name, { scope, nextFireAt: new Date() });
    }
    const { items } = await runledger.listOperatorActions(db, { scope, limit: 1000 });
    const names = items.map(({ subject }) => subject);
    const rows = await db<{ id: string }[]>`
      select id from runledger.job_schedules where name in (select jsonb_array_elements_text(${
      JSON.stringify(names)
    }::text::jsonb))`;
    return rows.map(({ id }) => id);
  },
  // As many jobs as are held.
  listActiveWorkers: async (db, scope) => {
    const workers = await runledger.listActiveWorkers(db, { scope });
    const { items } = await runledger.listJobs(db, { scope, status: "LEASED", limit: 1000 });
    assert.equal(workers.reduce((sum, { leasedCount }) => sum + leasedCount, 0), items.length);
    return items.map(({ jobId }) => jobId);
  },
  requeueDeadLetters: (db, scope) => runledger.requeueDeadLetters(db, { scope, limit: 2 }),
  listJobSchedules: async (db, scope) =>
    (await runledger.listJobSchedules(db, { scope, limit: 1000 })).items.map(({ scheduleId }) => scheduleId),
};

/** Functions on one key. The same key may be there for each organization, so "all" is no answer to whose it is. */
const ON_KEYS: Readonly<Record<string, (db: Sql, key: string, scope: KeyScope) => Promise<string | undefined>>> = {
  getJobByIdempotencyKey: async (db, idempotencyKey, scope) =>
    (await runledger.getJobByIdempotencyKey(db, { jobType: "a", idempotencyKey }, { scope }))?.jobId,
  getWorkflowRunByIdempotencyKey: async (db, idempotencyKey, scope) =>
    (await runledger.getWorkflowRunByIdempotencyKey(db, { workflowType: "w", idempotencyKey }, { scope }))?.runId,
};

/** Functions without a scope, each with the reason. A new one must be argued for here. */
const UNSCOPED: Readonly<Record<string, string>> = {
  atomically: "runs what it is given",
  migrate: "the schema belongs to nobody",
  ensureSchemaCompatible: "the schema belongs to nobody",
  enqueueJob: "the request names its organization, which is trusted input",
  enqueueJobs: "the requests name their organizations, which are trusted input",
  enqueueWorkflowRun: "the request names its organization, which is trusted input",
  enqueueWorkflowRuns: "the requests name their organizations, which are trusted input",
  claimJobs: "workers serve every organization",
  createClaimCursor: "no database",
  announceSleep: "workers serve every organization",
  notifyJobsDue: "it carries nothing",
  listenTo: "notifications carry nothing, or a run's id",
  heartbeatJobs: "the lease token is the proof",
  recordJobProgress: "the lease token is the proof",
  releaseJobs: "the lease token is the proof",
  settleJob: "the lease token is the proof",
  settleJobs: "the lease token is the proof",
  appendJobLogs: "the lease token is the proof",
  reapExpiredLeases: "workers serve every organization",
  expireWorkflowGates: "workers serve every organization",
  deleteFinishedJobs: "retention is one rule for the whole table",
  deleteFinishedWorkflowRuns: "retention is one rule for the whole table",
  listJobDefinitions: "definitions belong to no organization",
  setJobDefinitionEnabled: "definitions belong to no organization",
  upsertJobDefinitions: "definitions belong to no organization",
  getJobRuntimeConfig: "configs belong to no organization",
  getRequiredJobRuntimeConfig: "configs belong to no organization",
  listJobRuntimeConfigs: "configs belong to no organization",
  upsertJobRuntimeConfig: "configs belong to no organization",
  syncJobCatalog: "a catalog is trusted input",
  syncJobCatalogExactly: "a catalog is trusted input",
  assertJobSchedule: "no database",
  nextScheduleFires: "no database",
  formatJobExplanation: "no database",
  examineDatabase: "the schema and the server belong to nobody",
  formatWorkflowRunExplanation: "no database",
  formatDuration: "no database",
  upsertJobSchedule: "the schedule names its organization, which is trusted input; names are unique across them",
  upsertJobSchedules: "the schedules name their organizations, which are trusted input; names are unique across them",
  materializeDueSchedules: "schedulers serve every organization",
};

Deno.test("every public function takes a scope, or says why it has none", () => {
  const names = Object.entries(runledger).filter(([, value]) => typeof value === "function").map(([name]) => name);
  const placed = [ON_JOBS, ON_RUNS, ON_SCHEDULES, ON_MANY, ON_KEYS, UNSCOPED].flatMap((table) => Object.keys(table));
  assert.deepEqual(names.filter((name) => !placed.includes(name)), [], "give them a scope, or a reason");
  assert.deepEqual(placed.filter((name) => !names.includes(name)), []);
  assert.equal(new Set(placed).size, placed.length);
});

/** Whose rows there are: two organizations, and those of none. */
type Owner = { readonly organizationId: string } | "global";

interface Fixture {
  readonly owner: Owner;
  readonly jobIds: readonly string[];
  readonly runIds: readonly string[];
  readonly scheduleNames: readonly string[];
}

const organizationOf = (owner: Owner) => owner === "global" ? {} : owner;

function workflow(owner: Owner): WorkflowRunRequest {
  return {
    ...organizationOf(owner),
    workflowType: "w",
    metadata: { secret: true },
    resultStepKey: "work",
    steps: [
      { executionKind: "EXTERNAL", stepKey: "gate", payload: 1, dependencies: [] },
      { executionKind: "JOB", stepKey: "work", jobType: "b", payload: 2, dependencies: [] },
      {
        executionKind: "JOB",
        stepKey: "after",
        jobType: "b",
        payload: 3,
        dependencies: [{ prerequisiteStepKey: "gate", releaseMode: "ON_SUCCESS" }],
      },
    ],
  };
}

/** Gives an owner one job of each status, with logs, a run that waits and a run that has ended. */
async function prepare(sql: Sql, owner: Owner): Promise<Fixture> {
  const jobIds: string[] = [];
  for (const status of ["PENDING", "LEASED", "SUCCEEDED", "DEAD_LETTERED", "CANCELED"] as const) {
    const { jobId, lease } = await jobIn(sql, status, organizationOf(owner));
    if (status === "LEASED" && lease !== undefined) {
      await runledger.appendJobLogs(sql, [{ lease, level: "info", message: "secret" }]);
    }
    jobIds.push(jobId);
  }
  const runs = await runledger.enqueueWorkflowRuns(sql, [workflow(owner), workflow(owner)]);
  const runIds = runs.map(({ runId }) => runId);
  await runledger.cancelWorkflowRun(sql, runIds[1] ?? "", { scope: "all" });
  const schedules = await runledger.upsertJobSchedules(
    sql,
    [1, 2].map(() => ({ ...organizationOf(owner), name: newId(), jobType: "a", cron: "@daily", payload: "secret" })),
  );
  return { owner, jobIds, runIds, scheduleNames: schedules.map(({ name }) => name) };
}

/** A fingerprint of all rows that do not belong to an owner. */
async function othersOf(sql: Sql, owner: Owner): Promise<string> {
  const own = owner === "global" ? null : owner.organizationId;
  const [row] = await sql<{ fingerprint: string }[]>`
    with foreign_jobs as (
      select queue from runledger.job_queue as queue where queue.organization_id is distinct from ${own}::uuid
    ),
    foreign_runs as (
      select run from runledger.workflow_runs as run where run.organization_id is distinct from ${own}::uuid
    ),
    entries (entry) as (
      select foreign_jobs::text from foreign_jobs
      union all select foreign_runs::text from foreign_runs
      union all select event::text from runledger.job_events as event
        where event.job_id in (select (foreign_jobs.queue).id from foreign_jobs)
      union all select letter::text from runledger.job_dead_letters as letter
        where letter.organization_id is distinct from ${own}::uuid
      union all select action::text from runledger.operator_actions as action
        where action.organization_id is distinct from ${own}::uuid
      union all select log::text from runledger.job_logs as log
        where log.job_id in (select (foreign_jobs.queue).id from foreign_jobs)
      union all select step::text from runledger.workflow_steps as step
        where step.run_id in (select (foreign_runs.run).id from foreign_runs)
      union all select schedule::text from runledger.job_schedules as schedule
        where schedule.organization_id is distinct from ${own}::uuid
      union all select mutation::text from runledger.workflow_run_mutations as mutation
        where mutation.run_id in (select (foreign_runs.run).id from foreign_runs)
    )
    select md5(string_agg(entry, ',' order by entry)) as fingerprint from entries`;
  return row?.fingerprint ?? "";
}

/** What a caller can see of an outcome. */
async function seenOf(call: Promise<unknown>): Promise<unknown> {
  try {
    return { value: await call };
  } catch (error) {
    assert(isRunledgerError(error), Deno.inspect(error));
    return { code: error.code, message: error.message, details: error.details, json: JSON.stringify(error) };
  }
}

Deno.test("no call sees or changes what lies outside its scope, and a foreign id is like an unknown one", async () => {
  await using database = await openTestDatabase({ checks: false });
  const { sql } = database;
  const owners: readonly Owner[] = [{ organizationId: newId() }, { organizationId: newId() }, "global"];
  const fixtures: Fixture[] = [];
  for (const owner of owners) fixtures.push(await prepare(sql, owner));
  const index = fc.nat({ max: 2 });
  const action = fc.oneof(
    fc.record({ of: fc.constant("job"), name: fc.constantFrom(...Object.keys(ON_JOBS)), target: fc.nat({ max: 4 }) }),
    fc.record({ of: fc.constant("run"), name: fc.constantFrom(...Object.keys(ON_RUNS)), target: fc.nat({ max: 1 }) }),
    fc.record({
      of: fc.constant("schedule"),
      name: fc.constantFrom(...Object.keys(ON_SCHEDULES)),
      target: fc.nat({ max: 1 }),
    }),
    fc.record({ of: fc.constant("many"), name: fc.constantFrom(...Object.keys(ON_MANY)), target: fc.constant(0) }),
  );
  await fc.assert(
    fc.asyncProperty(index, index, action, async (caller, owner, { of, name, target }) => {
      const scope = owners[caller] as Owner;
      const before = await othersOf(sql, scope);
      if (of === "many") {
        const ids = await ON_MANY[name]?.(sql, scope) ?? [];
        const rows = await sql<{ id: string }[]>`
          select id from runledger.job_queue
          where id in (select jsonb_array_elements_text(${JSON.stringify(ids)}::text::jsonb)::uuid)
            and organization_id is distinct from ${scope === "global" ? null : scope.organizationId}::uuid
          union all
          select id from runledger.workflow_runs
          where id in (select jsonb_array_elements_text(${JSON.stringify(ids)}::text::jsonb)::uuid)
            and organization_id is distinct from ${scope === "global" ? null : scope.organizationId}::uuid
          union all
          select id from runledger.job_schedules
          where id in (select jsonb_array_elements_text(${JSON.stringify(ids)}::text::jsonb)::uuid)
            and organization_id is distinct from ${scope === "global" ? null : scope.organizationId}::uuid`;
        assert.deepEqual([...rows], [], `${name} gave rows of others`);
      } else {
        const { jobIds, runIds, scheduleNames } = fixtures[owner] as Fixture;
        const [table, ids] = of === "job"
          ? [ON_JOBS, jobIds]
          : of === "run"
          ? [ON_RUNS, runIds]
          : [ON_SCHEDULES, scheduleNames];
        const call = table[name] as ScopedCall;
        const seen = await seenOf(call(sql, ids[target] ?? "", scope));
        const unknown = await seenOf(call(sql, newId(), scope));
        if (caller !== owner) assert.deepEqual(seen, unknown, `${name} tells a foreign id from an unknown one`);
      }
      assert.equal(await othersOf(sql, scope), before, `${name} changed rows of others`);
    }),
    { numRuns: 300 },
  );
});

Deno.test('within its scope, and with "all", each call finds what is there', async () => {
  await using database = await openTestDatabase({ checks: false });
  const { sql } = database;
  for (const owner of [{ organizationId: newId() }, "global"] as const) {
    for (const scope of [owner, "all"] as const) {
      for (const [name, call] of Object.entries(ON_JOBS)) {
        const { jobIds } = await prepare(sql, owner);
        const seen = await Promise.all(jobIds.map((id) => seenOf(call(sql, id, scope))));
        const unknown = await seenOf(call(sql, newId(), scope));
        assert(seen.some((one) => !isSame(one, unknown)), `${name} finds nothing`);
      }
      for (const [name, call] of Object.entries(ON_RUNS)) {
        const { runIds } = await prepare(sql, owner);
        if (name === "listWorkflowRunMutations") await ON_RUNS["appendWorkflowSteps"]?.(sql, runIds[0] ?? "", scope);
        const unknown = await seenOf(call(sql, newId(), scope));
        const seen = await Promise.all(runIds.map((id) => seenOf(call(sql, id, scope))));
        assert(seen.some((one) => !isSame(one, unknown)), `${name} finds nothing`);
      }
      for (const [name, call] of Object.entries(ON_SCHEDULES)) {
        const { scheduleNames } = await prepare(sql, owner);
        const unknown = await seenOf(call(sql, newId(), scope));
        const seen = await Promise.all(scheduleNames.map((schedule) => seenOf(call(sql, schedule, scope))));
        assert(seen.every((one) => !isSame(one, unknown)), `${name} finds nothing`);
      }
      for (const [name, call] of Object.entries(ON_MANY)) {
        await prepare(sql, owner);
        assert((await call(sql, scope)).length > 0, `${name} finds nothing`);
      }
    }
  }
});

function isSame(a: unknown, b: unknown): boolean {
  try {
    assert.deepEqual(a, b);
    return true;
  } catch {
    return false;
  }
}

Deno.test("a call without a scope, or with something that is none, is a TypeError and reaches nothing", async () => {
  await using database = await openTestDatabase({ checks: false });
  const { sql } = database;
  const { jobIds, runIds, scheduleNames } = await prepare(sql, "global");
  const before = await othersOf(sql, { organizationId: newId() });
  const none: readonly unknown[] = [
    undefined,
    null,
    "",
    "none",
    "ALL",
    "*",
    0,
    true,
    {},
    [],
    { organizationId: null },
    () => "all",
  ];
  for (const scope of none as readonly Scope[]) {
    for (const call of Object.values(ON_JOBS)) await assert.rejects(call(sql, jobIds[0] ?? "", scope), TypeError);
    for (const call of Object.values(ON_RUNS)) await assert.rejects(call(sql, runIds[0] ?? "", scope), TypeError);
    for (const call of Object.values(ON_SCHEDULES)) {
      await assert.rejects(call(sql, scheduleNames[0] ?? "", scope), TypeError);
    }
    for (const call of Object.values(ON_MANY)) await assert.rejects(call(sql, scope), TypeError);
    for (const call of Object.values(ON_KEYS)) await assert.rejects(call(sql, "k", scope as KeyScope), TypeError);
  }
  for (const organizationId of ["", "*", "all", "' or true --", "00000000-0000-0000-0000-00000000000"]) {
    await assert.rejects(
      runledger.getJob(sql, jobIds[0] ?? "", { scope: { organizationId } }),
      (error) => isRunledgerError(error, "job.invalid_request"),
    );
  }
  assert.equal(await othersOf(sql, { organizationId: newId() }), before);
});

Deno.test("a key stands for what its owner enqueued with it, and for nothing of anybody else's", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const owners: readonly KeyScope[] = [{ organizationId: newId() }, { organizationId: newId() }, "global"];
  for (const [name, call] of Object.entries(ON_KEYS)) {
    const key = newId();
    const ids = new Map<KeyScope, string>();
    for (const owner of owners.slice(1)) {
      ids.set(
        owner,
        name === "getJobByIdempotencyKey"
          ? (await runledger.enqueueJob(sql, request({ ...organizationOf(owner), idempotencyKey: key }))).jobId
          : (await runledger.enqueueWorkflowRun(sql, { ...workflow(owner), idempotencyKey: key })).runId,
      );
    }
    for (const owner of owners) {
      assert.equal(await call(sql, key, owner), ids.get(owner), name);
      assert.equal(await call(sql, newId(), owner), undefined);
    }
    await assert.rejects(call(sql, key, "all" as Scope as KeyScope), TypeError);
  }
});
