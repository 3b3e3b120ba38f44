/**
 * Tests the npm build as its users have it: packed, installed in an empty folder, compiled against and run by Node and Bun.
 *
 * Run: `deno task test:npm`, for one runtime with its name behind it. The last line is `N passed, N failed`; tests that are left out are
 * not counted.
 *
 * @module
 */

import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readFile, realpath, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { createEphemeralDatabase, openTestServer, removeAbandonedTestServers } from "../test_support/mod.ts";
import { buildNpm, packNpm } from "./build_npm.ts";
import { compileConsumer, CONSUMER_TOOLS, findRuntime, installConsumer, programOf, stopAfter } from "./npm_consumer.ts";
import type { NpmRuntime } from "./npm_consumer.ts";
import { readWorkspace } from "./npm_package.ts";
import { compileTestFiles, findTestFiles, targetOf } from "./npm_test_files.ts";
import type { TestLayout } from "./npm_test_files.ts";
import { renderTestTotals } from "./test_totals.ts";

/** What runs the tests. A runtime that must be there and is not is a failure. */
const RUNTIMES = [
  { name: "node20", specifier: "node@20.20.2", isRequired: true, runsAll: true },
  { name: "node24", specifier: "node@24.9.0", isRequired: true, runsAll: false },
  { name: "bun", specifier: "bun@1.4.5", isRequired: false, runsAll: false },
] as const;

/** Where tests are. What lies in other folders is about tools of this repository, or takes long and is about SQL alone. */
const TEST_FOLDERS = ["core", "postgres", "runtime", "test_support", "tests"];

/** Test files that are not run here, with the reason. */
const LEFT_OUT: readonly (readonly [pattern: RegExp, reason: string])[] = [
  [/^tests\/(examples|bench|docs)_test/, "starts programs of this repository with Deno"],
  [/^tests\/edge_test/, "bundles the sources, as Deno has them, for a runtime of its own"],
  [/^test_support\/(embedded_postgres|ephemeral_database|file_lock|test_server)_test/, "starts peers with Deno"],
  [/^tests\/error_safety_test/, "reads the sources"],
  [
    /^tests\/(\w*plan|schedule_rivals|workflow_kill|\w*storm)_test/,
    "is about SQL, whatever sends it, and takes long",
  ],
  [/^tests\/(\w*model)_test/, "is about SQL, whatever sends it, and takes long"],
  [/^postgres\/schedule_cron_test/, "compares a cron parser with a slow one"],
];

/** What every runtime runs: drivers, processes and signals, timers, and what lies beside its module. */
const MAIN_FILES = [
  /^(core|postgres|runtime|test_support)\//,
  /^tests\/(driver_\w+|orm_handles|queryable|commit_unknown|job_path|supervisor|test_kit)_test/,
  /^tests\/worker_(outage|shutdown|transaction|wake)_test/,
];

/** Tests of other files that are left out: they are about Deno. */
const LEFT_OUT_NAMES = "Deno process";

/** What tests load by a name that is computed. */
const OPTIONAL_PACKAGES = ["@electric-sql/pglite@0.5.16"];

/** Tests wait for the database and for time more than they compute. */
const FILES_AT_ONCE = 3;

const ROOT = new URL("../", import.meta.url);

/** What was counted, and where it was laid out. */
interface Run {
  readonly layout: TestLayout;
  readonly files: readonly string[];
  readonly databaseUrl: string;
  passed: number;
  failed: number;
}

if (import.meta.main) Deno.exitCode = await testNpm(Deno.args);

