import { newId } from "@runledger/core";
import type { JobRequest } from "@runledger/core";
import assert from "node:assert/strict";
import {
  appendJobLogs,
  cancelJob,
  claimJobs,
  deleteFinishedJobs,
  enqueueJob,
  enqueueJobs,
  getJob,
  heartbeatJobs,
  listDeadLetters,
  listJobAttempts,
  listJobEvents,
  listJobLogs,
  reapExpiredLeases,
  recordJobProgress,
  releaseJobs,
  replayJob,
  requeueDeadLetters,
  requeueJob,
  settleJob,
  settleJobs,
} from "@runledger/postgres";
import { claimOne, expireLeases, jobIn, makeDue, openTestDatabase, request } from "./support/database.ts";

const ALL = { scope: "all" } as const;

Deno.test("a job goes from enqueue over a claim to success, and its ledger tells each step", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const { jobId, disposition, status } = await enqueueJob(sql, request({ payload: { to: "a@example.com" } }));
  assert.deepEqual([disposition, status], ["inserted", "PENDING"]);
  const job = await claimOne(sql);
  assert.equal(job.jobId, jobId);
  assert.deepEqual(job.payload, { to: "a@example.com" });
  assert.deepEqual([job.runNumber, job.attempt, job.maxAttempts, job.timeoutSeconds], [1, 1, 3, 30]);
  await recordJobProgress(sql, job, { progress: { done: 1, total: 2 }, checkpoint: { at: 1 } });
  await settleJob(sql, job, { kind: "succeeded", output: { sent: true }, progress: { done: 2 } });
  const stored = await getJob(sql, jobId, ALL);
  assert.equal(stored?.status, "SUCCEEDED");
  assert.equal(stored?.stage, "completed");
  assert.deepEqual(stored?.output, { sent: true });
  assert.deepEqual([stored?.progressDone, stored?.progressTotal], [2, 2]);
  assert.deepEqual(stored?.checkpoint, { at: 1 });
  const { items: events } = await listJobEvents(sql, jobId, ALL);
  assert.deepEqual(events.map((event) => event.eventType), ["ENQUEUED", "LEASED", "PROGRESS", "SUCCEEDED"]);
  const { items: [attempt, ...others] } = await listJobAttempts(sql, jobId, ALL);
  assert.equal(others.length, 0);
  assert.deepEqual([attempt?.attempt, attempt?.workerId, attempt?.closedBy], [1, "w", "SUCCEEDED"]);
});

Deno.test("each job of a batch gets what its own request says, with a key among them or without", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const organizationId = newId();
  const nextRunAt = new Date(Date.UTC(2099, 0, 1));
  for (const key of [undefined, "only"]) {
    const requests: readonly JobRequest[] = [
      { jobType: "a", payload: null },
      { jobType: "b", payload: [1], priority: 7, organizationId },
      { jobType: "a", payload: "2", maxAttempts: 9, nextRunAt, ...(key === undefined ? {} : { idempotencyKey: key }) },
      { jobType: "a", payload: { n: 3 }, timeoutSeconds: 77 },
      { jobType: "a", payload: false },
    ];
    const enqueued = await enqueueJobs(sql, requests);
    for (const [index, { jobId, disposition }] of enqueued.entries()) {
      const asked = requests[index] as JobRequest;
      const job = await getJob(sql, jobId, ALL);
      assert(job !== undefined && disposition === "inserted");
      assert.deepEqual(
        [job.jobType, job.payload, job.organizationId, job.priority, job.maxAttempts, job.timeoutSeconds],
        [
          asked.jobType,
          asked.payload,
          asked.organizationId,
          asked.priority ?? 0,
          asked.maxAttempts ?? 3,
          asked.timeoutSeconds ?? 30,
        ],
      );
      assert.equal(job.nextRunAt.getTime() === nextRunAt.getTime(), asked.nextRunAt !== undefined);
      assert.equal(job.idempotencyKey, asked.idempotencyKey);
    }
  }
});

