/**
 * What operators read: every list in pages, bounded counts, typed events, lineage, next fires, metrics, and jobs in words.
 *
 * @module
 */

import { isRunledgerError, JOB_STATUSES, newId, WORKFLOW_RUN_STATUSES } from "@runledger/core";
import type { JobEventDetails, JobStatus } from "@runledger/core";
import * as runledger from "@runledger/postgres";
import type { JobMetrics, Page, Scope } from "@runledger/postgres";
import assert from "node:assert/strict";
import type { Sql } from "postgres";
import { fillOperatorData } from "../bench/operator_data.ts";
import { claimOne, expireLeases, jobIn, makeDue, openTestDatabase, request } from "./support/database.ts";

const ALL = { scope: "all" } as const;

/** Every item of a list, page by page, and how many pages it took. */
async function walk<Item>(
  list: (cursor: { readonly cursor?: string }) => Promise<Page<Item>>,
): Promise<{ readonly items: readonly Item[]; readonly pages: number }> {
  const items: Item[] = [];
  let cursor: string | undefined;
  let pages = 0;
  do {
    const page = await list(cursor === undefined ? {} : { cursor });
    items.push(...page.items);
    cursor = page.nextCursor;
    pages++;
  } while (cursor !== undefined);
  return { items, pages };
}

/** Ids by plain SQL, newest first. */
async function idsOf(sql: Sql, table: string, condition: string): Promise<readonly string[]> {
  const rows = await sql.unsafe(`select id from runledger.${table} as item where ${condition} order by id desc`);
  return rows.map((row) => row["id"] as string);
}

const since = new Date(Date.now() - 20 * 86_400_000);
const until = new Date(Date.now() - 5 * 86_400_000);
const organizationId = "00000000-0000-7000-8000-000000000000";
const idOf = (at: Date) =>
  `${at.getTime().toString(16).padStart(12, "0").replace(/^(.{8})/, "$1-")}-0000-0000-000000000000`;
const between = `id >= '${idOf(since)}' and id < '${idOf(until)}'`;

Deno.test("the large database of the benchmark is as the library would have left it", async () => {
  // Disposing checks that every ledger replays to its job and that every counter equals its recount.
  await using database = await openTestDatabase();
  await fillOperatorData(database.sql, 2000);
});

