/**
 * Every operation that writes, by chance and from many connections at once on a few jobs, runs, keys, types and schedules:
 * nobody is told of the database but of his rival, and every invariant holds. What goes wrong within one statement, between
 * its look and its write, shows here and not where statements take turns.
 *
 * @module
 */

import { isRunledgerError } from "@runledger/core";
import type { JobOutcome, JobRequest, WorkflowRunRequest, WorkflowStepRequest } from "@runledger/core";
import * as runledger from "@runledger/postgres";
import assert from "node:assert/strict";
import process from "node:process";
import { openTestDatabase, testDefinition } from "./support/database.ts";
import { schedule } from "./support/schedules.ts";

const SEED = Number(process.env["RUNLEDGER_STORM_SEED"] ?? Date.now() % 2 ** 31);
const OPERATIONS = Number(process.env["RUNLEDGER_STORM_OPERATIONS"] ?? 6000);
const CONNECTIONS = 8;

/** What the caller of a transaction throws after the operation. */
const UNDONE = new Error("undone");

const ALL = { scope: "all" } as const;
const TYPES = ["s0", "s1", "s2"];
const FAILURE = { kind: "RETRYABLE", code: "storm.failed", message: "it failed" } as const;

/** Numbers below a count that look random and are the same for each seed. */
function generator(seed: number): (count: number) => number {
  let state = seed;
  return (count) => {
    state = Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9 | 0;
    return ((state ^ (state >>> 13)) >>> 0) % Math.max(count, 1);
  };
}

/** What may be worked on, and how chance decides. */
interface World {
  readonly sql: runledger.Queryable;
  readonly jobIds: string[];
  readonly runIds: string[];
  readonly claims: runledger.ClaimedJob[];
  chance(count: number): number;
}

function pick<Item>({ chance }: World, items: readonly Item[]): Item | undefined {
  return items[chance(items.length)];
}

/** Keeps the newest: old ones are found by nobody, which is boring. */
function remember(ids: string[], added: readonly string[]): void {
  ids.push(...added);
  ids.splice(0, Math.max(ids.length - 40, 0));
}

function request(world: World): JobRequest {
  const { chance } = world;
  return {
    jobType: pick(world, TYPES) ?? "",
    payload: { n: chance(2) },
    priority: chance(2),
    ...(chance(2) === 0 ? {} : { idempotencyKey: `key ${chance(4)}` }),
  };
}

function step(stepKey: string, jobType: string, after: readonly string[]): WorkflowStepRequest {
  const dependencies = after.map((
    prerequisiteStepKey,
  ) => ({ prerequisiteStepKey, releaseMode: "ON_SUCCESS" } as const));
  return stepKey.startsWith("gate")
    ? {
      executionKind: "EXTERNAL",
      stepKey,
      payload: null,
      dependencies,
      timeout: { afterMs: 40, outcome: "SUCCEEDED" },
    }
    : { executionKind: "JOB", stepKey, jobType, payload: null, dependencies };
}

function run(world: World): WorkflowRunRequest {
  const { chance } = world;
  const type = pick(world, TYPES) ?? "";
  return {
    workflowType: "storm",
    metadata: {},
    ...(chance(2) === 0 ? {} : { idempotencyKey: `run ${chance(3)}` }),
    ...(chance(2) === 0 ? {} : { activeKey: `active ${chance(3)}` }),
    steps: [step("a", type, []), step("b", type, ["a"]), step("gate", type, []), step("c", type, ["b", "gate"])],
  };
}

function outcome({ chance }: World): JobOutcome {
  const outcomes: readonly JobOutcome[] = [
    { kind: "succeeded", output: 1 },
    { kind: "failed", failure: FAILURE, retryDelayMs: 0 },
    { kind: "failed", failure: { ...FAILURE, kind: "TERMINAL" } },
    { kind: "continued", checkpoint: 1 },
    { kind: "snoozed", delayMs: 0 },
    { kind: "canceled" },
  ];
  return outcomes[chance(2) === 0 ? 0 : chance(outcomes.length)] ?? { kind: "canceled" };
}

function someClaims(world: World): readonly runledger.ClaimedJob[] {
  const { claims, chance } = world;
  // Others may hold the same claims, and settle them, too.
  const some = chance(4) === 0 ? claims.slice(-3) : claims.splice(0, 1 + chance(8));
  return [...new Map(some.map((claim) => [claim.jobId, claim])).values()];
}

