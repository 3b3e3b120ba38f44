/// <reference lib="deno.ns" />
import assert from "node:assert/strict";
import { z } from "zod";
import { isRunledgerError } from "./errors.ts";
import { defineJob } from "./job_definition.ts";
import type { AnyJobDefinition, JobDefinition, OutputOf, PayloadOf, StandardSchema } from "./job_definition.ts";
import type { JobRequest } from "./job_request.ts";
import type { JsonValue } from "./json.ts";

const importRows = defineJob({
  type: "rows.import",
  payload: z.object({ since: z.coerce.date<string>(), limit: z.number().default(100) }),
  output: z.object({ rows: z.string().transform(Number) }),
  version: 2,
  maxAttempts: 5,
  timeoutSeconds: 30,
  priority: -1,
  retry: { kind: "fixed", delayMs: 10 },
});
const anything = defineJob({ type: "anything" });

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false;
const same = <_ extends true>(): void => {};

Deno.test("types: requests take the schema's input, handlers get its output and return the output schema's input", () => {
  same<Equal<PayloadOf<typeof importRows>, { since: Date; limit: number }>>();
  same<Equal<OutputOf<typeof importRows>, { rows: string }>>();
  same<Equal<Parameters<typeof importRows.request>[0], { since: string; limit?: number | undefined }>>();
  same<Equal<Awaited<ReturnType<typeof importRows.decodeOutput>>, { rows: number }>>();
  same<Equal<PayloadOf<typeof anything>, JsonValue>>();
  same<Equal<OutputOf<typeof anything>, JsonValue | void>>();
  // deno-lint-ignore no-constant-condition
  if (false) {
    // @ts-expect-error: since is text in JSON
    importRows.request({ since: 5 });
    // @ts-expect-error: since is missing
    importRows.request({});
    // @ts-expect-error: a Date is no JSON value
    anything.request(new Date());
    // @ts-expect-error: a misspelt option
    anything.request(null, { idempotencykey: "x" });
    // @ts-expect-error: rows is text before the schema converts it
    importRows.encodeOutput({ rows: 1 });
    // @ts-expect-error: what has a schema returns something
    importRows.encodeOutput(undefined);
    // @ts-expect-error: definitions are constants
    importRows.maxAttempts = 9;
    // @ts-expect-error: a misspelt setting
    defineJob({ type: "x", maxAttempt: 3 });
    // @ts-expect-error: type is needed
    defineJob({});
  }
  const all: readonly AnyJobDefinition[] = [importRows, anything];
  assert.deepEqual(all.map((definition) => definition.type), ["rows.import", "anything"]);
});

Deno.test("a definition is frozen and has its settings or the defaults", () => {
  const { type, version, maxAttempts, timeoutSeconds, priority, retry } = importRows;
  assert.deepEqual(
    { type, version, maxAttempts, timeoutSeconds, priority, retry },
    {
      type: "rows.import",
      version: 2,
      maxAttempts: 5,
      timeoutSeconds: 30,
      priority: -1,
      retry: { kind: "fixed", delayMs: 10 },
    },
  );
  assert.deepEqual(
    [anything.version, anything.maxAttempts, anything.timeoutSeconds, anything.priority, anything.retry],
    [1, 3, 300, 0, "default"],
  );
  assert(Object.isFrozen(importRows));
});

Deno.test("a request holds the payload as given, and only the settings that were given", () => {
  const payload = { since: "2026-01-01" };
  const request: JobRequest = importRows.request(payload);
  assert.deepEqual(request, { jobType: "rows.import", payload: { since: "2026-01-01" } });
  assert.equal(request.payload, payload);
  assert.deepEqual(anything.request([1], { priority: 3, idempotencyKey: "k" }), {
    jobType: "anything",
    payload: [1],
    priority: 3,
    idempotencyKey: "k",
  });
});

Deno.test("what the handler's schema would refuse is refused when it is asked for", async () => {
  assert.throws(() => importRows.request({ since: "soon" }), (error) => {
    assert(isRunledgerError(error, "job.invalid_payload"));
    assert.deepEqual(error.details, {
      field: "payload",
      path: "$.since",
      paths: ["$.since"],
      problem: "the job's schema refuses it",
    });
    return true;
  });
  // Passes its own schema as it is, but the handler would be given its JSON text.
  const dated = defineJob({ type: "dated", payload: z.object({ at: z.date() }) });
  assert.throws(() => dated.request({ at: new Date(0) }), { code: "job.invalid_payload" });
  const coerced = defineJob({ type: "coerced", payload: z.object({ at: z.coerce.date() }) });
  const request = coerced.request({ at: new Date(0) });
  assert.deepEqual(request.payload, { at: "1970-01-01T00:00:00.000Z" });
  assert.deepEqual(await coerced.decodePayload(request.payload), { at: new Date(0) });
});

Deno.test("a payload that is not JSON is refused with its path, with or without a schema", () => {
  const loose = defineJob({ type: "loose", payload: z.object({ n: z.unknown() }) });
  for (const request of [() => loose.request({ n: [NaN] }), () => anything.request({ n: [NaN] })]) {
    assert.throws(request, {
      code: "job.invalid_payload",
      details: { field: "payload", path: "$.n[0]", problem: "a number must be finite" },
    });
  }
});

