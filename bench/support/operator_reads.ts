/**
 * Every read that operators have, as they call it: one table for the benchmark and for the test of plans.
 *
 * @module
 */

import {
  countDeadLetters,
  countEndedJobs,
  countJobs,
  countWorkflowRuns,
  drawWorkflowRun,
  examineDatabase,
  explainJob,
  explainWorkflowRun,
  getJob,
  getJobByIdempotencyKey,
  getJobLineage,
  getJobScheduleByName,
  getWorkflowRun,
  getWorkflowRunByIdempotencyKey,
  getWorkflowRunLineage,
  listActiveWorkers,
  listDeadLetters,
  listJobAttempts,
  listJobDefinitions,
  listJobEvents,
  listJobLogs,
  listJobRuntimeConfigs,
  listJobs,
  listJobSchedules,
  listOperatorActions,
  listWorkflowRunMutations,
  listWorkflowRuns,
  listWorkflowStepDependencies,
  listWorkflowSteps,
  previewJobs,
  readJobMetrics,
  readLedger,
} from "@runledger/postgres";
import type { Page } from "@runledger/postgres";
import type postgres from "postgres";

/** A read, by what it is asked. */
export interface OperatorRead {
  readonly name: string;
  readonly call: () => Promise<unknown>;
}

/** Finds what there is to ask for in a database that {@linkcode fillOperatorData} filled. */
export async function operatorReads(sql: postgres.Sql): Promise<readonly OperatorRead[]> {
  const all = { scope: "all" } as const;
  const large = { scope: { organizationId: "00000000-0000-7000-8000-000000000000" } } as const;
  const small = { scope: { organizationId: "00000000-0000-7000-8000-0000000000c0" } } as const;
  const [target] = await sql<
    Record<"job_id" | "due_id" | "blocked_id" | "dead_id" | "chatty_id" | "run_id" | "appended_id" | "key", string>[]
  >`
    select
      (select id from runledger.job_queue where idempotency_key is not null and status = 'SUCCEEDED' limit 1) as job_id,
      (select idempotency_key from runledger.job_queue where idempotency_key is not null limit 1) as key,
      (
        select id from runledger.job_queue where status = 'PENDING' order by priority, next_run_at limit 1
      ) as due_id,
      (select id from runledger.workflow_steps where status = 'BLOCKED' limit 1) as blocked_id,
      (select job_id from runledger.job_dead_letters limit 1) as dead_id,
      (select job_id from runledger.job_logs order by id desc limit 1) as chatty_id,
      (select id from runledger.workflow_runs where status = 'COMPLETED_WITH_ERRORS' limit 1) as run_id,
      (select run_id from runledger.workflow_run_mutations limit 1) as appended_id`;
  if (target === undefined) throw new Error("The database is empty.");
  const { job_id: jobId, dead_id: deadId, chatty_id: chattyId, run_id: runId, appended_id: appendedId, key } = target;
  const { due_id: dueId, blocked_id: blockedId } = target;
  const [keyed] = await sql<Record<"job_type" | "job_key" | "workflow_type" | "run_key" | "organization_id", string>[]>`
    select job.job_type, job.idempotency_key as job_key, job.organization_id, run.workflow_type, run.idempotency_key as run_key
    from (
      select job_type, idempotency_key, organization_id
      from runledger.job_queue
      where idempotency_key is not null
        and organization_id is not null
      limit 1
    ) as job, (select workflow_type, idempotency_key from runledger.workflow_runs where idempotency_key is not null limit 1) as run`;
  if (keyed === undefined) throw new Error("There are no keys.");
  const ofKey = { scope: { organizationId: keyed.organization_id } };
  const day = 86_400_000;
  const ago = (days: number) => new Date(Date.now() - days * day);
  const secondPage = async <Item>(list: (cursor: { readonly cursor?: string }) => Promise<Page<Item>>) => {
    const { nextCursor } = await list({});
    return await list(nextCursor === undefined ? {} : { cursor: nextCursor });
  };
  const jobs = (name: string, options: Omit<Parameters<typeof listJobs>[1], "scope">): OperatorRead[] => [
    { name: `listJobs, ${name}`, call: () => listJobs(sql, { ...all, ...options }) },
    { name: `countJobs, ${name}`, call: () => countJobs(sql, { ...all, ...options }) },
  ];
  const runs = (name: string, options: Omit<Parameters<typeof listWorkflowRuns>[1], "scope">): OperatorRead[] => [
    { name: `listWorkflowRuns, ${name}`, call: () => listWorkflowRuns(sql, { ...all, ...options }) },
    { name: `countWorkflowRuns, ${name}`, call: () => countWorkflowRuns(sql, { ...all, ...options }) },
  ];
  return [
    { name: "getJob", call: () => getJob(sql, jobId, all) },
    {
      name: "getJobByIdempotencyKey",
      call: () => getJobByIdempotencyKey(sql, { jobType: keyed.job_type, idempotencyKey: keyed.job_key }, ofKey),
    },
    { name: "getJobLineage", call: () => getJobLineage(sql, jobId, all) },
    { name: "explainJob, due", call: () => explainJob(sql, dueId, all) },
    { name: "explainJob, dead-lettered", call: () => explainJob(sql, deadId, all) },
    { name: "explainJob, blocked", call: () => explainJob(sql, blockedId, all) },
    { name: "explainWorkflowRun", call: () => explainWorkflowRun(sql, runId, all) },
    { name: "readLedger, newest", call: () => readLedger(sql, all) },
    {
      name: "readLedger, on",
      call: async () => readLedger(sql, { ...all, position: (await readLedger(sql, all)).position }),
    },
    { name: "drawWorkflowRun", call: () => drawWorkflowRun(sql, runId, all) },
    { name: "listActiveWorkers", call: () => listActiveWorkers(sql, all) },
    { name: "examineDatabase", call: () => examineDatabase(sql, { listenTimeoutMs: 100 }) },
    ...jobs("all", {}),
    ...jobs("SUCCEEDED", { status: "SUCCEEDED" }),
    ...jobs("PENDING", { status: "PENDING" }),
    ...jobs("PENDING of a type", { status: "PENDING", jobType: "app.type_03" }),
    ...jobs("LEASED", { status: "LEASED" }),
    ...jobs("DEAD_LETTERED", { status: "DEAD_LETTERED" }),
    ...jobs("CANCELED", { status: "CANCELED" }),
    ...jobs("of a type", { jobType: "app.type_30" }),
    ...jobs("of no type", { jobType: "app.none" }),
    ...jobs("dead, of a type and code", { status: "DEAD_LETTERED", jobType: "app.type_05", errorCode: "app.error_3" }),
    ...jobs("of a code", { errorCode: "app.error_3" }),
    ...jobs("of a day", { since: ago(20), until: ago(19) }),
    ...jobs("text of an id", { text: jobId.slice(0, 18) }),
    ...jobs("text of a key", { text: key.slice(-6) }),
    ...jobs("text of nothing", { text: "no such key" }),
    { name: "listJobs, second page", call: () => secondPage((cursor) => listJobs(sql, { ...all, ...cursor })) },
    { name: "listJobs, page of 1000", call: () => listJobs(sql, { ...all, limit: 1000 }) },
    { name: "listJobs, none", call: () => listJobs(sql, { scope: "global" }) },
    { name: "listJobs, large organization", call: () => listJobs(sql, large) },
    { name: "listJobs, small organization", call: () => listJobs(sql, small) },
    { name: "listJobs, PENDING of an organization", call: () => listJobs(sql, { ...small, status: "PENDING" }) },
    { name: "listJobs, dead of an organization", call: () => listJobs(sql, { ...small, status: "DEAD_LETTERED" }) },
    { name: "countJobs, large organization", call: () => countJobs(sql, large) },
    { name: "listJobEvents", call: () => listJobEvents(sql, deadId, all) },
    { name: "listJobEvents, of a type", call: () => listJobEvents(sql, deadId, { ...all, eventType: "FAILED" }) },
    {
      name: "listJobEvents, of a day",
      call: () => listJobEvents(sql, deadId, { ...all, since: ago(20), until: ago(19) }),
    },
    { name: "listJobAttempts", call: () => listJobAttempts(sql, deadId, all) },
    { name: "listJobLogs, 50,000 lines", call: () => listJobLogs(sql, chattyId, all) },
    { name: "listJobLogs, errors among them", call: () => listJobLogs(sql, chattyId, { ...all, level: "error" }) },
    { name: "listDeadLetters", call: () => listDeadLetters(sql, all) },
    { name: "listDeadLetters, of a code", call: () => listDeadLetters(sql, { ...all, errorCode: "app.error_3" }) },
    { name: "listDeadLetters, of a type", call: () => listDeadLetters(sql, { ...all, jobType: "app.type_05" }) },
    { name: "listDeadLetters, small organization", call: () => listDeadLetters(sql, small) },
    {
      name: "listDeadLetters, second page",
      call: () => secondPage((cursor) => listDeadLetters(sql, { ...all, ...cursor })),
    },
    { name: "countDeadLetters", call: () => countDeadLetters(sql, all) },
    { name: "listJobDefinitions", call: () => listJobDefinitions(sql) },
    { name: "listJobRuntimeConfigs", call: () => listJobRuntimeConfigs(sql) },
    { name: "listJobSchedules", call: () => listJobSchedules(sql, all) },
    { name: "listJobSchedules, text", call: () => listJobSchedules(sql, { ...all, text: "4999" }) },
    { name: "previewJobs, DEAD_LETTERED", call: () => previewJobs(sql, { ...all, status: "DEAD_LETTERED" }) },
    { name: "previewJobs, PENDING", call: () => previewJobs(sql, { ...large, status: "PENDING" }) },
    { name: "listOperatorActions", call: () => listOperatorActions(sql, { ...small, subject: "nightly" }) },
    { name: "getJobScheduleByName", call: () => getJobScheduleByName(sql, "report 000001", all) },
    { name: "getWorkflowRun", call: () => getWorkflowRun(sql, runId, all) },
    {
      name: "getWorkflowRunByIdempotencyKey",
      call: () =>
        getWorkflowRunByIdempotencyKey(
          sql,
          { workflowType: keyed.workflow_type, idempotencyKey: keyed.run_key },
          { scope: "global" },
        ),
    },
    { name: "getWorkflowRunLineage", call: () => getWorkflowRunLineage(sql, runId, all) },
    ...runs("all", {}),
    ...runs("RUNNING", { status: "RUNNING" }),
    ...runs("WAITING_FOR_EXTERNAL", { status: "WAITING_FOR_EXTERNAL" }),
    ...runs("SUCCEEDED", { status: "SUCCEEDED" }),
    ...runs("COMPLETED_WITH_ERRORS", { status: "COMPLETED_WITH_ERRORS" }),
    ...runs("of a type", { workflowType: "app.flow_3" }),
    ...runs("of no type", { workflowType: "app.none" }),
    ...runs("text of a key", { text: "order:99" }),
    { name: "listWorkflowRuns, small organization", call: () => listWorkflowRuns(sql, small) },
    { name: "listWorkflowSteps", call: () => listWorkflowSteps(sql, runId, all) },
    { name: "listWorkflowSteps, FAILED", call: () => listWorkflowSteps(sql, runId, { ...all, status: "FAILED" }) },
    {
      name: "listWorkflowSteps, of a code",
      call: () => listWorkflowSteps(sql, runId, { ...all, errorCode: "app.error_1" }),
    },
    { name: "listWorkflowStepDependencies", call: () => listWorkflowStepDependencies(sql, runId, all) },
    { name: "listWorkflowRunMutations", call: () => listWorkflowRunMutations(sql, appendedId, all) },
    { name: "readJobMetrics", call: () => readJobMetrics(sql, all) },
    { name: "readJobMetrics, of a type", call: () => readJobMetrics(sql, { ...all, jobType: "app.type_03" }) },
    {
      name: "countEndedJobs, the newest 20,000",
      call: () => countEndedJobs(sql, { ...all, since: ago(365), maxJobs: 1 }),
    },
    { name: "countEndedJobs, a day", call: () => countEndedJobs(sql, all) },
    { name: "readJobMetrics, small organization", call: () => readJobMetrics(sql, small) },
  ];
}
