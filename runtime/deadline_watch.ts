/**
 * One timer for any number of deadlines.
 *
 * @module
 */

import { MAX_TIMER_MS } from "./loop.ts";

/**
 * Runs a check when the earliest known deadline has come.
 *
 * Arming a timer for each of ten thousand jobs a second costs more than the jobs. Nearly all deadlines are later than
 * the one that is waited for, and nearly all are gone before they come, so the check looks through what is left.
 */
export class DeadlineWatch {
  readonly #check: (now: number) => number;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #armedFor = Infinity;
  #isClosed = false;

  /**
   * Starts without a timer.
   *
   * @param check Deals with what is due and gives the earliest deadline that is left, by `performance.now()`; Infinity
   * when there is none.
   */
  constructor(check: (now: number) => number) {
    this.#check = check;
  }

  /** Notes a deadline, by `performance.now()`. */
  expect(deadline: number): void {
    if (deadline >= this.#armedFor || this.#isClosed) return;
    clearTimeout(this.#timer);
    this.#armedFor = deadline;
    this.#timer = setTimeout(() => this.#run(), Math.min(Math.max(deadline - performance.now(), 0), MAX_TIMER_MS));
  }

  /** Drops the timer; nothing is watched any more. */
  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#timer);
  }

  #run(): void {
    this.#armedFor = Infinity;
    const next = this.#check(performance.now());
    // Timers fire up to a millisecond early; the extra one saves a second round.
    if (next !== Infinity) this.expect(next + 1);
  }
}
