/// <reference lib="deno.ns" />
import assert from "node:assert/strict";
import fc from "fast-check";
import { isRunledgerError } from "./errors.ts";
import { callOff, complete, continueAfter, continueNow, isJobCompletion, snooze } from "./job_completion.ts";
import {
  isJobFailure,
  isRetryableFailureKind,
  JOB_FAILURE_KINDS,
  JobFailure,
  MAX_FAILURE_MESSAGE_BYTES,
  storedFailure,
} from "./job_failure.ts";
import { assertJobOutcome } from "./job_outcome.ts";
import type { JobOutcome } from "./job_outcome.ts";
import { MAX_DELAY_MS } from "./outcome_fields.ts";
import { utf8Length } from "./stored_text.ts";

const failure = { kind: "RETRYABLE", code: "mail.busy", message: "" } as const;

Deno.test("only TERMINAL and PANICKED failures are never retried", () => {
  assert.deepEqual(JOB_FAILURE_KINDS.filter((kind) => !isRetryableFailureKind(kind)), ["TERMINAL", "PANICKED"]);
});

Deno.test("outcomes that can be settled are accepted", () => {
  const accepted: readonly JobOutcome[] = [
    { kind: "succeeded" },
    { kind: "succeeded", output: null, progress: { done: 0, total: 0 }, checkpoint: [] },
    { kind: "failed", failure },
    { kind: "failed", failure, retryDelayMs: MAX_DELAY_MS, retryNotBefore: { delayMs: 0 }, progress: { done: 2 } },
    { kind: "failed", failure, retryNotBefore: { at: new Date("9999-12-31T23:59:59.999Z") } },
    { kind: "continued" },
    { kind: "continued", delayMs: 0, checkpoint: "x" },
    { kind: "snoozed", delayMs: 1, reason: "closed" },
    { kind: "canceled" },
  ];
  for (const outcome of accepted) assertJobOutcome(outcome);
});

Deno.test("outcomes that cannot be settled are refused with the name of the field", () => {
  const refused: readonly (readonly [unknown, string, string])[] = [
    [{ kind: "done" }, "job.invalid_outcome", "kind"],
    [{ kind: "snoozed" }, "job.invalid_outcome", "delayMs"],
    [{ kind: "snoozed", delayMs: -1 }, "job.invalid_outcome", "delayMs"],
    [{ kind: "snoozed", delayMs: MAX_DELAY_MS + 1 }, "job.invalid_outcome", "delayMs"],
    [{ kind: "snoozed", delayMs: 1, reason: "\0" }, "job.invalid_outcome", "reason"],
    [{ kind: "continued", delayMs: 0.5 }, "job.invalid_outcome", "delayMs"],
    [{ kind: "canceled", reason: "x".repeat(8193) }, "job.invalid_outcome", "reason"],
    [{ kind: "failed" }, "job.invalid_outcome", "failure"],
    [{ kind: "failed", failure: { ...failure, kind: "ODD" } }, "job.invalid_outcome", "failure.kind"],
    [{ kind: "failed", failure: { ...failure, code: " " } }, "job.invalid_outcome", "failure.code"],
    [{ kind: "failed", failure: { ...failure, code: "é".repeat(257) } }, "job.invalid_outcome", "failure.code"],
    [{ kind: "failed", failure: { ...failure, message: "\ud800" } }, "job.invalid_outcome", "failure.message"],
    [{ kind: "failed", failure: { ...failure, message: "é".repeat(4097) } }, "job.invalid_outcome", "failure.message"],
    [{ kind: "failed", failure, retryDelayMs: NaN }, "job.invalid_outcome", "retryDelayMs"],
    [{ kind: "failed", failure, retryNotBefore: { delayMs: "1" } }, "job.invalid_outcome", "retryNotBefore.delayMs"],
    [{ kind: "failed", failure, retryNotBefore: { at: new Date(NaN) } }, "job.invalid_outcome", "retryNotBefore.at"],
    [{ kind: "failed", failure, retryNotBefore: {} }, "job.invalid_outcome", "retryNotBefore.at"],
    [{ kind: "succeeded", progress: { done: -1 } }, "job.invalid_progress", "progress.done"],
    [{ kind: "succeeded", progress: { done: 2 ** 53 } }, "job.invalid_progress", "progress.done"],
    [{ kind: "succeeded", progress: { done: 2, total: 1 } }, "job.invalid_progress", "progress.total"],
    [{ kind: "succeeded", progress: 1 }, "job.invalid_progress", "progress"],
    [{ kind: "succeeded", output: () => 1 }, "job.invalid_payload", "output"],
    [{ kind: "continued", checkpoint: [undefined] }, "job.invalid_payload", "checkpoint"],
  ];
  for (const [outcome, code, field] of refused) {
    assert.throws(() => assertJobOutcome(outcome as JobOutcome), (error) => {
      assert(isRunledgerError(error));
      assert.deepEqual([error.code, error.details?.field], [code, field]);
      return true;
    });
  }
  assert.throws(() => assertJobOutcome(undefined as never), TypeError);
});

