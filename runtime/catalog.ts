/**
 * What a program declares: job definitions, each with its handler, and schedules.
 *
 * @module
 */

import { isRunledgerError, JobFailure, RunledgerError } from "@runledger/core";
import type {
  AnyJobDefinition,
  JobDefinition,
  JobRequest,
  JsonValue,
  WorkflowPrerequisites,
  WorkflowRunRequest,
  WorkflowStepKeys,
} from "@runledger/core";
import { assertJobSchedule, syncJobCatalog, syncJobCatalogExactly } from "@runledger/postgres";
import type {
  CatalogScope,
  CatalogSyncReport,
  EnqueuedJob,
  EnqueuedWorkflowRun,
  JobScheduleInput,
  Queryable,
} from "@runledger/postgres";
import { atomicallyAnnounced } from "./after_commit.ts";
import { CatalogEnqueue } from "./catalog_enqueue.ts";
import { HookSubscriptions } from "./hook_subscriptions.ts";
import type { StepContext } from "./job_context.ts";
import type { JobHandler, RegisteredJob, StepHandler, WorkflowStepOf } from "./job_handler.ts";
import { guardedLogger, silentLogger } from "./logger.ts";
import type { Logger } from "./logger.ts";
import type { TelemetryOptions } from "./telemetry_api.ts";

/** Who is told of what a catalog does and what is done with it. */
export interface JobCatalogOptions {
  /** Gets spans and metrics of enqueues, of attempts and of reaped leases. @default nobody */
  readonly telemetry?: TelemetryOptions;
  /** Gets what goes wrong in hooks of the enqueue methods; workers and reapers have loggers of their own. @default nowhere */
  readonly logger?: Logger;
}

/** When a job of a definition is enqueued again and again. */
export interface CatalogSchedule<PayloadInput> extends Omit<JobScheduleInput, "jobType" | "payload"> {
  /** The payload of its jobs, in the input form of the definition's schema. `_schedule` is added to it. */
  readonly payload: PayloadInput;
}