Deno.test("pages of jobs and runs, whatever the filters, hold what the tables hold, and counts say how many", async () => {
  await using database = await openTestDatabase({ checks: false });
  const { sql } = database;
  // More than a window, so that most filters take several.
  await fillOperatorData(sql, 25_000);
  const scopes: readonly (readonly [Scope, string])[] = [
    ["all", "true"],
    ["global", "organization_id is null"],
    [{ organizationId }, `organization_id = '${organizationId}'`],
  ];
  const statuses: readonly (JobStatus | undefined)[] = [undefined, ...JOB_STATUSES];
  const [keyed] =
    await sql`select id, idempotency_key as key from runledger.job_queue where idempotency_key is not null limit 1`;
  const narrow: readonly (readonly [Omit<runledger.JobFilter, "scope">, string])[] = [
    [{}, "true"],
    [{ jobType: "app.type_03" }, "job_type = 'app.type_03'"],
    [
      { errorCode: "app.error_3", jobType: "app.type_05" },
      "last_error_code = 'app.error_3' and job_type = 'app.type_05'",
    ],
    [{ since, until }, between],
    [{ text: String(keyed?.["key"]).slice(3) }, `strpos(idempotency_key, '${String(keyed?.["key"]).slice(3)}') > 0`],
    [{ text: String(keyed?.["id"]).slice(0, 12) }, `id::text like '${String(keyed?.["id"]).slice(0, 12)}%'`],
  ];
  let manyWindows = 0;
  for (const [scope, inScope] of scopes) {
    for (const status of statuses) {
      for (const [filter, condition] of narrow) {
        const options = { scope, ...(status === undefined ? {} : { status }), ...filter };
        const told = Deno.inspect(options);
        const wanted = await idsOf(
          sql,
          "job_queue",
          `${inScope} and ${condition} and ${status === undefined ? "true" : `status = '${status}'`}`,
        );
        const { items, pages } = await walk((cursor) =>
          runledger.listJobs(sql, { ...options, ...cursor, limit: 1000 })
        );
        assert.deepEqual(items.map(({ jobId }) => jobId), wanted, told);
        if (pages > Math.floor(wanted.length / 1000) + 1) manyWindows++;
        const { count, isComplete } = await runledger.countJobs(sql, options);
        assert(isComplete ? count === wanted.length : count <= wanted.length, told);
      }
    }
    for (const status of [undefined, ...WORKFLOW_RUN_STATUSES]) {
      for (
        const [filter, condition] of [
          [{}, "true"],
          [{ workflowType: "app.flow_3" }, "workflow_type = 'app.flow_3'"],
          [{ since, until }, between],
          [{ text: "order:12" }, "strpos(idempotency_key, 'order:12') > 0"],
        ] as const
      ) {
        const options = { scope, ...(status === undefined ? {} : { status }), ...filter };
        const wanted = await idsOf(
          sql,
          "workflow_runs",
          `${inScope} and ${condition} and ${status === undefined ? "true" : `status = '${status}'`}`,
        );
        const { items } = await walk((cursor) =>
          runledger.listWorkflowRuns(sql, { ...options, ...cursor, limit: 300 })
        );
        assert.deepEqual(items.map(({ runId }) => runId), wanted, Deno.inspect(options));
        assert.deepEqual(
          await runledger.countWorkflowRuns(sql, options),
          { count: wanted.length, isComplete: true },
          Deno.inspect(options),
        );
      }
    }
  }
  assert(manyWindows > 5, "some filters are so rare that they take several windows");
  const counted = await runledger.countJobs(sql, ALL);
  assert.deepEqual(counted, { count: 10_000, isComplete: false });

  for (const jobType of [undefined, "app.type_05"]) {
    for (const [scope, inScope] of scopes) {
      const filter = { scope, since, ...(jobType === undefined ? {} : { jobType }) };
      const rows = await sql.unsafe(`
        select job_id from runledger.job_dead_letters
        where ${inScope} and failed_at >= '${since.toISOString()}'
          and ${jobType === undefined ? "true" : `job_type = '${jobType}'`}
        order by failed_at desc, job_id desc`);
      const { items } = await walk((cursor) => runledger.listDeadLetters(sql, { ...filter, ...cursor, limit: 7 }));
      assert.deepEqual(items.map(({ jobId }) => jobId), rows.map((row) => row["job_id"]));
      assert.deepEqual(await runledger.countDeadLetters(sql, filter), { count: rows.length, isComplete: true });
    }
  }
});

Deno.test("a page that ends with its window, not with its limit, goes on at the very next row", async () => {
  await using database = await openTestDatabase({ checks: false });
  const { sql } = database;
  const rare = await runledger.enqueueJobs(sql, Array.from({ length: 5 }, () => request({ jobType: "b" })));
  await runledger.enqueueJobs(sql, Array.from({ length: 9998 }, () => request()));
  const wanted = rare.map(({ jobId }) => jobId).toReversed();
  const list = (cursor: { readonly cursor?: string }) => runledger.listJobs(sql, { ...ALL, jobType: "b", ...cursor });
  const first = await list({});
  assert.deepEqual(first.items.map(({ jobId }) => jobId), wanted.slice(0, 2));
  assert.deepEqual(await runledger.countJobs(sql, { ...ALL, jobType: "b" }), { count: 2, isComplete: false });
  const { items, pages } = await walk(list);
  assert.deepEqual(items.map(({ jobId }) => jobId), wanted);
  assert.equal(pages, 2);
  // All that wait are no more than a window if only those of the type are looked at.
  assert.deepEqual(
    (await runledger.listJobs(sql, { ...ALL, jobType: "b", status: "PENDING" })).items.map(({ jobId }) => jobId),
    wanted,
  );
});

