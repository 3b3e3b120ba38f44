/**
 * Ids that are made before anything is stored: UUIDs of version 7, which sort by time.
 *
 * @module
 */

const HEX: readonly string[] = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"));

// Random words are drawn in bulk, since a call for each id would be most of its cost; and only when an id is first made,
// since edge runtimes refuse randomness while modules load.
const pool = new Uint32Array(1024);
let poolUsed = pool.length;

let lastMs = -1;
let timePart = "";
/** 42 bits that follow the time: random at first in each millisecond, then counting. */
let counter = 0;
const COUNTER_LIMIT = 2 ** 42;

function randomWord(): number {
  if (poolUsed === pool.length) {
    crypto.getRandomValues(pool);
    poolUsed = 0;
  }
  return pool[poolUsed++] ?? 0;
}

function byteHex(value: number): string {
  return HEX[value & 0xff] ?? "";
}

function beginMillisecond(ms: number): void {
  lastMs = ms;
  const hex = ms.toString(16).padStart(12, "0");
  timePart = `${hex.slice(0, 8)}-${hex.slice(8)}-`;
  // The top bit starts as zero, which leaves room to count 2^41 ids in a millisecond.
  counter = (randomWord() & 0x1ff) * 2 ** 32 + randomWord();
}

/**
 * Makes an id: a UUID of version 7 (RFC 9562).
 *
 * Ids of one process are strictly ascending, also within a millisecond and while the clock steps back: then the newest
 * time that was seen is kept. Across processes they ascend by the millisecond. Uniqueness rests on 32 random bits for each
 * id and 41 for each millisecond. An id tells when it was made, so it is no secret.
 *
 * @returns 36 lowercase characters.
 *
 * @example
 * ```ts
 * import { isUuid, newId } from "@runledger/core";
 * import assert from "node:assert/strict";
 *
 * const first = newId();
 * const second = newId();
 * assert(isUuid(first) && first < second);
 * ```
 */
export function newId(): string {
  const now = Date.now();
  if (now > lastMs) beginMillisecond(now);
  else if (++counter === COUNTER_LIMIT) beginMillisecond(lastMs + 1);
  // 12 bits after the version, 30 after the variant, then 32 random ones.
  const high = Math.floor(counter / 2 ** 30);
  const low = counter % 2 ** 30;
  const random = randomWord();
  return timePart + byteHex(0x70 | (high >>> 8)) + byteHex(high) + "-" +
    byteHex(0x80 | (low >>> 24)) + byteHex(low >>> 16) + "-" + byteHex(low >>> 8) + byteHex(low) +
    byteHex(random >>> 24) + byteHex(random >>> 16) + byteHex(random >>> 8) + byteHex(random);
}

/**
 * Says whether a text is a UUID of any version, in the form with hyphens, in either case.
 *
 * @param text Any string.
 * @returns Whether it is one.
 *
 * @example
 * ```ts
 * import { isUuid } from "@runledger/core";
 * import assert from "node:assert/strict";
 *
 * assert(isUuid("0191D8A0-7C1E-7C3B-8F6A-1B2C3D4E5F60"));
 * assert(!isUuid("tenant-1"));
 * ```
 */
export function isUuid(text: string): boolean {
  return text.length === 36 && /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i.test(text);
}

/**
 * Reads the time out of an id.
 *
 * @param id A UUID.
 * @returns When it was made, to the millisecond, by the clock of its maker; undefined unless it is of version 7.
 *
 * @example
 * ```ts
 * import { uuidTimestamp } from "@runledger/core";
 * import assert from "node:assert/strict";
 *
 * assert.deepEqual(uuidTimestamp("017f22e2-79b0-7cc3-98c4-dc0c0c07398f"), new Date("2022-02-22T19:22:22.000Z"));
 * assert.equal(uuidTimestamp("f47ac10b-58cc-4372-a567-0e02b2c3d479"), undefined);
 * ```
 */
export function uuidTimestamp(id: string): Date | undefined {
  if (!isUuid(id) || id.charAt(14) !== "7" || !"89abAB".includes(id.charAt(19))) return undefined;
  return new Date(parseInt(id.slice(0, 8) + id.slice(9, 13), 16));
}

/**
 * Gives a number that stays the same for a job and is spread evenly over jobs: its 128-bit id modulo `modulus`.
 *
 * @param jobId A UUID.
 * @param modulus How many values there are to spread over, from 1.
 * @returns A whole number from 0 to `modulus - 1`.
 * @throws {RangeError} When the id is not a UUID or the modulus is not a whole number from 1.
 *
 * @example
 * ```ts
 * import { jobIdJitter } from "@runledger/core";
 * import assert from "node:assert/strict";
 *
 * assert.equal(jobIdJitter("00000000-0000-7000-8000-0000000003e8", 16), 8);
 * ```
 */
export function jobIdJitter(jobId: string, modulus: number): number {
  if (!isUuid(jobId)) throw new RangeError("jobId must be a UUID");
  if (!Number.isSafeInteger(modulus) || modulus < 1) throw new RangeError("modulus must be a whole number from 1");
  return Number(BigInt(`0x${jobId.replaceAll("-", "")}`) % BigInt(modulus));
}
