/**
 * The database allows exactly those changes of a status that core's transition tables have, whoever asks for them.
 *
 * @module
 */

import { JOB_TRANSITIONS, newId, WORKFLOW_RUN_TRANSITIONS, WORKFLOW_STEP_TRANSITIONS } from "@runledger/core";
import { enqueueJob, enqueueWorkflowRun } from "@runledger/postgres";
import assert from "node:assert/strict";
import { openTestDatabase, request } from "./support/database.ts";

/** The tables with a status, and what may follow what. */
const MACHINES: Readonly<Record<string, Readonly<Record<string, readonly string[]>>>> = {
  job_queue: JOB_TRANSITIONS,
  workflow_runs: WORKFLOW_RUN_TRANSITIONS,
  workflow_steps: WORKFLOW_STEP_TRANSITIONS,
};

Deno.test("every pair of statuses: the database allows the change exactly when core's table has it", async () => {
  await using database = await openTestDatabase({ checks: false, max: 1 });
  const { sql } = database;
  await enqueueJob(sql, request());
  await enqueueWorkflowRun(sql, {
    workflowType: newId(),
    metadata: null,
    steps: [{ executionKind: "EXTERNAL", stepKey: "gate", payload: 1, dependencies: [] }],
  });
  // What a row of each status looks like is the checks' business; here only the way from one to the other counts.
  const checks = await sql<{ name: string; owner: string }[]>`
    select own.conname as name, own.conrelid::regclass::text as owner
    from pg_constraint as own
    where own.connamespace = 'runledger'::regnamespace
      and own.contype = 'c'`;
  for (const { name, owner } of checks) await sql.unsafe(`alter table ${owner} drop constraint ${name}`);
  for (const [table, transitions] of Object.entries(MACHINES)) {
    for (const [from, allowed] of Object.entries(transitions)) {
      for (const to of Object.keys(transitions)) {
        // Without triggers, wherever the row stands now.
        await sql.unsafe("set session_replication_role = replica");
        await sql.unsafe(`update runledger.${table} set status = $1`, [from]);
        await sql.unsafe("set session_replication_role = origin");
        const refused = await sql.unsafe(`update runledger.${table} set status = $1`, [to]).then(
          () => undefined,
          (error: { readonly code?: string; readonly constraint_name?: string }) => error,
        );
        const isAllowed = from === to || allowed.includes(to);
        assert.equal(refused === undefined, isAllowed, `${table}: ${from} -> ${to}`);
        if (refused === undefined) continue;
        assert.deepEqual([refused.code, refused.constraint_name], ["23514", `${table}_transition_check`]);
      }
    }
  }
});
