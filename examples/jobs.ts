/**
 * The jobs that the examples' producers and workers share. Producers need nothing else: no handler, no worker code.
 *
 * @module
 */

import { defineJob } from "@runledger/core";
import { z } from "zod";

/** Sends an email. */
export const sendEmail = defineJob({
  type: "example.email",
  payload: z.object({ to: z.email(), subject: z.string().min(1) }),
  output: z.object({ messageId: z.string() }),
  maxAttempts: 5,
  timeoutSeconds: 30,
  retry: { kind: "exponential", baseMs: 500, maxMs: 60_000, jitter: 0.2 },
});

/** Makes a report, which takes a while; urgent ones are enqueued with a higher priority. */
export const makeReport = defineJob({
  type: "example.report",
  payload: z.object({ month: z.string().regex(/^\d{4}-\d{2}$/), pages: z.int().min(1).max(500) }),
  output: z.object({ pages: z.int() }),
  timeoutSeconds: 120,
});
