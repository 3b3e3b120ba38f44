-- purpose: what everything in the schema is, for \d+ and \df+
-- locks: share update exclusive on each table and view, for an instant
-- rewrites: nothing
-- breaking: no

comment on table runledger.migration_history is
  'What migrations were applied. Written by migrate() only.';
comment on column runledger.migration_history.version is 'Number of the file.';
comment on column runledger.migration_history.name is 'Name of the file.';
comment on column runledger.migration_history.checksum is 'SHA-256 of the file as it was applied, in hexadecimal.';
comment on column runledger.migration_history.is_breaking is 'Whether older releases of the library can no longer work with the schema.';
comment on column runledger.migration_history.applied_at is 'When it was applied.';

comment on table runledger.job_definitions is
  'Job types: the defaults of their jobs, and whether new ones may be enqueued.';
comment on column runledger.job_definitions.job_type is 'The type.';
comment on column runledger.job_definitions.version is 'Version of the definition, for people.';
comment on column runledger.job_definitions.max_attempts is 'How many attempts a run may take, unless the request says otherwise.';
comment on column runledger.job_definitions.timeout_seconds is 'How long an attempt may take, unless the request says otherwise.';
comment on column runledger.job_definitions.priority is 'How urgent jobs are, higher first, unless the request says otherwise.';
comment on column runledger.job_definitions.is_enabled is 'Whether new jobs may be enqueued. Those that are queued still run.';
comment on column runledger.job_definitions.created_at is 'When it was first stored.';
comment on column runledger.job_definitions.updated_at is 'When it last changed.';

comment on table runledger.job_queue is
  'Jobs as they stand: one row each. What happened to them is in job_events; runledger.jobs has the same in words.';
comment on column runledger.job_queue.id is 'The job: a UUIDv7, so ids sort by the time at which they were made. The job of a workflow step has the step''s id.';
comment on column runledger.job_queue.job_type is 'Its type.';
comment on column runledger.job_queue.organization_id is 'Whose it is; null for nobody''s.';
comment on column runledger.job_queue.status is 'PENDING: waits. LEASED: a worker has it. SUCCEEDED, DEAD_LETTERED (failed for good), CANCELED: ended.';
comment on column runledger.job_queue.stage is 'How far it has come, for people: queued, scheduled, running or completed.';
comment on column runledger.job_queue.priority is 'How urgent it is; higher goes first.';
comment on column runledger.job_queue.next_run_at is 'When it is or was due.';
comment on column runledger.job_queue.run_number is 'Its run, from 1: one more after each continuation and requeue.';
comment on column runledger.job_queue.attempt is 'The newest attempt of the run; 0 before the first claim.';
comment on column runledger.job_queue.max_attempts is 'How many attempts a run may take.';
comment on column runledger.job_queue.timeout_seconds is 'How long an attempt may take.';
comment on column runledger.job_queue.event_seq is 'How many events its ledger has.';
comment on column runledger.job_queue.lease_token is 'Proof of the lease; null unless leased.';
comment on column runledger.job_queue.lease_expires_at is 'Until when it is leased. Of a cancelled job: until when its handler may still be at work.';
comment on column runledger.job_queue.last_heartbeat_at is 'When its worker last gave a sign of life, while it is leased.';
comment on column runledger.job_queue.started_at is 'When the run was first claimed.';
comment on column runledger.job_queue.finished_at is 'When it ended.';
comment on column runledger.job_queue.created_at is 'When it was enqueued; of a workflow step, when the step was released.';
comment on column runledger.job_queue.progress_done is 'Units done, as the handler reports.';
comment on column runledger.job_queue.progress_total is 'Units in all, as the handler reports.';
comment on column runledger.job_queue.workflow_run_id is 'The workflow run of the step that it carries out.';
comment on column runledger.job_queue.replay_of_job_id is 'The job that it replays.';
comment on column runledger.job_queue.replay_of_run_number is 'The run of that job.';
comment on column runledger.job_queue.worker_id is 'Who holds it, while it is leased.';
comment on column runledger.job_queue.traceparent is 'Where it was asked for: W3C Trace Context, for tracing.';
comment on column runledger.job_queue.idempotency_key is 'The producer''s key: unique for each type and organization, for ever.';
comment on column runledger.job_queue.replay_key is 'The operator''s key: a replay is made once for each.';
comment on column runledger.job_queue.status_reason is 'Why it stands where it stands: a kind of failure, or what somebody said.';
comment on column runledger.job_queue.last_error_code is 'Code of its newest failure that is still open.';
comment on column runledger.job_queue.last_error_message is 'Message of that failure.';
comment on column runledger.job_queue.payload is 'What its handler is given: what was enqueued, or what an operator put in its place.';
comment on column runledger.job_queue.checkpoint is 'Where its next attempt goes on.';
comment on column runledger.job_queue.output is 'What it gave, if it succeeded.';
comment on column runledger.job_queue.enqueue_request is 'The request as it was made, to compare with later ones of its key.';

