/**
 * Lists, read to their end.
 *
 * @module
 */

import { listWorkflowSteps } from "@runledger/postgres";
import type { Page, Queryable, WorkflowStep } from "@runledger/postgres";

/** Reads all steps of a run, by position. */
export async function readWorkflowSteps(db: Queryable, runId: string): Promise<readonly WorkflowStep[]> {
  return await readAll((page) => listWorkflowSteps(db, runId, { scope: "all", limit: 1000, ...page }));
}

/** Reads a list to its end. */
export async function readAll<Item>(
  read: (page: { readonly cursor?: string }) => Promise<Page<Item>>,
): Promise<readonly Item[]> {
  const items: Item[] = [];
  for (let page: { readonly cursor?: string } | undefined = {}; page !== undefined;) {
    const { items: more, nextCursor }: Page<Item> = await read(page);
    items.push(...more);
    page = nextCursor === undefined ? undefined : { cursor: nextCursor };
  }
  return items;
}
