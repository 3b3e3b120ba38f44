/**
 * What the tests, examples and the demo of Runledger run on: an embedded PostgreSQL and databases of their own.
 *
 * @module
 */

export { startEmbeddedPostgres } from "./embedded_postgres.ts";
export type { EmbeddedPostgres, EmbeddedPostgresOptions, StopOptions } from "./embedded_postgres.ts";
export { EmbeddedPostgresError } from "./embedded_postgres_error.ts";
