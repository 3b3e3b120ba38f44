/**
 * The schema management section of the contract.
 *
 * @module
 */

import { isRunledgerError } from "@runledger/core";
import type { RunledgerErrorCode, RunledgerErrorDetail } from "@runledger/core";
import { atomically, ensureSchemaCompatible, migrate } from "@runledger/postgres";
import { createEphemeralDatabase } from "@runledger/test-support";
import assert from "node:assert/strict";
import postgres from "postgres";
import { MIGRATIONS } from "../postgres/_migrations.ts";
import { applyMigrations, ensureMigrationsApplied } from "../postgres/migrate.ts";
import { DRIVERS, sharedPGlite } from "./support/drivers.ts";
import { ORM_DRIVERS } from "./support/orm_drivers.ts";
import { plant, PLANTED } from "./support/migrate_process.ts";

const database = await createEphemeralDatabase({ migrated: false });
await sharedPGlite();
Deno.test.afterAll(async () => {
  await database[Symbol.asyncDispose]();
});

const PLANTED_VERSIONS = PLANTED.map(({ version }) => version);

/** A pool on a database without the schema. */
async function openEmpty(): Promise<postgres.Sql & AsyncDisposable> {
  const sql = postgres(database.url, { max: 4, connect_timeout: 0, onnotice: () => {} });
  await sql`drop schema if exists runledger cascade`;
  return Object.assign(sql, { [Symbol.asyncDispose]: () => sql.end() });
}

/** The history and the planted tables, in one snapshot. */
async function readState(sql: postgres.Sql): Promise<{ history: number[]; tables: number[] }> {
  const [row] = await sql`
    select
      coalesce((select jsonb_agg(substr(c.relname, 9)::integer order by c.relname) from pg_class c
        where c.relname ~ '^planted_[0-9]+$' and c.relkind = 'r'), '[]') as tables,
      case when to_regclass('runledger.migration_history') is null then '[]'
        else (xpath('/table/row/v/text()', query_to_xml(
          'select coalesce(jsonb_agg(version order by version), ''[]'') as v from runledger.migration_history',
          false, false, '')))[1]::text end as history`;
  return { history: JSON.parse(row?.history), tables: row?.tables };
}

function hasCode(
  code: RunledgerErrorCode,
  details?: Record<string, RunledgerErrorDetail>,
): (error: unknown) => boolean {
  return (error) => {
    assert.ok(isRunledgerError(error), Deno.inspect(error));
    assert.equal(error.code, code, error.internalMessage);
    if (details !== undefined) assert.deepEqual(error.details, details);
    return true;
  };
}

function startProcess(): Deno.ChildProcess {
  const script = new URL("support/migrate_process.ts", import.meta.url).pathname;
  const args = ["run", "--allow-all", "--no-check", "--quiet", script, database.url];
  return new Deno.Command(Deno.execPath(), { args, stdin: "null", stdout: "piped", stderr: "inherit" }).spawn();
}

Deno.test("migrating an empty database applies every file in order, and once", async () => {
  await using sql = await openEmpty();
  const versions = MIGRATIONS.map(({ version }) => version);
  assert.deepEqual(await migrate(sql), { applied: versions, version: versions.at(-1) ?? 0 });
  assert.deepEqual(await migrate(sql), { applied: [], version: versions.at(-1) ?? 0 });
  await ensureSchemaCompatible(sql);
  const rows = await sql`select version, name, checksum, is_breaking, applied_at from runledger.migration_history`;
  assert.equal(rows.length, MIGRATIONS.length);
  for (const row of rows) {
    assert.match(row.checksum, /^[0-9a-f]{64}$/);
    assert.ok(row.applied_at instanceof Date);
  }
});

Deno.test("every migration says in its header whether it breaks, what it locks and whether it rewrites", () => {
  for (const { version, sql } of MIGRATIONS) {
    for (const line of [/^-- purpose: \S/m, /^-- locks: \S/m, /^-- rewrites: \S/m, /^-- breaking: (?:yes|no)$/m]) {
      assert.match(sql, line, `migration ${version}`);
    }
  }
});

