/**
 * How an application tests its jobs: an invoice workflow with retries, a crash, a gate and its timeout, and a daily schedule.
 * Nothing sleeps: time passes when the test says so.
 *
 * Run: `deno test -A examples/testing_your_jobs_test.ts`
 *
 * @module
 */

import { defineJob, JobFailure, WorkflowDagBuilder } from "@runledger/core";
import { JobCatalog } from "@runledger/runtime";
import { createTestKit } from "@runledger/test-support";
import assert from "node:assert/strict";
import { z } from "zod";

// What is tested. An application imports it from where its workers do.

const Invoice = z.object({ invoiceId: z.string() });
const fetchInvoice = defineJob({ type: "invoice.fetch", payload: Invoice, output: z.object({ cents: z.number() }) });
const charge = defineJob({ type: "invoice.charge", payload: Invoice, output: z.object({ chargeId: z.string() }) });
const notify = defineJob({ type: "invoice.notify", payload: Invoice });
const remind = defineJob({ type: "invoice.remind" });

const invoiceRun = (invoiceId: string) =>
  new WorkflowDagBuilder("invoice.process")
    .job("fetch", fetchInvoice.request({ invoiceId }))
    .job("charge", charge.request({ invoiceId })).afterSuccess("charge", ["fetch"])
    .external("approval", { timeout: { afterMs: 3 * 86_400_000, outcome: "CANCELED" } })
    .afterSuccess("approval", ["charge"])
    .job("notify", notify.request({ invoiceId })).afterSuccess("notify", ["approval"])
    .build();

const charged: string[] = [];
const catalog = new JobCatalog()
  .handle(fetchInvoice, () => ({ cents: 4200 }))
  .handle(charge, ({ invoiceId }) => {
    charged.push(invoiceId);
    return { chargeId: `ch-${invoiceId}` };
  })
  .handle(notify, () => {})
  .handle(remind, () => {})
  .schedule(remind, { name: "invoice.remind", cron: "0 9 * * MON-FRI", payload: {} });

// The tests.

Deno.test("an invoice is charged, waits for approval, and its customer is told", async () => {
  await using kit = await createTestKit({ catalog });
  const run = await kit.enqueueRun(invoiceRun("INV-1"));
  await kit.runUntilIdle();
  await run.assertSteps({ charge: "SUCCEEDED", approval: "WAITING_FOR_EXTERNAL", notify: "BLOCKED" });
  assert.equal((await run.output("charge")).chargeId, "ch-INV-1");
  await run.completeGate("approval", { status: "SUCCEEDED", output: { by: "grace" } });
  await kit.runUntilIdle();
  await run.assertStatus("SUCCEEDED");
});

Deno.test("an invoice that nobody approves within three days is called off", async () => {
  await using kit = await createTestKit({ catalog });
  const run = await kit.enqueueRun(invoiceRun("INV-2"));
  await kit.runFor({ days: 3 });
  await run.assertSteps({ approval: "CANCELED", notify: "CANCELED" });
});

Deno.test("a busy card is tried again, and a worker that dies after the charge charges twice", async () => {
  await using kit = await createTestKit({ catalog });
  charged.length = 0;
  kit.failNextAttempt(charge, JobFailure.retryable("card.busy", "The provider is busy."));
  kit.crashNextAttempt(charge, { afterHandler: true });
  const job = await kit.enqueue(charge.request({ invoiceId: "INV-3" }));
  await kit.runFor({ minutes: 5 });
  await job.assertLedger([
    "ENQUEUED",
    "LEASED",
    { event: "FAILED", attempt: 1, code: "card.busy" },
    "RETRY_SCHEDULED",
    "LEASED",
    { event: "FAILED", attempt: 2, code: "job.lease_expired" },
    "RETRY_SCHEDULED",
    "LEASED",
    { event: "SUCCEEDED", attempt: 3 },
  ]);
  assert.deepEqual(charged, ["INV-3", "INV-3"]); // so the charge needs an idempotency key of its own
});

Deno.test("reminders go out at nine on weekdays", async () => {
  await using kit = await createTestKit({ catalog, startsAt: new Date("2026-01-02T00:00Z") }); // a Friday
  const { fired } = await kit.runFor({ days: 4 });
  const dates = fired.map(({ scheduledFor }) => scheduledFor.toISOString().slice(0, 16));
  assert.deepEqual(dates, ["2026-01-02T09:00", "2026-01-05T09:00"]);
});
