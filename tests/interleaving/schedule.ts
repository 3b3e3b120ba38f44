/**
 * Every order in which a number of actors can take their steps. Which actors can go next is known only while an order runs,
 * since steps block, so orders are found by running them: each run takes the next untried branch of the last choice.
 *
 * @module
 */

/** Makes the choices of one run, and of the next, until all were made. */
export class Choices {
  #path: { taken: number; readonly of: number }[] = [];
  #depth = 0;

  /** Takes one of so many branches, by number. */
  choose(of: number): number {
    const known = this.#path[this.#depth];
    // Two that waited for the same transaction race for the row when it ends: the same choices may lead elsewhere.
    if (known?.of !== of) {
      this.#path.length = this.#depth;
      this.#path.push({ taken: Math.min(known?.taken ?? 0, of - 1), of });
    }
    return this.#path[this.#depth++]?.taken ?? 0;
  }

  /** Goes to the next run; false when there is none. */
  next(): boolean {
    this.#depth = 0;
    for (let last = this.#path.pop(); last !== undefined; last = this.#path.pop()) {
      if (last.taken + 1 < last.of) {
        this.#path.push({ taken: last.taken + 1, of: last.of });
        return true;
      }
    }
    return false;
  }
}

/** Small random numbers that a seed repeats (mulberry32). */
export function createRandom(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}
