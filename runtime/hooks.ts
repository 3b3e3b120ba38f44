/**
 * Hooks: functions that hear what this process did to jobs, after it was committed.
 *
 * @module
 */

import type { JobFailureKind, JsonValue } from "@runledger/core";
import { errorFields } from "./logger.ts";
import type { Logger } from "./logger.ts";

/** What every hook is told. */
export interface JobHookEvent {
  /** The job. */
  readonly jobId: string;
  /** Its type. */
  readonly jobType: string;
  /** Which run of the job. */
  readonly runNumber: number;
  /** Which attempt of the run. */
  readonly attempt: number;
  /** Whose job it is; absent for a job of no organization. */
  readonly organizationId?: string;
  /** Who did it: the worker, or the reaper of the same process. */
  readonly workerId: string;
}

/** A handler is about to run. */
export type JobStartedEvent = JobHookEvent;

/** A job ended well. */
export interface JobSucceededEvent extends JobHookEvent {
  /** What its handler returned, if anything. */
  readonly output?: JsonValue;
}

/** An attempt failed, whatever follows from it. */
export interface JobFailedEvent extends JobHookEvent {
  /** Why: a code to branch on, and a text for operators that may quote what was processed. */
  readonly failure: { readonly kind: JobFailureKind; readonly code: string; readonly message: string };
}

/** An attempt failed, and another one follows. */
export interface JobRetryScheduledEvent extends JobFailedEvent {
  /** When it is due. */
  readonly nextRunAt: Date;
}

/** A job failed for good. */
export type JobDeadLetteredEvent = JobFailedEvent;

/** A job was called off: by its handler, or by somebody else while its handler ran. */
export type JobCanceledEvent = JobHookEvent;

/** A lease was lost while its handler ran or its outcome waited: somebody else has the job now. */
export type LeaseLostEvent = JobHookEvent;

/** The hooks by name, each with what it is told. */
export interface JobHookEvents {
  /** A handler is about to run. */
  readonly started: JobStartedEvent;
  /** A job ended well. */
  readonly succeeded: JobSucceededEvent;
  /** An attempt failed. */
  readonly failed: JobFailedEvent;
  /** Another attempt follows. */
  readonly retryScheduled: JobRetryScheduledEvent;
  /** A job failed for good. */
  readonly deadLettered: JobDeadLetteredEvent;
  /** A job was called off. */
  readonly canceled: JobCanceledEvent;
  /** A lease was lost. */
  readonly leaseLost: LeaseLostEvent;
}

/** A hook. What it throws is reported and has no other effect. */
export type JobHook<Event> = (event: Event) => unknown;

/** Every registered hook by name. */
export type JobHooks = { readonly [Name in keyof JobHookEvents]: JobHook<JobHookEvents[Name]>[] };

/** How long a hook may take before it is reported and no longer waited for, in milliseconds. */
const HOOK_TIMEOUT_MS = 10_000;

/** How many hooks may be under way; the ones after that are dropped and counted. */
const MAX_UNDER_WAY = 1000;

/** Starts without any hook. */
export function emptyHooks(): JobHooks {
  return { started: [], succeeded: [], failed: [], retryScheduled: [], deadLettered: [], canceled: [], leaseLost: [] };
}

/** Calls hooks and keeps what they do away from the jobs. */
export class HookRunner {
  readonly #hooks: JobHooks;
  readonly #logger: Logger;
  readonly #underWay = new Set<Promise<void>>();
  #dropped = 0;

  /** Starts idle. */
  constructor(hooks: JobHooks, logger: Logger) {
    this.#hooks = hooks;
    this.#logger = logger;
  }

  /** Whether anybody listens. */
  has(name: keyof JobHookEvents): boolean {
    return this.#hooks[name].length > 0;
  }

  /** Calls the hooks of one name, in the order in which they were added. Never throws, never waits. */
  emit<Name extends keyof JobHookEvents>(name: Name, event: JobHookEvents[Name]): void {
    for (const hook of this.#hooks[name]) {
      if (this.#underWay.size >= MAX_UNDER_WAY) {
        if (this.#dropped++ === 0) this.#logger.error("hooks hang: further ones are dropped", { hook: name });
        continue;
      }
      try {
        const result = hook(event);
        if (isThenable(result)) this.#follow(name, event.jobId, result);
      } catch (error) {
        this.#logger.error("a hook threw", { hook: name, jobId: event.jobId, ...errorFields(error) });
      }
    }
  }

  /** Waits for the hooks that are under way; each has its own limit. */
  async drain(): Promise<void> {
    while (this.#underWay.size > 0) await Promise.all(this.#underWay);
    if (this.#dropped > 0) this.#logger.error("hooks were dropped", { dropped: this.#dropped });
  }

  #follow(name: string, jobId: string, result: PromiseLike<unknown>): void {
    const followed = new Promise<void>((resolve) => {
      const timer = setTimeout(() => {
        this.#logger.error("a hook hangs and is no longer waited for", { hook: name, jobId });
        resolve();
      }, HOOK_TIMEOUT_MS);
      Promise.resolve(result).catch((error) => {
        this.#logger.error("a hook threw", { hook: name, jobId, ...errorFields(error) });
      }).finally(() => {
        clearTimeout(timer);
        resolve();
      });
    }).finally(() => this.#underWay.delete(followed));
    this.#underWay.add(followed);
  }
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof value === "object" && value !== null && "then" in value && typeof value.then === "function";
}
