/**
 * A PostgreSQL that keeps what it has acknowledged, to be killed.
 *
 * @module
 */

import { startEmbeddedPostgres } from "@runledger/test-support";
import type { EmbeddedPostgres } from "@runledger/test-support";
import { chmod, mkdir } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { within } from "./waiting.ts";

/** A server of one's own, always on the same port. */
export interface OwnServer {
  readonly url: string;
  /** Its process. */
  readonly pid: number;
  /** Kills the server as a crash would, and waits until it is gone. Its children notice by themselves. */
  kill(): Promise<void>;
  /** Stops it in an orderly way: sessions are ended, their transactions rolled back. */
  stop(): Promise<void>;
  /** Starts it again. */
  start(): Promise<void>;
}

/** Starts a server in a folder, from the binaries that the tests use. */
export async function startOwnServer(folder: string): Promise<OwnServer> {
  const binDir = process.env.RUNLEDGER_TEST_PG_BIN_DIR;
  await mkdir(folder, { recursive: true });
  await chmod(folder, 0o755); // PostgreSQL runs as another user than root
  const start = (port?: number) =>
    startEmbeddedPostgres({
      dataDir: join(folder, "data"),
      durable: true,
      ...(binDir ? { binDir } : {}),
      ...(port === undefined ? {} : { port }),
    });
  let server: EmbeddedPostgres = await start();
  const { url } = server;
  return {
    url,
    get pid() {
      return server.pid;
    },
    async kill() {
      const { pid } = server;
      process.kill(pid, "SIGKILL");
      await within(`server ${pid} is gone`, () => !isRunning(pid));
    },
    stop: () => server.stop(),
    async start() {
      server = await start(Number(new URL(url).port));
    },
  };
}

function isRunning(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}
