/**
 * Idempotent enqueueing: an equal request finds the first job, for ever, and a different one is told apart from it.
 *
 * @module
 */

import { isJsonValue, isRunledgerError, newId } from "@runledger/core";
import type { JobRequest, JsonValue, RunledgerError } from "@runledger/core";
import {
  deleteFinishedJobs,
  enqueueJob,
  enqueueJobs,
  getJob,
  listJobEvents,
  setJobDefinitionEnabled,
  settleJob,
} from "@runledger/postgres";
import assert from "node:assert/strict";
import fc from "fast-check";
import postgres from "postgres";
import type { Sql } from "postgres";
import { claimOne, openTestDatabase, request } from "./support/database.ts";
import { printedForms } from "./support/printed_forms.ts";

const ALL = { scope: "all" } as const;
const KEYED = request({ idempotencyKey: "order:1" });

async function conflictOf(call: Promise<unknown>): Promise<RunledgerError> {
  const error: unknown = await call.then(() => assert.fail("should have conflicted"), (error: unknown) => error);
  assert(isRunledgerError(error, "job.idempotency_conflict"), Deno.inspect(error));
  return error;
}

async function countJobs(sql: Sql): Promise<number> {
  const [row] = await sql<{ count: number }[]>`select count(*)::integer as count from runledger.job_queue`;
  return row?.count ?? 0;
}

Deno.test("an equal request finds the first job and posts no event", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const first = await enqueueJob(sql, KEYED);
  assert.equal(first.disposition, "inserted");
  assert.deepEqual(await enqueueJob(sql, { ...KEYED }), { ...first, disposition: "existing" });
  assert.equal((await listJobEvents(sql, first.jobId, ALL)).items.length, 1);
  assert.equal(await countJobs(sql), 1);
});

Deno.test("without a key every call makes a job", async () => {
  await using database = await openTestDatabase();
  await enqueueJob(database.sql, request());
  await enqueueJob(database.sql, request());
  assert.equal(await countJobs(database.sql), 2);
});

Deno.test("an equal request finds the first job although its definition was disabled meanwhile", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const first = await enqueueJob(sql, KEYED);
  await setJobDefinitionEnabled(sql, "a", { isEnabled: false });
  assert.equal((await enqueueJob(sql, KEYED)).jobId, first.jobId);
  assert.deepEqual((await conflictOf(enqueueJob(sql, { ...KEYED, payload: 2 }))).details, { fields: ["payload"] });
  await assert.rejects(
    enqueueJob(sql, request({ idempotencyKey: "order:2" })),
    (error) => isRunledgerError(error, "job.definition_not_found_or_disabled"),
  );
});

Deno.test("an equal request finds the first job after it has ended, and tells how it stands", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const { jobId } = await enqueueJob(sql, KEYED);
  assert.equal((await enqueueJob(sql, KEYED)).status, "PENDING");
  await settleJob(sql, await claimOne(sql), { kind: "continued" });
  const lease = await claimOne(sql);
  assert.deepEqual(await enqueueJob(sql, KEYED), { jobId, disposition: "existing", status: "LEASED", runNumber: 2 });
  await settleJob(sql, lease, { kind: "succeeded" });
  assert.deepEqual(await enqueueJob(sql, KEYED), { jobId, disposition: "existing", status: "SUCCEEDED", runNumber: 2 });
});

Deno.test("a key stands until retention is told to expire keys", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const { jobId } = await enqueueJob(sql, KEYED);
  await settleJob(sql, await claimOne(sql), { kind: "succeeded" });
  assert.equal(await deleteFinishedJobs(sql, { olderThanMs: 0 }), 0);
  assert.equal((await enqueueJob(sql, KEYED)).jobId, jobId);
  assert.equal(await deleteFinishedJobs(sql, { olderThanMs: 0, expiresIdempotencyKeys: true }), 1);
  assert.equal((await enqueueJob(sql, KEYED)).disposition, "inserted");
});

/** One change of each field of a request. */
const CHANGES: Readonly<Record<string, Partial<JobRequest>>> = {
  payload: { payload: { n: 2 } },
  priority: { priority: 1 },
  max_attempts: { maxAttempts: 7 },
  timeout_seconds: { timeoutSeconds: 7 },
  next_run_at: { nextRunAt: new Date(86_400_000) },
  stage: { stage: "scheduled" },
};

