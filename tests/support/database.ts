/**
 * A database for one test, and the invariants that must hold in it when the test is over.
 *
 * @module
 */

import assert from "node:assert/strict";
import { newId, replayJobEvents, workflowRunStatus } from "@runledger/core";
import type { JobEvent, JobRequest, JsonValue, WorkflowStepStatus } from "@runledger/core";
import { claimJobs, enqueueJob, settleJob, upsertJobDefinitions } from "@runledger/postgres";
import type { ClaimedJob } from "@runledger/postgres";
import { createEphemeralDatabase } from "@runledger/test-support";
import postgres from "postgres";

/** A migrated database with a pool; disposing checks {@linkcode assertInvariants} and drops it. */
export interface TestDatabase extends AsyncDisposable {
  readonly url: string;
  readonly sql: postgres.Sql;
}

/** Opens a database with the job types `a` and `b` defined, three attempts each. */
export async function openTestDatabase(
  options: { readonly max?: number; readonly checks?: boolean } = {},
): Promise<TestDatabase> {
  const database = await createEphemeralDatabase();
  // A pool that ends while it connects leaves its connect timer behind, which the sanitizers then see in a later test.
  const settings = { max: options.max ?? 4, connect_timeout: 0, onnotice: () => {} };
  const sql = postgres(database.url, settings);
  await upsertJobDefinitions(sql, ["a", "b"].map(testDefinition));
  return {
    url: database.url,
    sql,
    async [Symbol.asyncDispose]() {
      try {
        if (options.checks !== false) await assertInvariants(sql);
      } finally {
        await sql.end({ timeout: 1 });
        await database[Symbol.asyncDispose]();
      }
    },
  };
}

/** A definition with small numbers. */
export function testDefinition(type: string): {
  type: string;
  version: number;
  maxAttempts: number;
  timeoutSeconds: number;
  priority: number;
} {
  return { type, version: 1, maxAttempts: 3, timeoutSeconds: 30, priority: 0 };
}

/** A request of type `a`. */
export function request(fields: Partial<JobRequest> = {}): JobRequest {
  return { jobType: "a", payload: { n: 1 }, ...fields };
}

/** Claims one job that must be there. */
export async function claimOne(
  sql: postgres.Sql,
  options: { readonly jobTypes?: readonly string[]; readonly leaseMs?: number } = {},
): Promise<ClaimedJob> {
  const [job] = await claimJobs(sql, { jobTypes: ["a", "b"], workerId: "w", limit: 1, ...options });
  assert(job !== undefined, "there should be a job to claim");
  return job;
}

/** Makes a job in any status, by the library's own functions. */
export async function jobIn(
  sql: postgres.Sql,
  status: "PENDING" | "LEASED" | "SUCCEEDED" | "DEAD_LETTERED" | "CANCELED",
  fields: Partial<JobRequest> = {},
): Promise<{ readonly jobId: string; readonly lease: ClaimedJob | undefined }> {
  const jobType = `only-${newId()}`;
  await upsertJobDefinitions(sql, [testDefinition(jobType)]);
  const { jobId } = await enqueueJob(sql, request({ jobType, ...fields }));
  if (status === "PENDING") return { jobId, lease: undefined };
  const lease = await claimOne(sql, { jobTypes: [fields.jobType ?? jobType] });
  assert.equal(lease.jobId, jobId);
  if (status === "SUCCEEDED") await settleJob(sql, lease, { kind: "succeeded" });
  if (status === "CANCELED") await settleJob(sql, lease, { kind: "canceled" });
  if (status === "DEAD_LETTERED") {
    await settleJob(sql, lease, { kind: "failed", failure: { kind: "TERMINAL", code: "test.failed", message: "no" } });
  }
  return { jobId, lease };
}

/** Lets leases run out now instead of later: the only thing that tests do behind the library's back. */
export async function expireLeases(sql: postgres.Sql, jobId?: string): Promise<void> {
  await sql`
    update runledger.job_queue set lease_expires_at = clock_timestamp() - interval '1 microsecond'
    where lease_expires_at is not null and (${jobId ?? null}::uuid is null or id = ${jobId ?? null}::uuid)`;
}

