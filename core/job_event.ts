/**
 * The ledger of a job: its events, and the state that they add up to.
 *
 * @module
 */

import { RunledgerError } from "./errors.ts";
import { isTerminalJobStatus, JOB_TRANSITIONS } from "./job_status.ts";
import type { JobStage, JobStatus } from "./job_status.ts";
import type { JsonValue } from "./json.ts";

/**
 * What happened to a job. Each event names the run and the attempt that it belongs to.
 *
 * - `ENQUEUED`: the job came to be. Always the first event.
 * - `LEASED`: a worker claimed it, which begins an attempt.
 * - `HEARTBEAT`: the worker extended its lease. Posted only when asked for.
 * - `PROGRESS`: the handler reported progress or a checkpoint.
 * - `STAGE_CHANGED`: the stage shown to people changed without a change of status.
 * - `SUCCEEDED`: the attempt finished the job.
 * - `FAILED`: the attempt failed. Followed at once by `RETRY_SCHEDULED` or `DEAD_LETTERED`.
 * - `RETRY_SCHEDULED`: another attempt will be made.
 * - `DEAD_LETTERED`: no other attempt will be made.
 * - `CANCELED`: somebody called the job off.
 * - `REQUEUED`: it waits again without having failed; see {@linkcode RequeueKind}.
 * - `EDITED`: an operator changed when it is due, how urgent it is, or its payload, while it waited.
 */
export type JobEventType =
  | "ENQUEUED"
  | "LEASED"
  | "HEARTBEAT"
  | "PROGRESS"
  | "STAGE_CHANGED"
  | "SUCCEEDED"
  | "FAILED"
  | "RETRY_SCHEDULED"
  | "DEAD_LETTERED"
  | "CANCELED"
  | "REQUEUED"
  | "EDITED";

/** Every {@linkcode JobEventType}. */
export const JOB_EVENT_TYPES: readonly JobEventType[] = [
  "ENQUEUED",
  "LEASED",
  "HEARTBEAT",
  "PROGRESS",
  "STAGE_CHANGED",
  "SUCCEEDED",
  "FAILED",
  "RETRY_SCHEDULED",
  "DEAD_LETTERED",
  "CANCELED",
  "REQUEUED",
  "EDITED",
];

/**
 * Why a job was put back without a failure: `payload.requeue_kind` of a `REQUEUED` event.
 *
 * - `UNSTARTED_RELEASE`: a worker gave back a claim that it never started. The attempt is not counted.
 * - `SNOOZE`: the handler put the job off. The attempt is not counted.
 * - `HANDLER_CONTINUATION`: the handler ended a slice of its work. A new run begins.
 * - `COMPARE_AND_REQUEUE`: an operator requeued a dead-lettered or cancelled job. A new run begins.
 */
export type RequeueKind = "UNSTARTED_RELEASE" | "SNOOZE" | "HANDLER_CONTINUATION" | "COMPARE_AND_REQUEUE";

/** Every {@linkcode RequeueKind}. */
export const REQUEUE_KINDS: readonly RequeueKind[] = [
  "UNSTARTED_RELEASE",
  "SNOOZE",
  "HANDLER_CONTINUATION",
  "COMPARE_AND_REQUEUE",
];

/** One row of the ledger. */
export interface JobEvent {
  /** The job. */
  readonly jobId: string;
  /** Its place among the job's events: 1 to n without gaps. */
  readonly seq: number;
  /** The run that it belongs to, from 1. An event that begins a new run belongs to the run that it ends. */
  readonly runNumber: number;
  /** The attempt that it belongs to, from 1; absent when it belongs to none. */
  readonly attempt?: number;
  /** What happened. */
  readonly eventType: JobEventType;
  /** The stage after it, where it sets one. */
  readonly stage?: JobStage;
  /** Units done, where it sets them. */
  readonly progressDone?: number;
  /** Units in all, where it sets them. */
  readonly progressTotal?: number;
  /** What else is known about it; the fields depend on the event type. */
  readonly payload: JsonValue | null;
  /** When it was posted, by the database's clock. */
  readonly occurredAt: Date;
}

/** What the events of a job add up to: the part of its `job_queue` row that the ledger determines. */
export interface JobProjection {
  /** Where the job stands. */
  readonly status: JobStatus;
  /** How far it has come, for people. */
  readonly stage: JobStage;
  /** The current run, from 1. */
  readonly runNumber: number;
  /** The newest attempt of the run; 0 before the first claim. */
  readonly attempt: number;
  /** Units done, if ever reported. */
  readonly progressDone?: number;
  /** Units in all, if ever reported. */
  readonly progressTotal?: number;
  /** Why it stands where it stands, if there is more to say. */
  readonly statusReason?: string;
  /** The code of the newest failure that is still open. */
  readonly lastErrorCode?: string;
  /** The message of the newest failure that is still open. */
  readonly lastErrorMessage?: string;
  /** The `seq` of the newest event. */
  readonly eventSeq: number;
}

