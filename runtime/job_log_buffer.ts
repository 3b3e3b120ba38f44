/**
 * Log lines of all running handlers, sent in batches.
 *
 * @module
 */

import { boundedText, decodeJson, encodeJson, isBlankText, RunledgerError } from "@runledger/core";
import type { JsonValue } from "@runledger/core";
import { appendJobLogs, JOB_LOG_LEVELS, MAX_LOG_MESSAGE_BYTES } from "@runledger/postgres";
import type { JobLogEntry, JobLogLevel, Queryable } from "@runledger/postgres";
import type { HeldJob } from "./held_job.ts";
import { errorFields } from "./logger.ts";
import type { Logger } from "./logger.ts";
import { within } from "./loop.ts";

/** The most lines that one statement takes. */
const MAX_BATCH = 500;

/** The most lines that wait; a handler that logs faster than the database takes them loses the oldest. */
const MAX_WAITING = 10_000;

/** How long a line waits at most while nothing else sends it, in milliseconds. */
const MAX_WAIT_MS = 500;

/** The most bytes of JSON beside a line. */
const MAX_PAYLOAD_BYTES = 65_536;

/** A line, and whose it is. */
interface WaitingLine {
  readonly job: HeldJob;
  readonly entry: JobLogEntry;
}

/** Collects lines and sends them. One statement at a time, so lines keep their order. */
export class JobLogBuffer {
  readonly #db: Queryable;
  readonly #logger: Logger;
  readonly #answerMs: number;
  readonly #over = new AbortController();
  readonly #waiting: WaitingLine[] = [];
  #timer: ReturnType<typeof setTimeout> | undefined;
  #sending: Promise<void> | undefined;
  #dropped = 0;
  #isClosed = false;

  /**
   * Starts empty, without a timer.
   *
   * @param db A pool.
   * @param logger Where it reports.
   * @param answerMs How long a statement may go unanswered before its lines are sent once more, in milliseconds: outcomes
   * wait for it.
   */
  constructor(db: Queryable, logger: Logger, answerMs: number) {
    this.#db = db;
    this.#logger = logger;
    this.#answerMs = answerMs;
  }

  /** Takes a line. Never throws. */
  add(job: HeldJob, level: JobLogLevel, message: string, payload: JsonValue | undefined): void {
    if (this.#isClosed || job.phase === "over") return;
    const entry: JobLogEntry = {
      lease: job.claim,
      level: JOB_LOG_LEVELS.includes(level) ? level : "info",
      message: storableMessage(message),
      ...(payload === undefined ? {} : { payload: storablePayload(payload) }),
    };
    if (this.#waiting.length >= MAX_WAITING) {
      this.#waiting.shift();
      this.#dropped++;
    }
    this.#waiting.push({ job, entry });
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.flush().catch((error) => this.#logger.warn("job log lines could not be stored", errorFields(error)));
    }, MAX_WAIT_MS);
  }

  /** Whether there is nothing to send. */
  get isEmpty(): boolean {
    return this.#waiting.length === 0 && this.#sending === undefined;
  }

  /**
   * Sends everything that was taken so far. Lines that could not be sent wait for the next flush.
   *
   * @throws {RunledgerError} `db.*` codes.
   */
  async flush(): Promise<void> {
    while (!this.isEmpty) {
      if (this.#sending !== undefined) {
        await this.#sending;
        continue;
      }
      this.#sending = this.#send();
      try {
        await this.#sending;
      } finally {
        this.#sending = undefined;
      }
      // What a transaction locks must wait; nothing else is left to send now.
      if (this.#waiting.every(({ job }) => job.phase === "finishing")) break;
    }
  }

  /** Takes out what a job has logged, for its transaction to store. */
  take(job: HeldJob): readonly JobLogEntry[] {
    const taken: JobLogEntry[] = [];
    for (let index = 0; index < this.#waiting.length;) {
      const line = this.#waiting[index];
      if (line?.job === job) taken.push(...this.#waiting.splice(index, 1).map(({ entry }) => entry));
      else index++;
    }
    return taken;
  }

  /** Puts lines back that a transaction was to store and did not. */
  putBack(job: HeldJob, entries: readonly JobLogEntry[]): void {
    this.#waiting.unshift(...entries.map((entry) => ({ job, entry })));
  }

  /** Drops the timer and takes no more lines. */
  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    this.#over.abort();
  }

  async #send(): Promise<void> {
    if (this.#dropped > 0) {
      this.#logger.warn("job log lines were dropped: they came faster than they could be stored", {
        dropped: this.#dropped,
      });
      this.#dropped = 0;
    }
    const batch: WaitingLine[] = [];
    const held: WaitingLine[] = [];
    while (this.#waiting.length > 0 && batch.length < MAX_BATCH) {
      const line = this.#waiting.shift();
      if (line === undefined || line.job.phase === "over") continue;
      // Its row is locked by its handler's transaction, for which this statement would wait.
      (line.job.phase === "finishing" ? held : batch).push(line);
    }
    this.#waiting.unshift(...held);
    if (batch.length === 0) return;
    try {
      await within(appendJobLogs(this.#db, batch.map(({ entry }) => entry)), {
        timeoutMs: this.#answerMs,
        signal: this.#over.signal,
        late: () =>
          new RunledgerError("db.unavailable", { internalMessage: "log lines were not answered for in time" }),
      });
    } catch (error) {
      this.#waiting.unshift(...batch);
      throw error;
    }
  }
}

function storableMessage(message: unknown): string {
  try {
    const text = boundedText(String(message), MAX_LOG_MESSAGE_BYTES);
    return isBlankText(text) ? "(blank)" : text;
  } catch {
    return "(a message that is not text)";
  }
}

/** A copy as of now: the handler may go on changing the value. */
function storablePayload(payload: JsonValue): JsonValue {
  try {
    return decodeJson(encodeJson(payload, { field: "payload", maxBytes: MAX_PAYLOAD_BYTES }));
  } catch (error) {
    return { unstorable: String(errorFields(error)["error"]) };
  }
}
