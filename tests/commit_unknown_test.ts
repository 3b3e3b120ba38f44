/**
 * A connection that breaks while a write is on its way: nobody can know if it was applied, and the caller is told so. What
 * helps is a repetition that is safe.
 *
 * @module
 */

import { isRunledgerError } from "@runledger/core";
import type { RunledgerErrorCode } from "@runledger/core";
import { atomically, cancelJob, claimJobs, enqueueJob, getJob, settleJob, settleJobs } from "@runledger/postgres";
import type { Queryable } from "@runledger/postgres";
import { startTcpProxy } from "@runledger/test-support";
import type { TcpProxy } from "@runledger/test-support";
import assert from "node:assert/strict";
import pg from "pg";
import postgres from "postgres";
import { claimOne, openTestDatabase, request } from "./support/database.ts";

/** A driver's pool of one connection. */
interface PoolKind {
  readonly name: string;
  open(url: string): AsyncDisposable & { readonly db: Queryable };
}

const POOLS: readonly PoolKind[] = [
  {
    name: "postgres.js",
    open(url) {
      const sql = postgres(url, { max: 1, onnotice: () => {} });
      return { db: sql, [Symbol.asyncDispose]: () => sql.end({ timeout: 0.1 }) };
    },
  },
  {
    name: "node-postgres",
    open(url) {
      const pool = new pg.Pool({ idleTimeoutMillis: 0, connectionString: url, max: 1 });
      pool.on("error", () => {});
      return { db: pool, [Symbol.asyncDispose]: () => pool.end() };
    },
  },
];

function hasCode(code: RunledgerErrorCode): (error: unknown) => boolean {
  return (error) => {
    assert(isRunledgerError(error), Deno.inspect(error));
    assert.equal(error.code, code, error.internalMessage);
    return true;
  };
}

const ALL = { scope: "all" } as const;

/** A statement as a handler sends it, past this library. */
async function sendDirectly(tx: Queryable): Promise<void> {
  if ("unsafe" in tx) await tx.unsafe("select 1");
  else if ("query" in tx) await tx.query("select 1");
}

/** The end of every answer outside a transaction: ReadyForQuery, idle. The server has committed before it sends this. */
const READY_FOR_QUERY = "Z\0\0\0\x05I";

/**
 * Opens a pool through a proxy, and lets it connect and prepare an enqueue. No transaction: postgres.js prepares COMMIT too,
 * and the proxy knows it by its text, which is sent once.
 */
async function openThroughProxy(kind: PoolKind, url: string): Promise<
  AsyncDisposable & { readonly db: Queryable; readonly proxy: TcpProxy }
> {
  const proxy = await startTcpProxy({ target: url });
  const pool = kind.open(proxy.url);
  await enqueueJob(pool.db, request({ jobType: "b" }));
  return {
    db: pool.db,
    proxy,
    async [Symbol.asyncDispose]() {
      await pool[Symbol.asyncDispose]();
      await proxy[Symbol.asyncDispose]();
    },
  };
}

