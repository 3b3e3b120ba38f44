/**
 * Large tables, made by the server in one statement each.
 *
 * @module
 */

import type postgres from "postgres";

/** Fills the tables with succeeded jobs and their ledgers, three events each, that ended over the last 30 days. */
export async function fillFinished(sql: postgres.Sql, count: number): Promise<void> {
  await sql.unsafe(`
    with inserted as (
      insert into runledger.job_queue (
        id, job_type, status, stage, priority, next_run_at, attempt, max_attempts, timeout_seconds, event_seq,
        started_at, finished_at, payload
      )
      select
        runledger.new_id(), 'noop', 'SUCCEEDED', 'completed', 0, ended.at, 1, 3, 300, 3, ended.at, ended.at, '{"n": 1}'
      from generate_series(1, ${count}) as number
      cross join lateral (select now() - interval '30 days' * (1 - number / ${count}::double precision) as at) as ended
      returning id
    )
    insert into runledger.job_events (job_id, seq, run_number, attempt, event_type, stage)
    select inserted.id, event.seq, 1, event.attempt, event.event_type, event.stage
    from inserted
    cross join (
      values (1, null, 'ENQUEUED', 'queued'), (2, 1, 'LEASED', 'running'), (3, 1, 'SUCCEEDED', 'completed')
    ) as event (seq, attempt, event_type, stage)`);
  await sql.unsafe("vacuum (analyze) runledger.job_queue, runledger.job_events");
}

/** Fills the queue with pending jobs, due in the past or scheduled for the next 30 days. */
export async function fillPending(
  sql: postgres.Sql,
  jobs: { readonly jobType: string; readonly count: number; readonly isFuture: boolean },
): Promise<void> {
  await sql.unsafe(
    `
    with inserted as (
      insert into runledger.job_queue (id, job_type, priority, next_run_at, max_attempts, timeout_seconds, payload)
      select
        runledger.new_id(), $1::text, 0,
        now() + interval '1 day' * (case when $3::boolean then 1 + number % 30 else -1 - number % 30 end), 3, 300,
        '{"n": 1}'
      from generate_series(1, $2::integer) as number
      returning id
    )
    insert into runledger.job_events (job_id, seq, run_number, event_type, stage)
    select inserted.id, 1, 1, 'ENQUEUED', 'queued'
    from inserted`,
    [jobs.jobType, jobs.count, jobs.isFuture],
  );
  await sql.unsafe("vacuum (analyze) runledger.job_queue, runledger.job_events");
}
