/// <reference lib="deno.ns" />
import assert from "node:assert/strict";
import fc from "fast-check";
import { isWorkflowBuildError } from "./workflow_build_error.ts";
import { findWorkflowCycle, workflowStepPositions } from "./workflow_graph.ts";
import type { WorkflowNode } from "./workflow_graph.ts";

function node(stepKey: string, ...prerequisites: readonly string[]): WorkflowNode {
  return { stepKey, dependencies: prerequisites.map((prerequisiteStepKey) => ({ prerequisiteStepKey })) };
}

/** Edges by index, each from a lower to a higher place in a hidden order; the nodes are given in another order. */
const dag = fc.integer({ min: 1, max: 30 }).chain((size) =>
  fc.tuple(
    fc.array(fc.tuple(fc.nat(size - 1), fc.nat(size - 1)), { maxLength: 80 }),
    fc.shuffledSubarray(Array.from({ length: size }, (_, place) => place), { minLength: size, maxLength: size }),
  ).map(([pairs, declared]) => {
    const prerequisites = new Map<number, Set<number>>(declared.map((place) => [place, new Set()]));
    for (const [a, b] of pairs) if (a !== b) prerequisites.get(Math.max(a, b))?.add(Math.min(a, b));
    return declared.map((place) => node(`s${place}`, ...[...prerequisites.get(place) ?? []].map((p) => `s${p}`)));
  })
);

function assertTopological(steps: readonly WorkflowNode[], positions: ReadonlyMap<string, number>): void {
  assert.deepEqual([...positions.values()], steps.map((_, index) => index + 1));
  for (const { stepKey, dependencies } of steps) {
    for (const { prerequisiteStepKey } of dependencies) {
      const before = positions.get(prerequisiteStepKey);
      if (before !== undefined) assert(before < (positions.get(stepKey) ?? 0), `${prerequisiteStepKey} -> ${stepKey}`);
    }
  }
}

/** Each key must be among what the next one waits for, and the last among what the first does. */
function assertCircle(steps: readonly WorkflowNode[], cycle: readonly string[] | undefined): void {
  assert(cycle !== undefined && cycle.length > 0);
  assert.equal(new Set(cycle).size, cycle.length);
  const byKey = new Map(steps.map((step) => [step.stepKey, step]));
  cycle.forEach((stepKey, index) => {
    const waiting = byKey.get(cycle[(index + 1) % cycle.length] as string);
    assert(waiting?.dependencies.some((edge) => edge.prerequisiteStepKey === stepKey), stepKey);
  });
}

Deno.test("any graph without a circle is ordered so that each step comes after everything it waits for", () => {
  fc.assert(fc.property(dag, (steps) => {
    assert.equal(findWorkflowCycle(steps), undefined);
    assertTopological(steps, workflowStepPositions(steps));
  }));
});

Deno.test("in any graph with a circle, one is found, and its keys really are one, from the first that was declared", () => {
  const planted = dag.chain((steps) =>
    fc.tuple(fc.constant(steps), fc.shuffledSubarray(steps.map((step) => step.stepKey), { minLength: 1 }))
  );
  fc.assert(fc.property(planted, ([steps, ring]) => {
    const closed = steps.map((step) => {
      const at = ring.indexOf(step.stepKey);
      if (at === -1) return step;
      const before = ring[(at + ring.length - 1) % ring.length] as string;
      return { ...step, dependencies: [...step.dependencies, { prerequisiteStepKey: before }] };
    });
    const cycle = findWorkflowCycle(closed);
    assertCircle(closed, cycle);
    const places = cycle?.map((stepKey) => closed.findIndex((step) => step.stepKey === stepKey)) ?? [];
    assert.equal(places[0], Math.min(...places));
    assert.throws(() => workflowStepPositions(closed), (error) => {
      assert(isWorkflowBuildError(error));
      assert.deepEqual(error.problem, { kind: "cycle", stepKeys: cycle });
      return true;
    });
  }));
});

Deno.test("steps that were declared in an order that works keep it", () => {
  fc.assert(fc.property(dag, (steps) => {
    const positions = workflowStepPositions(steps);
    const sorted = steps.toSorted((a, b) => (positions.get(a.stepKey) ?? 0) - (positions.get(b.stepKey) ?? 0));
    assert.deepEqual([...workflowStepPositions(sorted).keys()], sorted.map((step) => step.stepKey));
  }));
});

Deno.test("a step that an earlier one waits for is drawn forward to just before it", () => {
  const steps = [node("free"), node("report", "charge"), node("other"), node("charge", "fetch"), node("fetch")];
  assert.deepEqual([...workflowStepPositions(steps).keys()], ["free", "fetch", "charge", "report", "other"]);
});

Deno.test("prerequisites that are not in the graph do not count: they may be steps of the run that is appended to", () => {
  assert.deepEqual([...workflowStepPositions([node("b", "a", "old"), node("a", "older")]).keys()], ["a", "b"]);
});

Deno.test("depth costs no stack: a chain of 10,000 steps, declared backwards, open and closed", () => {
  const size = 10_000;
  const chain = Array.from({ length: size }, (_, index) => node(`s${size - index}`, `s${size - index - 1}`));
  assertTopological(chain, workflowStepPositions(chain));
  const closed = chain.map((step) => step.stepKey === "s1" ? node("s1", `s${size}`) : step);
  const cycle = findWorkflowCycle(closed);
  assertCircle(closed, cycle);
  assert.equal(cycle?.length, size);
  assert.deepEqual(cycle?.slice(0, 2), [`s${size}`, "s1"]);
});

Deno.test("a step that waits for itself is a circle of one", () => {
  assert.deepEqual(findWorkflowCycle([node("a"), node("b", "a", "b")]), ["b"]);
});
