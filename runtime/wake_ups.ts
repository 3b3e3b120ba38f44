/**
 * Being woken: an idle worker hears of new work instead of waiting for its next poll.
 *
 * @module
 */

import { RunledgerError } from "@runledger/core";
import { announceSleep, JOBS_DUE_CHANNEL, listenTo, notifyJobsDue } from "@runledger/postgres";
import type { Listener, Queryable } from "@runledger/postgres";
import { errorFields } from "./logger.ts";
import type { Logger } from "./logger.ts";
import { answered, runLoop, settledWithin, Waker, within } from "./loop.ts";

/** How long a worker says that it sleeps, in milliseconds, at least; it says so again after half of it. */
const SLEEP_MS = 10_000;

/** How long a notification that the worker sends itself may take, in milliseconds. */
const ECHO_MS = 2000;

/** How long the claims wait for what is only a hint, in milliseconds. */
const ANNOUNCE_MS = 2000;

/** How soon a listener that hears nothing is tried anew, in milliseconds. */
const DEAF_RETRY_MS = 60_000;

/** How long the last statement may take, in milliseconds. */
const LAST_WORD_MS = 1000;

/** What being woken needs of the worker. */
export interface WakeUpsOptions {
  readonly db: Queryable;
  readonly workerId: string;
  readonly jobTypes: () => readonly string[];
  readonly pollIntervalMs: number;
  readonly signal: AbortSignal;
  readonly logger: Logger;
  /** There may be something to do. */
  readonly onWake: () => void;
}

/**
 * Keeps a listener, and tells the database whether the worker sleeps.
 *
 * Nothing depends on it: where listening is impossible or lost, {@linkcode WakeUps.fallAsleep} says that nobody will
 * wake the worker, and polling finds the work. A handle may accept `LISTEN` and deliver nothing (a pooler that hands
 * sessions around), so a worker believes its listener only once it has heard itself.
 */
export class WakeUps {
  readonly #options: WakeUpsOptions;
  readonly #sleepMs: number;
  readonly #changed = new Waker();
  #listener: Listener | undefined;
  #onHeard: (() => void) | undefined;
  #hears = false;
  #isAnnounced = false;
  #announcedUntil = -Infinity;
  /** What was said before: one thing at a time, since the last one must be what holds. */
  #said: Promise<unknown> = Promise.resolve();
  #saying = 0;
  /** Whether a statement is not answered. */
  #isStuck = false;
  /** Nobody waits for an answer any more. */
  readonly #over = new AbortController();

  constructor(options: WakeUpsOptions) {
    this.#options = options;
    this.#sleepMs = Math.min(Math.max(SLEEP_MS, 4 * options.pollIntervalMs), 3_600_000);
  }

  /** Listens until the signal aborts; never throws. */
  async run(): Promise<void> {
    const { signal, logger } = this.#options;
    await runLoop({
      name: "wake-ups",
      signal,
      logger,
      intervalMs: DEAF_RETRY_MS,
      waker: this.#changed,
      maxBackoffMs: 30_000,
      round: () => this.#listen(),
    });
    const lastWord = Promise.all([this.wakeUp(), this.#unlisten()]).then(() => this.#said);
    await settledWithin(lastWord, LAST_WORD_MS);
    this.#over.abort();
  }

  /**
   * The worker is about to sleep.
   *
   * @returns `unheard` when nobody will wake it; `announced` when it has only now been said that it sleeps, so that it
   * must look once more; otherwise `sleeps`.
   */
  async fallAsleep(): Promise<"unheard" | "announced" | "sleeps"> {
    if (!this.#hears || this.#isStuck || this.#options.signal.aborted) return "unheard";
    const now = performance.now();
    if (this.#announcedUntil - now > this.#sleepMs / 2) return "sleeps";
    const wasAwake = this.#announcedUntil <= now;
    if (!await this.#announce(this.#sleepMs)) return "unheard";
    this.#announcedUntil = now + this.#sleepMs;
    return wasAwake ? "announced" : "sleeps";
  }

  /** The worker has its hands full: nobody need wake it. */
  async wakeUp(): Promise<void> {
    this.#announcedUntil = -Infinity;
    if (!this.#isAnnounced) return;
    this.#isAnnounced = false;
    await this.#announce();
  }

  /** Says whether the worker sleeps. Nobody waits for ever: a connection may be dead without either side knowing. */
  async #announce(sleepMs?: number): Promise<boolean> {
    const { db, workerId, jobTypes, logger } = this.#options;
    if (sleepMs !== undefined) this.#isAnnounced = true;
    const sleep = { workerId, jobTypes: jobTypes(), ...(sleepMs === undefined ? {} : { sleepMs }) };
    const number = ++this.#saying;
    const said = this.#said.then(async () => {
      // What has been overtaken while it waited for its turn is not true any more.
      if (number === this.#saying) await announceSleep(db, sleep);
    });
    this.#said = said.catch(() => {}).finally(() => this.#isStuck = false);
    const late = () => {
      this.#isStuck = true;
      return new RunledgerError("db.unavailable", { internalMessage: "a statement was not answered in time" });
    };
    try {
      await within(said, { timeoutMs: ANNOUNCE_MS, signal: this.#over.signal, late });
      return number === this.#saying;
    } catch (error) {
      logger.debug("whether the worker sleeps could not be said", errorFields(error));
      return false;
    }
  }

  /** Begins to listen, unless it does, and makes sure that it hears. */
  async #listen(): Promise<number | void> {
    if (this.#hears) return Infinity;
    const { db, logger, signal } = this.#options;
    await this.#unlisten();
    const heard = new Promise<void>((resolve) => this.#onHeard = resolve);
    const listening = listenTo(db, JOBS_DUE_CHANNEL, {
      onNotify: () => {
        this.#onHeard?.();
        this.#options.onWake();
      },
      onLost: () => {
        this.#hears = false;
        this.#listener = undefined;
        this.#changed.wake();
      },
    });
    const listener = await answered(listening, signal).catch((error) => {
      // Should it be answered later, nobody wants to hear any more.
      void listening.then((late) => late?.unlisten()).catch(() => {});
      throw error;
    });
    if (listener === undefined) {
      logger.debug("this database handle cannot listen; the worker polls");
      return Infinity;
    }
    this.#listener = listener;
    await answered(notifyJobsDue(db), signal);
    this.#hears = await settledWithin(heard, ECHO_MS, signal);
    if (this.#hears) return Infinity;
    if (!signal.aborted) logger.info("notifications do not come through to this worker; it polls");
    await this.#unlisten();
  }

  async #unlisten(): Promise<void> {
    const listener = this.#listener;
    this.#listener = undefined;
    this.#hears = false;
    // When it fails its connection is gone, and with it the listening.
    if (listener !== undefined) await settledWithin(listener.unlisten(), LAST_WORD_MS, this.#over.signal);
  }
}
