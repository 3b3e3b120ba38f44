/**
 * `deno task bench worker`: how fast worker processes drain a queue, how soon they start lone jobs, and what they use,
 * beside the ceiling and beside other queues on the same server.
 *
 * Options: `--quick` for a smoke run, `--rounds N`, `--jobs N`, `--only TEXT` for the parts whose name holds it, `--json
 * FILE`. See bench/README.md.
 *
 * @module
 */

import { loadavg } from "node:os";
import { setTimeout as delay } from "node:timers/promises";
import { giveReport, readBenchOptions } from "./support/command_line.ts";
import { median } from "./support/rounds.ts";
import { openBenchServer } from "./support/server.ts";
import type { BenchDatabase, BenchServer } from "./support/server.ts";
import { installNodeWorker } from "./support/node_worker.ts";
import { DENO, preciseNow, spawnWorker } from "./support/worker_process.ts";
import type { WorkerProcess, WorkerRuntime } from "./support/worker_process.ts";
import { systemOf } from "./support/worker_systems.ts";
import type { Producer } from "./support/worker_systems.ts";

/** How much is measured. */
interface Plan {
  readonly rounds: number;
  /** Jobs in a drain. */
  readonly jobs: number;
  /** Lone jobs that are timed at idle. */
  readonly lone: number;
  readonly settleMs: number;
  /** How long jobs come at a steady rate and how long an idle worker is watched, in milliseconds. */
  readonly watchMs: number;
  readonly drains: readonly Drain[];
  readonly paces: readonly Pace[];
  readonly systems: readonly string[];
  readonly only: string;
}

/** Single jobs that come at a steady rate. */
interface Pace {
  readonly jobsPerSecond: number;
  readonly processes: number;
}

/** A queue that is emptied. */
interface Drain {
  readonly name: string;
  readonly handlerMs: number;
  readonly processes: number;
}

/** What one drain took. */
interface DrainResult {
  /** Jobs a second. */
  readonly rate: number;
  /** CPU time of the worker processes, in microseconds a job. */
  readonly cpuMicros: number;
  /** Transactions a job, by the server's count. */
  readonly transactions: number;
  /** WAL of the whole server, in bytes a job. */
  readonly walBytes: number;
}

/** Medians over the rounds; the ratio is that to the ceiling in the same round. */
interface DrainFigure extends DrainResult {
  readonly name: string;
  readonly system: string;
  readonly history: string;
  readonly ratio: number;
  readonly ratios: readonly number[];
  /** To graphile-worker's batched mode in the same round. */
  readonly ratioToGraphile: number;
}

/** How a worker fares when there is little to do. */
interface LatencyFigure {
  readonly system: string;
  readonly idleStatementsPerSecond: number;
  /** Of lone jobs, in milliseconds. */
  readonly idle: Quantiles;
  /** At 500 jobs/s, in milliseconds. */
  readonly steady: Quantiles;
}

/** How soon jobs start that come one by one. */
interface PaceFigure extends Pace {
  readonly system: string;
  /** In milliseconds. */
  readonly latency: Quantiles;
}

interface Quantiles {
  readonly count: number;
  readonly p50: number;
  readonly p99: number;
}

const CEILING = "ceiling";
const GRAPHILE = "graphile-worker, batched";
const DRAINED = [
  CEILING,
  "Runledger, default",
  "Runledger, default, node-postgres",
  "Runledger, tuned",
  "Runledger, tuned, node-postgres",
  GRAPHILE,
  "pg-boss, batched",
] as const;
/** These run in Node, from the built packages. */
const DRAINED_ON_NODE = ["Runledger, default, on Node", "Runledger, tuned, on Node"] as const;
const TIMED = [
  "Runledger, default",
  "Runledger, default, node-postgres",
  "graphile-worker, default",
  "pg-boss, notify",
] as const;

const DRAINS: readonly Drain[] = [
  { name: "no-op jobs, one process", handlerMs: 0, processes: 1 },
  { name: "no-op jobs, two processes", handlerMs: 0, processes: 2 },
  { name: "1 ms handlers, one process", handlerMs: 1, processes: 1 },
  { name: "1 ms handlers, two processes", handlerMs: 1, processes: 2 },
];

/** These are timed at each pace. */
const PACED = ["Runledger, default", "graphile-worker, default"] as const;

const PACES: readonly Pace[] = [
  ...[50, 100, 200, 500, 1000, 2000].map((jobsPerSecond) => ({ jobsPerSecond, processes: 1 })),
  ...[100, 300, 1000].map((jobsPerSecond) => ({ jobsPerSecond, processes: 5 })),
];

/** How long anything may take; a slow machine is no reason to fail. */
const PATIENCE_MS = 600_000;

