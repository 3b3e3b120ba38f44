/**
 * What a handler is given beside its payload.
 *
 * @module
 */

import { isRunledgerError, RunledgerError } from "@runledger/core";
import type { JobCompletion, JobOutcome, JsonValue } from "@runledger/core";
import { appendJobLogs, recordJobProgress, settleJob } from "@runledger/postgres";
import type {
  ClaimedWorkflowStep,
  JobLogEntry,
  JobLogLevel,
  JobProgressUpdate,
  Queryable,
  SettledJob,
} from "@runledger/postgres";
import { atomicallyAnnounced } from "./after_commit.ts";
import { successOf } from "./execution.ts";
import type { RegisteredJob } from "./job_handler.ts";
import type { HeldJob } from "./held_job.ts";
import type { JobLogBuffer } from "./job_log_buffer.ts";
import { within } from "./loop.ts";

/**
 * Settles the job inside the transaction that it is called in. Call it once, last; return what it gives.
 *
 * @typeParam Output What the job's output schema accepts.
 */
export type FinishJob<Output> = (output?: Output | JobCompletion<Output>) => Promise<JobCompletion<Output>>;

/**
 * What a handler knows and can do about its own attempt.
 *
 * @typeParam Output What the job's output schema accepts.
 */
export interface JobContext<Output = JsonValue | void> {
  /** The job. */
  readonly jobId: string;
  /** Its type. */
  readonly jobType: string;
  /** Which run of the job: one more after each continuation and requeue. */
  readonly runNumber: number;
  /** Which attempt of the run, from 1. */
  readonly attempt: number;
  /** How many attempts a run may take. */
  readonly maxAttempts: number;
  /** Whose job it is; undefined for a job of no organization. */
  readonly organizationId: string | undefined;
  /** Who runs it. */
  readonly workerId: string;
  /** The workflow step that the job is, with what its direct prerequisites gave; undefined for other jobs. */
  readonly workflow: ClaimedWorkflowStep | undefined;
  /** How each direct prerequisite of the step ended and what it gave, by step key; empty for other jobs. */
  readonly prerequisites: ClaimedWorkflowStep["prerequisites"];
  /** What an earlier attempt or run left for this one, or this one has recorded since. */
  readonly checkpoint: JsonValue | undefined;
  /** Units done, as reported last. */
  readonly progressDone: number | undefined;
  /** Units in all, as reported last. */
  readonly progressTotal: number | undefined;
  /**
   * Aborts when the work is for nothing. Its `reason` is a `RunledgerError`: `job.timeout_exceeded`,
   * `job.lease_owner_mismatch`, `job.canceled` or `worker.shutdown`.
   */
  readonly signal: AbortSignal;
  /** When the attempt will have run for too long, by this machine's clock. */
  readonly deadline: Date;

  /**
   * Records how far the job has come and where its next attempt should go on, at once. Fenced: kept across retries,
   * continuations and crashes.
   *
   * @param update Progress, checkpoint or both.
   * @throws {RunledgerError} `job.lease_owner_mismatch` when the lease is lost, which also aborts the signal;
   * `job.invalid_progress`; `job.invalid_payload` for a checkpoint that is not JSON; `db.commit_unknown` when the
   * database has not answered for as long as a lease lasts; other `db.*` codes; the signal's reason when it aborts first.
   * @throws {TypeError} When the job was finished inside a transaction: the record would wait for that transaction.
   */
  progress(update: JobProgressUpdate): Promise<void>;

  /**
   * Writes a line to the job's log. Lines are sent in batches, at the latest before the attempt is settled; a crash may
   * lose the last ones. Never throws: what cannot be stored is replaced.
   *
   * @param level How much it matters.
   * @param message What to say; cut to 8192 bytes.
   * @param payload More, for programs: JSON of up to 64 KiB.
   */
  log(level: JobLogLevel, message: string, payload?: JsonValue): void;

