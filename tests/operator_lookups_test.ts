/**
 * What operators look up precisely: how many jobs ended, what failed with a code, what happened within a time.
 *
 * @module
 */

import { newId } from "@runledger/core";
import * as runledger from "@runledger/postgres";
import type { JobTypeTotals } from "@runledger/postgres";
import assert from "node:assert/strict";
import { fillOperatorData } from "../bench/operator_data.ts";
import { claimOne, expireLeases, openTestDatabase, request } from "./support/database.ts";

const ALL = { scope: "all" } as const;
const DAY_MS = 86_400_000;

const NONE = { succeeded: 0, canceled: 0, deadLettered: 0, panicked: 0, leaseExpired: 0, timedOut: 0 };

Deno.test("ended jobs are counted by type and outcome, panics and lost leases apart", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const owner = { organizationId: newId() };
  const end = async (
    fields: Partial<Parameters<typeof request>[0]>,
    outcome?: Parameters<typeof runledger.settleJob>[2],
  ) => {
    await runledger.enqueueJob(sql, request({ maxAttempts: 1, ...fields }));
    const lease = await claimOne(sql);
    if (outcome !== undefined) await runledger.settleJob(sql, lease, outcome);
  };
  const failed = (kind: "RETRYABLE" | "TIMEOUT" | "PANICKED") =>
    ({ kind: "failed", failure: { kind, code: "app.no", message: "no" } }) as const;
  await end({}, { kind: "succeeded" });
  await end({ idempotencyKey: "k" }, { kind: "succeeded" });
  await end(owner, { kind: "succeeded" });
  await end({}, failed("RETRYABLE"));
  await end({}, failed("TIMEOUT"));
  await end({ jobType: "b" }, failed("PANICKED"));
  await end({ jobType: "b" });
  await expireLeases(sql);
  await runledger.reapExpiredLeases(sql);
  const { jobId } = await runledger.enqueueJob(sql, request());
  await runledger.cancelJob(sql, jobId, { ...ALL, reason: "PANICKED" });
  await runledger.enqueueJob(sql, request());

  const a = { ...NONE, jobType: "a", succeeded: 3, canceled: 1, deadLettered: 2, timedOut: 1 };
  const b = { ...NONE, jobType: "b", deadLettered: 2, panicked: 1, leaseExpired: 1 };
  const counted = await runledger.countEndedJobs(sql, ALL);
  assert.deepEqual([counted.types, counted.isComplete], [[a, b], true]);
  assert.equal(counted.countedUntil.getTime() - counted.countedSince.getTime(), DAY_MS);
  assert.deepEqual((await runledger.countEndedJobs(sql, { ...ALL, jobType: "b" })).types, [b]);
  assert.deepEqual((await runledger.countEndedJobs(sql, { scope: owner })).types, [{
    ...NONE,
    jobType: "a",
    succeeded: 1,
  }]);
  const { countedUntil: until } = counted;
  assert.deepEqual((await runledger.countEndedJobs(sql, { ...ALL, since: until })).types, [], "until is exclusive");
  const before = new Date(until.getTime() - DAY_MS);
  assert.deepEqual((await runledger.countEndedJobs(sql, { ...ALL, until: before })).types, []);
});

