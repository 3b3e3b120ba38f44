/**
 * The server a benchmark runs on: PostgreSQL 18 that keeps what it commits, or the one of DATABASE_URL.
 *
 * @module
 */

import { migrate } from "@runledger/postgres";
import { startEmbeddedPostgres } from "@runledger/test-support";
import { mkdtemp, rm } from "node:fs/promises";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import postgres from "postgres";

/**
 * What the embedded server is given beyond its defaults. fsync, full_page_writes and synchronous_commit are on. The buffers
 * hold every table of the benchmark, and checkpoints are far enough apart that a round is not a measurement of one.
 */
export const SERVER_SETTINGS: Readonly<Record<string, string>> = {
  shared_buffers: "2GB",
  max_wal_size: "8GB",
  min_wal_size: "2GB",
  checkpoint_timeout: "15min",
  wal_buffers: "64MB",
};

/** A server with room for the databases of one benchmark. */
export interface BenchServer extends AsyncDisposable {
  /** What it is and what it runs on, for the head of a table. */
  readonly description: string;
  /** Makes an empty database with Runledger's schema, dropped at the end. */
  createDatabase(label: string): Promise<BenchDatabase>;
}

/** A migrated database and two single connections, opened and prepared before anything is measured. */
export interface BenchDatabase {
  /** Connects to it. */
  readonly url: string;
  /** Two pools of one connection each: what two workers would have. */
  readonly connections: readonly [postgres.Sql, postgres.Sql];
  /** A third one, for whoever gets in the way. */
  readonly holder: postgres.Sql;
}

/** Starts or finds the server. */
export async function openBenchServer(): Promise<BenchServer> {
  const given = process.env.DATABASE_URL;
  if (given !== undefined && given !== "") return await serverAt(given, async () => {});
  const folder = await mkdtemp(join(tmpdir(), "runledger-bench-"));
  const server = await startEmbeddedPostgres({
    dataDir: join(folder, "data"),
    durable: true,
    settings: SERVER_SETTINGS,
  });
  const stop = async () => {
    await server.stop();
    await rm(folder, { recursive: true, force: true });
  };
  // The server outlives its starter, so Ctrl-C must not be the end.
  const interrupt = () => void stop().finally(() => process.exit(130));
  process.once("SIGINT", interrupt).once("SIGTERM", interrupt);
  return await serverAt(server.url, async () => {
    process.off("SIGINT", interrupt).off("SIGTERM", interrupt);
    await stop();
  });
}

async function serverAt(serverUrl: string, stop: () => Promise<void>): Promise<BenchServer> {
  const admin = postgres(serverUrl, { max: 1, onnotice: () => {} });
  const opened: { readonly name: string; readonly pools: readonly postgres.Sql[] }[] = [];
  const [row] = await admin<{ description: string }[]>`
    select 'PostgreSQL ' || current_setting('server_version') || ', ' || string_agg(
      name || '=' || current_setting(name), ', ' order by name
    ) as description
    from pg_settings
    where name in ('fsync', 'full_page_writes', 'synchronous_commit', 'shared_buffers', 'max_wal_size')`;
  return {
    description: `${availableParallelism()} cores, Deno ${Deno.version.deno}, ${row?.description ?? ""}`,
    createDatabase: async (label) => {
      const name = `runledger_bench_${label}_${process.pid}`;
      await admin.unsafe(`create database "${name}" template template0`);
      const url = new URL(serverUrl);
      url.pathname = `/${name}`;
      const pool = () => postgres(url.href, { max: 1, onnotice: () => {} });
      const connections = [pool(), pool()] as const;
      const holder = pool();
      opened.push({ name, pools: [...connections, holder] });
      await migrate(connections[0]);
      return { url: url.href, connections, holder };
    },
    [Symbol.asyncDispose]: async () => {
      for (const { name, pools } of opened) {
        await Promise.all(pools.map((pool) => pool.end({ timeout: 5 })));
        await admin.unsafe(`drop database if exists "${name}" with (force)`);
      }
      await admin.end();
      await stop();
    },
  };
}
