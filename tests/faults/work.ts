/**
 * The jobs of the fault tests, known to the harness that enqueues them and to the processes that run them.
 *
 * @module
 */

import { defineJob } from "@runledger/core";
import type { JobDefinition } from "@runledger/core";
import { z } from "zod";

/**
 * Where an attempt is harmed.
 *
 * - `handler`: the handler has begun; `effect`: its side effect is done and its completion is not; `settling`: it has
 *   returned, and the statement that settles it is about to be sent; `settled`: that statement was answered.
 * - `tx-open`: in the handler's transaction; `tx-effect`: its side effect is written there; `tx-finished`: the job is
 *   settled there; `tx-committed`: the commit was answered.
 */
export const POINTS = [
  "handler",
  "effect",
  "settling",
  "settled",
  "tx-open",
  "tx-effect",
  "tx-finished",
  "tx-committed",
] as const;

/** A place in an attempt. */
export type Point = typeof POINTS[number];

/** Whether the point is inside a job that settles itself in its own transaction. */
export function isTransactional(point: Point): boolean {
  return point.startsWith("tx-");
}

/** What the first attempt does to its process, and which worker is meant: others put the job back. */
export interface WorkFault {
  readonly at: Point;
  readonly kind: "SIGKILL" | "SIGSTOP" | "block";
  readonly target?: string | undefined;
}

/** What a handler is told to do. */
export interface Work {
  /** How long it takes, in milliseconds. */
  readonly ms: number;
  readonly fault?: WorkFault | undefined;
}

/** What is enqueued. */
export interface WorkInput {
  readonly ms?: number | undefined;
  readonly fault?: WorkFault | undefined;
}

const work: z.ZodType<Work, WorkInput> = z.object({
  ms: z.number().default(0),
  fault: z.object({
    at: z.enum(POINTS),
    kind: z.enum(["SIGKILL", "SIGSTOP", "block"]),
    target: z.string().optional(),
  }).optional(),
});

/** Faults cost attempts, and none of these jobs may fail for good. */
const LASTING = { maxAttempts: 1000, timeoutSeconds: 60, retry: { kind: "fixed", delayMs: 50 } } as const;

/** Its side effect is a line in the journal. */
export const steady: JobDefinition<WorkInput, Work> = defineJob({ ...LASTING, type: "faults.steady", payload: work });

/** As steady, but the process of its first attempt is killed when it is claimed and its handler has not run. */
export const doomed: JobDefinition<WorkInput, Work> = defineJob({ ...LASTING, type: "faults.doomed", payload: work });

/** Its side effect is a row, in the transaction that settles the job. */
export const transactional: JobDefinition<WorkInput, Work> = defineJob({
  ...LASTING,
  type: "faults.transactional",
  payload: work,
});

const POISONOUS = { maxAttempts: 2, timeoutSeconds: 1, retry: { kind: "fixed", delayMs: 50 } } as const;

/** Ways to break every rule of handlers. */
export type Poison =
  | "throwsNull"
  | "neverSettles"
  | "settlesAfterAbort"
  | "rejectsAfterAbort"
  | "exits"
  | "leavesRejection";

/** The jobs whose handlers do. */
export const poisons: Readonly<Record<Poison, JobDefinition>> = {
  throwsNull: defineJob({ ...POISONOUS, type: "poison.throws_null" }),
  neverSettles: defineJob({ ...POISONOUS, type: "poison.never_settles" }),
  settlesAfterAbort: defineJob({ ...POISONOUS, type: "poison.settles_after_abort" }),
  rejectsAfterAbort: defineJob({ ...POISONOUS, type: "poison.rejects_after_abort" }),
  exits: defineJob({ ...POISONOUS, type: "poison.exits", timeoutSeconds: 60 }),
  leavesRejection: defineJob({ ...POISONOUS, type: "poison.leaves_rejection", timeoutSeconds: 60 }),
};
