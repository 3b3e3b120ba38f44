/**
 * Runledger on PostgreSQL: all of its SQL, for any driver.
 *
 * Every function takes a database handle first: a pool, or a transaction that the caller opened himself.
 *
 * @module
 */

// The database handle
export { atomically } from "./queryable.ts";
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
} from "./queryable.ts";

// The schema
export { ensureSchemaCompatible, migrate } from "./migrate.ts";
export type { MigrateOptions, MigrateResult } from "./migrate.ts";

// Enqueue
export { enqueueJob, enqueueJobs, MAX_ENQUEUE_BATCH } from "./job_enqueue.ts";
export type { EnqueuedJob } from "./job_enqueue.ts";

// Claim, hold, settle
export { claimJobs, createClaimCursor, MAX_LEASE_MS } from "./job_claim.ts";
export type { ClaimCursor, ClaimedJob, ClaimedWorkflowStep, ClaimJobsOptions } from "./job_claim.ts";
export { heartbeatJobs, recordJobProgress, releaseJobs } from "./job_lease.ts";
export type { HeartbeatOptions, HeartbeatResult, HeartbeatState, JobProgressUpdate } from "./job_lease.ts";
export { MAX_SETTLE_BATCH, settleJob, settleJobs } from "./job_settlement.ts";
export type { JobSettlement, SettledJob, SettleOptions } from "./job_settlement.ts";
export type { FinishedRun, ReleasedStep, WorkflowRelease } from "./workflow_release.ts";
export { appendJobLogs, JOB_LOG_LEVELS, listJobLogs, MAX_LOG_MESSAGE_BYTES } from "./job_logs.ts";
export type { JobLog, JobLogEntry, JobLogLevel, ListJobLogsOptions } from "./job_logs.ts";

// Recover and call off
export { reapExpiredLeases } from "./job_reap.ts";
export type { ReapedJob, ReapOptions } from "./job_reap.ts";
export { cancelJob } from "./job_cancel.ts";
export type { CanceledJob, CancelJobOptions } from "./job_cancel.ts";
export { replayJob, requeueDeadLetters, requeueJob } from "./job_requeue.ts";
export type {
  ReplayedJob,
  ReplayJobOptions,
  RequeueDeadLettersOptions,
  RequeueJobOptions,
  RequeueResult,
} from "./job_requeue.ts";
export { deleteFinishedJobs } from "./job_retention.ts";
export type { DeleteFinishedJobsOptions } from "./job_retention.ts";

// Change what waits, and many jobs at once
export { editJob } from "./job_edits.ts";
export type { EditJobOptions, EditJobResult, JobScheduling } from "./job_edits.ts";
export { cancelJobs, editJobs, MAX_BULK_JOBS, previewJobs, requeueJobs } from "./bulk_operations.ts";
export type {
  BulkOptions,
  BulkResult,
  EditJobsOptions,
  FrozenJob,
  PreviewedJob,
  PreviewJobsOptions,
  RequeueJobsOptions,
  SkippedJob,
  SkipReason,
} from "./bulk_operations.ts";
export { listOperatorActions } from "./operator_actions.ts";
export type { ListOperatorActionsOptions, OperatorAction, OperatorActionKind } from "./operator_actions.ts";
export type { OperatorNote } from "./operator_note.ts";

// Definitions, configs, catalogs
export { listJobDefinitions, setJobDefinitionEnabled, upsertJobDefinitions } from "./job_definitions.ts";
export type {
  JobDefinitionSettings,
  ListJobDefinitionsOptions,
  SetJobDefinitionEnabledOptions,
  StoredJobDefinition,
} from "./job_definitions.ts";
export {
  getJobRuntimeConfig,
  getRequiredJobRuntimeConfig,
  listJobRuntimeConfigs,
  upsertJobRuntimeConfig,
} from "./job_runtime_configs.ts";
export type {
  JobRuntimeConfig,
  JobRuntimeConfigInput,
  JobRuntimeConfigValue,
  ListJobRuntimeConfigsOptions,
} from "./job_runtime_configs.ts";
export { syncJobCatalog, syncJobCatalogExactly } from "./catalog_sync.ts";
export type { CatalogEntries, CatalogScope, CatalogSyncReport } from "./catalog_sync.ts";

// Schedules
export { assertJobSchedule, MAX_SCHEDULE_NAME_BYTES, upsertJobSchedule, upsertJobSchedules } from "./schedules.ts";
export type { JobSchedule, JobScheduleInput } from "./schedules.ts";
export {
  deleteJobSchedule,
  getJobScheduleByName,
  listJobSchedules,
  nextScheduleFires,
  setJobScheduleActive,
  setJobScheduleNextFireAt,
} from "./schedule_operations.ts";
export type { ListJobSchedulesOptions, ScheduleOperationOptions } from "./schedule_operations.ts";
export { runJobScheduleNow } from "./schedule_run.ts";
export { materializeDueSchedules } from "./schedule_fire.ts";
export type { DeferredSchedule, FiredSchedule, MaterializedSchedules, MaterializeOptions } from "./schedule_fire.ts";

