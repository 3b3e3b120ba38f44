/**
 * Builds a workflow run in the order in which one thinks of it: steps, and what each waits for.
 *
 * @module
 */

import { AppendLog } from "./_append_log.ts";
import type { JobRequest } from "./job_request.ts";
import type { JsonValue } from "./json.ts";
import { WorkflowBuildError } from "./workflow_build_error.ts";
import type {
  DeclaredStepKey,
  EmptyWorkflowGraph,
  NewStepKey,
  WithDependencies,
  WithStep,
} from "./workflow_prerequisites.ts";
import type { GateTimeout, WorkflowDependency, WorkflowRunRequest, WorkflowStepRequest } from "./workflow_run.ts";
import type { ReleaseMode } from "./workflow_status.ts";
import {
  assertPrerequisiteKey,
  assertStepJobType,
  assertStepKey,
  assertWorkflowRunRequest,
} from "./workflow_validation.ts";

/** What may be asked for beside the job request of a step. */
export interface WorkflowJobStepOptions {
  /** Whether the handler may end a slice and continue, see {@linkcode continueNow}. @default false */
  readonly allowsContinuation?: boolean;
}

/** What may be asked for of a gate. */
export interface WorkflowExternalStepOptions {
  /** Shown to whoever is to complete it: any JSON value. @default null */
  readonly payload?: JsonValue;
  /** What happens when nobody completes it. Absent means that it waits for ever. */
  readonly timeout?: GateTimeout;
  /** The tenant that the gate belongs to, a UUID. Absent means the run's. */
  readonly organizationId?: string;
}

/** One call of the builder that is about steps. */
type Declaration =
  | { readonly step: WorkflowStepRequest }
  | { readonly stepKey: string; readonly dependencies: readonly WorkflowDependency[] };

interface RunSettings {
  readonly organizationId?: string;
  readonly idempotencyKey?: string;
  readonly activeKey?: string;
  readonly resultStepKey?: string;
}

/**
 * Builds a {@linkcode WorkflowRunRequest}. Immutable: each call gives a new builder and leaves the old one as it is, so a
 * common beginning can be built upon in several ways. Use what a call returns; without that, the call was for nothing.
 * Building n steps takes linear time.
 *
 * When a mistake is reported:
 *
 * | call | at once | by `build()` |
 * | --- | --- | --- |
 * | `new WorkflowDagBuilder(type)` | never | a blank type, metadata that is not JSON |
 * | `job`, `external`, `step` | a blank, too long or duplicate step key; a blank or too long job type; a request with a time or idempotency key | other settings, payload |
 * | `afterSuccess`, `afterTerminal` | a blank key, an undeclared dependent | a missing prerequisite, self-dependency, duplicate, cycle |
 * | `organization`, `idempotencyKey`, `activeKey`, `resultStep` | never | blank, too long, not a UUID, not a step |
 *
 * Whether job types exist is told by the enqueue.
 *
 * The compiler refuses a dependency on a literal key that was not declared before, and a literal key that was declared
 * twice. A key of type `string` is left to the checks above: so are graphs built in a loop, and a prerequisite that is declared
 * later, as in `afterSuccess("report", ["audit" as string])`. In a loop, give the variable a type that does not grow:
 * `let builder: WorkflowDagBuilder<AnyWorkflowGraph> = new WorkflowDagBuilder("fan.out")`.
 *
 * @typeParam Graph What the compiler knows of the graph, see {@linkcode WorkflowPrerequisites}.
 *
 * @example
 * ```ts
 * import { defineJob, WorkflowDagBuilder } from "@runledger/core";
 * import assert from "node:assert/strict";
 *
 * const fetchInvoice = defineJob({ type: "invoice.fetch" });
 * const charge = defineJob({ type: "invoice.charge" });
 *
 * const run = new WorkflowDagBuilder("invoice.process", { source: "api" })
 *   .idempotencyKey("invoice:1")
 *   .job("fetch", fetchInvoice.request({ invoiceId: 1 }))
 *   .job("charge", charge.request({ invoiceId: 1 }, { priority: 10 })).afterSuccess("charge", ["fetch"])
 *   .external("approval").afterSuccess("approval", ["charge"])
 *   .build();
 *
 * assert.deepEqual(run.steps[1], {
 *   executionKind: "JOB",
 *   stepKey: "charge",
 *   jobType: "invoice.charge",
 *   payload: { invoiceId: 1 },
 *   priority: 10,
 *   dependencies: [{ prerequisiteStepKey: "fetch", releaseMode: "ON_SUCCESS" }],
 * });
 * ```
 */
