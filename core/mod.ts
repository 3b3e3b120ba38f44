/**
 * Contracts and pure rules of Runledger: no I/O, no imports.
 *
 * @module
 */

export { isRunledgerError, RunledgerError } from "./errors.ts";
export type { RunledgerErrorDetail, RunledgerErrorJson, RunledgerErrorOptions } from "./errors.ts";
export { ERROR_CATALOGUE, ERROR_CODES } from "./error_catalogue.ts";
export type { ErrorCatalogueEntry, RunledgerErrorCategory, RunledgerErrorCode } from "./error_catalogue.ts";
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
