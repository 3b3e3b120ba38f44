/**
 * Registering hooks: one method for each thing that a process can hear of.
 *
 * @module
 */

import { emptyHooks } from "./hooks.ts";
import type {
  JobCanceledEvent,
  JobDeadLetteredEvent,
  JobEnqueuedEvent,
  JobFailedEvent,
  JobHook,
  JobHookEvents,
  JobHooks,
  JobRetryScheduledEvent,
  JobStartedEvent,
  JobSucceededEvent,
  LeaseLostEvent,
  RunFinishedEvent,
  StepCanceledEvent,
  StepDeadLetteredEvent,
  StepEnqueuedEvent,
  StepFailedEvent,
  StepLeaseLostEvent,
  StepRetryScheduledEvent,
  StepStartedEvent,
  StepSucceededEvent,
} from "./hook_events.ts";

/**
 * What a {@linkcode JobCatalog} is told to call when something happened.
 *
 * A hook hears what this process did, after it was committed: at most once, in the order in which it happened to a job,
 * and not at all if the process or its connection dies between the commit and the call. Hooks of one kind are called in
 * the order in which they were added. One that throws or rejects is logged; one that takes longer than 10 s is logged and
 * no longer waited for; beyond 1000 under way, further calls are dropped and counted. None of it touches a job. Only one
 * that never gives the thread back, or ends the process, does harm. What must happen belongs into a job or a step.
 */
export class HookSubscriptions {
  readonly #hooks: JobHooks = emptyHooks();

  /** What the methods have added. */
  get hooks(): JobHooks {
    return this.#hooks;
  }

  #add<Name extends keyof JobHookEvents>(name: Name, hook: JobHook<JobHookEvents[Name]>): this {
    if (typeof hook !== "function") throw new TypeError("A hook must be a function");
    this.#hooks[name].push(hook);
    return this;
  }

  /**
   * Adds a function that hears when a job was enqueued by {@linkcode JobCatalog.enqueueJob} or its siblings, or as the job of a step that a worker
   * or reaper with this catalog released. Jobs that come with their run are not told one by one.
   *
   * @param hook Is called with what happened.
   * @returns The same catalog.
   */
  onJobEnqueued(hook: JobHook<JobEnqueuedEvent>): this {
    return this.#add("enqueued", hook);
  }

  /**
   * Adds a function that hears when a handler is about to run.
   *
   * @param hook Is called with what happened.
   * @returns The same catalog.
   */
  onJobStarted(hook: JobHook<JobStartedEvent>): this {
    return this.#add("started", hook);
  }

  /**
   * Adds a function that hears when a job ended well.
   *
   * @param hook Is called with what happened.
   * @returns The same catalog.
   */
  onJobSucceeded(hook: JobHook<JobSucceededEvent>): this {
    return this.#add("succeeded", hook);
  }

  /**
   * Adds a function that hears when an attempt failed, before what follows from it is told.
   *
   * @param hook Is called with what happened.
   * @returns The same catalog.
   */
  onJobFailed(hook: JobHook<JobFailedEvent>): this {
    return this.#add("failed", hook);
  }

  /**
   * Adds a function that hears when an attempt failed and another one follows.
   *
   * @param hook Is called with what happened.
   * @returns The same catalog.
   */
  onJobRetryScheduled(hook: JobHook<JobRetryScheduledEvent>): this {
    return this.#add("retryScheduled", hook);
  }

  /**
   * Adds a function that hears when a job failed for good.
   *
   * @param hook Is called with what happened.
   * @returns The same catalog.
   */
  onJobDeadLettered(hook: JobHook<JobDeadLetteredEvent>): this {
    return this.#add("deadLettered", hook);
  }

  /**
   * Adds a function that hears when a job was called off by its handler, or by somebody else while its handler ran.
   *
   * @param hook Is called with what happened.
   * @returns The same catalog.
   */
  onJobCanceled(hook: JobHook<JobCanceledEvent>): this {
    return this.#add("canceled", hook);
  }

  /**
   * Adds a function that hears when a lease was lost while its handler ran or its outcome waited to be written.
   *
   * @param hook Is called with what happened.
   * @returns The same catalog.
   */
  onLeaseLost(hook: JobHook<LeaseLostEvent>): this {
    return this.#add("leaseLost", hook);
  }

  /**
   * Adds a function that hears when a step was released by the end of another one. First steps come with their run and are not told.
   *
   * @param hook Is called with what happened.
   * @returns The same catalog.
   */
  onStepEnqueued(hook: JobHook<StepEnqueuedEvent>): this {
    return this.#add("stepEnqueued", hook);
  }

  /**
   * Adds a function that hears when the handler of a step is about to run.
   *
   * @param hook Is called with what happened.
   * @returns The same catalog.
   */
  onStepStarted(hook: JobHook<StepStartedEvent>): this {
    return this.#add("stepStarted", hook);
  }

  /**
   * Adds a function that hears when a step ended well.
   *
   * @param hook Is called with what happened.
   * @returns The same catalog.
   */
  onStepSucceeded(hook: JobHook<StepSucceededEvent>): this {
    return this.#add("stepSucceeded", hook);
  }

  /**
   * Adds a function that hears when an attempt at a step failed: for good if `isFinal`.
   *
   * @param hook Is called with what happened.
   * @returns The same catalog.
   */
  onStepFailed(hook: JobHook<StepFailedEvent>): this {
    return this.#add("stepFailed", hook);
  }

  /**
   * Adds a function that hears when an attempt at a step failed and another one follows.
   *
   * @param hook Is called with what happened.
   * @returns The same catalog.
   */
  onStepRetryScheduled(hook: JobHook<StepRetryScheduledEvent>): this {
    return this.#add("stepRetryScheduled", hook);
  }

  /**
   * Adds a function that hears when a step failed for good.
   *
   * @param hook Is called with what happened.
   * @returns The same catalog.
   */
  onStepDeadLettered(hook: JobHook<StepDeadLetteredEvent>): this {
    return this.#add("stepDeadLettered", hook);
  }

  /**
   * Adds a function that hears when a step was called off with its job, or cancelled since a prerequisite did not succeed.
   *
   * @param hook Is called with what happened.
   * @returns The same catalog.
   */
  onStepCanceled(hook: JobHook<StepCanceledEvent>): this {
    return this.#add("stepCanceled", hook);
  }

  /**
   * Adds a function that hears when the lease on a step's job was lost.
   *
   * @param hook Is called with what happened.
   * @returns The same catalog.
   */
  onStepLeaseLost(hook: JobHook<StepLeaseLostEvent>): this {
    return this.#add("stepLeaseLost", hook);
  }

  /**
   * Adds a function that hears when the last step of a run has ended by the hand of a worker or reaper with this catalog.
   *
   * @param hook Is called with what happened.
   * @returns The same catalog.
   */
  onRunFinished(hook: JobHook<RunFinishedEvent>): this {
    return this.#add("runFinished", hook);
  }
}
