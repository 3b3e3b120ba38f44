/**
 * What is wrong with the schema, its roles, and what the server does for its tables.
 *
 * @module
 */

import { isRunledgerError } from "@runledger/core";
import { MIGRATIONS } from "./_migrations.ts";
import { readInteger, readOptionalText, readText } from "./_rows.ts";
import type { HealthFinding, HealthLimits } from "./doctor.ts";
import { ensureSchemaCompatible } from "./migrate.ts";
import { runStatement } from "./queryable.ts";
import type { Queryable } from "./queryable.ts";

/** What migrations made, by its kind: the names of the schema's parts. */
const PARTS: readonly (readonly [kind: string, pattern: RegExp])[] = [
  ["table", /^create (?:unlogged )?table runledger\.(\w+)/gm],
  ["view", /^create view runledger\.(\w+)/gm],
  ["index", /^create (?:unique )?index (\w+)/gm],
  ["constraint", /^\s+constraint (\w+)\s+(?:primary|unique|check|foreign)/gm],
  ["trigger", /^create trigger (\w+)/gm],
  ["function", /^\s*create function runledger\.(\w+)/gm],
];

/** The body of a function, where it does not depend on the server's version. */
const FUNCTION_BODY = /^create function runledger\.(\w+)\([^$]*?\$fn\$([^]*?)\$fn\$/gm;

// index: the catalogs' own. no row: all parts are there, as they were made, and at work.
const EXAMINE_PARTS = `
with expected as materialized (
  select part.kind, part.name, part.body_sha256
  from jsonb_to_recordset($1::text::jsonb) as part (kind text, name text, body_sha256 text)
),
present as materialized (
  select
    case class.relkind when 'v' then 'view' when 'i' then 'index' else 'table' end as kind, class.relname::text as name,
    null::text as state
  from pg_catalog.pg_class as class
  where class.relnamespace = to_regnamespace('runledger')
  union all
  select 'constraint', own.conname::text, case when not own.convalidated then 'not validated' end
  from pg_catalog.pg_constraint as own
  where own.connamespace = to_regnamespace('runledger')
  union all
  select 'trigger', own.tgname::text, case own.tgenabled when 'D' then 'disabled' when 'R' then 'disabled' end
  from pg_catalog.pg_trigger as own
  join pg_catalog.pg_class as class on class.oid = own.tgrelid
  where class.relnamespace = to_regnamespace('runledger')
    and not own.tgisinternal
  union all
  select 'function', own.proname::text, encode(sha256(convert_to(own.prosrc, 'UTF8')), 'hex')
  from pg_catalog.pg_proc as own
  where own.pronamespace = to_regnamespace('runledger')
)
select expected.kind, expected.name, 'missing' as state
from expected
where not exists (select from present where present.kind = expected.kind and present.name = expected.name)
union all
select present.kind, present.name, present.state
from present
where present.kind = 'trigger'
  and present.state is not null
union all
select 'function', expected.name, 'changed'
from expected
join present on present.kind = 'function' and present.name = expected.name
where expected.kind = 'function'
  and expected.body_sha256 <> present.state
union all
select 'index', class.relname::text, 'invalid'
from pg_catalog.pg_index as own
join pg_catalog.pg_class as class on class.oid = own.indexrelid
where class.relnamespace = to_regnamespace('runledger')
  and not (own.indisvalid and own.indisready)
order by 1, 2
`;

/** What a part is to be mended with. */
const MENDING: Readonly<Record<string, string>> = {
  table: "Restore it from a backup; its data is gone.",
  view: "Run its `create view` of the migrations again.",
  index: "Run its `create index` of the migrations again, with `concurrently` while workers run.",
  constraint:
    "Run its `alter table ... add constraint` as in the migrations again; first find what broke it meanwhile.",
  trigger: "Run its `create trigger` of the migrations again; check what was written meanwhile.",
  function: "Run its `create function` of the migrations again, then docs/roles.sql.",
};

/** Examines the parts of the schema. */
export async function schemaFindings(db: Queryable): Promise<readonly HealthFinding[]> {
  const findings: HealthFinding[] = [];
  try {
    await ensureSchemaCompatible(db);
  } catch (error) {
    if (!isRunledgerError(error) || !error.code.startsWith("schema.")) throw error;
    const names = Object.values(error.details ?? {}).flat().join(", ");
    const fix = error.code === "schema.missing" || error.code === "schema.outdated"
      ? "Run migrate(), as at every deployment, with a login that owns the schema; then docs/roles.sql."
      : error.code === "schema.newer"
      ? "Deploy the release that applied these migrations, or a later one."
      : "Compare the schema with the migrations of this release; somebody edited one after it was applied.";
    findings.push({
      code: "schema_incompatible",
      severity: "problem",
      message: `${error.message}${names === "" ? "" : ` (${names})`}`,
      fix,
    });
    // What is not there yet would be told of piece by piece.
    if (error.code === "schema.missing" || error.code === "schema.outdated") return findings;
  }
  for (const row of await runStatement(db, EXAMINE_PARTS, [JSON.stringify(await expectedParts())])) {
    findings.push(partFinding(readText(row, "kind"), readText(row, "name"), readText(row, "state")));
  }
  return findings;
}

function partFinding(kind: string, name: string, state: string): HealthFinding {
  const of = { subject: name } as const;
  switch (state) {
    case "missing":
      return {
        code: "object_missing",
        severity: "problem",
        ...of,
        message: `The ${kind} ${name} is missing.`,
        fix: MENDING[kind] ?? "Compare the schema with the migrations.",
      };
    case "changed":
      return {
        code: "function_changed",
        severity: "warning",
        ...of,
        message: `The function runledger.${name} is not as its migration made it.`,
        fix: "Run its definition of the migrations again, as `create or replace function`.",
      };
    case "invalid":
      return {
        code: "index_invalid",
        severity: "problem",
        ...of,
        message: `The index ${name} is invalid: it is written to, and not used.`,
        fix: `reindex index concurrently runledger.${name};`,
      };
    default:
      return {
        code: "trigger_disabled",
        severity: "problem",
        ...of,
        message: `The trigger ${name} is disabled: what it refuses can happen now.`,
        fix: "alter table ... enable trigger, and check what was written meanwhile.",
      };
  }
}

interface ExpectedPart {
  readonly kind: string;
  readonly name: string;
  readonly body_sha256: string | null;
}

async function expectedParts(): Promise<readonly ExpectedPart[]> {
  const parts = new Map<string, ExpectedPart>();
  for (const { sql } of MIGRATIONS) {
    for (const [kind, pattern] of PARTS) {
      for (const [, name = ""] of sql.matchAll(pattern)) {
        parts.set(`${kind} ${name}`, { kind, name, body_sha256: null });
      }
    }
    for (const [, name = "", body = ""] of sql.matchAll(FUNCTION_BODY)) {
      const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(body));
      const hex = Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
      parts.set(`function ${name}`, { kind: "function", name, body_sha256: hex });
    }
  }
  return [...parts.values()];
}

