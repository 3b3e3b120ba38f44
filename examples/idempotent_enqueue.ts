/**
 * A request that is repeated (a retried webhook, a double click) makes one job. A different request under the same key is
 * an error, never a silent no-op.
 *
 * Run: `deno run -A examples/idempotent_enqueue.ts`
 *
 * @module
 */

import { defineJob, isRunledgerError, newId } from "@runledger/core";
import { enqueueJob, enqueueJobs } from "@runledger/postgres";
import { JobCatalog } from "@runledger/runtime";
import { z } from "zod";
import { openDatabase } from "./support/database.ts";

const chargeCard = defineJob({
  type: "example.charge_card",
  payload: z.object({ invoiceId: z.string(), cents: z.int().positive() }),
});
const catalog = new JobCatalog().handle(chargeCard, ({ cents }) => ({ charged: cents }));

await using database = await openDatabase();
const { sql } = database;
await catalog.sync(sql);

// Keys live as long as their jobs, so the example needs a new invoice each time that it runs.
const invoiceId = newId();
const idempotencyKey = `invoice:${invoiceId}`;

// The same request three times at once: one of them makes the job, the others find it.
const request = chargeCard.request({ invoiceId, cents: 1200 }, { idempotencyKey });
const answers = await Promise.all([1, 2, 3].map(() => enqueueJob(sql, request)));
console.log(`three equal requests: ${new Set(answers.map(({ jobId }) => jobId)).size} job`);
console.log(`dispositions: ${answers.map(({ disposition }) => disposition).sort().join(", ")}`);

// The order of keys in the payload does not matter: payloads are compared as PostgreSQL compares jsonb.
const reordered = chargeCard.request({ cents: 1200, invoiceId }, { idempotencyKey });
console.log(`reordered payload: ${(await enqueueJob(sql, reordered)).disposition}`);

// Another amount under the same key is a bug in the caller. The error names what differs, never the values.
try {
  await enqueueJob(sql, chargeCard.request({ invoiceId, cents: 1300 }, { idempotencyKey }));
} catch (error) {
  if (!isRunledgerError(error, "job.idempotency_conflict")) throw error;
  console.log(`another amount: ${error.code}, which differs in ${error.details?.["fields"]}`);
}

// A key counts within its job type and organization: another tenant may use the same one.
const organizationId = newId();
const elsewhere = await enqueueJob(
  sql,
  chargeCard.request({ invoiceId, cents: 1300 }, { idempotencyKey, organizationId }),
);
console.log(`same key in another organization: ${elsewhere.disposition}`);

// In a batch, equal requests become one job; the answers come in the order of the requests.
const batch = await enqueueJobs(sql, [request, chargeCard.request({ invoiceId: newId(), cents: 5 }), request]);
console.log(`a batch of three: ${batch.map(({ disposition }) => disposition).join(", ")}`);

// A key is used by what is committed: a transaction that was rolled back leaves it to whoever comes next.
const laterKey = { idempotencyKey: `invoice:${newId()}` };
await sql.begin(async (tx) => {
  await enqueueJob(tx, chargeCard.request({ invoiceId, cents: 1 }, laterKey));
  throw new Error("undone");
}).catch(() => {});
const { disposition } = await enqueueJob(sql, chargeCard.request({ invoiceId, cents: 2 }, laterKey));
console.log(`after a rollback: ${disposition}`);
