/**
 * What leads to each error, whether a retry helps, and what to do about it. `docs/errors.md` is made from this table.
 *
 * @module
 */

import { errorSummary } from "./error_code.ts";
import type { ErrorSummary, RunledgerErrorCode, WorkflowBuildErrorCode } from "./error_code.ts";

/** What the catalogue says about one code. */
export interface ErrorCatalogueEntry extends ErrorSummary {
  /** What leads to it. */
  readonly cause: string;
  /** Whether the same call may succeed when it is made again. */
  readonly retry: "no" | "yes" | "unknown outcome";
  /** What to do about it. */
  readonly action: string;
}

/** What the table below holds: what an error says stands with its code. */
type ErrorExplanation = Omit<ErrorCatalogueEntry, keyof ErrorSummary>;

/** What a WorkflowBuildError says, without the keys that it is about: it makes its words, so programs do not carry these. */
interface BuildErrorExplanation extends ErrorExplanation {
  readonly message: string;
}

type Explanations =
  & Readonly<Record<Exclude<RunledgerErrorCode, WorkflowBuildErrorCode>, ErrorExplanation>>
  & Readonly<Record<WorkflowBuildErrorCode, BuildErrorExplanation>>;

const EXPLANATIONS: Explanations = {
  "job.invalid_request": {
    cause:
      "A blank job type or key, a key over 512 bytes, a number that is not a positive integer, an unknown stage, an organization that is not a UUID.",
    retry: "no",
    action: "Correct the field that `details.field` names.",
  },
  "job.invalid_payload": {
    cause:
      "It is not JSON (a cycle, BigInt, NaN, U+0000, a lone surrogate, too deep), or the job's schema refuses it. As a stored failure: the handler's schema refused what was enqueued.",
    retry: "no",
    action: "Correct the value at `details.path`; for stored jobs, deploy a handler that accepts it and requeue.",
  },
  "job.invalid_output": {
    cause: "A handler returned something that is not JSON, is too large, or that the job's output schema refuses.",
    retry: "no",
    action: "Correct the handler; the job was dead-lettered as PANICKED and can be requeued.",
  },
  "job.invalid_definition": {
    cause: "A blank type, a non-positive version, attempts or timeout, or a priority that is not a 32-bit integer.",
    retry: "no",
    action: "Correct the field that `details.field` names.",
  },
  "job.invalid_outcome": {
    cause: "A negative or unrepresentable delay, a blank failure code, or an unknown kind of outcome.",
    retry: "no",
    action: "Correct the field that `details.field` names.",
  },
  "job.invalid_progress": {
    cause: "Progress was negative, not an integer, or beyond its total, by itself or together with what is stored.",
    retry: "no",
    action: "Report whole numbers with done at most total.",
  },
  "job.invalid_lease_duration": {
    cause: "`leaseMs` was zero, negative, fractional or over a day.",
    retry: "no",
    action: "Give 1 to 86,400,000 milliseconds.",
  },
  "job.invalid_pagination": {
    cause: "A limit outside 1 to 1000, or a cursor that this function did not give.",
    retry: "no",
    action: "Ask for 1 to 1000 rows and pass cursors on unchanged.",
  },
  "job.definition_not_found_or_disabled": {
    cause: "The catalog was never synced to this database, or an operator disabled the type.",
    retry: "no",
    action: "Sync the catalog (`catalog.sync(db)`) or enable the definition; `details.jobTypes` names the types.",
  },
  "job.definition_not_found": {
    cause: "A definition was addressed that was never stored.",
    retry: "no",
    action: "Store the definition first.",
  },
  "job.runtime_config_not_found": {
    cause: "A required runtime configuration was never stored.",
    retry: "no",
    action: "Store it with `upsertJobRuntimeConfig`.",
  },
  "job.not_found": {
    cause: "The id is unknown, the job was removed by retention, or it lies outside the given scope.",
    retry: "no",
    action: "Check the id and the scope.",
  },
  "job.idempotency_conflict": {
    cause: "A job of the same type, scope and key was enqueued before with other content.",
    retry: "no",
    action: "Use another key, or send the original request; `details.fields` names what differs.",
  },
  "job.enqueue_idempotency_unsupported_isolation": {
    cause: "The caller's transaction is REPEATABLE READ or SERIALIZABLE and cannot see a concurrent equal enqueue.",
    retry: "no",
    action: "Enqueue in a READ COMMITTED transaction, or without a key.",
  },
  "job.lease_owner_mismatch": {
    cause: "The lease expired, or the job was reclaimed, cancelled or settled meanwhile. There is no grace period.",
    retry: "no",
    action: "Stop working on the job; whoever holds it now goes on.",
  },
  "job.unstarted_claim_release_not_applicable": {
    cause: "The claim already reported progress, or it is not the newest of its job.",
    retry: "no",
    action: "Settle the attempt instead, or let its lease expire.",
  },
  "job.invalid_state_transition": {
    cause: "For example cancelling a job that already ended.",
    retry: "no",
    action: "Read the job's status; `details.status` tells it.",
  },
  "job.workflow_requeue_not_supported": {
    cause: "Its run has already acted on how it ended.",
    retry: "no",
    action: "Recover the workflow run.",
  },
  "job.workflow_edit_not_supported": {
    cause: "Its run keeps what was asked for, and a recovery would run the step with that.",
    retry: "no",
    action: "Cancel the run and enqueue it with another payload.",
  },
  "job.workflow_handler_continuation_not_enabled": {
    cause: "A handler ended a slice with a continuation, but its step was not declared to allow it.",
    retry: "no",
    action: "Declare the step with `allowsContinuation`, or finish the work in one attempt.",
  },
  "job.replay_idempotency_conflict": {
    cause: "The same source job and replay key were used before with another reason.",
    retry: "no",
    action: "Use another replay key.",
  },
  "job.handler_threw": {
    cause: "Stored failure: a handler threw something other than a JobFailure. Retried while attempts remain.",
    retry: "yes",
    action: "Read the stored message and stack; throw a JobFailure for failures that are expected.",
  },
  "job.handler_panic": {
    cause: "Stored failure: no valid completion came back. Never retried.",
    retry: "no",
    action: "Correct the handler and requeue the dead letter.",
  },
  "job.handler_not_registered": {
    cause:
      "The catalog does not have the type: on enqueue, or as a stored failure of a job that a worker was given. Or " +
      "the type's handler is for one step of a workflow, and the job is no such step.",
    retry: "no",
    action: "Add the definition or a handler to the catalog, and requeue the dead letter.",
  },
  "job.timeout_exceeded": {
    cause: "Stored failure and abort reason: `timeoutSeconds` of the job passed. Retried while attempts remain.",
    retry: "yes",
    action: "Heed `context.signal`, make the work smaller, or raise the timeout.",
  },
  "job.lease_expired": {
    cause: "Stored failure: the worker crashed, hung, or lost the database for longer than its lease.",
    retry: "yes",
    action: "Nothing for single cases; for many, look for crashes, blocked event loops or a lease that is too short.",
  },
  "job.canceled": {
    cause: "Abort reason of a running handler whose job was cancelled.",
    retry: "no",
    action: "Stop working.",
  },
  "worker.shutdown": {
    cause: "Abort reason of a handler that was still running at the shutdown deadline.",
    retry: "yes",
    action: "Stop working; the attempt is retried elsewhere.",
  },
  "job_definition.active_schedule_exists": {
    cause: "A definition cannot be disabled while schedules would go on firing into it.",
    retry: "no",
    action: "Pause the schedules that `details.schedules` names first.",
  },
  "job_schedule.invalid_name": {
    cause: "Blank, padded, longer than 255 bytes, holds U+0000 or a lone surrogate, or was given twice in one call.",
    retry: "no",
    action: "Give the schedule a name of its own.",
  },
  "job_schedule.invalid_cron": {
    cause:
      "Not five, six or seven fields, a field that is out of its range, or a date that never comes. A stored one: " +
      "the scheduler reports it and looks again every 30 seconds.",
    retry: "no",
    action: "Correct the expression: minute, hour, day of month, month, day of week; seconds go first, a year last.",
  },
  "job_schedule.invalid_timezone": {
    cause: "This runtime does not know a time zone of that name.",
    retry: "no",
    action: "Name a zone of the IANA database, or leave it out for UTC.",
  },
  "job_schedule.invalid_jitter": {
    cause: "`maxJitterSeconds` is negative, fractional or longer than a day.",
    retry: "no",
    action: "Correct `maxJitterSeconds`.",
  },
  "job_schedule.not_found": {
    cause: "The name was never used, the schedule was deleted, or it belongs to another organization than the scope.",
    retry: "no",
    action: "Check the name and the scope.",
  },
  "job_schedule.definition_not_found_or_disabled": {
    cause: "An active schedule needs an enabled definition, and any schedule one that exists.",
    retry: "yes",
    action: "Sync the catalog, or enable the types in `details.jobTypes`; a paused schedule may have a disabled one.",
  },
  "workflow.invalid_dag_empty": {
    message: "The workflow has no steps.",
    cause: "A run or an append without any step.",
    retry: "no",
    action: "Add a step.",
  },
  "workflow.invalid_dag_workflow_type_blank": {
    message: "The workflow type must not be blank.",
    cause: "An empty or white workflow type.",
    retry: "no",
    action: "Name the kind of workflow.",
  },
  "workflow.invalid_dag_step_key_blank": {
    message: "A step key must not be blank.",
    cause: "An empty or white step key; `details.stepIndex` counts declared steps from 0.",
    retry: "no",
    action: "Name the step.",
  },
  "workflow.invalid_dag_job_type_blank": {
    message: "The job type of a step must not be blank.",
    cause: "An empty or white job type in the step that `details.stepKey` names.",
    retry: "no",
    action: "Name the kind of job, or declare the step as external.",
  },
  "workflow.invalid_dag_idempotency_key_blank": {
    message: "The idempotency key must not be blank.",
    cause: "An empty or white idempotency key.",
    retry: "no",
    action: "Give a key, or none.",
  },
  "workflow.invalid_dag_active_key_blank": {
    message: "The active key must not be blank.",
    cause: "An empty or white active key.",
    retry: "no",
    action: "Give a key, or none.",
  },
  "workflow.invalid_dag_result_step_key_blank": {
    message: "The key of the result step must not be blank.",
    cause: "An empty or white result step key.",
    retry: "no",
    action: "Name a step, or none.",
  },
  "workflow.invalid_dag_dependency_step_key_blank": {
    message: "The key of a prerequisite must not be blank.",
    cause: "The step that `details.stepKey` names waits for an empty or white key.",
    retry: "no",
    action: "Name the prerequisite.",
  },
  "workflow.invalid_dag_name_too_long": {
    message: "A name of the workflow is too long.",
    cause: "A workflow or job type over 255 bytes of UTF-8, or a key over 512.",
    retry: "no",
    action: "Shorten what `details.field` names to `details.maxBytes`.",
  },
  "workflow.invalid_dag_name_invalid": {
    message: "A name of the workflow cannot be stored.",
    cause: "It is no string, or holds U+0000 or a lone surrogate.",
    retry: "no",
    action: "Correct what `details.field` names.",
  },
  "workflow.invalid_dag_duplicate_step_key": {
    message: "Two steps have the same key.",
    cause: "A step was declared twice, or appended to a run that has one of this key.",
    retry: "no",
    action: "Rename one of the steps that `details.stepKey` names.",
  },
  "workflow.invalid_dag_unknown_step_key": {
    message: "A dependency was declared for a step that is not there.",
    cause: "`afterSuccess` or `afterTerminal` named a step that was not declared before the call.",
    retry: "no",
    action: "Declare the step that `details.stepKey` names first.",
  },
  "workflow.invalid_dag_missing_dependency": {
    message: "A step waits for one that is not there.",
    cause: "A prerequisite was misspelt or never declared.",
    retry: "no",
    action: "Declare the step that `details.prerequisiteStepKey` names, or correct the key.",
  },
  "workflow.invalid_dag_self_dependency": {
    message: "A step waits for itself.",
    cause: "A step is among its own prerequisites.",
    retry: "no",
    action: "Remove the dependency of the step that `details.stepKey` names.",
  },
  "workflow.invalid_dag_duplicate_dependency": {
    message: "A step waits for another one twice.",
    cause: "The same prerequisite was given more than once, in one mode or in both.",
    retry: "no",
    action: "Keep one of the two dependencies.",
  },
  "workflow.invalid_dag_cycle": {
    message: "The steps of the workflow wait for each other in a circle.",
    cause: "Following prerequisites leads back to the same step.",
    retry: "no",
    action: "Remove one of the dependencies between `details.stepKeys`, which are told in order around the circle.",
  },
  "workflow.invalid_dag_unknown_result_step": {
    message: "The result step is not a step of the workflow.",
    cause: "The result step was misspelt or never declared.",
    retry: "no",
    action: "Name a declared step.",
  },
  "workflow.invalid_dag_step_max_attempts_non_positive": {
    message: "A step must be tried at least once.",
    cause: "`maxAttempts` of the step that `details.stepKey` names is zero or negative.",
    retry: "no",
    action: "Give 1 or more, or nothing.",
  },
  "workflow.invalid_dag_step_timeout_seconds_non_positive": {
    message: "The timeout of a step must be at least one second.",
    cause: "`timeoutSeconds` of the step that `details.stepKey` names is zero or negative.",
    retry: "no",
    action: "Give 1 or more, or nothing.",
  },
  "workflow.invalid_dag_setting_invalid": {
    message: "A setting of the workflow cannot be.",
    cause:
      "An organization that is not a UUID, a number that is not a 32-bit integer, an unknown stage, release mode or execution kind.",
    retry: "no",
    action: "Correct what `details.setting` names.",
  },
  "workflow.invalid_dag_unknown_field": {
    message: "The workflow has a field that is not known.",
    cause: "A misspelt field, which would have been lost in silence.",
    retry: "no",
    action: "Correct the field that `details.field` names.",
  },
  "workflow.invalid_dag_external_step_job_type_not_allowed": {
    message: "An external step has no job type.",
    cause: "A step of kind EXTERNAL was given a job type.",
    retry: "no",
    action: "Leave it out, or declare the step as a job.",
  },
  "workflow.invalid_dag_external_step_queue_settings_not_allowed": {
    message: "An external step has no settings of the queue.",
    cause: "A step of kind EXTERNAL was given a priority, attempts, a timeout in seconds, a stage or a continuation.",
    retry: "no",
    action: "Leave out what `details.setting` names; a gate has a `timeout` of its own.",
  },
  "workflow.invalid_dag_gate_timeout_invalid": {
    message: "The timeout of a gate cannot be.",
    cause:
      "It is not a positive whole number of milliseconds, its outcome is unknown, or it has an output without succeeding.",
    retry: "no",
    action: "Correct what `details.field` names.",
  },
  "workflow.invalid_dag_request_setting_not_allowed": {
    message: "The job request of a step asks for what the run decides.",
    cause: "The request has an idempotency key or a time to run at.",
    retry: "no",
    action: "Give the key to the run, and let prerequisites decide when the step starts.",
  },
  "workflow.invalid_dag_payload_invalid": {
    message: "The payload of a step is not JSON.",
    cause: "A cycle, BigInt, NaN, U+0000, a lone surrogate, too deep.",
    retry: "no",
    action: "Correct the value at `details.path`.",
  },
  "workflow.invalid_dag_metadata_invalid": {
    message: "The metadata of the workflow is not JSON.",
    cause: "A cycle, BigInt, NaN, U+0000, a lone surrogate, too deep.",
    retry: "no",
    action: "Correct the value at `details.path`.",
  },
  "workflow.definition_not_found_or_disabled": {
    cause: "The catalog was never synced to this database, or an operator disabled the type.",
    retry: "no",
    action: "Sync the catalog (`catalog.sync(db)`) or enable the definition; `details.jobTypes` names the types.",
  },
  "workflow.enqueue_conflicting_retry": {
    cause: "A run of the same type, organization and key was enqueued before with other content.",
    retry: "no",
    action: "Use another key, or send the original request; `details.fields` names what differs.",
  },
  "workflow.enqueue_idempotency_unsupported_isolation": {
    cause: "The caller's transaction is REPEATABLE READ or SERIALIZABLE and cannot see a concurrent equal enqueue.",
    retry: "no",
    action: "Enqueue in a READ COMMITTED transaction, or without a key.",
  },
  "workflow.unsupported_isolation": {
    cause:
      "The caller's transaction is REPEATABLE READ or SERIALIZABLE and cannot see what others just did to the run.",
    retry: "no",
    action: "Use a READ COMMITTED transaction.",
  },
  "workflow.run_not_found": {
    cause: "The id is unknown, the run was removed by retention, or it lies outside the given scope.",
    retry: "no",
    action: "Check the id and the scope.",
  },
  "workflow.step_not_found": {
    cause: "The run has no step of this key, or it lies outside the given scope.",
    retry: "no",
    action: "Check the run, the step key and the scope.",
  },
  "workflow.external_step_not_found": {
    cause: "The run has no step of this key.",
    retry: "no",
    action: "Check the run and the step key.",
  },
  "workflow.external_step_not_external": {
    cause: "A step that a job carries out was to be completed from outside.",
    retry: "no",
    action: "Name a step of kind EXTERNAL.",
  },
  "workflow.external_step_not_waiting": {
    cause: "Its prerequisites have not all ended.",
    retry: "yes",
    action: "Complete it once it is WAITING_FOR_EXTERNAL.",
  },
  "workflow.external_step_conflicting_completion_retry": {
    cause:
      "It ended before, by somebody else, by its timeout or with its run, and not with the same status, output and reason.",
    retry: "no",
    action: "Read the step: what it says stands.",
  },
  "workflow.append_mutation_key_blank": {
    cause: "Steps were appended with an empty or white mutation key.",
    retry: "no",
    action: "Give a key that stays the same when the call is repeated.",
  },
  "workflow.append_conflicting_retry": {
    cause: "The same key was used before on this run with other steps or another gate.",
    retry: "no",
    action: "Use another key, or send the original steps.",
  },
  "workflow.append_window_missing": {
    cause: "The run has no step of the key that was named as the window.",
    retry: "no",
    action: "Name a gate of the run.",
  },
  "workflow.append_window_not_external": {
    cause: "The step that was named as the window is carried out by a job.",
    retry: "no",
    action: "Name a step of kind EXTERNAL.",
  },
  "workflow.append_window_not_open": {
    cause: "It was not released yet, or it ended.",
    retry: "no",
    action: "Append while the gate is WAITING_FOR_EXTERNAL.",
  },
  "workflow.append_terminal_run": {
    cause: "The run succeeded, completed with errors or was cancelled.",
    retry: "no",
    action: "Enqueue a new run.",
  },
  "workflow.dependency_unsatisfied": {
    cause: "Stored reason of a CANCELED step: a prerequisite with the mode ON_SUCCESS failed or was cancelled.",
    retry: "no",
    action: "Look at the prerequisites; recover the run once their cause is mended.",
  },
  "workflow.gate_timed_out": {
    cause: "Stored reason of a gate: its timeout passed and its default outcome was taken.",
    retry: "no",
    action: "Nothing, if the default was meant; otherwise recover the run.",
  },
  "workflow.run_canceled": {
    cause: "Stored reason of steps and jobs that ended with their run, and abort reason of their handlers.",
    retry: "no",
    action: "Stop working.",
  },
  "workflow.recovery_source_not_terminal": {
    cause: "The source run still has steps to do.",
    retry: "no",
    action: "Wait until it ends, or cancel it.",
  },
  "workflow.recovery_request_conflict": {
    cause: "The same source run and key were used before in another mode or with another reason.",
    retry: "no",
    action: "Use another key, or send the original request.",
  },
  "workflow.recovery_nothing_to_resume": {
    cause: "A run that succeeded was to be resumed.",
    retry: "no",
    action: "Replay it, or leave it.",
  },
  "workflow.recovery_active_constraint": {
    cause: "The source run had an active key, and a run that has not ended holds it now.",
    retry: "yes",
    action: "Recover it once the other run has ended.",
  },
  "workflow.result_not_declared": {
    cause: "The result of a run was asked for that names no step for it.",
    retry: "no",
    action: "Name one with `resultStep` when the run is built.",
  },
  "workflow.result_missing": {
    cause: "Its result step succeeded without an output.",
    retry: "no",
    action: "Return an output from the handler of the result step, or complete the gate with one.",
  },
  "workflow.result_unsuccessful_terminal": {
    cause: "The run whose result was asked for was cancelled or completed with errors.",
    retry: "no",
    action: "Look at its steps; `details.status` tells how it ended.",
  },
  "workflow.result_wait_timeout": {
    cause: "The time to wait for its result passed.",
    retry: "yes",
    action: "Ask again; the run is not affected.",
  },
  "schema.missing": {
    cause: "`migrate` was never run on it.",
    retry: "no",
    action: "Run `migrate(db)` once, as the schema's owner.",
  },
  "schema.outdated": {
    cause: "Migrations are missing; `details.missing` names them.",
    retry: "no",
    action: "Run `migrate(db)`.",
  },
  "schema.newer": {
    cause: "A newer release migrated it, with a change that this release cannot work with.",
    retry: "no",
    action: "Upgrade the library; `details.newer` names the migrations it does not know.",
  },
  "schema.changed": {
    cause: "A migration file was edited after it was applied; `details.changed` names it.",
    retry: "no",
    action: "Find out who changed it. Applied migrations are never edited.",
  },
  "db.unsupported_driver": {
    cause:
      "It is no postgres.js, node-postgres or PGlite handle and has no `query` method, or its pool rewrites columns or values.",
    retry: "no",
    action: "Pass a supported handle, without `transform`, or `{ query(text, values) }`.",
  },
  "db.commit_unknown": {
    cause: "The database may or may not have committed.",
    retry: "unknown outcome",
    action: "Read the state, or repeat the call with the same idempotency key. Never take it for a failure.",
  },
  "db.unavailable": {
    cause:
      "No connection, one that broke, too many, a closed pool, no such database, or a server that starts or stops.",
    retry: "yes",
    action:
      "Check the connection string and that the pool is open; retry with backoff. A write may have been applied if the connection broke after it was sent.",
  },
  "db.unique_violation": {
    cause: "A unique constraint that has no code of its own.",
    retry: "no",
    action: "Read what is there.",
  },
  "db.related_resource_missing": {
    cause: "A foreign key, for example a log line for a job that retention removed.",
    retry: "no",
    action: "Check the ids.",
  },
  "db.related_resource_still_referenced": {
    cause: "A foreign key that forbids deletion.",
    retry: "no",
    action: "Remove what refers to it first.",
  },
  "db.business_rule_violation": {
    cause: "A CHECK constraint: the last line of defence behind this library's own validation.",
    retry: "no",
    action: "Look at `internalMessage` in the server's logs.",
  },
  "db.required_field_missing": {
    cause: "A NOT NULL constraint.",
    retry: "no",
    action: "Look at `internalMessage` in the server's logs.",
  },
  "db.permission_denied": {
    cause: "A wrong user or password, or a missing privilege; see the roles script.",
    retry: "no",
    action: "Check the user and password of the connection string; connect as a role with the privilege, or grant it.",
  },
  "db.lock_not_available": {
    cause: "`lock_timeout` passed, or a lock was asked for without waiting.",
    retry: "yes",
    action: "Retry; if it persists, look for long transactions.",
  },
  "db.serialization_failure": {
    cause: "A serialization failure or a deadlock; the transaction was rolled back whole.",
    retry: "yes",
    action: "Retry the whole transaction.",
  },
  "db.query_canceled": {
    cause: "`statement_timeout`, or somebody cancelled it.",
    retry: "yes",
    action: "Retry; if it persists, raise the timeout or look for what blocks.",
  },
  "db.query_failed": {
    cause: "Any other database error.",
    retry: "no",
    action: "Look at `internalMessage` in the server's logs.",
  },
  "db.unexpected_result": {
    cause: "A column is missing or holds an unknown value: a driver that rewrites results, or a newer schema.",
    retry: "no",
    action: "Check the driver's options and `ensureSchemaCompatible(db)`.",
  },
};

/** Every {@linkcode RunledgerErrorCode}. */
export const ERROR_CODES: readonly RunledgerErrorCode[] = /* @__PURE__ */ listCodes();

/** The catalogue: one entry for each {@linkcode RunledgerErrorCode}. */
export const ERROR_CATALOGUE: Readonly<Record<RunledgerErrorCode, ErrorCatalogueEntry>> = /* @__PURE__ */ joinEntries();

function listCodes(): readonly RunledgerErrorCode[] {
  return Object.keys(EXPLANATIONS) as RunledgerErrorCode[];
}

function joinEntries(): Readonly<Record<RunledgerErrorCode, ErrorCatalogueEntry>> {
  const entries = listCodes().map((code) => [code, { ...errorSummary(code), ...EXPLANATIONS[code] }]);
  return Object.fromEntries(entries) as Record<RunledgerErrorCode, ErrorCatalogueEntry>;
}
