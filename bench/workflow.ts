/**
 * `deno task bench workflow`: how fast workflow runs are enqueued and their steps run to the end, beside the least SQL that
 * could do it.
 *
 * Options: `--quick` for a smoke run of a few seconds, `--rounds N`, `--scale N` for the number of finished runs in a large
 * table, `--only TEXT` for the lines whose name holds it, `--json FILE`. See bench/README.md.
 *
 * @module
 */

import type { ClaimedJob } from "@runledger/postgres";
import { giveReport, readBenchOptions } from "./support/command_line.ts";
import { compare, median } from "./support/rounds.ts";
import type { Comparison, Contestant } from "./support/rounds.ts";
import { openBenchServer } from "./support/server.ts";
import type { BenchDatabase, BenchServer } from "./support/server.ts";
import { fillFinishedRuns } from "./support/workflow_filling.ts";
import { chain, DIAMOND, fanOut } from "./support/workflow_shapes.ts";
import type { Shape } from "./support/workflow_shapes.ts";
import {
  claimSteps,
  enqueueRuns,
  openWorkflowCeiling,
  openWorkflows,
  runSteps,
  settleSteps,
} from "./support/workflow_workload.ts";
import type { WorkflowWorkload } from "./support/workflow_workload.ts";

/** How much is measured. */
interface Plan {
  readonly rounds: number;
  /** Steps in a round. */
  readonly steps: number;
  /** How wide the wide fan-out is. */
  readonly width: number;
  /** Finished runs in a table that is called large. */
  readonly scale: number;
  readonly only: string;
}

/** What is aimed at: so many units a second, or a ratio to what it is compared with. */
interface Target {
  readonly rate?: number;
  readonly ratio?: number;
}

/** Two contestants that are compared in one run. */
interface Scenario {
  readonly name: string;
  readonly against: string;
  /** What is counted. */
  readonly unit: "runs" | "settlements";
  /** How many of them there are in a round. */
  readonly units: number;
  /** Steps in one of them. */
  readonly stepsPerUnit: number;
  readonly target?: Target;
  open(): Promise<{ readonly contestant: Contestant; readonly reference: Contestant }>;
}

/** One line of the table. */
interface Figure extends Comparison {
  readonly name: string;
  readonly against: string;
  readonly unit: string;
  readonly units: number;
  readonly stepsPerUnit: number;
  readonly target?: Target;
  /** Units per second in each round. */
  readonly rates: readonly number[];
  /** In how many rounds the target was met. */
  readonly metIn?: number;
}

if (import.meta.main) await main(Deno.args);

/** Runs the benchmark with the options of a command line. */
export async function main(args: readonly string[]): Promise<void> {
  const options = readBenchOptions(args, ["rounds", "scale"]);
  const plan: Plan = {
    rounds: options.count("rounds", { quick: 1, whole: 7 }),
    steps: options.quick ? 400 : 10_000,
    width: options.quick ? 300 : 10_000,
    scale: options.count("scale", { quick: 1000, whole: 100_000 }),
    only: options.only,
  };
  await using server = await openBenchServer();
  const machine = server.description;
  console.log(`${machine}\n${plan.rounds} rounds; rates and ratios are medians over the rounds\n`);
  const figures = await measureAll(server, plan);
  await giveReport({ machine, plan, figures }, options.json);
}

async function measureAll(server: BenchServer, plan: Plan): Promise<readonly Figure[]> {
  const figures: Figure[] = [];
  console.log(renderHead());
  for (const scenario of scenarios(server, plan)) {
    if (!`${scenario.name} / ${scenario.against}`.includes(plan.only)) continue;
    const figure = await measure(scenario, plan);
    figures.push(figure);
    console.log(renderFigure(figure));
  }
  return figures;
}

async function measure(scenario: Scenario, plan: Plan): Promise<Figure> {
  const { open, ...description } = scenario;
  const { contestant, reference } = await open();
  const seconds: number[] = [];
  const timed = {
    prepare: () => contestant.prepare(),
    run: async () => {
      const started = performance.now();
      await contestant.run();
      seconds.push((performance.now() - started) / 1000);
    },
  };
  const comparison = await compare(timed, reference, { rounds: plan.rounds, units: scenario.units });
  // The first round is not counted.
  const rates = seconds.slice(1).map((each) => scenario.units / each);
  const { rate, ratio } = scenario.target ?? {};
  const met = rates.filter((each, round) =>
    each >= (rate ?? 0) && (comparison.ratios[round] as number) >= (ratio ?? 0)
  );
  return { ...description, ...comparison, rates, ...(scenario.target === undefined ? {} : { metIn: met.length }) };
}