Deno.test("what a caller in SQL leaves out is refused, and nothing is enqueued", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const id = newId();
  for (const key of [null, '[{"idempotency_key": "k"}]']) {
    for (
      const [types, payloads] of [["{}", "[1]"], [null, "[1]"], ["{a}", "[]"], ["{a}", null]] as const
    ) {
      const answer = await sql`
        select runledger.enqueue_jobs(array[${id}::uuid], ${types}::text[], ${payloads}::text::jsonb, ${key}::text::jsonb) as it`
        .then(([row]) => row?.["it"]?.error, (error) => error.code);
      assert.ok(["23502", "job.definition_not_found_or_disabled"].includes(answer), `${types} ${payloads}: ${answer}`);
    }
  }
  assert.equal(await getJob(sql, id, ALL), undefined);
});

Deno.test("a failure is retried after its delay while attempts remain, then dead-lettered with its payload", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const { jobId } = await enqueueJob(sql, request({ maxAttempts: 2 }));
  const failure = { kind: "RETRYABLE", code: "mail.down", message: "relay away" } as const;
  const first = await settleJob(sql, await claimOne(sql), { kind: "failed", failure, retryDelayMs: 60_000 });
  assert.equal(first.status, "PENDING");
  assert.deepEqual(await claimJobs(sql, { jobTypes: ["a"], workerId: "w", limit: 1 }), []);
  await makeDue(sql);
  const job = await claimOne(sql);
  assert.equal(job.attempt, 2);
  const second = await settleJob(sql, job, { kind: "failed", failure, checkpoint: { at: 7 } });
  assert.equal(second.status, "DEAD_LETTERED");
  const { items: [letter] } = await listDeadLetters(sql, ALL);
  assert.deepEqual(
    [letter?.jobId, letter?.reason, letter?.errorCode, letter?.attempt, letter?.payload, letter?.checkpoint],
    [jobId, "ATTEMPTS_EXHAUSTED", "mail.down", 2, { n: 1 }, { at: 7 }],
  );
  const { items: events } = await listJobEvents(sql, jobId, ALL);
  assert.deepEqual(events.map((event) => event.eventType), [
    "ENQUEUED",
    "LEASED",
    "FAILED",
    "RETRY_SCHEDULED",
    "LEASED",
    "FAILED",
    "DEAD_LETTERED",
  ]);
});

Deno.test("TERMINAL and PANICKED failures are dead-lettered at once", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  for (const kind of ["TERMINAL", "PANICKED"] as const) {
    await enqueueJob(sql, request());
    const result = await settleJob(sql, await claimOne(sql), {
      kind: "failed",
      failure: { kind, code: "x.y", message: "" },
    });
    assert.equal(result.status, "DEAD_LETTERED");
  }
});

Deno.test("the retry of a failure waits for the later of policy and handler's bound", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const failure = { kind: "TIMEOUT", code: "x.y", message: "slow" } as const;
  const bounds = [
    { retryNotBefore: { delayMs: 500_000 }, wanted: 500_000 },
    { retryNotBefore: { delayMs: 10 }, wanted: 60_000 },
    { retryNotBefore: { at: new Date(Date.now() + 900_000) }, wanted: 900_000 },
    { retryNotBefore: { at: new Date(0) }, wanted: 60_000 },
  ];
  for (const { retryNotBefore, wanted } of bounds) {
    const { lease } = await jobIn(sql, "LEASED");
    assert(lease !== undefined);
    const { nextRunAt } = await settleJob(sql, lease, {
      kind: "failed",
      failure,
      retryDelayMs: 60_000,
      retryNotBefore,
    });
    assert(nextRunAt !== undefined);
    const off = nextRunAt.getTime() - Date.now() - wanted;
    assert(Math.abs(off) < 30_000, `off by ${off} ms`);
  }
});

Deno.test("a continuation goes on as a new run with all attempts and the checkpoint", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const { jobId } = await enqueueJob(sql, request());
  const slice = await claimOne(sql);
  await settleJob(sql, slice, { kind: "continued", checkpoint: { after: 5 }, progress: { done: 5, total: 9 } });
  const next = await claimOne(sql);
  assert.deepEqual([next.jobId, next.runNumber, next.attempt, next.checkpoint], [jobId, 2, 1, { after: 5 }]);
  assert.deepEqual([next.progressDone, next.progressTotal], [5, 9]);
});

