/**
 * A folder that a test may fill and that is gone afterwards, with every server in it.
 *
 * @module
 */

import { mkdtemp, readdir, realpath, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import process from "node:process";
import { setTimeout as delay } from "node:timers/promises";
import { readPostmasterFile } from "./postmaster_file.ts";
import { classifyServerProcess } from "./process_presence.ts";

/** A folder to be used with `await using`. */
export interface TemporaryFolder extends AsyncDisposable {
  /** Its path, free of symbolic links. */
  readonly path: string;
}

/** Makes a folder below the system's temporary directory. */
export async function createTemporaryFolder(): Promise<TemporaryFolder> {
  const path = await realpath(await mkdtemp(join(tmpdir(), "runledger-support-")));
  const remove = async () => {
    // A test that failed half-way must not leave a server behind.
    for (const name of await readdir(path, { recursive: true })) {
      if (basename(name) === "postmaster.pid") await killServer(join(path, dirname(name)));
    }
    await rm(path, { recursive: true, force: true });
  };
  return { path, [Symbol.asyncDispose]: remove };
}

/** Kills the server of a data directory the hard way, and waits until it is gone. Does nothing where none runs. */
export async function killServer(dataDir: string): Promise<void> {
  const file = await readPostmasterFile(dataDir).catch(() => undefined);
  if (file === undefined || await classifyServerProcess(file.pid, dataDir) !== "server") return;
  process.kill(file.pid, "SIGKILL");
  while (await classifyServerProcess(file.pid, dataDir) === "server") await delay(5);
}
