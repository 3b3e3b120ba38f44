import assert from "node:assert/strict";
import { join } from "node:path";
import postgres from "postgres";
import { runPeer } from "./_peer_process.ts";
import { createTemporaryFolder } from "./_temporary_folder.ts";
import { startEmbeddedPostgres } from "./embedded_postgres.ts";
import { createEphemeralDatabase } from "./ephemeral_database.ts";

async function query(url: string, text: string): Promise<readonly string[]> {
  const sql = postgres(url, { max: 1, onnotice: () => {} });
  try {
    return (await sql.unsafe(text).values()).map((row) => String(row[0]));
  } finally {
    await sql.end();
  }
}

const RUNLEDGER_TABLES = "select count(*) from pg_tables where schemaname = 'runledger'";

Deno.test("ephemeral database: two are isolated from each other, and dropped with their open connections", async () => {
  const first = await createEphemeralDatabase({ migrated: false });
  const second = await createEphemeralDatabase({ migrated: false });
  const lingering = postgres(second.url, { max: 1, onnotice: () => {}, onclose: () => {} });
  try {
    await query(first.url, "create table mine as select 1 as one");
    await assert.rejects(lingering`select * from mine`, { code: "42P01" });
    assert.ok(first.version >= 15 && second.version === first.version);
  } finally {
    await first[Symbol.asyncDispose]();
    await second[Symbol.asyncDispose]();
    await lingering.end({ timeout: 1 });
  }
  await assert.rejects(query(first.url, "select 1"), { code: "3D000" });
  await assert.rejects(query(second.url, "select 1"), { code: "3D000" });
});

Deno.test("ephemeral database: a session that is just being closed ends by itself", async () => {
  const database = await createEphemeralDatabase({ migrated: false });
  const closing = postgres(database.url, { max: 1, onnotice: () => {} });
  await closing`select 1`;
  const answer = closing`select pg_sleep(0.1)`.then(() => "answered", ({ code }) => code);
  await Promise.all([database[Symbol.asyncDispose](), answer.then(() => closing.end())]);
  assert.equal(await answer, "answered");
});

Deno.test("ephemeral database: an empty one has nothing of Runledger, a migrated one its tables, twenty at once", async () => {
  await using empty = await createEphemeralDatabase({ migrated: false });
  assert.deepEqual(await query(empty.url, RUNLEDGER_TABLES), ["0"]);
  const migrated = await Promise.all(Array.from({ length: 20 }, () => createEphemeralDatabase()));
  try {
    assert.equal(new Set(migrated.map(({ name }) => name)).size, 20);
    for (const { url } of migrated) assert.notDeepEqual(await query(url, RUNLEDGER_TABLES), ["0"]);
  } finally {
    await Promise.all(migrated.map((database) => database[Symbol.asyncDispose]()));
  }
});

Deno.test("ephemeral database: two processes at once make the template once, and not from one that a killed process left", async () => {
  await using folder = await createTemporaryFolder();
  await using server = await startEmbeddedPostgres({ dataDir: join(folder.path, "data") });
  const code = `
    import { createEphemeralDatabase } from ${JSON.stringify(import.meta.resolve("./ephemeral_database.ts"))};
    await createEphemeralDatabase({ serverUrl: ${JSON.stringify(server.url)} });`;
  const template = "select datname || ' ' || oid from pg_database where datname like 'runledger_template_%'";

  const results = await Promise.all([runPeer(code), runPeer(code)]);
  for (const { code, errors } of results) assert.equal(code, 0, errors);
  const [made, ...others] = await query(server.url, template);
  assert.deepEqual(others, []);
  assert.equal((await query(server.url, "select 1 from pg_database where datname like 'runledger_test_%'")).length, 2);

  // As if the maker had been killed half-way: a draft without the migrations, and no template.
  const name = made?.split(" ")[0] ?? "";
  await query(server.url, `drop database ${name}`);
  await query(server.url, `create database ${name}_draft`);
  const again = await createEphemeralDatabase({ serverUrl: server.url });
  assert.notDeepEqual(await query(again.url, RUNLEDGER_TABLES), ["0"]);
  const remade = await query(server.url, template);
  assert.equal(remade.length, 1);
  assert.equal(remade[0]?.startsWith(`${name} `), true);
});

Deno.test("ephemeral database: what killed tests left behind is dropped when the template is made, a recent one is not", async () => {
  await using folder = await createTemporaryFolder();
  await using server = await startEmbeddedPostgres({ dataDir: join(folder.path, "data") });
  const twoHoursAgo = (Date.now() - 2 * 60 * 60 * 1000).toString(36);
  const recent = `runledger_test_${Date.now().toString(36)}_cafecafe`;
  for (
    const name of [`runledger_test_${twoHoursAgo}_cafecafe`, recent, "runledger_template_0123456789abcdef", "bystander"]
  ) {
    await query(server.url, `create database "${name}"`);
  }
  await using database = await createEphemeralDatabase({ serverUrl: server.url });
  const left = await query(server.url, "select datname from pg_database where not datistemplate order by 1");
  const template = left.find((name) => name.startsWith("runledger_template_"));
  assert.notEqual(template, "runledger_template_0123456789abcdef");
  assert.deepEqual(left, ["bystander", "postgres", template, ...[database.name, recent].sort()]);
});
