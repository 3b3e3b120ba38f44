/**
 * The ledger of all jobs can be followed as it grows: each event once, none left out, however late its transaction commits.
 *
 * @module
 */

import { isRunledgerError, newId } from "@runledger/core";
import * as runledger from "@runledger/postgres";
import type { LedgerEntry } from "@runledger/postgres";
import assert from "node:assert/strict";
import fc from "fast-check";
import type { Sql } from "postgres";
import { claimOne, openTestDatabase, request } from "./support/database.ts";

const ALL = { scope: "all" } as const;
const keyOf = ({ jobId, seq }: { readonly jobId: string; readonly seq: number }) => `${jobId} ${seq}`;

/** Everything from a position on, and the position behind it. */
async function readOn(
  sql: Sql,
  position: string,
  limit = 1000,
): Promise<{ readonly entries: readonly LedgerEntry[]; readonly position: string }> {
  const entries: LedgerEntry[] = [];
  let piece = await runledger.readLedger(sql, { ...ALL, position, limit });
  entries.push(...piece.entries);
  while (piece.hasMore) {
    piece = await runledger.readLedger(sql, { ...ALL, position: piece.position, limit });
    entries.push(...piece.entries);
  }
  return { entries, position: piece.position };
}

Deno.test("what commits late is read then, also when what began after it was read before", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const start = await runledger.readLedger(sql, ALL);
  assert.deepEqual(start.entries, []);
  assert.equal(start.hasMore, false);
  const wrote = Promise.withResolvers<string>();
  const commit = Promise.withResolvers<void>();
  const slow = sql.begin(async (tx) => {
    wrote.resolve((await runledger.enqueueJob(tx, request())).jobId);
    await commit.promise;
  });
  const slowId = await wrote.promise;
  const fast = await runledger.enqueueJob(sql, request({ jobType: "b" }));
  const first = await readOn(sql, start.position);
  assert.deepEqual(first.entries.map(({ jobId, jobType }) => [jobId, jobType]), [[fast.jobId, "b"]]);
  assert.deepEqual((await readOn(sql, first.position)).entries, []);
  commit.resolve();
  await slow;
  const second = await readOn(sql, first.position);
  assert.deepEqual(second.entries.map(({ jobId }) => jobId), [slowId]);
  assert.deepEqual((await readOn(sql, second.position)).entries, []);
  // A position may be used again.
  const both = await readOn(sql, start.position);
  assert.deepEqual(new Set(both.entries.map(({ jobId }) => jobId)), new Set([slowId, fast.jobId]));
});

Deno.test("a transaction that reads and posts is itself read after its commit: nothing is lost, nothing told twice", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const start = await runledger.readLedger(sql, ALL);
  let position = "";
  let first: runledger.LedgerPiece | undefined;
  const own: string[] = [];
  const enqueueIn = async (db: runledger.Queryable) => (await runledger.enqueueJob(db, request())).jobId;
  const others: string[] = [];
  await sql.begin(async (tx) => {
    own.push(await enqueueIn(tx));
    // A later transaction that has committed: the reading one is no longer the newest.
    others.push(await enqueueIn(sql));
    const piece = await runledger.readLedger(tx, { ...ALL, position: start.position });
    assert.deepEqual(piece.entries.map(({ jobId }) => jobId), others);
    position = piece.position;
    first = await runledger.readLedger(tx, ALL);
    assert.deepEqual(first.entries.map(({ jobId }) => jobId), others);
    own.push(await enqueueIn(tx));
  });
  for (const from of [position, first?.position ?? ""]) {
    const after = await readOn(sql, from);
    assert.deepEqual(new Set(after.entries.map(({ jobId }) => jobId)), new Set(own));
    assert.equal(after.entries.length, 2);
    assert.deepEqual((await readOn(sql, after.position)).entries, []);
  }
});

Deno.test("a reader among writers that commit in any order sees each event once, those of a job in their order", async () => {
  await using database = await openTestDatabase({ max: 6 });
  const { sql } = database;
  let { position } = await runledger.readLedger(sql, ALL);
  const seen: LedgerEntry[] = [];
  let isOver = false;
  const write = async () => {
    for (let turn = 0; turn < 15; turn++) {
      await sql.begin(async (tx) => {
        await runledger.enqueueJobs(tx, [request(), request()]);
        const [job] = await runledger.claimJobs(tx, { jobTypes: ["a"], workerId: "w", limit: 1 });
        if (job !== undefined) await runledger.settleJob(tx, job, { kind: "succeeded" });
      });
    }
  };
  const read = async () => {
    for (let limit = 1;; limit = limit % 7 + 1) {
      const wasOver = isOver;
      const piece = await runledger.readLedger(sql, { ...ALL, position, limit });
      position = piece.position;
      seen.push(...piece.entries);
      if (wasOver && !piece.hasMore) return;
    }
  };
  await Promise.all([read(), Promise.all([write(), write(), write(), write()]).then(() => isOver = true)]);
  const stored = await sql<{ job_id: string; seq: number }[]>`select job_id, seq from runledger.job_events`;
  assert.equal(seen.length, stored.length);
  assert.deepEqual(new Set(seen.map(keyOf)), new Set(stored.map(({ job_id: jobId, seq }) => keyOf({ jobId, seq }))));
  const last = new Map<string, number>();
  for (const { jobId, seq } of seen) {
    assert.equal(seq, (last.get(jobId) ?? 0) + 1);
    last.set(jobId, seq);
  }
});

