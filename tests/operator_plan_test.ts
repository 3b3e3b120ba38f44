/**
 * The plans of every read that operators have, on tables so large that reading one from end to end would be the planner's
 * choice if the statement left it one: none is, and no read looks at more than its window.
 *
 * @module
 */

import { deleteFinishedJobs, deleteFinishedWorkflowRuns } from "@runledger/postgres";
import assert from "node:assert/strict";
import { fillOperatorData } from "../bench/operator_data.ts";
import { operatorReads } from "../bench/support/operator_reads.ts";
import { openTestDatabase } from "./support/database.ts";
import { ExplainingSession } from "./support/explaining_session.ts";

const TABLES = [
  "job_queue",
  "job_events",
  "job_dead_letters",
  "job_logs",
  "job_schedules",
  "workflow_runs",
  "workflow_steps",
  "workflow_step_dependencies",
];

for (const planCacheMode of ["force_custom_plan", "force_generic_plan"] as const) {
  Deno.test(`no read of operators scans a table or reads beyond its window: ${planCacheMode}`, async () => {
    await using database = await openTestDatabase({ checks: false });
    await fillOperatorData(database.sql, 60_000);
    // So few fail that their table would be too small to tell a scan from a walk.
    await database.sql.unsafe(`
      insert into runledger.job_dead_letters (
        job_id, job_type, organization_id, run_number, attempt, failure_kind, reason, error_code, error_message, failed_at,
        payload_snapshot
      )
      select
        queue.id, queue.job_type, queue.organization_id, 1, 1, 'TERMINAL', 'FAILURE_KIND_NON_RETRYABLE', 'app.error_1', 'no',
        queue.finished_at, queue.payload
      from runledger.job_queue as queue
      where queue.status = 'SUCCEEDED';
      analyze runledger.job_dead_letters`);
    // What a window holds is thrown away above the node that read it; within the node only an index may sort out.
    await using session = new ExplainingSession(database.url, { tables: TABLES, fewRows: 100 });
    await session.begin(planCacheMode);
    for (const { name, call } of await operatorReads(session.sql)) await session.explain(name, call);
    // Not a read, but here are ended jobs and runs with keys, most of them too young.
    const { sql } = session;
    const keysToo = { olderThanMs: 29 * 86_400_000, limit: 50, expiresIdempotencyKeys: true };
    await session.explain("deleteFinishedJobs", () => deleteFinishedJobs(sql, keysToo));
    await session.explain("deleteFinishedWorkflowRuns", () => deleteFinishedWorkflowRuns(sql, keysToo));
    assert.deepEqual([...new Set(session.problems)], []);
    assert(session.calls.size > 60);
    for (const [name, plans] of session.calls) assert(plans > 0, `${name} told no plan`);
  });
}
