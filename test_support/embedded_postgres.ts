/**
 * A real PostgreSQL without an installation: from the binaries of an npm package, in a folder, on a free port.
 *
 * @module
 */

import { randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, readFile, rename, rm, stat } from "node:fs/promises";
import { createServer } from "node:net";
import { dirname, join, resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { EmbeddedPostgresError } from "./embedded_postgres_error.ts";
import { withFileLock } from "./file_lock.ts";
import { findPostgresInstallation } from "./postgres_installation.ts";
import { readPostmasterFile, settledServer } from "./postmaster_file.ts";
import { createServerLauncher } from "./server_launcher.ts";
import type { ServerLauncher } from "./server_launcher.ts";

/** What {@linkcode startEmbeddedPostgres} can be told. */
export interface EmbeddedPostgresOptions {
  /** The data directory. Made when missing; its parent too. */
  readonly dataDir: string;
  /** Keep commits through a crash of the operating system, at the price of speed. They survive one of PostgreSQL anyway. @default false */
  readonly durable?: boolean;
  /** The programs of another installation, such as `/usr/lib/postgresql/15/bin`. @default the npm package of PostgreSQL 18 */
  readonly binDir?: string;
  /** The port on 127.0.0.1. @default the port of the last run if it is still free, else any free one */
  readonly port?: number;
  /** More server settings, over those this module chooses. Only read when the call starts the server. */
  readonly settings?: Readonly<Record<string, string>>;
}

/** How {@linkcode EmbeddedPostgres.stop} behaves. */
export interface StopOptions {
  /** Stop a server that an earlier call or another process started. @default false */
  readonly evenIfReused?: boolean;
}

/** A running server. */
export interface EmbeddedPostgres extends AsyncDisposable {
  /** Connects as superuser `postgres` to the database `postgres`. */
  readonly url: string;
  /** True when the server ran already, so its settings are those of whoever started it. */
  readonly reused: boolean;
  /** The data directory, as an absolute path. */
  readonly dataDir: string;
  /** The major version of the programs, such as 18. */
  readonly version: number;
  /** The process id of the server: what a crash test kills. */
  readonly pid: number;
  /**
   * Stops the server that this call started, rolling back what is open; does nothing when it was reused, has died or was
   * replaced by a newer one.
   */
  stop(options?: StopOptions): Promise<void>;
}

/** Enough tries for a machine on which ports are taken all the time. */
const START_TRIES = 10;

/** Longer than crash recovery of a test database takes, shorter than a person waits. */
const START_SECONDS = 60;

/**
 * Starts PostgreSQL in a data directory, or finds the one that runs there.
 *
 * Any number of processes may call this at once for one directory: one starts the server, the others reuse it. The server
 * outlives its starter unless it is stopped. After a crash of the server the next call starts it again on the same port.
 * Works as root and as an ordinary user, on Linux and macOS, in Deno and Node.
 *
 * @param options Where and how.
 * @returns The running server.
 * @throws {EmbeddedPostgresError} It cannot be had; the message says why and what to do.
 */
export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  const dataDir = resolve(options.dataDir);
  await mkdir(dirname(dataDir), { recursive: true }).catch((cause: Error) => {
    throw new EmbeddedPostgresError(`the data directory ${dataDir} cannot be made (${cause.message}).`, { cause });
  });
  const installation = await findPostgresInstallation(options.binDir);
  const launcher = await createServerLauncher(installation, dataDir);
  const version = await majorVersion(launcher);
  const lockFile = `${dataDir}.lock`;

  const { pid, port, reused } = await withFileLock(lockFile, async () => {
    if (!existsSync(join(dataDir, "PG_VERSION"))) await initialize(launcher, dataDir, options);
    const running = await settledServer(dataDir, START_SECONDS * 1000);
    return running === undefined
      ? { ...await start(launcher, dataDir, options), reused: false }
      : { ...running, reused: true };
  });

  const stop = ({ evenIfReused = false }: StopOptions = {}) =>
    withFileLock(lockFile, async () => {
      const running = existsSync(dataDir) ? await settledServer(dataDir, START_SECONDS * 1000) : undefined;
      if (running === undefined || (!evenIfReused && (reused || running.pid !== pid))) return;
      const args = ["stop", "-D", dataDir, "-m", "fast", "-w", "-t", String(START_SECONDS)];
      await launcher.run(launcher.installation.pgCtl, args);
    });

  const url = `postgres://postgres@127.0.0.1:${port}/postgres`;
  return { url, reused, dataDir, version, pid, stop, [Symbol.asyncDispose]: () => stop() };
}

