/**
 * Fan-out and fan-in: a page is counted by ten jobs at once, and one job adds up what they found.
 *
 * Run: `deno run -A examples/fan_out_fan_in.ts`
 *
 * @module
 */

import { defineJob, WorkflowDagBuilder } from "@runledger/core";
import type { AnyWorkflowGraph } from "@runledger/core";
import {
  drawWorkflowRun,
  enqueueWorkflowRun,
  getWorkflowResult,
  WORKFLOW_RUN_ENDED_CHANNEL,
} from "@runledger/postgres";
import { consoleLogger, JobCatalog, Supervisor } from "@runledger/runtime";
import { z } from "zod";
import { openDatabase } from "./support/database.ts";

const split = defineJob({
  type: "words.split",
  payload: z.object({ text: z.string() }),
  output: z.object({ parts: z.array(z.string()) }),
});
const count = defineJob({
  type: "words.count",
  payload: z.object({ part: z.number() }),
  output: z.object({ words: z.number() }),
});
const add = defineJob({ type: "words.add", output: z.object({ words: z.number() }) });

const PARTS = 10;

/** Built in a loop, so the compiler cannot know the keys; the graph is still checked by build(). */
function wordCount(text: string) {
  let dag: WorkflowDagBuilder<AnyWorkflowGraph> = new WorkflowDagBuilder("words.count", { length: text.length })
    .job("split", split.request({ text }));
  const counts = Array.from({ length: PARTS }, (_, part) => `count-${part}`);
  for (const [part, key] of counts.entries()) {
    dag = dag.job(key, count.request({ part })).afterSuccess(key, ["split"]);
  }
  // The join is released once, by whichever of the ten is settled last.
  return dag.job("add", add.request(null)).afterSuccess("add", counts).resultStep("add").build();
}

const catalog = new JobCatalog()
  .handle(split, ({ text }) => {
    const words = text.split(/\s+/);
    const size = Math.ceil(words.length / PARTS);
    return { parts: Array.from({ length: PARTS }, (_, n) => words.slice(n * size, (n + 1) * size).join(" ")) };
  })
  .handle(count, async ({ part }, context) => {
    const { parts } = await split.decodeOutput(context.workflow?.prerequisites["split"]?.output ?? null);
    return { words: (parts[part] ?? "").split(" ").filter((word) => word !== "").length };
  })
  .handle(add, async (_payload, context) => {
    let words = 0;
    for (const { output } of Object.values(context.workflow?.prerequisites ?? {})) {
      words += (await count.decodeOutput(output ?? null)).words;
    }
    return { words };
  });

await using database = await openDatabase();
const { sql } = database;
await catalog.sync(sql);
await using _supervisor = new Supervisor(sql, {
  catalog,
  config: { pollIntervalMs: 25 },
  logger: { ...consoleLogger, debug: () => {}, info: () => {} },
});

const text = Array.from({ length: 1234 }, (_, n) => `word${n}`).join(" ");
const { runId } = await enqueueWorkflowRun(sql, wordCount(text));

// Polls, and is woken early by the notification that a run with a declared result has ended.
const result = await getWorkflowResult(sql, runId, {
  scope: "global",
  timeoutMs: 30_000,
  listen: async (wake) => (await sql.listen(WORKFLOW_RUN_ENDED_CHANNEL, wake)).unlisten,
});
console.log(await drawWorkflowRun(sql, runId, { scope: "all" }));
console.log(`result: ${JSON.stringify(result)}`);
