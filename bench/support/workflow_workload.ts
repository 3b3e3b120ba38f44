/**
 * The two contestants of the workflow benchmark behind one interface: Runledger through its public functions, and the ceiling.
 *
 * @module
 */

import type { ClaimCursor, ClaimedJob } from "@runledger/postgres";
import {
  claimJobs,
  createClaimCursor,
  enqueueWorkflowRuns,
  settleJobs,
  upsertJobDefinitions,
} from "@runledger/postgres";
import { setTimeout } from "node:timers/promises";
import type postgres from "postgres";
import type { BenchDatabase } from "./server.ts";
import { claimAndSettleStepsAtCeiling, createWorkflowCeiling, enqueueRunsAtCeiling } from "./workflow_ceiling.ts";
import type { Shape } from "./workflow_shapes.ts";

/** Something that runs workflows and is measured. */
export interface WorkflowWorkload {
  /** Its database. */
  readonly database: BenchDatabase;
  /** Enqueues runs in one call. */
  enqueue(sql: postgres.Sql, shape: Shape, count: number): Promise<void>;
  /** Claims up to `limit` steps and settles them as succeeded; gives how many. */
  claimAndSettle(connection: number, limit: number): Promise<number>;
  /** Vacuums and checkpoints, so that no round pays for an earlier one. */
  tidy(): Promise<void>;
}

const TABLES = ["workflow_runs", "workflow_steps", "workflow_step_dependencies", "job_queue", "job_events"];

/** Runledger. */
export async function openWorkflows(database: BenchDatabase): Promise<WorkflowWorkload> {
  const [sql] = database.connections;
  await upsertJobDefinitions(sql, [{ type: "noop", version: 1, maxAttempts: 3, timeoutSeconds: 300, priority: 0 }]);
  const cursors = [createClaimCursor(), createClaimCursor()] as const;
  return {
    database,
    enqueue: async (on, { request }, count) => {
      await enqueueWorkflowRuns(on, Array.from({ length: count }, () => request));
    },
    claimAndSettle: async (connection, limit) => {
      const on = database.connections[connection] as postgres.Sql;
      const jobs = await claimJobs(on, {
        jobTypes: ["noop"],
        workerId: `worker-${connection}`,
        limit,
        cursor: cursors[connection] as ClaimCursor,
      });
      const settled = await settleJobs(on, jobs.map((lease) => ({ lease, outcome: { kind: "succeeded" } })));
      if (!settled.every((result) => result.settled)) throw new Error("a lease was lost during the benchmark");
      return jobs.length;
    },
    tidy: () => tidy(sql, TABLES.map((table) => `runledger.${table}`)),
  };
}

/** The ceiling. */
export async function openWorkflowCeiling(database: BenchDatabase): Promise<WorkflowWorkload> {
  const [sql] = database.connections;
  await createWorkflowCeiling(sql);
  const tables = ["runs", "steps", "edges", "jobs", "events"].map((table) => `ceiling.${table}`);
  return {
    database,
    enqueue: (on, shape, count) => enqueueRunsAtCeiling(on, shape, count),
    claimAndSettle: (connection, limit) =>
      claimAndSettleStepsAtCeiling(database.connections[connection] as postgres.Sql, limit, `worker-${connection}`),
    tidy: () => tidy(sql, tables),
  };
}

async function tidy(sql: postgres.Sql, tables: readonly string[]): Promise<void> {
  for (const table of tables) await sql.unsafe(`vacuum (analyze, truncate false) ${table}`);
  await sql.unsafe("checkpoint");
}

/** Enqueues `count` runs in batches on one connection. */
export async function enqueueRuns(
  workload: WorkflowWorkload,
  shape: Shape,
  count: number,
  batch: number,
): Promise<void> {
  for (let done = 0; done < count; done += batch) {
    await workload.enqueue(workload.database.connections[0], shape, Math.min(batch, count - done));
  }
}

/** Two loops that claim and settle until `steps` steps have ended, releasing one another's next ones. */
export async function runSteps(workload: WorkflowWorkload, steps: number, batch: number): Promise<void> {
  let left = steps;
  const deadline = performance.now() + 300_000;
  await Promise.all([0, 1].map(async (connection) => {
    while (left > 0) {
      const ended = await workload.claimAndSettle(connection, batch);
      left -= ended;
      if (ended > 0 || left === 0) continue;
      // The other loop holds all that is due.
      if (performance.now() > deadline) throw new Error("the steps ran dry during the benchmark");
      await setTimeout(1);
    }
  }));
}

/** Claims `count` steps that are due, to be settled later; gives their leases. */
export async function claimSteps(database: BenchDatabase, count: number): Promise<readonly ClaimedJob[]> {
  const claimed: ClaimedJob[] = [];
  while (claimed.length < count) {
    const limit = Math.min(500, count - claimed.length);
    const jobs = await claimJobs(database.connections[0], { jobTypes: ["noop"], workerId: "worker-0", limit });
    if (jobs.length === 0) throw new Error("the steps ran dry during the benchmark");
    claimed.push(...jobs);
  }
  return claimed;
}

/** Settles steps as succeeded, in batches. */
export async function settleSteps(
  database: BenchDatabase,
  leases: readonly ClaimedJob[],
  batch: number,
): Promise<void> {
  for (let done = 0; done < leases.length; done += batch) {
    const settlements = leases.slice(done, done + batch).map((lease) => ({
      lease,
      outcome: { kind: "succeeded" } as const,
    }));
    const settled = await settleJobs(database.connections[0], settlements);
    if (!settled.every((result) => result.settled)) throw new Error("a lease was lost during the benchmark");
  }
}
