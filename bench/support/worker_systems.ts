/**
 * The queues that the worker benchmark runs: how each is installed, filled, run in a process and found to be empty.
 *
 * @module
 */

import { defineJob } from "@runledger/core";
import { enqueueJobs, upsertJobDefinitions } from "@runledger/postgres";
import type { Queryable } from "@runledger/postgres";
import { JobCatalog, type JobsConfig, runWorker } from "@runledger/runtime";
import { Logger, makeWorkerUtils, run } from "graphile-worker";
import pg from "pg";
import { PgBoss } from "pg-boss";
import postgres from "postgres";
import { z } from "zod";
import { claimAndSettleAtCeiling, createCeiling, enqueueAtCeiling } from "./ceiling.ts";

/** What every job carries: when it was enqueued, in milliseconds since 1970. */
export type BenchPayload = { readonly sentAt: number };

/** Does the work of one job. */
export type BenchHandler = (payload: BenchPayload) => Promise<void>;

/** Something that was opened and must be closed. */
interface Closeable {
  close(): Promise<void>;
}

/** Puts jobs on a queue. */
export interface Producer extends Closeable {
  enqueue(payloads: readonly BenchPayload[]): Promise<void>;
}

/** A queue. Its database exists and has Runledger's schema, whether it needs it or not. */
export interface System {
  /** What becomes of a job that succeeded. */
  readonly history: "kept, with a ledger" | "kept" | "deleted";
  /** Its large tables. */
  readonly tables: readonly string[];
  /** One row with `is_left`: whether any job has not ended. */
  readonly left: string;
  /** Makes its tables and whatever a job needs. */
  install(url: string): Promise<void>;
  /** Opens what enqueues. */
  openProducer(url: string): Promise<Producer>;
  /** Starts a worker; closing it waits until what it has done is written. */
  startWorker(url: string, handler: BenchHandler): Promise<Closeable>;
}

const QUEUE = "noop";

/** Connections of a worker process, of whichever system. */
const POOL_SIZE = 10;

/** Connections of whoever enqueues: single jobs at a steady rate must not wait for one another. */
const PRODUCER_POOL_SIZE = 4;

const definition = defineJob({ type: QUEUE, payload: z.object({ sentAt: z.number() }) });

/** A pool of connections, by the driver that Runledger is given. */
type Pool = (url: string, max: number) => { readonly db: Queryable; end(): Promise<void> };

const postgresJs: Pool = (url, max) => {
  const sql = postgres(url, { max, onnotice: () => {} });
  return { db: sql, end: () => sql.end() };
};

const nodePostgres: Pool = (url, max) => {
  // It keeps its connections, as postgres.js does.
  const pool = new pg.Pool({ connectionString: url, max, idleTimeoutMillis: 0 });
  return { db: pool, end: () => pool.end() };
};

function runledger(config: Partial<JobsConfig>, open: Pool = postgresJs): System {
  return {
    history: "kept, with a ledger",
    tables: ["runledger.job_queue", "runledger.job_events"],
    left: `select exists (
      select from runledger.job_queue where status = 'LEASED'
      union all
      select from runledger.job_queue where status = 'PENDING'
    ) as is_left`,
    install: async (url) => {
      await using sql = opened(url, 1);
      const settings = { version: 1, maxAttempts: 3, timeoutSeconds: 300, priority: 0 };
      await upsertJobDefinitions(sql.pool, [{ type: QUEUE, ...settings }]);
    },
    openProducer: (url) => {
      const { db, end } = open(url, PRODUCER_POOL_SIZE);
      return Promise.resolve({
        enqueue: async (payloads) => {
          await enqueueJobs(db, payloads.map((payload) => ({ jobType: QUEUE, payload })));
        },
        close: end,
      });
    },
    startWorker: (url, handler) => {
      const { db, end } = open(url, POOL_SIZE);
      const stop = new AbortController();
      const catalog = new JobCatalog().handle(definition, handler);
      const stopped = runWorker(db, { catalog, config, signal: stop.signal });
      return Promise.resolve({
        close: async () => {
          stop.abort();
          await stopped;
          await end();
        },
      });
    },
  };
}

/** Two loops that settle what they claim and call no handler: the least SQL that could do it. */
const ceiling: System = {
  history: "kept, with a ledger",
  tables: ["ceiling.jobs", "ceiling.events"],
  left: "select exists (select from ceiling.jobs where status in ('PENDING', 'LEASED')) as is_left",
  install: async (url) => {
    await using sql = opened(url, 1);
    await createCeiling(sql.pool);
  },
  openProducer: (url) => {
    const sql = postgres(url, { max: PRODUCER_POOL_SIZE, onnotice: () => {} });
    return Promise.resolve({ enqueue: (payloads) => enqueueAtCeiling(sql, payloads), close: () => sql.end() });
  },
  startWorker: (url) => {
    const sql = postgres(url, { max: 2, onnotice: () => {} });
    let isStopped = false;
    const loops = [0, 1].map(async (loop) => {
      const workerId = `worker-${globalThis.crypto.randomUUID()}-${loop}`;
      while (!isStopped) {
        const count = await claimAndSettleAtCeiling(sql, 500, workerId);
        if (count === 0) await new Promise((resolve) => setTimeout(resolve, 5));
      }
    });
    return Promise.resolve({
      close: async () => {
        isStopped = true;
        await Promise.all(loops);
        await sql.end();
      },
    });
  },
};

