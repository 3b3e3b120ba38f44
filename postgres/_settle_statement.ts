/**
 * The tail that every end of an attempt shares, whether a worker reports it or the reaper finds it.
 *
 * @module
 */

// Goes on from a CTE `held (ord, job_id, run_number, attempt, kind, next_status, more)` whose job rows are locked and
// whose leases were checked after the lock. `ord` is its place in the caller's batch, `kind` the kind of a JobOutcome;
// `more` holds what only some outcomes carry and is null for a plain success, which keeps the hot path short.
// What the end of a workflow step releases is released here, by the same statement: the caller joins `released` to have
// it done, and holds the locks of the runs.
// locks: nothing more. index: job_queue_pkey.
export const SETTLE_HELD = `
settled as (
  update runledger.job_queue as queue
  set status = held.next_status,
    stage = case held.next_status when 'SUCCEEDED' then 'completed' when 'PENDING' then 'queued' else queue.stage end,
    run_number = queue.run_number + (held.kind = 'continued')::integer,
    attempt = case held.kind when 'continued' then 0 when 'snoozed' then queue.attempt - 1 else queue.attempt end,
    event_seq = queue.event_seq + 1 + (held.kind = 'failed')::integer,
    next_run_at = case
      when held.next_status = 'PENDING' then
        greatest(
          clock_timestamp() + (held.more ->> 'delay_ms')::bigint * interval '1 millisecond',
          clock_timestamp() + (held.more ->> 'not_before_delay_ms')::bigint * interval '1 millisecond',
          (held.more ->> 'not_before')::timestamptz
        )
      else queue.next_run_at
    end,
    worker_id = null,
    lease_token = null,
    lease_expires_at = null,
    last_heartbeat_at = null,
    started_at = case held.kind when 'continued' then null else queue.started_at end,
    finished_at = case when held.next_status <> 'PENDING' then clock_timestamp() end,
    progress_done = coalesce((held.more ->> 'progress_done')::bigint, queue.progress_done),
    progress_total = coalesce((held.more ->> 'progress_total')::bigint, queue.progress_total),
    checkpoint = coalesce(held.more -> 'checkpoint', queue.checkpoint),
    output = case held.kind when 'succeeded' then held.more -> 'output' end,
    status_reason = case held.kind when 'failed' then held.more ->> 'failure_kind' else held.more ->> 'reason' end,
    -- Neither a snooze nor a cancellation says that it went well: what the last attempt met stays in sight.
    last_error_code = case
      when held.kind in ('snoozed', 'canceled') then queue.last_error_code
      else held.more ->> 'error_code'
    end,
    last_error_message = case
      when held.kind in ('snoozed', 'canceled') then queue.last_error_message
      else held.more ->> 'error_message'
    end
  from held
  where queue.id = held.job_id
  returning
    queue.id, queue.status, queue.stage, queue.event_seq, queue.next_run_at, queue.finished_at, queue.progress_done,
    queue.progress_total, queue.job_type, queue.organization_id, queue.workflow_run_id,
    held.ord, held.kind, held.run_number, held.attempt, held.more,
    case
      when queue.status <> 'DEAD_LETTERED' then null
      when held.more ->> 'failure_kind' in ('TERMINAL', 'PANICKED') then 'FAILURE_KIND_NON_RETRYABLE'
      when held.more ->> 'failure_kind' = 'LEASE_EXPIRED' then 'LEASE_EXPIRED'
      else 'ATTEMPTS_EXHAUSTED'
    end as dead_reason,
    case queue.status when 'DEAD_LETTERED' then queue.payload end as dead_payload,
    case queue.status when 'DEAD_LETTERED' then queue.checkpoint end as dead_checkpoint
),
posted as (
  insert into runledger.job_events (
    job_id, seq, run_number, attempt, event_type, stage, progress_done, progress_total, payload
  )
  select
    settled.id, settled.event_seq - (settled.kind = 'failed')::integer, settled.run_number, settled.attempt,
    case settled.kind
      when 'succeeded' then 'SUCCEEDED' when 'failed' then 'FAILED' when 'canceled' then 'CANCELED' else 'REQUEUED'
    end,
    case settled.kind when 'failed' then 'running' else settled.stage end,
    settled.progress_done, settled.progress_total,
    case settled.kind
      when 'succeeded' then null
      when 'failed' then jsonb_build_object(
        'kind', settled.more ->> 'failure_kind', 'error_code', settled.more ->> 'error_code',
        'error_message', settled.more ->> 'error_message'
      )
      when 'canceled' then jsonb_strip_nulls(jsonb_build_object('reason', settled.more ->> 'reason'))
      when 'continued' then jsonb_build_object(
        'requeue_kind', 'HANDLER_CONTINUATION', 'reason', 'HANDLER_CONTINUATION',
        'next_run_number', settled.run_number + 1, 'next_run_at', settled.next_run_at,
        'delay_ms', settled.more -> 'delay_ms'
      )
      else jsonb_build_object(
        'requeue_kind', 'SNOOZE', 'reason', settled.more ->> 'reason', 'next_run_at', settled.next_run_at,
        'delay_ms', settled.more -> 'delay_ms'
      )
    end
  from settled
  union all
  select
    settled.id, settled.event_seq, settled.run_number, settled.attempt,
    case settled.status when 'PENDING' then 'RETRY_SCHEDULED' else 'DEAD_LETTERED' end,
    settled.stage, null, null,
    case settled.status
      when 'PENDING' then jsonb_strip_nulls(jsonb_build_object(
        'kind', settled.more ->> 'failure_kind', 'retry_delay_ms', settled.more -> 'delay_ms',
        'requested_retry_not_before', settled.more ->> 'not_before',
        'requested_retry_delay_ms', settled.more -> 'not_before_delay_ms', 'next_run_at', settled.next_run_at
      ))
      else jsonb_build_object(
        'kind', settled.more ->> 'failure_kind', 'error_code', settled.more ->> 'error_code',
        'reason', settled.dead_reason
      )
    end
  from settled
  where settled.kind = 'failed'
),
buried as (
  insert into runledger.job_dead_letters (
    job_id, job_type, organization_id, run_number, attempt, failure_kind, reason, error_code, error_message, failed_at,
    payload_snapshot, checkpoint_snapshot
  )
  select
    settled.id, settled.job_type, settled.organization_id, settled.run_number, settled.attempt,
    settled.more ->> 'failure_kind', settled.dead_reason, settled.more ->> 'error_code',
    settled.more ->> 'error_message', settled.finished_at, settled.dead_payload, settled.dead_checkpoint
  from settled
  where settled.status = 'DEAD_LETTERED'
),
released as materialized (
  select runledger.finish_workflow_steps(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
    'step_id', settled.id, 'run_id', settled.workflow_run_id,
    'status', case settled.status when 'DEAD_LETTERED' then 'FAILED' else settled.status end,
    'reason', coalesce(settled.more ->> 'reason', settled.more ->> 'failure_kind', 'SUCCEEDED'),
    'error_code', settled.more ->> 'error_code', 'error_message', settled.more ->> 'error_message'
  ))))
  from settled
  where settled.workflow_run_id is not null
    and settled.status <> 'PENDING'
  having count(*) > 0
)`;
