/**
 * Who may do what, with the roles of docs/roles.sql and real logins.
 *
 * @module
 */

import { isRunledgerError, newId } from "@runledger/core";
import type { JobLease, WorkflowRunRequest } from "@runledger/core";
import * as runledger from "@runledger/postgres";
import { createEphemeralDatabase } from "@runledger/test-support";
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import postgres from "postgres";
import type { Sql } from "postgres";
import { MIGRATIONS } from "../postgres/_migrations.ts";
import { applyMigrations } from "../postgres/migrate.ts";
import { assertInvariants, claimOne, expireLeases, jobIn, request, testDefinition } from "./support/database.ts";
import { dropLogins, openRoleDatabase, ROLES, runRolesScript, urlOf } from "./support/roles.ts";
import type { Role } from "./support/roles.ts";

const ALL = { scope: "all" } as const;

/** Who may call a function, and a call that succeeds with the privileges of its caller; `admin` prepares what it needs. */
interface Placement {
  readonly may: readonly Role[];
  readonly call: (db: Sql, admin: Sql) => Promise<unknown>;
}

async function leased(admin: Sql): Promise<JobLease> {
  const { lease } = await jobIn(admin, "LEASED");
  assert(lease !== undefined);
  return lease;
}

const schedule = (): runledger.JobScheduleInput => ({ name: newId(), jobType: "b", cron: "@daily", payload: {} });

const scheduleOf = async (admin: Sql) => (await runledger.upsertJobSchedule(admin, schedule())).name;

const failed = { kind: "failed", failure: { kind: "TERMINAL", code: "x.y", message: "no" } } as const;

/** A step whose end releases another. */
async function leasedStep(admin: Sql): Promise<JobLease> {
  const [gate, work] = RUN.steps;
  assert(gate !== undefined && work !== undefined);
  const next = {
    ...work,
    stepKey: "next",
    dependencies: [{ prerequisiteStepKey: "work", releaseMode: "ON_TERMINAL" }],
  };
  await runledger.enqueueWorkflowRun(admin, {
    workflowType: "w",
    metadata: null,
    steps: [{ ...work, dependencies: [] }, next] as WorkflowRunRequest["steps"],
  });
  return await claimOne(admin, { jobTypes: ["w"] });
}

function assertApplied({ skipped }: runledger.BulkResult): void {
  assert.deepEqual(skipped, []);
}

const jobOf = async (admin: Sql, status: Parameters<typeof jobIn>[1]) => (await jobIn(admin, status)).jobId;

/** A gate with a timeout, and a job behind it. */
const RUN: WorkflowRunRequest = {
  workflowType: "w",
  metadata: null,
  resultStepKey: "gate",
  steps: [
    {
      executionKind: "EXTERNAL",
      stepKey: "gate",
      payload: 1,
      timeout: { afterMs: 3_600_000, outcome: "SUCCEEDED" },
      dependencies: [],
    },
    {
      executionKind: "JOB",
      stepKey: "work",
      jobType: "w",
      payload: 2,
      dependencies: [{ prerequisiteStepKey: "gate", releaseMode: "ON_SUCCESS" }],
    },
  ],
};

async function runOf(admin: Sql): Promise<string> {
  return (await runledger.enqueueWorkflowRun(admin, RUN)).runId;
}

/**
 * Every public function that is given a database. Privileges are per column, so whoever may cancel and requeue could also
 * claim, and whoever may settle could also cancel: docs/security.md says so.
 */
