/**
 * Tries the tests: breaks a copy of the code in one place after the other and runs the tests on it. Nothing is written to the
 * checkout. The exit code is 1 when a mutant survives or no longer applies.
 *
 * Run: `deno task test:mutants [words of mutant names]`.
 *
 * @module
 */

import { spawn } from "node:child_process";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { existsSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { openTestServer } from "../../test_support/mod.ts";
import { MUTANTS } from "./mutants.ts";
import type { Edit, Mutant, Suite } from "./mutants.ts";
import { WORKFLOW_MUTANTS } from "./workflow_mutants.ts";
import type { WorkflowMutant, WorkflowSuite } from "./workflow_mutants.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const FOLDERS = ["core", "postgres", "runtime", "migrations", "scripts", "test_support", "tests", "examples"];
const FILES = ["deno.json", "deno.lock", "mod.ts"];
/** What the migrations are embedded into. */
const MIGRATIONS = "postgres/_migrations.ts";
const LANES = 2;

/** Of how many mutants one is tried, which is another one each time: CI has not the time for all. */
const EVERY = Number(process.env["RUNLEDGER_MUTANTS_EVERY"] ?? 1);
const SHIFT = Math.floor(Math.random() * EVERY);

/** A copy of the checkout and a server of its own. */
interface Lane extends AsyncDisposable {
  readonly folder: string;
  readonly databaseUrl: string;
}

type AnyMutant = Mutant | WorkflowMutant;
type AnySuite = Suite | WorkflowSuite;

interface Verdict {
  readonly mutant: string;
  readonly isCaught: boolean;
  readonly by: string;
  readonly seconds: number;
}

/** What shows that it was a test that failed, and not the attempt to run any. */
const TEST_FAILED = /FAILED \| \d+ passed [^]*\| [1-9]\d* failed/;

/** What shows that a mutant is no SQL rather than wrong SQL: every test would find it, and none would be tried. */
const NO_SQL = /syntax error|does not exist|could not determine data type|is ambiguous|schema\.outdated|SyntaxError/;

/** How often the interleavings that a mutant should break are looked at, until they do. */
const LOOKS = 5;

/** What is tried on a mutant that its own suite does not find. */
const JOB_SUITES: readonly Suite[] = ["model", "path", "clock", "interleaving "];
const WORKFLOW_SUITES: readonly WorkflowSuite[] = ["workflow", "workflow interleaving "];

if (import.meta.main) Deno.exitCode = await runMutants(Deno.args);

async function runMutants(words: readonly string[]): Promise<number> {
  const chosen = [...MUTANTS, ...WORKFLOW_MUTANTS].filter(({ name }) => words.every((word) => name.includes(word)))
    .filter((_, index) => (index + SHIFT) % EVERY === 0);
  const queue = [...chosen];
  const verdicts: Verdict[] = [];
  const started = performance.now();
  await Promise.all(Array.from({ length: LANES }, async (_, number) => {
    await using lane = await openLane(number);
    if (number === 0) await assertUnbrokenPasses(lane, chosen);
    for (let mutant = queue.shift(); mutant !== undefined; mutant = queue.shift()) {
      const verdict = await tryMutant(lane, mutant);
      verdicts.push(verdict);
      const { isCaught, by, seconds } = verdict;
      console.log(
        `${isCaught ? "caught  " : by === "" ? "SURVIVED" : "FAILED  "} ${seconds.toFixed(1).padStart(5)} s  ${
          mutant.name.padEnd(52)
        } ${by}`,
      );
    }
  }));
  const caught = verdicts.filter(({ isCaught }) => isCaught);
  const seconds = caught.map((verdict) => verdict.seconds).sort((one, other) => one - other);
  const median = seconds[Math.floor(seconds.length / 2)] ?? 0;
  const total = (performance.now() - started) / 1000;
  console.log(
    `caught ${caught.length} of ${chosen.length}, median ${median.toFixed(1)} s, all in ${total.toFixed(0)} s`,
  );
  return caught.length === chosen.length ? 0 : 1;
}

async function openLane(number: number): Promise<Lane> {
  const folder = await mkdtemp(join(tmpdir(), "runledger-mutants-"));
  for (const name of [...FOLDERS, ...FILES]) {
    if (existsSync(join(ROOT, name))) await cp(join(ROOT, name), join(folder, name), { recursive: true });
  }
  // Lanes must not share a server: a template database of other migrations is dropped by whoever makes the next.
  const server = await openTestServer({ run: `mutants-${process.pid}-${number}`, ownerPid: process.pid });
  return {
    folder,
    databaseUrl: server.url,
    async [Symbol.asyncDispose]() {
      await server.stop();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** A test that fails anyway would catch everything. */
async function assertUnbrokenPasses(lane: Lane, chosen: readonly AnyMutant[]): Promise<void> {
  const isForWorkflows = chosen.some(({ suite }) => suite.startsWith("workflow"));
  const isForJobs = chosen.some(({ suite }) => !suite.startsWith("workflow"));
  const suites: readonly AnySuite[] = [
    ...(isForJobs ? ["model", "path", "clock", "interleaving ^succeed$"] as const : []),
    ...(isForWorkflows ? ["workflow", "workflow interleaving ^append$"] as const : []),
  ];
  for (const suite of suites) {
    const { code, output } = await runSuite(lane, suite);
    if (code !== 0) throw new Error(`the tests fail without any mutant: ${suite}\n${output}`);
  }
}

async function tryMutant(lane: Lane, mutant: AnyMutant): Promise<Verdict> {
  const started = performance.now();
  const files = new Set(mutant.edits.map(({ file }) => file));
  // Not from the checkout afterwards: somebody may be at work there.
  const unbroken = new Map<string, string>();
  for (const file of [...files, MIGRATIONS]) unbroken.set(file, await readFile(join(lane.folder, file), "utf8"));
  try {
    await applyEdits(lane, mutant);
    if ([...files].some((file) => file.startsWith("migrations/"))) {
      const { code, output } = await runDeno(lane, ["run", "--allow-all", "scripts/embed_migrations.ts"]);
      if (code !== 0) throw new Error(output);
    }
    const others = mutant.suite.startsWith("workflow") ? WORKFLOW_SUITES : JOB_SUITES;
    // Of several that wait for a lock the server wakes now one first, now another: one look at an interleaving may miss it.
    const looks = mutant.suite.includes("interleaving") ? LOOKS : 1;
    const own = Array.from({ length: looks }, () => mutant.suite);
    const suites = [...own, ...others.filter((name) => name !== mutant.suite)];
    for (const suite of suites) {
      const { code, output } = await runSuite(lane, suite);
      if (code === 0) continue;
      const noSql = TEST_FAILED.test(output) ? NO_SQL.exec(output)?.[0] : "no test ran";
      const seconds = (performance.now() - started) / 1000;
      if (noSql !== undefined) {
        return { mutant: mutant.name, isCaught: false, by: `is broken itself: ${noSql}\n${output}`, seconds };
      }
      return { mutant: mutant.name, isCaught: true, by: suite, seconds };
    }
    return { mutant: mutant.name, isCaught: false, by: "", seconds: (performance.now() - started) / 1000 };
  } catch (error) {
    const by = error instanceof Error ? error.message : String(error);
    return { mutant: mutant.name, isCaught: false, by, seconds: (performance.now() - started) / 1000 };
  } finally {
    for (const [file, text] of unbroken) await writeFile(join(lane.folder, file), text);
  }
}

async function applyEdits(lane: Lane, mutant: AnyMutant): Promise<void> {
  for (const edit of mutant.edits) {
    const path = join(lane.folder, edit.file);
    await writeFile(path, applyEdit(await readFile(path, "utf8"), edit));
  }
}

/** Makes an edit, or says that it does not apply. */
export function applyEdit(text: string, edit: Edit): string {
  const start = edit.after === undefined ? 0 : text.indexOf(edit.after);
  if (start < 0) throw new Error(`does not apply: ${edit.file} has no "${edit.after}"`);
  const words = edit.from.split(/\s+/).map((word) => word.replaceAll(/[\\^$.*+?()[\]{}|]/g, "\\$&"));
  const pattern = new RegExp(words.join("\\s+"), edit.isEverywhere === true ? "g" : "");
  const rest = text.slice(start);
  if (!pattern.test(rest)) throw new Error(`does not apply: ${edit.file} has no "${edit.from}"`);
  pattern.lastIndex = 0;
  return text.slice(0, start) + rest.replace(pattern, () => edit.to);
}

function runSuite(lane: Lane, suite: AnySuite): Promise<{ readonly code: number; readonly output: string }> {
  const path = pathOf(suite);
  const env = {
    RUNLEDGER_MODEL_RUNS: "300",
    RUNLEDGER_MODEL_SEED: "1",
    RUNLEDGER_MODEL_SHRINK: "0",
    RUNLEDGER_INTERLEAVING_ONLY: suite.replace(/^(workflow )?interleaving /, ""),
    RUNLEDGER_INTERLEAVING_TRIPLES: "0",
  };
  return runDeno(lane, ["test", "--allow-all", "--no-check", "--fail-fast", path], env);
}

function pathOf(suite: AnySuite): string {
  if (suite === "model") return "tests/model_test.ts";
  if (suite === "path") return "tests/job_path_test.ts";
  if (suite === "clock") return "tests/interleaving/lease_clock_test.ts";
  if (suite === "workflow") return "tests/workflow_test.ts";
  return `tests/interleaving/${suite.startsWith("workflow") ? "workflow_" : ""}interleaving_test.ts`;
}

function runDeno(
  lane: Lane,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<{ readonly code: number; readonly output: string }> {
  const child = spawn(Deno.execPath(), args, {
    cwd: lane.folder,
    env: { ...process.env, NO_COLOR: "1", RUNLEDGER_TEST_DATABASE_URL: lane.databaseUrl, ...env },
  });
  let output = "";
  child.stdout.on("data", (chunk) => (output += chunk));
  child.stderr.on("data", (chunk) => (output += chunk));
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code) => resolve({ code: code ?? 1, output }));
  });
}
