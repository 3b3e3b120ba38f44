/**
 * Reading workflow runs.
 *
 * @module
 */

import { isWorkflowRunStatus, WORKFLOW_RUN_STATUSES } from "@runledger/core";
import type { JsonValue, WorkflowRunStatus } from "@runledger/core";
import {
  countWithin,
  equalConditions,
  idConditions,
  keyTextConditions,
  readPage,
  scopeConditions,
  StatementValues,
} from "./_keyset_page.ts";
import type { KeysetList, KeysetSource } from "./_keyset_page.ts";
import {
  present,
  readInstant,
  readInteger,
  readJson,
  readKnown,
  readOptionalInstant,
  readOptionalText,
  readText,
} from "./_rows.ts";
import { choiceValue, noteText, uuidValue } from "./operator_note.ts";
import type { BoundedCount, Page, ScopedPageOptions } from "./pages.ts";
import { runStatement } from "./queryable.ts";
import type { Queryable, Row } from "./queryable.ts";
import { inScope, keyScope, scopeValues } from "./scope.ts";
import type { KeyScope, Scope } from "./scope.ts";

/** A workflow run as it stands. */
export interface WorkflowRun {
  /** The run. */
  readonly runId: string;
  /** Which kind of workflow. */
  readonly workflowType: string;
  /** Whose run it is; absent for a run of no organization. */
  readonly organizationId?: string;
  /** Where it stands. */
  readonly status: WorkflowRunStatus;
  /** How many steps it has. */
  readonly stepCount: number;
  /** How many steps are blocked, queued or running. */
  readonly openCount: number;
  /** How many gates are open. */
  readonly waitingCount: number;
  /** How many steps failed or were cancelled. */
  readonly unsuccessfulCount: number;
  /** When it was enqueued. */
  readonly createdAt: Date;
  /** When it ended. */
  readonly finishedAt?: Date;
  /** Its idempotency key. */
  readonly idempotencyKey?: string;
  /** Its active key. */
  readonly activeKey?: string;
  /** The step whose output is its result. */
  readonly resultStepKey?: string;
  /** The run that it recovers. */
  readonly recoveryOfRunId?: string;
  /** How it recovers that run. */
  readonly recoveryMode?: "REPLAY" | "RESUME";
  /** Why it was cancelled. */
  readonly statusReason?: string;
  /** What the producer kept with it. */
  readonly metadata: JsonValue;
}

const RUN_COLUMNS = `
  run.id as run_id, run.workflow_type, run.organization_id, run.status, run.step_count, run.open_count,
  run.waiting_count, run.unsuccessful_count, extract(epoch from run.created_at)::text as created_at,
  extract(epoch from run.finished_at)::text as finished_at, run.idempotency_key, run.active_key,
  run.enqueue_request ->> 'result_step_key' as result_step_key, run.recovery_of_run_id, run.recovery_mode,
  run.status_reason, (run.enqueue_request -> 'metadata')::text as metadata`;

// index: workflow_runs_pkey. no row: no such run in scope.
const GET_RUN = `
select ${RUN_COLUMNS}
from runledger.workflow_runs as run
where run.id = $1::uuid
  and ${inScope("run")}
`;

/**
 * Reads a workflow run.
 *
 * @param db A pool, client or open transaction.
 * @param runId The run.
 * @param options Whose run it must be.
 * @returns The run, or `undefined` if there is none in the scope.
 * @throws {RunledgerError} `db.*` codes.
 */
export async function getWorkflowRun(
  db: Queryable,
  runId: string,
  options: { readonly scope: Scope },
): Promise<WorkflowRun | undefined> {
  const [row] = await runStatement(db, GET_RUN, [uuidValue("runId", runId), ...scopeValues(options.scope)]);
  return row === undefined ? undefined : decodeRun(row);
}

/**
 * Reads the workflow run that an idempotency key of a workflow type stands for.
 *
 * @param db A pool, client or open transaction.
 * @param key The workflow type, and the key that the producer gave.
 * @param options Whose key it is: the same key may stand for a run of each organization, and for one of nobody's.
 * @returns The run, or `undefined` if the key stands for none: it was never used, or retention deleted its run.
 * @throws {RunledgerError} `job.invalid_request` for a type or key that cannot be; `db.*` codes.
 * @throws {TypeError} For the scope `"all"`.
 */
export async function getWorkflowRunByIdempotencyKey(
  db: Queryable,
  key: { readonly workflowType: string; readonly idempotencyKey: string },
  options: { readonly scope: KeyScope },
): Promise<WorkflowRun | undefined> {
  const bound = new StatementValues();
  const conditions = [
    ...equalConditions(bound, {
      "run.workflow_type": noteText("workflowType", key.workflowType, 255),
      "run.idempotency_key": noteText("idempotencyKey", key.idempotencyKey, 512),
    }),
    ...scopeConditions(bound, keyScope(options.scope), "run.organization_id"),
  ];
  // index: workflow_runs_idempotency_unique. no row: no such key in scope.
  const text = `
select ${RUN_COLUMNS}
from runledger.workflow_runs as run
where ${conditions.join("\n  and ")}
`;
  const [row] = await runStatement(db, text, bound.values);
  return row === undefined ? undefined : decodeRun(row);
}

