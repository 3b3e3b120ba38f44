/**
 * What the end of a step leads to: the database releases what waits for it, and tells of it if asked.
 *
 * @module
 */

import type { WorkflowRunStatus } from "@runledger/core";
import { present } from "./_rows.ts";

/** What the end of a step led to in its run. */
export interface WorkflowRelease {
  /** The steps that were released, or cancelled since they can no longer be, in any order. */
  readonly steps: readonly ReleasedStep[];
  /** How the run ended, if it did. */
  readonly run?: FinishedRun;
}

/** A step that had been blocked. */
export interface ReleasedStep {
  /** The run. */
  readonly runId: string;
  /** The step's id, which is that of its job. */
  readonly stepId: string;
  /** Its name. */
  readonly stepKey: string;
  /** `ENQUEUED`: its job waits for a worker; `WAITING_FOR_EXTERNAL`: its gate is open; `CANCELED`: nothing will come. */
  readonly status: "ENQUEUED" | "WAITING_FOR_EXTERNAL" | "CANCELED";
  /** The type of its job; absent for a gate. */
  readonly jobType?: string;
  /** Whose step it is; absent for one of no organization. */
  readonly organizationId?: string;
}

/** A run whose last step has ended. */
export interface FinishedRun {
  /** The run. */
  readonly runId: string;
  /** Which kind of workflow. */
  readonly workflowType: string;
  /** Whose run it is; absent for a run of no organization. */
  readonly organizationId?: string;
  /** How it ended. */
  readonly status: WorkflowRunStatus;
}

/**
 * Reads what `runledger.finish_workflow_steps` tells, by run. A run that ended in the first wave of a cascade is told
 * of in each later one.
 */
export function decodeReleases(told: string): ReadonlyMap<string, WorkflowRelease> {
  const { steps = [], runs = [] } = JSON.parse(told) as ToldRelease;
  const releases = new Map<string, { readonly steps: ReleasedStep[]; run?: FinishedRun }>();
  const releaseOf = (runId: string) => {
    const release = releases.get(runId) ?? { steps: [] };
    releases.set(runId, release);
    return release;
  };
  for (const { run_id, step_id, step_key, status, job_type, organization_id } of steps) {
    releaseOf(run_id).steps.push(present({
      runId: run_id,
      stepId: step_id,
      stepKey: step_key,
      status,
      jobType: job_type,
      organizationId: organization_id,
    }));
  }
  for (const { run_id, workflow_type, organization_id, status } of runs) {
    releaseOf(run_id).run = present({
      runId: run_id,
      workflowType: workflow_type,
      organizationId: organization_id,
      status,
    });
  }
  return releases;
}

interface ToldRelease {
  readonly steps?: readonly {
    readonly run_id: string;
    readonly step_id: string;
    readonly step_key: string;
    readonly status: ReleasedStep["status"];
    readonly job_type?: string;
    readonly organization_id?: string;
  }[];
  readonly runs?: readonly {
    readonly run_id: string;
    readonly workflow_type: string;
    readonly organization_id?: string;
    readonly status: WorkflowRunStatus;
  }[];
}
