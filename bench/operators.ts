/**
 * `deno task bench operators`: how long each read of an operator takes on a large database, and that none scans a table.
 *
 * Options: `--quick` for a smoke run of a few seconds, `--jobs N`, `--rounds N`, `--only TEXT` for the reads whose name holds
 * it, `--json FILE`, `--filled` if DATABASE_URL names a database that bench/operator_data.ts filled. See bench/README.md.
 *
 * @module
 */

import process from "node:process";
import postgres from "postgres";
import { fillOperatorData } from "./operator_data.ts";
import { giveReport, readBenchOptions } from "./support/command_line.ts";
import { operatorReads } from "./support/operator_reads.ts";
import { openBenchServer } from "./support/server.ts";

/** Tables that grow; the others are as small as the number of job types. */
const LARGE_TABLES = [
  "job_queue",
  "job_events",
  "job_dead_letters",
  "job_logs",
  "job_schedules",
  "workflow_runs",
  "workflow_steps",
  "workflow_step_dependencies",
  "workflow_run_mutations",
];

/** One line of the table. */
interface Figure {
  readonly name: string;
  readonly medianMs: number;
  readonly p99Ms: number;
  /** How often a large table was read from end to end. */
  readonly scans: number;
}

if (import.meta.main) await main(Deno.args);

/** Runs the benchmark with the options of a command line. */
export async function main(args: readonly string[]): Promise<void> {
  const options = readBenchOptions(args, ["jobs", "rounds"], ["filled"]);
  const jobs = options.count("jobs", { quick: 3000, whole: 1_000_000 });
  const rounds = options.count("rounds", { quick: 1, whole: 100 });
  const report = async (sql: postgres.Sql, machine: string) => {
    console.log(`${machine}\n${rounds} calls of each\n`);
    const figures = await measureAll(sql, rounds, options.only);
    await giveReport({ machine, jobs, rounds, figures }, options.json);
  };
  if (options.flags.has("filled")) {
    const sql = postgres(process.env.DATABASE_URL ?? "", { max: 1, onnotice: () => {} });
    await report(sql, "a database that was there");
    await sql.end();
    return;
  }
  await using server = await openBenchServer();
  const { connections: [sql] } = await server.createDatabase("operators");
  const { events, runs, seconds } = await fillOperatorData(sql, jobs);
  console.log(`${jobs} jobs, ${events} events, ${runs} runs, made in ${seconds.toFixed(0)} s`);
  await report(sql, server.description);
}

async function measureAll(sql: postgres.Sql, rounds: number, only: string): Promise<readonly Figure[]> {
  const figures: Figure[] = [];
  console.log("| read | median, ms | p99, ms | tables scanned |\n|---|---:|---:|---:|");
  for (const { name, call } of await operatorReads(sql)) {
    if (!name.includes(only)) continue;
    // One connection that has seen the statement, as a service has.
    await call();
    const before = await scansOf(sql);
    const times: number[] = [];
    for (let round = 0; round < rounds; round++) {
      const started = performance.now();
      await call();
      times.push(performance.now() - started);
    }
    const scans = await scansOf(sql) - before;
    times.sort((a, b) => a - b);
    const at = (share: number) => times[Math.min(times.length - 1, Math.floor(times.length * share))] ?? 0;
    const figure = { name, medianMs: at(0.5), p99Ms: at(0.99), scans };
    figures.push(figure);
    console.log(`| ${name} | ${figure.medianMs.toFixed(1)} | ${figure.p99Ms.toFixed(1)} | ${scans} |`);
  }
  return figures;
}

/** How often the large tables were read from end to end since the statistics began. */
async function scansOf(sql: postgres.Sql): Promise<number> {
  await sql`select pg_stat_force_next_flush()`;
  await sql`select pg_stat_clear_snapshot()`;
  const [row] = await sql<{ scans: number }[]>`
    select coalesce(sum(seq_scan), 0)::integer as scans
    from pg_stat_user_tables
    where schemaname = 'runledger'
      and relname in (select jsonb_array_elements_text(${JSON.stringify(LARGE_TABLES)}::text::jsonb))`;
  return row?.scans ?? 0;
}
