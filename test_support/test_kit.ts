/**
 * A kit for tests of jobs, workflows and schedules: runs them one after the other, in a time that only the test moves.
 *
 * @module
 */

import type { JobRequest, WorkflowRunRequest } from "@runledger/core";
import { enqueueJob, enqueueWorkflowRun, listJobs, listWorkflowRuns } from "@runledger/postgres";
import type { Job, JobFilter, Queryable, WorkflowRun, WorkflowRunFilter } from "@runledger/postgres";
import type { FaultOptions } from "./attempt_faults.ts";
import type { IdleReport, KitEngine, RunAttempt, RunOptions } from "./kit_engine.ts";
import { readAll } from "./whole_lists.ts";
import { TestJob } from "./test_job.ts";
import { TestRun } from "./test_run.ts";

/** A stretch of time; its parts are added up. */
export interface Duration {
  /** Milliseconds. */
  readonly milliseconds?: number;
  /** Seconds. */
  readonly seconds?: number;
  /** Minutes. */
  readonly minutes?: number;
  /** Hours. */
  readonly hours?: number;
  /** Days of 24 hours. */
  readonly days?: number;
}

/** A job type, as its definition or by its name, or one job. */
export type JobTarget = { readonly type: string } | { readonly jobId: string } | string;

/**
 * Runs the jobs of a catalog in a test, one after the other, in a time that only the test moves.
 *
 * The worker and the reaper are those of production, and so are all statements; only what makes tests slow or a matter
 * of luck is different:
 *
 * - One job runs at a time, in claim order: priority, due time, age.
 * - Time stands still. What waits (retries, delays, leases, gate timeouts) stays away for as long as it was to wait, however
 *   slow the machine is, until {@linkcode RunledgerTestKit.advanceTime} brings it nearer. Schedules fire by a calendar of
 *   the kit's own, {@linkcode RunledgerTestKit.now}.
 *
 * @typeParam Db The database handle.
 */
export class RunledgerTestKit<Db extends Queryable = Queryable> implements AsyncDisposable {
  /** The database, for the test's own statements. */
  readonly db: Db;
  readonly #engine: KitEngine;
  readonly #close: () => PromiseLike<void>;

  /** @internal Use {@linkcode createTestKit}. */
  constructor(db: Db, engine: KitEngine, close: () => PromiseLike<void>) {
    this.db = db;
    this.#engine = engine;
    this.#close = close;
  }

  /** The date of the kit's calendar, by which schedules fire. Handlers and the ledger have the real one. */
  get now(): Date {
    return this.#engine.now;
  }

  /**
   * Enqueues a job. Nothing runs yet.
   *
   * @param request What a definition's `request` gave.
   * @returns The job.
   * @throws Whatever `enqueueJob` throws.
   */
  async enqueue<Output>(request: JobRequest<Output>): Promise<TestJob<Output>> {
    return new TestJob(this.db, (await enqueueJob(this.db, request)).jobId);
  }

  /**
   * Enqueues a workflow run. Nothing runs yet.
   *
   * @param request What a builder's `build` gave.
   * @returns The run.
   * @throws Whatever `enqueueWorkflowRun` throws.
   */
  async enqueueRun<Graph>(request: WorkflowRunRequest<Graph>): Promise<TestRun<Graph>> {
    return new TestRun(this.db, (await enqueueWorkflowRun(this.db, request)).runId);
  }

  /**
   * Refers to a job by its id.
   *
   * @param jobId The job.
   * @returns The job.
   */
  job(jobId: string): TestJob {
    return new TestJob(this.db, jobId);
  }

  /**
   * Refers to a workflow run by its id.
   *
   * @param runId The run.
   * @returns The run.
   */
  run(runId: string): TestRun {
    return new TestRun(this.db, runId);
  }

  /**
   * Reads jobs, of whatever organization.
   *
   * @param filter Which ones. @default all
   * @returns The jobs, oldest first.
   * @throws {RunledgerError} `job.invalid_request` for a filter that cannot be; `db.*` codes.
   */
  async jobs(filter: Omit<JobFilter, "scope"> = {}): Promise<readonly Job[]> {
    return (await readAll((page) => listJobs(this.db, { ...filter, scope: "all", limit: 1000, ...page }))).toReversed();
  }

  /**
   * Reads workflow runs, of whatever organization.
   *
   * @param filter Which ones. @default all
   * @returns The runs, oldest first.
   * @throws {RunledgerError} `job.invalid_request` for a filter that cannot be; `db.*` codes.
   */
  async runs(filter: Omit<WorkflowRunFilter, "scope"> = {}): Promise<readonly WorkflowRun[]> {
    const runs = await readAll((page) => listWorkflowRuns(this.db, { ...filter, scope: "all", limit: 1000, ...page }));
    return runs.toReversed();
  }

