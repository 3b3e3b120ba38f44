/**
 * A handler may finish its job inside a transaction that also holds its side effects: both commit, or neither.
 *
 * @module
 */

import { defineJob, isRunledgerError } from "@runledger/core";
import { listJobLogs } from "@runledger/postgres";
import { JobCatalog } from "@runledger/runtime";
import type { JobContext } from "@runledger/runtime";
import assert from "node:assert/strict";
import type postgres from "postgres";
import { openTestDatabase } from "./support/database.ts";
import {
  abortOf,
  countdown,
  endedJobs,
  enqueue,
  eventTypes,
  expireLease,
  faultyDatabase,
  gate,
  readJob,
  startWorker,
} from "./support/worker_harness.ts";

type Tx = postgres.TransactionSql;

const charge = defineJob({ type: "charge", retry: { kind: "fixed", delayMs: 0 }, maxAttempts: 2 });

/** Runs one job of which each attempt is handled by the next function, until it has ended; gives its charges. */
async function runCharges(
  sql: postgres.Sql,
  attempts: readonly ((context: JobContext) => Promise<unknown>)[],
  db: Parameters<typeof startWorker>[0] = sql,
): Promise<{ readonly jobId: string; readonly charges: readonly string[] }> {
  await sql`create table charges (id serial primary key, what text not null)`;
  const catalog = new JobCatalog().handle(charge, async (_payload, context) => {
    await attempts[context.attempt - 1]?.(context);
  });
  await catalog.sync(sql);
  const jobId = await enqueue(sql, charge.request({}));
  const ended = endedJobs(catalog, 1);
  await using _worker = startWorker(db, catalog);
  await ended;
  const rows = await sql<{ what: string }[]>`select what from charges order by id`;
  return { jobId, charges: rows.map(({ what }) => what) };
}

const chargeOnce = (context: JobContext, what = "charged") =>
  context.transaction(async (tx: Tx, finish) => {
    await tx`insert into charges (what) values (${what})`;
    return await finish({ what });
  });

Deno.test("finish commits the side effects and the success together, once", async () => {
  await using db = await openTestDatabase();
  const { jobId, charges } = await runCharges(db.sql, [async (context) => {
    await chargeOnce(context);
    throw new Error("what comes after is ignored");
  }]);
  assert.deepEqual(charges, ["charged"]);
  assert.deepEqual((await readJob(db.sql, jobId)).output, { what: "charged" });
  assert.deepEqual(await eventTypes(db.sql, jobId), ["ENQUEUED", "LEASED", "SUCCEEDED"]);
});

Deno.test("a throw after finish rolls both back, and the attempt is retried", async () => {
  await using db = await openTestDatabase();
  const { jobId, charges } = await runCharges(db.sql, [
    (context) =>
      context.transaction(async (tx: Tx, finish) => {
        await tx`insert into charges (what) values ('first')`;
        await finish();
        throw new Error("no");
      }),
    (context) => chargeOnce(context, "second"),
  ]);
  assert.deepEqual(charges, ["second"]);
  assert.deepEqual(await eventTypes(db.sql, jobId), [
    "ENQUEUED",
    "LEASED",
    "FAILED",
    "RETRY_SCHEDULED",
    "LEASED",
    "SUCCEEDED",
  ]);
});

Deno.test("a handler may try its transaction again", async () => {
  await using db = await openTestDatabase();
  const { jobId, charges } = await runCharges(db.sql, [async (context) => {
    await assert.rejects(context.transaction(async (tx: Tx, finish) => {
      await tx`insert into charges (what) values ('first')`;
      await finish();
      throw new Error("no");
    }));
    await chargeOnce(context, "again");
  }]);
  assert.deepEqual(charges, ["again"]);
  assert.equal((await readJob(db.sql, jobId)).attempt, 1);
});

for (const [how, swallow] of [["", false], [", even when its error is swallowed", true]] as const) {
  Deno.test(`a lost lease rolls both back${how}`, async () => {
    await using db = await openTestDatabase();
    await db.sql`create table charges (id serial primary key, what text not null)`;
    const result = gate<readonly unknown[]>();
    const catalog = new JobCatalog().handle(charge, async (_payload, context) => {
      const error = await context.transaction(async (tx: Tx, finish) => {
        await tx`insert into charges (what) values ('lost')`;
        await expireLease(db.sql, context.jobId);
        if (swallow) await finish().catch(() => {});
        else await finish();
      }).catch((error: unknown) => error);
      result.open([isRunledgerError(error) && error.code, context.signal.reason?.code]);
    });
    await catalog.sync(db.sql);
    const jobId = await enqueue(db.sql, charge.request({}));
    await using worker = startWorker(db.sql, catalog, { config: { leaseTtlSeconds: 60 } });
    assert.deepEqual(await result.opened, ["job.lease_owner_mismatch", "job.lease_owner_mismatch"]);
    await worker.stop();
    assert.deepEqual([...await db.sql`select what from charges`], []);
    assert.equal((await readJob(db.sql, jobId)).status, "LEASED");
  });
}

