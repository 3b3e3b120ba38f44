/**
 * An idle worker is woken when jobs become due, and nobody notifies while none sleeps.
 *
 * @module
 */

import { defineJob, WorkflowDagBuilder } from "@runledger/core";
import {
  announceSleep,
  atomically,
  completeExternalStep,
  enqueueJob,
  enqueueJobs,
  enqueueWorkflowRun,
  JOBS_DUE_CHANNEL,
  listenTo,
  notifyJobsDue,
} from "@runledger/postgres";
import type { Queryable } from "@runledger/postgres";
import { JobCatalog } from "@runledger/runtime";
import assert from "node:assert/strict";
import pg from "pg";
import type postgres from "postgres";
import { openTestDatabase } from "./support/database.ts";
import { sharedPGlite } from "./support/drivers.ts";
import { countdown, endedJobs, faultyDatabase, gate, startWorker } from "./support/worker_harness.ts";
import { migrate } from "@runledger/postgres";

/** A poll in an hour: whatever happens, a wake-up made it happen. */
const HOURLY = { config: { pollIntervalMs: 3_600_000 } } as const;

const job = defineJob({ type: "lone" });

/** Waits until a worker has said that it sleeps. */
async function asleep(db: Queryable): Promise<void> {
  for (let sleepers = 0; sleepers === 0;) {
    sleepers = (await sleepersOf(db)).length;
    if (sleepers === 0) await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

async function sleepersOf(db: Queryable): Promise<readonly string[]> {
  const query = "select worker_id from runledger.sleeping_workers where sleeps_until > clock_timestamp()";
  const runner = db as { unsafe?(text: string): Promise<unknown>; query?(text: string): Promise<unknown> };
  const result = await (runner.unsafe?.(query) ?? runner.query?.(query));
  const rows = (Array.isArray(result) ? result : (result as { rows: unknown[] }).rows) as { worker_id: string }[];
  return rows.map((row) => row.worker_id);
}

/** A handle whose statements can be counted, and that can listen. */
function listeningDatabase(sql: postgres.Sql) {
  return Object.assign(faultyDatabase(sql), {
    exec: (text: string) => sql.unsafe(text),
    listen: async (channel: string, onNotify: () => void) => (await sql.listen(channel, onNotify)).unlisten,
  });
}

/** A handle that can listen, and how many of its statements held a text. */
function countingDatabase(sql: postgres.Sql, part: string) {
  const db = listeningDatabase(sql);
  let count = 0;
  db.onStatement = (text) => text.includes(part) ? void count++ : undefined;
  return { db, count: () => count };
}

async function assertWakes(db: Queryable, enqueueing: Queryable = db): Promise<void> {
  const catalog = new JobCatalog().handle(job, () => {});
  await catalog.sync(enqueueing);
  await using worker = startWorker(db, catalog, HOURLY);
  for (let round = 0; round < 3; round++) {
    await asleep(enqueueing);
    const ended = endedJobs(catalog, 1);
    await enqueueJob(enqueueing, job.request(round));
    await ended;
  }
  await worker.stop();
  assert.deepEqual(await sleepersOf(enqueueing), [], "a worker that has stopped does not sleep");
}

/** Counts the notifications of what a function does. */
async function notifications(sql: postgres.Sql, fn: () => Promise<unknown>): Promise<number> {
  let count = 0;
  let onNotify = () => {};
  const listener = await listenTo(sql, JOBS_DUE_CHANNEL, {
    onNotify: () => {
      count++;
      onNotify();
    },
  });
  try {
    await fn();
    // Notifications come in the order of their commits: when this one is there, all earlier ones are.
    const before = new Promise<void>((resolve) => onNotify = resolve);
    const marked = count;
    await sql`select pg_notify(${JOBS_DUE_CHANNEL}, 'end')`;
    await before;
    while (count === marked) await new Promise((resolve) => setTimeout(resolve, 1));
    await new Promise((resolve) => setTimeout(resolve, 50));
    return count - 1;
  } finally {
    await listener?.unlisten();
  }
}

Deno.test("a worker on postgres.js is woken", async () => {
  await using database = await openTestDatabase();
  await assertWakes(database.sql);
});

Deno.test("a worker on node-postgres is woken", async () => {
  await using database = await openTestDatabase();
  const pool = new pg.Pool({ connectionString: database.url, max: 3 });
  pool.on("error", () => {});
  try {
    await assertWakes(pool, database.sql);
  } finally {
    await pool.end();
  }
});

Deno.test("a worker on PGlite is woken", async () => {
  const pglite = await sharedPGlite();
  await migrate(pglite);
  await assertWakes(pglite);
});

Deno.test("a worker whose listener is cut off listens again", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const pool = new pg.Pool({ connectionString: database.url, max: 3 });
  pool.on("error", () => {});
  const catalog = new JobCatalog().handle(job, () => {});
  await catalog.sync(sql);
  try {
    for (const db of [sql, pool]) {
      await using _worker = startWorker(db, catalog, HOURLY);
      await asleep(sql);
      await sql`
        select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and query ilike 'listen%' and pid <> pg_backend_pid()`;
      // Until it listens again nobody wakes it, and each job that is enqueued then wakes it for the ones before.
      const ended = endedJobs(catalog, 1);
      let isOver = false;
      const over = ended.then(() => isOver = true);
      for (let n = 0; !isOver; n++) {
        await enqueueJob(sql, job.request(n));
        let timer: ReturnType<typeof setTimeout> | undefined;
        await Promise.race([over, new Promise((resolve) => timer = setTimeout(resolve, 50))]);
        clearTimeout(timer);
      }
    }
  } finally {
    await pool.end();
  }
});

Deno.test("nobody notifies unless a worker sleeps that wants the job, and the job is due", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const enqueue = (jobType: string, nextRunAt?: Date) =>
    enqueueJob(sql, { jobType, payload: null, ...(nextRunAt === undefined ? {} : { nextRunAt }) });
  assert.equal(await notifications(sql, () => enqueue("a")), 0, "nobody sleeps");
  const workerId = "sleeper";
  await announceSleep(sql, { workerId, jobTypes: ["a"], sleepMs: 60_000 });
  assert.equal(await notifications(sql, () => enqueue("a")), 1);
  assert.equal(await notifications(sql, () => enqueue("b")), 0, "it does not want this type");
  assert.equal(await notifications(sql, () => enqueue("a", new Date(Date.now() + 3_600_000))), 0, "it is not due");
  const later = { nextRunAt: new Date(Date.now() + 3_600_000) };
  const batch = (...settings: readonly { readonly jobType: string; readonly nextRunAt?: Date }[]) =>
    notifications(sql, () => enqueueJobs(sql, settings.map((each) => ({ payload: null, ...each }))));
  assert.equal(await batch({ jobType: "a", ...later }, { jobType: "a" }), 1, "one of two is due");
  assert.equal(await batch({ jobType: "b" }, { jobType: "a", ...later }), 0, "what it wants is not due");
  assert.equal(await batch({ jobType: "b" }, { jobType: "b", ...later }, { jobType: "a" }), 1, "the last one is due");
  await announceSleep(sql, { workerId, jobTypes: ["a"] });
  assert.equal(await notifications(sql, () => enqueue("a")), 0, "it is awake");
  await announceSleep(sql, { workerId, jobTypes: ["a"], sleepMs: 1 });
  await new Promise((resolve) => setTimeout(resolve, 5));
  assert.equal(await notifications(sql, () => enqueue("a")), 0, "its time is over");
});

