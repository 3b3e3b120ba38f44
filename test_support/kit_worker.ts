/**
 * The test kit's worker: the real one, for one job at a time.
 *
 * @module
 */

import { runReaper, runWorker } from "@runledger/runtime";
import type { JobCatalog, JobsConfig, LogFields, Logger } from "@runledger/runtime";
import type { Queryable } from "@runledger/postgres";
import { watchCatalog } from "./attempt_faults.ts";
import type { AttemptFaults } from "./attempt_faults.ts";

/** What the kit's worker runs, and how. */
export interface KitWorkerOptions {
  readonly db: Queryable;
  readonly catalog: JobCatalog;
  readonly faults: AttemptFaults;
  readonly config: Partial<JobsConfig>;
  readonly logger: Logger;
  /** How long one attempt may take, in milliseconds of real time. */
  readonly attemptTimeoutMs: number;
}

/** How often a claim or the reaper may fail. A database that restarts is waited for; one that refuses is reported. */
const MAX_FAILURES = 4;

/**
 * Runs the first due job, to the end of its attempt. There must be one, and nobody else may take it.
 *
 * It is a worker that is stopped as soon as its first job has started: so it claims no other one, and drains.
 *
 * @param options What to run.
 * @param jobTypes Which types to claim.
 * @returns The job.
 * @throws {Error} When the attempt takes too long.
 */
export async function runOneJob(options: KitWorkerOptions, jobTypes: readonly string[]): Promise<string> {
  const { db, attemptTimeoutMs } = options;
  const stop = new AbortController();
  const abort = new AbortController();
  let jobId: string | undefined;
  let isLate = false;
  const problems = new ProblemLog(options.logger, (failures) => {
    if (jobId === undefined && failures >= MAX_FAILURES) stop.abort();
  });
  const onStarted = (event: { readonly jobId: string }) => {
    jobId = event.jobId;
    stop.abort();
  };
  const catalog = watchCatalog(options.catalog, {
    jobTypes,
    hooks: { started: [onStarted] },
    faults: options.faults,
    onCrash: () => abort.abort(),
  });
  const timer = setTimeout(() => {
    isLate = true;
    stop.abort();
    abort.abort();
  }, attemptTimeoutMs);
  const config = {
    workerId: "test-kit",
    ...options.config,
    claimBatchSize: 1,
    maxGlobalConcurrency: 1,
    pollIntervalMs: 5,
  };
  try {
    await runWorker(db, {
      catalog,
      config,
      logger: problems,
      signal: stop.signal,
      shutdownTimeoutMs: Infinity,
      abortSignal: abort.signal,
      abortGraceMs: 0, // a process that died waits for nothing
    });
  } finally {
    clearTimeout(timer);
  }
  if (jobId !== undefined && !isLate) return jobId;
  if (jobId === undefined) throw new Error(`A job is due and cannot be claimed.${problems.text()}`);
  throw new Error(
    `The attempt of job ${jobId} was not over after ${attemptTimeoutMs} ms of real time.${problems.text()} A handler that ` +
      "waits for something that only comes with time waits for ever, since time stands still in the test kit; " +
      "attemptTimeoutMs gives a slow one longer.",
  );
}

/**
 * Reaps leases that have expired, and tells the catalog's hooks.
 *
 * It is a reaper that is stopped as soon as it has told of all of them.
 *
 * @param options Whose hooks, and with what settings.
 * @param count How many there are. Nobody else may reap them.
 * @throws {Error} When the database refuses.
 */
export async function reapLeases(options: KitWorkerOptions, count: number): Promise<void> {
  const stop = new AbortController();
  let reaped = 0;
  const onFailed = () => {
    if (++reaped === count) stop.abort();
  };
  const problems = new ProblemLog(options.logger, (failures) => {
    if (failures >= MAX_FAILURES) stop.abort();
  });
  const timer = setTimeout(() => stop.abort(), options.attemptTimeoutMs);
  try {
    const catalog = watchCatalog(options.catalog, { hooks: { failed: [onFailed] } });
    await runReaper(options.db, { catalog, config: options.config, logger: problems, signal: stop.signal });
  } finally {
    clearTimeout(timer);
  }
  if (reaped < count) throw new Error(`${count - reaped} expired leases could not be reaped.${problems.text()}`);
}

/** Passes everything on, and remembers the last failure of a loop. */
class ProblemLog implements Logger {
  readonly #next: Logger;
  readonly #onFailure: (failures: number) => void;
  #failure: string | undefined;

  constructor(next: Logger, onFailure: (failures: number) => void = () => {}) {
    this.#next = next;
    this.#onFailure = onFailure;
  }

  text(): string {
    return this.#failure === undefined ? "" : ` The last problem: ${this.#failure}.`;
  }

  debug(message: string, fields?: LogFields): void {
    this.#next.debug(message, fields);
  }

  info(message: string, fields?: LogFields): void {
    this.#next.info(message, fields);
  }

  warn(message: string, fields?: LogFields): void {
    this.#next.warn(message, fields);
    const failures = fields?.["failures"];
    if (typeof failures !== "number") return;
    this.#failure = `${message}: ${JSON.stringify(fields)}`;
    this.#onFailure(failures);
  }

  error(message: string, fields?: LogFields): void {
    this.#next.error(message, fields);
  }
}
