/**
 * Enqueueing: the first step in the life of a job.
 *
 * @module
 */

import { assertJobRequest, encodeJson, newId, RunledgerError } from "@runledger/core";
import type { JobRequest, JobStatus, RunledgerErrorCode, RunledgerErrorDetail } from "@runledger/core";
import { arrayText, evenQuotedArrayText } from "./_array_text.ts";
import { runStatement } from "./queryable.ts";
import type { Queryable } from "./queryable.ts";

/** What an enqueue led to. */
export interface EnqueuedJob {
  /** The job that stands for the request. */
  readonly jobId: string;
  /** Whether the request made it, or an equal earlier request with the same idempotency key did. */
  readonly disposition: "inserted" | "existing";
  /** Where the job stands: `PENDING` for a new one. */
  readonly status: JobStatus;
  /** Which run of the job: 1 for a new one. */
  readonly runNumber: number;
}

/** The most requests that one call takes. */
export const MAX_ENQUEUE_BATCH = 10_000;

// locks: new rows only (see migrations/0002_enqueue.sql). index: job_queue_idempotency_unique for keyed requests.
// null: every request became a new job. Types are named in full: a session's temporary types come before PostgreSQL's.
const ENQUEUE = `
select runledger.enqueue_jobs(
  $1::pg_catalog.text::pg_catalog.uuid[], $2::pg_catalog.text::pg_catalog.text[],
  $3::pg_catalog.text::pg_catalog.jsonb, $4::pg_catalog.text::pg_catalog.jsonb
)::pg_catalog.text as answer
`;

/** What runledger.enqueue_jobs answers. */
interface EnqueueAnswer {
  readonly error?: RunledgerErrorCode;
  readonly details?: Readonly<Record<string, RunledgerErrorDetail>>;
  readonly existing?: readonly {
    readonly place: number;
    readonly job_id: string;
    readonly status: JobStatus;
    readonly run_number: number;
  }[];
}

/**
 * Enqueues one job.
 *
 * One statement. On a pool the job is there when the promise resolves; in a transaction it exists exactly when the
 * transaction commits. With an idempotency key it is safe to repeat: an equal request finds the first job, posts nothing
 * and resolves to it, even if the definition is disabled by now; keys never expire. Without a key every call makes a job.
 *
 * @param db A pool, client or open transaction.
 * @param request What to run; made by {@linkcode JobDefinition.request} or by hand.
 * @returns The job that stands for the request.
 * @throws {RunledgerError} `job.invalid_request` or `job.invalid_payload` before anything is sent;
 * `job.definition_not_found_or_disabled`; `job.idempotency_conflict`, naming the fields that differ;
 * `job.enqueue_idempotency_unsupported_isolation`; `db.commit_unknown` when the connection was lost on the way (repeat
 * with the same key); other `db.*` codes.
 *
 * @example
 * ```ts ignore
 * await sql.begin(async (tx) => {
 *   await tx`insert into orders (id) values (${orderId})`;
 *   await enqueueJob(tx, sendEmail.request({ to }, { idempotencyKey: `order:${orderId}` }));
 * });
 * ```
 */
export async function enqueueJob(db: Queryable, request: JobRequest): Promise<EnqueuedJob> {
  const [enqueued] = await enqueueJobs(db, [request]);
  if (enqueued === undefined) throw new RunledgerError("db.unexpected_result");
  return enqueued;
}

/**
 * Enqueues many jobs in one statement, all or none.
 *
 * Equal requests with the same idempotency key within the batch become one job. See {@linkcode enqueueJob} for the rest.
 *
 * @param db A pool, client or open transaction.
 * @param requests At most 10,000 requests; an empty list does nothing.
 * @returns One entry for each request, in the same order.
 * @throws {RunledgerError} As {@linkcode enqueueJob}; `details.index` names the request that was refused before sending.
 * @throws {RangeError} If there are more than 10,000 requests.
 */
export async function enqueueJobs(db: Queryable, requests: readonly JobRequest[]): Promise<readonly EnqueuedJob[]> {
  if (requests.length > MAX_ENQUEUE_BATCH) {
    throw new RangeError(`Cannot enqueue ${requests.length} jobs at once: at most ${MAX_ENQUEUE_BATCH}`);
  }
  if (requests.length === 0) return [];
  const jobIds = Array.from(requests, () => newId());
  // Array.from, since map would leave the holes of a sparse array in the JSON.
  const encoded = Array.from(requests, encodeRequest);
  const settings = encoded.map(({ settings }) => settings);
  const [row] = await runStatement(db, ENQUEUE, [
    arrayText(jobIds),
    evenQuotedArrayText(requests.map(({ jobType }) => jobType)),
    `[${encoded.map(({ payload }) => payload).join(",")}]`,
    settings.every((each) => each === "{}") ? null : `[${settings.join(",")}]`,
  ], { write: true });
  const enqueued = jobIds.map((jobId): EnqueuedJob => ({
    jobId,
    disposition: "inserted",
    status: "PENDING",
    runNumber: 1,
  }));
  if (row === undefined || (typeof row["answer"] !== "string" && row["answer"] !== null)) {
    throw new RunledgerError("db.unexpected_result", { internalMessage: "enqueue_jobs gave no answer" });
  }
  if (row["answer"] === null) return enqueued;
  const answer = JSON.parse(row["answer"]) as EnqueueAnswer;
  if (answer.error !== undefined) {
    throw new RunledgerError(answer.error, answer.details === undefined ? {} : { details: answer.details });
  }
  for (const { place, job_id, status, run_number } of answer.existing ?? []) {
    enqueued[place - 1] = { jobId: job_id, disposition: "existing", status, runNumber: run_number };
  }
  return enqueued;
}

/** Writes the payload of a request and what else it says as JSON; the payload is encoded once, by its own rules. */
function encodeRequest(request: JobRequest, index: number): { readonly payload: string; readonly settings: string } {
  try {
    assertJobRequest(request);
    const settings = JSON.stringify({
      organization_id: request.organizationId?.toLowerCase(),
      priority: request.priority,
      max_attempts: request.maxAttempts,
      timeout_seconds: request.timeoutSeconds,
      next_run_at: request.nextRunAt?.toISOString(),
      idempotency_key: request.idempotencyKey,
      stage: request.stage,
      traceparent: request.traceparent,
    });
    return { payload: encodeJson(request.payload, { field: "payload" }), settings };
  } catch (error) {
    if (error instanceof RunledgerError) {
      throw new RunledgerError(error.code, { message: error.message, details: { ...error.details, index } });
    }
    throw error;
  }
}
