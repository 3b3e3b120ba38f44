/**
 * The plans of every hot statement on large tables: none reads a table from end to end, and none reads many rows to throw
 * them away. The plans are those of the real calls, told by the server itself (auto_explain), as custom and as generic
 * plans, and in sessions that planned while the tables were empty.
 *
 * @module
 */

import {
  appendJobLogs,
  cancelJob,
  cancelJobs,
  claimJobs,
  createClaimCursor,
  deleteFinishedJobs,
  editJob,
  editJobs,
  enqueueJobs,
  getJob,
  getJobScheduleByName,
  heartbeatJobs,
  listDeadLetters,
  listJobAttempts,
  listJobEvents,
  listJobLogs,
  listJobSchedules,
  materializeDueSchedules,
  reapExpiredLeases,
  recordJobProgress,
  releaseJobs,
  replayJob,
  requeueDeadLetters,
  requeueJob,
  requeueJobs,
  runJobScheduleNow,
  setJobScheduleActive,
  setJobScheduleNextFireAt,
  settleJobs,
  upsertJobSchedules,
} from "@runledger/postgres";
import type { ClaimedJob } from "@runledger/postgres";
import assert from "node:assert/strict";
import type postgres from "postgres";
import { openTestDatabase, request } from "./support/database.ts";
import { ExplainingSession } from "./support/explaining_session.ts";

const TABLES = ["job_queue", "job_events", "job_dead_letters", "job_logs", "job_schedules"];
/** Candidates beyond a claim's limit and the like: a few rows more than asked for are no fault. */
const FEW_ROWS = 100;

/** 120,000 jobs in every state, each with its ledger, and log lines of one of them. */
async function fill(sql: postgres.Sql): Promise<void> {
  await sql.unsafe(`
    with made as (
      insert into runledger.job_queue (
        id, job_type, status, stage, priority, next_run_at, attempt, max_attempts, timeout_seconds, event_seq,
        lease_token, lease_expires_at, worker_id, started_at, finished_at, payload
      )
      select
        runledger.new_id(), kind.job_type, kind.status, kind.stage, number % 3, kind.next_run_at,
        case kind.status when 'PENDING' then 0 else 1 end, 3, 300, 1,
        case kind.status when 'LEASED' then gen_random_uuid() end,
        case kind.status when 'LEASED' then now() + interval '1 day' + number * interval '1 second' end,
        case kind.status when 'LEASED' then 'other' end,
        case kind.status when 'LEASED' then now() end,
        case kind.status
          when 'SUCCEEDED' then now() - interval '2 days' + number * interval '1 second'
          when 'DEAD_LETTERED' then now() - interval '1 day' + number * interval '1 second'
        end,
        '{"n": 1}'
      from generate_series(1, 24000) as number
      cross join (
        values
          ('a', 'SUCCEEDED', 'completed', now()),
          ('a', 'DEAD_LETTERED', 'running', now()),
          ('a', 'PENDING', 'scheduled', now() + interval '1 day'),
          ('a', 'LEASED', 'running', now()),
          ('other', 'PENDING', 'queued', now() - interval '1 day')
      ) as kind (job_type, status, stage, next_run_at)
      returning id, job_type, status
    ),
    posted as (
      insert into runledger.job_events (job_id, seq, run_number, event_type, stage)
      select made.id, 1, 1, 'ENQUEUED', 'queued' from made
    ),
    buried as (
      insert into runledger.job_dead_letters (
        job_id, job_type, run_number, attempt, failure_kind, reason, error_code, error_message, failed_at,
        payload_snapshot
      )
      select
        made.id, 'a', 1, 1, 'TERMINAL', 'FAILURE_KIND_NON_RETRYABLE', 'test.failed', 'no', now() - interval '2 days', '{}'
      from made
      where made.status = 'DEAD_LETTERED'
    )
    insert into runledger.job_logs (job_id, run_number, attempt, level, message)
    select made.id, 1, 1, 'info', 'line' from made where made.job_type = 'a'`);
  await sql.unsafe(`
    insert into runledger.job_schedules (
      id, name, job_type, payload_template, cron_expression, is_active, next_fire_at
    )
    select
      runledger.new_id(), 'full ' || number, 'a', '{}', '@daily', number % 2 = 0,
      now() + number % 3 * interval '1 day' - interval '1 hour' * (number % 2)
    from generate_series(2, 24001) as number
    where number % 6 <> 0`);
}

