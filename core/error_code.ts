/**
 * Every stable error code, with what an error of it says. This is what each program carries; what leads to an error and what
 * to do about it is in `error_catalogue.ts`, which a bundler leaves out unless it is asked for.
 *
 * @module
 */

/**
 * The coarse kind of problem.
 *
 * - `validation`: the caller asked for something that cannot be; a retry of the same call fails again.
 * - `conflict`: it contradicts what is already there.
 * - `forbidden`: the caller does not hold what it needs, such as a live lease or a database privilege.
 * - `not_found`: there is no such thing in the given scope.
 * - `unavailable`: the database could not answer now; a retry may help.
 * - `internal`: a defect, here or in the data.
 */
export type RunledgerErrorCategory = "validation" | "conflict" | "forbidden" | "not_found" | "unavailable" | "internal";

/** Every stable code that a {@linkcode RunledgerError} or a stored failure can carry. */
export type RunledgerErrorCode =
  | "job.invalid_request"
  | "job.invalid_payload"
  | "job.invalid_output"
  | "job.invalid_definition"
  | "job.invalid_outcome"
  | "job.invalid_progress"
  | "job.invalid_lease_duration"
  | "job.invalid_pagination"
  | "job.definition_not_found_or_disabled"
  | "job.definition_not_found"
  | "job.runtime_config_not_found"
  | "job.not_found"
  | "job.idempotency_conflict"
  | "job.enqueue_idempotency_unsupported_isolation"
  | "job.lease_owner_mismatch"
  | "job.unstarted_claim_release_not_applicable"
  | "job.invalid_state_transition"
  | "job.workflow_requeue_not_supported"
  | "job.workflow_edit_not_supported"
  | "job.workflow_handler_continuation_not_enabled"
  | "job.replay_idempotency_conflict"
  | "job.handler_threw"
  | "job.handler_panic"
  | "job.handler_not_registered"
  | "job.timeout_exceeded"
  | "job.lease_expired"
  | "job.canceled"
  | "worker.shutdown"
  | "job_definition.active_schedule_exists"
  | "job_schedule.invalid_name"
  | "job_schedule.invalid_cron"
  | "job_schedule.invalid_timezone"
  | "job_schedule.invalid_jitter"
  | "job_schedule.not_found"
  | "job_schedule.definition_not_found_or_disabled"
  | "workflow.invalid_dag_empty"
  | "workflow.invalid_dag_workflow_type_blank"
  | "workflow.invalid_dag_step_key_blank"
  | "workflow.invalid_dag_job_type_blank"
  | "workflow.invalid_dag_idempotency_key_blank"
  | "workflow.invalid_dag_active_key_blank"
  | "workflow.invalid_dag_result_step_key_blank"
  | "workflow.invalid_dag_dependency_step_key_blank"
  | "workflow.invalid_dag_name_too_long"
  | "workflow.invalid_dag_name_invalid"
  | "workflow.invalid_dag_duplicate_step_key"
  | "workflow.invalid_dag_unknown_step_key"
  | "workflow.invalid_dag_missing_dependency"
  | "workflow.invalid_dag_self_dependency"
  | "workflow.invalid_dag_duplicate_dependency"
  | "workflow.invalid_dag_cycle"
  | "workflow.invalid_dag_unknown_result_step"
  | "workflow.invalid_dag_step_max_attempts_non_positive"
  | "workflow.invalid_dag_step_timeout_seconds_non_positive"
  | "workflow.invalid_dag_setting_invalid"
  | "workflow.invalid_dag_unknown_field"
  | "workflow.invalid_dag_external_step_job_type_not_allowed"
  | "workflow.invalid_dag_external_step_queue_settings_not_allowed"
  | "workflow.invalid_dag_gate_timeout_invalid"
  | "workflow.invalid_dag_request_setting_not_allowed"
  | "workflow.invalid_dag_payload_invalid"
  | "workflow.invalid_dag_metadata_invalid"
  | "workflow.definition_not_found_or_disabled"
  | "workflow.enqueue_conflicting_retry"
  | "workflow.enqueue_idempotency_unsupported_isolation"
  | "workflow.unsupported_isolation"
  | "workflow.run_not_found"
  | "workflow.step_not_found"
  | "workflow.external_step_not_found"
  | "workflow.external_step_not_external"
  | "workflow.external_step_not_waiting"
  | "workflow.external_step_conflicting_completion_retry"
  | "workflow.append_mutation_key_blank"
  | "workflow.append_conflicting_retry"
  | "workflow.append_window_missing"
  | "workflow.append_window_not_external"
  | "workflow.append_window_not_open"
  | "workflow.append_terminal_run"
  | "workflow.dependency_unsatisfied"
  | "workflow.gate_timed_out"
  | "workflow.run_canceled"
  | "workflow.recovery_source_not_terminal"
  | "workflow.recovery_request_conflict"
  | "workflow.recovery_nothing_to_resume"
  | "workflow.recovery_active_constraint"
  | "workflow.result_not_declared"
  | "workflow.result_missing"
  | "workflow.result_unsuccessful_terminal"
  | "workflow.result_wait_timeout"
  | "schema.missing"
  | "schema.outdated"
  | "schema.newer"
  | "schema.changed"
  | "db.unsupported_driver"
  | "db.commit_unknown"
  | "db.unavailable"
  | "db.unique_violation"
  | "db.related_resource_missing"
  | "db.related_resource_still_referenced"
  | "db.business_rule_violation"
  | "db.required_field_missing"
  | "db.permission_denied"
  | "db.lock_not_available"
  | "db.serialization_failure"
  | "db.query_canceled"
  | "db.query_failed"
  | "db.unexpected_result";

