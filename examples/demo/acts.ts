/**
 * What the demo enqueues, act by act. A further act is one more entry.
 *
 * @module
 */

import type { JobRequest } from "@runledger/core";
import { enqueueJob, enqueueJobs } from "@runledger/postgres";
import type { Queryable } from "@runledger/postgres";
import { callWebhook, resizePhoto, syncInvoice, welcome } from "./jobs.ts";

/** A job that the demo watches. */
export interface WatchedJob {
  /** The job. */
  readonly jobId: string;
  /** What the table calls it. */
  readonly label: string;
}

/** Something to watch. */
export interface Act {
  /** What will be seen. */
  readonly title: string;
  /** Enqueues it and gives the jobs that follow, the steps of a workflow run included: a step's job has the step's id. */
  readonly enqueue: (db: Queryable) => Promise<readonly WatchedJob[]>;
  /** What happens outside while the worker runs; ends at the signal at the latest. */
  readonly meanwhile?: (db: Queryable, signal: AbortSignal) => Promise<void>;
}

const PHOTOS = 6;
const DELAY_MS = 1500;

/** The demo. */
export const ACTS: readonly Act[] = [
  {
    title: "a job that succeeds",
    enqueue: (db) => enqueueOne(db, "welcome", welcome.request({ to: "ada@example.com" })),
  },
  {
    title: "one that fails twice and then succeeds",
    enqueue: (db) => enqueueOne(db, "sync_invoice", syncInvoice.request({ invoice: 1042 })),
  },
  {
    title: "one that uses up its attempts and becomes a dead letter",
    enqueue: (db) => enqueueOne(db, "call_webhook", callWebhook.request({ url: "https://example.com/hook" })),
  },
  {
    title: `one that is due in ${DELAY_MS / 1000} seconds`,
    enqueue: (db) => {
      const nextRunAt = new Date(Date.now() + DELAY_MS);
      return enqueueOne(db, "later", welcome.request({ to: "grace@example.com" }, { nextRunAt }));
    },
  },
  {
    title: `a batch of ${PHOTOS} in one statement`,
    enqueue: async (db) => {
      const photos = Array.from({ length: PHOTOS }, (_, index) => index + 1);
      const enqueued = await enqueueJobs(db, photos.map((photo) => resizePhoto.request({ photo })));
      return enqueued.map(({ jobId }, index) => ({ jobId, label: `photo ${index + 1}` }));
    },
  },
];

async function enqueueOne(db: Queryable, label: string, request: JobRequest): Promise<readonly WatchedJob[]> {
  const { jobId } = await enqueueJob(db, request);
  return [{ jobId, label }];
}
