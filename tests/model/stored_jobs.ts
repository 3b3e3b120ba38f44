/**
 * What the database holds, read in one statement and compared with the model, and how it is emptied for the next run.
 *
 * @module
 */

import assert from "node:assert/strict";
import { replayJobEvents } from "@runledger/core";
import type { JobEvent } from "@runledger/core";
import { upsertJobDefinitions } from "@runledger/postgres";
import type postgres from "postgres";
import { testDefinition } from "../support/database.ts";
import { JobModel } from "./job_model.ts";
import type { ModelJob } from "./job_model.ts";

/** Nulls are left out, except inside JSON that users gave. */
const READ = `
select
  queue.id, queue.status, queue.stage, queue.priority, queue.run_number, queue.attempt, queue.max_attempts,
  queue.event_seq, queue.lease_token, queue.progress_done::integer as progress_done,
  queue.progress_total::integer as progress_total, queue.status_reason, queue.last_error_code,
  queue.last_error_message, queue.idempotency_key, queue.replay_of_job_id,
  queue.payload::text as payload, queue.checkpoint::text as checkpoint, queue.output::text as output,
  queue.next_run_at <= clock_timestamp() as is_due, queue.lease_expires_at > clock_timestamp() as is_lease_running,
  queue.lease_expires_at is not null as has_lease_end,
  (
    select jsonb_agg(to_jsonb(event) - 'posted_xid' order by event.seq)::text
    from runledger.job_events as event where event.job_id = queue.id
  ) as events,
  (
    select jsonb_agg(
      attempt.run_number || '.' || attempt.attempt || ' ' || coalesce(attempt.closed_by, 'open') order by attempt.seq
    )::text
    from runledger.job_attempts as attempt where attempt.job_id = queue.id
  ) as attempts,
  to_jsonb(letter)::text as dead_letter
from runledger.job_queue as queue
left join runledger.job_dead_letters as letter on letter.job_id = queue.id
order by queue.id
`;

type StoredRow = Readonly<Record<string, unknown>>;

/** The job types of models: `b` goes before `a` and is tried twice. */
export async function defineModelTypes(sql: postgres.Sql): Promise<void> {
  await upsertJobDefinitions(sql, [testDefinition("a"), { ...testDefinition("b"), priority: 1, maxAttempts: 2 }]);
}

/** The model of an empty queue with the types of {@linkcode defineModelTypes}. */
export function emptyModel(): JobModel {
  return new JobModel({
    a: { priority: 0, maxAttempts: 3, isEnabled: true },
    b: { priority: 1, maxAttempts: 2, isEnabled: true },
  });
}

/** Reads every job with its ledger, attempts and dead letter. */
export async function readStoredJobs(sql: Pick<postgres.Sql, "unsafe">): Promise<readonly StoredRow[]> {
  return await sql.unsafe(READ, [], { prepare: true });
}

/**
 * Checks that the stored jobs are those of the model, and that each ledger replays to its row.
 *
 * @throws {assert.AssertionError} They are not.
 */
export function assertStoredJobs(rows: readonly StoredRow[], model: JobModel): void {
  const stored = rows.map((row) => String(row["id"])).sort();
  assert.deepEqual(stored, [...model.jobs.keys()].sort(), "the jobs that are there");
  for (const row of rows) {
    const job = model.jobs.get(String(row["id"]));
    assert(job !== undefined);
    assertStoredJob(row, job);
  }
}