Deno.test("workers that come back at once and clear away each other's rows do not block each other", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  await sql`
    insert into runledger.sleeping_workers (worker_id, job_types, sleeps_until)
    select worker_id, array['a'], clock_timestamp() - interval '1 hour'
    from unnest(array['first', 'second']) as worker_id`;
  let waiting: Promise<unknown> = Promise.resolve();
  // The second one is about to clear away the row of the first one, who renews it, and then renews its own.
  await sql.begin(async (tx) => {
    await tx`select from runledger.sleeping_workers where worker_id = 'first' for update`;
    waiting = sql`select runledger.announce_sleep('first', '["a"]', 60000)`.execute();
    for (let isWaiting = false; !isWaiting;) {
      const [row] = await tx`
        select exists (
          select from pg_locks where not granted and pg_backend_pid() = any (pg_blocking_pids(pid))
        ) as is_waiting`;
      isWaiting = row?.["is_waiting"] === true;
    }
    await tx`select runledger.announce_sleep('second', '["a"]', 60000)`;
  });
  await waiting;
  assert.deepEqual(new Set(await sleepersOf(sql)), new Set(["first", "second"]));
});

Deno.test("a transaction wakes when it commits, once, and not when it is undone", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  await announceSleep(sql, { workerId: "sleeper", jobTypes: ["a"], sleepMs: 60_000 });
  const request = { jobType: "a", payload: null };
  const undone = () =>
    atomically(sql, async (tx) => {
      await enqueueJob(tx, request);
      throw new Error("undo");
    }).catch(() => {});
  assert.equal(await notifications(sql, undone), 0);
  const done = () =>
    atomically(sql, async (tx) => {
      for (let n = 0; n < 3; n++) await enqueueJob(tx, request);
    });
  assert.equal(await notifications(sql, done), 1);
});