Deno.test("a snooze and an unstarted release cost no attempt", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const { jobId } = await enqueueJob(sql, request());
  await settleJob(sql, await claimOne(sql), { kind: "snoozed", delayMs: 0, reason: "busy" });
  const claimed = await claimOne(sql);
  assert.equal(claimed.attempt, 1);
  assert.deepEqual(await releaseJobs(sql, [claimed]), [jobId]);
  const again = await claimOne(sql);
  assert.equal(again.attempt, 1);
  await recordJobProgress(sql, again, { progress: { done: 1 } });
  assert.deepEqual(await releaseJobs(sql, [again]), [], "a claim that reported progress was started");
  assert.deepEqual((await listJobAttempts(sql, jobId, ALL)).items.map(({ attempt }) => attempt), [1]);
});

Deno.test("every write under a lost lease is refused and changes nothing", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const { jobId } = await enqueueJob(sql, request());
  const zombie = await claimOne(sql);
  await expireLeases(sql);
  const refuse = async () => {
    const before = await getJob(sql, jobId, ALL);
    await assert.rejects(settleJob(sql, zombie, { kind: "succeeded" }), { code: "job.lease_owner_mismatch" });
    await assert.rejects(recordJobProgress(sql, zombie, {}), { code: "job.lease_owner_mismatch" });
    assert.deepEqual(await heartbeatJobs(sql, [zombie]), [{ jobId, state: "lost" }]);
    assert.deepEqual(await releaseJobs(sql, [zombie]), []);
    assert.equal(await appendJobLogs(sql, [{ lease: zombie, level: "info", message: "late" }]), 0);
    assert.deepEqual(await getJob(sql, jobId, ALL), before);
  };
  await refuse();
  const [reaped] = await reapExpiredLeases(sql);
  assert.deepEqual([reaped?.jobId, reaped?.status, reaped?.attempt], [jobId, "PENDING", 1]);
  await refuse();
  await makeDue(sql);
  const owner = await claimOne(sql);
  await refuse();
  await settleJob(sql, owner, { kind: "succeeded" });
  await refuse();
});

Deno.test("the reaper retries after a constant delay and dead-letters when attempts are used up", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const { jobId } = await enqueueJob(sql, request({ maxAttempts: 1 }));
  await claimOne(sql);
  assert.deepEqual(await reapExpiredLeases(sql), [], "a live lease is left alone");
  await expireLeases(sql);
  const [reaped] = await reapExpiredLeases(sql);
  assert.equal(reaped?.status, "DEAD_LETTERED");
  const { items: [letter] } = await listDeadLetters(sql, ALL);
  assert.deepEqual([letter?.jobId, letter?.reason, letter?.errorCode], [jobId, "LEASE_EXPIRED", "job.lease_expired"]);
});

Deno.test("a reaper looks past what a rival is reaping", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  await enqueueJobs(sql, Array.from({ length: 4 }, () => request()));
  await claimJobs(sql, { jobTypes: ["a"], workerId: "w", limit: 4 });
  await expireLeases(sql);
  await sql.begin(async (rival) => {
    assert.equal((await reapExpiredLeases(rival, { limit: 2 })).length, 2);
    assert.equal((await reapExpiredLeases(sql, { limit: 2 })).length, 2);
  });
});

Deno.test("claims go by priority, then due time, then id, over all types", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const at = (second: number) => new Date(Date.UTC(2026, 0, 1, 0, 0, second));
  const enqueued = await enqueueJobs(sql, [
    request({ jobType: "a", nextRunAt: at(5) }),
    request({ jobType: "b", nextRunAt: at(4) }),
    request({ jobType: "a", nextRunAt: at(3), priority: -1 }),
    request({ jobType: "b", nextRunAt: at(9), priority: 7 }),
    request({ jobType: "a", nextRunAt: new Date(Date.now() + 3_600_000), priority: 9 }),
    request({ jobType: "a", nextRunAt: at(4) }),
  ]);
  const jobs = await claimJobs(sql, { jobTypes: ["a", "b"], workerId: "w", limit: 10 });
  assert.deepEqual(
    jobs.map(({ jobId }) => enqueued.findIndex((one) => one.jobId === jobId)),
    [3, 1, 5, 0, 2],
  );
});

