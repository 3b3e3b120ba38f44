/**
 * Driver errors become {@linkcode RunledgerError}s here, and only here: one table for SQLSTATEs, one for constraints.
 *
 * @module
 */

import { isErrorCode, isRunledgerError, RunledgerError } from "@runledger/core";
import type { RunledgerErrorCode, RunledgerErrorDetail } from "@runledger/core";

/** What was being done when a driver error was caught. */
export interface DatabaseErrorContext {
  /** The text of the statement, if there was one. */
  readonly statement?: string;
  /** Whether a connection lost now leaves open if the work was applied: COMMIT, or a write outside a transaction. */
  readonly isOutcomeOpen?: boolean;
}

/** Codes of SQLSTATEs; a key of two characters stands for the rest of its class. */
const SQLSTATE_CODES: Readonly<Record<string, RunledgerErrorCode>> = {
  "08": "db.unavailable",
  "23001": "db.related_resource_still_referenced",
  "23502": "db.required_field_missing",
  "23503": "db.related_resource_missing",
  "23505": "db.unique_violation",
  "23514": "db.business_rule_violation",
  "25P03": "db.unavailable", // idle_in_transaction_session_timeout ends the session
  "25P04": "db.unavailable", // so does transaction_timeout (PostgreSQL 17)
  "28": "db.permission_denied",
  "3D000": "db.unavailable",
  "40001": "db.serialization_failure",
  "40003": "db.commit_unknown",
  "40P01": "db.serialization_failure",
  "42501": "db.permission_denied",
  "53300": "db.unavailable",
  "55P03": "db.lock_not_available",
  "57014": "db.query_canceled",
  "57P01": "db.unavailable",
  "57P02": "db.unavailable",
  "57P03": "db.unavailable",
};

/** Codes of single constraints; whoever adds a constraint with a meaning of its own adds it here. */
const CONSTRAINT_CODES: Readonly<Record<string, RunledgerErrorCode>> = {
  job_dead_letters_job_fkey: "job.not_found",
  job_definitions_job_type_check: "job.invalid_definition",
  job_definitions_max_attempts_check: "job.invalid_definition",
  job_definitions_timeout_seconds_check: "job.invalid_definition",
  job_definitions_version_check: "job.invalid_definition",
  job_logs_job_fkey: "job.not_found",
  job_logs_level_check: "job.invalid_request",
  job_logs_message_check: "job.invalid_request",
  job_queue_idempotency_check: "job.invalid_request",
  job_queue_idempotency_unique: "job.idempotency_conflict",
  job_queue_progress_check: "job.invalid_progress",
  job_queue_replay_unique: "job.replay_idempotency_conflict",
  job_queue_transition_check: "job.invalid_state_transition",
  job_runtime_configs_config_check: "job.invalid_request",
  job_runtime_configs_job_type_fkey: "job.definition_not_found",
  job_runtime_configs_schema_version_check: "job.invalid_request",
  job_schedules_cron_expression_check: "job_schedule.invalid_cron",
  job_schedules_enabled_definition_fkey: "job_schedule.definition_not_found_or_disabled",
  job_schedules_job_type_fkey: "job_schedule.definition_not_found_or_disabled",
  job_schedules_max_jitter_seconds_check: "job_schedule.invalid_jitter",
  job_schedules_name_check: "job_schedule.invalid_name",
  job_schedules_timezone_check: "job_schedule.invalid_timezone",
  workflow_run_mutations_pkey: "workflow.append_conflicting_retry",
  workflow_runs_active_unique: "workflow.recovery_active_constraint",
  workflow_runs_idempotency_unique: "workflow.enqueue_conflicting_retry",
  workflow_runs_recovery_unique: "workflow.recovery_request_conflict",
  workflow_step_dependencies_pkey: "workflow.invalid_dag_duplicate_dependency",
  workflow_step_dependencies_self_check: "workflow.invalid_dag_self_dependency",
  workflow_steps_key_unique: "workflow.invalid_dag_duplicate_step_key",
};

/** SQLSTATEs that a functions of this schema raises: the message is one of our codes, the detail client-safe JSON. */
const RAISED_BY_RUNLEDGER = "RL000";

/** SQLSTATEs that a server gives before it has taken a statement, even when the connection is then closed. */
const NOTHING_SENT_SQLSTATES: ReadonlySet<string> = new Set(["08001", "08004", "3D000", "53300", "57P03"]);

