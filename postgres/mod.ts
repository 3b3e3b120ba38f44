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
