/**
 * What an HTTP API answers when something fails.
 *
 * @module
 */

import { isRunledgerError } from "@runledger/core";
import type { RunledgerErrorCategory } from "@runledger/core";

const STATUSES: Readonly<Record<RunledgerErrorCategory, number>> = {
  validation: 400,
  forbidden: 403,
  not_found: 404,
  conflict: 409,
  unavailable: 503,
  internal: 500,
};

/**
 * Makes an answer that a client may see of anything that was thrown.
 *
 * Every error of Runledger has a category for the status and a JSON form without SQL, values or the driver's words; those
 * are for the log, as is all that is known of other errors.
 *
 * @param error What was caught.
 * @returns `{ code, category, message, details? }` with the fitting status.
 */
export function errorResponse(error: unknown): Response {
  if (!isRunledgerError(error)) {
    console.error(error);
    return Response.json({ code: "internal", message: "Something went wrong." }, { status: 500 });
  }
  const status = STATUSES[error.category];
  if (status >= 500) console.error(error, error.internalMessage);
  return Response.json(error, { status, headers: status === 503 ? { "retry-after": "5" } : {} });
}