/** As its page on performance has it; `batched` is what that page measures. */
function graphile(mode: "batched" | "plain"): System {
  const logger = new Logger(() => () => {});
  return {
    history: "deleted",
    tables: ["graphile_worker._private_jobs"],
    left: "select exists (select from graphile_worker._private_jobs) as is_left",
    install: async (url) => {
      const utils = await makeWorkerUtils({ connectionString: url, logger });
      await utils.migrate();
      await utils.release();
    },
    openProducer: async (url) => {
      const utils = await makeWorkerUtils({ connectionString: url, logger, maxPoolSize: PRODUCER_POOL_SIZE });
      return {
        enqueue: async (payloads) => {
          await utils.addJobs(payloads.map((payload) => ({ identifier: QUEUE, payload })));
        },
        close: async () => {
          await utils.release();
        },
      };
    },
    startWorker: async (url, handler) => {
      const runner = await run({
        preset: {
          worker: {
            connectionString: url,
            concurrentJobs: 24,
            maxPoolSize: POOL_SIZE,
            ...(mode === "batched"
              ? { localQueue: { size: 500 }, completeJobBatchDelay: 0, failJobBatchDelay: 0 }
              : {}),
          },
        },
        logger,
        noHandleSignals: true,
        taskList: { [QUEUE]: async (payload) => await handler(payload as BenchPayload) },
      });
      return { close: () => runner.stop() };
    },
  };
}

/** Large batches that are fetched without a pause, or single jobs and NOTIFY. */
function pgBoss(mode: "batched" | "notify"): System {
  const open = async (url: string, isWorker: boolean) => {
    const boss = new PgBoss({
      connectionString: url,
      max: isWorker ? POOL_SIZE : PRODUCER_POOL_SIZE,
      supervise: false,
      schedule: false,
      useListenNotify: isWorker && mode === "notify",
    });
    boss.on("error", (error) => console.error(error));
    await boss.start();
    return boss;
  };
  return {
    history: "kept",
    tables: ["pgboss.job"],
    left: "select exists (select from pgboss.job where name = 'noop' and state < 'completed') as is_left",
    install: async (url) => {
      const boss = await open(url, false);
      await boss.createQueue(QUEUE, { partition: true, notify: mode === "notify" });
      await boss.stop({ graceful: false });
    },
    openProducer: async (url) => {
      const boss = await open(url, false);
      return {
        enqueue: async (payloads) => {
          await boss.insert(QUEUE, payloads.map((data) => ({ data })));
        },
        close: () => boss.stop({ graceful: false }),
      };
    },
    startWorker: async (url, handler) => {
      const boss = await open(url, true);
      const settings = mode === "batched"
        ? { batchSize: 100, localConcurrency: 8, burstWhenBatchFull: true, pollingIntervalSeconds: 0.5 }
        : { batchSize: 1, localConcurrency: 8, pollingIntervalSeconds: 0.5 };
      await boss.work<BenchPayload>(QUEUE, settings, async (jobs) => {
        await Promise.all(jobs.map(({ data }) => handler(data)));
      });
      return { close: () => boss.stop({ graceful: true }) };
    },
  };
}

const TUNED: Partial<JobsConfig> = { claimBatchSize: 500, maxGlobalConcurrency: 500 };

/** All of them, by the names of the tables in bench/README.md. */
export const SYSTEMS: Readonly<Record<string, System>> = {
  "ceiling": ceiling,
  "Runledger, default": runledger({}),
  "Runledger, default, node-postgres": runledger({}, nodePostgres),
  "Runledger, default, on Node": runledger({}),
  "Runledger, tuned": runledger(TUNED),
  "Runledger, tuned, node-postgres": runledger(TUNED, nodePostgres),
  "Runledger, tuned, on Node": runledger(TUNED),
  "graphile-worker, batched": graphile("batched"),
  "graphile-worker, default": graphile("plain"),
  "pg-boss, batched": pgBoss("batched"),
  "pg-boss, notify": pgBoss("notify"),
};

/** The system of a name. */
export function systemOf(name: string): System {
  const system = SYSTEMS[name];
  if (system === undefined) throw new TypeError(`there is no system ${name}`);
  return system;
}

function opened(url: string, max: number): { readonly pool: postgres.Sql } & AsyncDisposable {
  const pool = postgres(url, { max, onnotice: () => {} });
  return { pool, [Symbol.asyncDispose]: () => pool.end() };
}