Deno.test("a run, and a gate that is completed, wake whoever runs the next step", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const catalog = new JobCatalog().handle(job, () => {});
  await catalog.sync(sql);
  await using _worker = startWorker(sql, catalog, HOURLY);
  await asleep(sql);
  const run = new WorkflowDagBuilder("approval")
    .job("first", job.request(1))
    .external("approved").afterSuccess("approved", ["first"])
    .job("last", job.request(2)).afterSuccess("last", ["approved"])
    .build();
  const started = endedJobs(catalog, 1);
  const { runId } = await enqueueWorkflowRun(sql, run);
  await started;
  await asleep(sql);
  const ended = endedJobs(catalog, 1);
  await completeExternalStep(sql, runId, "approved", {
    scope: "all",
    completion: { status: "SUCCEEDED" },
  });
  await ended;
});

Deno.test("without wake a worker says nothing and polls", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const catalog = new JobCatalog().handle(job, () => {});
  await catalog.sync(sql);
  const faulty = faultyDatabase(sql);
  let announcements = 0;
  faulty.onStatement = (text) => text.includes("announce_sleep") ? void announcements++ : undefined;
  await using _worker = startWorker(faulty, catalog, { wake: false });
  await enqueueJob(sql, job.request(0));
  const ended = endedJobs(catalog, 1);
  await enqueueJob(sql, job.request(1));
  await ended;
  assert.equal(announcements, 0);
});

Deno.test("a worker that hears nothing, as behind a pooler, says so once and polls", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const catalog = new JobCatalog().handle(job, () => {});
  await catalog.sync(sql);
  const deaf = Object.assign(faultyDatabase(sql), {
    exec: (text: string) => sql.unsafe(text),
    listen: () => Promise.resolve(() => Promise.resolve()),
  });
  await using worker = startWorker(deaf, catalog);
  await worker.logger.line("notifications do not come through");
  const ended = endedJobs(catalog, 1);
  await enqueueJob(sql, job.request(0));
  await ended;
  assert.deepEqual(await sleepersOf(sql), []);
});

for (const statement of ["listen", "pg_notify", "announce_sleep"]) {
  Deno.test(`a worker whose ${statement} is never answered runs jobs all the same, and stops`, async () => {
    await using database = await openTestDatabase();
    const { sql } = database;
    const catalog = new JobCatalog().handle(job, () => {});
    await catalog.sync(sql);
    const sent = gate();
    const never = () => {
      sent.open();
      return new Promise<never>(() => {});
    };
    const mute = Object.assign(faultyDatabase(sql), {
      exec: (text: string) => sql.unsafe(text),
      listen: async (channel: string, onNotify: () => void) =>
        statement === "listen" ? await never() : (await sql.listen(channel, onNotify)).unlisten,
    });
    mute.onStatement = (text) => text.includes(statement) ? never() : undefined;
    await using worker = startWorker(mute, catalog);
    await sent.opened;
    const ended = endedJobs(catalog, 1);
    await enqueueJob(sql, job.request(0));
    await ended;
    await worker.stop();
  });
}

Deno.test("a worker that falls asleep and stops says last that it is awake", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const catalog = new JobCatalog().handle(job, () => {});
  await catalog.sync(sql);
  const said = gate();
  const answered = gate();
  const slow = Object.assign(faultyDatabase(sql), {
    exec: (text: string) => sql.unsafe(text),
    listen: async (channel: string, onNotify: () => void) => (await sql.listen(channel, onNotify)).unlisten,
  });
  slow.onStatement = (text) => {
    if (!text.includes("announce_sleep")) return;
    // The first one is held up until the worker has been told to stop and has had time for another.
    slow.onStatement = () => {};
    said.open();
    return answered.opened;
  };
  await using worker = startWorker(slow, catalog);
  await said.opened;
  const stopped = worker.stop();
  await new Promise((resolve) => setTimeout(resolve, 200));
  answered.open();
  await stopped;
  assert.deepEqual(await sleepersOf(sql), []);
});

Deno.test("a worker that is woken for jobs that others took looks less often", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const catalog = new JobCatalog().handle(job, () => {});
  await catalog.sync(sql);
  const claims = countingDatabase(sql, "claim_jobs");
  await using _worker = startWorker(claims.db, catalog, HOURLY);
  await asleep(sql);
  const before = claims.count();
  const started = performance.now();
  for (let elapsed = 0; elapsed < 1500; elapsed = performance.now() - started) await notifyJobsDue(sql);
  // And some more when it tries whether it may sleep.
  const most = 20 + (performance.now() - started) / 64;
  assert.ok(claims.count() - before <= most, `${claims.count() - before} claims, more than ${most}`);
  // When that is over, it wants to be woken again, and what is really there is found.
  await asleep(sql);
  const ended = endedJobs(catalog, 1);
  await enqueueJob(sql, job.request(0));
  await ended;
});

