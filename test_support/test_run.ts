/**
 * A workflow run in a test: its steps, its gates, and whether it is where the test expects it.
 *
 * @module
 */

import { RunledgerError } from "@runledger/core";
import type { KnownStepOutput, WorkflowRunStatus, WorkflowStepStatus } from "@runledger/core";
import { completeExternalStep, drawWorkflowRun, getWorkflowRun } from "@runledger/postgres";
import type { GateCompletion, Queryable, WorkflowRun, WorkflowStep } from "@runledger/postgres";
import { AssertionError } from "node:assert";
import { readWorkflowSteps } from "./whole_lists.ts";
import { TestJob } from "./test_job.ts";

/** A key of a step: those that the compiler knows, else any text. */
export type TestStepKey<Graph> = unknown extends Graph ? string : keyof Graph & string;

/**
 * A workflow run in a test. Its asserts throw an `AssertionError` that shows the graph.
 *
 * @typeParam Graph What the compiler knows of its steps, from the builder.
 */
export class TestRun<Graph = unknown> {
  /** The run. */
  readonly runId: string;
  readonly #db: Queryable;

  /** Refers to a run. */
  constructor(db: Queryable, runId: string) {
    this.#db = db;
    this.runId = runId;
  }

  /**
   * Reads the run as it stands.
   *
   * @returns The run.
   * @throws {RunledgerError} `workflow.run_not_found`; `db.*` codes.
   */
  async get(): Promise<WorkflowRun> {
    const run = await getWorkflowRun(this.#db, this.runId, { scope: "all" });
    if (run === undefined) throw new RunledgerError("workflow.run_not_found");
    return run;
  }

  /**
   * Reads the steps as they stand.
   *
   * @returns All steps, in an order in which they can run.
   * @throws {RunledgerError} `db.*` codes.
   */
  async steps(): Promise<readonly WorkflowStep[]> {
    return await readWorkflowSteps(this.#db, this.runId);
  }

  /**
   * Gives the job of a step, which has the step's id. It is there once the step is released.
   *
   * @param stepKey The step.
   * @returns The job.
   * @throws {RangeError} When the run has no such step.
   * @throws {RunledgerError} `db.*` codes.
   */
  async step<StepKey extends TestStepKey<Graph>>(stepKey: StepKey): Promise<TestJob<KnownStepOutput<Graph, StepKey>>> {
    return new TestJob(this.#db, (await this.#step(stepKey)).stepId);
  }

  /**
   * Reads what a step gave: the output of its job, or of its gate.
   *
   * @param stepKey The step.
   * @returns The stored output. Its type is that of the definition, which nothing checks here.
   * @throws {AssertionError} When it has not succeeded, or gave nothing.
   * @throws {RangeError} When the run has no such step.
   * @throws {RunledgerError} `db.*` codes.
   */
  async output<StepKey extends TestStepKey<Graph>>(stepKey: StepKey): Promise<KnownStepOutput<Graph, StepKey>> {
    const { output, status } = await this.#step(stepKey);
    if (output !== undefined) return output as KnownStepOutput<Graph, StepKey>;
    throw await this.#failure(`has no output at step ${stepKey}, which is ${status}`, {
      actual: status,
      expected: "SUCCEEDED",
    });
  }

  /**
   * Completes an open gate.
   *
   * @param stepKey The gate.
   * @param completion How.
   * @throws {RunledgerError} `workflow.external_step_not_waiting` and whatever else `completeExternalStep` throws.
   */
  async completeGate(stepKey: TestStepKey<Graph>, completion: GateCompletion = { status: "SUCCEEDED" }): Promise<void> {
    await completeExternalStep(this.#db, this.runId, stepKey, { scope: "all", completion });
  }

  /**
   * Asserts where the run stands.
   *
   * @param expected Its status.
   * @throws {AssertionError} When it stands elsewhere.
   * @throws {RunledgerError} `workflow.run_not_found`; `db.*` codes.
   */
  async assertStatus(expected: WorkflowRunStatus): Promise<void> {
    const { status } = await this.get();
    if (status !== expected) throw await this.#failure(`is ${status}, not ${expected}`, { actual: status, expected });
  }

  /**
   * Asserts where steps stand.
   *
   * @param expected Statuses by step; steps that are left out may stand anywhere.
   * @throws {AssertionError} When one stands elsewhere.
   * @throws {RangeError} When the run has no such step.
   * @throws {RunledgerError} `db.*` codes.
   */
  async assertSteps(expected: { readonly [StepKey in TestStepKey<Graph>]?: WorkflowStepStatus }): Promise<void> {
    const wanted: Readonly<Record<string, WorkflowStepStatus | undefined>> = expected;
    const actual: Record<string, WorkflowStepStatus> = {};
    const problems: string[] = [];
    const steps = new Map((await this.steps()).map(({ stepKey, status }) => [stepKey, status]));
    for (const [stepKey, status] of Object.entries(wanted)) {
      const found = steps.get(stepKey);
      if (found === undefined) throw stepNotFound(stepKey);
      actual[stepKey] = found;
      if (found !== status) problems.push(`${stepKey} is ${found}, not ${status}`);
    }
    if (problems.length > 0) {
      throw await this.#failure(`is not where it should be: ${problems.join("; ")}`, { actual, expected });
    }
  }

  /**
   * Draws the graph with the statuses of its steps.
   *
   * @returns The lines.
   * @throws {RunledgerError} `db.*` codes.
   */
  async draw(): Promise<string> {
    return await drawWorkflowRun(this.#db, this.runId, { scope: "all" });
  }

  async #step(stepKey: string): Promise<WorkflowStep> {
    const step = (await this.steps()).find((candidate) => candidate.stepKey === stepKey);
    if (step === undefined) throw stepNotFound(stepKey);
    return step;
  }

  async #failure(
    problem: string,
    values: { readonly actual: unknown; readonly expected: unknown },
  ): Promise<AssertionError> {
    const { workflowType } = await this.get();
    return new AssertionError({
      message: `Run ${this.runId} (${workflowType}) ${problem}. Its steps:\n${await this.draw()}`,
      operator: "assert",
      ...values,
    });
  }
}

function stepNotFound(stepKey: string): RangeError {
  return new RangeError(`The run has no step ${JSON.stringify(stepKey)}`);
}
