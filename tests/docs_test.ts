/**
 * The pages keep their word as far as a program can tell: their TypeScript runs, their links lead somewhere, and the index
 * has them all. Types are a gate of `deno task ok`.
 *
 * @module
 */

import { createEphemeralDatabase } from "@runledger/test-support";
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import postgres from "postgres";

/** A piece of TypeScript in a page. */
interface Block {
  readonly page: string;
  readonly line: number;
  readonly code: string;
}

/** How a program ended. */
interface Ended {
  readonly code: number;
  readonly output: string;
}

const GUIDES = (await readdir("docs")).filter((name) => name.endsWith(".md")).map((name) => `docs/${name}`).sort();
const PACKAGES = ["core", "postgres", "runtime", "cli", "test_support"].map((folder) => `${folder}/README.md`);
const PAGES = ["README.md", "CONTRIBUTING.md", "llms.txt", ...GUIDES, ...PACKAGES, "examples/README.md"];

/** What readers have of their own. */
const TABLES = `
create table orders (id uuid primary key, item text not null);
create table albums (id bigint generated always as identity, title text not null);
create table charges (id bigint generated always as identity, invoice_id text not null, cents integer not null);
`;

/** What a program that works until it is stopped has printed when it may be, besides that it listens. */
const STOP_AFTER: Readonly<Record<string, string>> = {
  "README.md": "attempt 1: an email to ada@example.com",
};

/** Tells when a program listens for signals: one that comes before ends it at once. */
const LISTENING = "listens for SIGTERM";
const TELL_LISTENING = `import process from "node:process";
process.on("newListener", (name) => name === "SIGTERM" && queueMicrotask(() => console.log("${LISTENING}")));
`;

/** Past this a program hangs. */
const PATIENCE_MS = 60_000;

const texts = new Map<string, string>();
for (const page of PAGES) texts.set(page, await readFile(page, "utf8"));
const blocks = [...texts].flatMap(([page, text]) => blocksOf(page, text));

