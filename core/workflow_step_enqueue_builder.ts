/**
 * The builder for code that makes up steps as it goes: every setting can be set and cleared, and nothing is checked before
 * `build()`.
 *
 * @module
 */

import { without } from "./_builder_settings.ts";
import type { EnqueueStage } from "./job_status.ts";
import type { JsonValue } from "./json.ts";
import type { GateTimeout, WorkflowDependency, WorkflowStepRequest } from "./workflow_run.ts";
import type { ReleaseMode } from "./workflow_status.ts";
import { assertStep } from "./workflow_validation.ts";

/** What a step is from the start. */
type StepBase =
  | {
    readonly executionKind: "JOB";
    readonly stepKey: string;
    readonly jobType: string;
    readonly payload: JsonValue;
  }
  | { readonly executionKind: "EXTERNAL"; readonly stepKey: string; readonly payload: JsonValue };

/** The settings of a step, of either kind: `build()` refuses those of the other kind. */
interface StepSettings {
  readonly organizationId?: string;
  readonly priority?: number;
  readonly maxAttempts?: number;
  readonly timeoutSeconds?: number;
  readonly stage?: EnqueueStage;
  readonly allowsContinuation?: boolean;
  readonly timeout?: GateTimeout;
}

/** What {@linkcode WorkflowStepEnqueueBuilder.clear} can take back. */
export type WorkflowStepSetting =
  | "organization"
  | "priority"
  | "maxAttempts"
  | "timeoutSeconds"
  | "stage"
  | "allowContinuation"
  | "gateTimeout";

const STEP_FIELDS: Readonly<Record<WorkflowStepSetting, keyof StepSettings>> = {
  organization: "organizationId",
  priority: "priority",
  maxAttempts: "maxAttempts",
  timeoutSeconds: "timeoutSeconds",
  stage: "stage",
  allowContinuation: "allowsContinuation",
  gateTimeout: "timeout",
};

/**
 * Builds one {@linkcode WorkflowStepRequest}. Immutable: each call gives a new builder and leaves the old one as it is, so
 * that one can serve as the template of many.
 *
 * @example
 * ```ts
 * import { WorkflowStepEnqueueBuilder } from "@runledger/core";
 * import assert from "node:assert/strict";
 *
 * const urgent = WorkflowStepEnqueueBuilder.job("notify", "email.send", { to: "ada@example.com" })
 *   .priority(10)
 *   .dependsOnTerminal(["charge"]);
 *
 * assert.deepEqual(urgent.clear("priority").build(), {
 *   executionKind: "JOB",
 *   stepKey: "notify",
 *   jobType: "email.send",
 *   payload: { to: "ada@example.com" },
 *   dependencies: [{ prerequisiteStepKey: "charge", releaseMode: "ON_TERMINAL" }],
 * });
 * assert.throws(() => urgent.maxAttempts(0).build(), { code: "workflow.invalid_dag_step_max_attempts_non_positive" });
 * ```
 */
export class WorkflowStepEnqueueBuilder {
  readonly #base: StepBase;
  readonly #settings: StepSettings;
  readonly #dependencies: readonly WorkflowDependency[];

  private constructor(base: StepBase, settings: StepSettings, dependencies: readonly WorkflowDependency[]) {
    this.#base = base;
    this.#settings = settings;
    this.#dependencies = dependencies;
  }

  /**
   * Begins a step that a job carries out.
   *
   * @param stepKey Its name, unique within the run; at most 512 bytes of UTF-8.
   * @param jobType Which kind of job; at most 255 bytes of UTF-8.
   * @param payload What the handler is given: any JSON value.
   * @returns A builder.
   */
  static job(stepKey: string, jobType: string, payload: JsonValue): WorkflowStepEnqueueBuilder {
    return new WorkflowStepEnqueueBuilder({ executionKind: "JOB", stepKey, jobType, payload }, {}, []);
  }

  /**
   * Begins a gate: a step that is completed from outside.
   *
   * @param stepKey Its name, unique within the run; at most 512 bytes of UTF-8.
   * @param payload Shown to whoever is to complete it. @default null
   * @returns A builder.
   */
  static external(stepKey: string, payload: JsonValue = null): WorkflowStepEnqueueBuilder {
    return new WorkflowStepEnqueueBuilder({ executionKind: "EXTERNAL", stepKey, payload }, {}, []);
  }

  /**
   * Gives the step to a tenant of its own. Without one it belongs to the run's.
   *
   * @param organizationId A UUID.
   * @returns A new builder.
   */
  organization(organizationId: string): WorkflowStepEnqueueBuilder {
    return this.#with({ organizationId });
  }

