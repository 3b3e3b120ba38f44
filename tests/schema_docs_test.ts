/**
 * The page on the schema says what a migrated database has.
 *
 * @module
 */

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { renderSchemaDocs } from "../scripts/write_schema_docs.ts";
import { openTestDatabase } from "./support/database.ts";

Deno.test("docs/schema.md is what the migrations make, on every server that is supported", async () => {
  await using database = await openTestDatabase({ max: 1 });
  const page = await readFile(new URL("../docs/schema.md", import.meta.url), "utf8");
  assert.equal(page, await renderSchemaDocs(database.sql), "run: deno task docs:schema");
});