/** How long a worker is left alone before it counts as idle: sessions tell the server what they did after 10 s at the latest. */
const SETTLE_MS = 11_000;

if (import.meta.main) await main(Deno.args);

/** Runs the benchmark with the options of a command line. */
export async function main(args: readonly string[]): Promise<void> {
  const options = readBenchOptions(args, ["rounds", "jobs"]);
  const plan: Plan = {
    rounds: options.count("rounds", { quick: 1, whole: 3 }),
    jobs: options.count("jobs", { quick: 200, whole: 100_000 }),
    lone: options.quick ? 3 : 100,
    watchMs: options.quick ? 500 : 10_000,
    settleMs: options.quick ? 500 : SETTLE_MS,
    systems: options.quick ? DRAINED : [...DRAINED, ...DRAINED_ON_NODE],
    drains: options.quick ? DRAINS.filter((_, index) => index === 0 || index === 3) : DRAINS,
    paces: options.quick ? [{ jobsPerSecond: 50, processes: 2 }] : PACES,
    only: options.only,
  };
  await using server = await openBenchServer();
  const machine = server.description;
  const loadBefore = loadavg()[0];
  console.log(`${machine}\n${plan.rounds} rounds of ${plan.jobs} jobs, medians; load ${loadBefore?.toFixed(1)}\n`);
  const databases = new Map<string, Promise<BenchDatabase>>();
  const databaseOf = (system: string): Promise<BenchDatabase> => {
    const opened = databases.get(system) ?? install(server, system);
    databases.set(system, opened);
    return opened;
  };

  const onNode: readonly string[] = DRAINED_ON_NODE;
  await using node = plan.systems.some((system) => onNode.includes(system)) ? await installNodeWorker() : undefined;
  const runtimeOf = (system: string): WorkerRuntime => onNode.includes(system) ? node ?? DENO : DENO;
  const figures: DrainFigure[] = [];
  const drains = plan.drains.filter(({ name }) => name.includes(plan.only));
  if (drains.length > 0) console.log(DRAIN_HEAD);
  for (const each of drains) {
    const measured = await measureDrain(each, plan, databaseOf, runtimeOf);
    figures.push(...measured);
    for (const figure of measured) console.log(renderDrain(figure));
  }
  const latencies: LatencyFigure[] = [];
  if ("latency".includes(plan.only)) {
    console.log(`\n${LATENCY_HEAD}`);
    for (const system of TIMED) {
      const figure = await measureLatency(system, plan, await databaseOf(system));
      latencies.push(figure);
      console.log(renderLatency(figure));
    }
  }
  const paces: PaceFigure[] = [];
  if ("pace".includes(plan.only)) {
    console.log(`\n${PACE_HEAD}`);
    for (const pace of plan.paces) {
      for (const system of PACED) {
        const figure = await measurePace(system, pace, plan, await databaseOf(system));
        paces.push(figure);
        console.log(renderPace(figure));
      }
    }
  }
  let heapBytes: readonly number[] = [];
  if ("memory".includes(plan.only)) {
    heapBytes = await measureMemory(plan, await databaseOf("Runledger, tuned"));
    const megabytes = heapBytes.map((bytes) => (bytes / 1e6).toFixed(1));
    console.log(`\nHeap of one process after each ${plan.jobs} jobs, in MB: ${megabytes.join(", ")}`);
  }
  const load = [loadBefore, loadavg()[0]];
  await giveReport({ machine, load, plan, figures, latencies, paces, heapBytes }, options.json);
}

async function install(server: BenchServer, system: string): Promise<BenchDatabase> {
  const database = await server.createDatabase(system.replaceAll(/\W+/g, "_").toLowerCase());
  await systemOf(system).install(database.url);
  return database;
}

async function measureDrain(
  drain: Drain,
  plan: Plan,
  databaseOf: (system: string) => Promise<BenchDatabase>,
  runtimeOf: (system: string) => WorkerRuntime,
): Promise<readonly DrainFigure[]> {
  const { systems } = plan;
  const results = new Map<string, DrainResult[]>(systems.map((system) => [system, []]));
  for (let round = 0; round < plan.rounds; round++) {
    // Somebody else begins each time.
    const turns = [...systems.slice(round % systems.length), ...systems.slice(0, round % systems.length)];
    for (const system of turns) {
      results.get(system)?.push(await drainOnce(system, drain, plan.jobs, await databaseOf(system), runtimeOf(system)));
    }
  }
  const ratesOf = (system: string): readonly number[] => (results.get(system) ?? []).map(({ rate }) => rate);
  const ratiosTo = (system: string, reference: string): readonly number[] =>
    ratesOf(system).map((rate, round) => rate / (ratesOf(reference)[round] ?? NaN));
  return systems.map((system) => {
    const each = results.get(system) ?? [];
    const ratios = ratiosTo(system, CEILING);
    return {
      name: drain.name,
      system,
      history: systemOf(system).history,
      rate: median(ratesOf(system)),
      ratio: median(ratios),
      ratios,
      ratioToGraphile: median(ratiosTo(system, GRAPHILE)),
      cpuMicros: median(each.map(({ cpuMicros }) => cpuMicros)),
      transactions: median(each.map(({ transactions }) => transactions)),
      walBytes: median(each.map(({ walBytes }) => walBytes)),
    };
  });
}

