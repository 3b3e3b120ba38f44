/**
 * A process that claims and settles steps of workflows until it is killed: `deno run -A settler_process.ts <url> <name>`.
 *
 * It says nothing as long as nothing happens that must not; a lost connection may.
 *
 * @module
 */

import { isRunledgerError } from "@runledger/core";
import process from "node:process";
import pg from "pg";
import { settleDoomedBatch, settleDoomedBatchWithEffects } from "./doomed_workflows.ts";

const [url = "", name = ""] = process.argv.slice(2);
// Not postgres.js: when sessions end by the hundred, one of its queries may never be answered.
const pool = new pg.Pool({ connectionString: url, max: 1, application_name: name });
pool.on("error", () => {});
for (let round = 1;; round++) {
  const limit = 1 + round % 9;
  try {
    if (round % 3 === 0) await settleDoomedBatchWithEffects(pool, limit);
    else await settleDoomedBatch(pool, limit);
  } catch (error) {
    if (isRunledgerError(error, "db.commit_unknown") || isRunledgerError(error, "db.unavailable")) continue;
    console.log(error);
    process.exit(1);
  }
}
