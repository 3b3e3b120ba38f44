/**
 * Following the ledger of all jobs as it grows, without a gap.
 *
 * @module
 */

import { isUuid, MAX_INTEGER, RunledgerError } from "@runledger/core";
import { present, readBoolean, readInteger, readOptionalText, readText } from "./_rows.ts";
import { decodeListedEvent } from "./job_events.ts";
import type { ListedJobEvent } from "./job_events.ts";
import { assertLimit } from "./job_reap.ts";
import { runStatement } from "./queryable.ts";
import type { Queryable, Row } from "./queryable.ts";
import { inScope, scopeValues } from "./scope.ts";
import type { Scope } from "./scope.ts";

/** An event of the ledger, with what its job is. */
export interface LedgerEntry extends ListedJobEvent {
  /** The type of the job. */
  readonly jobType: string;
  /** Whose job it is; absent for a job of no organization. */
  readonly organizationId?: string;
  /** The run whose step the job is. */
  readonly workflowRunId?: string;
}

/** From where on the ledger is read, and whose. */
export interface ReadLedgerOptions {
  /** Whose events. */
  readonly scope: Scope;
  /** What the read before gave as `position`. Without it the newest events are read. */
  readonly position?: string;
  /** How many events at most, 1 to 1000. @default {100} */
  readonly limit?: number;
}

/** A piece of the ledger. */
export interface LedgerPiece {
  /** What was found, in the order of the transactions that posted it. */
  readonly entries: readonly LedgerEntry[];
  /** Where to go on. Opaque; it may be stored. */
  readonly position: string;
  /** Whether there is more at once. */
  readonly hasMore: boolean;
}

/** How many events of others one call passes over. */
const WINDOW_ROWS = 10_000;

// What this statement sees of other transactions. A snapshot does not name the caller's own transaction as open, and would
// make it one that was read, once a later one has committed: what it posts after this statement would be told to nobody.
const CURRENT_SNAPSHOT = `(
  select case
    when pg_visible_in_snapshot(own.xid, now.snapshot) then (
      pg_snapshot_xmin(now.snapshot)::text || ':' || pg_snapshot_xmax(now.snapshot)::text || ':' || (
        select string_agg(open.xid::text, ',' order by open.xid)
        from (select pg_snapshot_xip(now.snapshot) union all select own.xid) as open (xid)
      )
    )::pg_snapshot
    else now.snapshot
  end
  from pg_current_snapshot() as now (snapshot)
  cross join pg_current_xact_id_if_assigned() as own (xid)
)`;

// What is new is what this snapshot sees and the one before did not: whoever committed in between, however long before
// that he began. A piece that is cut keeps both snapshots until it is read to its end. The index knows transactions, not
// their events: first it tells up to which transaction a window reaches, then the events of these are put in order.
// index: job_events_posted_index, from the oldest transaction that was still open then; job_queue_pkey. always a row.
const READ_ON = `
with mark as materialized (
  select
    coalesce($4::text::pg_snapshot, ${CURRENT_SNAPSHOT}) as target,
    case
      when $5::text is null then pg_snapshot_xmin($3::text::pg_snapshot)
      -- All of that transaction was read.
      when $7::integer = ${MAX_INTEGER} then ($5::text::numeric + 1)::text::xid8
      else $5::text::xid8
    end as start
),
passed as materialized (
  select own.posted_xid
  from mark
  cross join lateral (
    select event.posted_xid
    from runledger.job_events as event
    where event.posted_xid >= mark.start
    order by event.posted_xid
    limit ${WINDOW_ROWS}
  ) as own
),
reached as materialized (
  select passed.posted_xid as xid, (select count(*) from passed) = ${WINDOW_ROWS} as is_cut
  from passed
  order by passed.posted_xid desc
  limit 1
),
seen as materialized (
  select event.job_id, event.seq, event.posted_xid
  from mark
  cross join reached
  cross join lateral (
    select own.job_id, own.seq, own.posted_xid
    from runledger.job_events as own
    where own.posted_xid >= mark.start
      and own.posted_xid <= reached.xid
      and not pg_visible_in_snapshot(own.posted_xid, $3::text::pg_snapshot)
      and pg_visible_in_snapshot(own.posted_xid, mark.target)
      and ($5::text is null or (own.posted_xid, own.job_id, own.seq) > ($5::text::xid8, $6::uuid, $7::integer))
    order by own.posted_xid, own.job_id, own.seq
    limit ${WINDOW_ROWS}
  ) as event
)`;