Deno.test("however many jobs ended, each is counted once, also those that ended in the same instant", async () => {
  await using database = await openTestDatabase({ checks: false });
  const { sql } = database;
  await fillOperatorData(sql, 60_000);
  // More than a window of one instant, and instants that are between milliseconds.
  await sql`update runledger.job_queue set finished_at = timestamptz '2026-01-01 12:00:00.000123Z'
    where id in (
      select id from runledger.job_queue where status = 'SUCCEEDED' and idempotency_key is null limit 15000
    )`;
  const wanted = async (condition: string) =>
    await sql.unsafe<JobTypeTotals[]>(`
      select job_type as "jobType", count(*) filter (where status = 'SUCCEEDED')::integer as succeeded,
        count(*) filter (where status = 'CANCELED')::integer as canceled,
        count(*) filter (where status = 'DEAD_LETTERED')::integer as "deadLettered",
        count(*) filter (where status = 'DEAD_LETTERED' and status_reason = 'PANICKED')::integer as panicked,
        count(*) filter (where status = 'DEAD_LETTERED' and status_reason = 'LEASE_EXPIRED')::integer as "leaseExpired",
        count(*) filter (where status = 'DEAD_LETTERED' and status_reason = 'TIMEOUT')::integer as "timedOut"
      from runledger.job_queue
      where finished_at is not null and ${condition}
      group by job_type
      order by job_type collate "C"`);
  const year = { since: new Date("2025-12-01T00:00:00Z"), until: new Date("2027-12-01T00:00:00Z") };
  const all = await runledger.countEndedJobs(sql, { ...ALL, ...year });
  assert.equal(all.isComplete, true);
  assert.deepEqual(all.types, [...await wanted("true")]);
  const part = await runledger.countEndedJobs(sql, { ...ALL, ...year, maxJobs: 20_000 });
  assert.equal(part.isComplete, false);
  const { countedSince } = part;
  assert(countedSince > year.since);
  const sum = (types: readonly JobTypeTotals[]) => types.reduce((total, type) => total + type.succeeded, 0);
  const [reached] = await sql<{ least: number; most: number }[]>`
    select count(*) filter (where finished_at >= ${countedSince})::integer as least,
      count(*) filter (where finished_at >= ${new Date(countedSince.getTime() - 1)})::integer as most
    from runledger.job_queue where status = 'SUCCEEDED'`;
  assert(reached !== undefined && sum(part.types) >= reached.least && sum(part.types) <= reached.most);
});

Deno.test("steps of a run are found by the code that failed them, of a job or of a gate, and runs by their jobs", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const { runId } = await runledger.enqueueWorkflowRun(sql, {
    workflowType: "w",
    metadata: null,
    steps: [
      { executionKind: "JOB", stepKey: "work", jobType: "a", payload: 1, dependencies: [] },
      { executionKind: "EXTERNAL", stepKey: "gate", payload: 1, dependencies: [] },
    ],
  });
  const failure = (kind: "RETRYABLE" | "TERMINAL") => ({ kind, code: "app.no_paper", message: "no" }) as const;
  const steps = async (errorCode: string) =>
    (await runledger.listWorkflowSteps(sql, runId, { ...ALL, errorCode })).items.map(({ stepKey }) => stepKey);
  const runs = async (errorCode: string) =>
    (await runledger.listJobs(sql, { ...ALL, status: "DEAD_LETTERED", errorCode })).items.map((job) =>
      job.workflowRunId
    );
  const lease = await claimOne(sql);
  await runledger.settleJob(sql, lease, { kind: "failed", failure: failure("RETRYABLE"), retryDelayMs: 0 });
  assert.deepEqual(await steps("app.no_paper"), ["work"], "it will be tried again");
  assert.deepEqual(await runs("app.no_paper"), []);
  await runledger.settleJob(sql, await claimOne(sql), { kind: "failed", failure: failure("TERMINAL") });
  await runledger.completeExternalStep(sql, runId, "gate", {
    ...ALL,
    completion: { status: "FAILED", errorCode: "app.refused", errorMessage: "no" },
  });
  assert.deepEqual(await steps("app.no_paper"), ["work"]);
  assert.deepEqual(await steps("app.refused"), ["gate"]);
  assert.deepEqual(await steps("app.none"), []);
  assert.deepEqual(await runs("app.no_paper"), [runId]);
});

Deno.test("the events of a job are found by when they were posted", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const { jobId } = await runledger.enqueueJob(sql, request());
  await runledger.settleJob(sql, await claimOne(sql), { kind: "succeeded" });
  const { items } = await runledger.listJobEvents(sql, jobId, ALL);
  const list = async (options: { readonly since?: Date; readonly until?: Date }) =>
    (await runledger.listJobEvents(sql, jobId, { ...ALL, ...options })).items.map(({ seq }) => seq);
  const last = items.at(-1)?.occurredAt ?? new Date();
  assert.deepEqual(await list({ until: new Date(last.getTime() + 1) }), [1, 2, 3]);
  assert.deepEqual(await list({ since: new Date(last.getTime() + 1) }), []);
  const [first] = items;
  assert(first !== undefined);
  assert.deepEqual(await list({ until: first.occurredAt }), []);
  assert.deepEqual(await list({ since: first.occurredAt }), [1, 2, 3]);
  const between = items.findIndex(({ occurredAt }) => occurredAt > first.occurredAt);
  if (between > 0) {
    const at = new Date(items[between]?.occurredAt ?? 0);
    assert.deepEqual(await list({ until: at }), items.slice(0, between).map(({ seq }) => seq));
  }
});
