/**
 * What a worker claims next when some job types may only run a few at a time.
 *
 * @module
 */

import { createClaimCursor } from "@runledger/postgres";
import type { ClaimCursor } from "@runledger/postgres";

/** One claim. */
export interface PlannedClaim {
  readonly jobTypes: readonly string[];
  readonly limit: number;
  readonly cursor: ClaimCursor;
  /** Whether the types that may only run a few at a time are among them, as far as they have room. */
  readonly isMixed: boolean;
}

/**
 * Plans claims that can never bring more jobs of a type than may run.
 *
 * A type without a limit is claimed by the free slots. A mixed claim asks for all types with room, and for no more jobs
 * than the tightest of them takes; when it comes back full, a claim without limited types takes what slots are left, and
 * then it is the mixed one's turn again: neither kind starves the other, and an idle worker asks once.
 */
export class ClaimPlan {
  readonly #limits: ReadonlyMap<string, number>;
  readonly #mixed = createClaimCursor();
  readonly #rest = createClaimCursor();
  #isRestNext = false;

  /**
   * @param limits How many jobs of a type may run at once, for those that have a limit.
   */
  constructor(limits: Readonly<Record<string, number>>) {
    for (const [jobType, limit] of Object.entries(limits)) {
      if (Number.isInteger(limit) && limit >= 1) continue;
      throw new TypeError(`'${jobType}' cannot run ${limit} at a time: it must be a whole number of at least 1`);
    }
    this.#limits = new Map(Object.entries(limits));
  }

  /** Whether a type has a limit. */
  isLimited(jobType: string): boolean {
    return this.#limits.has(jobType);
  }

  /**
   * Plans the next claim.
   *
   * @param jobTypes All types that the worker has handlers for.
   * @param limit How many jobs it has room for.
   * @param held The types of the jobs that run or are about to, one entry for each.
   * @returns The claim, or undefined when no type has room.
   */
  next(jobTypes: readonly string[], limit: number, held: Iterable<string>): PlannedClaim | undefined {
    if (this.#limits.size === 0) return plan(jobTypes, limit, this.#rest, false);
    const counts = new Map<string, number>();
    for (const jobType of held) counts.set(jobType, (counts.get(jobType) ?? 0) + 1);
    const rest: string[] = [];
    const limited: string[] = [];
    let room = limit;
    for (const jobType of jobTypes) {
      const typeLimit = this.#limits.get(jobType);
      if (typeLimit === undefined) rest.push(jobType);
      else {
        const typeRoom = typeLimit - (counts.get(jobType) ?? 0);
        if (typeRoom <= 0) continue;
        limited.push(jobType);
        room = Math.min(room, typeRoom);
      }
    }
    if (limited.length === 0 || (this.#isRestNext && rest.length > 0)) return plan(rest, limit, this.#rest, false);
    return plan([...rest, ...limited], room, this.#mixed, true);
  }

  /**
   * Tells the plan how a claim went.
   *
   * @param claim The claim.
   * @param count How many jobs it brought.
   * @returns Whether another claim may bring more at once.
   */
  onClaimed(claim: PlannedClaim, count: number): boolean {
    if (this.#limits.size === 0) return count === claim.limit;
    const isFull = count === claim.limit;
    // After the rest it is the turn of the mixed claim, whatever came; only an empty mixed claim says that all is done.
    const isMore = isFull || this.#isRestNext;
    this.#isRestNext = claim.isMixed && isFull;
    return isMore;
  }
}

function plan(
  jobTypes: readonly string[],
  limit: number,
  cursor: ClaimCursor,
  isMixed: boolean,
): PlannedClaim | undefined {
  return jobTypes.length === 0 ? undefined : { jobTypes, limit, cursor, isMixed };
}
