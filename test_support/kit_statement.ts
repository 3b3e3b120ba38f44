/**
 * The test kit's own statements, on any database handle.
 *
 * @module
 */

import type { Queryable } from "@runledger/postgres";

/**
 * Runs one statement.
 *
 * @param db Any handle that Runledger takes.
 * @param text The statement, each parameter with a cast from text.
 * @param values Text for each parameter.
 * @returns The rows.
 */
export async function runKitStatement(
  db: Queryable,
  text: string,
  values: readonly string[],
): Promise<readonly Readonly<Record<string, unknown>>[]> {
  const reply: unknown = "unsafe" in db ? await db.unsafe(text, [...values]) : await db.query(text, [...values]);
  if (Array.isArray(reply)) return reply;
  if (typeof reply === "object" && reply !== null && "rows" in reply && Array.isArray(reply.rows)) return reply.rows;
  throw new TypeError("The database handle gave no rows");
}

/** Runs a statement that gives one row with a JSON text named `answer`. */
export async function askDatabase(db: Queryable, text: string, values: readonly string[]): Promise<unknown> {
  const [row] = await runKitStatement(db, text, values);
  const answer = row?.["answer"];
  if (typeof answer !== "string") throw new TypeError("The database gave no answer");
  return JSON.parse(answer);
}