/** Calls every function whose statements grow with the tables if their plan is wrong; gives no job away between calls. */
async function callAll(session: ExplainingSession, round: string): Promise<void> {
  const { sql } = session;
  const all = { scope: "all" } as const;
  const worker = { jobTypes: ["a", "b"], workerId: "w" };
  const urgent = { priority: 1000 };
  await session.explain("enqueueJobs", () => enqueueJobs(sql, Array.from({ length: 300 }, () => request(urgent))));
  const keyed = Array.from({ length: 60 }, (_, n) => request({ ...urgent, idempotencyKey: `${round}-${n}` }));
  await session.explain("enqueueJobs, new keys", () => enqueueJobs(sql, keyed));
  await session.explain("enqueueJobs, known keys", () => enqueueJobs(sql, keyed));

  const jobs = [...await session.explain("claimJobs", () => claimJobs(sql, { ...worker, limit: 200 }))];
  const cursor = createClaimCursor();
  cursor.position = JSON.stringify({
    job_types: worker.jobTypes,
    rescan_at: "2100-01-01T00:00:00Z",
    floors: [{ job_type: "a", priority: 1000, next_run_at: new Date(0), id: "00000000-0000-0000-0000-000000000000" }],
  });
  jobs.push(
    ...await session.explain("claimJobs, from a cursor", () => claimJobs(sql, { ...worker, limit: 20, cursor })),
  );
  assert.equal(jobs.length, 220);
  const [first, second, third, ...rest] = jobs as [ClaimedJob, ClaimedJob, ClaimedJob, ...ClaimedJob[]];
  await session.explain("heartbeatJobs", () => heartbeatJobs(sql, jobs));
  await session.explain("recordJobProgress", () => recordJobProgress(sql, first, { progress: { done: 1, total: 2 } }));
  await session.explain("appendJobLogs", () => appendJobLogs(sql, [{ lease: first, level: "info", message: "m" }]));
  await session.explain("releaseJobs", () => releaseJobs(sql, [second]));
  await session.explain("cancelJob", () => cancelJob(sql, second.jobId, all));

  const failure = { kind: "TERMINAL", code: "plan.test", message: "no" } as const;
  const settled = await session.explain("settleJobs", () =>
    settleJobs(sql, [
      { lease: first, outcome: { kind: "failed", failure } },
      {
        lease: third,
        outcome: { kind: "failed", failure: { ...failure, kind: "RETRYABLE" }, retryDelayMs: 9_000_000 },
      },
      ...rest.slice(0, 190).map((lease) => ({ lease, outcome: { kind: "succeeded" } as const })),
    ]));
  assert(settled.every((result) => result.settled));
  await sql`
    update runledger.job_queue set lease_expires_at = now() - interval '1 second'
    where id = any (${sql.array(rest.slice(190).map(({ jobId }) => jobId))}::uuid[])`;
  const reaped = await session.explain("reapExpiredLeases", () => reapExpiredLeases(sql, { retryDelayMs: 9_000_000 }));
  assert(reaped.length > 0);

  const made = await enqueueJobs(sql, Array.from({ length: 300 }, () => request()));
  const frozen = (eventSeq: number) => made.map(({ jobId }) => ({ jobId, eventSeq }));
  const never = { ...all, nextRunAt: new Date("2100-01-01") };
  const bulk = {
    editJobs: () => editJobs(sql, frozen(1), never),
    cancelJobs: () => cancelJobs(sql, frozen(2), all),
    requeueJobs: () => requeueJobs(sql, frozen(3), all),
    "editJobs, again": () => editJobs(sql, frozen(4), never),
  };
  for (const [name, call] of Object.entries(bulk)) {
    assert.equal((await session.explain(name, call)).applied.length, 300, name);
  }
  await session.explain("editJob", () => editJob(sql, made[0]?.jobId ?? "", { ...all, payload: round }));

  const { jobId } = first;
  await session.explain("getJob", () => getJob(sql, jobId, all));
  await session.explain("listJobEvents", () => listJobEvents(sql, jobId, all));
  await session.explain("listJobAttempts", () => listJobAttempts(sql, jobId, all));
  await session.explain("listJobLogs", () => listJobLogs(sql, jobId, all));
  const page = await session.explain("listDeadLetters", () => listDeadLetters(sql, { ...all, limit: 1 }));
  await session.explain(
    "listDeadLetters, next page",
    () =>
      listDeadLetters(sql, {
        ...all,
        limit: 20,
        ...(page.nextCursor === undefined ? {} : { cursor: page.nextCursor }),
      }),
  );
  const dead = { ...all, expectedStatus: "DEAD_LETTERED", expectedRunNumber: 1 } as const;
  assert.equal((await session.explain("requeueJob", () => requeueJob(sql, jobId, dead))).kind, "requeued");
  await session.explain("requeueDeadLetters", () => requeueDeadLetters(sql, { ...all, limit: 20 }));
  const done = rest[0]?.jobId ?? "";
  await session.explain("replayJob", () => replayJob(sql, done, { ...all, replayKey: round }));
  const schedules = Array.from({ length: 30 }, (_, n) => ({
    name: `${round} ${n}`,
    jobType: "b",
    cron: "0 0 1 1 *",
    payload: {},
  }));
  await session.explain("upsertJobSchedules", () => upsertJobSchedules(sql, schedules));
  for (const { name } of schedules.slice(1)) {
    const nextFireAt = new Date(0);
    await session.explain(
      "setJobScheduleNextFireAt",
      () => setJobScheduleNextFireAt(sql, name, { ...all, nextFireAt }),
    );
  }
  const { fired } = await session.explain("materializeDueSchedules", () => materializeDueSchedules(sql, { limit: 20 }));
  assert.equal(fired.length, 20);
  const { name } = schedules[0] as { readonly name: string };
  await session.explain("setJobScheduleActive", () => setJobScheduleActive(sql, name, { ...all, isActive: false }));
  await session.explain("runJobScheduleNow", () => runJobScheduleNow(sql, name, all));
  await session.explain("getJobScheduleByName", () => getJobScheduleByName(sql, name, all));
  await session.explain("listJobSchedules", () => listJobSchedules(sql, { ...all, limit: 20 }));
  await session.explain("deleteFinishedJobs", () => deleteFinishedJobs(sql, { olderThanMs: 1, limit: 100 }));
}

