/**
 * The one loop that everything in the background runs in: it waits, can be woken, and survives errors.
 *
 * @module
 */

import { RunledgerError } from "@runledger/core";
import { errorFields } from "./logger.ts";
import type { Logger } from "./logger.ts";

/** The longest delay that timers take; longer ones would fire at once. */
export const MAX_TIMER_MS = 2_147_483_647;

/** A wait that can be ended early. A wake that comes while nobody waits ends the next wait at once: none is lost. */
export class Waker {
  #end: (() => void) | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #isWoken = false;

  /** Whether somebody waits. */
  get isWaiting(): boolean {
    return this.#end !== undefined;
  }

  /** Ends the wait, or the next one. */
  wake(): void {
    if (this.#end === undefined) this.#isWoken = true;
    else this.#end();
  }

  /** Waits for a wake, or until the time is over. One caller at a time. */
  wait(timeoutMs: number = Infinity): Promise<void> {
    if (this.#isWoken) {
      this.#isWoken = false;
      return Promise.resolve();
    }
    return new Promise((resolve) => {
      this.#end = () => {
        clearTimeout(this.#timer);
        this.#timer = undefined;
        this.#end = undefined;
        resolve();
      };
      if (timeoutMs <= MAX_TIMER_MS) this.#timer = setTimeout(this.#end, Math.max(timeoutMs, 0));
    });
  }
}

/** Waits for the next turn of the event loop; not at all where there is no setImmediate. */
export function nextTurn(): Promise<void> {
  const { setImmediate } = globalThis as { readonly setImmediate?: (callback: () => void) => unknown };
  return new Promise((resolve) => setImmediate === undefined ? resolve() : void setImmediate(resolve));
}

/** How a loop runs. */
export interface LoopOptions {
  /** What it is called in logs. */
  readonly name: string;
  /** Ends the loop after the round that runs. */
  readonly signal: AbortSignal;
  /** How long to wait between rounds, in milliseconds. */
  readonly intervalMs: number;
  /** The longest wait after errors, in milliseconds. @default {5000} */
  readonly maxBackoffMs?: number;
  /** Whether to wait once before the first round. @default {false} */
  readonly startsWaiting?: boolean;
  /** Ends a wait early. */
  readonly waker?: Waker;
  /** Where errors are reported. */
  readonly logger: Logger;
  /** One round. Gives how long to wait after it, in milliseconds; nothing means the interval. */
  readonly round: () => Promise<number | void>;
}

/**
 * Runs rounds until the signal aborts. A round that throws is reported and followed by a wait that grows from 100 ms by
 * two, up to `maxBackoffMs`, with jitter; the loop never ends by itself.
 *
 * @param options What to run, and how often.
 * @returns When the last round is over.
 */
export async function runLoop(options: LoopOptions): Promise<void> {
  const { signal, intervalMs, waker = new Waker(), logger, name, round, maxBackoffMs = 5000 } = options;
  const wake = () => waker.wake();
  signal.addEventListener("abort", wake, { once: true });
  try {
    let failures = 0;
    if (options.startsWaiting === true && !signal.aborted) await waker.wait(jittered(intervalMs));
    while (!signal.aborted) {
      let waitMs: number;
      try {
        const asked = await round();
        waitMs = asked ?? jittered(intervalMs);
        if (failures > 0) logger.info(`${name} works again`, { failures });
        failures = 0;
      } catch (error) {
        failures++;
        waitMs = backoffMs(failures, maxBackoffMs);
        logger.warn(`${name} failed and is tried again`, { failures, waitMs, ...errorFields(error) });
      }
      if (waitMs > 0 && !signal.aborted) await waker.wait(waitMs);
    }
  } finally {
    signal.removeEventListener("abort", wake);
  }
}

/** Gives the wait after so many failures in a row: half of it is chance, so that processes do not come back in step. */
export function backoffMs(failures: number, maxMs: number): number {
  const fullMs = Math.min(100 * 2 ** Math.min(failures - 1, 20), maxMs);
  return Math.round(fullMs * (0.5 + Math.random() / 2));
}

/** A tenth more or less, so that processes do not poll in step. */
function jittered(intervalMs: number): number {
  return intervalMs * (0.9 + Math.random() / 5);
}

/** For how long a promise is waited for. */
export interface WaitLimit {
  /** In milliseconds; for ever above {@linkcode MAX_TIMER_MS}. */
  readonly timeoutMs: number;
  /** Ends the wait too. */
  readonly signal?: AbortSignal;
  /** Makes the error to throw then. */
  readonly late: () => Error;
}

/**
 * Stops waiting for a promise after a while. The promise itself goes on; what becomes of it is the caller's matter.
 *
 * @param promise What to wait for.
 * @param limit For how long.
 * @returns What the promise gave.
 */
export function within<T>(promise: Promise<T>, limit: WaitLimit): Promise<T> {
  const { timeoutMs, signal, late } = limit;
  return new Promise((resolve, reject) => {
    const giveUp = () => {
      end();
      reject(late());
    };
    const timer = timeoutMs <= MAX_TIMER_MS ? setTimeout(giveUp, Math.max(timeoutMs, 0)) : undefined;
    const end = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", giveUp);
    };
    promise.then((value) => {
      end();
      resolve(value);
    }, (error) => {
      end();
      reject(error);
    });
    if (signal?.aborted === true) giveUp();
    else signal?.addEventListener("abort", giveUp, { once: true });
  });
}

/** How long a statement of a loop may take before the loop goes on without it, in milliseconds. */
const ANSWER_TIMEOUT_MS = 60_000;

/** How long a loop that is asked to stop still waits for its last statement, in milliseconds. */
const LAST_ANSWER_MS = 2000;

/**
 * Waits for a statement of a loop, but not for ever: a connection may be dead without either side knowing.
 *
 * @param statement What to wait for. What becomes of it later is nobody's matter.
 * @param signal The loop's: after its abort only a few more seconds are waited for.
 * @returns What the statement gave.
 * @throws {RunledgerError} `db.unavailable` when no answer came in time.
 */
export async function answered<T>(statement: Promise<T>, signal: AbortSignal): Promise<T> {
  const late = () => new RunledgerError("db.unavailable", { internalMessage: "a statement was not answered in time" });
  const end = new AbortController();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const onAbort = () => timer ??= setTimeout(() => end.abort(), LAST_ANSWER_MS);
  if (signal.aborted) onAbort();
  else signal.addEventListener("abort", onAbort, { once: true });
  try {
    return await within(statement, { timeoutMs: ANSWER_TIMEOUT_MS, signal: end.signal, late });
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", onAbort);
  }
}

/** Waits for a promise, but not for ever; says whether it settled in time. */
export async function settledWithin(
  promise: Promise<unknown>,
  timeoutMs: number,
  signal?: AbortSignal,
): Promise<boolean> {
  const late = new Error("late");
  try {
    await within(promise, { timeoutMs, late: () => late, ...(signal === undefined ? {} : { signal }) });
    return true;
  } catch (error) {
    return error !== late;
  }
}
