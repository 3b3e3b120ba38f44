/**
 * Runledger: durable jobs and workflows in the PostgreSQL that an application already has.
 *
 * This is the front door: all that `@runledger/core`, `@runledger/postgres` and `@runledger/runtime` export. A producer
 * needs only the first two, and a module that just declares jobs only the first; import those where size matters.
 *
 * @example Declare a job and the request for one
 * ```ts
 * import { defineJob } from "@runledger/core";
 * import assert from "node:assert/strict";
 * import { z } from "zod";
 *
 * const sendEmail = defineJob({ type: "email.send", payload: z.object({ to: z.email() }) });
 * const request = sendEmail.request({ to: "ada@example.com" }, { idempotencyKey: "order:1" });
 * assert.equal(request.jobType, "email.send");
 * ```
 *
 * @example Enqueue it in the transaction that it follows from, and run it in a worker
 * ```ts ignore
 * await sql.begin(async (tx) => {
 *   await tx`insert into orders (id) values (${orderId})`;
 *   await enqueueJob(tx, sendEmail.request({ to }, { idempotencyKey: `order:${orderId}` }));
 * });
 *
 * const catalog = new JobCatalog().handle(sendEmail, ({ to }) => deliver(to));
 * await migrate(sql);
 * await catalog.sync(sql);
 * await new Supervisor(sql, { catalog }).runUntilShutdown({ signal: shutdownSignal() });
 * ```
 *
 * Whole programs are in `examples/`.
 *
 * @module
 */

// Written by scripts/write_front_door.ts.

// core: what a job is: declared by its author, asked for by a producer.
export {
  assertJobRequest,
  assertRetryPolicy,
  DEFAULT_DEFINITION_VERSION,
  DEFAULT_MAX_ATTEMPTS,
  DEFAULT_PRIORITY,
  DEFAULT_TIMEOUT_SECONDS,
  defaultRetryDelayMs,
  defineJob,
  formatTraceparent,
  MAX_IDEMPOTENCY_KEY_BYTES,
  MAX_INTEGER,
  MAX_JOB_TYPE_BYTES,
  parseTraceparent,
  retryDelayMs,
} from "@runledger/core";
export type {
  AnyJobDefinition,
  DefaultRetryPolicy,
  ExponentialRetryPolicy,
  FixedRetryPolicy,
  JobDefinition,
  JobDefinitionSpec,
  JobRequest,
  JobRequestOptions,
  ListedRetryPolicy,
  OutputOf,
  PayloadOf,
  RetryDelayByCode,
  RetryPolicy,
  RetrySituation,
  StandardSchema,
  StandardSchemaIssue,
  StandardSchemaProps,
  StandardSchemaResult,
  TraceContext,
} from "@runledger/core";

// core: how an attempt ends: what handlers return and throw, and what settlement posts.
export {
  assertJobOutcome,
  assertProgress,
  callOff,
  complete,
  continueAfter,
  continueNow,
  isJobCompletion,
  isJobFailure,
  isRetryableFailureKind,
  JOB_FAILURE_KINDS,
  JobFailure,
  MAX_DELAY_MS,
  MAX_FAILURE_CODE_BYTES,
  MAX_FAILURE_MESSAGE_BYTES,
  MAX_REASON_BYTES,
  RETRYABLE_FAILURE_KINDS,
  snooze,
  storedFailure,
} from "@runledger/core";
export type {
  AttemptRecord,
  CanceledOutcome,
  CompletionMark,
  ContinuedOutcome,
  FailedOutcome,
  JobCompletion,
  JobFailureKind,
  JobFailureOptions,
  JobLease,
  JobOutcome,
  JobProgress,
  RetryNotBefore,
  SnoozedOutcome,
  SnoozeOptions,
  StoredFailure,
  SucceededOutcome,
} from "@runledger/core";

// core: the state machine of a job, and the ledger that it is replayed from.
export {
  DEAD_LETTER_REASONS,
  decodeJobEventDetails,
  ENQUEUE_STAGES,
  isJobStage,
  isJobStatus,
  isTerminalJobStatus,
  JOB_EVENT_TYPES,
  JOB_STAGES,
  JOB_STATUSES,
  JOB_TRANSITIONS,
  replayJobEvents,
  REQUEUE_KINDS,
  TERMINAL_JOB_STATUSES,
} from "@runledger/core";
export type {
  DeadLetterReason,
  EnqueueStage,
  JobEvent,
  JobEventDetails,
  JobEventType,
  JobProjection,
  JobStage,
  JobStatus,
  RequeueKind,
} from "@runledger/core";

