/**
 * The supervisor: runs the loops of a process together, and stops them together.
 *
 * @module
 */

import type { DeleteFinishedJobsOptions, Queryable } from "@runledger/postgres";
import type { JobCatalog } from "./catalog.ts";
import { JobsConfig } from "./config.ts";
import { errorFields, guardedLogger, silentLogger } from "./logger.ts";
import type { Logger } from "./logger.ts";
import { runReaper } from "./reaper.ts";
import type { ReaperReport } from "./reaper.ts";
import { runScheduler } from "./scheduler.ts";
import type { SchedulerReport } from "./scheduler.ts";
import { runWorker } from "./worker.ts";
import type { WorkerReport } from "./worker_options.ts";

/** What a supervisor runs. */
export interface SupervisorOptions {
  /** The job types to run, with their handlers. */
  readonly catalog: JobCatalog;
  /** Settings; what is left out has its default. */
  readonly config?: Partial<JobsConfig>;
  /** Whether to run jobs. @default true */
  readonly worker?: boolean;
  /** How many jobs of a type run at once in this process, for types that need a limit of their own. */
  readonly concurrencyByType?: Readonly<Record<string, number>>;
  /** Whether an idle worker is woken when jobs become due, where the handle can listen. @default true */
  readonly wake?: boolean;
  /** Whether to look for jobs whose worker was lost. @default true */
  readonly reaper?: boolean;
  /** Whether to fire schedules. @default true */
  readonly scheduler?: boolean;
  /** Which ended jobs the reaper removes. @default none are ever removed */
  readonly retention?: Omit<DeleteFinishedJobsOptions, "limit">;
  /** Where everything reports. @default nowhere */
  readonly logger?: Logger;
  /** Shuts the supervisor down, with the default timeout. */
  readonly signal?: AbortSignal;
}

/** How a shutdown goes. */
export interface ShutdownOptions {
  /** How long running handlers may go on, in milliseconds, before their signals abort. @default {30000} */
  readonly timeoutMs?: number;
}

/** How a supervisor stopped: what each loop reported, where it ran. */
export interface SupervisorReport {
  /** The worker's report. */
  readonly worker?: WorkerReport;
  /** The reaper's report. */
  readonly reaper?: ReaperReport;
  /** The scheduler's report. */
  readonly scheduler?: SchedulerReport;
}

/** How long a shutdown waits for handlers when nobody says. */
const DEFAULT_TIMEOUT_MS = 30_000;

/**
 * Runs a worker, a reaper and a scheduler from the moment it is made, as `Deno.serve` runs a server.
 *
 * A loop that ends by itself is fatal: the others are shut down, and {@linkcode Supervisor.finished} rejects with an
 * error that names it. That is for programming errors: no error of the database or of a handler ends a loop.
 *
 * @example
 * ```ts ignore
 * const supervisor = new Supervisor(sql, { catalog, config: JobsConfig.fromEnv() });
 * await supervisor.runUntilShutdown({ signal: shutdownSignal(), timeoutMs: 30_000 });
 * await sql.end();
 * ```
 */
export class Supervisor implements AsyncDisposable {
  /** Resolves when every loop has stopped; rejects when one ended by itself. */
  readonly finished: Promise<SupervisorReport>;
  readonly #stop = new AbortController();
  readonly #abort = new AbortController();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #abortsAt = Infinity;
  #hasFinished = false;

