/**
 * Running jobs: the catalog of handlers, the worker, the reaper, and the supervisor that runs them together.
 *
 * No SQL is here, and nothing but web-standard APIs: it runs in Deno and in Node.
 *
 * @module
 */

// What is run
export { JobCatalog } from "./catalog.ts";
export type { CatalogSchedule, JobCatalogOptions } from "./catalog.ts";
export type { JobHandler, RegisteredJob, StepHandler, WorkflowStepOf } from "./job_handler.ts";
export type { FinishJob, JobContext, StepContext } from "./job_context.ts";

// Hearing of it
export { HookSubscriptions } from "./hook_subscriptions.ts";
export type {
  JobCanceledEvent,
  JobDeadLetteredEvent,
  JobEnqueuedEvent,
  JobFailedEvent,
  JobHook,
  JobHookEvent,
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
  StepPlace,
  StepRetryScheduledEvent,
  StepStartedEvent,
  StepSucceededEvent,
} from "./hook_events.ts";
export type {
  TelemetryAttributes,
  TelemetryCounter,
  TelemetryHistogram,
  TelemetryInstrumentOptions,
  TelemetryMeter,
  TelemetryObservable,
  TelemetryObserver,
  TelemetryOptions,
  TelemetrySpan,
  TelemetrySpanContext,
  TelemetrySpanOptions,
  TelemetryTracer,
} from "./telemetry_api.ts";

// Running it
export { Supervisor } from "./supervisor.ts";
export type { ShutdownOptions, SupervisorOptions, SupervisorReport } from "./supervisor.ts";
export { shutdownSignal } from "./shutdown_signal.ts";
export { runWorker } from "./worker.ts";
export type { LeftJob, WorkerOptions, WorkerReport } from "./worker_options.ts";
export { runScheduler } from "./scheduler.ts";
export type { SchedulerOptions, SchedulerReport } from "./scheduler.ts";
export { runReaper } from "./reaper.ts";
export type { ReaperOptions, ReaperReport } from "./reaper.ts";

// Settings and reports
export { JobsConfig } from "./config.ts";
export type { Environment, JobsConfigFactory } from "./config.ts";
export { consoleLogger, silentLogger } from "./logger.ts";
export type { LogFields, Logger } from "./logger.ts";