comment on table runledger.job_events is
  'The ledger: one row for everything that ever happened to a job. Append-only. Events add up to the row of job_queue.';
comment on column runledger.job_events.job_id is 'The job.';
comment on column runledger.job_events.seq is 'Its place among the job''s events: 1 to n without gaps.';
comment on column runledger.job_events.run_number is 'The run that it belongs to.';
comment on column runledger.job_events.attempt is 'The attempt that it belongs to; null if to none.';
comment on column runledger.job_events.event_type is 'ENQUEUED, LEASED, HEARTBEAT, PROGRESS, STAGE_CHANGED, SUCCEEDED, FAILED, RETRY_SCHEDULED, DEAD_LETTERED, CANCELED, REQUEUED or EDITED.';
comment on column runledger.job_events.stage is 'The stage after it.';
comment on column runledger.job_events.occurred_at is 'When it was posted, by the database''s clock.';
comment on column runledger.job_events.posted_xid is 'The transaction that posted it, for readers that follow the ledger.';
comment on column runledger.job_events.progress_done is 'Units done, where it tells.';
comment on column runledger.job_events.progress_total is 'Units in all, where it tells.';
comment on column runledger.job_events.payload is 'What else is known; the fields depend on the type.';

comment on table runledger.job_dead_letters is
  'Jobs that failed for good and wait for somebody. A requeue takes the row away.';
comment on column runledger.job_dead_letters.job_id is 'The job.';
comment on column runledger.job_dead_letters.job_type is 'Its type.';
comment on column runledger.job_dead_letters.organization_id is 'Whose it is; null for nobody''s.';
comment on column runledger.job_dead_letters.run_number is 'The run that failed.';
comment on column runledger.job_dead_letters.attempt is 'The attempt that failed last.';
comment on column runledger.job_dead_letters.failure_kind is 'How it failed: RETRYABLE, TERMINAL, TIMEOUT, PANICKED or LEASE_EXPIRED.';
comment on column runledger.job_dead_letters.reason is 'Why no retry followed: FAILURE_KIND_NON_RETRYABLE, ATTEMPTS_EXHAUSTED or LEASE_EXPIRED.';
comment on column runledger.job_dead_letters.error_code is 'Code of the last failure.';
comment on column runledger.job_dead_letters.error_message is 'Message of the last failure.';
comment on column runledger.job_dead_letters.failed_at is 'When it failed for good.';
comment on column runledger.job_dead_letters.payload_snapshot is 'The payload that it failed with.';
comment on column runledger.job_dead_letters.checkpoint_snapshot is 'The checkpoint that it failed with.';

comment on table runledger.job_logs is
  'Lines that handlers logged.';