function scenarios(server: BenchServer, plan: Plan): readonly Scenario[] {
  const opened = new Map<string, Promise<WorkflowWorkload>>();
  const once = (label: string, open: (database: BenchDatabase) => Promise<WorkflowWorkload>) => {
    const workload = opened.get(label) ?? server.createDatabase(label).then(open);
    opened.set(label, workload);
    return workload;
  };
  const plain = () => once("workflows", openWorkflows);
  const ceiling = () => once("workflow_ceiling", openWorkflowCeiling);
  // What is only enqueued stays: it would be in the way of those who run steps.
  const unrun = () => once("workflows_unrun", openWorkflows);
  const unrunCeiling = () => once("workflow_ceiling_unrun", openWorkflowCeiling);
  const finished = () =>
    once("workflows_finished", async (database) => {
      await fillFinishedRuns(database.connections[0], plan.scale);
      return await openWorkflows(database);
    });
  const fresh = () => once("workflows_fresh", openWorkflows);

  const enqueueing = (name: string, shape: Shape, batch: number, target?: Target): Scenario => {
    // A statement for each run is slow: a tenth of the runs is enough to see it.
    const runs = Math.ceil(plan.steps / shape.stepCount / (batch === 1 ? 10 : 1));
    return {
      name: `enqueue ${name}, batches of ${batch}`,
      against: "ceiling",
      unit: "runs",
      units: runs,
      stepsPerUnit: shape.stepCount,
      ...(target === undefined ? {} : { target }),
      open: async () => ({
        contestant: enqueuer(await unrun(), shape, runs, batch),
        reference: enqueuer(await unrunCeiling(), shape, runs, batch),
      }),
    };
  };
  const running = (name: string, shape: Shape, batch: number, target?: Target): Scenario => {
    const runs = Math.ceil(plan.steps / shape.stepCount / (batch < 100 ? 4 : 1));
    return {
      name: `run ${name}, batches of ${batch}`,
      against: "ceiling",
      unit: "runs",
      units: runs,
      stepsPerUnit: shape.stepCount,
      ...(target === undefined ? {} : { target }),
      open: async () => ({
        contestant: runner(await plain(), shape, runs, batch),
        reference: runner(await ceiling(), shape, runs, batch),
      }),
    };
  };
  const releasing = (shape: Shape, batch: number): Scenario => {
    const runs = Math.ceil(plan.steps / (batch === 1 ? 50 : 2));
    return {
      name: `settle and release, ${plan.scale} finished runs, batches of ${batch}`,
      against: "no finished runs",
      unit: "settlements",
      units: runs,
      stepsPerUnit: 1,
      target: { ratio: 0.9 },
      open: async () => ({
        contestant: releaser(await finished(), shape, runs, batch),
        reference: releaser(await fresh(), shape, runs, batch),
      }),
    };
  };

  const wide = fanOut(plan.width);
  return [
    enqueueing("diamonds", DIAMOND, 1),
    enqueueing("diamonds", DIAMOND, 100),
    enqueueing("diamonds", DIAMOND, 500, { rate: 8000 }),
    enqueueing("chains of 10", chain(10), 100),
    enqueueing("fan-outs of 100", fanOut(100), 10),
    running("diamonds", DIAMOND, 500, { rate: 2500 }),
    running("diamonds", DIAMOND, 16),
    running("chains of 10", chain(10), 500),
    running("chains of 10", chain(10), 16),
    running("fan-outs of 100", fanOut(100), 500),
    running("fan-outs of 100", fanOut(100), 16),
    {
      name: `enqueue and run a fan-out of ${plan.width}, batches of 500`,
      against: "ceiling",
      unit: "runs",
      units: 1,
      stepsPerUnit: wide.stepCount,
      target: { rate: 0.5 },
      open: async () => ({
        contestant: wholeRun(await plain(), wide),
        reference: wholeRun(await ceiling(), wide),
      }),
    },
    releasing(chain(2), 1),
    releasing(chain(2), 500),
  ];
}

function enqueuer(workload: WorkflowWorkload, shape: Shape, runs: number, batch: number): Contestant {
  return { prepare: () => workload.tidy(), run: () => enqueueRuns(workload, shape, runs, batch) };
}

function runner(workload: WorkflowWorkload, shape: Shape, runs: number, batch: number): Contestant {
  return {
    prepare: async () => {
      await enqueueRuns(workload, shape, runs, Math.max(1, Math.floor(2000 / shape.stepCount)));
      await workload.tidy();
    },
    run: () => runSteps(workload, runs * shape.stepCount, batch),
  };
}

/** One run, from its enqueue to its end. */
function wholeRun(workload: WorkflowWorkload, shape: Shape): Contestant {
  return {
    prepare: () => workload.tidy(),
    run: async () => {
      await workload.enqueue(workload.database.connections[0], shape, 1);
      await runSteps(workload, shape.stepCount, 500);
    },
  };
}

/** Settles the first steps of runs of two: when a call returns, what it released can be claimed. */
function releaser(workload: WorkflowWorkload, shape: Shape, runs: number, batch: number): Contestant {
  let leases: readonly ClaimedJob[] = [];
  let released = 0;
  return {
    prepare: async () => {
      // The second steps of the round before.
      await settleSteps(workload.database, await claimSteps(workload.database, released), 500);
      await enqueueRuns(workload, shape, runs, 500);
      leases = await claimSteps(workload.database, runs);
      released = runs;
      await workload.tidy();
    },
    run: () => settleSteps(workload.database, leases, batch),
  };
}

function renderHead(): string {
  return "| what | units/s | steps/s | against | its units/s | ratio | worst to best | target |\n" +
    "|---|---:|---:|---|---:|---:|---|---|";
}

function renderFigure(figure: Figure): string {
  const { name, against, unit, stepsPerUnit, rate, rates, referenceRate, ratio, ratios, target, metIn } = figure;
  const round = (value: number) => value < 20 ? value.toFixed(2) : String(Math.round(value));
  const aims = [
    ...(target?.rate === undefined ? [] : [`${target.rate} ${unit}/s`]),
    ...(target?.ratio === undefined ? [] : [`ratio ${target.ratio}`]),
  ];
  const met = target === undefined ? "" : `${aims.join(", ")}: met in ${metIn} of ${rates.length}`;
  const range = `${Math.min(...ratios).toFixed(2)} to ${Math.max(...ratios).toFixed(2)}`;
  return `| ${name} | ${round(rate)} ${unit} | ${Math.round(median(rates) * stepsPerUnit)} | ${against} | ${
    round(referenceRate)
  } | ${ratio.toFixed(2)} | ${range} | ${met} |`;
}
