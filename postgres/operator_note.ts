/**
 * What operators leave in the ledger with what they do.
 *
 * @module
 */

import { isBlankText, isStorableText, isUuid, MAX_INTEGER, RunledgerError, utf8Length } from "@runledger/core";

/** Why something was done by hand, and by whom: recorded in the ledger, shown to operators. */
export interface OperatorNote {
  /** Why. Not blank, at most 8192 bytes. */
  readonly reason?: string;
  /** Who. Not blank, at most 512 bytes; opaque to this library. */
  readonly actor?: string;
}

/** Checks a note and writes it as the JSON object that events hold. */
export function operatorNote(note: OperatorNote): string {
  const kept: { reason?: string; actor?: string } = {};
  if (note.reason !== undefined) kept.reason = noteText("reason", note.reason, 8192);
  if (note.actor !== undefined) kept.actor = noteText("actor", note.actor, 512);
  return JSON.stringify(kept);
}

/** Refuses text that is blank, too long, or that PostgreSQL cannot store; gives it back otherwise. */
export function noteText(field: string, value: string, maxBytes: number): string {
  if (typeof value !== "string") throw new TypeError(`'${field}' must be a string`);
  if (isBlankText(value) || !isStorableText(value) || utf8Length(value) > maxBytes) {
    throw new RunledgerError("job.invalid_request", {
      message:
        `'${field}' must be text that is not blank, has no U+0000 and no lone surrogates, and at most ${maxBytes} bytes.`,
      details: { field },
    });
  }
  return value;
}

/** Refuses a switch that is neither on nor off: in JavaScript a caller may pass "no", and mean it. */
export function switchValue(field: string, value: boolean): boolean {
  if (typeof value !== "boolean") throw new TypeError(`'${field}' must be true or false`);
  return value;
}

/** Refuses a run or attempt number that cannot be; gives it back otherwise. */
export function counterValue(field: string, value: number): number {
  if (!Number.isInteger(value) || value < 1 || value > MAX_INTEGER) {
    throw new RunledgerError("job.invalid_request", {
      message: `'${field}' must be a whole number from 1 to ${MAX_INTEGER}.`,
      details: { field },
    });
  }
  return value;
}

/** A hundred years: no timestamp minus it leaves the range of PostgreSQL. */
const MAX_AGE_MS = 3_155_760_000_000;

/** Refuses an age that cannot be; writes it as the text of a bigint otherwise, since drivers differ on those. */
export function ageValue(field: string, value: number): string {
  if (!Number.isInteger(value) || value < 0 || value > MAX_AGE_MS) {
    throw new RunledgerError("job.invalid_request", {
      message: `'${field}' must be a whole number of milliseconds, from 0 to a hundred years.`,
      details: { field },
    });
  }
  return String(value);
}

/** Refuses an instant that PostgreSQL would not read; writes it as ISO text otherwise. */
export function instantValue(field: string, value: Date): string {
  if (!(value instanceof Date)) throw new TypeError(`'${field}' must be a Date`);
  const year = value.getUTCFullYear();
  if (!(year >= 1 && year <= 9999)) {
    throw new RunledgerError("job.invalid_request", {
      message: `'${field}' must be a valid Date of the years 1 to 9999.`,
      details: { field },
    });
  }
  return value.toISOString();
}

/** Refuses a value that is not one of a few; gives it back otherwise. */
export function choiceValue<Choice extends string>(field: string, value: Choice, choices: readonly Choice[]): Choice {
  if (!choices.includes(value)) {
    throw new RunledgerError("job.invalid_request", {
      message: `'${field}' must be one of ${choices.join(", ")}.`,
      details: { field },
    });
  }
  return value;
}

/** Refuses an id that is no UUID before PostgreSQL does; gives it back otherwise. */
export function uuidValue(field: string, value: string): string {
  if (typeof value !== "string") throw new TypeError(`'${field}' must be a string`);
  if (!isUuid(value)) {
    throw new RunledgerError("job.invalid_request", {
      message: `'${field}' must be a UUID.`,
      details: { field },
    });
  }
  return value.toLowerCase();
}