async function drainOnce(
  system: string,
  { handlerMs, processes }: Drain,
  jobs: number,
  database: BenchDatabase,
  runtime: WorkerRuntime,
): Promise<DrainResult> {
  await fill(system, jobs, database);
  const task = { system, url: database.url, handlerMs };
  const workers = await Promise.all(Array.from({ length: processes }, () => spawnWorker(task, runtime)));
  const before = await readServer(database);
  const started = performance.now();
  await Promise.all(workers.map((worker) => worker.start()));
  const looks = await untilDrained(system, database);
  const seconds = (performance.now() - started) / 1000;
  const uses = await Promise.all(workers.map((worker) => worker.use()));
  // Sessions tell the server what they did when they end at the latest.
  await Promise.all(workers.map((worker) => worker.stop()));
  const after = await readServer(database);
  const ran = uses.reduce((sum, use) => sum + use.ran, 0);
  if (system !== CEILING && ran !== jobs) throw new Error(`${system} ran ${ran} of ${jobs} jobs`);
  return {
    rate: jobs / seconds,
    cpuMicros: 1000 * uses.reduce((sum, { cpuMs }) => sum + cpuMs, 0) / jobs,
    transactions: (after.transactions - before.transactions - looks) / jobs,
    walBytes: (after.walBytes - before.walBytes) / jobs,
  };
}

async function fill(system: string, jobs: number, { url, holder }: BenchDatabase): Promise<void> {
  const { tables, openProducer } = systemOf(system);
  const producer = await openProducer(url);
  const batch = Math.min(1000, jobs);
  const payloads = Array.from({ length: batch }, () => ({ sentAt: 0 }));
  for (let done = 0; done < jobs; done += batch) await producer.enqueue(payloads.slice(0, jobs - done));
  await producer.close();
  for (const table of tables) await holder.unsafe(`vacuum (analyze, truncate false) ${table}`);
  await holder.unsafe("checkpoint");
}

/** Waits until no job is left; gives how often it looked. */
async function untilDrained(system: string, { holder }: BenchDatabase): Promise<number> {
  const deadline = performance.now() + PATIENCE_MS;
  for (let looks = 1;; looks++) {
    const [row] = await holder.unsafe<{ is_left: boolean }[]>(systemOf(system).left);
    if (row?.is_left === false) return looks;
    if (performance.now() > deadline) throw new Error(`${system} did not drain its queue`);
    await delay(10);
  }
}

async function readServer(
  { holder }: BenchDatabase,
): Promise<{ readonly transactions: number; readonly walBytes: number }> {
  await holder`select pg_stat_force_next_flush()`;
  const [row] = await holder<{ transactions: number; wal_bytes: number }[]>`
    select
      (xact_commit + xact_rollback)::float8 as transactions,
      pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8 as wal_bytes
    from pg_stat_database
    where datname = current_database()`;
  return { transactions: row?.transactions ?? NaN, walBytes: row?.wal_bytes ?? NaN };
}

async function measureLatency(system: string, plan: Plan, database: BenchDatabase): Promise<LatencyFigure> {
  const producer = await systemOf(system).openProducer(database.url);
  const worker = await spawnWorker({ system, url: database.url, handlerMs: 0 });
  try {
    await worker.start();
    // The first jobs pay for plans and compilation.
    for (let n = 0; n < 3; n++) await runLone([worker], producer);
    await delay(plan.settleMs);
    const before = await readServer(database);
    await delay(plan.watchMs);
    const after = await readServer(database);
    const idleStatementsPerSecond = Math.max(0, after.transactions - before.transactions - 2) * 1000 / plan.watchMs;
    const lone: number[] = [];
    for (let n = 0; n < plan.lone; n++) {
      // Longer than any poll is brisk, and not in step with one.
      await delay(100 + 37 * (n % 7));
      lone.push(...await runLone([worker], producer));
    }
    const steady = await runSteadily([worker], producer, 500, plan.watchMs);
    return { system, idleStatementsPerSecond, idle: quantiles(lone), steady: quantiles(steady) };
  } finally {
    await worker.stop();
    await producer.close();
  }
}

