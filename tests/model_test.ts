import assert from "node:assert/strict";
import process from "node:process";
import type { JobLease } from "@runledger/core";
import {
  atomically,
  enqueueJob,
  getJob,
  heartbeatJobs,
  recordJobProgress,
  releaseJobs,
  settleJob,
} from "@runledger/postgres";
import type { ClaimedJob } from "@runledger/postgres";
import fc from "fast-check";
import type postgres from "postgres";
import { perform } from "./model/operation.ts";
import type { Operation, OperationResult } from "./model/operation.ts";
import { intents, resolveIntent } from "./model/random_operation.ts";
import type { Intent } from "./model/random_operation.ts";
import {
  assertStoredJobs,
  defineModelTypes,
  emptyModel,
  expireLease,
  makeJobDue,
  readStoredJobs,
  removeAllJobs,
} from "./model/stored_jobs.ts";
import { claimOne, openTestDatabase, request } from "./support/database.ts";

/** How many sequences are tried; a nightly run may take thousands. */
const RUNS = Number(process.env["RUNLEDGER_MODEL_RUNS"] ?? 1000);
const SEED = Number(process.env["RUNLEDGER_MODEL_SEED"] ?? Date.now() % 2 ** 31);
/** Whether a failing sequence is made as short as possible; whoever only wants to know that there is one need not wait. */
const SHRINKS = process.env["RUNLEDGER_MODEL_SHRINK"] !== "0";
const MAX_STEPS = 60;

class RolledBack extends Error {}

Deno.test("every sequence of operations answers and stores what the reference model says", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  await defineModelTypes(sql);
  console.log(`model test: RUNLEDGER_MODEL_SEED=${SEED} RUNLEDGER_MODEL_RUNS=${RUNS}`);
  const steps = new Map<string, number>();
  const property = fc.asyncProperty(
    fc.array(intents, { minLength: 1, maxLength: MAX_STEPS, size: "max" }),
    (sequence) => runSequence(sql, sequence, steps),
  );
  await fc.assert(property, { seed: SEED, numRuns: RUNS, endOnFailure: !SHRINKS });
  await removeAllJobs(sql);
  console.log(`model test: ${[...steps].map(([kind, count]) => `${kind} ${count}`).sort().join(", ")}`);
});

Deno.test("a job that its handler calls off keeps the error of its last failure, as its ledger does", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  await enqueueJob(sql, request());
  const failure = { kind: "RETRYABLE", code: "test.failed", message: "no" } as const;
  await settleJob(sql, await claimOne(sql), { kind: "failed", failure, retryDelayMs: 0 });
  const job = await claimOne(sql);
  await settleJob(sql, job, { kind: "canceled" });
  assert.equal((await getJob(sql, job.jobId, { scope: "all" }))?.lastErrorCode, "test.failed");
});

Deno.test("a claim that has reported progress is not released, not even after a posted heartbeat", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  await enqueueJob(sql, request());
  const job = await claimOne(sql);
  await recordJobProgress(sql, job, { progress: { done: 1 } });
  await heartbeatJobs(sql, [job], { postsEvents: true });
  assert.deepEqual(await releaseJobs(sql, [job]), []);
});

/** Runs one sequence on an emptied database, comparing after each step. */
async function runSequence(sql: postgres.Sql, sequence: readonly Intent[], steps: Map<string, number>): Promise<void> {
  await removeAllJobs(sql);
  const model = emptyModel();
  const leases: JobLease[] = [];
  const trace: string[] = [];
  try {
    for (const intent of sequence) {
      const step = resolveIntent(intent, model, leases);
      trace.push(JSON.stringify(step) + (intent.isRolledBack ? " rolled back" : ""));
      if (step.step === "expire") await expireLease(sql, model, step.jobId);
      else if (step.step === "makeDue") await makeJobDue(sql, model, step.jobId);
      else if (intent.isRolledBack) {
        const result = await performAndUndo(sql, step.operation);
        model.clone().apply(step.operation, result);
      } else {
        const result = await perform(sql, step.operation);
        trace.push(`  ${JSON.stringify(result)}`);
        model.apply(step.operation, result);
        if (step.operation.op === "claim" && "value" in result) leases.push(...result.value as readonly ClaimedJob[]);
      }
      assertStoredJobs(await readStoredJobs(sql), model);
      const kind = step.step === "operation" ? step.operation.op : step.step;
      steps.set(kind, (steps.get(kind) ?? 0) + 1);
    }
  } catch (error) {
    throw new Error(`the database differs from the model after:\n${trace.join("\n")}`, { cause: error });
  }
}

/** Runs an operation in a transaction that is rolled back: its answer counts, what it wrote does not. */
async function performAndUndo(sql: postgres.Sql, operation: Operation): Promise<OperationResult> {
  let result: OperationResult | undefined;
  await assert.rejects(
    atomically(sql, async (tx) => {
      result = await perform(tx, operation);
      throw new RolledBack();
    }),
    RolledBack,
  );
  assert(result !== undefined);
  return result;
}
