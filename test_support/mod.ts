/**
 * What the tests, examples and the demo of Runledger run on: an embedded PostgreSQL and databases of their own.
 *
 * @module
 */

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
