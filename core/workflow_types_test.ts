/// <reference lib="deno.ns" />
// What the compiler refuses: each `@ts-expect-error` is an error of its own once the line below it compiles.
import assert from "node:assert/strict";
import { z } from "zod";
import { defineJob } from "./job_definition.ts";
import type { AnyJobDefinition, JobDefinition } from "./job_definition.ts";
import type { JobRequest } from "./job_request.ts";
import type { JsonValue } from "./json.ts";
import type { WorkflowBuildProblem } from "./workflow_build_error.ts";
import { WorkflowDagBuilder } from "./workflow_dag_builder.ts";
import type {
  AnyWorkflowGraph,
  WorkflowPrerequisite,
  WorkflowPrerequisites,
  WorkflowStepKeys,
} from "./workflow_prerequisites.ts";
import type { WorkflowRunRequest, WorkflowStepRequest } from "./workflow_run.ts";

const fetchInvoice = defineJob({
  type: "invoice.fetch",
  payload: z.object({ invoiceId: z.string() }),
  output: z.object({ cents: z.int() }),
});
const charge = defineJob({ type: "invoice.charge", output: z.object({ receipt: z.string() }) });
const notify = defineJob({ type: "invoice.notify" });

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false;
/** Compiles for `true` only. */
function holds<Claim extends true>(claim?: Claim): void {
  assert.equal(claim, undefined);
}

function invoiceRun() {
  return new WorkflowDagBuilder("invoice.process", { source: "api" })
    .job("fetch", fetchInvoice.request({ invoiceId: "1" }))
    .external("approval").afterSuccess("approval", ["fetch"])
    .job("charge", charge.request(null)).afterSuccess("charge", ["fetch", "approval"])
    .job("notify", notify.request(null)).afterTerminal("notify", ["charge"]).afterSuccess("notify", ["fetch"])
    .resultStep("charge")
    .build();
}
type InvoiceRun = ReturnType<typeof invoiceRun>;

Deno.test("a literal key that was not declared before does not compile", () => {
  const builder = new WorkflowDagBuilder("invoice.process")
    .job("fetch", fetchInvoice.request({ invoiceId: "1" }))
    .job("charge", charge.request(null));

  // @ts-expect-error: "fetchh" is misspelt
  builder.afterSuccess("charge", ["fetchh"]);
  // @ts-expect-error: one of them is
  builder.afterTerminal("charge", ["fetch", "fetchh"]);
  // @ts-expect-error: there is no such result
  builder.resultStep("charged");
  // @ts-expect-error: "report" comes later, and the call refuses it too
  assert.throws(() => builder.afterSuccess("report", ["charge"]), { code: "workflow.invalid_dag_unknown_step_key" });
  // @ts-expect-error: a builder without steps knows no key
  assert.throws(() => new WorkflowDagBuilder("x").afterSuccess("a", []), {
    problem: { kind: "unknown_step", stepKey: "a" },
  });
});

Deno.test("a literal key that was declared before does not compile as a new one", () => {
  const builder = new WorkflowDagBuilder("invoice.process").external("approval");
  // @ts-expect-error: "approval" is taken
  assert.throws(() => builder.external("approval"), { code: "workflow.invalid_dag_duplicate_step_key" });
  // @ts-expect-error: "approval" is taken
  assert.throws(() => builder.job("approval", charge.request(null)), {
    code: "workflow.invalid_dag_duplicate_step_key",
  });
});

Deno.test("payloads are checked by their definition", () => {
  // @ts-expect-error: invoiceId must be a string
  assert.throws(() => fetchInvoice.request({ invoiceId: 1 }), { code: "job.invalid_payload" });
});

Deno.test("a key of type string is left to the checks at run time", () => {
  const later = new WorkflowDagBuilder("later")
    .external("report").afterSuccess("report", ["audit" as string])
    .external("audit")
    .build();
  assert.equal(later.steps[0]?.dependencies[0]?.prerequisiteStepKey, "audit");

  let builder = new WorkflowDagBuilder("loop");
  const names: readonly string[] = ["a", "b", "c"];
  for (const [index, name] of names.entries()) {
    builder = builder.job(name, notify.request(null)).afterTerminal(name, names.slice(0, index));
  }
  // Once keys that are not literals were declared, any literal may be one of them.
  const run = builder.job("join" as string, notify.request(null)).afterSuccess("join", names).resultStep("join")
    .build();
  assert.equal(run.steps.length, 4);
  assert.throws(() => builder.afterSuccess("typo" as string, ["a" as string]), {
    code: "workflow.invalid_dag_unknown_step_key",
  });

  let open: WorkflowDagBuilder<AnyWorkflowGraph> = new WorkflowDagBuilder("open");
  for (const name of names) open = open.external(name);
  open = open.external("join").afterSuccess("join", ["a", "b"]).afterTerminal("join", ["c"]);
  assert.equal(open.build().steps.length, 4);
});