Deno.test("a worker that is woken for each job does not look in between", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const catalog = new JobCatalog().handle(job, () => {});
  await catalog.sync(sql);
  const claims = countingDatabase(sql, "claim_jobs");
  await using _worker = startWorker(claims.db, catalog, { config: { pollIntervalMs: 10_000, leaseTtlSeconds: 60 } });
  await asleep(sql);
  for (let round = 0; round < 10; round++) {
    // Far more than a claim takes: the worker keeps up with its notifications.
    await new Promise((resolve) => setTimeout(resolve, 60));
    const before = claims.count();
    const ended = endedJobs(catalog, 1);
    await enqueueJob(sql, job.request(round));
    await ended;
    assert.equal((await sleepersOf(sql)).length, 1);
    // The first looks of all may still be under way when the row is there.
    if (round > 0) assert.equal(claims.count() - before, 1);
  }
});

Deno.test("a worker that is woken all the time does not want to be, until there is nothing to do for a while", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const catalog = new JobCatalog().handle(job, () => {});
  await catalog.sync(sql);
  await using _worker = startWorker(sql, catalog, HOURLY);
  await asleep(sql);
  let isBusy = false;
  let count = 0;
  const ended = new Set<string>();
  catalog.onJobSucceeded(({ jobId }) => void ended.add(jobId));
  await Promise.all(
    Array.from({ length: 4 }, async () => {
      for (; !isBusy; count++) await enqueueJob(sql, job.request(count));
    }).concat((async () => {
      while ((await sleepersOf(sql)).length > 0);
      isBusy = true;
    })()),
  );
  // It looks by itself meanwhile, and sleeps again.
  await asleep(sql);
  while (ended.size < count) await new Promise((resolve) => setTimeout(resolve, 10));
});

Deno.test("an idle worker sends at most three statements a second", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const catalog = new JobCatalog().handle(job, () => {});
  await catalog.sync(sql);
  // With the default settings, and a listener of its own.
  const statements = countingDatabase(sql, "");
  await using _worker = startWorker(statements.db, catalog, { config: { pollIntervalMs: 500, leaseTtlSeconds: 60 } });
  await asleep(sql);
  const before = statements.count();
  const started = performance.now();
  await new Promise((resolve) => setTimeout(resolve, 4000));
  const seconds = (performance.now() - started) / 1000;
  assert.ok(statements.count() - before <= 3 * seconds, `${statements.count() - before} statements in ${seconds} s`);
});

Deno.test("a type with a limit of its own never runs more often at once, and holds up nobody", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const most = new Map<string, number>();
  const running = new Map<string, number>();
  const handle = (type: string) => async () => {
    const count = (running.get(type) ?? 0) + 1;
    running.set(type, count);
    most.set(type, Math.max(most.get(type) ?? 0, count));
    await new Promise((resolve) => setTimeout(resolve, type === "tight" ? 20 : 5));
    running.set(type, count - 1 < 0 ? 0 : (running.get(type) ?? 1) - 1);
  };
  const [tight, narrow, free] = ["tight", "narrow", "free"].map((type) => defineJob({ type }));
  assert.ok(tight && narrow && free);
  const catalog = new JobCatalog().handle(tight, handle("tight")).handle(narrow, handle("narrow"))
    .handle(free, handle("free"));
  await catalog.sync(sql);
  const { done, count } = countdown(60);
  let freeDoneAt = 0;
  let tightDone = 0;
  catalog.onJobSucceeded(({ jobType }) => {
    if (jobType === "tight") tightDone++;
    if (jobType === "free") freeDoneAt = tightDone;
    count();
  });
  // The tight ones are the most urgent, and first in the queue.
  for (let n = 0; n < 20; n++) await enqueueJob(sql, tight.request(n, { priority: 9 }));
  for (let n = 0; n < 20; n++) await enqueueJob(sql, narrow.request(n, { priority: 5 }));
  for (let n = 0; n < 20; n++) await enqueueJob(sql, free.request(n));
  await using worker = startWorker(sql, catalog, { ...HOURLY, concurrencyByType: { tight: 1, narrow: 3 } });
  await done;
  await worker.stop();
  assert.equal(most.get("tight"), 1);
  assert.ok((most.get("narrow") ?? 0) <= 3, `${most.get("narrow")} ran at once`);
  assert.ok(freeDoneAt < 20, "the others did not wait for the tight ones");
});

Deno.test("a limit that cannot be is refused at once", async () => {
  await using database = await openTestDatabase();
  const catalog = new JobCatalog().handle(job, () => {});
  for (const limit of [0, -1, 1.5, NaN]) {
    await assert.rejects(
      async () => await startWorker(database.sql, catalog, { concurrencyByType: { lone: limit } }).stop(),
      TypeError,
    );
  }
});