Deno.test("every list can be walked one item at a time, and gives what one large page gives", async () => {
  await using database = await openTestDatabase({ checks: false });
  const { sql } = database;
  await fillOperatorData(sql, 400);
  const [target] = await sql`
    select
      (select job_id from runledger.job_dead_letters order by attempt desc limit 1) as job_id,
      (select run_id from runledger.workflow_steps where status = 'FAILED' or position = 4 limit 1) as run_id`;
  const jobId = String(target?.["job_id"]);
  const runId = String(target?.["run_id"]);
  await sql`
    insert into runledger.workflow_run_mutations (run_id, mutation_key, mutation_kind, request)
    select ${runId}::uuid, 'k' || n, 'APPEND_STEPS', '{}' from generate_series(1, 4) as n`;
  await sql`
    insert into runledger.job_logs (job_id, run_number, attempt, level, message)
    select ${jobId}::uuid, 1, 1, 'info', 'line' from generate_series(1, 4)`;
  const lists: Readonly<Record<string, (page: runledger.PageOptions) => Promise<Page<unknown>>>> = {
    jobs: (page) => runledger.listJobs(sql, { ...ALL, ...page }),
    events: (page) => runledger.listJobEvents(sql, jobId, { ...ALL, ...page }),
    attempts: (page) => runledger.listJobAttempts(sql, jobId, { ...ALL, ...page }),
    logs: (page) => runledger.listJobLogs(sql, jobId, { ...ALL, ...page }),
    deadLetters: (page) => runledger.listDeadLetters(sql, { ...ALL, ...page }),
    definitions: (page) => runledger.listJobDefinitions(sql, page),
    configs: (page) => runledger.listJobRuntimeConfigs(sql, page),
    runs: (page) => runledger.listWorkflowRuns(sql, { ...ALL, ...page }),
    steps: (page) => runledger.listWorkflowSteps(sql, runId, { ...ALL, ...page }),
    dependencies: (page) => runledger.listWorkflowStepDependencies(sql, runId, { ...ALL, ...page }),
    mutations: (page) => runledger.listWorkflowRunMutations(sql, runId, { ...ALL, ...page }),
    schedules: (page) => runledger.listJobSchedules(sql, { ...ALL, text: "00123", ...page }),
  };
  const cursors: string[] = [];
  for (const [name, list] of Object.entries(lists)) {
    const { items, nextCursor } = await list({ limit: 1000 });
    assert.equal(nextCursor, undefined, name);
    assert(items.length >= 3, `${name}: ${items.length}`);
    const single = await walk((cursor) => list({ ...cursor, limit: 1 }));
    assert.deepEqual(single.items, items, name);
    cursors.push((await list({ limit: 1 })).nextCursor ?? "");
  }
  for (const [index, list] of Object.values(lists).entries()) {
    for (const [other, cursor] of cursors.entries()) {
      if (other === index) continue;
      await assert.rejects(list({ cursor }), (error) => isRunledgerError(error, "job.invalid_pagination"));
    }
  }
});

Deno.test("pages stay stable while rows arrive, change and go: nothing twice, nothing missed", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const before = await runledger.enqueueJobs(sql, Array.from({ length: 50 }, () => request()));
  const seen: string[] = [];
  let cursor: string | undefined;
  do {
    const page = await runledger.listJobs(sql, { ...ALL, limit: 7, ...(cursor === undefined ? {} : { cursor }) });
    seen.push(...page.items.map(({ jobId }) => jobId));
    cursor = page.nextCursor;
    await runledger.enqueueJobs(sql, [request(), request()]);
    const lease = await claimOne(sql);
    await runledger.settleJob(sql, lease, { kind: "succeeded" });
  } while (cursor !== undefined);
  assert.deepEqual(seen, before.map(({ jobId }) => jobId).toReversed());
});