export class WorkflowDagBuilder<Graph = EmptyWorkflowGraph> {
  readonly #workflowType: string;
  readonly #metadata: JsonValue;
  #settings: RunSettings = {};
  #declarations: AppendLog<Declaration> = new AppendLog((call) => "step" in call ? call.step.stepKey : undefined);
  #stepCount = 0;

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
  organization(organizationId: string): WorkflowDagBuilder<Graph> {
    return this.#with({ organizationId });
  }

  /**
   * Makes the enqueue idempotent for ever, within the workflow type and organization.
   *
   * @param idempotencyKey At most 512 bytes of UTF-8.
   * @returns A new builder.
   */
  idempotencyKey(idempotencyKey: string): WorkflowDagBuilder<Graph> {
    return this.#with({ idempotencyKey });
  }

  /**
   * Lets at most one run that has not ended hold a key, within the organization.
   *
   * @param activeKey At most 512 bytes of UTF-8.
   * @returns A new builder.
   */
  activeKey(activeKey: string): WorkflowDagBuilder<Graph> {
    return this.#with({ activeKey });
  }

  /**
   * Names the step whose output is the run's result.
   *
   * @param stepKey A step of the run. As a `string` it may be declared later.
   * @returns A new builder.
   */
  resultStep<StepKey extends string>(
    stepKey: StepKey & DeclaredStepKey<Graph, StepKey>,
  ): WorkflowDagBuilder<Graph> {
    return this.#with({ resultStepKey: stepKey });
  }