/**
 * Adds up the events of a job: the state machine of the ledger as a pure function. The result is what the job's
 * `job_queue` row must say.
 *
 * The rules, besides the transitions of {@linkcode JOB_TRANSITIONS}:
 * - `seq` is 1 to n, and `ENQUEUED` is the first event and no other.
 * - An event belongs to the current run and, where it names one, to the current attempt. `LEASED` begins the next attempt,
 *   so attempts of a run are 1 to n; one that was released unstarted or snoozed is given back and used again.
 * - `FAILED` is followed at once by `RETRY_SCHEDULED` or `DEAD_LETTERED`, and these follow nothing else.
 *
 * @param events All events of one job, in the order of `seq`.
 * @returns The state after the last of them.
 * @throws {RunledgerError} `job.invalid_state_transition` when the events break a rule, with the `seq` in `details`.
 *
 * @example
 * ```ts
 * import { newId, replayJobEvents } from "@runledger/core";
 * import type { JobEvent } from "@runledger/core";
 * import assert from "node:assert/strict";
 *
 * const common = { jobId: newId(), runNumber: 1, payload: null, occurredAt: new Date() };
 * const events: JobEvent[] = [
 *   { ...common, seq: 1, eventType: "ENQUEUED", stage: "queued" },
 *   { ...common, seq: 2, eventType: "LEASED", stage: "running", attempt: 1 },
 *   { ...common, seq: 3, eventType: "SUCCEEDED", stage: "completed", attempt: 1 },
 * ];
 * assert.deepEqual(replayJobEvents(events), {
 *   status: "SUCCEEDED",
 *   stage: "completed",
 *   runNumber: 1,
 *   attempt: 1,
 *   eventSeq: 3,
 * });
 * ```
 */
export function replayJobEvents(events: Iterable<JobEvent>): JobProjection {
  let state: JobProjection | undefined;
  let previous: JobEvent | undefined;
  for (const event of events) {
    if (event.seq !== (previous?.seq ?? 0) + 1) refuse(event, `follows seq ${previous?.seq ?? 0}`);
    if (previous !== undefined && event.jobId !== previous.jobId) refuse(event, "is of another job");
    if (previous?.eventType === "FAILED" && !isVerdict(event)) {
      refuse(event, "follows FAILED, which RETRY_SCHEDULED or DEAD_LETTERED must");
    }
    state = state === undefined ? enqueued(event) : { ...after(state, event, previous), eventSeq: event.seq };
    previous = event;
  }
  if (state === undefined || previous === undefined) {
    throw new RunledgerError("job.invalid_state_transition", { message: "A job has at least one event." });
  }
  if (previous.eventType === "FAILED") refuse(previous, "is the last event, but is no end of an attempt");
  return state;
}

/** What may become undefined on the way; removed when it does, so that absent is absent. */
type Change = { readonly [Key in keyof JobProjection]?: JobProjection[Key] | undefined };

const NO_ERRORS = { lastErrorCode: undefined, lastErrorMessage: undefined } as const;

function enqueued(event: JobEvent): JobProjection {
  if (event.eventType !== "ENQUEUED") refuse(event, "comes before ENQUEUED");
  if (event.runNumber !== 1 || event.attempt !== undefined) refuse(event, "must belong to run 1 and to no attempt");
  if (event.stage !== "queued" && event.stage !== "scheduled") refuse(event, "must have the stage queued or scheduled");
  return { status: "PENDING", stage: event.stage, runNumber: 1, attempt: 0, eventSeq: event.seq };
}

