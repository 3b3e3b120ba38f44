/**
 * Text as PostgreSQL stores it: measured in bytes of UTF-8, without U+0000 and lone surrogates.
 *
 * @module
 */

/**
 * Counts the bytes that a text takes in UTF-8, without encoding it. A lone surrogate counts as the three bytes of
 * U+FFFD, as `TextEncoder` has it.
 *
 * @param text Any string.
 * @returns The number of bytes.
 *
 * @example
 * ```ts
 * import { utf8Length } from "@runledger/core";
 * import assert from "node:assert/strict";
 *
 * assert.equal(utf8Length("naïve"), 6);
 * ```
 */
export function utf8Length(text: string): number {
  let bytes = text.length;
  for (let index = 0; index < text.length; index++) {
    const unit = text.charCodeAt(index);
    if (unit < 0x80) continue;
    if (unit < 0x800) {
      bytes += 1;
    } else if (unit >= 0xd800 && unit <= 0xdbff && (text.charCodeAt(index + 1) & 0xfc00) === 0xdc00) {
      // Two units, four bytes.
      bytes += 2;
      index += 1;
    } else {
      bytes += 2;
    }
  }
  return bytes;
}

/**
 * Says whether PostgreSQL can store a text as it is: no U+0000 and no lone surrogate in it.
 *
 * @param text Any string.
 * @returns Whether it can be stored unchanged.
 *
 * @example
 * ```ts
 * import { isStorableText } from "@runledger/core";
 * import assert from "node:assert/strict";
 *
 * assert(isStorableText("📨"));
 * assert(!isStorableText("📨".slice(1)));
 * ```
 */
export function isStorableText(text: string): boolean {
  return !text.includes("\0") && text.isWellFormed();
}

/**
 * Says whether a text has nothing but white space in it, by Unicode's definition and U+FEFF.
 *
 * @param text Any string.
 * @returns Whether it is empty or blank.
 *
 * @example
 * ```ts
 * import { isBlankText } from "@runledger/core";
 * import assert from "node:assert/strict";
 *
 * assert(isBlankText(" \u0085\u00a0"));
 * ```
 */
export function isBlankText(text: string): boolean {
  // `\s` lacks U+0085, which Unicode and PostgreSQL count as white space.
  return /^[\s\u0085]*$/.test(text);
}

/**
 * Says what keeps a value from being the name of something, such as a job type or a key.
 *
 * @param name Anything.
 * @param maxBytes The most bytes of UTF-8 that it may take.
 * @returns The end of a sentence that begins with the field, or undefined when it can be a name.
 *
 * @example
 * ```ts
 * import { nameProblem } from "@runledger/core";
 * import assert from "node:assert/strict";
 *
 * assert.equal(nameProblem(" ", 255), "must not be blank");
 * assert.equal(nameProblem("email.send", 255), undefined);
 * ```
 */
export function nameProblem(name: unknown, maxBytes: number): string | undefined {
  if (typeof name !== "string") return "must be a string";
  if (isBlankText(name)) return "must not be blank";
  if (!isStorableText(name)) return "must not hold U+0000 or a lone surrogate";
  // A unit takes at most three bytes, so most names need no counting.
  if (name.length * 3 > maxBytes && utf8Length(name) > maxBytes) return `must take at most ${maxBytes} bytes of UTF-8`;
  return undefined;
}

/**
 * Makes a text fit for storing: replaces U+0000 and lone surrogates by U+FFFD and cuts it, between two characters, to a
 * number of bytes. Text behind that is not read.
 *
 * @param text Any string, such as the message of an unknown error.
 * @param maxBytes The most bytes of UTF-8 that the result may take.
 * @returns A storable text of at most `maxBytes` bytes, a prefix of the given one wherever that was storable.
 * @throws {RangeError} When `maxBytes` is not a whole number from 0.
 *
 * @example
 * ```ts
 * import { boundedText } from "@runledger/core";
 * import assert from "node:assert/strict";
 *
 * assert.equal(boundedText("naïve", 3), "na");
 * assert.equal(boundedText("a\0b", 100), "a\ufffdb");
 * ```
 */
export function boundedText(text: string, maxBytes: number): string {
  if (!Number.isSafeInteger(maxBytes) || maxBytes < 0) {
    throw new RangeError("maxBytes must be a whole number from 0");
  }
  // Every unit takes a byte or more, so nothing behind this slice can be part of the result, nor a pair that it splits.
  const safe = text.slice(0, maxBytes + 1).toWellFormed().replaceAll("\0", "\ufffd");
  let bytes = 0;
  let end = 0;
  for (const character of safe) {
    bytes += utf8Length(character);
    if (bytes > maxBytes) break;
    end += character.length;
  }
  return safe.slice(0, end);
}