  /**
   * Starts the loops.
   *
   * @param db A pool: the loops and the handlers' own calls share its connections.
   * @param options What to run.
   * @throws {TypeError} When there is no database or catalog, a setting cannot be, or there is nothing to run.
   */
  constructor(db: Queryable, options: SupervisorOptions) {
    // Programs without types leave these out; each loop would fail on its own, again and again.
    if ((typeof db !== "object" && typeof db !== "function") || db === null) {
      throw new TypeError("A supervisor needs a database handle, such as a pool: new Supervisor(db, { catalog })");
    }
    if (typeof options?.catalog?.handle !== "function") {
      throw new TypeError("A supervisor needs a JobCatalog: new Supervisor(db, { catalog })");
    }
    const { catalog, worker = true, reaper = true, scheduler = true, retention, signal } = options;
    const { concurrencyByType = {}, wake = true } = options;
    const config = JobsConfig.of(options.config);
    const logger = guardedLogger(options.logger ?? silentLogger);
    if (!worker && !reaper && !scheduler) {
      throw new TypeError("A supervisor needs something to run: the worker, the reaper or the scheduler");
    }
    const shared = { config, logger, signal: this.#stop.signal };
    const loops: Promise<SupervisorReport>[] = [];
    if (worker) {
      const run = () =>
        runWorker(db, {
          ...shared,
          catalog,
          concurrencyByType,
          wake,
          shutdownTimeoutMs: Infinity,
          abortSignal: this.#abort.signal,
        });
      loops.push(this.#run("worker", logger, async () => ({ worker: await run() })));
    }
    if (reaper) {
      const run = () => runReaper(db, { ...shared, catalog, ...(retention === undefined ? {} : { retention }) });
      loops.push(this.#run("reaper", logger, async () => ({ reaper: await run() })));
    }
    if (scheduler) {
      loops.push(this.#run("scheduler", logger, async () => ({ scheduler: await runScheduler(db, shared) })));
    }
    const onSignal = () => this.#requestStop(DEFAULT_TIMEOUT_MS);
    if (signal?.aborted === true) onSignal();
    else signal?.addEventListener("abort", onSignal, { once: true });
    this.finished = this.#finish(loops, () => signal?.removeEventListener("abort", onSignal));
  }

  /**
   * Stops every loop: no more claims, unstarted ones are handed back, and handlers go on until the time is over; then
   * their signals abort. Safe to call more than once: the shortest time counts.
   *
   * @param options How long handlers may go on.
   * @returns What each loop reported.
   * @throws {Error} When a loop had ended by itself.
   */
  shutdown(options: ShutdownOptions = {}): Promise<SupervisorReport> {
    const { timeoutMs = DEFAULT_TIMEOUT_MS } = options;
    if (!(timeoutMs >= 0)) throw new RangeError(`timeoutMs must be zero or more milliseconds, not ${timeoutMs}`);
    this.#requestStop(timeoutMs);
    return this.finished;
  }

  /**
   * Waits until the signal aborts, then shuts down. Also ends when a loop does.
   *
   * @param options The signal, such as that of {@linkcode shutdownSignal}, and how long handlers may go on.
   * @returns What each loop reported.
   * @throws {Error} When a loop ended by itself.
   */
  async runUntilShutdown(options: ShutdownOptions & { readonly signal: AbortSignal }): Promise<SupervisorReport> {
    const { signal, ...rest } = options;
    const onSignal = () => void this.shutdown(rest).catch(() => {}); // reported below
    if (signal.aborted) onSignal();
    else signal.addEventListener("abort", onSignal, { once: true });
    try {
      return await this.finished;
    } finally {
      signal.removeEventListener("abort", onSignal);
    }
  }

  /** Shuts down with the default timeout. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.shutdown();
  }

  async #run(name: string, logger: Logger, loop: () => Promise<SupervisorReport>): Promise<SupervisorReport> {
    let problem: unknown = new Error("it returned without being asked to stop");
    try {
      const report = await loop();
      if (this.#stop.signal.aborted) return report;
    } catch (error) {
      problem = error;
    }
    logger.error(`the ${name} ended by itself`, errorFields(problem));
    this.#requestStop(DEFAULT_TIMEOUT_MS);
    throw new Error(`The ${name} of this supervisor ended by itself; everything was shut down`, { cause: problem });
  }

  async #finish(loops: readonly Promise<SupervisorReport>[], onFinished: () => void): Promise<SupervisorReport> {
    const ends = await Promise.allSettled(loops);
    this.#hasFinished = true;
    clearTimeout(this.#timer);
    onFinished();
    const reports: SupervisorReport[] = [];
    for (const end of ends) {
      if (end.status === "rejected") throw end.reason;
      reports.push(end.value);
    }
    return Object.assign({}, ...reports);
  }

  #requestStop(timeoutMs: number): void {
    if (this.#hasFinished) return;
    this.#stop.abort();
    const abortsAt = performance.now() + timeoutMs;
    if (abortsAt >= this.#abortsAt) return;
    this.#abortsAt = abortsAt;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#abort.abort(), Math.min(timeoutMs, 2_147_483_647));
  }
}
