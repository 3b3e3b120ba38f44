/**
 * What claims promise under load. A cursor makes them cheaper and changes neither what is claimed nor, among jobs it has
 * not passed, the order.
 *
 * @module
 */

import { claimJobs, createClaimCursor, enqueueJobs } from "@runledger/postgres";
import type { ClaimCursor } from "@runledger/postgres";
import assert from "node:assert/strict";
import fc from "fast-check";
import postgres from "postgres";
import { openTestDatabase, request } from "./support/database.ts";

const TYPES = { jobTypes: ["a", "b"], workerId: "w" } as const;
const EPOCH = Date.UTC(2026, 0, 1);

/** What the database gives when finding the heads took long, however fast it is here. */
function holdPosition(
  cursor: ClaimCursor,
  floors: readonly { readonly job_type: string; readonly priority: number; readonly next_run_at: string }[],
): void {
  cursor.position = JSON.stringify({
    job_types: TYPES.jobTypes,
    rescan_at: "2100-01-01T00:00:00Z",
    floors: floors.map((floor) => ({ id: "00000000-0000-0000-0000-000000000000", ...floor })),
  });
}

const jobs = fc.array(
  fc.record({
    jobType: fc.constantFrom("a", "b"),
    priority: fc.integer({ min: -1, max: 1 }),
    second: fc.integer({ min: 0, max: 20 }),
  }),
  { maxLength: 12 },
);

Deno.test("no job is lost to a cursor, wherever it turns up, and each is claimed once", async () => {
  await using database = await openTestDatabase({ checks: false });
  const { sql } = database;
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.record({ jobs, limit: fc.integer({ min: 1, max: 8 }) }), { minLength: 1, maxLength: 6 }),
      fc.integer({ min: 0, max: 20 }),
      fc.integer({ min: 0, max: 2 }),
      async (rounds, floorSecond, reach) => {
        const cursor = Object.assign(createClaimCursor(), { reach, wideClaims: 8 });
        const next_run_at = new Date(EPOCH + floorSecond * 1000).toISOString();
        holdPosition(cursor, [{ job_type: "a", priority: 0, next_run_at }, {
          job_type: "b",
          priority: 1,
          next_run_at,
        }]);
        const enqueued = new Set<string>();
        const claimed: string[] = [];
        for (const { jobs, limit } of rounds) {
          const made = await enqueueJobs(
            sql,
            jobs.map(({ second, ...job }) => request({ ...job, nextRunAt: new Date(EPOCH + second * 1000) })),
          );
          for (const { jobId } of made) enqueued.add(jobId);
          const batch = await claimJobs(sql, { ...TYPES, limit, cursor });
          claimed.push(...batch.map(({ jobId }) => jobId));
          const left = enqueued.size - claimed.length;
          assert(batch.length === limit || left === 0, "a short batch means that there is nothing else");
        }
        while (claimed.length < enqueued.size) {
          const batch = await claimJobs(sql, { ...TYPES, limit: 8, cursor });
          assert(batch.length > 0, `${enqueued.size - claimed.length} jobs are lost`);
          claimed.push(...batch.map(({ jobId }) => jobId));
        }
        assert.deepEqual(claimed.toSorted(), [...enqueued].toSorted());
      },
    ),
    { numRuns: 60 },
  );
});

Deno.test("a position that an empty queue gave hides no job that comes later", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const cursor = createClaimCursor();
  // Finding the heads must take more than a millisecond for a position to be given: many types make it so.
  const jobTypes = ["a", ...Array.from({ length: 20_000 }, (_, n) => `none-${n}`)];
  assert.deepEqual(await claimJobs(sql, { jobTypes, workerId: "w", limit: 1, cursor }), []);
  assert.ok(cursor.position !== undefined, "the scan was too fast to give a position");
  assert.deepEqual(await claimJobs(sql, { jobTypes, workerId: "w", limit: 1, cursor }), []);
  await enqueueJobs(sql, [request()]);
  assert.equal((await claimJobs(sql, { jobTypes, workerId: "w", limit: 1, cursor })).length, 1);
});

Deno.test("from a cursor, jobs that it has not passed come in the order of all claims", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const at = (second: number) => new Date(EPOCH + second * 1000);
  const enqueued = await enqueueJobs(sql, [
    request({ jobType: "a", nextRunAt: at(3) }),
    request({ jobType: "b", nextRunAt: at(2) }),
    request({ jobType: "a", nextRunAt: at(2) }),
    request({ jobType: "b", nextRunAt: at(9), priority: 1 }),
    request({ jobType: "a", nextRunAt: new Date(Date.now() + 3_600_000), priority: 1 }),
    request({ jobType: "a", nextRunAt: at(0) }),
  ]);
  const cursor = createClaimCursor();
  const next_run_at = at(1).toISOString();
  holdPosition(
    cursor,
    [["a", 0], ["b", 0], ["a", 1], ["b", 1]].map(([job_type, priority]) => ({
      job_type: String(job_type),
      priority: Number(priority),
      next_run_at,
    })),
  );
  const order: number[] = [];
  for (const limit of [2, 1, 1, 5]) {
    const batch = await claimJobs(sql, { ...TYPES, limit, cursor });
    order.push(...batch.map(({ jobId }) => enqueued.findIndex((job) => job.jobId === jobId)));
  }
  assert.deepEqual(order, [3, ...[1, 2].toSorted(byId(enqueued)), 0, 5], "the passed one comes last, but it comes");
});

