/**
 * Retention: removing jobs that ended long ago, with their ledger.
 *
 * @module
 */

import { RunledgerError, TERMINAL_JOB_STATUSES } from "@runledger/core";
import type { JobStatus } from "@runledger/core";
import { readInteger } from "./_rows.ts";
import { assertLimit } from "./job_reap.ts";
import { ageValue, switchValue } from "./operator_note.ts";
import { runStatement } from "./queryable.ts";
import type { Queryable } from "./queryable.ts";

/** Which ended jobs to delete. */
export interface DeleteFinishedJobsOptions {
  /** How long ago they must have ended, in milliseconds by the database's clock: 0 to a hundred years. */
  readonly olderThanMs: number;
  /** How they must have ended. @default `["SUCCEEDED", "CANCELED"]` */
  readonly statuses?: readonly JobStatus[];
  /** How many jobs at most in this call, 1 to 1000. @default {1000} */
  readonly limit?: number;
  /**
   * Whether jobs with an idempotency key are deleted too. Their keys are then free: an equal request enqueued later makes
   * a new job. @default {false}
   */
  readonly expiresIdempotencyKeys?: boolean;
}

// locks: the jobs, oldest first, skipping those that others hold (see migrations/0003_retention.sql).
// index: job_queue_finished_index.
const DELETE_FINISHED = `
select runledger.delete_finished_jobs(
  $1::text::jsonb, $2::text::bigint * interval '1 millisecond', $3::integer, $4::boolean
) as deleted
`;

/**
 * Deletes a batch of jobs that ended long ago, oldest first, with their events, logs and dead letters: the only way in
 * which rows of the ledger are ever removed.
 *
 * One statement. Repeat it while it gives as many as the limit. Jobs with an idempotency key are kept unless asked
 * otherwise, a replay is kept while its source is there, and a cancelled job is kept until its lease has run out. Jobs
 * that somebody else has locked are left for the next call.
 *
 * @param db A pool, client or open transaction.
 * @param options Which jobs, and how many.
 * @returns How many jobs were deleted.
 * @throws {RunledgerError} `job.invalid_request` for a status that is not terminal or an age that cannot be;
 * `job.invalid_pagination`; `db.permission_denied` for a role that may not; other `db.*` codes.
 */
export async function deleteFinishedJobs(db: Queryable, options: DeleteFinishedJobsOptions): Promise<number> {
  const { olderThanMs, statuses = ["SUCCEEDED", "CANCELED"], limit = 1000, expiresIdempotencyKeys = false } = options;
  assertLimit(limit);
  switchValue("expiresIdempotencyKeys", expiresIdempotencyKeys);
  const age = ageValue("olderThanMs", olderThanMs);
  if (!statuses.every((status) => TERMINAL_JOB_STATUSES.includes(status))) {
    throw new RunledgerError("job.invalid_request", {
      message: "'statuses' must be terminal job statuses.",
      details: { field: "statuses" },
    });
  }
  const [row] = await runStatement(
    db,
    DELETE_FINISHED,
    [JSON.stringify(statuses), age, limit, expiresIdempotencyKeys],
    { write: true },
  );
  if (row === undefined) throw new RunledgerError("db.unexpected_result");
  return readInteger(row, "deleted");
}
