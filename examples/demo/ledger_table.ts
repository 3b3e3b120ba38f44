/**
 * Showing the ledger: a table that grows, with a line below it that says how far things are. Plain lines where there is no
 * terminal.
 *
 * @module
 */

import { stripVTControlCharacters } from "node:util";
import type { LedgerRow } from "./ledger_feed.ts";

/** Where the table is printed. */
export interface Screen {
  /** Writes text. */
  readonly write: (text: string) => void;
  /** Whether somebody is looking: lines may be drawn again. */
  readonly isLive: boolean;
  /** Whether colours are wanted. */
  readonly hasColor: boolean;
  /** How many characters fit on a line; it may change at any time. */
  readonly width: () => number;
}

/** How the demo's jobs stand. */
export interface Tally {
  /** Ended. */
  readonly ended: number;
  /** In all. */
  readonly total: number;
  /** Rows of the ledger so far. */
  readonly events: number;
}

/** A table that grows. */
export interface LedgerTable {
  /** Prints the head of the table. */
  readonly open: () => void;
  /** Appends rows. */
  readonly append: (rows: readonly LedgerRow[], tally: Tally) => void;
  /** Removes the line below the table. */
  readonly close: () => void;
}

const COLUMNS: readonly { readonly title: string; readonly width: number }[] = [
  { title: "time", width: 12 },
  { title: "job", width: 14 },
  { title: "attempt", width: 7 },
  { title: "event", width: 15 },
  { title: "duration", width: 8 },
  { title: "detail", width: 0 }, // as much as there is
];

const COLORS: Readonly<Record<string, number>> = {
  LEASED: 36,
  SUCCEEDED: 32,
  FAILED: 33,
  RETRY_SCHEDULED: 33,
  DEAD_LETTERED: 31,
  CANCELED: 35,
};
const DIM = 2;
const ERASE_LINE = "\r\x1b[2K";

/**
 * Makes a table.
 *
 * @param screen Where it is printed.
 * @param labels What to call each job, by id.
 * @returns The table.
 */
export function createLedgerTable(screen: Screen, labels: ReadonlyMap<string, string>): LedgerTable {
  const paint = (text: string, color: number | undefined) =>
    screen.hasColor && color !== undefined ? `\x1b[${color}m${text}\x1b[0m` : text;
  const line = (text: string) => screen.write(`${fitted(text, screen.width())}\n`);
  const erase = () => screen.isLive && screen.write(ERASE_LINE);
  return {
    open: () => line(paint(joined(COLUMNS.map(({ title }) => title)), DIM)),
    append: (rows, { ended, total, events }) => {
      if (rows.length === 0) return;
      erase();
      for (const row of rows) line(renderRow(row, labels.get(row.jobId) ?? row.jobId, paint));
      if (!screen.isLive) return;
      const status = `${ended} of ${total} jobs have ended, ${events} rows in the ledger`;
      // Without a line feed: the next call draws over it.
      screen.write(`\r${fitted(paint(status, DIM), screen.width() - 1)}`);
    },
    close: () => void erase(),
  };
}

function renderRow(row: LedgerRow, label: string, paint: (text: string, color: number | undefined) => string): string {
  const attempt = row.attempt === undefined ? "" : `${row.attempt}/${row.maxAttempts}`;
  const duration = row.durationMs === undefined ? "" : `${row.durationMs} ms`.padStart(8);
  const cells = [clock(row.occurredAt), label, attempt.padStart(7), row.eventType, duration, row.detail];
  return joined(cells.map((cell, column) => {
    const text = cell.padEnd(COLUMNS[column]?.width ?? 0);
    if (column === 3) return paint(text, COLORS[row.eventType]);
    return column === 0 || column === 5 ? paint(text, DIM) : text;
  }));
}

function joined(cells: readonly string[]): string {
  return cells.map((cell, column) => cell.padEnd(COLUMNS[column]?.width ?? 0)).join("  ").trimEnd();
}

/** The time of day where the demo runs, with milliseconds: much happens in a second. */
function clock(instant: Date): string {
  const [hours, minutes, seconds] = [instant.getHours(), instant.getMinutes(), instant.getSeconds()].map((part) =>
    String(part).padStart(2, "0")
  );
  return `${hours}:${minutes}:${seconds}.${String(instant.getMilliseconds()).padStart(3, "0")}`;
}

/** Cuts a line to a width, not counting colours; a cut line ends in their reset. */
function fitted(text: string, width: number): string {
  if (stripVTControlCharacters(text).length <= width) return text;
  let room = Math.max(width - 1, 0);
  let cut = "";
  // deno-lint-ignore no-control-regex
  for (const [part] of text.matchAll(/\x1b\[\d+m|[^]/g)) {
    if (part.length > 1) cut += part;
    else if (room-- > 0) cut += part;
  }
  return `${cut}…`;
}
