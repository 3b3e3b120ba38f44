/**
 * Text for people: colours, tables, and nothing that would steer a terminal.
 *
 * @module
 */

/** Where a command writes. */
export interface Output {
  /** Writes to standard output. */
  readonly write: (text: string) => void;
  /** Writes to standard error. */
  readonly writeError: (text: string) => void;
  /** Whether colours are wanted. */
  readonly hasColor: boolean;
}

/** The colours that are used: for what is well, odd, wrong, less important, and headings. */
export type Tone = "good" | "odd" | "bad" | "dim" | "bold";

const CODES: Readonly<Record<Tone, number>> = { good: 32, odd: 33, bad: 31, dim: 2, bold: 1 };

/**
 * Colours a text, where colours are wanted.
 *
 * @param output Where it goes.
 * @param tone How.
 * @param text The text.
 * @returns The text with or without codes.
 */
export function paint(output: Output, tone: Tone, text: string): string {
  return output.hasColor && text !== "" ? `\x1b[${CODES[tone]}m${text}\x1b[0m` : text;
}

// Control characters, and what changes the direction of text: what is stored may have been written by anybody.
// deno-lint-ignore no-control-regex
const STEERING = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;

/**
 * Makes a stored text printable on one line.
 *
 * @param text Anything.
 * @returns The text with each character that could steer a terminal written out.
 */
export function printable(text: string): string {
  return text.replaceAll(STEERING, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/**
 * Writes a value as JSON that is printable, too.
 *
 * @param value The value; dates become ISO texts.
 * @param indent How many spaces to indent by.
 * @returns The text, which parses to the same value.
 */
export function printableJson(value: unknown, indent?: number): string {
  // Line feeds of indented JSON are the only control characters that are not within a string.
  return JSON.stringify(value, null, indent).replaceAll(
    STEERING,
    (character) => character === "\n" ? character : `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** A cell: its text, and how to colour it. */
export type Cell = string | { readonly text: string; readonly tone: Tone };

/**
 * Lays out a table: columns as wide as their widest cell, numbers to the right.
 *
 * @param output Where it goes.
 * @param head The titles; one that begins with `>` is of a column of numbers.
 * @param rows The cells, as stored.
 * @returns Lines.
 */
export function table(output: Output, head: readonly string[], rows: readonly (readonly Cell[])[]): string {
  const texts = rows.map((row) => row.map((cell) => printable(typeof cell === "string" ? cell : cell.text)));
  const titles = head.map((title) => title.replace(/^>/, ""));
  const widths = titles.map((title, column) =>
    texts.reduce((most, row) => Math.max(most, row[column]?.length ?? 0), title.length)
  );
  const fit = (text: string, column: number) =>
    head[column]?.startsWith(">") === true ? text.padStart(widths[column] ?? 0) : text.padEnd(widths[column] ?? 0);
  const lines = [titles.map((title, column) => paint(output, "dim", fit(title, column))).join("  ")];
  for (const [index, row] of rows.entries()) {
    lines.push(
      row.map((cell, column) => {
        const text = fit(texts[index]?.[column] ?? "", column);
        return typeof cell === "string" ? text : paint(output, cell.tone, text);
      }).join("  ").trimEnd(),
    );
  }
  return lines.map((line) => `${line.trimEnd()}\n`).join("");
}