const READ_NEWEST = `
with mark as materialized (
  select ${CURRENT_SNAPSHOT} as target
),
reached as (
  select null::xid8 as xid, false as is_cut
),
seen as materialized (
  select event.job_id, event.seq, event.posted_xid
  from runledger.job_events as event
  where event.posted_xid is distinct from pg_current_xact_id_if_assigned()
  order by event.posted_xid desc
  limit least($3::integer * 10, ${WINDOW_ROWS})
)`;

const entriesText = (direction: "asc" | "desc", limit: string) =>
  `,
kept as materialized (
  select seen.job_id, seen.seq, seen.posted_xid, job.job_type, job.organization_id, job.workflow_run_id
  from seen
  cross join lateral (
    select queue.job_type, queue.organization_id, queue.workflow_run_id
    from runledger.job_queue as queue
    where queue.id = seen.job_id
      and ${inScope("queue", 1)}
    offset 0
  ) as job
  order by seen.posted_xid ${direction}, seen.job_id ${direction}, seen.seq ${direction}
  limit ${limit}
)
select
  mark.target::text as target, (select count(*) from seen)::integer as seen_count, kept.job_id is not null as is_entry,
  reached.xid::text as reached_xid, coalesce(reached.is_cut, false) as is_cut,
  last.posted_xid::text as last_xid, last.job_id as last_job_id, last.seq as last_seq,
  kept.job_id, kept.posted_xid::text as posted_xid, kept.job_type, kept.organization_id, kept.workflow_run_id,
  event.seq, event.run_number, event.attempt, event.event_type, event.stage,
  event.progress_done::text as progress_done, event.progress_total::text as progress_total,
  event.payload::text as payload, extract(epoch from event.occurred_at)::text as occurred_at
from mark
left join reached on true
left join (
  select seen.posted_xid, seen.job_id, seen.seq
  from seen
  order by seen.posted_xid desc, seen.job_id desc, seen.seq desc
  limit 1
) as last on true
left join kept on true
left join lateral (
  select
    own.seq, own.run_number, own.attempt, own.event_type, own.stage, own.progress_done, own.progress_total, own.payload,
    own.occurred_at
  from runledger.job_events as own
  where own.job_id = kept.job_id
    and own.seq = kept.seq
  offset 0
) as event on true
order by kept.posted_xid, kept.job_id, kept.seq
`;

const READ_ON_ENTRIES = READ_ON + entriesText("asc", "$8::integer");
const READ_NEWEST_ENTRIES = READ_NEWEST + entriesText("desc", "$3::integer");

/** Where a reader stands: what it has seen, and, within a piece that was cut, what it is to see and how far it is. */
interface Position {
  readonly seen: string;
  readonly target?: string;
  readonly after?: readonly [xid: string, jobId: string, seq: number];
}

/**
 * Reads the ledger of all jobs as it grows: what was posted since an earlier call, each event once and none left out.
 *
 * In PostgreSQL neither ids nor times are in the order in which transactions commit, so a reader that remembers the last
 * of them loses what commits late. This one remembers a snapshot, and reads what it did not see then and sees now. Events
 * of one job come in the order of their `seq`; those of different jobs in the order in which their transactions began to
 * write. Nothing waits for long transactions. Events that retention removed meanwhile are not told, and those of the
 * caller's own transaction only after its commit: a position may be stored in the transaction that it was read in.
 *
 * @param db A pool, client or open transaction (READ COMMITTED).
 * @param options Whose events, from where on, and how many.
 * @returns The events, and where to go on.
 * @throws {RunledgerError} `job.invalid_pagination` for a limit, or a position that this function did not give; `db.*`
 * codes.
 */
