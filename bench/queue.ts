/**
 * `deno task bench queue`: how fast jobs are enqueued, claimed and settled, beside the least SQL that could do it.
 *
 * Options: `--quick` for a smoke run of a few seconds, `--rounds N`, `--scale N` for the size of large tables, `--only TEXT`
 * for the lines whose name holds it, `--json FILE`. See bench/README.md.
 *
 * @module
 */

import type { JsonValue } from "@runledger/core";
import type postgres from "postgres";
import { enqueueOnServer } from "./support/ceiling.ts";
import { drain, enqueueAll, openCeiling, openRunledger } from "./support/queue_workload.ts";
import type { Workload } from "./support/queue_workload.ts";
import { fillFinished, fillPending } from "./support/queue_filling.ts";
import { giveReport, readBenchOptions } from "./support/command_line.ts";
import { compare } from "./support/rounds.ts";
import type { Comparison, Contestant } from "./support/rounds.ts";
import { openBenchServer } from "./support/server.ts";
import type { BenchDatabase, BenchServer } from "./support/server.ts";

/** How much is measured. */
interface Plan {
  readonly rounds: number;
  /** Jobs in a round of large batches; small batches take a share of it. */
  readonly jobs: number;
  /** Rows in a table that is called large. */
  readonly scale: number;
  /** Jobs that are processed before a held snapshot is measured. */
  readonly held: number;
  readonly only: string;
}

/** One line of the table. */
interface Figure extends Comparison {
  readonly name: string;
  /** What it is compared with. */
  readonly against: string;
  /** The ratio that is aimed at, if any. */
  readonly target?: number;
}

const SMALL: JsonValue = { n: 1 };
const BYTES_100: JsonValue = { text: "x".repeat(89) };
/** Text that does not compress to nothing. */
const KILOBYTES_10: JsonValue = {
  text: Array.from({ length: 640 }, (_, n) => Math.imul(n + 1, 2654435761).toString(16).padStart(16, "0")).join(""),
};

if (import.meta.main) await main(Deno.args);

/** Runs the benchmark with the options of a command line. */
export async function main(args: readonly string[]): Promise<void> {
  const options = readBenchOptions(args, ["rounds", "scale"]);
  const plan: Plan = {
    rounds: options.count("rounds", { quick: 1, whole: 7 }),
    jobs: options.quick ? 200 : 10_000,
    scale: options.count("scale", { quick: 2000, whole: 1_000_000 }),
    held: options.quick ? 500 : 100_000,
    only: options.only,
  };
  await using server = await openBenchServer();
  const machine = server.description;
  console.log(`${machine}\n${plan.rounds} rounds; jobs/s and ratios are medians over the rounds\n`);
  const figures = await measureAll(server, plan);
  await giveReport({ machine, plan, figures }, options.json);
}

async function measureAll(server: BenchServer, plan: Plan): Promise<readonly Figure[]> {
  const figures: Figure[] = [];
  console.log(renderHead());
  for (const scenario of scenarios(server, plan)) {
    if (!`${scenario.name} / ${scenario.against}`.includes(plan.only)) continue;
    const { contestant, reference, close } = await scenario.open();
    const comparison = await compare(contestant, reference, { rounds: plan.rounds, units: scenario.units });
    await close?.();
    const { name, against, target } = scenario;
    const figure = { name, against, ...(target === undefined ? {} : { target }), ...comparison };
    figures.push(figure);
    console.log(renderFigure(figure));
  }
  return figures;
}

/** Two contestants that are compared in one run. */
interface Scenario {
  readonly name: string;
  readonly against: string;
  readonly target?: number;
  /** Jobs in a round. */
  readonly units: number;
  open(): Promise<{ readonly contestant: Contestant; readonly reference: Contestant; close?(): Promise<void> }>;
}

