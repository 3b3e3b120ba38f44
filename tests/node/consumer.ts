/**
 * An application as strict as can be, compiled against the declarations of the npm packages. It is never run.
 *
 * @module
 */

import { defineJob, isRunledgerError, JobFailure, WorkflowDagBuilder } from "@runledger/core";
import type { StandardSchema } from "@runledger/core";
import { enqueueWorkflowRun, getJob, getWorkflowResult, listJobs, migrate } from "@runledger/postgres";
import type { Job } from "@runledger/postgres";
import { enqueueJob } from "@runledger/postgres/enqueue";
import { consoleLogger, JobCatalog, JobsConfig, shutdownSignal, Supervisor } from "@runledger/runtime";
import { createTestKit } from "@runledger/test-support";
import pg from "pg";
import postgres from "postgres";
import { z } from "zod";

const invoice = z.object({ invoiceId: z.string() });
const schema: StandardSchema<{ invoiceId: string }> = invoice;
const fetchInvoice = defineJob({ type: "invoice.fetch", payload: schema, output: z.object({ cents: z.int() }) });
const charge = defineJob({ type: "invoice.charge", payload: invoice, maxAttempts: 5 });

// @ts-expect-error the payload lacks its id
fetchInvoice.request({});

/** A graph whose step keys the compiler knows. */
export function buildRun(invoiceId: string): Parameters<typeof enqueueWorkflowRun>[1] {
  const steps = new WorkflowDagBuilder("invoice.process")
    .job("fetch", fetchInvoice.request({ invoiceId }))
    .job("charge", charge.request({ invoiceId }));
  // @ts-expect-error there is no such step
  steps.afterSuccess("charge", ["fetsh"]);
  return steps.afterSuccess("charge", ["fetch"]).build();
}

const catalog = new JobCatalog()
  .handle(fetchInvoice, ({ invoiceId }, context) => {
    context.log("info", invoiceId.toUpperCase());
    return { cents: 100 };
  })
  .handle(charge, (payload, context) => {
    // @ts-expect-error the payload has no such field
    if (payload.cents > context.attempt) throw JobFailure.terminal("card.limit", "too much");
  })
  .onJobDeadLettered(({ jobId }) => console.error(jobId));

/** Each driver as it is, pools and transactions. */
export async function enqueueEverywhere(): Promise<readonly Job[]> {
  const sql = postgres();
  const pool = new pg.Pool();
  await migrate(sql);
  await migrate(pool);
  await sql.begin(async (tx) => {
    await enqueueJob(tx, charge.request({ invoiceId: "1" }, { idempotencyKey: "1" }));
  });
  const client = await pool.connect();
  const { jobId } = await enqueueJob(client, charge.request({ invoiceId: "2" }));
  const { runId } = await enqueueWorkflowRun(pool, buildRun("3"));
  console.log(await getWorkflowResult(pool, runId, { scope: "global" }));
  const job = await getJob(pool, jobId, { scope: "global" });
  console.log(job?.status === "SUCCEEDED" ? job.output : job?.lastErrorCode);
  return (await listJobs(pool, { scope: { organizationId: crypto.randomUUID() } })).items;
}

/** A worker, and what it reports. */
export async function work(): Promise<number> {
  const sql = postgres();
  await catalog.sync(sql);
  const supervisor = new Supervisor(sql, { catalog, config: JobsConfig.fromEnv(), logger: consoleLogger });
  const { worker } = await supervisor.runUntilShutdown({ signal: shutdownSignal(), timeoutMs: 1000 });
  return worker?.left.length ?? 0;
}

/** A test of the application's own. */
export async function testCharging(): Promise<void> {
  const kit = await createTestKit({ catalog, database: "pglite" });
  try {
    const job = await kit.enqueue(charge.request({ invoiceId: "4" }));
    await kit.runUntilIdle();
    await job.assertStatus("SUCCEEDED");
  } catch (error) {
    if (!isRunledgerError(error, "db.unavailable")) throw error;
  } finally {
    await kit[Symbol.asyncDispose]();
  }
}
