/**
 * Every example does what it says, as a person would run it.
 *
 * @module
 */

import { migrate } from "@runledger/postgres";
import type { Queryable } from "@runledger/postgres";
import { createEphemeralDatabase } from "@runledger/test-support";
import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { createServer } from "node:net";
import { stripVTControlCharacters } from "node:util";
import postgres from "postgres";
import { createLedgerTable } from "../examples/demo/ledger_table.ts";

const database = await createEphemeralDatabase({ migrated: false });
Deno.test.afterAll(async () => {
  await database[Symbol.asyncDispose]();
});

/** What a program printed, and how it ended. */
interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A program that runs. */
interface Running {
  readonly ended: Promise<Ended>;
  /** Resolves to its output as soon as that holds the text; rejects when it ends without. */
  readonly printed: (text: string) => Promise<string>;
  readonly signal: (name: Deno.Signal) => void;
}

function start(
  example: string,
  env: Readonly<Record<string, string>> = {},
  command: "run" | "test" = "run",
  args: readonly string[] = [],
): Running {
  // Not node:child_process: after a kill, Deno 2.9 reports there that the signal ended the program, whatever it did.
  const child = new Deno.Command(Deno.execPath(), {
    args: [command, "--allow-all", `examples/${example}`, ...args],
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
    env: { NO_COLOR: "1", DATABASE_URL: database.url, ...env },
  }).spawn();
  let stdout = "";
  let onOutput = () => {};
  const read = async () => {
    for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) {
      stdout += text;
      onOutput();
    }
  };
  const ended = Promise.all([child.status, new Response(child.stderr).text(), read()])
    .then(([{ code }, stderr]): Ended => ({ code, stdout, stderr }));
  const printed = async (text: string) => {
    // A program that waits for ever must not make the test do so.
    const timer = setTimeout(() => child.kill("SIGKILL"), 30_000);
    const seen = new Promise<string>((resolve) => {
      onOutput = () => stdout.includes(text) && resolve(stdout);
      onOutput();
    });
    const missed = ended.then(({ stderr }) => {
      throw new Error(`${example} never printed "${text}":\n${stdout}\n${stderr}`);
    });
    missed.catch(() => {});
    return await Promise.race([seen, missed]).finally(() => clearTimeout(timer));
  };
  return { ended, printed, signal: (name) => child.kill(name) };
}

async function run(
  example: string,
  env: Readonly<Record<string, string>> = {},
  command: "run" | "test" = "run",
  args: readonly string[] = [],
): Promise<Ended> {
  const program = start(example, env, command, args);
  const timer = setTimeout(() => program.signal("SIGKILL"), 60_000);
  return await program.ended.finally(() => clearTimeout(timer));
}

/** What examples of drivers print. */
const ORDERS_KEPT_AND_UNDONE = [
  "after rollback: order gone, job gone",
  "undone savepoint: order gone, job gone",
  "after commit: order there, job there",
  "its job is SUCCEEDED",
];

