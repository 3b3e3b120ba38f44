/**
 * Testing with Runledger: a kit that runs jobs in a time that only the test moves, an embedded PostgreSQL, and databases
 * for one test each.
 *
 * @module
 */

// A kit for tests of jobs, workflows and schedules
export { createTestKit } from "./create_test_kit.ts";
export type { TestKitDatabaseOptions, TestKitOptions } from "./create_test_kit.ts";
export { RunledgerTestKit } from "./test_kit.ts";
export type { Duration, JobTarget } from "./test_kit.ts";
export type { IdleReport, RunAttempt, RunOptions } from "./kit_engine.ts";
export type { FaultOptions } from "./attempt_faults.ts";
export { TestJob } from "./test_job.ts";
export type { TestJobOutput } from "./test_job.ts";
export { TestRun } from "./test_run.ts";
export type { TestStepKey } from "./test_run.ts";
export type { ExpectedEvent, LedgerExpectation } from "./ledger_text.ts";
export type { InProcessDatabase } from "./pglite_database.ts";

// A database for a test
export { createEphemeralDatabase } from "./ephemeral_database.ts";
export type { EphemeralDatabase, EphemeralDatabaseOptions } from "./ephemeral_database.ts";

// The server a test run shares
export { openTestServer, removeAbandonedTestServers } from "./test_server.ts";
export type { TestBackend, TestServer, TestServerOptions } from "./test_server.ts";

// A server of one's own
export { startEmbeddedPostgres } from "./embedded_postgres.ts";
export type { EmbeddedPostgres, EmbeddedPostgresOptions, StopOptions } from "./embedded_postgres.ts";
export { EmbeddedPostgresError } from "./embedded_postgres_error.ts";
export { isContainerEngineUp, startContainerPostgres } from "./container_postgres.ts";
export type { ContainerPostgres, ContainerPostgresOptions } from "./container_postgres.ts";

// Faults
export { startTcpProxy } from "./tcp_proxy.ts";
export type { TcpProxy, TcpProxyCounts, TcpProxyMode, TcpProxyOptions } from "./tcp_proxy.ts";