const MATRIX: Readonly<Record<string, Placement>> = {
  // Anybody who may connect, or who does not even.
  createClaimCursor: {
    may: ROLES,
    call: () => Promise.resolve(runledger.createClaimCursor()),
  },
  atomically: {
    may: ROLES,
    call: (db) => runledger.atomically(db, (tx) => Promise.resolve(tx)),
  },

  // Producers.
  enqueueJob: {
    may: ["owner", "enqueue", "worker"],
    call: (db) => runledger.enqueueJob(db, request({ idempotencyKey: newId() })),
  },
  enqueueJobs: {
    may: ["owner", "enqueue", "worker"],
    call: (db) => runledger.enqueueJobs(db, [request(), request({ jobType: "b" })]),
  },

  // Workers.
  claimJobs: {
    may: ["owner", "worker"],
    call: async (db, admin) => {
      await runledger.enqueueJob(admin, request());
      await claimOne(db);
    },
  },
  announceSleep: {
    may: ["owner", "worker"],
    call: async (db) => await runledger.announceSleep(db, { workerId: "w", jobTypes: ["a"], sleepMs: 1 }),
  },
  notifyJobsDue: {
    may: ["owner", "enqueue", "worker", "operator"],
    call: async (db) => await runledger.notifyJobsDue(db),
  },
  listenTo: {
    may: ["owner", "enqueue", "worker", "operator"],
    call: async (db) => {
      const listener = await runledger.listenTo(db, runledger.JOBS_DUE_CHANNEL, { onNotify: () => {} });
      await listener?.unlisten();
    },
  },
  heartbeatJobs: {
    may: ["owner", "worker", "operator"],
    call: async (db, admin) => runledger.heartbeatJobs(db, [await leased(admin)], { postsEvents: true }),
  },
  recordJobProgress: {
    may: ["owner", "worker", "operator"],
    call: async (db, admin) =>
      runledger.recordJobProgress(db, await leased(admin), { progress: { done: 1 }, checkpoint: 1 }),
  },
  releaseJobs: {
    may: ["owner", "worker", "operator"],
    call: async (db, admin) => assert.equal((await runledger.releaseJobs(db, [await leased(admin)])).length, 1),
  },
  settleJob: {
    may: ["owner", "worker"],
    call: async (db, admin) =>
      runledger.settleJob(db, await leased(admin), {
        kind: "failed",
        failure: { kind: "TERMINAL", code: "x.y", message: "no" },
      }),
  },
  settleJobs: {
    may: ["owner", "worker"],
    call: async (db, admin) =>
      runledger.settleJobs(db, [
        { lease: await leased(admin), outcome: { kind: "succeeded", output: 1 } },
        { lease: await leased(admin), outcome: { kind: "continued", checkpoint: 1 } },
        { lease: await leased(admin), outcome: { kind: "canceled" } },
        { lease: await leasedStep(admin), outcome: { kind: "succeeded" } },
        { lease: await leasedStep(admin), outcome: failed },
      ]),
  },
  appendJobLogs: {
    may: ["owner", "worker"],
    call: async (db, admin) => {
      const lines = [{ lease: await leased(admin), level: "info", message: "hello", payload: { n: 1 } }] as const;
      assert.equal(await runledger.appendJobLogs(db, lines), 1);
    },
  },
  reapExpiredLeases: {
    may: ["owner", "worker"],
    call: async (db, admin) => {
      await jobIn(admin, "LEASED", { maxAttempts: 1 });
      const { jobId } = await leased(admin);
      await expireLeases(admin);
      assert((await runledger.reapExpiredLeases(db)).some((job) => job.jobId === jobId));
    },
  },
  upsertJobDefinitions: {
    may: ["owner", "worker"],
    call: (db) => runledger.upsertJobDefinitions(db, [testDefinition("a"), testDefinition(newId())]),
  },
  listJobDefinitions: {
    may: ["owner", "worker", "operator"],
    call: (db) => runledger.listJobDefinitions(db),
  },
  getJobRuntimeConfig: {
    may: ["owner", "worker", "operator"],
    call: (db) => runledger.getJobRuntimeConfig(db, "a"),
  },
  getRequiredJobRuntimeConfig: {
    may: ["owner", "worker", "operator"],
    call: async (db, admin) => {
      await runledger.upsertJobRuntimeConfig(admin, { jobType: "a", schemaVersion: 1, config: {} });
      await runledger.getRequiredJobRuntimeConfig(db, "a");
    },
  },
  listJobRuntimeConfigs: {
    may: ["owner", "worker", "operator"],
    call: (db) => runledger.listJobRuntimeConfigs(db),
  },
  ensureSchemaCompatible: {
    may: ["owner", "worker", "operator"],
    call: (db) => runledger.ensureSchemaCompatible(db),
  },
  // With nothing to apply it only reads; that only the owner can apply something is a test of its own.
  migrate: {
    may: ["owner", "worker", "operator"],
    call: (db) => runledger.migrate(db),
  },

  assertJobSchedule: {
    may: ROLES,
    call: () => Promise.resolve(runledger.assertJobSchedule(schedule())),
  },
  upsertJobSchedule: {
    may: ["owner", "worker"],
    call: async (db) => {
      const { name } = await runledger.upsertJobSchedule(db, schedule());
      await runledger.upsertJobSchedule(db, { ...schedule(), name, cron: "@hourly" });
    },
  },
  upsertJobSchedules: {
    may: ["owner", "worker"],
    call: (db) => runledger.upsertJobSchedules(db, [schedule(), schedule()]),
  },
  materializeDueSchedules: {
    may: ["owner", "worker"],
    call: async (db, admin) => {
      const name = await scheduleOf(admin);
      await runledger.setJobScheduleNextFireAt(admin, name, { ...ALL, nextFireAt: new Date(0) });
      assert((await runledger.materializeDueSchedules(db)).fired.some((fire) => fire.name === name));
    },
  },

  syncJobCatalog: {
    may: ["owner", "worker"],
    call: (db) =>
      runledger.syncJobCatalog(db, {
        definitions: [testDefinition("a"), testDefinition("b")],
        schedules: [schedule()],
      }),
  },
  // A worker and an operator in one: a deployment is granted both groups.
  syncJobCatalogExactly: {
    may: ["owner"],
    call: async (db, admin) => {
      const [gone, name] = [newId(), newId()];
      await runledger.upsertJobDefinitions(admin, [testDefinition(gone)]);
      await runledger.upsertJobSchedule(admin, { ...schedule(), name, jobType: gone });
      const report = await runledger.syncJobCatalogExactly(
        db,
        { definitions: [testDefinition("a"), testDefinition("b")] },
        { jobTypes: ["a", "b", gone], scheduleNames: [name] },
      );
      assert.deepEqual(report, { disabledJobTypes: [gone], enabledJobTypes: [], pausedSchedules: [name] });
    },
  },

  // Operators.
  setJobScheduleActive: {
    may: ["owner", "operator"],
    call: async (db, admin) => {
      const name = await scheduleOf(admin);
      await runledger.setJobScheduleActive(db, name, { ...ALL, isActive: false });
      await runledger.setJobScheduleActive(db, name, { ...ALL, isActive: true });
    },
  },
  setJobScheduleNextFireAt: {
    may: ["owner", "operator"],
    call: async (db, admin) =>
      runledger.setJobScheduleNextFireAt(db, await scheduleOf(admin), { ...ALL, nextFireAt: new Date() }),
  },
  deleteJobSchedule: {
    may: ["owner", "operator"],
    call: async (db, admin) => assert(await runledger.deleteJobSchedule(db, await scheduleOf(admin), ALL)),
  },
  getJobScheduleByName: {
    may: ["owner", "worker", "operator"],
    call: async (db, admin) => assert(await runledger.getJobScheduleByName(db, await scheduleOf(admin), ALL)),
  },
  listJobSchedules: {
    may: ["owner", "worker", "operator"],
    call: (db) => runledger.listJobSchedules(db, ALL),
  },
  cancelJob: {
    may: ["owner", "worker", "operator"],
    call: async (db, admin) => runledger.cancelJob(db, await jobOf(admin, "PENDING"), { ...ALL, reason: "because" }),
  },
  requeueJob: {
    may: ["owner", "operator"],
    call: async (db, admin) =>
      runledger.requeueJob(db, await jobOf(admin, "DEAD_LETTERED"), {
        ...ALL,
        expectedStatus: "DEAD_LETTERED",
        expectedRunNumber: 1,
        progress: "reset",
      }),
  },
  requeueDeadLetters: {
    may: ["owner", "operator"],
    call: async (db, admin) => {
      await jobIn(admin, "DEAD_LETTERED");
      assert((await runledger.requeueDeadLetters(db, ALL)).length > 0);
    },
  },
  replayJob: {
    may: ["owner", "operator"],
    call: async (db, admin) =>
      runledger.replayJob(db, await jobOf(admin, "SUCCEEDED"), { ...ALL, replayKey: "k", reason: "because" }),
  },
  editJob: {
    may: ["owner", "operator"],
    call: async (db, admin) =>
      runledger.editJob(db, await jobOf(admin, "PENDING"), { ...ALL, payload: 9, actor: "me" }),
  },
  previewJobs: {
    may: ["owner", "operator"],
    call: (db) => runledger.previewJobs(db, { ...ALL, status: "PENDING", text: "key" }),
  },
  editJobs: {
    may: ["owner", "operator"],
    call: async (db, admin) =>
      assertApplied(
        await runledger.editJobs(db, [{ jobId: await jobOf(admin, "PENDING"), eventSeq: 1 }], { ...ALL, priority: 9 }),
      ),
  },
  cancelJobs: {
    may: ["owner", "worker", "operator"],
    call: async (db, admin) => {
      const { jobId } = await leasedStep(admin);
      const jobs = [{ jobId: await jobOf(admin, "PENDING"), eventSeq: 1 }, { jobId, eventSeq: 2 }];
      assertApplied(await runledger.cancelJobs(db, jobs, { ...ALL, reason: "because" }));
    },
  },
  requeueJobs: {
    may: ["owner", "operator"],
    call: async (db, admin) =>
      assertApplied(
        await runledger.requeueJobs(db, [{ jobId: await jobOf(admin, "DEAD_LETTERED"), eventSeq: 4 }], ALL),
      ),
  },
  runJobScheduleNow: {
    may: ["owner", "operator"],
    call: async (db, admin) => runledger.runJobScheduleNow(db, await scheduleOf(admin), { ...ALL, actor: "me" }),
  },
  listOperatorActions: {
    may: ["owner", "operator"],
    call: (db) => runledger.listOperatorActions(db, ALL),
  },
  deleteFinishedJobs: {
    may: ["owner", "operator"],
    call: (db) => runledger.deleteFinishedJobs(db, { olderThanMs: 3_600_000 }),
  },
  setJobDefinitionEnabled: {
    may: ["owner", "operator"],
    call: async (db) => {
      await runledger.setJobDefinitionEnabled(db, "a", { isEnabled: false, actor: "me" });
      await runledger.setJobDefinitionEnabled(db, "a", { isEnabled: true, actor: "me" });
    },
  },
  upsertJobRuntimeConfig: {
    may: ["owner", "operator"],
    call: (db) => runledger.upsertJobRuntimeConfig(db, { jobType: "b", schemaVersion: 1, config: { n: 1 } }),
  },
  getJob: {
    may: ["owner", "operator"],
    call: async (db, admin) => runledger.getJob(db, await jobOf(admin, "SUCCEEDED"), ALL),
  },
  listJobEvents: {
    may: ["owner", "operator"],
    call: async (db, admin) => runledger.listJobEvents(db, await jobOf(admin, "SUCCEEDED"), ALL),
  },
  listJobAttempts: {
    may: ["owner", "operator"],
    call: async (db, admin) => runledger.listJobAttempts(db, await jobOf(admin, "SUCCEEDED"), ALL),
  },
  listJobLogs: {
    may: ["owner", "operator"],
    call: async (db, admin) => runledger.listJobLogs(db, await jobOf(admin, "SUCCEEDED"), ALL),
  },
  listDeadLetters: {
    may: ["owner", "operator"],
    call: (db) => runledger.listDeadLetters(db, ALL),
  },
  countDeadLetters: {
    may: ["owner", "operator"],
    call: (db) => runledger.countDeadLetters(db, ALL),
  },
  listJobs: {
    may: ["owner", "operator"],
    call: (db) => runledger.listJobs(db, { ...ALL, status: "PENDING", text: "key" }),
  },
  countJobs: {
    may: ["owner", "operator"],
    call: (db) => runledger.countJobs(db, ALL),
  },
  getJobLineage: {
    may: ["owner", "operator"],
    call: async (db, admin) => runledger.getJobLineage(db, await jobOf(admin, "SUCCEEDED"), ALL),
  },
  getWorkflowRunLineage: {
    may: ["owner", "operator"],
    call: async (db, admin) => runledger.getWorkflowRunLineage(db, await runOf(admin), ALL),
  },
  examineDatabase: {
    may: ["owner", "operator"],
    call: (db) => runledger.examineDatabase(db),
  },
  readLedger: {
    may: ["owner", "operator"],
    call: async (db) => {
      const { position } = await runledger.readLedger(db, ALL);
      await runledger.readLedger(db, { ...ALL, position });
    },
  },
  listActiveWorkers: {
    may: ["owner", "operator"],
    call: (db) => runledger.listActiveWorkers(db, ALL),
  },
  drawWorkflowRun: {
    may: ["owner", "operator"],
    call: async (db, admin) => assert.match(await runledger.drawWorkflowRun(db, await runOf(admin), ALL), /gate/),
  },
  explainJob: {
    may: ["owner", "operator"],
    call: async (db, admin) => {
      assert(await runledger.explainJob(db, await jobOf(admin, "PENDING"), ALL));
      assert(await runledger.explainJob(db, await jobOf(admin, "DEAD_LETTERED"), ALL));
      const { items } = await runledger.listWorkflowSteps(admin, await runOf(admin), ALL);
      for (const { stepId } of items) assert(await runledger.explainJob(db, stepId, ALL));
    },
  },
  explainWorkflowRun: {
    may: ["owner", "operator"],
    call: async (db, admin) => assert(await runledger.explainWorkflowRun(db, await runOf(admin), ALL)),
  },
  formatJobExplanation: {
    may: ROLES,
    call: async (_db, admin) => {
      const explanation = await runledger.explainJob(admin, await jobOf(admin, "PENDING"), ALL);
      assert(explanation !== undefined && runledger.formatJobExplanation(explanation) !== "");
    },
  },
  formatWorkflowRunExplanation: {
    may: ROLES,
    call: async (_db, admin) => {
      const explanation = await runledger.explainWorkflowRun(admin, await runOf(admin), ALL);
      assert(explanation !== undefined && runledger.formatWorkflowRunExplanation(explanation) !== "");
    },
  },
  formatDuration: {
    may: ROLES,
    call: () => Promise.resolve(runledger.formatDuration(1)),
  },
  countEndedJobs: {
    may: ["owner", "operator"],
    call: (db) => runledger.countEndedJobs(db, ALL),
  },
  getJobByIdempotencyKey: {
    may: ["owner", "operator"],
    call: (db) => runledger.getJobByIdempotencyKey(db, { jobType: "a", idempotencyKey: "key" }, { scope: "global" }),
  },
  getWorkflowRunByIdempotencyKey: {
    may: ["owner", "operator"],
    call: (db) =>
      runledger.getWorkflowRunByIdempotencyKey(db, { workflowType: "w", idempotencyKey: "key" }, { scope: "global" }),
  },
  readJobMetrics: {
    may: ["owner", "operator"],
    call: (db) => runledger.readJobMetrics(db, ALL),
  },
  nextScheduleFires: {
    may: ROLES,
    call: async (_db, admin) => runledger.nextScheduleFires(await runledger.upsertJobSchedule(admin, schedule()), 2),
  },
  listWorkflowRuns: {
    may: ["owner", "operator"],
    call: (db) => runledger.listWorkflowRuns(db, { ...ALL, status: "RUNNING", text: "key" }),
  },
  countWorkflowRuns: {
    may: ["owner", "operator"],
    call: (db) => runledger.countWorkflowRuns(db, ALL),
  },

  // Workflows: producers and handlers start runs and append to them, workers move them, operators do the rest.
  enqueueWorkflowRun: {
    may: ["owner", "enqueue", "worker"],
    call: (db) => runledger.enqueueWorkflowRun(db, { ...RUN, idempotencyKey: newId() }),
  },
  enqueueWorkflowRuns: {
    may: ["owner", "enqueue", "worker"],
    call: (db) => runledger.enqueueWorkflowRuns(db, [RUN, RUN]),
  },
  appendWorkflowSteps: {
    may: ["owner", "worker", "operator"],
    call: async (db, admin) =>
      runledger.appendWorkflowSteps(db, await runOf(admin), {
        ...ALL,
        windowStepKey: "gate",
        mutationKey: "k",
        steps: [{ executionKind: "JOB", stepKey: "more", jobType: "b", payload: 1, dependencies: [] }],
      }),
  },
  expireWorkflowGates: {
    may: ["owner", "worker", "operator"],
    call: async (db, admin) => {
      await runOf(admin);
      await admin`update runledger.workflow_steps set gate_expires_at = clock_timestamp() where step_key = 'gate'
        and status = 'WAITING_FOR_EXTERNAL'`;
      assert(await runledger.expireWorkflowGates(db) > 0);
    },
  },
  completeExternalStep: {
    may: ["owner", "operator"],
    call: async (db, admin) =>
      runledger.completeExternalStep(db, await runOf(admin), "gate", {
        ...ALL,
        completion: { status: "SUCCEEDED", output: 1 },
      }),
  },
  cancelWorkflowRun: {
    may: ["owner", "operator"],
    call: async (db, admin) => runledger.cancelWorkflowRun(db, await runOf(admin), ALL),
  },
  recoverWorkflowRun: {
    may: ["owner", "operator"],
    call: async (db, admin) => {
      const runId = await runOf(admin);
      await runledger.cancelWorkflowRun(admin, runId, ALL);
      await runledger.recoverWorkflowRun(db, runId, { ...ALL, recoveryKey: "k", mode: "RESUME" });
    },
  },
  deleteFinishedWorkflowRuns: {
    may: ["owner", "operator"],
    call: (db) => runledger.deleteFinishedWorkflowRuns(db, { olderThanMs: 3_600_000 }),
  },
  getWorkflowRun: {
    may: ["owner", "operator"],
    call: async (db, admin) => runledger.getWorkflowRun(db, await runOf(admin), ALL),
  },
  getWorkflowResult: {
    may: ["owner", "operator"],
    call: async (db, admin) => {
      const { runId } = await runledger.enqueueWorkflowRun(admin, { ...RUN, steps: RUN.steps.slice(0, 1) });
      await runledger.completeExternalStep(admin, runId, "gate", {
        ...ALL,
        completion: { status: "SUCCEEDED", output: 1 },
      });
      assert.equal(await runledger.getWorkflowResult(db, runId, ALL), 1);
    },
  },
  listWorkflowSteps: {
    may: ["owner", "operator"],
    call: async (db, admin) => runledger.listWorkflowSteps(db, await runOf(admin), ALL),
  },
  listWorkflowStepDependencies: {
    may: ["owner", "operator"],
    call: async (db, admin) => runledger.listWorkflowStepDependencies(db, await runOf(admin), ALL),
  },
  listWorkflowRunMutations: {
    may: ["owner", "operator"],
    call: async (db, admin) => runledger.listWorkflowRunMutations(db, await runOf(admin), ALL),
  },
};