await mkdir(".tmp", { recursive: true });
// Inside the checkout, so that the import map holds.
const folder = await mkdtemp(resolve(".tmp/docs-"));
const database = await createEphemeralDatabase();
Deno.test.afterAll(async () => {
  await database[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

Deno.test("docs: every block of TypeScript runs, in a database with its tables and definitions", async () => {
  const url = new URL(database.url);
  const env = {
    NO_COLOR: "1",
    DATABASE_URL: database.url,
    PGHOST: url.hostname,
    PGPORT: url.port,
    PGUSER: decodeURIComponent(url.username),
    PGPASSWORD: decodeURIComponent(url.password),
    PGDATABASE: url.pathname.slice(1),
  };
  const sql = postgres(database.url, { max: 1, onnotice: () => {} });
  const types = blocks.flatMap(({ code }) => [...code.matchAll(/\btype: "([\w.]+)"/g)].map(([, type]) => type ?? ""));
  await sql.unsafe(TABLES);
  await sql`
    insert into runledger.job_definitions (job_type)
    select distinct job_type from unnest(${types}::text[]) as job_type
    on conflict do nothing`;
  await sql.end();

  const programs: string[] = [];
  for (const { page, line, code } of blocks) {
    const file = join(folder, `${page.replaceAll(/\W/g, "_")}_${line}.ts`);
    const isProgram = code.includes("shutdownSignal()");
    await writeFile(file, isProgram ? TELL_LISTENING + code : code);
    // Of a handle that is only declared there is nothing to run.
    if (/^declare const/m.test(code)) continue;
    if (isProgram) {
      const texts = [LISTENING, STOP_AFTER[page] ?? ""];
      await assertEnds(`${page}:${line}`, ["run", "-A", "--no-check", file], env, texts);
    } else programs.push(file);
  }
  assert.ok(programs.length > 20, "hardly any block was found");
  // One process for all: what they share is loaded once. Their pools stay open, as in the pages.
  const runner = join(folder, "run.ts");
  await writeFile(
    runner,
    `const tests = [];
Object.defineProperty(Deno, "test", { value: (_name, test) => tests.push(test) });
for (const file of ${JSON.stringify(programs)}) {
  try {
    await import(file);
    for (const test of tests.splice(0)) await test();
  } catch (error) {
    console.log("FAILED", file, error);
    Deno.exitCode = 1;
  }
}
Deno.exit();
`,
  );
  await assertEnds("the blocks", ["run", "-A", "--no-check", runner], env);
});

Deno.test("docs: the blocks of llms.txt compile, as those of the other pages do", async () => {
  // Not inside the checkout, whose folder of temporary files is excluded from checks: nothing would be checked there.
  const copy = join(await mkdtemp(join(tmpdir(), "runledger-docs-")), "llms.md");
  await writeFile(copy, texts.get("llms.txt") ?? "");
  const args = ["check", "--config", "deno.json", "--doc-only", copy];
  const { code, output } = await runDeno(args, { NO_COLOR: "1" }).finally(() => rm(dirname(copy), { recursive: true }));
  assert.equal(code, 0, output);
  assert.match(output, /^Check /m, "nothing was checked");
});

Deno.test("docs: links within the repository lead to files and headings that are there", async () => {
  for (const [page, text] of texts) {
    const prose = text.replaceAll(/^```[\s\S]*?^```$/gm, "");
    for (const [, target = ""] of prose.matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^https?:/.test(target)) continue;
      const [path = "", anchor] = target.split("#");
      const file = path === "" ? page : join(dirname(page), path);
      assert.ok(existsSync(file), `${page} links to ${target}, which is not there`);
      if (anchor === undefined) continue;
      const headings = [...(await readFile(file, "utf8")).matchAll(/^#+ (.*)$/gm)].map(([, heading = ""]) =>
        slug(heading)
      );
      assert.ok(headings.includes(anchor), `${page} links to ${target}: no such heading`);
    }
  }
});

Deno.test("docs: the index has every page", () => {
  const index = texts.get("docs/README.md") ?? "";
  for (const page of GUIDES) {
    const name = page.slice("docs/".length);
    if (name !== "README.md") assert.ok(index.includes(`](${name})`), `docs/README.md has no ${name}`);
  }
});

function blocksOf(page: string, text: string): Block[] {
  return [...text.matchAll(/^```ts\n([\s\S]*?)^```$/gm)].map(({ index, 1: code = "" }) => ({
    page,
    line: text.slice(0, index).split("\n").length,
    code,
  }));
}

/** The anchor that a heading has on the sites where the pages are read. */
function slug(heading: string): string {
  return heading.toLowerCase().replaceAll(/[^\w\- ]/g, "").replaceAll(" ", "-");
}

async function assertEnds(
  name: string,
  args: readonly string[],
  env: Readonly<Record<string, string>>,
  stopAfter: readonly string[] = [],
): Promise<void> {
  const { code, output } = await runDeno(args, env, stopAfter);
  assert.equal(code, 0, `${name} ended with ${code}:\n${output}`);
}

/** Runs Deno to its end, and asks it to stop when it has printed some texts. */
async function runDeno(
  args: readonly string[],
  env: Readonly<Record<string, string>>,
  stopAfter: readonly string[] = [],
): Promise<Ended> {
  const child = new Deno.Command(Deno.execPath(), { args: [...args], stdout: "piped", stderr: "piped", env }).spawn();
  const timer = setTimeout(() => child.kill("SIGKILL"), PATIENCE_MS);
  let output = "";
  let isAsked = false;
  const read = async (stream: ReadableStream<Uint8Array<ArrayBuffer>>) => {
    for await (const text of stream.pipeThrough(new TextDecoderStream())) {
      output += text;
      if (stopAfter.length === 0 || isAsked || !stopAfter.every((text) => output.includes(text))) continue;
      isAsked = true;
      child.kill("SIGTERM");
    }
  };
  const [{ code }] = await Promise.all([child.status, read(child.stdout), read(child.stderr)]);
  clearTimeout(timer);
  if (stopAfter.length > 0 && !isAsked) {
    return { code: 1, output: `never printed "${stopAfter.join('" and "')}"\n${output}` };
  }
  return { code, output };
}
