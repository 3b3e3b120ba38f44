/**
 * Writes outcomes in batches, without delaying a lone one.
 *
 * @module
 */

import { isRunledgerError, RunledgerError } from "@runledger/core";
import type { JobOutcome, RunledgerErrorCode } from "@runledger/core";
import { settleJobs } from "@runledger/postgres";
import type { Queryable, SettledJob } from "@runledger/postgres";
import type { HeldJob } from "./held_job.ts";
import type { JobLogBuffer } from "./job_log_buffer.ts";
import { errorFields } from "./logger.ts";
import type { Logger } from "./logger.ts";
import { backoffMs, Waker, within } from "./loop.ts";

/** The most outcomes that one statement takes. */
const MAX_BATCH = 500;

/** The longest wait between two tries, in milliseconds. */
const MAX_BACKOFF_MS = 5000;

/**
 * How long a statement may take before the next batch no longer waits for it, in milliseconds: somebody else's
 * transaction may hold a row of it.
 */
const STUCK_MS = 1000;

/**
 * The most statements that may be given up, those included that are under way: each has a connection, which a dead one does
 * not give back, and one that waits for a lock only later.
 */
const MAX_GIVEN_UP = 4;

/** The most statements under way at once. */
const MAX_LANES = 4;

/** Refusals that come before any SQL, or from a constraint: trying the same again is of no use. */
const UNSTORABLE: ReadonlySet<RunledgerErrorCode> = new Set<RunledgerErrorCode>([
  "job.invalid_outcome",
  "job.invalid_progress",
  "job.invalid_payload",
  "db.business_rule_violation",
  "db.related_resource_missing",
  "db.required_field_missing",
]);

/** Errors that one row of a batch may have caused: its parts may fare better. */
const PERHAPS_ONE_ROW: ReadonlySet<RunledgerErrorCode> = new Set<RunledgerErrorCode>([
  ...UNSTORABLE,
  "db.lock_not_available",
  "db.query_canceled",
  "db.query_failed",
]);

/** What the batcher needs of the worker. */
export interface SettlementBatcherOptions {
  readonly db: Queryable;
  readonly logs: JobLogBuffer;
  readonly logger: Logger;
  /**
   * How long a statement may go unanswered before its outcomes are written once more, in milliseconds: heartbeats would keep
   * the leases of its jobs for ever. The fence takes them once.
   */
  readonly answerMs: number;
  /** Whether anybody wants to hear what the end of a step led to. */
  readonly tellsRelease: () => boolean;
  /** An answer came: the outcome is posted, or it was refused. */
  readonly onAnswer: (job: HeldJob, outcome: JobOutcome, answer: SettledJob) => void;
  /** The outcome can never be stored, by itself or after a rewrite. */
  readonly onUnstorable: (job: HeldJob, error: unknown) => void;
  /** The lease ran out before the outcome could be written. */
  readonly onExpired: (job: HeldJob) => void;
}

/**
 * The way of every outcome to the database.
 *
 * A first outcome is sent at once, with what else ends in the same turn of the event loop; while its statement is under
 * way, the next batch collects. A statement that fails is repeated with backoff until the leases have run out; one that
 * may have failed for a single row is halved until that row is alone.
 */
export class SettlementBatcher {
  readonly #options: SettlementBatcherOptions;
  readonly #waits = new Set<Waker>();
  #queue: HeldJob[] = [];
  #size = 0;
  #lanes = 0;
  #failures = 0;
  /** When each statement under way was sent. */
  readonly #underWay = new Map<number, number>();
  #statements = 0;
  #givenUp = 0;
  #isClosed = false;
  #isScheduled = false;
  readonly #over = new AbortController();
  #onIdle: (() => void) | undefined;

  /** Starts empty. */
  constructor(options: SettlementBatcherOptions) {
    this.#options = options;
  }

  /** How many outcomes have not been answered yet. */
  get size(): number {
    return this.#size;
  }

  /** Takes a job whose outcome is known. */
  add(job: HeldJob, outcome: JobOutcome): void {
    job.outcome = outcome;
    job.phase = "settling";
    this.#queue.push(job);
    this.#size++;
    this.nudge();
  }

