/**
 * Enqueueing runs where there is neither Deno nor Node: in workerd, the runtime of Cloudflare Workers, from one small module.
 *
 * @module
 */

import { claimJobs, getJob, getWorkflowRun, settleJob, upsertJobDefinitions } from "@runledger/postgres";
import type { Queryable } from "@runledger/postgres";
import assert from "node:assert/strict";
import { createTemporaryFolder } from "../test_support/_temporary_folder.ts";
import { openTestDatabase, testDefinition } from "./support/database.ts";
import { bundleForEdge, stopBundler } from "./support/edge_bundle.ts";
import { startWorkerd } from "./support/workerd.ts";

/** Programs, the most bytes that they take without a driver, as docs/edge.md tells them. */
const SIZES = [
  {
    what: "jobs",
    source: `export { defineJob, isRunledgerError } from "@runledger/core";
      export { atomically, enqueueJob, enqueueJobs } from "@runledger/postgres/enqueue";`,
    maxBytes: 40_000,
  },
  {
    what: "jobs, and reads status,",
    source: `export { defineJob, isRunledgerError } from "@runledger/core";
      export { atomically, enqueueJob, enqueueJobs } from "@runledger/postgres/enqueue";
      export { getJob, getWorkflowResult, getWorkflowRun } from "@runledger/postgres";`,
    maxBytes: 48_000,
  },
  {
    what: "jobs and workflows",
    source: `export { defineJob, isRunledgerError, WorkflowDagBuilder } from "@runledger/core";
      export * from "@runledger/postgres/enqueue";`,
    maxBytes: 55_000,
  },
];

// Before the tests: the bundler's process outlives the call that starts it, which is a leak in any one test.
const program = await bundleForEdge(`export { default } from "./tests/edge/worker.ts";`);
const sized: (typeof SIZES[number] & { readonly code: string })[] = [];
for (const size of SIZES) sized.push({ ...size, code: await bundleForEdge(size.source) });
Deno.test.afterAll(stopBundler);

for (const { what, code, maxBytes } of sized) {
  Deno.test(`an edge program that enqueues ${what} carries at most ${maxBytes} bytes of Runledger`, () => {
    const bytes = new TextEncoder().encode(code).length;
    console.log(`${what}: ${bytes} bytes`);
    assert.ok(bytes <= maxBytes, `${bytes} bytes: what does the program carry that it does not use?`);
    assert.ok(code.includes("runledger.enqueue_jobs("), "the bundle does not enqueue");
    // Migrations, the statements of workers, explanations of errors.
    for (const text of ["create table", "skip locked", "Sync the catalog"]) assert.ok(!code.includes(text), text);
  });
}

