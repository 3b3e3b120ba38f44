/// <reference lib="deno.ns" />
import assert from "node:assert/strict";
import fc from "fast-check";
import { MAX_DELAY_MS } from "./outcome_fields.ts";
import { MAX_INTEGER } from "./job_request.ts";
import { isWorkflowBuildError } from "./workflow_build_error.ts";
import type { WorkflowBuildProblem } from "./workflow_build_error.ts";
import type {
  WorkflowDependency,
  WorkflowExternalStepRequest,
  WorkflowJobStepRequest,
  WorkflowRunRequest,
  WorkflowStepRequest,
} from "./workflow_run.ts";
import { WorkflowDagBuilder } from "./workflow_dag_builder.ts";
import { assertWorkflowRunRequest, assertWorkflowStepAppend } from "./workflow_validation.ts";

/** Fields as a caller without a compiler may give them. */
type Loose = Readonly<Record<string, unknown>>;

function job(stepKey: string, fields: Loose = {}): WorkflowStepRequest {
  const step: WorkflowJobStepRequest = {
    executionKind: "JOB",
    stepKey,
    jobType: "any",
    payload: null,
    dependencies: [],
  };
  return { ...step, ...fields };
}

function gate(stepKey: string, fields: Loose = {}): WorkflowStepRequest {
  const step: WorkflowExternalStepRequest = { executionKind: "EXTERNAL", stepKey, payload: null, dependencies: [] };
  return { ...step, ...fields };
}

function after(...prerequisites: readonly string[]): { readonly dependencies: readonly WorkflowDependency[] } {
  return {
    dependencies: prerequisites.map((prerequisiteStepKey) => ({ prerequisiteStepKey, releaseMode: "ON_SUCCESS" })),
  };
}

function run(fields: Loose = {}): WorkflowRunRequest {
  const base: WorkflowRunRequest = { workflowType: "any", metadata: null, steps: [job("a")] };
  return { ...base, ...fields };
}

function problemOf(check: () => void): WorkflowBuildProblem | undefined {
  try {
    check();
  } catch (error) {
    assert(isWorkflowBuildError(error), String(error));
    return error.problem;
  }
  return undefined;
}

const runProblem = (request: WorkflowRunRequest) => problemOf(() => assertWorkflowRunRequest(request));
const stepProblem = (step: WorkflowStepRequest) => runProblem(run({ steps: [step] }));

const LONG = "é".repeat(256);

Deno.test("runs at the limits are accepted", () => {
  const accepted: readonly WorkflowRunRequest[] = [
    run(),
    run({ workflowType: "é".repeat(127) + "x", idempotencyKey: LONG, activeKey: LONG }),
    run({ steps: [job(LONG), gate("b", after(LONG))], resultStepKey: LONG }),
    run({
      steps: [job("a", { priority: MAX_INTEGER, maxAttempts: MAX_INTEGER, timeoutSeconds: 1, stage: "scheduled" })],
    }),
    run({ steps: [job("a", { priority: -MAX_INTEGER - 1, allowsContinuation: false })] }),
    run({ steps: [gate("a", { timeout: { afterMs: MAX_DELAY_MS, outcome: "SUCCEEDED", output: { ok: true } } })] }),
    run({ steps: [gate("a", { timeout: { afterMs: 1, outcome: "CANCELED" } })] }),
    run({ organizationId: undefined, idempotencyKey: undefined, steps: [gate("a", { jobType: undefined })] }),
    run({ steps: [job("b", after("a")), job("a")] }),
    run({ steps: [job(" padded "), job("constructor"), job("__proto__", after("constructor"))] }),
  ];
  for (const request of accepted) assert.equal(runProblem(request), undefined);
});

Deno.test("a builder in place of a run is told to be built", () => {
  const builder = new WorkflowDagBuilder("invoice.process").external("approval");
  assert.throws(() => assertWorkflowRunRequest(builder as never), /^TypeError: .*call build\(\)$/);
  assertWorkflowRunRequest(builder.build());
});

