/**
 * A job's ledger as text, and as what a test expects of it.
 *
 * @module
 */

import type { JobEvent, JobEventType, JsonValue } from "@runledger/core";

/** An event as a test expects it: what is left out may be anything. */
export interface ExpectedEvent {
  /** What happened. */
  readonly event: JobEventType;
  /** The attempt that it belongs to, from 1. */
  readonly attempt?: number;
  /** The run that it belongs to, from 1. */
  readonly runNumber?: number;
  /** The code of a failure. */
  readonly code?: string;
  /** Fields of its payload; an object may have more of them, at any depth. */
  readonly payload?: JsonValue;
}

/** What a test expects of one event: all of it, or only its type. */
export type LedgerExpectation = JobEventType | ExpectedEvent;

/** Writes one event as a line, with what matters about its type. */
export function eventLine({ eventType, attempt, runNumber, payload }: JobEvent): string {
  const about = (name: string) => {
    const value = fieldOf(payload, name);
    return value === undefined || value === null ? "" : String(value).replace(/\n[\s\S]*/, " …");
  };
  const details: Partial<Record<JobEventType, string>> = {
    FAILED: `${about("kind")} ${about("error_code")}: ${about("error_message")}`,
    RETRY_SCHEDULED: `in ${about("retry_delay_ms")} ms`,
    DEAD_LETTERED: about("reason"),
    CANCELED: about("reason"),
    REQUEUED: about("requeue_kind"),
    EDITED: about("reason"),
  };
  const place = attempt === undefined ? "" : `run ${runNumber}, attempt ${attempt}`;
  return `${eventType.padEnd(15)}  ${place.padEnd(16)}  ${details[eventType] ?? ""}`.trimEnd();
}

/**
 * Compares a ledger with what is expected of it.
 *
 * @param events The events, in order.
 * @param expected What they should be, all of them and in this order.
 * @returns Undefined when they are; else the lines of a comparison, missing events with a minus and others with a plus.
 */
export function compareLedger(
  events: readonly JobEvent[],
  expected: readonly LedgerExpectation[],
): string | undefined {
  const matches = events.map((event) => expected.map((expectation) => isAsExpected(event, expectation)));
  const isEqual = events.length === expected.length && events.every((_, index) => matches[index]?.[index] === true);
  if (isEqual) return undefined;
  const lines: string[] = [];
  const common = commonLengths(events.length, expected.length, (i, j) => matches[i]?.[j] === true);
  let i = 0;
  let j = 0;
  for (let seq = 1; i < events.length || j < expected.length;) {
    const event = events[i];
    const expectation = expected[j];
    if (event !== undefined && expectation !== undefined && matches[i]?.[j] === true) {
      lines.push(`  ${String(seq++).padStart(3)}  ${eventLine(event)}`);
      i++;
      j++;
    } else if (expectation !== undefined && (event === undefined || common(i, j + 1) >= common(i + 1, j))) {
      lines.push(`-      ${expectationLine(expectation)}`);
      j++;
    } else if (event !== undefined) {
      lines.push(`+ ${String(seq++).padStart(3)}  ${eventLine(event)}`);
      i++;
    }
  }
  return lines.join("\n");
}

function expectationLine(expectation: LedgerExpectation): string {
  if (typeof expectation === "string") return expectation;
  const { event, attempt, runNumber, code, payload } = expectation;
  const run = runNumber === undefined ? "" : `run ${runNumber}`;
  const place = [run, attempt === undefined ? "" : `attempt ${attempt}`].filter((text) => text !== "").join(", ");
  const rest = [code ?? "", payload === undefined ? "" : JSON.stringify(payload)].filter((text) => text !== "");
  return `${event.padEnd(15)}  ${place.padEnd(16)}  ${rest.join(" ")}`.trimEnd();
}

function isAsExpected(event: JobEvent, expectation: LedgerExpectation): boolean {
  if (typeof expectation === "string") return event.eventType === expectation;
  const { event: eventType, attempt, runNumber, code, payload } = expectation;
  return event.eventType === eventType &&
    (attempt === undefined || event.attempt === attempt) &&
    (runNumber === undefined || event.runNumber === runNumber) &&
    (code === undefined || fieldOf(event.payload, "error_code") === code) &&
    (payload === undefined || holds(event.payload, payload));
}

/** Whether a value is another one, or an object with at least its fields. */
export function holds(value: unknown, part: unknown): boolean {
  if (Array.isArray(part)) {
    return Array.isArray(value) && value.length === part.length && part.every((item, i) => holds(value[i], item));
  }
  if (typeof part !== "object" || part === null) return Object.is(value, part);
  if (typeof value !== "object" || value === null || Array.isArray(value)) return false;
  return Object.entries(part).every(([name, field]) => holds(fieldOf(value, name), field));
}

function fieldOf(value: unknown, name: string): unknown {
  if (typeof value !== "object" || value === null || !Object.hasOwn(value, name)) return undefined;
  return (value as Readonly<Record<string, unknown>>)[name];
}

/** Gives the length of the longest common subsequence behind each pair of places. */
function commonLengths(
  rows: number,
  columns: number,
  matches: (row: number, column: number) => boolean,
): (row: number, column: number) => number {
  const lengths = Array.from({ length: rows + 1 }, () => new Array<number>(columns + 1).fill(0));
  const at = (row: number, column: number) => lengths[row]?.[column] ?? 0;
  for (let row = rows - 1; row >= 0; row--) {
    for (let column = columns - 1; column >= 0; column--) {
      const line = lengths[row] ?? [];
      line[column] = matches(row, column)
        ? at(row + 1, column + 1) + 1
        : Math.max(at(row + 1, column), at(row, column + 1));
    }
  }
  return at;
}
