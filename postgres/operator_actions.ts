/**
 * Reading what operators did to job types, schedules and workflow runs. What they did to jobs is in the ledger of each.
 *
 * @module
 */

import type { JsonValue } from "@runledger/core";
import { equalConditions, readPage, scopeConditions, StatementValues, timeConditions } from "./_keyset_page.ts";
import type { KeysetList } from "./_keyset_page.ts";
import { present, readInstant, readJson, readKnown, readOptionalText, readText } from "./_rows.ts";
import { choiceValue, noteText } from "./operator_note.ts";
import type { Page, ScopedPageOptions } from "./pages.ts";
import type { Queryable, Row } from "./queryable.ts";

/** What an operator can have done to a job type, a schedule or a workflow run. */
export type OperatorActionKind =
  | "JOB_TYPE_ENABLED"
  | "JOB_TYPE_DISABLED"
  | "SCHEDULE_RESUMED"
  | "SCHEDULE_PAUSED"
  | "SCHEDULE_MOVED"
  | "SCHEDULE_RUN"
  | "SCHEDULE_DELETED"
  | "RUN_CANCELED"
  | "RUN_RECOVERED";

const ACTION_KINDS: readonly OperatorActionKind[] = [
  "JOB_TYPE_ENABLED",
  "JOB_TYPE_DISABLED",
  "SCHEDULE_RESUMED",
  "SCHEDULE_PAUSED",
  "SCHEDULE_MOVED",
  "SCHEDULE_RUN",
  "SCHEDULE_DELETED",
  "RUN_CANCELED",
  "RUN_RECOVERED",
];

/** Something that an operator did. */
export interface OperatorAction {
  /** What was done. */
  readonly action: OperatorActionKind;
  /** The job type, the name of the schedule, or the run. */
  readonly subject: string;
  /** Whose the schedule or run is or was; absent for nobody's, and for job types. */
  readonly organizationId?: string;
  /** Why. */
  readonly reason?: string;
  /** Who. */
  readonly actor?: string;
  /**
   * More: `next_fire_at` and `previous_next_fire_at` of SCHEDULE_MOVED, `job_id` of SCHEDULE_RUN, `run_id` and
   * `mode` of RUN_RECOVERED.
   */
  readonly details: JsonValue;
  /** When, by the database's clock. */
  readonly occurredAt: Date;
}

/** Which actions, and which page of them. */
export interface ListOperatorActionsOptions extends ScopedPageOptions {
  /** Only actions of this kind. */
  readonly action?: OperatorActionKind;
  /** Only what was done to this job type, schedule or run. */
  readonly subject?: string;
  /** Only what this actor did. */
  readonly actor?: string;
  /** Only what was done at this instant or later. */
  readonly since?: Date;
  /** Only what was done before this instant. */
  readonly until?: Date;
}

const OPERATOR_ACTIONS: KeysetList<OperatorAction> = {
  name: "operator_actions",
  alias: "action",
  keys: [{ column: "id", type: "bigint" }],
  direction: "desc",
  item: `
    action.action, action.subject, action.organization_id, action.reason, action.actor,
    action.details::text as details, extract(epoch from action.occurred_at)::text as occurred_at
  from runledger.operator_actions as action
  where action.id = page.key_1`,
  decode: decodeOperatorAction,
};

/**
 * Lists what operators did to job types, schedules and workflow runs, newest first. Actions on job types belong to no organization. What
 * `syncJobCatalogExactly` switches is not among them.
 *
 * @param db A pool, client or open transaction.
 * @param options Which ones, from where on, and how many.
 * @returns A page; see {@linkcode Page}.
 * @throws {RunledgerError} `job.invalid_pagination`; `job.invalid_request` for a filter that cannot be; `db.*` codes.
 */
export async function listOperatorActions(
  db: Queryable,
  options: ListOperatorActionsOptions,
): Promise<Page<OperatorAction>> {
  const { scope, action, subject, actor, since, until } = options;
  if (action !== undefined) choiceValue("action", action, ACTION_KINDS);
  if (subject !== undefined) noteText("subject", subject, 255);
  if (actor !== undefined) noteText("actor", actor, 512);
  const bound = new StatementValues();
  // index: operator_actions_pkey.
  const source = {
    from: "runledger.operator_actions as action",
    where: [],
    examines: [
      "action.organization_id",
      "action.action",
      "action.subject",
      "action.actor",
      "action.occurred_at",
    ],
    filters: [
      ...scopeConditions(bound, scope, "action.organization_id"),
      ...equalConditions(bound, { "action.action": action, "action.subject": subject, "action.actor": actor }),
      ...timeConditions(bound, "action.occurred_at", { since, until }),
    ],
  };
  return await readPage(db, OPERATOR_ACTIONS, { source, bound, options });
}

function decodeOperatorAction(row: Row): OperatorAction {
  return present({
    action: readKnown(row, "action", isActionKind),
    subject: readText(row, "subject"),
    organizationId: readOptionalText(row, "organization_id"),
    reason: readOptionalText(row, "reason"),
    actor: readOptionalText(row, "actor"),
    details: readJson(row, "details"),
    occurredAt: readInstant(row, "occurred_at"),
  });
}

function isActionKind(value: unknown): value is OperatorActionKind {
  return (ACTION_KINDS as readonly unknown[]).includes(value);
}