/**
 * The jobs that a process knows how to run.
 *
 * A worker claims only what its catalog has. Complete it before the worker starts.
 *
 * Hooks are ordinary functions that are told what this process did, see {@linkcode HookSubscriptions}. They are for
 * logs, metrics and alerts.
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
export class JobCatalog extends HookSubscriptions {
  /** Who gets spans and metrics of what is done with this catalog. */
  readonly telemetry: TelemetryOptions;
  readonly #logger: Logger;
  #lazyEnqueue: CatalogEnqueue | undefined;
  readonly #jobs = new Map<string, RegisteredJob>();
  readonly #definitions = new Map<string, AnyJobDefinition>();
  readonly #schedules = new Map<string, JobScheduleInput>();

  /**
   * Starts empty.
   *
   * @param options Who is told what happens.
   */
  constructor(options: JobCatalogOptions = {}) {
    super();
    this.telemetry = options.telemetry ?? {};
    this.#logger = guardedLogger(options.logger ?? silentLogger);
  }

  /**
   * Adds a job type that has its handler elsewhere, so that it can be stored and enqueued.
   *
   * @param definition What `defineJob` gave.
   * @returns The same catalog.
   * @throws {RunledgerError} `job.invalid_definition` when the catalog has another definition of the type.
   */
  define(definition: AnyJobDefinition): this {
    this.#define(definition);
    return this;
  }

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
   * Adds a job type whose jobs are one step of one workflow: the handler's `context.prerequisites` has the keys,
   * outputs and statuses that the workflow's builder saw. A job of the type that is no such step fails for good with
   * `job.handler_not_registered`.
   *
   * @example
   * ```ts
   * import { defineJob, WorkflowDagBuilder } from "@runledger/core";
   * import { JobCatalog } from "@runledger/runtime";
   * import { z } from "zod";
   *
   * const fetchInvoice = defineJob({ type: "invoice.fetch", output: z.object({ cents: z.int() }) });
   * const charge = defineJob({ type: "invoice.charge" });
   * const invoiceRun = (invoice: string) =>
   *   new WorkflowDagBuilder("invoice.process")
   *     .job("fetch", fetchInvoice.request({ invoice }))
   *     .job("charge", charge.request(null)).afterSuccess("charge", ["fetch"])
   *     .build();
   *
   * new JobCatalog().handleStep(charge, { workflow: invoiceRun, stepKey: "charge" }, (_payload, context) => {
   *   const cents: number | undefined = context.prerequisites.fetch.output?.cents;
   *   return { charged: cents ?? 0 };
   * });
   * ```
   *
   * @param definition What `defineJob` gave.
   * @param step Which step of which workflow.
   * @param handler Does the work.
   * @returns The same catalog.
   * @throws {RunledgerError} `job.invalid_definition` when the type has a handler already.
   * @throws {TypeError} When the handler is not a function.
   */
  handleStep<PayloadInput, Payload, Output, DecodedOutput, Run, StepKey extends string>(
    definition: JobDefinition<PayloadInput, Payload, Output, DecodedOutput>,
    step: WorkflowStepOf<Run, StepKey>,
    handler: StepHandler<Payload, Output, WorkflowPrerequisites<Run, StepKey & WorkflowStepKeys<Run>>>,
  ): this {
    if (typeof handler !== "function") throw new TypeError(`The handler of ${definition.type} must be a function`);
    return this.handle(definition, (payload, context) => {
      const { stepKey } = context.workflow ?? {};
      if (stepKey !== step.stepKey) {
        const found = stepKey === undefined ? "no step" : `the step ${stepKey}`;
        throw JobFailure.terminal(
          "job.handler_not_registered",
          `The handler of ${definition.type} is for the step ${step.stepKey}; this job is ${found}.`,
        );
      }
      return handler(
        payload,
        context as StepContext<Output, WorkflowPrerequisites<Run, StepKey & WorkflowStepKeys<Run>>>,
      );
    });
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
   * Enqueues a job whose type is in the catalog, with a payload that its schema takes; as `enqueueJob` otherwise. Hooks of
   * {@linkcode HookSubscriptions.onJobEnqueued} hear of a new job when it is committed, which is seen on a pool, in
   * {@linkcode JobCatalog.transaction} and in {@linkcode JobContext.transaction}; in a transaction that somebody else
   * opened nobody hears of it.
   *
   * @param db A pool, client or open transaction.
   * @param request What the definition's `request` gave, or the like.
   * @returns The job that stands for the request.
   * @throws {RunledgerError} `job.handler_not_registered` when the catalog has no such type; `job.invalid_payload` when the
   * schema refuses the payload; as `enqueueJob`.
   */
  async enqueueJob(db: Queryable, request: JobRequest): Promise<EnqueuedJob> {
    const [enqueued] = await this.enqueueJobs(db, [request]);
    if (enqueued === undefined) throw new RunledgerError("db.unexpected_result");
    return enqueued;
  }

  /**
   * Enqueues many jobs in one statement, all or none. See {@linkcode JobCatalog.enqueueJob}.
   *
   * @param db A pool, client or open transaction.
   * @param requests At most 10,000 requests; an empty list does nothing.
   * @returns One entry for each request, in the same order.
   * @throws {RunledgerError} As {@linkcode JobCatalog.enqueueJob}, with `details.index`.
   * @throws {RangeError} If there are more than 10,000 requests.
   */
  async enqueueJobs(db: Queryable, requests: readonly JobRequest[]): Promise<readonly EnqueuedJob[]> {
    return await this.#enqueue.jobs(db, requests);
  }

  /**
   * Enqueues a workflow run whose job types are all in the catalog, with payloads that their schemas take; as
   * `enqueueWorkflowRun` otherwise.
   *
   * @param db A pool, client or open transaction.
   * @param run The run, usually from a builder.
   * @returns The run that stands for the request.
   * @throws {RunledgerError} `job.handler_not_registered` and `job.invalid_payload` as {@linkcode JobCatalog.enqueueJob},
   * with `details.stepKey`; as `enqueueWorkflowRun`.
   */
  async enqueueWorkflowRun(db: Queryable, run: WorkflowRunRequest): Promise<EnqueuedWorkflowRun> {
    return await this.#enqueue.workflowRun(db, run);
  }

  /**
   * Runs a function as `atomically` does: everything it does in the database happens, or nothing. Hooks hear of what the
   * catalog enqueued in it when it is committed.
   *
   * @typeParam Tx What the driver gives for a transaction: annotate the parameter with it.
   * @param db Pool, session or open transaction.
   * @param fn What to do; its handle is good until the promise it gives settles.
   * @returns What the function gave.
   * @throws As `atomically`.
   */
  async transaction<Tx extends Queryable, Result>(db: Queryable, fn: (tx: Tx) => Promise<Result>): Promise<Result> {
    return await atomicallyAnnounced(db, (tx) => fn(tx as Tx));
  }

  /** Made when it is first needed: it makes instruments, and most processes do one of enqueueing and working. */
  get #enqueue(): CatalogEnqueue {
    return this.#lazyEnqueue ??= new CatalogEnqueue(this, this.#definitions, this.#logger);
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
