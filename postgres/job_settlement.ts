/**
 * Settlement: every way in which an attempt can end meets here, in one fenced write.
 *
 * @module
 */

import {
  assertJobOutcome,
  defaultRetryDelayMs,
  encodeJson,
  isUuid,
  MAX_INTEGER,
  RunledgerError,
} from "@runledger/core";
import type { JobLease, JobOutcome, JobStatus } from "@runledger/core";
import { arrayText, evenArrayText, quoteItem, sparseArrayText } from "./_array_text.ts";
import { readJobStatus, readJson, readOptionalInstant, readText } from "./_rows.ts";
import { runStatement } from "./queryable.ts";
import type { Queryable, Row } from "./queryable.ts";
import { decodeReleases } from "./workflow_release.ts";
import type { WorkflowRelease } from "./workflow_release.ts";

/** How one leased attempt ended. */
export interface JobSettlement {
  /** The lease that the attempt ran under; a {@linkcode ClaimedJob} is one. */
  readonly lease: JobLease;
  /** How the attempt ended. */
  readonly outcome: JobOutcome;
}

/** What a settlement led to: the job's new status, or why nothing was written. */
export type SettledJob =
  | {
    /** The job. */
    readonly jobId: string;
    /** The outcome was posted. */
    readonly settled: true;
    /** `PENDING` after a retry, continuation or snooze; otherwise how the job ended. */
    readonly status: JobStatus;
    /** When it is due again, if it is `PENDING`. */
    readonly nextRunAt?: Date;
    /** What else happened in its run, if that was asked for and anything did. */
    readonly release?: WorkflowRelease;
  }
  | {
    /** The job. */
    readonly jobId: string;
    /** Nothing was written. */
    readonly settled: false;
    /** The lease is lost; or the progress contradicts what is stored; or the step does not allow continuations. */
    readonly code:
      | "job.lease_owner_mismatch"
      | "job.invalid_progress"
      | "job.workflow_handler_continuation_not_enabled";
  };

/** How settlements are answered. */
export interface SettleOptions {
  /**
   * Whether to tell what settlements of steps led to, in {@linkcode SettledJob}'s `release`: of several jobs of one run,
   * the last one has it. It costs no round trip, but the database has to write it down: settling the steps of four-step
   * diamonds took 1.3 times as long with it (batches of 250, one client, PostgreSQL 18, two cores). @default {false}
   */
  readonly tellsRelease?: boolean;
}

/** The most settlements that one call takes. */
export const MAX_SETTLE_BATCH = 1000;

// locks: the workflow runs in id order, then the jobs in id order; waits for whoever holds one. See the function.
// a row for each fate, with the places in the batch that met it; a place that is in none has lost its lease. One more,
// without places, tells what was released.
const SETTLE = `
select
  settled.status, settled.next_run_at, settled.refusal, array_to_json(settled.places)::text as places,
  settled.release::text as release
from runledger.settle_jobs(
  $1::text::uuid[], $2::text::integer[], $3::text::integer[], $4::text::uuid[], $5::text::uuid[], $6::text::text[],
  $7::text::jsonb[], false, $8::boolean
) as settled
`;

/**
 * Posts how a batch of attempts ended, in one statement.
 *
 * Each settlement stands by itself: one whose lease is lost is refused and the others are posted. The fence is the exact
 * run, attempt and lease token with an unexpired lease by the database's clock after any wait for a lock; there is no
 * grace. A failure becomes a retry while its kind and the attempts left allow one, else a dead letter. Not repeatable:
 * the same settlement again finds its lease gone. After a lost connection (`db.commit_unknown`) repeat it: if the first
 * was applied, the second is refused and changes nothing.
 *
 * @param db A pool, client or open transaction. In a transaction, what it writes commits with the settlements or not at
 * all.
 * @param settlements At most 1000, no job twice; an empty list does nothing.
 * @param options Whether to tell what it led to in workflow runs.
 * @returns One entry for each settlement, in the same order.
 * @throws {RunledgerError} `job.invalid_outcome`, `job.invalid_progress` or `job.invalid_payload` before anything is sent;
 * `db.*` codes.
 * @throws {RangeError} If there are more than 1000 settlements.
 */
