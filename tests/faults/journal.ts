/**
 * What handlers really did, in a file outside the database. Every process appends to the same file, so the order of its
 * lines is the order of what happened: no clocks are compared.
 *
 * @module
 */

import { readFileSync, writeFileSync } from "node:fs";
import { closeSync, openSync } from "node:fs";
import process from "node:process";

/**
 * - `start`, `end`: a handler began to run, and came to its last line.
 * - `effect`: it did what cannot be undone.
 * - `fault`: it is about to do harm to its own process.
 * - `refused`: a write of an attempt whose lease was lost was refused, by the database or by the worker itself.
 * - `accepted`: such a write was not refused, which must never happen.
 * - `lost`: the worker noticed that a lease was lost.
 * - `dead`: the process had ended, written by the harness.
 * - `log`: a warning or an error that the worker reported.
 */
export type JournalKind = "start" | "end" | "effect" | "fault" | "refused" | "accepted" | "lost" | "dead" | "log";

/** One line. */
export interface JournalLine {
  readonly kind: JournalKind;
  /** The process. */
  readonly pid: number;
  /** Milliseconds of this machine, monotonic within a process. */
  readonly at: number;
  readonly jobId?: string;
  readonly run?: number;
  readonly attempt?: number;
  /** Who refused, at which point, or what was logged. */
  readonly note?: string;
}

/** The attempt that a line is about. */
export interface JournalAttempt {
  readonly jobId: string;
  readonly runNumber: number;
  readonly attempt: number;
}

/** Appends lines, each with one system call: a process that is killed leaves no half line. */
export class JournalWriter implements Disposable {
  readonly #file: number;

  constructor(path: string) {
    this.#file = openSync(path, "a");
  }

  write(
    kind: JournalKind,
    about: Partial<JournalAttempt> & { readonly note?: string; readonly pid?: number } = {},
  ): void {
    const { pid = process.pid, jobId, runNumber: run, attempt, note } = about;
    const at = Math.round((performance.timeOrigin + performance.now()) * 1000) / 1000;
    writeFileSync(this.#file, `${JSON.stringify({ kind, pid, at, jobId, run, attempt, note })}\n`);
  }

  [Symbol.dispose](): void {
    closeSync(this.#file);
  }
}

/** Reads all lines. */
export function readJournal(path: string): readonly JournalLine[] {
  return readFileSync(path, "utf8").trimEnd().split("\n").filter((line) => line !== "")
    .map((line) => JSON.parse(line) as JournalLine);
}