  /** Starts a statement if none is under way, or if the ones under way seem stuck. */
  nudge(): void {
    if (this.#isScheduled || this.#queue.length === 0 || this.#isClosed) return;
    if (this.#lanes > 0 && !this.#isStuck()) return;
    this.#lanes++;
    this.#isScheduled = true;
    queueMicrotask(() => {
      this.#isScheduled = false;
      this.#runLane();
    });
  }

  /** Whether nothing moves: every lane has waited for its statement for long. */
  #isStuck(): boolean {
    if (this.#lanes >= MAX_LANES || this.#underWay.size < this.#lanes) return false;
    const now = performance.now();
    for (const sentAt of this.#underWay.values()) if (now - sentAt <= STUCK_MS) return false;
    return true;
  }

  /** Waits until every outcome is answered or given up. */
  async idle(): Promise<void> {
    // The answer to the last one may be that it cannot be stored, and lead to another one at once.
    while (this.#size > 0) await new Promise<void>((resolve) => this.#onIdle = resolve);
  }

  /** Gives up what is not under way and ends every wait. */
  close(): void {
    this.#isClosed = true;
    this.#queue = [];
    for (const waker of this.#waits) waker.wake();
    this.#over.abort();
  }

  async #runLane(): Promise<void> {
    while (this.#queue.length > 0 && !this.#isClosed) {
      const batch = this.#nextBatch();
      if (batch.length > 0) await this.#settle(batch);
    }
    this.#lanes--;
  }

  #nextBatch(): readonly HeldJob[] {
    const now = performance.now();
    const batch: HeldJob[] = [];
    let taken = 0;
    for (const job of this.#queue) {
      if (job.settlesAlone && batch.length > 0) break;
      taken++;
      if (job.leaseUntil <= now) {
        this.#answered();
        this.#options.onExpired(job);
        continue;
      }
      batch.push(job);
      if (job.settlesAlone || batch.length === MAX_BATCH) break;
    }
    this.#queue = this.#queue.slice(taken);
    return batch;
  }

  async #settle(batch: readonly HeldJob[]): Promise<void> {
    let answers: readonly SettledJob[];
    const statement = this.#statements++;
    try {
      this.#underWay.set(statement, performance.now());
      if (!this.#options.logs.isEmpty) await this.#flushLogs();
      const { db, tellsRelease } = this.#options;
      answers = await this.#answerOf(settleJobs(db, batch.map(settlementOf), { tellsRelease: tellsRelease() }));
    } catch (error) {
      this.#underWay.delete(statement);
      await this.#recover(batch, error);
      return;
    }
    this.#underWay.delete(statement);
    this.#failures = 0;
    for (const [index, job] of batch.entries()) {
      const answer = answers[index];
      if (answer === undefined) continue;
      this.#answered();
      this.#options.onAnswer(job, outcomeOf(job), answer);
    }
  }

  /** Waits for a statement, but not for ever, unless so many were given up that another one might be one too many. */
  #answerOf(statement: Promise<readonly SettledJob[]>): Promise<readonly SettledJob[]> {
    let isLate = false;
    const late = () => {
      isLate = true;
      this.#givenUp++;
      return new RunledgerError("db.commit_unknown", { internalMessage: "a settlement was not answered in time" });
    };
    const onAnswer = () => {
      if (isLate) this.#givenUp--;
    };
    statement.then(onAnswer, onAnswer);
    const isOneTooMany = this.#givenUp + this.#underWay.size > MAX_GIVEN_UP;
    if (isOneTooMany) this.#options.logger.error("too many writes of outcomes are not answered; waiting for this one");
    const timeoutMs = isOneTooMany ? Infinity : this.#options.answerMs;
    return within(statement, { timeoutMs, signal: this.#over.signal, late });
  }

  /** Lines go before the outcome, since a settled job takes none. They do not hold outcomes up twice. */
  async #flushLogs(): Promise<void> {
    try {
      await this.#options.logs.flush();
    } catch (error) {
      if (this.#failures === 0) throw error;
      this.#options.logger.warn("job log lines could not be stored before settlement", errorFields(error));
    }
  }

  async #recover(batch: readonly HeldJob[], error: unknown): Promise<void> {
    if (this.#isClosed) return;
    // An error without a code is thrown by what a handler returned, such as its `toJSON`.
    const code = isRunledgerError(error) ? error.code : "job.invalid_outcome";
    const middle = batch.length >> 1;
    if (middle > 0 && PERHAPS_ONE_ROW.has(code)) {
      await this.#settle(batch.slice(0, middle));
      await this.#settle(batch.slice(middle));
      return;
    }
    const [first] = batch;
    if (batch.length === 1 && first !== undefined && UNSTORABLE.has(code)) {
      this.#answered();
      this.#options.onUnstorable(first, error);
      return;
    }
    // After it, a refusal may mean that the first try was applied.
    if (code === "db.commit_unknown") {
      for (const job of batch) job.isUncertain = true;
    }
    this.#queue.push(...batch);
    this.#failures++;
    const waitMs = backoffMs(this.#failures, MAX_BACKOFF_MS);
    this.#options.logger.warn("outcomes could not be written and are tried again", {
      outcomes: batch.length,
      failures: this.#failures,
      waitMs,
      ...errorFields(error),
    });
    const waker = new Waker();
    this.#waits.add(waker);
    await waker.wait(waitMs);
    this.#waits.delete(waker);
  }

  #answered(): void {
    if (--this.#size === 0) this.#onIdle?.();
  }
}

function settlementOf(job: HeldJob): { readonly lease: HeldJob["claim"]; readonly outcome: JobOutcome } {
  return { lease: job.claim, outcome: outcomeOf(job) };
}

function outcomeOf(job: HeldJob): JobOutcome {
  if (job.outcome === undefined) throw new RunledgerError("job.invalid_outcome");
  return job.outcome;
}
