/**
 * `deno task bench <name> [options]`: runs one benchmark.
 *
 * @module
 */

import process from "node:process";

const BENCHMARKS: Readonly<Record<string, () => Promise<{ main(args: readonly string[]): Promise<void> }>>> = {
  disk: () => import("./disk.ts"),
  operators: () => import("./operators.ts"),
  queue: () => import("./queue.ts"),
  worker: () => import("./worker.ts"),
  workflow: () => import("./workflow.ts"),
};

if (import.meta.main) {
  const [name = "", ...args] = Deno.args;
  const load = BENCHMARKS[name];
  if (load === undefined) {
    console.error(
      `Usage: deno task bench <name> [options], where name is one of: ${Object.keys(BENCHMARKS).join(", ")}`,
    );
    process.exitCode = 2;
  } else {
    await (await load()).main(args);
  }
}
