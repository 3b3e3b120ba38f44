/**
 * What the payload of an event says, decoded by the event's type.
 *
 * @module
 */

import { REQUEUE_KINDS } from "./job_event.ts";
import type { JobEvent, RequeueKind } from "./job_event.ts";
import { JOB_FAILURE_KINDS } from "./job_failure.ts";
import type { JobFailureKind } from "./job_failure.ts";
import type { JsonValue } from "./json.ts";

/** Why no retry followed a failure. */
export type DeadLetterReason = "FAILURE_KIND_NON_RETRYABLE" | "ATTEMPTS_EXHAUSTED" | "LEASE_EXPIRED";

/** Every {@linkcode DeadLetterReason}. */
export const DEAD_LETTER_REASONS: readonly DeadLetterReason[] = [
  "FAILURE_KIND_NON_RETRYABLE",
  "ATTEMPTS_EXHAUSTED",
  "LEASE_EXPIRED",
];

/** What is known of an event beside its columns; `eventType` says which fields there are. */
export type JobEventDetails =
  | {
    /** The job came to be. */
    readonly eventType: "ENQUEUED";
    /** What it replays, if it is a replay. */
    readonly replayOf?: { readonly jobId: string; readonly runNumber: number; readonly replayKey: string };
    /** The schedule that an operator ran by hand, if it came to be so. */
    readonly scheduleName?: string;
    /** Why an operator asked for it. */
    readonly reason?: string;
    /** Who asked. */
    readonly actor?: string;
  }
  | {
    /** A worker claimed it. */
    readonly eventType: "LEASED";
    /** Which worker. */
    readonly workerId: string;
    /** For how long, in milliseconds. */
    readonly leaseMs: number;
  }
  | {
    /** The worker extended its lease. */
    readonly eventType: "HEARTBEAT";
    /** Which worker. */
    readonly workerId: string;
  }
  | {
    /** The handler reported progress. */
    readonly eventType: "PROGRESS";
    /** Whether it stored a checkpoint. */
    readonly hasCheckpoint: boolean;
  }
  | {
    /** Nothing more is known of these. */
    readonly eventType: "STAGE_CHANGED" | "SUCCEEDED";
  }
  | {
    /** The attempt failed. */
    readonly eventType: "FAILED";
    /** How. */
    readonly failureKind: JobFailureKind;
    /** The code of the failure. */
    readonly errorCode: string;
    /** Its message. */
    readonly errorMessage: string;
  }
  | {
    /** Another attempt follows. */
    readonly eventType: "RETRY_SCHEDULED";
    /** How the attempt before it failed. */
    readonly failureKind: JobFailureKind;
    /** The delay of the retry policy, in milliseconds. */
    readonly retryDelayMs: number;
    /** When it is due. */
    readonly nextRunAt: Date;
    /** The instant before which the handler wanted none. */
    readonly requestedRetryNotBefore?: Date;
    /** How long the handler wanted to wait at least, in milliseconds. */
    readonly requestedRetryDelayMs?: number;
  }
  | {
    /** No other attempt follows. */
    readonly eventType: "DEAD_LETTERED";
    /** How the last attempt failed. */
    readonly failureKind: JobFailureKind;
    /** The code of the failure. */
    readonly errorCode: string;
    /** Why no attempt follows. */
    readonly reason: DeadLetterReason;
  }
  | {
    /** Somebody called it off. */
    readonly eventType: "CANCELED";
    /** Why. */
    readonly reason?: string;
    /** Who. */
    readonly actor?: string;
    /** Until when its handler may still be at work. */
    readonly leaseQuiescesAt?: Date;
  }
  | {
    /** It waits again without having failed. */
    readonly eventType: "REQUEUED";
    /** Why it was put back. */
    readonly requeueKind: RequeueKind;
    /** What was said about it. */
    readonly reason?: string;
    /** Who requeued it, for `COMPARE_AND_REQUEUE`. */
    readonly actor?: string;
    /** When it goes on, for `SNOOZE` and `HANDLER_CONTINUATION`. */
    readonly nextRunAt?: Date;
    /** The run that begins, for `HANDLER_CONTINUATION`. */
    readonly nextRunNumber?: number;
    /** Whether its progress was forgotten, for `COMPARE_AND_REQUEUE`. */
    readonly resetsProgress?: boolean;
  }
  | {
    /** An operator changed it while it waited. */
    readonly eventType: "EDITED";
    /** Why. */
    readonly reason?: string;
    /** Who. */
    readonly actor?: string;
    /** When it is due now, if that was changed. */
    readonly nextRunAt?: Date;
    /** When it was due before. */
    readonly previousNextRunAt?: Date;
    /** How urgent it is now, if that was changed. */
    readonly priority?: number;
    /** How urgent it was before. */
    readonly previousPriority?: number;
    /** Whether its payload was replaced; the one before is `previous_payload` of the raw payload. */
    readonly replacesPayload: boolean;
  };

/**
 * Decodes the payload of an event.
 *
 * @param event The event: its type and payload.
 * @returns What it says; `undefined` for a payload that is not as this version writes it, which is no reason to hide the
 * event: its raw payload is still there.
 *
 * @example
 * ```ts
 * import { decodeJobEventDetails } from "@runledger/core";
 * import assert from "node:assert/strict";
 *
 * const payload = { worker_id: "w1", lease_ms: 60000 };
 * const details = decodeJobEventDetails({ eventType: "LEASED", payload });
 * assert.deepEqual(details, { eventType: "LEASED", workerId: "w1", leaseMs: 60000 });
 * ```
 */