Deno.test("a small claim takes the first of many, wherever they stand", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const jobs = Array.from({ length: 300 }, (_, n) => ({
    jobType: n % 2 === 0 ? "a" : "b",
    priority: (n * 7) % 5,
    nextRunAt: new Date(Date.UTC(2026, 0, 1, 0, 0, (n * 13) % 11)),
  }));
  const enqueued = await enqueueJobs(sql, jobs.map(request));
  const byId = new Map(enqueued.map(({ jobId }, n) => [jobId, jobs[n] as typeof jobs[number]]));
  const claimed: string[] = [];
  while (claimed.length < jobs.length) {
    const batch = await claimJobs(sql, { jobTypes: ["a", "b"], workerId: "w", limit: 20 });
    claimed.push(...batch.map(({ jobId }) => jobId));
  }
  const rank = (jobId: string) => {
    const { priority, nextRunAt } = byId.get(jobId) as typeof jobs[number];
    return [-priority, nextRunAt.getTime()] as const;
  };
  const expected = [...claimed].sort((one, other) => {
    const [a, b] = [rank(one), rank(other)];
    return a[0] - b[0] || a[1] - b[1] || (one < other ? -1 : 1);
  });
  assert.deepEqual(claimed, expected);
});

Deno.test("a claim takes only the types it names", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  await enqueueJobs(sql, [request({ jobType: "a" }), request({ jobType: "b" })]);
  const jobs = await claimJobs(sql, { jobTypes: ["b"], workerId: "w", limit: 10 });
  assert.deepEqual(jobs.map(({ jobType }) => jobType), ["b"]);
  assert.deepEqual(await claimJobs(sql, { jobTypes: [], workerId: "w", limit: 10 }), []);
});

Deno.test("a settlement batch posts what it can and tells of the rest", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  await enqueueJobs(sql, Array.from({ length: 6 }, () => request()));
  const jobs = await claimJobs(sql, { jobTypes: ["a"], workerId: "w", limit: 6 });
  const [ok, lost, failed, slice, later, off] = jobs;
  assert(ok && lost && failed && slice && later && off);
  await expireLeases(sql, lost.jobId);
  const results = await settleJobs(sql, [
    { lease: ok, outcome: { kind: "succeeded", output: null } },
    { lease: lost, outcome: { kind: "succeeded" } },
    { lease: failed, outcome: { kind: "failed", failure: { kind: "RETRYABLE", code: "x.y", message: "z" } } },
    { lease: slice, outcome: { kind: "continued", delayMs: 1 } },
    { lease: later, outcome: { kind: "snoozed", delayMs: 1 } },
    { lease: off, outcome: { kind: "canceled", reason: "moot" } },
  ]);
  assert.deepEqual(results.map((result) => result.settled ? result.status : result.code), [
    "SUCCEEDED",
    "job.lease_owner_mismatch",
    "PENDING",
    "PENDING",
    "PENDING",
    "CANCELED",
  ]);
  assert.equal((await getJob(sql, ok.jobId, ALL))?.output, null, "JSON null is an output");
});

Deno.test("progress beyond the stored total is refused for that job alone", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  await enqueueJobs(sql, [request(), request()]);
  const [bad, good] = await claimJobs(sql, { jobTypes: ["a"], workerId: "w", limit: 2 });
  assert(bad && good);
  await recordJobProgress(sql, bad, { progress: { done: 1, total: 2 } });
  await assert.rejects(recordJobProgress(sql, bad, { progress: { done: 3 } }), { code: "job.invalid_progress" });
  const results = await settleJobs(sql, [
    { lease: bad, outcome: { kind: "succeeded", progress: { done: 3 } } },
    { lease: good, outcome: { kind: "succeeded", progress: { done: 3 } } },
  ]);
  assert.deepEqual(results.map((result) => result.settled || result.code), ["job.invalid_progress", true]);
});

