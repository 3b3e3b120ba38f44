/**
 * Why a job is not running, or what became of it.
 *
 * @module
 */

import { JOB_FAILURE_KINDS } from "@runledger/core";
import type { DeadLetterReason, JobFailureKind, TerminalWorkflowStepStatus } from "@runledger/core";
import {
  present,
  readBoolean,
  readInstant,
  readInteger,
  readJson,
  readKnown,
  readOptionalInstant,
  readOptionalText,
  readText,
} from "./_rows.ts";
import { readClaimOutlook } from "./claim_outlook.ts";
import type { ClaimOutlook } from "./claim_outlook.ts";
import { liveJobSituation, liveStepSituation, SITUATION_COLUMNS } from "./job_situation.ts";
import type { LiveJobSituation, LiveStepSituation, OpenGate } from "./job_situation.ts";
import { uuidValue } from "./operator_note.ts";
import { runStatement } from "./queryable.ts";
import type { Queryable, Row } from "./queryable.ts";
import { inScope, scopeValues } from "./scope.ts";
import type { Scope } from "./scope.ts";
import { readAwaitedPrerequisites, readUnsatisfiedPrerequisites } from "./step_prerequisites.ts";
import type { AwaitedPrerequisite, UnsatisfiedPrerequisite } from "./step_prerequisites.ts";

/** An attempt that failed. */
export interface FailedAttempt {
  /** Its number within the run, from 1. */
  readonly attempt: number;
  /** How it failed. */
  readonly failureKind: JobFailureKind;
  /** The code of the failure. */
  readonly errorCode: string;
  /** Its message. */
  readonly errorMessage: string;
  /** When. */
  readonly failedAt: Date;
}

/** The workflow step that a job carries out. */
export interface ExplainedStepPlace {
  /** The run. */
  readonly runId: string;
  /** The step's name within the run. */
  readonly stepKey: string;
  /** Which kind of workflow; absent if the run is outside the scope. */
  readonly workflowType?: string;
}

/** What every explanation of a job says. */
export interface JobExplanationBase {
  /** The job; a step has its id before it is a job. */
  readonly jobId: string;
  /** When this was so, by the database's clock. */
  readonly observedAt: Date;
  /** Its type; absent for a gate. */
  readonly jobType?: string;
  /** The step that it carries out. */
  readonly step?: ExplainedStepPlace;
  /** Whether its type is enabled; a disabled one takes no new jobs, but runs those that it has. Absent for a gate. */
  readonly isTypeEnabled?: boolean;
  /** Attempts of its present run that failed, oldest first; the newest 20, within its newest 10,000 events. */
  readonly failedAttempts: readonly FailedAttempt[];
  /** Who requeued it, and why, if an operator did. */
  readonly requeued?: { readonly at: Date; readonly reason?: string; readonly actor?: string };
}

/** What a job waits for, who has it, or how it ended; `kind` says which fields there are. */
export type JobExplanation = JobExplanationBase & JobVerdict;

/** The part of a {@linkcode JobExplanation} that depends on its kind. */
export type JobVerdict =
  | Exclude<LiveJobSituation, { readonly kind: "due" }>
  | (Extract<LiveJobSituation, { readonly kind: "due" }> & {
    /** Why nobody may have come for it. */
    readonly outlook: ClaimOutlook;
  })
  | OpenGate
  | {
    /** It is a step that waits for others. */
    readonly kind: "blocked";
    /** For how many. */
    readonly pendingCount: number;
    /** The first ten of them; none if the run is outside the scope. */
    readonly waitsFor: readonly AwaitedPrerequisite[];
  }
  | {
    /** It succeeded. */
    readonly kind: "succeeded";
    /** When. */
    readonly finishedAt: Date;
    /** At which attempt of its run. */
    readonly attempt: number;
  }
  | {
    /** It failed for good. */
    readonly kind: "dead_lettered";
    /** When. */
    readonly finishedAt: Date;
    /** Why no attempt followed. */
    readonly reason?: DeadLetterReason;
    /** How many attempts were made. */
    readonly attempt: number;
    /** How many a run may take. */
    readonly maxAttempts: number;
  }
  | {
    /** It was called off. */
    readonly kind: "canceled";
    /** When. */
    readonly finishedAt: Date;
    /** Why. */
    readonly reason?: string;
    /** Who did it, if he said so. */
    readonly actor?: string;
    /** Until when its handler may still be at work. */
    readonly leaseQuiescesAt?: Date;
  }
  | {
    /** It is a step that ended without a job: a gate, one that was cancelled first, or one that a recovery took over. */
    readonly kind: "ended_without_job";
    /** How. */
    readonly status: TerminalWorkflowStepStatus;
    /** When. */
    readonly finishedAt: Date;
    /** Why. */
    readonly reason?: string;
    /** The code of its failure. */
    readonly errorCode?: string;
    /** What should have succeeded and did not, the first ten. */
    readonly unsatisfied: readonly UnsatisfiedPrerequisite[];
  };

