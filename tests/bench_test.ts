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
import { readBenchOptions } from "../bench/support/command_line.ts";

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

Deno.test("the worker benchmark drains, times and watches each of its systems", async () => {
  const { url } = await openTestServer();
  const folder = await mkdtemp(join(tmpdir(), "runledger-bench-test-"));
  try {
    const report = join(folder, "worker.json");
    const main = new URL("../bench/main.ts", import.meta.url).href;
    await promisify(execFile)(Deno.execPath(), ["run", "-A", main, "worker", "--quick", "--json", report], {
      env: { ...Deno.env.toObject(), DATABASE_URL: url },
    });
    const { figures, latencies, paces, heapBytes } = JSON.parse(await readFile(report, "utf8")) as {
      readonly figures: readonly { readonly name: string; readonly ratio: number; readonly walBytes: number }[];
      readonly latencies: readonly { readonly idle: { readonly count: number; readonly p99: number } }[];
      readonly paces: readonly { readonly latency: { readonly count: number; readonly p50: number } }[];
      readonly heapBytes: readonly number[];
    };
    assert.equal(figures.length, 14);
    for (const { name, ratio, walBytes } of figures) {
      assert(ratio > 0 && Number.isFinite(ratio), name);
      assert(walBytes > 0, name);
    }
    assert.equal(latencies.length, 4);
    for (const { idle } of latencies) assert(idle.count === 3 && Number.isFinite(idle.p99));
    assert.equal(paces.length, 2);
    for (const { latency } of paces) assert(latency.count > 0 && Number.isFinite(latency.p50));
    assert.equal(heapBytes.length, 10);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

Deno.test("the disk benchmark tells what each kind of work leaves in each table", async () => {
  const { url } = await openTestServer();
  const folder = await mkdtemp(join(tmpdir(), "runledger-bench-test-"));
  try {
    const report = join(folder, "disk.json");
    const main = new URL("../bench/main.ts", import.meta.url).href;
    await promisify(execFile)(Deno.execPath(), ["run", "-A", main, "disk", "--quick", "--json", report], {
      env: { ...Deno.env.toObject(), DATABASE_URL: url },
    });
    const { figures } = JSON.parse(await readFile(report, "utf8")) as {
      readonly figures: readonly {
        readonly totalBytes: number;
        readonly tableBytes: Readonly<Record<string, number>>;
      }[];
    };
    assert.equal(figures.length, 3);
    for (const { totalBytes, tableBytes } of figures) {
      assert(totalBytes > 500);
      assert((tableBytes["job_queue"] ?? 0) > 0 && (tableBytes["job_events"] ?? 0) > 0);
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

Deno.test("a benchmark refuses an option that it does not know, and a number that is none", () => {
  for (const args of [["--rounds", "abc"], ["--rounds", "0"], ["--rounds", "1.5"], ["--scale", "3"], ["--rounds"]]) {
    assert.throws(() => readBenchOptions(args, ["rounds"]), TypeError, args.join(" "));
  }
  assert.equal(readBenchOptions(["--rounds", "3"], ["rounds"]).count("rounds", { quick: 1, whole: 7 }), 3);
  assert.equal(readBenchOptions(["--quick"], ["rounds"]).count("rounds", { quick: 1, whole: 7 }), 1);
});
