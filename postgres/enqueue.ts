/**
 * Enqueueing alone: what an API on the edge needs of `@runledger/postgres`, so that its bundle holds neither the worker's
 * statements nor the migrations.
 *
 * The functions and types are those of the main entry point, under the same names.
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

// Jobs
export { enqueueJob, enqueueJobs, MAX_ENQUEUE_BATCH } from "./job_enqueue.ts";
export type { EnqueuedJob } from "./job_enqueue.ts";

// Workflow runs
export { enqueueWorkflowRun, enqueueWorkflowRuns, MAX_WORKFLOW_ENQUEUE_BATCH } from "./workflow_enqueue.ts";
export type { EnqueuedWorkflowRun } from "./workflow_enqueue.ts";