Deno.test("what is wrong with a run has its own kind", () => {
  const uuid = "must be a UUID";
  const cases: readonly (readonly [Loose, WorkflowBuildProblem])[] = [
    [{ idempotencyKey: " " }, { kind: "blank_idempotency_key" }],
    [{ idempotencyKey: `${LONG}x` }, { kind: "name_too_long", field: "idempotencyKey", maxBytes: 512 }],
    [{ activeKey: "" }, { kind: "blank_active_key" }],
    [{ activeKey: `${LONG}x` }, { kind: "name_too_long", field: "activeKey", maxBytes: 512 }],
    [{ resultStepKey: "\u0085" }, { kind: "blank_result_step_key" }],
    [{ resultStepKey: "b" }, { kind: "unknown_result_step", stepKey: "b" }],
    [{ workflowType: "\t" }, { kind: "blank_workflow_type" }],
    [{ workflowType: "x".repeat(256) }, { kind: "name_too_long", field: "workflowType", maxBytes: 255 }],
    [{ workflowType: undefined }, { kind: "invalid_name", field: "workflowType", problem: "must be a string" }],
    [{ workflowType: "a\0" }, {
      kind: "invalid_name",
      field: "workflowType",
      problem: "must not hold U+0000 or a lone surrogate",
    }],
    [{ organizationId: "tenant" }, { kind: "invalid_setting", setting: "organizationId", problem: uuid }],
    [{ organizationId: null }, { kind: "invalid_setting", setting: "organizationId", problem: uuid }],
    [{ metadata: { n: [NaN] } }, { kind: "invalid_metadata", path: "$.n[0]", problem: "a number must be finite" }],
    [{ idempotencykey: "k" }, { kind: "unknown_field", field: "idempotencykey" }],
    [{ steps: [] }, { kind: "empty_steps" }],
    [{ steps: [job("a"), job("b"), job("a")] }, { kind: "duplicate_step", stepKey: "a" }],
  ];
  for (const [fields, problem] of cases) assert.deepEqual(runProblem(run(fields)), problem);
});

Deno.test("what is wrong with a step has its own kind, and names the step", () => {
  const stepKey = "s";
  const invalid = (setting: string, problem: string): WorkflowBuildProblem => ({
    kind: "invalid_setting",
    setting,
    problem,
    stepKey,
  });
  const positive = `must be a whole number from 1 to ${MAX_INTEGER}`;
  const cases: readonly (readonly [WorkflowStepRequest, WorkflowBuildProblem])[] = [
    [job(" "), { kind: "blank_step_key", stepIndex: 0 }],
    [job(`${LONG}x`), { kind: "name_too_long", field: "stepKey", maxBytes: 512 }],
    [job("a\ud800"), {
      kind: "invalid_name",
      field: "stepKey",
      problem: "must not hold U+0000 or a lone surrogate",
    }],
    [job("s", { jobType: "" }), { kind: "blank_job_type", stepKey }],
    [job("s", { jobType: "x".repeat(256) }), { kind: "name_too_long", field: "jobType", maxBytes: 255, stepKey }],
    [job("s", { jobType: undefined }), {
      kind: "invalid_name",
      field: "jobType",
      problem: "must be a string",
      stepKey,
    }],
    [job("s", { maxAttempts: 0 }), { kind: "non_positive_setting", setting: "maxAttempts", stepKey }],
    [job("s", { maxAttempts: 1.5 }), invalid("maxAttempts", positive)],
    [job("s", { maxAttempts: null }), invalid("maxAttempts", positive)],
    [job("s", { timeoutSeconds: -1 }), { kind: "non_positive_setting", setting: "timeoutSeconds", stepKey }],
    [job("s", { timeoutSeconds: MAX_INTEGER + 1 }), invalid("timeoutSeconds", positive)],
    [job("s", { priority: 0.5 }), invalid("priority", "must be a 32-bit integer")],
    [job("s", { stage: "running" }), invalid("stage", "must be one of queued, scheduled")],
    [job("s", { allowsContinuation: 1 }), invalid("allowsContinuation", "must be true or false")],
    [job("s", { organizationId: "" }), invalid("organizationId", "must be a UUID")],
    [job("s", { executionKind: "GATE" }), invalid("executionKind", "must be JOB or EXTERNAL")],
    [job("s", { payload: undefined }), {
      kind: "invalid_payload",
      stepKey,
      path: "$",
      problem: "undefined has no JSON form here; use null",
    }],
    [gate("s", { payload: 1n }), {
      kind: "invalid_payload",
      stepKey,
      path: "$",
      problem: "a BigInt has no JSON form; send a string",
    }],
    [job("s", { timeout: { afterMs: 1, outcome: "FAILED" } }), { kind: "unknown_field", field: "timeout", stepKey }],
    [gate("s", { timeOut: 5 }), { kind: "unknown_field", field: "timeOut", stepKey }],
    [gate("s", { jobType: "any" }), { kind: "external_job_type_not_allowed", stepKey }],
    ...["priority", "maxAttempts", "timeoutSeconds", "stage", "allowsContinuation"].map((
      setting,
    ): readonly [WorkflowStepRequest, WorkflowBuildProblem] => [
      gate("s", { [setting]: 1 }),
      { kind: "external_queue_setting_not_allowed", stepKey, setting },
    ]),
  ];
  for (const [step, problem] of cases) assert.deepEqual(stepProblem(step), problem);
});