for (const driver of [...DRIVERS, ...ORM_DRIVERS]) {
  Deno.test(`${driver.name}: the schema can be migrated and checked through it`, async () => {
    await using _sql = await openEmpty();
    await using handle = await driver.open(database.url);
    const { applied } = await applyMigrations(handle.db, PLANTED.slice(0, 2));
    assert.deepEqual(applied, [1, 2]);
    assert.deepEqual((await applyMigrations(handle.db, PLANTED.slice(0, 3))).applied, [3]);
    await ensureMigrationsApplied(handle.db, PLANTED.slice(0, 3));
    await assert.rejects(
      ensureMigrationsApplied(handle.db, PLANTED.slice(0, 4)),
      hasCode("schema.outdated", { missing: ["0004_planted_4"] }),
    );
    if (driver.name === "PGlite") await (await sharedPGlite()).exec("drop schema runledger cascade");
  });
}

Deno.test("a file that fails is undone whole, and those before it stay", async () => {
  await using sql = await openEmpty();
  const failing = { ...plant(3), sql: `${plant(3).sql}\nselect 1 / 0;` };
  await assert.rejects(applyMigrations(sql, [plant(1), plant(2), failing]), hasCode("db.query_failed"));
  assert.deepEqual(await readState(sql), { history: [1, 2], tables: [1, 2] });
  assert.deepEqual(await applyMigrations(sql, PLANTED), { applied: [3, 4, 5, 6], version: 6 });
});

Deno.test("migrating inside a transaction of the caller is part of it", async () => {
  await using sql = await openEmpty();
  const undone = sql.begin(async (tx) => {
    assert.deepEqual((await applyMigrations(tx, PLANTED)).applied, PLANTED_VERSIONS);
    throw new Error("undo");
  });
  await assert.rejects(undone, /undo/);
  assert.deepEqual(await readState(sql), { history: [], tables: [] });
  await atomically(sql, (tx) => applyMigrations(tx, PLANTED));
  assert.deepEqual(await readState(sql), { history: PLANTED_VERSIONS, tables: PLANTED_VERSIONS });
});

Deno.test("a schema that an administrator made beforehand is used", async () => {
  await using sql = await openEmpty();
  await sql`create schema runledger`;
  assert.deepEqual((await applyMigrations(sql, PLANTED.slice(0, 1))).applied, [1]);
});

Deno.test("aborting stops before the next file, and the next call goes on", async () => {
  await using sql = await openEmpty();
  await assert.rejects(applyMigrations(sql, PLANTED, { signal: AbortSignal.abort() }), { name: "AbortError" });
  assert.deepEqual(await readState(sql), { history: [], tables: [] });
  const controller = new AbortController();
  const stopping = new Proxy(PLANTED, {
    get: (list, key) => {
      if (key === "1") controller.abort(); // looked at while the first file is being applied or before
      return Reflect.get(list, key);
    },
  });
  await assert.rejects(applyMigrations(sql, stopping, { signal: controller.signal }), { name: "AbortError" });
  const { history, tables } = await readState(sql);
  assert.deepEqual(history, tables);
  assert.ok(history.length < PLANTED.length);
  await applyMigrations(sql, PLANTED);
  assert.deepEqual((await readState(sql)).history, PLANTED_VERSIONS);
});

Deno.test("a role that may only read can call migrate when there is nothing to do", async () => {
  await using sql = await openEmpty();
  await applyMigrations(sql, PLANTED);
  const role = `reader_${database.name}`;
  await sql.unsafe(`create role ${role}; grant usage on schema runledger to ${role};
    grant select on runledger.migration_history to ${role};`);
  try {
    await sql.begin(async (tx) => {
      await tx.unsafe(`set local role ${role}`);
      assert.deepEqual(await applyMigrations(tx, PLANTED), { applied: [], version: 6 });
      await ensureMigrationsApplied(tx, PLANTED);
      await assert.rejects(
        atomically(tx, (inner) => applyMigrations(inner, [...PLANTED, plant(7)])),
        hasCode("db.permission_denied"),
      );
    });
  } finally {
    await sql.unsafe(`drop owned by ${role}; drop role ${role}`);
  }
});

Deno.test("a database without the schema is missing it; one that was never finished too", async () => {
  await using sql = await openEmpty();
  await assert.rejects(ensureSchemaCompatible(sql), hasCode("schema.missing"));
  await applyMigrations(sql, []);
  await assert.rejects(ensureSchemaCompatible(sql), hasCode("schema.missing"));
});

