/**
 * What an attempt ends in, whatever its handler returns or throws.
 *
 * @module
 */

import { callOff, complete, continueNow, defineJob, JobFailure, snooze } from "@runledger/core";
import { JobCatalog } from "@runledger/runtime";
import assert from "node:assert/strict";
import { z } from "zod";
import { openTestDatabase } from "./support/database.ts";
import {
  countdown,
  endedJobs,
  enqueue,
  eventTypes,
  pretendJson,
  readJob,
  startWorker,
} from "./support/worker_harness.ts";

/** An error of which nothing can be read. */
class UnreadableError extends Error {
  override get message(): string {
    throw new Error("no message");
  }
  override get stack(): string {
    throw new Error("no stack");
  }
}

const cyclic: Record<string, unknown> = {};
cyclic["self"] = cyclic;

/** Handlers that fail, each with what is stored of it. */
const POISON: Readonly<Record<string, { run: () => unknown; kind: string; code: string; message: RegExp }>> = {
  "throws null": thrown(null, /no error was thrown: null/),
  "throws undefined": thrown(undefined, /no error was thrown: undefined/),
  "throws a text": thrown("boom", /no error was thrown: boom/),
  "throws an error": thrown(new Error("disk full"), /Error: disk full\n\s+at /),
  "throws an error with a cause": thrown(
    new Error("outer", { cause: new Error("inner") }),
    /outer[^]*Caused by: [^]*inner/,
  ),
  "throws an error that cannot be read": thrown(new UnreadableError(), /its message cannot be read/),
  "throws an object that cannot be read": thrown(
    new Proxy({}, {
      get() {
        throw new Error("no");
      },
      getPrototypeOf() {
        throw new Error("no");
      },
    }),
    /cannot be described/,
  ),
  "throws a text of a megabyte": thrown("x".repeat(1 << 20), /x{8000}/),
  "throws what PostgreSQL cannot store": thrown(new Error("a\u0000b\ud800c"), /Error: a.b.c/),
  "rejects": {
    run: () => Promise.reject(new Error("late")),
    kind: "RETRYABLE",
    code: "job.handler_threw",
    message: /late/,
  },
  "gives a thenable that throws": {
    run: () => ({
      get then() {
        throw new Error("then");
      },
    }),
    kind: "RETRYABLE",
    code: "job.handler_threw",
    message: /then/,
  },
  "throws a terminal failure": {
    run: () => {
      throw JobFailure.terminal("mail.rejected", "no such box");
    },
    kind: "TERMINAL",
    code: "mail.rejected",
    message: /^no such box$/,
  },
  "throws a retryable failure": {
    run: () => {
      throw JobFailure.retryable("mail.busy", "later", { retryNotBefore: { delayMs: 3_600_000 } });
    },
    kind: "RETRYABLE",
    code: "mail.busy",
    message: /^later$/,
  },
  "throws a failure with a code that cannot be": {
    run: () => {
      throw Object.assign(JobFailure.terminal("ok", "x"), { code: "c".repeat(600) });
    },
    kind: "PANICKED",
    code: "job.handler_panic",
    message: /failure\.code/,
  },
  "returns a BigInt": panics(1n),
  "returns a cycle": panics(cyclic),
  "returns a function": panics(() => {}),
  "returns NaN": panics({ price: NaN }),
  "returns more than 16 MiB": panics("x".repeat(17_000_000)),
  "returns what throws when it is encoded": panics({
    toJSON() {
      throw new Error("toJSON");
    },
  }),
  "returns a completion that was tampered with": panics({ ...snooze(1), delayMs: -1 }),
};

function thrown(value: unknown, message: RegExp) {
  const run = () => {
    throw value;
  };
  return { run, kind: "RETRYABLE", code: "job.handler_threw", message };
}

function panics(value: unknown) {
  return { run: () => value, kind: "PANICKED", code: "job.handler_panic", message: /./ };
}