comment on column runledger.job_logs.id is 'Place among all lines.';
comment on column runledger.job_logs.job_id is 'The job.';
comment on column runledger.job_logs.run_number is 'The run that wrote it.';
comment on column runledger.job_logs.attempt is 'The attempt that wrote it.';
comment on column runledger.job_logs.level is 'debug, info, warn or error.';
comment on column runledger.job_logs.message is 'What it says.';
comment on column runledger.job_logs.payload is 'More, for programs.';
comment on column runledger.job_logs.occurred_at is 'When it was stored.';

comment on table runledger.job_runtime_configs is
  'One JSON object for each job type that operators may change while workers run.';
comment on column runledger.job_runtime_configs.job_type is 'The type.';
comment on column runledger.job_runtime_configs.schema_version is 'Version of the object''s shape, for the code that reads it.';
comment on column runledger.job_runtime_configs.config is 'The object.';
comment on column runledger.job_runtime_configs.updated_by_user_id is 'Who stored it; opaque to the library.';
comment on column runledger.job_runtime_configs.created_at is 'When it was first stored.';
comment on column runledger.job_runtime_configs.updated_at is 'When it was last stored.';

comment on table runledger.job_schedules is
  'What is enqueued again and again.';
comment on column runledger.job_schedules.id is 'The schedule.';
comment on column runledger.job_schedules.name is 'What it is called; unique across organizations.';
comment on column runledger.job_schedules.job_type is 'The type of its jobs.';
comment on column runledger.job_schedules.organization_id is 'Whose its jobs are; null for nobody''s.';
comment on column runledger.job_schedules.payload_template is 'The payload of its jobs, to which _schedule is added.';
comment on column runledger.job_schedules.cron_expression is 'When it fires.';
comment on column runledger.job_schedules.timezone is 'The IANA zone of the expression.';
comment on column runledger.job_schedules.is_active is 'Whether it fires.';
comment on column runledger.job_schedules.needs_enabled is 'True while it is active, else null: refers to an enabled definition.';
comment on column runledger.job_schedules.next_fire_at is 'The cursor: when it fires next, jitter included. Null: never again.';
comment on column runledger.job_schedules.last_fired_at is 'When it fired last.';
comment on column runledger.job_schedules.max_jitter_seconds is 'Up to how many seconds later it fires than its expression says.';
comment on column runledger.job_schedules.created_at is 'When it was first stored.';
comment on column runledger.job_schedules.updated_at is 'When it was last changed; firing is no change.';

comment on table runledger.operator_actions is
  'What operators did to job types, schedules and workflow runs, which have no ledger of their own. Append-only. What a catalog''s sync does is not in it.';
comment on column runledger.operator_actions.id is 'Place among all actions.';
comment on column runledger.operator_actions.action is 'JOB_TYPE_ENABLED, JOB_TYPE_DISABLED, SCHEDULE_RESUMED, SCHEDULE_PAUSED, SCHEDULE_MOVED, SCHEDULE_RUN, SCHEDULE_DELETED, RUN_CANCELED or RUN_RECOVERED.';
comment on column runledger.operator_actions.subject is 'The job type, the name of the schedule, or the run.';
comment on column runledger.operator_actions.organization_id is 'Whose the schedule or run is; null for nobody''s, and for job types.';
comment on column runledger.operator_actions.reason is 'Why, as the operator said.';
comment on column runledger.operator_actions.actor is 'Who; opaque to the library.';
comment on column runledger.operator_actions.details is 'What else is known: the dates of SCHEDULE_MOVED, the job of SCHEDULE_RUN, the new run of RUN_RECOVERED.';
comment on column runledger.operator_actions.occurred_at is 'When, by the database''s clock.';

comment on table runledger.workflow_runs is
  'Workflow runs as they stand: one row each, which whoever changes the run locks first.';
