/**
 * What the database refuses reaches the caller as one of our codes, and nothing that must stay inside gets out with it.
 *
 * @module
 */

import { isRunledgerError } from "@runledger/core";
import type { RunledgerError, RunledgerErrorCode } from "@runledger/core";
import { enqueueJob, settleJob, upsertJobRuntimeConfig } from "@runledger/postgres";
import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { inspect } from "node:util";
import type { Sql } from "postgres";
import { mapDatabaseError } from "../postgres/_errors.ts";
import { jobIn, openTestDatabase, request } from "./support/database.ts";

/** A value that marks what a client must not see. */
const SECRET = "hunter2-0b1c";

/** How to violate each constraint that has a code of its own. `job` is an enqueued job. */
const VIOLATIONS: Readonly<Record<string, readonly [code: RunledgerErrorCode, statement: string]>> = {
  job_dead_letters_job_fkey: [
    "job.not_found",
    `insert into runledger.job_dead_letters
     select gen_random_uuid(), '${SECRET}', null, 1, 1, 'TERMINAL', 'ATTEMPTS_EXHAUSTED', 'x', 'x', now(), '1', null`,
  ],
  job_definitions_job_type_check: [
    "job.invalid_definition",
    `insert into runledger.job_definitions (job_type) values (repeat('${SECRET}', 100))`,
  ],
  job_definitions_max_attempts_check: [
    "job.invalid_definition",
    `insert into runledger.job_definitions (job_type, max_attempts) values ('${SECRET}', 0)`,
  ],
  job_definitions_timeout_seconds_check: [
    "job.invalid_definition",
    `insert into runledger.job_definitions (job_type, timeout_seconds) values ('${SECRET}', 0)`,
  ],
  job_definitions_version_check: [
    "job.invalid_definition",
    `insert into runledger.job_definitions (job_type, version) values ('${SECRET}', 0)`,
  ],
  job_logs_job_fkey: [
    "job.not_found",
    `insert into runledger.job_logs (job_id, run_number, attempt, level, message)
     values (gen_random_uuid(), 1, 1, 'info', '${SECRET}')`,
  ],
  job_logs_level_check: [
    "job.invalid_request",
    `insert into runledger.job_logs (job_id, run_number, attempt, level, message)
     select id, 1, 1, 'loud', '${SECRET}' from runledger.job_queue`,
  ],
  job_logs_message_check: [
    "job.invalid_request",
    `insert into runledger.job_logs (job_id, run_number, attempt, level, message, payload)
     select id, 1, 1, 'info', ' ', '"${SECRET}"' from runledger.job_queue`,
  ],
  job_queue_idempotency_check: [
    "job.invalid_request",
    `update runledger.job_queue set idempotency_key = '${SECRET}', enqueue_request = null`,
  ],
  job_queue_idempotency_unique: [
    "job.idempotency_conflict",
    `insert into runledger.job_queue (
       id, job_type, priority, next_run_at, max_attempts, timeout_seconds, payload, idempotency_key, enqueue_request
     ) select gen_random_uuid(), job_type, 0, now(), 1, 1, '"${SECRET}"', idempotency_key, '{}' from runledger.job_queue`,
  ],
  job_queue_progress_check: ["job.invalid_progress", "update runledger.job_queue set progress_done = -1"],
  job_queue_replay_unique: [
    "job.replay_idempotency_conflict",
    `insert into runledger.job_queue (
       id, job_type, priority, next_run_at, max_attempts, timeout_seconds, payload, replay_of_job_id,
       replay_of_run_number, replay_key
     ) select gen_random_uuid(), job_type, 0, now(), 1, 1, '1', id, 1, '${SECRET}'
       from runledger.job_queue, generate_series(1, 2)`,
  ],
  job_queue_stage_check: ["job.invalid_request", "update runledger.job_queue set stage = 'elsewhere'"],
  job_queue_transition_check: [
    "job.invalid_state_transition",
    "update runledger.job_queue set status = 'SUCCEEDED', stage = 'completed', finished_at = now()",
  ],
  job_runtime_configs_config_check: [
    "job.invalid_request",
    `insert into runledger.job_runtime_configs (job_type, schema_version, config) values ('a', 1, '"${SECRET}"')`,
  ],
  job_runtime_configs_job_type_fkey: [
    "job.definition_not_found",
    `insert into runledger.job_runtime_configs (job_type, schema_version, config) values ('${SECRET}', 1, '{}')`,
  ],
  job_runtime_configs_schema_version_check: [
    "job.invalid_request",
    `insert into runledger.job_runtime_configs (job_type, schema_version, config) values ('a', 0, '{"a": "${SECRET}"}')`,
  ],
};

/** Runs raw SQL that must be refused, undoes it, and gives what a caller of this library would have been given. */
async function refusalOf(sql: Sql, statement: string): Promise<RunledgerError> {
  const undo = new Error("undo");
  let refusal: RunledgerError | undefined;
  await sql.begin(async (tx) => {
    await tx.savepoint((inner) => inner.unsafe(statement)).catch((error: unknown) => {
      refusal = mapDatabaseError(error, { statement });
    });
    throw undo;
  }).catch((error: unknown) => {
    if (error !== undo) throw error;
  });
  assert(refusal !== undefined, `should have been refused: ${statement}`);
  return refusal;
}