async function majorVersion(launcher: ServerLauncher): Promise<number> {
  const text = await launcher.run(launcher.installation.pgCtl, ["--version"]).catch((cause: Error) => {
    throw new EmbeddedPostgresError(`the binaries do not run here (${cause.message}).`, { cause });
  });
  return Number(/\(PostgreSQL\) (\d+)/.exec(text)?.[1]);
}

/** Under another name first: initdb writes PG_VERSION early, so one that was killed would leave what looks like a cluster. */
async function initialize(launcher: ServerLauncher, dataDir: string, options: EmbeddedPostgresOptions): Promise<void> {
  const draft = `${dataDir}.${randomUUID().slice(0, 8)}.draft`;
  await mkdir(draft, { mode: 0o700 });
  try {
    await launcher.own(draft);
    const unsynced = options.durable === true ? [] : ["--no-sync"];
    const args = ["-D", draft, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", ...unsynced];
    await launcher.run(launcher.installation.initdb, args);
    await rename(draft, dataDir);
  } catch (cause) {
    await rm(draft, { recursive: true, force: true });
    throw new EmbeddedPostgresError(
      `the data directory ${dataDir} could not be made (${(cause as Error).message}).`,
      { cause },
    );
  }
}

async function start(
  launcher: ServerLauncher,
  dataDir: string,
  options: EmbeddedPostgresOptions,
): Promise<{ pid: number; port: number }> {
  const logFile = join(dataDir, "server.log");
  const lastPort = options.port ?? (await readPostmasterFile(dataDir))?.port ?? 0;
  for (let tries = 1;; tries++) {
    const port = options.port ?? await freePort(tries === 1 ? lastPort : 0);
    const logged = await stat(logFile).then((file) => file.size, () => 0);
    const settings = commandLineSettings({ port: String(port), ...defaultSettings(options), ...options.settings });
    const args = ["start", "-D", dataDir, "-w", "-t", String(START_SECONDS), "-l", logFile, "-o", settings];
    try {
      await launcher.run(launcher.installation.pgCtl, args);
      const started = await readPostmasterFile(dataDir);
      if (started !== undefined) return { pid: started.pid, port };
      throw new Error("it ended at once");
    } catch (cause) {
      const log = (await readFile(logFile).catch(() => new Uint8Array())).subarray(logged);
      const text = new TextDecoder().decode(log).trim().split("\n").slice(-20).join("\n");
      // Somebody else took the port, or the last backends of a killed server have not noticed yet.
      const mayPass = /Address already in use|pre-existing shared memory block/.test(text);
      if (mayPass && tries < START_TRIES) await delay(100);
      else throw new EmbeddedPostgresError(`the server in ${dataDir} did not start:\n${text || cause}\n`, { cause });
    }
  }
}

function defaultSettings(options: EmbeddedPostgresOptions): Record<string, string> {
  // synchronous_commit stays on: without fsync it costs a write to the kernel, and what was committed survives a kill -9.
  const durability: Record<string, string> = options.durable === true ? {} : { fsync: "off", full_page_writes: "off" };
  return {
    listen_addresses: "127.0.0.1",
    unix_socket_directories: "",
    max_connections: "200",
    shared_buffers: "256MB",
    timezone: "UTC",
    ...durability,
  };
}

/** pg_ctl hands this text to a shell. */
function commandLineSettings(settings: Readonly<Record<string, string>>): string {
  return Object.entries(settings).map(([name, value]) => {
    if (!/^[a-z_][a-z0-9_.]*$/i.test(name)) throw new TypeError(`"${name}" is not the name of a PostgreSQL setting.`);
    return `-c ${name}='${value.replaceAll("'", `'\\''`)}'`;
  }).join(" ");
}

/** The wanted port when it is free, else one that the system chooses. */
function freePort(wanted: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", (error) => wanted === 0 ? reject(error) : resolve(freePort(0)));
    server.listen(wanted, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => resolve(address !== null && typeof address === "object" ? address.port : wanted));
    });
  });
}
