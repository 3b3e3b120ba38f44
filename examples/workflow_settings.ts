/**
 * A graph that is only known at run time, with settings of its own for each step: priority, attempts, timeout, stage. The
 * two lower-level builders make it from data; for a graph that is written down, `WorkflowDagBuilder` is shorter.
 *
 * Run: `deno run -A examples/workflow_settings.ts`
 *
 * @module
 */

import { isWorkflowBuildError, WorkflowRunEnqueueBuilder, WorkflowStepEnqueueBuilder } from "@runledger/core";
import { defineJob } from "@runledger/core";
import type { WorkflowRunRequest } from "@runledger/core";
import { drawWorkflowRun, enqueueWorkflowRun, getJob, listWorkflowSteps } from "@runledger/postgres";
import { consoleLogger, JobCatalog, Supervisor } from "@runledger/runtime";
import { z } from "zod";
import { openDatabase } from "./support/database.ts";
import { waitForRun } from "./support/workflow.ts";

const runTask = defineJob({
  type: "example.build_task",
  payload: z.object({ command: z.string() }),
  maxAttempts: 3,
  timeoutSeconds: 60,
});

/** What somebody wrote into a file, and what this program has never seen before. */
const Recipe = z.record(
  z.string(),
  z.object({ command: z.string(), needs: z.array(z.string()).default([]), slow: z.boolean().default(false) }),
);

function buildRun(recipe: z.infer<typeof Recipe>): WorkflowRunRequest {
  let run = new WorkflowRunEnqueueBuilder("example.build", { tasks: Object.keys(recipe).length });
  for (const [name, { command, needs, slow }] of Object.entries(recipe)) {
    // Checked by the job's schema here, not when a worker has claimed it.
    const { jobType, payload } = runTask.request({ command });
    const step = WorkflowStepEnqueueBuilder.job(name, jobType, payload).dependsOnSuccess(needs);
    // A builder is never changed, only added to, so one can be the template of several.
    run = run.step((slow ? step.priority(10).maxAttempts(1).timeoutSeconds(600) : step).build());
  }
  return run.build();
}

const recipe = Recipe.parse({
  fetch: { command: "git fetch" },
  compile: { command: "make", needs: ["fetch"], slow: true },
  lint: { command: "make lint", needs: ["fetch"] },
  publish: { command: "make publish", needs: ["compile", "lint"] },
});

// A mistake in the file is found before anything is written, and the error says where.
try {
  buildRun({ ...recipe, fetch: { command: "git fetch", needs: ["publish"], slow: false } });
} catch (error) {
  if (!isWorkflowBuildError(error) || error.problem.kind !== "cycle") throw error;
  console.log(`refused: ${error.code} through ${[...error.problem.stepKeys].sort().join(", ")}`);
}

const catalog = new JobCatalog().handle(runTask, ({ command }, context) => {
  console.log(`  ${command} (${context.maxAttempts} attempts at most)`);
});

await using database = await openDatabase();
const { sql } = database;
await catalog.sync(sql);
const { runId } = await enqueueWorkflowRun(sql, buildRun(recipe));

await using _supervisor = new Supervisor(sql, {
  catalog,
  config: { pollIntervalMs: 25 },
  logger: { ...consoleLogger, debug: () => {}, info: () => {} },
});
console.log(`the run is ${(await waitForRun(sql, runId)).status}`);
console.log(await drawWorkflowRun(sql, runId, { scope: "global" }));

// What a step did not set came from the definition. The job of a step has the step's id.
const { items: steps } = await listWorkflowSteps(sql, runId, { scope: "global" });
for (const { stepId, stepKey } of steps) {
  const job = await getJob(sql, stepId, { scope: "global" });
  console.log(`${stepKey}: priority ${job?.priority}, ${job?.maxAttempts} attempts, ${job?.timeoutSeconds} s`);
}