  /**
   * Adds a step that a job carries out.
   *
   * @param stepKey Its name, unique within the run; at most 512 bytes of UTF-8.
   * @param request What `definition.request(payload)` gives, or the like. It must have neither `idempotencyKey` nor
   * `nextRunAt`: those are the run's and the prerequisites' to decide.
   * @param options What only steps have.
   * @returns A new builder.
   * @throws {WorkflowBuildError} At once: the key or job type is blank, too long or unstorable, the key is taken, or the
   * request asks for what the run decides.
   */
  job<StepKey extends string, Output>(
    stepKey: StepKey & NewStepKey<Graph, StepKey>,
    request: JobRequest<Output>,
    options: WorkflowJobStepOptions = {},
  ): WorkflowDagBuilder<WithStep<Graph, StepKey, Output>> {
    const { idempotencyKey, nextRunAt, ...settings } = request;
    const { allowsContinuation } = options;
    assertStepKey(stepKey, this.#stepCount);
    if (idempotencyKey !== undefined) refuseSetting(stepKey, "idempotencyKey");
    if (nextRunAt !== undefined) refuseSetting(stepKey, "nextRunAt");
    return this.#withStep({
      ...settings,
      ...(allowsContinuation === undefined ? {} : { allowsContinuation }),
      executionKind: "JOB",
      stepKey,
      dependencies: [],
    });
  }

  /**
   * Adds a gate: a step that is completed from outside.
   *
   * @param stepKey Its name, unique within the run; at most 512 bytes of UTF-8.
   * @param options Its payload, timeout and organization.
   * @returns A new builder.
   * @throws {WorkflowBuildError} At once: the key is blank, too long, unstorable or taken.
   */
  external<StepKey extends string>(
    stepKey: StepKey & NewStepKey<Graph, StepKey>,
    options: WorkflowExternalStepOptions = {},
  ): WorkflowDagBuilder<WithStep<Graph, StepKey, JsonValue>> {
    return this.#withStep({
      ...options,
      payload: options.payload ?? null,
      executionKind: "EXTERNAL",
      stepKey,
      dependencies: [],
    });
  }

  /**
   * Adds a step that was made elsewhere, with what it waits for.
   *
   * @param step The step, such as {@linkcode WorkflowStepEnqueueBuilder} gives.
   * @returns A new builder.
   * @throws {WorkflowBuildError} At once: the key or job type is blank, too long or unstorable, or the key is taken.
   */
  step<const Step extends WorkflowStepRequest>(
    step: Step,
  ): WorkflowDagBuilder<WithStep<Graph, Step["stepKey"], JsonValue>> {
    return this.#withStep(step);
  }

  /**
   * Makes a step wait until others have succeeded. If one of them ends otherwise, the step is canceled, with the reason
   * `workflow.dependency_unsatisfied`, once all that it waits for has ended.
   *
   * @param stepKey The step that waits. It must have been declared.
   * @param prerequisites What it waits for, beside what it was told before.
   * @returns A new builder.
   * @throws {WorkflowBuildError} At once: a key is blank, or the step that waits was not declared.
   */
  afterSuccess<StepKey extends string, Prerequisite extends string>(
    stepKey: StepKey & DeclaredStepKey<Graph, StepKey>,
    prerequisites: readonly (Prerequisite & DeclaredStepKey<Graph, Prerequisite>)[],
  ): WorkflowDagBuilder<WithDependencies<Graph, StepKey, Prerequisite, "ON_SUCCESS">> {
    return this.#withDependencies(stepKey, prerequisites, "ON_SUCCESS");
  }

  /**
   * Makes a step wait until others have ended, no matter how.
   *
   * @param stepKey The step that waits. It must have been declared.
   * @param prerequisites What it waits for, beside what it was told before.
   * @returns A new builder.
   * @throws {WorkflowBuildError} At once: a key is blank, or the step that waits was not declared.
   */
  afterTerminal<StepKey extends string, Prerequisite extends string>(
    stepKey: StepKey & DeclaredStepKey<Graph, StepKey>,
    prerequisites: readonly (Prerequisite & DeclaredStepKey<Graph, Prerequisite>)[],
  ): WorkflowDagBuilder<WithDependencies<Graph, StepKey, Prerequisite, "ON_TERMINAL">> {
    return this.#withDependencies(stepKey, prerequisites, "ON_TERMINAL");
  }

  /**
   * Checks the whole run and gives it. The builder can be used on.
   *
   * @returns Plain data for `enqueueWorkflowRun`, with the steps in the order in which they were declared.
   * @throws {WorkflowBuildError} With the problem, see {@linkcode WorkflowBuildProblem}.
   */
  build(): WorkflowRunRequest<Graph> {
    const dependenciesByKey = new Map<string, WorkflowDependency[]>();
    const steps: WorkflowStepRequest[] = [];
    for (const call of this.#declarations.toArray()) {
      if ("step" in call) {
        const dependencies = [...call.step.dependencies];
        dependenciesByKey.set(call.step.stepKey, dependencies);
        steps.push({ ...call.step, dependencies });
      } else {
        dependenciesByKey.get(call.stepKey)?.push(...call.dependencies);
      }
    }
    const run = { workflowType: this.#workflowType, metadata: this.#metadata, ...this.#settings, steps };
    assertWorkflowRunRequest(run);
    return run;
  }

  #with(settings: RunSettings): WorkflowDagBuilder<Graph> {
    return this.#next({ ...this.#settings, ...settings }, this.#declarations, this.#stepCount);
  }

  #withStep<NextGraph>(step: WorkflowStepRequest): WorkflowDagBuilder<NextGraph> {
    assertStepKey(step.stepKey, this.#stepCount);
    if (step.executionKind === "JOB") assertStepJobType(step.jobType, step.stepKey);
    if (this.#declarations.has(step.stepKey)) {
      throw new WorkflowBuildError({ kind: "duplicate_step", stepKey: step.stepKey });
    }
    return this.#next(this.#settings, this.#declarations.appended({ step }), this.#stepCount + 1);
  }

  #withDependencies<NextGraph>(
    stepKey: string,
    prerequisites: readonly string[],
    releaseMode: ReleaseMode,
  ): WorkflowDagBuilder<NextGraph> {
    if (!Array.isArray(prerequisites)) throw new TypeError('Prerequisites must be an array of keys, such as ["fetch"]');
    assertStepKey(stepKey);
    const dependencies = prerequisites.map((prerequisiteStepKey: string) => {
      assertPrerequisiteKey(prerequisiteStepKey, stepKey);
      return { prerequisiteStepKey, releaseMode };
    });
    if (!this.#declarations.has(stepKey)) throw new WorkflowBuildError({ kind: "unknown_step", stepKey });
    return this.#next(this.#settings, this.#declarations.appended({ stepKey, dependencies }), this.#stepCount);
  }

  #next<NextGraph>(
    settings: RunSettings,
    declarations: AppendLog<Declaration>,
    stepCount: number,
  ): WorkflowDagBuilder<NextGraph> {
    const next = new WorkflowDagBuilder<NextGraph>(this.#workflowType, this.#metadata);
    next.#settings = settings;
    next.#declarations = declarations;
    next.#stepCount = stepCount;
    return next;
  }
}

function refuseSetting(stepKey: string, setting: "idempotencyKey" | "nextRunAt"): never {
  throw new WorkflowBuildError({ kind: "request_setting_not_allowed", stepKey, setting });
}
