/**
 * Everything that can happen to workflow runs, from several connections at once: no deadlock, and every invariant holds.
 *
 * @module
 */

import assert from "node:assert/strict";
import { isRunledgerError } from "@runledger/core";
import type { RunledgerErrorCode, WorkflowRunRequest, WorkflowStepRequest } from "@runledger/core";
import {
  cancelJob,
  cancelWorkflowRun,
  claimJobs,
  completeExternalStep,
  enqueueWorkflowRuns,
  expireWorkflowGates,
  heartbeatJobs,
  reapExpiredLeases,
  settleJobs,
} from "@runledger/postgres";
import type { ClaimedJob } from "@runledger/postgres";
import { openTestDatabase } from "./support/database.ts";

const RUNS = 150;
const CONNECTIONS = 6;

/** What a rival may be told truthfully. */
const EXPECTED: readonly RunledgerErrorCode[] = [
  "job.lease_owner_mismatch",
  "job.invalid_state_transition",
  "workflow.external_step_not_waiting",
  "workflow.external_step_conflicting_completion_retry",
];

/** A diamond with a gate on one side: a, then b and the gate g, then d. */
const RUN: WorkflowRunRequest = {
  workflowType: "storm",
  metadata: {},
  steps: [step("a", []), step("b", ["a"]), step("g", ["a"]), step("d", ["b", "g"])],
};

function step(stepKey: string, after: readonly string[]): WorkflowStepRequest {
  const dependencies = after.map((prerequisiteStepKey) => ({
    prerequisiteStepKey,
    releaseMode: stepKey === "d" ? "ON_TERMINAL" : "ON_SUCCESS",
  } as const));
  return stepKey === "g"
    ? { executionKind: "EXTERNAL", stepKey, payload: null, dependencies }
    : { executionKind: "JOB", stepKey, jobType: "a", payload: null, maxAttempts: 2, dependencies };
}

/** Numbers that look random and are the same in every run. */
function sequence(seed: number): () => number {
  let state = seed;
  return () => (state = (state * 1_103_515_245 + 12_345) % 2_147_483_648) / 2_147_483_648;
}

async function tolerate(work: Promise<unknown>): Promise<void> {
  await work.catch((error: unknown) => {
    if (!EXPECTED.some((code) => isRunledgerError(error, code))) throw error;
  });
}

Deno.test("runs that are settled, cancelled, reaped and completed from all sides at once never deadlock", async () => {
  await using database = await openTestDatabase({ max: CONNECTIONS + 2 });
  const { sql } = database;
  const runIds = (await enqueueWorkflowRuns(sql, Array.from({ length: RUNS }, () => RUN))).map(({ runId }) => runId);
  const [before] = await sql`select deadlocks::integer from pg_stat_database where datname = current_database()`;
  let settled = 0;
  let isOver = false;
  const at = (random: () => number) => runIds[Math.floor(random() * RUNS)] as string;

  const work = async (seed: number) => {
    const random = sequence(seed);
    for (let idle = 0; idle < 20;) {
      const jobs = await claimJobs(sql, { jobTypes: ["a"], workerId: `w${seed}`, limit: 1 + Math.floor(random() * 9) });
      idle = jobs.length === 0 ? idle + 1 : 0;
      if (random() < 0.1) continue; // as if the worker had died: the reaper finds them
      if (random() < 0.3) await heartbeatJobs(sql, jobs);
      const results = await settleJobs(sql, jobs.map((lease) => ({ lease, outcome: outcomeOf(lease, random()) })));
      settled += results.filter((result) => result.settled).length;
    }
  };
  const disturb = async (seed: number) => {
    const random = sequence(seed);
    while (!isOver) {
      const runId = at(random);
      const dice = random();
      if (dice < 0.02) await tolerate(cancelWorkflowRun(sql, runId, { scope: "all" }));
      else if (dice < 0.7) {
        const status = random() < 0.8 ? "SUCCEEDED" : "FAILED";
        await tolerate(completeExternalStep(sql, runId, "g", { scope: "all", completion: { status } }));
      } else if (dice < 0.75) {
        const [job] = await sql`
          select id from runledger.job_queue where workflow_run_id = ${runId} order by id desc limit 1`;
        if (job !== undefined) await tolerate(cancelJob(sql, job["id"], { scope: "all" }));
      } else {
        await sql`
          update runledger.job_queue set lease_expires_at = clock_timestamp() - interval '1 microsecond'
          where status = 'LEASED' and id = (
            select id from runledger.job_queue
            where status = 'LEASED' and workflow_run_id = ${runId} limit 1 for update skip locked
          )`;
        await reapExpiredLeases(sql, { retryDelayMs: 1, limit: 5 });
        await expireWorkflowGates(sql);
      }
    }
  };
  const disturbers = Promise.all([disturb(101), disturb(102)]);
  await Promise.all(Array.from({ length: CONNECTIONS - 2 }, (_, n) => work(n + 1)));
  isOver = true;
  await disturbers;

  // Whatever is left is brought to its end, so that nothing can be blocked for ever.
  for (const runId of runIds) {
    const completion = { status: "SUCCEEDED" } as const;
    await tolerate(completeExternalStep(sql, runId, "g", { scope: "all", completion }));
  }
  const live = async () => {
    const [row] = await sql`
      select count(*)::integer as count from runledger.workflow_runs where status in ('RUNNING', 'WAITING_FOR_EXTERNAL')`;
    return row?.["count"];
  };
  for (let rounds = 0; rounds < 200 && await live() > 0; rounds++) {
    await sql`update runledger.job_queue set lease_expires_at = clock_timestamp() where status = 'LEASED'`;
    await reapExpiredLeases(sql, { retryDelayMs: 1, limit: 1000 });
    const jobs = await claimJobs(sql, { jobTypes: ["a"], workerId: "last", limit: 500 });
    await settleJobs(sql, jobs.map((lease) => ({ lease, outcome: { kind: "succeeded" } })));
    for (const runId of runIds) {
      const completion = { status: "SUCCEEDED" } as const;
      await tolerate(completeExternalStep(sql, runId, "g", { scope: "all", completion }));
    }
  }
  assert.equal(await live(), 0, "every run ends");
  assert(settled > RUNS);
  const [after] = await sql`select deadlocks::integer from pg_stat_database where datname = current_database()`;
  assert.equal(after?.["deadlocks"], before?.["deadlocks"], "PostgreSQL reports no deadlock");
});

function outcomeOf(lease: ClaimedJob, dice: number): Parameters<typeof settleJobs>[1][number]["outcome"] {
  if (dice < 0.7) return { kind: "succeeded", output: lease.workflow?.stepKey ?? null };
  const kind = dice < 0.8 ? "TERMINAL" : "RETRYABLE";
  return { kind: "failed", failure: { kind, code: "storm.hit", message: "" }, retryDelayMs: 0 };
}
