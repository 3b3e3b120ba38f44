import assert from "node:assert/strict";
import { firstSentence, importedPackages, npmExports, npmManifest, readWorkspace } from "./npm_package.ts";
import { programOf } from "./npm_consumer.ts";

const ROOT = new URL("../", import.meta.url);

const CORE = { folder: "core", name: "@x/core", version: "1.2.3", license: "MIT", exports: { ".": "./mod.ts" } };
const WORKSPACE = { members: [CORE], pins: { zod: "4.6.7" } };

Deno.test("npm packages: every published package of this workspace has the version of the others, and the front door none", async () => {
  const { members, pins } = await readWorkspace(ROOT);
  const names = members.map(({ name }) => name);
  for (const name of ["core", "postgres", "runtime", "test-support"]) assert.ok(names.includes(`@runledger/${name}`));
  assert.equal(new Set(members.map(({ version }) => version)).size, 1);
  assert.match(pins["zod"] ?? "", /^\d/);
});

Deno.test("npm packages: entry points keep their subpaths", () => {
  assert.deepEqual(npmExports({ ".": "./mod.ts", "./enqueue": "./enqueue.ts" }), {
    ".": { types: "./mod.d.ts", default: "./mod.js" },
    "./enqueue": { types: "./enqueue.d.ts", default: "./enqueue.js" },
  });
  for (const module of ["mod.ts", "./mod.js", "../mod.tsx"]) {
    assert.throws(() => npmExports({ ".": module }), /must be/);
  }
});

Deno.test("npm packages: dependencies are what is imported, from the workspace or pinned, and nothing else", () => {
  const facts = { description: "It works.", imports: ["zod", "@x/core"] };
  const manifest = npmManifest({ ...CORE, folder: "runtime", name: "@x/runtime" }, WORKSPACE, facts);
  assert.deepEqual(manifest.dependencies, { "@x/core": "^1.2.3", zod: "^4.6.7" });
  assert.equal(npmManifest(CORE, WORKSPACE, { description: "", imports: [] }).dependencies, undefined);
  assert.throws(() => npmManifest(CORE, WORKSPACE, { description: "", imports: ["left-pad"] }), /imports left-pad/);
});

Deno.test("npm packages: drivers are brought by the application, if it wants one", () => {
  const postgres = { ...CORE, name: "@runledger/postgres" };
  const pins = { "@electric-sql/pglite": "0.5.16", pg: "8.23.1", postgres: "3.4.9" };
  const facts = { description: "", imports: [], repository: "owner/name" };
  const manifest = npmManifest(postgres, { members: [CORE], pins }, facts);
  assert.deepEqual(manifest.peerDependencies, { "@electric-sql/pglite": "^0.5.16", pg: "^8.23.1", postgres: "^3.4.9" });
  assert.deepEqual(Object.keys(manifest.peerDependenciesMeta ?? {}), Object.keys(manifest.peerDependencies ?? {}));
  assert.equal(manifest.repository?.directory, "core");
});

Deno.test("npm packages: a program is called as the scope is", () => {
  const manifest = npmManifest({ ...CORE, name: "@x/cli" }, WORKSPACE, {
    description: "",
    imports: [],
    program: "main.js",
  });
  assert.deepEqual(manifest.bin, { x: "main.js" });
});

Deno.test("npm packages: imports are told by package, without builtins and neighbours", () => {
  const specifiers = ["./a.js", "../b.js", "node:path", "zod", "zod/v4", "@x/core", "@x/core/enqueue"];
  assert.deepEqual(importedPackages(specifiers), ["zod", "@x/core"]);
});

Deno.test("npm packages: a description is one sentence, a program the first of its section", () => {
  const readme =
    "# `x`\n\nDoes this\nand `that`. And more.\n\n## Use\n\n```js\nrun();\n```\n\n## Other\n\n```ts\nno();\n```\n";
  assert.equal(firstSentence(readme), "Does this and that.");
  assert.equal(programOf(readme, "Use", "js"), "run();\n");
  assert.throws(() => programOf(readme, "Use", "ts"), /has no program in ts/);
});
