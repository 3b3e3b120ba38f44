/**
 * Whoever looks at the schema with psql is told what he sees.
 *
 * @module
 */

import assert from "node:assert/strict";
import { openTestDatabase } from "./support/database.ts";

Deno.test("every table, view, column and function of the schema says what it is", async () => {
  await using database = await openTestDatabase();
  const silent = await database.sql<{ name: string }[]>`
    select class.oid::regclass::text as name
    from pg_class as class
    where class.relnamespace = 'runledger'::regnamespace
      and class.relkind in ('r', 'p', 'v', 'm')
      and obj_description(class.oid, 'pg_class') is null
    union all
    select class.oid::regclass || '.' || attribute.attname
    from pg_class as class
    join pg_attribute as attribute on attribute.attrelid = class.oid
    where class.relnamespace = 'runledger'::regnamespace
      and class.relkind in ('r', 'p', 'v', 'm')
      and attribute.attnum > 0
      and not attribute.attisdropped
      and col_description(class.oid, attribute.attnum) is null
    union all
    select proc.oid::regprocedure::text
    from pg_proc as proc
    where proc.pronamespace = 'runledger'::regnamespace
      and obj_description(proc.oid, 'pg_proc') is null
    order by 1`;
  assert.deepEqual(silent.map(({ name }) => name), [], "add them to the comments of the newest migration");
});