for (const [name, { run, kind, code, message }] of Object.entries(POISON)) {
  Deno.test(`a handler that ${name} fails as ${kind} ${code}`, async () => {
    await using db = await openTestDatabase();
    const job = defineJob({ type: "poison" });
    const failed = countdown(1);
    const catalog = new JobCatalog().handle(job, () => pretendJson(run())).onJobFailed(failed.count);
    await catalog.sync(db.sql);
    const jobId = await enqueue(db.sql, job.request({}));
    await using _worker = startWorker(db.sql, catalog);
    await failed.done;
    const stored = await readJob(db.sql, jobId);
    assert.equal(stored.status, kind === "RETRYABLE" ? "PENDING" : "DEAD_LETTERED");
    assert.equal(stored.lastErrorCode, code);
    assert.equal(stored.statusReason, kind);
    assert.match(stored.lastErrorMessage ?? "", message);
    if (name === "throws a retryable failure") assert.ok(stored.nextRunAt.getTime() > Date.now() + 3_000_000);
  });
}

Deno.test("one outcome that cannot be stored does not stop the others of its batch", async () => {
  await using db = await openTestDatabase();
  const job = defineJob({ type: "mixed", payload: z.number() });
  const catalog = new JobCatalog().handle(job, (n) => pretendJson(n === 7 ? "x".repeat(17_000_000) : { n }));
  await catalog.sync(db.sql);
  const ids: string[] = [];
  for (let n = 0; n < 16; n++) ids.push(await enqueue(db.sql, job.request(n)));
  const ended = endedJobs(catalog, 16);
  await using worker = startWorker(db.sql, catalog);
  await ended;
  await worker.stop();
  const statuses = await Promise.all(ids.map(async (jobId) => (await readJob(db.sql, jobId)).status));
  assert.deepEqual(statuses, ids.map((_, n) => n === 7 ? "DEAD_LETTERED" : "SUCCEEDED"));
});

Deno.test("a payload that the handler's schema refuses is TERMINAL job.invalid_payload, and the handler does not run", async () => {
  await using db = await openTestDatabase();
  const old = defineJob({ type: "email" });
  const job = defineJob({ type: "email", payload: z.object({ to: z.email() }) });
  let runs = 0;
  const catalog = new JobCatalog().handle(job, () => void runs++);
  await catalog.sync(db.sql);
  const jobId = await enqueue(db.sql, old.request({ to: 7 }));
  const ended = endedJobs(catalog, 1);
  await using _worker = startWorker(db.sql, catalog);
  await ended;
  const stored = await readJob(db.sql, jobId);
  assert.deepEqual([stored.status, stored.lastErrorCode, stored.statusReason, runs], [
    "DEAD_LETTERED",
    "job.invalid_payload",
    "TERMINAL",
    0,
  ]);
});

Deno.test("an output that the output schema refuses is PANICKED", async () => {
  await using db = await openTestDatabase();
  const job = defineJob({ type: "strict", output: z.object({ id: z.string() }) });
  const catalog = new JobCatalog().handle(job, () => ({ id: 7 as never }));
  await catalog.sync(db.sql);
  const jobId = await enqueue(db.sql, job.request({}));
  const ended = endedJobs(catalog, 1);
  await using _worker = startWorker(db.sql, catalog);
  await ended;
  const stored = await readJob(db.sql, jobId);
  assert.deepEqual([stored.status, stored.statusReason], ["DEAD_LETTERED", "PANICKED"]);
});

Deno.test("progress that contradicts what is stored is PANICKED, not lost", async () => {
  await using db = await openTestDatabase();
  const job = defineJob({ type: "progress" });
  const catalog = new JobCatalog().handle(job, async (_payload, context) => {
    await context.progress({ progress: { done: 1, total: 2 } });
    return complete({}, { progress: { done: 3 } });
  });
  await catalog.sync(db.sql);
  const jobId = await enqueue(db.sql, job.request({}));
  const ended = endedJobs(catalog, 1);
  await using _worker = startWorker(db.sql, catalog);
  await ended;
  const stored = await readJob(db.sql, jobId);
  assert.deepEqual([stored.status, stored.lastErrorCode], ["DEAD_LETTERED", "job.handler_panic"]);
});

