/**
 * Writes `docs/schema.md` from a database that was migrated just now: what is there, in the words of its own comments.
 *
 * Run: `deno task docs:schema`. With `--check` nothing is written, and the exit code is 1 when the page is out of date;
 * `tests/schema_docs_test.ts` checks the same.
 *
 * @module
 */

import { createEphemeralDatabase } from "@runledger/test-support";
import postgres from "postgres";
import { markdownTable, wrap, writePage } from "./generated_page.ts";

interface Relation {
  readonly name: string;
  readonly kind: "r" | "v";
  readonly is_unlogged: boolean;
  readonly comment: string;
  readonly columns: readonly Column[];
  readonly constraints: readonly Part[];
  readonly indexes: readonly Part[];
  readonly triggers: readonly Part[];
}

interface Column {
  readonly name: string;
  readonly type: string;
  readonly is_required: boolean;
  readonly value: string | null;
  readonly comment: string;
}

interface Part {
  readonly name: string;
  readonly definition: string;
}

interface Routine {
  readonly name: string;
  readonly args: string;
  readonly result: string;
  readonly is_definer: boolean;
  readonly comment: string;
}

// What PostgreSQL 18 calls constraints and older servers do not, that a column is not null, stands with the column.
const SELECT_RELATIONS = `
select class.relname::text as name, class.relkind::text as kind, class.relpersistence = 'u' as is_unlogged,
  coalesce(obj_description(class.oid, 'pg_class'), '') as comment,
  (
    select jsonb_agg(
      jsonb_build_object(
        'name', attribute.attname,
        'type', format_type(attribute.atttypid, attribute.atttypmod),
        'is_required', attribute.attnotnull,
        'value', case
          when attribute.attidentity <> '' then 'identity'
          when attribute.attgenerated <> '' then 'generated: ' || pg_get_expr(fallback.adbin, fallback.adrelid)
          else pg_get_expr(fallback.adbin, fallback.adrelid)
        end,
        'comment', coalesce(col_description(class.oid, attribute.attnum), '')
      )
      order by attribute.attnum
    )
    from pg_attribute as attribute
    left join pg_attrdef as fallback on fallback.adrelid = class.oid and fallback.adnum = attribute.attnum
    where attribute.attrelid = class.oid
      and attribute.attnum > 0
      and not attribute.attisdropped
  ) as columns,
  coalesce((
    select jsonb_agg(
      jsonb_build_object('name', own.conname, 'definition', pg_get_constraintdef(own.oid, true))
      order by array_position(array['p', 'u', 'f', 'c'], own.contype::text), own.conname::text collate "C"
    )
    from pg_constraint as own
    where own.conrelid = class.oid
      and own.contype in ('p', 'u', 'f', 'c')
  ), '[]') as constraints,
  coalesce((
    select jsonb_agg(
      jsonb_build_object('name', part.relname, 'definition', pg_get_indexdef(own.indexrelid))
      order by part.relname::text collate "C"
    )
    from pg_index as own
    join pg_class as part on part.oid = own.indexrelid
    where own.indrelid = class.oid
      and not exists (select from pg_constraint as made where made.conindid = own.indexrelid)
  ), '[]') as indexes,
  coalesce((
    select jsonb_agg(
      jsonb_build_object('name', own.tgname, 'definition', obj_description(own.tgfoid, 'pg_proc'))
      order by own.tgname::text collate "C"
    )
    from pg_trigger as own
    where own.tgrelid = class.oid
      and not own.tgisinternal
  ), '[]') as triggers
from pg_class as class
where class.relnamespace = 'runledger'::regnamespace
  and class.relkind in ('r', 'v')
order by class.relname::text collate "C"`;

const SELECT_ROUTINES = `
select proc.proname::text as name, pg_get_function_identity_arguments(proc.oid) as args,
  pg_get_function_result(proc.oid) as result, proc.prosecdef as is_definer,
  coalesce(obj_description(proc.oid, 'pg_proc'), '') as comment
from pg_proc as proc
where proc.pronamespace = 'runledger'::regnamespace
order by proc.proname::text collate "C", 2`;