export async function settleJobs(
  db: Queryable,
  settlements: readonly JobSettlement[],
  options: SettleOptions = {},
): Promise<readonly SettledJob[]> {
  if (settlements.length > MAX_SETTLE_BATCH) {
    throw new RangeError(`Cannot settle ${settlements.length} jobs at once: at most ${MAX_SETTLE_BATCH}`);
  }
  if (settlements.length === 0) return [];
  const leases = settlements.map(({ lease }) => lease);
  const more = settlements.map(encodeMore);
  assertDistinctJobs(leases);
  const rows = await runStatement(db, SETTLE, [
    arrayText(leases.map(({ jobId }) => jobId)),
    evenArrayText(leases.map(({ runNumber }) => runNumber)),
    evenArrayText(leases.map(({ attempt }) => attempt)),
    evenArrayText(leases.map(({ leaseToken }) => leaseToken)),
    sparseArrayText(leases.map(({ workflowRunId }) => workflowRunId)),
    sparseArrayText(settlements.map(({ outcome: { kind } }) => kind === "succeeded" ? undefined : kind)),
    sparseArrayText(more),
    options.tellsRelease === true,
  ], { write: true });
  const results = leases.map(({ jobId }): SettledJob => ({ jobId, settled: false, code: "job.lease_owner_mismatch" }));
  for (const row of rows) {
    if (row["places"] === null) continue;
    const settle = decodeFate(row);
    for (const place of readJson(row, "places") as readonly number[]) {
      const lease = leases[place - 1];
      if (lease === undefined) throw new RunledgerError("db.unexpected_result");
      results[place - 1] = settle(lease.jobId);
    }
  }
  const told = rows.find((row) => row["places"] === null);
  if (told !== undefined) addReleases(results, leases, decodeReleases(readText(told, "release")));
  return results;
}

/** Gives what happened in each run to the last job of it that was settled. */
function addReleases(
  results: SettledJob[],
  leases: readonly JobLease[],
  releases: ReadonlyMap<string, WorkflowRelease>,
): void {
  const left = new Map(releases);
  for (let place = leases.length - 1; place >= 0 && left.size > 0; place--) {
    const runId = leases[place]?.workflowRunId?.toLowerCase();
    const result = results[place];
    const release = runId === undefined ? undefined : left.get(runId);
    if (runId === undefined || release === undefined || result?.settled !== true) continue;
    results[place] = { ...result, release };
    left.delete(runId);
  }
}

/**
 * Posts how one attempt ended; in a transaction, together with the side effects that the transaction holds.
 *
 * This is how a handler finishes its job inside its own transaction: both commit or neither does, and a lost lease rolls
 * both back. See {@linkcode settleJobs} for the fence.
 *
 * @param db A pool, client or open transaction.
 * @param lease The lease that the attempt ran under; a {@linkcode ClaimedJob} is one.
 * @param outcome How the attempt ended.
 * @param options Whether to tell what it led to in a workflow run.
 * @returns The job's new status.
 * @throws {RunledgerError} `job.lease_owner_mismatch` when the lease is lost; `job.invalid_progress` when the progress
 * contradicts what is stored; `job.workflow_handler_continuation_not_enabled`; otherwise as {@linkcode settleJobs}.
 *
 * @example
 * ```ts ignore
 * await sql.begin(async (tx) => {
 *   await tx`insert into charges (invoice_id) values (${invoiceId})`;
 *   await settleJob(tx, job, { kind: "succeeded" });
 * });
 * ```
 */
export async function settleJob(
  db: Queryable,
  lease: JobLease,
  outcome: JobOutcome,
  options: SettleOptions = {},
): Promise<Extract<SettledJob, { settled: true }>> {
  const [result] = await settleJobs(db, [{ lease, outcome }], options);
  if (result === undefined) throw new RunledgerError("db.unexpected_result");
  if (!result.settled) throw new RunledgerError(result.code);
  return result;
}

