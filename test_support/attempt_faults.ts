/**
 * What a test lets happen to the next attempts: failures, timeouts and crashes.
 *
 * @module
 */

import { JobFailure, RunledgerError } from "@runledger/core";
import { JobCatalog } from "@runledger/runtime";
import type { JobContext, JobHooks, RegisteredJob } from "@runledger/runtime";

/** When a fault happens. */
export interface FaultOptions {
  /** Whether the handler runs before it, side effects and all. @default {false} */
  readonly afterHandler?: boolean;
}

/** One armed fault. */
export type AttemptFault =
  | { readonly kind: "fail"; readonly error: unknown; readonly afterHandler: boolean }
  | { readonly kind: "timeout" }
  | { readonly kind: "crash"; readonly afterHandler: boolean };

/** The faults that are armed, each for the next attempt of a job type or of one job. */
export class AttemptFaults {
  readonly #armed = new Map<string, AttemptFault[]>();

  /** Arms a fault; several for one target happen one after the other. */
  arm(target: string, fault: AttemptFault): void {
    this.#armed.set(target, [...this.#armed.get(target) ?? [], fault]);
  }

  /** Takes the fault for an attempt that is about to run, if there is one. */
  take({ jobId, jobType }: { readonly jobId: string; readonly jobType: string }): AttemptFault | undefined {
    return this.#armed.get(jobId)?.shift() ?? this.#armed.get(jobType)?.shift();
  }
}

/** What a watched catalog tells. */
export interface CatalogWatcher {
  /** A job was claimed, and its handler is about to run. */
  readonly onStarted: (jobId: string) => void;
  /** The worker shall die now, with its handler. */
  readonly onCrash: () => void;
}

/** A catalog as the kit's worker sees it: every attempt meets the faults that are armed for it. */
export class WatchedCatalog extends JobCatalog {
  readonly #original: JobCatalog;
  readonly #jobTypes: readonly string[];
  readonly #faults: AttemptFaults;
  readonly #watcher: CatalogWatcher;

  /**
   * Wraps a catalog.
   *
   * @param original Its handlers and hooks are used as they are when they are needed.
   * @param faults What is armed.
   * @param watcher Is told what happens, and which types to run if not all.
   */
  constructor(
    original: JobCatalog,
    faults: AttemptFaults,
    watcher: CatalogWatcher & { readonly jobTypes?: readonly string[] },
  ) {
    super();
    this.#original = original;
    this.#jobTypes = watcher.jobTypes ?? original.jobTypes;
    this.#faults = faults;
    this.#watcher = watcher;
  }

  /** The job types to claim. */
  override get jobTypes(): readonly string[] {
    return this.#jobTypes;
  }

  /** The catalog's hooks, and the watcher before them. */
  override get hooks(): JobHooks {
    const { hooks } = this.#original;
    return { ...hooks, started: [({ jobId }) => this.#watcher.onStarted(jobId), ...hooks.started] };
  }

  /** A definition with its handler, which meets the faults. */
  override get(jobType: string): RegisteredJob | undefined {
    const registered = this.#original.get(jobType);
    if (registered === undefined) return undefined;
    const { definition, handler } = registered;
    return {
      definition,
      handler: (payload: never, context: JobContext<unknown>) => {
        const fault = this.#faults.take(context);
        const run = (given: JobContext<unknown>) => handler(payload, given as never);
        return fault === undefined ? run(context) : this.#meet(fault, run, context);
      },
    };
  }

  async #meet(
    fault: AttemptFault,
    run: (context: JobContext<unknown>) => unknown,
    context: JobContext<unknown>,
  ): Promise<unknown> {
    if (fault.kind === "timeout") return await timeOut(run, context);
    if (fault.afterHandler) await settled(() => run(context));
    if (fault.kind === "fail") throw fault.error;
    this.#watcher.onCrash();
    return await new Promise<never>(() => {}); // a dead process settles nothing
  }
}

/** Runs the handler with a signal that aborts as it does when the time is over, then ends the attempt as a timeout does. */
async function timeOut(
  run: (context: JobContext<unknown>) => unknown,
  context: JobContext<unknown>,
): Promise<never> {
  const { jobId, jobType } = context;
  const over = new AbortController();
  const interrupted = new Proxy(context, {
    get(target, name): unknown {
      if (name === "signal") return over.signal;
      const value: unknown = Reflect.get(target, name, target);
      if (typeof value !== "function") return value;
      return (...args: readonly unknown[]) => {
        // As in a real attempt whose time is over; a log line may still come.
        if (over.signal.aborted && name !== "log") return Promise.reject(over.signal.reason);
        return Reflect.apply(value, target, args);
      };
    },
  });
  const ended = settled(() => run(interrupted));
  over.abort(new RunledgerError("job.timeout_exceeded", { details: { jobId, jobType } }));
  await ended;
  throw new JobFailure("TIMEOUT", "job.timeout_exceeded", "The attempt ran longer than it may: the test said so.");
}

async function settled(run: () => unknown): Promise<void> {
  try {
    await run();
  } catch {
    // What the handler did counts, not how it ended.
  }
}
