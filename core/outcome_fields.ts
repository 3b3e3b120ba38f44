/**
 * What an outcome, a failure and a completion are checked by alike.
 *
 * @module
 */

import { RunledgerError } from "./errors.ts";
import type { RunledgerErrorCode } from "./error_code.ts";
import { isStorableText, utf8Length } from "./stored_text.ts";

/** The longest delay that may be asked for, in milliseconds: ten years of 365 days. */
export const MAX_DELAY_MS = 315_360_000_000;

/** The most bytes of UTF-8 that the reason of a snooze or a cancellation takes. */
export const MAX_REASON_BYTES = 8192;

/** Refuses a reason that cannot be stored. */
export function assertReason(reason: string | undefined): void {
  if (reason !== undefined) assertBoundedText(reason, "reason", MAX_REASON_BYTES);
}

/** Refuses text that cannot be stored or takes too many bytes. */
export function assertBoundedText(text: string, field: string, maxBytes: number): void {
  if (typeof text !== "string") refuse(field, "must be a string");
  if (!isStorableText(text)) refuse(field, "must not hold U+0000 or a lone surrogate");
  // A unit takes at most three bytes, so most texts need no counting.
  if (text.length * 3 > maxBytes && utf8Length(text) > maxBytes) refuse(field, `must take at most ${maxBytes} bytes`);
}

/** Refuses a delay that cannot be. */
export function assertDelay(delayMs: number, field: string): void {
  if (!Number.isSafeInteger(delayMs) || delayMs < 0 || delayMs > MAX_DELAY_MS) {
    refuse(field, `must be a whole number of milliseconds from 0 to ${MAX_DELAY_MS}`);
  }
}

/** Refuses an outcome for one of its fields. */
export function refuse(field: string, problem: string, code: RunledgerErrorCode = "job.invalid_outcome"): never {
  throw new RunledgerError(code, {
    message: `The outcome cannot be settled: ${field} ${problem}.`,
    details: { field, problem },
  });
}
