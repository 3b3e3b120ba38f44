/// <reference lib="deno.ns" />
import assert from "node:assert/strict";
import fc from "fast-check";
import { MAX_DELAY_MS } from "./outcome_fields.ts";
import { assertRetryPolicy, defaultRetryDelayMs, retryDelayMs } from "./retry_policy.ts";
import type { RetryPolicy } from "./retry_policy.ts";

const delay = fc.integer({ min: 0, max: MAX_DELAY_MS });
const attempt = fc.integer({ min: 1, max: 2 ** 31 - 1 });
const byCode = fc.option(fc.dictionary(fc.constantFrom("a", "constructor", "x.y"), delay), { nil: undefined })
  .map((codes) => codes === undefined ? {} : { byCode: codes });
const exponential = fc.tuple(
  delay,
  delay,
  fc.double({ min: 1, max: 100, noNaN: true }),
  fc.double({
    min: 0,
    max: 1,
    noNaN: true,
  }),
).map(([one, other, factor, jitter]) => ({
  kind: "exponential" as const,
  baseMs: Math.min(one, other),
  maxMs: Math.max(one, other),
  factor,
  jitter,
}));
const policy: fc.Arbitrary<RetryPolicy> = fc.oneof(
  fc.constant("default" as const),
  byCode.map((codes) => ({ kind: "default" as const, ...codes })),
  fc.tuple(delay, byCode).map(([delayMs, codes]) => ({ kind: "fixed" as const, delayMs, ...codes })),
  fc.tuple(exponential, byCode).map(([growing, codes]) => ({ ...growing, ...codes })),
  fc.tuple(fc.array(delay, { minLength: 1 }), byCode).map(([delaysMs, codes]) => ({
    kind: "list" as const,
    delaysMs,
    ...codes,
  })),
);

Deno.test("the default delay follows the documented rule", () => {
  const jobId = "00000000-0000-7000-8000-000000000000";
  const jitter = Number(BigInt("0x00000000000070008000000000000000") % 1000n) - 500;
  assert.deepEqual(
    [0, 1, 2, 3, 4, 5, 6, 10, 11, 1000].map((count) => defaultRetryDelayMs(count, jobId) - jitter),
    [10_000, 10_000, 20_000, 40_000, 80_000, 160_000, 300_000, 300_000, 300_000, 300_000],
  );
});

Deno.test("the default delay stays within half a second of its step, never decreases, and is the same each time", () => {
  fc.assert(fc.property(fc.uuid(), attempt, (jobId, count) => {
    const delayMs = defaultRetryDelayMs(count, jobId);
    const step = Math.min(5000 * 2 ** Math.min(count, 10), 300_000);
    assert(delayMs >= Math.max(1000, step - 500) && delayMs < step + 500);
    assert(defaultRetryDelayMs(count + 1, jobId) >= delayMs);
    assert.equal(defaultRetryDelayMs(count, jobId), delayMs);
  }));
});

Deno.test("each valid policy gives a whole, bounded delay, the same each time", () => {
  fc.assert(
    fc.property(policy, attempt, fc.uuid(), fc.constantFrom("a", "b", "toString"), (rule, count, jobId, code) => {
      assertRetryPolicy(rule);
      const situation = { attempt: count, jobId, failureCode: code };
      const delayMs = retryDelayMs(rule, situation);
      assert(Number.isSafeInteger(delayMs) && delayMs >= 0 && delayMs <= MAX_DELAY_MS);
      assert.equal(retryDelayMs(rule, situation), delayMs);
    }),
  );
});

Deno.test("an exponential delay never decreases with attempts and never exceeds its maximum", () => {
  fc.assert(fc.property(exponential, fc.integer({ min: 1, max: 300 }), fc.uuid(), (rule, count, jobId) => {
    const delayMs = retryDelayMs(rule, { attempt: count, jobId });
    assert(delayMs <= rule.maxMs);
    assert(delayMs >= Math.floor(rule.baseMs * (1 - rule.jitter)));
    assert(retryDelayMs(rule, { attempt: count + 1, jobId }) >= delayMs);
  }));
});

Deno.test("an exponential delay begins at its base, doubles unless told otherwise, and jitter only shortens it", () => {
  const jobId = "00000000-0000-7000-8000-0000000001f4";
  const share = Number(BigInt("0x000000000000700080000000000001f4") % 1000n) / 1000;
  const delaysOf = (rule: RetryPolicy) => [1, 2, 3, 4].map((count) => retryDelayMs(rule, { attempt: count, jobId }));
  assert.deepEqual(delaysOf({ kind: "exponential", baseMs: 100, maxMs: 500 }), [100, 200, 400, 500]);
  assert.deepEqual(delaysOf({ kind: "exponential", baseMs: 10, factor: 3, maxMs: 90 }), [10, 30, 90, 90]);
  assert.deepEqual(
    delaysOf({ kind: "exponential", baseMs: 1000, factor: 1, maxMs: 1000, jitter: 0.5 }),
    new Array(4).fill(Math.round(1000 * (1 - 0.5 * share))),
  );
});

Deno.test("a delay for the failure's code goes before the policy, by own names only", () => {
  const rule: RetryPolicy = { kind: "fixed", delayMs: 5, byCode: { "mail.busy": 7, free: 0 } };
  const jobId = "f47ac10b-58cc-4372-a567-0e02b2c3d479";
  const delayFor = (failureCode: string) => retryDelayMs(rule, { attempt: 1, jobId, failureCode });
  assert.deepEqual(["mail.busy", "free", "other", "constructor"].map(delayFor), [7, 0, 5, 5]);
  const spared: RetryPolicy = { kind: "default", byCode: { "mail.busy": 7 } };
  assert.equal(retryDelayMs(spared, { attempt: 3, jobId }), defaultRetryDelayMs(3, jobId));
});

Deno.test("what cannot be a policy is refused with the name of its field", () => {
  const refused: readonly (readonly [unknown, string])[] = [
    ["sometimes", "retry"],
    [null, "retry"],
    [{ kind: "linear" }, "retry.kind"],
    [{ kind: "fixed" }, "retry.delayMs"],
    [{ kind: "fixed", delayMs: 0.5 }, "retry.delayMs"],
    [{ kind: "fixed", delayMs: MAX_DELAY_MS + 1 }, "retry.delayMs"],
    [{ kind: "exponential", baseMs: 10, maxMs: 9 }, "retry.maxMs"],
    [{ kind: "exponential", baseMs: 10, maxMs: 90, factor: 0.9 }, "retry.factor"],
    [{ kind: "exponential", baseMs: 10, maxMs: 90, jitter: NaN }, "retry.jitter"],
    [{ kind: "list", delaysMs: [] }, "retry.delaysMs"],
    [{ kind: "list", delaysMs: [1, -1] }, "retry.delaysMs[1]"],
    [{ kind: "default", byCode: { "mail.busy": "soon" } }, "retry.byCode.mail.busy"],
    [{ kind: "default", byCode: null }, "retry.byCode"],
  ];
  for (const [rule, field] of refused) {
    assert.throws(() => assertRetryPolicy(rule as RetryPolicy), { code: "job.invalid_definition", details: { field } });
  }
});
