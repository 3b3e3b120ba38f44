/**
 * The test command: starts one PostgreSQL, runs every test and every documented example on it, stops it, and prints as its
 * last line `N passed, N failed`.
 *
 * Run: `deno task test [paths and flags of deno test]`.
 *
 * @module
 */

import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { openTestServer, removeAbandonedTestServers } from "../test_support/mod.ts";
import { readTestTotals, renderTestTotals } from "./test_totals.ts";

/** Where tests and runnable examples are. */
const TEST_PATHS = ["mod.ts", "core", "postgres", "runtime", "test_support", "scripts", "tests"];

/** Far longer than any test takes, types and downloads included. */
const SILENCE_MINUTES = 4;

if (import.meta.main) Deno.exitCode = await runTests(Deno.args);

/** Runs the tests and returns the exit code. Ctrl-C ends the tests, not the cleaning up. */
async function runTests(args: readonly string[]): Promise<number> {
  const folder = await mkdtemp(join(tmpdir(), "runledger-junit-"));
  const report = join(folder, "junit.xml");
  const abort = new AbortController();
  const onSignal = () => abort.abort();
  process.on("SIGINT", onSignal).on("SIGTERM", onSignal);
  try {
    await removeAbandonedTestServers();
    // A server of its own: two runs in one checkout must not stop each other's.
    await using server = await openTestServer({ run: `run-${process.pid}`, ownerPid: process.pid });
    const code = await runDeno(testArguments(args, report), server.url, abort.signal);
    const totals = readTestTotals(await readFile(report, "utf8").catch(() => ""), code);
    await server.stop();
    console.log(renderTestTotals(totals));
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

function testArguments(args: readonly string[], report: string): readonly string[] {
  const pathsGiven = args.some((arg) => !arg.startsWith("-") && existsSync(arg));
  const paths = pathsGiven ? [] : TEST_PATHS.filter((path) => existsSync(path));
  // The programs in READMEs need a database of their user's; their types are a gate of `deno task ok`.
  const readmes = paths.map((path) => join(path, "README.md")).filter((path) => existsSync(path));
  const ignored = readmes.length === 0 ? [] : [`--ignore=${readmes.join(",")}`];
  return ["test", "--allow-all", "--doc", "--permit-no-files", `--junit-path=${report}`, ...ignored, ...paths, ...args];
}

/** Runs `deno test` and ends it when it has printed nothing for too long: a test that hangs would hang CI. */
function runDeno(args: readonly string[], databaseUrl: string, signal: AbortSignal): Promise<number> {
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
  child.stdout.on("data", (chunk: Uint8Array) => {
    listen();
    process.stdout.write(chunk);
  });
  return new Promise<number>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code) => resolve(code ?? 1));
  }).finally(() => {
    clearTimeout(silence);
    signal.removeEventListener("abort", kill);
  });
}