// What ended attempts or put the job back, of its newest 10,000 events: progress may be most of them.
// index: workflow_steps_pkey, job_queue_pkey, workflow_runs_pkey, job_definitions_pkey, job_events_pkey.
// no row: neither a job nor a step of that id in scope.
const EXPLAIN = `
select
  extract(epoch from statement_timestamp())::text as now, coalesce(job.job_type, step.job_type) as job_type,
  ${SITUATION_COLUMNS},
  job.run_number, job.status_reason, extract(epoch from job.finished_at)::text as finished_at,
  step.step_key, step.run_id, step.status as step_status, step.pending_count,
  extract(epoch from step.released_at)::text as released_at,
  extract(epoch from step.gate_expires_at)::text as gate_expires_at,
  extract(epoch from step.finished_at)::text as step_finished_at, step.status_reason as step_reason,
  step.last_error_code as step_error_code, run.workflow_type, definition.is_enabled, letter.reason as dead_reason,
  (
    select coalesce(jsonb_agg(jsonb_build_object(
      'run_number', story.run_number, 'attempt', story.attempt, 'event_type', story.event_type,
      'payload', story.payload, 'occurred_at', extract(epoch from story.occurred_at)::text
    ) order by story.seq), '[]')
    from (
      select event.seq, event.run_number, event.attempt, event.event_type, event.payload, event.occurred_at
      from runledger.job_events as event
      where event.job_id = job.id
        and event.seq > job.event_seq - 10000
        and event.event_type in ('FAILED', 'CANCELED', 'REQUEUED')
      order by event.seq desc
      limit 20
    ) as story
  )::text as story
from (select $1::uuid as id) as asked
left join runledger.job_queue as job on job.id = asked.id and ${inScope("job")}
left join runledger.workflow_steps as step on step.id = asked.id and ${inScope("step")}
left join runledger.workflow_runs as run on run.id = step.run_id and ${inScope("run")}
left join runledger.job_definitions as definition on definition.job_type = coalesce(job.job_type, step.job_type)
left join runledger.job_dead_letters as letter on letter.job_id = job.id
where job.id is not null
  or step.id is not null
`;

/**
 * Says why a job is not running, or what became of it. {@linkcode formatJobExplanation} makes a text of it.
 *
 * Also of a step of a workflow run that is no job yet: one that is blocked, or a gate. Two statements at most, each of
 * which looks at a bounded number of rows, however large the tables or the run. Of what others do, it tells what is in
 * the scope.
 *
 * @param db A pool, client or open transaction.
 * @param jobId The job or step.
 * @param options Whose job it must be.
 * @returns The explanation, or `undefined` if there is no such job or step in the scope.
 * @throws {RunledgerError} `job.invalid_request` for an id that is none; `db.*` codes.
 */
export async function explainJob(
  db: Queryable,
  jobId: string,
  options: { readonly scope: Scope },
): Promise<JobExplanation | undefined> {
  const { scope } = options;
  const id = uuidValue("jobId", jobId);
  const [row] = await runStatement(db, EXPLAIN, [id, ...scopeValues(scope)]);
  if (row === undefined) return undefined;
  const story = readJson(row, "story") as unknown as readonly StoryEvent[];
  const verdict = row["job_status"] === null
    ? await stepVerdict(db, id, row)
    : await jobVerdict(db, { id, scope, row, story });
  return { ...explanationBase(id, row, story), ...verdict };
}

/** What a row of the ledger says in the story of a job. */
interface StoryEvent {
  readonly run_number: number;
  readonly attempt: number | null;
  readonly event_type: "FAILED" | "CANCELED" | "REQUEUED";
  readonly payload: Readonly<Record<string, unknown>> | null;
  readonly occurred_at: string;
}