/** A code of what is wrong with a workflow that is built: {@linkcode WorkflowBuildError} finds the words, and all are `validation`. */
export type WorkflowBuildErrorCode = Extract<RunledgerErrorCode, `workflow.invalid_dag_${string}`>;

/** What an error says by itself. */
export interface ErrorSummary {
  /** The coarse kind of problem. */
  readonly category: RunledgerErrorCategory;
  /** The client-safe text when the thrower gives none. */
  readonly message: string;
}

/**
 * Gives the summary of a code.
 *
 * @param code The code.
 * @returns Its category, and what it says when the thrower does not.
 */
export function errorSummary(code: RunledgerErrorCode): ErrorSummary {
  const [category, message] = isBuildCode(code) ? BUILD : SUMMARIES[code];
  return { category, message };
}

/**
 * Says whether a text is one of the codes; those of workflows that cannot be are known by their beginning.
 *
 * @param text Any text.
 * @returns Whether it is.
 */
export function isErrorCode(text: string): text is RunledgerErrorCode {
  return Object.hasOwn(SUMMARIES, text) || isBuildCode(text);
}

function isBuildCode(text: string): text is WorkflowBuildErrorCode {
  return text.startsWith("workflow.invalid_dag_");
}

type Summary = readonly [category: RunledgerErrorCategory, message: string];

const BUILD: Summary = ["validation", "The workflow cannot be."];