const PUBLIC_FUNCTIONS = Object.entries(runledger)
  .filter(([, value]) => typeof value === "function").map(([name]) => name);

Deno.test("every public function is placed: who may call it is decided, not left open", () => {
  assert.deepEqual(
    PUBLIC_FUNCTIONS.filter((name) => !(name in MATRIX)),
    [],
    "place them in the matrix of this test and, if they need a privilege, in docs/roles.sql",
  );
  assert.deepEqual(Object.keys(MATRIX).filter((name) => !PUBLIC_FUNCTIONS.includes(name)), []);
});

Deno.test("each role may call what is placed with it, and for every other function its privileges do not do", async () => {
  await using database = await openRoleDatabase();
  const { admin, as } = database;
  const wrong: string[] = [];
  for (const [name, { may, call }] of Object.entries(MATRIX)) {
    for (const role of ROLES) {
      let why = "";
      const outcome = await call(as[role], admin).then(() => "allowed", (error: unknown) => {
        if (isRunledgerError(error, "db.permission_denied")) {
          why = `: ${error.internalMessage}`;
          return "denied";
        }
        throw new Error(`${name} as ${role}`, {
          cause: isRunledgerError(error) ? error.internalCause ?? error : error,
        });
      });
      if (outcome !== (may.includes(role) ? "allowed" : "denied")) wrong.push(`${name}: ${role} is ${outcome}${why}`);
    }
  }
  assert.deepEqual(wrong, []);
  await assertInvariants(admin);
});