/** Everything that writes. */
const OPERATIONS_BY_NAME: Readonly<Record<string, (world: World) => Promise<unknown>>> = {
  enqueue: async (world) => {
    const jobs = await runledger.enqueueJobs(
      world.sql,
      Array.from({ length: 1 + world.chance(4) }, () => request(world)),
    );
    remember(world.jobIds, jobs.map(({ jobId }) => jobId));
  },
  "enqueue runs": async (world) => {
    const runs = await runledger.enqueueWorkflowRuns(
      world.sql,
      Array.from({ length: 1 + world.chance(2) }, () => run(world)),
    );
    remember(world.runIds, runs.map(({ runId }) => runId));
  },
  claim: async (world) => {
    const { chance, claims, sql } = world;
    const options = { jobTypes: TYPES, workerId: "w", limit: 1 + chance(10), leaseMs: 5 + chance(3) * 500 };
    const claimed = await runledger.claimJobs(sql, options);
    claims.push(...claimed);
    remember(world.jobIds, claimed.map(({ jobId }) => jobId));
  },
  settle: (world) =>
    runledger.settleJobs(world.sql, someClaims(world).map((lease) => ({ lease, outcome: outcome(world) }))),
  heartbeat: (world) => runledger.heartbeatJobs(world.sql, world.claims.slice(0, 5)),
  release: (world) => runledger.releaseJobs(world.sql, someClaims(world)),
  log: async (world) => {
    const job = pick(world, world.claims);
    if (job !== undefined) await runledger.appendJobLogs(world.sql, [{ lease: job, level: "info", message: "a line" }]);
  },
  progress: async (world) => {
    const job = pick(world, world.claims);
    if (job !== undefined) await runledger.recordJobProgress(world.sql, job, { progress: { done: 1, total: 2 } });
  },
  reap: (world) => runledger.reapExpiredLeases(world.sql, { limit: 10 }),
  cancel: (world) => runledger.cancelJob(world.sql, pick(world, world.jobIds) ?? "", ALL),
  requeue: (world) =>
    runledger.requeueJob(world.sql, pick(world, world.jobIds) ?? "", {
      ...ALL,
      expectedStatus: world.chance(2) === 0 ? "DEAD_LETTERED" : "CANCELED",
      expectedRunNumber: 1 + world.chance(2),
    }),
  "requeue dead letters": (world) => runledger.requeueDeadLetters(world.sql, { ...ALL, limit: 3 }),
  replay: (world) =>
    runledger.replayJob(world.sql, pick(world, world.jobIds) ?? "", { ...ALL, replayKey: `again ${world.chance(2)}` }),
  edit: (world) =>
    runledger.editJob(world.sql, pick(world, world.jobIds) ?? "", { ...ALL, priority: world.chance(3), payload: 1 }),
  "bulk operations": async (world) => {
    const status = pick(world, ["PENDING", "LEASED", "DEAD_LETTERED", "CANCELED"] as const) ?? "PENDING";
    const { items } = await runledger.previewJobs(world.sql, { ...ALL, status, limit: 20 });
    if (status === "LEASED") await runledger.cancelJobs(world.sql, items.slice(0, 3), ALL);
    else if (status !== "PENDING") await runledger.requeueJobs(world.sql, items, ALL);
    else await runledger.editJobs(world.sql, items, { ...ALL, priority: world.chance(3) });
  },
  retention: async ({ sql, chance }) => {
    const options = { olderThanMs: 0, limit: 5, expiresIdempotencyKeys: chance(2) === 0 };
    if (chance(2) === 0) await runledger.deleteFinishedJobs(sql, options);
    else await runledger.deleteFinishedWorkflowRuns(sql, { ...options, limit: 2 });
  },
  "complete gate": (world) =>
    runledger.completeExternalStep(world.sql, pick(world, world.runIds) ?? "", "gate", {
      ...ALL,
      completion: { status: world.chance(3) === 0 ? "FAILED" : "SUCCEEDED" },
    }),
  "expire gates": ({ sql }) => runledger.expireWorkflowGates(sql, { limit: 5 }),
  append: (world) => {
    const key = world.chance(3);
    return runledger.appendWorkflowSteps(world.sql, pick(world, world.runIds) ?? "", {
      ...ALL,
      windowStepKey: "gate",
      mutationKey: `more ${key}`,
      steps: [step(`x${key}`, TYPES[0] ?? "", ["a"]), step(`y${key}`, TYPES[0] ?? "", [`x${key}`])],
    });
  },
  "cancel run": (world) => runledger.cancelWorkflowRun(world.sql, pick(world, world.runIds) ?? "", ALL),
  recover: async (world) => {
    const mode = world.chance(2) === 0 ? "REPLAY" : "RESUME";
    const { runId } = await runledger.recoverWorkflowRun(world.sql, pick(world, world.runIds) ?? "", {
      ...ALL,
      mode,
      recoveryKey: `${mode} ${world.chance(2)}`,
    });
    remember(world.runIds, [runId]);
  },
  define: ({ sql, chance }) =>
    runledger.upsertJobDefinitions(
      sql,
      [...TYPES, `new ${chance(2 ** 30)}`].map((type) => ({ ...testDefinition(type), maxAttempts: 2 + chance(2) })),
    ),
  "switch type": ({ sql, chance }) => runledger.setJobDefinitionEnabled(sql, "s2", { isEnabled: chance(3) > 0 }),
  configure: ({ sql, chance }) =>
    runledger.upsertJobRuntimeConfig(sql, { jobType: "s1", schemaVersion: 1, config: { n: chance(3) } }),
  sync: ({ sql, chance }) =>
    runledger.syncJobCatalogExactly(sql, {
      definitions: TYPES.map(testDefinition),
      schedules: chance(2) === 0 ? [] : [schedule({ name: `schedule ${chance(3)}`, jobType: "s0", cron: "* * * * *" })],
    }, { jobTypes: TYPES, scheduleNames: ["schedule 0", "schedule 1", "schedule 2"] }),
  "store schedule": ({ sql, chance }) =>
    runledger.upsertJobSchedule(sql, schedule({ name: `schedule ${chance(3)}`, jobType: `s${chance(3)}` })),
  "move schedule": ({ sql, chance }) =>
    runledger.setJobScheduleNextFireAt(sql, `schedule ${chance(3)}`, { ...ALL, nextFireAt: new Date(0) }),
  "switch schedule": ({ sql, chance }) =>
    runledger.setJobScheduleActive(sql, `schedule ${chance(3)}`, { ...ALL, isActive: chance(3) > 0 }),
  "run schedule": ({ sql, chance }) => runledger.runJobScheduleNow(sql, `schedule ${chance(3)}`, ALL),
  "delete schedule": ({ sql, chance }) => runledger.deleteJobSchedule(sql, `schedule ${chance(3)}`, ALL),
  fire: ({ sql }) => runledger.materializeDueSchedules(sql, { limit: 5 }),
  sleep: ({ sql, chance }) => runledger.announceSleep(sql, { workerId: `w${chance(3)}`, jobTypes: TYPES, sleepMs: 50 }),
};

