/**
 * What the database refuses reaches the caller as one of our codes, and nothing that must stay inside gets out with it.
 *
 * @module
 */

import { ERROR_CATALOGUE, ERROR_CODES, isRunledgerError } from "@runledger/core";
import type { RunledgerError, RunledgerErrorCode } from "@runledger/core";
import { enqueueJob, enqueueWorkflowRun, settleJob, upsertJobRuntimeConfig } from "@runledger/postgres";
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { stripTypeScriptTypes } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Sql } from "postgres";
import { mapDatabaseError } from "../postgres/_errors.ts";
import { renderErrorDocs } from "../scripts/write_error_docs.ts";
import { jobIn, openTestDatabase, request } from "./support/database.ts";
import { printedForms } from "./support/printed_forms.ts";

/** A value that marks what a client must not see. */
const SECRET = "hunter2-0b1c";

/** How to violate each constraint that has a code of its own. There are one keyed job and one workflow run with one gate. */
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
  job_schedules_cron_expression_check: [
    "job_schedule.invalid_cron",
    `insert into runledger.job_schedules (id, name, job_type, payload_template, cron_expression)
     values (gen_random_uuid(), '${SECRET}', 'a', '1', ' ')`,
  ],
  job_schedules_enabled_definition_fkey: [
    "job_schedule.definition_not_found_or_disabled",
    `with disabled as (update runledger.job_definitions set is_enabled = false where job_type = 'a')
     insert into runledger.job_schedules (id, name, job_type, payload_template, cron_expression)
     values (gen_random_uuid(), '${SECRET}', 'a', '1', '@daily')`,
  ],
  job_schedules_job_type_fkey: [
    "job_schedule.definition_not_found_or_disabled",
    `insert into runledger.job_schedules (id, name, job_type, payload_template, cron_expression, is_active)
     values (gen_random_uuid(), 's', '${SECRET}', '1', '@daily', false)`,
  ],
  job_schedules_max_jitter_seconds_check: [
    "job_schedule.invalid_jitter",
    `insert into runledger.job_schedules (id, name, job_type, payload_template, cron_expression, max_jitter_seconds)
     values (gen_random_uuid(), 's', 'a', '"${SECRET}"', '@daily', -1)`,
  ],
  job_schedules_name_check: [
    "job_schedule.invalid_name",
    `insert into runledger.job_schedules (id, name, job_type, payload_template, cron_expression)
     values (gen_random_uuid(), ' ', 'a', '"${SECRET}"', '@daily')`,
  ],
  job_schedules_timezone_check: [
    "job_schedule.invalid_timezone",
    `insert into runledger.job_schedules (id, name, job_type, payload_template, cron_expression, timezone)
     values (gen_random_uuid(), 's', 'a', '"${SECRET}"', '@daily', ' ')`,
  ],
  workflow_run_mutations_pkey: [
    "workflow.append_conflicting_retry",
    `insert into runledger.workflow_run_mutations (run_id, mutation_key, mutation_kind, request)
     select id, '${SECRET}', 'APPEND_STEPS', '1' from runledger.workflow_runs, generate_series(1, 2)`,
  ],
  workflow_runs_active_unique: [
    "workflow.recovery_active_constraint",
    `insert into runledger.workflow_runs (
       id, workflow_type, status, step_count, open_count, waiting_count, active_key, enqueue_request
     ) select gen_random_uuid(), '${SECRET}', 'RUNNING', 1, 1, 0, active_key, '{}' from runledger.workflow_runs`,
  ],
  workflow_runs_idempotency_unique: [
    "workflow.enqueue_conflicting_retry",
    `insert into runledger.workflow_runs (
       id, workflow_type, status, step_count, open_count, waiting_count, idempotency_key, enqueue_request
     ) select gen_random_uuid(), workflow_type, 'RUNNING', 1, 1, 0, idempotency_key, '"${SECRET}"'
       from runledger.workflow_runs`,
  ],
  workflow_runs_recovery_unique: [
    "workflow.recovery_request_conflict",
    `insert into runledger.workflow_runs (
       id, workflow_type, status, step_count, open_count, waiting_count, recovery_of_run_id, recovery_key,
       recovery_mode, enqueue_request
     ) select gen_random_uuid(), 'w', 'RUNNING', 1, 1, 0, id, '${SECRET}', 'REPLAY', '1'
       from runledger.workflow_runs, generate_series(1, 2)`,
  ],
  workflow_step_dependencies_pkey: [
    "workflow.invalid_dag_duplicate_dependency",
    `insert into runledger.workflow_step_dependencies (prerequisite_step_id, dependent_step_id, release_mode)
     select id, run_id, 'ON_SUCCESS' from runledger.workflow_steps, generate_series(1, 2)`,
  ],
  workflow_step_dependencies_self_check: [
    "workflow.invalid_dag_self_dependency",
    `insert into runledger.workflow_step_dependencies (prerequisite_step_id, dependent_step_id, release_mode)
     select id, id, 'ON_SUCCESS' from runledger.workflow_steps`,
  ],
  workflow_steps_key_unique: [
    "workflow.invalid_dag_duplicate_step_key",
    `insert into runledger.workflow_steps (
       id, run_id, step_key, position, execution_kind, status, dependency_count, pending_count, released_at, payload
     ) select gen_random_uuid(), run_id, step_key, 9, 'EXTERNAL', 'WAITING_FOR_EXTERNAL', 0, 0, now(), '"${SECRET}"'
       from runledger.workflow_steps`,
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

Deno.test("each constraint with a meaning of its own has its own code, and none of the row gets out", async () => {
  await using database = await openTestDatabase({ checks: false });
  const { sql } = database;
  await enqueueJob(sql, request({ idempotencyKey: `${SECRET}-key`, payload: SECRET }));
  await enqueueWorkflowRun(sql, {
    workflowType: "w",
    metadata: SECRET,
    idempotencyKey: SECRET,
    activeKey: SECRET,
    steps: [{ executionKind: "EXTERNAL", stepKey: `${SECRET}-step`, payload: SECRET, dependencies: [] }],
  });
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

/** Runs a program with the library's error class under Node, and gives everything that it printed; undefined without Node. */
async function printUnderNode(program: string): Promise<string | undefined> {
  const folder = await mkdtemp(join(tmpdir(), "runledger-errors-"));
  try {
    for (const name of ["errors", "error_code"]) {
      const source = await readFile(new URL(`../core/${name}.ts`, import.meta.url), "utf8");
      await writeFile(join(folder, `${name}.mjs`), stripTypeScriptTypes(source).replaceAll('.ts"', '.mjs"'));
    }
    await writeFile(join(folder, "program.mjs"), program);
    return await new Promise((resolve, reject) => {
      execFile("node", [join(folder, "program.mjs")], (error, stdout, stderr) => {
        if (error?.code === "ENOENT") resolve(undefined);
        else if (error !== null && error.code !== 1) reject(error);
        else resolve(stdout + stderr);
      });
    });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

Deno.test("nothing internal shows under Node either: inspected, nested, as a cause, in a log, or uncaught", async () => {
  const printed = await printUnderNode(`
    import { RunledgerError } from "./errors.mjs";
    import { inspect } from "node:util";
    const error = new RunledgerError("db.query_failed", {
      internalMessage: "${SECRET}", cause: new Error("${SECRET}"), details: { field: "payload" },
    });
    console.log(error, [{ error }], { ...error }, JSON.stringify(error), String(error), error.stack);
    console.error(inspect({ error }, { depth: 10, showHidden: true, getters: false }));
    console.error(new Error("outer", { cause: error }), new AggregateError([error]));
    throw error;
  `);
  if (printed === undefined) return; // no Node here
  assert(printed.includes("RunledgerError [db.query_failed]: The database refused the statement."), printed);
  assert(!printed.includes(SECRET), printed);
});

/** Codes whose feature is still to come. Whoever throws one strikes it off. */
const AWAITED: readonly RunledgerErrorCode[] = [
  "job.unstarted_claim_release_not_applicable",
  "workflow.append_mutation_key_blank",
  "workflow.step_not_found",
  "workflow.unsupported_isolation",
];

/** The text of the packages and migrations, without tests, generated copies and the catalogue itself. */
async function readSources(): Promise<ReadonlyMap<string, string>> {
  const sources = new Map<string, string>();
  for (const folder of ["core", "postgres", "runtime", "migrations"]) {
    const url = new URL(`../${folder}/`, import.meta.url);
    for (const file of await readdir(url, { recursive: true })) {
      if (!/\.(?:ts|sql)$/.test(file) || /_test\.ts$|^_migrations\.ts$|^error_(?:catalogue|code)\.ts$/.test(file)) {
        continue;
      }
      sources.set(`${folder}/${file}`, await readFile(new URL(file, url), "utf8"));
    }
  }
  return sources;
}

const PREFIXES = [...new Set(ERROR_CODES.map((code) => code.slice(0, code.indexOf("."))))];

Deno.test("every code that the sources throw, store or document is in the catalogue", async () => {
  const quoted = new RegExp(`["'\`]((?:${PREFIXES.join("|")})\\.[a-z_]+)["'\`]`, "g");
  const unknown: string[] = [];
  for (const [file, text] of await readSources()) {
    for (const [, code] of text.matchAll(quoted)) {
      // The beginning of a code that is put together, such as `workflow.invalid_dag_${problem}`.
      const isBeginning = code?.endsWith("_") === true && ERROR_CODES.some((known) => known.startsWith(code));
      if (!isBeginning && !Object.hasOwn(ERROR_CATALOGUE, code as string)) unknown.push(`${file}: ${code}`);
    }
  }
  assert.deepEqual(unknown, []);
});

Deno.test("every code of the catalogue is thrown somewhere, or says that it is only stored or an abort reason", async () => {
  const text = [...(await readSources()).values()].join("\n");
  const isUsed = (code: RunledgerErrorCode) => text.includes(`"${code}"`) || text.includes(`'${code}'`);
  const idle = ERROR_CODES.filter((code) =>
    !isUsed(code) && !/^(?:Stored failure|Abort reason)\b/.test(ERROR_CATALOGUE[code].cause)
  );
  assert.deepEqual(idle.sort(), [...AWAITED].sort());
});

Deno.test("a function of the schema raises codes of the catalogue only, as RL000", async () => {
  for (const [file, text] of await readSources()) {
    if (!file.endsWith(".sql")) continue;
    for (const [, state] of text.matchAll(/errcode = '(\w+)'/g)) {
      assert(["RL000", "23514", "40001", "42501"].includes(state as string), `${file} raises ${state}`);
    }
  }
});

Deno.test("the page of errors tells each code's cause, whether a retry helps, and what to do", () => {
  const page = renderErrorDocs(ERROR_CATALOGUE).replaceAll("\n  ", " ");
  for (const code of ERROR_CODES) {
    const { cause, retry, action } = ERROR_CATALOGUE[code];
    const [, section = ""] = page.split(`### \`${code}\`\n`);
    for (const part of [cause, `Retry helps:** ${retry}`, action]) assert(section.includes(part), `${code}: ${part}`);
  }
});

Deno.test("docs/errors.md is what the catalogue says", async () => {
  const page = await readFile(new URL("../docs/errors.md", import.meta.url), "utf8");
  assert.equal(page, renderErrorDocs(ERROR_CATALOGUE), "run: deno task docs:errors");
});
