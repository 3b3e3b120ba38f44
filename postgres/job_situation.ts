/**
 * Where a job that has not ended stands, and a gate that is open: what explanations of jobs and of runs are made of.
 *
 * @module
 */

import { present, readInstant, readInteger, readOptionalInstant, readOptionalText, readText } from "./_rows.ts";
import type { Row } from "./queryable.ts";

/** What a job that has not ended waits for, or who is at work on it. */
export type LiveJobSituation =
  | {
    /** Its first attempt is not due yet. */
    readonly kind: "scheduled";
    /** When it is. */
    readonly dueAt: Date;
  }
  | {
    /** An attempt failed, or was put off; the next one is not due yet. */
    readonly kind: "waiting_to_retry";
    /** When it is. */
    readonly dueAt: Date;
    /** How many attempts were made. */
    readonly attempt: number;
    /** How many a run may take. */
    readonly maxAttempts: number;
    /** The code of the newest failure. */
    readonly errorCode?: string;
  }
  | {
    /** It is due, and nobody has claimed it. */
    readonly kind: "due";
    /** Since when. */
    readonly dueAt: Date;
    /** How many attempts were made. */
    readonly attempt: number;
    /** How many a run may take. */
    readonly maxAttempts: number;
    /** The code of the newest failure. */
    readonly errorCode?: string;
  }
  | {
    /** A worker holds it. */
    readonly kind: "running";
    /** Which one. */
    readonly workerId: string;
    /** Until when, unless it extends its lease. */
    readonly leaseExpiresAt: Date;
    /** When it last did so, or claimed it. */
    readonly lastHeartbeatAt?: Date;
    /** When the run was first claimed. */
    readonly startedAt?: Date;
    /** Which attempt it is. */
    readonly attempt: number;
    /** How many a run may take. */
    readonly maxAttempts: number;
  }
  | {
    /** The worker that held it let its lease run out; a reaper will give it to another. */
    readonly kind: "lease_run_out";
    /** Which worker. */
    readonly workerId: string;
    /** When the lease ran out. */
    readonly leaseExpiresAt: Date;
    /** Which attempt it was. */
    readonly attempt: number;
    /** How many a run may take. */
    readonly maxAttempts: number;
  };

/** A gate that waits to be completed. */
export interface OpenGate {
  /** A gate is open. */
  readonly kind: "gate_open";
  /** Since when: the end of its last prerequisite. */
  readonly openSince: Date;
  /** When it gets its default outcome; absent if it waits for ever. */
  readonly expiresAt?: Date;
}

/** Where a step of a workflow run stands that has not ended. */
export type LiveStepSituation = LiveJobSituation | OpenGate | {
  /** It waits for prerequisites. */
  readonly kind: "blocked";
};

/** A step of a workflow run that has not ended. */
export interface LiveStep {
  /** The step, and the job that runs it once it is released. */
  readonly stepId: string;
  /** Its name within the run. */
  readonly stepKey: string;
  /** Where it stands. */
  readonly situation: LiveStepSituation;
}

/** The columns of a job from which {@linkcode liveJobSituation} tells where it stands. */
export const SITUATION_COLUMNS = `
  job.status as job_status, job.attempt, job.max_attempts, job.worker_id, job.last_error_code,
  job.next_run_at <= statement_timestamp() as is_due, job.lease_expires_at <= statement_timestamp() as has_run_out,
  extract(epoch from job.next_run_at)::text as next_run_at,
  extract(epoch from job.lease_expires_at)::text as lease_expires_at,
  extract(epoch from job.last_heartbeat_at)::text as last_heartbeat_at,
  extract(epoch from job.started_at)::text as started_at`;

/** Tells where a job stands that is PENDING or LEASED, from {@linkcode SITUATION_COLUMNS}. */
export function liveJobSituation(row: Row): LiveJobSituation {
  const attempt = readInteger(row, "attempt");
  const maxAttempts = readInteger(row, "max_attempts");
  if (row["job_status"] === "LEASED") {
    const held = { workerId: readText(row, "worker_id"), leaseExpiresAt: readInstant(row, "lease_expires_at") };
    if (row["has_run_out"] === true) return { kind: "lease_run_out", ...held, attempt, maxAttempts };
    return present({
      kind: "running",
      ...held,
      lastHeartbeatAt: readOptionalInstant(row, "last_heartbeat_at"),
      startedAt: readOptionalInstant(row, "started_at"),
      attempt,
      maxAttempts,
    });
  }
  const dueAt = readInstant(row, "next_run_at");
  if (row["is_due"] !== true && attempt === 0) return { kind: "scheduled", dueAt };
  const kind = row["is_due"] === true ? "due" : "waiting_to_retry";
  return present({ kind, dueAt, attempt, maxAttempts, errorCode: readOptionalText(row, "last_error_code") });
}

/** Tells where a step stands that has not ended, from its columns and {@linkcode SITUATION_COLUMNS}. */
export function liveStepSituation(row: Row): LiveStepSituation {
  if (row["step_status"] === "BLOCKED") return { kind: "blocked" };
  if (row["step_status"] !== "WAITING_FOR_EXTERNAL") return liveJobSituation(row);
  return present({
    kind: "gate_open",
    openSince: readInstant(row, "released_at"),
    expiresAt: readOptionalInstant(row, "gate_expires_at"),
  });
}
