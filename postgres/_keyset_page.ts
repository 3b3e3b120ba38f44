/**
 * Pages and counts of every list, built from the few constant texts in which lists differ.
 *
 * The statement looks at a window: the next {@linkcode WINDOW_ROWS} rows in the order of an index, whatever the filters
 * say, and keeps those that match. So no filter makes it read on and on, and no plan but the walk along that index suits
 * it. The columns of what is kept are fetched by key afterwards, so that passing rows over stays cheap.
 *
 * @module
 */

import { isStorableText, isUuid, MAX_INTEGER, RunledgerError } from "@runledger/core";
import { readOptionalText } from "./_rows.ts";
import { assertLimit } from "./job_reap.ts";
import { instantValue, noteText } from "./operator_note.ts";
import type { BoundedCount, Page, PageOptions } from "./pages.ts";
import { runStatement } from "./queryable.ts";
import type { Queryable, Row, StatementValue } from "./queryable.ts";
import { scopeValues } from "./scope.ts";
import type { Scope } from "./scope.ts";

/** How many rows one call looks at. 10,000 rows of a queue in memory take 5 to 10 ms on one core. */
export const WINDOW_ROWS = 10_000;

/** A column that a list is ordered by, and what its values look like in a cursor. */
interface Key {
  readonly column: string;
  readonly type: "uuid" | "integer" | "bigint" | "text" | "timestamptz";
}

/** What all pages of a list have in common. */
export interface KeysetList<Item> {
  /** What its cursors are cursors of. */
  readonly name: string;
  /** What the rows that are looked at are called in every condition. */
  readonly alias: string;
  /** What orders it: unique together. */
  readonly keys: readonly Key[];
  /** Which way. */
  readonly direction: "asc" | "desc";
  /** Where an item is read, by `page.key_1` and so on: everything behind `select`. */
  readonly item: string;
  /** Makes an item of a row of it. */
  readonly decode: (row: Row) => Item;
}

/** What is looked at for one call. */
export interface KeysetSource {
  /** The tables and their aliases. */
  readonly from: string;
  /** Conditions that the index takes: which rows are looked at. */
  readonly where: readonly string[];
  /** Columns that `filters` need, beside the keys. */
  readonly examines?: readonly string[];
  /** Conditions on what was looked at: which rows are kept. */
  readonly filters?: readonly string[];
  /** An index of few rows, in an order of its own. If it has no more than a window, all of them are looked at instead. */
  readonly few?: { readonly where: readonly string[]; readonly order: string };
}

/** Collects the values of a statement, and gives what stands for them in its text. */
export class StatementValues {
  readonly values: StatementValue[] = [];

  /** Adds a value; gives its place, cast. */
  bind(value: StatementValue, type: string): string {
    this.values.push(value);
    return `$${this.values.length}::${type}`;
  }
}

/** The condition that a row belongs to a scope; none for `"all"`. */
export function scopeConditions(bound: StatementValues, scope: Scope, column: string): readonly string[] {
  const [kind, organizationId] = scopeValues(scope);
  if (kind === "all") return [];
  return [organizationId === null ? `${column} is null` : `${column} = ${bound.bind(organizationId, "uuid")}`];
}

/** The condition that a column has a value; none if none is asked for. */
export function equalConditions(
  bound: StatementValues,
  filters: Readonly<Record<string, StatementValue | undefined>>,
): readonly string[] {
  return Object.entries(filters).flatMap(([column, value]) => {
    if (value === undefined) return [];
    const type = typeof value === "boolean" ? "boolean" : typeof value === "number" ? "integer" : "text";
    return [`${column} = ${bound.bind(value, type)}`];
  });
}

/** The condition that a column has a text in it; none if none is asked for. */
export function textConditions(bound: StatementValues, column: string, text: string | undefined): readonly string[] {
  return text === undefined ? [] : [`strpos(${column}, ${bound.bind(searchText(text), "text")}) > 0`];
}

/** Refuses a text to look for that cannot be; gives it back otherwise. */
export function searchText(text: string): string {
  return noteText("text", text, 512);
}

/** The conditions that something happened in a time. */
export function timeConditions(
  bound: StatementValues,
  column: string,
  { since, until }: { readonly since?: Date | undefined; readonly until?: Date | undefined },
): readonly string[] {
  return [
    ...(since === undefined ? [] : [`${column} >= ${bound.bind(instantValue("since", since), "timestamptz")}`]),
    ...(until === undefined ? [] : [`${column} < ${bound.bind(instantValue("until", until), "timestamptz")}`]),
  ];
}

