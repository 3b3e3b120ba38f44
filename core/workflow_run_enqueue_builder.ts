/**
 * The builder for code that makes up runs as it goes: every setting can be set and cleared, and nothing is checked before
 * `build()`.
 *
 * @module
 */

import { AppendLog } from "./_append_log.ts";
import { without } from "./_builder_settings.ts";
import type { JsonValue } from "./json.ts";
import type { WorkflowRunRequest, WorkflowStepRequest } from "./workflow_run.ts";
import { assertWorkflowRunRequest } from "./workflow_validation.ts";

interface RunSettings {
  readonly organizationId?: string;
  readonly idempotencyKey?: string;
  readonly activeKey?: string;
  readonly resultStepKey?: string;
}

/** What {@linkcode WorkflowRunEnqueueBuilder.clear} can take back. */
export type WorkflowRunSetting = "organization" | "idempotencyKey" | "activeKey" | "resultStep";

const RUN_FIELDS: Readonly<Record<WorkflowRunSetting, keyof RunSettings>> = {
  organization: "organizationId",
  idempotencyKey: "idempotencyKey",
  activeKey: "activeKey",
  resultStep: "resultStepKey",
};

/**
 * Builds a {@linkcode WorkflowRunRequest} from steps that were made elsewhere. Immutable: each call gives a new builder and
 * leaves the old one as it is. Adding n steps takes linear time.
 *
 * @example
 * ```ts
 * import { WorkflowRunEnqueueBuilder, WorkflowStepEnqueueBuilder } from "@runledger/core";
 * import assert from "node:assert/strict";
 *
 * let run = new WorkflowRunEnqueueBuilder("images.resize").idempotencyKey("album:7");
 * const names = ["a.png", "b.png"];
 * for (const name of names) run = run.step(WorkflowStepEnqueueBuilder.job(name, "image.resize", { name }).build());
 * run = run.step(WorkflowStepEnqueueBuilder.job("index", "album.index", null).dependsOnSuccess(names).build());
 *
 * assert.deepEqual(run.build().steps.map((step) => step.stepKey), ["a.png", "b.png", "index"]);
 * ```
 */
export class WorkflowRunEnqueueBuilder {
  readonly #workflowType: string;
  readonly #metadata: JsonValue;
  #settings: RunSettings = {};
  #steps: AppendLog<WorkflowStepRequest> = new AppendLog();

  /**
   * Begins a run.
   *
   * @param workflowType Which kind of workflow; at most 255 bytes of UTF-8.
   * @param metadata Whatever the producer wants to keep with the run. @default {}
   */
  constructor(workflowType: string, metadata: JsonValue = {}) {
    this.#workflowType = workflowType;
    this.#metadata = metadata;
  }

  /**
   * Gives the run to a tenant, and with it each step that has no organization of its own.
   *
   * @param organizationId A UUID.
   * @returns A new builder.
   */
  organization(organizationId: string): WorkflowRunEnqueueBuilder {
    return this.#next({ ...this.#settings, organizationId }, this.#steps);
  }

  /**
   * Makes the enqueue idempotent for ever, within the workflow type and organization.
   *
   * @param idempotencyKey At most 512 bytes of UTF-8.
   * @returns A new builder.
   */
  idempotencyKey(idempotencyKey: string): WorkflowRunEnqueueBuilder {
    return this.#next({ ...this.#settings, idempotencyKey }, this.#steps);
  }

  /**
   * Lets at most one run that has not ended hold a key, within the organization.
   *
   * @param activeKey At most 512 bytes of UTF-8.
   * @returns A new builder.
   */
  activeKey(activeKey: string): WorkflowRunEnqueueBuilder {
    return this.#next({ ...this.#settings, activeKey }, this.#steps);
  }

  /**
   * Names the step whose output is the run's result.
   *
   * @param resultStepKey A step of the run.
   * @returns A new builder.
   */
  resultStep(resultStepKey: string): WorkflowRunEnqueueBuilder {
    return this.#next({ ...this.#settings, resultStepKey }, this.#steps);
  }

  /**
   * Takes settings back.
   *
   * @param settings Which ones.
   * @returns A new builder.
   */
  clear(...settings: readonly WorkflowRunSetting[]): WorkflowRunEnqueueBuilder {
    return this.#next(without(this.#settings, settings.map((setting) => RUN_FIELDS[setting])), this.#steps);
  }

  /**
   * Adds a step.
   *
   * @param step The step, with what it waits for.
   * @returns A new builder.
   */
  step(step: WorkflowStepRequest): WorkflowRunEnqueueBuilder {
    return this.#next(this.#settings, this.#steps.appended(step));
  }

  /**
   * Adds steps.
   *
   * @param steps The steps, in the order in which they count as declared.
   * @returns A new builder.
   */
  extendSteps(steps: Iterable<WorkflowStepRequest>): WorkflowRunEnqueueBuilder {
    return this.#next(this.#settings, extended(this.#steps, steps));
  }

  /**
   * Replaces all steps.
   *
   * @param steps The steps, in the order in which they count as declared.
   * @returns A new builder.
   */
  setSteps(steps: Iterable<WorkflowStepRequest>): WorkflowRunEnqueueBuilder {
    return this.#next(this.#settings, extended(new AppendLog(), steps));
  }

  /**
   * Checks the whole run and gives it. The builder can be used on.
   *
   * @returns Plain data for `enqueueWorkflowRun`.
   * @throws {WorkflowBuildError} With the problem, see {@linkcode WorkflowBuildProblem}.
   */
  build(): WorkflowRunRequest {
    const run = {
      workflowType: this.#workflowType,
      metadata: this.#metadata,
      ...this.#settings,
      steps: this.#steps.toArray(),
    };
    assertWorkflowRunRequest(run);
    return run;
  }

  #next(settings: RunSettings, steps: AppendLog<WorkflowStepRequest>): WorkflowRunEnqueueBuilder {
    const next = new WorkflowRunEnqueueBuilder(this.#workflowType, this.#metadata);
    next.#settings = settings;
    next.#steps = steps;
    return next;
  }
}

function extended(
  log: AppendLog<WorkflowStepRequest>,
  steps: Iterable<WorkflowStepRequest>,
): AppendLog<WorkflowStepRequest> {
  for (const step of steps) log = log.appended(step);
  return log;
}