/** Raw SQL that a role must not be able to run, whatever the library would have done. */
const FORBIDDEN: Readonly<Record<Exclude<Role, "owner">, readonly string[]>> = {
  enqueue: [
    "select count(*) from runledger.job_queue",
    "select count(*) from runledger.job_definitions",
    "select count(*) from runledger.job_schedules",
    "select count(*) from runledger.job_events",
    "select count(*) from runledger.job_attempts",
    "select count(*) from runledger.migration_history",
    "insert into runledger.job_queue default values",
    "insert into runledger.job_events (job_id, seq, run_number, event_type) values (gen_random_uuid(), 1, 1, 'ENQUEUED')",
    "select runledger.delete_finished_jobs('[]', '1 day', 1, true)",
    "select runledger.new_id()",
    "create table runledger.mine ()",
  ],
  worker: [
    "update runledger.job_events set payload = null",
    "delete from runledger.job_events",
    "truncate runledger.job_events",
    "insert into runledger.job_events (job_id, seq, run_number, event_type, occurred_at) values (gen_random_uuid(), 1, 1, 'ENQUEUED', now())",
    "insert into runledger.job_events (job_id, seq, run_number, event_type, posted_xid) values (gen_random_uuid(), 1, 1, 'ENQUEUED', '1')",
    "select payload from runledger.job_events",
    "delete from runledger.job_queue",
    "truncate runledger.job_queue",
    "insert into runledger.job_queue (id) values (gen_random_uuid())",
    "update runledger.job_queue set payload = '1'",
    "update runledger.job_queue set organization_id = null",
    "update runledger.job_queue set max_attempts = 100",
    "select idempotency_key from runledger.job_queue",
    "select enqueue_request from runledger.job_queue",
    "select runledger.edit_pending_jobs('[]', 'all', null, '{}', '{}')",
    "insert into runledger.operator_actions (action, subject) values ('SCHEDULE_RUN', 's')",
    "delete from runledger.job_dead_letters",
    "select count(*) from runledger.job_dead_letters",
    "update runledger.job_definitions set is_enabled = true",
    "insert into runledger.job_definitions (job_type, is_enabled) values ('c', true)",
    "delete from runledger.job_definitions",
    "update runledger.job_schedules set is_active = true",
    "update runledger.job_schedules set organization_id = null",
    "delete from runledger.job_schedules",
    "select runledger.set_job_definitions_enabled('[]', true, '{}')",
    "select message from runledger.job_logs",
    "update runledger.job_logs set message = 'x'",
    "delete from runledger.job_logs",
    "select runledger.delete_finished_jobs('[]', '1 day', 1, true)",
    "alter table runledger.job_events disable trigger all",
    "drop table runledger.job_events",
    "create function runledger.mine() returns integer language sql return 1",
    "update runledger.migration_history set checksum = checksum",
  ],
  operator: [
    "update runledger.job_events set payload = null",
    "delete from runledger.job_events",
    "truncate runledger.job_events",
    "insert into runledger.job_events (job_id, seq, run_number, event_type, occurred_at) values (gen_random_uuid(), 1, 1, 'ENQUEUED', now())",
    "delete from runledger.job_queue",
    "truncate runledger.job_queue cascade",
    "update runledger.job_queue set payload = '1'",
    "update runledger.job_queue set priority = 9",
    "insert into runledger.operator_actions (action, subject, occurred_at) values ('SCHEDULE_RUN', 's', now())",
    "update runledger.operator_actions set actor = 'somebody else'",
    "delete from runledger.operator_actions",
    "truncate runledger.operator_actions",
    "update runledger.job_queue set output = '1'",
    "update runledger.job_queue set organization_id = null",
    "update runledger.job_queue set idempotency_key = null",
    "insert into runledger.job_queue (id, idempotency_key) values (gen_random_uuid(), 'k')",
    "insert into runledger.job_dead_letters (job_id) values (gen_random_uuid())",
    "insert into runledger.job_definitions (job_type) values ('c')",
    "update runledger.job_definitions set max_attempts = 9",
    "update runledger.job_schedules set payload_template = '1'",
    "insert into runledger.job_schedules (id) values (gen_random_uuid())",
    "delete from runledger.job_logs",
    "alter table runledger.job_events disable trigger all",
    "create table runledger.mine ()",
    "delete from runledger.migration_history",
  ],
};

