/**
 * A lock between processes that survives the death of its owner.
 *
 * @module
 */

import { randomUUID } from "node:crypto";
import { link, mkdir, readFile, stat, unlink, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import process from "node:process";
import { setTimeout as delay } from "node:timers/promises";
import { getProcessPresence } from "./process_presence.ts";

/** How {@linkcode withFileLock} waits. */
export interface FileLockOptions {
  /** After this time the owner is taken for dead even if its process id exists. @default 180_000 */
  readonly staleAfterMs?: number;
  /** Pause between two looks at a lock that is held. @default 25 */
  readonly pollMs?: number;
}

/**
 * Runs a function while no other process (or thread) holds the same lock file.
 *
 * The file names its owner, so a lock whose owner was killed is taken over at once; a live owner is waited for. Not fair, not
 * reentrant, and only for the processes of one machine.
 *
 * @param path The lock file. Its folder is made when missing.
 * @param work What to do under the lock.
 * @param options How to wait.
 * @returns What `work` returned.
 */
export async function withFileLock<T>(path: string, work: () => Promise<T>, options: FileLockOptions = {}): Promise<T> {
  await mkdir(dirname(path), { recursive: true });
  await acquire(path, options);
  try {
    return await work();
  } finally {
    await unlink(path).catch(ignoreMissing);
  }
}

/** The lock appears with its owner's name already in it: link(2) is atomic and refuses an existing name. */
async function acquire(path: string, options: FileLockOptions): Promise<void> {
  const { staleAfterMs = 180_000, pollMs = 25 } = options;
  const token = randomUUID();
  const draft = `${path}.${token}`;
  const startTicks = (await getProcessPresence(process.pid))?.startTicks ?? "";
  await writeFile(draft, `${token} ${process.pid} ${startTicks}`);
  try {
    while (true) {
      try {
        return await link(draft, path);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
      }
      const abandoned = await abandonedOwner(path, staleAfterMs);
      if (abandoned === undefined) await delay(pollMs);
      else await removeAbandoned(path, abandoned, options);
    }
  } finally {
    await unlink(draft).catch(ignoreMissing);
  }
}

/** The content of a lock whose owner is gone, else undefined. */
async function abandonedOwner(path: string, staleAfterMs: number): Promise<string | undefined> {
  const owner = await readFile(path, "utf8").catch(ignoreMissing);
  if (owner === undefined) return undefined;
  const [, pid, startTicks] = owner.split(" ");
  const presence = await getProcessPresence(Number(pid));
  if (presence === undefined || (presence.startTicks ?? "") !== startTicks) return owner;
  const written = await stat(path).catch(ignoreMissing);
  return written !== undefined && Date.now() - written.mtimeMs > staleAfterMs ? owner : undefined;
}

/**
 * Two waiters may see the same dead owner; the slower one must not remove the lock that the faster one has taken meanwhile.
 * So removing an owner is itself done under a lock that bears that owner's name.
 */
function removeAbandoned(path: string, owner: string, options: FileLockOptions): Promise<void> {
  return withFileLock(`${path}.${owner.split(" ")[0]}.removal`, async () => {
    if (await readFile(path, "utf8").catch(ignoreMissing) === owner) await unlink(path);
  }, options);
}

function ignoreMissing(error: NodeJS.ErrnoException): undefined {
  if (error.code !== "ENOENT") throw error;
}