comment on column runledger.workflow_runs.id is 'The run: a UUIDv7.';
comment on column runledger.workflow_runs.workflow_type is 'Which kind of workflow.';
comment on column runledger.workflow_runs.organization_id is 'Whose it is; null for nobody''s.';
comment on column runledger.workflow_runs.status is 'RUNNING, WAITING_FOR_EXTERNAL (only gates are open), SUCCEEDED, COMPLETED_WITH_ERRORS or CANCELED.';
comment on column runledger.workflow_runs.step_count is 'How many steps it has.';
comment on column runledger.workflow_runs.open_count is 'How many are blocked, queued or running.';
comment on column runledger.workflow_runs.waiting_count is 'How many gates are open.';
comment on column runledger.workflow_runs.unsuccessful_count is 'How many steps failed or were cancelled.';
comment on column runledger.workflow_runs.created_at is 'When it was enqueued.';
comment on column runledger.workflow_runs.finished_at is 'When it ended.';
comment on column runledger.workflow_runs.recovery_of_run_id is 'The run that it recovers.';
comment on column runledger.workflow_runs.traceparent is 'Where it was asked for: W3C Trace Context, for tracing.';
comment on column runledger.workflow_runs.idempotency_key is 'The producer''s key: unique for each type and organization, for ever.';
comment on column runledger.workflow_runs.active_key is 'At most one live run of an organization has it.';
comment on column runledger.workflow_runs.recovery_key is 'The operator''s key: a recovery is made once for each.';
comment on column runledger.workflow_runs.recovery_mode is 'REPLAY (from the start) or RESUME (from the steps that failed).';
comment on column runledger.workflow_runs.status_reason is 'Why it was cancelled.';
comment on column runledger.workflow_runs.enqueue_request is 'The canonical request: metadata, result step, steps and edges.';

comment on table runledger.workflow_steps is
  'Steps of workflow runs: one row each. What a job step does meanwhile is in job_queue, under the same id.';
comment on column runledger.workflow_steps.id is 'The step, and the job that carries it out.';
comment on column runledger.workflow_steps.run_id is 'The run.';
comment on column runledger.workflow_steps.step_key is 'Its name within the run.';
comment on column runledger.workflow_steps.position is 'Its place in an order in which the steps can run, from 1.';
comment on column runledger.workflow_steps.execution_kind is 'JOB, or EXTERNAL for a gate.';
comment on column runledger.workflow_steps.status is 'BLOCKED, WAITING_FOR_EXTERNAL, ENQUEUED (from release to end, also while it runs), SUCCEEDED, FAILED or CANCELED.';
comment on column runledger.workflow_steps.organization_id is 'Whose it is; null for nobody''s.';
comment on column runledger.workflow_steps.priority is 'Priority of its job.';
comment on column runledger.workflow_steps.max_attempts is 'Attempts of its job.';
comment on column runledger.workflow_steps.timeout_seconds is 'Timeout of an attempt of its job.';
comment on column runledger.workflow_steps.dependency_count is 'How many prerequisites it has.';
comment on column runledger.workflow_steps.pending_count is 'How many of them have not ended.';
comment on column runledger.workflow_steps.unsatisfied_count is 'How many of them should have succeeded and did not.';
comment on column runledger.workflow_steps.allows_continuation is 'Whether its handler may go on in a new run.';
comment on column runledger.workflow_steps.released_at is 'When it was queued or opened.';
comment on column runledger.workflow_steps.finished_at is 'When it ended.';
comment on column runledger.workflow_steps.gate_expires_at is 'When an open gate gets its default outcome.';
comment on column runledger.workflow_steps.gate_timeout_ms is 'How long the gate stays open, in milliseconds.';
comment on column runledger.workflow_steps.job_type is 'Type of its job; null for a gate.';
comment on column runledger.workflow_steps.stage is 'Stage that its job begins with.';
comment on column runledger.workflow_steps.gate_outcome is 'The default outcome of the gate.';
comment on column runledger.workflow_steps.status_reason is 'Why it stands where it stands.';
comment on column runledger.workflow_steps.last_error_code is 'Code of its failure.';
comment on column runledger.workflow_steps.last_error_message is 'Message of its failure.';
comment on column runledger.workflow_steps.payload is 'What it was given.';
comment on column runledger.workflow_steps.gate_output is 'What the gate gives by default.';
comment on column runledger.workflow_steps.output is 'What a gate was completed with, or what a recovered run took over. The output of a job step is with its job.';

