/**
 * What a scenario works with: a database, processes to harm, acknowledged enqueues, and the checks at its end.
 *
 * @module
 */

import { isRunledgerError } from "@runledger/core";
import type { JobRequest } from "@runledger/core";
import { enqueueJobs, upsertJobDefinitions } from "@runledger/postgres";
import type { Queryable } from "@runledger/postgres";
import type { JobsConfig } from "@runledger/runtime";
import { createEphemeralDatabase } from "@runledger/test-support";
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import postgres from "postgres";
import { assertInvariants } from "../support/database.ts";
import { startChild } from "./child.ts";
import type { Child } from "./child.ts";
import { executionsOf, verdictOn } from "./invariants.ts";
import type { Acknowledged, Evidence, StoredAttempt, StoredEffect, StoredJob } from "./invariants.ts";
import { readJournal } from "./journal.ts";
import type { JournalLine } from "./journal.ts";
import type { OwnServer } from "./own_server.ts";
import { CONNECT_TIMEOUT_MS } from "./pools.ts";
import { seededRandom, within } from "./waiting.ts";
import { doomed, poisons, steady, transactional } from "./work.ts";
import type { WorkerProcessOptions } from "./worker_process.ts";

/** Leases as short as they may be without a loaded machine losing them all the time. */
export const LEASE_MS = 2000;

/** How many handlers a process may run at once. */
export const CONCURRENCY = 8;

const REAPER_INTERVAL_MS = 1000;
const REAPER_RETRY_DELAY_MS = 50;

/** The longest wait of a worker's loops after errors. */
const MAX_BACKOFF_MS = 5000;

/** When the queue must be drained after the last fault, in milliseconds: what the settings and the drivers promise. */
export const DRAIN_BOUND_MS: number = LEASE_MS + REAPER_INTERVAL_MS + REAPER_RETRY_DELAY_MS + MAX_BACKOFF_MS +
  CONNECT_TIMEOUT_MS;

/** How long a process may take to exit when everything in it was closed, on a slow machine. */
const EXIT_PATIENCE_MS = 20_000;

/** What a loaded machine may add to it: processes that start, handlers that run. */
const DRAIN_SLACK_MS = 30_000;

const CONFIG: Partial<JobsConfig> = {
  pollIntervalMs: 50,
  leaseTtlSeconds: LEASE_MS / 1000,
  claimBatchSize: 8,
  maxGlobalConcurrency: CONCURRENCY,
  reaperIntervalSeconds: REAPER_INTERVAL_MS / 1000,
  reaperRetryDelayMs: REAPER_RETRY_DELAY_MS,
  schedulePollIntervalSeconds: 1,
};

/** What a scenario has come to. */
export interface Figures {
  faults: number;
  jobs: number;
  executions: number;
  /** Attempts that ended because their lease ran out. */
  attemptsLost: number;
  /** Writes of zombies that the fence refused. */
  refusedByDatabase: number;
  /** Writes of zombies that their own worker refused, since it knew. */
  refusedByWorker: number;
  /** From the last fault to the last job's end, in milliseconds. */
  drainMs: number;
  /** Schedule fires that were checked. */
  fires: number;
  /** Processes that had stopped and closed their pool, and that sockets of postgres.js kept from exiting. */
  heldByDriver: number;
}

/** Where a scenario runs. */
export interface LabOptions {
  readonly serverUrl: string;
  readonly folder: string;
  readonly seed: number;
  readonly isShort: boolean;
  /** The scenario's own server, if it may harm it. */
  readonly server?: OwnServer;
}

/** How a worker is started: everything has a default. */
export type WorkerStart = Partial<Omit<WorkerProcessOptions, "journal" | "config">> & {
  readonly config?: Partial<JobsConfig>;
};

/** Workers that are started again whenever they die. */
export interface KeptAlive {
  /** Those that run now. */
  readonly alive: readonly Child[];
  /** No further ones are started. */
  release(): void;
}

