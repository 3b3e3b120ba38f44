/// <reference lib="deno.ns" />
import assert from "node:assert/strict";
import { complete, continueNow, defineJob } from "@runledger/core";
import { z } from "zod";
import { JobCatalog } from "./catalog.ts";

const mail = defineJob({ type: "mail", payload: z.object({ to: z.string() }), output: z.object({ id: z.string() }) });

Deno.test("a handler's payload and output have the types of the definition's schemas", () => {
  const catalog = new JobCatalog()
    .handle(mail, ({ to }, context) => {
      const text: string = to;
      // @ts-expect-error: the schema has no such field
      const missing = () => context.transaction(async (_tx, finish) => await finish({ no: text }));
      return missing.length === 0 ? { id: text } : continueNow();
    })
    .handle(defineJob({ type: "plain" }), () => {})
    .handle(defineJob({ type: "done", output: z.number() }), () => Promise.resolve(complete(7)));
  // @ts-expect-error: the output must have an id
  catalog.handle(defineJob({ type: "wrong", output: z.object({ id: z.string() }) }), () => ({ no: 1 }));
  assert.deepEqual(catalog.jobTypes, ["done", "mail", "plain", "wrong"]);
  assert.deepEqual(catalog.definitions.map(({ type }) => type), catalog.jobTypes);
});

Deno.test("a job type has one handler in a catalog", () => {
  const catalog = new JobCatalog().handle(mail, ({ to }) => ({ id: to }));
  assert.throws(() => catalog.handle(mail, ({ to }) => ({ id: to })), { code: "job.invalid_definition" });
  assert.throws(() => new JobCatalog().handle(mail, undefined as never), TypeError);
});

Deno.test("a type without a handler is missing, or refused where it must be there", () => {
  const catalog = new JobCatalog();
  assert.equal(catalog.get("mail"), undefined);
  assert.throws(() => catalog.require("mail"), { code: "job.handler_not_registered" });
});
