/**
 * A claimed job, from its claim until this process has nothing more to do with it.
 *
 * @module
 */

import { RunledgerError } from "@runledger/core";
import type { JobOutcome, RunledgerErrorCode } from "@runledger/core";
import type { ClaimedJob } from "@runledger/postgres";
import type { AttemptTelemetry } from "./telemetry.ts";

/**
 * How far a job has come in this process.
 *
 * - `prefetched`: claimed, waits for a slot, or for the next claim to leave.
 * - `running`: its handler runs, and nothing has decided how the attempt ends.
 * - `finishing`: its handler is settling it inside a transaction that has not ended. Nobody else may settle it: the row
 *   is locked by that transaction.
 * - `settling`: its outcome is known and is being written.
 * - `over`: settled, lost, cancelled, handed back or left to the reaper. Nothing is written for it any more, though its
 *   handler may still run.
 */
export type HeldJobPhase = "prefetched" | "running" | "finishing" | "settling" | "over";

/** One claimed job. Times are by `performance.now()`. */
export class HeldJob {
  /** What was claimed: the job's lease, payload and settings. */
  readonly claim: ClaimedJob;
  /** How far it has come. */
  phase: HeldJobPhase = "prefetched";
  /** The earliest time at which the lease may have run out. */
  leaseUntil: number;
  /** When the claim came back. */
  readonly claimedAt: number;
  /** When the attempt has run for too long. */
  timeoutAt: number = Infinity;
  /** How the attempt ended, once that is known. */
  outcome: JobOutcome | undefined;
  /** Whether a commit that may have settled the job was never answered: a refusal may then mean success. */
  isUncertain: boolean = false;
  /** Whether its row may be locked by a connection that is gone without the server's knowledge. */
  settlesAlone: boolean = false;
  /** What telemetry remembers of the attempt until it is settled. */
  telemetry: AttemptTelemetry | undefined;
  /** Whether its outcome was replaced by a failure because it could not be stored. */
  isRewritten: boolean = false;
  #abortReason: RunledgerError | undefined;
  #controller: AbortController | undefined;

  /** Takes a claim on. */
  constructor(claim: ClaimedJob, claimedAt: number, leaseUntil: number) {
    this.claim = claim;
    this.claimedAt = claimedAt;
    this.leaseUntil = leaseUntil;
  }

  /** Why the handler was asked to stop, if it was. */
  get abortReason(): RunledgerError | undefined {
    return this.#abortReason;
  }

  /** Tells the handler to stop. Made when it is first asked for: most handlers are over before they look. */
  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#abortReason !== undefined) this.#controller.abort(this.#abortReason);
    }
    return this.#controller.signal;
  }

  /** Asks the handler to stop. Only the first reason counts. */
  abort(code: RunledgerErrorCode): void {
    if (this.#abortReason !== undefined) return;
    this.#abortReason = new RunledgerError(code, {
      details: { jobId: this.claim.jobId, jobType: this.claim.jobType },
    });
    this.#controller?.abort(this.#abortReason);
  }
}