/**
 * Whether tables are analyzed after they are filled, as autovacuum does within about a minute. Until then a session may keep
 * generic plans that it made while the tables were empty, and those do read whole tables; so that pair is not tested.
 * `requeueDeadLetters`, which people call, is bad before the first analysis too.
 */
const VARIANTS = [
  { planCacheMode: "force_custom_plan", isAnalyzed: true, exempt: [] },
  { planCacheMode: "force_custom_plan", isAnalyzed: false, exempt: ["requeueDeadLetters"] },
  { planCacheMode: "force_generic_plan", isAnalyzed: true, exempt: [] },
] as const;

for (const { planCacheMode, isAnalyzed, exempt } of VARIANTS) {
  const name = `${planCacheMode}, ${isAnalyzed ? "analyzed after planning and filling" : "never analyzed"}`;
  Deno.test(`no hot statement reads whole tables: ${name}`, async () => {
    await using database = await openTestDatabase({ checks: false });
    await using session = new ExplainingSession(database.url, { tables: TABLES, fewRows: FEW_ROWS });
    for (const table of TABLES) {
      await database.sql.unsafe(`alter table runledger.${table} set (autovacuum_enabled = off)`);
    }
    await session.begin(planCacheMode);
    // The first calls make the plans that a session keeps.
    await callAll(session, "empty");
    session.problems.length = 0;
    await fill(database.sql);
    if (isAnalyzed) await database.sql.unsafe("vacuum (analyze)");
    await callAll(session, "filled");
    const problems = session.problems.filter((problem) => !exempt.some((call) => problem.startsWith(`${call}:`)));
    assert.deepEqual([...new Set(problems)], []);
    for (const [call, plans] of session.calls) assert(plans > 0, `${call} told no plan`);
  });
}
