/**
 * What the test kit has to do now.
 *
 * @module
 */

import type { Queryable } from "@runledger/postgres";
import { askDatabase, runKitStatement } from "./kit_statement.ts";

/** A job that waits or runs, as much of it as the kit needs to know. */
export interface AgendaJob {
  readonly id: string;
  readonly job_type: string;
  readonly priority: number;
}

/** What is due. */
export interface Agenda {
  readonly leases: number;
  readonly gates: number;
  readonly schedules: number;
  /** Schedules whose cursor is beyond the present: the database's clock has set it. */
  readonly unanchored: readonly string[];
  /** The job that a claim of the kit's types would take. */
  readonly job: AgendaJob | null;
  /** Types of due jobs that the kit has no handler for. */
  readonly unhandled: readonly string[];
}

const READ_AGENDA = `
select jsonb_build_object(
  'leases', (
    select count(*)
    from runledger.job_queue as queue
    where queue.status = 'LEASED'
      and queue.lease_expires_at <= clock_timestamp()
  ),
  'gates', (
    select count(*)
    from runledger.workflow_steps as step
    where step.gate_expires_at <= clock_timestamp()
  ),
  'schedules', (
    select count(*)
    from runledger.job_schedules as schedule
    where schedule.is_active
      and schedule.next_fire_at <= $2::text::timestamptz
  ),
  'unanchored', (
    select coalesce(jsonb_agg(schedule.name), '[]')
    from runledger.job_schedules as schedule
    where schedule.is_active
      and schedule.next_fire_at > clock_timestamp()
  ),
  'job', (
    select jsonb_build_object('id', queue.id, 'job_type', queue.job_type, 'priority', queue.priority)
    from runledger.job_queue as queue
    where queue.status = 'PENDING'
      and queue.next_run_at <= clock_timestamp()
      and queue.job_type in (select jsonb_array_elements_text($1::text::jsonb))
    order by queue.priority desc, queue.next_run_at, queue.id
    limit 1
  ),
  'unhandled', (
    select coalesce(jsonb_agg(distinct queue.job_type), '[]')
    from runledger.job_queue as queue
    where queue.status = 'PENDING'
      and queue.next_run_at <= clock_timestamp()
      and queue.job_type not in (select jsonb_array_elements_text($1::text::jsonb))
  )
)::text as answer
`;

/** Looks what is due: jobs of these types, leases, gates, and schedules by the calendar. */
export async function readAgenda(db: Queryable, jobTypes: readonly string[], now: Date): Promise<Agenda> {
  return await askDatabase(db, READ_AGENDA, [JSON.stringify(jobTypes), now.toISOString()]) as Agenda;
}

const PULL_FORWARD = `
update runledger.job_queue as queue
set next_run_at = first.due_at - interval '1 millisecond'
from (
  select min(other.next_run_at) as due_at
  from runledger.job_queue as other
  where other.status = 'PENDING'
    and other.job_type = $2::text
) as first
where queue.id = $1::text::uuid
  and queue.status = 'PENDING'
  and queue.next_run_at <= clock_timestamp()
returning queue.id::text as id
`;

/** Makes a due job the first of its type and priority; says whether it is due. */
export async function pullForward(db: Queryable, jobId: string, jobType: string): Promise<boolean> {
  return (await runKitStatement(db, PULL_FORWARD, [jobId, jobType])).length === 1;
}