Deno.test("a step's prerequisites have the keys, outputs and statuses that the builder saw", () => {
  holds<Equal<WorkflowStepKeys<InvoiceRun>, "fetch" | "approval" | "charge" | "notify">>();

  type Charge = WorkflowPrerequisites<InvoiceRun, "charge">;
  holds<Equal<keyof Charge, "fetch" | "approval">>();
  holds<Equal<Charge["fetch"], WorkflowPrerequisite<{ cents: number }, "SUCCEEDED">>>();
  holds<Equal<Charge["approval"], WorkflowPrerequisite<JsonValue, "SUCCEEDED">>>();

  type Notify = WorkflowPrerequisites<InvoiceRun, "notify">;
  holds<Equal<keyof Notify, "charge" | "fetch">>();
  holds<Equal<Notify["charge"], WorkflowPrerequisite<{ receipt: string }>>>();
  holds<Equal<Notify["fetch"]["status"], "SUCCEEDED">>();

  holds<Equal<keyof WorkflowPrerequisites<InvoiceRun, "fetch">, never>>();
  // @ts-expect-error: there is no such step
  holds<Equal<WorkflowPrerequisites<InvoiceRun, "fetchh">, never>>();

  // A handler is given any prerequisites, and claims to be the handler of one step.
  const given: Readonly<Record<string, WorkflowPrerequisite>> = {
    fetch: { status: "SUCCEEDED", output: { cents: 5 } },
  };
  const { fetch } = given as Charge;
  const cents: number | undefined = fetch.output?.cents;
  assert.equal(cents, 5);
  // @ts-expect-error: the output has no euros
  assert.equal(fetch.output?.euros, undefined);
  // @ts-expect-error: not a prerequisite of this step
  assert.equal((given as Charge).notify, undefined);
});

Deno.test("an output that is not known is any JSON value", () => {
  const byHand = () =>
    new WorkflowDagBuilder("by.hand")
      .job("raw", { jobType: "raw", payload: null })
      .job("open", notify.request(null))
      .step({ executionKind: "EXTERNAL", stepKey: "gate", payload: null, dependencies: [] })
      .job("last", notify.request(null)).afterSuccess("last", ["raw", "open", "gate"])
      .build();
  type Last = WorkflowPrerequisites<ReturnType<typeof byHand>, "last">;
  holds<Equal<Last["raw"]["output"], JsonValue | undefined>>();
  holds<Equal<Last["open"]["output"], JsonValue | undefined>>();
  holds<Equal<Last["gate"]["output"], JsonValue | undefined>>();
  assert.equal(byHand().steps.length, 4);
});

Deno.test("typed requests, runs and definitions are given wherever any is taken", () => {
  const request: JobRequest = fetchInvoice.request({ invoiceId: "1" });
  holds<Equal<typeof request["~output"], unknown>>();
  const run: WorkflowRunRequest = invoiceRun();
  const definitions: readonly AnyJobDefinition[] = [fetchInvoice, charge, notify];
  const definition: JobDefinition = notify;
  assert.deepEqual([request.jobType, run.steps.length, definitions.length, definition.type], [
    "invoice.fetch",
    4,
    3,
    "invoice.notify",
  ]);
  // What is only for the compiler is not in the data.
  assert(!("~output" in request) && !("~graph" in run));

  // @ts-expect-error: another output
  const wrong: JobRequest<{ receipt: string }> = fetchInvoice.request({ invoiceId: "1" });
  assert.equal(wrong.jobType, "invoice.fetch");
});

Deno.test("a step of one kind does not compile with settings of the other", () => {
  const base = { payload: null, dependencies: [] };
  const steps: readonly WorkflowStepRequest[] = [
    // @ts-expect-error: a gate has no priority
    { executionKind: "EXTERNAL", stepKey: "gate", ...base, priority: 1 },
    // @ts-expect-error: a job has no gate timeout
    { executionKind: "JOB", stepKey: "job", jobType: "x", ...base, timeout: { afterMs: 1, outcome: "FAILED" } },
  ];
  assert.equal(steps.length, 2);
});

/** Compiles only as long as it knows every kind of problem. */
function offendingKeys(problem: WorkflowBuildProblem): readonly string[] {
  switch (problem.kind) {
    case "cycle":
      return problem.stepKeys;
    case "missing_dependency":
    case "duplicate_dependency":
      return [problem.stepKey, problem.prerequisiteStepKey];
    case "blank_job_type":
    case "blank_dependency_step_key":
    case "duplicate_step":
    case "unknown_step":
    case "self_dependency":
    case "unknown_result_step":
    case "non_positive_setting":
    case "external_job_type_not_allowed":
    case "external_queue_setting_not_allowed":
    case "invalid_gate_timeout":
    case "request_setting_not_allowed":
    case "invalid_payload":
      return [problem.stepKey];
    case "name_too_long":
    case "invalid_name":
    case "invalid_setting":
    case "unknown_field":
      return problem.stepKey === undefined ? [] : [problem.stepKey];
    case "blank_workflow_type":
    case "blank_idempotency_key":
    case "blank_active_key":
    case "blank_result_step_key":
    case "blank_step_key":
    case "empty_steps":
    case "invalid_metadata":
      return [];
    default: {
      const forgotten: never = problem;
      return forgotten;
    }
  }
}

Deno.test("a switch over the kinds of problem can be exhaustive", () => {
  assert.deepEqual(offendingKeys({ kind: "cycle", stepKeys: ["a", "b"] }), ["a", "b"]);
  assert.deepEqual(offendingKeys({ kind: "empty_steps" }), []);
});
