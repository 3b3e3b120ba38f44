/**
 * The job state machine: statuses, what each means, and which may follow which.
 *
 * @module
 */

/**
 * Where a job stands.
 *
 * - `PENDING`: waits for its time and for a worker. Set by enqueue, retry, continuation, snooze, release and requeue.
 * - `LEASED`: one worker holds it until the lease expires. Set by a claim.
 * - `SUCCEEDED`: a handler finished it. Terminal: replay makes a new job.
 * - `DEAD_LETTERED`: it failed for good, by kind or because its attempts are used up. Terminal until requeued.
 * - `CANCELED`: somebody called it off. Terminal until requeued.
 */
export type JobStatus = "PENDING" | "LEASED" | "SUCCEEDED" | "DEAD_LETTERED" | "CANCELED";

/** Every {@linkcode JobStatus}, in the order of a job's life. */
export const JOB_STATUSES: readonly JobStatus[] = ["PENDING", "LEASED", "SUCCEEDED", "DEAD_LETTERED", "CANCELED"];

/** Which statuses may follow each status. The database refuses every other change. */
export const JOB_TRANSITIONS: Readonly<Record<JobStatus, readonly JobStatus[]>> = {
  /** Claimed, or called off. */
  PENDING: ["LEASED", "CANCELED"],
  /** Settled; or back to PENDING by retry, continuation, snooze, release of an unstarted claim, or the reaper. */
  LEASED: ["PENDING", "SUCCEEDED", "DEAD_LETTERED", "CANCELED"],
  /** Never changes again. */
  SUCCEEDED: [],
  /** Requeued as a new run. */
  DEAD_LETTERED: ["PENDING"],
  /** Requeued as a new run. */
  CANCELED: ["PENDING"],
};

/** The statuses in which nothing is left to run. */
export const TERMINAL_JOB_STATUSES: readonly JobStatus[] = ["SUCCEEDED", "DEAD_LETTERED", "CANCELED"];

/**
 * How far the work of a job has come, for people: `queued` or `scheduled` while it waits, `running` while it is leased,
 * `completed` once it succeeded. Other terminal jobs keep the stage in which they ended.
 */
export type JobStage = "queued" | "scheduled" | "running" | "completed";

/** Every {@linkcode JobStage}. */
export const JOB_STAGES: readonly JobStage[] = ["queued", "scheduled", "running", "completed"];

/** The stages in which a job may be enqueued. */
export type EnqueueStage = "queued" | "scheduled";

/** Every {@linkcode EnqueueStage}. */
export const ENQUEUE_STAGES: readonly EnqueueStage[] = ["queued", "scheduled"];

/**
 * Says whether a value is a job status.
 *
 * @param value Anything.
 * @returns Whether it is one of {@linkcode JOB_STATUSES}.
 */
export function isJobStatus(value: unknown): value is JobStatus {
  return (JOB_STATUSES as readonly unknown[]).includes(value);
}

/**
 * Says whether a value is a job stage.
 *
 * @param value Anything.
 * @returns Whether it is one of {@linkcode JOB_STAGES}.
 */
export function isJobStage(value: unknown): value is JobStage {
  return (JOB_STAGES as readonly unknown[]).includes(value);
}

/**
 * Says whether nothing is left to run in a status.
 *
 * @param status A job status.
 * @returns Whether it is one of {@linkcode TERMINAL_JOB_STATUSES}.
 */
export function isTerminalJobStatus(status: JobStatus): boolean {
  return TERMINAL_JOB_STATUSES.includes(status);
}
