/**
 * A child process that the harness may harm.
 *
 * @module
 */

import { readFileSync } from "node:fs";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { JournalWriter } from "./journal.ts";
import { within } from "./waiting.ts";

/** How a process ended. */
export interface ChildEnd {
  readonly code: number | null;
  readonly signal: string | null;
}

/** A running script. */
export interface Child {
  readonly pid: number;
  /** Resolves with what it was asked to print: "ready" by workers. */
  readonly ready: Promise<void>;
  /** Resolves when it has ended; the journal says so by then. */
  readonly ended: Promise<ChildEnd>;
  readonly hasEnded: boolean;
  /** Whether the harness sent it a signal that ends it. */
  readonly wasEnded: boolean;
  /** What it printed. */
  readonly output: string;
  /** What it complained about. */
  readonly errors: string;
  /** Sends a signal; gives false when the process had ended. */
  kill(signal: Deno.Signal): boolean;
  /** Resolves when it has been stopped by SIGSTOP. */
  stopped(): Promise<void>;
}

/** Starts a script of this folder with options as its only argument. */
export function startChild(script: string, options: object, journalPath: string): Child {
  const path = fileURLToPath(new URL(script, import.meta.url));
  const args = ["run", "--allow-all", "--no-check", "--quiet", path, JSON.stringify(options)];
  const child = new Deno.Command(Deno.execPath(), { args, stdout: "piped", stderr: "piped" }).spawn();
  const { pid } = child;
  let output = "";
  let errors = "";
  let hasEnded = false;
  let wasEnded = false;
  const ready = Promise.withResolvers<void>();
  ready.promise.catch(() => {});
  const read = Promise.all([
    readText(child.stdout, (text) => {
      output += text;
      if (output.includes("ready\n")) ready.resolve();
    }),
    readText(child.stderr, (text) => errors += text),
  ]);
  const follow = async () => {
    const { code, signal } = await child.status;
    await read;
    hasEnded = true;
    using journal = new JournalWriter(journalPath);
    journal.write("dead", { pid, note: String(signal ?? code) });
    ready.reject(new Error(`process ${pid} ended with ${signal ?? code} before it was ready:\n${errors}`));
    return { code: signal === null ? code : null, signal };
  };
  return {
    pid,
    ready: ready.promise,
    ended: follow(),
    get hasEnded() {
      return hasEnded;
    },
    get wasEnded() {
      return wasEnded;
    },
    get output() {
      return output;
    },
    get errors() {
      return errors;
    },
    kill(signal) {
      try {
        child.kill(signal);
        wasEnded ||= signal !== "SIGCONT";
        return true;
      } catch {
        return false; // it has ended
      }
    },
    async stopped() {
      await within(`process ${pid} is stopped`, () => isStopped(pid));
    },
  };
}

async function readText(stream: ReadableStream<Uint8Array>, take: (text: string) => void): Promise<void> {
  const decoder = new TextDecoder();
  for await (const chunk of stream) take(decoder.decode(chunk, { stream: true }));
}

function isStopped(pid: number): boolean {
  if (process.platform !== "linux") throw new Error("whether a process is stopped is looked up in /proc");
  // The state follows the command, which stands in parentheses.
  return / [Tt] /.test(readFileSync(`/proc/${pid}/stat`, "utf8").replace(/^.*\)/, ""));
}
