/**
 * Waiting for what other processes do.
 *
 * @module
 */

import { setTimeout as delay } from "node:timers/promises";

/** Nothing that is waited for takes so long, on the slowest machine. */
const PATIENCE_MS = 60_000;

/**
 * Looks again and again until something is so.
 *
 * @param what What is waited for, to say in the error.
 * @param isSo Looks.
 * @param patienceMs When to give up.
 * @returns How long it took, in milliseconds.
 */
export async function within(
  what: string | (() => string),
  isSo: () => boolean | Promise<boolean>,
  patienceMs: number = PATIENCE_MS,
): Promise<number> {
  const began = performance.now();
  while (!await isSo()) {
    if (performance.now() - began > patienceMs) {
      throw new Error(`In vain for ${patienceMs} ms: ${typeof what === "string" ? what : what()}`);
    }
    await delay(20);
  }
  return performance.now() - began;
}

/** Gives numbers from 0 to 1 that are the same for the same seed. */
export function seededRandom(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}
