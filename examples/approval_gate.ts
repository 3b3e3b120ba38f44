/**
 * A gate that people or other systems open: a workflow that waits for a decision, the webhook that takes it, and what
 * happens when it comes twice, contradicts itself, or never comes.
 *
 * Run: `deno run -A examples/approval_gate.ts`
 *
 * @module
 */

import { defineJob, isRunledgerError, isUuid, newId, WorkflowDagBuilder } from "@runledger/core";
import { completeExternalStep, enqueueWorkflowRun } from "@runledger/postgres";
import type { GateCompletion, Queryable } from "@runledger/postgres";
import { consoleLogger, JobCatalog, Supervisor } from "@runledger/runtime";
import { z } from "zod";
import { openDatabase } from "./support/database.ts";
import { waitForRun } from "./support/workflow.ts";

const Expense = z.object({ expenseId: z.string(), cents: z.int() });
const payOut = defineJob({ type: "example.pay_out", payload: Expense });
const Decision = z.object({ approve: z.boolean(), by: z.string() });

const expenseRun = (expense: z.infer<typeof Expense>, afterMs: number) =>
  new WorkflowDagBuilder("example.expense", expense)
    // The payload is for whoever decides; silence counts as a no.
    .external("approval", { payload: expense, timeout: { afterMs, outcome: "CANCELED" } })
    .job("pay", payOut.request(expense)).afterSuccess("pay", ["approval"])
    .build();

/** Takes `POST /expenses/<run id>/decision` and answers in a status what became of it. */
async function onDecision(db: Queryable, request: Request): Promise<Response> {
  const runId = new URL(request.url).pathname.split("/")[2] ?? "";
  const decision = Decision.safeParse(await request.json().catch(() => undefined));
  if (!isUuid(runId) || !decision.success) return new Response(null, { status: 400 });
  const { approve, by } = decision.data;
  const completion: GateCompletion = approve
    ? { status: "SUCCEEDED", output: { by } }
    : { status: "CANCELED", reason: `refused by ${by}` };
  try {
    // The scope is the caller's organization in an application that has them: never a parameter of the request.
    const { isApplied } = await completeExternalStep(db, runId, "approval", { scope: "global", completion });
    return Response.json({ isApplied });
  } catch (error) {
    if (!isRunledgerError(error)) throw error;
    return Response.json(error, { status: error.category === "not_found" ? 404 : 409 });
  }
}

const catalog = new JobCatalog().handle(payOut, async ({ expenseId }, { prerequisites }) => {
  const { by } = await z.object({ by: z.string() }).parseAsync(prerequisites["approval"]?.output);
  console.log(`  ${expenseId} is paid, approved by ${by}`);
});

await using database = await openDatabase();
const { sql } = database;
await catalog.sync(sql);
await using _supervisor = new Supervisor(sql, {
  catalog,
  // Gates that nobody opens are closed by the reaper, every 15 seconds unless told otherwise.
  config: { pollIntervalMs: 25, reaperIntervalSeconds: 1 },
  logger: { ...consoleLogger, debug: () => {}, info: () => {} },
});

const start = async (expenseId: string, afterMs = 60_000) =>
  (await enqueueWorkflowRun(sql, expenseRun({ expenseId, cents: 4200 }, afterMs))).runId;
const decide = async (runId: string, decision: z.infer<typeof Decision>) => {
  const url = `http://localhost/expenses/${runId}/decision`;
  const response = await onDecision(sql, new Request(url, { method: "POST", body: JSON.stringify(decision) }));
  const { isApplied, code } = await response.json();
  return `${response.status} ${code ?? (isApplied ? "applied" : "was so already")}`;
};

const lunch = await start("lunch");
console.log(`approve: ${await decide(lunch, { approve: true, by: "grace" })}`);
console.log(`the webhook is delivered again: ${await decide(lunch, { approve: true, by: "grace" })}`);
console.log(`somebody else refuses: ${await decide(lunch, { approve: false, by: "alan" })}`);
console.log(`lunch: ${(await waitForRun(sql, lunch)).status}`);

const yacht = await start("yacht");
console.log(`refuse: ${await decide(yacht, { approve: false, by: "grace" })}`);
console.log(`yacht: ${(await waitForRun(sql, yacht)).status}`);

const forgotten = await start("forgotten", 100);
console.log(`forgotten: ${(await waitForRun(sql, forgotten)).status}, because nobody decided`);
console.log(`no such run: ${await decide(newId(), { approve: true, by: "grace" })}`);
