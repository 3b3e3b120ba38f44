/**
 * Every stable error code, with its category, cause, and what to do about it. `docs/errors.md` is made from this table.
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

/** What the catalogue says about one code. */
export interface ErrorCatalogueEntry {
  /** The coarse kind of problem. */
  readonly category: RunledgerErrorCategory;
  /** The client-safe text when the thrower gives none. */
  readonly message: string;
  /** What leads to it. */
  readonly cause: string;
  /** Whether the same call may succeed when it is made again. */
  readonly retry: "no" | "yes" | "unknown outcome";
  /** What to do about it. */
  readonly action: string;
}

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

/** The catalogue: one entry for each {@linkcode RunledgerErrorCode}. */
export const ERROR_CATALOGUE: Readonly<Record<RunledgerErrorCode, ErrorCatalogueEntry>> = {
  "job.invalid_request": {
    category: "validation",
    message: "The job request has a field that cannot be.",
    cause:
      "A blank job type or key, a key over 512 bytes, a number that is not a positive integer, an unknown stage, an organization that is not a UUID.",
    retry: "no",
    action: "Correct the field that `details.field` names.",
  },
  "job.invalid_payload": {
    category: "validation",
    message: "The payload is not acceptable.",
    cause:
      "It is not JSON (a cycle, BigInt, NaN, U+0000, a lone surrogate, too deep), or the job's schema refuses it. As a stored failure: the handler's schema refused what was enqueued.",
    retry: "no",
    action: "Correct the value at `details.path`; for stored jobs, deploy a handler that accepts it and requeue.",
  },
  "job.invalid_output": {
    category: "validation",
    message: "The handler's output is not acceptable.",
    cause: "A handler returned something that is not JSON, is too large, or that the job's output schema refuses.",
    retry: "no",
    action: "Correct the handler; the job was dead-lettered as PANICKED and can be requeued.",
  },
  "job.invalid_definition": {
    category: "validation",
    message: "The job definition has a field that cannot be.",
    cause: "A blank type, a non-positive version, attempts or timeout, or a priority that is not a 32-bit integer.",
    retry: "no",
    action: "Correct the field that `details.field` names.",
  },
  "job.invalid_outcome": {
    category: "validation",
    message: "The outcome of the attempt has a field that cannot be.",
    cause: "A negative or unrepresentable delay, a blank failure code, or an unknown kind of outcome.",
    retry: "no",
    action: "Correct the field that `details.field` names.",
  },
  "job.invalid_progress": {
    category: "validation",
    message: "Progress must satisfy 0 <= done <= total.",
    cause: "Progress was negative, not an integer, or beyond its total, by itself or together with what is stored.",
    retry: "no",
    action: "Report whole numbers with done at most total.",
  },
  "job.invalid_lease_duration": {
    category: "validation",
    message: "A lease must last a positive whole number of milliseconds.",
    cause: "`leaseMs` was zero, negative, fractional or over a day.",
    retry: "no",
    action: "Give 1 to 86,400,000 milliseconds.",
  },
  "job.invalid_pagination": {
    category: "validation",
    message: "The page asked for cannot be.",
    cause: "A limit outside 1 to 1000, or a cursor that this function did not give.",
    retry: "no",
    action: "Ask for 1 to 1000 rows and pass cursors on unchanged.",
  },
  "job.definition_not_found_or_disabled": {
    category: "validation",
    message: "There is no enabled definition of this job type.",
    cause: "The catalog was never synced to this database, or an operator disabled the type.",
    retry: "no",
    action: "Sync the catalog (`catalog.sync(db)`) or enable the definition; `details.jobTypes` names the types.",
  },
  "job.definition_not_found": {
    category: "not_found",
    message: "There is no definition of this job type.",
    cause: "A definition was addressed that was never stored.",
    retry: "no",
    action: "Store the definition first.",
  },
  "job.runtime_config_not_found": {
    category: "not_found",
    message: "There is no runtime configuration for this job type.",
    cause: "A required runtime configuration was never stored.",
    retry: "no",
    action: "Store it with `upsertJobRuntimeConfig`.",
  },
  "job.not_found": {
    category: "not_found",
    message: "There is no such job.",
    cause: "The id is unknown, the job was removed by retention, or it lies outside the given scope.",
    retry: "no",
    action: "Check the id and the scope.",
  },
  "job.idempotency_conflict": {
    category: "conflict",
    message: "This idempotency key was used for a different request.",
    cause: "A job of the same type, scope and key was enqueued before with other content.",
    retry: "no",
    action: "Use another key, or send the original request; `details.fields` names what differs.",
  },
  "job.enqueue_idempotency_unsupported_isolation": {
    category: "validation",
    message: "Enqueueing with an idempotency key needs READ COMMITTED isolation.",
    cause: "The caller's transaction is REPEATABLE READ or SERIALIZABLE and cannot see a concurrent equal enqueue.",
    retry: "no",
    action: "Enqueue in a READ COMMITTED transaction, or without a key.",
  },
  "job.lease_owner_mismatch": {
    category: "forbidden",
    message: "The lease on this job is no longer held.",
    cause: "The lease expired, or the job was reclaimed, cancelled or settled meanwhile. There is no grace period.",
    retry: "no",
    action: "Stop working on the job; whoever holds it now goes on.",
  },
  "job.unstarted_claim_release_not_applicable": {
    category: "validation",
    message: "This claim cannot be handed back as unstarted.",
    cause: "The claim already reported progress, or it is not the newest of its job.",
    retry: "no",
    action: "Settle the attempt instead, or let its lease expire.",
  },
  "job.invalid_state_transition": {
    category: "conflict",
    message: "The job is not in a status that allows this.",
    cause: "For example cancelling a job that already ended.",
    retry: "no",
    action: "Read the job's status; `details.status` tells it.",
  },
  "job.workflow_requeue_not_supported": {
    category: "validation",
    message: "A job of a workflow step cannot be requeued or replayed by itself.",
    cause: "Its run has already acted on how it ended.",
    retry: "no",
    action: "Recover the workflow run.",
  },
  "job.workflow_handler_continuation_not_enabled": {
    category: "validation",
    message: "This workflow step does not allow its handler to continue.",
    cause: "A handler ended a slice with a continuation, but its step was not declared to allow it.",
    retry: "no",
    action: "Declare the step with `allowsContinuation`, or finish the work in one attempt.",
  },
  "job.replay_idempotency_conflict": {
    category: "conflict",
    message: "This replay key was used for a different replay of the job.",
    cause: "The same source job and replay key were used before with another reason.",
    retry: "no",
    action: "Use another replay key.",
  },
  "job.handler_threw": {
    category: "internal",
    message: "The handler threw.",
    cause: "Stored failure: a handler threw something other than a JobFailure. Retried while attempts remain.",
    retry: "yes",
    action: "Read the stored message and stack; throw a JobFailure for failures that are expected.",
  },
  "job.handler_panic": {
    category: "internal",
    message: "The handler broke its contract.",
    cause: "Stored failure: no valid completion came back. Never retried.",
    retry: "no",
    action: "Correct the handler and requeue the dead letter.",
  },
  "job.handler_not_registered": {
    category: "internal",
    message: "No handler is registered for this job type.",
    cause: "Stored failure: a worker was given a job whose type its catalog does not know.",
    retry: "no",
    action: "Register a handler and requeue the dead letter.",
  },
  "job.timeout_exceeded": {
    category: "unavailable",
    message: "The attempt ran longer than its timeout.",
    cause: "Stored failure and abort reason: `timeoutSeconds` of the job passed. Retried while attempts remain.",
    retry: "yes",
    action: "Heed `context.signal`, make the work smaller, or raise the timeout.",
  },
  "job.lease_expired": {
    category: "unavailable",
    message: "The lease expired before the attempt was settled.",
    cause: "Stored failure: the worker crashed, hung, or lost the database for longer than its lease.",
    retry: "yes",
    action: "Nothing for single cases; for many, look for crashes, blocked event loops or a lease that is too short.",
  },
  "job.canceled": {
    category: "conflict",
    message: "The job was cancelled.",
    cause: "Abort reason of a running handler whose job was cancelled.",
    retry: "no",
    action: "Stop working.",
  },
  "worker.shutdown": {
    category: "unavailable",
    message: "The worker is shutting down.",
    cause: "Abort reason of a handler that was still running at the shutdown deadline.",
    retry: "yes",
    action: "Stop working; the attempt is retried elsewhere.",
  },
  "job_definition.active_schedule_exists": {
    category: "conflict",
    message: "An active schedule uses this job type.",
    cause: "A definition cannot be disabled while schedules would go on firing into it.",
    retry: "no",
    action: "Pause the schedules that `details.schedules` names first.",
  },
  "schema.missing": {
    category: "unavailable",
    message: "This database has no Runledger schema.",
    cause: "`migrate` was never run on it.",
    retry: "no",
    action: "Run `migrate(db)` once, as the schema's owner.",
  },
  "schema.outdated": {
    category: "unavailable",
    message: "The Runledger schema of this database is older than this library.",
    cause: "Migrations are missing; `details.missing` names them.",
    retry: "no",
    action: "Run `migrate(db)`.",
  },
  "schema.newer": {
    category: "unavailable",
    message: "The Runledger schema of this database is newer than this library can use.",
    cause: "A newer release migrated it, with a change that this release cannot work with.",
    retry: "no",
    action: "Upgrade the library; `details.newer` names the migrations it does not know.",
  },
  "schema.changed": {
    category: "conflict",
    message: "A migration of this database differs from the one in this library.",
    cause: "A migration file was edited after it was applied; `details.changed` names it.",
    retry: "no",
    action: "Find out who changed it. Applied migrations are never edited.",
  },
  "db.unsupported_driver": {
    category: "validation",
    message: "This is not a database handle that Runledger can use.",
    cause:
      "It is no postgres.js, node-postgres or PGlite handle and has no `query` method, or its pool rewrites columns or values.",
    retry: "no",
    action: "Pass a supported handle, without `transform`, or `{ query(text, values) }`.",
  },
  "db.commit_unknown": {
    category: "unavailable",
    message: "The connection was lost while committing: the outcome is not known.",
    cause: "The database may or may not have committed.",
    retry: "unknown outcome",
    action: "Read the state, or repeat the call with the same idempotency key. Never take it for a failure.",
  },
  "db.unavailable": {
    category: "unavailable",
    message: "The database could not be reached.",
    cause: "No connection, a connection that broke, too many connections, or a server that is starting or stopping.",
    retry: "yes",
    action: "Retry with backoff. A write may have been applied if the connection broke after it was sent.",
  },
  "db.unique_violation": {
    category: "conflict",
    message: "Such a row is already there.",
    cause: "A unique constraint that has no code of its own.",
    retry: "no",
    action: "Read what is there.",
  },
  "db.related_resource_missing": {
    category: "validation",
    message: "Something that this refers to is not there.",
    cause: "A foreign key, for example a log line for a job that retention removed.",
    retry: "no",
    action: "Check the ids.",
  },
  "db.related_resource_still_referenced": {
    category: "conflict",
    message: "Something still refers to this.",
    cause: "A foreign key that forbids deletion.",
    retry: "no",
    action: "Remove what refers to it first.",
  },
  "db.business_rule_violation": {
    category: "validation",
    message: "The database refused a value.",
    cause: "A CHECK constraint: the last line of defence behind this library's own validation.",
    retry: "no",
    action: "Look at `internalMessage` in the server's logs.",
  },
  "db.required_field_missing": {
    category: "validation",
    message: "A required value is missing.",
    cause: "A NOT NULL constraint.",
    retry: "no",
    action: "Look at `internalMessage` in the server's logs.",
  },
  "db.permission_denied": {
    category: "forbidden",
    message: "The database role may not do this.",
    cause: "A missing privilege; see the roles script.",
    retry: "no",
    action: "Connect as a role with the privilege, or grant it.",
  },
  "db.lock_not_available": {
    category: "unavailable",
    message: "A lock was not available in time.",
    cause: "`lock_timeout` passed, or a lock was asked for without waiting.",
    retry: "yes",
    action: "Retry; if it persists, look for long transactions.",
  },
  "db.serialization_failure": {
    category: "unavailable",
    message: "The transaction collided with another one.",
    cause: "A serialization failure or a deadlock; the transaction was rolled back whole.",
    retry: "yes",
    action: "Retry the whole transaction.",
  },
  "db.query_canceled": {
    category: "unavailable",
    message: "The statement was cancelled.",
    cause: "`statement_timeout`, or somebody cancelled it.",
    retry: "yes",
    action: "Retry; if it persists, raise the timeout or look for what blocks.",
  },
  "db.query_failed": {
    category: "internal",
    message: "The database refused the statement.",
    cause: "Any other database error.",
    retry: "no",
    action: "Look at `internalMessage` in the server's logs.",
  },
  "db.unexpected_result": {
    category: "internal",
    message: "The database answered in a way that this library does not understand.",
    cause: "A column is missing or holds an unknown value: a driver that rewrites results, or a newer schema.",
    retry: "no",
    action: "Check the driver's options and `ensureSchemaCompatible(db)`.",
  },
};

/** Every {@linkcode RunledgerErrorCode}. */
export const ERROR_CODES: readonly RunledgerErrorCode[] = Object.keys(
  ERROR_CATALOGUE,
) as RunledgerErrorCode[];
