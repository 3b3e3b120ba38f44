/**
 * The plans of the statements that move workflows, on large tables: none reads a table from end to end, compares many rows
 * with many, or reads many rows to throw them away; and a wide graph takes as many rows more as it is wider. In sessions
 * that planned while the tables were empty, whether or not the tables were analyzed since. The plans are those of the real calls, told by the server itself (auto_explain).
 *
 * @module
 */

import type { WorkflowRunRequest, WorkflowStepRequest } from "@runledger/core";
import {
  appendWorkflowSteps,
  cancelJob,
  cancelWorkflowRun,
  claimJobs,
  completeExternalStep,
  deleteFinishedWorkflowRuns,
  enqueueWorkflowRun,
  enqueueWorkflowRuns,
  expireWorkflowGates,
  getWorkflowResult,
  getWorkflowRun,
  listWorkflowRunMutations,
  listWorkflowStepDependencies,
  listWorkflowSteps,
  recoverWorkflowRun,
  settleJobs,
} from "@runledger/postgres";
import assert from "node:assert/strict";
import { fillFinishedRuns } from "../bench/support/workflow_filling.ts";
import { openTestDatabase } from "./support/database.ts";
import { ExplainingSession } from "./support/explaining_session.ts";

const TABLES = ["workflow_runs", "workflow_steps", "workflow_step_dependencies", "job_queue", "job_events"];
/** A few rows more than asked for are no fault. */
const FEW_ROWS = 300;
const ALL = { scope: "all" } as const;

function job(stepKey: string, after: readonly string[] = []): WorkflowStepRequest {
  return {
    executionKind: "JOB",
    stepKey,
    jobType: "a",
    payload: null,
    dependencies: after.map((prerequisiteStepKey) => ({ prerequisiteStepKey, releaseMode: "ON_SUCCESS" })),
  };
}

function gate(stepKey: string, after: readonly string[], afterMs?: number): WorkflowStepRequest {
  return {
    executionKind: "EXTERNAL",
    stepKey,
    payload: null,
    dependencies: after.map((prerequisiteStepKey) => ({ prerequisiteStepKey, releaseMode: "ON_SUCCESS" })),
    ...(afterMs === undefined ? {} : { timeout: { afterMs, outcome: "FAILED" } }),
  };
}

function run(steps: readonly WorkflowStepRequest[], fields: Partial<WorkflowRunRequest> = {}): WorkflowRunRequest {
  return { workflowType: "test.plan", metadata: {}, steps, ...fields };
}