function decodeRun(row: Row): WorkflowRun {
  return present({
    runId: readText(row, "run_id"),
    workflowType: readText(row, "workflow_type"),
    organizationId: readOptionalText(row, "organization_id"),
    status: readKnown(row, "status", isWorkflowRunStatus),
    stepCount: readInteger(row, "step_count"),
    openCount: readInteger(row, "open_count"),
    waitingCount: readInteger(row, "waiting_count"),
    unsuccessfulCount: readInteger(row, "unsuccessful_count"),
    createdAt: readInstant(row, "created_at"),
    finishedAt: readOptionalInstant(row, "finished_at"),
    idempotencyKey: readOptionalText(row, "idempotency_key"),
    activeKey: readOptionalText(row, "active_key"),
    resultStepKey: readOptionalText(row, "result_step_key"),
    recoveryOfRunId: readOptionalText(row, "recovery_of_run_id"),
    recoveryMode: readOptionalText(row, "recovery_mode") as WorkflowRun["recoveryMode"],
    statusReason: readOptionalText(row, "status_reason"),
    metadata: readJson(row, "metadata"),
  });
}

/** Which runs. Filters that are left out let everything pass. */
export interface WorkflowRunFilter {
  /** Whose runs. */
  readonly scope: Scope;
  /** Only runs that stand there. */
  readonly status?: WorkflowRunStatus;
  /** Only runs of this type. */
  readonly workflowType?: string;
  /** Only runs that were enqueued at this instant or later. */
  readonly since?: Date;
  /** Only runs that were enqueued before this instant. */
  readonly until?: Date;
  /**
   * Only runs whose id begins with this text, if it reads as the beginning of an id (eight hexadecimal digits or more, the
   * first a 0); otherwise runs that have it in their idempotency or active key. Not blank, at most 512 bytes.
   */
  readonly text?: string;
}

/** Which runs, and which page of them. */
export interface ListWorkflowRunsOptions extends WorkflowRunFilter, ScopedPageOptions {}

const RUNS: KeysetList<WorkflowRun> = {
  name: "workflow_runs",
  alias: "run",
  keys: [{ column: "id", type: "uuid" }],
  direction: "desc",
  item: `${RUN_COLUMNS}
  from runledger.workflow_runs as run
  where run.id = page.key_1`,
  decode: decodeRun,
};

// Runs that have not ended, and those that did not go well, lie in indexes of their own.
// index: workflow_runs_live_index, workflow_runs_unsuccessful_index, workflow_runs_pkey.
function runsThat(filter: WorkflowRunFilter, bound: StatementValues): KeysetSource {
  const { scope, status, workflowType, text } = filter;
  if (status !== undefined) choiceValue("status", status, WORKFLOW_RUN_STATUSES);
  if (workflowType !== undefined) noteText("workflowType", workflowType, 255);
  const ofStatus = status === "RUNNING" || status === "WAITING_FOR_EXTERNAL"
    ? ["run.finished_at is null"]
    : status === "COMPLETED_WITH_ERRORS" || status === "CANCELED"
    ? ["run.status in ('COMPLETED_WITH_ERRORS', 'CANCELED')"]
    : [];
  return {
    from: "runledger.workflow_runs as run",
    where: [...ofStatus, ...idConditions(bound, "run.id", filter)],
    examines: ["organization_id", "status", "workflow_type", "idempotency_key", "active_key"].map((column) =>
      `run.${column}`
    ),
    filters: [
      ...scopeConditions(bound, scope, "run.organization_id"),
      ...equalConditions(bound, { "run.status": status, "run.workflow_type": workflowType }),
      ...keyTextConditions(bound, ["run.idempotency_key", "run.active_key"], text),
    ],
  };
}

/**
 * Lists workflow runs, newest first. Pages stay stable while runs arrive.
 *
 * One call looks at 10,000 runs at most: those that have not ended, or that ended without success, if one of their
 * statuses is asked for; otherwise the newest, whoever's they are. See {@linkcode Page}.
 *
 * @param db A pool, client or open transaction.
 * @param options Which ones, from where on, and how many.
 * @returns A page.
 * @throws {RunledgerError} `job.invalid_pagination`; `job.invalid_request` for a filter that cannot be; `db.*` codes.
 */
export async function listWorkflowRuns(db: Queryable, options: ListWorkflowRunsOptions): Promise<Page<WorkflowRun>> {
  const bound = new StatementValues();
  return await readPage(db, RUNS, { source: runsThat(options, bound), bound, options });
}

/**
 * Counts workflow runs, among the 10,000 that {@linkcode listWorkflowRuns} would look at for its first page.
 *
 * @param db A pool, client or open transaction.
 * @param filter Which ones.
 * @returns How many, and whether these are all.
 * @throws {RunledgerError} `job.invalid_request` for a filter that cannot be; `db.*` codes.
 */
export async function countWorkflowRuns(db: Queryable, filter: WorkflowRunFilter): Promise<BoundedCount> {
  const bound = new StatementValues();
  return await countWithin(db, RUNS, { source: runsThat(filter, bound), bound });
}

/** The conditions that rows belong to one run, and that the run is in a scope: looked up once, not for each row. */
export function runInScope(
  bound: StatementValues,
  runId: string,
  where: { readonly scope: Scope; readonly column: string },
): readonly string[] {
  const id = bound.bind(uuidValue("runId", runId), "uuid");
  const inScope = scopeConditions(bound, where.scope, "owner.organization_id").map((condition) => ` and ${condition}`);
  return [
    `${where.column} = ${id}`,
    `exists (select from runledger.workflow_runs as owner where owner.id = ${id}${inScope.join("")})`,
  ];
}