Deno.test("the newest events come first without a position, in their order, with what their payload says", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const organizationId = newId();
  const { jobId } = await runledger.enqueueJob(sql, request({ organizationId }));
  await runledger.enqueueJob(sql, request({ jobType: "b" }));
  await runledger.settleJob(sql, await claimOne(sql, { jobTypes: ["a"] }), { kind: "succeeded" });
  const { entries, position } = await runledger.readLedger(sql, { ...ALL, limit: 2 });
  assert.deepEqual(entries.map(({ eventType }) => eventType), ["LEASED", "SUCCEEDED"]);
  assert.equal(entries[0]?.details?.eventType === "LEASED" && entries[0].details.workerId, "w");
  assert.deepEqual((await runledger.readLedger(sql, { ...ALL, position })).entries, []);

  const own = await runledger.readLedger(sql, { scope: { organizationId } });
  assert.deepEqual(own.entries.map((entry) => [entry.jobId, entry.seq]), [[jobId, 1], [jobId, 2], [jobId, 3]]);
  assert.deepEqual((await runledger.readLedger(sql, { scope: { organizationId: newId() } })).entries, []);
});

Deno.test("a reader in a scope passes over the events of others, however many", async () => {
  await using database = await openTestDatabase({ checks: false });
  const { sql } = database;
  const organizationId = newId();
  const { position } = await runledger.readLedger(sql, { scope: { organizationId } });
  for (let batch = 0; batch < 3; batch++) {
    await runledger.enqueueJobs(sql, Array.from({ length: 5000 }, () => request()));
  }
  // One transaction with more than a window of events.
  await sql.begin(async (tx) => {
    for (let batch = 0; batch < 3; batch++) {
      await runledger.enqueueJobs(tx, Array.from({ length: 5000 }, () => request()));
    }
  });
  const { jobId } = await runledger.enqueueJob(sql, request({ organizationId }));
  let piece = await runledger.readLedger(sql, { scope: { organizationId }, position });
  for (let calls = 1; piece.hasMore; calls++) {
    assert.deepEqual(piece.entries, []);
    assert(calls < 12, "each call comes further");
    piece = await runledger.readLedger(sql, { scope: { organizationId }, position: piece.position });
    if (piece.entries.length > 0) break;
  }
  assert.deepEqual(piece.entries.map((entry) => entry.jobId), [jobId]);
  const whole = await readOn(sql, position);
  assert.equal(whole.entries.length, 30_001);
  assert.equal(new Set(whole.entries.map(keyOf)).size, 30_001);
});

Deno.test("a position that the function did not give is refused before any SQL", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const encode = (...parts: readonly unknown[]) => encodeURIComponent(JSON.stringify(parts));
  const refused = (position: string) =>
    assert.rejects(
      runledger.readLedger(sql, { ...ALL, position }),
      (error) => isRunledgerError(error, "job.invalid_pagination"),
    );
  const id = newId();
  for (
    const position of [
      "",
      "x",
      "%",
      encode("ledger"),
      encode("ledger", "1:1", null),
      encode("ledger", "5:3:", null),
      encode("ledger", "3:5:9", null),
      encode("ledger", "3:5:4,4", null),
      encode("ledger", "0:1:", null),
      encode("ledger", "4294967296:4294967297:", null),
      encode("ledger", "3:4294967298:4294967296", null),
      encode("ledger", "9999999999999999999:9999999999999999999:", null),
      encode("ledger", "3:5:", "3:5:", "x", id, 1),
      encode("ledger", "3:5:", "3:5:", "4", "id", 1),
      encode("ledger", "3:5:", "3:5:", "4", id, 0),
      encode("ledger", "3:5:", "3:5:", "4", id, 2 ** 31),
      encode("jobs", "3:5:", null),
    ]
  ) await refused(position);
  await fc.assert(fc.asyncProperty(fc.string(), (text) => refused(text)));
  const ids = fc.array(fc.bigInt({ min: 1n, max: 2n ** 62n }).map((id) => id % 2n === 0n ? id + 1n : id), {
    maxLength: 4,
  });
  await fc.assert(
    fc.asyncProperty(ids, async (numbers) => {
      const open = [...new Set(numbers)].sort((a, b) => a < b ? -1 : 1);
      const snapshot = `${open[0] ?? 3n}:${(open.at(-1) ?? 3n) + 2n}:${open.join(",")}`;
      await runledger.readLedger(sql, { ...ALL, position: encode("ledger", snapshot, null) });
    }),
    { numRuns: 30 },
  );
});
