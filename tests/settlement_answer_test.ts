/**
 * What a settlement and a claim tell without a further round trip: what was released, what ended, where a job came from.
 *
 * @module
 */

import { WorkflowDagBuilder } from "@runledger/core";
import {
  claimJobs,
  enqueueJob,
  enqueueJobs,
  enqueueWorkflowRun,
  heartbeatJobs,
  reapExpiredLeases,
  releaseJobs,
  settleJob,
  settleJobs,
} from "@runledger/postgres";
import type { ClaimedJob, SettledJob } from "@runledger/postgres";
import assert from "node:assert/strict";
import type postgres from "postgres";
import { expireLeases, openTestDatabase, request } from "./support/database.ts";

const TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

function claim(sql: postgres.Sql): Promise<readonly ClaimedJob[]> {
  return claimJobs(sql, { jobTypes: ["a", "b"], workerId: "w", limit: 100 });
}

/** What a settlement released, as `key status`, and how its run ended. */
function told(settled: SettledJob | undefined): unknown {
  if (settled?.settled !== true || settled.release === undefined) return undefined;
  const { steps, run } = settled.release;
  return [steps.map(({ stepKey, status }) => `${stepKey} ${status}`).sort(), run?.status];
}

function invoiceRun() {
  const request = { jobType: "a", payload: null };
  return new WorkflowDagBuilder("test.told")
    .job("first", request)
    .job("second", { jobType: "b", payload: null }).afterSuccess("second", ["first"])
    .external("gate").afterSuccess("gate", ["first"])
    .job("third", request).afterSuccess("third", ["second"])
    .job("fourth", request).afterSuccess("fourth", ["third"])
    .job("always", request).afterTerminal("always", ["second"]);
}

Deno.test("a settlement tells what it released, cancelled and ended, if it is asked", async () => {
  await using db = await openTestDatabase();
  const { sql } = db;
  await enqueueWorkflowRun(sql, invoiceRun().build());
  const [first] = await claim(sql);
  assert.ok(first?.workflow);
  const { runId } = first.workflow;
  const answer = await settleJob(sql, first, { kind: "succeeded" }, { tellsRelease: true });
  assert.deepEqual(told(answer), [["gate WAITING_FOR_EXTERNAL", "second ENQUEUED"], undefined]);
  const second = answer.release?.steps.find(({ stepKey }) => stepKey === "second");
  assert.deepEqual([second?.runId, second?.jobType, second && "organizationId" in second], [runId, "b", false]);

  const [job] = await claim(sql);
  assert.equal(job?.jobId, second?.stepId);
  assert.ok(job);
  const failure = { kind: "TERMINAL", code: "test.failed", message: "no" } as const;
  const failed = await settleJob(sql, job, { kind: "failed", failure }, { tellsRelease: true });
  assert.deepEqual(told(failed), [["always ENQUEUED", "fourth CANCELED", "third CANCELED"], undefined]);
});

Deno.test("the end of a run is told with the settlement that ended it, and nothing is told unasked", async () => {
  await using db = await openTestDatabase();
  const { sql } = db;
  const organizationId = "018f0000-0000-7000-8000-000000000001";
  const pair = (suffix: string) =>
    new WorkflowDagBuilder(`test.pair_${suffix}`).organization(organizationId)
      .job("x", { jobType: "a", payload: null }).job("y", { jobType: "a", payload: null })
      .job("z", { jobType: "a", payload: null }).afterSuccess("z", ["x"]).build();
  const { runId } = await enqueueWorkflowRun(sql, pair("told"));
  await enqueueWorkflowRun(sql, pair("silent"));
  const jobs = await claim(sql);
  const told1 = jobs.filter(({ workflow }) => workflow?.runId === runId);
  const failure = { kind: "TERMINAL", code: "test.failed", message: "no" } as const;
  const answers = await settleJobs(
    sql,
    told1.map((lease) => ({ lease, outcome: { kind: "failed", failure } })),
    { tellsRelease: true },
  );
  // The cancellation of z is a second wave, in which the run ended for good.
  assert.deepEqual(answers.map(told), [undefined, [["z CANCELED"], "COMPLETED_WITH_ERRORS"]]);
  assert.deepEqual(answers[1]?.settled && answers[1].release?.run, {
    runId,
    workflowType: "test.pair_told",
    organizationId,
    status: "COMPLETED_WITH_ERRORS",
  });
  const rest = jobs.filter(({ workflow }) => workflow?.runId !== runId);
  const silent = await settleJobs(sql, rest.map((lease) => ({ lease, outcome: { kind: "succeeded" } })));
  assert.ok(silent.every((answer) => answer.settled && answer.release === undefined));
});

