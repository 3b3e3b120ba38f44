/**
 * A process that migrates, for tests that kill it or start many: `deno run -A migrate_process.ts <url>`.
 *
 * @module
 */

import postgres from "postgres";
import type { Migration } from "../../postgres/_migrations.ts";
import { applyMigrations } from "../../postgres/migrate.ts";

/** A list whose every file makes one table, in several statements that take a few milliseconds together. */
export const PLANTED: readonly Migration[] = Array.from({ length: 6 }, (_, index) => plant(index + 1));

/** A migration that makes the table `runledger.planted_<version>`. */
export function plant(version: number, header = "-- breaking: no"): Migration {
  const table = `runledger.planted_${version}`;
  const sql = `${header}
create table ${table} (id integer primary key);
insert into ${table} select generate_series(1, 10000);
delete from ${table} where id % 2 = 0;`;
  return { version, name: `planted_${version}`, sql };
}

if (import.meta.main) {
  const sql = postgres(Deno.args[0] ?? "", { max: 1 });
  await sql`select 1`;
  console.log("ready");
  const { applied } = await applyMigrations(sql, PLANTED);
  console.log(JSON.stringify(applied));
  await sql.end();
}
