/**
 * PgBouncer in transaction mode, between a scenario and its server.
 *
 * @module
 */

import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { existsSync } from "node:fs";
import { chmod, writeFile } from "node:fs/promises";
import { connect, createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import process from "node:process";
import { within } from "./waiting.ts";

/** A running pooler. */
export interface PgBouncer {
  /** The database's URL through the pooler. */
  readonly url: string;
  /** Kills it and starts it again on the same port: its clients' connections break. */
  restart(): Promise<void>;
  /** Ends it. */
  stop(): Promise<void>;
}

/** Where it is: Debian's place, or wherever the PATH has it. */
export function findPgBouncer(): string | undefined {
  const folders = ["/usr/sbin", ...(process.env.PATH ?? "").split(":")];
  return folders.map((folder) => join(folder, "pgbouncer")).find((path) => existsSync(path));
}

/** Starts a pooler in front of one database. */
export async function startPgBouncer(
  options: { readonly serverUrl: string; readonly folder: string; readonly poolSize: number },
): Promise<PgBouncer> {
  const program = findPgBouncer();
  if (program === undefined) throw new Error("PgBouncer is not installed: apt-get install pgbouncer");
  const server = new URL(options.serverUrl);
  const database = server.pathname.slice(1);
  const port = await freePort();
  const file = join(options.folder, "pgbouncer.ini");
  await writeFile(
    file,
    [
      "[databases]",
      `${database} = host=${server.hostname} port=${server.port} dbname=${database} user=${server.username}`,
      "[pgbouncer]",
      "listen_addr = 127.0.0.1",
      `listen_port = ${port}`,
      "unix_socket_dir =",
      "auth_type = any",
      "pool_mode = transaction",
      `default_pool_size = ${options.poolSize}`,
      "max_client_conn = 200",
      "ignore_startup_parameters = extra_float_digits",
      "",
    ].join("\n"),
  );
  await chmod(options.folder, 0o755); // it refuses to run as root
  const account = process.getuid?.() === 0 ? ["-u", "nobody"] : [];
  let child: ChildProcess;
  const start = async () => {
    const started = spawn(program, [...account, file], { stdio: ["ignore", "ignore", "pipe"], cwd: "/" });
    child = started;
    let errors = "";
    started.stderr.setEncoding("utf8").on("data", (text: string) => errors += text);
    await within("PgBouncer listens", () => {
      if (started.exitCode !== null) throw new Error(`PgBouncer ended with ${started.exitCode}:\n${errors}`);
      return answers(port);
    });
  };
  const stop = async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise<void>((resolve) => child.once("close", () => resolve()));
    child.kill("SIGKILL");
    await ended;
  };
  await start();
  const url = new URL(options.serverUrl);
  url.port = String(port);
  return {
    url: url.href,
    stop,
    async restart() {
      await stop();
      await start();
    },
  };
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address() as AddressInfo;
      server.close(() => resolve(port));
    });
  });
}