/** Examples that end by themselves, with lines that they must print. */
const PROGRAMS: Readonly<Record<string, readonly string[]>> = {
  "quickstart.ts": [
    'the job is SUCCEEDED; its output is {"messageId":"message-for-ada@example.com"}',
    "   3  SUCCEEDED        run 1, attempt 1",
    'its log: info sending "Your invoice"',
  ],
  "approval_gate.ts": [
    "approve: 200 applied",
    "the webhook is delivered again: 200 was so already",
    "somebody else refuses: 409 workflow.external_step_conflicting_completion_retry",
    "  lunch is paid, approved by grace",
    "lunch: SUCCEEDED",
    "yacht: COMPLETED_WITH_ERRORS",
    "forgotten: COMPLETED_WITH_ERRORS, because nobody decided",
    "no such run: 404 workflow.run_not_found",
  ],
  "cleanup_after_failure.ts": [
    "main: SUCCEEDED",
    "  removed server-of-main; the checks ended as SUCCEEDED",
    "broken: COMPLETED_WITH_ERRORS",
    "  removed server-of-broken; the checks ended as FAILED",
    "     └─ [x] announce     CANCELED              after check  (workflow.dependency_unsatisfied)",
  ],
  "delayed_job.ts": [
    "asked why: scheduled",
    "moved: edited",
    'the job is SUCCEEDED with output {"endedAfterAttempts":1}',
    "ENQUEUED, EDITED, LEASED, REQUEUED, LEASED, SUCCEEDED",
  ],
  "operator_views.ts": [
    "succeeded: 5",
    "example.sync_to_ledger: 5 dead letters, 5 retries, p95 known: true",
    "failed: 3 on the first page, 2 on the second",
    "attempts: RETRYABLE bank.certificate, RETRYABLE bank.certificate",
    "requeued: 5; a second click: 0, 5 skipped",
    "succeeded: 10",
  ],
  "workflow_settings.ts": [
    "refused: workflow.invalid_dag_cycle through compile, fetch, publish",
    "the run is SUCCEEDED",
    "compile: priority 10, 1 attempts, 600 s",
    "publish: priority 0, 3 attempts, 60 s",
  ],
  "enqueue_in_transaction.ts": [
    "after commit: order there, job there",
    "after rollback: order gone, job gone",
    "outer transaction: order there, job there",
    "undone savepoint: order gone, job gone",
  ],
  "node_postgres_transaction.ts": ORDERS_KEPT_AND_UNDONE,
  "drizzle_transaction.ts": ORDERS_KEPT_AND_UNDONE,
  "kysely_transaction.ts": ORDERS_KEPT_AND_UNDONE,
  "prisma_transaction.ts": [
    "after rollback: order gone, job gone",
    "same key, another order: job.idempotency_conflict, which differs in payload",
    "after commit: order there, job there",
    "its job is SUCCEEDED",
  ],
  "pglite_in_process.ts": [
    "after rollback: order gone, job gone",
    "after commit: order there, job there",
    "its job is SUCCEEDED",
    "the run is SUCCEEDED",
  ],
  "idempotent_enqueue.ts": [
    "three equal requests: 1 job",
    "dispositions: existing, existing, inserted",
    "reordered payload: existing",
    "another amount: job.idempotency_conflict, which differs in payload",
    "same key in another organization: inserted",
    "a batch of three: existing, inserted, existing",
    "after a rollback: inserted",
  ],
  "retries_and_dead_letters.ts": [
    "flaky: SUCCEEDED",
    "  attempt 1: RETRYABLE mail.rate_limited, next one in 200 ms",
    "  attempt 2: RETRYABLE job.handler_threw, next one in 100 ms",
    "poisoned: DEAD_LETTERED, FAILURE_KIND_NON_RETRYABLE: the mail server refuses grace@example.com",
    "two requeues at once: mismatch, requeued",
    "requeued: SUCCEEDED in run 2",
  ],
  "transactional_completion.ts": ["the job is SUCCEEDED after 2 attempts", "charges: 1", "same transaction: true"],
  "continuation_and_checkpoint.ts": [
    "run 2, attempt 2: from row 60",
    'the job is SUCCEEDED in run 2: {"imported":100}',
    "progress: 100 of 100",
  ],
  "cancel_running_job.ts": [
    "the handler's signal says: job.canceled",
    "the job is CANCELED: the customer left",
    "a second cancellation: job.invalid_state_transition",
  ],
  "recurring_job.ts": [
    "fired 1 time, for 2026-01-05T08:00:00.000Z",
    "the next fire is to come: true",
    "switching the type off: job_definition.active_schedule_exists, because of example.weekday_digest",
    "active after the next deployment: false",
    "fired 2 times, for 2026-01-06T08:00:00.000Z",
  ],
  "invoice_workflow.ts": [
    "        └─ [?] approval  WAITING_FOR_EXTERNAL  after charge",
    "the run is SUCCEEDED",
    "           └─ [+] notify SUCCEEDED             after approval",
  ],
  "fan_out_fan_in.ts": ['result: {"words":1234}'],
  "append_during_gate.ts": ["  appended 3 steps", "  had appended 3 steps", "the run is SUCCEEDED"],
  "recover_failed_run.ts": [
    "first run: COMPLETED_WITH_ERRORS",
    "two recoveries at once: existing, inserted",
    "second run: SUCCEEDED",
    "it recovers the first: true; reserve ran 1x, ship 2x",
  ],
  "telemetry.ts": [
    "span enqueue example.resize_photo, inside POST /photos",
    "span process example.resize_photo, attempt 1: retried, linked to enqueue example.resize_photo",
    "span process example.resize_photo, attempt 2: succeeded, linked to enqueue example.resize_photo",
    "span read photo, inside process example.resize_photo",
    "metric messaging.process.duration: 2 series, in s",
  ],
};

