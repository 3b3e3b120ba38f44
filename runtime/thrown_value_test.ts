/// <reference lib="deno.ns" />
import assert from "node:assert/strict";
import { MAX_FAILURE_MESSAGE_BYTES, utf8Length } from "@runledger/core";
import fc from "fast-check";
import { describeThrown } from "./thrown_value.ts";

Deno.test("whatever is thrown has a description that can be stored", () => {
  fc.assert(
    fc.property(fc.anything({ withBigInt: true, withNullPrototype: true, withProxy: false } as never), (value) => {
      const text = describeThrown(value);
      assert.ok(text.length > 0 && utf8Length(text) <= MAX_FAILURE_MESSAGE_BYTES);
    }),
  );
});

Deno.test("an error keeps its message and stack, and those of its causes", () => {
  const text = describeThrown(new TypeError("outer", { cause: new RangeError("inner", { cause: "root" }) }));
  assert.match(text, /^TypeError: outer\n\s+at [^]*\nCaused by: RangeError: inner\n\s+at [^]*\nCaused by: .*root$/);
});

Deno.test("a message that was changed after the error was made is kept", () => {
  const error = new Error("first");
  error.message = "second";
  assert.match(describeThrown(error), /^Error: second\n/);
});

Deno.test("a cycle of causes ends", () => {
  const error = new Error("loop");
  error.cause = error;
  assert.ok(describeThrown(error).length > 0);
});