/** Codes of sockets, of postgres.js and of Prisma that mean: no connection or transaction, and nothing was sent or kept. */
const NOTHING_SENT_CODES: ReadonlySet<string> = new Set([
  "CONNECT_TIMEOUT",
  "CONNECTION_ENDED",
  "DatabaseNotReachable",
  "EAI_AGAIN",
  "ECONNREFUSED",
  "ENOTFOUND",
  "P2028", // an interactive transaction that ran out of its time, or found no connection in time
]);

const LOST_CODE =
  /^(?:CONNECTION_(?:CLOSED|DESTROYED)|ConnectionClosed|SocketTimeout|ECONN[A-Z]+|EPIPE|ETIMEDOUT|EHOSTUNREACH|EHOSTDOWN|ENETUNREACH|ENETDOWN)$/;

// node-postgres and PGlite give these without any code; the texts are those of pg 8.23, pg-pool 3.14 and PGlite 0.5.
const NOTHING_SENT_TEXT =
  /^(?:timeout (?:expired|exceeded)|Connection terminated due to connection timeout|Cannot use a pool after|Client (?:was closed|has encountered a connection error)|PGlite is clos)/i;
const LOST_TEXT = /^(?:Connection terminated|Query read timeout)/i;

/** The parts of a driver's error that are used, whichever driver it is. */
interface DriverError {
  readonly code: string | undefined;
  readonly constraint: string | undefined;
  readonly detail: string | undefined;
  readonly message: string;
  readonly syscall: string | undefined;
}

function textOf(value: unknown): string | undefined {
  return typeof value === "string" ? value : undefined;
}

function readDriverError(error: unknown): DriverError {
  const fields = fieldsOf(unwrapped(error));
  if (fields === undefined) {
    return { code: undefined, constraint: undefined, detail: undefined, message: String(error), syscall: undefined };
  }
  const message = textOf(fields.originalMessage) ?? textOf(fields.message) ?? "";
  return {
    code: textOf(fields.originalCode) ?? textOf(fields.code) ?? textOf(fields.kind),
    // postgres.js; node-postgres and PGlite; Prisma, which keeps the name of a check only in the text
    constraint: textOf(fields.constraint_name) ?? textOf(fields.constraint) ??
      textOf(fieldsOf(fields.constraint)?.index) ??
      (fields.originalCode === undefined ? undefined : / constraint "([^"]+)"/.exec(message)?.[1]),
    detail: textOf(fields.detail),
    message,
    syscall: textOf(fields.syscall),
  };
}

/**
 * What the driver threw, where an ORM wrapped it: Drizzle keeps it as `cause` of an error whose text quotes the
 * statement's values, Prisma's adapters what they read of it in `meta`.
 */
function unwrapped(error: unknown): unknown {
  const fields = fieldsOf(error);
  if (fields === undefined) return error;
  const adapterError = fieldsOf(fieldsOf(fields.meta)?.driverAdapterError) ?? fields;
  if (fieldsOf(adapterError.cause)?.kind !== undefined) return adapterError.cause;
  const isDrizzles = fields.code === undefined && typeof fields.query === "string" && Array.isArray(fields.params);
  return isDrizzles && fields.cause !== undefined ? fields.cause : error;
}

function fieldsOf(value: unknown): Readonly<Record<string, unknown>> | undefined {
  return typeof value === "object" && value !== null ? value as Readonly<Record<string, unknown>> : undefined;
}

function isSqlState(code: string | undefined): code is string {
  // EPIPE is the one error code of sockets that has the form of an SQLSTATE; Prisma's own begin with P and a digit.
  return code !== undefined && /^(?!P[1-9])[0-9A-Z]{5}$/.test(code) && code !== "EPIPE";
}

/** How a lost or missing connection shows in an error. */
type ConnectionState = "alive" | "nothing_sent" | "lost";

function connectionStateOf({ code, message, syscall }: DriverError): ConnectionState {
  if (isSqlState(code)) {
    if (NOTHING_SENT_SQLSTATES.has(code)) return "nothing_sent";
    const mapped = SQLSTATE_CODES[code] ?? SQLSTATE_CODES[code.slice(0, 2)];
    return mapped === "db.unavailable" || mapped === "db.commit_unknown" ? "lost" : "alive";
  }
  if (code !== undefined) {
    if (NOTHING_SENT_CODES.has(code) || syscall === "connect" || syscall === "getaddrinfo") return "nothing_sent";
    return LOST_CODE.test(code) ? "lost" : "alive";
  }
  if (NOTHING_SENT_TEXT.test(message)) return "nothing_sent";
  return LOST_TEXT.test(message) ? "lost" : "alive";
}