Deno.test("filters of what belongs to one job or run keep what they name", async () => {
  await using database = await openTestDatabase({ checks: false });
  const { sql } = database;
  await fillOperatorData(sql, 1000);
  const [letter] = (await runledger.listDeadLetters(sql, ALL)).items.filter(({ attempt }) => attempt === 3);
  assert(letter !== undefined);
  const failed = await runledger.listJobEvents(sql, letter.jobId, { ...ALL, eventType: "FAILED" });
  assert.deepEqual(failed.items.map(({ attempt }) => attempt), [1, 2, 3]);
  const { errorCode } = letter;
  assert.equal((await runledger.listJobAttempts(sql, letter.jobId, { ...ALL, errorCode })).items.length, 3);
  assert.deepEqual(await runledger.listJobAttempts(sql, letter.jobId, { ...ALL, errorCode: "other" }), { items: [] });

  const { items: [run] } = await runledger.listWorkflowRuns(sql, { ...ALL, status: "RUNNING" });
  assert(run !== undefined);
  const keysOf = async (status: "RUNNING" | "ENQUEUED" | "BLOCKED") =>
    (await runledger.listWorkflowSteps(sql, run.runId, { ...ALL, status })).items.map(({ stepKey }) => stepKey);
  assert.deepEqual(await keysOf("BLOCKED"), ["step_3", "step_4"]);
  assert.deepEqual(await keysOf("ENQUEUED"), ["step_2"]);
  await sql`update runledger.job_queue set next_run_at = 'epoch', priority = 1000 where id in (
    select id from runledger.workflow_steps where run_id = ${run.runId} and status = 'ENQUEUED')`;
  const [step] = (await runledger.listWorkflowSteps(sql, run.runId, { ...ALL, status: "ENQUEUED" })).items;
  assert.equal((await claimOne(sql, { jobTypes: [step?.jobType ?? ""] })).jobId, step?.stepId);
  assert.deepEqual(await keysOf("RUNNING"), ["step_2"]);
  assert.deepEqual(await keysOf("ENQUEUED"), []);

  const disabled = await runledger.listJobDefinitions(sql, { isEnabled: false });
  assert.deepEqual(disabled.items.map(({ type }) => type), ["app.type_39"]);
  assert.equal((await runledger.listJobDefinitions(sql, { text: "type_1" })).items.length, 10);
  assert.equal((await runledger.listJobRuntimeConfigs(sql, { text: "type_39" })).items.length, 1);
});