/** Functions without which a role could not work at all: if it may not call them, the script was not run here. */
const ROLE_FUNCTIONS: Readonly<Record<string, readonly string[]>> = {
  runledger_enqueue: ["enqueue_jobs", "enqueue_workflow_runs"],
  runledger_worker: ["enqueue_jobs", "claim_jobs", "settle_jobs", "finish_workflow_steps", "announce_sleep"],
  runledger_operator: [
    "job_metrics",
    "set_job_definitions_enabled",
    "edit_pending_jobs",
    "delete_finished_jobs",
    "cancel_locked_jobs",
    "cancel_workflow_run",
  ],
};

// no row: all that was asked for is granted.
const EXAMINE_ROLES = `
with wanted as materialized (
  select wanted.role, wanted.function
  from jsonb_to_recordset($1::text::jsonb) as wanted (role text, function text)
),
role as materialized (
  select names.name, to_regrole(names.name) as oid
  from (values ('runledger_owner'), ('runledger_enqueue'), ('runledger_worker'), ('runledger_operator')) as names (name)
)
select role.name as role, null as object
from role
where role.oid is null
union all
select wanted.role, 'function ' || wanted.function
from wanted
join role on role.name = wanted.role
join pg_catalog.pg_proc as own
  on own.pronamespace = to_regnamespace('runledger') and own.proname::text = wanted.function
where role.oid is not null
  and not has_function_privilege(role.oid, own.oid, 'execute')
union all
select role.name, 'table ' || class.relname
from role
join pg_catalog.pg_class as class
  on class.relnamespace = to_regnamespace('runledger') and class.relkind in ('r', 'v')
where role.name = 'runledger_operator'
  and role.oid is not null
  and not has_table_privilege(role.oid, class.oid, 'select')
union all
select role.name, 'ownership of ' || class.relname
from role
join pg_catalog.pg_class as class
  on class.relnamespace = to_regnamespace('runledger') and class.relkind in ('r', 'v')
where role.name = 'runledger_owner'
  and role.oid is not null
  and class.relowner <> role.oid
order by 1, 2
`;

const RUN_ROLES = "Run docs/roles.sql with psql as a superuser, and again after each migration.";

/** Examines the roles and what they may do. */
export async function roleFindings(db: Queryable): Promise<readonly HealthFinding[]> {
  const wanted = Object.entries(ROLE_FUNCTIONS).flatMap(([role, functions]) =>
    functions.map((name) => ({ role, function: name }))
  );
  const rows = await runStatement(db, EXAMINE_ROLES, [JSON.stringify(wanted)]);
  const absent = rows.filter((row) => row["object"] === null).map((row) => readText(row, "role"));
  const findings: HealthFinding[] = [];
  if (absent.length > 0) {
    findings.push({
      code: "roles_missing",
      severity: "warning",
      message: `There are no roles ${absent.join(", ")}: processes have more rights than their work takes.`,
      fix: RUN_ROLES,
    });
  }
  const lacking = new Map<string, string[]>();
  for (const row of rows) {
    const object = readOptionalText(row, "object");
    if (object === undefined) continue;
    const role = readText(row, "role");
    lacking.set(role, [...lacking.get(role) ?? [], object]);
  }
  for (const [role, objects] of lacking) {
    const told = objects.slice(0, 3).join(", ") + (objects.length > 3 ? ` and ${objects.length - 3} more` : "");
    findings.push({
      code: "grants_missing",
      severity: "warning",
      subject: role,
      message: `${role} lacks ${told}.`,
      fix: RUN_ROLES,
    });
  }
  return findings;
}

