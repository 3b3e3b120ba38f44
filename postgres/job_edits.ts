/**
 * Changing jobs while they wait: when they are due, how urgent they are, what they are given.
 *
 * @module
 */

import { encodeJson, MAX_INTEGER, RunledgerError } from "@runledger/core";
import type { JobStatus, JsonValue } from "@runledger/core";
import { readInteger, readJobStatus, readText } from "./_rows.ts";
import { counterValue, instantValue, operatorNote, uuidValue } from "./operator_note.ts";
import type { OperatorNote } from "./operator_note.ts";
import { runStatement } from "./queryable.ts";
import type { Queryable, StatementValue } from "./queryable.ts";
import { scopeValues } from "./scope.ts";
import type { Scope } from "./scope.ts";

/** What to change about a job that waits: at least one of it. */
export interface JobScheduling {
  /** When it is due; an instant that has passed means at once. */
  readonly nextRunAt?: Date;
  /** How urgent it is: any 32-bit integer, higher goes first. */
  readonly priority?: number;
}

/** Which job to change, in what, and what to record. */
export interface EditJobOptions extends JobScheduling, OperatorNote {
  /** Whose job it must be; outside it the job is not found. */
  readonly scope: Scope;
  /**
   * What its handler is given in place of the payload that it has: any JSON value. No schema of a definition is asked here;
   * `definition.request(payload).payload` has passed it.
   */
  readonly payload?: JsonValue;
  /** The `eventSeq` of the job that the caller saw: if anything has happened to it since, nothing is changed. */
  readonly expectedEventSeq?: number;
}

/** What an edit led to. Only `edited` changed anything. */
export type EditJobResult =
  | {
    /** The job is as was asked; an EDITED event says so. */
    readonly kind: "edited";
    /** How many events its ledger has now. */
    readonly eventSeq: number;
  }
  | {
    /** The job was so already. */
    readonly kind: "unchanged";
    /** How many events its ledger has. */
    readonly eventSeq: number;
  }
  | {
    /** The job does not wait, or is not as the caller saw it. */
    readonly kind: "mismatch";
    /** Its status. */
    readonly status: JobStatus;
    /** How many events its ledger has. */
    readonly eventSeq: number;
  };

/** Gives one row for each target; see migrations/0011_job_edits.sql. Its values are those of {@linkcode editValues}. */
// locks: the jobs that wait, by id. index: job_queue_pkey. always a row for each target.
export const EDIT_PENDING = `
select edit.job_id, edit.outcome, edit.status, edit.event_seq
from runledger.edit_pending_jobs(
  $1::text::jsonb,
  $2::text,
  $3::uuid,
  $4::text::jsonb
  || case when $5::text is null then '{}' else jsonb_build_object('payload', $5::text::jsonb) end,
  $6::text::jsonb
) as edit
`;

/** Which job, and how many events it must have. */
export interface EditTarget {
  readonly id: string;
  readonly event_seq?: number;
}

/** Checks what is asked for, and writes it as the values of {@linkcode EDIT_PENDING}. */
export function editValues(
  targets: readonly EditTarget[],
  options: Omit<EditJobOptions, "expectedEventSeq">,
): readonly StatementValue[] {
  const { scope, nextRunAt, priority, payload } = options;
  if (nextRunAt === undefined && priority === undefined && payload === undefined) {
    throw new RunledgerError("job.invalid_request", {
      message: "An edit must say what to change: 'nextRunAt', 'priority' or 'payload'.",
    });
  }
  const change = {
    ...(nextRunAt === undefined ? {} : { next_run_at: instantValue("nextRunAt", nextRunAt) }),
    ...(priority === undefined ? {} : { priority: priorityValue(priority) }),
  };
  return [
    JSON.stringify(targets),
    ...scopeValues(scope),
    JSON.stringify(change),
    payload === undefined ? null : encodeJson(payload, { field: "payload" }),
    operatorNote(options),
  ];
}

/**
 * Changes a job that waits for its first or next attempt: when it is due, how urgent it is, or its payload.
 *
 * One statement; posts an EDITED event with reason, actor, and what was there before, so that an edit can be taken back: a
 * payload that was replaced stays in the ledger until retention deletes the job. Racing with a claim, a cancellation or another edit, one goes first and the other sees what it
 * left. The request that an idempotency key stands for stays as it was: the same request still gives this job, and a request
 * with the new payload is another one. Safe to repeat: what is so already is not written again.
 *
 * The payload of a workflow step cannot be edited; when it is due and its priority can. Checkpoint and progress of earlier
 * attempts stay.
 *
 * @param db A pool, client or open transaction.
 * @param jobId The job.
 * @param options Whose job it must be, what to change, and what to record.
 * @returns What it led to; only `edited` changed anything.
 * @throws {RunledgerError} `job.not_found`, also for a job outside the scope; `job.workflow_edit_not_supported` for the
 * payload of a workflow step; `job.invalid_payload`; `job.invalid_request` for any other field that cannot be, or if nothing
 * is to be changed; `db.*` codes.
 */
export async function editJob(db: Queryable, jobId: string, options: EditJobOptions): Promise<EditJobResult> {
  const { expectedEventSeq } = options;
  const target = {
    id: uuidValue("jobId", jobId),
    ...(expectedEventSeq === undefined ? {} : { event_seq: counterValue("expectedEventSeq", expectedEventSeq) }),
  };
  const values = editValues([target], options);
  for (let tries = 0; tries < 5; tries++) {
    const [row] = await runStatement(db, EDIT_PENDING, values, { write: true });
    if (row === undefined) throw new RunledgerError("db.unexpected_result");
    const outcome = readText(row, "outcome");
    if (outcome === "not_found") throw new RunledgerError("job.not_found");
    if (outcome === "workflow_step") throw new RunledgerError("job.workflow_edit_not_supported");
    const eventSeq = readInteger(row, "event_seq");
    if (outcome === "edited" || outcome === "unchanged") return { kind: outcome, eventSeq };
    const status = readJobStatus(row, "status");
    if (status !== "PENDING" || (expectedEventSeq !== undefined && eventSeq !== expectedEventSeq)) {
      return { kind: "mismatch", status, eventSeq };
    }
    // A rival changed or deleted the job while this statement waited for it: what its snapshot says is no longer so.
  }
  throw new RunledgerError("db.serialization_failure");
}

function priorityValue(priority: number): number {
  if (!Number.isInteger(priority) || priority < -MAX_INTEGER - 1 || priority > MAX_INTEGER) {
    throw new RunledgerError("job.invalid_request", {
      message: "'priority' must be a 32-bit integer.",
      details: { field: "priority" },
    });
  }
  return priority;
}