Deno.test("an unknown migration is accepted if it is additive and refused if it breaks", async () => {
  await using sql = await openEmpty();
  await applyMigrations(sql, [...PLANTED, plant(7)]);
  await ensureMigrationsApplied(sql, PLANTED);
  assert.deepEqual(await applyMigrations(sql, PLANTED), { applied: [], version: 7 });
  await applyMigrations(sql, [...PLANTED, plant(7), plant(8, "-- breaking: yes")]);
  const refused = hasCode("schema.newer", { newer: ["0008_planted_8"] });
  await assert.rejects(ensureMigrationsApplied(sql, PLANTED), refused);
  await assert.rejects(applyMigrations(sql, PLANTED), refused);
  await assert.rejects(applyMigrations(sql, [...PLANTED, plant(9)]), refused);
});

Deno.test("a migration that was edited after it was applied is named", async () => {
  await using sql = await openEmpty();
  await applyMigrations(sql, PLANTED);
  const edited = PLANTED.map((migration) =>
    migration.version === 2 ? { ...migration, sql: `${migration.sql} ` } : migration
  );
  const refused = hasCode("schema.changed", { changed: ["0002_planted_2"] });
  await assert.rejects(ensureMigrationsApplied(sql, edited), refused);
  await assert.rejects(applyMigrations(sql, [...edited, plant(7)]), refused);
});

Deno.test("migrating works where transactions are REPEATABLE READ by default", async () => {
  await using sql = await openEmpty();
  await sql`create schema runledger`;
  const pools = [1, 2, 3, 4].map(() =>
    postgres(database.url, {
      max: 1,
      connect_timeout: 0,
      connection: { default_transaction_isolation: "repeatable read" },
    })
  );
  const results = await Promise.all(pools.map((pool) => applyMigrations(pool, PLANTED)));
  assert.deepEqual(results.flatMap(({ applied }) => applied).sort(), PLANTED_VERSIONS);
  await Promise.all(pools.map((pool) => pool.end()));
});

Deno.test("eight processes that migrate at once apply each file once", async () => {
  await using sql = await openEmpty();
  const gate = await sql.reserve();
  await gate`select pg_advisory_lock(hashtextextended('runledger.migrate', 0))`;
  const processes = Array.from({ length: 8 }, startProcess);
  let waiting = 0;
  while (waiting < processes.length) {
    const [row] = await sql`
      select count(*)::integer as waiting from pg_locks l join pg_database d on d.oid = l.database
      where l.locktype = 'advisory' and not l.granted and d.datname = current_database()`;
    waiting = row?.waiting;
  }
  await gate`select pg_advisory_unlock(hashtextextended('runledger.migrate', 0))`;
  gate.release();
  const outputs = await Promise.all(processes.map((process) => process.output()));
  assert.ok(outputs.every(({ success }) => success));
  const applied = outputs.flatMap(({ stdout }) => JSON.parse(new TextDecoder().decode(stdout).split("\n")[1] ?? ""));
  assert.deepEqual(applied.sort(), PLANTED_VERSIONS);
  assert.deepEqual(await readState(sql), { history: PLANTED_VERSIONS, tables: PLANTED_VERSIONS });
});

/** Starts a process and counts how often the server can be asked before it ends, or before it is killed after `limit`. */
async function killAfter(sql: postgres.Sql, limit: number): Promise<number> {
  const process = startProcess();
  const reader = process.stdout.getReader();
  await reader.read(); // it is connected and about to migrate
  let hasEnded = false;
  const ended = process.status.then(() => hasEnded = true);
  let looks = 0;
  for (; looks < limit && !hasEnded; looks++) await sql`select 1`;
  if (!hasEnded) process.kill("SIGKILL");
  await ended;
  await reader.cancel();
  return looks;
}

Deno.test("a process killed while it migrates leaves whole files only, and the next one finishes", async () => {
  await using sql = await openEmpty();
  const looksOfAll = await killAfter(sql, Infinity);
  const reached = new Set<number>();
  for (let round = 0; round < 20; round++) {
    await sql`drop schema runledger cascade`.catch(() => {}); // it was killed before there was one
    await killAfter(sql, Math.random() * looksOfAll * 1.5);
    const { history, tables } = await readState(sql);
    assert.deepEqual(history, tables);
    assert.deepEqual(history, PLANTED_VERSIONS.slice(0, history.length));
    reached.add(history.length);
    await applyMigrations(sql, PLANTED);
    assert.deepEqual(await readState(sql), { history: PLANTED_VERSIONS, tables: PLANTED_VERSIONS });
  }
  assert.ok(reached.size > 1, `every kill met the same state: ${[...reached]}`);
});
