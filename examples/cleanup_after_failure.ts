/**
 * Ordered stages, and a step that runs however the others end: what was set up is taken down after a success as well as
 * after a failure. The two kinds of edges, `afterSuccess` and `afterTerminal`, say which.
 *
 * Run: `deno run -A examples/cleanup_after_failure.ts`
 *
 * @module
 */

import { defineJob, JobFailure, WorkflowDagBuilder } from "@runledger/core";
import { drawWorkflowRun, enqueueWorkflowRun } from "@runledger/postgres";
import { consoleLogger, JobCatalog, Supervisor } from "@runledger/runtime";
import { z } from "zod";
import { openDatabase } from "./support/database.ts";
import { waitForRun } from "./support/workflow.ts";

const Branch = z.object({ branch: z.string() });

const createServer = defineJob({
  type: "example.create_server",
  payload: Branch,
  output: z.object({ server: z.string() }),
});
const runChecks = defineJob({ type: "example.run_checks", payload: Branch });
const announce = defineJob({ type: "example.announce", payload: Branch });
const removeServer = defineJob({ type: "example.remove_server", payload: Branch });

const checkBranch = (branch: string) =>
  new WorkflowDagBuilder("example.check_branch", { branch })
    .job("create", createServer.request({ branch }))
    .job("check", runChecks.request({ branch })).afterSuccess("check", ["create"])
    // Only if the checks passed. Otherwise it is cancelled at once, and so would be what waits for its success.
    .job("announce", announce.request({ branch })).afterSuccess("announce", ["check"])
    // A server must be there, and the checks must be over, however they ended: edges of both kinds in one step.
    .job("remove", removeServer.request({ branch }))
    .afterSuccess("remove", ["create"])
    .afterTerminal("remove", ["check", "announce"])
    .build();

const catalog = new JobCatalog()
  .handle(createServer, ({ branch }) => ({ server: `server-of-${branch}` }))
  .handle(runChecks, ({ branch }) => {
    if (branch === "broken") throw JobFailure.terminal("checks.red", "two checks are red");
  })
  .handle(announce, ({ branch }) => console.log(`  ${branch} is fine`))
  // The handler of one step of one workflow: keys, statuses and outputs of its prerequisites are typed.
  .handleStep(removeServer, { workflow: checkBranch, stepKey: "remove" }, (_payload, { prerequisites }) => {
    const { create, check } = prerequisites;
    console.log(`  removed ${create.output?.server}; the checks ended as ${check.status}`);
  });

await using database = await openDatabase();
const { sql } = database;
await catalog.sync(sql);
await using _supervisor = new Supervisor(sql, {
  catalog,
  config: { pollIntervalMs: 25 },
  logger: { ...consoleLogger, debug: () => {}, info: () => {} },
});

for (const branch of ["main", "broken"]) {
  const { runId } = await enqueueWorkflowRun(sql, checkBranch(branch));
  const { status } = await waitForRun(sql, runId);
  // A run with a step that did not succeed is not called a success, even when everything was cleaned up.
  console.log(`${branch}: ${status}`);
  console.log(await drawWorkflowRun(sql, runId, { scope: "global" }));
}
