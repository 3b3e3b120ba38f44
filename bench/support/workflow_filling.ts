/**
 * Many finished runs, made by the server in one statement.
 *
 * @module
 */

import type postgres from "postgres";

/** Fills the tables with runs of two steps that succeeded, their edges, jobs and ledgers. */
export async function fillFinishedRuns(sql: postgres.Sql, count: number): Promise<void> {
  await sql.unsafe(`
    with run as materialized (
      select runledger.new_id() as id, runledger.new_id() as first_id, runledger.new_id() as second_id
      from generate_series(1, ${count})
    ),
    step as materialized (
      select run.id as run_id, each.id, each.position
      from run
      cross join lateral (values (run.first_id, 1), (run.second_id, 2)) as each (id, position)
    ),
    inserted_run as (
      insert into runledger.workflow_runs (
        id, workflow_type, status, step_count, open_count, waiting_count, finished_at, enqueue_request
      )
      select run.id, 'bench.chain', 'SUCCEEDED', 2, 0, 0, now(), '{"metadata": {}, "steps": []}'
      from run
    ),
    inserted_step as (
      insert into runledger.workflow_steps (
        id, run_id, step_key, position, execution_kind, status, priority, max_attempts, timeout_seconds, dependency_count,
        pending_count, released_at, finished_at, job_type, stage, payload
      )
      select
        step.id, step.run_id, 'step-' || step.position, step.position, 'JOB', 'SUCCEEDED', 0, 3, 300, step.position - 1, 0,
        now(), now(), 'noop', 'queued', '{"n": 1}'
      from step
    ),
    inserted_edge as (
      insert into runledger.workflow_step_dependencies (prerequisite_step_id, dependent_step_id, release_mode)
      select run.first_id, run.second_id, 'ON_SUCCESS'
      from run
    ),
    inserted_job as (
      insert into runledger.job_queue (
        id, workflow_run_id, job_type, status, stage, priority, next_run_at, attempt, max_attempts, timeout_seconds,
        event_seq, started_at, finished_at, payload
      )
      select step.id, step.run_id, 'noop', 'SUCCEEDED', 'completed', 0, now(), 1, 3, 300, 3, now(), now(), '{"n": 1}'
      from step
    )
    insert into runledger.job_events (job_id, seq, run_number, attempt, event_type, stage)
    select step.id, event.seq, 1, event.attempt, event.event_type, event.stage
    from step
    cross join (
      values (1, null, 'ENQUEUED', 'queued'), (2, 1, 'LEASED', 'running'), (3, 1, 'SUCCEEDED', 'completed')
    ) as event (seq, attempt, event_type, stage)`);
}
