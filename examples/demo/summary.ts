/**
 * What the demo ends with: the ledger, added up by SQL.
 *
 * @module
 */

import type { Read } from "./database.ts";

/** What the ledger says about the demo's jobs. */
export interface Summary {
  /** How many jobs ended in each status, such as `SUCCEEDED`. */
  readonly outcomes: Readonly<Record<string, number>>;
  /** How many attempts were made. */
  readonly attempts: number;
  /** How many events were posted. */
  readonly events: number;
  /** From the first event to the last, in seconds. */
  readonly seconds: number;
}

/**
 * Adds up the ledger of some jobs.
 *
 * @param read How to read.
 * @param jobIds The jobs.
 * @returns The sums.
 */
export async function summarize(read: Read, jobIds: readonly string[]): Promise<Summary> {
  const ids = [JSON.stringify(jobIds)];
  const outcomes = await read<{ status: string; count: number }>(
    `
    select job.status, count(*)::integer as count
    from runledger.job_queue as job
    where job.id in (select id::uuid from jsonb_array_elements_text($1::text::jsonb) as wanted (id))
    group by job.status
    order by count desc, job.status`,
    ids,
  );
  const [total] = await read<{ attempts: number; events: number; seconds: number | null }>(
    `
    select
      count(*) filter (where event.event_type = 'LEASED')::integer as attempts,
      count(*)::integer as events,
      extract(epoch from max(event.occurred_at) - min(event.occurred_at))::float8 as seconds
    from runledger.job_events as event
    where event.job_id in (select id::uuid from jsonb_array_elements_text($1::text::jsonb) as wanted (id))`,
    ids,
  );
  return {
    outcomes: Object.fromEntries(outcomes.map(({ status, count }) => [status, count])),
    attempts: total?.attempts ?? 0,
    events: total?.events ?? 0,
    seconds: total?.seconds ?? 0,
  };
}

/**
 * Writes the sums for people.
 *
 * @param summary The sums.
 * @returns The lines.
 */
export function renderSummary({ outcomes, attempts, events, seconds }: Summary): string {
  const jobs = Object.entries(outcomes).map(([status, count]) => `${count} ${status}`).join(", ");
  return [
    `jobs      ${jobs || "none"}`,
    `attempts  ${attempts}`,
    `events    ${events}`,
    `seconds   ${seconds.toFixed(1)}`,
  ].join("\n");
}