// core: workflows: runs, their steps and what they wait for.
export {
  assertWorkflowRunRequest,
  assertWorkflowStepAppend,
  canonicalWorkflowRequest,
  canonicalWorkflowSteps,
  findWorkflowCycle,
  isReleaseMode,
  isStepExecutionKind,
  isTerminalWorkflowRunStatus,
  isTerminalWorkflowStepStatus,
  isWorkflowBuildError,
  isWorkflowRunStatus,
  isWorkflowStepStatus,
  MAX_ACTIVE_KEY_BYTES,
  MAX_STEP_KEY_BYTES,
  MAX_WORKFLOW_TYPE_BYTES,
  RELEASE_MODES,
  STEP_EXECUTION_KINDS,
  TERMINAL_WORKFLOW_RUN_STATUSES,
  TERMINAL_WORKFLOW_STEP_STATUSES,
  WORKFLOW_RUN_STATUSES,
  WORKFLOW_RUN_TRANSITIONS,
  WORKFLOW_STEP_STATUSES,
  WORKFLOW_STEP_TRANSITIONS,
  WorkflowBuildError,
  WorkflowDagBuilder,
  WorkflowRunEnqueueBuilder,
  workflowRunStatus,
  WorkflowStepEnqueueBuilder,
  workflowStepPositions,
} from "@runledger/core";
export type {
  AnyWorkflowGraph,
  CanonicalWorkflowDependency,
  CanonicalWorkflowRequest,
  CanonicalWorkflowStep,
  DeclaredStepKey,
  EmptyWorkflowGraph,
  GateTimeout,
  KnownStepOutput,
  NewStepKey,
  ReleaseMode,
  StepExecutionKind,
  TerminalWorkflowStepStatus,
  WithDependencies,
  WithStep,
  WorkflowBuildProblem,
  WorkflowDependency,
  WorkflowExternalStepOptions,
  WorkflowExternalStepRequest,
  WorkflowJobStepOptions,
  WorkflowJobStepRequest,
  WorkflowNameField,
  WorkflowNode,
  WorkflowPrerequisite,
  WorkflowPrerequisites,
  WorkflowRunRequest,
  WorkflowRunSetting,
  WorkflowRunStatus,
  WorkflowStepKeys,
  WorkflowStepRequest,
  WorkflowStepSetting,
  WorkflowStepStatus,
} from "@runledger/core";

// core: values that PostgreSQL stores: JSON, text and ids.
export {
  assertJsonValue,
  boundedText,
  decodeJson,
  encodeJson,
  isBlankText,
  isJsonValue,
  isStorableText,
  isUuid,
  jobIdJitter,
  MAX_JSON_BYTES,
  MAX_JSON_DEPTH,
  nameProblem,
  newId,
  utf8Length,
  uuidTimestamp,
} from "@runledger/core";
export type { JsonOptions, JsonValue } from "@runledger/core";

// core: errors that callers tell apart by code.
export { ERROR_CATALOGUE, ERROR_CODES, isErrorCode, isRunledgerError, RunledgerError } from "@runledger/core";
export type {
  ErrorCatalogueEntry,
  ErrorSummary,
  RunledgerErrorCategory,
  RunledgerErrorCode,
  RunledgerErrorDetail,
  RunledgerErrorJson,
  RunledgerErrorOptions,
} from "@runledger/core";

// postgres: the database handle
export { atomically } from "@runledger/postgres";
export type {
  NodePostgresClient,
  NodePostgresPool,
  PGliteTransaction,
  PostgresJsHandle,
  PostgresJsPool,
  PostgresJsTransaction,
  Queryable,
  StatementRunner,
  StatementValue,
  TransactionRunner,
} from "@runledger/postgres";

// postgres: the schema
export { ensureSchemaCompatible, migrate } from "@runledger/postgres";
export type { MigrateOptions, MigrateResult } from "@runledger/postgres";