/** Examples that run until they are stopped, or that others import; tested below, and in edge_test.ts. */
const OTHERS = [
  "demo.ts",
  "deploy_api.ts",
  "jobs.ts",
  "produce.ts",
  "serve_and_work.ts",
  "testing_your_jobs_test.ts",
  "worker.ts",
];

for (const [example, lines] of Object.entries(PROGRAMS)) {
  Deno.test(`examples/${example} does what it says, twice in one database`, async () => {
    for (const round of [1, 2]) {
      const { code, stdout, stderr } = await run(example);
      assert.equal(code, 0, `round ${round}: ${stdout}\n${stderr}`);
      for (const line of lines) assert.ok(stdout.split("\n").includes(line), `no line "${line}" in:\n${stdout}`);
    }
  });
}

Deno.test("examples/testing_your_jobs_test.ts: passes, as a test file of its own", async () => {
  const { code, stdout, stderr } = await run("testing_your_jobs_test.ts", {}, "test");
  assert.equal(code, 0, `${stdout}\n${stderr}`);
  assert.match(stdout, /\nok \| 4 passed \| 0 failed /);
});

Deno.test("examples: every one is run by a test", async () => {
  const found = (await readdir("examples")).filter((name) => name.endsWith(".ts")).sort();
  assert.deepEqual(found, [...Object.keys(PROGRAMS), ...OTHERS].sort());
});

Deno.test("examples: each is short enough to read at once, and the index has it", async () => {
  const index = await readFile("examples/README.md", "utf8");
  for (const name of (await readdir("examples")).filter((name) => name.endsWith(".ts"))) {
    assert.ok(index.includes(`](${name})`), `examples/README.md has no ${name}`);
    // Definitions, which others import; no program.
    if (name === "jobs.ts") continue;
    const lines = (await readFile(`examples/${name}`, "utf8")).trimEnd().split("\n").length;
    assert.ok(lines >= 60 && lines <= 110, `examples/${name} has ${lines} lines, not 60 to 110`);
  }
});

const SUMMARY = /\n\njobs {6}13 SUCCEEDED, 1 DEAD_LETTERED\nattempts {2}18\nevents {4}55\nseconds {3}\d+\.\d\n/;

/** What the demo ends with: the steps of its workflow as the view tells them, and its graph. */
const WORKFLOW =
  /\n0004 {2}[\d:.]{12} {2}invoice\.process {2}approval 4\/5 {2}succeeded {2}\d+ ms\n0005 .*notify 5\/5 .*\n\n( .*\n){4} {11}└─ \[\+\] notify SUCCEEDED {13}after approval\n$/;

Deno.test("demo: shows every event and a true summary, twice and at once, in plain lines without a terminal", async () => {
  for (const demos of [1, 2]) {
    for (const ended of await Promise.all(Array.from({ length: demos }, () => run("demo.ts")))) assertWholeDemo(ended);
  }
});

Deno.test("demo --pglite: is the same to its end, within its process and without a server", async () => {
  const nowhere = { DATABASE_URL: "postgres://nobody@127.0.0.1:1/nowhere" };
  const ended = await run("demo.ts", nowhere, "run", ["--pglite"]);
  assertWholeDemo(ended);
  assert.match(ended.stdout, /^Runledger on PGlite within this process, PostgreSQL \d+\.\d+\n/);
});

Deno.test("demo --pglite: SIGINT ends it with code 130, and says that nothing is kept", async () => {
  const demo = start("demo.ts", {}, "run", ["--pglite"]);
  await demo.printed("LEASED");
  demo.signal("SIGINT");
  const { code, stdout, stderr } = await demo.ended;
  assert.equal(code, 130, stderr);
  assert.match(stdout, /\ninterrupted; what has not ended is gone with this process\n$/);
  assert.equal(stderr, "");
});

