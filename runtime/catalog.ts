/**
 * What a worker can run: job definitions, each with its handler.
 *
 * @module
 */

import { RunledgerError } from "@runledger/core";
import type { AnyJobDefinition, JobCompletion, JobDefinition } from "@runledger/core";
import { upsertJobDefinitions } from "@runledger/postgres";
import type { Queryable } from "@runledger/postgres";
import { emptyHooks } from "./hooks.ts";
import type {
  JobCanceledEvent,
  JobDeadLetteredEvent,
  JobFailedEvent,
  JobHook,
  JobHooks,
  JobRetryScheduledEvent,
  JobStartedEvent,
  JobSucceededEvent,
  LeaseLostEvent,
} from "./hooks.ts";
import type { JobContext } from "./job_context.ts";

/**
 * Does the work of one attempt.
 *
 * What it returns is the job's output, or one of core's completions (`complete`, `continueNow`, `continueAfter`,
 * `snooze`, `callOff`). A `JobFailure` that it throws means what it says; anything else it throws is retried. It may run
 * more than once for a job: side effects belong into {@linkcode JobContext.transaction} or must bear repetition.
 *
 * @typeParam Payload What the definition's schema makes of the payload.
 * @typeParam Output What the definition's output schema accepts.
 */
export type JobHandler<Payload, Output> = (
  payload: Payload,
  context: JobContext<Output>,
) => Output | JobCompletion<Output> | Promise<Output | JobCompletion<Output>>;

/** A definition with its handler, whatever their types. */
export interface RegisteredJob {
  /** The definition. */
  readonly definition: AnyJobDefinition;
  /** Its {@linkcode JobHandler}. */
  readonly handler: (payload: never, context: never) => unknown;
}

/**
 * The jobs that a process knows how to run.
 *
 * A worker claims only what its catalog has. Complete it before the worker starts.
 *
 * Hooks are ordinary functions that are told what this process did, after it was committed. They are for logs, metrics
 * and alerts: a crash loses them, and one that throws or takes more than 10 s is reported to the logger and has no other
 * effect. What must happen belongs into a job.
 *
 * @example
 * ```ts
 * import { defineJob } from "@runledger/core";
 * import { JobCatalog } from "@runledger/runtime";
 * import assert from "node:assert/strict";
 * import { z } from "zod";
 *
 * const sendEmail = defineJob({ type: "email.send", payload: z.object({ to: z.email() }) });
 * const catalog = new JobCatalog().handle(sendEmail, ({ to }) => ({ sentTo: to }));
 * assert.deepEqual(catalog.jobTypes, ["email.send"]);
 * ```
 */
export class JobCatalog {
  readonly #jobs = new Map<string, RegisteredJob>();
  readonly #hooks = emptyHooks();

  /**
   * Adds a job type.
   *
   * @param definition What `defineJob` gave.
   * @param handler Does the work.
   * @returns The same catalog.
   * @throws {RunledgerError} `job.invalid_definition` when the type has a handler already.
   * @throws {TypeError} When the handler is not a function.
   */
  handle<PayloadInput, Payload, Output, DecodedOutput>(
    definition: JobDefinition<PayloadInput, Payload, Output, DecodedOutput>,
    handler: JobHandler<Payload, Output>,
  ): this {
    if (typeof handler !== "function") throw new TypeError(`The handler of ${definition.type} must be a function`);
    if (this.#jobs.has(definition.type)) {
      throw new RunledgerError("job.invalid_definition", {
        message: `The job type ${definition.type} has a handler already: a type has one in each catalog.`,
        details: { field: "type", jobType: definition.type },
      });
    }
    this.#jobs.set(definition.type, { definition, handler });
    return this;
  }

  /** What the hook methods have added. */
  get hooks(): JobHooks {
    return this.#hooks;
  }

  /** The job types, sorted. */
  get jobTypes(): readonly string[] {
    return [...this.#jobs.keys()].sort();
  }

  /** The definitions, by type. */
  get definitions(): readonly AnyJobDefinition[] {
    return this.jobTypes.map((jobType) => this.require(jobType).definition);
  }

  /**
   * Looks a job type up.
   *
   * @param jobType The type.
   * @returns Its definition and handler; undefined when it has none.
   */
  get(jobType: string): RegisteredJob | undefined {
    return this.#jobs.get(jobType);
  }

  /**
   * Looks a job type up that must be there.
   *
   * @param jobType The type.
   * @returns Its definition and handler.
   * @throws {RunledgerError} `job.handler_not_registered` when it has none.
   */
  require(jobType: string): RegisteredJob {
    const registered = this.#jobs.get(jobType);
    if (registered === undefined) {
      throw new RunledgerError("job.handler_not_registered", { details: { jobType } });
    }
    return registered;
  }

  /**
   * Stores the definitions, so that their jobs can be enqueued: new ones enabled, known ones with the catalog's version,
   * attempts, timeout and priority. Whether a known one is enabled stays as an operator left it, and types that the
   * catalog does not have are left alone. One statement; safe to repeat, and from any number of processes.
   *
   * @param db A pool, client or open transaction.
   * @throws {RunledgerError} `db.*` codes.
   */
  async sync(db: Queryable): Promise<void> {
    await upsertJobDefinitions(db, this.definitions);
  }

  /**
   * Adds a function that hears when a handler is about to run.
   *
   * @param hook Is called with what happened.
   * @returns The same catalog.
   */
  onJobStarted(hook: JobHook<JobStartedEvent>): this {
    this.#hooks.started.push(hook);
    return this;
  }

  /**
   * Adds a function that hears when a job ended well.
   *
   * @param hook Is called with what happened.
   * @returns The same catalog.
   */
  onJobSucceeded(hook: JobHook<JobSucceededEvent>): this {
    this.#hooks.succeeded.push(hook);
    return this;
  }

  /**
   * Adds a function that hears when an attempt failed, before what follows from it is told.
   *
   * @param hook Is called with what happened.
   * @returns The same catalog.
   */
  onJobFailed(hook: JobHook<JobFailedEvent>): this {
    this.#hooks.failed.push(hook);
    return this;
  }

  /**
   * Adds a function that hears when an attempt failed and another one follows.
   *
   * @param hook Is called with what happened.
   * @returns The same catalog.
   */
  onJobRetryScheduled(hook: JobHook<JobRetryScheduledEvent>): this {
    this.#hooks.retryScheduled.push(hook);
    return this;
  }

  /**
   * Adds a function that hears when a job failed for good.
   *
   * @param hook Is called with what happened.
   * @returns The same catalog.
   */
  onJobDeadLettered(hook: JobHook<JobDeadLetteredEvent>): this {
    this.#hooks.deadLettered.push(hook);
    return this;
  }

  /**
   * Adds a function that hears when a job was called off by its handler, or by somebody else while its handler ran.
   *
   * @param hook Is called with what happened.
   * @returns The same catalog.
   */
  onJobCanceled(hook: JobHook<JobCanceledEvent>): this {
    this.#hooks.canceled.push(hook);
    return this;
  }

  /**
   * Adds a function that hears when a lease was lost while its handler ran or its outcome waited to be written.
   *
   * @param hook Is called with what happened.
   * @returns The same catalog.
   */
  onLeaseLost(hook: JobHook<LeaseLostEvent>): this {
    this.#hooks.leaseLost.push(hook);
    return this;
  }
}
