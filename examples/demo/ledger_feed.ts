/**
 * Reading the ledger as it grows: it is a table, so this is a select.
 *
 * @module
 */

import type { Read } from "./database.ts";

/** One event of a watched job, with what the table shows of it. */
export interface LedgerRow {
  /** The job. */
  readonly jobId: string;
  /** Its place in the job's ledger. */
  readonly seq: number;
  /** When it was posted, by the database's clock. */
  readonly occurredAt: Date;
  /** The attempt, where it belongs to one. */
  readonly attempt: number | undefined;
  /** How many attempts the job may take. */
  readonly maxAttempts: number;
  /** What happened. */
  readonly eventType: string;
  /** How long the attempt took that this event ended, in milliseconds. */
  readonly durationMs: number | undefined;
  /** What else there is to say: an error's code, the delay before a retry. */
  readonly detail: string;
}

interface StoredRow {
  readonly job_id: string;
  readonly seq: number;
  readonly occurred_at: Date;
  readonly attempt: number | null;
  readonly max_attempts: number;
  readonly event_type: string;
  readonly duration_ms: number | null;
  readonly error_code: string | null;
  readonly retry_delay_ms: number | null;
}

/** A feed of the events of some jobs. */
export interface LedgerFeed {
  /** Gives what was posted since the last call, oldest first. */
  readonly next: () => Promise<readonly LedgerRow[]>;
}

/**
 * Follows the ledger of some jobs. Each job's events are numbered without gaps, so the last number seen is where to go on.
 *
 * @param read How to read.
 * @param jobIds The jobs.
 * @returns The feed.
 */
export function followLedger(read: Read, jobIds: readonly string[]): LedgerFeed {
  const seen: Record<string, number> = Object.fromEntries(jobIds.map((jobId) => [jobId, 0]));
  const next = async () => {
    const rows = await read<StoredRow>(
      `
      select
        event.job_id, event.seq, event.occurred_at, event.attempt, job.max_attempts, event.event_type,
        case
          when event.event_type in ('SUCCEEDED', 'FAILED', 'CANCELED') then
            (extract(epoch from event.occurred_at - leased.occurred_at) * 1000)::integer
        end as duration_ms,
        event.payload ->> 'error_code' as error_code,
        (event.payload ->> 'retry_delay_ms')::integer as retry_delay_ms
      from jsonb_each_text($1::text::jsonb) as seen (job_id, seq)
      join runledger.job_queue as job on job.id = seen.job_id::uuid
      join runledger.job_events as event on event.job_id = job.id and event.seq > seen.seq::integer
      left join lateral (
        select start.occurred_at
        from runledger.job_events as start
        where start.job_id = event.job_id
          and start.seq < event.seq
          and start.event_type = 'LEASED'
        order by start.seq desc
        limit 1
      ) as leased on true
      order by event.occurred_at, event.job_id, event.seq`,
      [JSON.stringify(seen)],
    );
    for (const { job_id, seq } of rows) seen[job_id] = Math.max(seen[job_id] ?? 0, seq);
    return rows.map(decodeRow);
  };
  return { next };
}

function decodeRow(row: StoredRow): LedgerRow {
  return {
    jobId: row.job_id,
    seq: row.seq,
    occurredAt: row.occurred_at,
    attempt: row.attempt ?? undefined,
    maxAttempts: row.max_attempts,
    eventType: row.event_type,
    durationMs: row.duration_ms ?? undefined,
    detail: row.retry_delay_ms === null ? row.error_code ?? "" : `next attempt in ${row.retry_delay_ms} ms`,
  };
}