Deno.test("no running process can rewrite history, delete jobs or reach beyond its columns, also by raw SQL", async () => {
  await using database = await openRoleDatabase();
  for (const [role, statements] of Object.entries(FORBIDDEN)) {
    for (const statement of statements) {
      await assert.rejects(
        // Nor does it help to pretend to be the retention function.
        database.as[role as Role].begin(async (tx) => {
          await tx`set local runledger.retention = 'on'`;
          await tx.unsafe(statement);
        }),
        (error) => error instanceof postgres.PostgresError && error.code === "42501",
        `${role}: ${statement}`,
      );
    }
  }
});

Deno.test("only the owner can apply a migration", async () => {
  await using database = await openRoleDatabase();
  const next = [
    ...MIGRATIONS,
    { version: MIGRATIONS.length + 1, name: "more", sql: "-- breaking: no\ncreate table runledger.more ();" },
  ];
  for (const role of ["enqueue", "worker", "operator"] as const) {
    await assert.rejects(
      applyMigrations(database.as[role], next),
      (error) => isRunledgerError(error, "db.permission_denied"),
    );
  }
  const { applied } = await applyMigrations(database.as.owner, next);
  assert.deepEqual(applied, [next.length]);
  await runRolesScript(database.url);
  const [row] = await database.admin`
    select tableowner from pg_tables where schemaname = 'runledger' and tablename = 'more'`;
  assert.equal(row?.["tableowner"], "runledger_owner");
});