Deno.test("a gate's timeout must be able to happen", () => {
  const refused: readonly (readonly [Loose, string])[] = [
    [{ afterMs: 0, outcome: "FAILED" }, "timeout.afterMs"],
    [{ afterMs: 1.5, outcome: "FAILED" }, "timeout.afterMs"],
    [{ afterMs: MAX_DELAY_MS + 1, outcome: "FAILED" }, "timeout.afterMs"],
    [{ outcome: "FAILED" }, "timeout.afterMs"],
    [{ afterMs: 1, outcome: "RUNNING" }, "timeout.outcome"],
    [{ afterMs: 1 }, "timeout.outcome"],
    [{ afterMs: 1, outcome: "FAILED", output: null }, "timeout.output"],
    [{ afterMs: 1, outcome: "SUCCEEDED", output: [Infinity] }, "timeout.output"],
  ];
  for (const [timeout, field] of refused) {
    const problem = stepProblem(gate("g", { timeout }));
    assert(problem?.kind === "invalid_gate_timeout" && problem.stepKey === "g", JSON.stringify(timeout));
    assert.equal(problem.field, field);
  }
  const misspelt = gate("g", { timeout: { afterMs: 1, outcome: "FAILED", ouput: 1 } });
  assert.deepEqual(stepProblem(misspelt), { kind: "unknown_field", field: "timeout.ouput", stepKey: "g" });
});

Deno.test("what is wrong with the graph has its own kind, and names both ends", () => {
  const dependency = (fields: Loose): Loose => ({
    dependencies: [{ prerequisiteStepKey: "a", releaseMode: "ON_SUCCESS", ...fields }],
  });
  const cases: readonly (readonly [readonly WorkflowStepRequest[], WorkflowBuildProblem])[] = [
    [[job("a"), job("b", after("  "))], { kind: "blank_dependency_step_key", stepKey: "b" }],
    [[job("a"), job("b", after("b"))], { kind: "self_dependency", stepKey: "b" }],
    [[job("a"), job("b", after("c"))], { kind: "missing_dependency", stepKey: "b", prerequisiteStepKey: "c" }],
    [[job("a"), job("b", after("a", "a"))], {
      kind: "duplicate_dependency",
      stepKey: "b",
      prerequisiteStepKey: "a",
    }],
    [[
      job("a"),
      job("b", {
        dependencies: [
          { prerequisiteStepKey: "a", releaseMode: "ON_SUCCESS" },
          { prerequisiteStepKey: "a", releaseMode: "ON_TERMINAL" },
        ],
      }),
    ], { kind: "duplicate_dependency", stepKey: "b", prerequisiteStepKey: "a" }],
    [[job("a"), job("b", dependency({ releaseMode: "ALWAYS" }))], {
      kind: "invalid_setting",
      setting: "releaseMode",
      problem: "must be ON_TERMINAL or ON_SUCCESS",
      stepKey: "b",
    }],
    [[job("a"), job("b", dependency({ prerequisiteStepKey: 7 }))], {
      kind: "invalid_name",
      field: "prerequisiteStepKey",
      problem: "must be a string",
      stepKey: "b",
    }],
    [[job("x"), job("a", after("x", "c")), job("b", after("a")), job("c", after("b"))], {
      kind: "cycle",
      stepKeys: ["a", "b", "c"],
    }],
  ];
  for (const [steps, problem] of cases) assert.deepEqual(runProblem(run({ steps })), problem);
});

Deno.test("of several mistakes the first is reported, in a fixed order", () => {
  // Each entry mends one mistake more than the one before it.
  const steps = [
    job("d", { maxAttempts: 0, ...after("d") }),
    job("d", after("nowhere")),
  ];
  const circle = [job("d", after("e")), job("e", after("d"))];
  const broken = { idempotencyKey: " ", activeKey: " ", resultStepKey: " ", workflowType: " ", steps: [] };
  const mending: readonly (readonly [Loose, WorkflowBuildProblem["kind"] | undefined])[] = [
    [{}, "blank_idempotency_key"],
    [{ idempotencyKey: "k" }, "blank_active_key"],
    [{ activeKey: `${LONG}x` }, "name_too_long"],
    [{ activeKey: "k" }, "blank_result_step_key"],
    [{ resultStepKey: "nowhere" }, "blank_workflow_type"],
    [{ workflowType: "any" }, "empty_steps"],
    [{ steps: [job(""), ...steps] }, "blank_step_key"],
    [{ steps }, "non_positive_setting"],
    [{ steps: [job("d", after("d")), steps[1]] }, "duplicate_step"],
    [{ steps: [job("d", after("d", "nowhere")), job("e", after("nowhere"))] }, "self_dependency"],
    [{ steps: [job("d", after("e", "e", "nowhere")), job("e", after("d"))] }, "duplicate_dependency"],
    [{ steps: [job("d", after("e", "nowhere")), job("e", after("d"))] }, "missing_dependency"],
    [{ steps: circle }, "cycle"],
    [{ steps: [job("d"), job("e", after("d"))] }, "unknown_result_step"],
    [{ resultStepKey: "e" }, undefined],
  ];
  let fields: Loose = broken;
  for (const [mended, kind] of mending) {
    fields = { ...fields, ...mended };
    assert.equal(runProblem(run(fields))?.kind, kind);
  }
});

