/**
 * How an error may come to be printed.
 *
 * @module
 */

import type { RunledgerError } from "@runledger/core";
import { inspect } from "node:util";

/** Everything that a careless logger could print of an error. */
export function printedForms(error: RunledgerError): readonly string[] {
  return [
    error.message,
    String(error),
    JSON.stringify(error),
    JSON.stringify({ error }),
    JSON.stringify({ ...error }),
    error.stack ?? "",
    Deno.inspect(error),
    Deno.inspect({ nested: [error] }, { depth: 10, showHidden: true }),
    inspect(error),
    inspect({ nested: { error } }, { depth: 10, showHidden: true }),
    inspect(new Error("outer", { cause: error }), { depth: 10 }),
    Object.getOwnPropertyNames(error).join(),
  ];
}
