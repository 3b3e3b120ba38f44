/**
 * Injects faults into real processes and checks afterwards that every promise was kept.
 *
 * Run: `deno task test:faults [--short] [--strict] [--seed=N] [words of scenario names]`. The last line is
 * `N passed, N failed[, N skipped]`; the exit code is 1 when something failed. `--strict` makes what is not installed a
 * failure.
 *
 * @module
 */

import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { CUT_CONNECTIONS } from "./cut_connections.ts";
import { KILL_POSTGRES } from "./kill_postgres.ts";
import { KILL_WORKER } from "./kill_worker.ts";
import { DRAIN_BOUND_MS, Lab } from "./lab.ts";
import type { Figures } from "./lab.ts";
import { NARROW_ROADS } from "./narrow_roads.ts";
import { startOwnServer } from "./own_server.ts";
import { findPgBouncer } from "./pgbouncer.ts";
import { POISON } from "./poison.ts";
import { RIVALS } from "./rivals.ts";
import type { Scenario } from "./scenario.ts";
import { STOP_WORKER } from "./stop_worker.ts";

const SCENARIOS: readonly Scenario[] = [
  ...KILL_WORKER,
  ...STOP_WORKER,
  ...KILL_POSTGRES,
  ...CUT_CONNECTIONS,
  ...NARROW_ROADS,
  ...RIVALS,
  ...POISON,
];

/** Scenarios mostly wait for leases, so a few share the machine. */
const LANES = 3;

/** Longer than any scenario takes, on a slow machine. */
const SCENARIO_MINUTES = 6;

/** What the command line says. */
interface RunOptions {
  readonly isShort: boolean;
  readonly isStrict: boolean;
  readonly seed: number;
  readonly words: readonly string[];
}

/** What became of a scenario. */
interface Outcome {
  readonly scenario: Scenario;
  readonly status: "passed" | "failed" | "skipped";
  readonly seconds: number;
  readonly figures?: Figures;
  readonly problem?: unknown;
  /** What workers reported last, when it failed. */
  readonly lastWords?: readonly string[];
}

if (import.meta.main) Deno.exitCode = await runFaults(readArguments(Deno.args));

function readArguments(args: readonly string[]): RunOptions {
  const seed = args.find((arg) => arg.startsWith("--seed="))?.slice("--seed=".length);
  return {
    isShort: args.includes("--short"),
    isStrict: args.includes("--strict"),
    seed: seed === undefined ? Date.now() % 1_000_000 : Number(seed),
    words: args.filter((arg) => !arg.startsWith("--")),
  };
}

async function runFaults(options: RunOptions): Promise<number> {
  const folder = await mkdtemp(join(tmpdir(), "runledger-faults-"));
  const abort = () => process.exit(1);
  process.on("SIGINT", abort).on("SIGTERM", abort);
  const chosen = SCENARIOS.filter(({ name, isLongOnly }) =>
    options.words.every((word) => name.toLowerCase().includes(word.toLowerCase())) &&
    !(options.isShort && isLongOnly === true)
  );
  const server = await startOwnServer(folder);
  console.log(`${options.isShort ? "short" : "full"} form, seed ${options.seed}, ${chosen.length} scenarios`);
  const began = performance.now();
  const outcomes: Outcome[] = [];
  const queue = [...chosen.entries()];
  try {
    await Promise.all(Array.from({ length: LANES }, async () => {
      for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
        const [number, scenario] = next;
        const outcome = await runScenario(scenario, options, {
          serverUrl: server.url,
          folder: join(folder, String(number)),
          seed: options.seed + number,
        });
        outcomes.push(outcome);
        report(outcome);
      }
    }));
  } finally {
    await server.stop();
    await rm(folder, { recursive: true, force: true });
    process.off("SIGINT", abort).off("SIGTERM", abort);
  }
  summarize(outcomes, (performance.now() - began) / 1000);
  return outcomes.some(({ status }) => status === "failed") ? 1 : 0;
}

