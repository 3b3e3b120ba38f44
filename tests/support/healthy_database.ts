/**
 * A database with which nothing is wrong, for tests that plant what is.
 *
 * @module
 */

import { newId } from "@runledger/core";
import { enqueueJobs, enqueueWorkflowRun, upsertJobSchedule } from "@runledger/postgres";
import { claimOne, openTestDatabase, request } from "./database.ts";
import type { TestDatabase } from "./database.ts";
import { runRolesScript } from "./roles.ts";

/** Opens a healthy database: migrated, with its roles, and something of everything in it. */
export async function openHealthyDatabase(): Promise<TestDatabase> {
  const database = await openTestDatabase({ checks: false });
  const { sql } = database;
  await runRolesScript(database.url);
  await enqueueJobs(sql, [request(), request(), request({ nextRunAt: new Date(Date.now() + 60_000) })]);
  await claimOne(sql);
  await upsertJobSchedule(sql, { name: newId(), jobType: "b", cron: "@daily", payload: {} });
  await enqueueWorkflowRun(sql, {
    workflowType: "w",
    metadata: null,
    steps: [{
      executionKind: "EXTERNAL",
      stepKey: "gate",
      payload: 1,
      timeout: { afterMs: 3_600_000, outcome: "SUCCEEDED" },
      dependencies: [],
    }],
  });
  return database;
}
