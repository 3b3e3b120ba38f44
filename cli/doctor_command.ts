/**
 * `doctor`: what is wrong with the database.
 *
 * @module
 */

import { examineDatabase } from "@runledger/postgres";
import type { Queryable } from "@runledger/postgres";
import type { CommandLine } from "./command_line.ts";
import { paint, printable, printableJson } from "./terminal.ts";
import type { Output } from "./terminal.ts";

/**
 * Prints what is wrong.
 *
 * @returns The exit code: 0 if nothing is, 1 for warnings, 2 for problems.
 */
export async function printFindings(db: Queryable, line: CommandLine, output: Output): Promise<number> {
  const all = await examineDatabase(db);
  const findings = all.filter(({ code }) => !line.ignored.includes(code));
  if (line.isJson) {
    output.write(`${printableJson({ findings }, 2)}\n`);
  } else if (findings.length === 0) {
    const ignored = all.length === 0 ? "" : `, but for what is ignored (${all.length})`;
    output.write(paint(output, "good", `nothing is wrong${ignored}`) + "\n");
  } else {
    for (const { code, severity, message, fix } of findings) {
      const head = paint(output, severity === "problem" ? "bad" : "odd", `${severity.padEnd(7)}  ${code}`);
      output.write(`${head}\n  ${printable(message)}\n  ${paint(output, "dim", `fix: ${printable(fix)}`)}\n`);
    }
  }
  if (findings.length === 0) return 0;
  return findings.some(({ severity }) => severity === "problem") ? 2 : 1;
}
