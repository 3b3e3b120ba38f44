/**
 * Running a schedule by hand.
 *
 * @module
 */

import { newId, RunledgerError } from "@runledger/core";
import { readOptionalText, readText } from "./_rows.ts";
import { operatorNote } from "./operator_note.ts";
import { runStatement } from "./queryable.ts";
import type { Queryable } from "./queryable.ts";
import { scheduledPayload } from "./schedule_fire.ts";
import type { ScheduleOperationOptions } from "./schedule_operations.ts";
import { scheduleName } from "./schedules.ts";
import { inScope, scopeValues } from "./scope.ts";

// locks: none; a new row. index: job_schedules_name_unique, job_definitions_pkey. no row: no such schedule in scope.
const RUN_NOW = `
with named as materialized (
  select
    schedule.id, schedule.name, schedule.job_type, schedule.organization_id, schedule.payload_template,
    clock_timestamp() as run_at
  from runledger.job_schedules as schedule
  where schedule.name = $1::text
    and ${inScope("schedule")}
),
inserted as (
  insert into runledger.job_queue (
    id, job_type, organization_id, stage, priority, next_run_at, max_attempts, timeout_seconds, payload
  )
  select
    $4::uuid, named.job_type, named.organization_id, 'scheduled', definition.priority, named.run_at,
    definition.max_attempts, definition.timeout_seconds, ${scheduledPayload("named", "named.run_at")}
  from named
  join runledger.job_definitions as definition on definition.job_type = named.job_type and definition.is_enabled
  returning id, stage
),
posted as (
  insert into runledger.job_events (job_id, seq, run_number, event_type, stage, payload)
  select
    inserted.id, 1, 1, 'ENQUEUED', inserted.stage,
    $5::text::jsonb || jsonb_build_object('schedule_id', named.id, 'schedule_name', named.name)
  from inserted
  cross join named
),
recorded as (
  insert into runledger.operator_actions (action, subject, organization_id, reason, actor, details)
  select
    'SCHEDULE_RUN', named.name, named.organization_id, $5::text::jsonb ->> 'reason', $5::text::jsonb ->> 'actor',
    jsonb_build_object('job_id', inserted.id)
  from inserted
  cross join named
)
select named.job_type, inserted.id as job_id
from named
left join inserted on true
`;

/**
 * Enqueues a job of a schedule now, beside those that it fires: its cursor stays where it is, and a paused schedule can be
 * run, too.
 *
 * One statement. The job is as if the schedule had fired at this moment, which is `_schedule.scheduled_for` of its payload;
 * its ENQUEUED event tells the schedule, reason and actor, and so do the actions of operators. Each call makes a job: after
 * `db.commit_unknown` look among these actions before calling again.
 *
 * @param db A pool, client or open transaction.
 * @param name The schedule.
 * @param options Whose schedule it must be, and what to record.
 * @returns The job.
 * @throws {RunledgerError} `job_schedule.not_found`; `job.definition_not_found_or_disabled`; `job.invalid_request` for a note
 * that cannot be; `db.*` codes.
 */
export async function runJobScheduleNow(
  db: Queryable,
  name: string,
  options: ScheduleOperationOptions,
): Promise<{ readonly jobId: string }> {
  const values = [scheduleName(name), ...scopeValues(options.scope), newId(), operatorNote(options)];
  const [row] = await runStatement(db, RUN_NOW, values, { write: true });
  if (row === undefined) throw new RunledgerError("job_schedule.not_found");
  const jobId = readOptionalText(row, "job_id");
  if (jobId === undefined) {
    throw new RunledgerError("job.definition_not_found_or_disabled", {
      details: { jobTypes: [readText(row, "job_type")] },
    });
  }
  return { jobId };
}
