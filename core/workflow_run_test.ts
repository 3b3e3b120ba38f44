/// <reference lib="deno.ns" />
import assert from "node:assert/strict";
import fc from "fast-check";
import { canonicalWorkflowRequest, canonicalWorkflowSteps } from "./workflow_run.ts";
import type { WorkflowDependency, WorkflowRunRequest, WorkflowStepRequest } from "./workflow_run.ts";
import { assertWorkflowRunRequest } from "./workflow_validation.ts";

const ORGANIZATION = "0191D8A0-7C1E-7C3B-8F6A-1B2C3D4E5F60";

const OTHER_ORGANIZATION = "0191d8a0-7c1e-7c3b-8f6a-000000000000";

const settings = fc.record({
  organizationId: fc.uuid(),
  priority: fc.integer({ min: -5, max: 5 }),
  maxAttempts: fc.integer({ min: 1, max: 9 }),
  timeoutSeconds: fc.integer({ min: 1, max: 900 }),
  stage: fc.constantFrom("queued" as const, "scheduled" as const),
  allowsContinuation: fc.boolean(),
}, { requiredKeys: [] });

const timeout = fc.option(
  fc.record({
    afterMs: fc.integer({ min: 1, max: 9000 }),
    outcome: fc.constantFrom("FAILED" as const, "CANCELED" as const),
  }),
  { nil: undefined },
);

const stepKey = fc.stringMatching(/^[a-zé📨A-Z.]{1,4}$/u);

const run: fc.Arbitrary<WorkflowRunRequest> = fc.uniqueArray(stepKey, { minLength: 1, maxLength: 8 }).chain((keys) =>
  fc.record({
    workflowType: fc.constant("any"),
    metadata: fc.jsonValue().filter((value) => !JSON.stringify(value).includes("__proto__")) as fc.Arbitrary<null>,
    steps: fc.tuple(...keys.map((key, index) =>
      fc.record({
        edges: fc.subarray(keys.slice(0, index)),
        mode: fc.constantFrom("ON_TERMINAL" as const, "ON_SUCCESS" as const),
        isGate: fc.boolean(),
        settings,
        timeout,
      }).map((given): WorkflowStepRequest => {
        const dependencies = given.edges.map((prerequisiteStepKey): WorkflowDependency => ({
          prerequisiteStepKey,
          releaseMode: given.mode,
        }));
        if (!given.isGate) {
          return { executionKind: "JOB", stepKey: key, jobType: "x", payload: index, ...given.settings, dependencies };
        }
        return {
          executionKind: "EXTERNAL",
          stepKey: key,
          payload: index,
          ...(given.timeout === undefined ? {} : { timeout: given.timeout }),
          dependencies,
        };
      })
    )),
  })
);

Deno.test("the order in which steps and dependencies were given does not matter", () => {
  fc.assert(fc.property(run, fc.infiniteStream(fc.nat()), (given, keys) => {
    fc.pre(!JSON.stringify(given).includes("\\u"));
    const shuffled = <Item>(items: readonly Item[]): Item[] =>
      items.map((item) => [keys.next().value, item] as const).sort(([a], [b]) => a - b).map(([, item]) => item);
    assertWorkflowRunRequest(given);
    const other = {
      ...given,
      steps: shuffled(given.steps).map((step) => ({ ...step, dependencies: shuffled(step.dependencies) })),
    };
    assertWorkflowRunRequest(other);
    assert.deepEqual(canonicalWorkflowRequest(other), canonicalWorkflowRequest(given));
  }));
});

Deno.test("what may not differ does not: any change of a setting changes the canonical form", () => {
  const job: WorkflowStepRequest = { executionKind: "JOB", stepKey: "a", jobType: "x", payload: 1, dependencies: [] };
  const gate: WorkflowStepRequest = { executionKind: "EXTERNAL", stepKey: "a", payload: 1, dependencies: [] };
  const base: WorkflowRunRequest = { workflowType: "any", metadata: null, steps: [job] };
  const different: readonly WorkflowRunRequest[] = [
    base,
    { ...base, metadata: {} },
    { ...base, activeKey: "k" },
    { ...base, resultStepKey: "a" },
    { ...base, organizationId: ORGANIZATION },
    { ...base, organizationId: ORGANIZATION, steps: [{ ...job, organizationId: OTHER_ORGANIZATION }] },
    { ...base, steps: [job, { ...gate, stepKey: "b" }] },
    { ...base, steps: [{ ...job, stepKey: "b" }] },
    { ...base, steps: [{ ...job, jobType: "y" }] },
    { ...base, steps: [{ ...job, payload: 2 }] },
    { ...base, steps: [{ ...job, priority: 0 }] },
    { ...base, steps: [{ ...job, maxAttempts: 3 }] },
    { ...base, steps: [{ ...job, timeoutSeconds: 300 }] },
    { ...base, steps: [{ ...job, stage: "scheduled" }] },
    { ...base, steps: [{ ...job, allowsContinuation: true }] },
    { ...base, steps: [gate] },
    { ...base, steps: [{ ...gate, timeout: { afterMs: 1, outcome: "FAILED" } }] },
    { ...base, steps: [{ ...gate, timeout: { afterMs: 2, outcome: "FAILED" } }] },
    { ...base, steps: [{ ...gate, timeout: { afterMs: 1, outcome: "SUCCEEDED" } }] },
    { ...base, steps: [{ ...gate, timeout: { afterMs: 1, outcome: "SUCCEEDED", output: null } }] },
    ...(["ON_SUCCESS", "ON_TERMINAL"] as const).map((releaseMode): WorkflowRunRequest => ({
      ...base,
      steps: [job, { ...gate, stepKey: "b", dependencies: [{ prerequisiteStepKey: "a", releaseMode }] }],
    })),
  ];
  for (const candidate of different) assertWorkflowRunRequest(candidate);
  const forms = different.map((candidate) => JSON.stringify(canonicalWorkflowRequest(candidate)));
  assert.equal(new Set(forms).size, forms.length);
});

