/**
 * A process that claims and settles steps of workflows until it is killed: `deno run -A settler_process.ts <url> <name>`.
 *
 * It says nothing as long as nothing happens that must not; a lost connection may.
 *
 * @module
 */

import { isRunledgerError } from "@runledger/core";
import process from "node:process";
import postgres from "postgres";
import { settleDoomedBatch, settleDoomedBatchWithEffects } from "./doomed_workflows.ts";

const [url = "", name = ""] = process.argv.slice(2);
const sql = postgres(url, {
  max: 1,
  onnotice: () => {},
  connection: { application_name: name },
  // While postgres.js 3.4 reads the types of a new session, the session's end is an error that nobody can catch.
  fetch_types: false,
});
for (let round = 1;; round++) {
  const limit = 1 + round % 9;
  try {
    if (round % 3 === 0) await settleDoomedBatchWithEffects(sql, limit);
    else await settleDoomedBatch(sql, limit);
  } catch (error) {
    if (isRunledgerError(error, "db.commit_unknown") || isRunledgerError(error, "db.unavailable")) continue;
    console.log(error);
    process.exit(1);
  }
}
