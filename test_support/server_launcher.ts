/**
 * Runs the programs of PostgreSQL as somebody they agree to run as.
 *
 * @module
 */

import { spawn } from "node:child_process";
import { chown, readFile, stat } from "node:fs/promises";
import { basename } from "node:path";
import process from "node:process";
import { EmbeddedPostgresError } from "./embedded_postgres_error.ts";
import { copyPostgresInstallation } from "./postgres_installation.ts";
import type { PostgresInstallation } from "./postgres_installation.ts";

/** A way to run PostgreSQL's programs on one data directory. */
export interface ServerLauncher {
  /** The programs, at a place that the account in use can reach. */
  readonly installation: PostgresInstallation;
  /**
   * Runs a program to its end.
   *
   * @param program Path of the program.
   * @param args Its arguments.
   * @returns What it wrote to both outputs.
   * @throws {Error} It did not end with code 0; the message holds what it wrote.
   */
  run(program: string, args: readonly string[]): Promise<string>;
  /** Gives a file or folder to the account that the programs run as. */
  own(path: string): Promise<void>;
}

interface Account {
  readonly uid: number;
  readonly gid: number;
}

/**
 * Chooses how to run PostgreSQL on a data directory.
 *
 * PostgreSQL refuses user id 0. An ordinary user runs it as it is. Root first tries a user namespace of its own, in which it
 * is nobody but keeps owning its files; where the kernel forbids that, the unprivileged account `postgres` or `nobody`. A data
 * directory that belongs to an ordinary user is always run as that user.
 *
 * @param installation The programs.
 * @param dataDir The data directory; it need not exist.
 * @returns The way that works here.
 * @throws {EmbeddedPostgresError} None does.
 */
export async function createServerLauncher(
  installation: PostgresInstallation,
  dataDir: string,
): Promise<ServerLauncher> {
  if (process.getuid?.() !== 0) return launcher(installation, []);
  const owner = await stat(dataDir).catch(() => undefined);
  if (owner !== undefined && owner.uid !== 0) return await unprivilegedLauncher(installation, owner);
  const userNamespace = ["unshare", "-U", "--"];
  try {
    await runProgram([...userNamespace, installation.pgCtl, "--version"]);
    return launcher(installation, userNamespace);
  } catch {
    const account = await unprivilegedAccount();
    if (owner !== undefined) await runProgram(["chown", "-R", `${account.uid}:${account.gid}`, dataDir]);
    return await unprivilegedLauncher(installation, account);
  }
}

function launcher(installation: PostgresInstallation, prefix: readonly string[], account?: Account): ServerLauncher {
  return {
    installation,
    run: (program, args) => runProgram([...prefix, program, ...args], account),
    own: async (path) => {
      if (account !== undefined) await chown(path, account.uid, account.gid);
    },
  };
}

async function unprivilegedLauncher(installation: PostgresInstallation, account: Account): Promise<ServerLauncher> {
  try {
    await runProgram([installation.pgCtl, "--version"], account);
    return launcher(installation, [], account);
  } catch {
    // Package caches often lie in root's home, which nobody else may enter.
    const copy = await copyPostgresInstallation(installation);
    try {
      await runProgram([copy.pgCtl, "--version"], account);
      return launcher(copy, [], account);
    } catch (cause) {
      throw new EmbeddedPostgresError(
        "PostgreSQL does not run as root, and neither a user namespace (unshare -U) nor " +
          `changing to user id ${account.uid} works here (${(cause as Error).message}). Run as an ordinary user.`,
        { cause },
      );
    }
  }
}

async function unprivilegedAccount(): Promise<Account> {
  const lines = (await readFile("/etc/passwd", "utf8").catch(() => "")).split("\n").map((line) => line.split(":"));
  for (const wanted of ["postgres", "nobody"]) {
    const [, , uid, gid] = lines.find(([name]) => name === wanted) ?? [];
    // macOS writes nobody's id as -2.
    if (uid !== undefined && gid !== undefined) return { uid: Number(uid) >>> 0, gid: Number(gid) >>> 0 };
  }
  return { uid: 65534, gid: 65534 };
}

/**
 * The environment is made anew: a locale that is not installed breaks initdb, and `PGDATA`, `PGOPTIONS` or `PGPORT` of the
 * caller are meant for another server.
 */
function runProgram(command: readonly string[], account?: Account): Promise<string> {
  const [program = "", ...args] = command;
  const env = { PATH: process.env.PATH ?? "/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL: "C" };
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { cwd: "/", stdio: ["ignore", "pipe", "pipe"], env, ...account });
    let output = "";
    let drained: ReturnType<typeof setTimeout> | undefined;
    child.stdout.setEncoding("utf8").on("data", (text: string) => output += text);
    child.stderr.setEncoding("utf8").on("data", (text: string) => output += text);
    const settle = (code: number | null, signal: string | null) => {
      clearTimeout(drained);
      child.stdout.destroy();
      child.stderr.destroy();
      if (code === 0) resolve(output);
      else reject(new Error(`${basename(program)} ${args.join(" ")} ended with ${code ?? signal}: ${output.trim()}`));
    };
    child.once("error", reject);
    child.once("close", settle);
    // A daemon that inherits the pipes keeps them open, so the end of the program is what counts; the rest of its output
    // gets a moment to arrive.
    child.once("exit", (code, signal) => drained = setTimeout(settle, 500, code, signal));
  });
}
