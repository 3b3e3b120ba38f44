/**
 * The little of `Deno` that the tests use, for Node and Bun. The tests of the npm build import it under that name.
 *
 * @module
 */

import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import process from "node:process";
import { Readable } from "node:stream";
import { pathToFileURL } from "node:url";
import { inspect } from "node:util";

/** A test that a module registered. */
export interface RegisteredTest {
  /** Its name. */
  readonly name: string;
  /** What it does. */
  readonly fn: () => void | Promise<void>;
}

/** What the modules that were loaded registered. */
export const registered: { readonly tests: RegisteredTest[]; readonly afterAll: RegisteredTest["fn"][] } = {
  tests: [],
  afterAll: [],
};

/** How a child process is started. */
interface CommandOptions {
  readonly args?: readonly string[];
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly stdin?: Stdio;
  readonly stdout?: Stdio;
  readonly stderr?: Stdio;
}

type Stdio = "piped" | "inherit" | "null";

/** How a child process ended. */
interface CommandStatus {
  readonly success: boolean;
  readonly code: number;
  readonly signal: NodeJS.Signals | null;
}

/** A child process that was started. */
interface StartedProcess {
  readonly pid: number;
  readonly status: Promise<CommandStatus>;
  readonly stdout: ReadableStream<Uint8Array>;
  readonly stderr: ReadableStream<Uint8Array>;
  /** Waits for its end, with what it wrote to what is piped. */
  output(): Promise<CommandStatus & { readonly stdout: Uint8Array; readonly stderr: Uint8Array }>;
  kill(signal?: NodeJS.Signals): void;
}

const STDIO = { piped: "pipe", inherit: "inherit", null: "ignore" } as const;

class Command {
  readonly #program: string;
  readonly #options: CommandOptions;

  constructor(program: string, options: CommandOptions = {}) {
    this.#program = program;
    this.#options = options;
  }

  spawn(): StartedProcess {
    const { args = [], cwd, env, stdin = "inherit", stdout = "inherit", stderr = "inherit" } = this.#options;
    const child = spawn(this.#program, withoutDenoFlags(args), {
      stdio: [STDIO[stdin], STDIO[stdout], STDIO[stderr]],
      ...(cwd === undefined ? {} : { cwd }),
      env: { ...process.env, ...env },
    });
    const status = new Promise<CommandStatus>((resolve, reject) => {
      child.once("error", reject);
      child.once("exit", (code, signal) => resolve({ success: code === 0, code: code ?? 1, signal }));
    });
    const output = webStream(child.stdout);
    const error = webStream(child.stderr);
    return {
      pid: child.pid ?? 0,
      status,
      stdout: output,
      stderr: error,
      async output() {
        const texts = await Promise.all([output, error].map((stream) => new Response(stream).arrayBuffer()));
        const [stdout, stderr] = texts.map((text) => new Uint8Array(text));
        return { ...await status, stdout: stdout ?? new Uint8Array(), stderr: stderr ?? new Uint8Array() };
      },
      kill: (signal = "SIGTERM") => killRunning(child, signal),
    };
  }
}

/** Node takes the path of a script where Deno takes `run`, flags and the path. */
function withoutDenoFlags(args: readonly string[]): readonly string[] {
  return args[0] === "run" ? args.slice(args.findIndex((arg, index) => index > 0 && !arg.startsWith("-"))) : args;
}

function webStream(stream: Readable | null): ReadableStream<Uint8Array> {
  return Readable.toWeb(stream ?? Readable.from([])) as ReadableStream<Uint8Array>;
}

/** As in Deno, a process that has ended cannot be killed. */
function killRunning(child: ChildProcess, signal: NodeJS.Signals): void {
  if (child.exitCode !== null || child.signalCode !== null || !child.kill(signal)) {
    throw new TypeError("The process has ended.");
  }
}

/** Node listens at once if it has no name to look up. */
function listen(): { readonly addr: AddressInfo; close(): void } {
  const server = createServer().listen(0);
  return { addr: server.address() as AddressInfo, close: () => server.close() };
}

function register(name: string, fn: RegisteredTest["fn"]): void {
  registered.tests.push({ name, fn });
}

/** What stands for the global of Deno. */
export interface DenoOnNode {
  /** The arguments of the program. */
  readonly args: readonly string[];
  /** Starts processes. */
  readonly Command: typeof Command;
  /** The path of the running Node or Bun. */
  readonly execPath: () => string;
  /** Prints a value for people. */
  readonly inspect: typeof inspect;
  /** Listens at a free port. */
  readonly listen: typeof listen;
  /** Registers a test. */
  readonly test: ((name: string, fn: RegisteredTest["fn"]) => void) & {
    /** Registers what is done when the tests of the module are over. */
    readonly afterAll: (fn: RegisteredTest["fn"]) => void;
  };
}

/** Stands for the global of Deno. */
export const denoOnNode: DenoOnNode = {
  args: process.argv.slice(2),
  Command,
  execPath: () => process.execPath,
  inspect,
  listen,
  test: Object.assign(register, { afterAll: (fn: RegisteredTest["fn"]) => void registered.afterAll.push(fn) }),
};

/** Stands for `import.meta.main`, which Node 20 does not have. */
export function isMainModule(url: string): boolean {
  return url === pathToFileURL(process.argv[1] ?? "").href;
}

/** Node 20 does not have it; the packages do not use it, tests do. */
Promise.withResolvers ??= function withResolvers<T>(): PromiseWithResolvers<T> {
  let resolve: PromiseWithResolvers<T>["resolve"] = () => {};
  let reject: PromiseWithResolvers<T>["reject"] = () => {};
  const promise = new Promise<T>((onResolve, onReject) => {
    resolve = onResolve;
    reject = onReject;
  });
  return { promise, resolve, reject };
};