Deno.test("a continuation goes on at once as the next run, with its checkpoint", async () => {
  await using db = await openTestDatabase();
  const job = defineJob({ type: "slices" });
  const seen: unknown[] = [];
  const catalog = new JobCatalog().handle(job, (_payload, context) => {
    seen.push([context.runNumber, context.attempt, context.checkpoint]);
    return context.runNumber < 3 ? continueNow({ checkpoint: { after: context.runNumber } }) : complete("end");
  });
  await catalog.sync(db.sql);
  const jobId = await enqueue(db.sql, job.request({}));
  const ended = endedJobs(catalog, 1);
  // A poll interval that the test could not wait for: slices must not.
  await using _worker = startWorker(db.sql, catalog, { config: { pollIntervalMs: 3_600_000 } });
  await ended;
  assert.deepEqual(seen, [[1, 1, undefined], [2, 1, { after: 1 }], [3, 1, { after: 2 }]]);
  assert.equal((await readJob(db.sql, jobId)).output, "end");
});

Deno.test("a snooze spends no attempt", async () => {
  await using db = await openTestDatabase();
  const job = defineJob({ type: "snooze", maxAttempts: 1 });
  const attempts: number[] = [];
  const catalog = new JobCatalog().handle(job, (_payload, context) => {
    attempts.push(context.attempt);
    if (attempts.length < 3) return snooze(0, { reason: "busy" });
  });
  await catalog.sync(db.sql);
  const jobId = await enqueue(db.sql, job.request({}));
  const ended = endedJobs(catalog, 1);
  await using _worker = startWorker(db.sql, catalog);
  await ended;
  assert.deepEqual(attempts, [1, 1, 1]);
  assert.equal((await readJob(db.sql, jobId)).status, "SUCCEEDED");
});

Deno.test("a handler may call its job off", async () => {
  await using db = await openTestDatabase();
  const job = defineJob({ type: "off" });
  const catalog = new JobCatalog().handle(job, () => callOff("the customer left"));
  await catalog.sync(db.sql);
  const jobId = await enqueue(db.sql, job.request({}));
  const ended = endedJobs(catalog, 1);
  await using _worker = startWorker(db.sql, catalog);
  await ended;
  const stored = await readJob(db.sql, jobId);
  assert.deepEqual([stored.status, stored.statusReason], ["CANCELED", "the customer left"]);
  assert.deepEqual(await eventTypes(db.sql, jobId), ["ENQUEUED", "LEASED", "CANCELED"]);
});

Deno.test("the retry delay is that of the definition's policy", async () => {
  await using db = await openTestDatabase();
  const job = defineJob({ type: "retry", maxAttempts: 3, retry: { kind: "list", delaysMs: [0, 7_200_000] } });
  const failed = countdown(2);
  const catalog = new JobCatalog().handle(job, () => {
    throw new Error("no");
  }).onJobRetryScheduled(failed.count);
  await catalog.sync(db.sql);
  const jobId = await enqueue(db.sql, job.request({}));
  await using _worker = startWorker(db.sql, catalog);
  await failed.done;
  const waitsMs = (await readJob(db.sql, jobId)).nextRunAt.getTime() - Date.now();
  assert.ok(waitsMs > 7_000_000 && waitsMs <= 7_210_000, `${waitsMs}`);
});

Deno.test("only types of the catalog are claimed", async () => {
  await using db = await openTestDatabase();
  const mine = defineJob({ type: "mine" });
  const catalog = new JobCatalog().handle(mine, () => {});
  await catalog.sync(db.sql);
  const other = await enqueue(db.sql, { jobType: "a", payload: {} });
  await enqueue(db.sql, mine.request({}));
  const ended = endedJobs(catalog, 1);
  await using worker = startWorker(db.sql, catalog);
  await ended;
  await worker.stop();
  assert.equal((await readJob(db.sql, other)).status, "PENDING");
});
