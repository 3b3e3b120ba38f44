/**
 * The graphs that the workflow benchmark runs.
 *
 * @module
 */

import type { WorkflowRunRequest, WorkflowStepRequest } from "@runledger/core";

/** A graph, and its size. */
export interface Shape {
  /** What is enqueued. */
  readonly request: WorkflowRunRequest;
  /** How many steps it has. */
  readonly stepCount: number;
}

/** One step, two that wait for it, one that waits for both. */
export const DIAMOND: Shape = shape("bench.diamond", [
  step("fetch", []),
  step("left", ["fetch"]),
  step("right", ["fetch"]),
  step("join", ["left", "right"]),
]);

/** Steps that wait for each other, one after the other. */
export function chain(length: number): Shape {
  return shape(
    "bench.chain",
    Array.from({ length }, (_, n) => step(`step-${n}`, n === 0 ? [] : [`step-${n - 1}`])),
  );
}

/** One step, `width` steps that wait for it, one that waits for all of those. */
export function fanOut(width: number): Shape {
  const parts = Array.from({ length: width }, (_, n) => `part-${n}`);
  return shape("bench.fan_out", [
    step("split", []),
    ...parts.map((part) => step(part, ["split"])),
    step("join", parts),
  ]);
}

function step(stepKey: string, prerequisites: readonly string[]): WorkflowStepRequest {
  return {
    executionKind: "JOB",
    stepKey,
    jobType: "noop",
    payload: { n: 1 },
    dependencies: prerequisites.map((prerequisiteStepKey) => ({ prerequisiteStepKey, releaseMode: "ON_SUCCESS" })),
  };
}

function shape(workflowType: string, steps: readonly WorkflowStepRequest[]): Shape {
  return { request: { workflowType, metadata: {}, steps }, stepCount: steps.length };
}