for (const kind of POOLS) {
  for (const when of ["before", "after"] as const) {
    const lost = when === "before" ? "COMMIT" : "the answer to COMMIT";
    Deno.test(`${kind.name}: when ${lost} is lost the outcome is unknown, and the same enqueue again resolves it`, async () => {
      await using database = await openTestDatabase();
      await using faulty = await openThroughProxy(kind, database.url);
      const { db, proxy } = faulty;
      const keyed = request({ idempotencyKey: "order:1" });
      let seen: string | undefined;
      proxy.setMode({ kind: "cut-request", containing: "commit", when });
      await assert.rejects(
        atomically(db, async (tx) => {
          seen = (await enqueueJob(tx, keyed)).jobId;
        }),
        hasCode("db.commit_unknown"),
      );
      assert.equal(proxy.counts.cut, 1);
      assert(seen !== undefined);
      assert.equal(await getJob(database.sql, seen, ALL) !== undefined, when === "after");
      const again = await enqueueJob(db, keyed);
      assert.equal(again.disposition, when === "after" ? "existing" : "inserted");
      assert.equal(again.jobId === seen, when === "after");
      assert.deepEqual(await enqueueJob(db, keyed), { ...again, disposition: "existing" });
    });

    Deno.test(`${kind.name}: when ${lost} of a settlement is lost, repeating it tells whether it was applied`, async () => {
      await using database = await openTestDatabase();
      await using faulty = await openThroughProxy(kind, database.url);
      const { db, proxy } = faulty;
      const { jobId } = await enqueueJob(database.sql, request());
      const lease = await claimOne(database.sql, { jobTypes: ["a"] });
      proxy.setMode({ kind: "cut-request", containing: "commit", when });
      await assert.rejects(
        atomically(db, (tx) => settleJob(tx, lease, { kind: "succeeded", output: 1 })),
        hasCode("db.commit_unknown"),
      );
      const repeated = settleJob(db, lease, { kind: "succeeded", output: 1 });
      if (when === "before") await repeated;
      else await assert.rejects(repeated, hasCode("job.lease_owner_mismatch"));
      const job = await getJob(database.sql, jobId, ALL);
      assert.deepEqual([job?.status, job?.output, job?.eventSeq], ["SUCCEEDED", 1, 3]);
    });
  }

  Deno.test(`${kind.name}: the connection is cut after a single write was applied: unknown, and safe to repeat`, async () => {
    await using database = await openTestDatabase();
    await using faulty = await openThroughProxy(kind, database.url);
    const { db, proxy } = faulty;
    const keyed = request({ idempotencyKey: "order:1" });
    proxy.setMode({ kind: "cut-reply", containing: READY_FOR_QUERY });
    await assert.rejects(enqueueJob(db, keyed), hasCode("db.commit_unknown"));
    assert.equal((await enqueueJob(db, keyed)).disposition, "existing");

    const lease = await claimOne(database.sql, { jobTypes: ["a"] });
    await settleJobs(db, [{ lease: { ...lease, attempt: 99 }, outcome: { kind: "succeeded" } }]); // prepares the statement
    proxy.setMode({ kind: "cut-reply", containing: READY_FOR_QUERY });
    await assert.rejects(settleJob(db, lease, { kind: "succeeded" }), hasCode("db.commit_unknown"));
    await assert.rejects(settleJob(db, lease, { kind: "succeeded" }), hasCode("job.lease_owner_mismatch"));
    assert.equal((await getJob(database.sql, lease.jobId, ALL))?.status, "SUCCEEDED");
  });

  Deno.test(`${kind.name}: the connection is cut before a single write arrived: unknown all the same, and nothing was written`, async () => {
    await using database = await openTestDatabase();
    await using faulty = await openThroughProxy(kind, database.url);
    const { db, proxy } = faulty;
    proxy.setMode({ kind: "cut-request", containing: "order:1", when: "before" });
    await assert.rejects(enqueueJob(db, request({ idempotencyKey: "order:1" })), hasCode("db.commit_unknown"));
    assert.equal((await enqueueJob(db, request({ idempotencyKey: "order:1" }))).disposition, "inserted");
  });

  Deno.test(`${kind.name}: a claim whose answer was lost holds its jobs until their lease runs out`, async () => {
    await using database = await openTestDatabase();
    await using faulty = await openThroughProxy(kind, database.url);
    const { db, proxy } = faulty;
    const claim = { jobTypes: ["a"], workerId: "w", limit: 1 };
    await claimJobs(db, claim); // prepares the statement
    const { jobId } = await enqueueJob(database.sql, request());
    proxy.setMode({ kind: "cut-reply", containing: READY_FOR_QUERY });
    await assert.rejects(claimJobs(db, claim), hasCode("db.commit_unknown"));
    assert.deepEqual(await claimJobs(db, claim), []);
    assert.equal((await getJob(database.sql, jobId, ALL))?.status, "LEASED");
  });

  Deno.test(`${kind.name}: a read whose answer is lost is unavailable, not unknown`, async () => {
    await using database = await openTestDatabase();
    await using faulty = await openThroughProxy(kind, database.url);
    const { db, proxy } = faulty;
    const { jobId } = await enqueueJob(db, request());
    proxy.setMode({ kind: "cut-reply" });
    await assert.rejects(getJob(db, jobId, ALL), hasCode("db.unavailable"));
    assert.equal((await getJob(db, jobId, ALL))?.jobId, jobId);
  });

  Deno.test(`${kind.name}: a connection cut inside a transaction is unavailable, and nothing was written`, async () => {
    await using database = await openTestDatabase();
    await using faulty = await openThroughProxy(kind, database.url);
    const { db, proxy } = faulty;
    const { jobId } = await enqueueJob(database.sql, request());
    const failing = atomically(db, async (tx) => {
      await cancelJob(tx, jobId, ALL);
      proxy.cut();
      await enqueueJob(tx, request());
    });
    await assert.rejects(failing, hasCode("db.unavailable"));
    assert.equal((await getJob(database.sql, jobId, ALL))?.status, "PENDING");
  });

  Deno.test(`${kind.name}: after a loss the driver's own statements are refused, too`, async () => {
    await using database = await openTestDatabase();
    await using faulty = await openThroughProxy(kind, database.url);
    const { db, proxy } = faulty;
    let kept: Queryable | undefined;
    const failing = atomically(db, async (tx) => {
      kept = tx;
      await enqueueJob(tx, request());
      proxy.cut();
      await assert.rejects(sendDirectly(tx));
      // The driver has noticed by its next turn, and would send the next one to a socket that is gone.
      await new Promise((resolve) => setTimeout(resolve));
      await assert.rejects(sendDirectly(tx));
    });
    await assert.rejects(failing, hasCode("db.unavailable"));
    assert(kept !== undefined);
    await assert.rejects(sendDirectly(kept), TypeError);
  });

  Deno.test(`${kind.name}: a refused connection is unavailable, also for a write`, async () => {
    await using database = await openTestDatabase();
    const proxy = await startTcpProxy({ target: database.url });
    const { url } = proxy;
    await proxy[Symbol.asyncDispose](); // nobody listens there now
    await using pool = kind.open(url);
    await assert.rejects(enqueueJob(pool.db, request()), hasCode("db.unavailable"));
    await assert.rejects(atomically(pool.db, (tx) => enqueueJob(tx, request())), hasCode("db.unavailable"));
  });
}

Deno.test("node-postgres: an error between a client's check-out and its first statement does not end the process", async () => {
  await using database = await openTestDatabase();
  const pool = new pg.Pool({ idleTimeoutMillis: 0, connectionString: database.url, max: 1 });
  let errors = 0;
  // As if it had come with the same bytes as the end of the connection's start.
  pool.on(
    "acquire",
    (client: pg.PoolClient) => queueMicrotask(() => errors = errors + Number(client.emit("error", new Error("late")))),
  );
  try {
    await atomically(pool, (tx) => enqueueJob(tx, request()));
  } finally {
    await pool.end();
  }
  assert.equal(errors, 1, "it was heard");
});