Deno.test("what means the same is the same: defaults of the library, inherited organizations, their letter case", () => {
  const job: WorkflowStepRequest = { executionKind: "JOB", stepKey: "a", jobType: "x", payload: 1, dependencies: [] };
  const base: WorkflowRunRequest = { workflowType: "any", metadata: null, organizationId: ORGANIZATION, steps: [job] };
  const same: readonly WorkflowRunRequest[] = [
    { ...base, steps: [{ ...job, stage: "queued" }] },
    { ...base, steps: [{ ...job, allowsContinuation: false }] },
    { ...base, steps: [{ ...job, organizationId: ORGANIZATION }] },
    { ...base, steps: [{ ...job, organizationId: ORGANIZATION.toLowerCase() }] },
    { ...base, organizationId: ORGANIZATION.toLowerCase() },
    // What an earlier request is found by is not compared.
    { ...base, workflowType: "other", idempotencyKey: "k" },
  ];
  for (const candidate of same) assert.deepEqual(canonicalWorkflowRequest(candidate), canonicalWorkflowRequest(base));
});

Deno.test("keys are sorted by code units, the same in every locale", () => {
  const gates = ["b", "É", "a", "Z", "é", "\u{1f4e8}", "\uffee"].map((key): WorkflowStepRequest => ({
    executionKind: "EXTERNAL",
    stepKey: key,
    payload: null,
    dependencies: [],
  }));
  const sorted = canonicalWorkflowSteps(gates).map((step) => step.step_key);
  assert.deepEqual(sorted, ["Z", "a", "b", "É", "é", "\u{1f4e8}", "\uffee"]);
});

Deno.test("a whole canonical request", () => {
  const request: WorkflowRunRequest = {
    workflowType: "invoice.process",
    metadata: { source: "api" },
    organizationId: ORGANIZATION,
    idempotencyKey: "invoice:1",
    activeKey: "account:1",
    resultStepKey: "charge",
    steps: [
      {
        executionKind: "JOB",
        stepKey: "charge",
        jobType: "invoice.charge",
        payload: { id: 1 },
        priority: 3,
        allowsContinuation: true,
        dependencies: [
          { prerequisiteStepKey: "fetch", releaseMode: "ON_TERMINAL" },
          { prerequisiteStepKey: "approval", releaseMode: "ON_SUCCESS" },
        ],
      },
      { executionKind: "JOB", stepKey: "fetch", jobType: "invoice.fetch", payload: null, dependencies: [] },
      {
        executionKind: "EXTERNAL",
        stepKey: "approval",
        payload: null,
        timeout: { afterMs: 1000, outcome: "SUCCEEDED", output: { by: "timeout" } },
        dependencies: [],
      },
    ],
  };
  const organization_id = ORGANIZATION.toLowerCase();
  assert.deepEqual(canonicalWorkflowRequest(request), {
    metadata: { source: "api" },
    active_key: "account:1",
    result_step_key: "charge",
    steps: [
      {
        step_key: "approval",
        execution_kind: "EXTERNAL",
        organization_id,
        payload: null,
        gate: { after_ms: 1000, outcome: "SUCCEEDED", output: { by: "timeout" } },
        dependencies: [],
      },
      {
        step_key: "charge",
        execution_kind: "JOB",
        job_type: "invoice.charge",
        organization_id,
        payload: { id: 1 },
        priority: 3,
        stage: "queued",
        allow_handler_continuation: true,
        dependencies: [
          { prerequisite_step_key: "approval", release_mode: "ON_SUCCESS" },
          { prerequisite_step_key: "fetch", release_mode: "ON_TERMINAL" },
        ],
      },
      {
        step_key: "fetch",
        execution_kind: "JOB",
        job_type: "invoice.fetch",
        organization_id,
        payload: null,
        stage: "queued",
        dependencies: [],
      },
    ],
  });
});
