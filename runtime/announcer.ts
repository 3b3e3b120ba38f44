/**
 * Telling hooks and telemetry what a process did to jobs.
 *
 * @module
 */

import type { JobOutcome, JsonValue } from "@runledger/core";
import type { ReapedJob, SettledJob, WorkflowRelease } from "@runledger/postgres";
import type { JobCatalog } from "./catalog.ts";
import type { HeldJob } from "./held_job.ts";
import type { JobFailedEvent, JobHookEvent, StepPlace } from "./hook_events.ts";
import { emptyHooks, HookRunner } from "./hooks.ts";
import type { Logger } from "./logger.ts";
import { Telemetry } from "./telemetry.ts";

/** What the reaper stores with each job. */
const LEASE_EXPIRED: JobFailedEvent["failure"] = Object.freeze({
  kind: "LEASE_EXPIRED",
  code: "job.lease_expired",
  message: "The lease expired before the attempt was settled.",
});

/** Tells what is committed. Never throws, never waits. */
export class Announcer {
  /** Spans and measurements. */
  readonly telemetry: Telemetry;
  readonly #hooks: HookRunner;
  readonly #workerId: string;

  /** Tells the hooks and the telemetry of a catalog, if there is one. */
  constructor(catalog: JobCatalog | undefined, logger: Logger, workerId: string) {
    this.#hooks = new HookRunner(catalog?.hooks ?? emptyHooks(), logger);
    this.telemetry = new Telemetry(catalog?.telemetry ?? {}, logger, workerId);
    this.#workerId = workerId;
  }

  /** Whether anybody wants to hear what the end of a step led to. */
  get tellsRelease(): boolean {
    const hooks = this.#hooks;
    return hooks.has("enqueued") || hooks.has("stepEnqueued") || hooks.has("stepCanceled") || hooks.has("runFinished");
  }

  /** A handler is about to run. */
  started(job: HeldJob): void {
    if (!this.#hooks.has("started") && !this.#hooks.has("stepStarted")) return;
    const { event, workflow } = this.#eventOf(job);
    this.#hooks.emit("started", event);
    if (workflow !== undefined) this.#hooks.emit("stepStarted", at(event, workflow));
  }

  /** An outcome was committed. */
  settled(job: HeldJob, outcome: JobOutcome, answer: SettledJob): void {
    if (!answer.settled) return;
    this.telemetry.settled(job, outcome, answer);
    if (outcome.kind === "succeeded") this.#succeeded(job, outcome.output);
    else if (outcome.kind === "canceled") this.#canceled(job);
    else if (outcome.kind === "failed") {
      const { event, workflow } = this.#eventOf(job);
      this.#failed(event, outcome.failure, answer.nextRunAt, workflow);
    }
    this.#released(answer.release);
  }

  /** Somebody else cancelled the job. */
  canceled(job: HeldJob): void {
    this.telemetry.canceled(job);
    this.#canceled(job);
  }

  /** The lease is gone. */
  leaseLost(job: HeldJob): void {
    this.telemetry.leaseLost(job);
    const { event, workflow } = this.#eventOf(job);
    this.#hooks.emit("leaseLost", event);
    if (workflow !== undefined) this.#hooks.emit("stepLeaseLost", at(event, workflow));
  }

  /** An expired lease was reaped. */
  reaped(job: ReapedJob): void {
    this.telemetry.reaped(job);
    const { jobId, jobType, runNumber, attempt, organizationId, nextRunAt, workflow, release } = job;
    const organization = organizationId === undefined ? {} : { organizationId };
    const event = { jobId, jobType, runNumber, attempt, ...organization, workerId: this.#workerId };
    this.#failed(event, LEASE_EXPIRED, nextRunAt, workflow);
    this.#released(release);
  }

  /** Waits for the hooks that are under way; each has its own limit. */
  drain(): Promise<void> {
    return this.#hooks.drain();
  }

  #succeeded(job: HeldJob, output: JsonValue | undefined): void {
    if (!this.#hooks.has("succeeded") && !this.#hooks.has("stepSucceeded")) return;
    const { event, workflow } = this.#eventOf(job);
    const succeeded = output === undefined ? event : { ...event, output };
    this.#hooks.emit("succeeded", succeeded);
    if (workflow !== undefined) this.#hooks.emit("stepSucceeded", at(succeeded, workflow));
  }

  #canceled(job: HeldJob): void {
    const { event, workflow } = this.#eventOf(job);
    this.#hooks.emit("canceled", event);
    if (workflow !== undefined) this.#hooks.emit("stepCanceled", at(event, workflow));
  }

  #failed(
    event: JobHookEvent,
    failure: JobFailedEvent["failure"],
    nextRunAt: Date | undefined,
    workflow: StepPlace | undefined,
  ): void {
    const failed = { ...event, failure, isFinal: nextRunAt === undefined };
    this.#hooks.emit("failed", failed);
    if (workflow !== undefined) this.#hooks.emit("stepFailed", at(failed, workflow));
    if (nextRunAt === undefined) {
      this.#hooks.emit("deadLettered", failed);
      if (workflow !== undefined) this.#hooks.emit("stepDeadLettered", at(failed, workflow));
    } else {
      const retried = { ...failed, nextRunAt };
      this.#hooks.emit("retryScheduled", retried);
      if (workflow !== undefined) this.#hooks.emit("stepRetryScheduled", at(retried, workflow));
    }
  }

  #released(release: WorkflowRelease | undefined): void {
    if (release === undefined) return;
    for (const step of release.steps) {
      const { runId, stepId, stepKey, status, jobType, organizationId } = step;
      const organization = organizationId === undefined ? {} : { organizationId };
      if (status === "CANCELED") {
        const type = jobType === undefined ? {} : { jobType };
        this.#hooks.emit("stepCanceled", { runId, stepKey, ...type, ...organization });
        continue;
      }
      if (jobType !== undefined) this.#hooks.emit("enqueued", { jobId: stepId, jobType, ...organization });
      this.#hooks.emit("stepEnqueued", step);
    }
    if (release.run !== undefined) this.#hooks.emit("runFinished", release.run);
  }

  #eventOf({ claim }: HeldJob): { readonly event: JobHookEvent; readonly workflow: StepPlace | undefined } {
    const { jobId, jobType, runNumber, attempt, organizationId, workflow } = claim;
    const event = { jobId, jobType, runNumber, attempt, workerId: this.#workerId };
    return { event: organizationId === undefined ? event : { ...event, organizationId }, workflow };
  }
}

/** What is told of a step: what is told of its job, and which step it is. */
function at<Event>(event: Event, { runId, stepKey }: StepPlace): Event & StepPlace {
  return { ...event, runId, stepKey };
}