const HEADER = `# The schema

<!-- Generated from a migrated database by \`deno task docs:schema\`. Do not edit. -->

${
  wrap(
    "Everything in the schema `runledger`, with the comments that `\\d+` shows in psql. Tables are for reading: what " +
      "changes them goes through the library or through the functions that it calls, or the ledger no longer tells what " +
      "happened. The views are made for people. Who may do what is in [roles.sql](roles.sql), what " +
      "statuses follow one another in [state_machines.md](state_machines.md).",
  )
}
`;

const FUNCTIONS =
  "What the library calls; `security definer` ones run with their owner's rights, and nobody may call them " +
  "to whom roles.sql does not grant it.";

/**
 * Renders the page.
 *
 * @param sql A connection to a migrated database.
 * @returns Markdown.
 */
export async function renderSchemaDocs(sql: postgres.Sql): Promise<string> {
  const relations = await sql.unsafe<Relation[]>(SELECT_RELATIONS);
  const routines = await sql.unsafe<Routine[]>(SELECT_ROUTINES);
  const views = relations.filter(({ kind }) => kind === "v");
  const tables = relations.filter(({ kind }) => kind === "r");
  return `${HEADER}\n## Views\n${views.map(renderView).join("")}\n## Tables\n${tables.map(renderTable).join("")}` +
    `\n## Functions\n\n${wrap(FUNCTIONS)}\n\n${sqlBlock([routines.map(renderRoutine).join("\n").trimEnd()])}`;
}

function renderView({ name, comment, columns }: Relation): string {
  const rows = columns.map((column) => [`\`${column.name}\``, column.type, column.comment]);
  return `\n### \`${name}\`\n\n${wrap(comment)}\n\n${markdownTable(["column", "type", "what it is"], rows)}`;
}

function renderTable({ name, is_unlogged, comment, columns, constraints, indexes, triggers }: Relation): string {
  const rows = columns.map((column) => [
    `\`${column.name}\``,
    column.type + (column.is_required ? "" : ", or null"),
    column.value === null ? "" : `\`${column.value.replaceAll(/\s+/g, " ")}\``,
    column.comment,
  ]);
  const blocks = [
    sqlBlock(constraints.map((part) => `constraint ${part.name} ${part.definition}`)),
    sqlBlock(indexes.map(({ definition }) => definition)),
    triggers.map((part) => `${wrap(`- \`${part.name}\`: ${part.definition}`, "  ")}\n`).join(""),
  ].filter((block) => block !== "");
  const told = is_unlogged ? `${comment} Unlogged: a crash of the server empties it.` : comment;
  return `\n### \`${name}\`\n\n${wrap(told)}\n\n${
    markdownTable(["column", "type", "without a value", "what it is"], rows)
  }${blocks.map((block) => `\n${block}`).join("")}`;
}

function renderRoutine({ name, args, result, is_definer, comment }: Routine): string {
  // A table that is returned has a line a column in its migration; here it is enough that it is one.
  const end = `returns ${result.startsWith("TABLE(") ? "table" : result}${is_definer ? " security definer" : ""}`;
  const short = `${name}(${args}) ${end}`;
  const signature = short.length <= 110 ? short : `${name}(\n  ${args.replaceAll(", ", ",\n  ")}\n) ${end}`;
  return `-- ${comment}\n${signature}\n`;
}

/** One statement or clause after the other, as the server writes them. */
function sqlBlock(texts: readonly string[]): string {
  if (texts.length === 0) return "";
  return `\`\`\`sql\n${texts.map((text) => text.replaceAll(/[ \t]+$/gm, "")).join("\n")}\n\`\`\`\n`;
}

if (import.meta.main) {
  await using database = await createEphemeralDatabase();
  const sql = postgres(database.url, { max: 1, onnotice: () => {} });
  try {
    await writePage("docs/schema.md", await renderSchemaDocs(sql), "docs:schema");
  } finally {
    await sql.end({ timeout: 1 });
  }
}