// postgres: enqueue
export { enqueueJob, enqueueJobs, MAX_ENQUEUE_BATCH } from "@runledger/postgres";
export type { EnqueuedJob } from "@runledger/postgres";

// postgres: claim, hold, settle
export {
  appendJobLogs,
  claimJobs,
  createClaimCursor,
  heartbeatJobs,
  JOB_LOG_LEVELS,
  listJobLogs,
  MAX_LEASE_MS,
  MAX_LOG_MESSAGE_BYTES,
  MAX_SETTLE_BATCH,
  recordJobProgress,
  releaseJobs,
  settleJob,
  settleJobs,
} from "@runledger/postgres";
export type {
  ClaimCursor,
  ClaimedJob,
  ClaimedWorkflowStep,
  ClaimJobsOptions,
  FinishedRun,
  HeartbeatOptions,
  HeartbeatResult,
  HeartbeatState,
  JobLog,
  JobLogEntry,
  JobLogLevel,
  JobProgressUpdate,
  JobSettlement,
  ListJobLogsOptions,
  ReleasedStep,
  SettledJob,
  SettleOptions,
  WorkflowRelease,
} from "@runledger/postgres";

// postgres: recover and call off
export {
  cancelJob,
  deleteFinishedJobs,
  reapExpiredLeases,
  replayJob,
  requeueDeadLetters,
  requeueJob,
} from "@runledger/postgres";
export type {
  CanceledJob,
  CancelJobOptions,
  DeleteFinishedJobsOptions,
  ReapedJob,
  ReapOptions,
  ReplayedJob,
  ReplayJobOptions,
  RequeueDeadLettersOptions,
  RequeueJobOptions,
  RequeueResult,
} from "@runledger/postgres";

// postgres: change what waits, and many jobs at once
export {
  cancelJobs,
  editJob,
  editJobs,
  listOperatorActions,
  MAX_BULK_JOBS,
  previewJobs,
  requeueJobs,
} from "@runledger/postgres";
export type {
  BulkOptions,
  BulkResult,
  EditJobOptions,
  EditJobResult,
  EditJobsOptions,
  FrozenJob,
  JobScheduling,
  ListOperatorActionsOptions,
  OperatorAction,
  OperatorActionKind,
  OperatorNote,
  PreviewedJob,
  PreviewJobsOptions,
  RequeueJobsOptions,
  SkippedJob,
  SkipReason,
} from "@runledger/postgres";

// postgres: definitions, configs, catalogs
export {
  getJobRuntimeConfig,
  getRequiredJobRuntimeConfig,
  listJobDefinitions,
  listJobRuntimeConfigs,
  setJobDefinitionEnabled,
  syncJobCatalog,
  syncJobCatalogExactly,
  upsertJobDefinitions,
  upsertJobRuntimeConfig,
} from "@runledger/postgres";
export type {
  CatalogEntries,
  CatalogScope,
  CatalogSyncReport,
  JobDefinitionSettings,
  JobRuntimeConfig,
  JobRuntimeConfigInput,
  JobRuntimeConfigValue,
  ListJobDefinitionsOptions,
  ListJobRuntimeConfigsOptions,
  SetJobDefinitionEnabledOptions,
  StoredJobDefinition,
} from "@runledger/postgres";

// postgres: schedules
export {
  assertJobSchedule,
  deleteJobSchedule,
  getJobScheduleByName,
  listJobSchedules,
  materializeDueSchedules,
  MAX_SCHEDULE_NAME_BYTES,
  nextScheduleFires,
  runJobScheduleNow,
  setJobScheduleActive,
  setJobScheduleNextFireAt,
  upsertJobSchedule,
  upsertJobSchedules,
} from "@runledger/postgres";
export type {
  DeferredSchedule,
  FiredSchedule,
  JobSchedule,
  JobScheduleInput,
  ListJobSchedulesOptions,
  MaterializedSchedules,
  MaterializeOptions,
  ScheduleOperationOptions,
} from "@runledger/postgres";