/** Calls everything that moves workflows, with so many runs at once, and leaves nothing due behind. */
async function callAll(session: ExplainingSession, round: string, count: number): Promise<void> {
  const { sql } = session;
  const width = 10 * count;
  const claim = (name: string) =>
    session.explain(name, () => claimJobs(sql, { jobTypes: ["a"], workerId: "w", limit: 400 }));

  const diamond = run([job("a"), job("b", ["a"]), job("c", ["a"]), job("d", ["b", "c"])]);
  await session.explain(
    "enqueueWorkflowRuns",
    () => enqueueWorkflowRuns(sql, Array.from({ length: count }, () => diamond)),
  );
  const keyed = Array.from({ length: count }, (_, n) =>
    run([job("a"), gate("g", ["a"]), job("b", ["g"])], {
      idempotencyKey: `${round}-${n}`,
      activeKey: `${round}-${n}`,
      resultStepKey: "a",
    }));
  const enqueued = await session.explain("enqueueWorkflowRuns, new keys", () => enqueueWorkflowRuns(sql, keyed));
  const again = await session.explain("enqueueWorkflowRuns, known keys", () => enqueueWorkflowRuns(sql, keyed));
  assert(again.every(({ disposition }) => disposition === "existing"));
  const [appended, canceled, ...others] = enqueued.map(({ runId }) => runId) as [string, string, ...string[]];

  const roots = await claim("claimJobs, of roots");
  assert.equal(roots.length, 2 * count);
  await session.explain(
    "settleJobs, releasing",
    () => settleJobs(sql, roots.map((lease) => ({ lease, outcome: { kind: "succeeded", output: 1 } }))),
  );
  await session.explain(
    "getWorkflowResult",
    () => assert.rejects(getWorkflowResult(sql, appended, { ...ALL, timeoutMs: 0 })),
  );
  await session.explain("getWorkflowRun", () => getWorkflowRun(sql, appended, ALL));
  await session.explain("listWorkflowSteps", () => listWorkflowSteps(sql, appended, ALL));
  await session.explain("listWorkflowStepDependencies", () => listWorkflowStepDependencies(sql, appended, ALL));

  const parts = await claim("claimJobs, with prerequisites");
  assert.equal(parts.length, 2 * count);
  await session.explain("settleJobs, joining", () =>
    settleJobs(
      sql,
      parts.map((lease, n) =>
        n % 10 > 0 ? { lease, outcome: { kind: "succeeded" } } : {
          lease,
          outcome: { kind: "failed", failure: { kind: "TERMINAL", code: "plan.test", message: "no" } },
        }
      ),
    ));
  const joins = await claim("claimJobs, with prerequisites");
  const [stopped, ...rest] = joins;
  assert(stopped !== undefined);
  await session.explain("cancelJob, of a step", () => cancelJob(sql, stopped.jobId, ALL));
  await settleJobs(sql, rest.map((lease) => ({ lease, outcome: { kind: "succeeded" } })));

  const steps = [job("x", ["g"]), job("y", ["x"])];
  await session.explain(
    "appendWorkflowSteps",
    () => appendWorkflowSteps(sql, appended, { ...ALL, mutationKey: "m", windowStepKey: "g", steps }),
  );
  await session.explain("listWorkflowRunMutations", () => listWorkflowRunMutations(sql, appended, ALL));
  const completion = { status: "SUCCEEDED" } as const;
  await session.explain("completeExternalStep", () => completeExternalStep(sql, appended, "g", { ...ALL, completion }));
  await session.explain("cancelWorkflowRun", () => cancelWorkflowRun(sql, canceled, ALL));
  for (const runId of others) await cancelWorkflowRun(sql, runId, ALL);
  await cancelWorkflowRun(sql, appended, ALL);
  const { runId: recovered } = await session.explain(
    "recoverWorkflowRun",
    () => recoverWorkflowRun(sql, canceled, { ...ALL, recoveryKey: round, mode: "RESUME" }),
  );
  await cancelWorkflowRun(sql, recovered, ALL);

  // A gate that timed out, and many steps that are cancelled with it.
  const waiting = Array.from({ length: width }, (_, n) => job(`part-${n}`, ["g"]));
  const { runId: wide } = await enqueueWorkflowRun(sql, run([gate("g", [], 1), ...waiting]));
  await sql`
    update runledger.workflow_steps set gate_expires_at = now() - interval '1 second'
    where run_id = ${wide} and step_key = 'g'`;
  assert.equal(await session.explain("expireWorkflowGates", () => expireWorkflowGates(sql)), 1);

  // Many steps that are released at once, and the join of them.
  const keys = Array.from({ length: width }, (_, n) => `part-${n}`);
  await session.explain(
    "enqueueWorkflowRun, of a fan-out",
    () => enqueueWorkflowRun(sql, run([job("a"), ...keys.map((key) => job(key, ["a"])), job("z", keys)])),
  );
  for (let left = width + 2; left > 0;) {
    const due = await claim("claimJobs, of a fan-out");
    assert(due.length > 0);
    left -= due.length;
    await session.explain(
      "settleJobs, of a fan-out",
      () => settleJobs(sql, due.map((lease) => ({ lease, outcome: { kind: "succeeded" } }))),
    );
  }
  await session.explain(
    "deleteFinishedWorkflowRuns",
    () => deleteFinishedWorkflowRuns(sql, { olderThanMs: 1, limit: 50 }),
  );
}

for (const isAnalyzed of [true, false]) {
  Deno.test(
    `nothing that moves workflows reads whole tables, planned while they were empty, ${
      isAnalyzed ? "analyzed since" : "never analyzed"
    }`,
    async () => {
      await using database = await openTestDatabase({ checks: false });
      await using session = new ExplainingSession(database.url, {
        tables: TABLES,
        fewRows: FEW_ROWS,
        refusesCompilation: true,
      });
      for (const table of TABLES) {
        await database.sql.unsafe(`alter table runledger.${table} set (autovacuum_enabled = off)`);
      }
      await session.begin();
      // The first calls make the plans that a session keeps.
      await callAll(session, "empty", 2);
      session.problems.length = 0;
      await fillFinishedRuns(database.sql, 20_000);
      if (isAnalyzed) await database.sql.unsafe("vacuum (analyze)");
      await callAll(session, "filled", 100);
      // Until autovacuum has analyzed the tables, within about a minute, a statement that the client keeps may have the plan
      // of an empty table; those within functions may not.
      const exempt = isAnalyzed ? [] : ["claimJobs,", "listWorkflowStepDependencies:"];
      const problems = session.problems.filter((problem) => !exempt.some((call) => problem.startsWith(call)));
      assert.deepEqual([...new Set(problems)], []);
      for (const [call, plans] of session.calls) {
        assert(plans > 0, `${call} told no plan`);
      }
    },
  );
}

/** How many times as wide the wide graph is, and what it may take at most of what is in proportion. */
const WIDER = 8;
const SLACK = 1.5;