Deno.test("cancelling stops a waiting and a leased job, and is told the truth about an ended one", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const note = { scope: "all", reason: "customer left", actor: "ops@example.com" } as const;
  const waiting = await jobIn(sql, "PENDING");
  assert.deepEqual(await cancelJob(sql, waiting.jobId, note), { jobId: waiting.jobId });
  const leased = await jobIn(sql, "LEASED");
  assert((await cancelJob(sql, leased.jobId, note)).leaseQuiescesAt !== undefined);
  assert(leased.lease !== undefined);
  assert.deepEqual(await heartbeatJobs(sql, [leased.lease]), [{ jobId: leased.jobId, state: "canceled" }]);
  await assert.rejects(settleJob(sql, leased.lease, { kind: "succeeded" }), { code: "job.lease_owner_mismatch" });
  await assert.rejects(cancelJob(sql, leased.jobId, note), {
    code: "job.invalid_state_transition",
    details: { status: "CANCELED" },
  });
  const last = (await listJobEvents(sql, waiting.jobId, ALL)).items.at(-1);
  assert.deepEqual(last?.payload, { reason: "customer left", actor: "ops@example.com" });
});

Deno.test("a requeue compares before it acts, and waits for a cancelled lease to run out", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const dead = await jobIn(sql, "DEAD_LETTERED");
  const expected = { scope: "all", expectedStatus: "DEAD_LETTERED", expectedRunNumber: 1 } as const;
  assert.deepEqual(await requeueJob(sql, dead.jobId, { ...expected, expectedRunNumber: 2 }), {
    kind: "mismatch",
    status: "DEAD_LETTERED",
    runNumber: 1,
  });
  assert.deepEqual(await requeueJob(sql, dead.jobId, expected), { kind: "requeued", runNumber: 2 });
  assert.deepEqual(await requeueJob(sql, dead.jobId, expected), { kind: "mismatch", status: "PENDING", runNumber: 2 });
  assert.deepEqual((await listDeadLetters(sql, ALL)).items, []);

  const leased = await jobIn(sql, "LEASED");
  await cancelJob(sql, leased.jobId, { scope: "all" });
  const canceled = { scope: "all", expectedStatus: "CANCELED", expectedRunNumber: 1 } as const;
  assert.equal((await requeueJob(sql, leased.jobId, canceled)).kind, "not_quiesced");
  await expireLeases(sql, leased.jobId);
  assert.equal((await requeueJob(sql, leased.jobId, canceled)).kind, "requeued");
  const again = await claimJobs(sql, { jobTypes: [leased.lease?.jobType ?? ""], workerId: "w", limit: 1 });
  assert.deepEqual([again[0]?.runNumber, again[0]?.attempt], [2, 1]);
});

Deno.test("dead letters are requeued by filter and limit, oldest first", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const jobIds: string[] = [];
  for (let n = 0; n < 3; n++) {
    await enqueueJob(sql, request());
    const job = await claimOne(sql);
    await settleJob(sql, job, { kind: "failed", failure: { kind: "TERMINAL", code: `c.${n % 2}`, message: "m" } });
    jobIds.push(job.jobId);
  }
  assert.deepEqual(await requeueDeadLetters(sql, { scope: "all", errorCode: "c.0", limit: 1 }), [jobIds[0]]);
  assert.deepEqual(await requeueDeadLetters(sql, { scope: "all", errorCode: "c.0" }), [jobIds[2]]);
  assert.deepEqual(await requeueDeadLetters(sql, { scope: "all", jobType: "b" }), []);
  assert.deepEqual(await requeueDeadLetters(sql, { scope: "all", failedBefore: new Date(0) }), []);
  assert.deepEqual(await requeueDeadLetters(sql, { scope: "all", progress: "reset" }), [jobIds[1]]);
});

