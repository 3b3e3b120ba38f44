/**
 * What a program declares: job definitions, each with its handler, and schedules.
 *
 * @module
 */

import { isRunledgerError, RunledgerError } from "@runledger/core";
import type { AnyJobDefinition, JobCompletion, JobDefinition, JsonValue } from "@runledger/core";
import { assertJobSchedule, syncJobCatalog, syncJobCatalogExactly } from "@runledger/postgres";
import type { CatalogScope, CatalogSyncReport, JobScheduleInput, Queryable } from "@runledger/postgres";
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

/** When a job of a definition is enqueued again and again. */
export interface CatalogSchedule<PayloadInput> extends Omit<JobScheduleInput, "jobType" | "payload"> {
  /** The payload of its jobs, in the input form of the definition's schema. `_schedule` is added to it. */
  readonly payload: PayloadInput;
}

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
  readonly #definitions = new Map<string, AnyJobDefinition>();
  readonly #schedules = new Map<string, JobScheduleInput>();
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
    this.#define(definition);
    this.#jobs.set(definition.type, { definition, handler });
    return this;
  }

  /**
   * Adds a schedule, to be stored by {@linkcode JobCatalog.sync}. Its jobs need a handler in some process, not in this one.
   *
   * @example Every weekday at nine in Berlin
   * ```ts
   * import { defineJob } from "@runledger/core";
   * import { JobCatalog } from "@runledger/runtime";
   * import assert from "node:assert/strict";
   * import { z } from "zod";
   *
   * const report = defineJob({ type: "report.send", payload: z.object({ to: z.email() }) });
   * const catalog = new JobCatalog().schedule(report, {
   *   name: "report.weekdays",
   *   cron: "0 9 * * MON-FRI",
   *   timezone: "Europe/Berlin",
   *   payload: { to: "ada@example.com" },
   * });
   * assert.deepEqual(catalog.schedules.map(({ name }) => name), ["report.weekdays"]);
   * ```
   *
   * @param definition What `defineJob` gave.
   * @param schedule When, and with what payload.
   * @returns The same catalog.
   * @throws {RunledgerError} `job_schedule.invalid_name`, also when the catalog has one of that name already;
   * `job_schedule.invalid_cron`, `job_schedule.invalid_timezone`, `job_schedule.invalid_jitter`, `job.invalid_payload`;
   * `job.invalid_definition` when the catalog has another definition of the type.
   * @throws {TypeError} When the payload schema is asynchronous.
   */
  schedule<PayloadInput, Payload, Output, DecodedOutput>(
    definition: JobDefinition<PayloadInput, Payload, Output, DecodedOutput>,
    schedule: CatalogSchedule<PayloadInput>,
  ): this {
    const { jobType, payload } = definition.request(schedule.payload);
    assertFiredPayload(definition, payload);
    const input: JobScheduleInput = { ...schedule, jobType, payload };
    assertJobSchedule(input);
    if (this.#schedules.has(input.name)) {
      throw new RunledgerError("job_schedule.invalid_name", {
        message: "The catalog has a schedule of this name already.",
        details: { schedule: input.name },
      });
    }
    this.#define(definition);
    this.#schedules.set(input.name, input);
    return this;
  }

  #define(definition: AnyJobDefinition): void {
    const known = this.#definitions.get(definition.type);
    if (known !== undefined && known !== definition) {
      throw new RunledgerError("job.invalid_definition", {
        message: `The catalog has another definition of the job type ${definition.type}.`,
        details: { field: "type", jobType: definition.type },
      });
    }
    this.#definitions.set(definition.type, definition);
  }

  /** What the hook methods have added. */
  get hooks(): JobHooks {
    return this.#hooks;
  }

  /** The job types that have a handler, sorted. */
  get jobTypes(): readonly string[] {
    return [...this.#jobs.keys()].sort();
  }

  /** The definitions of handlers and schedules, by type. */
  get definitions(): readonly AnyJobDefinition[] {
    return [...this.#definitions.values()].sort((a, b) => a.type < b.type ? -1 : 1);
  }

  /** The schedules, in the order in which they were added. */
  get schedules(): readonly JobScheduleInput[] {
    return [...this.#schedules.values()];
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
   * Stores definitions and schedules, all or nothing: new definitions enabled, known ones with the catalog's version,
   * attempts, timeout and priority; schedules as the catalog has them, with their next fire kept unless the expression or
   * the zone changed. What an operator paused stays paused, and what the catalog does not have is left alone. Safe to
   * repeat, and from any number of processes. Without schedules it is one statement.
   *
   * @param db A pool, client or open transaction.
   * @throws {RunledgerError} `job_schedule.invalid_cron` for an expression whose last date has passed;
   * `job_schedule.definition_not_found_or_disabled` when a schedule would be active and its type is paused; `db.*` codes.
   */
  async sync(db: Queryable): Promise<void> {
    await syncJobCatalog(db, { definitions: this.definitions, schedules: this.schedules });
  }

  /**
   * Makes the database what the catalog says, within what it owns, all or nothing: its job types are enabled and its
   * schedules active as it says, whatever an operator paused; owned schedules that it does not have are paused, and owned
   * job types that it does not have are disabled. For deployments whose catalog is the one truth; it takes the rights of
   * a worker and of an operator.
   *
   * @example Also switches off what an earlier release had
   * ```ts ignore
   * const { disabledJobTypes } = await catalog.syncExact(sql, {
   *   jobTypes: [...catalog.definitions.map(({ type }) => type), "report.send_by_fax"],
   * });
   * ```
   *
   * @param db A pool, client or open transaction.
   * @param scope What the catalog owns. Without `scheduleNames` no schedule is paused or switched on.
   * @returns What was switched.
   * @throws {RunledgerError} `job_definition.active_schedule_exists` when a schedule that is not owned uses a type that
   * would be disabled; `job.invalid_definition` when the catalog is empty or has types that it does not own;
   * `job_schedule.invalid_name` when it has schedules that it does not own; as {@linkcode JobCatalog.sync}.
   */
  async syncExact(db: Queryable, scope: CatalogScope): Promise<CatalogSyncReport> {
    return await syncJobCatalogExactly(db, { definitions: this.definitions, schedules: this.schedules }, scope);
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

/** Refuses a schedule whose jobs would all fail: the definition's schema is asked about a payload as firing makes it. */
function assertFiredPayload<PayloadInput>(
  definition: { request(payload: PayloadInput): unknown },
  payload: JsonValue,
): void {
  const isObject = typeof payload === "object" && payload !== null && !Array.isArray(payload);
  const mark = {
    schedule_id: "00000000-0000-7000-8000-000000000000",
    schedule_name: "name",
    scheduled_for: "2026-01-01T00:00:00.000Z",
  };
  try {
    definition.request({ ...(isObject ? payload : { payload }), _schedule: mark } as PayloadInput);
  } catch (error) {
    if (!isRunledgerError(error)) throw error;
    throw new RunledgerError(error.code, {
      message: `${error.message} A schedule adds _schedule to its payload; one that is no object becomes { payload, ` +
        "_schedule }. The job's schema must take that.",
      ...(error.details === undefined ? {} : { details: error.details }),
    });
  }
}
