/// <reference lib="deno.ns" />
import assert from "node:assert/strict";
import fc from "fast-check";
import { boundedText, isBlankText, isStorableText, utf8Length } from "./stored_text.ts";

const anyText = fc.oneof(
  fc.string({ unit: "binary" }),
  fc.string({ unit: fc.constantFrom("a", "é", "€", "📨", "\0", "\ud800", "\udc00", "\ud83d") }),
);
const encoder = new TextEncoder();

Deno.test("utf8Length counts what TextEncoder writes, for any string", () => {
  fc.assert(fc.property(anyText, (text) => assert.equal(utf8Length(text), encoder.encode(text).length)));
});

Deno.test("boundedText is storable, within its bytes, and leaves fitting storable text as it is", () => {
  fc.assert(fc.property(anyText, fc.nat(40), (text, maxBytes) => {
    const bounded = boundedText(text, maxBytes);
    assert(isStorableText(bounded));
    assert(utf8Length(bounded) <= maxBytes);
    if (isStorableText(text) && utf8Length(text) <= maxBytes) assert.equal(bounded, text);
    if (isStorableText(text)) assert(text.startsWith(bounded));
  }));
});

Deno.test("boundedText keeps all that fits: one more character would be too much", () => {
  fc.assert(fc.property(anyText, fc.nat(40), (text, maxBytes) => {
    const safe = text.toWellFormed().replaceAll("\0", "\ufffd");
    const bounded = boundedText(text, maxBytes);
    const next = [...safe.slice(bounded.length)][0];
    if (next !== undefined) assert(utf8Length(bounded + next) > maxBytes);
  }));
});

Deno.test("boundedText refuses a bound that is no size", () => {
  for (const maxBytes of [-1, 0.5, NaN, Infinity]) assert.throws(() => boundedText("a", maxBytes), RangeError);
});

Deno.test("isBlankText knows every white space of Unicode, and U+FEFF", () => {
  const blanks = "\t\n\v\f\r \u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a" +
    "\u2028\u2029\u202f\u205f\u3000\ufeff";
  for (const blank of ["", ...blanks, blanks]) assert(isBlankText(blank), JSON.stringify(blank));
  for (const text of ["a", " a ", "\u200b", "\0"]) assert(!isBlankText(text), JSON.stringify(text));
});
