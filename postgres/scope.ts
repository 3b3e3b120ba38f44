/**
 * Whose rows a call may see or change. There is no default: a forgotten scope must not become everybody's.
 *
 * @module
 */

import { isUuid, RunledgerError } from "@runledger/core";

/**
 * Whose rows a call may see or change: one organization's, those of no organization (`"global"`), or everybody's
 * (`"all"`, for trusted operators). Derive it from the caller's authenticated identity, never from request parameters.
 */
export type Scope = { readonly organizationId: string } | "global" | "all";

/**
 * The two parameters of {@linkcode inScope}: the kind of scope and the organization, which is null for `"global"`.
 */
export function scopeValues(scope: Scope): readonly [kind: "all" | "one", organizationId: string | null] {
  if (scope === "all") return ["all", null];
  if (scope === "global") return ["one", null];
  if (typeof scope !== "object" || scope === null || typeof scope.organizationId !== "string") {
    throw new TypeError(`A scope must be { organizationId }, "global" or "all"`);
  }
  if (!isUuid(scope.organizationId)) {
    throw new RunledgerError("job.invalid_request", {
      message: "The organization of a scope must be a UUID.",
      details: { field: "organizationId" },
    });
  }
  return ["one", scope.organizationId];
}

/**
 * The condition by which a statement filters a table.
 *
 * @param table The table's name in the statement.
 * @param first Which of the statement's parameters is the first of {@linkcode scopeValues}; the second one follows it.
 */
export function inScope(table: string, first = 2): string {
  return `($${first}::text = 'all' or ${table}.organization_id is not distinct from $${first + 1}::uuid)`;
}

/** Whose an idempotency key is: an organization's, or nobody's (`"global"`). The same key may be there for each. */
export type KeyScope = Exclude<Scope, "all">;

/** Refuses `"all"`, which is no answer to whose key it is; gives the scope back otherwise. */
export function keyScope(scope: KeyScope): KeyScope {
  if ((scope as Scope) === "all") {
    throw new TypeError(
      `A key belongs to an organization or to nobody: its scope must be { organizationId } or "global"`,
    );
  }
  return scope;
}