Deno.test("appended steps may wait for each other and for steps of the run, and for nothing else", () => {
  const appendProblem = (existing: Iterable<string>, ...steps: readonly WorkflowStepRequest[]) =>
    problemOf(() => assertWorkflowStepAppend(existing, steps));
  assert.equal(appendProblem(["old"], job("b", after("old", "a")), job("a")), undefined);
  assert.equal(appendProblem(new Set<string>(), job("a")), undefined);
  assert.deepEqual(appendProblem(["old"]), { kind: "empty_steps" });
  assert.deepEqual(appendProblem(["old"], job("old")), { kind: "duplicate_step", stepKey: "old" });
  assert.deepEqual(appendProblem(["old"], job("a"), job("a")), { kind: "duplicate_step", stepKey: "a" });
  // Steps by themselves come first.
  assert.equal(appendProblem(["old"], job("old"), job("a", { maxAttempts: 0 }))?.kind, "non_positive_setting");
  assert.deepEqual(appendProblem(["old"], job("a", after("older"))), {
    kind: "missing_dependency",
    stepKey: "a",
    prerequisiteStepKey: "older",
  });
  assert.deepEqual(appendProblem(["old"], job("a", after("old", "b")), job("b", after("a"))), {
    kind: "cycle",
    stepKeys: ["a", "b"],
  });
});

Deno.test("what is no object or list is a TypeError", () => {
  for (const wrong of [undefined, null, "any", [run()]]) {
    assert.throws(() => assertWorkflowRunRequest(wrong as never), TypeError);
  }
  assert.throws(() => assertWorkflowRunRequest(run({ steps: "a" })), TypeError);
  assert.throws(() => assertWorkflowRunRequest(run({ steps: [null] })), TypeError);
  assert.throws(() => assertWorkflowRunRequest(run({ steps: [job("a", { dependencies: "b" })] })), TypeError);
  assert.throws(() => assertWorkflowRunRequest(run({ steps: [job("a", { dependencies: [null] })] })), TypeError);
  assert.throws(() => assertWorkflowRunRequest(run({ steps: [job("a", { dependencies: undefined })] })), TypeError);
  assert.throws(() => assertWorkflowRunRequest(run({ steps: [gate("a", { timeout: 5 })] })), TypeError);
  assert.throws(() => assertWorkflowStepAppend([], {} as never), TypeError);
});

Deno.test("whatever is given, there is an answer: accepted, a problem with a kind, or a TypeError", () => {
  const value = fc.oneof(fc.anything(), fc.constantFrom("a", "b", "JOB", "EXTERNAL", "ON_SUCCESS", null, 1, {}, []));
  const step = fc.record({
    executionKind: fc.oneof({ weight: 4, arbitrary: fc.constantFrom("JOB", "EXTERNAL") }, value),
    stepKey: fc.oneof({ weight: 4, arbitrary: fc.constantFrom("a", "b", "c") }, value),
    jobType: fc.oneof({ weight: 4, arbitrary: fc.constant("x") }, value),
    payload: value,
    timeout: fc.oneof(fc.record({ afterMs: value, outcome: value, output: value }), value),
    dependencies: fc.array(fc.oneof(fc.record({ prerequisiteStepKey: value, releaseMode: value }), value)),
  }, { requiredKeys: ["dependencies"] });
  const any = fc.record({
    workflowType: fc.oneof({ weight: 4, arbitrary: fc.constant("x") }, value),
    metadata: value,
    steps: fc.array(fc.oneof({ weight: 5, arbitrary: step }, value)),
    [`resultStepKey`]: value,
  }, { requiredKeys: ["steps"] });
  fc.assert(
    fc.property(any, (given) => {
      try {
        assertWorkflowRunRequest(given as never);
      } catch (error) {
        assert(isWorkflowBuildError(error) || error instanceof TypeError, String(error));
        if (isWorkflowBuildError(error)) assert(JSON.stringify(error).length < 4000);
      }
    }),
    { numRuns: 2000 },
  );
});
