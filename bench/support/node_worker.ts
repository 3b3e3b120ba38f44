/**
 * The worker process of the benchmark on Node: the built packages, installed by npm in a folder of their own.
 *
 * @module
 */

import { mkdir, mkdtemp, realpath, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { buildNpm, packNpm } from "../../scripts/build_npm.ts";
import { findRuntime, installConsumer } from "../../scripts/npm_consumer.ts";
import { readWorkspace } from "../../scripts/npm_package.ts";
import { compileTestFiles, targetOf } from "../../scripts/npm_test_files.ts";
import type { WorkerRuntime } from "./worker_process.ts";

const ROOT = new URL("../../", import.meta.url);

const MODULE = "bench/support/worker_process.ts";

/** Builds and installs everything; it is removed again with the runtime. */
export async function installNodeWorker(): Promise<WorkerRuntime & AsyncDisposable> {
  const folder = await realpath(await mkdtemp(join(tmpdir(), "runledger-bench-node-")));
  const remove = () => rm(folder, { recursive: true, force: true });
  try {
    const { members, pins } = await readWorkspace(ROOT);
    const built = fileURLToPath(new URL("npm", ROOT));
    const tarballs = await packNpm(await buildNpm(ROOT, built), built);
    const layout = { root: fileURLToPath(ROOT).replace(/\/$/, ""), target: folder, built, members };
    const { modules, imported } = await compileTestFiles(layout, [MODULE]);
    const libraries = imported.flatMap((name) => pins[name] === undefined ? [] : [`${name}@${pins[name]}`]);
    await installConsumer(folder, [...tarballs, ...libraries]);
    for (const [path, text] of modules) {
      await mkdir(dirname(path), { recursive: true });
      await writeFile(path, text);
    }
    const node = await findRuntime("node", "node@24.9.0", folder);
    if (node === undefined) throw new Error("Node does not run on this machine");
    return {
      program: node.program,
      args: ["--expose-gc", targetOf(layout, MODULE)],
      [Symbol.asyncDispose]: remove,
    };
  } catch (error) {
    await remove();
    throw error;
  }
}
