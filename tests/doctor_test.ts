/**
 * The doctor finds what is wrong with a database, each thing by its name, and is silent on a healthy one.
 *
 * @module
 */

import { isRunledgerError } from "@runledger/core";
import * as runledger from "@runledger/postgres";
import type { ExamineDatabaseOptions, HealthCode } from "@runledger/postgres";
import { createEphemeralDatabase } from "@runledger/test-support";
import assert from "node:assert/strict";
import pg from "pg";
import postgres from "postgres";
import type { Sql } from "postgres";
import { claimOne, openTestDatabase, request } from "./support/database.ts";
import { openHealthyDatabase } from "./support/healthy_database.ts";

/** What is planted, and what the doctor calls it. Each is planted in a database of its own. */
const PLANTED: readonly {
  readonly name: string;
  readonly code: HealthCode;
  readonly subject?: string;
  readonly plant: (sql: Sql, url: string) => Promise<unknown>;
  readonly options?: ExamineDatabaseOptions;
}[] = [
  {
    name: "a migration that was edited after it was applied",
    code: "schema_incompatible",
    plant: (sql) => sql`update runledger.migration_history set checksum = repeat('0', 64) where version = 2`,
  },
  {
    name: "a migration that was never applied",
    code: "schema_incompatible",
    plant: (sql) =>
      sql`delete from runledger.migration_history where version = (select max(version) from runledger.migration_history)`,
  },
  {
    name: "an index that somebody dropped",
    code: "object_missing",
    subject: "job_queue_lease_index",
    plant: (sql) => sql`drop index runledger.job_queue_lease_index`,
  },
  {
    name: "a constraint that somebody dropped",
    code: "object_missing",
    subject: "job_queue_state_check",
    plant: (sql) => sql`alter table runledger.job_queue drop constraint job_queue_state_check`,
  },
  {
    name: "a function that somebody edited",
    code: "function_changed",
    subject: "runledger.refuse_ledger_change",
    plant: (sql) =>
      sql.unsafe(`create or replace function runledger.refuse_ledger_change() returns trigger
        language plpgsql set search_path = pg_catalog, pg_temp as 'begin return null; end'`),
  },
  {
    name: "a trigger that is switched off",
    code: "trigger_disabled",
    subject: "job_events_append_only",
    plant: (sql) => sql`alter table runledger.job_events disable trigger job_events_append_only`,
  },
  {
    name: "an index whose building failed",
    code: "index_invalid",
    subject: "job_queue_claim_index",
    plant: (sql) =>
      sql`update pg_index set indisvalid = false where indexrelid = 'runledger.job_queue_claim_index'::regclass`,
  },
  {
    name: "a function that workers may no longer call",
    code: "grants_missing",
    subject: "runledger_worker",
    plant: (sql) => sql`revoke all on all functions in schema runledger from runledger_worker`,
  },
  {
    name: "a table that is not vacuumed",
    code: "autovacuum_off",
    subject: "job_queue",
    plant: (sql) => sql`alter table runledger.job_queue set (autovacuum_enabled = off)`,
  },
  {
    name: "leases that no reaper came for",
    code: "leases_not_reaped",
    plant: (sql) =>
      sql`update runledger.job_queue set lease_expires_at = clock_timestamp() - interval '3 minutes' where status = 'LEASED'`,
  },
  {
    name: "a worker that no longer extends its leases",
    code: "heartbeats_missed",
    subject: "w",
    plant: (sql) =>
      sql`update runledger.job_queue set last_heartbeat_at = clock_timestamp() - interval '55 seconds',
        lease_expires_at = clock_timestamp() + interval '5 seconds' where status = 'LEASED'`,
  },
  {
    name: "schedules that nobody fires",
    code: "schedules_overdue",
    plant: (sql) => sql`update runledger.job_schedules set next_fire_at = clock_timestamp() - interval '3 minutes'`,
  },
  {
    name: "gates that nobody ends",
    code: "gates_overdue",
    plant: (sql) => sql`update runledger.workflow_steps set gate_expires_at = clock_timestamp() - interval '3 minutes'`,
  },
  {
    name: "a ledger from a server with higher transaction numbers",
    code: "ledger_ahead",
    plant: (sql) =>
      sql.begin(async (tx) => {
        await tx`set local session_replication_role = replica`;
        await tx`update runledger.job_events
          set posted_xid = (pg_current_xact_id()::text::bigint + 1000000)::text::xid8 where event_type = 'LEASED'`;
      }),
  },
  {
    name: "jobs that nobody claims",
    code: "jobs_not_claimed",
    subject: "a",
    plant: (sql) =>
      sql`update runledger.job_queue set next_run_at = clock_timestamp() - interval '6 minutes' where status = 'PENDING'`,
  },
];

Deno.test("a healthy database is not found fault with", async () => {
  await using database = await openHealthyDatabase();
  assert.deepEqual(await runledger.examineDatabase(database.sql), []);
});

for (const { name, code, subject, plant, options } of PLANTED) {
  Deno.test(`the doctor finds ${name}, and nothing else`, async () => {
    await using database = await openHealthyDatabase();
    await plant(database.sql, database.url);
    const findings = await runledger.examineDatabase(database.sql, options);
    assert.deepEqual([...new Set(findings.map((finding) => finding.code))], [code]);
    for (const finding of findings) {
      assert.equal(finding.subject?.replace(/^runledger\./, ""), subject?.replace(/^runledger\./, ""));
      assert(finding.message.length > 20 && finding.fix.length > 10);
    }
  });
}