async function testNpm(names: readonly string[]): Promise<number> {
  const folder = await realpath(await mkdtemp(join(tmpdir(), "runledger-npm-")));
  try {
    await removeAbandonedTestServers();
    const { members, pins } = await readWorkspace(ROOT);
    const target = fileURLToPath(new URL("npm", ROOT));
    const tarballs = await packNpm(await buildNpm(ROOT, target), target);
    const files = (await findTestFiles(fileURLToPath(ROOT), TEST_FOLDERS))
      .filter((path) => !LEFT_OUT.some(([pattern]) => pattern.test(path)));
    const layout = { root: fileURLToPath(ROOT).replace(/\/$/, ""), target: folder, built: target, members };
    const { modules, imported, versioned } = await compileTestFiles(layout, [...files, "tests/node/run_test_file.ts"]);
    const libraries = imported.flatMap((name) => pins[name] === undefined ? [] : [`${name}@${pins[name]}`]);
    const packages = [...tarballs, ...libraries, ...versioned, ...OPTIONAL_PACKAGES, ...CONSUMER_TOOLS];
    await installConsumer(folder, packages);
    for (const [path, text] of modules) {
      await mkdir(dirname(path), { recursive: true });
      await writeFile(path, text);
    }
    await using server = await openTestServer({ run: `npm-${process.pid}`, ownerPid: process.pid });
    const run: Run = { layout, files, databaseUrl: server.url, passed: 0, failed: 0 };
    await testTypes(run);
    for (const { name, specifier, isRequired, runsAll } of RUNTIMES) {
      if (names.length > 0 && !names.includes(name)) continue;
      const runtime = await findRuntime(name, specifier, folder);
      if (runtime === undefined) {
        console.log(`${specifier} does not run on this machine: NOT TESTED`);
        if (isRequired) run.failed++;
        continue;
      }
      await testProgram(run, runtime);
      await testFiles(
        run,
        runtime,
        runsAll ? files : files.filter((path) => MAIN_FILES.some((file) => file.test(path))),
      );
    }
    await server.stop();
    console.log(renderTestTotals({ passed: run.passed, failed: run.failed, skipped: 0 }));
    return run.failed === 0 ? 0 : 1;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** A consumer that is as strict as can be compiles, however it resolves imports. */
async function testTypes(run: Run): Promise<void> {
  const problems = await compileConsumer(run.layout.target, join(run.layout.root, "tests/node/consumer.ts"));
  for (const [resolution, text] of problems) console.log(`FAILED to compile with ${resolution} resolution\n${text}`);
  run.failed += problems.size;
  run.passed += 2 - problems.size;
  console.log(`types: a strict consumer with nodenext and with bundler resolution, ${problems.size} failed`);
}

/** The program of the README, as it stands there: migrates, enqueues, works, and ends well when it is asked to. */
async function testProgram(run: Run, runtime: NpmRuntime): Promise<void> {
  const readme = await readFile(new URL("README.md", ROOT), "utf8");
  const script = join(run.layout.target, "main.js");
  await writeFile(script, programOf(readme, "Five minutes with Node", "js"));
  await using database = await createEphemeralDatabase({ migrated: false, serverUrl: run.databaseUrl });
  const text = "attempt 1: an email to ada@example.com";
  const env = { DATABASE_URL: database.url };
  const { end, output } = await stopAfter(runtime, script, { env, text, cwd: run.layout.target });
  const isGood = end === 0 && output.includes(text);
  if (isGood) run.passed++;
  else run.failed++;
  if (!isGood) console.log(`FAILED ${runtime.name}: the program of the README ended with ${end}\n${output}`);
}

/** Runs test files, each in a process of its own, a few at once. */
async function testFiles(run: Run, runtime: NpmRuntime, files: readonly string[]): Promise<void> {
  const started = performance.now();
  const before = run.passed;
  const waiting = [...files];
  const work = async () => {
    for (let file = waiting.shift(); file !== undefined; file = waiting.shift()) {
      const { output, figures } = await runTestFile(run, runtime, file);
      run.passed += figures.passed;
      run.failed += figures.failed;
      if (figures.failed > 0) console.log(`FAILED ${runtime.name}: ${file}\n${output}`);
    }
  };
  await Promise.all(Array.from({ length: FILES_AT_ONCE }, work));
  const seconds = ((performance.now() - started) / 1000).toFixed(0);
  console.log(`${runtime.specifier}: ${run.passed - before} tests of ${files.length} files passed in ${seconds} s`);
}

async function runTestFile(
  run: Run,
  { program }: NpmRuntime,
  file: string,
): Promise<{ readonly output: string; readonly figures: { readonly passed: number; readonly failed: number } }> {
  const runner = targetOf(run.layout, "tests/node/run_test_file.ts");
  const args = [runner, targetOf(run.layout, file), LEFT_OUT_NAMES];
  const env = { ...process.env, RUNLEDGER_TEST_DATABASE_URL: run.databaseUrl };
  const output = await new Promise<string>((resolve) => {
    execFile(program, args, { cwd: run.layout.target, env, timeout: 240_000, maxBuffer: 64 * 1024 * 1024 }, (
      _error,
      stdout,
      stderr,
    ) => resolve(stdout + stderr));
  });
  // Without its figures a process has not come to its end.
  const figures = /^\{"passed":.*\}$/m.exec(output)?.[0];
  return { output, figures: figures === undefined ? { passed: 0, failed: 1 } : JSON.parse(figures) };
}
