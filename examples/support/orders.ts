/**
 * What the examples of drivers and ORMs have in common: orders, the job that follows from one, and who is still there.
 *
 * @module
 */

import { defineJob } from "@runledger/core";
import { getJob } from "@runledger/postgres";
import type { Queryable } from "@runledger/postgres";
import { JobCatalog } from "@runledger/runtime";
import { z } from "zod";

/** The job that follows from an order. */
export const confirmOrder = defineJob({
  type: "example.confirm_order",
  payload: z.object({ orderId: z.uuid() }),
});

/** What a worker does with it. */
export const orderCatalog: JobCatalog = new JobCatalog().handle(confirmOrder, () => {});

/**
 * Prints whether an order and its job are stored.
 *
 * @param db A pool: it sees only what is committed.
 * @param what What was done.
 * @param stored The order as it was read, and its job.
 */
export async function showFate(
  db: Queryable,
  what: string,
  stored: { readonly order: unknown; readonly jobId: string },
): Promise<void> {
  const job = await getJob(db, stored.jobId, { scope: "global" });
  const isThere = stored.order !== undefined && stored.order !== null;
  console.log(`${what}: order ${isThere ? "there" : "gone"}, job ${job === undefined ? "gone" : "there"}`);
}
