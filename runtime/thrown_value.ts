/**
 * Texts for whatever can be thrown.
 *
 * @module
 */

import { boundedText, MAX_FAILURE_MESSAGE_BYTES } from "@runledger/core";

/** How many errors of a chain of causes are described. */
const MAX_CAUSES = 4;

/**
 * Describes a thrown value for operators: message and stack of an error, and of its causes.
 *
 * Never throws, though a thrown value may be anything: null, a proxy, an error whose getters throw.
 *
 * @param thrown What was caught.
 * @returns Text that can be stored, at most 8192 bytes of UTF-8.
 */
export function describeThrown(thrown: unknown): string {
  const parts: string[] = [];
  let current = thrown;
  for (let depth = 0; depth < MAX_CAUSES; depth++) {
    parts.push(attempt(() => describeOne(current)) ?? "A value was thrown that cannot be described.");
    current = attempt(() => current instanceof Error ? current.cause : undefined);
    if (current === undefined || current === null) break;
  }
  const text = attempt(() => boundedText(parts.join("\nCaused by: "), MAX_FAILURE_MESSAGE_BYTES));
  return text === undefined || text === "" ? "A value was thrown that cannot be described." : text;
}

function describeOne(thrown: unknown): string {
  if (!(thrown instanceof Error)) return `A value that is no error was thrown: ${describeValue(thrown)}`;
  const name = attempt(() => textOf(thrown.name)) ?? "Error";
  const message = attempt(() => textOf(thrown.message)) ?? "(its message cannot be read)";
  const stack = attempt(() => textOf(thrown.stack)) ?? "";
  if (stack === "") return `${name}: ${message}`;
  return stack.includes(message) ? stack : `${name}: ${message}\n${stack}`;
}

function describeValue(value: unknown): string {
  if (typeof value === "object" && value !== null) return attempt(() => JSON.stringify(value)) ?? "an object";
  return typeof value === "function" ? "a function" : String(value);
}

function textOf(value: unknown): string | undefined {
  return typeof value === "string" ? value : undefined;
}

function attempt<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}
