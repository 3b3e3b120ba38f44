/// <reference lib="deno.ns" />
import assert from "node:assert/strict";
import fc from "fast-check";
import { isUuid, jobIdJitter, newId, uuidTimestamp } from "./id.ts";

const VERSION_7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

/** Runs with `Date.now` answering from a list, the last time for ever. */
function atTimes(times: readonly number[], body: () => void): void {
  const real = Date.now;
  let index = 0;
  Date.now = () => times[Math.min(index++, times.length - 1)] ?? 0;
  try {
    body();
  } finally {
    Date.now = real;
  }
}

Deno.test("ids are strictly ascending and unique, however many there are in a millisecond", () => {
  let previous = newId();
  for (let count = 0; count < 300_000; count++) {
    const id = newId();
    if (!(id > previous && VERSION_7.test(id))) assert.fail(`${id} after ${previous}`);
    previous = id;
  }
});

Deno.test("ids are strictly ascending while the clock steps back and forth", () => {
  const start = Date.now();
  fc.assert(fc.property(fc.array(fc.integer({ min: -100_000, max: 100 }), { minLength: 2 }), (steps) => {
    atTimes(steps.map((step) => start + step), () => {
      const ids = steps.map(() => newId());
      assert.deepEqual(ids.toSorted(), ids);
      assert.equal(new Set(ids).size, ids.length);
    });
  }));
});

Deno.test("an id tells the millisecond it was made in", () => {
  const future = Date.now() + 60_000;
  atTimes([future], () => assert.deepEqual(uuidTimestamp(newId()), new Date(future)));
  atTimes([future + 1], () => {
    const id = newId();
    assert.deepEqual(uuidTimestamp(id), new Date(future + 1));
    assert.deepEqual(uuidTimestamp(id.toUpperCase()), new Date(future + 1));
  });
});

Deno.test("only ids of version 7 tell a time", () => {
  for (const id of ["", "x", "f47ac10b-58cc-4372-a567-0e02b2c3d479", "017f22e2-79b0-7cc3-c8c4-dc0c0c07398f"]) {
    assert.equal(uuidTimestamp(id), undefined);
  }
});

Deno.test("isUuid takes what the platform makes and nothing near it", () => {
  fc.assert(fc.property(fc.uuid(), (id) => {
    assert(isUuid(id));
    assert(isUuid(id.toUpperCase()));
    for (const text of [`${id} `, `{${id}}`, id.replaceAll("-", ""), id.slice(1), `g${id.slice(1)}`, `${id}\n`]) {
      assert(!isUuid(text), text);
    }
  }));
});

Deno.test("jobIdJitter is the whole id modulo n", () => {
  fc.assert(fc.property(fc.uuid(), fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }), (id, modulus) => {
    let remainder = 0n;
    for (const digit of id.replaceAll("-", "")) {
      remainder = (remainder * 16n + BigInt(parseInt(digit, 16))) % BigInt(modulus);
    }
    assert.equal(jobIdJitter(id, modulus), Number(remainder));
    assert.equal(jobIdJitter(id.toUpperCase(), modulus), Number(remainder));
  }));
});

Deno.test("jobIdJitter of new ids is spread over all values", () => {
  const counts = new Array<number>(10).fill(0);
  for (let count = 0; count < 10_000; count++) {
    const value = jobIdJitter(newId(), 10);
    counts[value] = (counts[value] ?? 0) + 1;
  }
  for (const count of counts) assert(count > 700 && count < 1300, String(counts));
});

Deno.test("jobIdJitter refuses what is no id or modulus", () => {
  assert.throws(() => jobIdJitter("job-1", 10), RangeError);
  for (const modulus of [0, -1, 1.5, NaN, 2 ** 53]) assert.throws(() => jobIdJitter(newId(), modulus), RangeError);
});