function scenarios(server: BenchServer, plan: Plan): readonly Scenario[] {
  const workloads = new Map<string, Promise<Workload>>();
  const once = (label: string, open: (database: BenchDatabase) => Promise<Workload>): Promise<Workload> => {
    const opened = workloads.get(label) ?? server.createDatabase(label).then(open);
    workloads.set(label, opened);
    return opened;
  };
  const runledger = () => once("plain", openRunledger);
  const ceiling = () => once("ceiling", (database) => openCeiling(database));
  const lean = () => once("lean", (database) => openCeiling(database, "lean"));

  // A statement for each job is slow, and so are large payloads: a tenth of the jobs is enough to see it.
  const unitsOf = (batch: number, payload: JsonValue): number =>
    batch === 1 || payload === KILOBYTES_10 ? plan.jobs / 10 : plan.jobs;
  const enqueueing = (name: string, batch: number, payload: JsonValue, target?: number): Scenario => {
    const units = unitsOf(batch, payload);
    return {
      name,
      against: "ceiling",
      units,
      ...(target === undefined ? {} : { target }),
      open: async () => ({
        contestant: enqueuer(await runledger(), units, batch, payload),
        reference: enqueuer(await ceiling(), units, batch, payload),
      }),
    };
  };
  const draining = (
    name: string,
    batch: number,
    connections: number,
    contestant: () => Promise<Workload>,
    options: {
      readonly against?: string;
      readonly reference?: () => Promise<Workload>;
      readonly target?: number;
      readonly payload?: JsonValue;
      readonly close?: () => Promise<void>;
    } = {},
  ): Scenario => {
    const payload = options.payload ?? SMALL;
    const units = unitsOf(batch, payload);
    return {
      name,
      against: options.against ?? "ceiling",
      units,
      ...(options.target === undefined ? {} : { target: options.target }),
      open: async () => ({
        contestant: drainer(await contestant(), units, batch, connections, payload),
        reference: drainer(await (options.reference ?? ceiling)(), units, batch, connections, payload),
        ...(options.close === undefined ? {} : { close: options.close }),
      }),
    };
  };

  const finished = () =>
    once("finished", async (database) => {
      await fillFinished(database.connections[0], plan.scale);
      return await openRunledger(database);
    });
  const types = (count: number) => () =>
    once(`types_${count}`, (database) => openRunledger(database, Array.from({ length: count }, (_, n) => `type-${n}`)));
  const backlog = () =>
    once("backlog", async (database) => {
      const workload = await openRunledger(database);
      await fillPending(database.connections[0], { jobType: "noop", count: plan.scale, isFuture: true });
      await fillPending(database.connections[0], { jobType: "other", count: plan.scale, isFuture: false });
      return workload;
    });
  const processed = (label: string, isHeld: boolean) => {
    let holder: postgres.ReservedSql | undefined;
    const open = () =>
      once(label, async (database) => {
        const workload = await openRunledger(database);
        if (isHeld) {
          holder = await database.holder.reserve();
          await holder`begin isolation level repeatable read`;
          await holder`select 1`;
        }
        for (let done = 0; done < plan.held; done += plan.jobs) {
          await enqueueAll(workload, plan.jobs, batchOf(plan, 1000), SMALL);
          await drain(workload, plan.jobs, batchOf(plan, 500), 1);
        }
        return workload;
      });
    const close = async () => {
      if (holder === undefined) return;
      await holder`rollback`;
      holder.release();
    };
    return { open, close };
  };
  const held = processed("held", true);
  const unheld = processed("unheld", false);
  const large = batchOf(plan, 500);

  return [
    enqueueing("enqueue, batches of 1", 1, SMALL),
    enqueueing("enqueue, batches of 100", 100, SMALL, 0.6),
    enqueueing("enqueue, batches of 1000", batchOf(plan, 1000), SMALL, 0.6),
    {
      name: "enqueue, batches of 1000",
      against: "ceiling that makes its rows in the server",
      units: plan.jobs,
      open: async () => {
        const rival = await ceiling();
        const batch = batchOf(plan, 1000);
        return {
          contestant: enqueuer(await runledger(), plan.jobs, batch, SMALL),
          reference: {
            prepare: () => rival.tidy(),
            run: async () => {
              for (let done = 0; done < plan.jobs; done += batch) {
                await enqueueOnServer(rival.database.connections[0], batch, SMALL);
              }
            },
          },
        };
      },
    },
    enqueueing("enqueue, batches of 1000, payloads of 100 B", batchOf(plan, 1000), BYTES_100, 0.6),
    enqueueing("enqueue, batches of 100, payloads of 10 kB", batchOf(plan, 100), KILOBYTES_10, 0.6),
    draining("claim + settle, batches of 1", 1, 1, runledger),
    draining("claim + settle, batches of 1, two connections", 1, 2, runledger),
    draining("claim + settle, batches of 100", 100, 1, runledger),
    draining("claim + settle, batches of 100, two connections", 100, 2, runledger),
    draining("claim + settle, batches of 500", large, 1, runledger, { target: 0.75 }),
    draining("claim + settle, batches of 500, two connections", large, 2, runledger, { target: 0.75 }),
    draining("claim + settle, batches of 500", large, 1, runledger, { against: "lean ceiling", reference: lean }),
    draining("claim + settle, batches of 500, two connections", large, 2, runledger, {
      against: "lean ceiling",
      reference: lean,
    }),
    draining("claim + settle, batches of 500, payloads of 100 B", large, 1, runledger, {
      target: 0.75,
      payload: BYTES_100,
    }),
    draining("claim + settle, batches of 100, payloads of 10 kB", 100, 1, runledger, { payload: KILOBYTES_10 }),
    draining(`${millions(plan.scale)} finished jobs`, large, 1, finished, {
      against: "none",
      reference: runledger,
      target: 0.9,
    }),
    draining("50 job types", large, 1, types(50), { against: "1 job type", reference: types(1), target: 0.9 }),
    draining("50 job types, batches of 1", 1, 1, types(50), { against: "1 job type", reference: types(1) }),
    draining(`${millions(plan.scale)} scheduled, ${millions(plan.scale)} of other types`, large, 1, backlog, {
      against: "none",
      reference: runledger,
      target: 0.9,
    }),
    draining(`a snapshot held over ${plan.held} jobs`, large, 1, held.open, {
      against: "no snapshot held",
      reference: unheld.open,
      target: 0.7,
      close: held.close,
    }),
  ];
}

