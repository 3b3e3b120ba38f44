/**
 * Each check of the fault tests finds what it is for, and nothing in a run in which all went well.
 *
 * @module
 */

import assert from "node:assert/strict";
import { INVARIANTS, verdictOn } from "./invariants.ts";
import type { Evidence, StoredAttempt } from "./invariants.ts";
import type { JournalKind, JournalLine } from "./journal.ts";

const line = (kind: JournalKind, pid: number, jobId: string, attempt: number): JournalLine => ({
  kind,
  pid,
  at: 0,
  jobId,
  run: 1,
  attempt,
});
const attempt = (jobId: string, number: number, outcome: string | null): StoredAttempt => ({
  jobId,
  run: 1,
  attempt: number,
  outcome,
});
const dead = (pid: number): JournalLine => ({ kind: "dead", pid, at: 0 });

/** A job whose first worker is killed, and one that settles itself in its transaction. */
const GOOD: Evidence = {
  acknowledged: [{ jobId: "a", expected: "SUCCEEDED" }, { jobId: "t", expected: "SUCCEEDED" }],
  jobs: [
    { jobId: "a", jobType: "steady", status: "SUCCEEDED", ends: 1 },
    { jobId: "t", jobType: "transactional", status: "SUCCEEDED", ends: 1 },
  ],
  attempts: [attempt("a", 1, "LEASE_EXPIRED"), attempt("a", 2, "SUCCEEDED"), attempt("t", 1, "SUCCEEDED")],
  effects: [{ jobId: "t", run: 1, attempt: 1 }],
  journal: [
    line("start", 1, "a", 1),
    dead(1),
    line("start", 2, "a", 2),
    line("start", 2, "t", 1),
    line("end", 2, "a", 2),
    line("end", 2, "t", 1),
    dead(2),
  ],
  transactionalType: "transactional",
  maxConcurrency: 2,
};

Deno.test("a run in which all went well is found to be one", () => {
  assert.deepEqual(verdictOn(GOOD), []);
});

Deno.test("a zombie may begin beside the next attempt when it was stopped between its claim and its first line", () => {
  const journal = [line("start", 2, "a", 2), line("start", 1, "a", 1), line("end", 1, "a", 1), line("end", 2, "a", 2)];
  const evidence = { ...GOOD, journal: [...journal, ...GOOD.journal.filter(({ jobId }) => jobId === "t")] };
  assert.deepEqual(verdictOn(evidence), []);
  const attempts = [attempt("a", 1, "TIMEOUT"), ...GOOD.attempts.slice(1)];
  assert.equal(verdictOn({ ...evidence, attempts }).length, 1);
});

Deno.test("a zombie may run beside the next attempt when its lease was lost or its time was over", () => {
  const journal = [line("start", 1, "a", 1), line("start", 2, "a", 2), line("end", 1, "a", 1), line("end", 2, "a", 2)];
  const rest = GOOD.journal.filter(({ jobId }) => jobId === "t");
  for (const outcome of ["LEASE_EXPIRED", "TIMEOUT"]) {
    const attempts = [attempt("a", 1, outcome), ...GOOD.attempts.slice(1)];
    assert.deepEqual(verdictOn({ ...GOOD, attempts, journal: [...journal, ...rest] }), []);
  }
});

/** One change to the good run for everything that can be wrong, and the check that has to find it. */
const BAD: readonly (readonly [keyof typeof INVARIANTS, string, Partial<Evidence>])[] = [
  ["every acknowledged enqueue ended in exactly one terminal state", "is not there", { jobs: GOOD.jobs.slice(1) }],
  ["every acknowledged enqueue ended in exactly one terminal state", "enqueued by nobody", {
    acknowledged: GOOD.acknowledged.slice(1),
  }],
  ["every acknowledged enqueue ended in exactly one terminal state", "two enqueues", {
    acknowledged: [...GOOD.acknowledged, ...GOOD.acknowledged],
  }],
  ["every acknowledged enqueue ended in exactly one terminal state", "is LEASED", {
    jobs: GOOD.jobs.map((job) => ({ ...job, status: "LEASED", ends: 1 })),
  }],
  ["every acknowledged enqueue ended in exactly one terminal state", "not SUCCEEDED", {
    jobs: GOOD.jobs.map((job) => ({ ...job, status: "DEAD_LETTERED" })),
  }],
  ["every acknowledged enqueue ended in exactly one terminal state", "ended 2 times", {
    jobs: GOOD.jobs.map((job) => ({ ...job, ends: 2 })),
  }],
  ["nothing was run that was not claimed, and no attempt was run twice", "never claimed", {
    attempts: GOOD.attempts.slice(1),
  }],
  ["nothing was run that was not claimed, and no attempt was run twice", "run twice", {
    journal: [...GOOD.journal, line("start", 3, "a", 2), line("end", 3, "a", 2)],
  }],
  ["executions overlap only where a lease was lost", "began while", {
    attempts: [attempt("a", 1, "RETRYABLE"), ...GOOD.attempts.slice(1)],
    journal: GOOD.journal.slice(0, 1).concat(GOOD.journal.slice(2)),
  }],
  ["what succeeded was run to its end", "was not run", { journal: GOOD.journal.slice(0, 2) }],
  ["what succeeded was run to its end", "before its end", {
    journal: GOOD.journal.filter(({ kind, jobId }) => kind !== "end" || jobId !== "a"),
  }],
  ["transactional completions happened exactly once", "without its effect", { effects: [] }],
  ["transactional completions happened exactly once", "several effects", {
    effects: [...GOOD.effects, ...GOOD.effects],
  }],
  ["transactional completions happened exactly once", "did not succeed", {
    effects: [...GOOD.effects, { jobId: "a", run: 1, attempt: 1 }],
  }],
  ["concurrency was never above its limit", "2 handlers at once", { maxConcurrency: 1 }],
  ["no write of a zombie was accepted", "attempt 1", { journal: [...GOOD.journal, line("accepted", 1, "a", 1)] }],
];

for (const [name, problem, change] of BAD) {
  Deno.test(`${name}: found when broken (${problem})`, () => {
    const problems = INVARIANTS[name]?.({ ...GOOD, ...change }) ?? [];
    assert(problems.some((found) => found.includes(problem)), problems.join("\n"));
  });
}
