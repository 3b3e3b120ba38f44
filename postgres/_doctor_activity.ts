/**
 * What is wrong with those who should be at work: workers, reapers, schedulers, and notifications between them.
 *
 * @module
 */

import { readBoolean, readInteger, readJson } from "./_rows.ts";
import type { HealthFinding, HealthLimits } from "./doctor.ts";
import { formatDuration } from "./explanation_text.ts";
import { readJobMetrics } from "./job_metrics.ts";
import { runStatement } from "./queryable.ts";
import type { Queryable } from "./queryable.ts";
import { listenTo } from "./wake_ups.ts";

// A worker extends its leases each third of them: after four fifths without, it has missed two.
// By the time of the statement, since a clock that runs on is no condition for an index.
// index: job_queue_lease_index, job_schedules_due_index, workflow_steps_gate_index, job_events_posted_index. always one row.
const EXAMINE_ACTIVITY = `
with lease as materialized (
  select queue.worker_id, queue.lease_expires_at, queue.last_heartbeat_at
  from runledger.job_queue as queue
  where queue.status = 'LEASED'
  order by queue.lease_expires_at
  limit 10000
),
silent as (
  select lease.worker_id, count(*) as leases
  from lease
  where lease.lease_expires_at > statement_timestamp()
    and lease.last_heartbeat_at + (lease.lease_expires_at - lease.last_heartbeat_at) * 0.8 < statement_timestamp()
  group by lease.worker_id
  order by lease.worker_id
  limit 20
),
overdue as (
  select schedule.name, schedule.next_fire_at
  from runledger.job_schedules as schedule
  where schedule.is_active
    and schedule.next_fire_at < statement_timestamp() - $1::integer * interval '1 millisecond'
  order by schedule.next_fire_at
  limit 1000
),
gate as (
  select step.id
  from runledger.workflow_steps as step
  where step.gate_expires_at < statement_timestamp() - $1::integer * interval '1 millisecond'
  order by step.gate_expires_at
  limit 1000
)
select
  (
    select count(*)
    from lease
    where lease.lease_expires_at < statement_timestamp() - $1::integer * interval '1 millisecond'
  )::text as not_reaped,
  (
    select coalesce(jsonb_agg(jsonb_build_object('worker', silent.worker_id, 'leases', silent.leases)), '[]')
    from silent
  )::text as silent,
  (select count(*) from overdue)::text as overdue,
  (select coalesce(jsonb_agg(first.name), '[]') from (select overdue.name from overdue limit 3) as first)::text as names,
  (select count(*) from gate)::text as gates,
  -- What is seen was written by a transaction of this server that has begun.
  coalesce(
    (select event.posted_xid from runledger.job_events as event order by event.posted_xid desc limit 1)
    >= pg_snapshot_xmax(pg_current_snapshot()),
    false
  ) as is_ledger_ahead
`;

/** Examines what should have been done and was not. */
export async function activityFindings(db: Queryable, limits: HealthLimits): Promise<readonly HealthFinding[]> {
  const [row] = await runStatement(db, EXAMINE_ACTIVITY, [limits.overdueMs]);
  if (row === undefined) return [];
  const findings: HealthFinding[] = [];
  const notReaped = readInteger(row, "not_reaped");
  if (notReaped > 0) {
    findings.push({
      code: "leases_not_reaped",
      severity: "problem",
      message: `${notReaped} leases ran out more than ${formatDuration(limits.overdueMs)} ago, and no reaper has come.`,
      fix: "Run a Supervisor with its reaper; any number of them may run.",
    });
  }
  const silent = readJson(row, "silent") as readonly { readonly worker: string; readonly leases: number }[];
  for (const { worker, leases } of silent) {
    findings.push({
      code: "heartbeats_missed",
      severity: "warning",
      subject: worker,
      message: `The worker ${worker} has not extended ${leases} of its leases in time.`,
      fix: "See whether it lives, whether its event loop is blocked, and whether it reaches the database.",
    });
  }
  const overdue = readInteger(row, "overdue");
  if (overdue > 0) {
    const names = (readJson(row, "names") as readonly string[]).join(", ");
    findings.push({
      code: "schedules_overdue",
      severity: "problem",
      message: `${overdue} schedules are overdue by more than ${formatDuration(limits.overdueMs)}: ${names}${
        overdue > 3 ? ", ..." : ""
      }.`,
      fix: "Run a Supervisor with its scheduler; any number of them may run.",
    });
  }
  const gates = readInteger(row, "gates");
  if (gates > 0) {
    findings.push({
      code: "gates_overdue",
      severity: "problem",
      message: `${gates} gates should have had their default outcome more than ${
        formatDuration(limits.overdueMs)
      } ago.`,
      fix: "Run a Supervisor with its reaper, which ends them.",
    });
  }
  if (readBoolean(row, "is_ledger_ahead")) {
    findings.push({
      code: "ledger_ahead",
      severity: "warning",
      message:
        "The ledger came from another server, whose transactions had higher numbers: whoever follows it is told of " +
        "the past when those of this server get there.",
      fix: "Give these events a number that has passed, as docs/operations.md says of a restored dump.",
    });
  }
  for (const { jobType, due, oldestDueMs } of await readJobMetrics(db, { scope: "all", sampleSize: 1 })) {
    if (oldestDueMs === undefined || oldestDueMs <= limits.unclaimedMs) continue;
    findings.push({
      code: "jobs_not_claimed",
      severity: "warning",
      subject: jobType,
      message: `${due} jobs of ${jobType} are due, the first one for ${formatDuration(oldestDueMs)}.`,
      fix: "Run a worker with a handler for this type, or more of them; explainJob says what holds a job.",
    });
  }
  return findings;
}

const PROBE_CHANNEL = "runledger_doctor";
const PROBE = "select pg_notify($1::text, '')::text";

/** Examines whether a notification arrives, if the handle can listen. */
export async function listenFindings(db: Queryable, limits: HealthLimits): Promise<readonly HealthFinding[]> {
  let hear: (isHeard: boolean) => void = () => {};
  const heard = new Promise<boolean>((resolve) => hear = resolve);
  const listener = await listenTo(db, PROBE_CHANNEL, { onNotify: () => hear(true) });
  if (listener === undefined) return [];
  let timer: ReturnType<typeof setTimeout> | undefined;
  try {
    await runStatement(db, PROBE, [PROBE_CHANNEL], { write: true });
    timer = setTimeout(() => hear(false), limits.listenTimeoutMs);
    if (await heard) return [];
  } finally {
    clearTimeout(timer);
    await listener.unlisten();
  }
  return [{
    code: "listen_broken",
    severity: "warning",
    message: "A notification did not arrive: on this way to the database, LISTEN does not work.",
    fix: "Give workers a direct connection, or a pooler in session mode. Nothing is lost: they poll all the same.",
  }];
}
