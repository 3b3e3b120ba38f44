/**
 * Jobs as their authors declare them: one constant that producers and workers share.
 *
 * @module
 */

import { isRunledgerError, RunledgerError } from "./errors.ts";
import type { RunledgerErrorCode } from "./error_code.ts";
import { assertJobRequest, MAX_INTEGER, MAX_JOB_TYPE_BYTES } from "./job_request.ts";
import type { JobRequest, JobRequestOptions } from "./job_request.ts";
import { decodeJson, encodeJson, isJsonValue, keyPath } from "./json.ts";
import type { JsonValue } from "./json.ts";
import { assertRetryPolicy } from "./retry_policy.ts";
import type { RetryPolicy } from "./retry_policy.ts";
import { nameProblem } from "./stored_text.ts";

/** The version of a definition that gives none. */
export const DEFAULT_DEFINITION_VERSION = 1;

/** How often a job may be tried when its definition does not say. */
export const DEFAULT_MAX_ATTEMPTS = 3;

/** How long an attempt may run, in seconds, when the definition does not say. */
export const DEFAULT_TIMEOUT_SECONDS = 300;

/** The priority of jobs whose definition gives none. */
export const DEFAULT_PRIORITY = 0;

/** The part of Standard Schema version 1 that is used: zod, valibot, arktype and others have it. */
export interface StandardSchema<Input = unknown, Output = Input> {
  /** What the specification reserves. */
  readonly "~standard": StandardSchemaProps<Input, Output>;
}

/** What Standard Schema version 1 keeps under `~standard`. */
export interface StandardSchemaProps<Input, Output> {
  /** The version of the specification. */
  readonly version: 1;
  /** Who made the schema, such as `zod`. */
  readonly vendor: string;
  /** Checks and converts a value. */
  readonly validate: (value: unknown) => StandardSchemaResult<Output> | Promise<StandardSchemaResult<Output>>;
  /** Types only. */
  readonly types?: { readonly input: Input; readonly output: Output } | undefined;
}

/** What a schema says about a value: `issues` only when it refuses it. */
export type StandardSchemaResult<Output> =
  | { readonly value: Output; readonly issues?: undefined }
  | { readonly issues: readonly StandardSchemaIssue[] };

/** One thing that a schema does not accept. */
export interface StandardSchemaIssue {
  /** The schema's words, which may quote the value: for server logs only. */
  readonly message: string;
  /** Where it is. */
  readonly path?: readonly (PropertyKey | { readonly key: PropertyKey })[] | undefined;
}

/** What a job is defined by. */
export interface JobDefinitionSpec<PayloadInput, Payload, Output, DecodedOutput> {
  /** The name that jobs are stored and claimed under, for ever; at most 255 bytes of UTF-8. */
  readonly type: string;
  /** What payloads look like. Absent means any JSON value. */
  readonly payload?: StandardSchema<PayloadInput, Payload>;
  /** What handlers return. Absent means any JSON value, or nothing. */
  readonly output?: StandardSchema<Output, DecodedOutput>;
  /** Raised when the meaning of payloads or settings changes; from 1. @default {@linkcode DEFAULT_DEFINITION_VERSION} */
  readonly version?: number;
  /** How often a job may be tried, from 1. @default {@linkcode DEFAULT_MAX_ATTEMPTS} */
  readonly maxAttempts?: number;
  /** How long one attempt may run, in seconds, from 1. @default {@linkcode DEFAULT_TIMEOUT_SECONDS} */
  readonly timeoutSeconds?: number;
  /** Higher goes first; any 32-bit integer. @default {@linkcode DEFAULT_PRIORITY} */
  readonly priority?: number;
  /** How long to wait between attempts. @default "default" */
  readonly retry?: RetryPolicy;
}

/**
 * A kind of job: settings, and the functions that check what goes in and what comes out.
 *
 * Schemas are asked about the JSON form of a value, which is what the handler or reader on the other side will be given.
 * A payload or output is stored in its input form and converted each time it is read.
 */
