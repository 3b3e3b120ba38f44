/// <reference lib="deno.ns" />
import assert from "node:assert/strict";
import fc from "fast-check";
import { isRunledgerError } from "./errors.ts";
import { assertJsonValue, decodeJson, encodeJson, isJsonValue, MAX_JSON_DEPTH } from "./json.ts";

/** What `encodeJson` says about a value that it must refuse. */
function refusalOf(value: unknown, options: { maxBytes?: number; maxDepth?: number } = {}): string {
  try {
    encodeJson(value, { field: "payload", ...options });
  } catch (error) {
    assert(isRunledgerError(error, "job.invalid_payload"), String(error));
    assert.equal(error.details?.field, "payload");
    return `${error.details?.path} ${error.details?.problem}`;
  }
  assert.fail("was encoded");
}

function nested(depth: number): unknown {
  let value: unknown = [];
  for (let level = 1; level < depth; level++) value = level % 2 ? [value] : { inner: value };
  return value;
}

const circle: Record<string, unknown> = { list: [] };
(circle.list as unknown[]).push({ back: circle });

Deno.test("any JSON value is encoded as JSON.stringify does, and accepted by each check", () => {
  fc.assert(fc.property(fc.jsonValue({ maxDepth: 6 }), (value) => {
    // What jsonb cannot store is another promise.
    const text = JSON.stringify(value);
    fc.pre(!text.includes("\\u") && !text.includes('"__proto__"'));
    assert.equal(encodeJson(value, { field: "payload" }), text);
    assert.deepEqual(decodeJson(encodeJson(value, { field: "payload" })), JSON.parse(text));
    assert(isJsonValue(value));
    assertJsonValue(value, { field: "payload" });
  }));
});

Deno.test("for any value at all: encoded, and then the text means the same and is storable, or a typed error", () => {
  const anything = fc.anything({
    withBigInt: true,
    withBoxedValues: true,
    withDate: true,
    withMap: true,
    withSet: true,
    withNullPrototype: true,
    withSparseArray: true,
    withTypedArray: true,
    withUnicodeString: true,
  });
  fc.assert(
    fc.property(anything, (value) => {
      let text: string;
      try {
        text = encodeJson(value, { field: "payload" });
      } catch (error) {
        assert(isRunledgerError(error, "job.invalid_payload"));
        assert.throws(() => assertJsonValue(value, { field: "payload" }), { code: "job.invalid_payload" });
        assert(!isJsonValue(value));
        return;
      }
      assertJsonValue(value, { field: "payload" });
      assert.equal(text, JSON.stringify(value));
      assert(isJsonValue(JSON.parse(text)));
    }),
    { numRuns: 1000 },
  );
});

Deno.test("what JSON would change in silence is refused with its path", () => {
  const hole = [1, 2, 3];
  delete hole[1];
  const cases: readonly (readonly [unknown, string])[] = [
    [undefined, "$ undefined has no JSON form here; use null"],
    [{ items: [0, 1, 2, { name: NaN }] }, "$.items[3].name a number must be finite"],
    [[-Infinity], "$[0] a number must be finite"],
    [{ "odd key": { n: 1n } }, '$["odd key"].n a BigInt has no JSON form; send a string'],
    [[null, undefined], "$[1] undefined has no JSON form here; use null"],
    [hole, "$[1] undefined has no JSON form here; use null"],
    [{ run() {} }, "$.run a function has no JSON form"],
    [{ tag: Symbol("x") }, "$.tag a symbol has no JSON form"],
    [{ map: new Map([[1, 2]]) }, "$.map Map has no JSON form"],
    [new Set(), "$ Set has no JSON form"],
    [/x/, "$ RegExp has no JSON form"],
    [new Error("x"), "$ Error has no JSON form"],
    [new Uint8Array(2), "$ Uint8Array has no JSON form"],
    [Promise.resolve(1), "$ Promise has no JSON form"],
    [Object(1), "$ Number has no JSON form"],
    [new TextEncoder(), "$ TextEncoder has no JSON form"],
    [JSON.parse('{"a": {"__proto__": 1}}'), "$.a a key must not be __proto__"],
    [circle, "$.list[0].back it must not contain itself"],
    [{ toJSON: () => undefined }, "$ undefined has no JSON form here; use null"],
    [[{ toJSON: () => [NaN] }], "$[0][0] a number must be finite"],
  ];
  for (const [value, refusal] of cases) {
    assert.equal(refusalOf(value), refusal);
    assert(!isJsonValue(value));
  }
});

