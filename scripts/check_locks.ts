/**
 * Checks that every statement and function that locks rows explicitly says so above it, in a comment that begins with
 * `locks:`. What they say is kept in agreement with docs/lock_order.md by people.
 *
 * Run: `deno task locks`. The exit code is 1 when a comment is missing.
 *
 * @module
 */

import { readdir, readFile } from "node:fs/promises";

const LOCKING = /\bfor\s+(no\s+key\s+update|update|key\s+share|share)\b|\block\s+table\b|\bpg_(try_)?advisory_\w*lock/;

/** What begins a piece of a file that stands by itself, with the comment that belongs to it right above. */
const TOP_LEVEL = {
  ts: /^(export\s+)?(default\s+)?(async\s+)?(const|let|function|class|interface|type)\b/,
  sql: /^(create|alter|do)\b/,
};

const COMMENT = { ts: /^\s*(\/\/|\/\*|\*)/, sql: /^\s*--/ };

/**
 * Finds pieces that lock and do not say what.
 *
 * @param source A file's text.
 * @param kind Its language.
 * @returns The line of each such piece, from 1.
 */
export function findUnstatedLocks(source: string, kind: "ts" | "sql"): readonly number[] {
  const lines = source.split("\n");
  const isComment = (line: string | undefined) => line !== undefined && COMMENT[kind].test(line);
  const starts = lines.flatMap((line, index) => TOP_LEVEL[kind].test(line) ? [index] : []);
  return starts.filter((start, index) => {
    const body = lines.slice(start, starts[index + 1]).filter((line) => !isComment(line)).join("\n");
    if (!LOCKING.test(body)) return false;
    let top = start;
    while (isComment(lines[top - 1])) top--;
    return !lines.slice(top, start).some((line) => /\blocks:/i.test(line));
  }).map((start) => start + 1);
}

/** Checks the statements of the postgres package and the migrations. */
async function checkLocks(root: URL): Promise<readonly string[]> {
  const problems: string[] = [];
  for (const [folder, kind] of [["postgres", "ts"], ["migrations", "sql"]] as const) {
    for (const name of (await readdir(new URL(folder, root))).sort()) {
      // The embedded migrations are the same text once more.
      if (!name.endsWith(`.${kind}`) || name.endsWith("_test.ts") || name === "_migrations.ts") continue;
      const source = await readFile(new URL(`${folder}/${name}`, root), "utf8");
      for (const line of findUnstatedLocks(source, kind)) {
        problems.push(`${folder}/${name}:${line}: locks rows; say which, in which order: "locks: ..." right above it`);
      }
    }
  }
  return problems;
}

if (import.meta.main) {
  const problems = await checkLocks(new URL("../", import.meta.url));
  for (const problem of problems) console.error(problem);
  if (problems.length > 0) Deno.exitCode = 1;
}