/** Every privilege in the schema, as the catalog has it. */
async function privileges(admin: Sql): Promise<readonly string[]> {
  const rows = await admin<{ entry: string }[]>`
    select format('schema %s %s %s', nspname, nspowner::regrole, nspacl) as entry from pg_namespace
      where nspname = 'runledger'
    union all
    select format('%s %s %s %s', relkind, oid::regclass, relowner::regrole, relacl) from pg_class
      where relnamespace = 'runledger'::regnamespace
    union all
    select format('column %s.%s %s', attrelid::regclass, attname, attacl) from pg_attribute
      join pg_class on pg_class.oid = attrelid
      where relnamespace = 'runledger'::regnamespace and attacl is not null and attacl <> '{}'
    union all
    select format('routine %s %s %s', oid::regprocedure, proowner::regrole, proacl) from pg_proc
      where pronamespace = 'runledger'::regnamespace
    order by entry`;
  return rows.map(({ entry }) => entry);
}

Deno.test("the roles script may run again, at once in many databases, and takes back what nobody should have", async () => {
  await using database = await openRoleDatabase();
  await using other = await createEphemeralDatabase();
  const { admin } = database;
  const before = await privileges(admin);
  assert(before.length > 10);
  await admin.unsafe(`
    grant all on all tables in schema runledger to runledger_worker, public;
    grant update (payload) on runledger.job_queue to runledger_operator;
    grant all on schema runledger to runledger_enqueue;
    grant execute on all functions in schema runledger to public`);
  assert.notDeepEqual(await privileges(admin), before);
  await Promise.all([database.url, other.url].map(runRolesScript));
  assert.deepEqual(await privileges(admin), before);
});