Deno.test("a replay is a new job with lineage, made once for each key", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const done = await jobIn(sql, "SUCCEEDED", { payload: { n: 9 } });
  const options = { scope: "all", replayKey: "again", reason: "lost mail" } as const;
  const made = await replayJob(sql, done.jobId, options);
  assert.equal(made.disposition, "inserted");
  assert.deepEqual(await replayJob(sql, done.jobId, options), { ...made, disposition: "existing" });
  await assert.rejects(replayJob(sql, done.jobId, { ...options, reason: "other" }), {
    code: "job.replay_idempotency_conflict",
  });
  const replay = await getJob(sql, made.jobId, ALL);
  assert.deepEqual([replay?.replayOfJobId, replay?.payload], [done.jobId, { n: 9 }]);
  await assert.rejects(replayJob(sql, made.jobId, options), { code: "job.invalid_state_transition" });
  const many = await Promise.all(
    Array.from({ length: 20 }, () => replayJob(sql, done.jobId, { scope: "all", replayKey: "storm" })),
  );
  assert.equal(new Set(many.map(({ jobId }) => jobId)).size, 1);
  assert.equal(many.filter(({ disposition }) => disposition === "inserted").length, 1);
});

Deno.test("retention removes ended jobs with their ledger, but neither keys nor replays of what is still there", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const done = await jobIn(sql, "SUCCEEDED");
  const keyed = await jobIn(sql, "SUCCEEDED", { idempotencyKey: "k" });
  const dead = await jobIn(sql, "DEAD_LETTERED");
  const live = await jobIn(sql, "LEASED");
  const source = await jobIn(sql, "SUCCEEDED", { idempotencyKey: "source" });
  const replay = await replayJob(sql, source.jobId, { scope: "all", replayKey: "r" });
  await cancelJob(sql, replay.jobId, { scope: "all" });
  assert.equal(await deleteFinishedJobs(sql, { olderThanMs: 3_600_000 }), 0);
  assert.equal(await deleteFinishedJobs(sql, { olderThanMs: 0 }), 1);
  assert.equal(await getJob(sql, done.jobId, ALL), undefined);
  assert.deepEqual(await listJobEvents(sql, done.jobId, ALL), { items: [] });
  for (const { jobId } of [keyed, dead, live, replay]) assert(await getJob(sql, jobId, ALL) !== undefined);
  assert.equal(await deleteFinishedJobs(sql, { olderThanMs: 0, statuses: ["DEAD_LETTERED"] }), 1);
  assert.equal(await deleteFinishedJobs(sql, { olderThanMs: 0, expiresIdempotencyKeys: true }), 2);
  assert.equal(await deleteFinishedJobs(sql, { olderThanMs: 0 }), 1, "the replay goes after its source");
});

Deno.test("the ledger refuses changes even to its owner", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const { jobId } = await jobIn(sql, "SUCCEEDED");
  for (
    const statement of [
      "update runledger.job_events set event_type = 'FAILED'",
      "delete from runledger.job_events",
      "truncate runledger.job_events",
    ]
  ) {
    await assert.rejects(sql.unsafe(statement).execute(), { code: "42501" });
  }
  assert.equal((await listJobEvents(sql, jobId, ALL)).items.length, 3);
});

Deno.test("log lines belong to an attempt and come back in order", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const { jobId, lease } = await jobIn(sql, "LEASED");
  assert(lease !== undefined);
  const messages = ["one", "two", "three"];
  await appendJobLogs(sql, messages.map((message) => ({ lease, level: "info", message, payload: { message } })));
  const first = await listJobLogs(sql, jobId, { scope: "all", limit: 2 });
  const rest = await listJobLogs(sql, jobId, { scope: "all", cursor: first.nextCursor ?? "" });
  assert.deepEqual([...first.items, ...rest.items].map(({ message }) => message), messages);
  await assert.rejects(appendJobLogs(sql, [{ lease, level: "info", message: " " }]), { code: "job.invalid_request" });
});
