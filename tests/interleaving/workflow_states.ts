/**
 * The states of two workflow runs in which operations meet, made once and put back before each order; and what is stored,
 * as a text that is equal for equal ends.
 *
 * @module
 */

import assert from "node:assert/strict";
import { newId } from "@runledger/core";
import type { JobLease, WorkflowRunRequest, WorkflowStepRequest } from "@runledger/core";
import {
  cancelWorkflowRun,
  claimJobs,
  completeExternalStep,
  enqueueWorkflowRun,
  recoverWorkflowRun,
  settleJob,
} from "@runledger/postgres";
import type postgres from "postgres";
import { expireLeases } from "../support/database.ts";

/**
 * Where the run `main` stands before the sessions begin. The run `other` is there in all of them, with its first step leased.
 *
 * - `none`: it is not there;
 * - `running`: its roots a and b are leased, the gate g is open;
 * - `overdue`: the same, with expired leases and a gate whose time is over;
 * - `last a`: all that the join waits for is a;
 * - `last end`: one step is left, and leased;
 * - `ended`: a failed, and it took its course;
 * - `canceled`: while a and b were leased;
 * - `recovered`: ended, and a live run took over what succeeded.
 */
export type WorkflowState =
  | "none"
  | "running"
  | "overdue"
  | "last a"
  | "last end"
  | "ended"
  | "canceled"
  | "recovered";

/** The ids in one state, and the leases that were given on the way. */
export interface WorkflowFixture {
  /** The schema that holds its rows. */
  readonly schema: string;
  readonly mainId: string;
  readonly otherId: string;
  /** By step key: a, b and end of main, o of other. */
  readonly leases: ReadonlyMap<string, JobLease>;
  /** What each id is called. */
  readonly names: ReadonlyMap<string, string>;
}

const TABLES = [
  "workflow_runs",
  "workflow_steps",
  "workflow_step_dependencies",
  "workflow_run_mutations",
  "job_queue",
  "job_events",
  "job_dead_letters",
];

const ALL = { scope: "all" } as const;
const DAY_MS = 86_400_000;

function step(stepKey: string, jobType: string | undefined, after: readonly string[]): WorkflowStepRequest {
  const dependencies = after.map((key) => ({
    prerequisiteStepKey: key.replace("*", ""),
    releaseMode: key.endsWith("*") ? "ON_TERMINAL" : "ON_SUCCESS",
  } as const));
  if (jobType !== undefined) {
    // One attempt, so that the end of a lease is the end of the step; b may be tried again.
    const maxAttempts = stepKey === "b" ? 2 : 1;
    return { executionKind: "JOB", stepKey, jobType, payload: stepKey, maxAttempts, dependencies };
  }
  const timeout = { afterMs: DAY_MS, outcome: "SUCCEEDED", output: "assumed" } as const;
  return { executionKind: "EXTERNAL", stepKey, payload: null, dependencies, ...(stepKey === "g" ? { timeout } : {}) };
}

/** A join, a gate among its roots, a gate behind a step, and an end that comes whatever happens to the join. */
export const MAIN: WorkflowRunRequest = {
  workflowType: "main",
  metadata: {},
  idempotencyKey: "i",
  activeKey: "k",
  steps: [
    step("a", "a", []),
    step("b", "a", []),
    step("g", undefined, []),
    step("join", "b", ["a", "b"]),
    step("open", undefined, ["a*"]),
    step("end", "b", ["join*", "g"]),
  ],
};

const OTHER: WorkflowRunRequest = {
  workflowType: "other",
  metadata: {},
  steps: [step("o", "a", []), step("p", "b", ["o"])],
};

/** Makes a state by the library's own operations and keeps its rows. */
export async function makeState(sql: postgres.Sql, state: WorkflowState): Promise<WorkflowFixture> {
  await removeAll(sql);
  const leases = new Map<string, JobLease>();
  const claim = async () => {
    for (const job of await claimJobs(sql, { jobTypes: ["a", "b"], workerId: "w", limit: 100, leaseMs: DAY_MS })) {
      leases.set(job.workflow?.stepKey ?? "", job);
    }
  };
  const succeed = async (...stepKeys: readonly string[]) => {
    for (const stepKey of stepKeys) {
      await settleJob(sql, leaseOf(leases, stepKey), { kind: "succeeded", output: stepKey });
    }
  };
  const complete = async (stepKey: string) => {
    await completeExternalStep(sql, mainId, stepKey, { scope: "all", completion: { status: "SUCCEEDED" } });
  };
  // Main first, so that it has the lower id.
  const mainId = state === "none" ? newId() : (await enqueueWorkflowRun(sql, MAIN)).runId;
  const { runId: otherId } = await enqueueWorkflowRun(sql, OTHER);
  await claim();
  if (state === "overdue") {
    await expireLeases(sql, leaseOf(leases, "a").jobId);
    await expireLeases(sql, leaseOf(leases, "b").jobId);
    await sql`
      update runledger.workflow_steps set gate_expires_at = clock_timestamp() where gate_expires_at is not null`;
  } else if (state === "last a") {
    await succeed("b");
    await complete("g");
  } else if (state === "last end") {
    await succeed("a", "b");
    await complete("open");
    await complete("g");
    await claim();
    await succeed("join");
    await claim();
  } else if (state === "ended" || state === "recovered") {
    await settleJob(sql, leaseOf(leases, "a"), FAILURE);
    await succeed("b");
    await complete("open");
    await complete("g");
    await claim();
    await succeed("end");
    if (state === "recovered") {
      await recoverWorkflowRun(sql, mainId, { scope: "all", recoveryKey: "r", mode: "RESUME" });
    }
  } else if (state === "canceled") {
    await cancelWorkflowRun(sql, mainId, ALL);
  }
  const names = new Map([[mainId, "main"], [otherId, "other"]]);
  const steps = await sql`
    select id, step_key from runledger.workflow_steps where run_id in (${mainId}, ${otherId})`;
  for (const { id, step_key } of steps) names.set(id, step_key);
  for (const [stepKey, { leaseToken }] of leases) names.set(leaseToken, `token of ${stepKey}`);
  // Who calls with a lease that nobody was given is told so in every order.
  for (const stepKey of ["a", "b", "end"]) {
    if (!leases.has(stepKey)) leases.set(stepKey, { jobId: newId(), runNumber: 1, attempt: 1, leaseToken: newId() });
  }
  const schema = `kept_${state.replace(" ", "_")}`;
  const keep = TABLES.map((table) => `create table ${schema}.${table} as table runledger.${table};`);
  await sql.unsafe(`create schema ${schema}; ${keep.join(" ")}`).simple();
  return { schema, mainId, otherId, leases, names };
}