/** One scenario's surroundings. */
export class Lab implements AsyncDisposable {
  /** The database, without anything in between. */
  readonly url: string;
  readonly sql: postgres.Sql;
  readonly random: () => number;
  readonly figures: Figures = {
    faults: 0,
    jobs: 0,
    executions: 0,
    attemptsLost: 0,
    refusedByDatabase: 0,
    refusedByWorker: 0,
    drainMs: 0,
    fires: 0,
    heldByDriver: 0,
  };
  readonly journalPath: string;
  readonly #options: LabOptions;
  readonly #drop: () => PromiseLike<void>;
  readonly #children: Child[] = [];
  readonly #postgresJs = new Set<Child>();
  readonly #acknowledged: Acknowledged[] = [];
  readonly #cleanups: (() => PromiseLike<void>)[] = [];
  #isOver = false;
  #keys = 0;
  #lastFaultAt = performance.now();

  /** Makes a database with everything that the jobs need. */
  static async open(options: LabOptions): Promise<Lab> {
    const database = await createEphemeralDatabase({ serverUrl: options.serverUrl });
    const lab = new Lab(database.url, () => database[Symbol.asyncDispose](), options);
    await lab.sql`
      create table effects (
        id bigint generated always as identity primary key,
        job_id uuid not null, run_number integer not null, attempt integer not null
      )`;
    await upsertJobDefinitions(lab.sql, [steady, doomed, transactional, ...Object.values(poisons)]);
    return lab;
  }

  private constructor(url: string, drop: () => PromiseLike<void>, options: LabOptions) {
    this.url = url;
    this.#drop = drop;
    this.#options = options;
    this.sql = postgres(url, {
      max: 4,
      connect_timeout: 10,
      onnotice: () => {},
      connection: { application_name: "harness" },
    });
    this.journalPath = join(options.folder, "journal.jsonl");
    writeFileSync(this.journalPath, "");
    this.random = seededRandom(options.seed);
  }

  /** The server, for scenarios that harm it. */
  get server(): OwnServer {
    const { server } = this.#options;
    assert(server !== undefined, "only a scenario that harms the server has one of its own");
    return server;
  }

  /** Where a scenario may put files. */
  get folder(): string {
    return this.#options.folder;
  }

  /** A number that depends on how long the run may take. */
  scaled(short: number, long: number): number {
    return this.#options.isShort ? short : long;
  }

  /** Gives one of several. */
  pick<T>(values: readonly T[]): T {
    const value = values[Math.floor(this.random() * values.length)];
    assert(value !== undefined, "there is nothing to pick from");
    return value;
  }

  /** Counts faults that the harness injects. Those that handlers inject are counted from the journal. */
  fault(count: number = 1): void {
    this.figures.faults += count;
    this.#lastFaultAt = performance.now();
  }

  /** Calls something at the end, whatever happened. */
  defer(cleanup: () => PromiseLike<void>): void {
    this.#cleanups.push(cleanup);
  }

  /** What is in the journal so far. */
  journal(): readonly JournalLine[] {
    return readJournal(this.journalPath);
  }

  /** What workers reported last, for whoever has to find out why. */
  lastWords(count: number): readonly string[] {
    return this.journal().filter(({ kind }) => kind === "log" || kind === "dead").slice(-count)
      .map(({ pid, note, kind }) => `process ${pid}: ${kind} ${note}`);
  }

  /** Starts a process of workers and waits until it runs. */
  async startWorker(start: WorkerStart = {}): Promise<Child> {
    const child = this.spawnWorker(start);
    await child.ready;
    return child;
  }

  /** Starts a process of workers. */
  spawnWorker(start: WorkerStart = {}): Child {
    const options: WorkerProcessOptions = {
      url: this.url,
      driver: "postgres.js",
      journal: this.journalPath,
      blockMs: 2 * LEASE_MS,
      ...start,
      config: { ...CONFIG, ...start.config },
    };
    const child = this.startChild("worker_process.ts", options);
    if (options.driver === "postgres.js") this.#postgresJs.add(child);
    return child;
  }

  /** Starts another script of this folder. */
  startChild(script: string, options: object): Child {
    const child = startChild(script, options, this.journalPath);
    this.#children.push(child);
    return child;
  }