// Pairs, not records: names of fields would be a third of what each program carries here.
const SUMMARIES: Readonly<Record<Exclude<RunledgerErrorCode, WorkflowBuildErrorCode>, Summary>> = {
  "job.invalid_request": ["validation", "The job request has a field that cannot be."],
  "job.invalid_payload": ["validation", "The payload is not acceptable."],
  "job.invalid_output": ["validation", "The handler's output is not acceptable."],
  "job.invalid_definition": ["validation", "The job definition has a field that cannot be."],
  "job.invalid_outcome": ["validation", "The outcome of the attempt has a field that cannot be."],
  "job.invalid_progress": ["validation", "Progress must satisfy 0 <= done <= total."],
  "job.invalid_lease_duration": ["validation", "A lease must last a positive whole number of milliseconds."],
  "job.invalid_pagination": ["validation", "The page asked for cannot be."],
  "job.definition_not_found_or_disabled": [
    "validation",
    "There is no enabled definition of this job type: sync the catalog, or enable the type.",
  ],
  "job.definition_not_found": ["not_found", "There is no definition of this job type."],
  "job.runtime_config_not_found": ["not_found", "There is no runtime configuration for this job type."],
  "job.not_found": ["not_found", "There is no such job."],
  "job.idempotency_conflict": ["conflict", "This idempotency key was used for a different request."],
  "job.enqueue_idempotency_unsupported_isolation": [
    "validation",
    "Enqueueing with an idempotency key needs READ COMMITTED isolation.",
  ],
  "job.lease_owner_mismatch": ["forbidden", "The lease on this job is no longer held."],
  "job.unstarted_claim_release_not_applicable": ["validation", "This claim cannot be handed back as unstarted."],
  "job.invalid_state_transition": ["conflict", "The job is not in a status that allows this."],
  "job.workflow_requeue_not_supported": [
    "validation",
    "A job of a workflow step cannot be requeued or replayed by itself.",
  ],
  "job.workflow_edit_not_supported": ["validation", "The payload of a workflow step cannot be edited."],
  "job.workflow_handler_continuation_not_enabled": [
    "validation",
    "This workflow step does not allow its handler to continue.",
  ],
  "job.replay_idempotency_conflict": ["conflict", "This replay key was used for a different replay of the job."],
  "job.handler_threw": ["internal", "The handler threw."],
  "job.handler_panic": ["internal", "The handler broke its contract."],
  "job.handler_not_registered": ["internal", "No handler is registered for this job type."],
  "job.timeout_exceeded": ["unavailable", "The attempt ran longer than its timeout."],
  "job.lease_expired": ["unavailable", "The lease expired before the attempt was settled."],
  "job.canceled": ["conflict", "The job was cancelled."],
  "worker.shutdown": ["unavailable", "The worker is shutting down."],
  "job_definition.active_schedule_exists": ["conflict", "An active schedule uses this job type."],
  "job_schedule.invalid_name": ["validation", "The name of a schedule must be text without white space around it."],
  "job_schedule.invalid_cron": ["validation", "The cron expression cannot be used."],
  "job_schedule.invalid_timezone": [
    "validation",
    "The time zone of a schedule must be an IANA name, such as Europe/Berlin.",
  ],
  "job_schedule.invalid_jitter": [
    "validation",
    "The jitter of a schedule must be a whole number of seconds from 0 to 86400.",
  ],
  "job_schedule.not_found": ["not_found", "There is no such schedule."],
  "job_schedule.definition_not_found_or_disabled": [
    "conflict",
    "The schedule's job type is not defined, or it is disabled.",
  ],
  "workflow.definition_not_found_or_disabled": [
    "validation",
    "There is no enabled definition of a job type that the workflow uses: sync the catalog, or enable the type.",
  ],
  "workflow.enqueue_conflicting_retry": ["conflict", "This idempotency key was used for a different workflow run."],
  "workflow.enqueue_idempotency_unsupported_isolation": [
    "validation",
    "Enqueueing a workflow with an idempotency or active key needs READ COMMITTED isolation.",
  ],
  "workflow.unsupported_isolation": ["validation", "Changing a workflow run needs READ COMMITTED isolation."],
  "workflow.run_not_found": ["not_found", "There is no such workflow run."],
  "workflow.step_not_found": ["not_found", "There is no such workflow step."],
  "workflow.external_step_not_found": ["not_found", "There is no such gate."],
  "workflow.external_step_not_external": ["validation", "This step is not a gate."],
  "workflow.external_step_not_waiting": ["conflict", "This gate is not open yet."],
  "workflow.external_step_conflicting_completion_retry": ["conflict", "This gate was completed in a different way."],
  "workflow.append_mutation_key_blank": ["validation", "The mutation key must not be blank."],
  "workflow.append_conflicting_retry": ["conflict", "This mutation key was used for a different append."],
  "workflow.append_window_missing": ["not_found", "There is no such gate to append at."],
  "workflow.append_window_not_external": ["validation", "Steps can be appended only while a gate is open."],
  "workflow.append_window_not_open": ["conflict", "The gate to append at is not open."],
  "workflow.append_terminal_run": ["conflict", "Nothing can be appended to a run that ended."],
  "workflow.dependency_unsatisfied": ["conflict", "A step that this one needed did not succeed."],
  "workflow.gate_timed_out": ["unavailable", "Nobody completed the gate in time."],
  "workflow.run_canceled": ["conflict", "The workflow run was cancelled."],
  "workflow.recovery_source_not_terminal": ["conflict", "A run that has not ended cannot be recovered."],
  "workflow.recovery_request_conflict": ["conflict", "This recovery key was used for a different recovery of the run."],
  "workflow.recovery_nothing_to_resume": ["conflict", "This run has no step to resume from."],
  "workflow.recovery_active_constraint": ["conflict", "Another run holds the active key of this one."],
  "workflow.result_not_declared": ["validation", "The workflow run has no result step."],
  "workflow.result_missing": ["not_found", "The workflow run succeeded without a result."],
  "workflow.result_unsuccessful_terminal": ["conflict", "The workflow run ended without success."],
  "workflow.result_wait_timeout": ["unavailable", "The workflow run has not ended yet."],
  "schema.missing": ["unavailable", "This database has no Runledger schema: run migrate(db)."],
  "schema.outdated": [
    "unavailable",
    "The Runledger schema of this database is older than this library: run migrate(db).",
  ],
  "schema.newer": ["unavailable", "The Runledger schema of this database is newer than this library can use."],
  "schema.changed": ["conflict", "A migration of this database differs from the one in this library."],
  "db.unsupported_driver": ["validation", "This is not a database handle that Runledger can use."],
  "db.commit_unknown": ["unavailable", "The connection was lost while committing: the outcome is not known."],
  "db.unavailable": [
    "unavailable",
    "The database could not be reached: check that the server runs, the connection string is right and the pool is open.",
  ],
  "db.unique_violation": ["conflict", "Such a row is already there."],
  "db.related_resource_missing": ["validation", "Something that this refers to is not there."],
  "db.related_resource_still_referenced": ["conflict", "Something still refers to this."],
  "db.business_rule_violation": ["validation", "The database refused a value."],
  "db.required_field_missing": ["validation", "A required value is missing."],
  "db.permission_denied": [
    "forbidden",
    "The database refuses this role: the password may be wrong, or a privilege may be missing.",
  ],
  "db.lock_not_available": ["unavailable", "A lock was not available in time."],
  "db.serialization_failure": ["unavailable", "The transaction collided with another one."],
  "db.query_canceled": ["unavailable", "The statement was cancelled."],
  "db.query_failed": ["internal", "The database refused the statement."],
  "db.unexpected_result": ["internal", "The database answered in a way that this library does not understand."],
};
