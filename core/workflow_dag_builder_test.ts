/// <reference lib="deno.ns" />
import assert from "node:assert/strict";
import fc from "fast-check";
import { AppendLog } from "./_append_log.ts";
import { defineJob } from "./job_definition.ts";
import type { JobRequest } from "./job_request.ts";
import { isWorkflowBuildError } from "./workflow_build_error.ts";
import type { WorkflowBuildProblem } from "./workflow_build_error.ts";
import { WorkflowDagBuilder } from "./workflow_dag_builder.ts";
import type { AnyWorkflowGraph } from "./workflow_prerequisites.ts";
import type { WorkflowRunRequest } from "./workflow_run.ts";

const work = defineJob({ type: "work" });
const request = work.request(null);

type Builder = WorkflowDagBuilder<AnyWorkflowGraph>;

/** A builder to which any literal is a key. */
function begin(workflowType: string = "any"): Builder {
  return new WorkflowDagBuilder<AnyWorkflowGraph>(workflowType);
}

function problemOf(call: () => unknown): WorkflowBuildProblem | undefined {
  try {
    call();
  } catch (error) {
    assert(isWorkflowBuildError(error), String(error));
    return error.problem;
  }
  return undefined;
}

/** The problem must come with the call. */
function assertAtOnce(call: () => unknown, problem: WorkflowBuildProblem): void {
  assert.deepEqual(problemOf(call), problem);
}

/** The call must pass, and the build must not. */
function assertDeferred(call: () => { build(): unknown }, problem: WorkflowBuildProblem): void {
  const builder = call();
  assert.deepEqual(problemOf(() => builder.build()), problem);
}

Deno.test("a whole run, as plain data in declared order", () => {
  const organizationId = "0191d8a0-7c1e-7c3b-8f6a-1b2c3d4e5f60";
  const run = new WorkflowDagBuilder("invoice.process", { source: "api" })
    .organization(organizationId)
    .idempotencyKey("invoice:1")
    .activeKey("account:1")
    .resultStep("charge" as string)
    .job("charge", work.request({ id: 1 }, { priority: 3, maxAttempts: 2, timeoutSeconds: 9, stage: "scheduled" }), {
      allowsContinuation: true,
    })
    .afterSuccess("charge", ["fetch" as string])
    .job("fetch", work.request(1, { organizationId }))
    .external("approval", { payload: { ask: "ada" }, timeout: { afterMs: 5, outcome: "FAILED" } })
    .afterTerminal("approval", ["fetch"])
    .afterSuccess("approval", ["charge"])
    .build();
  const expected: WorkflowRunRequest = {
    workflowType: "invoice.process",
    metadata: { source: "api" },
    organizationId,
    idempotencyKey: "invoice:1",
    activeKey: "account:1",
    resultStepKey: "charge",
    steps: [
      {
        executionKind: "JOB",
        stepKey: "charge",
        jobType: "work",
        payload: { id: 1 },
        priority: 3,
        maxAttempts: 2,
        timeoutSeconds: 9,
        stage: "scheduled",
        allowsContinuation: true,
        dependencies: [{ prerequisiteStepKey: "fetch", releaseMode: "ON_SUCCESS" }],
      },
      { executionKind: "JOB", stepKey: "fetch", jobType: "work", payload: 1, organizationId, dependencies: [] },
      {
        executionKind: "EXTERNAL",
        stepKey: "approval",
        payload: { ask: "ada" },
        timeout: { afterMs: 5, outcome: "FAILED" },
        dependencies: [
          { prerequisiteStepKey: "fetch", releaseMode: "ON_TERMINAL" },
          { prerequisiteStepKey: "charge", releaseMode: "ON_SUCCESS" },
        ],
      },
    ],
  };
  assert.deepEqual(run, expected);
});

Deno.test("the smallest run: metadata is {}, a gate's payload null, nothing else is there", () => {
  assert.deepEqual(new WorkflowDagBuilder("w").external("g").build(), {
    workflowType: "w",
    metadata: {},
    steps: [{ executionKind: "EXTERNAL", stepKey: "g", payload: null, dependencies: [] }],
  });
});