comment on table runledger.workflow_step_dependencies is
  'Edges of workflow runs.';
comment on column runledger.workflow_step_dependencies.prerequisite_step_id is 'The step that has to end first.';
comment on column runledger.workflow_step_dependencies.dependent_step_id is 'The step that waits.';
comment on column runledger.workflow_step_dependencies.release_mode is 'ON_SUCCESS: it has to succeed. ON_TERMINAL: it has to end.';

comment on table runledger.workflow_run_mutations is
  'What was done to a run after it was enqueued.';
comment on column runledger.workflow_run_mutations.run_id is 'The run.';
comment on column runledger.workflow_run_mutations.mutation_key is 'The key under which it was done, once.';
comment on column runledger.workflow_run_mutations.mutation_kind is 'APPEND_STEPS.';
comment on column runledger.workflow_run_mutations.occurred_at is 'When.';
comment on column runledger.workflow_run_mutations.metadata is 'What the caller kept with it.';
comment on column runledger.workflow_run_mutations.request is 'What was asked for, in canonical form.';

comment on view runledger.job_attempts is
  'Attempts of jobs, read from the ledger. Ask for one job_id: without it the whole ledger is read.';
comment on column runledger.job_attempts.job_id is 'The job.';
comment on column runledger.job_attempts.seq is 'The event that began it.';
comment on column runledger.job_attempts.run_number is 'The run that it belongs to.';
comment on column runledger.job_attempts.attempt is 'Its number within the run, from 1.';
comment on column runledger.job_attempts.worker_id is 'Who made it.';
comment on column runledger.job_attempts.leased_at is 'When it began.';
comment on column runledger.job_attempts.finished_at is 'When it ended.';
comment on column runledger.job_attempts.closed_by is 'The event that ended it: SUCCEEDED, FAILED, CANCELED or REQUEUED.';
comment on column runledger.job_attempts.outcome is 'The kind of failure.';
comment on column runledger.job_attempts.error_code is 'Code of the failure.';
comment on column runledger.job_attempts.error_message is 'Message of the failure.';
comment on column runledger.job_attempts.retry_delay_ms is 'Delay of the retry policy, if a retry follows.';
comment on column runledger.job_attempts.next_run_at is 'When the retry was due.';

comment on view runledger.workflow_step_runs is
  'Steps of workflow runs, with what their jobs do. Ask for one run_id, or for few: without it all steps are read.';
comment on column runledger.workflow_step_runs.run_id is 'The run.';
comment on column runledger.workflow_step_runs.workflow is 'Its type.';
comment on column runledger.workflow_step_runs.step is 'The step''s name.';
comment on column runledger.workflow_step_runs.position is 'Its place in the run, from 1.';
comment on column runledger.workflow_step_runs.step_count is 'How many steps the run has.';
comment on column runledger.workflow_step_runs.status is 'Where the step stands, RUNNING included.';
comment on column runledger.workflow_step_runs.posted_at is 'When it got there.';
comment on column runledger.workflow_step_runs.duration is 'How long it took, from the first claim or the opening of the gate.';
comment on column runledger.workflow_step_runs.attempt is 'The newest attempt of its job.';
comment on column runledger.workflow_step_runs.error_code is 'Code of its failure.';
comment on column runledger.workflow_step_runs.reason is 'Why it stands where it stands.';
comment on column runledger.workflow_step_runs.organization_id is 'Whose run it is; null for nobody''s.';
comment on column runledger.workflow_step_runs.run_status is 'Where the run stands.';
comment on column runledger.workflow_step_runs.step_id is 'The step, and its job.';