function byId(jobs: readonly { readonly jobId: string }[]): (left: number, right: number) => number {
  return (left, right) => String(jobs[left]?.jobId) < String(jobs[right]?.jobId) ? -1 : 1;
}

Deno.test("a cursor whose time is over, or that was made for other types, hides nothing", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const [first] = await enqueueJobs(sql, [request({ nextRunAt: new Date(EPOCH) }), request()]);
  const floors = [{ job_type: "a", priority: 0, next_run_at: new Date(EPOCH + 1000).toISOString() }];
  for (const change of [{ rescan_at: "2000-01-01T00:00:00Z" }, { job_types: ["a"] }]) {
    const cursor = createClaimCursor();
    holdPosition(cursor, floors);
    cursor.position = JSON.stringify({ ...JSON.parse(cursor.position ?? "{}"), ...change });
    await sql.begin(async (tx) => {
      const [job] = await claimJobs(tx, { ...TYPES, limit: 1, cursor });
      assert.equal(job?.jobId, first?.jobId);
      throw new RangeError("undo");
    }).catch((error) => assert(error instanceof RangeError, error));
  }
});

Deno.test("a held snapshot makes claims give a position, and the next ones go on from it", async () => {
  await using database = await openTestDatabase({ checks: false });
  const { sql } = database;
  const holder = postgres(database.url, { max: 1 });
  await sql`
    insert into runledger.job_queue (id, job_type, priority, next_run_at, max_attempts, timeout_seconds, payload)
    select runledger.new_id(), 'a', 0, now() - interval '1 hour' + number * interval '1 millisecond', 3, 300, '{}'
    from generate_series(1, 30000) as number`;
  const cursor = createClaimCursor();
  let resumed = 0;
  await holder.begin("isolation level repeatable read", async (tx) => {
    await tx`select count(*) from runledger.job_definitions`;
    let last = new Date(0);
    // Small claims come soon after each other, compared with what it takes to walk over all that was claimed before.
    for (let claimed = 0, limit = 1000; claimed < 30_000; claimed += limit) {
      limit = claimed < 28_000 ? 1000 : 50;
      const from = cursor.position;
      const batch = await claimJobs(sql, { ...TYPES, limit, cursor });
      assert.equal(batch.length, limit);
      if (from !== undefined && rescanAt(from) === rescanAt(cursor.position)) resumed++;
      const [row] = await sql<{ at: Date }[]>`
        select min(next_run_at) as at from runledger.job_queue where id = ${batch[0]?.jobId ?? null}`;
      assert(row !== undefined && row.at > last);
      last = row.at;
    }
  });
  assert(resumed > 0, "some claims go on where the last one ended");
  assert.deepEqual(await claimJobs(sql, { ...TYPES, limit: 10, cursor }), []);
  await holder.end();
});

function rescanAt(position: string | undefined): unknown {
  return position === undefined ? undefined : (JSON.parse(position) as { rescan_at: unknown }).rescan_at;
}

Deno.test("a claim looks past the jobs that a rival is claiming", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  await enqueueJobs(sql, Array.from({ length: 1001 }, () => request()));
  await sql.begin(async (rival) => {
    assert.equal((await claimJobs(rival, { ...TYPES, limit: 1000 })).length, 1000);
    assert.equal((await claimJobs(sql, { ...TYPES, limit: 1 })).length, 1);
  });
});

Deno.test("however many rivals held, a short claim says that there is nothing else", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const cursor = createClaimCursor();
  await enqueueJobs(sql, Array.from({ length: 2000 }, () => request({ nextRunAt: new Date(EPOCH + 1000) })));
  await sql.begin(async (rival) => {
    for (let n = 0; n < 2; n++) await claimJobs(rival, { ...TYPES, limit: 1000 });
    assert.deepEqual(await claimJobs(sql, { ...TYPES, limit: 1, cursor }), []);
  });
  await enqueueJobs(sql, [request({ nextRunAt: new Date(EPOCH) })]);
  holdPosition(cursor, [{ job_type: "a", priority: 0, next_run_at: new Date(EPOCH + 1000).toISOString() }]);
  assert.equal((await claimJobs(sql, { ...TYPES, limit: 2, cursor })).length, 1);
});

Deno.test("a claim that rivals forced to look again makes the next ones of its cursor look that far at once", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  await enqueueJobs(sql, Array.from({ length: 300 }, () => request()));
  const cursor = createClaimCursor();
  let statements = 0;
  const counted = {
    query: async (text: string, values: readonly unknown[] = []) => {
      statements++;
      return await sql.unsafe(text, [...values] as never[]);
    },
  };
  const claim = async () => {
    statements = 0;
    // Where a scan was slow, the claim would begin at a position and perhaps look everywhere after that.
    cursor.position = undefined;
    assert.equal((await claimJobs(counted, { ...TYPES, limit: 2, cursor })).length, 2);
    return statements;
  };
  // More than the second look reaches.
  await sql.begin(async (rival) => {
    await claimJobs(rival, { ...TYPES, limit: 100 });
    const counts: number[] = [];
    for (let n = 0; n < 18; n++) counts.push(await claim());
    assert.deepEqual(counts, [3, 1, 1, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1, 1, 1, 1, 1]);
    assert.equal(cursor.reach, 1);
  });
  // What they found out is forgotten by and by.
  for (let n = 0; n < 18; n++) assert.equal(await claim(), 1);
  assert.equal(cursor.reach, 0);
});
