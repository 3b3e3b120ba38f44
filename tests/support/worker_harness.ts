/**
 * What the tests of the worker share: a worker that runs beside the test, and things to wait for.
 *
 * @module
 */

import type { JobRequest, JsonValue } from "@runledger/core";
import { enqueueJob, getJob, listJobEvents } from "@runledger/postgres";
import type { Job, Queryable, StatementValue } from "@runledger/postgres";
import { runWorker } from "@runledger/runtime";
import type { JobCatalog, JobsConfig, Logger, WorkerOptions, WorkerReport } from "@runledger/runtime";
import assert from "node:assert/strict";
import type postgres from "postgres";

/** A logger that remembers, and that can be waited for. */
export interface RecordingLogger extends Logger {
  readonly lines: readonly string[];
  /** Waits for a line that holds the text, from the beginning on. */
  line(text: string): Promise<void>;
}

export function recordingLogger(): RecordingLogger {
  const lines: string[] = [];
  const waiting: { readonly text: string; readonly resolve: () => void }[] = [];
  const record = (level: string) => (message: string, fields?: unknown) => {
    const line = `${level} ${message} ${JSON.stringify(fields)}`;
    lines.push(line);
    for (const { text, resolve } of waiting) if (line.includes(text)) resolve();
  };
  return {
    lines,
    debug: record("debug"),
    info: record("info"),
    warn: record("warn"),
    error: record("error"),
    line(text) {
      if (lines.some((line) => line.includes(text))) return Promise.resolve();
      return new Promise((resolve) => waiting.push({ text, resolve }));
    },
  };
}

/** A worker that runs until it is stopped, at the end of its block at the latest. */
export interface RunningWorker extends AsyncDisposable {
  readonly logger: RecordingLogger;
  stop(): Promise<WorkerReport>;
}

/** Quick settings: the shortest lease, so heartbeats come three times a second. */
const QUICK: Partial<JobsConfig> = { pollIntervalMs: 20, leaseTtlSeconds: 1 };

export function startWorker(
  db: Queryable,
  catalog: JobCatalog,
  options: Omit<Partial<WorkerOptions>, "catalog" | "signal" | "logger"> = {},
): RunningWorker {
  const stop = new AbortController();
  const logger = recordingLogger();
  const run = runWorker(db, {
    shutdownTimeoutMs: 5000,
    ...options,
    catalog,
    config: { ...QUICK, ...options.config },
    signal: stop.signal,
    logger,
  });
  const end = () => {
    stop.abort();
    return run;
  };
  return {
    logger,
    stop: end,
    async [Symbol.asyncDispose]() {
      await end();
    },
  };
}

/** Something that happens once, or was counted. */
export interface Gate<T = void> {
  readonly opened: Promise<T>;
  open(value: T): void;
}

export function gate<T = void>(): Gate<T> {
  const { promise, resolve } = Promise.withResolvers<T>();
  return { opened: promise, open: resolve };
}

/** Resolves when it has been called so often. */
export function countdown(times: number): { readonly done: Promise<void>; readonly count: () => void } {
  const all = gate();
  let left = times;
  if (left === 0) all.open();
  return {
    done: all.opened,
    count: () => {
      if (--left === 0) all.open();
    },
  };
}

/** Resolves with the reason when a signal aborts. */
export function abortOf(signal: AbortSignal): Promise<{ readonly code: string }> {
  if (signal.aborted) return Promise.resolve(signal.reason);
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve(signal.reason), { once: true }));
}

export async function enqueue(db: Queryable, request: JobRequest): Promise<string> {
  return (await enqueueJob(db, request)).jobId;
}

export async function readJob(db: Queryable, jobId: string): Promise<Job> {
  const job = await getJob(db, jobId, { scope: "all" });
  assert.ok(job);
  return job;
}

export async function eventTypes(db: Queryable, jobId: string): Promise<readonly string[]> {
  return (await listJobEvents(db, jobId, { scope: "all" })).items.map(({ eventType }) => eventType);
}

/** Makes a lease run out, as if its worker had been away for long. */
export async function expireLease(sql: postgres.Sql, jobId: string): Promise<void> {
  await sql`update runledger.job_queue set lease_expires_at = clock_timestamp() - interval '1 second' where id = ${jobId}`;
}

/** Resolves when jobs of the catalog have ended so often, in whatever way. */
export function endedJobs(catalog: JobCatalog, times: number): Promise<void> {
  const { done, count } = countdown(times);
  catalog.onJobSucceeded(count).onJobDeadLettered(count).onJobCanceled(count);
  return done;
}

/** A job type's name that no other test of the file has. */
let names = 0;
export function freshType(): string {
  return `test.type_${++names}`;
}

/** A value that is JSON to the compiler only. */
export function pretendJson(value: unknown): JsonValue {
  return value as JsonValue;
}

/** A database handle whose statements and commits can be made to fail. */
export interface FaultyDatabase {
  query(text: string, values?: readonly StatementValue[]): Promise<unknown>;
  transaction(fn: (tx: never) => Promise<unknown>): Promise<unknown>;
  /** Runs before each statement outside a transaction; what it throws is what the driver would. */
  onStatement: (text: string) => void | Promise<void>;
  /** What a commit does: as it should, lose its answer, or lose the connection before. */
  onCommit: "commit" | "answer lost" | "connection lost";
}

export function faultyDatabase(sql: postgres.Sql): FaultyDatabase {
  const faulty: FaultyDatabase = {
    onStatement: () => {},
    onCommit: "commit",
    async query(text, values) {
      await faulty.onStatement(text);
      return await sql.unsafe(text, values === undefined ? undefined : [...values]);
    },
    async transaction(fn) {
      const lost = connectionReset();
      let value: unknown;
      await sql.begin(async (tx) => {
        const query = (text: string, values: StatementValue[] = []) => tx.unsafe(text, values);
        value = await fn({ query } as never);
        if (faulty.onCommit === "connection lost") throw lost;
      });
      if (faulty.onCommit === "answer lost") throw lost;
      return value;
    },
  };
  return faulty;
}

/** What drivers throw when a connection breaks. */
export function connectionReset(): Error {
  return Object.assign(new Error("read ECONNRESET"), { code: "ECONNRESET" });
}
