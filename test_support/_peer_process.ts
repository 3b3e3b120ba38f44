/**
 * Runs a piece of a test in a process of its own, in Deno or Node, as another user if asked.
 *
 * @module
 */

import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import process from "node:process";
import { fileURLToPath } from "node:url";

/** How {@linkcode runPeer} starts the process. */
export interface PeerOptions {
  /** Environment variables over those of the test; undefined removes one. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** The program to run the code with. @default the running Deno, with the configuration of the workspace */
  readonly command?: readonly string[];
  /** The user to run as. Only root may choose. */
  readonly account?: { readonly uid: number; readonly gid: number };
  /** Called with the running process, to kill it. */
  readonly onStart?: (child: ChildProcess) => void;
}

/** How a process ended. */
export interface PeerResult {
  /** The exit code, or the signal that ended it. */
  readonly code: number | string;
  /** What it wrote to its standard output. */
  readonly output: string;
  /** What it wrote to its standard error. */
  readonly errors: string;
}

/** Runs a module's text to its end. Imports in it are absolute; `import.meta.resolve` of the test gives them. */
export function runPeer(code: string, options: PeerOptions = {}): Promise<PeerResult> {
  const config = fileURLToPath(new URL("../deno.json", import.meta.url));
  const denoRun = [process.execPath, "run", "--quiet", "--no-lock", "--allow-all", "--config", config];
  const [program = "", ...args] = options.command ?? denoRun;
  const url = `data:text/typescript,${encodeURIComponent(code)}`;
  const env = Object.fromEntries(
    Object.entries({ ...process.env, ...options.env }).filter(([, value]) => value !== undefined),
  );
  const child = spawn(program, [...args, url], {
    cwd: "/",
    stdio: ["ignore", "pipe", "pipe"],
    env,
    ...options.account,
  });
  let output = "";
  let errors = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => output += text);
  child.stderr.setEncoding("utf8").on("data", (text: string) => errors += text);
  options.onStart?.(child);
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code, signal) => resolve({ code: code ?? signal ?? "", output, errors }));
  });
}
