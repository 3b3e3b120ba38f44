/**
 * Contracts and pure rules of Runledger: no I/O, no imports.
 *
 * @module
 */

// What a job is: declared by its author, asked for by a producer.
export {
  DEFAULT_DEFINITION_VERSION,
  DEFAULT_MAX_ATTEMPTS,
  DEFAULT_PRIORITY,
  DEFAULT_TIMEOUT_SECONDS,
  defineJob,
} from "./job_definition.ts";
export type {
  AnyJobDefinition,
  JobDefinition,
  JobDefinitionSpec,
  OutputOf,
  PayloadOf,
  StandardSchema,
  StandardSchemaIssue,
  StandardSchemaProps,
  StandardSchemaResult,
} from "./job_definition.ts";
export { assertJobRequest, MAX_IDEMPOTENCY_KEY_BYTES, MAX_INTEGER, MAX_JOB_TYPE_BYTES } from "./job_request.ts";
export type { JobRequest, JobRequestOptions } from "./job_request.ts";
export { formatTraceparent, parseTraceparent } from "./trace_context.ts";
export type { TraceContext } from "./trace_context.ts";
export { assertRetryPolicy, defaultRetryDelayMs, retryDelayMs } from "./retry_policy.ts";
export type {
  DefaultRetryPolicy,
  ExponentialRetryPolicy,
  FixedRetryPolicy,
  ListedRetryPolicy,
  RetryDelayByCode,
  RetryPolicy,
  RetrySituation,
} from "./retry_policy.ts";

// How an attempt ends: what handlers return and throw, and what settlement posts.
export { callOff, complete, continueAfter, continueNow, isJobCompletion, snooze } from "./job_completion.ts";
export type { CompletionMark, JobCompletion, SnoozeOptions } from "./job_completion.ts";
export {
  isJobFailure,
  isRetryableFailureKind,
  JOB_FAILURE_KINDS,
  JobFailure,
  MAX_FAILURE_CODE_BYTES,
  MAX_FAILURE_MESSAGE_BYTES,
  RETRYABLE_FAILURE_KINDS,
  storedFailure,
} from "./job_failure.ts";
export type { JobFailureKind, JobFailureOptions, RetryNotBefore, StoredFailure } from "./job_failure.ts";
export { assertJobOutcome, assertProgress } from "./job_outcome.ts";
export type {
  AttemptRecord,
  CanceledOutcome,
  ContinuedOutcome,
  FailedOutcome,
  JobLease,
  JobOutcome,
  JobProgress,
  SnoozedOutcome,
  SucceededOutcome,
} from "./job_outcome.ts";
export { MAX_DELAY_MS, MAX_REASON_BYTES } from "./outcome_fields.ts";

// The state machine of a job, and the ledger that it is replayed from.
export {
  ENQUEUE_STAGES,
  isJobStage,
  isJobStatus,
  isTerminalJobStatus,
  JOB_STAGES,
  JOB_STATUSES,
  JOB_TRANSITIONS,
  TERMINAL_JOB_STATUSES,
} from "./job_status.ts";
export type { EnqueueStage, JobStage, JobStatus } from "./job_status.ts";
export { JOB_EVENT_TYPES, replayJobEvents, REQUEUE_KINDS } from "./job_event.ts";
export type { JobEvent, JobEventType, JobProjection, RequeueKind } from "./job_event.ts";
export { DEAD_LETTER_REASONS, decodeJobEventDetails } from "./job_event_details.ts";
export type { DeadLetterReason, JobEventDetails } from "./job_event_details.ts";

// Workflows: runs, their steps and what they wait for.
export { WorkflowDagBuilder } from "./workflow_dag_builder.ts";
export type { WorkflowExternalStepOptions, WorkflowJobStepOptions } from "./workflow_dag_builder.ts";
export { WorkflowRunEnqueueBuilder } from "./workflow_run_enqueue_builder.ts";
export type { WorkflowRunSetting } from "./workflow_run_enqueue_builder.ts";
export { WorkflowStepEnqueueBuilder } from "./workflow_step_enqueue_builder.ts";
export type { WorkflowStepSetting } from "./workflow_step_enqueue_builder.ts";
export type {
  AnyWorkflowGraph,
  DeclaredStepKey,
  EmptyWorkflowGraph,
  KnownStepOutput,
  NewStepKey,
  WithDependencies,
  WithStep,
  WorkflowPrerequisite,
  WorkflowPrerequisites,
  WorkflowStepKeys,
} from "./workflow_prerequisites.ts";
export { assertWorkflowRunRequest, assertWorkflowStepAppend } from "./workflow_validation.ts";
export {
  canonicalWorkflowRequest,
  canonicalWorkflowSteps,
  MAX_ACTIVE_KEY_BYTES,
  MAX_STEP_KEY_BYTES,
  MAX_WORKFLOW_TYPE_BYTES,
} from "./workflow_run.ts";
export type {
  CanonicalWorkflowDependency,
  CanonicalWorkflowRequest,
  CanonicalWorkflowStep,
  GateTimeout,
  WorkflowDependency,
  WorkflowExternalStepRequest,
  WorkflowJobStepRequest,
  WorkflowRunRequest,
  WorkflowStepRequest,
} from "./workflow_run.ts";
export { findWorkflowCycle, workflowStepPositions } from "./workflow_graph.ts";
export type { WorkflowNode } from "./workflow_graph.ts";
export { isWorkflowBuildError, WorkflowBuildError } from "./workflow_build_error.ts";
export type { WorkflowBuildProblem, WorkflowNameField } from "./workflow_build_error.ts";
export {
  isReleaseMode,
  isStepExecutionKind,
  isTerminalWorkflowRunStatus,
  isTerminalWorkflowStepStatus,
  isWorkflowRunStatus,
  isWorkflowStepStatus,
  RELEASE_MODES,
  STEP_EXECUTION_KINDS,
  TERMINAL_WORKFLOW_RUN_STATUSES,
  TERMINAL_WORKFLOW_STEP_STATUSES,
  WORKFLOW_RUN_STATUSES,
  WORKFLOW_RUN_TRANSITIONS,
  WORKFLOW_STEP_STATUSES,
  WORKFLOW_STEP_TRANSITIONS,
  workflowRunStatus,
} from "./workflow_status.ts";
export type {
  ReleaseMode,
  StepExecutionKind,
  TerminalWorkflowStepStatus,
  WorkflowRunStatus,
  WorkflowStepStatus,
} from "./workflow_status.ts";

// Values that PostgreSQL stores: JSON, text and ids.
export { assertJsonValue, decodeJson, encodeJson, isJsonValue, MAX_JSON_BYTES, MAX_JSON_DEPTH } from "./json.ts";
export type { JsonOptions, JsonValue } from "./json.ts";
export { boundedText, isBlankText, isStorableText, nameProblem, utf8Length } from "./stored_text.ts";
export { isUuid, jobIdJitter, newId, uuidTimestamp } from "./id.ts";

// Errors that callers tell apart by code.
export { isRunledgerError, RunledgerError } from "./errors.ts";
export type { RunledgerErrorDetail, RunledgerErrorJson, RunledgerErrorOptions } from "./errors.ts";
export { ERROR_CATALOGUE, ERROR_CODES } from "./error_catalogue.ts";
export type { ErrorCatalogueEntry } from "./error_catalogue.ts";
export { isErrorCode } from "./error_code.ts";
export type { ErrorSummary, RunledgerErrorCategory, RunledgerErrorCode } from "./error_code.ts";