Deno.test("demo: an option that it does not know is named in one line", async () => {
  const { code, stdout, stderr } = await run("demo.ts", {}, "run", ["--pg"]);
  assert.deepEqual([code, stdout], [1, ""]);
  assert.equal(stderr, "The demo has one option, --pglite; it does not know --pg\n");
});

/** All of it: each event, the summary, the steps and the graph, in plain lines. */
function assertWholeDemo({ code, stdout, stderr }: Ended): void {
  assert.equal(code, 0, stderr);
  assert.equal(stderr, "");
  assert.match(stdout, SUMMARY);
  assert.match(stdout, WORKFLOW);
  assert.equal(stdout, stripVTControlCharacters(stdout).replaceAll("\r", ""), "control characters in plain output");
  assert.match(stdout, /^time {10}job +attempt {2}event {12}duration {2}detail$/m);
  const rows = stdout.match(/^\d\d:\d\d:\d\d\.\d{3} {2}.*$/gm) ?? [];
  assert.equal(rows.length, 55);
  assert.equal(rows.filter((row) => / sync_invoice +[12]\/5 {2}FAILED +\d+ ms {2}billing\.busy$/.test(row)).length, 2);
  assert.equal(rows.filter((row) => / call_webhook +2\/2 {2}DEAD_LETTERED /.test(row)).length, 1);
}

Deno.test("demo: SIGINT ends it with code 130, and what has not ended waits", async () => {
  const demo = start("demo.ts");
  await demo.printed("LEASED");
  demo.signal("SIGINT");
  const { code, stdout, stderr } = await demo.ended;
  assert.equal(code, 130, stderr);
  assert.match(stdout, /\ninterrupted; /);
  assert.equal(stderr, "");
});

