/**
 * Hooks: functions that hear what this process did to jobs, after it was committed.
 *
 * @module
 */

import type { JobHookEvents, JobHooks } from "./hook_events.ts";
import { errorFields } from "./logger.ts";
import type { LogFields, Logger } from "./logger.ts";

/** How long a hook may take before it is reported and no longer waited for, in milliseconds. */
const HOOK_TIMEOUT_MS = 10_000;

/** How many hooks may be under way; the ones after that are dropped and counted. */
const MAX_UNDER_WAY = 1000;

/** Starts without any hook. */
export function emptyHooks(): JobHooks {
  return {
    enqueued: [],
    started: [],
    succeeded: [],
    failed: [],
    retryScheduled: [],
    deadLettered: [],
    canceled: [],
    leaseLost: [],
    stepEnqueued: [],
    stepStarted: [],
    stepSucceeded: [],
    stepFailed: [],
    stepRetryScheduled: [],
    stepDeadLettered: [],
    stepCanceled: [],
    stepLeaseLost: [],
    runFinished: [],
  };
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
        if (isThenable(result)) this.#follow(name, subjectOf(event), result);
      } catch (error) {
        this.#logger.error("a hook threw", { hook: name, ...subjectOf(event), ...errorFields(error) });
      }
    }
  }

  /** Waits for the hooks that are under way; each has its own limit. */
  async drain(): Promise<void> {
    while (this.#underWay.size > 0) await Promise.all(this.#underWay);
    if (this.#dropped > 0) this.#logger.error("hooks were dropped", { dropped: this.#dropped });
  }

  #follow(name: string, subject: LogFields, result: PromiseLike<unknown>): void {
    const followed = new Promise<void>((resolve) => {
      const timer = setTimeout(() => {
        this.#logger.error("a hook hangs and is no longer waited for", { hook: name, ...subject });
        resolve();
      }, HOOK_TIMEOUT_MS);
      Promise.resolve(result).catch((error) => {
        this.#logger.error("a hook threw", { hook: name, ...subject, ...errorFields(error) });
      }).finally(() => {
        clearTimeout(timer);
        resolve();
      });
    }).finally(() => this.#underWay.delete(followed));
    this.#underWay.add(followed);
  }
}

/** What a log line says of an event. */
function subjectOf(event: JobHookEvents[keyof JobHookEvents]): LogFields {
  if ("jobId" in event) return { jobId: event.jobId };
  return "stepKey" in event ? { runId: event.runId, stepKey: event.stepKey } : { runId: event.runId };
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof value === "object" && value !== null && "then" in value && typeof value.then === "function";
}
