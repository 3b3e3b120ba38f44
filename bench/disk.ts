/**
 * `deno task bench disk`: how many bytes jobs and workflow steps take on disk when they have succeeded at the first attempt,
 * table by table with its indexes, and how much WAL was written on the way.
 *
 * Options: `--quick` for a smoke run, `--jobs N`, `--json FILE`. See bench/README.md.
 *
 * @module
 */

import { claimJobs, enqueueJobs, enqueueWorkflowRuns, settleJobs, upsertJobDefinitions } from "@runledger/postgres";
import type postgres from "postgres";
import { giveReport, readBenchOptions } from "./support/command_line.ts";
import { openBenchServer } from "./support/server.ts";

/** What one kind of work leaves behind, in bytes for each job or step. */
interface Figure {
  readonly name: string;
  readonly walBytes: number;
  readonly tableBytes: Readonly<Record<string, number>>;
  readonly totalBytes: number;
}

const BATCH = 500;
const TYPE = "bench.disk";
const PAYLOAD = { text: "x".repeat(100) };

/** Runs the benchmark with the options of a command line. */
export async function main(args: readonly string[]): Promise<void> {
  const options = readBenchOptions(args, ["jobs"]);
  const jobs = options.count("jobs", { quick: 1000, whole: 100_000 });
  await using server = await openBenchServer();
  const figures = [
    await measure(server, "jobs", jobs, enqueueDirectJobs),
    await measure(server, "jobs with an idempotency key", jobs, enqueueKeyedJobs),
    await measure(server, "steps of diamonds", jobs, enqueueDiamonds),
  ];
  console.log("| what | bytes on disk | of these | bytes of WAL |\n|---|---:|---|---:|");
  for (const { name, totalBytes, walBytes, tableBytes } of figures) {
    const parts = Object.entries(tableBytes).map(([table, bytes]) => `${table} ${bytes.toFixed(0)}`).join(", ");
    console.log(`| ${name} | ${totalBytes.toFixed(0)} | ${parts} | ${walBytes.toFixed(0)} |`);
  }
  await giveReport({ description: server.description, jobs, figures }, options.json);
}

async function measure(
  server: Awaited<ReturnType<typeof openBenchServer>>,
  name: string,
  jobs: number,
  enqueue: (sql: postgres.Sql, count: number, from: number) => Promise<unknown>,
): Promise<Figure> {
  const { connections: [sql] } = await server.createDatabase(`disk_${name.replaceAll(" ", "_")}`);
  await upsertJobDefinitions(sql, [{ type: TYPE, version: 1, maxAttempts: 3, timeoutSeconds: 30, priority: 0 }]);
  const sizesBefore = await sizesOf(sql);
  const [before] = await sql<{ lsn: string }[]>`select pg_current_wal_lsn()::text as lsn`;
  for (let from = 0; from < jobs; from += BATCH) await enqueue(sql, BATCH, from);
  for (;;) {
    const claimed = await claimJobs(sql, { jobTypes: [TYPE], workerId: "bench", limit: BATCH });
    if (claimed.length === 0) break;
    await settleJobs(sql, claimed.map((lease) => ({ lease, outcome: { kind: "succeeded" } })));
  }
  const [after] = await sql<{ bytes: number }[]>`
    select pg_wal_lsn_diff(pg_current_wal_lsn(), ${before?.lsn ?? "0/0"}::text::pg_lsn)::float8 as bytes`;
  const sizes = await sizesOf(sql);
  const tableBytes = Object.fromEntries(
    Object.entries(sizes)
      .map(([table, bytes]): [string, number] => [table, (bytes - (sizesBefore[table] ?? 0)) / jobs])
      .filter(([, bytes]) => bytes >= 1),
  );
  const totalBytes = Object.values(tableBytes).reduce((sum, bytes) => sum + bytes, 0);
  return { name, walBytes: (after?.bytes ?? 0) / jobs, tableBytes, totalBytes };
}

/** Each table with its indexes, what is dead in it included. */
async function sizesOf(sql: postgres.Sql): Promise<Readonly<Record<string, number>>> {
  const rows = await sql<{ name: string; bytes: number }[]>`
    select class.relname::text as name, pg_total_relation_size(class.oid)::float8 as bytes
    from pg_class as class
    where class.relnamespace = 'runledger'::regnamespace
      and class.relkind = 'r'
    order by class.relname`;
  return Object.fromEntries(rows.map(({ name, bytes }) => [name, bytes]));
}

function enqueueDirectJobs(sql: postgres.Sql, count: number): Promise<unknown> {
  return enqueueJobs(sql, Array.from({ length: count }, () => ({ jobType: TYPE, payload: PAYLOAD })));
}

function enqueueKeyedJobs(sql: postgres.Sql, count: number, from: number): Promise<unknown> {
  const keyed = (_: unknown, index: number) => ({
    jobType: TYPE,
    payload: PAYLOAD,
    idempotencyKey: `order:${String(from + index).padStart(10, "0")}`,
  });
  return enqueueJobs(sql, Array.from({ length: count }, keyed));
}

/** One step, then two, then one. */
function enqueueDiamonds(sql: postgres.Sql, count: number): Promise<unknown> {
  const step = (stepKey: string, ...prerequisites: readonly string[]) => ({
    executionKind: "JOB" as const,
    stepKey,
    jobType: TYPE,
    payload: PAYLOAD,
    dependencies: prerequisites.map((prerequisiteStepKey) => ({
      prerequisiteStepKey,
      releaseMode: "ON_SUCCESS" as const,
    })),
  });
  const steps = [step("first"), step("left", "first"), step("right", "first"), step("last", "left", "right")];
  const run = { workflowType: "bench.diamond", metadata: null, steps };
  return enqueueWorkflowRuns(sql, Array.from({ length: count / 4 }, () => run));
}
