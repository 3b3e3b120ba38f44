/**
 * Enqueueing what a catalog knows: checked by its schemas, traced, and told to its hooks.
 *
 * @module
 */

import { isRunledgerError, RunledgerError } from "@runledger/core";
import type { AnyJobDefinition, JobRequest, JsonValue, WorkflowRunRequest } from "@runledger/core";
import { enqueueJobs, enqueueWorkflowRun } from "@runledger/postgres";
import type { EnqueuedJob, EnqueuedWorkflowRun, Queryable } from "@runledger/postgres";
import { afterCommit } from "./after_commit.ts";
import type { HookSubscriptions } from "./hook_subscriptions.ts";
import { HookRunner } from "./hooks.ts";
import type { Logger } from "./logger.ts";
import { Telemetry } from "./telemetry.ts";
import type { TelemetryOptions } from "./telemetry_api.ts";

/** What the enqueue methods of one catalog share. */
export class CatalogEnqueue {
  readonly #definitions: ReadonlyMap<string, AnyJobDefinition>;
  readonly #hooks: HookRunner;
  readonly #telemetry: Telemetry;

  /** Makes the instruments. */
  constructor(
    told: Pick<HookSubscriptions, "hooks"> & { readonly telemetry: TelemetryOptions },
    definitions: ReadonlyMap<string, AnyJobDefinition>,
    logger: Logger,
  ) {
    this.#definitions = definitions;
    this.#hooks = new HookRunner(told.hooks, logger);
    this.#telemetry = new Telemetry(told.telemetry, logger);
  }

  /** See `JobCatalog.enqueueJobs`. */
  async jobs(db: Queryable, requests: readonly JobRequest[]): Promise<readonly EnqueuedJob[]> {
    if (requests.length === 0) return [];
    for (const [index, { jobType, payload }] of requests.entries()) {
      await this.#assertPayload(jobType, payload, { index });
    }
    const enqueued = await this.#telemetry.enqueue(
      { destinations: requests.map(({ jobType }) => jobType) },
      (traceparent) =>
        enqueueJobs(db, traceparent === undefined ? requests : requests.map((one) => ({ traceparent, ...one }))),
    );
    if (this.#hooks.has("enqueued")) afterCommit(db, () => this.#announce(requests, enqueued));
    return enqueued;
  }

  /** See `JobCatalog.enqueueWorkflowRun`. */
  async workflowRun(db: Queryable, run: WorkflowRunRequest): Promise<EnqueuedWorkflowRun> {
    for (const step of run.steps) {
      if (step.executionKind !== "JOB") continue;
      await this.#assertPayload(step.jobType, step.payload, { stepKey: step.stepKey });
    }
    return await this.#telemetry.enqueue(
      { destinations: [run.workflowType] },
      (traceparent) => enqueueWorkflowRun(db, traceparent === undefined ? run : { traceparent, ...run }),
    );
  }

  async #assertPayload(
    jobType: string,
    payload: JsonValue,
    place: { readonly index: number } | { readonly stepKey: string },
  ): Promise<void> {
    const definition = this.#definitions.get(jobType);
    if (definition === undefined) {
      throw new RunledgerError("job.handler_not_registered", {
        message: "The catalog does not have this job type: add its definition with define or handle.",
        details: { jobType, ...place },
      });
    }
    try {
      await definition.decodePayload(payload);
    } catch (error) {
      if (!isRunledgerError(error)) throw error;
      const { internalMessage } = error;
      throw new RunledgerError(error.code, {
        message: error.message,
        details: { ...error.details, ...place },
        ...(internalMessage === undefined ? {} : { internalMessage }),
      });
    }
  }

  #announce(requests: readonly JobRequest[], enqueued: readonly EnqueuedJob[]): void {
    for (const [index, { jobId, disposition }] of enqueued.entries()) {
      const request = requests[index];
      if (request === undefined || disposition !== "inserted") continue;
      const { jobType, organizationId } = request;
      this.#hooks.emit("enqueued", { jobId, jobType, ...(organizationId === undefined ? {} : { organizationId }) });
    }
  }
}