Deno.test("text that PostgreSQL cannot store is refused, in values and keys, and nothing else that looks like it", () => {
  assert.equal(refusalOf({ note: "a\0" }), "$.note text must not hold U+0000 or a lone surrogate");
  assert.equal(refusalOf(["\ud83d"]), "$[0] text must not hold U+0000 or a lone surrogate");
  assert.equal(refusalOf({ a: { "\0": 1 } }), '$.a["\\u0000"] a key must not hold U+0000 or a lone surrogate');
  assert.equal(refusalOf({ "\udc00": 1 }), '$["\\udc00"] a key must not hold U+0000 or a lone surrogate');
  for (const text of ["\\u0000", "\\\\u0000", "\u0001", "📨", "\\ud800"]) {
    assert.equal(encodeJson({ [text]: text }, { field: "payload" }), JSON.stringify({ [text]: text }));
  }
});

Deno.test("no value appears in an error", () => {
  const secret = "hunter2";
  for (
    const value of [{ password: [secret, NaN] }, { password: `${secret}\0` }, [secret, () => secret], Symbol(secret)]
  ) {
    try {
      encodeJson(value, { field: "payload" });
      assert.fail();
    } catch (error) {
      assert(!Deno.inspect(error).includes(secret) && !JSON.stringify(error).includes(secret));
    }
  }
});

Deno.test("a getter or toJSON that throws is refused with its path", () => {
  const thrower = {
    a: {
      get b() {
        throw new Error("secret");
      },
    },
  };
  assert.equal(refusalOf(thrower), "$.a.b reading it must not throw");
  assert.equal(
    refusalOf([{
      toJSON() {
        throw new Error("secret");
      },
    }]),
    "$[0] reading it must not throw",
  );
  assert.equal(refusalOf({ at: new Date(NaN) }), "$.at a Date must be valid");
});

Deno.test("toJSON is heeded once, as JSON.stringify does, and undefined properties are left out", () => {
  const value = { at: new Date(0), url: new URL("https://example.com/"), none: undefined, zero: -0 };
  assert.equal(
    encodeJson(value, { field: "payload" }),
    '{"at":"1970-01-01T00:00:00.000Z","url":"https://example.com/","zero":0}',
  );
  assert(!isJsonValue(value));
  class Point {
    x = 1;
    #secret = 2;
    sum(): number {
      return this.x + this.#secret;
    }
  }
  assert.equal(encodeJson(new Point(), { field: "payload" }), '{"x":1}');
});

Deno.test("nesting is accepted to the limit and refused beyond it, at any depth without a stack overflow", () => {
  for (const value of [nested(MAX_JSON_DEPTH), nested(3)]) encodeJson(value, { field: "payload" });
  assert.match(refusalOf(nested(MAX_JSON_DEPTH + 1)), /must not be nested deeper than 256$/);
  assert.match(refusalOf(nested(100_000)), /must not be nested deeper than 256$/);
  assert(!isJsonValue(nested(100_000)));
  assert.match(refusalOf(nested(4), { maxDepth: 3 }), /deeper than 3$/);
  encodeJson([nested(400), "\u0001"], { field: "payload", maxDepth: 1000 });
  assert.throws(() => encodeJson(1, { field: "payload", maxDepth: 0 }), RangeError);
});

Deno.test("size is counted in bytes of UTF-8", () => {
  assert.equal(encodeJson("é", { field: "payload", maxBytes: 4 }), '"é"');
  assert.equal(refusalOf("é€", { maxBytes: 6 }), "$ it must take at most 6 bytes");
  assert.equal(refusalOf([1, 2, 3], { maxBytes: 6 }), "$ it must take at most 6 bytes");
  assert.equal(refusalOf("x".repeat(16_777_215)), "$ it must take at most 16777216 bytes");
});

Deno.test("shared objects are fine, until they add up to too much", () => {
  const shared = { a: 1 };
  assert.equal(encodeJson([shared, { shared }], { field: "payload" }), '[{"a":1},{"shared":{"a":1}}]');
  let doubled: unknown = [1];
  for (let level = 0; level < 60; level++) doubled = [doubled, doubled];
  assert.equal(refusalOf(doubled, { maxBytes: 100_000 }), "$ it must take at most 100000 bytes");
});

Deno.test("a value that changes between reads is refused, not stored in another form", () => {
  let reads = 0;
  const fickle = {
    get n() {
      return ++reads === 2 ? "\0" : 1;
    },
  };
  assert.equal(refusalOf(fickle), "$ it must give the same values each time it is read");
});