Deno.test("whatever is done at once from eight connections, nobody is told of anything but of his rivals", async () => {
  await using database = await openTestDatabase({ max: CONNECTIONS });
  const { sql } = database;
  await runledger.upsertJobDefinitions(sql, TYPES.map(testDefinition));
  const chance = generator(SEED);
  const world: World = { sql, jobIds: [], runIds: [], claims: [], chance };
  const names = Object.keys(OPERATIONS_BY_NAME);
  const heard = new Map<string, number>();
  const odd = new Set<string>();
  const operate = async (name: string, seed: number) => {
    const isInTransaction = seed % 5 === 0;
    const hear = (what: string) => heard.set(`${name}: ${what}`, (heard.get(`${name}: ${what}`) ?? 0) + 1);
    try {
      const operation = (db: runledger.Queryable) =>
        OPERATIONS_BY_NAME[name]?.({ ...world, sql: db, chance: generator(seed) });
      if (!isInTransaction) await operation(sql);
      else {
        await runledger.atomically(sql, async (tx) => {
          await operation(tx);
          throw UNDONE;
        });
      }
      hear("done");
    } catch (error) {
      if (error === UNDONE) return hear("undone");
      const told = isRunledgerError(error) ? error.code : String(error);
      hear(told);
      // A statement of its own is repeated; of the rare deadlocks that docs/lock_order.md knows, a caller's transaction hears.
      if (isInTransaction && told === "db.serialization_failure") return;
      if (!isRunledgerError(error) || told.startsWith("db.") || told.endsWith(".invalid_request")) {
        odd.add(`${name}: ${told} ${isRunledgerError(error) ? error.internalMessage : ""}`);
      }
    }
  };
  // Keys may contradict each other already.
  while (world.jobIds.length === 0) await operate("enqueue", chance(2 ** 31));
  while (world.runIds.length === 0) await operate("enqueue runs", chance(2 ** 31));
  let left = OPERATIONS;
  await Promise.all(Array.from({ length: CONNECTIONS }, async () => {
    while (left > 0) {
      // What makes work comes as often as all that takes it away; and now and then several do the very same at once.
      const name = chance(3) === 0 ? names[chance(4)] ?? "" : names[chance(names.length)] ?? "";
      const seed = chance(2 ** 31);
      const rivals = chance(4) === 0 ? 4 : 1;
      left -= rivals;
      await Promise.all(Array.from({ length: rivals }, () => operate(name, seed)));
    }
  }));
  const counts = [...heard].sort(([one], [other]) => one < other ? -1 : 1).map(([what, count]) => `${what} ${count}`);
  console.log(
    `storm: RUNLEDGER_STORM_SEED=${SEED} RUNLEDGER_STORM_OPERATIONS=${OPERATIONS}\nstorm: ${counts.join(", ")}`,
  );
  assert.deepEqual([...odd], []);
});