export interface JobDefinition<
  PayloadInput = JsonValue,
  Payload = PayloadInput,
  Output = JsonValue | void,
  DecodedOutput = JsonValue,
> {
  /** The name that jobs are stored and claimed under. */
  readonly type: string;
  /** The version of the definition. */
  readonly version: number;
  /** How often a job may be tried. */
  readonly maxAttempts: number;
  /** How long one attempt may run, in seconds. */
  readonly timeoutSeconds: number;
  /** Higher goes first. */
  readonly priority: number;
  /** How long to wait between attempts. */
  readonly retry: RetryPolicy;

  /**
   * Makes a request for one job of this kind. What the options leave out comes from the stored definition on enqueue.
   *
   * @param payload What the handler is given, in the schema's input form.
   * @param options Settings of this one job.
   * @returns A plain record for `enqueueJob`, with the payload as given (its JSON form, if it was not JSON).
   * @throws {RunledgerError} `job.invalid_payload` when it is not JSON or the schema refuses it, with its first
   * `details.path` and up to ten `details.paths`; `job.invalid_request` when an option cannot be.
   * @throws {TypeError} When the schema answers with a promise.
   */
  request(payload: PayloadInput, options?: JobRequestOptions): JobRequest<Output>;

  /**
   * Makes a request as {@linkcode JobDefinition.request} does, with a schema that may be asynchronous.
   *
   * @param payload What the handler is given, in the schema's input form.
   * @param options Settings of this one job.
   * @returns A plain record for `enqueueJob`.
   * @throws {RunledgerError} `job.invalid_payload` or `job.invalid_request`, by rejection.
   */
  requestAsync(payload: PayloadInput, options?: JobRequestOptions): Promise<JobRequest<Output>>;

  /**
   * Gives a handler its payload: checked and converted by the schema.
   *
   * @param raw The stored payload.
   * @returns The schema's output form, or a promise of it when the schema is asynchronous.
   * @throws {RunledgerError} `job.invalid_payload` when the schema refuses it; by rejection when it is asynchronous.
   */
  decodePayload(raw: JsonValue): Payload | Promise<Payload>;

  /**
   * Checks what a handler returned.
   *
   * @param output The plain output.
   * @returns The JSON form to store, undefined for no output, or a promise of it when the schema is asynchronous.
   * @throws {RunledgerError} `job.invalid_output` when it is not JSON or the schema refuses it; by rejection when the
   * schema is asynchronous.
   */
  encodeOutput(output: Output): JsonValue | undefined | Promise<JsonValue | undefined>;

  /**
   * Gives a reader a job's output: checked and converted by the schema.
   *
   * @param raw The stored output.
   * @returns The schema's output form, or a promise of it when the schema is asynchronous.
   * @throws {RunledgerError} `job.invalid_output` when the schema refuses it; by rejection when it is asynchronous.
   */
  decodeOutput(raw: JsonValue): DecodedOutput | Promise<DecodedOutput>;
}

/** Any job definition, for collections of them. */
export type AnyJobDefinition = JobDefinition<never, unknown, unknown, unknown>;

/** The payload that handlers of a definition are given. */
export type PayloadOf<Definition> = Definition extends
  JobDefinition<infer _Input, infer Payload, infer _Output, infer _> ? Payload
  : never;

/** The output that handlers of a definition return. */
export type OutputOf<Definition> = Definition extends JobDefinition<infer _Input, infer _Payload, infer Output, infer _>
  ? Output
  : never;