  /**
   * Runs a function so that everything it does in the database happens, or nothing, the settlement of the job included
   * if it calls `finish`.
   *
   * After the commit the job is settled, and what the handler returns or throws later is ignored. If the function throws,
   * if the lease is lost, or if the signal aborts before the function is over, everything is rolled back, and the
   * handler may go on or try again. When the connection breaks during the commit (`db.commit_unknown`) and the handler
   * does not settle the job in another transaction, the worker reports a RETRYABLE failure: that report is refused
   * without effect if the transaction was committed after all, and leads to another attempt if it was not.
   *
   * The function holds a connection of the pool, and after `finish` a lock on the job, until it is over. A pool needs
   * more connections than there are such handlers at once: heartbeats and settlements go through it too.
   *
   * @typeParam Tx What the driver gives for a transaction: annotate the parameter with it.
   * @param fn What to do. Use `tx` for every statement that belongs to it.
   * @returns What the function gave.
   * @throws Whatever the function threw; `job.lease_owner_mismatch` or the signal's reason, for which a transaction that
   * has not begun is not waited for; `db.*` codes.
   *
   * @example
   * ```ts ignore
   * catalog.handle(chargeInvoice, (payload, context) =>
   *   context.transaction(async (tx: TransactionSql, finish) => {
   *     await tx`insert into charges (invoice_id) values (${payload.invoiceId})`;
   *     return await finish({ charged: true });
   *   }));
   * ```
   */
  transaction<Tx extends Queryable, Result>(
    fn: (tx: Tx, finish: FinishJob<Output>) => Promise<Result>,
  ): Promise<Result>;
}

/**
 * What the handler of one step of one workflow knows and can do.
 *
 * @typeParam Output What the job's output schema accepts.
 * @typeParam Prerequisites What it learns of its direct prerequisites, from each key to how that ended.
 */
export interface StepContext<Output, Prerequisites> extends Omit<JobContext<Output>, "workflow" | "prerequisites"> {
  /** How each direct prerequisite ended and what it gave, by step key. */
  readonly prerequisites: Prerequisites;
  /** Which step of which run it is, with what its direct prerequisites gave. */
  readonly workflow: {
    /** The run. */
    readonly runId: string;
    /** The step. */
    readonly stepKey: string;
    /** How each direct prerequisite ended, by step key. */
    readonly prerequisites: Prerequisites;
  };
}

/** What the context needs of the worker. */
export interface JobContextTools {
  readonly db: Queryable;
  readonly workerId: string;
  readonly logs: JobLogBuffer;
  /** How long a record of progress may go unanswered, in milliseconds: drivers may lose a statement. */
  readonly answerMs: number;
  /** Whether anybody wants to hear what the end of a step led to. */
  readonly tellsRelease: () => boolean;
  /** The database said that the lease is gone. */
  readonly onLeaseLost: (job: HeldJob) => void;
  /** The job was settled in a transaction of its handler. */
  readonly onSettledInTransaction: (job: HeldJob, outcome: JobOutcome, answer: SettledJob) => void;
  /** A transaction that held the job's row has ended without settling it. */
  readonly onReleased: (job: HeldJob) => void;
}

/** Makes the context of one attempt. */
export function createJobContext(
  job: HeldJob,
  registered: RegisteredJob,
  tools: JobContextTools,
): JobContext<unknown> {
  return new AttemptContext(job, registered, tools);
}

/** What `finish` has written, though it is not committed yet. */
interface Finished {
  readonly outcome: JobOutcome;
  readonly answer: SettledJob;
}

const NO_PREREQUISITES: ClaimedWorkflowStep["prerequisites"] = Object.freeze({});

class AttemptContext implements JobContext<unknown> {
  readonly #job: HeldJob;
  readonly #registered: RegisteredJob;
  readonly #tools: JobContextTools;
  #checkpoint: JsonValue | undefined;
  #progressDone: number | undefined;
  #progressTotal: number | undefined;

  constructor(job: HeldJob, registered: RegisteredJob, tools: JobContextTools) {
    this.#job = job;
    this.#registered = registered;
    this.#tools = tools;
    this.#checkpoint = job.claim.checkpoint;
    this.#progressDone = job.claim.progressDone;
    this.#progressTotal = job.claim.progressTotal;
  }

