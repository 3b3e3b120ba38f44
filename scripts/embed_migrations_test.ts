import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { pathToFileURL } from "node:url";
import { readMigrations, renderMigrations } from "./embed_migrations.ts";

async function read(files: Readonly<Record<string, string>>) {
  const folder = await mkdtemp(join(tmpdir(), "runledger-migrations-"));
  try {
    for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text);
    return await readMigrations(pathToFileURL(`${folder}/`));
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

Deno.test("migrations: the module gives back every file as it is, whatever its text", async () => {
  const awkward = "select E'\\n', '${x}', `a`, $$\\$$;\r\n-- \\u0041 \\` end \n";
  const migrations = await read({ "0002_b.sql": awkward, "0001_a_b.sql": "select 1;\n" });
  const module = await import(`data:text/typescript,${encodeURIComponent(renderMigrations(migrations))}`);
  assert.deepEqual(module.MIGRATIONS, [
    { version: 1, name: "a_b", sql: "select 1;\n" },
    { version: 2, name: "b", sql: awkward },
  ]);
});

Deno.test("migrations: the module is formatted as deno fmt wants it, however long a line is", () => {
  const migrations = [1, 2].map((version) => ({
    version,
    name: "a",
    sql: `-- ${"long ".repeat(40)}\nselect ${version};\n`,
  }));
  for (const some of [migrations, migrations.slice(0, 1), []]) {
    const args = ["fmt", "--check", "--ext=ts", "--line-width=120", "-"];
    const { status, stderr } = spawnSync(process.execPath, args, { input: renderMigrations(some), encoding: "utf8" });
    assert.equal(status, 0, stderr);
  }
});

Deno.test("migrations: a gap, a repeated number and a strange name are refused", async () => {
  await assert.rejects(read({ "0002_b.sql": "" }), /0002_b\.sql: the next migration has the number 1/);
  await assert.rejects(
    read({ "0001_a.sql": "", "0001_b.sql": "" }),
    /0001_b\.sql: the next migration has the number 2/,
  );
  await assert.rejects(read({ "1_a.sql": "" }), /1_a\.sql: a migration is named NNNN_name\.sql/);
});
