/**
 * `postmaster.pid`: what a running server, or one that died, says about itself.
 *
 * @module
 */

import { chown, readFile, rename, stat, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { EmbeddedPostgresError } from "./embedded_postgres_error.ts";
import { classifyServerProcess } from "./process_presence.ts";

/** A process id that no system hands out. */
const NOBODYS_PID = 2_147_483_646;

/** The lines of `postmaster.pid` that matter here. */
export interface PostmasterFile {
  /** The server's process id. */
  readonly pid: number;
  /** The port it listens on; NaN while it is starting. */
  readonly port: number;
  /** How far it is: `starting`, `ready`, `stopping`, `standby`; empty while it is starting. */
  readonly status: string;
}

/**
 * Reads the file.
 *
 * @param dataDir The data directory.
 * @returns Its content, or undefined when there is none.
 */
export async function readPostmasterFile(dataDir: string): Promise<PostmasterFile | undefined> {
  const text = await readFile(join(dataDir, "postmaster.pid"), "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "ENOENT") throw error;
  });
  if (text === undefined) return undefined;
  const lines = text.split("\n");
  return { pid: Number(lines[0]), port: Number.parseInt(lines[3] ?? "", 10), status: (lines[7] ?? "").trim() };
}

/**
 * Waits until a data directory either has a server that answers or has none at all.
 *
 * @param dataDir The data directory.
 * @param timeoutMs How long a server may take to finish starting or stopping.
 * @returns The server, or undefined when the directory is free; a file left by a dead one is then made harmless.
 * @throws {EmbeddedPostgresError} A server is there and does neither.
 */
export async function settledServer(dataDir: string, timeoutMs: number): Promise<PostmasterFile | undefined> {
  const deadline = Date.now() + timeoutMs;
  while (true) {
    const file = await readPostmasterFile(dataDir);
    if (file === undefined) return undefined;
    if (await classifyServerProcess(file.pid, dataDir) !== "server") return await disownPostmasterFile(dataDir);
    if (file.status === "ready" && await isListening(file.port)) return file;
    if (Date.now() > deadline) {
      throw new EmbeddedPostgresError(
        `process ${file.pid} holds ${dataDir} and after ${timeoutMs} ms neither answers nor ends ` +
          `(status "${file.status}", port ${file.port}). End it or choose another data directory.`,
      );
    }
    await delay(25);
  }
}

/**
 * PostgreSQL refuses to start while the process id in the file exists, even as a zombie or as somebody else's. The file is not
 * deleted, because its shared memory key is how a new server finds out that backends of the dead one still run.
 */
async function disownPostmasterFile(dataDir: string): Promise<undefined> {
  const path = join(dataDir, "postmaster.pid");
  const lines = (await readFile(path, "utf8")).split("\n");
  await writeFile(`${path}.disowned`, [NOBODYS_PID, ...lines.slice(1)].join("\n"), { mode: 0o600 });
  // Root may do this for a server that runs as somebody else.
  const { uid, gid } = await stat(path);
  await chown(`${path}.disowned`, uid, gid);
  await rename(`${path}.disowned`, path);
}

/** Does something accept connections on a port of this machine? */
function isListening(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("connect", () => socket.destroy());
    socket.once("error", () => resolve(false));
    socket.once("close", (hadError) => resolve(!hadError));
  });
}