/** Calls everything whose work grows with the width of a graph, on graphs of one width, and leaves nothing behind. */
async function callWide(session: ExplainingSession, round: string, width: number): Promise<void> {
  const { sql } = session;
  const explain = <T>(name: string, call: () => Promise<T>) => session.explain(`${name} ${round}`, call);
  const claim = (name: string) => explain(name, () => claimJobs(sql, { jobTypes: ["a"], workerId: "w", limit: 1000 }));
  const succeed = (name: string, leases: Awaited<ReturnType<typeof claimJobs>>) =>
    explain(name, () => settleJobs(sql, leases.map((lease) => ({ lease, outcome: { kind: "succeeded", output: 1 } }))));
  const keys = Array.from({ length: width }, (_, n) => `part-${n}`);
  // Each part waits for the first step and for the part before it but one, so that there are waves besides.
  const fan = (prefix: string, first: string) =>
    keys.map((key, n) => job(prefix + key, n % 2 === 0 ? [first] : [first, `${prefix}part-${n - 1}`]));

  const wide = run([job("first"), ...keys.map((key) => job(key, ["first"])), job("join", keys)]);
  const { runId } = await explain("enqueue", () => enqueueWorkflowRun(sql, wide));
  await succeed("settle the first of", await claim("claim the first of"));
  const parts = await claim("claim the parts of");
  assert.equal(parts.length, width);
  await succeed("settle the parts of", parts);
  const [join] = await claim("claim the join of");
  assert(join !== undefined);
  await succeed("settle the join of", [join]);
  const { runId: replayed } = await explain(
    "replay",
    () => recoverWorkflowRun(sql, runId, { ...ALL, recoveryKey: "replay", mode: "REPLAY" }),
  );
  await succeed("settle the first again of", await claim("claim the first again of"));
  await explain("cancel", () => cancelWorkflowRun(sql, replayed, ALL));
  const { runId: resumed } = await explain(
    "resume",
    () => recoverWorkflowRun(sql, replayed, { ...ALL, recoveryKey: "resume", mode: "RESUME" }),
  );
  await cancelWorkflowRun(sql, resumed, ALL);

  const gated = run([job("first"), gate("g", ["first"]), gate("h", ["first"]), ...fan("", "g")]);
  const { runId: gatedId } = await enqueueWorkflowRun(sql, gated);
  const [first] = await claim("claim before gates of");
  assert(first !== undefined);
  await succeed("settle before gates of", [first]);
  const steps = fan("late-", "g");
  await explain(
    "append",
    () => appendWorkflowSteps(sql, gatedId, { ...ALL, mutationKey: "m", windowStepKey: "h", steps }),
  );
  await explain(
    "cancel by a gate",
    () => completeExternalStep(sql, gatedId, "g", { ...ALL, completion: { status: "FAILED" } }),
  );
  await cancelWorkflowRun(sql, gatedId, ALL);
  await explain("remove", () => deleteFinishedWorkflowRuns(sql, { olderThanMs: 0, limit: 1000 }));
  // Recoveries go after their sources.
  while (await deleteFinishedWorkflowRuns(sql, { olderThanMs: 0, limit: 1000 }) > 0);
}

/** What the tables were like when a session made the plans that it keeps, and what happened since. */
const PLANNED = [
  "while the tables were empty, analyzed since",
  "while the tables were empty",
  "when all runs had ended",
];

for (const when of PLANNED) {
  Deno.test(`a wide graph takes no more than in proportion to its width, planned ${when}`, async () => {
    await using database = await openTestDatabase({ checks: false });
    await using session = new ExplainingSession(database.url, { tables: [], fewRows: FEW_ROWS });
    for (const table of TABLES) {
      await database.sql.unsafe(`alter table runledger.${table} set (autovacuum_enabled = off)`);
    }
    await session.begin();
    const fill = async () => {
      await fillFinishedRuns(database.sql, 20_000);
      // With keys, so that retention leaves them.
      await database.sql`update runledger.workflow_runs set idempotency_key = id::text`;
      if (when !== "while the tables were empty") await database.sql.unsafe("vacuum (analyze)");
    };
    if (when === "when all runs had ended") await fill();
    await callWide(session, "a graph of two", 2);
    if (when !== "when all runs had ended") await fill();
    await callWide(session, "a narrow graph", 1000 / WIDER);
    await callWide(session, "a wide graph", 1000);
    const beyond = [...session.visits].flatMap(([call, visits]) => {
      const narrow = session.visits.get(call.replace(/wide graph$/, "narrow graph")) ?? 0;
      const growth = visits / narrow;
      return growth > WIDER * SLACK ? [`${call}: ${visits} rows, ${growth.toFixed(1)} times the narrow one's`] : [];
    });
    assert.deepEqual(beyond, []);
    assert.deepEqual(session.problems, []);
  });
}
