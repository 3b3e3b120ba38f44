/**
 * Pages that are written by scripts: Markdown as `deno fmt` leaves it, and what keeps a page from falling behind.
 *
 * @module
 */

import { readFile, writeFile } from "node:fs/promises";

/**
 * Breaks a paragraph or a list item where `deno fmt` does, so that it leaves the page as it is.
 *
 * @param text The text, on one line.
 * @param indent What the lines after the first begin with.
 * @returns Lines of up to 120 characters.
 */
export function wrap(text: string, indent = ""): string {
  const lines: string[] = [];
  let line = "";
  for (const word of text.match(/(?:`[^`]*`|[^\s`])+/g) ?? []) {
    if (line !== "" && line.length + 1 + word.length > 120) {
      lines.push(line);
      line = indent + word;
    } else {
      line = line === "" ? word : `${line} ${word}`;
    }
  }
  return [...lines, line].join("\n");
}

/**
 * Lays out a table as `deno fmt` does.
 *
 * @param head The titles.
 * @param rows The cells, as Markdown on one line each.
 * @returns The table, with a line feed at its end.
 */
export function markdownTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const cells = [head, ...rows].map((row) => row.map((cell) => cell.replaceAll("|", "\\|")));
  const widths = head.map((_, column) => cells.reduce((most, row) => Math.max(most, row[column]?.length ?? 0), 3));
  const [titles = "", ...lines] = cells.map((row) =>
    `| ${widths.map((width, column) => (row[column] ?? "").padEnd(width)).join(" | ")} |\n`
  );
  return `${titles}| ${widths.map((width) => "-".repeat(width)).join(" | ")} |\n${lines.join("")}`;
}

/**
 * Writes a page, or says that it is out of date when the program was given `--check`.
 *
 * @param path The page, from the workspace's folder.
 * @param text What it should say.
 * @param task The task that writes it.
 */
export async function writePage(path: string, text: string, task: string): Promise<void> {
  const target = new URL(`../${path}`, import.meta.url);
  if (await readFile(target, "utf8").catch(() => "") === text) return;
  if (Deno.args.includes("--check")) {
    console.error(`${path} is not what it is made from. Run: deno task ${task}`);
    Deno.exitCode = 1;
  } else {
    await writeFile(target, text);
  }
}
