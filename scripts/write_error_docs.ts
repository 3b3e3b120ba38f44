/**
 * Writes `docs/errors.md` from the error catalogue.
 *
 * Run: `deno task docs:errors`. With `--check` nothing is written, and the exit code is 1 when the page is out of date.
 *
 * @module
 */

import { ERROR_CATALOGUE } from "../core/error_catalogue.ts";
import type { ErrorCatalogueEntry } from "../core/error_catalogue.ts";
import type { RunledgerErrorCategory } from "../core/error_code.ts";
import { wrap, writePage } from "./generated_page.ts";

/** What the codes of a prefix have in common. A prefix without an entry here is a defect. */
const GROUPS: Readonly<Record<string, string>> = {
  job: "Jobs",
  job_definition: "Job definitions",
  job_schedule: "Schedules",
  workflow: "Workflows",
  worker: "Workers",
  schema: "The schema",
  db: "The database",
};

const CATEGORIES: Readonly<Record<RunledgerErrorCategory, readonly [status: number, meaning: string]>> = {
  validation: [400, "the caller asked for something that cannot be"],
  forbidden: [403, "the caller does not hold what it needs, such as a live lease or a privilege"],
  not_found: [404, "there is no such thing in the given scope"],
  conflict: [409, "it contradicts what is already there"],
  unavailable: [503, "the database could not answer now"],
  internal: [500, "a defect, here or in the data"],
};

const HEADER = `# Errors

<!-- Generated from core/error_catalogue.ts by \`deno task docs:errors\`. Do not edit. -->

Every error that a caller may want to tell apart is a \`RunledgerError\` with a stable \`code\`; arguments of the wrong type
are a \`TypeError\` or a \`RangeError\`. Branch on the code, never on a text:

\`\`\`ts
import { defineJob, isRunledgerError } from "@runledger/core";
import { enqueueJob } from "@runledger/postgres";
import type { Queryable } from "@runledger/postgres";

const sendEmail = defineJob({ type: "email.send" });

export async function postEmail(db: Queryable, idempotencyKey: string, to: string): Promise<Response> {
  try {
    return Response.json(await enqueueJob(db, sendEmail.request({ to }, { idempotencyKey })));
  } catch (error) {
    if (isRunledgerError(error, "job.idempotency_conflict")) return Response.json(error, { status: 409 });
    if (isRunledgerError(error)) console.error(error.code, error.internalMessage);
    throw error;
  }
}
\`\`\`

\`message\`, \`details\`, \`toString()\`, \`JSON.stringify\` and inspection show only what a client may see. The driver's own
text and error are in \`internalMessage\` and \`internalCause\`, which nothing prints by itself: they quote SQL and values.

A **stored failure** is a code that is found on a job, in its ledger or in a dead letter; an **abort reason** is what a
handler's \`signal\` carries. Neither is thrown at callers.
`;

/**
 * Renders the page.
 *
 * @param catalogue The catalogue, by code.
 * @returns Markdown.
 * @throws {Error} A code has a prefix that has no group.
 */
export function renderErrorDocs(catalogue: Readonly<Record<string, ErrorCatalogueEntry>>): string {
  const entries = Object.entries(catalogue);
  for (const [code] of entries) {
    if (!Object.hasOwn(GROUPS, prefixOf(code))) throw new Error(`${code}: its prefix has no group in this script.`);
  }
  const sections = Object.entries(GROUPS).map(([prefix, title]) => {
    const own = entries.filter(([code]) => prefixOf(code) === prefix);
    return own.length === 0 ? "" : `\n## ${title}\n${own.map(([code, entry]) => renderEntry(code, entry)).join("")}`;
  });
  return HEADER + renderCategories() + sections.join("");
}

function prefixOf(code: string): string {
  return code.slice(0, code.indexOf("."));
}

function renderCategories(): string {
  const rows = Object.entries(CATEGORIES).map(([category, [status, meaning]]) =>
    `- \`${category}\`: ${meaning}. As an HTTP status: ${status}.\n`
  );
  return `\n## Categories\n\n${rows.join("")}`;
}

function renderEntry(code: string, { category, message, cause, retry, action }: ErrorCatalogueEntry): string {
  const lines = [
    `- **Says:** ${message}`,
    `- **Category:** \`${category}\``,
    `- **Cause:** ${cause}`,
    `- **Retry helps:** ${retry}`,
    `- **What to do:** ${action}`,
  ];
  return `\n### \`${code}\`\n\n${lines.map((line) => wrap(line, "  ")).join("\n")}\n`;
}

if (import.meta.main) await writePage("docs/errors.md", renderErrorDocs(ERROR_CATALOGUE), "docs:errors");