// index: none; the server's statistics. no row: nothing holds vacuum up.
const EXAMINE_SERVER = `
select 'long_transaction' as code, activity.pid::text as subject, activity.state as detail,
  activity.application_name as name,
  floor(extract(epoch from clock_timestamp() - activity.xact_start) * 1000)::bigint::text as amount
from pg_catalog.pg_stat_activity as activity
where activity.pid <> pg_backend_pid()
  and (activity.datname = current_database() or activity.backend_type = 'walsender')
  and (activity.backend_xmin is not null or activity.backend_xid is not null)
  and activity.backend_type in ('client backend', 'walsender')
  and activity.xact_start < clock_timestamp() - $1::integer * interval '1 millisecond'
union all
select 'dead_rows', stat.relname::text, null, null, stat.n_dead_tup::text
from pg_catalog.pg_stat_user_tables as stat
where stat.schemaname = 'runledger'
  and stat.n_dead_tup > $2::integer
  and stat.n_dead_tup > stat.n_live_tup / 5
union all
-- By far larger than its entries: the largest keys allowed take 600 bytes, most 40. Nobody counted the entries of an index
-- whose table was neither vacuumed nor analyzed yet.
select 'index_bloated', class.relname::text, null, null, pg_relation_size(class.oid)::text
from pg_catalog.pg_index as own
join pg_catalog.pg_class as class on class.oid = own.indexrelid
join pg_catalog.pg_stat_user_tables as stat on stat.relid = own.indrelid
where stat.schemaname = 'runledger'
  and coalesce(stat.last_autovacuum, stat.last_vacuum, stat.last_autoanalyze, stat.last_analyze) is not null
  and pg_relation_size(class.oid) > $3::integer + greatest(class.reltuples, 0) * 1000
union all
select 'autovacuum_off', class.relname::text, null, null, null
from pg_catalog.pg_class as class
where class.relnamespace = to_regnamespace('runledger')
  and class.relkind = 'r'
  and array_to_string(class.reloptions, ',') ~ '(^|,)autovacuum_enabled=(false|off|no|0)(,|$)'
union all
select 'autovacuum_off', null, null, null, null
where current_setting('autovacuum') = 'off'
  or current_setting('track_counts') = 'off'
order by 1, 2
`;

/** Examines what the server does for the tables, and who hinders it. */
export async function serverFindings(db: Queryable, limits: HealthLimits): Promise<readonly HealthFinding[]> {
  const rows = await runStatement(db, EXAMINE_SERVER, [
    limits.longTransactionMs,
    limits.deadRows,
    limits.bloatedBytes,
  ]);
  return rows.map((row): HealthFinding => {
    const subject = readOptionalText(row, "subject");
    const of = subject === undefined ? {} : { subject };
    switch (readText(row, "code")) {
      case "long_transaction": {
        const seconds = Math.round(readInteger(row, "amount") / 1000);
        const name = readOptionalText(row, "name") ?? "";
        return {
          code: "long_transaction",
          severity: "warning",
          ...of,
          message: `The session with pid ${subject}${name === "" ? "" : ` (${name})`} has a transaction open for ` +
            `${seconds} s (${
              readOptionalText(row, "detail") ?? "state unknown"
            }): rows that died since then stay, and claims get slower.`,
          fix: `End it: select pg_terminate_backend(${subject}); and set idle_in_transaction_session_timeout.`,
        };
      }
      case "dead_rows":
        return {
          code: "dead_rows",
          severity: "warning",
          ...of,
          message: `The table runledger.${subject} has ${readInteger(row, "amount")} dead rows.`,
          fix: `vacuum (analyze) runledger.${subject}; and see what keeps autovacuum from it.`,
        };
      case "index_bloated":
        return {
          code: "index_bloated",
          severity: "warning",
          ...of,
          message: `The index runledger.${subject} takes ${
            Math.round(readInteger(row, "amount") / 1_048_576)
          } MiB for entries that are mostly gone.`,
          fix: `reindex index concurrently runledger.${subject};`,
        };
      default:
        return {
          code: "autovacuum_off",
          severity: "problem",
          ...of,
          message: subject === undefined
            ? "Autovacuum is switched off for the server."
            : `Autovacuum is switched off for runledger.${subject}.`,
          fix: subject === undefined
            ? "alter system set autovacuum = on; alter system set track_counts = on; select pg_reload_conf();"
            : `alter table runledger.${subject} reset (autovacuum_enabled);`,
        };
    }
  });
}