Deno.test("events come with their payload, raw and by type", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const detailsOf = async (jobId: string) => {
    const { items } = await runledger.listJobEvents(sql, jobId, ALL);
    for (const { eventType, payload, details } of items) {
      assert.equal(details?.eventType, eventType, `${eventType} is understood`);
      assert(eventType === "ENQUEUED" || eventType === "SUCCEEDED" || eventType === "PROGRESS" || payload !== null);
    }
    return items.map(({ details }) => details as JobEventDetails);
  };
  const { jobId } = await runledger.enqueueJob(sql, request({ maxAttempts: 2 }));
  const claim = () => claimOne(sql, { leaseMs: 45_000 });
  await runledger.releaseJobs(sql, [await claim()]);
  await runledger.settleJob(sql, await claim(), { kind: "snoozed", delayMs: 0 });
  await runledger.settleJob(sql, await claim(), { kind: "continued", checkpoint: 1 });
  const lease = await claim();
  await runledger.heartbeatJobs(sql, [lease], { postsEvents: true });
  await runledger.recordJobProgress(sql, lease, { progress: { done: 1 }, checkpoint: { at: 1 } });
  await runledger.settleJob(sql, lease, {
    kind: "failed",
    failure: { kind: "RETRYABLE", code: "x.y", message: "no" },
    retryDelayMs: 5000,
  });
  await makeDue(sql);
  await claim();
  await expireLeases(sql);
  await runledger.reapExpiredLeases(sql);
  const job = await runledger.getJob(sql, jobId, ALL);
  assert.equal(job?.status, "DEAD_LETTERED");
  await runledger.requeueJob(sql, jobId, {
    ...ALL,
    expectedStatus: "DEAD_LETTERED",
    expectedRunNumber: 2,
    progress: "reset",
    reason: "mended",
    actor: "ada",
  });
  await runledger.cancelJob(sql, jobId, { ...ALL, reason: "enough", actor: "bob" });
  const details = await detailsOf(jobId);
  const leased = { eventType: "LEASED", workerId: "w", leaseMs: 45_000 };
  const [retried] = details.filter(({ eventType }) => eventType === "RETRY_SCHEDULED");
  assert(retried?.eventType === "RETRY_SCHEDULED" && retried.nextRunAt instanceof Date);
  const continued = details[6];
  assert(continued?.eventType === "REQUEUED" && continued.nextRunAt instanceof Date);
  assert.deepEqual(details.map((each) => "nextRunAt" in each ? { ...each, nextRunAt: "then" } : each), [
    { eventType: "ENQUEUED" },
    leased,
    { eventType: "REQUEUED", requeueKind: "UNSTARTED_RELEASE", reason: "UNSTARTED_RELEASE" },
    leased,
    { eventType: "REQUEUED", requeueKind: "SNOOZE", reason: "SNOOZE", nextRunAt: "then" },
    leased,
    {
      eventType: "REQUEUED",
      requeueKind: "HANDLER_CONTINUATION",
      reason: "HANDLER_CONTINUATION",
      nextRunAt: "then",
      nextRunNumber: 2,
    },
    leased,
    { eventType: "HEARTBEAT", workerId: "w" },
    { eventType: "PROGRESS", hasCheckpoint: true },
    { eventType: "FAILED", failureKind: "RETRYABLE", errorCode: "x.y", errorMessage: "no" },
    { eventType: "RETRY_SCHEDULED", failureKind: "RETRYABLE", retryDelayMs: 5000, nextRunAt: "then" },
    leased,
    {
      eventType: "FAILED",
      failureKind: "LEASE_EXPIRED",
      errorCode: "job.lease_expired",
      errorMessage: "The lease expired before the attempt was settled.",
    },
    {
      eventType: "DEAD_LETTERED",
      failureKind: "LEASE_EXPIRED",
      errorCode: "job.lease_expired",
      reason: "LEASE_EXPIRED",
    },
    {
      eventType: "REQUEUED",
      requeueKind: "COMPARE_AND_REQUEUE",
      reason: "mended",
      actor: "ada",
      resetsProgress: true,
    },
    { eventType: "CANCELED", reason: "enough", actor: "bob" },
  ]);
  const { jobId: doneId } = await jobIn(sql, "SUCCEEDED");
  const replay = await runledger.replayJob(sql, doneId, { ...ALL, replayKey: "k", reason: "again", actor: "ada" });
  const [enqueued] = await detailsOf(replay.jobId);
  assert.deepEqual(enqueued, {
    eventType: "ENQUEUED",
    replayOf: { jobId: doneId, runNumber: 1, replayKey: "k" },
    reason: "again",
    actor: "ada",
  });
  const { jobId: canceledId } = await jobIn(sql, "LEASED");
  await runledger.cancelJob(sql, canceledId, ALL);
  const canceled = (await detailsOf(canceledId)).at(-1);
  assert(canceled?.eventType === "CANCELED" && canceled.leaseQuiescesAt instanceof Date);
});

Deno.test("a lineage is the same from each of its members, oldest first", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const replayOf = async (jobId: string, replayKey: string) => {
    const replay = await runledger.replayJob(sql, jobId, { ...ALL, replayKey });
    const lease = await claimOne(sql, { jobTypes: [(await runledger.getJob(sql, jobId, ALL))?.jobType ?? ""] });
    await runledger.settleJob(sql, lease, { kind: "succeeded" });
    return replay.jobId;
  };
  const { jobId: first } = await jobIn(sql, "SUCCEEDED");
  const second = await replayOf(first, "a");
  const third = await replayOf(first, "b");
  const fourth = await replayOf(second, "a");
  for (const jobId of [first, second, third, fourth]) {
    const lineage = await runledger.getJobLineage(sql, jobId, ALL);
    assert.deepEqual(lineage.map((each) => [each.jobId, each.replayOfJobId]), [
      [first, undefined],
      [second, first],
      [third, first],
      [fourth, second],
    ]);
  }
  assert.deepEqual(await runledger.getJobLineage(sql, newId(), ALL), []);

  const { runId } = await runledger.enqueueWorkflowRun(sql, {
    workflowType: "w",
    metadata: null,
    steps: [{ executionKind: "EXTERNAL", stepKey: "gate", payload: 1, dependencies: [] }],
  });
  await runledger.cancelWorkflowRun(sql, runId, ALL);
  const recovery = await runledger.recoverWorkflowRun(sql, runId, { ...ALL, recoveryKey: "k", mode: "REPLAY" });
  for (const id of [runId, recovery.runId]) {
    const lineage = await runledger.getWorkflowRunLineage(sql, id, ALL);
    assert.deepEqual(lineage.map((each) => [each.runId, each.recoveryOfRunId, each.recoveryMode, each.status]), [
      [runId, undefined, undefined, "CANCELED"],
      [recovery.runId, runId, "REPLAY", "WAITING_FOR_EXTERNAL"],
    ]);
  }
});