export async function readLedger(db: Queryable, options: ReadLedgerOptions): Promise<LedgerPiece> {
  const { scope, position, limit = 100 } = options;
  assertLimit(limit);
  const at = position === undefined ? undefined : decodePosition(position);
  const rows = at === undefined
    ? await runStatement(db, READ_NEWEST_ENTRIES, [...scopeValues(scope), limit])
    : await runStatement(db, READ_ON_ENTRIES, [
      ...scopeValues(scope),
      at.seen,
      at.target ?? null,
      ...(at.after ?? [null, null, null]),
      limit,
    ]);
  const [first] = rows;
  if (first === undefined) throw new RunledgerError("db.unexpected_result");
  const kept = rows.filter((row) => readBoolean(row, "is_entry"));
  const entries = kept.map(decodeEntry);
  const target = readText(first, "target");
  const lastKept = kept.at(-1);
  if (at !== undefined && lastKept !== undefined && entries.length === limit) {
    const after = [
      readText(lastKept, "posted_xid"),
      readText(lastKept, "job_id"),
      readInteger(lastKept, "seq"),
    ] as const;
    return { entries, position: encodePosition({ seen: at.seen, target, after }), hasMore: true };
  }
  if (at !== undefined && readInteger(first, "seen_count") === WINDOW_ROWS) {
    const after = [
      readText(first, "last_xid"),
      readText(first, "last_job_id"),
      readInteger(first, "last_seq"),
    ] as const;
    return { entries, position: encodePosition({ seen: at.seen, target, after }), hasMore: true };
  }
  if (readBoolean(first, "is_cut")) {
    // Behind all events of the last transaction that was looked at.
    const after = [readText(first, "reached_xid"), "ffffffff-ffff-ffff-ffff-ffffffffffff", MAX_INTEGER] as const;
    return { entries, position: encodePosition({ seen: at?.seen ?? target, target, after }), hasMore: true };
  }
  // The snapshot of a piece that was cut is older than the ledger is by now.
  return { entries, position: encodePosition({ seen: target }), hasMore: at?.target !== undefined };
}

function encodePosition({ seen, target, after }: Position): string {
  return encodeURIComponent(JSON.stringify(["ledger", seen, target ?? null, ...(after ?? [])]));
}

const SNAPSHOT = /^\d{1,19}:\d{1,19}:(\d{1,19}(,\d{1,19})*)?$/;

function decodePosition(text: string): Position {
  let decoded: unknown;
  try {
    decoded = JSON.parse(decodeURIComponent(text));
  } catch {
    decoded = undefined;
  }
  const [name, seen, target, xid, jobId, seq] = Array.isArray(decoded) ? decoded as readonly unknown[] : [];
  const isSnapshot = (value: unknown): value is string => typeof value === "string" && isWholeSnapshot(value);
  if (name === "ledger" && isSnapshot(seen)) {
    if (target === null && xid === undefined) return { seen };
    if (
      isSnapshot(target) && typeof xid === "string" && /^\d{1,19}$/.test(xid) &&
      typeof jobId === "string" && isUuid(jobId) &&
      typeof seq === "number" && Number.isInteger(seq) && seq > 0 && seq <= MAX_INTEGER
    ) return { seen, target, after: [xid, jobId, seq] };
  }
  throw new RunledgerError("job.invalid_pagination", { details: { field: "position" } });
}

/** An id that a transaction can have: 64 bits, the lower half of which is never 0. */
function isTransactionId(id: bigint): boolean {
  return id < 2n ** 63n && BigInt.asUintN(32, id) !== 0n;
}

/** Whether PostgreSQL would read it: ids in order, from the lowest that was open to the first that was not yet given. */
function isWholeSnapshot(text: string): boolean {
  if (!SNAPSHOT.test(text)) return false;
  const [xmin = "", xmax = "", open = ""] = text.split(":");
  const low = BigInt(xmin);
  const high = BigInt(xmax);
  if (!isTransactionId(low) || !isTransactionId(high) || high < low) return false;
  let before = low - 1n;
  for (const id of open === "" ? [] : open.split(",").map(BigInt)) {
    if (id <= before || id >= high || !isTransactionId(id)) return false;
    before = id;
  }
  return true;
}

function decodeEntry(row: Row): LedgerEntry {
  return present({
    ...decodeListedEvent(row),
    jobType: readText(row, "job_type"),
    organizationId: readOptionalText(row, "organization_id"),
    workflowRunId: readOptionalText(row, "workflow_run_id"),
  });
}
