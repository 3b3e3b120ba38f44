/**
 * Deliberate defects of what moves workflow runs, each of which a test must find.
 *
 * @module
 */

import type { Edit, Mutant } from "./mutants.ts";

/** A suite of tests that mutants are tried on; `workflow interleaving` may be narrowed to operations by name. */
export type WorkflowSuite = "workflow" | `workflow interleaving ${string}`;

/** A deliberate defect of workflows. */
export interface WorkflowMutant extends Omit<Mutant, "suite"> {
  /** What finds it soonest. All other tests of workflows are run only if this does not. */
  readonly suite: WorkflowSuite;
}

const WORKFLOWS = "migrations/0004_workflows.sql";
const OPERATIONS = "migrations/0005_workflow_operations.sql";
const CLAIM_AND_SETTLE = "migrations/0007_claim_and_settle.sql";
const PLACE = "function runledger.place_workflow_steps";
const ENQUEUE = "function runledger.enqueue_workflow_runs";
const RELEASE = "function runledger.release_workflow_dependents";
const FINISH = "function runledger.finish_workflow_steps";
const COMPLETE = "function runledger.complete_external_step";
const EXPIRE = "function runledger.expire_workflow_gates";
const CANCEL = "function runledger.cancel_workflow_run";
const APPEND = "function runledger.append_workflow_steps";
const RECOVER = "function runledger.recover_workflow_run";
const RETENTION = "function runledger.delete_finished_workflow_runs";
const SETTLE = "function runledger.settle_jobs";
const LOCKED_RUN = "is not distinct from scope_organization_id) for update;";
const UNLOCKED_RUN = "is not distinct from scope_organization_id);";

function mutant(name: string, suite: WorkflowSuite, ...edits: readonly Edit[]): WorkflowMutant {
  return { name: `workflow ${name}`, suite, edits };
}

