/**
 * What a scenario is.
 *
 * @module
 */

import type { Lab } from "./lab.ts";

/** One kind of fault, injected until the run is long enough. What must be true afterwards is the same for all. */
export interface Scenario {
  readonly name: string;
  /** What is injected, in words. */
  readonly injects: string;
  /** Whether the server of the run is harmed, so that nothing else may use it meanwhile. @default {false} */
  readonly harmsServer?: boolean;
  /** What must be installed. @default nothing */
  readonly needs?: "pgbouncer";
  /** Whether the short form leaves it out, since the test suite has it. @default {false} */
  readonly isLongOnly?: boolean;
  /** Injects. The queue is then given time to drain, and everything is checked. */
  readonly run: (lab: Lab) => Promise<void>;
}