export function decodeJobEventDetails(event: Pick<JobEvent, "eventType" | "payload">): JobEventDetails | undefined {
  const { eventType } = event;
  const payload = new PayloadReader(event.payload);
  const details = { eventType, ...decodePayload(eventType, payload) };
  // The reader noticed every field that is missing or of another type.
  return payload.isWhole ? details as JobEventDetails : undefined;
}

type Fields = Readonly<Record<string, unknown>>;

function decodePayload(eventType: JobEvent["eventType"], payload: PayloadReader): Fields {
  switch (eventType) {
    case "ENQUEUED":
      return {
        ...(payload.has("replay_of_job_id")
          ? {
            replayOf: {
              jobId: payload.text("replay_of_job_id"),
              runNumber: payload.number("replay_of_run_number"),
              replayKey: payload.text("replay_key"),
            },
          }
          : {}),
        ...payload.optional("scheduleName", "schedule_name", "text"),
        ...payload.note(),
      };
    case "LEASED":
      return { workerId: payload.text("worker_id"), leaseMs: payload.number("lease_ms") };
    case "HEARTBEAT":
      return { workerId: payload.text("worker_id") };
    case "PROGRESS":
      return { hasCheckpoint: payload.has("checkpoint") };
    case "STAGE_CHANGED":
    case "SUCCEEDED":
      return {};
    case "FAILED":
      return {
        failureKind: payload.choice("kind", JOB_FAILURE_KINDS),
        errorCode: payload.text("error_code"),
        errorMessage: payload.text("error_message"),
      };
    case "RETRY_SCHEDULED":
      return {
        failureKind: payload.choice("kind", JOB_FAILURE_KINDS),
        retryDelayMs: payload.number("retry_delay_ms"),
        nextRunAt: payload.instant("next_run_at"),
        ...payload.optional("requestedRetryNotBefore", "requested_retry_not_before", "instant"),
        ...payload.optional("requestedRetryDelayMs", "requested_retry_delay_ms", "number"),
      };
    case "DEAD_LETTERED":
      return {
        failureKind: payload.choice("kind", JOB_FAILURE_KINDS),
        errorCode: payload.text("error_code"),
        reason: payload.choice("reason", DEAD_LETTER_REASONS),
      };
    case "CANCELED":
      return { ...payload.note(), ...payload.optional("leaseQuiescesAt", "lease_quiesces_at", "instant") };
    case "REQUEUED":
      return {
        requeueKind: payload.choice("requeue_kind", REQUEUE_KINDS),
        ...payload.note(),
        ...payload.optional("nextRunAt", "next_run_at", "instant"),
        ...payload.optional("nextRunNumber", "next_run_number", "number"),
        ...(payload.has("reset_progress") ? { resetsProgress: payload.flag("reset_progress") } : {}),
      };
    case "EDITED":
      return {
        ...payload.note(),
        ...payload.optional("nextRunAt", "next_run_at", "instant"),
        ...payload.optional("previousNextRunAt", "previous_next_run_at", "instant"),
        ...payload.optional("priority", "priority", "number"),
        ...payload.optional("previousPriority", "previous_priority", "number"),
        replacesPayload: payload.flag("replaces_payload"),
      };
  }
}

/** Reads the fields of a payload, and notices what is missing or of another type. */
class PayloadReader {
  isWhole = true;
  readonly #fields: Fields;

  constructor(payload: JsonValue) {
    this.#fields = isObject(payload) ? payload : {};
    if (payload !== null && !isObject(payload)) this.isWhole = false;
  }

  has(name: string): boolean {
    return Object.hasOwn(this.#fields, name) && this.#fields[name] !== null;
  }

  text(name: string): string {
    return this.#checked(name, (value) => typeof value === "string") as string;
  }

  number(name: string): number {
    return this.#checked(name, Number.isSafeInteger) as number;
  }

  flag(name: string): boolean {
    return this.#checked(name, (value) => typeof value === "boolean") as boolean;
  }

  instant(name: string): Date {
    const at = new Date(this.text(name));
    if (Number.isNaN(at.getTime())) this.isWhole = false;
    return at;
  }

  choice<Choice extends string>(name: string, choices: readonly Choice[]): Choice {
    return this.#checked(name, (value) => (choices as readonly unknown[]).includes(value)) as Choice;
  }

  /** A field under its name in the API, if it is there. */
  optional(as: string, name: string, kind: "text" | "number" | "instant"): Fields {
    return this.has(name) ? { [as]: this[kind](name) } : {};
  }

  /** What an operator, or the library itself, said about it. */
  note(): Fields {
    return { ...this.optional("reason", "reason", "text"), ...this.optional("actor", "actor", "text") };
  }

  #checked(name: string, isRight: (value: unknown) => boolean): unknown {
    const value = this.has(name) ? this.#fields[name] : undefined;
    if (!isRight(value)) this.isWhole = false;
    return value;
  }
}

function isObject(value: JsonValue): value is { readonly [name: string]: JsonValue } {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
