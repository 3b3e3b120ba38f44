/// <reference lib="deno.ns" />
import assert from "node:assert/strict";
import { isRunledgerError } from "./errors.ts";
import { assertJobRequest, MAX_INTEGER } from "./job_request.ts";
import type { JobRequest } from "./job_request.ts";

const request: JobRequest = { jobType: "email.send", payload: null };

function fieldRefused(candidate: unknown): unknown {
  try {
    assertJobRequest(candidate as JobRequest);
  } catch (error) {
    assert(isRunledgerError(error, "job.invalid_request"), String(error));
    return error.details?.field;
  }
  return undefined;
}

Deno.test("requests at the limits are accepted", () => {
  const accepted: readonly JobRequest[] = [
    request,
    { ...request, jobType: "é".repeat(127) + "x", idempotencyKey: "é".repeat(256) },
    { ...request, priority: -MAX_INTEGER - 1, maxAttempts: 1, timeoutSeconds: 1 },
    { ...request, priority: MAX_INTEGER, maxAttempts: MAX_INTEGER, timeoutSeconds: MAX_INTEGER },
    { ...request, nextRunAt: new Date("0001-01-01T00:00:00Z"), stage: "queued" },
    { ...request, nextRunAt: new Date("9999-12-31T23:59:59.999Z"), stage: "scheduled" },
    { ...request, organizationId: "0191D8A0-7c1e-7c3b-8f6a-1b2c3d4e5f60" },
    { ...request, jobType: " padded ", idempotencyKey: "📨" },
  ];
  for (const candidate of accepted) assert.equal(fieldRefused(candidate), undefined);
});

Deno.test("settings that are given as undefined count as not given", () => {
  const open = { ...request, priority: undefined, nextRunAt: undefined, idempotencyKey: undefined, stage: undefined };
  assert.equal(fieldRefused(open), undefined);
});

Deno.test("what cannot be enqueued is refused with the name of the field", () => {
  const refused: Readonly<Record<string, readonly unknown[]>> = {
    jobType: [undefined, 5, "", "  ", "\u0085", "\ufeff", "\u2003\n", "a\0", "\ud800", "é".repeat(128)],
    idempotencyKey: [null, 5, "", "\u0085 ", "a\0", "a\udc00", "é".repeat(257)],
    organizationId: ["", "tenant-1", "0191d8a07c1e7c3b8f6a1b2c3d4e5f60", 7, null],
    priority: [0.5, NaN, "1", MAX_INTEGER + 1, -MAX_INTEGER - 2, null],
    maxAttempts: [0, -1, 1.5, MAX_INTEGER + 1, "3", NaN, null],
    timeoutSeconds: [0, -1, 0.5, MAX_INTEGER + 1, Infinity],
    nextRunAt: [
      new Date(NaN),
      new Date("+010000-01-01T00:00:00Z"),
      new Date("0000-12-31T23:59:59Z"),
      "2026-01-01",
      5,
      null,
    ],
    stage: ["running", "completed", "", null],
  };
  for (const [field, values] of Object.entries(refused)) {
    for (const value of values) assert.equal(fieldRefused({ ...request, [field]: value }), field, String(value));
  }
});

Deno.test("a field that no request has is refused, so that a misspelt key does not lose idempotency", () => {
  assert.equal(fieldRefused({ ...request, idempotencykey: "order:1" }), "idempotencykey");
  assert.throws(() => assertJobRequest({ ...request, runAt: new Date() } as JobRequest), {
    message: /"runAt" is not one of jobType, payload, .*nextRunAt/,
  });
});

Deno.test("what is no object is a TypeError", () => {
  for (const candidate of [undefined, null, "email.send", [request]]) {
    assert.throws(() => assertJobRequest(candidate as never), TypeError);
  }
});

Deno.test("no value appears in an error", () => {
  assert.throws(() => assertJobRequest({ ...request, idempotencyKey: `hunter2${"\0"}` }), (error) => {
    assert(!Deno.inspect(error).includes("hunter2"));
    return true;
  });
});