/**
 * Defines a kind of job. The definition is a frozen constant without any resources: share it between producers and workers.
 *
 * @param spec Its type, schemas and settings.
 * @returns The definition.
 * @throws {RunledgerError} `job.invalid_definition` with `details.field`.
 * @throws {TypeError} When the spec is not an object.
 *
 * @example
 * ```ts
 * import { defineJob } from "@runledger/core";
 * import assert from "node:assert/strict";
 * import { z } from "zod";
 *
 * const sendEmail = defineJob({
 *   type: "email.send",
 *   payload: z.object({ to: z.email() }),
 *   output: z.object({ messageId: z.string() }),
 *   maxAttempts: 5,
 *   timeoutSeconds: 30,
 * });
 *
 * assert.deepEqual(sendEmail.request({ to: "ada@example.com" }, { idempotencyKey: "order:1" }), {
 *   jobType: "email.send",
 *   payload: { to: "ada@example.com" },
 *   idempotencyKey: "order:1",
 * });
 * assert.throws(() => sendEmail.request({ to: "nobody" }), { code: "job.invalid_payload" });
 * ```
 */
export function defineJob<
  PayloadInput = JsonValue,
  Payload = PayloadInput,
  Output = JsonValue | void,
  DecodedOutput = JsonValue,
>(
  spec: JobDefinitionSpec<PayloadInput, Payload, Output, DecodedOutput>,
): JobDefinition<PayloadInput, Payload, Output, DecodedOutput> {
  assertSpec(spec);
  const { type, payload: payloadSchema, output: outputSchema } = spec;

  function requestOf(payload: JsonValue, options: JobRequestOptions): JobRequest<Output> {
    const request: JobRequest<Output> = { jobType: type, payload, ...options };
    assertJobRequest(request);
    return request;
  }

  return Object.freeze({
    type,
    version: spec.version ?? DEFAULT_DEFINITION_VERSION,
    maxAttempts: spec.maxAttempts ?? DEFAULT_MAX_ATTEMPTS,
    timeoutSeconds: spec.timeoutSeconds ?? DEFAULT_TIMEOUT_SECONDS,
    priority: spec.priority ?? DEFAULT_PRIORITY,
    retry: spec.retry ?? "default",

    request(payload: PayloadInput, options: JobRequestOptions = {}): JobRequest<Output> {
      const json = jsonFormOf(payload, PAYLOAD);
      if (payloadSchema !== undefined) {
        const checked = converted(payloadSchema, json, PAYLOAD);
        if (checked instanceof Promise) {
          checked.catch(() => {}); // Its answer comes too late to be used.
          throw new TypeError(`The payload schema of ${type} is asynchronous: use requestAsync instead of request`);
        }
      }
      return requestOf(json, options);
    },

    async requestAsync(payload: PayloadInput, options: JobRequestOptions = {}): Promise<JobRequest<Output>> {
      const json = jsonFormOf(payload, PAYLOAD);
      if (payloadSchema !== undefined) await converted(payloadSchema, json, PAYLOAD);
      return requestOf(json, options);
    },

    decodePayload(raw: JsonValue): Payload | Promise<Payload> {
      // Without a schema both type parameters are JsonValue, unless the author named others.
      return payloadSchema === undefined ? raw as Payload : converted(payloadSchema, raw, PAYLOAD);
    },

    encodeOutput(output: Output): JsonValue | undefined | Promise<JsonValue | undefined> {
      const json = output === undefined ? undefined : jsonFormOf(output, OUTPUT);
      if (outputSchema === undefined) return json;
      const checked = converted(outputSchema, json, OUTPUT);
      return checked instanceof Promise ? checked.then(() => json) : json;
    },

    decodeOutput(raw: JsonValue): DecodedOutput | Promise<DecodedOutput> {
      return outputSchema === undefined ? raw as DecodedOutput : converted(outputSchema, raw, OUTPUT);
    },
  });
}

/** One side of a job: what it is called, and the code of the error when it is refused. */
interface Side {
  readonly field: "payload" | "output";
  readonly code: RunledgerErrorCode;
}

const PAYLOAD: Side = { field: "payload", code: "job.invalid_payload" };
const OUTPUT: Side = { field: "output", code: "job.invalid_output" };

