/**
 * The workflow of the demo: an invoice is fetched, validated and charged, somebody approves, and the customer is told.
 *
 * @module
 */

import { defineJob, isTerminalWorkflowRunStatus, WorkflowDagBuilder } from "@runledger/core";
import { completeExternalStep, enqueueWorkflowRun, getWorkflowRun, listWorkflowSteps } from "@runledger/postgres";
import type { Queryable } from "@runledger/postgres";
import type { JobCatalog } from "@runledger/runtime";
import { setTimeout as delay } from "node:timers/promises";
import { z } from "zod";
import type { Act } from "./acts.ts";
import type { Read } from "./database.ts";

const Invoice = z.object({ invoiceId: z.string() });

const fetchInvoice = defineJob({ type: "demo.invoice_fetch", payload: Invoice, timeoutSeconds: 30 });
const validate = defineJob({ type: "demo.invoice_validate", payload: Invoice });
const charge = defineJob({
  type: "demo.invoice_charge",
  payload: Invoice,
  output: z.object({ chargeId: z.string() }),
  maxAttempts: 5,
  timeoutSeconds: 15,
  retry: { kind: "fixed", delayMs: 250 },
});
const notify = defineJob({ type: "demo.invoice_notify", payload: Invoice });

/**
 * Adds the handlers of the invoice's steps.
 *
 * @param catalog The catalog of the demo's worker.
 * @returns The same catalog.
 */
export function handleInvoice(catalog: JobCatalog): JobCatalog {
  const work = (ms: number, signal: AbortSignal) => delay(ms, undefined, { signal });
  return catalog
    .handle(fetchInvoice, async (_payload, { signal }) => void await work(140, signal))
    .handle(validate, async (_payload, { signal }) => void await work(60, signal))
    .handle(charge, async ({ invoiceId }, { signal, attempt }) => {
      await work(80, signal);
      if (attempt === 1) throw new Error("the payment provider was busy");
      return { chargeId: `charge-of-${invoiceId}` };
    })
    .handle(notify, async (_payload, { signal }) => void await work(50, signal));
}

/** The run that the demo shows at its end. */
export interface InvoiceRun {
  /** The run; undefined until it is enqueued. */
  runId: string | undefined;
}

/**
 * The act of the invoice.
 *
 * @param shown Is told the run.
 * @returns The act.
 */
export function invoiceAct(shown: InvoiceRun): Act {
  return {
    title: "an invoice workflow: fetch, validate, charge, an approval, notify",
    enqueue: async (db) => {
      const invoiceId = `INV-${Date.now()}`;
      const run = new WorkflowDagBuilder("invoice.process", { source: "demo" })
        .idempotencyKey(invoiceId)
        .job("fetch", fetchInvoice.request({ invoiceId }))
        .job("validate", validate.request({ invoiceId })).afterSuccess("validate", ["fetch"])
        .job("charge", charge.request({ invoiceId })).afterSuccess("charge", ["validate"])
        .external("approval").afterSuccess("approval", ["charge"])
        .job("notify", notify.request({ invoiceId })).afterSuccess("notify", ["approval"])
        .build();
      const { runId } = await enqueueWorkflowRun(db, run);
      shown.runId = runId;
      const { items: steps } = await listWorkflowSteps(db, runId, { scope: "global" });
      return steps.filter(({ executionKind }) => executionKind === "JOB")
        .map(({ stepId, stepKey }) => ({ jobId: stepId, label: `invoice ${stepKey}` }));
    },
    meanwhile: async (db, signal) => {
      if (shown.runId !== undefined) await approve(db, shown.runId, signal);
    },
  };
}

/** Stands for the person who approves: looks whether the gate is open, and completes it after some thought. */
async function approve(db: Queryable, runId: string, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    const run = await getWorkflowRun(db, runId, { scope: "global" });
    if (run === undefined || isTerminalWorkflowRunStatus(run.status)) return;
    if (run.waitingCount > 0) {
      await delay(300, undefined, { signal });
      const completion = { status: "SUCCEEDED", output: { approvedBy: "grace" } } as const;
      await completeExternalStep(db, runId, "approval", { scope: "global", completion });
      return;
    }
    await delay(50, undefined, { signal });
  }
}

/**
 * Reads the run from the view that anybody with psql has, one row a step, and writes it for people.
 *
 * @param read How to read.
 * @param runId The run.
 * @returns The lines.
 */
export async function renderStepRuns(read: Read, runId: string): Promise<string> {
  const rows = await read<StepRun>(
    `
    select row_number() over (order by posted_at, position)::integer as number,
      to_char(posted_at at time zone 'UTC', 'HH24:MI:SS.MS') as posted, workflow, step, position, step_count, status,
      (extract(epoch from duration) * 1000)::integer as duration_ms
    from runledger.workflow_step_runs
    where run_id = $1::uuid
    order by posted_at, position`,
    [runId],
  );
  const lines = rows.map((row) => [
    String(row.number).padStart(4, "0"),
    row.posted,
    row.workflow,
    `${row.step} ${row.position}/${row.step_count}`,
    row.status.toLowerCase(),
    row.duration_ms === null ? "" : `${row.duration_ms} ms`,
  ]);
  const table = [["№", "posted", "workflow", "step", "status", "duration"], ...lines];
  const widths = [0, 1, 2, 3, 4].map((column) => Math.max(...table.map((line) => line[column]?.length ?? 0)));
  return table.map((line) => line.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join("  ").trimEnd())
    .join("\n");
}

interface StepRun {
  readonly number: number;
  readonly posted: string;
  readonly workflow: string;
  readonly step: string;
  readonly position: number;
  readonly step_count: number;
  readonly status: string;
  readonly duration_ms: number | null;
}