Deno.test("a finish that is not awaited is not committed past", async () => {
  await using db = await openTestDatabase();
  const { charges } = await runCharges(db.sql, [(context) =>
    context.transaction(async (tx: Tx, finish) => {
      await tx`insert into charges (what) values ('charged')`;
      void finish({ ok: true });
    })]);
  assert.deepEqual(charges, ["charged"]);
});

Deno.test("an output that cannot be stored rolls the transaction back", async () => {
  await using db = await openTestDatabase();
  const { jobId, charges } = await runCharges(db.sql, [
    (context) =>
      context.transaction(async (tx: Tx, finish) => {
        await tx`insert into charges (what) values ('never')`;
        await finish(1n as never);
      }),
    () => Promise.resolve(),
  ]);
  assert.deepEqual(charges, []);
  assert.equal((await readJob(db.sql, jobId)).attempt, 2);
});

Deno.test("a commit without an answer that was applied stays a success", async () => {
  await using db = await openTestDatabase();
  const faulty = faultyDatabase(db.sql);
  faulty.onCommit = "answer lost";
  await db.sql`create table charges (id serial primary key, what text not null)`;
  const settled = gate();
  const catalog = new JobCatalog().handle(charge, async (_payload, context) => {
    const error = await context.transaction(async (tx, finish) => {
      await (tx as { query(text: string): Promise<unknown> }).query("insert into charges (what) values ('charged')");
      await finish("done");
    }).catch((error: unknown) => error);
    assert.ok(isRunledgerError(error, "db.commit_unknown"));
    settled.open();
    throw error;
  });
  await catalog.sync(db.sql);
  const jobId = await enqueue(db.sql, charge.request({}));
  await using worker = startWorker(faulty, catalog);
  await settled.opened;
  await worker.stop();
  assert.equal((await readJob(db.sql, jobId)).output, "done");
  assert.deepEqual(await eventTypes(db.sql, jobId), ["ENQUEUED", "LEASED", "SUCCEEDED"]);
});

Deno.test("a commit without an answer that was not applied leads to another attempt, even if the handler goes on", async () => {
  await using db = await openTestDatabase();
  const faulty = faultyDatabase(db.sql);
  faulty.onCommit = "connection lost";
  const { jobId, charges } = await runCharges(db.sql, [
    async (context) => {
      await context.transaction(async (tx, finish) => {
        await (tx as { query(text: string): Promise<unknown> }).query("insert into charges (what) values ('lost')");
        await finish("first");
      }).catch(() => {});
      faulty.onCommit = "commit";
      return "a success that is none";
    },
    () => Promise.resolve(),
  ], faulty);
  assert.deepEqual(charges, []);
  assert.deepEqual(await eventTypes(db.sql, jobId), [
    "ENQUEUED",
    "LEASED",
    "FAILED",
    "RETRY_SCHEDULED",
    "LEASED",
    "SUCCEEDED",
  ]);
});

Deno.test("a timeout inside a transaction that has finished rolls it back, and the attempt is TIMEOUT", async () => {
  await using db = await openTestDatabase();
  await db.sql`create table charges (id serial primary key, what text not null)`;
  const slow = defineJob({ type: "slow", timeoutSeconds: 1, maxAttempts: 1 });
  const catalog = new JobCatalog().handle(slow, (_payload, context) =>
    context.transaction(async (tx: Tx, finish) => {
      await tx`insert into charges (what) values ('slow')`;
      const completion = await finish();
      await abortOf(context.signal);
      return completion;
    }));
  await catalog.sync(db.sql);
  const jobId = await enqueue(db.sql, slow.request({}));
  const ended = endedJobs(catalog, 1);
  await using _worker = startWorker(db.sql, catalog, { config: { leaseTtlSeconds: 60 } });
  await ended;
  assert.equal((await readJob(db.sql, jobId)).lastErrorCode, "job.timeout_exceeded");
  assert.deepEqual([...await db.sql`select what from charges`], []);
});

Deno.test("finish keeps what was logged, with no connection but its own", async () => {
  await using db = await openTestDatabase({ max: 4 });
  const job = defineJob({ type: "logged" });
  const inside = countdown(4);
  const catalog = new JobCatalog().handle(job, (_payload, context) =>
    context.transaction(async (tx: Tx, finish) => {
      await tx`select 1`;
      context.log("info", "charging");
      inside.count();
      await inside.done; // every connection of the pool is in a transaction now
      return await finish();
    }));
  await catalog.sync(db.sql);
  const ids: string[] = [];
  for (let n = 0; n < 4; n++) ids.push(await enqueue(db.sql, job.request({})));
  const ended = endedJobs(catalog, 4);
  await using worker = startWorker(db.sql, catalog, { config: { leaseTtlSeconds: 60 } });
  await ended;
  await worker.stop();
  for (const jobId of ids) {
    const { items: lines } = await listJobLogs(db.sql, jobId, { scope: "all" });
    assert.deepEqual(lines.map(({ message }) => message), ["charging"]);
  }
});
