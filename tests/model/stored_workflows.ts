/**
 * The runs that the database holds, read in one statement and compared with the model.
 *
 * @module
 */

import assert from "node:assert/strict";
import { isTerminalWorkflowStepStatus } from "@runledger/core";
import type { JsonValue } from "@runledger/core";
import type postgres from "postgres";
import { assertStoredJobs, readStoredJobs, removeAllJobs } from "./stored_jobs.ts";
import { WorkflowModel } from "./workflow_model.ts";
import type { KnownIds, ModelRun, ModelStep } from "./workflow_model.ts";

const READ = `
select coalesce(jsonb_agg(stored.run), '[]')::text as runs
from (
  select to_jsonb(run) - 'enqueue_request' || jsonb_build_object(
    'metadata', run.enqueue_request -> 'metadata',
    'steps', (
      select jsonb_agg(
        to_jsonb(step) || jsonb_build_object(
          'has_output', step.output is not null,
          'is_overdue', step.gate_expires_at <= clock_timestamp(),
          'message_of_job', job.last_error_message,
          'edges', coalesce(
            (
              select jsonb_agg(prerequisite.step_key || ' ' || edge.release_mode)
              from runledger.workflow_step_dependencies as edge
              join runledger.workflow_steps as prerequisite on prerequisite.id = edge.prerequisite_step_id
              where edge.dependent_step_id = step.id
            ),
            '[]'
          )
        )
      )
      from runledger.workflow_steps as step
      left join runledger.job_queue as job on job.id = step.id
      where step.run_id = run.id
    ),
    'mutations', (
      select coalesce(jsonb_agg(mutation.mutation_key order by mutation.occurred_at), '[]')
      from runledger.workflow_run_mutations as mutation
      where mutation.run_id = run.id
    )
  ) as run
  from runledger.workflow_runs as run
) as stored
`;

interface StoredStep {
  readonly id: string;
  readonly step_key: string;
  readonly edges: readonly string[];
  readonly [column: string]: JsonValue;
}

interface StoredRun {
  readonly id: string;
  readonly steps: readonly StoredStep[];
  readonly mutations: readonly string[];
  readonly [column: string]: unknown;
}

/** Everything that is stored: the runs, and the jobs of their steps and others. */
export class StoredWorkflows implements KnownIds {
  readonly #runs: ReadonlyMap<string, StoredRun>;
  readonly #jobs: Awaited<ReturnType<typeof readStoredJobs>>;
  readonly #stepIds: Map<string, string> = new Map();

  constructor(runs: readonly StoredRun[], jobs: Awaited<ReturnType<typeof readStoredJobs>>) {
    this.#runs = new Map(runs.map((run) => [run.id, run]));
    this.#jobs = jobs;
    for (const { id, steps } of runs) for (const step of steps) this.#stepIds.set(`${id} ${step.step_key}`, step.id);
  }

  stepId(runId: string, stepKey: string): string {
    const stepId = this.#stepIds.get(`${runId} ${stepKey}`);
    assert(stepId !== undefined, `step ${stepKey} is not stored`);
    return stepId;
  }

  hasRun(runId: string): boolean {
    return this.#runs.has(runId);
  }

