/**
 * What all benchmarks take from their command line, and how they give their report.
 *
 * @module
 */

import { writeFile } from "node:fs/promises";
import { parseArgs } from "node:util";

/** The options of a benchmark. */
export interface BenchOptions<Counts extends string> {
  /** A smoke run of a few seconds. */
  readonly quick: boolean;
  /** Only what is named like this; empty for all. */
  readonly only: string;
  /** Where the report goes; to the terminal otherwise. */
  readonly json?: string;
  /** Other options without a value. */
  readonly flags: ReadonlySet<string>;
  /** The option of that name, or what stands for it: in a smoke run, or in a whole one. */
  count(name: Counts, defaults: { readonly quick: number; readonly whole: number }): number;
}

/**
 * Reads `--quick`, `--only TEXT`, `--json FILE`, and the options that take a whole number from 1.
 *
 * @param args The command line.
 * @param counts The options that take a number.
 * @param flags More options without a value.
 * @returns What was asked for.
 * @throws {TypeError} For an option that is not known, or a number that is none.
 */
export function readBenchOptions<Counts extends string>(
  args: readonly string[],
  counts: readonly Counts[],
  flags: readonly string[] = [],
): BenchOptions<Counts> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      quick: { type: "boolean" },
      ...Object.fromEntries(flags.map((name) => [name, { type: "boolean" as const }])),
      ...Object.fromEntries(["only", "json", ...counts].map((name) => [name, { type: "string" as const }])),
    },
  }) as { readonly values: Readonly<Record<string, string | boolean | undefined>> };
  const text = (name: string) => values[name] === undefined ? undefined : String(values[name]);
  const given = new Map<string, number>();
  for (const name of counts) {
    const value = text(name);
    if (value === undefined) continue;
    if (!/^[1-9]\d*$/.test(value)) throw new TypeError(`--${name} must be a whole number from 1, not '${value}'`);
    given.set(name, Number(value));
  }
  const json = text("json");
  const quick = values["quick"] === true;
  return {
    quick,
    only: text("only") ?? "",
    ...(json === undefined ? {} : { json }),
    flags: new Set(flags.filter((name) => values[name] === true)),
    count: (name, defaults) => given.get(name) ?? (quick ? defaults.quick : defaults.whole),
  };
}

/** Writes the report to the file that was asked for, or prints it as one line. */
export async function giveReport(report: Readonly<Record<string, unknown>>, json: string | undefined): Promise<void> {
  const dated = { date: new Date().toISOString().slice(0, 10), ...report };
  if (json === undefined) console.log(`\n${JSON.stringify(dated)}`);
  else await writeFile(json, `${JSON.stringify(dated, null, 2)}\n`);
}