comment on view runledger.jobs is
  'Jobs in words. For the newest: order by job_id desc limit 20. Filters that no index serves read the whole table; listJobs() of the library does not.';
comment on column runledger.jobs.job_id is 'The job.';
comment on column runledger.jobs.job_type is 'Its type.';
comment on column runledger.jobs.status is 'Where it stands, as stored.';
comment on column runledger.jobs.state is 'Where it stands, in words.';
comment on column runledger.jobs.why is 'Why it waits, who has it, how it failed.';
comment on column runledger.jobs.organization_id is 'Whose it is; null for nobody''s.';
comment on column runledger.jobs.priority is 'How urgent it is; higher goes first.';
comment on column runledger.jobs.run_number is 'Its run, from 1.';
comment on column runledger.jobs.attempt is 'The newest attempt of the run; 0 before the first claim.';
comment on column runledger.jobs.max_attempts is 'How many attempts a run may take.';
comment on column runledger.jobs.created_at is 'When it was enqueued.';
comment on column runledger.jobs.next_run_at is 'When it is or was due.';
comment on column runledger.jobs.started_at is 'When the run was first claimed.';
comment on column runledger.jobs.finished_at is 'When it ended.';
comment on column runledger.jobs.worker_id is 'Who holds it.';
comment on column runledger.jobs.lease_expires_at is 'Until when it is held; of a cancelled job, until when its handler may be at work.';
comment on column runledger.jobs.progress_done is 'Units done.';
comment on column runledger.jobs.progress_total is 'Units in all.';
comment on column runledger.jobs.last_error_code is 'Code of its newest failure that is still open.';
comment on column runledger.jobs.last_error_message is 'Message of that failure.';
comment on column runledger.jobs.workflow_run_id is 'The workflow run that it belongs to.';
comment on column runledger.jobs.replay_of_job_id is 'The job that it replays.';
comment on column runledger.jobs.idempotency_key is 'The producer''s key.';
comment on column runledger.jobs.payload is 'What was enqueued.';
comment on column runledger.jobs.checkpoint is 'Where its next attempt goes on.';
comment on column runledger.jobs.output is 'What it gave.';

comment on view runledger.job_metrics_rollup is
  'How job types are doing, told by the newest 2000 jobs that ended within a day, and by what waits. Cheap at any size of the tables.';
comment on column runledger.job_metrics_rollup.job_type is 'The type.';
comment on column runledger.job_metrics_rollup.due is 'Jobs that are due and wait for a worker; at least so many unless is_depth_complete.';
comment on column runledger.job_metrics_rollup.scheduled is 'Jobs that wait for their time, retries included; at least so many unless is_depth_complete.';
comment on column runledger.job_metrics_rollup.leased is 'Jobs that are leased.';
comment on column runledger.job_metrics_rollup.leases_run_out is 'Of these, jobs whose lease has run out.';
comment on column runledger.job_metrics_rollup.is_depth_complete is 'Whether all that wait were counted.';
comment on column runledger.job_metrics_rollup.oldest_due_ms is 'How long the job that is due longest has waited.';
comment on column runledger.job_metrics_rollup.oldest_lease_ms is 'How long ago the run of a leased job began, at most.';
comment on column runledger.job_metrics_rollup.sampled_since is 'The jobs that the rest is told of ended at this time or later.';
comment on column runledger.job_metrics_rollup.is_sample_complete is 'Whether these are all of the last day.';
comment on column runledger.job_metrics_rollup.succeeded is 'Jobs that succeeded.';
comment on column runledger.job_metrics_rollup.dead_lettered is 'Jobs that failed for good.';
comment on column runledger.job_metrics_rollup.canceled is 'Jobs that were cancelled.';
comment on column runledger.job_metrics_rollup.ended_per_minute is 'How many jobs ended in a minute, since sampled_since.';
comment on column runledger.job_metrics_rollup.attempts is 'Claims of these jobs.';
comment on column runledger.job_metrics_rollup.retries is 'Failed attempts that were followed by another one.';
comment on column runledger.job_metrics_rollup.timeouts is 'Attempts that took too long.';
comment on column runledger.job_metrics_rollup.lease_expiries is 'Attempts whose worker died or hung.';
comment on column runledger.job_metrics_rollup.panics is 'Attempts that failed in a way that no retry mends.';
comment on column runledger.job_metrics_rollup.continuations is 'Slices after which a handler went on in a new run.';
comment on column runledger.job_metrics_rollup.wait_ms_p50 is 'From being due to being claimed: half took no longer, in milliseconds.';
comment on column runledger.job_metrics_rollup.wait_ms_p95 is 'From being due to being claimed: 95 of 100 took no longer, in milliseconds.';
comment on column runledger.job_metrics_rollup.wait_ms_p99 is 'From being due to being claimed: 99 of 100 took no longer, in milliseconds.';
comment on column runledger.job_metrics_rollup.run_ms_p50 is 'From a claim to the end of its attempt: half took no longer, in milliseconds.';
comment on column runledger.job_metrics_rollup.run_ms_p95 is 'From a claim to the end of its attempt: 95 of 100 took no longer, in milliseconds.';
comment on column runledger.job_metrics_rollup.run_ms_p99 is 'From a claim to the end of its attempt: 99 of 100 took no longer, in milliseconds.';