Deno.test("the next fires of a schedule are those that it will have", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const schedule = await runledger.upsertJobSchedule(sql, {
    name: "s",
    jobType: "a",
    cron: "*/10 * * * *",
    payload: {},
    maxJitterSeconds: 1200,
  });
  const fires = runledger.nextScheduleFires(schedule, 5);
  assert.equal(fires.length, 5);
  let { nextFireAt } = schedule;
  for (const fire of fires) {
    assert.deepEqual(nextFireAt, fire);
    // As if it were that time: what fires next is the first after the fire.
    const again: readonly Date[] = runledger.nextScheduleFires({ ...schedule, nextFireAt: fire }, 2);
    nextFireAt = again[1];
  }
  assert(fires.every((fire, index) => index === 0 || fire > (fires[index - 1] as Date)));
  const over = { ...schedule };
  delete (over as { nextFireAt?: Date }).nextFireAt;
  assert.deepEqual(runledger.nextScheduleFires(over, 5), []);
});

Deno.test("metrics count what waits, what runs and how jobs ended, and time waits and runs", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  assert.deepEqual(await runledger.readJobMetrics(sql, ALL), []);
  const of = async (jobType: string, options: Partial<runledger.JobMetricsOptions> = {}): Promise<JobMetrics> => {
    const found = (await runledger.readJobMetrics(sql, { ...ALL, ...options })).find((each) =>
      each.jobType === jobType
    );
    assert(found !== undefined);
    return found;
  };
  const owner = { organizationId: newId() };
  await runledger.enqueueJobs(sql, [
    request({ nextRunAt: new Date(Date.now() - 60_000), priority: -1 }),
    request({ priority: 5, ...owner }),
    request({ nextRunAt: new Date(Date.now() + 60_000) }),
  ]);
  const waiting = await of("a");
  assert.deepEqual([waiting.due, waiting.scheduled, waiting.leased, waiting.isDepthComplete], [2, 1, 0, true]);
  assert(waiting.oldestDueMs !== undefined && waiting.oldestDueMs >= 60_000, "the oldest of all priorities");
  const own = await of("a", { scope: owner });
  assert.deepEqual([own.due, own.scheduled], [1, 0]);

  const fail = (kind: "RETRYABLE" | "PANICKED" | "TIMEOUT") => ({
    kind: "failed" as const,
    failure: { kind, code: "x.y", message: "no" },
    ...(kind === "PANICKED" ? {} : { retryDelayMs: 0 }),
  });
  const jobTypes = ["b"];
  const claim = async () => await claimOne(sql, { jobTypes });
  await runledger.enqueueJob(sql, request({ jobType: "b" }));
  await runledger.settleJob(sql, await claim(), fail("RETRYABLE"));
  await runledger.settleJob(sql, await claim(), fail("TIMEOUT"));
  await runledger.settleJob(sql, await claim(), { kind: "succeeded" });
  await runledger.enqueueJob(sql, request({ jobType: "b" }));
  await runledger.settleJob(sql, await claim(), fail("PANICKED"));
  await runledger.enqueueJob(sql, request({ jobType: "b", idempotencyKey: "k" }));
  await runledger.settleJob(sql, await claim(), { kind: "continued" });
  await runledger.settleJob(sql, await claim(), { kind: "succeeded" });
  await runledger.enqueueJob(sql, request({ jobType: "b", maxAttempts: 1 }));
  await claim();
  await expireLeases(sql);
  assert.equal((await of("b")).leasesRunOut, 1);
  await runledger.reapExpiredLeases(sql);
  const { jobId } = await runledger.enqueueJob(sql, request({ jobType: "b" }));
  await runledger.cancelJob(sql, jobId, ALL);
  const metrics = await of("b");
  const { waitMs, runMs, endedPerMinute, sampledSince, ...counts } = metrics;
  assert.deepEqual(counts, {
    jobType: "b",
    due: 0,
    scheduled: 0,
    isDepthComplete: true,
    leased: 0,
    leasesRunOut: 0,
    isSampleComplete: true,
    succeeded: 2,
    deadLettered: 2,
    canceled: 1,
    attempts: 7,
    retries: 2,
    timeouts: 1,
    leaseExpiries: 1,
    panics: 1,
    continuations: 1,
  });
  assert(sampledSince < new Date(Date.now() - 86_000_000));
  assert(endedPerMinute > 0 && endedPerMinute < 1);
  for (const each of [waitMs, runMs]) {
    assert(each !== undefined && each.p50 >= 0 && each.p50 <= each.p95 && each.p95 <= each.p99);
  }
  // The newest two that ended, keyed or not: the rate is that since the older of them.
  const sampled = await of("b", { sampleSize: 2 });
  assert.deepEqual([sampled.canceled, sampled.deadLettered, sampled.isSampleComplete], [1, 1, false]);
  assert(sampled.sampledSince > sampledSince && sampled.endedPerMinute > endedPerMinute);
  assert.equal((await of("b", { jobType: "b" })).succeeded, 2);

  // A wait and a run of known length, by the database's own times.
  await sql`update runledger.job_queue set next_run_at = next_run_at - interval '1 hour' where id in (
    select id from runledger.job_queue where job_type = 'b' and status = 'DEAD_LETTERED' and attempt = 1)`;
  const late = await of("b");
  assert(late.waitMs !== undefined && late.waitMs.p99 > 3_000_000, Deno.inspect(late.waitMs));

  const [row] = await sql`
    select due, succeeded, panics from runledger.job_metrics_rollup where job_type = 'b'`;
  assert.deepEqual({ ...row }, { due: "0", succeeded: "2", panics: "1" });
});

