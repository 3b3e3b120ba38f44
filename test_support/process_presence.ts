/**
 * What the operating system says about a process id: is somebody there, and is it still the same one?
 *
 * @module
 */

import { readFile, realpath } from "node:fs/promises";
import { execFile } from "node:child_process";
import process from "node:process";

/** A process that exists and is not a zombie. */
export interface ProcessPresence {
  /** Tells two processes that had the same id apart. Undefined where there is no `/proc`. */
  readonly startTicks: string | undefined;
  /** The program and its arguments; empty when they may not be read. */
  readonly commandLine: readonly string[];
}

/**
 * Looks a process up.
 *
 * A zombie counts as gone: it was killed and waits only for its parent to notice, which in a container may never happen.
 *
 * @param pid The process id.
 * @returns What is known about the process, or undefined when there is none.
 */
export async function getProcessPresence(pid: number): Promise<ProcessPresence | undefined> {
  if (!isSignalable(pid)) return undefined;
  if (process.platform !== "linux") {
    return { startTicks: undefined, commandLine: await commandLineFromPs(pid) };
  }
  const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => undefined);
  if (stat === undefined) return undefined;
  // The program's name stands in parentheses and may hold anything: fields are counted from the last one.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  if (fields[0] === "Z" || fields[0] === "X") return undefined;
  const commandLine = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
  return { startTicks: fields[19], commandLine: commandLine.split("\0").filter((part) => part !== "") };
}

/**
 * Is this process a PostgreSQL server that works in the given directory?
 *
 * @param pid The process id that `postmaster.pid` names.
 * @param dataDir The data directory that the file lies in.
 * @returns `"gone"` when there is no such process, `"other"` when the id now belongs to something else, `"server"` when it is
 * the server or cannot be told apart from it.
 */
export async function classifyServerProcess(pid: number, dataDir: string): Promise<"gone" | "other" | "server"> {
  const presence = await getProcessPresence(pid);
  if (presence === undefined) return "gone";
  const program = presence.commandLine[0];
  if (program === undefined) return "server";
  if (!/(^|\/)(postgres|postmaster)\b/.test(program)) return "other";
  // Every PostgreSQL process works in its data directory. Not readable (another user, macOS): believe the file.
  const workingDir = await realpath(`/proc/${pid}/cwd`).catch(() => undefined);
  if (workingDir === undefined) return "server";
  return workingDir === await realpath(dataDir) ? "server" : "other";
}

function isSignalable(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

function commandLineFromPs(pid: number): Promise<string[]> {
  return new Promise((resolve) => {
    execFile("ps", ["-p", String(pid), "-o", "command="], (error, stdout) => {
      resolve(error === null && stdout.trim() !== "" ? stdout.trim().split(/\s+/) : []);
    });
  });
}