async function runScenario(
  scenario: Scenario,
  { isShort, isStrict }: RunOptions,
  place: { readonly serverUrl: string; readonly folder: string; readonly seed: number },
): Promise<Outcome> {
  const began = performance.now();
  const seconds = () => (performance.now() - began) / 1000;
  if (scenario.needs === "pgbouncer" && findPgBouncer() === undefined && !isStrict) {
    return { scenario, status: "skipped", seconds: 0 };
  }
  let timer: ReturnType<typeof setTimeout> | undefined;
  let lastWords: readonly string[] = [];
  try {
    await mkdir(place.folder, { recursive: true });
    const own = scenario.harmsServer === true ? await startOwnServer(place.folder) : undefined;
    try {
      const options = { ...place, isShort, ...(own === undefined ? {} : { serverUrl: own.url, server: own }) };
      await using lab = await Lab.open(options);
      const late = new Promise<never>((_, reject) => {
        const giveUp = () => reject(new Error(`it takes longer than ${SCENARIO_MINUTES} minutes`));
        timer = setTimeout(giveUp, SCENARIO_MINUTES * 60_000);
      });
      const run = scenario.run(lab).then(() => lab.conclude());
      await Promise.race([late, run]).catch((problem) => {
        lastWords = lab.lastWords(20);
        throw problem;
      });
      return { scenario, status: "passed", seconds: seconds(), figures: lab.figures };
    } finally {
      clearTimeout(timer);
      await own?.stop();
    }
  } catch (problem) {
    return { scenario, status: "failed", seconds: seconds(), problem, lastWords };
  }
}

function report({ scenario, status, seconds, figures, problem, lastWords = [] }: Outcome): void {
  const words = status === "passed" ? "ok  " : status === "failed" ? "FAIL" : "skip";
  console.log(
    `${words} ${seconds.toFixed(1).padStart(6)} s  ${scenario.name.padEnd(42)} ${describe(figures)}`.trimEnd(),
  );
  if (status === "skipped") console.log(`      there is no ${scenario.needs} on this machine`);
  if (status !== "failed") return;
  const lines = [String((problem as Error)?.stack ?? problem), ...lastWords];
  console.log(lines.join("\n").replaceAll(/^/gm, "      "));
}

function describe(figures: Figures | undefined): string {
  if (figures === undefined) return "";
  const { faults, jobs, executions, attemptsLost, refusedByDatabase, refusedByWorker, drainMs, fires, heldByDriver } =
    figures;
  const refused = refusedByDatabase + refusedByWorker;
  return [
    `${faults} faults`,
    `${jobs} jobs`,
    `${executions} executions`,
    `${attemptsLost} attempts lost`,
    ...(refused === 0 ? [] : [`${refused} zombie writes refused`]),
    ...(fires === 0 ? [] : [`${fires} fires`]),
    ...(heldByDriver === 0 ? [] : [`${heldByDriver} processes held by postgres.js`]),
    `drained in ${(drainMs / 1000).toFixed(1)} s`,
  ].join(", ");
}

function summarize(outcomes: readonly Outcome[], seconds: number): void {
  const figures = outcomes.flatMap((outcome) => outcome.figures ?? []);
  const sum = (name: keyof Figures) => figures.reduce((total, one) => total + one[name], 0).toLocaleString("en");
  const count = (status: Outcome["status"]) => outcomes.filter((outcome) => outcome.status === status).length;
  const slowest = Math.max(0, ...figures.map(({ drainMs }) => drainMs)) / 1000;
  console.log(`faults injected        ${sum("faults")}`);
  console.log(`jobs checked           ${sum("jobs")}, in ${sum("executions")} executions`);
  console.log(`schedule fires checked ${sum("fires")}`);
  console.log(`attempts lost          ${sum("attemptsLost")}`);
  console.log(
    `zombie writes refused  ${sum("refusedByDatabase")} by the database, ${sum("refusedByWorker")} by their own worker`,
  );
  console.log(`held by postgres.js    ${sum("heldByDriver")} processes after they had stopped`);
  console.log(`longest drain          ${slowest.toFixed(1)} s, promised ${(DRAIN_BOUND_MS / 1000).toFixed(1)} s`);
  console.log(`in ${seconds.toFixed(0)} s`);
  const skipped = count("skipped");
  console.log(`${count("passed")} passed, ${count("failed")} failed${skipped === 0 ? "" : `, ${skipped} skipped`}`);
}
