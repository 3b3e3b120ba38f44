/**
 * The one shape of every list: what is asked for, and the page that comes back.
 *
 * @module
 */

import type { Scope } from "./scope.ts";

/** Which page. */
export interface PageOptions {
  /** Go on behind this page: the `nextCursor` that it gave, for the same list. Filters may change between pages. */
  readonly cursor?: string;
  /** How many items at most, 1 to 1000. @default {100} */
  readonly limit?: number;
}

/** Which page, and whose rows. */
export interface ScopedPageOptions extends PageOptions {
  /** Whose rows. */
  readonly scope: Scope;
}

/**
 * A page of a list.
 *
 * One call looks at 10,000 rows at most, however large the table is. So a page may hold fewer items than asked for, even
 * none, and still have a `nextCursor`: those that match lie further back. The list is over when there is none.
 */
export interface Page<Item> {
  /** What was found, in the order of the list. */
  readonly items: readonly Item[];
  /** Where the next page begins; absent on the last one. Opaque. */
  readonly nextCursor?: string;
}

/** A count that stopped at a bound. */
export interface BoundedCount {
  /** How many there are, or at least are. */
  readonly count: number;
  /** Whether everything was looked at. If not, there may be more than `count`. */
  readonly isComplete: boolean;
}
