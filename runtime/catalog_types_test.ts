/// <reference lib="deno.ns" />
// What the compiler refuses: each `@ts-expect-error` is an error of its own once the line below it compiles.
import { complete, defineJob, WorkflowDagBuilder } from "@runledger/core";
import type { JsonValue, PayloadOf, WorkflowPrerequisite } from "@runledger/core";
import assert from "node:assert/strict";
import { z } from "zod";
import { JobCatalog } from "./catalog.ts";
import type { StepContext } from "./job_context.ts";

const fetchInvoice = defineJob({
  type: "invoice.fetch",
  payload: z.object({ invoice: z.string(), at: z.string().transform((text) => new Date(text)) }),
  output: z.object({ cents: z.int() }),
});
const charge = defineJob({
  type: "invoice.charge",
  payload: z.object({ retries: z.int().default(3) }),
  output: z.object({ receipt: z.string() }),
});
const notify = defineJob({ type: "invoice.notify" });

function invoiceRun(invoice: string) {
  return new WorkflowDagBuilder("invoice.process")
    .job("fetch", fetchInvoice.request({ invoice, at: "2026-01-01" }))
    .external("approval").afterSuccess("approval", ["fetch"])
    .job("charge", charge.request({})).afterSuccess("charge", ["fetch", "approval"])
    .job("notify", notify.request(null)).afterTerminal("notify", ["charge"])
    .build();
}

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false;
/** Compiles for `true` only. */
function holds<Claim extends true>(claim?: Claim): void {
  assert.equal(claim, undefined);
}

Deno.test("payloads are those that the schema makes, and requests and schedules those that it takes", () => {
  const catalog = new JobCatalog()
    .handle(fetchInvoice, (payload) => {
      holds<Equal<typeof payload, { invoice: string; at: Date }>>();
      return { cents: 1 };
    })
    .handle(charge, ({ retries }) => {
      holds<Equal<typeof retries, number>>();
      return complete({ receipt: "r" });
    })
    .handle(notify, (payload) => {
      holds<Equal<typeof payload, JsonValue>>();
    });
  holds<Equal<PayloadOf<typeof charge>, { retries: number }>>();

  const schedule = { name: "n", cron: "0 9 * * *" };
  const takesAnything = defineJob({ type: "x", payload: z.looseObject({ n: z.int() }) });
  catalog.schedule(takesAnything, { ...schedule, payload: { n: 1 } });
  // @ts-expect-error: n must be a number
  assert.throws(() => catalog.schedule(takesAnything, { ...schedule, name: "m", payload: { n: "1" } }));
  // @ts-expect-error: a date is made by the schema, and not taken by it
  fetchInvoice.request({ invoice: "1", at: new Date() });
  assert.deepEqual(catalog.jobTypes, ["invoice.charge", "invoice.fetch", "invoice.notify"]);
});

Deno.test("outputs must be those that the schema takes, however they are given", () => {
  // @ts-expect-error: cents must be a number
  new JobCatalog().handle(fetchInvoice, () => ({ cents: "1" }));
  // @ts-expect-error: there must be an output
  new JobCatalog().handle(fetchInvoice, () => {});
  // @ts-expect-error: also in a completion
  new JobCatalog().handle(fetchInvoice, () => complete({ cents: "1" }));
  // @ts-expect-error: also in a promise
  new JobCatalog().handle(fetchInvoice, () => Promise.resolve({ euros: 1 }));
  new JobCatalog().handle(fetchInvoice, (_payload, context) =>
    context.transaction(async (_tx, finish) => {
      // @ts-expect-error: also in a transaction
      const wrong = () => finish({ euros: 1 });
      assert.equal(typeof wrong, "function");
      return await finish({ cents: 1 });
    }));
  // @ts-expect-error: a handler is a function
  assert.throws(() => new JobCatalog().handle(fetchInvoice, { cents: 1 }), TypeError);
});

Deno.test("the handler of a step has the prerequisites that the workflow gives it", () => {
  const catalog = new JobCatalog()
    .handleStep(charge, { workflow: invoiceRun, stepKey: "charge" }, ({ retries }, { workflow }) => {
      const { fetch, approval } = workflow.prerequisites;
      holds<Equal<typeof fetch, WorkflowPrerequisite<{ cents: number }, "SUCCEEDED">>>();
      holds<Equal<typeof approval, WorkflowPrerequisite<JsonValue, "SUCCEEDED">>>();
      // @ts-expect-error: not a prerequisite of this step
      assert.equal(workflow.prerequisites.notify, undefined);
      // @ts-expect-error: the output has no euros
      assert.equal(fetch.output?.euros, undefined);
      return { receipt: `${retries} ${fetch.output?.cents ?? 0}` };
    })
    .handleStep(notify, { workflow: invoiceRun, stepKey: "notify" }, (_payload, { prerequisites, workflow }) => {
      const { charge: charged } = prerequisites;
      holds<Equal<typeof prerequisites, typeof workflow.prerequisites>>();
      holds<Equal<typeof charged, WorkflowPrerequisite<{ receipt: string }>>>();
      return { told: charged.status };
    });
  // @ts-expect-error: there is no such step
  new JobCatalog().handleStep(notify, { workflow: invoiceRun, stepKey: "notified" }, () => {});
  // @ts-expect-error: the output must have a receipt
  new JobCatalog().handleStep(charge, { workflow: invoiceRun, stepKey: "charge" }, () => ({ cents: 1 }));
  const laterRun = (invoice: string) => Promise.resolve(invoiceRun(invoice));
  new JobCatalog().handleStep(notify, { workflow: laterRun, stepKey: "notify" }, (_payload, { workflow }) => ({
    told: workflow.prerequisites.charge.status,
  }));
  assert.deepEqual(catalog.jobTypes, ["invoice.charge", "invoice.notify"]);
});

Deno.test("what hooks are told is typed", () => {
  new JobCatalog()
    .onStepFailed(({ failure, runId, isFinal }) => {
      holds<Equal<[typeof failure.code, typeof runId, typeof isFinal], [string, string, boolean]>>();
    })
    .onRunFinished(({ status }) => {
      holds<
        Equal<typeof status, "RUNNING" | "WAITING_FOR_EXTERNAL" | "SUCCEEDED" | "COMPLETED_WITH_ERRORS" | "CANCELED">
      >();
    })
    // @ts-expect-error: a run has no attempt
    .onRunFinished(({ attempt }) => attempt);
  // @ts-expect-error: a hook is a function
  assert.throws(() => new JobCatalog().onJobEnqueued("log"), TypeError);
});

Deno.test("a context of a step is one of its job, with a workflow", () => {
  type Context = StepContext<{ n: number }, { first: WorkflowPrerequisite }>;
  holds<Equal<Context["workflow"]["prerequisites"], { first: WorkflowPrerequisite }>>();
  holds<Equal<Context["attempt"], number>>();
});