Deno.test("the constructor never fails: a blank type and bad metadata are told by build()", () => {
  assertDeferred(() => new WorkflowDagBuilder(" ").external("a"), { kind: "blank_workflow_type" });
  assertDeferred(() => new WorkflowDagBuilder("any", NaN).external("a"), {
    kind: "invalid_metadata",
    path: "$",
    problem: "a number must be finite",
  });
  assertDeferred(() => new WorkflowDagBuilder("any"), { kind: "empty_steps" });
});

Deno.test("a step fails at once for a blank or duplicate key and a blank job type", () => {
  const builder = begin().external("a");
  const raw = (fields: Readonly<Record<string, unknown>>): JobRequest => ({ jobType: "x", payload: null, ...fields });
  assertAtOnce(() => builder.job(" ", request), { kind: "blank_step_key", stepIndex: 1 });
  assertAtOnce(() => builder.external(""), { kind: "blank_step_key", stepIndex: 1 });
  assertAtOnce(() => builder.external("x".repeat(513)), { kind: "name_too_long", field: "stepKey", maxBytes: 512 });
  assertAtOnce(() => builder.job("a", request), { kind: "duplicate_step", stepKey: "a" });
  assertAtOnce(() => builder.external("a"), { kind: "duplicate_step", stepKey: "a" });
  assertAtOnce(
    () => builder.step({ executionKind: "EXTERNAL", stepKey: "a", payload: null, dependencies: [] }),
    { kind: "duplicate_step", stepKey: "a" },
  );
  assertAtOnce(() => builder.job("b", raw({ jobType: "\n" })), { kind: "blank_job_type", stepKey: "b" });
});

Deno.test("a step fails at once for a request with a time or key of its own", () => {
  assertAtOnce(() => begin().job("a", work.request(null, { idempotencyKey: "k" })), {
    kind: "request_setting_not_allowed",
    stepKey: "a",
    setting: "idempotencyKey",
  });
  assertAtOnce(() => begin().job("a", work.request(null, { nextRunAt: new Date() })), {
    kind: "request_setting_not_allowed",
    stepKey: "a",
    setting: "nextRunAt",
  });
});

Deno.test("other settings of a step, and misspelt ones, are told by build()", () => {
  assertDeferred(() => begin().job("a", { ...request, maxAttempts: 0 }), {
    kind: "non_positive_setting",
    setting: "maxAttempts",
    stepKey: "a",
  });
  assertDeferred(() => begin().job("a", { ...request, prioritty: 1 } as JobRequest), {
    kind: "unknown_field",
    field: "prioritty",
    stepKey: "a",
  });
  assertDeferred(() => begin().external("a", { timeout: { afterMs: 0, outcome: "FAILED" } }), {
    kind: "invalid_gate_timeout",
    stepKey: "a",
    field: "timeout.afterMs",
    problem: "must be a whole number of milliseconds from 1 to 315360000000",
  });
});

Deno.test("a dependency fails at once for a blank target, a blank prerequisite, and an unknown target, in that order", () => {
  for (const method of ["afterSuccess", "afterTerminal"] as const) {
    const builder = begin().external("a");
    assertAtOnce(() => builder[method](" ", [" "]), { kind: "blank_step_key" });
    assertAtOnce(() => builder[method]("b", ["a", " "]), { kind: "blank_dependency_step_key", stepKey: "b" });
    assertAtOnce(() => builder[method]("b", ["a"]), { kind: "unknown_step", stepKey: "b" });
    assertAtOnce(() => builder[method]("b", []), { kind: "unknown_step", stepKey: "b" });
    assert.throws(() => builder[method]("a", "b" as never), TypeError);
  }
});

Deno.test("the graph as a whole is told by build(), so prerequisites may be declared later", () => {
  const base = begin().external("a").external("b");
  assert.equal(base.afterSuccess("a", ["z"]).external("z").build().steps.length, 3);
  assertDeferred(() => base.afterSuccess("a", ["z"]), {
    kind: "missing_dependency",
    stepKey: "a",
    prerequisiteStepKey: "z",
  });
  assertDeferred(() => base.afterTerminal("a", ["a"]), { kind: "self_dependency", stepKey: "a" });
  assertDeferred(() => base.afterTerminal("a", ["b"]).afterSuccess("a", ["b"]), {
    kind: "duplicate_dependency",
    stepKey: "a",
    prerequisiteStepKey: "b",
  });
  assertDeferred(() => base.afterTerminal("a", ["b"]).afterSuccess("b", ["a"]), {
    kind: "cycle",
    stepKeys: ["a", "b"],
  });
});