/** Everything that a careless logger could print of an error. */
export function printedForms(error: RunledgerError): readonly string[] {
  return [
    error.message,
    String(error),
    JSON.stringify(error),
    JSON.stringify({ error }),
    JSON.stringify({ ...error }),
    error.stack ?? "",
    Deno.inspect(error),
    Deno.inspect({ nested: [error] }, { depth: 10, showHidden: true }),
    inspect(error),
    inspect({ nested: { error } }, { depth: 10, showHidden: true }),
    inspect(new Error("outer", { cause: error }), { depth: 10 }),
    Object.getOwnPropertyNames(error).join(),
  ];
}

Deno.test("each constraint with a meaning of its own has its own code, and none of the row gets out", async () => {
  await using database = await openTestDatabase({ checks: false });
  const { sql } = database;
  await enqueueJob(sql, request({ idempotencyKey: `${SECRET}-key`, payload: SECRET }));
  for (const [constraint, [code, statement]] of Object.entries(VIOLATIONS)) {
    const refusal = await refusalOf(sql, statement);
    assert.equal(refusal.code, code, `${constraint}: ${refusal.internalMessage}`);
    assert.match(refusal.internalMessage ?? "", new RegExp(`constraint ${constraint}\\b`));
    for (const form of printedForms(refusal)) {
      assert(!form.includes(SECRET) && !form.includes(constraint), `${constraint} gives away: ${form}`);
    }
  }
});

Deno.test("the constraints that the mapping names are the ones of the schema, and each has a provocation here", async () => {
  await using database = await openTestDatabase({ checks: false });
  const rows = await database.sql<{ name: string }[]>`
    select conname as name from pg_constraint where connamespace = 'runledger'::regnamespace
    union select relname from pg_class where relnamespace = 'runledger'::regnamespace and relkind = 'i'
    union select tgname from pg_trigger join pg_class on pg_class.oid = tgrelid
      where relnamespace = 'runledger'::regnamespace`;
  const known = new Set(rows.map(({ name }) => name));
  const source = await readFile(new URL("../postgres/_errors.ts", import.meta.url), "utf8");
  const [, table = ""] = /const CONSTRAINT_CODES[^{]*\{([^}]*)\}/.exec(source) ?? [];
  const mapped = [...table.matchAll(/^\s*(\w+): "/gm)].map(([, name]) => name as string);
  assert(mapped.length > 0);
  assert.deepEqual(mapped.filter((name) => !known.has(name)), [], "constraints that the schema does not have");
  assert.deepEqual(mapped.filter((name) => !(name in VIOLATIONS)), [], "constraints that no test provokes");
  assert.deepEqual(Object.keys(VIOLATIONS).filter((name) => !mapped.includes(name)), []);
});

Deno.test("a runtime config of an unknown type is refused by the type's absence", async () => {
  await using database = await openTestDatabase();
  await assert.rejects(
    upsertJobRuntimeConfig(database.sql, { jobType: "nobody", schemaVersion: 1, config: {} }),
    (error) => isRunledgerError(error, "job.definition_not_found"),
  );
});

Deno.test("neither payload nor output nor lease token shows in an error of their job", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const { lease } = await jobIn(sql, "LEASED", { payload: SECRET });
  assert(lease !== undefined);
  await settleJob(sql, lease, { kind: "succeeded", output: SECRET });
  const errors = await Promise.all([
    settleJob(sql, lease, { kind: "succeeded", output: SECRET }),
    settleJob(sql, lease, { kind: "succeeded", output: { [SECRET]: undefined, list: [SECRET, NaN] } as never }),
    enqueueJob(sql, request({ jobType: "nobody", payload: SECRET })),
    enqueueJob(sql, request({ payload: { at: [SECRET, 1n] } as never })),
    enqueueJob(sql, request({ idempotencyKey: `${SECRET}\0` })),
    enqueueJob(sql, request({ organizationId: SECRET })),
  ].map((call) => call.then(() => assert.fail("should have been refused"), (error: unknown) => error)));
  for (const error of errors) {
    assert(isRunledgerError(error), Deno.inspect(error));
    for (const form of printedForms(error)) {
      assert(!form.includes(SECRET) && !form.includes(lease.leaseToken), `${error.code} gives away: ${form}`);
    }
  }
});

Deno.test("what the schema's own functions raise as RL000 is in the catalogue", async () => {
  const folder = new URL("../migrations/", import.meta.url);
  for (const file of await readdir(folder)) {
    const sql = await readFile(new URL(file, folder), "utf8");
    assert(!/errcode = 'RL(?!000)/.test(sql), `${file} raises an SQLSTATE that postgres/_errors.ts does not know`);
  }
});
