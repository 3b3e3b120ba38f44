/**
 * Enqueueing runs where there is neither Deno nor Node: in workerd, the runtime of Cloudflare Workers, from one small module.
 *
 * @module
 */

import { getJob, getWorkflowRun, upsertJobDefinitions } from "@runledger/postgres";
import assert from "node:assert/strict";
import { createTemporaryFolder } from "../test_support/_temporary_folder.ts";
import { openTestDatabase, testDefinition } from "./support/database.ts";
import { bundleForEdge, stopBundler } from "./support/edge_bundle.ts";
import { startWorkerd } from "./support/workerd.ts";

// Before the tests: the bundler's process outlives the call that starts it, which is a leak in any one test.
await using linked = await createTemporaryFolder();
const program = await bundleForEdge(`export { default } from "./tests/edge/worker.ts";`, linked.path);
Deno.test.afterAll(stopBundler);

for (const driver of ["postgres.js", "pg"]) {
  Deno.test(`workerd, ${driver}: a job, a batch, a workflow and a transaction are enqueued; errors keep their codes`, async () => {
    await using database = await openTestDatabase();
    const { sql } = database;
    await upsertJobDefinitions(sql, ["edge.email", "edge.charge"].map(testDefinition));
    await using folder = await createTemporaryFolder();
    await using workerd = await startWorkerd(program, { DATABASE_URL: database.url }, folder.path);
    const ask = async (action: string, name: string) => {
      const response = await fetch(`${workerd.url}/${driver}/${action}?name=${name}`);
      return { status: response.status, body: await response.json() };
    };

    const first = await ask("job", "ada");
    assert.equal(first.status, 200, JSON.stringify(first.body));
    assert.equal(first.body.disposition, "inserted");
    assert.deepEqual((await getJob(sql, first.body.jobId, { scope: "global" }))?.payload, { to: "ada" });
    assert.deepEqual(await ask("job", "ada"), { status: 200, body: { ...first.body, disposition: "existing" } });

    const conflict = await ask("conflict", "ada");
    assert.equal(conflict.body.code, "job.idempotency_conflict");
    assert.deepEqual(conflict.body.details.fields, ["payload"]);
    const unknown = await ask("unknown", "nothing");
    assert.equal(unknown.body.code, "job.definition_not_found_or_disabled");

    const batch = await ask("batch", "grace");
    assert.equal(new Set(batch.body.map(({ jobId }: { jobId: string }) => jobId)).size, 500);

    const { body: { runId, status } } = await ask("workflow", "edsger");
    assert.equal(status, "RUNNING");
    const run = await getWorkflowRun(sql, runId, { scope: "global" });
    assert.deepEqual([run?.workflowType, run?.stepCount, run?.metadata], ["edge.order", 3, { name: "edsger" }]);

    const committed = await ask("commit", "barbara");
    for (const jobId of committed.body) assert.ok(await getJob(sql, jobId, { scope: "global" }) !== undefined);
    assert.deepEqual(await ask("rollback", "donald"), { status: 500, body: { error: "the order cannot be" } });

    const [counted] = await sql`
      select (count(*) filter (where payload ->> 'to' like 'grace %'))::integer as batch,
        (count(*) filter (where payload ->> 'to' like 'donald%'))::integer as undone
      from runledger.job_queue`;
    assert.deepEqual({ ...counted }, { batch: 500, undone: 0 });
  });
}