// postgres: read
export {
  countDeadLetters,
  countEndedJobs,
  countJobs,
  examineDatabase,
  explainJob,
  explainWorkflowRun,
  formatDuration,
  formatJobExplanation,
  formatWorkflowRunExplanation,
  getJob,
  getJobByIdempotencyKey,
  getJobLineage,
  getWorkflowRunLineage,
  listActiveWorkers,
  listDeadLetters,
  listJobAttempts,
  listJobEvents,
  listJobs,
  readJobMetrics,
  readLedger,
} from "@runledger/postgres";
export type {
  ActiveWorker,
  AwaitedPrerequisite,
  BoundedCount,
  ClaimOutlook,
  DeadLetter,
  DeadLetterFilter,
  EndedStep,
  ExamineDatabaseOptions,
  ExplainedStepPlace,
  FailedAttempt,
  FailedStep,
  HealthCode,
  HealthFinding,
  Job,
  JobAttempt,
  JobDescent,
  JobExplanation,
  JobExplanationBase,
  JobFilter,
  JobMetrics,
  JobMetricsOptions,
  JobTotals,
  JobTotalsOptions,
  JobTypeTotals,
  JobVerdict,
  KeyScope,
  LedgerEntry,
  LedgerPiece,
  ListDeadLettersOptions,
  ListedJobEvent,
  ListJobAttemptsOptions,
  ListJobEventsOptions,
  ListJobsOptions,
  LiveJobSituation,
  LiveStep,
  LiveStepSituation,
  LiveWorkflowRun,
  OpenGate,
  Page,
  PageOptions,
  Percentiles,
  ReadLedgerOptions,
  Scope,
  ScopedPageOptions,
  StepSample,
  UnsatisfiedPrerequisite,
  WorkflowRunDescent,
  WorkflowRunExplanation,
  WorkflowRunExplanationBase,
} from "@runledger/postgres";

// postgres: workflows
export {
  appendWorkflowSteps,
  cancelWorkflowRun,
  completeExternalStep,
  countWorkflowRuns,
  deleteFinishedWorkflowRuns,
  drawWorkflowRun,
  enqueueWorkflowRun,
  enqueueWorkflowRuns,
  expireWorkflowGates,
  getWorkflowResult,
  getWorkflowRun,
  getWorkflowRunByIdempotencyKey,
  listWorkflowRunMutations,
  listWorkflowRuns,
  listWorkflowStepDependencies,
  listWorkflowSteps,
  MAX_WORKFLOW_ENQUEUE_BATCH,
  recoverWorkflowRun,
  WORKFLOW_RUN_ENDED_CHANNEL,
} from "@runledger/postgres";
export type {
  AppendWorkflowStepsOptions,
  CanceledWorkflowRun,
  CancelWorkflowRunOptions,
  DeleteFinishedWorkflowRunsOptions,
  DrawWorkflowRunOptions,
  EnqueuedWorkflowRun,
  GateCompletion,
  GetWorkflowResultOptions,
  ListWorkflowRunsOptions,
  ListWorkflowStepsOptions,
  RecoverWorkflowRunOptions,
  WorkflowRun,
  WorkflowRunFilter,
  WorkflowRunMutation,
  WorkflowStep,
  WorkflowStepDependency,
} from "@runledger/postgres";

// postgres: waking
export { announceSleep, JOBS_DUE_CHANNEL, listenTo, notifyJobsDue } from "@runledger/postgres";
export type { AnnounceSleepOptions, Listener, ListenOptions } from "@runledger/postgres";

// runtime: what is run
export { JobCatalog } from "@runledger/runtime";
export type {
  CatalogSchedule,
  FinishJob,
  JobCatalogOptions,
  JobContext,
  JobHandler,
  RegisteredJob,
  StepContext,
  StepHandler,
  WorkflowStepOf,
} from "@runledger/runtime";

// runtime: hearing of it
export { HookSubscriptions } from "@runledger/runtime";
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
} from "@runledger/runtime";

// runtime: running it
export { runReaper, runScheduler, runWorker, shutdownSignal, Supervisor } from "@runledger/runtime";
export type {
  LeftJob,
  ReaperOptions,
  ReaperReport,
  SchedulerOptions,
  SchedulerReport,
  ShutdownOptions,
  SupervisorOptions,
  SupervisorReport,
  WorkerOptions,
  WorkerReport,
} from "@runledger/runtime";

// runtime: settings and reports
export { consoleLogger, JobsConfig, silentLogger } from "@runledger/runtime";
export type { Environment, JobsConfigFactory, LogFields, Logger } from "@runledger/runtime";
