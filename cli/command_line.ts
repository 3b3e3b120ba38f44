/**
 * What is asked for on the command line.
 *
 * @module
 */

import { isUuid } from "@runledger/core";
import type { Scope } from "@runledger/postgres";
import { parseArgs } from "node:util";

/** What the command line says. */
export interface CommandLine {
  /** What to do. */
  readonly command: "status" | "tail" | "inspect" | "doctor" | "help";
  /** Whose jobs and runs. */
  readonly scope: Scope;
  /** The job, step or run to inspect. */
  readonly id?: string;
  /** The database, if it is said here. */
  readonly databaseUrl?: string;
  /** Whether the output is for programs. */
  readonly isJson: boolean;
  /** Only jobs of this type. */
  readonly jobType?: string;
  /** How many of the newest events come first. */
  readonly lines: number;
  /** Whether to go on after them. */
  readonly follows: boolean;
  /** Findings that are left out. */
  readonly ignored: readonly string[];
  /** Whether payloads are shown. */
  readonly showsPayload: boolean;
  /** Whether colours are refused. */
  readonly refusesColor: boolean;
}

/** A command line that cannot be understood. Its message is for people. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/** What there is to ask for. */
export const USAGE = `usage: runledger <command> [options]

  status          what is queued, for how long, and who is at work
  tail            the ledger, live
  inspect <id>    why a job, step or run stands where it stands
  doctor          what is wrong with the database, and how to mend it

  --database-url URL    in place of DATABASE_URL
  --organization ID     only what belongs to an organization; --global: to none
  --json                for programs
  --type TYPE           status, tail: only jobs of this type
  --lines N             tail: how many of the newest events first (10)
  --no-follow           tail: stop after these
  --ignore CODE         doctor: leave a finding out
  --payload             inspect: show payload, checkpoint and output
  --no-color            no colours; NO_COLOR does the same

exit codes: 0 done or healthy, 1 warnings, 2 problems, 3 failed, 4 not found, 64 wrong usage
`;

const COMMANDS = ["status", "tail", "inspect", "doctor", "help"] as const;

/**
 * Reads a command line.
 *
 * @param args The arguments, without the program.
 * @returns What it says.
 * @throws {UsageError} It cannot be understood.
 */
export function readCommandLine(args: readonly string[]): CommandLine {
  const { values, positionals } = parsed(args);
  const [name, id, ...rest] = positionals;
  const command = values.help === true ? "help" : COMMANDS.find((known) => known === name);
  if (command === undefined) {
    throw new UsageError(name === undefined ? "There is no command." : "There is no such command.");
  }
  if (command === "inspect" ? id === undefined || !isUuid(id) : command !== "help" && id !== undefined) {
    throw new UsageError(
      command === "inspect" ? "'inspect' takes the id of a job, step or run." : `'${command}' takes no argument.`,
    );
  }
  if (command !== "help" && rest.length > 0) throw new UsageError("There are too many arguments.");
  const { organization } = values;
  if (organization !== undefined && !isUuid(organization)) throw new UsageError("'--organization' takes a UUID.");
  if (organization !== undefined && values.global === true) {
    throw new UsageError("'--organization' and '--global' exclude each other.");
  }
  const lines = Number(values.lines ?? "10");
  if (!Number.isInteger(lines) || lines < 1 || lines > 1000) {
    throw new UsageError("'--lines' takes a number from 1 to 1000.");
  }
  return {
    command,
    scope: organization !== undefined ? { organizationId: organization } : values.global === true ? "global" : "all",
    isJson: values.json === true,
    lines,
    follows: values["no-follow"] !== true,
    ignored: values.ignore ?? [],
    showsPayload: values.payload === true,
    refusesColor: values["no-color"] === true,
    ...(id === undefined ? {} : { id: id.toLowerCase() }),
    ...(values["database-url"] === undefined ? {} : { databaseUrl: values["database-url"] }),
    ...(values.type === undefined ? {} : { jobType: values.type }),
  };
}

function parsed(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        help: { type: "boolean", short: "h" },
        json: { type: "boolean" },
        global: { type: "boolean" },
        payload: { type: "boolean" },
        organization: { type: "string" },
        type: { type: "string" },
        lines: { type: "string" },
        ignore: { type: "string", multiple: true },
        "database-url": { type: "string" },
        "no-color": { type: "boolean" },
        "no-follow": { type: "boolean" },
      },
    });
  } catch (error) {
    // Its first line names the option, never a value.
    throw new UsageError(error instanceof Error ? error.message.split(/[.\n]/)[0] ?? "" : "It cannot be read.");
  }
}