/**
 * Says whether an error means that the connection it came over cannot be used any more.
 *
 * @param error What was caught.
 * @returns Whether it is gone.
 */
export function isConnectionLost(error: unknown): boolean {
  const cause = isRunledgerError(error) ? error.internalCause : error;
  return connectionStateOf(readDriverError(cause)) !== "alive";
}

/**
 * Gives the SQLSTATE of a driver's error, also when it is wrapped already.
 *
 * @param error What was caught.
 * @returns Five characters, or undefined if the server did not send this error.
 */
export function sqlStateOf(error: unknown): string | undefined {
  const { code } = readDriverError(isRunledgerError(error) ? error.internalCause : error);
  return isSqlState(code) ? code : undefined;
}

function schemaCodeOf(driverError: DriverError, statement: string): RunledgerErrorCode | undefined {
  switch (driverError.code) {
    case "3F000": // invalid_schema_name
    case "42P01": // undefined_table
      return /\brunledger\b/.test(driverError.message) ? "schema.missing" : undefined;
    case "42703": // undefined_column
    case "42883": // undefined_function
      return /\brunledger\./.test(statement) ? "schema.outdated" : undefined;
    default:
      return undefined;
  }
}

function codeOf(driverError: DriverError, context: DatabaseErrorContext): RunledgerErrorCode {
  const { code, constraint } = driverError;
  const state = connectionStateOf(driverError);
  if (state === "lost" && context.isOutcomeOpen === true) return "db.commit_unknown";
  if (!isSqlState(code)) return state === "alive" ? "db.query_failed" : "db.unavailable";
  // 08007 is transaction_resolution_unknown: the server itself does not know.
  if (code === "08007") return "db.commit_unknown";
  if (constraint !== undefined && Object.hasOwn(CONSTRAINT_CODES, constraint)) {
    return CONSTRAINT_CODES[constraint] ?? "db.query_failed";
  }
  return schemaCodeOf(driverError, context.statement ?? "") ?? SQLSTATE_CODES[code] ??
    SQLSTATE_CODES[code.slice(0, 2)] ?? "db.query_failed";
}

function isDetail(value: unknown): value is RunledgerErrorDetail {
  return typeof value === "string" || typeof value === "number" || typeof value === "boolean" ||
    (Array.isArray(value) && value.every((item) => typeof item === "string"));
}

function readRaisedDetails(detail: string | undefined): Readonly<Record<string, RunledgerErrorDetail>> | undefined {
  if (detail === undefined || detail === "") return undefined;
  try {
    const parsed: unknown = JSON.parse(detail);
    if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed)) return undefined;
    const details: Record<string, RunledgerErrorDetail> = {};
    for (const [name, value] of Object.entries(parsed)) if (isDetail(value)) details[name] = value;
    return details;
  } catch {
    return undefined;
  }
}

/**
 * Makes a {@linkcode RunledgerError} of whatever a driver threw.
 *
 * The driver's own text, SQLSTATE and constraint go into `internalMessage`, the error itself into `internalCause`:
 * texts of PostgreSQL quote values, so none of it is client-safe. An error that is a RunledgerError is given back.
 *
 * An exception that one of this schema's functions raised with `errcode = 'RL000'` has a stable code as its message and
 * client-safe details, a JSON object, as its detail.
 *
 * @param error What was caught.
 * @param context What was being done.
 * @returns The error to throw.
 */
export function mapDatabaseError(error: unknown, context: DatabaseErrorContext = {}): RunledgerError {
  if (isRunledgerError(error)) return error;
  const driverError = readDriverError(error);
  const { code, constraint, message } = driverError;
  const internalMessage = [
    message,
    code === undefined ? "" : ` [${code}]`,
    constraint === undefined ? "" : ` (constraint ${constraint})`,
  ].join("");
  if (code === RAISED_BY_RUNLEDGER && isErrorCode(message)) {
    const details = readRaisedDetails(driverError.detail);
    return new RunledgerError(message, {
      internalMessage,
      cause: error,
      ...(details === undefined ? {} : { details }),
    });
  }
  return new RunledgerError(codeOf(driverError, context), { internalMessage, cause: error });
}