for (const driver of ["postgres.js", "pg"]) {
  Deno.test(`workerd, ${driver}: a job, a batch, a workflow and a transaction are enqueued, and their status read; errors keep their codes`, async () => {
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

    assert.equal((await ask("job_status", first.body.jobId)).body, "PENDING");

    const conflict = await ask("conflict", "ada");
    assert.equal(conflict.body.code, "job.idempotency_conflict");
    assert.deepEqual(conflict.body.details.fields, ["payload"]);
    const unknown = await ask("unknown", "nothing");
    assert.equal(unknown.body.code, "job.definition_not_found_or_disabled");

    const batch = await ask("batch", "grace");
    assert.equal(new Set(batch.body.map(({ jobId }: { jobId: string }) => jobId)).size, 500);

    const { body: { runId, status } } = await ask("workflow", "edsger");
    assert.equal(status, "RUNNING");
    assert.equal((await ask("run_status", runId)).body, "RUNNING");
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

/** What the example exports. The path is computed: examples are checked with options that an import would not use. */
async function loadExample(): Promise<(db: Queryable) => (request: Request) => Promise<Response>> {
  const specifier: string = "../examples/deploy_api.ts";
  return (await import(specifier)).createHandler;
}

/** A client of the example. */
function clientOf(handle: (request: Request) => Promise<Response>) {
  const read = async (response: Response) => ({ status: response.status, body: await response.json() });
  return {
    get: async (path: string) => await read(await handle(new Request(`http://h${path}`))),
    post: async (path: string, body: unknown, key?: string) => {
      const headers: Record<string, string> = key === undefined ? {} : { "idempotency-key": key };
      const text = typeof body === "string" ? body : JSON.stringify(body);
      return await read(await handle(new Request(`http://h${path}`, { method: "POST", body: text, headers })));
    },
  };
}

Deno.test("examples/deploy_api.ts: enqueues jobs and runs once for each key, and tells how they stand and what came of them", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  await upsertJobDefinitions(sql, ["example.email", "example.report"].map(testDefinition));
  const { get, post } = clientOf((await loadExample())(sql));

  const email = { to: "ada@example.com", subject: "Hello" };
  const first = await post("/emails", email, "k");
  assert.equal(first.status, 202);
  assert.deepEqual(await post("/emails", email, "k"), {
    status: 200,
    body: { ...first.body, disposition: "existing" },
  });
  const conflict = await post("/emails", { ...email, subject: "Bye" }, "k");
  assert.equal(conflict.status, 409);
  assert.deepEqual([conflict.body.code, conflict.body.details.fields], ["job.idempotency_conflict", ["payload"]]);
  assert.notEqual((await post("/emails", email)).body.jobId, first.body.jobId);
  assert.deepEqual(await get(`/jobs/${first.body.jobId}`), {
    status: 200,
    body: { jobId: first.body.jobId, status: "PENDING", attempt: 0 },
  });

  const report = { month: "2026-11", pages: 30, to: "ada@example.com" };
  const { status, body: { runId } } = await post("/reports", report, "k");
  assert.equal(status, 202);
  assert.equal((await post("/reports", report, "k")).body.runId, runId);
  assert.equal((await post("/reports", { ...report, pages: 31 }, "k")).body.code, "workflow.enqueue_conflicting_retry");
  assert.deepEqual((await get(`/runs/${runId}`)).body, { runId, status: "RUNNING" });
  for (const jobType of ["example.report", "example.email"]) {
    for (const job of await claimJobs(sql, { jobTypes: [jobType], workerId: "w", limit: 10 })) {
      await settleJob(sql, job, { kind: "succeeded", output: { pages: 30 } });
    }
  }
  assert.deepEqual((await get(`/runs/${runId}`)).body, { runId, status: "SUCCEEDED", result: { pages: 30 } });
  assert.deepEqual((await get(`/jobs/${first.body.jobId}`)).body.output, { pages: 30 });
});

Deno.test("examples/deploy_api.ts: what is wrong is told by a status and a code, and nothing internal with it", async () => {
  await using database = await openTestDatabase();
  const createHandler = await loadExample();
  const { get, post } = clientOf(createHandler(database.sql));
  const id = crypto.randomUUID();
  const answers = await Promise.all([
    post("/emails", "no json"),
    post("/emails", { to: "nobody", subject: "Hello" }),
    post("/reports", "null"),
    post("/reports", { month: "2026-11", pages: 30 }),
    post("/emails", { to: "ada@example.com", subject: "Hello" }),
    post("/emails", { to: "ada@example.com", subject: "Hello" }, "k".repeat(600)),
    get(`/jobs/${id}`),
    get(`/runs/${id}`),
    get("/jobs/1"),
    get(`/emails/${id}`),
    post(`/jobs/${id}`, {}),
  ]);
  assert.deepEqual(answers.map(({ status, body }) => [status, body.code]), [
    [400, "job.invalid_payload"],
    [400, "job.invalid_payload"],
    [400, "job.invalid_payload"],
    [400, "job.invalid_payload"],
    [400, "job.definition_not_found_or_disabled"],
    [400, "job.invalid_request"],
    [404, "job.not_found"],
    [404, "workflow.run_not_found"],
    [404, "not_found"],
    [404, "not_found"],
    [404, "not_found"],
  ]);
  assert.equal(answers[1]?.body.details.path, "$.to");

  const logged: unknown[] = [];
  const log = console.error;
  console.error = (...values) => logged.push(...values);
  try {
    const refused = Object.assign(new Error("s3cret"), { code: "ECONNREFUSED" });
    const down = clientOf(createHandler({ query: () => Promise.reject(refused) }));
    const broken = clientOf(createHandler({
      get query(): never {
        throw new Error("s3cret");
      },
    }));
    const failures = [await down.get(`/jobs/${id}`), await broken.get(`/jobs/${id}`)];
    assert.deepEqual(failures.map(({ status, body }) => [status, body.code]), [
      [503, "db.unavailable"],
      [500, "internal"],
    ]);
    assert.ok(!JSON.stringify(failures).includes("s3cret"));
    assert.ok(Deno.inspect(logged).includes("s3cret"), "whoever operates it sees why");
  } finally {
    console.error = log;
  }
});

Deno.test("examples/deploy_api.ts: serves with the network and the environment alone, and asks for a database", async () => {
  await using database = await openTestDatabase();
  await upsertJobDefinitions(database.sql, [testDefinition("example.email")]);
  const start = (env: Readonly<Record<string, string>>) =>
    new Deno.Command(Deno.execPath(), {
      args: ["run", "--allow-net", "--allow-env", "--no-prompt", "examples/deploy_api.ts"],
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
      env: { NO_COLOR: "1", DENO_SERVE_ADDRESS: "tcp:127.0.0.1:0", ...env },
    });
  const { code, stderr } = await start({ DATABASE_URL: "" }).output();
  assert.equal(code, 1);
  assert.match(new TextDecoder().decode(stderr), /DATABASE_URL must name a PostgreSQL database/);

  const child = start({ DATABASE_URL: database.url }).spawn();
  const killed = setTimeout(() => child.kill("SIGKILL"), 60_000); // else a program that says nothing would hang the test
  let printed = "";
  let answer: number | undefined;
  try {
    for await (const text of child.stderr.pipeThrough(new TextDecoderStream())) {
      printed += text;
      const port = /Listening on http:\/\/127\.0\.0\.1:(\d+)\//.exec(printed)?.[1];
      if (port === undefined) continue;
      const body = JSON.stringify({ to: "ada@example.com", subject: "Hello" });
      const response = await fetch(`http://127.0.0.1:${port}/emails`, { method: "POST", body });
      answer = response.status;
      await response.body?.cancel();
      break;
    }
    assert.equal(answer, 202, printed);
  } finally {
    clearTimeout(killed);
    try {
      child.kill("SIGKILL");
    } catch { /* it has ended */ }
    await child.status;
    await child.stdout.cancel();
  }
});