/** A server that answers a start-up message as PostgreSQL does when it refuses. */
async function withRefusingServer(fields: string, use: (port: number) => Promise<void>): Promise<void> {
  const body = new TextEncoder().encode(`${fields}\0\0`.replaceAll("|", "\0"));
  const message = new Uint8Array(5 + body.length);
  message.set(body, 5);
  message[0] = "E".charCodeAt(0);
  new DataView(message.buffer).setInt32(1, 4 + body.length);
  const server = createServer((socket) => {
    socket.on("error", () => {});
    socket.once("data", () => socket.end(message));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  assert.ok(typeof address === "object" && address !== null);
  await use(address.port).finally(() => new Promise((resolve) => server.close(resolve)));
}

async function assertOneLine(url: string, line: RegExp): Promise<void> {
  for (const example of ["demo.ts", "worker.ts", "quickstart.ts"]) {
    const { code, stdout, stderr } = await run(example, { DATABASE_URL: url });
    assert.equal(code, 1);
    assert.equal(stdout, "");
    assert.match(stderr, /^[^\n]+\n$/, "more than one line");
    assert.match(stderr, line);
    assert.ok(!stderr.includes("s3cret"), "the password is shown");
  }
}

Deno.test("DATABASE_URL: what is no URL is said in one line", async () => {
  await assertOneLine("s3cret", /^DATABASE_URL is not the URL of a PostgreSQL database/);
  await assertOneLine("postgres://me:s3cret%@127.0.0.1/db", /^DATABASE_URL is not the URL of a PostgreSQL database/);
});

Deno.test("DATABASE_URL: a refused connection is said in one line", async () => {
  await assertOneLine(
    "postgres://me:s3cret@127.0.0.1:1/db",
    /^DATABASE_URL cannot be used: nothing listens at 127.0.0.1:1/,
  );
});

Deno.test("DATABASE_URL: an unknown host is said in one line", async () => {
  await assertOneLine(
    "postgres://me:s3cret@nowhere.invalid/db",
    /^DATABASE_URL cannot be used: there is no host named/,
  );
});

Deno.test("DATABASE_URL: a wrong password is said in one line", async () => {
  const fields = 'SFATAL|VFATAL|C28P01|Mpassword authentication failed for user "me"';
  await withRefusingServer(fields, async (port) => {
    const line = /^DATABASE_URL cannot be used: PostgreSQL at 127.0.0.1:\d+ refuses the password of user me\.$/m;
    await assertOneLine(`postgres://me:s3cret@127.0.0.1:${port}/db`, line);
  });
});

Deno.test("DATABASE_URL: a database that is not there is said in one line", async () => {
  const url = new URL(database.url);
  url.pathname = "/no_such_database";
  await assertOneLine(
    url.href,
    /^DATABASE_URL cannot be used: PostgreSQL at .* has no database named no_such_database\.$/m,
  );
});

Deno.test("worker: runs what the producer enqueues until SIGTERM, and reports its shutdown", async () => {
  const worker = start("worker.ts", { JOBS_POLL_INTERVAL_MS: "25" });
  await worker.printed("worker ready on PostgreSQL ");
  const { code, stdout, stderr } = await run("produce.ts");
  assert.equal(code, 0, stderr);
  assert.match(stdout, /^enqueued 21 jobs on /);
  await worker.printed('sent "Issue 18" to reader18@example.com');
  await worker.printed("made the report of 2026-11 with 30 pages");
  worker.signal("SIGTERM");
  const end = await worker.ended;
  assert.equal(end.code, 0, end.stderr);
  assert.match(end.stdout, /\nworker stopped: \d+ drained, 0 aborted, \d+ handed back, 0 left\n$/);
});

Deno.test("produce: an issue with a name is enqueued once, however often the command is repeated", async () => {
  await using database = await createEphemeralDatabase();
  await using sql = usePool(database.url);
  await sql.pool`insert into runledger.job_definitions (job_type) values ('example.email'), ('example.report')`;
  const produce = (issue: string) => run("produce.ts", { DATABASE_URL: database.url }, "run", ["10", issue]);
  assert.match(
    (await produce("issue-7")).stdout,
    /^enqueued 11 jobs on .*\n {2}example\.email: 10 wait for a worker, 0 /,
  );
  assert.match((await produce("issue-7")).stdout, /^enqueued 0 jobs on .*\n11 were there already\n/);
  assert.equal((await produce("issue 7")).code, 1);
});

Deno.test("worker: drains what runs when it is stopped; a second signal ends it at once", async () => {
  await using sql = usePool();
  const draining = start("worker.ts", { JOBS_POLL_INTERVAL_MS: "25" });
  await draining.printed("worker ready");
  assert.equal((await run("produce.ts")).code, 0);
  await draining.printed("sent ");
  await untilReportRuns(sql.pool);
  draining.signal("SIGINT");
  assert.match((await draining.ended).stdout, /made the report.*\n(.*\n)*worker stopped: [1-9]\d* drained, 0 aborted/);

  const stubborn = start("worker.ts", { JOBS_POLL_INTERVAL_MS: "25" });
  await stubborn.printed("worker ready");
  assert.equal((await run("produce.ts")).code, 0);
  await untilReportRuns(sql.pool);
  stubborn.signal("SIGINT");
  await stubborn.printed("worker stops");
  // Within half a second it would be taken for an echo of the first.
  const again = setInterval(() => {
    try {
      stubborn.signal("SIGINT");
    } catch {
      clearInterval(again); // it has ended
    }
  }, 50);
  const { code, stdout } = await stubborn.ended;
  clearInterval(again);
  assert.notEqual(code, 0);
  assert.ok(!stdout.includes("worker stopped"));
});

Deno.test("worker: a setting that cannot be is named, without a stack", async () => {
  const { code, stderr } = await run("worker.ts", { JOBS_POLL_INTERVAL_MS: "fast" });
  assert.equal(code, 1);
  assert.match(stderr, /^These environment variables cannot be used:\n {2}JOBS_POLL_INTERVAL_MS: .*\n$/);
});

Deno.test("produce: says what is missing when no worker has ever started", async () => {
  await using empty = await createEphemeralDatabase();
  const { code, stderr } = await run("produce.ts", { DATABASE_URL: empty.url });
  assert.equal(code, 1);
  assert.match(stderr, /^[^\n]*Start "deno task worker" once before\.\n$/);
});

Deno.test("serve_and_work: answers requests, runs their jobs, and stops as one", async () => {
  const program = start("serve_and_work.ts", { PORT: "0" });
  await program.printed("listening on ");
  const port = /localhost:(\d+)\n/.exec(await program.printed("\n"))?.[1];
  const payload = JSON.stringify({ to: "ada@example.com", subject: "Hello" });
  const answer = await fetch(`http://localhost:${port}/emails`, { method: "POST", body: payload });
  assert.equal(answer.status, 202, await answer.text());
  await program.printed("sent to ada@example.com");
  program.signal("SIGINT");
  const { code, stdout, stderr } = await program.ended;
  assert.equal(code, 0, stderr);
  assert.match(stdout, /\nserver and worker have stopped\n$/);
});

Deno.test("serve_and_work: its handler turns requests into jobs and errors into statuses", async () => {
  await using sql = usePool();
  await migrate(sql.pool);
  await sql.pool`
    insert into runledger.job_definitions (job_type) values ('example.email') on conflict do nothing`;
  // Computed: examples are checked with options of their own, which an import from here would not use.
  const specifier: string = "../examples/serve_and_work.ts";
  const { createHandler } = await import(specifier) as {
    readonly createHandler: (db: Queryable) => (request: Request) => Promise<Response>;
  };
  const handle = createHandler(sql.pool);
  const post = async (body: string, key?: string) => {
    const headers: Record<string, string> = key === undefined ? {} : { "idempotency-key": key };
    const response = await handle(new Request("http://h/emails", { method: "POST", body, headers }));
    return { status: response.status, body: await response.json() };
  };
  const body = JSON.stringify({ to: "ada@example.com", subject: "Hello" });
  const key = crypto.randomUUID();
  const first = await post(body, key);
  assert.equal(first.status, 202);
  assert.deepEqual(await post(body, key), { status: 200, body: { ...first.body, disposition: "existing" } });
  assert.equal((await post(body.replace("Hello", "Bye"), key)).body.code, "job.idempotency_conflict");
  assert.equal((await post(body.replace("Hello", "Bye"), key)).status, 409);
  assert.equal((await post("{}")).status, 400);
  assert.equal((await post("no json")).status, 400);
  assert.equal((await post(body, "   ")).status, 400);

  const get = async (path: string) => (await handle(new Request(`http://h${path}`))).status;
  assert.equal(await get(`/jobs/${first.body.jobId}`), 200);
  assert.equal(await get(`/jobs/${crypto.randomUUID()}`), 404);
  assert.equal(await get("/jobs/1"), 404);
  assert.equal(await get("/"), 404);
});

Deno.test("demo: the table fits a narrow terminal and is coloured only when asked", () => {
  for (const hasColor of [true, false]) {
    let text = "";
    const screen = { write: (part: string) => text += part, isLive: true, hasColor, width: () => 48 };
    const table = createLedgerTable(screen, new Map([["a", "some_job"]]));
    table.open();
    const row = { jobId: "a", seq: 1, occurredAt: new Date(), attempt: 1, maxAttempts: 3, durationMs: 5 };
    table.append([{ ...row, eventType: "FAILED", detail: "a.code.that.is.too.long" }], {
      ended: 0,
      total: 1,
      events: 1,
    });
    table.close();
    assert.equal(text.includes("\x1b[33m"), hasColor);
    const lines = stripVTControlCharacters(text).split(/[\r\n]+/);
    for (const line of lines) assert.ok(line.length <= 48, `"${line}" has ${line.length} characters`);
    assert.ok(lines.some((line) => line.endsWith("…")));
  }
});

/** A pool that is closed at the end of its test. */
interface OpenPool extends AsyncDisposable {
  readonly pool: postgres.Sql;
}

function usePool(url: string = database.url): OpenPool {
  const pool = postgres(url, { max: 2, onnotice: () => {} });
  return { pool, [Symbol.asyncDispose]: () => pool.end() };
}

/** The report runs longer than anything else, so it is what a shutdown has to wait for. */
async function untilReportRuns(sql: postgres.Sql): Promise<void> {
  const deadline = Date.now() + 20_000;
  while (true) {
    const leased = await sql`
      select from runledger.job_queue where job_type = 'example.report' and status = 'LEASED'`;
    if (leased.length > 0) return;
    assert.ok(Date.now() < deadline, "the report is not being made");
  }
}
