/**
 * Reading the ledger of a job.
 *
 * @module
 */

import { decodeJobEventDetails, JOB_EVENT_TYPES } from "@runledger/core";
import type { JobEvent, JobEventDetails, JobEventType } from "@runledger/core";
import { equalConditions, readPage, StatementValues, timeConditions } from "./_keyset_page.ts";
import type { KeysetList } from "./_keyset_page.ts";
import {
  present,
  readInstant,
  readInteger,
  readJobEventType,
  readJson,
  readOptionalInteger,
  readOptionalJobStage,
  readText,
} from "./_rows.ts";
import { jobInScope } from "./jobs.ts";
import { choiceValue } from "./operator_note.ts";
import type { Page, ScopedPageOptions } from "./pages.ts";
import type { Queryable, Row } from "./queryable.ts";

/** An event as it is listed: the row of the ledger, and what its payload says. */
export interface ListedJobEvent extends JobEvent {
  /**
   * What the payload says, by the type of the event. Absent for a payload that this version does not understand; the raw
   * one is always there.
   */
  readonly details?: JobEventDetails;
}

/** Which events of a job, and which page of them. */
export interface ListJobEventsOptions extends ScopedPageOptions {
  /** Only events of this type. */
  readonly eventType?: JobEventType;
  /** Only events that were posted at this instant or later. */
  readonly since?: Date;
  /** Only events that were posted before this instant. */
  readonly until?: Date;
}

const EVENTS: KeysetList<ListedJobEvent> = {
  name: "job_events",
  alias: "event",
  keys: [{ column: "job_id", type: "uuid" }, { column: "seq", type: "integer" }],
  direction: "asc",
  item: `
    event.job_id, event.seq, event.run_number, event.attempt, event.event_type, event.stage,
    event.progress_done::text as progress_done, event.progress_total::text as progress_total,
    event.payload::text as payload, extract(epoch from event.occurred_at)::text as occurred_at
  from runledger.job_events as event
  where event.job_id = page.key_1
    and event.seq = page.key_2`,
  decode: decodeListedEvent,
};

/**
 * Lists the events of a job, oldest first: everything that ever happened to it.
 *
 * @param db A pool, client or open transaction.
 * @param jobId The job.
 * @param options Whose job, which events, from where on, and how many.
 * @returns A page of events; an empty one for a job outside the scope.
 * @throws {RunledgerError} `job.invalid_pagination`; `job.invalid_request` for a filter that cannot be; `db.*` codes.
 */
export async function listJobEvents(
  db: Queryable,
  jobId: string,
  options: ListJobEventsOptions,
): Promise<Page<ListedJobEvent>> {
  const { scope, eventType, since, until } = options;
  if (eventType !== undefined) choiceValue("eventType", eventType, JOB_EVENT_TYPES);
  const bound = new StatementValues();
  // index: job_events_pkey, job_queue_pkey.
  const source = {
    from: "runledger.job_events as event",
    where: jobInScope(bound, jobId, { scope, column: "event.job_id" }),
    examines: ["event.event_type", "event.occurred_at"],
    filters: [
      ...equalConditions(bound, { "event.event_type": eventType }),
      ...timeConditions(bound, "event.occurred_at", { since, until }),
    ],
  };
  return await readPage(db, EVENTS, { source, bound, options });
}

/** Reads one event, with what its payload says. */
export function decodeListedEvent(row: Row): ListedJobEvent {
  const event = {
    jobId: readText(row, "job_id"),
    seq: readInteger(row, "seq"),
    runNumber: readInteger(row, "run_number"),
    attempt: readOptionalInteger(row, "attempt"),
    eventType: readJobEventType(row, "event_type"),
    stage: readOptionalJobStage(row, "stage"),
    progressDone: readOptionalInteger(row, "progress_done"),
    progressTotal: readOptionalInteger(row, "progress_total"),
    payload: row["payload"] === null ? null : readJson(row, "payload"),
    occurredAt: readInstant(row, "occurred_at"),
  };
  return present({ ...event, details: decodeJobEventDetails(event) });
}
