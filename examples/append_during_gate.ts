/**
 * Discovery: how much work there is turns out only while the run is under way. While a gate of the run is open, steps are
 * appended to it.
 *
 * Run: `deno run -A examples/append_during_gate.ts`
 *
 * @module
 */

import { defineJob, WorkflowDagBuilder, WorkflowStepEnqueueBuilder } from "@runledger/core";
import {
  appendWorkflowSteps,
  completeExternalStep,
  drawWorkflowRun,
  enqueueWorkflowRun,
  listWorkflowRunMutations,
} from "@runledger/postgres";
import { consoleLogger, JobCatalog, Supervisor } from "@runledger/runtime";
import { z } from "zod";
import { openDatabase } from "./support/database.ts";
import { waitForRun } from "./support/workflow.ts";

const listPages = defineJob({
  type: "crawl.list",
  output: z.object({ pages: z.array(z.string()) }),
  retry: { kind: "fixed", delayMs: 50 },
});
const fetchPage = defineJob({ type: "crawl.fetch", payload: z.object({ page: z.string() }) });
const publish = defineJob({ type: "crawl.publish" });

await using database = await openDatabase();
const { sql } = database;

const run = new WorkflowDagBuilder("crawl.site")
  .job("list", listPages.request(null))
  .external("discovery", { timeout: { afterMs: 60_000, outcome: "FAILED" } }) // nobody waits for ever
  .job("publish", publish.request(null)).afterSuccess("publish", ["list", "discovery"])
  .build();

const catalog = new JobCatalog()
  .handle(listPages, async (_payload, context) => {
    const pages = ["/", "/about", "/prices"];
    const runId = context.workflow?.runId ?? "";
    const steps = pages.map((page) => {
      const { jobType, payload } = fetchPage.request({ page });
      return WorkflowStepEnqueueBuilder.job(`fetch ${page}`, jobType, payload).build();
    });
    // Safe to repeat, as a handler must be: the key makes a second call a no-op, and a different one a conflict.
    const { isApplied } = await appendWorkflowSteps(sql, runId, {
      scope: "global",
      windowStepKey: "discovery",
      mutationKey: "pages",
      steps,
      metadata: { found: pages.length },
    });
    console.log(`  ${isApplied ? "appended" : "had appended"} ${steps.length} steps`);
    // An attempt that fails here is repeated, and appends nothing twice.
    if (context.attempt === 1) throw new Error("the network went away");
    await completeExternalStep(sql, runId, "discovery", { scope: "global", completion: { status: "SUCCEEDED" } });
    return { pages };
  })
  .handle(fetchPage, ({ page }) => console.log(`  fetched ${page}`))
  .handle(publish, () => console.log("  published"));

await catalog.sync(sql);
await using _supervisor = new Supervisor(sql, {
  catalog,
  config: { pollIntervalMs: 25 },
  logger: { ...consoleLogger, debug: () => {}, info: () => {} },
});

const { runId } = await enqueueWorkflowRun(sql, run);
console.log(await drawWorkflowRun(sql, runId, { scope: "all" }));
const { status } = await waitForRun(sql, runId);
console.log(`the run is ${status}`);
console.log(await drawWorkflowRun(sql, runId, { scope: "all" }));
for (const { mutationKey, metadata } of (await listWorkflowRunMutations(sql, runId, { scope: "global" })).items) {
  console.log(`  mutation ${mutationKey}: ${JSON.stringify(metadata)}`);
}