Deno.test("a conflict names each field that differs, an omitted setting differing from a given one", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  await enqueueJob(sql, KEYED);
  for (const [field, change] of Object.entries(CHANGES)) {
    assert.deepEqual((await conflictOf(enqueueJob(sql, { ...KEYED, ...change }))).details, { fields: [field] });
  }
  const all = Object.assign({}, ...Object.values(CHANGES)) as Partial<JobRequest>;
  const { details } = await conflictOf(enqueueJob(sql, { ...KEYED, ...all }));
  assert.deepEqual([...(details?.["fields"] as string[])].sort(), Object.keys(CHANGES).sort());
  assert.equal(await countJobs(sql), 1);
});

Deno.test("settings given with the values of the definition differ from omitted ones, since the definition may change", async () => {
  await using database = await openTestDatabase();
  await enqueueJob(database.sql, KEYED);
  await conflictOf(enqueueJob(database.sql, { ...KEYED, maxAttempts: 3 }));
  assert.equal((await enqueueJob(database.sql, { ...KEYED, stage: "queued" })).disposition, "existing");
});

Deno.test("a conflict shows neither the key nor any payload, however it is printed", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const secrets = ["key-5e0c", "first-71aa", "second-9b3d"] as const;
  const keyed = request({ idempotencyKey: secrets[0], payload: { [secrets[1]]: secrets[1] }, organizationId: newId() });
  const { jobId } = await enqueueJob(sql, keyed);
  const changed = { ...keyed, payload: { [secrets[2]]: secrets[2] } };
  const errors = [
    await conflictOf(enqueueJob(sql, changed)),
    await conflictOf(enqueueJobs(sql, [request(), changed])),
    await conflictOf(
      enqueueJobs(sql, [{ ...keyed, idempotencyKey: `${secrets[0]}2` }, {
        ...changed,
        idempotencyKey: `${secrets[0]}2`,
      }]),
    ),
  ];
  for (const error of errors) {
    assert.deepEqual(error.details, { fields: ["payload"] });
    for (const form of [...printedForms(error), error.internalMessage ?? ""]) {
      for (const secret of [...secrets, jobId, keyed.organizationId ?? ""]) assert(!form.includes(secret), form);
    }
  }
});

Deno.test("payloads are equal as jsonb: key order and the spelling of a number do not matter, everything else does", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const { jobId } = await enqueueJob(sql, { ...KEYED, payload: { a: 1, b: [1, 2, { c: 10, d: null }] } });
  assert.equal((await enqueueJob(sql, { ...KEYED, payload: { b: [1, 2, { d: null, c: 10 }], a: 1 } })).jobId, jobId);
  // A double has one spelling in JavaScript; another language may send another.
  const [row] = await sql<{ answer: { existing: { job_id: string }[] } }[]>`
    select runledger.enqueue_jobs(
      array[gen_random_uuid()], '{a}', '[{"b": [1.0, 2, {"d": null, "c": 1e1}], "a": 1.00}]',
      '[{"idempotency_key": "order:1"}]'
    ) as answer`;
  assert.equal(row?.answer.existing[0]?.job_id, jobId);
  const different: readonly JsonValue[] = [
    { a: 1, b: [2, 1, { c: 10, d: null }] },
    { a: 1, b: [1, 2, { c: 10 }] },
    { a: "1", b: [1, 2, { c: 10, d: null }] },
    { a: 1, b: [1, 2, { c: 10, d: null }], e: false },
    { a: 1 },
    null,
  ];
  for (const payload of different) await conflictOf(enqueueJob(sql, { ...KEYED, payload }));
});

Deno.test("a null payload is a payload like any other", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const { jobId } = await enqueueJob(sql, { ...KEYED, payload: null });
  assert.equal((await enqueueJob(sql, { ...KEYED, payload: null })).jobId, jobId);
  assert.equal((await getJob(sql, jobId, ALL))?.payload, null);
  await conflictOf(enqueueJob(sql, KEYED));
});