Deno.test("settings of the run never fail by themselves: they are told by build()", () => {
  const builder = begin().external("a");
  assertDeferred(() => builder.idempotencyKey(""), { kind: "blank_idempotency_key" });
  assertDeferred(() => builder.activeKey(" "), { kind: "blank_active_key" });
  assertDeferred(() => builder.resultStep("\t"), { kind: "blank_result_step_key" });
  assertDeferred(() => builder.resultStep("b"), { kind: "unknown_result_step", stepKey: "b" });
  assertDeferred(() => builder.organization("tenant"), {
    kind: "invalid_setting",
    setting: "organizationId",
    problem: "must be a UUID",
  });
  assert.equal(builder.idempotencyKey("").idempotencyKey("k").build().idempotencyKey, "k");
});

Deno.test("a builder stays as it is: what was built from it, or failed, does not show in it", () => {
  const base = begin().external("a");
  const left = base.external("left").afterSuccess("left", ["a"]).idempotencyKey("left");
  const right = base.job("right", request).afterTerminal("right", ["a"]);
  assertAtOnce(() => base.afterSuccess("left", ["a"]), { kind: "unknown_step", stepKey: "left" });
  assertAtOnce(() => right.external("right"), { kind: "duplicate_step", stepKey: "right" });
  assert.deepEqual(base.build().steps.map((step) => step.stepKey), ["a"]);
  assert.deepEqual(left.build().steps.map((step) => step.stepKey), ["a", "left"]);
  assert.deepEqual(right.build().steps.map((step) => step.stepKey), ["a", "right"]);
  assert.equal(right.build().idempotencyKey, undefined);
  // Nor does what is done to the built run.
  const run = left.build();
  (run.steps as unknown[]).pop();
  (run.steps[0]?.dependencies as unknown[]).push("x");
  assert.deepEqual(left.build().steps.map((step) => step.dependencies.length), [0, 1]);
});

Deno.test("a step that was made elsewhere keeps its dependencies, and is not changed", () => {
  const dependencies = [{ prerequisiteStepKey: "a", releaseMode: "ON_TERMINAL" as const }];
  const step = { executionKind: "EXTERNAL" as const, stepKey: "b", payload: null, dependencies };
  const run = begin().external("a").external("c").step(step).afterSuccess("b", ["c"]).build();
  assert.deepEqual(run.steps[2]?.dependencies, [
    ...dependencies,
    { prerequisiteStepKey: "c", releaseMode: "ON_SUCCESS" },
  ]);
  assert.equal(dependencies.length, 1);
});

Deno.test("any tree of versions of a list: each has what was added on the way to it, and nothing else", () => {
  const key = fc.constantFrom("a", "b", "c", "d", "e");
  const additions = fc.array(fc.record({ from: fc.nat(), item: key }), { maxLength: 40 });
  fc.assert(fc.property(additions, (steps) => {
    const versions = [new AppendLog<string>((item) => item === "e" ? undefined : item)];
    const models: string[][] = [[]];
    for (const { from, item } of steps) {
      const at = from % versions.length;
      versions.push((versions[at] as AppendLog<string>).appended(item));
      models.push([...models[at] as string[], item]);
    }
    for (const [index, version] of versions.entries()) {
      const model = models[index] as string[];
      assert.deepEqual(version.toArray(), model);
      assert.equal(version.length, model.length);
      for (const name of "abcd") assert.equal(version.has(name), model.includes(name));
      assert(!version.has("e"));
    }
  }));
});

Deno.test("ten thousand steps with a hundred thousand dependencies are built one call at a time", () => {
  let builder = begin();
  for (let index = 0; index < 10_000; index++) {
    const prerequisites = Array.from({ length: Math.min(index, 10) }, (_, back) => `s${index - 1 - back}`);
    builder = builder.job(`s${index}`, request).afterSuccess(`s${index}`, prerequisites);
  }
  const { steps } = builder.build();
  assert.equal(steps.reduce((edges, step) => edges + step.dependencies.length, 0), 99_945);
});