Deno.test("a reaper knows the step of each lease, and what its end led to", async () => {
  await using db = await openTestDatabase();
  const { sql } = db;
  const builder = new WorkflowDagBuilder("test.reaped").job("x", { jobType: "a", payload: null, maxAttempts: 1 })
    .job("z", { jobType: "a", payload: null }).afterSuccess("z", ["x"]);
  const { runId } = await enqueueWorkflowRun(sql, builder.build());
  await enqueueJob(sql, request());
  assert.equal((await claim(sql)).length, 2);
  await expireLeases(sql);
  const reaped = await reapExpiredLeases(sql);
  const step = reaped.find(({ workflow }) => workflow !== undefined);
  const plain = reaped.find(({ workflow }) => workflow === undefined);
  assert.equal(reaped.length, 2);
  assert.deepEqual([step?.workflow, step?.status], [{ runId, stepKey: "x" }, "DEAD_LETTERED"]);
  assert.deepEqual([step?.release?.steps[0]?.stepKey, step?.release?.run?.status], ["z", "COMPLETED_WITH_ERRORS"]);
  assert.deepEqual([plain?.status, plain?.release], ["PENDING", undefined]);
});

Deno.test("a batch that names a job twice is refused before any SQL, in capitals too; a lease in capitals is one", async () => {
  await using db = await openTestDatabase();
  const { sql } = db;
  await enqueueJobs(sql, [request(), request()]);
  const [first, second] = await claim(sql);
  assert.ok(first && second);
  const capitals = { ...first, jobId: first.jobId.toUpperCase(), leaseToken: first.leaseToken.toUpperCase() };
  const unreachable = { query: () => assert.fail("nothing may be sent") };
  for (const leases of [[first, first], [first, second, capitals], [capitals, second, first]]) {
    const refusal = { code: "job.invalid_outcome" };
    await assert.rejects(
      settleJobs(unreachable, leases.map((lease) => ({ lease, outcome: { kind: "succeeded" } }))),
      refusal,
    );
    await assert.rejects(heartbeatJobs(unreachable, leases), refusal);
    await assert.rejects(releaseJobs(unreachable, leases), refusal);
  }
  assert.deepEqual((await heartbeatJobs(sql, [capitals, second])).map(({ state }) => state), ["extended", "extended"]);
  const settled = await settleJobs(sql, [capitals, second].map((lease) => ({ lease, outcome: { kind: "succeeded" } })));
  assert.deepEqual(settled.map((each) => each.settled && each.status), ["SUCCEEDED", "SUCCEEDED"]);
});

Deno.test("each attempt knows where its job or run was asked for, and a key stands for the same job from elsewhere", async () => {
  await using db = await openTestDatabase();
  const { sql } = db;
  const keyed = request({ idempotencyKey: "k", traceparent: TRACEPARENT });
  const [one] = await enqueueJobs(sql, [keyed, request({ payload: "unkeyed" })]);
  const other = TRACEPARENT.replace("4bf9", "aaaa");
  const again = await enqueueJob(sql, { ...keyed, traceparent: other });
  assert.deepEqual([again.jobId, again.disposition], [one?.jobId, "existing"]);
  await enqueueJob(sql, request({ payload: "traced", traceparent: other }));

  const run = invoiceRun().idempotencyKey("r").build();
  const { runId } = await enqueueWorkflowRun(sql, { ...run, traceparent: TRACEPARENT });
  assert.equal((await enqueueWorkflowRun(sql, { ...run, traceparent: other })).runId, runId);

  const claimed = await claim(sql);
  const traceparentOf = (fits: (job: ClaimedJob) => boolean) => claimed.find(fits)?.traceparent;
  assert.equal(traceparentOf(({ jobId }) => jobId === one?.jobId), TRACEPARENT);
  assert.equal(traceparentOf(({ payload }) => payload === "unkeyed"), undefined);
  assert.equal(traceparentOf(({ payload }) => payload === "traced"), other);
  assert.equal(traceparentOf(({ workflow }) => workflow?.stepKey === "first"), TRACEPARENT);
  assert.ok(claimed.every(({ waitedMs }) => waitedMs >= 0 && waitedMs < 600_000));
  await settleJobs(sql, claimed.map((lease) => ({ lease, outcome: { kind: "succeeded" } })));
  // Jobs that the run releases later have it, too.
  assert.deepEqual((await claim(sql)).map(({ traceparent }) => traceparent), [TRACEPARENT]);
});

Deno.test("what is no traceparent is refused before any SQL", async () => {
  await using db = await openTestDatabase();
  for (const traceparent of ["", "x", TRACEPARENT.toUpperCase(), `ff${TRACEPARENT.slice(2)}`, 7 as never]) {
    await assert.rejects(enqueueJob(db.sql, request({ traceparent })), { code: "job.invalid_request" });
    await assert.rejects(enqueueWorkflowRun(db.sql, { ...invoiceRun().build(), traceparent }), {
      code: "workflow.invalid_dag_setting_invalid",
    });
  }
});