Deno.test("errors of schemas never show a value to clients", () => {
  const strict = defineJob({
    type: "strict",
    payload: z.object({ list: z.array(z.string().refine(() => false, { error: (issue) => `bad: ${issue.input}` })) }),
  });
  assert.throws(() => strict.request({ list: ["hunter2", "hunter3"] }), (error) => {
    assert(isRunledgerError(error, "job.invalid_payload"));
    assert.deepEqual(error.details?.paths, ["$.list[0]", "$.list[1]"]);
    assert(!(JSON.stringify(error) + Deno.inspect(error)).includes("hunter"));
    assert(error.internalMessage?.includes("hunter2"));
    return true;
  });
});

Deno.test("options that cannot be are refused", () => {
  assert.throws(() => anything.request(null, { maxAttempts: 0 }), {
    code: "job.invalid_request",
    details: { field: "maxAttempts" },
  });
});

const late = defineJob({
  type: "late",
  payload: z.object({ id: z.string().refine((id) => Promise.resolve(id !== "bad")) }),
  output: z.string().refine((text) => Promise.resolve(text !== "bad")),
});

Deno.test("an asynchronous schema needs requestAsync", async () => {
  for (const id of ["good", "bad"]) assert.throws(() => late.request({ id }), /requestAsync/);
  assert.throws(() => late.request({ id: "good" }), TypeError);
  assert.deepEqual(await late.requestAsync({ id: "good" }, { priority: 1 }), {
    jobType: "late",
    payload: { id: "good" },
    priority: 1,
  });
  await assert.rejects(late.requestAsync({ id: "bad" }), { code: "job.invalid_payload" });
  await assert.rejects(anything.requestAsync(null, { stage: "running" as "queued" }), { code: "job.invalid_request" });
  assert.deepEqual(await late.decodePayload({ id: "good" }), { id: "good" });
  assert.equal(await late.encodeOutput("good"), "good");
  await assert.rejects(async () => await late.encodeOutput("bad"), { code: "job.invalid_output" });
});

Deno.test("handlers are given the schema's output form, or a coded error", () => {
  assert.deepEqual(importRows.decodePayload({ since: "2026-01-01" }), { since: new Date("2026-01-01"), limit: 100 });
  assert.throws(() => importRows.decodePayload({ since: null, limit: "x" }), { code: "job.invalid_payload" });
  assert.equal(anything.decodePayload("raw"), "raw");
});

Deno.test("outputs are stored in their JSON form and read in the schema's output form", () => {
  assert.deepEqual(importRows.encodeOutput({ rows: "12" }), { rows: "12" });
  assert.deepEqual(importRows.decodeOutput({ rows: "12" }), { rows: 12 });
  assert.equal(anything.encodeOutput(undefined), undefined);
  assert.throws(() => importRows.encodeOutput({ rows: 12 } as never), { code: "job.invalid_output" });
  assert.throws(() => importRows.decodeOutput({}), { code: "job.invalid_output" });
  assert.throws(() => anything.encodeOutput(NaN), {
    code: "job.invalid_output",
    details: { field: "output", path: "$", problem: "a number must be finite" },
  });
});

Deno.test("any Standard Schema works, also one that is a function", () => {
  const even: StandardSchema<number, string> = Object.assign(() => {}, {
    "~standard": {
      version: 1 as const,
      vendor: "test",
      validate: (value: unknown) =>
        typeof value === "number" && value % 2 === 0
          ? { value: `even ${value}` }
          : { issues: [{ message: "odd", path: [{ key: "n" }, Symbol("s"), 0] }] },
    },
  });
  const definition: JobDefinition<number, string> = defineJob({ type: "even", payload: even });
  assert.equal(definition.decodePayload(definition.request(4).payload), "even 4");
  assert.throws(() => definition.request(3), /at \$\.n\["Symbol\(s\)"\]\[0\]/);
});

Deno.test("what cannot be a definition is refused with the name of its field", () => {
  const refused: readonly (readonly [Record<string, unknown>, string])[] = [
    [{}, "type"],
    [{ type: "\u0085" }, "type"],
    [{ type: "x".repeat(256) }, "type"],
    [{ type: "x", maxAttempt: 1 }, "maxAttempt"],
    [{ type: "x", version: 0 }, "version"],
    [{ type: "x", maxAttempts: 1.5 }, "maxAttempts"],
    [{ type: "x", timeoutSeconds: 2 ** 31 }, "timeoutSeconds"],
    [{ type: "x", priority: NaN }, "priority"],
    [{ type: "x", payload: {} }, "payload"],
    [{ type: "x", output: { "~standard": { version: 2, validate() {} } } }, "output"],
    [{ type: "x", retry: { kind: "fixed" } }, "retry.delayMs"],
  ];
  for (const [spec, field] of refused) {
    assert.throws(() => defineJob(spec as { type: string }), { code: "job.invalid_definition", details: { field } });
  }
  assert.throws(() => defineJob("email.send" as never), TypeError);
});
