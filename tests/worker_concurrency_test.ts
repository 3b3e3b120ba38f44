/**
 * How many handlers run at once, and in which order.
 *
 * @module
 */

import { defineJob } from "@runledger/core";
import { enqueueJobs } from "@runledger/postgres";
import { JobCatalog } from "@runledger/runtime";
import fc from "fast-check";
import assert from "node:assert/strict";
import { z } from "zod";
import { openTestDatabase } from "./support/database.ts";
import { endedJobs, enqueue, faultyDatabase, gate, startWorker } from "./support/worker_harness.ts";

/** How a handler of the property behaves. */
const BEHAVIOURS: Readonly<Record<string, () => unknown>> = {
  "returns at once": () => undefined,
  "throws at once": () => {
    throw new Error("no");
  },
  "gives way once": () => Promise.resolve(),
  "waits for the event loop": () => new Promise<void>((resolve) => setTimeout(resolve, 0)),
  "waits a few milliseconds": () => new Promise<void>((resolve) => setTimeout(resolve, 3)),
  "rejects later": () => new Promise((_resolve, reject) => setTimeout(() => reject(new Error("late")), 1)),
};

Deno.test("handlers that run are never more than maxGlobalConcurrency, and every job runs once", async () => {
  await using db = await openTestDatabase();
  const behaviour = fc.constantFrom(...Object.keys(BEHAVIOURS));
  let round = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.array(behaviour, { minLength: 1, maxLength: 120 }),
      fc.integer({ min: 1, max: 12 }),
      fc.integer({ min: 1, max: 40 }),
      async (behaviours, maxGlobalConcurrency, claimBatchSize) => {
        const job = defineJob({ type: `round.${round++}`, maxAttempts: 1 });
        let running = 0;
        let most = 0;
        const runs = behaviours.map(() => 0);
        const catalog = new JobCatalog().handle(job, async (payload) => {
          const index = Number(payload);
          runs[index] = (runs[index] ?? 0) + 1;
          most = Math.max(most, ++running);
          try {
            await BEHAVIOURS[behaviours[index] ?? ""]?.();
          } finally {
            running--;
          }
        });
        await catalog.sync(db.sql);
        await enqueueJobs(db.sql, behaviours.map((_, index) => job.request(index)));
        const ended = endedJobs(catalog, behaviours.length);
        await using worker = startWorker(db.sql, catalog, { config: { maxGlobalConcurrency, claimBatchSize } });
        await ended;
        assert.deepEqual(await worker.stop(), { drained: 0, aborted: 0, handedBack: 0, left: [] });
        assert.ok(most <= maxGlobalConcurrency, `${most} ran at once`);
        assert.deepEqual(runs, behaviours.map(() => 1));
      },
    ),
    { numRuns: 15 },
  );
});

Deno.test("claiming ahead starts no handler early, and wastes no claim", async () => {
  await using db = await openTestDatabase();
  const job = defineJob({ type: "quick", payload: z.number() });
  const jobs = 3000;
  let running = 0;
  let most = 0;
  const catalog = new JobCatalog().handle(job, async () => {
    most = Math.max(most, ++running);
    await new Promise<void>((resolve) => setTimeout(resolve, 0));
    running--;
  });
  await catalog.sync(db.sql);
  await enqueueJobs(db.sql, Array.from({ length: jobs }, (_, n) => job.request(n)));
  const ended = endedJobs(catalog, jobs);
  await using worker = startWorker(db.sql, catalog, { config: { maxGlobalConcurrency: 5, claimBatchSize: 16 } });
  await ended;
  await worker.stop();
  assert.equal(most, 5);
  const [row] = await db.sql`select count(*)::integer as claims from runledger.job_events where event_type = 'LEASED'`;
  assert.equal(row?.claims, jobs);
});

Deno.test("the jobs of a full claim start when the next one is on its way", async () => {
  await using db = await openTestDatabase();
  const job = defineJob({ type: "piped" });
  const seen: string[] = [];
  const catalog = new JobCatalog().handle(job, () => {
    seen.push("job");
    started.open();
  });
  await catalog.sync(db.sql);
  await enqueueJobs(db.sql, Array.from({ length: 5 }, () => job.request(null)));
  const watched = faultyDatabase(db.sql);
  const started = gate();
  watched.onStatement = (text) => {
    if (!text.includes("runledger.claim_jobs(")) return undefined;
    seen.push("claim");
    // However slow this process is, the second claim is answered after that.
    return seen.length === 2 ? started.opened : undefined;
  };
  const ended = endedJobs(catalog, 5);
  await using worker = startWorker(watched, catalog, { config: { maxGlobalConcurrency: 10, claimBatchSize: 2 } });
  await ended;
  await worker.stop();
  assert.deepEqual(seen.slice(0, 5), ["claim", "claim", "job", "job", "claim"]);
});

Deno.test("a handler of many jobs runs on every slot at once", async () => {
  await using db = await openTestDatabase();
  const job = defineJob({ type: "together" });
  const all = gate();
  let running = 0;
  const catalog = new JobCatalog().handle(job, async () => {
    if (++running === 40) all.open();
    await all.opened; // never, if one slot is not filled
  });
  await catalog.sync(db.sql);
  await enqueueJobs(db.sql, Array.from({ length: 40 }, (_, n) => job.request(n)));
  const ended = endedJobs(catalog, 40);
  await using _worker = startWorker(db.sql, catalog, { config: { maxGlobalConcurrency: 40, claimBatchSize: 16 } });
  await ended;
});

Deno.test("jobs start by priority, highest first", async () => {
  await using db = await openTestDatabase();
  const job = defineJob({ type: "ordered" });
  const order: unknown[] = [];
  const catalog = new JobCatalog().handle(job, (payload) => void order.push(payload));
  await catalog.sync(db.sql);
  for (const priority of [0, 5, -3, 9]) await enqueue(db.sql, job.request(priority, { priority }));
  const ended = endedJobs(catalog, 4);
  await using _worker = startWorker(db.sql, catalog, { config: { maxGlobalConcurrency: 1 } });
  await ended;
  assert.deepEqual(order, [9, 5, 0, -3]);
});

Deno.test("two workers share a backlog, and no job runs twice", async () => {
  await using db = await openTestDatabase();
  const job = defineJob({ type: "shared" });
  const seen = new Map<unknown, number>();
  const workers = new Set<string>();
  const bothAtWork = gate();
  const catalog = new JobCatalog().handle(job, async (payload, context) => {
    seen.set(payload, (seen.get(payload) ?? 0) + 1);
    workers.add(context.workerId);
    if (workers.size === 2) bothAtWork.open();
    await bothAtWork.opened;
  });
  await catalog.sync(db.sql);
  await enqueueJobs(db.sql, Array.from({ length: 300 }, (_, n) => job.request(n)));
  const ended = endedJobs(catalog, 300);
  await using _first = startWorker(db.sql, catalog, { config: { workerId: "first" } });
  await using _second = startWorker(db.sql, catalog, { config: { workerId: "second" } });
  await ended;
  assert.equal(seen.size, 300);
  assert.ok([...seen.values()].every((runs) => runs === 1));
});