Deno.test("a role that is no superuser can migrate and hand the schema over", async () => {
  const login = `rl_deploy_${randomUUID().slice(0, 8)}`;
  {
    await using database = await createEphemeralDatabase({ migrated: false });
    const admin = postgres(database.url, { max: 1, onnotice: () => {} });
    await runRolesScript(database.url); // before the first migration: the schema is empty
    await admin.unsafe(`create role ${login} login password '${login}' createrole in role runledger_owner`);
    const [{ name } = { name: "" }] = await admin<{ name: string }[]>`select current_database() as name`;
    await admin.unsafe(`grant create on database ${name} to ${login}`);
    const url = urlOf(database.url, login);
    const deploy = postgres(url, { max: 1, onnotice: () => {} });
    await runledger.migrate(deploy);
    await runRolesScript(url);
    const owners = await admin`
      select distinct relowner::regrole::text as owner from pg_class where relnamespace = 'runledger'::regnamespace
      union select proowner::regrole::text from pg_proc where pronamespace = 'runledger'::regnamespace
      union select nspowner::regrole::text from pg_namespace where nspname = 'runledger'`;
    assert.deepEqual(owners.map((row) => row["owner"]), ["runledger_owner"]);
    await runledger.ensureSchemaCompatible(deploy);
    await Promise.all([deploy.end({ timeout: 1 }), admin.end({ timeout: 1 })]);
  }
  await dropLogins([login]);
});

Deno.test("nobody but the roles has any privilege, and the producers' only ones are to call the enqueue functions", async () => {
  await using database = await openRoleDatabase();
  const granted = await database.admin<{ name: string; role: string }[]>`
    with roles (role) as (values ('public'), ('runledger_enqueue'), ('runledger_worker'), ('runledger_operator'))
    select oid::regprocedure::text as name, role from pg_proc, roles
    where pronamespace = 'runledger'::regnamespace and has_function_privilege(role, oid, 'execute')
    union all
    select oid::regclass::text, role from pg_class, roles
    where relnamespace = 'runledger'::regnamespace and relkind in ('r', 'v', 'p', 'm') and role in ('public', 'runledger_enqueue')
      and has_any_column_privilege(role, oid, 'select, insert, update, references')
    order by role, name`;
  const byRole = (role: string) => granted.filter((row) => row.role === role).map((row) => row.name);
  assert.deepEqual(byRole("public"), []);
  assert.deepEqual(byRole("runledger_enqueue"), [
    "runledger.enqueue_jobs(uuid[],text[],jsonb,jsonb)",
    "runledger.enqueue_workflow_runs(jsonb)",
  ]);
  assert(!byRole("runledger_worker").some((name) => name.startsWith("runledger.delete_finished_jobs")));
});