  /** Keeps workers alive, as a process manager does. */
  keepAlive(starts: readonly WorkerStart[]): KeptAlive {
    const alive = new Set<Child>();
    let isReleased = false;
    const live = async (start: WorkerStart) => {
      while (!isReleased && !this.#isOver) {
        const child = this.spawnWorker(start);
        alive.add(child);
        await child.ended;
        alive.delete(child);
      }
    };
    for (const start of starts) void live(start);
    return {
      get alive() {
        return [...alive];
      },
      release: () => isReleased = true,
    };
  }

  /** Enqueues until it is acknowledged, by the same keys each time. */
  async enqueue(
    requests: readonly JobRequest[],
    options: { readonly db?: Queryable; readonly expected?: Acknowledged["expected"] } = {},
  ): Promise<readonly string[]> {
    const { db = this.sql, expected = "SUCCEEDED" } = options;
    const keyed = requests.map((request) => ({ ...request, idempotencyKey: `key ${++this.#keys}` }));
    for (;;) {
      try {
        const jobs = await enqueueJobs(db, keyed);
        this.#acknowledged.push(...jobs.map(({ jobId }) => ({ jobId, expected })));
        return jobs.map(({ jobId }) => jobId);
      } catch (error) {
        // Nobody knows whether it was stored: the same again tells.
        if (!isRunledgerError(error) || error.category !== "unavailable") throw error;
        await delay(50);
      }
    }
  }

  /** Takes a job on that was enqueued by other means. */
  acknowledge(jobId: string, expected: Acknowledged["expected"] = "SUCCEEDED"): void {
    this.#acknowledged.push({ jobId, expected });
  }

  /** Enqueues a few jobs again and again while something goes on. */
  async enqueueWhile(ongoing: Promise<unknown>, makeBatch: () => readonly JobRequest[]): Promise<void> {
    let isOngoing = true;
    const stop = () => isOngoing = false;
    const ended = ongoing.then(stop, stop);
    while (isOngoing) {
      await this.enqueue(makeBatch());
      await Promise.race([ended, delay(100)]);
    }
    await ongoing;
  }

  /** How many jobs have not ended. */
  async open(): Promise<number> {
    const [row] = await this.sql<{ open: number }[]>`
      select count(*)::integer as open from runledger.job_queue where status in ('PENDING', 'LEASED')`;
    return row?.open ?? 0;
  }

  /** Waits until every job has ended, for as long as handlers may take. */
  async untilDrained(patienceMs?: number): Promise<void> {
    await within("every job has ended", async () => await this.open() === 0, patienceMs);
  }

  /** Waits for lines of the journal. */
  async untilJournal(what: string, isSo: (lines: readonly JournalLine[]) => boolean): Promise<void> {
    await within(what, () => isSo(this.journal()));
  }

  /** Waits for the queue to drain, stops what still runs, and checks everything. */
  async conclude(): Promise<void> {
    await this.#drain();
    const died = this.#children.filter((child) => child.hasEnded && !child.wasEnded);
    await this.#stopChildren();
    await this.#assertDeathsWereMeant(died);
    await this.#assertNothingIsLeft();
    await assertInvariants(this.sql);
    const evidence = await this.#evidence();
    const problems = verdictOn(evidence);
    assert.deepEqual(problems, [], problems.join("\n"));
    this.#count(evidence);
  }

  async #drain(): Promise<void> {
    await within("the queue drains", async () => await this.open() === 0, DRAIN_BOUND_MS + DRAIN_SLACK_MS);
    const faults = this.journal().filter(({ kind }) => kind === "fault");
    const lastFaultAt = Math.max(this.#lastFaultAt, (faults.at(-1)?.at ?? 0) - performance.timeOrigin);
    this.figures.drainMs = performance.now() - lastFaultAt;
  }

