/**
 * Recovery: a step failed for good, its cause is mended, and the run is resumed from there as a new run that keeps what the
 * other steps had achieved.
 *
 * Run: `deno run -A examples/recover_failed_run.ts`
 *
 * @module
 */

import { defineJob, JobFailure, WorkflowDagBuilder } from "@runledger/core";
import { drawWorkflowRun, enqueueWorkflowRun, getWorkflowRun, recoverWorkflowRun } from "@runledger/postgres";
import { consoleLogger, JobCatalog, Supervisor } from "@runledger/runtime";
import { z } from "zod";
import { openDatabase } from "./support/database.ts";
import { waitForRun } from "./support/workflow.ts";

const Order = z.object({ orderId: z.string() });
const reserve = defineJob({ type: "order.reserve", payload: Order, output: z.object({ reservation: z.string() }) });
const ship = defineJob({ type: "order.ship", payload: Order });
const tell = defineJob({ type: "order.tell", payload: Order });
const audit = defineJob({ type: "order.audit", payload: Order });

/** Stands for the world outside, which is mended while the example runs. */
let isCarrierDown = true;
const runs: Record<string, number> = { reserve: 0, ship: 0 };

const catalog = new JobCatalog()
  .handle(reserve, ({ orderId }) => {
    runs["reserve"]!++;
    return { reservation: `R-${orderId}` };
  })
  .handle(ship, async (_payload, context) => {
    runs["ship"]!++;
    const { reservation } = await reserve.decodeOutput(context.workflow?.prerequisites["reserve"]?.output ?? null);
    if (isCarrierDown) throw JobFailure.terminal("carrier.closed", "the carrier takes no parcels");
    console.log(`  shipped ${reservation}`);
  })
  .handle(tell, ({ orderId }) => console.log(`  told the customer of ${orderId}`))
  .handle(audit, (_payload, context) => {
    const ended = Object.entries(context.workflow?.prerequisites ?? {}).map(([key, { status }]) => `${key} ${status}`);
    console.log(`  audit: ${ended.join(", ")}`);
  });

await using database = await openDatabase();
const { sql } = database;
await catalog.sync(sql);
await using _supervisor = new Supervisor(sql, {
  catalog,
  config: { pollIntervalMs: 25 },
  logger: { ...consoleLogger, debug: () => {}, info: () => {}, warn: () => {} },
});

const orderId = `O-${Date.now()}`;
const run = new WorkflowDagBuilder("order.fulfil")
  .job("reserve", reserve.request({ orderId }))
  .job("ship", ship.request({ orderId })).afterSuccess("ship", ["reserve"])
  .job("tell", tell.request({ orderId })).afterSuccess("tell", ["ship"]) // cancelled when ship fails
  .job("audit", audit.request({ orderId })).afterTerminal("audit", ["ship"]) // runs whatever becomes of ship
  .build();

const { runId } = await enqueueWorkflowRun(sql, run);
const failed = await waitForRun(sql, runId);
console.log(`first run: ${failed.status}`);
console.log(await drawWorkflowRun(sql, runId, { scope: "all" }));

isCarrierDown = false;
const recovery = { scope: "global", recoveryKey: "carrier is back", mode: "RESUME" } as const;
const both = await Promise.all([recoverWorkflowRun(sql, runId, recovery), recoverWorkflowRun(sql, runId, recovery)]);
console.log(`two recoveries at once: ${both.map(({ disposition }) => disposition).sort().join(", ")}`);
const resumed = both[0].runId;
const { status } = await waitForRun(sql, resumed);
console.log(`second run: ${status}`);
console.log(await drawWorkflowRun(sql, resumed, { scope: "all" }));
const { recoveryOfRunId } = await getWorkflowRun(sql, resumed, { scope: "global" }) ?? {};
console.log(
  `it recovers the first: ${recoveryOfRunId === runId}; reserve ran ${runs["reserve"]}x, ship ${runs["ship"]}x`,
);
