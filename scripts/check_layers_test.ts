import assert from "node:assert/strict";
import { mkdir, mkdtemp, realpath, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { checkLayers } from "./check_layers.ts";

/** Lays out a workspace of the three packages with the given files and checks it. */
async function check(files: Readonly<Record<string, string>>): Promise<readonly string[]> {
  const root = await realpath(await mkdtemp(join(tmpdir(), "runledger-layers-")));
  try {
    const members = ["core", "postgres", "runtime", "test_support"];
    const packages = members.map((member) => [
      `${member}/deno.json`,
      JSON.stringify({ name: `@runledger/${member.replace("_", "-")}`, version: "0.1.0", exports: "./mod.ts" }),
    ]);
    const all: Record<string, string> = {
      "deno.json": JSON.stringify({
        workspace: members,
        lock: false,
        imports: { croner: "npm:croner@11.0.1", postgres: "npm:postgres@3.4.9", zod: "npm:zod@4.6.7" },
      }),
      ...Object.fromEntries(packages),
      ...Object.fromEntries(members.map((member) => [`${member}/mod.ts`, "export const here = true;\n"])),
      ...files,
    };
    for (const [path, text] of Object.entries(all)) {
      await mkdir(dirname(join(root, path)), { recursive: true });
      await writeFile(join(root, path), text);
    }
    return await checkLayers(pathToFileURL(`${root}/`));
  } finally {
    await rm(root, { recursive: true, force: true });
  }
}

Deno.test("layers: this workspace keeps the arrow core <- postgres <- runtime", async () => {
  assert.deepEqual(await checkLayers(new URL("../", import.meta.url)), []);
});

Deno.test("layers: what the rules allow is allowed", async () => {
  const violations = await check({
    "core/mod.ts": [
      "/** Deno.env and node:fs are named in a comment only. */",
      'export const message = "Deno.env is not read, and select is a word";',
      "export const matcher = /[`'\"/]Deno.env/g;",
      "export const process = (step: { Deno: number }) => step.Deno / 2 / 1;",
      "export const quoted = `${`node: ${process({ Deno: 1 })}`} update the configuration`;",
    ].join("\n"),
    "core/mod_test.ts": 'import "node:fs"; import "../runtime/mod.ts"; Deno.env;',
    "postgres/mod.ts": 'export * from "@runledger/core"; export * from "./schedule_next.ts"; export * from "./db.ts";',
    "postgres/schedule_next.ts": 'import { Cron } from "croner"; export const next = Cron;',
    "postgres/db.ts": 'import type { Sql } from "postgres"; export const read = (db: Sql) => db`select 1`;',
    "runtime/mod.ts": [
      'import { z } from "zod"; import "@runledger/core"; import "@runledger/postgres";',
      'export const signals = () => import("node:process"); export const schema = z;',
    ].join("\n"),
  });
  assert.deepEqual(violations, []);
});

const PLANTED: Readonly<Record<string, readonly [files: Record<string, string>, expected: RegExp]>> = {
  "core imports postgres": [
    { "core/mod.ts": 'export * from "@runledger/postgres";' },
    /^core\/mod\.ts: imports postgres\/mod\.ts; core may import nothing outside itself$/,
  ],
  "core imports an npm package": [{ "core/mod.ts": 'import "zod";' }, /^core\/mod\.ts: imports the npm package zod$/],
  "core imports a type from an npm package": [
    { "core/mod.ts": 'export type { Sql } from "postgres";' },
    /^core\/mod\.ts: imports the npm package postgres$/,
  ],
  "core imports node:": [{ "core/mod.ts": 'import "node:fs";' }, /^core\/mod\.ts: imports node:fs, so/],
  "core imports node: at call time": [
    { "core/mod.ts": 'export const f = () => import("node:fs");' },
    /^core\/mod\.ts: imports node:fs, so/,
  ],
  "core hides an import behind a variable": [
    { "core/mod.ts": 'const name: string = "node:fs"; export const f = () => import(name);' },
    /^core\/mod\.ts: names the module node:fs$/,
  ],
  "core reads the environment through Deno": [
    { "core/mod.ts": 'export const f = () => `${Deno.env.get("A")}`;' },
    /^core\/mod\.ts: uses Deno$/,
  ],
  "core reaches Deno through globalThis": [
    { "core/mod.ts": "export const f = () => (globalThis as any).x ?? globalThis.Deno;" },
    /^core\/mod\.ts: uses globalThis\.Deno$/,
  ],
  "a module that no entry point reaches is checked too": [
    { "core/lost.ts": 'import "node:fs";' },
    /^core\/lost\.ts: imports node:fs, so/,
  ],
  "postgres imports runtime": [
    { "postgres/mod.ts": 'export * from "../runtime/mod.ts";' },
    /^postgres\/mod\.ts: imports runtime\/mod\.ts; postgres may import only core$/,
  ],
  "postgres imports a driver": [
    { "postgres/mod.ts": 'import postgres from "postgres"; export { postgres };' },
    /^postgres\/mod\.ts: imports more than types from postgres/,
  ],
  "postgres uses croner outside the schedule modules": [
    { "postgres/job_claim.ts": 'import "croner";' },
    /^postgres\/job_claim\.ts: imports the npm package croner$/,
  ],
  "postgres uses process.env": [
    { "postgres/mod.ts": "export const f = () => process.env.A;" },
    /^postgres\/mod\.ts: uses process$/,
  ],
  "runtime contains a select": [
    { "runtime/mod.ts": "export const f = (sql: any) => sql`select 1 as one`;" },
    /^runtime\/mod\.ts: contains SQL: "select 1 as one"$/,
  ],
  "runtime contains a common table expression": [
    { "runtime/mod.ts": "export const f = `\n  with due as (select 1) select * from due`;" },
    /^runtime\/mod\.ts: contains SQL/,
  ],
  "runtime names a table": [
    { "runtime/mod.ts": 'export const f = "where id in (select id from runledger.job_queue)";' },
    /^runtime\/mod\.ts: contains SQL/,
  ],
  "runtime imports node: as it is loaded": [
    { "runtime/mod.ts": 'import "node:process";' },
    /^runtime\/mod\.ts: imports node:process, so/,
  ],
  "runtime imports test_support": [
    { "runtime/mod.ts": 'export * from "@runledger/test-support";' },
    /^runtime\/mod\.ts: imports test_support\/mod\.ts; runtime may import only core and postgres$/,
  ],
};

for (const [name, [files, expected]] of Object.entries(PLANTED)) {
  Deno.test(`layers: caught: ${name}`, async () => {
    const violations = await check(files);
    assert.equal(violations.length, 1, violations.join("\n"));
    assert.match(violations[0] ?? "", expected);
  });
}
