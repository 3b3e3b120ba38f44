/**
 * The jobs of the demo, and what a worker does with them.
 *
 * @module
 */

import { defineJob, JobFailure } from "@runledger/core";
import { JobCatalog } from "@runledger/runtime";
import { setTimeout as delay } from "node:timers/promises";
import { z } from "zod";

/** Goes well. */
export const welcome = defineJob({
  type: "demo.welcome",
  payload: z.object({ to: z.email() }),
  output: z.object({ messageId: z.string() }),
});

/** Fails twice, then goes well. */
export const syncInvoice = defineJob({
  type: "demo.sync_invoice",
  payload: z.object({ invoice: z.int() }),
  maxAttempts: 5,
  retry: { kind: "exponential", baseMs: 300, maxMs: 2000 },
});

/** Fails until its attempts are used up. */
export const callWebhook = defineJob({
  type: "demo.call_webhook",
  payload: z.object({ url: z.url() }),
  maxAttempts: 2,
  retry: { kind: "fixed", delayMs: 400 },
});

/** Goes well; enqueued many at a time. */
export const resizePhoto = defineJob({
  type: "demo.resize_photo",
  payload: z.object({ photo: z.int() }),
  output: z.object({ bytes: z.int() }),
});

/**
 * Makes the catalog of the demo's worker.
 *
 * @returns The jobs with their handlers.
 */
export function createDemoCatalog(): JobCatalog {
  return new JobCatalog()
    .handle(welcome, async (_payload, context) => {
      await delay(120, undefined, { signal: context.signal });
      return { messageId: context.jobId };
    })
    .handle(syncInvoice, async (_payload, context) => {
      await delay(60, undefined, { signal: context.signal });
      if (context.attempt < 3) throw JobFailure.retryable("billing.busy", "The billing service asks to wait.");
    })
    .handle(callWebhook, async (_payload, context) => {
      await delay(40, undefined, { signal: context.signal });
      throw new Error("the receiver answered 500");
    })
    .handle(resizePhoto, async ({ photo }, context) => {
      await delay(30 + (photo % 4) * 20, undefined, { signal: context.signal });
      return { bytes: 1000 * photo };
    });
}