  get jobId(): string {
    return this.#job.claim.jobId;
  }
  get jobType(): string {
    return this.#job.claim.jobType;
  }
  get runNumber(): number {
    return this.#job.claim.runNumber;
  }
  get attempt(): number {
    return this.#job.claim.attempt;
  }
  get maxAttempts(): number {
    return this.#job.claim.maxAttempts;
  }
  get organizationId(): string | undefined {
    return this.#job.claim.organizationId;
  }
  get workerId(): string {
    return this.#tools.workerId;
  }
  get workflow(): ClaimedWorkflowStep | undefined {
    return this.#job.claim.workflow;
  }
  get prerequisites(): ClaimedWorkflowStep["prerequisites"] {
    return this.#job.claim.workflow?.prerequisites ?? NO_PREREQUISITES;
  }
  get checkpoint(): JsonValue | undefined {
    return this.#checkpoint;
  }
  get progressDone(): number | undefined {
    return this.#progressDone;
  }
  get progressTotal(): number | undefined {
    return this.#progressTotal;
  }
  get signal(): AbortSignal {
    return this.#job.signal;
  }
  get deadline(): Date {
    return new Date(Date.now() + this.#job.timeoutAt - performance.now());
  }

  async progress(update: JobProgressUpdate): Promise<void> {
    this.#assertUnfinished("progress");
    const job = this.#job;
    const { db, answerMs, onLeaseLost } = this.#tools;
    const late = () =>
      job.abortReason ??
        new RunledgerError("db.commit_unknown", { internalMessage: "progress was not answered in time" });
    try {
      await within(recordJobProgress(db, job.claim, update), { timeoutMs: answerMs, signal: job.signal, late });
    } catch (error) {
      if (isRunledgerError(error, "job.lease_owner_mismatch")) onLeaseLost(job);
      throw error;
    }
    this.#progressDone = update.progress?.done ?? this.#progressDone;
    this.#progressTotal = update.progress?.total ?? this.#progressTotal;
    if (update.checkpoint !== undefined) this.#checkpoint = update.checkpoint;
  }

  log(level: JobLogLevel, message: string, payload?: JsonValue): void {
    this.#tools.logs.add(this.#job, level, message, payload);
  }

  async transaction<Tx extends Queryable, Result>(
    fn: (tx: Tx, finish: FinishJob<unknown>) => Promise<Result>,
  ): Promise<Result> {
    this.#assertUnfinished("transaction");
    const job = this.#job;
    let finishing: Promise<Finished> | undefined;
    let lines: readonly JobLogEntry[] = [];
    const onTaken = (taken: readonly JobLogEntry[]) => lines = taken;
    try {
      const result = await this.#begin(async (tx) => {
        const value = await fn(tx as Tx, async (output) => {
          if (finishing !== undefined) throw new TypeError("finish was called twice: a job is settled once");
          finishing = this.#finish(tx, output, onTaken);
          await finishing;
          return output as JobCompletion<unknown>;
        });
        // A finish that was not awaited, or whose error was swallowed, must not be committed past.
        await finishing;
        if (job.abortReason !== undefined) throw job.abortReason;
        return value;
      });
      if (finishing !== undefined) {
        const { outcome, answer } = await finishing;
        this.#tools.onSettledInTransaction(job, outcome, answer);
      }
      return result;
    } catch (error) {
      this.#tools.logs.putBack(job, lines);
      if (finishing !== undefined && isRunledgerError(error, "db.commit_unknown")) {
        job.isUncertain = true;
        job.settlesAlone = true;
      }
      if (isRunledgerError(error, "job.lease_owner_mismatch")) this.#tools.onLeaseLost(job);
      throw error;
    } finally {
      // A finish that nobody waits for any more may still fail.
      finishing?.catch(() => {});
      if (job.phase === "finishing") {
        job.phase = "running";
        this.#tools.onReleased(job);
      }
    }
  }

  /** Runs a transaction. Until it begins, nothing has happened, and an abort ends the wait: a pool may be empty for long. */
  #begin<Result>(fn: (tx: Queryable) => Promise<Result>): Promise<Result> {
    const job = this.#job;
    return new Promise((resolve, reject) => {
      const giveUp = () => reject(job.abortReason);
      const stopWaiting = () => job.signal.removeEventListener("abort", giveUp);
      job.signal.addEventListener("abort", giveUp, { once: true });
      atomicallyAnnounced(this.#tools.db, (tx) => {
        stopWaiting();
        return job.abortReason === undefined ? fn(tx) : Promise.reject(job.abortReason);
      }).finally(stopWaiting).then(resolve, reject);
    });
  }

  async #finish(
    tx: Queryable,
    returned: unknown,
    onTaken: (lines: readonly JobLogEntry[]) => void,
  ): Promise<Finished> {
    const job = this.#job;
    if (job.abortReason !== undefined) throw job.abortReason;
    const outcome = await successOf(returned, this.#registered);
    if (job.abortReason !== undefined) throw job.abortReason;
    if (job.phase !== "running") throw new TypeError("finish was called after the attempt was over");
    job.phase = "finishing";
    // Through the transaction: the pool may have no connection left that is not waiting for this one.
    const lines = this.#tools.logs.take(job);
    onTaken(lines);
    await appendJobLogs(tx, lines);
    const tellsRelease = this.#tools.tellsRelease();
    return { outcome, answer: await settleJob(tx, job.claim, outcome, { tellsRelease }) };
  }

  #assertUnfinished(method: string): void {
    const { phase, abortReason } = this.#job;
    if (abortReason !== undefined) throw abortReason;
    if (phase === "finishing" || phase === "over") {
      throw new TypeError(`${method} was called after the job was finished in a transaction`);
    }
  }
}
