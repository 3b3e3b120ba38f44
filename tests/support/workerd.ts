/**
 * workerd, the runtime of Cloudflare Workers, for the time of one test.
 *
 * @module
 */

import { execFile, spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const VERSION = "1.20261023.1";

/** The systems that there are binaries for, by the names of their packages. */
const PACKAGES: Readonly<Record<string, string>> = {
  "linux-x64": "workerd-linux-64",
  "linux-arm64": "workerd-linux-arm64",
  "darwin-x64": "workerd-darwin-64",
  "darwin-arm64": "workerd-darwin-arm64",
};

/** How the runtime behaves. From 2026-08-04 what drivers need of Node is there without a flag. */
const COMPATIBILITY_DATE = "2026-01-01";

/** The most that a start takes on a busy machine. */
const START_MS = 60_000;

/** A running workerd. Disposing it waits until the process is gone. */
export interface Workerd extends AsyncDisposable {
  /** Where the program answers, without a slash at its end. */
  readonly url: string;
}

/**
 * Starts a program.
 *
 * @param code The program: one module with all that it needs.
 * @param bindings Texts that it is given in `env`.
 * @param folder An empty folder for the program and its configuration.
 * @returns The running program.
 * @throws {Error} There is no workerd for this system, or the program does not start.
 */
export async function startWorkerd(
  code: string,
  bindings: Readonly<Record<string, string>>,
  folder: string,
): Promise<Workerd> {
  const program = await workerdProgram();
  await writeFile(join(folder, "worker.js"), code);
  await writeFile(join(folder, "config.capnp"), configuration(bindings));
  // What it listens at is told on the descriptor that is asked for.
  const args = ["serve", "config.capnp", "--socket-addr=http=127.0.0.1:0", "--control-fd=1"];
  const child = spawn(program, args, { cwd: folder, stdio: ["ignore", "pipe", "pipe"] });
  let errors = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => errors += text);
  const ended = once(child, "close");
  const stop = async () => {
    child.kill("SIGKILL"); // it holds nothing that an orderly end would save
    await ended;
  };
  try {
    return { url: `http://127.0.0.1:${await portOf(child, ended)}`, [Symbol.asyncDispose]: stop };
  } catch (error) {
    await stop();
    throw new Error(`workerd did not start: ${error instanceof Error ? error.message : error}\n${errors}`);
  }
}

/**
 * A binary has over 100 MB, so only that of this system is fetched, and by nobody who does not start it: a process of its
 * own leaves it out of the lock file, since every task fetches all that stands there.
 */
async function workerdProgram(): Promise<string> {
  const system = `${process.platform}-${process.arch}`;
  const name = PACKAGES[system];
  if (name === undefined) {
    const known = Object.keys(PACKAGES).join(", ");
    throw new Error(`The edge cannot be tried on ${system}: there is a workerd for ${known} only.`);
  }
  const specifier = `npm:@cloudflare/${name}@${VERSION}`;
  // The package is its binary; loading what else is in it fetches it.
  const program = `await import("${specifier}/package.json", { with: { type: "json" } });
    console.log(import.meta.resolve("${specifier}/bin/workerd"));`;
  try {
    const { stdout } = await promisify(execFile)(Deno.execPath(), ["eval", "--no-lock", "--no-config", program]);
    return fileURLToPath(stdout.trim());
  } catch (cause) {
    throw new Error(`The edge cannot be tried: ${specifier} could not be fetched (${(cause as Error).message}).`);
  }
}

/** Cap'n Proto's text form, whose strings are written as JSON's are. */
function configuration(bindings: Readonly<Record<string, string>>): string {
  const bound = Object.entries(bindings)
    .map(([name, value]) => `(name = ${JSON.stringify(name)}, text = ${JSON.stringify(value)})`);
  return `using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [
    (name = "main", worker = .program),
    # By default only public addresses may be reached, and the database is on this machine.
    (name = "internet", network = (allow = ["private", "local"])),
  ],
  sockets = [(name = "http", http = (), service = "main")],
);

const program :Workerd.Worker = (
  modules = [(name = "worker.js", esModule = embed "worker.js")],
  compatibilityDate = "${COMPATIBILITY_DATE}",
  compatibilityFlags = ["nodejs_compat"],
  bindings = [${bound.join(", ")}],
);
`;
}

async function portOf(child: ChildProcess, ended: Promise<unknown>): Promise<number> {
  if (child.stdout === null) throw new Error("it has no output");
  const lines = createInterface({ input: child.stdout });
  const tooLate = AbortSignal.timeout(START_MS);
  try {
    const [line] = await Promise.race([
      once(lines, "line", { signal: tooLate }),
      ended.then(() => {
        throw new Error("it ended at once");
      }),
    ]);
    return (JSON.parse(String(line)) as { readonly port: number }).port;
  } finally {
    lines.close();
  }
}
