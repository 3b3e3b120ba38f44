/**
 * Where a job was asked for, in the form that tracing systems exchange: W3C Trace Context.
 *
 * @module
 */

/** The part of a trace that something else refers to. */
export interface TraceContext {
  /** The trace: 32 hexadecimal digits in lowercase, not all zero. */
  readonly traceId: string;
  /** The span: 16 hexadecimal digits in lowercase, not all zero. */
  readonly spanId: string;
  /** 1 if the trace is sampled; other bits as the standard has them. */
  readonly traceFlags: number;
}

/** The version ff is no version; of later ones than 00 only the fields that all versions share are taken. */
const TRACEPARENT = /^(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})$/;

/**
 * Reads a `traceparent`.
 *
 * @param text The header's text.
 * @returns What it refers to; undefined when it is none, as the standard wants it ignored then.
 *
 * @example
 * ```ts
 * import { formatTraceparent, parseTraceparent } from "@runledger/core";
 * import assert from "node:assert/strict";
 *
 * const text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
 * const context = parseTraceparent(text);
 * assert.ok(context);
 * assert.equal(context.traceFlags, 1);
 * assert.equal(formatTraceparent(context), text);
 * assert.equal(parseTraceparent("nonsense"), undefined);
 * ```
 */
export function parseTraceparent(text: string): TraceContext | undefined {
  const [, traceId, spanId, flags] = TRACEPARENT.exec(text) ?? [];
  if (traceId === undefined || spanId === undefined || flags === undefined) return undefined;
  return { traceId, spanId, traceFlags: Number.parseInt(flags, 16) };
}

/**
 * Writes a `traceparent` of version 00.
 *
 * @param context What it shall refer to.
 * @returns The text; undefined when the ids cannot be, as those of a tracer that is switched off.
 */
export function formatTraceparent(context: TraceContext): string | undefined {
  const flags = (context.traceFlags & 0xff).toString(16).padStart(2, "0");
  const text = `00-${context.traceId}-${context.spanId}-${flags}`;
  return TRACEPARENT.test(text) ? text : undefined;
}