function after(state: JobProjection, event: JobEvent, previous: JobEvent | undefined): JobProjection {
  if (event.runNumber !== state.runNumber) refuse(event, `belongs to run ${event.runNumber}, not ${state.runNumber}`);
  const attempt = event.eventType === "LEASED" ? state.attempt + 1 : state.attempt;
  if (event.eventType === "LEASED" ? event.attempt !== attempt : (event.attempt ?? attempt) !== attempt) {
    refuse(event, `belongs to attempt ${event.attempt}, not ${attempt}`);
  }
  const reported = changed(state, {
    progressDone: event.progressDone ?? state.progressDone,
    progressTotal: event.progressTotal ?? state.progressTotal,
  });
  switch (event.eventType) {
    case "ENQUEUED":
      return refuse(event, "comes a second time");
    case "LEASED":
      return changed(reported, { status: moved(state, event, "LEASED"), stage: "running", attempt });
    case "HEARTBEAT":
    case "PROGRESS":
      held(state, event);
      return reported;
    case "STAGE_CHANGED":
      if (isTerminalJobStatus(state.status)) refuse(event, `comes after ${state.status}`);
      if (event.stage === undefined) refuse(event, "has no stage");
      return changed(reported, { stage: event.stage });
    case "SUCCEEDED":
      return changed(reported, {
        status: moved(state, event, "SUCCEEDED"),
        stage: "completed",
        statusReason: undefined,
        ...NO_ERRORS,
      });
    case "FAILED":
      held(state, event);
      return changed(reported, {
        statusReason: neededText(event, "kind"),
        lastErrorCode: neededText(event, "error_code"),
        lastErrorMessage: neededText(event, "error_message"),
      });
    case "RETRY_SCHEDULED":
      if (previous?.eventType !== "FAILED") refuse(event, "does not follow FAILED");
      return changed(reported, { status: moved(state, event, "PENDING"), stage: "queued" });
    case "DEAD_LETTERED":
      if (previous?.eventType !== "FAILED") refuse(event, "does not follow FAILED");
      return changed(reported, { status: moved(state, event, "DEAD_LETTERED") });
    case "CANCELED":
      return changed(reported, {
        status: moved(state, event, "CANCELED"),
        statusReason: textOf(event, "reason") ?? "CANCELED",
      });
    case "REQUEUED":
      return requeued(state, reported, event);
    case "EDITED":
      if (state.status !== "PENDING") refuse(event, `cannot be while the job is ${state.status}`);
      return reported;
    default:
      return refuse(event, "is of an unknown type");
  }
}

function requeued(state: JobProjection, reported: JobProjection, event: JobEvent): JobProjection {
  const kind = textOf(event, "requeue_kind");
  const again = { status: moved(state, event, "PENDING"), stage: "queued" } as const;
  const nextRun = { ...again, ...NO_ERRORS, runNumber: state.runNumber + 1, attempt: 0 } as const;
  switch (kind) {
    case "UNSTARTED_RELEASE":
    case "SNOOZE":
      held(state, event);
      return changed(reported, {
        ...again,
        attempt: state.attempt - 1,
        statusReason: textOf(event, "reason") ?? kind,
      });
    case "HANDLER_CONTINUATION":
      held(state, event);
      return changed(reported, { ...nextRun, statusReason: kind });
    case "COMPARE_AND_REQUEUE":
      if (!isTerminalJobStatus(state.status)) refuse(event, `cannot be while the job is ${state.status}`);
      return changed(reported, {
        ...nextRun,
        statusReason: textOf(event, "reason") ?? kind,
        ...(fieldOf(event, "reset_progress") === true ? { progressDone: undefined, progressTotal: undefined } : {}),
      });
    default:
      return refuse(event, "has no known requeue_kind");
  }
}

/** Whether an event says what follows from a failure. */
function isVerdict(event: JobEvent): boolean {
  return event.eventType === "RETRY_SCHEDULED" || event.eventType === "DEAD_LETTERED";
}

function moved(state: JobProjection, event: JobEvent, status: JobStatus): JobStatus {
  if (!JOB_TRANSITIONS[state.status].includes(status)) refuse(event, `cannot be while the job is ${state.status}`);
  return status;
}

function held(state: JobProjection, event: JobEvent): void {
  if (state.status !== "LEASED") refuse(event, `cannot be while the job is ${state.status}`);
}

function changed(state: JobProjection, change: Change): JobProjection {
  const next: Record<string, unknown> = { ...state };
  for (const [key, value] of Object.entries(change)) {
    if (value === undefined) delete next[key];
    else next[key] = value;
  }
  return next as JobProjection & typeof next;
}

function fieldOf(event: JobEvent, name: string): unknown {
  const { payload } = event;
  if (typeof payload !== "object" || payload === null || Array.isArray(payload)) return undefined;
  return (payload as Readonly<Record<string, unknown>>)[name];
}

function textOf(event: JobEvent, name: string): string | undefined {
  const value = fieldOf(event, name) ?? undefined;
  if (value !== undefined && typeof value !== "string") refuse(event, `has a ${name} that is no text`);
  return value;
}

function neededText(event: JobEvent, name: string): string {
  return textOf(event, name) ?? refuse(event, `has no ${name}`);
}

function refuse(event: JobEvent, problem: string): never {
  throw new RunledgerError("job.invalid_state_transition", {
    message: `The ledger of the job is not in order: event ${event.seq}, ${event.eventType}, ${problem}.`,
    details: { seq: event.seq, eventType: event.eventType },
  });
}
