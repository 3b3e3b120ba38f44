/**
 * Writes `migrations/*.sql` into `postgres/_migrations.ts`, because a package that runs on an edge platform has no files to read.
 *
 * Run: `deno task migrations:embed`. With `--check` nothing is written, and the exit code is 1 when the module is out of date.
 *
 * @module
 */

import { readdir, readFile, writeFile } from "node:fs/promises";

/** A migration as the generated module holds it. */
export interface Migration {
  /** The number at the start of the file's name. */
  readonly version: number;
  /** The rest of the file's name. */
  readonly name: string;
  /** The file's text. */
  readonly sql: string;
}

const HEADER = `/**
 * Generated from \`migrations/\` by \`deno task migrations:embed\`. Do not edit.
 *
 * @module
 */

/** One migration file. */
export interface Migration {
  /** The number at the start of the file's name. */
  readonly version: number;
  /** The rest of the file's name. */
  readonly name: string;
  /** The file's text. */
  readonly sql: string;
}

/** Every migration, in version order. */
`;

/**
 * Reads a folder of migrations.
 *
 * @param folder The folder, with a slash at its end.
 * @returns The migrations in version order.
 * @throws {Error} A file is not named `NNNN_name.sql`, or the numbers do not run from 1 without a gap.
 */
export async function readMigrations(folder: URL): Promise<readonly Migration[]> {
  const migrations: Migration[] = [];
  for (const file of (await readdir(folder)).sort()) {
    const [, number, name] = /^(\d{4})_([a-z0-9_]+)\.sql$/.exec(file) ?? [];
    if (number === undefined || name === undefined) {
      throw new Error(`migrations/${file}: a migration is named NNNN_name.sql, in lowercase.`);
    }
    const version = Number(number);
    if (version !== migrations.length + 1) {
      throw new Error(`migrations/${file}: the next migration has the number ${migrations.length + 1}.`);
    }
    migrations.push({ version, name, sql: await readFile(new URL(file, folder), "utf8") });
  }
  return migrations;
}

/**
 * Writes the module's text. The SQL stands in template literals, so that a diff of the module reads like one of the SQL.
 *
 * @param migrations What to write.
 * @returns A module that `deno fmt` leaves as it is.
 */
export function renderMigrations(migrations: readonly Migration[]): string {
  if (migrations.length === 0) return `${HEADER}export const MIGRATIONS: readonly Migration[] = [];\n`;
  const entries = migrations.map(({ version, name, sql }) =>
    `  {\n    version: ${version},\n    name: "${name}",\n    sql: ${templateLiteral(sql)},\n  },\n`
  );
  return `${HEADER}export const MIGRATIONS: readonly Migration[] = [\n${entries.join("")}];\n`;
}

function templateLiteral(text: string): string {
  const escaped = text.replaceAll("\\", "\\\\").replaceAll("`", "\\`").replaceAll("${", "\\${").replaceAll("\r", "\\r");
  // The text begins on a line of its own, behind a line continuation: a long first line would be moved by `deno fmt`.
  return `\`\\\n${escaped}\``;
}

if (import.meta.main) {
  const target = new URL("../postgres/_migrations.ts", import.meta.url);
  const text = renderMigrations(await readMigrations(new URL("../migrations/", import.meta.url)));
  const current = await readFile(target, "utf8").catch(() => "");
  if (Deno.args.includes("--check")) {
    if (current !== text) {
      console.error("postgres/_migrations.ts is not what migrations/ says. Run: deno task migrations:embed");
      Deno.exit(1);
    }
  } else if (current !== text) {
    await writeFile(target, text);
  }
}
