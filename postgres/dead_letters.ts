/**
 * Reading dead letters.
 *
 * @module
 */

import type { DeadLetterReason, JobFailureKind, JsonValue } from "@runledger/core";
import {
  countWithin,
  equalConditions,
  readPage,
  scopeConditions,
  StatementValues,
  timeConditions,
} from "./_keyset_page.ts";
import type { KeysetList, KeysetSource } from "./_keyset_page.ts";
import { present, readInstant, readInteger, readJson, readOptionalJson, readOptionalText, readText } from "./_rows.ts";
import { noteText } from "./operator_note.ts";
import type { BoundedCount, Page, ScopedPageOptions } from "./pages.ts";
import type { Queryable, Row } from "./queryable.ts";
import type { Scope } from "./scope.ts";

/** A job that failed for good and waits for somebody to look at it. */
export interface DeadLetter {
  /** The job. */
  readonly jobId: string;
  /** Its type. */
  readonly jobType: string;
  /** Whose job it is; absent for a job of no organization. */
  readonly organizationId?: string;
  /** The run that failed. */
  readonly runNumber: number;
  /** The attempt that failed last. */
  readonly attempt: number;
  /** How it failed. */
  readonly failureKind: JobFailureKind;
  /** Why no retry followed. */
  readonly reason: DeadLetterReason;
  /** The code of the last failure. */
  readonly errorCode: string;
  /** The message of the last failure. */
  readonly errorMessage: string;
  /** When it failed for good. */
  readonly failedAt: Date;
  /** The payload it failed with. */
  readonly payload: JsonValue;
  /** The checkpoint it failed with. */
  readonly checkpoint?: JsonValue;
}

/** Which dead letters. Filters that are left out let everything pass. */
export interface DeadLetterFilter {
  /** Whose dead letters. */
  readonly scope: Scope;
  /** Only jobs of this type. */
  readonly jobType?: string;
  /** Only jobs whose last failure has this code. */
  readonly errorCode?: string;
  /** Only jobs that failed for good at this instant or later. */
  readonly since?: Date;
  /** Only jobs that failed for good before this instant. */
  readonly until?: Date;
}

/** Which dead letters, and which page of them. */
export interface ListDeadLettersOptions extends DeadLetterFilter, ScopedPageOptions {}

const DEAD_LETTERS: KeysetList<DeadLetter> = {
  name: "dead_letters",
  alias: "letter",
  keys: [{ column: "failed_at", type: "timestamptz" }, { column: "job_id", type: "uuid" }],
  direction: "desc",
  item: `
    letter.job_id, letter.job_type, letter.organization_id, letter.run_number, letter.attempt, letter.failure_kind,
    letter.reason, letter.error_code, letter.error_message, extract(epoch from letter.failed_at)::text as failed_at,
    letter.payload_snapshot::text as payload, letter.checkpoint_snapshot::text as checkpoint
  from runledger.job_dead_letters as letter
  where letter.job_id = page.key_2`,
  decode: decodeDeadLetter,
};

// index: job_dead_letters_organization_index for an organization, else job_dead_letters_failed_at_index.
function deadLettersThat(filter: DeadLetterFilter, bound: StatementValues): KeysetSource {
  const { scope, jobType, errorCode, since, until } = filter;
  if (jobType !== undefined) noteText("jobType", jobType, 255);
  if (errorCode !== undefined) noteText("errorCode", errorCode, 512);
  const inScope = scopeConditions(bound, scope, "letter.organization_id");
  const isOrganization = typeof scope === "object" && scope !== null;
  const where = [...(isOrganization ? inScope : []), ...timeConditions(bound, "letter.failed_at", { since, until })];
  return {
    from: "runledger.job_dead_letters as letter",
    where,
    examines: ["letter.organization_id", "letter.job_type", "letter.error_code"],
    filters: [
      ...(isOrganization ? [] : inScope),
      ...equalConditions(bound, { "letter.job_type": jobType, "letter.error_code": errorCode }),
    ],
  };
}

/**
 * Lists dead letters, newest failure first. Pages stay stable while others arrive. A requeued job is no dead letter any
 * more; its ledger still tells of it.
 *
 * @param db A pool, client or open transaction.
 * @param options Which ones, from where on, and how many.
 * @returns A page; see {@linkcode Page}.
 * @throws {RunledgerError} `job.invalid_pagination`; `job.invalid_request` for a filter that cannot be; `db.*` codes.
 */
export async function listDeadLetters(db: Queryable, options: ListDeadLettersOptions): Promise<Page<DeadLetter>> {
  const bound = new StatementValues();
  return await readPage(db, DEAD_LETTERS, { source: deadLettersThat(options, bound), bound, options });
}

/**
 * Counts dead letters, among the newest 10,000.
 *
 * @param db A pool, client or open transaction.
 * @param filter Which ones.
 * @returns How many, and whether these are all.
 * @throws {RunledgerError} `job.invalid_request` for a filter that cannot be; `db.*` codes.
 */
export async function countDeadLetters(db: Queryable, filter: DeadLetterFilter): Promise<BoundedCount> {
  const bound = new StatementValues();
  return await countWithin(db, DEAD_LETTERS, { source: deadLettersThat(filter, bound), bound });
}

function decodeDeadLetter(row: Row): DeadLetter {
  return present({
    jobId: readText(row, "job_id"),
    jobType: readText(row, "job_type"),
    organizationId: readOptionalText(row, "organization_id"),
    runNumber: readInteger(row, "run_number"),
    attempt: readInteger(row, "attempt"),
    failureKind: readText(row, "failure_kind") as JobFailureKind,
    reason: readText(row, "reason") as DeadLetter["reason"],
    errorCode: readText(row, "error_code"),
    errorMessage: readText(row, "error_message"),
    failedAt: readInstant(row, "failed_at"),
    payload: readJson(row, "payload"),
    checkpoint: readOptionalJson(row, "checkpoint"),
  });
}
