/**
 * The one error class of Runledger and the guard that recognises it.
 *
 * @module
 */

import { errorSummary } from "./error_code.ts";
import type { RunledgerErrorCategory, RunledgerErrorCode } from "./error_code.ts";

/** A fact about an error that may be shown to a client: names, limits and counts, never payloads or keys. */
export type RunledgerErrorDetail = string | number | boolean | readonly string[];

/** What {@linkcode RunledgerError} is made from. */
export interface RunledgerErrorOptions {
  /** What to tell the client. @default the catalogue's summary of the code */
  readonly message?: string;
  /** Facts that a client may see, such as the name of the offending field. */
  readonly details?: Readonly<Record<string, RunledgerErrorDetail>>;
  /** For server logs only: may hold SQL, constraint names and driver texts. */
  readonly internalMessage?: string;
  /** For server logs only: what was caught. */
  readonly cause?: unknown;
}

/** The shape that `JSON.stringify` gives a {@linkcode RunledgerError}: all of it may be sent to a client. */
export interface RunledgerErrorJson {
  /** Always `"RunledgerError"`. */
  readonly name: string;
  /** The stable code. */
  readonly code: RunledgerErrorCode;
  /** The coarse kind of problem. */
  readonly category: RunledgerErrorCategory;
  /** The client-safe text. */
  readonly message: string;
  /** Client-safe facts, if there are any. */
  readonly details?: Readonly<Record<string, RunledgerErrorDetail>>;
}

/**
 * An error that a caller is expected to tell apart by its stable {@linkcode RunledgerError.code}.
 *
 * `message`, `toString()`, `toJSON()` and inspection in Deno and Node show only what a client may see. The driver's own
 * error and text are reached through {@linkcode RunledgerError.internalCause} and
 * {@linkcode RunledgerError.internalMessage}, for server logs. The standard `cause` property is left unset on purpose:
 * runtimes print it with an uncaught error.
 *
 * @example Tell errors apart by code
 * ```ts
 * import { isRunledgerError, RunledgerError } from "@runledger/core";
 * import assert from "node:assert/strict";
 *
 * const error = new RunledgerError("job.not_found", { internalMessage: "select ... returned no row" });
 * assert(isRunledgerError(error, "job.not_found"));
 * assert.equal(error.category, "not_found");
 * assert(!JSON.stringify(error).includes("select"));
 * ```
 */
export class RunledgerError extends Error {
  /** Always `"RunledgerError"`: copies of the package can be told apart from other errors by it. */
  override readonly name: string = "RunledgerError";
  /** The stable code: branch on this. */
  readonly code: RunledgerErrorCode;
  /** The coarse kind of problem, fit for choosing an HTTP status. */
  readonly category: RunledgerErrorCategory;
  /** Client-safe facts, if there are any. */
  readonly details?: Readonly<Record<string, RunledgerErrorDetail>>;
  readonly #internalMessage: string | undefined;
  readonly #internalCause: unknown;

  /**
   * Makes an error of one code.
   *
   * @param code The stable code.
   * @param options Texts and facts, client-safe and internal.
   */
  constructor(code: RunledgerErrorCode, options: RunledgerErrorOptions = {}) {
    const { category, message } = errorSummary(code);
    super(options.message ?? message);
    this.code = code;
    this.category = category;
    if (options.details !== undefined) this.details = options.details;
    this.#internalMessage = options.internalMessage;
    this.#internalCause = options.cause;
  }

  /** For server logs only: may hold SQL, constraint names and driver texts. */
  get internalMessage(): string | undefined {
    return this.#internalMessage;
  }

  /** For server logs only: what was caught, usually the driver's error. */
  get internalCause(): unknown {
    return this.#internalCause;
  }

  /**
   * Gives what a client may see.
   *
   * @returns Code, category, message and client-safe details.
   */
  toJSON(): RunledgerErrorJson {
    return {
      name: this.name,
      code: this.code,
      category: this.category,
      message: this.message,
      ...(this.details === undefined ? {} : { details: this.details }),
    };
  }

  /**
   * Gives the name, code and client-safe message on one line.
   *
   * @returns For example `RunledgerError [job.not_found]: There is no such job.`
   */
  override toString(): string {
    return `${this.name} [${this.code}]: ${this.message}`;
  }
}

function inspectSafely(this: RunledgerError): string {
  const frames = this.stack?.split("\n").filter((line) => line.trimStart().startsWith("at ")) ?? [];
  const details = this.details === undefined ? [] : [`  details: ${JSON.stringify(this.details)}`];
  return [this.toString(), ...details, ...frames].join("\n");
}

// Defined on the prototype rather than declared in the class: a computed symbol member is not an isolated declaration.
for (const key of [Symbol.for("nodejs.util.inspect.custom"), Symbol.for("Deno.customInspect")]) {
  Object.defineProperty(RunledgerError.prototype, key, { value: inspectSafely });
}

/**
 * Says whether a value is a {@linkcode RunledgerError}, and of one code if that is given.
 *
 * Goes by name and code, not by class, since two copies of a package (npm and JSR) have two classes.
 *
 * @param value Anything that was caught.
 * @param code The code to ask for.
 * @returns Whether it is one.
 */
export function isRunledgerError(value: unknown, code?: RunledgerErrorCode): value is RunledgerError {
  return value instanceof Error && value.name === "RunledgerError" && "code" in value &&
    (code === undefined ? typeof value.code === "string" : value.code === code);
}
