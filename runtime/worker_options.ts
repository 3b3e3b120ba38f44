/**
 * What a worker is given, and what it reports.
 *
 * @module
 */

import type { JobCatalog } from "./catalog.ts";
import type { JobsConfig } from "./config.ts";
import type { Logger } from "./logger.ts";

/** What a worker runs, and how it stops. */
export interface WorkerOptions {
  /** The job types to claim, with their handlers. */
  readonly catalog: JobCatalog;
  /** Settings; what is left out has its default. */
  readonly config?: Partial<JobsConfig>;
  /** How many jobs of a type run at once in this process, for types that need a limit of their own. */
  readonly concurrencyByType?: Readonly<Record<string, number>>;
  /**
   * Whether an idle worker is woken when jobs become due, where the handle can listen. Without it, and behind a pooler
   * that hands sessions around, it finds them at its next poll. @default {true}
   */
  readonly wake?: boolean;
  /** Stops the worker: no more claims, and what was not started is handed back. */
  readonly signal: AbortSignal;
  /** How long running handlers may go on after that, in milliseconds, before their signals abort. @default {30000} */
  readonly shutdownTimeoutMs?: number;
  /** Aborts the running handlers at once, whatever time is left. */
  readonly abortSignal?: AbortSignal;
  /** How long handlers have to end after their signals aborted, in milliseconds. @default {2000} */
  readonly abortGraceMs?: number;
  /** Where the worker reports. @default nowhere */
  readonly logger?: Logger;
}

/** A job that a worker left behind: its lease will run out, and the reaper finds it. */
export interface LeftJob {
  /** The job. */
  readonly jobId: string;
  /** Its type. */
  readonly jobType: string;
}

/** How a worker stopped. */
export interface WorkerReport {
  /** How many handlers ended by themselves after the stop was asked for. */
  readonly drained: number;
  /** How many ended after their signals had been aborted. */
  readonly aborted: number;
  /** How many claims were handed back unstarted; they cost no attempt. */
  readonly handedBack: number;
  /** What did not end, or could not be written. */
  readonly left: readonly LeftJob[];
}
