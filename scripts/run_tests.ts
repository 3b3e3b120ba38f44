/**
 * The test command: starts one PostgreSQL, runs every test and every documented example on it, stops it, and prints as its
 * last line `N passed, N failed`.
 *
 * Run: `deno task test [--again] [paths and flags of deno test]`. With `--again`, up to three files that failed are run again
 * when all others are through: a file that then passes three times of three counts as passed, and is named. Tests that cut
 * connections meet what drivers and a busy machine do once in thousands of runs; what fails more often still fails. What looks
 * for rare things by random sequences is never run again.
 *
 * @module
 */

import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { stripVTControlCharacters } from "node:util";
import { openTestServer, removeAbandonedTestServers } from "../test_support/mod.ts";
import {
  mayRunAgain,
  readFailedFiles,
  readFileTotals,
  readTestTotals,
  renderTestTotals,
  TIMES_AGAIN,
} from "./test_totals.ts";
import type { TestTotals } from "./test_totals.ts";

/** Where tests and runnable examples are. */
const TEST_PATHS = ["mod.ts", "core", "postgres", "runtime", "test_support", "scripts", "tests"];

/** Far longer than any test takes, types and downloads included. */
const SILENCE_MINUTES = 4;

if (import.meta.main) Deno.exitCode = await runTests(Deno.args);

/** What one run of `deno test` led to. */
interface TestRun {
  readonly code: number;
  readonly junit: string;
  readonly output: string;
}

/** Runs the tests and returns the exit code. Ctrl-C ends the tests, not the cleaning up. */
async function runTests(given: readonly string[]): Promise<number> {
  const args = given.filter((arg) => arg !== "--again");
  const folder = await mkdtemp(join(tmpdir(), "runledger-junit-"));
  const abort = new AbortController();
  const onSignal = () => abort.abort();
  process.on("SIGINT", onSignal).on("SIGTERM", onSignal);
  try {
    await removeAbandonedTestServers();
    // A server of its own: two runs in one checkout must not stop each other's.
    await using server = await openTestServer({ run: `run-${process.pid}`, ownerPid: process.pid });
    const report = join(folder, "junit.xml");
    const run = async (more: readonly string[]): Promise<TestRun> => {
      const { code, output } = await runDeno(testArguments(more, report), server.url, abort.signal);
      return { code, output, junit: await readFile(report, "utf8").catch(() => "") };
    };
    const first = await run(args);
    const totals = readTestTotals(first.junit, first.code);
    const isOver = first.code === 0 || args.length === given.length || abort.signal.aborted;
    const { code, ...figures } = isOver ? { code: first.code, ...totals } : await runAgain(first, totals, args, run);
    await server.stop();
    console.log(renderTestTotals(figures));
    return code;
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    console.log(renderTestTotals({ passed: 0, failed: 1, skipped: 0 }));
    return 1;
  } finally {
    process.off("SIGINT", onSignal).off("SIGTERM", onSignal);
    await rm(folder, { recursive: true, force: true });
  }
}

/** Runs the files that failed by themselves, and counts what they did then. */
async function runAgain(
  first: TestRun,
  totals: TestTotals,
  args: readonly string[],
  run: (args: readonly string[]) => Promise<TestRun>,
): Promise<TestTotals & { readonly code: number }> {
  const files = readFailedFiles(first.output);
  const errors = first.output.slice(first.output.lastIndexOf("\n ERRORS \n"));
  if (!mayRunAgain(files, errors) || !files.every((file) => existsSync(file))) return { code: first.code, ...totals };
  const flags = args.filter((arg) => arg.startsWith("-"));
  let { passed, failed, skipped } = totals;
  for (const file of files) {
    const runs: TestRun[] = [];
    while (runs.length < TIMES_AGAIN && runs.every(({ code }) => code === 0)) runs.push(await run([file, ...flags]));
    const good = runs.filter(({ code }) => code === 0).length;
    console.log(`AGAIN ${file}: failed, then passed ${good} times of ${runs.length}`);
    if (good < TIMES_AGAIN) return { code: 1, ...totals };
    const before = readFileTotals(first.junit, file);
    const since = readTestTotals(runs[0]?.junit ?? "", 0);
    passed += since.passed - before.passed;
    failed -= before.failed;
    skipped += since.skipped - before.skipped;
  }
  return { code: 0, passed, failed, skipped };
}

function testArguments(args: readonly string[], report: string): readonly string[] {
  const pathsGiven = args.some((arg) => !arg.startsWith("-") && existsSync(arg));
  const paths = pathsGiven ? [] : TEST_PATHS.filter((path) => existsSync(path));
  // The programs in READMEs need a database of their user's; their types are a gate of `deno task ok`.
  const readmes = paths.map((path) => join(path, "README.md")).filter((path) => existsSync(path));
  const ignored = readmes.length === 0 ? [] : [`--ignore=${readmes.join(",")}`];
  return ["test", "--allow-all", "--doc", "--permit-no-files", `--junit-path=${report}`, ...ignored, ...paths, ...args];
}

/** Runs `deno test` and ends it when it has printed nothing for too long: a test that hangs would hang CI. */
function runDeno(
  args: readonly string[],
  databaseUrl: string,
  signal: AbortSignal,
): Promise<{ readonly code: number; readonly output: string }> {
  const color = process.stdout.isTTY && process.env.NO_COLOR === undefined ? { FORCE_COLOR: "1" } : {};
  const env = { ...process.env, ...color, RUNLEDGER_TEST_DATABASE_URL: databaseUrl };
  const child = spawn(Deno.execPath(), args, { stdio: ["inherit", "pipe", "inherit"], env });
  const kill = () => {
    console.log(); // the name of the test that was running stands on a line that has not ended
    child.kill("SIGKILL");
  };
  signal.addEventListener("abort", kill);
  let silence: ReturnType<typeof setTimeout> | undefined;
  const listen = () => {
    clearTimeout(silence);
    silence = setTimeout(() => {
      console.log(`\nNothing for ${SILENCE_MINUTES} minutes: the test named last hangs. Ending the run.`);
      kill();
    }, SILENCE_MINUTES * 60_000);
  };
  listen();
  const decoder = new TextDecoder();
  let output = "";
  child.stdout.on("data", (chunk: Uint8Array) => {
    listen();
    process.stdout.write(chunk);
    output += decoder.decode(chunk, { stream: true });
  });
  return new Promise<{ readonly code: number; readonly output: string }>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code) => resolve({ code: code ?? 1, output: stripVTControlCharacters(output) }));
  }).finally(() => {
    clearTimeout(silence);
    signal.removeEventListener("abort", kill);
  });
}
