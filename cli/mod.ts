/**
 * The command line of Runledger as a function. `main.ts` is the program.
 *
 * @module
 */

import { isRunledgerError } from "@runledger/core";
import postgres from "postgres";
import { readCommandLine, USAGE, UsageError } from "./command_line.ts";
import type { CommandLine } from "./command_line.ts";
import { printFindings } from "./doctor_command.ts";
import { printInspection } from "./inspect_command.ts";
import { printStatus } from "./status_command.ts";
import { printLedger } from "./tail_command.ts";
import { paint, printable } from "./terminal.ts";
import type { Output } from "./terminal.ts";

/** Where the command line runs. */
export interface CommandEnvironment {
  /** The environment's variables: `DATABASE_URL` and `NO_COLOR` are read. */
  readonly variables: Readonly<Record<string, string | undefined>>;
  /** Writes to standard output. */
  readonly write: (text: string) => void;
  /** Writes to standard error. */
  readonly writeError: (text: string) => void;
  /** Whether standard output is a terminal. */
  readonly isTerminal: boolean;
  /** Ends `tail`. */
  readonly signal?: AbortSignal;
}

/**
 * Runs a command line.
 *
 * Errors are written to standard error, in words and without connection strings or SQL; nothing is thrown.
 *
 * @param args The arguments, without the program.
 * @param environment Where it runs.
 * @returns The exit code; the README lists them.
 */
export async function runCommandLine(args: readonly string[], environment: CommandEnvironment): Promise<number> {
  const { variables, write, writeError, isTerminal, signal = new AbortController().signal } = environment;
  let line: CommandLine;
  let url: string;
  try {
    line = readCommandLine(args);
    if (line.command === "help") {
      write(USAGE);
      return 0;
    }
    url = databaseUrl(line.databaseUrl ?? variables["DATABASE_URL"]);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    writeError(`${printable(error.message)}\n\n${USAGE}`);
    return 64;
  }
  const hasNoColor = (variables["NO_COLOR"] ?? "") !== "" || line.refusesColor || line.isJson;
  const output: Output = { write, writeError, hasColor: isTerminal && !hasNoColor };
  // Prepared statements do not survive a pooler in transaction mode.
  const sql = postgres(url, {
    max: 2,
    prepare: false,
    connect_timeout: 10,
    onnotice: () => {},
    connection: { application_name: "runledger-cli" },
  });
  try {
    return await runCommand(sql, line, { output, signal });
  } catch (error) {
    const told = isRunledgerError(error) ? `${error.code}: ${error.message}` : "Something went wrong that should not.";
    writeError(`${paint(output, "bad", printable(told))}\n`);
    return 3;
  } finally {
    await sql.end({ timeout: 1 });
  }
}

async function runCommand(
  sql: postgres.Sql,
  line: CommandLine,
  { output, signal }: { readonly output: Output; readonly signal: AbortSignal },
): Promise<number> {
  switch (line.command) {
    case "doctor":
      return await printFindings(sql, line, output);
    case "inspect":
      if (await printInspection(sql, line, output)) return 0;
      output.writeError("There is no job, step or run of this id in the scope.\n");
      return 4;
    case "tail":
      await printLedger(sql, line, { output, signal });
      return 0;
    default:
      await printStatus(sql, line, output);
      return 0;
  }
}

/** Gives a URL that is one; what it holds is never told. */
function databaseUrl(text: string | undefined): string {
  if (text === undefined || text === "") {
    throw new UsageError("Set DATABASE_URL, as in DATABASE_URL=postgres://user:password@host:5432/database.");
  }
  const { protocol } = URL.canParse(text) ? new URL(text) : { protocol: "" };
  if (protocol === "postgres:" || protocol === "postgresql:") return text;
  throw new UsageError("DATABASE_URL must be a URL like postgres://user:password@host:5432/database.");
}
