/**
 * A handler that finishes its job inside its own transaction: the charge and the job's success are committed together, so
 * that no crash can leave one without the other.
 *
 * Run: `deno run -A examples/transactional_completion.ts`
 *
 * @module
 */

import { defineJob, newId } from "@runledger/core";
import { enqueueJob } from "@runledger/postgres";
import { consoleLogger, JobCatalog, Supervisor } from "@runledger/runtime";
import type { TransactionSql } from "postgres";
import { z } from "zod";
import { openDatabase } from "./support/database.ts";
import { printLedger, waitForJob } from "./support/ledger.ts";

const chargeInvoice = defineJob({
  type: "example.charge_invoice",
  payload: z.object({ invoiceId: z.uuid(), cents: z.int().positive() }),
  output: z.object({ chargeId: z.uuid() }),
  retry: { kind: "fixed", delayMs: 50 },
});

const catalog = new JobCatalog().handle(chargeInvoice, async ({ invoiceId, cents }, context) => {
  return await context.transaction(async (tx: TransactionSql, finish) => {
    const chargeId = newId();
    await tx`insert into example_charges (id, invoice_id, cents) values (${chargeId}, ${invoiceId}, ${cents})`;

    // The process might die here, or the lease be lost: then the charge is rolled back with everything else.
    if (context.attempt === 1) throw new Error("the machine was switched off");

    // Part of the same transaction. It is refused if the lease is gone, which rolls the charge back, too.
    return await finish({ chargeId });
  });
});

await using database = await openDatabase();
const { sql } = database;
await catalog.sync(sql);
await sql`
  create table if not exists example_charges (
    id uuid primary key,
    invoice_id uuid not null,
    cents integer not null,
    posted_xid xid8 not null default pg_current_xact_id()
  )`;
await using _supervisor = new Supervisor(sql, {
  catalog,
  config: { pollIntervalMs: 25 },
  logger: { ...consoleLogger, debug: () => {}, info: () => {} },
});

const invoiceId = newId();
const { jobId } = await enqueueJob(sql, chargeInvoice.request({ invoiceId, cents: 4200 }));
const job = await waitForJob(sql, jobId);
console.log(`the job is ${job.status} after ${job.attempt} attempts`);
await printLedger(sql, jobId);

// Two attempts, one charge: the first attempt's was rolled back.
const charges = await sql`select id, posted_xid::text from example_charges where invoice_id = ${invoiceId}`;
console.log(`charges: ${charges.length}`);

// Every event says which transaction posted it: the success and the charge name the same one.
const [success] = await sql`
  select posted_xid::text
  from runledger.job_events
  where job_id = ${jobId}
    and event_type = 'SUCCEEDED'`;
console.log(`same transaction: ${success?.["posted_xid"] === charges[0]?.["posted_xid"]}`);
