/**
 * The benchmarks still run: a smoke run of each, whose figures mean nothing.
 *
 * @module
 */

import { openTestServer } from "@runledger/test-support";
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

/** How many lines each benchmark has at least. */
const BENCHMARKS = { queue: 19, workflow: 14 } as const;

for (const [name, lines] of Object.entries(BENCHMARKS)) {
  Deno.test(`the ${name} benchmark measures each of its lines`, async () => {
    const { url } = await openTestServer();
    const folder = await mkdtemp(join(tmpdir(), "runledger-bench-test-"));
    try {
      const report = join(folder, `${name}.json`);
      const main = new URL("../bench/main.ts", import.meta.url).href;
      await promisify(execFile)(Deno.execPath(), ["run", "-A", main, name, "--quick", "--json", report], {
        env: { ...Deno.env.toObject(), DATABASE_URL: url },
      });
      const { figures } = JSON.parse(await readFile(report, "utf8")) as {
        readonly figures: readonly { readonly name: string; readonly ratio: number }[];
      };
      assert(figures.length >= lines, `${figures.length} lines`);
      for (const { name, ratio } of figures) assert(ratio > 0 && Number.isFinite(ratio), name);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });
}