/** Conditions on an id: when it was made, and what it begins with. */
export function idConditions(
  bound: StatementValues,
  column: string,
  options: { readonly since?: Date; readonly until?: Date; readonly text?: string },
): readonly string[] {
  const conditions: string[] = [];
  const { since, until, text } = options;
  if (since !== undefined) conditions.push(`${column} >= ${bound.bind(idMadeAt("since", since), "uuid")}`);
  if (until !== undefined) conditions.push(`${column} < ${bound.bind(idMadeAt("until", until), "uuid")}`);
  const begin = text === undefined ? undefined : idBeginning(searchText(text));
  if (begin !== undefined) {
    conditions.push(`${column} between ${bound.bind(begin.first, "uuid")} and ${bound.bind(begin.last, "uuid")}`);
  }
  return conditions;
}

/** The condition that one of some keys has a text in it, unless the text is that of an id. */
export function keyTextConditions(
  bound: StatementValues,
  columns: readonly string[],
  text: string | undefined,
): readonly string[] {
  if (text === undefined || idBeginning(searchText(text)) !== undefined) return [];
  const place = bound.bind(text, "text");
  return [`(${columns.map((column) => `strpos(${column}, ${place}) > 0`).join(" or ")})`];
}

/** The least id of a millisecond. */
function idMadeAt(field: string, at: Date): string {
  instantValue(field, at);
  const hex = Math.max(at.getTime(), 0).toString(16).padStart(12, "0");
  return `${hex.slice(0, 8)}-${hex.slice(8)}-0000-0000-000000000000`;
}

/** The ids that begin with a text, if it reads as the beginning of one: eight digits or more, the first a 0. */
function idBeginning(text: string): { readonly first: string; readonly last: string } | undefined {
  if (text.length < 8 || text.length > 36 || !text.startsWith("0")) return undefined;
  const lower = text.toLowerCase();
  const first = lower + "00000000-0000-0000-0000-000000000000".slice(text.length);
  if (!isUuid(first)) return undefined;
  return { first, last: lower + "ffffffff-ffff-ffff-ffff-ffffffffffff".slice(text.length) };
}

/** Reads a page. */
export async function readPage<Item>(
  db: Queryable,
  list: KeysetList<Item>,
  query: { readonly source: KeysetSource; readonly bound: StatementValues; readonly options: PageOptions },
): Promise<Page<Item>> {
  const { source, bound, options: { limit = 100, cursor } } = query;
  assertLimit(limit);
  const behind = cursor === undefined ? [] : [behindCursor(list, cursor, bound)];
  const keep = bound.bind(limit, "integer");
  const keys = list.keys.map((_, index) => `page.key_${index + 1}`);
  const rows = await runStatement(
    db,
    `
${windowText(list, source, behind, `${keep} + 1`)}
select
  case when (select count(*) from page) <= ${keep} then (${windowEndText(list, source, behind)}) end as window_end,
  ${keyText(list, keys)} as page_key, item.*
from (select) as one
left join page on true
-- Kept apart, so that nothing but one look by key for each item can become of it.
left join lateral (
  select ${list.item}
  offset 0
) as item on true
order by ${orderText(list, keys)}
`,
    bound.values,
  );
  const found = rows.filter((row) => row["page_key"] !== null);
  const items = found.slice(0, limit).map(list.decode);
  const last = found.length > limit ? found[limit - 1]?.["page_key"] : readOptionalText(rows[0] ?? {}, "window_end");
  return typeof last === "string" ? { items, nextCursor: encodeCursor(list, last) } : { items };
}

/** Counts what a list has, up to a window. */
export async function countWithin(
  db: Queryable,
  list: KeysetList<unknown>,
  query: { readonly source: KeysetSource; readonly bound: StatementValues },
): Promise<BoundedCount> {
  const { source, bound } = query;
  const text = `
${windowText(list, source, [], String(WINDOW_ROWS))}
select (select count(*) from page)::integer as count, (${windowEndText(list, source, [])}) is null as is_complete
`;
  const [row] = await runStatement(db, text, bound.values);
  const { count, is_complete: isComplete } = row ?? {};
  if (typeof count !== "number" || typeof isComplete !== "boolean") throw new RunledgerError("db.unexpected_result");
  return { count, isComplete };
}