Deno.test("each function that runs with its owner's rights pins its search path, temporary objects last, and is not public", async () => {
  await using database = await openRoleDatabase();
  const rows = await database.admin<{ name: string; config: string[] | null; definer: boolean; open: boolean }[]>`
    select oid::regprocedure::text as name, proconfig as config, prosecdef as definer,
      has_function_privilege('public', oid, 'execute') as open
    from pg_proc where pronamespace = 'runledger'::regnamespace and prosqlbody is null`;
  assert(rows.some(({ definer }) => definer));
  for (const { name, config, open } of rows) {
    assert((config ?? []).includes("search_path=pg_catalog, pg_temp"), `${name} has no fixed search_path`);
    assert(!open, `${name} is executable by everybody`);
  }
});

Deno.test("an enqueue cannot be hijacked by a search path, temporary objects, functions, operators or types of its caller", async () => {
  await using database = await openRoleDatabase();
  const { admin, as, logins } = database;
  await admin.unsafe(`create schema evil authorization ${logins.enqueue}; grant temporary on database
    ${new URL(database.url).pathname.slice(1)} to ${logins.enqueue}`);
  const reserved = await as.enqueue.reserve();
  try {
    await reserved.unsafe(`
      create function evil.caught() returns boolean language plpgsql as $$
        begin raise exception 'hijacked as %', current_user; end $$;
      create function evil.differ(jsonb, jsonb) returns boolean language sql as 'select evil.caught()';
      create function evil.equal(text, text) returns boolean language sql as 'select evil.caught()';
      create function evil.same(uuid, uuid) returns boolean language sql as 'select evil.caught()';
      create function evil.pick(jsonb, text) returns jsonb language sql as 'select evil.caught()::text::jsonb';
      create operator evil.<> (leftarg = jsonb, rightarg = jsonb, function = evil.differ);
      create operator evil.= (leftarg = text, rightarg = text, function = evil.equal);
      create operator evil.= (leftarg = uuid, rightarg = uuid, function = evil.same);
      create operator evil.-> (leftarg = jsonb, rightarg = text, function = evil.pick);
      create function evil.clock_timestamp() returns timestamptz language sql as 'select evil.caught()::text::timestamptz';
      grant usage on schema evil to public;
      create table evil.job_queue (id integer);
      create table evil.job_definitions (id integer);
      create temporary table job_queue (id integer);
      create temporary table job_definitions (id integer);
      create temporary table input (id integer);
      create temporary table pg_settings (id integer);
      create type pg_temp.uuid as (a integer);
      set search_path = pg_temp, evil, pg_catalog;
    `);
    const keyed = request({ idempotencyKey: "k", organizationId: newId() });
    const first = await runledger.enqueueJob(reserved, keyed);
    assert.deepEqual(await runledger.enqueueJob(reserved, keyed), { ...first, disposition: "existing" });
    await runledger.enqueueJob(reserved, request());
    await assert.rejects(
      runledger.enqueueJob(reserved, { ...keyed, payload: 2 }),
      (error) => isRunledgerError(error, "job.idempotency_conflict"),
    );
    const [{ count } = { count: 0 }] = await admin<{ count: number }[]>`
      select count(*)::integer as count from runledger.job_queue`;
    assert.equal(count, 2);
    // The trap is a good one: a function without a fixed path walks into it.
    await admin`alter function runledger.enqueue_jobs(uuid[], text[], jsonb, jsonb) reset search_path`;
    await reserved`drop type pg_temp.uuid`;
    await assert.rejects(runledger.enqueueJob(reserved, keyed), (error) => {
      assert(isRunledgerError(error));
      assert.match(error.internalMessage ?? "", /hijacked as runledger_owner/);
      return true;
    });
  } finally {
    reserved.release();
  }
});

Deno.test("a producer cannot tell a key that another organization used from one that nobody used", async () => {
  await using database = await openRoleDatabase();
  const { admin, as } = database;
  const [theirs, ours] = [newId(), newId()];
  await runledger.enqueueJob(admin, request({ organizationId: theirs, idempotencyKey: "k", payload: "theirs" }));
  await runledger.enqueueJob(admin, request({ idempotencyKey: "k", payload: "global" }));
  const { disposition, runNumber, status } = await runledger.enqueueJob(
    as.enqueue,
    request({ organizationId: ours, idempotencyKey: "k", payload: "ours" }),
  );
  assert.deepEqual([disposition, runNumber, status], ["inserted", 1, "PENDING"]);
  // Who passes another's organization is taken at his word: the id is trusted input. Even so no value comes back.
  await assert.rejects(
    runledger.enqueueJob(as.enqueue, request({ organizationId: theirs, idempotencyKey: "k", payload: "guess" })),
    (error) => {
      assert(isRunledgerError(error, "job.idempotency_conflict"));
      assert.deepEqual(error.details, { fields: ["payload"] });
      return true;
    },
  );
});