function assertStoredJob(row: StoredRow, job: ModelJob): void {
  const events = JSON.parse(row["events"] as string ?? "[]") as readonly Readonly<Record<string, unknown>>[];
  assertReplay(row, events);
  const labels = events.map((event) => `${event["event_type"]} ${event["run_number"]}.${event["attempt"] ?? "-"}`);
  assert.deepEqual(labels, job.events, `the events of job ${job.jobId}`);
  assert.deepEqual(JSON.parse(row["attempts"] as string ?? "[]"), job.attempts, `the attempts of job ${job.jobId}`);
  const facts = {
    status: row["status"],
    stage: row["stage"],
    priority: row["priority"],
    runNumber: row["run_number"],
    attempt: row["attempt"],
    maxAttempts: row["max_attempts"],
    leaseToken: row["lease_token"] ?? undefined,
    progressDone: row["progress_done"] ?? undefined,
    progressTotal: row["progress_total"] ?? undefined,
    statusReason: row["status_reason"] ?? undefined,
    lastErrorCode: row["last_error_code"] ?? undefined,
    idempotencyKey: row["idempotency_key"] ?? undefined,
    payload: parsed(row["payload"]),
    checkpoint: parsed(row["checkpoint"]),
    output: parsed(row["output"]),
  };
  const wanted = {
    status: job.status,
    stage: job.stage,
    priority: job.priority,
    runNumber: job.runNumber,
    attempt: job.attempt,
    maxAttempts: job.maxAttempts,
    leaseToken: job.leaseToken,
    progressDone: job.progressDone,
    progressTotal: job.progressTotal,
    statusReason: job.statusReason,
    lastErrorCode: job.lastErrorCode,
    idempotencyKey: job.idempotencyKey,
    payload: job.payload,
    checkpoint: job.checkpoint,
    output: job.output,
  };
  assert.deepEqual(facts, wanted, `job ${job.jobId}`);
  assert.equal(row["replay_of_job_id"] ?? undefined, job.replayOf?.jobId);
  if (job.status === "PENDING") assert.equal(row["is_due"], job.due.at !== Infinity, `job ${job.jobId} is due`);
  assert.equal(row["is_lease_running"] === true, job.leaseEnd === Infinity, `the lease of job ${job.jobId} runs`);
  assertDeadLetter(row["dead_letter"], job);
}

function assertDeadLetter(stored: unknown, job: ModelJob): void {
  const letter = parsed(stored) as Readonly<Record<string, unknown>> | undefined;
  const facts = letter === undefined ? undefined : {
    runNumber: letter["run_number"],
    attempt: letter["attempt"],
    failureKind: letter["failure_kind"],
    reason: letter["reason"],
    errorCode: letter["error_code"],
    checkpoint: letter["checkpoint_snapshot"] ?? undefined,
  };
  assert.deepEqual(facts, job.deadLetter, `the dead letter of job ${job.jobId}`);
}

/** Adds up the ledger by core's own rules; they also refuse a gap in `seq` or in the attempts. */
function assertReplay(row: StoredRow, events: readonly Readonly<Record<string, unknown>>[]): void {
  const replayed = replayJobEvents(events.map((event) => ({
    jobId: event["job_id"],
    seq: event["seq"],
    runNumber: event["run_number"],
    ...optional("attempt", event["attempt"]),
    eventType: event["event_type"],
    ...optional("stage", event["stage"]),
    ...optional("progressDone", event["progress_done"]),
    ...optional("progressTotal", event["progress_total"]),
    payload: event["payload"],
    occurredAt: new Date(event["occurred_at"] as string),
  } as JobEvent)));
  const stored = {
    status: row["status"],
    stage: row["stage"],
    runNumber: row["run_number"],
    attempt: row["attempt"],
    ...optional("progressDone", row["progress_done"]),
    ...optional("progressTotal", row["progress_total"]),
    ...optional("statusReason", row["status_reason"]),
    ...optional("lastErrorCode", row["last_error_code"]),
    ...optional("lastErrorMessage", row["last_error_message"]),
    eventSeq: row["event_seq"],
  };
  assert.deepEqual({ ...replayed }, stored, `the ledger of job ${row["id"]} does not replay to its row`);
}

function optional(name: string, value: unknown): Readonly<Record<string, unknown>> {
  return value === null || value === undefined ? {} : { [name]: value };
}

function parsed(text: unknown): unknown {
  return text === null || text === undefined ? undefined : JSON.parse(text as string);
}

/** Removes every job and its ledger: cheaper than another database, and only retention could do it otherwise. */
export async function removeAllJobs(sql: postgres.Sql): Promise<void> {
  // One text of several statements is one transaction.
  await sql.unsafe(`
    select set_config('runledger.retention', 'on', true);
    delete from runledger.job_events;
    delete from runledger.job_queue;
    update runledger.job_definitions set is_enabled = true where not is_enabled`).simple();
}

/** Lets the lease of a job run out, in the database and in the model. */
export async function expireLease(sql: postgres.Sql, model: JobModel, jobId: string): Promise<void> {
  await sql.unsafe(
    `update runledger.job_queue set lease_expires_at = clock_timestamp() - interval '1 microsecond'
     where id = $1::uuid and lease_expires_at is not null`,
    [jobId],
    { prepare: true },
  );
  model.expire(jobId);
}

/** Makes a waiting job due, in the database and in the model. */
export async function makeJobDue(sql: postgres.Sql, model: JobModel, jobId: string): Promise<void> {
  await sql.unsafe(
    `update runledger.job_queue set next_run_at = clock_timestamp() where id = $1::uuid and status = 'PENDING'`,
    [jobId],
    { prepare: true },
  );
  model.makeDue(jobId);
}