Deno.test("the same request is always found again and another never, whatever their JSON", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const json = fc.jsonValue({ maxDepth: 3 })
    .map((value) => JSON.parse(JSON.stringify(value)) as JsonValue)
    .filter((value) => isJsonValue(value));
  await fc.assert(
    fc.asyncProperty(json, json, async (payload, other) => {
      const keyed = request({ idempotencyKey: newId(), payload });
      const { jobId } = await enqueueJob(sql, keyed);
      assert.equal((await enqueueJob(sql, keyed)).jobId, jobId);
      if (isSame(payload, other)) return;
      await conflictOf(enqueueJob(sql, { ...keyed, payload: other }));
    }),
    { numRuns: 40 },
  );
});

function isSame(a: unknown, b: unknown): boolean {
  try {
    assert.deepEqual(a, b);
    return true;
  } catch {
    return false;
  }
}

Deno.test("a key is of one job type and one organization, or of none", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const [one, two] = [newId(), newId()];
  const scopes: readonly Partial<JobRequest>[] = [
    {},
    { jobType: "b" },
    { organizationId: one },
    { organizationId: two },
    { organizationId: one, jobType: "b" },
  ];
  const ids = new Set<string>();
  for (const [index, scope] of scopes.entries()) {
    const { jobId, disposition } = await enqueueJob(sql, { ...KEYED, ...scope, payload: index });
    assert.equal(disposition, "inserted");
    ids.add(jobId);
  }
  assert.equal(ids.size, scopes.length);
  const upper = await enqueueJob(sql, { ...KEYED, organizationId: one.toUpperCase(), payload: 2 });
  assert.equal(upper.disposition, "existing", "a UUID is the same in capitals");
});

for (const isolation of ["repeatable read", "serializable"] as const) {
  Deno.test(`a keyed enqueue refuses ${isolation.toUpperCase()}, where it could not see its rival; one without a key does not`, async () => {
    await using database = await openTestDatabase();
    const { sql } = database;
    for (const requests of [[KEYED], [request(), KEYED]]) {
      await assert.rejects(
        sql.begin(`isolation level ${isolation}`, (tx) => enqueueJobs(tx, requests)),
        (error) => isRunledgerError(error, "job.enqueue_idempotency_unsupported_isolation"),
      );
    }
    await sql.begin(`isolation level ${isolation}`, (tx) => enqueueJob(tx, request()));
    assert.equal(await countJobs(sql), 1);
  });
}

Deno.test("in a batch equal requests of a key become one job, each with its own answer", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const standing = await enqueueJob(sql, request({ idempotencyKey: "standing" }));
  const answers = await enqueueJobs(sql, [
    KEYED,
    request(),
    KEYED,
    request({ idempotencyKey: "standing" }),
    { ...KEYED, jobType: "b" },
    KEYED,
  ]);
  assert.deepEqual(answers.map(({ disposition }) => disposition), [
    "inserted",
    "inserted",
    "existing",
    "existing",
    "inserted",
    "existing",
  ]);
  assert.equal(new Set([0, 2, 5].map((index) => answers[index]?.jobId)).size, 1);
  assert.equal(answers[3]?.jobId, standing.jobId);
  assert.equal(await countJobs(sql), 4);
});

Deno.test("a batch with a conflict, inside or with what stands, writes nothing", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  await enqueueJob(sql, KEYED);
  const other = { ...KEYED, idempotencyKey: "order:2" };
  await conflictOf(enqueueJobs(sql, [request(), other, { ...other, priority: 9 }]));
  await conflictOf(enqueueJobs(sql, [request(), other, { ...KEYED, payload: 9 }]));
  assert.equal(await countJobs(sql), 1);
  assert.equal((await enqueueJob(sql, { ...other, priority: 9 })).disposition, "inserted");
});

Deno.test("an enqueue that was rolled back frees its key", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const undo = new Error("undo");
  await assert.rejects(
    sql.begin(async (tx) => {
      await enqueueJob(tx, KEYED);
      assert.equal((await enqueueJob(tx, KEYED)).disposition, "existing", "a transaction sees its own");
      throw undo;
    }),
    undo,
  );
  assert.equal((await enqueueJob(sql, { ...KEYED, payload: "other" })).disposition, "inserted");
});