  /**
   * Runs what is due until nothing is: expired leases, overdue gates, schedules and jobs, with everything that they lead to
   * at once. What waits for a later time goes on waiting.
   *
   * @param options How many attempts at most; more are taken for an endless chain. @default `{ maxAttempts: 1000 }`
   * @returns What was done.
   * @throws {Error} When it does not end, or an attempt takes longer than `attemptTimeoutMs`.
   * @throws {RunledgerError} `db.*` codes.
   */
  async runUntilIdle(options: RunOptions = {}): Promise<IdleReport> {
    return await this.#engine.runUntilIdle(options);
  }

  /**
   * Runs one attempt: the first that is due in claim order, or the one that is asked for, such as to let the branches of a
   * workflow end in a certain order. What is due of leases, gates and schedules comes before it.
   *
   * @param target A job, or a job type. @default whatever is first
   * @returns The attempt; undefined when nothing is due.
   * @throws {Error} When the target is not due, or the attempt takes longer than `attemptTimeoutMs`.
   * @throws {RunledgerError} `job.not_found`; `job.handler_not_registered`; `db.*` codes.
   */
  async runNext(target?: JobTarget): Promise<RunAttempt | undefined> {
    if (target === undefined) return await this.#engine.runFirst();
    if (typeof target === "object" && "jobId" in target) return await this.#engine.runJob(target.jobId);
    return await this.#engine.runType(this.#typeOf(target));
  }

  /**
   * Lets time pass, and runs nothing: what waits comes nearer, and the calendar moves on. A schedule that misses several
   * dates fires once, as in production; {@linkcode RunledgerTestKit.runFor} stops at each.
   *
   * @param duration For how long.
   * @throws {RangeError} When it is negative, or the calendar would pass the present.
   */
  async advanceTime(duration: Duration): Promise<void> {
    await this.#engine.advance(milliseconds(duration));
  }

  /**
   * Lives through a stretch of time: runs what is due, advances to the next instant at which something is, and so on, until
   * the time has passed and nothing is due.
   *
   * @param duration For how long.
   * @param options How many attempts at most; more are taken for an endless chain. @default `{ maxAttempts: 1000 }`
   * @returns What was done.
   * @throws {RangeError} When it is negative, or the calendar would pass the present.
   * @throws {Error} As {@linkcode RunledgerTestKit.runUntilIdle}.
   */
  async runFor(duration: Duration, options: RunOptions = {}): Promise<IdleReport> {
    return await this.#engine.runFor(milliseconds(duration), options);
  }

  /**
   * Lets the next attempt fail with an error in place of what its handler does. Several calls are for several attempts.
   *
   * @param target The job type, or one job.
   * @param error What is thrown: a `JobFailure` means what it says, anything else is retried.
   * @param options Whether the handler runs before.
   * @throws {RunledgerError} `job.handler_not_registered` for a type that the catalog does not have.
   */
  failNextAttempt(
    target: JobTarget,
    error: unknown = new Error("The test said that this attempt fails."),
    options: FaultOptions = {},
  ): void {
    this.#engine.faults.arm(this.#faultKey(target), {
      kind: "fail",
      error,
      afterHandler: options.afterHandler ?? false,
    });
  }

  /**
   * Lets the time of the next attempt be over at once: its handler runs, finds its signal aborted with
   * `job.timeout_exceeded` as soon as it waits for something, and the attempt ends as TIMEOUT whatever it does.
   *
   * @param target The job type, or one job.
   * @throws {RunledgerError} `job.handler_not_registered` for a type that the catalog does not have.
   */
  timeoutNextAttempt(target: JobTarget): void {
    this.#engine.faults.arm(this.#faultKey(target), { kind: "timeout" });
  }

  /**
   * Lets the worker die in the next attempt: nothing is written, and the job stays leased until time has advanced by the
   * lease (60 s unless the kit's `config` says otherwise).
   *
   * @param target The job type, or one job.
   * @param options Whether the handler runs before: then its side effects have happened, and happen again.
   * @throws {RunledgerError} `job.handler_not_registered` for a type that the catalog does not have.
   */
  crashNextAttempt(target: JobTarget, options: FaultOptions = {}): void {
    this.#engine.faults.arm(this.#faultKey(target), { kind: "crash", afterHandler: options.afterHandler ?? false });
  }

  /** Ends the kit, and the database if it is the kit's own. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#close();
  }

  #typeOf(target: { readonly type: string } | string): string {
    const jobType = typeof target === "string" ? target : target.type;
    this.#engine.catalog.require(jobType);
    return jobType;
  }

  #faultKey(target: JobTarget): string {
    return typeof target === "object" && "jobId" in target ? target.jobId : this.#typeOf(target);
  }
}

function milliseconds(duration: Duration): number {
  const { milliseconds: ms = 0, seconds = 0, minutes = 0, hours = 0, days = 0 } = duration;
  const sum = ms + 1000 * (seconds + 60 * (minutes + 60 * (hours + 24 * days)));
  if (Number.isFinite(sum) && sum >= 0) return Math.ceil(sum);
  throw new RangeError(`Time goes forward: { minutes: 5 } is a duration, ${JSON.stringify(duration)} is not`);
}