  async #stopChildren(): Promise<void> {
    this.#isOver = true;
    const left = this.#children.filter(({ hasEnded }) => !hasEnded);
    // One that is about to start a supervisor must have come so far that it hears a signal.
    await Promise.allSettled(left.map(({ ready }) => ready));
    for (const child of left) {
      if (!child.kill("SIGTERM")) continue;
      await this.#exits(child);
    }
  }

  /**
   * Nothing that keeps a process alive may be left when it has stopped. postgres.js keeps sockets that it opened in vain
   * while the server was in recovery, and does not close them with its pool: that is counted, and nothing else is excused.
   */
  async #exits(child: Child): Promise<void> {
    const said = () => `; it printed ${child.output}${child.errors}`;
    const hasStopped = () => child.hasEnded || child.output.includes("pool ended");
    await within(() => `process ${child.pid} stops${said()}`, hasStopped);
    try {
      await within(() => `process ${child.pid} exits by itself${said()}`, () => child.hasEnded, EXIT_PATIENCE_MS);
    } catch (problem) {
      if (!this.#postgresJs.has(child)) throw problem;
      this.figures.heldByDriver++;
      child.kill("SIGKILL");
      await child.ended;
      return;
    }
    assert.deepEqual(await child.ended, { code: 0, signal: null }, `process ${child.pid}${said()}`);
  }

  /** A worker never ends by itself; whatever a process did to itself on purpose is in the journal. */
  async #assertDeathsWereMeant(died: readonly Child[]): Promise<void> {
    const journal = this.journal();
    for (const child of died) {
      const { code } = await child.ended;
      const isMeant = code === 0 || journal.some(({ kind, pid }) => kind === "fault" && pid === child.pid);
      assert(isMeant, `process ${child.pid} ended by itself: ${child.output}${child.errors}`);
    }
  }

  /** The server may need a moment to notice that a process is gone. */
  async #assertNothingIsLeft(): Promise<void> {
    let rows: readonly { state: string; query: string }[] = [];
    const look = async () => {
      rows = await this.sql<{ state: string; query: string }[]>`
        select state, left(query, 200) as query from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid() and application_name <> 'harness'
          and (state like 'idle in transaction%' or state = 'active')`;
      return rows.length === 0;
    };
    await within("no session is in a transaction", look).catch((error: Error) => {
      throw new Error(`${error.message}: ${JSON.stringify(rows)}`);
    });
  }

  async #evidence(): Promise<Evidence> {
    const jobs = await this.sql<StoredJob[]>`
      select queue.id as "jobId", queue.job_type as "jobType", queue.status,
        (
          select count(*)::integer from runledger.job_events as event
          where event.job_id = queue.id and event.event_type in ('SUCCEEDED', 'DEAD_LETTERED', 'CANCELED')
        ) as ends
      from runledger.job_queue as queue`;
    const attempts = await this.sql<StoredAttempt[]>`
      select job_id as "jobId", run_number as run, attempt, coalesce(outcome, closed_by) as outcome
      from runledger.job_attempts`;
    const effects = await this.sql<StoredEffect[]>`
      select job_id as "jobId", run_number as run, attempt from effects`;
    return {
      acknowledged: this.#acknowledged,
      jobs,
      attempts,
      effects,
      journal: this.journal(),
      transactionalType: transactional.type,
      maxConcurrency: CONCURRENCY,
    };
  }

  #count({ jobs, attempts, journal }: Evidence): void {
    const refusals = journal.filter(({ kind }) => kind === "refused");
    const lost = journal.filter(({ kind, note = "" }) =>
      kind === "log" && note.includes("the lease on a job was lost")
    );
    const logged = (words: string) => lost.filter(({ note = "" }) => note.includes(words)).length;
    const byDatabase = refusals.filter(({ note }) => note?.startsWith("database")).length;
    const { figures } = this;
    figures.faults += journal.filter(({ kind }) => kind === "fault").length;
    figures.jobs = jobs.length;
    figures.executions = executionsOf(journal).length;
    figures.attemptsLost = attempts.filter(({ outcome }) => outcome === "LEASE_EXPIRED").length;
    figures.refusedByDatabase = byDatabase + logged("was refused") + logged("a heartbeat found");
    figures.refusedByWorker = refusals.length - byDatabase + logged("before its outcome could be written");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isOver = true;
    for (const child of this.#children) if (!child.hasEnded) child.kill("SIGKILL");
    await Promise.all(this.#children.map(({ ended }) => ended));
    for (const cleanup of this.#cleanups.reverse()) await cleanup();
    await this.sql.end({ timeout: 1 });
    await this.#drop();
  }
}
