import assert from "node:assert/strict";
import process from "node:process";
import type { JobLease } from "@runledger/core";
import type { ClaimedJob } from "@runledger/postgres";
import fc from "fast-check";
import type postgres from "postgres";
import type { OperationResult } from "./model/operation.ts";
import { resolveWorkflowIntent, workflowIntents } from "./model/random_workflow.ts";
import type { WorkflowIntent } from "./model/random_workflow.ts";
import { defineModelTypes, expireLease, makeJobDue } from "./model/stored_jobs.ts";
import { emptyWorkflowModel, expireGate, readStoredWorkflows, removeAllRuns } from "./model/stored_workflows.ts";
import type { StoredWorkflows } from "./model/stored_workflows.ts";
import { performWorkflow } from "./model/workflow_operation.ts";
import type { WorkflowOperation } from "./model/workflow_operation.ts";
import { assertInvariants, openTestDatabase } from "./support/database.ts";

/** How many sequences are tried; a nightly run may take thousands. */
const RUNS = Number(process.env["RUNLEDGER_MODEL_RUNS"] ?? 100);
const SEED = Number(process.env["RUNLEDGER_MODEL_SEED"] ?? Date.now() % 2 ** 31);
/** Whether a failing sequence is made as short as possible; whoever only wants to know that there is one need not wait. */
const SHRINKS = process.env["RUNLEDGER_MODEL_SHRINK"] !== "0";
const MAX_STEPS = 100;

class RolledBack extends Error {}

Deno.test("every sequence of operations on workflow runs answers and stores what the reference model says", async () => {
  // Each sequence checks the invariants, and tells what led to one that is broken.
  await using database = await openTestDatabase({ checks: false });
  const { sql } = database;
  await defineModelTypes(sql);
  console.log(`workflow model: RUNLEDGER_MODEL_SEED=${SEED} RUNLEDGER_MODEL_RUNS=${RUNS}`);
  const seen = new Map<string, number>();
  const property = fc.asyncProperty(
    fc.array(workflowIntents, { minLength: 1, maxLength: MAX_STEPS, size: "max" }),
    (sequence) => runSequence(sql, sequence, seen),
  );
  await fc.assert(property, { seed: SEED, numRuns: RUNS, endOnFailure: !SHRINKS });
  await removeAllRuns(sql);
  console.log(`workflow model: ${[...seen].map(([what, count]) => `${what} ${count}`).sort().join(", ")}`);
});

/** Runs one sequence on emptied tables, comparing after each step. */
async function runSequence(
  sql: postgres.Sql,
  sequence: readonly WorkflowIntent[],
  seen: Map<string, number>,
): Promise<void> {
  await removeAllRuns(sql);
  const model = emptyWorkflowModel();
  const leases: JobLease[] = [];
  const trace: string[] = [];
  const note = (what: string): Map<string, number> => seen.set(what, (seen.get(what) ?? 0) + 1);
  try {
    for (const intent of sequence) {
      const step = resolveWorkflowIntent(intent, model, leases);
      trace.push(JSON.stringify(step) + (intent.isRolledBack ? " rolled back" : ""));
      if (step.step === "expireLease") await expireLease(sql, model.jobs, step.jobId);
      else if (step.step === "makeDue") await makeJobDue(sql, model.jobs, step.jobId);
      else if (step.step === "expireGate") await expireGate(sql, model, step);
      else if (intent.isRolledBack) {
        const { result, stored } = await performAndUndo(sql, step.operation);
        const undone = model.clone();
        undone.apply(step.operation, result, stored);
        stored.assertAs(undone);
      } else {
        const result = await performWorkflow(sql, step.operation);
        trace.push(`  ${JSON.stringify(result)}`);
        const stored = await readStoredWorkflows(sql);
        model.apply(step.operation, result, stored);
        stored.assertAs(model);
        if (step.operation.op === "claim" && "value" in result) leases.push(...result.value as readonly ClaimedJob[]);
        note("refused" in result ? `${step.operation.op} ${result.refused}` : step.operation.op);
      }
    }
    (await readStoredWorkflows(sql)).assertAs(model);
    await assertInvariants(sql);
    for (const run of model.runs.values()) note(`[${model.status(run)}]`);
  } catch (error) {
    throw new Error(`the database differs from the model after:\n${trace.join("\n")}`, { cause: error });
  }
}

/** Runs an operation in a transaction that is rolled back: its answer counts, and what it wrote is seen in it alone. */
async function performAndUndo(
  sql: postgres.Sql,
  operation: WorkflowOperation,
): Promise<{ readonly result: OperationResult; readonly stored: StoredWorkflows }> {
  let undone: { readonly result: OperationResult; readonly stored: StoredWorkflows | undefined } | undefined;
  await assert.rejects(
    sql.begin(async (tx) => {
      const result = await performWorkflow(tx, operation);
      // Some refusals undo what was written: the transaction is of no more use.
      undone = { result, stored: "value" in result ? await readStoredWorkflows(tx) : undefined };
      throw new RolledBack();
    }),
    RolledBack,
  );
  assert(undone !== undefined);
  return { result: undone.result, stored: undone.stored ?? await readStoredWorkflows(sql) };
}