Deno.test("any progress is accepted exactly when 0 <= done <= total in whole numbers", () => {
  const number = fc.oneof(fc.integer({ min: -2, max: 9 }), fc.double(), fc.maxSafeInteger());
  fc.assert(fc.property(number, fc.option(number, { nil: undefined }), (done, total) => {
    const progress = total === undefined ? { done } : { done, total };
    const valid = Number.isSafeInteger(done) && done >= 0 &&
      (total === undefined || (Number.isSafeInteger(total) && done <= total));
    const check = () => assertJobOutcome({ kind: "succeeded", progress });
    if (valid) check();
    else assert.throws(check, { code: "job.invalid_progress" });
  }));
});

Deno.test("whatever a handler throws, its stored failure can be settled", () => {
  fc.assert(fc.property(fc.string({ unit: "binary", maxLength: 20_000, size: "max" }), (message) => {
    const stored = storedFailure({ ...failure, message });
    assert(utf8Length(stored.message) <= MAX_FAILURE_MESSAGE_BYTES);
    assertJobOutcome({ kind: "failed", failure: stored });
  }));
});

Deno.test("a JobFailure is recognised across copies of the package, and nothing else is", () => {
  assert(isJobFailure(JobFailure.retryable("a", "b")));
  assert(isJobFailure(Object.assign(new Error("b"), { name: "JobFailure", kind: "TERMINAL", code: "a" })));
  for (
    const value of [
      undefined,
      new Error("x"),
      { name: "JobFailure", kind: "TERMINAL", code: "a", message: "" },
      Object.assign(new Error(), { name: "JobFailure", kind: "ODD", code: "a" }),
      Object.assign(new Error(), { name: "JobFailure", kind: "TERMINAL", code: "" }),
    ]
  ) assert(!isJobFailure(value));
});

Deno.test("a JobFailure keeps what it was given, and refuses what cannot be settled", () => {
  const cause = new Error("socket closed");
  const retryNotBefore = { delayMs: 5 };
  const thrown = JobFailure.retryable("mail.busy", "later", { cause, retryNotBefore });
  assert.deepEqual([thrown.kind, thrown.code, thrown.message], ["RETRYABLE", "mail.busy", "later"]);
  assert.equal(thrown.cause, cause);
  assert.deepEqual(thrown.retryNotBefore, retryNotBefore);
  assert(!("retryNotBefore" in JobFailure.terminal("mail.gone", "")));
  assert.throws(() => JobFailure.terminal(" ", ""), { code: "job.invalid_outcome" });
  assert.throws(() => JobFailure.retryable("a", "", { retryNotBefore: { delayMs: -1 } }), {
    code: "job.invalid_outcome",
  });
});

Deno.test("completions carry the fields of their outcome and are told from every plain output", () => {
  const completions = [
    complete(),
    complete({ id: 1 }, { progress: { done: 1 } }),
    continueNow({ checkpoint: null }),
    continueAfter(5),
    snooze(7, { reason: "r" }),
    callOff("x"),
  ];
  for (const completion of completions) {
    assert(isJobCompletion(completion));
    assert(Object.isFrozen(completion));
    // No JSON can pass for one, not even that of a completion.
    assert(!isJobCompletion(JSON.parse(JSON.stringify(completion))));
  }
  assert.deepEqual(completions.map(({ "~runledger": _, ...fields }) => JSON.parse(JSON.stringify(fields))), [
    { kind: "succeeded" },
    { kind: "succeeded", output: { id: 1 }, progress: { done: 1 } },
    { kind: "continued", checkpoint: null },
    { kind: "continued", delayMs: 5 },
    { kind: "snoozed", delayMs: 7, reason: "r" },
    { kind: "canceled", reason: "x" },
  ]);
  assert(isJobCompletion({ [Symbol.for("runledger.JobCompletion")]: true }));
  for (const output of [undefined, null, 1, "x", [], { kind: "succeeded" }]) assert(!isJobCompletion(output));
});

Deno.test("completions that cannot be settled are refused where they are made", () => {
  assert.throws(() => continueAfter(NaN), {
    code: "job.invalid_outcome",
    details: { field: "delayMs", problem: `must be a whole number of milliseconds from 0 to ${MAX_DELAY_MS}` },
  });
  assert.throws(() => snooze(1.5), { code: "job.invalid_outcome" });
  assert.throws(() => snooze(1, { reason: "\0" }), { code: "job.invalid_outcome" });
  assert.throws(() => callOff("\ud800"), { code: "job.invalid_outcome" });
  assert.throws(() => complete(1, { progress: { done: 2, total: 1 } }), { code: "job.invalid_progress" });
});

Deno.test("the type of a completion follows its output", () => {
  const completion = complete({ rows: 1 });
  if (completion.kind === "succeeded") {
    const rows: number | undefined = completion.output?.rows;
    assert.equal(rows, 1);
    // @ts-expect-error: rows is a number
    const wrong: string | undefined = completion.output?.rows;
    void wrong;
  }
});
