/**
 * Rows become records here, and only here. Statements give JSON and big integers as text, and instants as text of epoch
 * seconds, so that every driver and every session setting reads them alike. A missing column or an unknown value fails
 * loudly.
 *
 * @module
 */

import { isJobStage, isJobStatus, JOB_EVENT_TYPES, RunledgerError } from "@runledger/core";
import type { JobEventType, JobStage, JobStatus, JsonValue } from "@runledger/core";
import type { Row } from "./queryable.ts";

function unexpected(column: string, wanted: string, value: unknown): RunledgerError {
  return new RunledgerError("db.unexpected_result", {
    internalMessage: `column ${column}: wanted ${wanted}, got ${value === undefined ? "no such column" : typeof value}`,
  });
}

/** A text, uuid or enumerated column that is never null. */
export function readText(row: Row, column: string): string {
  const value = row[column];
  if (typeof value !== "string") throw unexpected(column, "text", value);
  return value;
}

/** A text or uuid column that may be null. */
export function readOptionalText(row: Row, column: string): string | undefined {
  return row[column] === null ? undefined : readText(row, column);
}

/** An int4 column, or an int8 column given as text that is known to be safe. */
export function readInteger(row: Row, column: string): number {
  const value = row[column];
  const number = typeof value === "string" ? Number(value) : value;
  if (typeof number !== "number" || !Number.isSafeInteger(number)) throw unexpected(column, "integer", value);
  return number;
}

/** An integer column that may be null. */
export function readOptionalInteger(row: Row, column: string): number | undefined {
  return row[column] === null ? undefined : readInteger(row, column);
}

/** A boolean column. */
export function readBoolean(row: Row, column: string): boolean {
  const value = row[column];
  if (typeof value !== "boolean") throw unexpected(column, "boolean", value);
  return value;
}

/** A jsonb column selected `::text`. JSON null and SQL null stay apart: use {@linkcode readOptionalJson} for the latter. */
export function readJson(row: Row, column: string): JsonValue {
  return JSON.parse(readText(row, column)) as JsonValue;
}

/** A jsonb column selected `::text` that may be SQL null. */
export function readOptionalJson(row: Row, column: string): JsonValue | undefined {
  return row[column] === null ? undefined : readJson(row, column);
}

/** A timestamptz column selected as `extract(epoch from ...)::text`; microseconds are cut. */
export function readInstant(row: Row, column: string): Date {
  const seconds = Number(readText(row, column));
  if (!Number.isFinite(seconds)) throw unexpected(column, "epoch seconds", seconds);
  return new Date(Math.floor(seconds * 1000 + 0.0005));
}

/** An instant that may be null. */
export function readOptionalInstant(row: Row, column: string): Date | undefined {
  return row[column] === null ? undefined : readInstant(row, column);
}

/** A job status column. */
export function readJobStatus(row: Row, column: string): JobStatus {
  const value = row[column];
  if (!isJobStatus(value)) throw unexpected(column, "a job status", value);
  return value;
}

/** A job stage column that may be null. */
export function readOptionalJobStage(row: Row, column: string): JobStage | undefined {
  const value = row[column];
  if (value === null) return undefined;
  if (!isJobStage(value)) throw unexpected(column, "a job stage", value);
  return value;
}

/** A column of a few known values. */
export function readKnown<Value extends string>(
  row: Row,
  column: string,
  isKnown: (value: unknown) => value is Value,
): Value {
  const value = row[column];
  if (!isKnown(value)) throw unexpected(column, "a known value", value);
  return value;
}

/** An event type column. */
export function readJobEventType(row: Row, column: string): JobEventType {
  const value = row[column];
  if (!(JOB_EVENT_TYPES as readonly unknown[]).includes(value)) throw unexpected(column, "an event type", value);
  return value as JobEventType;
}

/** Leaves undefined fields out, as `exactOptionalPropertyTypes` wants. */
export function present<Fields extends object>(
  fields: Fields,
): { [Key in keyof Fields]: Exclude<Fields[Key], undefined> } {
  const kept: Record<string, unknown> = {};
  // Not by Object.entries, which makes an array of each field: rows come by the thousand.
  for (const name in fields) if (fields[name] !== undefined) kept[name] = fields[name];
  return kept as { [Key in keyof Fields]: Exclude<Fields[Key], undefined> };
}
