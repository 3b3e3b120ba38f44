/**
 * A worker process of the benchmark, and the program that it is: its parent tells it by lines on stdin when to start, to
 * say what it has used, and to stop; it answers by lines of JSON on stdout.
 *
 * @module
 */

import { spawn } from "node:child_process";
import { once } from "node:events";
import process from "node:process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { setTimeout as delay } from "node:timers/promises";
import { systemOf } from "./worker_systems.ts";

/** What a worker process runs. */
export interface WorkerTask {
  /** One of the systems, by name. */
  readonly system: string;
  readonly url: string;
  /** How long a handler waits, in milliseconds. */
  readonly handlerMs: number;
}

/** What a worker process has done so far. */
export interface WorkerUse {
  /** Handlers that ended. */
  readonly ran: number;
  /** CPU time since the start was asked for, in milliseconds. */
  readonly cpuMs: number;
  /** The heap in use after a collection, in bytes. */
  readonly heapBytes: number;
}

/** A worker process, seen by its parent. */
export interface WorkerProcess {
  /** Starts the worker; resolves when it runs. */
  start(): Promise<void>;
  /** What it has done and used; collects garbage. */
  use(): Promise<WorkerUse>;
  /** Enqueue to start of the jobs since it was asked last, in milliseconds. */
  latencies(): Promise<readonly number[]>;
  /** Stops the worker and the process. */
  stop(): Promise<void>;
}

/** What a worker process is run by: a program, and its arguments before the task. */
export interface WorkerRuntime {
  readonly program: string;
  readonly args: readonly string[];
}

/** This Deno, and this module as it stands. */
export const DENO: WorkerRuntime = {
  program: process.execPath,
  args: ["run", "-A", "--v8-flags=--expose-gc", fileURLToPath(import.meta.url)],
};

/** Spawns a process that is ready to start. */
export async function spawnWorker(task: WorkerTask, { program, args }: WorkerRuntime = DENO): Promise<WorkerProcess> {
  const child = spawn(program, [...args, JSON.stringify(task)], { stdio: ["pipe", "pipe", "inherit"] });
  const ended = once(child, "exit");
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const answer = async (): Promise<string> => {
    const { value, done } = await lines.next();
    if (done === true) throw new Error(`a worker process of ${task.system} ended`);
    return value;
  };
  const ask = async (command: string): Promise<string> => {
    child.stdin.write(`${command}\n`);
    return await answer();
  };
  await answer();
  return {
    start: async () => void await ask("start"),
    use: async () => JSON.parse(await ask("use")) as WorkerUse,
    latencies: async () => JSON.parse(await ask("latencies")) as readonly number[],
    stop: async () => {
      await ask("stop");
      await ended;
    },
  };
}

/** Now, in milliseconds since 1970, finer than `Date.now()`. */
export function preciseNow(): number {
  return performance.timeOrigin + performance.now();
}

if (import.meta.main) await serve(JSON.parse(process.argv[2] ?? "{}") as WorkerTask);

async function serve({ system, url, handlerMs }: WorkerTask): Promise<void> {
  const { startWorker } = systemOf(system);
  let ran = 0;
  let latencies: number[] = [];
  let startedCpu = process.cpuUsage();
  let worker: { close(): Promise<void> } | undefined;
  const handler = async ({ sentAt }: { readonly sentAt: number }): Promise<void> => {
    if (sentAt > 0) latencies.push(preciseNow() - sentAt);
    if (handlerMs > 0) await delay(handlerMs);
    ran++;
  };
  const say = (value: unknown) => process.stdout.write(`${JSON.stringify(value)}\n`);
  say("ready");
  for await (const command of createInterface({ input: process.stdin })) {
    if (command === "start") {
      startedCpu = process.cpuUsage();
      worker = await startWorker(url, handler);
      say("started");
    } else if (command === "use") {
      const { user, system } = process.cpuUsage(startedCpu);
      const { gc } = globalThis as { readonly gc?: () => void };
      gc?.();
      say({ ran, cpuMs: (user + system) / 1000, heapBytes: process.memoryUsage().heapUsed });
    } else if (command === "latencies") {
      say(latencies);
      latencies = [];
    } else {
      await worker?.close();
      say("stopped");
      break;
    }
  }
  // Connections of the peers' pools may linger.
  process.exit(0);
}
