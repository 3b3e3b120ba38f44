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

Deno.test("the benchmark of operators measures each read", async () => {
  const { url } = await openTestServer();
  const folder = await mkdtemp(join(tmpdir(), "runledger-bench-test-"));
  try {
    const report = join(folder, "operators.json");
    const main = new URL("../bench/main.ts", import.meta.url).href;
    await promisify(execFile)(Deno.execPath(), ["run", "-A", main, "operators", "--quick", "--json", report], {
      env: { ...Deno.env.toObject(), DATABASE_URL: url },
    });
    const { figures } = JSON.parse(await readFile(report, "utf8")) as {
      readonly figures: readonly { readonly name: string; readonly medianMs: number }[];
    };
    assert(figures.length >= 80);
    for (const { name, medianMs } of figures) assert(medianMs > 0, name);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

Deno.test("the queue benchmark measures each of its lines", async () => {
  const { url } = await openTestServer();
  const folder = await mkdtemp(join(tmpdir(), "runledger-bench-test-"));
  try {
    const report = join(folder, "queue.json");
    const main = new URL("../bench/main.ts", import.meta.url).href;
    await promisify(execFile)(Deno.execPath(), ["run", "-A", main, "queue", "--quick", "--json", report], {
      env: { ...Deno.env.toObject(), DATABASE_URL: url },
    });
    const { figures } = JSON.parse(await readFile(report, "utf8")) as {
      readonly figures: readonly { readonly name: string; readonly ratio: number }[];
    };
    assert(figures.length >= 19);
    for (const { name, ratio } of figures) assert(ratio > 0 && Number.isFinite(ratio), name);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});