comment on function runledger.new_id is 'A UUIDv7.';
comment on function runledger.refuse_job_transition is 'Trigger: refuses changes of a job''s status that the state machine does not have.';
comment on function runledger.refuse_workflow_transition is 'Trigger: refuses changes of a run''s or step''s status that the state machine does not have.';
comment on function runledger.refuse_ledger_change is 'Trigger: the ledger and the actions of operators are append-only.';
comment on function runledger.enqueue_jobs is 'Enqueues jobs, all or none. Called by enqueueJobs().';
comment on function runledger.claim_jobs is 'Claims due jobs. Called by claimJobs().';
comment on function runledger.settle_jobs is 'Ends attempts. Called by settleJobs() and reapExpiredLeases().';
comment on function runledger.delete_finished_jobs is 'Retention: the only way out for jobs and their ledger. Called by deleteFinishedJobs().';
comment on function runledger.delete_finished_workflow_runs is 'Retention: the only way out for workflow runs. Called by deleteFinishedWorkflowRuns().';
comment on function runledger.enqueue_workflow_runs is 'Enqueues workflow runs, all or none. Called by enqueueWorkflowRuns().';
comment on function runledger.place_workflow_steps is 'Inserts the steps and edges of runs and releases those that wait for nothing. Part of other functions.';
comment on function runledger.release_workflow_dependents is 'Counts the edges of steps that ended and releases or cancels what waited for them. Part of other functions.';
comment on function runledger.finish_workflow_steps is 'Ends steps whose jobs ended. Part of whatever ends jobs.';
comment on function runledger.cancel_locked_jobs is 'Cancels jobs that the caller has locked. Part of cancelJob() and cancelWorkflowRun().';
comment on function runledger.complete_external_step is 'Completes a gate. Called by completeExternalStep().';
comment on function runledger.expire_workflow_gates is 'Gives gates whose time is over their default outcome. Called by expireWorkflowGates().';
comment on function runledger.cancel_workflow_run is 'Cancels a run with its steps and jobs. Called by cancelWorkflowRun().';
comment on function runledger.append_workflow_steps is 'Appends steps while a gate is open. Called by appendWorkflowSteps().';
comment on function runledger.recover_workflow_run is 'Replays or resumes a run as a new one. Called by recoverWorkflowRun().';
comment on function runledger.set_job_definitions_enabled is 'Switches job types on or off. Called by setJobDefinitionEnabled().';
comment on function runledger.job_metrics is 'How job types are doing. Called by readJobMetrics(); runledger.job_metrics_rollup shows it for everything.';