/** Makes waiting jobs due now. */
export async function makeDue(sql: postgres.Sql): Promise<void> {
  await sql`update runledger.job_queue set next_run_at = clock_timestamp() where status = 'PENDING'`;
}

/**
 * Checks what must hold in every database at any time: each job's ledger replays to its row, attempts count from 1
 * without a gap, a dead letter stands for each dead-lettered job and for no other, and no event lacks its job.
 */
export async function assertInvariants(sql: postgres.Sql): Promise<void> {
  const jobs = await sql`
    select id, status, stage, run_number, attempt, event_seq, progress_done::text, progress_total::text, status_reason,
      last_error_code, last_error_message
    from runledger.job_queue order by id`;
  const events = await sql`
    select job_id, seq, run_number, attempt, event_type, stage, progress_done::text, progress_total::text,
      payload::text, occurred_at
    from runledger.job_events order by job_id, seq`;
  const ledger = new Map<string, JobEvent[]>();
  for (const row of events) {
    const event = {
      jobId: row["job_id"],
      seq: row["seq"],
      runNumber: row["run_number"],
      ...(row["attempt"] === null ? {} : { attempt: row["attempt"] }),
      eventType: row["event_type"],
      ...(row["stage"] === null ? {} : { stage: row["stage"] }),
      ...(row["progress_done"] === null ? {} : { progressDone: Number(row["progress_done"]) }),
      ...(row["progress_total"] === null ? {} : { progressTotal: Number(row["progress_total"]) }),
      payload: row["payload"] === null ? null : JSON.parse(row["payload"]) as JsonValue,
      occurredAt: row["occurred_at"],
    } as JobEvent;
    ledger.set(event.jobId, [...(ledger.get(event.jobId) ?? []), event]);
  }
  for (const row of jobs) {
    const own = ledger.get(row["id"]);
    assert(own !== undefined, `job ${row["id"]} has no ledger`);
    ledger.delete(row["id"]);
    const replayed = replayJobEvents(own);
    const stored = {
      status: row["status"],
      stage: row["stage"],
      runNumber: row["run_number"],
      attempt: row["attempt"],
      ...(row["progress_done"] === null ? {} : { progressDone: Number(row["progress_done"]) }),
      ...(row["progress_total"] === null ? {} : { progressTotal: Number(row["progress_total"]) }),
      ...(row["status_reason"] === null ? {} : { statusReason: row["status_reason"] }),
      ...(row["last_error_code"] === null ? {} : { lastErrorCode: row["last_error_code"] }),
      ...(row["last_error_message"] === null ? {} : { lastErrorMessage: row["last_error_message"] }),
      eventSeq: row["event_seq"],
    };
    assert.deepEqual({ ...replayed }, stored, `the ledger of job ${row["id"]} does not replay to its row`);
    for (const [index, event] of own.entries()) {
      const before = own[index - 1];
      assert(before === undefined || before.occurredAt <= event.occurredAt, "events are in the order of their times");
    }
  }
  assert.equal(ledger.size, 0, "there are events without a job");
  const [odd] = await sql`
    select count(*)::integer as count
    from runledger.job_queue as queue
    full join runledger.job_dead_letters as letter on letter.job_id = queue.id
    where (queue.status = 'DEAD_LETTERED') is distinct from (letter.job_id is not null)`;
  assert.equal(odd?.["count"], 0, "dead letters and dead-lettered jobs differ");
  const gaps = await sql`
    select job_id, run_number, array_agg(attempt order by attempt)::text as attempts
    from runledger.job_attempts group by job_id, run_number
    having min(attempt) <> 1 or max(attempt) <> count(*) or count(distinct attempt) <> count(*)`;
  assert.deepEqual([...gaps], [], "attempts do not count from 1 without a gap");
  await assertWorkflowInvariants(sql);
}

/**
 * Checks what must hold for every workflow: steps' counters equal a recount from the edges, runs' counters and status a
 * recount from the steps; no job lives under a run that has ended; whatever is blocked still waits for something.
 */
