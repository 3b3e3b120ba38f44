/**
 * Reading what was done to a workflow run after it was enqueued.
 *
 * @module
 */

import type { JsonValue } from "@runledger/core";
import { readPage, StatementValues } from "./_keyset_page.ts";
import type { KeysetList } from "./_keyset_page.ts";
import { present, readInstant, readJson, readOptionalJson, readText } from "./_rows.ts";
import type { Page, ScopedPageOptions } from "./pages.ts";
import type { Queryable } from "./queryable.ts";
import { runInScope } from "./workflow_runs.ts";

/** Something that was done to a run after it was enqueued. */
export interface WorkflowRunMutation {
  /** The key under which it was done. */
  readonly mutationKey: string;
  /** What was done. */
  readonly mutationKind: "APPEND_STEPS";
  /** When, by the database's clock. */
  readonly occurredAt: Date;
  /** What the caller kept with it. */
  readonly metadata?: JsonValue;
  /** What was asked for, in canonical form. */
  readonly request: JsonValue;
}

const MUTATIONS: KeysetList<WorkflowRunMutation> = {
  name: "workflow_run_mutations",
  alias: "mutation",
  keys: [
    { column: "run_id", type: "uuid" },
    { column: "occurred_at", type: "timestamptz" },
    { column: "mutation_key", type: "text" },
  ],
  direction: "asc",
  item: `
    mutation.mutation_key, mutation.mutation_kind, extract(epoch from mutation.occurred_at)::text as occurred_at,
    mutation.metadata::text as metadata, mutation.request::text as request
  from runledger.workflow_run_mutations as mutation
  where mutation.run_id = page.key_1
    and mutation.mutation_key = page.key_3`,
  decode: (row) =>
    present({
      mutationKey: readText(row, "mutation_key"),
      mutationKind: readText(row, "mutation_kind") as "APPEND_STEPS",
      occurredAt: readInstant(row, "occurred_at"),
      metadata: readOptionalJson(row, "metadata"),
      request: readJson(row, "request"),
    }),
};

/**
 * Lists what was done to a run after it was enqueued, oldest first.
 *
 * @param db A pool, client or open transaction.
 * @param runId The run.
 * @param options Whose run it must be, from where on, and how many.
 * @returns A page of mutations; an empty one for a run outside the scope.
 * @throws {RunledgerError} `job.invalid_pagination`; `db.*` codes.
 */
export async function listWorkflowRunMutations(
  db: Queryable,
  runId: string,
  options: ScopedPageOptions,
): Promise<Page<WorkflowRunMutation>> {
  const bound = new StatementValues();
  // index: workflow_run_mutations_pkey, workflow_runs_pkey.
  const source = {
    from: "runledger.workflow_run_mutations as mutation",
    where: runInScope(bound, runId, { scope: options.scope, column: "mutation.run_id" }),
  };
  return await readPage(db, MUTATIONS, { source, bound, options });
}
