/**
 * What a test lets happen to the next attempts: failures, timeouts and crashes.
 *
 * @module
 */

import { JobFailure, RunledgerError } from "@runledger/core";
import type { JobCatalog, JobContext, JobHooks, RegisteredJob } from "@runledger/runtime";

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

/** What is done beside what a catalog does. */
export interface CatalogWatch {
  /** The job types to claim. @default all of the catalog */
  readonly jobTypes?: readonly string[];
  /** Hooks that are called before the catalog's own. */
  readonly hooks?: Partial<JobHooks>;
  /** What happens to attempts. */
  readonly faults?: AttemptFaults;
  /** Lets the worker die, with its handler. */
  readonly onCrash?: () => void;
}

/**
 * Gives a catalog as the kit's worker and reaper see it: the same one, with hooks of the kit's own, whose handlers meet the
 * faults that are armed for them.
 *
 * @param catalog What is run. A change of it is seen.
 * @param watch What is done beside it.
 * @returns The catalog to run.
 */
export function watchCatalog(catalog: JobCatalog, watch: CatalogWatch): JobCatalog {
  return new Proxy(catalog, {
    get(target, name): unknown {
      if (name === "jobTypes") return watch.jobTypes ?? target.jobTypes;
      if (name === "hooks") return joinedHooks(watch.hooks ?? {}, target.hooks);
      if (name === "get") return (jobType: string) => faultyJob(target.get(jobType), watch);
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

function joinedHooks(first: Partial<JobHooks>, then: JobHooks): JobHooks {
  return {
    ...then,
    started: [...first.started ?? [], ...then.started],
    failed: [...first.failed ?? [], ...then.failed],
  };
}

function faultyJob(registered: RegisteredJob | undefined, watch: CatalogWatch): RegisteredJob | undefined {
  if (registered === undefined) return undefined;
  const { definition, handler } = registered;
  return {
    definition,
    handler: (payload: never, context: JobContext<unknown>) => {
      const fault = watch.faults?.take(context);
      const run = (given: JobContext<unknown>) => handler(payload, given as never);
      return fault === undefined ? run(context) : meet(fault, { run, context, watch });
    },
  };
}

/** An attempt that meets a fault. */
interface FaultyAttempt {
  readonly run: (context: JobContext<unknown>) => unknown;
  readonly context: JobContext<unknown>;
  readonly watch: CatalogWatch;
}

async function meet(fault: AttemptFault, { run, context, watch }: FaultyAttempt): Promise<unknown> {
  if (fault.kind === "timeout") return await timeOut(run, context);
  if (fault.afterHandler) await settled(() => run(context));
  if (fault.kind === "fail") throw fault.error;
  watch.onCrash?.();
  return await new Promise<never>(() => {}); // a dead process settles nothing
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
