/**
 * The two contestants of the queue benchmark behind one interface: Runledger through its public functions, and the ceiling.
 *
 * @module
 */

import type { JsonValue } from "@runledger/core";
import type { ClaimCursor } from "@runledger/postgres";
import { claimJobs, createClaimCursor, enqueueJobs, settleJobs, upsertJobDefinitions } from "@runledger/postgres";
import type postgres from "postgres";
import { claimAndSettleAtCeiling, claimAndSettleLean, createCeiling, enqueueAtCeiling } from "./ceiling.ts";
import type { BenchDatabase } from "./server.ts";

/** A queue that is measured. */
export interface Workload {
  /** Its database. */
  readonly database: BenchDatabase;
  /** Enqueues payloads, spread over the job types. */
  enqueue(sql: postgres.Sql, payloads: readonly JsonValue[]): Promise<void>;
  /** Claims up to `limit` jobs and settles them as succeeded; gives how many. */
  claimAndSettle(connection: number, limit: number): Promise<number>;
  /** Takes all jobs off the queue that earlier rounds left on it. */
  clear(): Promise<void>;
  /** Vacuums and checkpoints, so that no round pays for an earlier one. */
  tidy(): Promise<void>;
}

/** Runledger with the given job types. */
export async function openRunledger(
  database: BenchDatabase,
  jobTypes: readonly string[] = ["noop"],
): Promise<Workload> {
  const [sql] = database.connections;
  const settings = { version: 1, maxAttempts: 3, timeoutSeconds: 300, priority: 0 };
  await upsertJobDefinitions(sql, jobTypes.map((type) => ({ type, ...settings })));
  const cursors = [createClaimCursor(), createClaimCursor()] as const;
  return {
    database,
    enqueue: async (on, payloads) => {
      const jobTypeOf = (index: number) => jobTypes[index % jobTypes.length] as string;
      await enqueueJobs(on, payloads.map((payload, index) => ({ jobType: jobTypeOf(index), payload })));
    },
    claimAndSettle: async (connection, limit) => {
      const on = database.connections[connection] as postgres.Sql;
      const jobs = await claimJobs(on, {
        jobTypes,
        workerId: `worker-${connection}`,
        limit,
        cursor: cursors[connection] as ClaimCursor,
      });
      const settled = await settleJobs(on, jobs.map((lease) => ({ lease, outcome: { kind: "succeeded" } })));
      if (!settled.every((result) => result.settled)) throw new Error("a lease was lost during the benchmark");
      return jobs.length;
    },
    clear: async () => {
      await sql.unsafe(`
        update runledger.job_queue
        set status = 'CANCELED', finished_at = clock_timestamp(), event_seq = event_seq + 1
        where status = 'PENDING'`);
    },
    tidy: () => tidy(sql, ["runledger.job_queue", "runledger.job_events"]),
  };
}

/** The ceiling, or its lean form. */
export async function openCeiling(database: BenchDatabase, form: "ceiling" | "lean" = "ceiling"): Promise<Workload> {
  const [sql] = database.connections;
  await createCeiling(sql);
  const claimAndSettle = form === "lean" ? claimAndSettleLean : claimAndSettleAtCeiling;
  return {
    database,
    enqueue: (on, payloads) => enqueueAtCeiling(on, payloads),
    claimAndSettle: (connection, limit) =>
      claimAndSettle(database.connections[connection] as postgres.Sql, limit, `worker-${connection}`),
    clear: async () => {
      await sql.unsafe("update ceiling.jobs set status = 'CANCELED', finished_at = now() where status = 'PENDING'");
    },
    tidy: () => tidy(sql, ["ceiling.jobs", "ceiling.events"]),
  };
}

async function tidy(sql: postgres.Sql, tables: readonly string[]): Promise<void> {
  for (const table of tables) await sql.unsafe(`vacuum (analyze, truncate false) ${table}`);
  await sql.unsafe("checkpoint");
}

/** Enqueues `count` jobs in batches on one connection. */
export async function enqueueAll(
  workload: Workload,
  count: number,
  batch: number,
  payload: JsonValue,
): Promise<void> {
  const payloads = Array.from({ length: batch }, () => payload);
  for (let done = 0; done < count; done += batch) await workload.enqueue(workload.database.connections[0], payloads);
}

/** Claims and settles `count` jobs in batches; each connection takes its share. */
export async function drain(workload: Workload, count: number, batch: number, connections: number): Promise<void> {
  let left = count;
  // Nothing may be left but what the other connection is claiming just now.
  let misses = 0;
  await Promise.all(Array.from({ length: connections }, async (_, connection) => {
    while (left > 0) {
      const limit = Math.min(batch, left);
      left -= limit;
      const taken = await workload.claimAndSettle(connection, limit);
      if (taken === 0 && ++misses > 100) throw new Error("the queue ran dry during the benchmark");
      left += limit - taken;
    }
  }));
}
