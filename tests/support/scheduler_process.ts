/**
 * A process that fires schedules until it is killed, for tests: `deno run -A scheduler_process.ts <url> <limit>`.
 *
 * @module
 */

import { materializeDueSchedules } from "@runledger/postgres";
import process from "node:process";
import postgres from "postgres";

const [url = "", limit = ""] = process.argv.slice(2);
const sql = postgres(url, { max: 1, onnotice: () => {} });
while (true) {
  await materializeDueSchedules(sql, { limit: Number(limit) });
  console.log("a round");
}