  /**
   * Sets the priority of the job.
   *
   * @param priority Higher goes first; any 32-bit integer.
   * @returns A new builder.
   */
  priority(priority: number): WorkflowStepEnqueueBuilder {
    return this.#with({ priority });
  }

  /**
   * Sets how often the job may be tried.
   *
   * @param maxAttempts From 1.
   * @returns A new builder.
   */
  maxAttempts(maxAttempts: number): WorkflowStepEnqueueBuilder {
    return this.#with({ maxAttempts });
  }

  /**
   * Sets how long one attempt of the job may run.
   *
   * @param timeoutSeconds In seconds, from 1.
   * @returns A new builder.
   */
  timeoutSeconds(timeoutSeconds: number): WorkflowStepEnqueueBuilder {
    return this.#with({ timeoutSeconds });
  }

  /**
   * Sets what is shown to people while the job waits.
   *
   * @param stage The stage. Without it, `queued`.
   * @returns A new builder.
   */
  stage(stage: EnqueueStage): WorkflowStepEnqueueBuilder {
    return this.#with({ stage });
  }

  /**
   * Sets whether the handler may end a slice and continue, see {@linkcode continueNow}.
   *
   * @param allowsContinuation Whether it may. @default true
   * @returns A new builder.
   */
  allowContinuation(allowsContinuation: boolean = true): WorkflowStepEnqueueBuilder {
    return this.#with({ allowsContinuation });
  }

  /**
   * Sets what happens to the gate when nobody completes it.
   *
   * @param timeout When, and how it is completed then.
   * @returns A new builder.
   */
  gateTimeout(timeout: GateTimeout): WorkflowStepEnqueueBuilder {
    return this.#with({ timeout });
  }

  /**
   * Takes settings back.
   *
   * @param settings Which ones.
   * @returns A new builder.
   */
  clear(...settings: readonly WorkflowStepSetting[]): WorkflowStepEnqueueBuilder {
    const kept = without(this.#settings, settings.map((setting) => STEP_FIELDS[setting]));
    return new WorkflowStepEnqueueBuilder(this.#base, kept, this.#dependencies);
  }

  /**
   * Adds one dependency.
   *
   * @param dependency What the step waits for, and what it asks of it.
   * @returns A new builder.
   */
  dependency(dependency: WorkflowDependency): WorkflowStepEnqueueBuilder {
    return this.setDependencies([...this.#dependencies, dependency]);
  }

  /**
   * Makes the step wait until others have succeeded, beside what it waits for already.
   *
   * @param stepKeys What it waits for.
   * @returns A new builder.
   */
  dependsOnSuccess(stepKeys: Iterable<string>): WorkflowStepEnqueueBuilder {
    return this.#dependingOn(stepKeys, "ON_SUCCESS");
  }

  /**
   * Makes the step wait until others have ended, no matter how, beside what it waits for already.
   *
   * @param stepKeys What it waits for.
   * @returns A new builder.
   */
  dependsOnTerminal(stepKeys: Iterable<string>): WorkflowStepEnqueueBuilder {
    return this.#dependingOn(stepKeys, "ON_TERMINAL");
  }

  /**
   * Replaces everything that the step waits for.
   *
   * @param dependencies What it waits for from now on.
   * @returns A new builder.
   */
  setDependencies(dependencies: Iterable<WorkflowDependency>): WorkflowStepEnqueueBuilder {
    return new WorkflowStepEnqueueBuilder(this.#base, this.#settings, [...dependencies]);
  }

  /**
   * Checks the step by itself and gives it. Its dependencies are checked with the run.
   *
   * @returns Plain data for {@linkcode WorkflowRunEnqueueBuilder.step} or `appendWorkflowSteps`.
   * @throws {WorkflowBuildError} With the problem, see {@linkcode WorkflowBuildProblem}.
   */
  build(): WorkflowStepRequest {
    const step: WorkflowStepRequest = { ...this.#base, ...this.#settings, dependencies: [...this.#dependencies] };
    assertStep(step);
    return step;
  }

  #with(settings: StepSettings): WorkflowStepEnqueueBuilder {
    return new WorkflowStepEnqueueBuilder(this.#base, { ...this.#settings, ...settings }, this.#dependencies);
  }

  #dependingOn(stepKeys: Iterable<string>, releaseMode: ReleaseMode): WorkflowStepEnqueueBuilder {
    if (typeof stepKeys === "string") throw new TypeError('Step keys must be a list, such as ["fetch"]');
    const added = Array.from(stepKeys, (prerequisiteStepKey) => ({ prerequisiteStepKey, releaseMode }));
    return this.setDependencies([...this.#dependencies, ...added]);
  }
}