function textIn(event: StoryEvent, name: string): string | undefined {
  const value = event.payload?.[name];
  return typeof value === "string" ? value : undefined;
}

function timeOf(event: StoryEvent): Date {
  return readInstant({ at: event.occurred_at }, "at");
}

function isFailureKind(value: unknown): value is JobFailureKind {
  return (JOB_FAILURE_KINDS as readonly unknown[]).includes(value);
}

function explanationBase(jobId: string, row: Row, story: readonly StoryEvent[]): JobExplanationBase {
  const runId = readOptionalText(row, "run_id");
  const requeue = story.findLast((event) =>
    event.event_type === "REQUEUED" && event.payload?.["requeue_kind"] === "COMPARE_AND_REQUEUE"
  );
  return present({
    jobId,
    observedAt: readInstant(row, "now"),
    jobType: readOptionalText(row, "job_type"),
    step: runId === undefined ? undefined : present({
      runId,
      stepKey: readText(row, "step_key"),
      workflowType: readOptionalText(row, "workflow_type"),
    }),
    isTypeEnabled: row["is_enabled"] === null ? undefined : readBoolean(row, "is_enabled"),
    failedAttempts: story
      .filter((event) => event.event_type === "FAILED" && event.run_number === row["run_number"])
      .map((event): FailedAttempt => ({
        attempt: event.attempt ?? 0,
        failureKind: readKnown({ kind: event.payload?.["kind"] }, "kind", isFailureKind),
        errorCode: textIn(event, "error_code") ?? "",
        errorMessage: textIn(event, "error_message") ?? "",
        failedAt: timeOf(event),
      })),
    requeued: requeue === undefined
      ? undefined
      : present({ at: timeOf(requeue), reason: textIn(requeue, "reason"), actor: textIn(requeue, "actor") }),
  });
}

interface Asked {
  readonly id: string;
  readonly scope: Scope;
  readonly row: Row;
  readonly story: readonly StoryEvent[];
}

async function jobVerdict(db: Queryable, { id, scope, row, story }: Asked): Promise<JobVerdict> {
  switch (row["job_status"]) {
    case "SUCCEEDED":
      return {
        kind: "succeeded",
        finishedAt: readInstant(row, "finished_at"),
        attempt: readInteger(row, "attempt"),
      };
    case "DEAD_LETTERED":
      return present({
        kind: "dead_lettered",
        finishedAt: readInstant(row, "finished_at"),
        reason: readOptionalText(row, "dead_reason") as DeadLetterReason | undefined,
        attempt: readInteger(row, "attempt"),
        maxAttempts: readInteger(row, "max_attempts"),
      });
    case "CANCELED": {
      const event = story.findLast(({ event_type }) => event_type === "CANCELED");
      return present({
        kind: "canceled",
        finishedAt: readInstant(row, "finished_at"),
        reason: readOptionalText(row, "status_reason"),
        actor: event === undefined ? undefined : textIn(event, "actor"),
        leaseQuiescesAt: row["has_run_out"] === false ? readOptionalInstant(row, "lease_expires_at") : undefined,
      });
    }
    default: {
      const situation = liveJobSituation(row);
      if (situation.kind !== "due") return situation;
      const job = { jobId: id, jobType: readText(row, "job_type") };
      return { ...situation, outlook: await readClaimOutlook(db, job, { scope }) };
    }
  }
}

async function stepVerdict(db: Queryable, id: string, row: Row): Promise<JobVerdict> {
  const isRunSeen = row["workflow_type"] !== null;
  const situation: LiveStepSituation | undefined = row["step_finished_at"] === null
    ? liveStepSituation(row)
    : undefined;
  if (situation?.kind === "gate_open") return situation;
  if (situation !== undefined) {
    return {
      kind: "blocked",
      pendingCount: readInteger(row, "pending_count"),
      waitsFor: isRunSeen ? await readAwaitedPrerequisites(db, id) : [],
    };
  }
  const errorCode = readOptionalText(row, "step_error_code");
  const isUnsatisfied = errorCode === "workflow.dependency_unsatisfied" && isRunSeen;
  return present({
    kind: "ended_without_job",
    status: readText(row, "step_status") as TerminalWorkflowStepStatus,
    finishedAt: readInstant(row, "step_finished_at"),
    reason: readOptionalText(row, "step_reason"),
    errorCode,
    unsatisfied: isUnsatisfied ? await readUnsatisfiedPrerequisites(db, id) : [],
  });
}