/** Most values are JSON already and are passed on uncopied. */
function jsonFormOf(value: unknown, side: Side): JsonValue {
  if (isJsonValue(value)) return value;
  try {
    return decodeJson(encodeJson(value, { field: side.field }));
  } catch (error) {
    if (side === PAYLOAD || !isRunledgerError(error)) throw error;
    throw new RunledgerError(side.code, {
      message: error.message,
      ...(error.details === undefined ? {} : { details: error.details }),
    });
  }
}

function converted<Output>(
  schema: StandardSchema<unknown, Output>,
  value: unknown,
  side: Side,
): Output | Promise<Output> {
  const result = schema["~standard"].validate(value);
  return result instanceof Promise ? result.then((late) => accepted(late, side)) : accepted(result, side);
}

function accepted<Output>(result: StandardSchemaResult<Output>, side: Side): Output {
  if (result.issues === undefined) return result.value;
  const paths = [...new Set(result.issues.map(pathOf))].slice(0, 10);
  const path = paths[0] ?? "$";
  throw new RunledgerError(side.code, {
    message: `The job's schema refuses the ${side.field} at ${paths.join(", ") || path}.`,
    details: { field: side.field, path, paths, problem: "the job's schema refuses it" },
    // A schema's words may quote the value.
    internalMessage: result.issues.slice(0, 10).map((issue) => `${pathOf(issue)}: ${issue.message}`).join("; "),
  });
}

function pathOf(issue: StandardSchemaIssue): string {
  let path = "$";
  for (const segment of issue.path ?? []) {
    const key = typeof segment === "object" ? segment.key : segment;
    path += typeof key === "number" ? `[${key}]` : keyPath(String(key));
  }
  return path;
}

const SPEC_FIELDS: ReadonlySet<string> = new Set<keyof JobDefinitionSpec<unknown, unknown, unknown, unknown>>([
  "type",
  "payload",
  "output",
  "version",
  "maxAttempts",
  "timeoutSeconds",
  "priority",
  "retry",
]);

function assertSpec(spec: JobDefinitionSpec<unknown, unknown, unknown, unknown>): void {
  if (typeof spec !== "object" || spec === null) {
    throw new TypeError('A job is defined by an object with at least a type, such as { type: "email.send" }');
  }
  for (const field of Object.keys(spec)) {
    if (!SPEC_FIELDS.has(field)) refuse(field, `is not one of ${[...SPEC_FIELDS].join(", ")}`);
  }
  const typeProblem = nameProblem(spec.type, MAX_JOB_TYPE_BYTES);
  if (typeProblem !== undefined) refuse("type", typeProblem);
  for (const field of ["payload", "output"] as const) {
    if (spec[field] !== undefined && !isStandardSchema(spec[field])) {
      refuse(field, "must be a Standard Schema of version 1, such as one of zod, valibot or arktype");
    }
  }
  for (const field of ["version", "maxAttempts", "timeoutSeconds"] as const) {
    const value = spec[field];
    if (value !== undefined && !(Number.isInteger(value) && value >= 1 && value <= MAX_INTEGER)) {
      refuse(field, `must be a whole number from 1 to ${MAX_INTEGER}`);
    }
  }
  const { priority } = spec;
  if (
    priority !== undefined && !(Number.isInteger(priority) && priority >= -MAX_INTEGER - 1 && priority <= MAX_INTEGER)
  ) {
    refuse("priority", "must be a 32-bit integer");
  }
  if (spec.retry !== undefined) assertRetryPolicy(spec.retry);
}

/** Arktype's schemas are functions. */
function isStandardSchema(value: unknown): boolean {
  if ((typeof value !== "object" && typeof value !== "function") || value === null) return false;
  if (!("~standard" in value)) return false;
  const props = value["~standard"];
  return typeof props === "object" && props !== null && "version" in props && props.version === 1 &&
    "validate" in props && typeof props.validate === "function";
}

function refuse(field: string, problem: string): never {
  throw new RunledgerError("job.invalid_definition", {
    message: `The job definition cannot be: ${field} ${problem}.`,
    details: { field },
  });
}