/** Refuses what is no lease. */
export function assertLease({ jobId, leaseToken, runNumber, attempt }: JobLease): void {
  if (isUuid(jobId) && isUuid(leaseToken) && isCounter(runNumber) && isCounter(attempt)) return;
  throw new TypeError("A lease must have jobId, runNumber, attempt and leaseToken, as claimJobs gave them");
}

function isCounter(value: number): boolean {
  return Number.isInteger(value) && value >= 1 && value <= MAX_INTEGER;
}

/** Refuses a lease that is none, and a batch that names a job twice: only one of the two could be meant. */
export function assertDistinctJobs(leases: readonly JobLease[]): void {
  const seen = new Set<string>();
  for (const lease of leases) {
    assertLease(lease);
    const { jobId } = lease;
    const { size } = seen;
    // Looking for capitals, which ids of claims do not have, is quicker than lowering them.
    if (seen.add(/[A-F]/.test(jobId) ? jobId.toLowerCase() : jobId).size > size) continue;
    throw new RunledgerError("job.invalid_outcome", {
      message: "A batch must not hold the same job twice.",
      details: { field: "jobId", jobId },
    });
  }
}

/** What the outcome carries besides its kind, as a JSON object in an array's quotes, if anything. */
function encodeMore({ lease, outcome }: JobSettlement): string | undefined {
  assertJobOutcome(outcome);
  const fields: string[] = [];
  const add = (name: string, value: string | number | undefined) => {
    if (value !== undefined) fields.push(`"${name}":${JSON.stringify(value)}`);
  };
  switch (outcome.kind) {
    case "succeeded":
      if (outcome.output !== undefined) fields.push(`"output":${encodeJson(outcome.output, { field: "output" })}`);
      break;
    case "failed":
      add("failure_kind", outcome.failure.kind);
      add("error_code", outcome.failure.code);
      add("error_message", outcome.failure.message);
      add("delay_ms", outcome.retryDelayMs ?? defaultRetryDelayMs(lease.attempt, lease.jobId));
      if (outcome.retryNotBefore !== undefined) {
        if ("at" in outcome.retryNotBefore) add("not_before", outcome.retryNotBefore.at.toISOString());
        else add("not_before_delay_ms", outcome.retryNotBefore.delayMs);
      }
      break;
    case "continued":
      add("delay_ms", outcome.delayMs ?? 0);
      add("reason", "HANDLER_CONTINUATION");
      break;
    case "snoozed":
      add("delay_ms", outcome.delayMs);
      add("reason", outcome.reason ?? "SNOOZE");
      break;
    case "canceled":
      add("reason", outcome.reason ?? "CANCELED");
      break;
    default:
      outcome satisfies never;
  }
  if (outcome.kind !== "canceled") {
    add("progress_done", outcome.progress?.done);
    add("progress_total", outcome.progress?.total);
    if (outcome.checkpoint !== undefined) {
      fields.push(`"checkpoint":${encodeJson(outcome.checkpoint, { field: "checkpoint" })}`);
    }
  }
  if (fields.length === 0) return undefined;
  return quoteItem(`{${fields.join(",")}}`);
}

/** Reads what some jobs of a batch met, and gives what each of them is told. */
function decodeFate(row: Row): (jobId: string) => SettledJob {
  switch (row["refusal"]) {
    case null:
      break;
    case "job.invalid_progress":
    case "job.workflow_handler_continuation_not_enabled": {
      const code = row["refusal"];
      return (jobId) => ({ jobId, settled: false, code });
    }
    default:
      throw new RunledgerError("db.unexpected_result");
  }
  const nextRunAt = readOptionalInstant(row, "next_run_at");
  const status = readJobStatus(row, "status");
  return nextRunAt === undefined
    ? (jobId) => ({ jobId, settled: true, status })
    : (jobId) => ({ jobId, settled: true, status, nextRunAt: new Date(nextRunAt) });
}