/** `page`: the keys of what is kept of the window. */
function windowText<Item>(
  list: KeysetList<Item>,
  source: KeysetSource,
  behind: readonly string[],
  limit: string,
): string {
  const { from, where, few, examines = [], filters = [] } = source;
  const keys = keyColumns(list);
  const columns = [...keys, ...examines].join(", ");
  const walk = (conditions: readonly string[]) => `
    select ${columns}
    from ${from}
    ${whereText([...where, ...conditions, ...behind])}
    order by ${orderText(list, keys)}
    limit ${WINDOW_ROWS}`;
  const page = (examined: string, conditions: readonly string[]) => `
page as materialized (
  select ${keys.map((key, index) => `${key} as key_${index + 1}`).join(", ")}
  from (${examined}
  ) as ${list.alias}
  ${whereText(conditions)}
  order by ${orderText(list, keys)}
  limit ${limit}
)`;
  if (few === undefined) return `with ${page(walk([]), filters).trimStart()}`;
  // All of the few are read in one walk along their index; if they are many, so many are among the newest rows of all.
  const names = columns.replaceAll(/\S+ as /g, `${list.alias}.`);
  return `
with few as materialized (
  select ${columns}
  from ${from}
  ${whereText(few.where)}
  order by ${few.order}
  limit ${WINDOW_ROWS + 1}
),
are_few as materialized (
  select count(*) <= ${WINDOW_ROWS} as yes
  from few
),${
    page(
      `
    select ${names}
    from few as ${list.alias}
    ${whereText(["(select are_few.yes from are_few)", ...where, ...behind])}
    union all
    (${walk(["not (select are_few.yes from are_few)"])}
    )`,
      filters,
    )
  }`;
}

/** The key of the last row of the window; null if the window reaches the end. */
function windowEndText<Item>(list: KeysetList<Item>, source: KeysetSource, behind: readonly string[]): string {
  const keys = keyColumns(list);
  const many = source.few === undefined ? [] : ["not (select are_few.yes from are_few)"];
  return `
    select ${keyText(list, keys)}
    from ${source.from}
    ${whereText([...source.where, ...many, ...behind])}
    order by ${orderText(list, keys)}
    offset ${WINDOW_ROWS - 1}
    limit 1`;
}

function keyColumns<Item>(list: KeysetList<Item>): readonly string[] {
  return list.keys.map(({ column }) => `${list.alias}.${column}`);
}

function whereText(conditions: readonly string[]): string {
  return conditions.length === 0 ? "" : `where ${conditions.join("\n      and ")}`;
}

function orderText<Item>(list: KeysetList<Item>, columns: readonly string[]): string {
  return columns.map((column) => `${column} ${list.direction}`).join(", ");
}

/** Keys as a JSON array of texts, so that every driver gives them alike. */
function keyText<Item>(list: KeysetList<Item>, columns: readonly string[]): string {
  const texts = list.keys.map(({ type }, index) =>
    type === "timestamptz" ? `extract(epoch from ${columns[index]})::text` : `${columns[index]}::text`
  );
  return `case when ${columns[0]} is not null then jsonb_build_array(${texts.join(", ")})::text end`;
}

function encodeCursor<Item>(list: KeysetList<Item>, keys: string): string {
  return encodeURIComponent(JSON.stringify([list.name, ...JSON.parse(keys) as readonly string[]]));
}

/** The condition that a row lies behind a cursor. */
function behindCursor<Item>(list: KeysetList<Item>, cursor: string, bound: StatementValues): string {
  const keys = decodeCursor(list, cursor);
  const columns = keyColumns(list).join(", ");
  const values = list.keys.map(({ type }, index) => {
    const value = keys[index] ?? "";
    return type === "timestamptz" ? `to_timestamp(${bound.bind(value, "double precision")})` : bound.bind(value, type);
  });
  return `(${columns}) ${list.direction === "asc" ? ">" : "<"} (${values.join(", ")})`;
}

function decodeCursor<Item>(list: KeysetList<Item>, cursor: string): readonly string[] {
  let decoded: unknown;
  try {
    decoded = JSON.parse(decodeURIComponent(cursor));
  } catch {
    decoded = undefined;
  }
  const [name, ...keys] = Array.isArray(decoded) ? decoded as readonly unknown[] : [];
  const isOurs = name === list.name && keys.length === list.keys.length &&
    list.keys.every(({ type }, index) => isKey(type, keys[index]));
  if (!isOurs) throw new RunledgerError("job.invalid_pagination", { details: { field: "cursor" } });
  return keys as readonly string[];
}

function isKey(type: Key["type"], key: unknown): boolean {
  if (typeof key !== "string") return false;
  switch (type) {
    case "uuid":
      return isUuid(key);
    case "integer":
      return /^\d{1,10}$/.test(key) && Number(key) <= MAX_INTEGER;
    case "bigint":
      return /^\d{1,18}$/.test(key);
    case "text":
      return isStorableText(key) && key.length <= 1024;
    case "timestamptz":
      return /^-?\d{1,11}\.\d{6}$/.test(key);
  }
}