/** How a step fails for good. */
export const FAILURE = {
  kind: "failed",
  failure: { kind: "TERMINAL", code: "test.failed", message: "no" },
} as const;

/** The lease of a step. */
export function leaseOf(leases: ReadonlyMap<string, JobLease>, stepKey: string): JobLease {
  const lease = leases.get(stepKey);
  assert(lease !== undefined, `step ${stepKey} has no lease`);
  const { jobId, runNumber, attempt, leaseToken, workflowRunId } = lease;
  return { jobId, runNumber, attempt, leaseToken, ...(workflowRunId === undefined ? {} : { workflowRunId }) };
}

const REMOVE = `
select set_config('runledger.retention', 'on', true);
${TABLES.map((table) => `delete from runledger.${table};`).join(" ")}`;

async function removeAll(sql: postgres.Sql): Promise<void> {
  await sql.unsafe(REMOVE).simple();
}

/** Puts the rows of a state back. */
export async function restoreState(sql: postgres.Sql, { schema }: WorkflowFixture): Promise<void> {
  // One text of several statements is one transaction.
  const fill = TABLES.map((table) => `insert into runledger.${table} table ${schema}.${table};`);
  await sql.unsafe(`${REMOVE} ${fill.join(" ")}`).simple();
}

const READ = `
select coalesce(jsonb_agg(stored.run order by stored.run::text), '[]')::text as runs
from (
  select jsonb_build_array(
    run.workflow_type, run.status, run.idempotency_key, run.active_key, run.recovery_key, run.recovery_mode,
    run.step_count, run.open_count, run.waiting_count, run.unsuccessful_count, run.status_reason,
    run.finished_at is not null, run.recovery_of_run_id,
    (
      select jsonb_agg(jsonb_build_array(
        step.step_key, step.position, step.status, step.dependency_count, step.pending_count, step.unsatisfied_count,
        step.released_at is not null, step.finished_at is not null, step.gate_expires_at is not null,
        step.status_reason, step.last_error_code, step.output, job.status, job.stage, job.attempt, job.output,
        job.status_reason, job.last_error_code, job.lease_expires_at is not null, job.progress_done,
        (select jsonb_agg(event.event_type order by event.seq) from runledger.job_events as event where event.job_id = step.id),
        (select count(*) from runledger.job_logs as line where line.job_id = step.id),
        (
          select jsonb_agg(prerequisite.step_key || ' ' || edge.release_mode order by prerequisite.step_key)
          from runledger.workflow_step_dependencies as edge
          join runledger.workflow_steps as prerequisite on prerequisite.id = edge.prerequisite_step_id
          where edge.dependent_step_id = step.id
        )
      ) order by step.step_key)
      from runledger.workflow_steps as step
      left join runledger.job_queue as job on job.id = step.id
      where step.run_id = run.id
    ),
    (
      select jsonb_agg(mutation.mutation_key || ' ' || mutation.request::text order by mutation.mutation_key)
      from runledger.workflow_run_mutations as mutation
      where mutation.run_id = run.id
    )
  ) as run
  from runledger.workflow_runs as run
) as stored
`;

/** What is stored, without ids and times. */
export async function readStored(sql: postgres.Sql, fixture: WorkflowFixture): Promise<string> {
  const [row] = await sql.unsafe(READ, [], { prepare: true });
  return withNames(row?.["runs"], fixture);
}

/** Replaces ids by names and times by a word, so that what two runs answered can be compared. */
export function withNames(text: string, { names }: WorkflowFixture): string {
  return text
    .replaceAll(/[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}/g, (id) => names.get(id) ?? "new")
    .replaceAll(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, "time");
}
