/**
 * PostgreSQL in a container, for those who want to test on the image they deploy.
 *
 * @module
 */

import { request } from "node:http";
import type { RequestOptions } from "node:http";
import process from "node:process";
import { importOptionalPackage } from "./optional_package.ts";

/** What {@linkcode startContainerPostgres} can be told. */
export interface ContainerPostgresOptions {
  /** The image. @default `RUNLEDGER_TEST_PG_IMAGE`, else `postgres:18` */
  readonly image?: string;
  /** Share one container between processes and leave it running. @default false */
  readonly shared?: boolean;
}

/** A running container. */
export interface ContainerPostgres extends AsyncDisposable {
  /** Connects as a superuser. */
  readonly url: string;
  /** Stops and removes the container; a shared one is left to the next process. */
  stop(): Promise<void>;
}

/** The part of `@testcontainers/postgresql` used here. Its 150 packages are only loaded when a container is asked for. */
interface ContainerModule {
  readonly PostgreSqlContainer: new (image: string) => ContainerBuilder;
}

interface ContainerBuilder {
  withCommand(command: string[]): ContainerBuilder;
  withReuse(): ContainerBuilder;
  start(): Promise<{ getConnectionUri(): string; stop(): Promise<unknown> }>;
}

/**
 * Starts PostgreSQL in a container, with the settings of a server whose data need not survive.
 *
 * @param options Which image, and whether to share it.
 * @returns The running container.
 * @throws {Error} No container engine answers.
 */
export async function startContainerPostgres(options: ContainerPostgresOptions = {}): Promise<ContainerPostgres> {
  const image = options.image ?? process.env.RUNLEDGER_TEST_PG_IMAGE ?? "postgres:18";
  const engine = containerEngineAddress();
  if (!await isContainerEngineUp()) {
    throw new Error(
      `RUNLEDGER_TEST_BACKEND=container needs a container engine, and none answers at ${engine}. ` +
        "Start Docker, set DOCKER_HOST, or unset RUNLEDGER_TEST_BACKEND to use the embedded PostgreSQL.",
    );
  }
  const testcontainers = await importOptionalPackage("@testcontainers/postgresql", "12.2.0");
  const { PostgreSqlContainer } = testcontainers as ContainerModule;
  const fast = ["fsync=off", "full_page_writes=off", "max_connections=200"];
  const builder = new PostgreSqlContainer(image)
    .withCommand(["postgres", ...fast.flatMap((setting) => ["-c", setting])]);
  const container = await (options.shared === true ? builder.withReuse() : builder).start();
  const stop = async () => {
    if (options.shared !== true) await container.stop();
  };
  return { url: container.getConnectionUri(), stop, [Symbol.asyncDispose]: stop };
}

/**
 * Asks the container engine whether it is there. An installed `docker` command says nothing about that.
 *
 * @returns True when it answered.
 */
export function isContainerEngineUp(): Promise<boolean> {
  const address = engineRequest(containerEngineAddress());
  if (address === undefined) return Promise.resolve(false);
  return new Promise((resolve) => {
    const ping = request({ ...address, path: "/_ping", agent: false, timeout: 2000 }, (response) => {
      response.resume();
      response.once("end", () => resolve(response.statusCode === 200));
    });
    ping.once("timeout", () => ping.destroy());
    ping.once("error", () => resolve(false));
    ping.end();
  });
}

function containerEngineAddress(): string {
  return process.env.DOCKER_HOST ?? "unix:///var/run/docker.sock";
}

function engineRequest(address: string): RequestOptions | undefined {
  if (address.startsWith("unix://")) return { socketPath: address.slice("unix://".length) };
  if (!URL.canParse(address.replace(/^tcp:/, "http:"))) return undefined;
  const { protocol, hostname, port } = new URL(address.replace(/^tcp:/, "http:"));
  return protocol === "http:" ? { hostname, port: port === "" ? "2375" : port } : undefined;
}