Deno.test("an enqueue waits for a rival that has not committed yet, and then goes by what became of it", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  for (const isCommitted of [true, false]) {
    const keyed = request({ idempotencyKey: `rival:${isCommitted}` });
    const undo = new Error("undo");
    let rivalId = "";
    const waiting = Promise.withResolvers<Awaited<ReturnType<typeof enqueueJob>>>();
    await sql.begin(async (tx) => {
      rivalId = (await enqueueJob(tx, keyed)).jobId;
      enqueueJob(sql, keyed).then(waiting.resolve, waiting.reject);
      await whenWaiting(sql);
      if (!isCommitted) throw undo;
    }).catch((error: unknown) => assert.equal(error, undo));
    const answer = await waiting.promise;
    assert.equal(answer.disposition, isCommitted ? "existing" : "inserted");
    assert.equal(answer.jobId === rivalId, isCommitted);
  }
});

/** Asks until a session of this database waits for a transaction to end. */
async function whenWaiting(sql: Sql): Promise<void> {
  while (true) {
    const rows = await sql`
      select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`;
    if (rows.length > 0) return;
  }
}

Deno.test("a storm on one key makes exactly one job: equal callers get it, different ones conflict, rollbacks leave no trace", async () => {
  await using database = await openTestDatabase();
  await using storm = openStorm(database.url, 20);
  const undo = new Error("undo");
  for (let round = 0; round < 5; round++) {
    const keyed = request({ idempotencyKey: `storm:${round}` });
    const outcomes = await Promise.all(storm.pools.map(async (sql, index) => {
      const own = index % 4 === 3 ? { ...keyed, payload: "another" } : keyed;
      const rollsBack = index % 3 === 1;
      try {
        if (index % 5 === 4) return (await enqueueJobs(sql, [request({ jobType: "b" }), own]))[1];
        return await sql.begin(async (tx) => {
          const answer = await enqueueJob(tx, own);
          if (rollsBack) throw undo;
          return answer;
        });
      } catch (error) {
        if (error === undo) return undefined;
        if (isRunledgerError(error, "job.idempotency_conflict")) return "conflict";
        throw error;
      }
    }));
    const jobs = await database.sql<{ id: string; payload: JsonValue }[]>`
      select id, payload from runledger.job_queue where idempotency_key = ${`storm:${round}`}`;
    assert.equal(jobs.length, 1);
    const winner = jobs[0]?.payload === "another" ? "another" : "equal";
    for (const [index, outcome] of outcomes.entries()) {
      if (outcome === undefined) continue;
      const asked = index % 4 === 3 ? "another" : "equal";
      if (asked === winner) {
        // Told of a conflict only by a rival that rolled back or, of a different request, never.
        if (outcome !== "conflict") assert.equal((outcome as { jobId: string }).jobId, jobs[0]?.id);
        else assert.fail(`caller ${index} of the winning request was told of a conflict`);
      } else {
        assert.equal(outcome, "conflict", `caller ${index}`);
      }
    }
  }
});

Deno.test("batches with the same keys in opposite order do not deadlock, and agree on every job", async () => {
  await using database = await openTestDatabase();
  await using storm = openStorm(database.url, 8);
  const [one, two] = [newId(), newId()];
  for (let round = 0; round < 10; round++) {
    const batch = Array.from({ length: 12 }, (_, index) => {
      const scope = [{}, { organizationId: one }, { organizationId: two }][index % 3] ?? {};
      return request({ idempotencyKey: `${round}:${index}`, jobType: index % 2 === 0 ? "a" : "b", ...scope });
    });
    const answers = await Promise.all(storm.pools.map(async (sql, index) => {
      const isReversed = index % 2 === 1;
      const jobs = await enqueueJobs(sql, isReversed ? batch.toReversed() : batch);
      const ids = jobs.map(({ jobId }) => jobId);
      return isReversed ? ids.toReversed() : ids;
    }));
    for (const ids of answers) assert.deepEqual(ids, answers[0]);
  }
  assert.equal(await countJobs(database.sql), 120);
});

/** Connections of their own, each a rival of the others, already open. */
function openStorm(url: string, count: number): AsyncDisposable & { readonly pools: readonly Sql[] } {
  const pools = Array.from({ length: count }, () => postgres(url, { max: 1, onnotice: () => {} }));
  return {
    pools,
    async [Symbol.asyncDispose]() {
      await Promise.all(pools.map((sql) => sql.end({ timeout: 1 })));
    },
  };
}