  /**
   * Checks that what is stored is what the model says, and that each ledger replays to its row.
   *
   * @throws {assert.AssertionError} It is not.
   */
  assertAs(model: WorkflowModel): void {
    assertStoredJobs(this.#jobs, model.jobs);
    assert.deepEqual([...this.#runs.keys()].sort(), [...model.runs.keys()].sort(), "the runs that are there");
    for (const [runId, stored] of this.#runs) {
      const run = model.runs.get(runId);
      assert(run !== undefined);
      assertStoredRun(stored, run, model);
    }
  }
}

/** Reads everything. */
export async function readStoredWorkflows(
  sql: Pick<postgres.Sql, "unsafe">,
): Promise<StoredWorkflows> {
  const [row] = await sql.unsafe(READ, [], { prepare: true });
  return new StoredWorkflows(JSON.parse(row?.["runs"] as string) as readonly StoredRun[], await readStoredJobs(sql));
}

/** The model of empty tables with the job types of models. */
export function emptyWorkflowModel(): WorkflowModel {
  return new WorkflowModel({
    a: { priority: 0, maxAttempts: 3, isEnabled: true },
    b: { priority: 1, maxAttempts: 2, isEnabled: true },
  });
}

function assertStoredRun(stored: StoredRun, run: ModelRun, model: WorkflowModel): void {
  const { request, recovery } = run;
  const statuses = [...run.steps.values()].map(({ status }) => status);
  const count = (...wanted: readonly string[]) => statuses.filter((status) => wanted.includes(status)).length;
  const facts = {
    type: stored["workflow_type"],
    organizationId: stored["organization_id"],
    status: stored["status"],
    counters: [stored["step_count"], stored["open_count"], stored["waiting_count"], stored["unsuccessful_count"]],
    isFinished: stored["finished_at"] !== null,
    idempotencyKey: stored["idempotency_key"],
    activeKey: stored["active_key"],
    recovery: [stored["recovery_of_run_id"], stored["recovery_key"], stored["recovery_mode"]],
    reason: stored["status_reason"],
    metadata: stored["metadata"],
    steps: stored.steps.map(({ step_key }) => step_key).sort(),
    mutations: stored.mutations,
  };
  assert.deepEqual(facts, {
    type: request.workflowType,
    organizationId: request.organizationId ?? null,
    status: model.status(run),
    counters: [
      statuses.length,
      count("BLOCKED", "ENQUEUED"),
      count("WAITING_FOR_EXTERNAL"),
      count("FAILED", "CANCELED"),
    ],
    isFinished: run.finishedAt !== undefined,
    idempotencyKey: request.idempotencyKey ?? null,
    activeKey: request.activeKey ?? null,
    recovery: [recovery?.runId ?? null, recovery?.key ?? null, recovery?.mode ?? null],
    reason: run.canceledFor ?? null,
    metadata: request.metadata,
    steps: [...run.steps.keys()].sort(),
    mutations: [...run.mutations.keys()],
  }, `run ${run.runId}`);
  for (const row of stored.steps) {
    const step = run.steps.get(row.step_key);
    assert(step !== undefined);
    assertStoredStep(row, step, { run, model });
  }
}

function assertStoredStep(
  row: StoredStep,
  step: ModelStep,
  { run, model }: { readonly run: ModelRun; readonly model: WorkflowModel },
): void {
  const { request, end } = step;
  const { pending, unsatisfied } = model.counts(run, step);
  const job = request.executionKind === "JOB" ? request : undefined;
  const timeout = request.executionKind === "EXTERNAL" ? request.timeout : undefined;
  // What a failed job said is with the job.
  const message = job === undefined || step.status !== "FAILED" ? end?.errorMessage ?? null : row["message_of_job"];
  const facts = {
    id: row.id,
    position: row["position"],
    status: row["status"],
    settings: [
      row["execution_kind"],
      row["job_type"],
      row["organization_id"],
      row["priority"],
      row["max_attempts"],
      row["stage"],
      row["allows_continuation"],
      row["payload"],
    ],
    gate: [row["gate_timeout_ms"], row["gate_outcome"], row["is_overdue"]],
    counters: [row["dependency_count"], row["pending_count"], row["unsatisfied_count"]],
    isReleased: row["released_at"] !== null,
    isFinished: row["finished_at"] !== null,
    reason: row["status_reason"],
    error: [row["last_error_code"], row["last_error_message"]],
    output: row["has_output"] === true ? [row["output"]] : [],
    edges: row.edges.toSorted(),
  };
  assert.deepEqual(facts, {
    id: step.stepId,
    position: step.position,
    status: step.status,
    settings: [
      request.executionKind,
      job?.jobType ?? null,
      request.organizationId ?? null,
      job?.priority ?? null,
      job?.maxAttempts ?? null,
      job === undefined ? null : job.stage ?? "queued",
      job?.allowsContinuation ?? false,
      request.payload,
    ],
    gate: [
      timeout?.afterMs ?? null,
      timeout?.outcome ?? null,
      step.gateEnd === undefined ? null : step.gateEnd < Infinity,
    ],
    counters: [request.dependencies.length, pending, unsatisfied],
    isReleased: step.wasReleased,
    isFinished: isTerminalWorkflowStepStatus(step.status),
    reason: end?.reason ?? null,
    error: [end?.errorCode ?? null, message],
    output: end?.output === undefined ? [] : [end.output],
    edges: request.dependencies.map((edge) => `${edge.prerequisiteStepKey} ${edge.releaseMode}`).sort(),
  }, `step ${request.stepKey} of run ${run.runId}`);
}

/** Removes every run and job: cheaper than another database, and only retention could do it otherwise. */
export async function removeAllRuns(sql: postgres.Sql): Promise<void> {
  // One text of several statements is one transaction.
  await sql.unsafe(`
    delete from runledger.workflow_step_dependencies;
    delete from runledger.workflow_steps;
    delete from runledger.workflow_run_mutations;
    delete from runledger.workflow_runs`).simple();
  await removeAllJobs(sql);
}

/** Lets the time of an open gate be over, in the database and in the model. */
export async function expireGate(
  sql: postgres.Sql,
  model: WorkflowModel,
  gate: { readonly runId: string; readonly stepKey: string },
): Promise<void> {
  await sql.unsafe(
    `update runledger.workflow_steps set gate_expires_at = clock_timestamp() - interval '1 microsecond'
     where run_id = $1::uuid and step_key = $2::text and gate_expires_at is not null`,
    [gate.runId, gate.stepKey],
    { prepare: true },
  );
  model.expireGate(gate.runId, gate.stepKey);
}