/** Quick runs have fewer jobs than large batches hold. */
function batchOf(plan: Plan, batch: number): number {
  return Math.min(batch, plan.jobs);
}

function enqueuer(workload: Workload, jobs: number, batch: number, payload: JsonValue): Contestant {
  return {
    // What earlier rounds left pending would make the indexes of one contestant larger than the other's.
    prepare: async () => {
      await workload.clear();
      await workload.tidy();
    },
    run: () => enqueueAll(workload, jobs, batch, payload),
  };
}

function drainer(
  workload: Workload,
  jobs: number,
  batch: number,
  connections: number,
  payload: JsonValue,
): Contestant {
  return {
    prepare: async () => {
      await enqueueAll(workload, jobs, Math.min(500, jobs), payload);
      await workload.tidy();
    },
    run: () => drain(workload, jobs, batch, connections),
  };
}

function millions(count: number): string {
  return count >= 1_000_000 ? `${count / 1_000_000} million` : String(count);
}

function renderHead(): string {
  return "| what | jobs/s | against | its jobs/s | ratio | worst to best | target |\n|---|---:|---|---:|---:|---|---|";
}

function renderFigure({ name, against, target, rate, referenceRate, ratio, ratios }: Figure): string {
  const range = `${Math.min(...ratios).toFixed(2)} to ${Math.max(...ratios).toFixed(2)}`;
  const met = target === undefined
    ? ""
    : `${target.toFixed(2)}, met in ${ratios.filter((each) => each >= target).length} of ${ratios.length}`;
  return `| ${name} | ${Math.round(rate)} | ${against} | ${Math.round(referenceRate)} | ${
    ratio.toFixed(2)
  } | ${range} | ${met} |`;
}
