/**
 * A job's whole path over every kind of database handle: what one driver stores, every driver reads alike.
 *
 * @module
 */

import assert from "node:assert/strict";
import type { JsonValue } from "@runledger/core";
import {
  atomically,
  claimJobs,
  completeExternalStep,
  enqueueJobs,
  enqueueWorkflowRun,
  getJob,
  heartbeatJobs,
  listJobEvents,
  listWorkflowSteps,
  migrate,
  recordJobProgress,
  settleJobs,
  upsertJobDefinitions,
} from "@runledger/postgres";
import { newId } from "@runledger/core";
import { createEphemeralDatabase } from "@runledger/test-support";
import { request, testDefinition } from "./support/database.ts";
import { DRIVERS, sharedPGlite } from "./support/drivers.ts";
import { ORM_DRIVERS } from "./support/orm_drivers.ts";

const database = await createEphemeralDatabase();
await migrate(await sharedPGlite());
Deno.test.afterAll(async () => {
  await database[Symbol.asyncDispose]();
});

const ALL = { scope: "all" } as const;

/** What drivers are known to get wrong. */
const PAYLOADS: readonly JsonValue[] = [
  null,
  [null, [null], { none: null }],
  "null",
  '{"looks": "like json"}',
  "plain",
  9_007_199_254_740_991,
  -0.1,
  true,
  false,
  [true, 1, "1", [1.5]],
  { a_b: 1, aB: 2, "": 3, "with space": { nested_key: null } },
  "𝒳 outside the BMP, \u202e and ' \" \\ $1 ${x} --",
  "x".repeat(1_000_000),
];

for (const driver of [...DRIVERS, ...ORM_DRIVERS]) {
  Deno.test(`${driver.name}: jobs keep what they were given, from enqueue over claim to the end`, async () => {
    await using handle = await driver.open(database.url);
    const { db } = handle;
    const jobType = `drivers-${newId()}`;
    await upsertJobDefinitions(db, [testDefinition(jobType)]);
    const organizationId = newId();
    const nextRunAt = new Date("2026-01-02T03:04:05.678Z");
    const requests = PAYLOADS.map((payload) => request({ jobType, payload, organizationId, nextRunAt }));
    const enqueued = await enqueueJobs(db, requests);
    const claimed = await claimJobs(db, { jobTypes: [jobType], workerId: "w 'ö'", limit: 100 });
    assert.deepEqual(claimed.map(({ jobId }) => jobId), enqueued.map(({ jobId }) => jobId).toSorted());
    for (const job of claimed) {
      const index = enqueued.findIndex(({ jobId }) => jobId === job.jobId);
      assert.deepEqual(job.payload, PAYLOADS[index]);
      assert.deepEqual([job.organizationId, job.attempt, job.maxAttempts], [organizationId, 1, 3]);
    }
    const [first] = claimed;
    assert(first !== undefined);
    const beats = await heartbeatJobs(db, claimed);
    assert(beats.every(({ state }) => state === "extended"));
    const total = Number.MAX_SAFE_INTEGER;
    await recordJobProgress(db, first, { progress: { done: total - 1, total }, checkpoint: [null] });
    const results = await settleJobs(
      db,
      claimed.map((lease) => ({ lease, outcome: { kind: "succeeded", output: lease.payload } })),
    );
    assert(results.every(({ settled }) => settled));
    for (const job of claimed) {
      const stored = await getJob(db, job.jobId, { scope: { organizationId } });
      assert.equal(stored?.status, "SUCCEEDED");
      assert.deepEqual(stored?.output, job.payload);
      assert.deepEqual(stored?.nextRunAt, nextRunAt);
    }
    const stored = await getJob(db, first.jobId, ALL);
    assert.deepEqual([stored?.progressDone, stored?.progressTotal, stored?.checkpoint], [total - 1, total, [null]]);
    assert.equal((await listJobEvents(db, first.jobId, ALL)).items.length, 4);
  });

  Deno.test(`${driver.name}: a workflow is enqueued, released and finished; an undone one never was`, async () => {
    await using handle = await driver.open(database.url);
    const { db } = handle;
    const jobType = `drivers-${newId()}`;
    await upsertJobDefinitions(db, [testDefinition(jobType)]);
    const run = {
      workflowType: "drivers",
      metadata: { "a_b": [null] },
      steps: [
        { executionKind: "JOB", stepKey: "𝒳", jobType, payload: null, dependencies: [] },
        {
          executionKind: "EXTERNAL",
          stepKey: "gate",
          payload: null,
          dependencies: [{ prerequisiteStepKey: "𝒳", releaseMode: "ON_SUCCESS" }],
        },
      ],
    } as const;
    const undo = new Error("undo");
    await assert.rejects(
      atomically(db, async (tx) => {
        await enqueueWorkflowRun(tx, run);
        throw undo;
      }),
      undo,
    );
    const { runId } = await enqueueWorkflowRun(db, run);
    const claimed = await claimJobs(db, { jobTypes: [jobType], workerId: "w", limit: 10 });
    assert.deepEqual(claimed.map(({ workflow }) => workflow?.stepKey), ["𝒳"]);
    await settleJobs(db, claimed.map((lease) => ({ lease, outcome: { kind: "succeeded" } })));
    const completion = { status: "SUCCEEDED", output: { ok: null } } as const;
    assert.deepEqual(await completeExternalStep(db, runId, "gate", { scope: "global", completion }), {
      isApplied: true,
    });
    const { items: steps } = await listWorkflowSteps(db, runId, ALL);
    assert.deepEqual(steps.map(({ status, output }) => [status, output]), [
      ["SUCCEEDED", undefined],
      ["SUCCEEDED", { ok: null }],
    ]);
  });
}
