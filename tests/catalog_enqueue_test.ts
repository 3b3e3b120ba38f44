/**
 * A catalog enqueues only what it knows, with payloads that handlers will take; handlers of steps run for their steps.
 *
 * @module
 */

import { defineJob, WorkflowDagBuilder } from "@runledger/core";
import { countJobs } from "@runledger/postgres";
import { JobCatalog } from "@runledger/runtime";
import assert from "node:assert/strict";
import { z } from "zod";
import { openTestDatabase } from "./support/database.ts";
import { endedJobs, readJob, startWorker } from "./support/worker_harness.ts";

const mail = defineJob({ type: "mail", payload: z.object({ to: z.email() }) });
const slow = defineJob({
  type: "slow",
  payload: z.object({ n: z.int() }).refine(({ n }) => Promise.resolve(n > 0)),
});

Deno.test("a catalog refuses types that it does not have and payloads that their schema does not take", async () => {
  await using db = await openTestDatabase();
  const catalog = new JobCatalog().define(mail).define(slow);
  await catalog.sync(db.sql);
  const good = mail.request({ to: "ada@example.com" });
  await assert.rejects(catalog.enqueueJobs(db.sql, [good, { jobType: "a", payload: 1 }]), {
    code: "job.handler_not_registered",
    details: { jobType: "a", index: 1 },
  });
  await assert.rejects(catalog.enqueueJobs(db.sql, [good, { jobType: "mail", payload: { to: "nobody" } }]), (error) => {
    const { code, details, message } = error as { code: string; details: Record<string, unknown>; message: string };
    assert.deepEqual([code, details["index"], details["path"]], ["job.invalid_payload", 1, "$.to"]);
    assert.ok(!message.includes("nobody"));
    return true;
  });
  // An asynchronous schema is asked, too.
  await assert.rejects(catalog.enqueueJob(db.sql, { jobType: "slow", payload: { n: 0 } }), {
    code: "job.invalid_payload",
  });
  const run = (payload: { readonly to: string }) =>
    new WorkflowDagBuilder("mails").job("one", { jobType: "mail", payload }).external("gate").build();
  await assert.rejects(catalog.enqueueWorkflowRun(db.sql, run({ to: "nobody" })), {
    code: "job.invalid_payload",
    details: {
      field: "payload",
      path: "$.to",
      paths: ["$.to"],
      problem: "the job's schema refuses it",
      stepKey: "one",
    },
  });
  assert.equal((await countJobs(db.sql, { scope: "all" })).count, 0);

  assert.deepEqual(await catalog.enqueueJobs(db.sql, []), []);
  const { jobId, disposition } = await catalog.enqueueJob(db.sql, await slow.requestAsync({ n: 1 }));
  assert.deepEqual([(await readJob(db.sql, jobId)).payload, disposition], [{ n: 1 }, "inserted"]);
  assert.equal((await catalog.enqueueWorkflowRun(db.sql, run({ to: "ada@example.com" }))).disposition, "inserted");
});

Deno.test("a handler of a step runs for that step, and a job that is none fails for good", async () => {
  await using db = await openTestDatabase();
  const first = defineJob({ type: "first", output: z.object({ cents: z.int() }) });
  const second = defineJob({ type: "second" });
  const flow = () =>
    new WorkflowDagBuilder("flow").job("first", first.request(null))
      .job("second", second.request(null)).afterSuccess("second", ["first"]).build();
  const catalog = new JobCatalog()
    .handle(first, (_payload, { prerequisites }) => {
      assert.deepEqual({ ...prerequisites }, {});
      return { cents: 7 };
    })
    .handleStep(second, { workflow: flow, stepKey: "second" }, (_payload, { prerequisites, workflow }) => {
      assert.equal(prerequisites, workflow.prerequisites);
      return { charged: prerequisites.first.output?.cents ?? null };
    });
  assert.throws(() => catalog.handleStep(second, { workflow: flow, stepKey: "second" }, undefined as never), TypeError);
  await catalog.sync(db.sql);
  const outputs: unknown[] = [];
  catalog.onStepSucceeded(({ stepKey, output }) => outputs.push([stepKey, output]));
  const ended = endedJobs(catalog, 3);
  await using _worker = startWorker(db.sql, catalog);
  await catalog.enqueueWorkflowRun(db.sql, flow());
  const { jobId } = await catalog.enqueueJob(db.sql, second.request(null));
  await ended;
  assert.deepEqual(outputs, [["first", { cents: 7 }], ["second", { charged: 7 }]]);
  const { status, lastErrorCode, attempt } = await readJob(db.sql, jobId);
  assert.deepEqual([status, lastErrorCode, attempt], ["DEAD_LETTERED", "job.handler_not_registered", 1]);
});