// Read
export type { BoundedCount, Page, PageOptions, ScopedPageOptions } from "./pages.ts";
export { countJobs, getJob, getJobByIdempotencyKey, listJobs } from "./jobs.ts";
export type { Job, JobFilter, ListJobsOptions } from "./jobs.ts";
export { listJobEvents } from "./job_events.ts";
export type { ListedJobEvent, ListJobEventsOptions } from "./job_events.ts";
export { listJobAttempts } from "./job_attempts.ts";
export type { JobAttempt, ListJobAttemptsOptions } from "./job_attempts.ts";
export { countDeadLetters, listDeadLetters } from "./dead_letters.ts";
export type { DeadLetter, DeadLetterFilter, ListDeadLettersOptions } from "./dead_letters.ts";
export { getJobLineage, getWorkflowRunLineage } from "./lineage.ts";
export type { JobDescent, WorkflowRunDescent } from "./lineage.ts";
export { explainJob } from "./job_explanation.ts";
export type {
  ExplainedStepPlace,
  FailedAttempt,
  JobExplanation,
  JobExplanationBase,
  JobVerdict,
} from "./job_explanation.ts";
export type { ClaimOutlook } from "./claim_outlook.ts";
export type { AwaitedPrerequisite, EndedStep, UnsatisfiedPrerequisite } from "./step_prerequisites.ts";
export type { LiveJobSituation, LiveStep, LiveStepSituation, OpenGate } from "./job_situation.ts";
export { explainWorkflowRun } from "./workflow_explanation.ts";
export type {
  FailedStep,
  LiveWorkflowRun,
  StepSample,
  WorkflowRunExplanation,
  WorkflowRunExplanationBase,
} from "./workflow_explanation.ts";
export { formatDuration, formatJobExplanation, formatWorkflowRunExplanation } from "./explanation_text.ts";
export { readJobMetrics } from "./job_metrics.ts";
export type { JobMetrics, JobMetricsOptions, Percentiles } from "./job_metrics.ts";
export { countEndedJobs } from "./job_totals.ts";
export type { JobTotals, JobTotalsOptions, JobTypeTotals } from "./job_totals.ts";
export { listActiveWorkers } from "./workers.ts";
export type { ActiveWorker } from "./workers.ts";
export { readLedger } from "./ledger_feed.ts";
export type { LedgerEntry, LedgerPiece, ReadLedgerOptions } from "./ledger_feed.ts";
export { examineDatabase } from "./doctor.ts";
export type { ExamineDatabaseOptions, HealthCode, HealthFinding } from "./doctor.ts";
export type { KeyScope, Scope } from "./scope.ts";

// Workflows
export { enqueueWorkflowRun, enqueueWorkflowRuns, MAX_WORKFLOW_ENQUEUE_BATCH } from "./workflow_enqueue.ts";
export type { EnqueuedWorkflowRun } from "./workflow_enqueue.ts";
export {
  appendWorkflowSteps,
  cancelWorkflowRun,
  completeExternalStep,
  deleteFinishedWorkflowRuns,
  expireWorkflowGates,
  recoverWorkflowRun,
} from "./workflow_operations.ts";
export type {
  AppendWorkflowStepsOptions,
  CanceledWorkflowRun,
  CancelWorkflowRunOptions,
  DeleteFinishedWorkflowRunsOptions,
  GateCompletion,
  RecoverWorkflowRunOptions,
} from "./workflow_operations.ts";
export {
  countWorkflowRuns,
  getWorkflowRun,
  getWorkflowRunByIdempotencyKey,
  listWorkflowRuns,
} from "./workflow_runs.ts";
export type { ListWorkflowRunsOptions, WorkflowRun, WorkflowRunFilter } from "./workflow_runs.ts";
export { listWorkflowStepDependencies, listWorkflowSteps } from "./workflow_steps.ts";
export type { ListWorkflowStepsOptions, WorkflowStep, WorkflowStepDependency } from "./workflow_steps.ts";
export { drawWorkflowRun } from "./run_drawing.ts";
export type { DrawWorkflowRunOptions } from "./run_drawing.ts";
export { listWorkflowRunMutations } from "./workflow_run_mutations.ts";
export type { WorkflowRunMutation } from "./workflow_run_mutations.ts";
export { getWorkflowResult, WORKFLOW_RUN_ENDED_CHANNEL } from "./workflow_result.ts";
export type { GetWorkflowResultOptions } from "./workflow_result.ts";

// Waking
export { announceSleep, JOBS_DUE_CHANNEL, listenTo, notifyJobsDue } from "./wake_ups.ts";
export type { AnnounceSleepOptions, Listener, ListenOptions } from "./wake_ups.ts";