Deno.test("runledger.jobs says in words where a job stands and why", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const words = async (jobId: string) => {
    const [row] = await sql`select state, why from runledger.jobs where job_id = ${jobId}`;
    return `${row?.["state"]}: ${row?.["why"]}`;
  };
  const { jobId } = await runledger.enqueueJob(sql, request({ nextRunAt: new Date(Date.now() + 90_000) }));
  assert.match(await words(jobId), /^scheduled: due in 00:01:\d\d$/);
  await makeDue(sql);
  assert.match(await words(jobId), /^waiting for a worker: due for 00:00:\d\d, not claimed yet$/);
  const lease = await claimOne(sql);
  assert.match(await words(jobId), /^running: attempt 1 of 3 by w; lease runs out in 00:0\d:\d\d$/);
  await runledger.settleJob(sql, lease, {
    kind: "failed",
    failure: { kind: "RETRYABLE", code: "x.y", message: "no" },
    retryDelayMs: 60_000,
  });
  assert.match(await words(jobId), /^waiting to be tried again: due in .*; attempt 1 of 3 failed: x\.y$/);
  await makeDue(sql);
  await claimOne(sql);
  await expireLeases(sql);
  assert.match(
    await words(jobId),
    /^lost by its worker: attempt 2 of 3 by w; lease ran out .* ago, waits for a reaper$/,
  );
  const { jobId: dead } = await jobIn(sql, "DEAD_LETTERED");
  assert.equal(await words(dead), "failed for good: TERMINAL: test.failed after 1 of 3 attempts");
  const { jobId: done } = await jobIn(sql, "SUCCEEDED");
  assert.equal(await words(done), "succeeded: null");
  const { jobId: canceled } = await jobIn(sql, "LEASED");
  await runledger.cancelJob(sql, canceled, { ...ALL, reason: "enough" });
  assert.equal(await words(canceled), "cancelled, handler may be at work: enough");
});