Deno.test("the doctor finds a table full of dead rows", async () => {
  await using database = await openHealthyDatabase();
  const { sql } = database;
  await sql`alter table runledger.job_logs set (autovacuum_enabled = off)`;
  const { lease } = { lease: await claimOne(sql) };
  await sql`insert into runledger.job_logs (job_id, run_number, attempt, level, message)
    select ${lease.jobId}::uuid, 1, 1, 'info', 'line' from generate_series(1, 500)`;
  await sql.begin(async (tx) => {
    await tx`delete from runledger.job_logs`;
    await tx`select pg_stat_force_next_flush()`;
  });
  const findings = await runledger.examineDatabase(sql, { deadRows: 400 });
  assert.deepEqual(findings.map(({ code, subject }) => [code, subject]), [
    ["autovacuum_off", "job_logs"],
    ["dead_rows", "job_logs"],
  ]);
});

Deno.test("the doctor finds an index whose entries are gone", async () => {
  await using database = await openHealthyDatabase();
  const { sql } = database;
  await runledger.enqueueJobs(sql, Array.from({ length: 5000 }, () => request()));
  const examine = () => runledger.examineDatabase(sql, { bloatedBytes: 200_000 });
  await sql`vacuum runledger.job_queue`;
  assert.deepEqual(await examine(), [], "it is full yet");
  await sql`delete from runledger.job_queue where status = 'PENDING'`;
  await sql`vacuum runledger.job_queue`;
  const findings = await examine();
  assert.deepEqual([...new Set(findings.map(({ code }) => code))], ["index_bloated"]);
  const claim = findings.find(({ subject }) => subject === "job_queue_claim_index");
  await sql.unsafe(claim?.fix ?? "");
  const left = await examine();
  assert.deepEqual(
    left.map(({ subject }) => subject),
    findings.map(({ subject }) => subject).filter((subject) => subject !== claim?.subject),
  );
});

Deno.test("the doctor finds a transaction that holds vacuum up", async () => {
  await using database = await openHealthyDatabase();
  const holder = postgres(database.url, { max: 1, onnotice: () => {}, connection: { application_name: "report" } });
  const opened = Promise.withResolvers<void>();
  const closed = Promise.withResolvers<void>();
  const held = holder.begin("isolation level repeatable read", async (tx) => {
    await tx`select count(*) from runledger.job_queue`;
    opened.resolve();
    await closed.promise;
  });
  try {
    await opened.promise;
    assert.deepEqual(await runledger.examineDatabase(database.sql), [], "it is young yet");
    // Some milliseconds have passed since it began.
    const findings = await runledger.examineDatabase(database.sql, { longTransactionMs: 1 });
    assert.deepEqual(findings.map(({ code }) => code), ["long_transaction"]);
    assert(findings[0]?.message.includes("report"));
  } finally {
    closed.resolve();
    await held;
    await holder.end({ timeout: 1 });
  }
});

/** What a pooler in transaction mode makes of LISTEN: when the answer is back, the session has forgotten it. */
function breakListen(pool: pg.Pool): void {
  const { connect } = pool;
  const connectBroken = async (...args: readonly unknown[]) => {
    // The pool itself, for a statement.
    if (args[0] !== undefined) return Reflect.apply(connect, pool, args);
    const client: pg.PoolClient = await Reflect.apply(connect, pool, []);
    const { query } = client;
    const queryBroken = async (...args: readonly unknown[]) => {
      const result = await Reflect.apply(query, client, args);
      if (/^listen /i.test(String(args[0]))) await Reflect.apply(query, client, ["unlisten *"]);
      return result;
    };
    return Object.assign(client, { query: queryBroken });
  };
  Object.assign(pool, { connect: connectBroken });
}

Deno.test("the doctor finds a pooler that breaks LISTEN, and none on a connection where it works", async () => {
  await using database = await openHealthyDatabase();
  const direct = new pg.Pool({ connectionString: database.url, max: 2, idleTimeoutMillis: 0 });
  const pooled = new pg.Pool({ connectionString: database.url, max: 2, idleTimeoutMillis: 0 });
  breakListen(pooled);
  try {
    assert.deepEqual(await runledger.examineDatabase(direct), []);
    const findings = await runledger.examineDatabase(pooled, { listenTimeoutMs: 100 });
    assert.deepEqual(findings.map(({ code }) => code), ["listen_broken"]);
  } finally {
    await direct.end();
    await pooled.end();
  }
});

Deno.test("of a database without the schema the doctor says only that, and of one without roles that they lack", async () => {
  await using database = await createEphemeralDatabase();
  const sql = postgres(database.url, { max: 2, onnotice: () => {} });
  try {
    const roles = await runledger.examineDatabase(sql);
    assert(roles.length > 0);
    for (const { code } of roles) assert(code === "roles_missing" || code === "grants_missing", code);
    await sql`drop schema runledger cascade`;
    const findings = await runledger.examineDatabase(sql);
    assert.deepEqual(findings.map(({ code, severity }) => [code, severity]), [["schema_incompatible", "problem"]]);
    assert(findings[0]?.fix.includes("migrate()"));
  } finally {
    await sql.end({ timeout: 1 });
  }
});

Deno.test("limits that cannot be are refused before any SQL", async () => {
  await using database = await openTestDatabase();
  for (
    const field of [
      "longTransactionMs",
      "unclaimedMs",
      "overdueMs",
      "deadRows",
      "bloatedBytes",
      "listenTimeoutMs",
    ] as const
  ) {
    for (const value of [0, -1, 1.5, NaN, 2 ** 31]) {
      await assert.rejects(
        runledger.examineDatabase(database.sql, { [field]: value }),
        (error) => isRunledgerError(error, "job.invalid_request") && error.details?.["field"] === field,
      );
    }
  }
});
