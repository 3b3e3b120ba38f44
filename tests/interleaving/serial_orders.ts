/**
 * What a run of several sessions must have looked like: as if its operations had run one after the other, in some order
 * that does not turn round what was over before something else began.
 *
 * @module
 */

import assert from "node:assert/strict";
import type { JobModel } from "../model/job_model.ts";
import type { Operation, OperationResult } from "../model/operation.ts";
import type { PartReport, RunReport } from "./stepped_sessions.ts";

type JobPart = PartReport<Operation, OperationResult>;

/** Operations that leave rows alone which others have locked. */
const SKIPS_LOCKED: ReadonlySet<string> = new Set([
  "claim",
  "heartbeat",
  "reap",
  "retention",
  "requeueDeadLetters",
]);

/**
 * Checks that a run is equal to some serial order: every answer, and what is stored afterwards. A part that was rolled
 * back must have answered truthfully and left nothing. An operation that skips locked rows may have missed jobs that
 * another session held at that moment, and only then.
 *
 * @param before What was stored before.
 * @param run What was done.
 * @param matches Throws unless a model is what is stored now.
 * @throws {assert.AssertionError} There is no such order.
 */
export function assertSerial(
  before: JobModel,
  run: RunReport<Operation, OperationResult>,
  matches: (model: JobModel) => void,
): void {
  const problems: string[] = [];
  const byEnd = run.parts.toSorted((one, other) => one.endedAt - other.endedAt);
  for (const order of permutations(byEnd)) {
    if (!keepsTime(order)) continue;
    for (const skipped of skips(order, run.parts, [...before.jobs.keys()])) {
      const model = before.clone();
      try {
        for (const [index, part] of order.entries()) {
          const target = part.ending === "rollback" ? model.clone() : model;
          target.apply(part.operation, part.result, skipped[index]);
        }
        matches(model);
        return;
      } catch (error) {
        assert(error instanceof assert.AssertionError, String(error));
        problems.push(`${order.map(({ operation }) => operation.op).join(", ")}: ${error.message}`);
      }
    }
  }
  assert.fail(
    [
      "no serial order explains this run:",
      ...run.trace.map((step) => `  ${step}`),
      ...run.parts.map(({ operation, ending, result }) =>
        `  ${JSON.stringify(operation)} ${ending}: ${JSON.stringify(result)}`
      ),
      ...problems,
    ].join("\n"),
  );
}

/** Every order of some items, the given one first. */
export function* permutations<T>(items: readonly T[]): Generator<readonly T[]> {
  if (items.length === 0) yield [];
  for (const [index, first] of items.entries()) {
    for (const rest of permutations(items.toSpliced(index, 1))) yield [first, ...rest];
  }
}

/** What was over before something else began comes first. */
export function keepsTime(order: readonly { readonly startedAt: number; readonly endedAt: number }[]): boolean {
  return order.every((part, index) => order.slice(index + 1).every((later) => later.endedAt >= part.startedAt));
}

/** For each part, jobs that it may have skipped. */
function* skips(
  order: readonly JobPart[],
  parts: readonly JobPart[],
  jobIds: readonly string[],
): Generator<readonly ReadonlySet<string>[]> {
  const [part, ...rest] = order;
  if (part === undefined) return yield [];
  const isShared = parts.some((other) =>
    other !== part && other.startedAt < part.startedAt && other.endedAt > part.startedAt
  );
  const own = isShared && SKIPS_LOCKED.has(part.operation.op) ? subsets(jobIds) : [new Set<string>()];
  for (const set of own) for (const others of skips(rest, parts, jobIds)) yield [set, ...others];
}

function subsets(items: readonly string[]): readonly ReadonlySet<string>[] {
  const [first, ...rest] = items;
  if (first === undefined) return [new Set()];
  return subsets(rest).flatMap((set) => [set, new Set([first, ...set])]);
}