async function measurePace(system: string, pace: Pace, plan: Plan, database: BenchDatabase): Promise<PaceFigure> {
  const producer = await systemOf(system).openProducer(database.url);
  const task = { system, url: database.url, handlerMs: 0 };
  const workers = await Promise.all(Array.from({ length: pace.processes }, () => spawnWorker(task)));
  try {
    await Promise.all(workers.map((worker) => worker.start()));
    // The first jobs pay for plans, connections and compilation.
    await runSteadily(workers, producer, pace.jobsPerSecond, plan.watchMs / 5);
    const latencies = await runSteadily(workers, producer, pace.jobsPerSecond, plan.watchMs);
    return { system, ...pace, latency: quantiles(latencies) };
  } finally {
    await Promise.all(workers.map((worker) => worker.stop()));
    await producer.close();
  }
}

async function runLone(workers: readonly WorkerProcess[], producer: Producer): Promise<readonly number[]> {
  await producer.enqueue([{ sentAt: preciseNow() }]);
  return await latenciesOf(workers, 1);
}

/** Single jobs at a steady rate, whether or not those before have started. */
async function runSteadily(
  workers: readonly WorkerProcess[],
  producer: Producer,
  jobsPerSecond: number,
  forMs: number,
): Promise<readonly number[]> {
  const started = performance.now();
  const pending: Promise<void>[] = [];
  while (performance.now() - started < forMs) {
    const due = Math.floor((performance.now() - started) * jobsPerSecond / 1000);
    while (pending.length < due) pending.push(producer.enqueue([{ sentAt: preciseNow() }]));
    await delay(1);
  }
  await Promise.all(pending);
  return await latenciesOf(workers, pending.length);
}

async function latenciesOf(workers: readonly WorkerProcess[], count: number): Promise<readonly number[]> {
  const latencies: number[] = [];
  const deadline = performance.now() + PATIENCE_MS;
  while (latencies.length < count) {
    if (performance.now() > deadline) throw new Error("jobs did not start");
    await delay(10);
    for (const worker of workers) latencies.push(...(await worker.latencies()));
  }
  return latencies;
}

function quantiles(values: readonly number[]): Quantiles {
  const sorted = values.toSorted((left, right) => left - right);
  const at = (share: number): number => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? NaN;
  return { count: sorted.length, p50: at(0.5), p99: at(0.99) };
}

/** The heap of one tuned process after each of ten drains. */
async function measureMemory(plan: Plan, database: BenchDatabase): Promise<readonly number[]> {
  const system = "Runledger, tuned";
  const worker = await spawnWorker({ system, url: database.url, handlerMs: 0 });
  await worker.start();
  const heap: number[] = [];
  for (let drain = 0; drain < 10; drain++) {
    await fill(system, plan.jobs, database);
    await untilDrained(system, database);
    heap.push((await worker.use()).heapBytes);
  }
  await worker.stop();
  return heap;
}

const DRAIN_HEAD =
  "| what | system | ended jobs | jobs/s | of ceiling | worst to best | of graphile-worker | CPU, µs a job | transactions a job | WAL bytes a job |\n" +
  "|---|---|---|---:|---:|---|---:|---:|---:|---:|";

function renderDrain(figure: DrainFigure): string {
  const { name, system, history, rate, ratio, ratios, ratioToGraphile, cpuMicros, transactions, walBytes } = figure;
  const range = `${Math.min(...ratios).toFixed(2)} to ${Math.max(...ratios).toFixed(2)}`;
  return `| ${name} | ${system} | ${history} | ${Math.round(rate)} | ${ratio.toFixed(2)} | ${range} | ${
    ratioToGraphile.toFixed(2)
  } | ${Math.round(cpuMicros)} | ${transactions.toFixed(3)} | ${Math.round(walBytes)} |`;
}

const LATENCY_HEAD =
  "| system | idle p50, ms | idle p99, ms | 500/s p50, ms | 500/s p99, ms | idle statements/s |\n|---|---:|---:|---:|---:|---:|";

function renderLatency({ system, idle, steady, idleStatementsPerSecond }: LatencyFigure): string {
  const times = [idle.p50, idle.p99, steady.p50, steady.p99].map((ms) => ms.toFixed(1));
  return `| ${system} | ${times.join(" | ")} | ${idleStatementsPerSecond.toFixed(1)} |`;
}

const PACE_HEAD = "| jobs/s | processes | system | p50, ms | p99, ms |\n|---:|---:|---|---:|---:|";

function renderPace({ system, jobsPerSecond, processes, latency }: PaceFigure): string {
  return `| ${jobsPerSecond} | ${processes} | ${system} | ${latency.p50.toFixed(1)} | ${latency.p99.toFixed(1)} |`;
}