/** Every mutant of workflows. */
export const WORKFLOW_MUTANTS: readonly WorkflowMutant[] = [
  mutant("settle: run not locked", "workflow interleaving ^settle sibling$", {
    file: CLAIM_AND_SETTLE,
    after: SETTLE,
    from: "order by run.id for update;",
    to: "order by run.id;",
  }),
  mutant("settle: runs locked in the order given", "workflow interleaving ^cancel other run$", {
    file: CLAIM_AND_SETTLE,
    after: SETTLE,
    from: "order by run.id for update;",
    to: "order by array_position(workflow_run_ids, run.id) for update;",
  }),
  mutant("settle: waits for what a handler logs in its transaction", "workflow interleaving ^settle late$", {
    file: CLAIM_AND_SETTLE,
    after: SETTLE,
    from: "for no key update",
    to: "for update",
  }),
  mutant("cancel many: runs locked in the order given", "workflow interleaving ^cancel jobs", {
    file: "postgres/bulk_operations.ts",
    after: "const CANCEL_MANY",
    from: "order by run.id for update",
    to: "order by run.id desc for update",
  }),
  mutant("cancel many: runs not locked", "workflow interleaving ^cancel jobs", {
    file: "postgres/bulk_operations.ts",
    after: "const CANCEL_MANY",
    from: "order by run.id for update",
    to: "order by run.id",
  }),
  mutant("release: an ended prerequisite is not counted", "workflow", {
    file: WORKFLOWS,
    after: RELEASE,
    from: "set pending_count = step.pending_count - counted.ended_count",
    to: "set pending_count = step.pending_count",
  }),
  mutant("release: prerequisites that end together are counted once", "workflow", {
    file: WORKFLOWS,
    after: RELEASE,
    from: "count(*)::integer as ended_count",
    to: "1 as ended_count",
  }),
  mutant("release: an ended prerequisite is counted twice", "workflow", {
    file: WORKFLOWS,
    after: RELEASE,
    from: "count(*)::integer as ended_count",
    to: "(2 * count(*))::integer as ended_count",
  }),
  mutant("release: one prerequisite too early", "workflow", {
    file: WORKFLOWS,
    after: RELEASE,
    from: "when step.pending_count > counted.ended_count then step.status",
    to: "when step.pending_count > counted.ended_count + 1 then step.status",
  }),
  mutant("release: cancels what only waited for an end", "workflow", {
    file: WORKFLOWS,
    after: RELEASE,
    from: "edge.release_mode = 'ON_SUCCESS'",
    to: "edge.release_mode is not null",
  }),
  mutant("release: lets run what needed a success", "workflow", {
    file: WORKFLOWS,
    after: RELEASE,
    from: "edge.release_mode = 'ON_SUCCESS'",
    to: "edge.release_mode is null",
  }),
  mutant("release: a cancelled step cancels nothing more", "workflow", {
    file: WORKFLOWS,
    after: RELEASE,
    from: "where tallied.canceled > 0",
    to: "where tallied.canceled > 1000",
  }),
  mutant("release: not posted", "workflow", {
    file: WORKFLOWS,
    after: RELEASE,
    from: "from enqueued ), tallied",
    to: "from enqueued where false ), tallied",
  }),
  mutant("release: an open gate is not counted as one", "workflow", {
    file: WORKFLOWS,
    after: RELEASE,
    from: "(touched.status = 'WAITING_FOR_EXTERNAL')::integer,",
    to: "0,",
  }),
  mutant("finish: a gate that ends is counted as a job", "workflow", {
    file: WORKFLOWS,
    after: FINISH,
    from: "where marked.execution_kind = 'JOB'",
    to: "where true",
  }),
  mutant("finish: the output of a gate is lost", "workflow", {
    file: WORKFLOWS,
    after: FINISH,
    from: "output = input.result -> 'output'",
    to: "output = null",
  }),
  mutant("claim: outputs of jobs are not delivered", "workflow", {
    file: CLAIM_AND_SETTLE,
    from: "coalesce(prerequisite.output, job.output)",
    to: "prerequisite.output",
    isEverywhere: true,
  }),
  mutant("enqueue: undefined types are let in", "workflow", {
    file: WORKFLOWS,
    after: PLACE,
    from: "not exists (select from defined where defined.job_type = step.job_type)",
    to: "false",
  }),
  mutant("enqueue: does not look again after a race", "workflow interleaving ^enqueue equal$", {
    file: WORKFLOWS,
    after: ENQUEUE,
    from: "when (select count(*) from fresh) > (select count(*) from inserted)",
    to: "when false",
  }),
  mutant("enqueue: an ended run keeps its active key", "workflow", {
    file: WORKFLOWS,
    after: "active as",
    from: "and run.status in ('RUNNING', 'WAITING_FOR_EXTERNAL')",
    to: "",
    isEverywhere: true,
  }),
  mutant("enqueue: no turns for active keys", "workflow interleaving ^enqueue [kl]$", {
    file: WORKFLOWS,
    after: ENQUEUE,
    from: "if jsonb_array_length(requests) > 1 and",
    to: "if jsonb_array_length(requests) > 100 and",
  }),
  mutant("gate: completed without the run's lock", "workflow interleaving ^complete gate$", {
    file: OPERATIONS,
    after: COMPLETE,
    from: LOCKED_RUN,
    to: UNLOCKED_RUN,
  }),
  mutant("gate: completed twice", "workflow", {
    file: OPERATIONS,
    after: COMPLETE,
    from: "elsif gate.status <> 'WAITING_FOR_EXTERNAL' then",
    to: "elsif gate.status = 'CANCELED' then",
  }),
  mutant("gate: expiring waits for rivals", "workflow interleaving ^expire gates$", {
    file: OPERATIONS,
    after: EXPIRE,
    from: "for update skip locked",
    to: "for update",
  }),
  mutant("cancel: without the run's lock", "workflow interleaving ^cancel run$", {
    file: OPERATIONS,
    after: CANCEL,
    from: LOCKED_RUN,
    to: UNLOCKED_RUN,
  }),
  mutant("cancel: leaves jobs that are leased", "workflow", {
    file: OPERATIONS,
    after: CANCEL,
    from: "where locked.status in ('PENDING', 'LEASED')",
    to: "where locked.status = 'PENDING'",
  }),
  mutant("cancel: overwrites what has ended", "workflow", {
    file: OPERATIONS,
    after: CANCEL,
    from: "elsif run_status not in ('RUNNING', 'WAITING_FOR_EXTERNAL') then",
    to: "elsif run_status = 'CANCELED' then",
  }),
  mutant("cancel: waits for what a handler logs in its transaction", "workflow interleaving ^log and settle$", {
    file: OPERATIONS,
    after: CANCEL,
    from: "for no key update",
    to: "for update",
  }),
  mutant("cancel of a job: without the run's lock", "workflow interleaving ^cancel job$", {
    file: "postgres/job_cancel.ts",
    after: "const CANCEL",
    from: ") for update ), locked",
    to: ") ), locked",
  }),
  mutant("append: without the run's lock", "workflow interleaving ^append$", {
    file: OPERATIONS,
    after: APPEND,
    from: LOCKED_RUN,
    to: UNLOCKED_RUN,
  }),
  mutant("append: waits for what has ended", "workflow", {
    file: OPERATIONS,
    after: APPEND,
    from: "filter (where not edge.has_ended) as pending_count",
    to: "as pending_count",
  }),
  mutant("append: a key stands for any steps", "workflow", {
    file: OPERATIONS,
    after: APPEND,
    from: "if mutation.request <> new_request then",
    to: "if mutation.request is null then",
  }),
  mutant("append: a step that is born cancelled cancels nothing", "workflow", {
    file: OPERATIONS,
    after: "were born cancelled",
    from: "and step.status = 'CANCELED'",
    to: "and step.status = 'FAILED'",
  }),
  mutant("recover: without the source's lock", "workflow interleaving ^recover by resuming$", {
    file: OPERATIONS,
    after: RECOVER,
    from: LOCKED_RUN,
    to: UNLOCKED_RUN,
  }),
  mutant("recover: outputs of jobs are lost", "workflow", {
    file: OPERATIONS,
    after: RECOVER,
    from: "coalesce(step.output, done.output) as output",
    to: "step.output",
  }),
  mutant("recover: waits for what was taken over", "workflow", {
    file: OPERATIONS,
    after: RECOVER,
    from: "filter (where not edge.is_kept) as pending_count",
    to: "as pending_count",
  }),
  mutant("recover: replays what resumes", "workflow", {
    file: OPERATIONS,
    after: RECOVER,
    from: "new_recovery_mode = 'RESUME' and step.status = 'SUCCEEDED' as is_kept",
    to: "false as is_kept",
  }),
  mutant("reap: jobs whose run somebody else holds", "workflow interleaving ^reap$", {
    file: "postgres/job_reap.ts",
    from: "or overdue.workflow_run_id in (select runs.id from runs)",
    to: "or true",
  }),
  mutant("log: jobs locked in the order given", "workflow interleaving ^progress$", {
    file: "postgres/job_logs.ts",
    from: "order by input.job_id, input.ord",
    to: "order by input.ord",
  }),
  mutant("retention: waits for who holds a job", "workflow interleaving ^retention$", {
    file: OPERATIONS,
    after: `${RETENTION}(`,
    from: "order by queue.id for update skip locked",
    to: "order by queue.id for update",
  }),
  mutant("retention: leaves jobs", "workflow", {
    file: OPERATIONS,
    after: RETENTION,
    from: "delete from runledger.job_queue as queue where queue.id = any (step_ids);",
    to: "",
  }),
];
