/**
 * A workflow: an invoice is fetched, validated and charged, waits for somebody's approval, and then the customer is told.
 *
 * Run: `deno run -A examples/invoice_workflow.ts`
 *
 * @module
 */

import { defineJob, WorkflowDagBuilder } from "@runledger/core";
import type { WorkflowPrerequisites } from "@runledger/core";
import { completeExternalStep, drawWorkflowRun, enqueueWorkflowRun } from "@runledger/postgres";
import { consoleLogger, JobCatalog, Supervisor } from "@runledger/runtime";
import { z } from "zod";
import { openDatabase } from "./support/database.ts";
import { waitForRun } from "./support/workflow.ts";

const Invoice = z.object({ invoiceId: z.string() });

const fetchInvoice = defineJob({ type: "invoice.fetch", payload: Invoice, output: z.object({ cents: z.number() }) });
const validate = defineJob({ type: "invoice.validate", payload: Invoice, output: z.object({ isValid: z.boolean() }) });
const charge = defineJob({
  type: "invoice.charge",
  payload: Invoice,
  output: z.object({ chargeId: z.string() }),
  maxAttempts: 5,
  timeoutSeconds: 15,
  retry: { kind: "fixed", delayMs: 50 },
});
const notify = defineJob({ type: "invoice.notify", payload: Invoice });

/** Declared in order, so that the compiler knows the keys: `afterSuccess("charge", ["fetchh"])` does not compile. */
const invoiceRun = (invoiceId: string) =>
  new WorkflowDagBuilder("invoice.process", { source: "example" })
    .idempotencyKey(`invoice:${invoiceId}`) // one run for each invoice, however often it is enqueued
    .job("fetch", fetchInvoice.request({ invoiceId }))
    .job("validate", validate.request({ invoiceId })).afterSuccess("validate", ["fetch"])
    .job("charge", charge.request({ invoiceId })).afterSuccess("charge", ["fetch", "validate"])
    .external("approval").afterSuccess("approval", ["charge"])
    .job("notify", notify.request({ invoiceId })).afterSuccess("notify", ["approval"])
    .resultStep("charge")
    .build(); // refuses cycles, unknown steps and settings that cannot be, here and now

const catalog = new JobCatalog()
  .handle(fetchInvoice, () => ({ cents: 4200 }))
  .handle(validate, () => ({ isValid: true }))
  .handle(charge, ({ invoiceId }, context) => {
    // What the direct prerequisites gave comes with the claim.
    const { fetch } = context.workflow?.prerequisites as WorkflowPrerequisites<
      ReturnType<typeof invoiceRun>,
      "charge"
    >;
    if (context.attempt === 1) throw new Error("the payment provider was busy");
    return { chargeId: `${invoiceId}-${fetch.output?.cents}` };
  })
  .handle(notify, ({ invoiceId }) => console.log(`  the customer is told about ${invoiceId}`));

await using database = await openDatabase();
const { sql } = database;
await catalog.sync(sql);
const invoiceId = `INV-${Date.now()}`;
const { runId } = await enqueueWorkflowRun(sql, invoiceRun(invoiceId));
const again = await enqueueWorkflowRun(sql, invoiceRun(invoiceId));
console.log(`enqueued ${invoiceId}; the second enqueue found the ${again.disposition} run`);

await using _supervisor = new Supervisor(sql, {
  catalog,
  config: { pollIntervalMs: 25 },
  logger: { ...consoleLogger, debug: () => {}, info: () => {} },
});

// Nothing is left to do but the gate: the run says so.
await waitForRun(sql, runId, ({ openCount, waitingCount }) => waitingCount === 1 && openCount === 1);
console.log(await drawWorkflowRun(sql, runId, { scope: "all" }));

// A webhook or a person completes the gate, once. What it gives goes to the steps behind it.
const approved = { scope: "global", completion: { status: "SUCCEEDED", output: { by: "grace" } } } as const;
await completeExternalStep(sql, runId, "approval", approved);
const { status } = await waitForRun(sql, runId);
console.log(`the run is ${status}`);
console.log(await drawWorkflowRun(sql, runId, { scope: "all" }));