async function assertWorkflowInvariants(sql: postgres.Sql): Promise<void> {
  const miscounted = await sql`
    select step.run_id, step.step_key, step.status, step.pending_count, step.unsatisfied_count, tally.*
    from runledger.workflow_steps as step
    join runledger.workflow_runs as run on run.id = step.run_id
    cross join lateral (
      select count(*)::integer as edges,
        (count(*) filter (where prerequisite.status not in ('SUCCEEDED', 'FAILED', 'CANCELED')))::integer as pending,
        (count(*) filter (
          where edge.release_mode = 'ON_SUCCESS' and prerequisite.status in ('FAILED', 'CANCELED')
        ))::integer as unsatisfied
      from runledger.workflow_step_dependencies as edge
      join runledger.workflow_steps as prerequisite on prerequisite.id = edge.prerequisite_step_id
      where edge.dependent_step_id = step.id
    ) as tally
    where step.dependency_count <> tally.edges
      or (
        -- A cancelled run releases nothing, and a step taken over by a recovery waits for nothing.
        run.status <> 'CANCELED' and (run.recovery_mode is distinct from 'RESUME' or step.status <> 'SUCCEEDED')
        and (step.pending_count <> tally.pending or step.unsatisfied_count <> tally.unsatisfied)
      )`;
  assert.deepEqual([...miscounted], [], "counters of steps differ from their edges");
  const runs = await sql`
    select run.id, run.status, run.step_count, run.open_count, run.waiting_count, run.unsuccessful_count,
      jsonb_agg(step.status) as statuses
    from runledger.workflow_runs as run
    join runledger.workflow_steps as step on step.run_id = run.id
    group by run.id`;
  for (const run of runs) {
    const statuses = run["statuses"] as WorkflowStepStatus[];
    const count = (...wanted: WorkflowStepStatus[]) => statuses.filter((status) => wanted.includes(status)).length;
    assert.deepEqual(
      [run["step_count"], run["open_count"], run["waiting_count"], run["unsuccessful_count"]],
      [
        statuses.length,
        count("BLOCKED", "ENQUEUED", "RUNNING"),
        count("WAITING_FOR_EXTERNAL"),
        count("FAILED", "CANCELED"),
      ],
      `counters of run ${run["id"]} differ from its steps`,
    );
    if (run["status"] !== "CANCELED") assert.equal(run["status"], workflowRunStatus(statuses));
  }
  const [odd] = await sql`
    select
      (
        select count(*)::integer from runledger.job_queue as job
        join runledger.workflow_runs as run on run.id = job.workflow_run_id
        where job.status in ('PENDING', 'LEASED')
          and run.status in ('SUCCEEDED', 'COMPLETED_WITH_ERRORS', 'CANCELED')
      ) as live_jobs_of_ended_runs,
      (
        select count(*)::integer from runledger.workflow_steps as step
        join runledger.job_queue as job on job.id = step.id
        where step.status <> case job.status
          when 'PENDING' then 'ENQUEUED' when 'LEASED' then 'ENQUEUED' when 'DEAD_LETTERED' then 'FAILED'
          else job.status
        end
      ) as steps_unlike_their_jobs,
      (
        select count(*)::integer from runledger.workflow_steps as step
        join runledger.workflow_runs as run on run.id = step.run_id
        where step.execution_kind = 'JOB' and step.released_at is not null
          and not (run.recovery_mode is not distinct from 'RESUME' and step.status = 'SUCCEEDED')
          and not exists (select from runledger.job_queue as job where job.id = step.id)
      ) as steps_without_jobs,
      (
        select count(*)::integer from runledger.workflow_steps as step
        join runledger.workflow_runs as run on run.id = step.run_id and run.recovery_mode is distinct from 'RESUME'
        join runledger.workflow_step_dependencies as edge on edge.dependent_step_id = step.id
        join runledger.workflow_steps as prerequisite on prerequisite.id = edge.prerequisite_step_id
        where (prerequisite.finished_at <= step.released_at) is not true
          and step.released_at is not null
      ) as steps_before_their_prerequisites,
      (
        select count(*)::integer from runledger.job_queue as job
        where job.workflow_run_id is not null
          and not exists (select from runledger.workflow_steps as step where step.id = job.id)
      ) as jobs_without_steps`;
  assert.deepEqual({ ...odd }, {
    live_jobs_of_ended_runs: 0,
    steps_unlike_their_jobs: 0,
    steps_without_jobs: 0,
    steps_before_their_prerequisites: 0,
    jobs_without_steps: 0,
  });
}
