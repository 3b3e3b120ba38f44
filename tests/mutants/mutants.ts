/**
 * Deliberate defects, each of which a test must find. A defect is a replacement of text, so that it can be read here and in
 * the code side by side; one that no longer applies fails the run, and must be brought up to date.
 *
 * @module
 */

/** A replacement of text in one file. */
export interface Edit {
  /** From the root of the checkout. */
  readonly file: string;
  /** The edit applies behind this text, to tell equal passages apart. */
  readonly after?: string;
  /** What stands there. Runs of white space count as one blank. */
  readonly from: string;
  /** What the mutant has instead. */
  readonly to: string;
  /** Whether every place behind `after` is replaced, and not the first alone. */
  readonly isEverywhere?: boolean;
}

/** A suite of tests that mutants are tried on; `interleaving` may be narrowed to operations by name. */
export type Suite = "model" | "clock" | "path" | `interleaving ${string}`;

/** A deliberate defect. */
export interface Mutant {
  readonly name: string;
  readonly edits: readonly Edit[];
  /** What finds it soonest. All other tests are run only if this does not. */
  readonly suite: Suite;
}

const CLAIM_AND_SETTLE = "migrations/0007_claim_and_settle.sql";
/** Successes have a statement of their own, and so a fence of their own. */
const FENCES = [
  { of: "successes", after: "settled_at := clock_timestamp();", expiry: "and queue.lease_expires_at > settled_at" },
  { of: "others", after: "fenced as", expiry: "and (queue.lease_expires_at <= settled_at) = reaps" },
];
const LEASE = "postgres/job_lease.ts";
const REAP = "postgres/job_reap.ts";
const REQUEUE = "postgres/job_requeue.ts";
const CANCEL = "migrations/0005_workflow_operations.sql";
const CANCEL_AFTER = "function runledger.cancel_locked_jobs";
const ENQUEUE = "migrations/0002_enqueue.sql";
const KEYED_AFTER = "for pass in";
const EDIT = "migrations/0011_job_edits.sql";
const BULK = "postgres/bulk_operations.ts";
const RETENTION = "migrations/0003_retention.sql";

function mutant(name: string, suite: Suite, ...edits: readonly Edit[]): Mutant {
  return { name, suite, edits };
}

/** Every mutant. */
export const MUTANTS: readonly Mutant[] = [
  ...FENCES.flatMap(({ of, after, expiry }) => [
    mutant(`settle: expiry of ${of} not compared`, "model", { file: CLAIM_AND_SETTLE, after, from: expiry, to: "" }),
    mutant(`settle: token of ${of} not compared`, "model", {
      file: CLAIM_AND_SETTLE,
      after,
      from: "queue.lease_token = coalesce(outcome.lease_token, last_lease_token)",
      to: "queue.lease_token is not null",
    }),
    mutant(`settle: attempt of ${of} not compared`, "model", {
      file: CLAIM_AND_SETTLE,
      after,
      from: "and queue.attempt = coalesce(outcome.attempt, last_attempt)",
      to: "",
    }),
    mutant(`settle: run of ${of} not compared`, "model", {
      file: CLAIM_AND_SETTLE,
      after,
      from: "and queue.run_number = coalesce(outcome.run_number, last_run_number)",
      to: "",
    }),
  ]),
  mutant("settle: expiry by the start of the transaction", "clock", {
    file: CLAIM_AND_SETTLE,
    from: "settled_at := clock_timestamp();",
    to: "settled_at := now();",
  }),
  mutant("settle: expiry by the start of the statement", "clock", {
    file: CLAIM_AND_SETTLE,
    from: "settled_at := clock_timestamp();",
    to: "settled_at := statement_timestamp();",
  }),
  mutant("settle: the clock is read before the lock is had", "clock", {
    file: CLAIM_AND_SETTLE,
    from: "settled_at timestamptz;",
    to: "settled_at timestamptz := clock_timestamp();",
  }, { file: CLAIM_AND_SETTLE, from: "settled_at := clock_timestamp();", to: "" }),
  mutant("settle: job not locked", "clock", {
    file: CLAIM_AND_SETTLE,
    after: "function runledger.settle_jobs",
    from: "order by queue.id for no key update",
    to: "order by queue.id",
  }),
  mutant("settle: jobs locked in the order given", "interleaving both", {
    file: CLAIM_AND_SETTLE,
    after: "function runledger.settle_jobs",
    from: "order by queue.id for no key update",
    to: "order by array_position(job_ids, queue.id) for no key update",
  }),
  mutant("settle: success not posted", "model", {
    file: CLAIM_AND_SETTLE,
    after: "settled_at := clock_timestamp();",
    from: "from settled )",
    to: "from settled where settled.attempt > 1 )",
  }),
  mutant("settle: outcome not posted", "model", {
    file: CLAIM_AND_SETTLE,
    after: "fenced as",
    from: "from settled union all",
    to: "from settled where settled.kind <> 'continued' union all",
  }),
  mutant("settle: successes are refused without a reason", "path", {
    file: CLAIM_AND_SETTLE,
    after: "with outcome as",
    from: "or given.more ?| '{progress_done,progress_total}'",
    to: "",
  }),
  mutant("settle: dead letter not written", "model", {
    file: CLAIM_AND_SETTLE,
    after: "buried as",
    from: "where settled.status = 'DEAD_LETTERED'",
    to: "where false",
  }),
  mutant("settle: snooze costs an attempt", "model", {
    file: CLAIM_AND_SETTLE,
    from: "when 'snoozed' then queue.attempt - 1",
    to: "when 'snoozed' then queue.attempt",
  }),
  mutant("settle: continuation keeps the attempts", "model", {
    file: CLAIM_AND_SETTLE,
    from: "case held.kind when 'continued' then 0",
    to: "case held.kind when 'continued' then queue.attempt",
  }),
  mutant("settle: retry forgets the checkpoint", "model", {
    file: CLAIM_AND_SETTLE,
    from: "checkpoint = coalesce(held.more -> 'checkpoint', queue.checkpoint)",
    to: "checkpoint = held.more -> 'checkpoint'",
  }),
  mutant("settle: attempts without end", "model", {
    file: CLAIM_AND_SETTLE,
    from: "or queue.attempt >= queue.max_attempts",
    to: "or queue.attempt > queue.max_attempts",
  }),
  mutant("settle: calling off clears the last error", "model", {
    file: CLAIM_AND_SETTLE,
    from: "when held.kind in ('snoozed', 'canceled') then queue.last_error_code",
    to: "when held.kind in ('snoozed') then queue.last_error_code",
  }),
  mutant("claim: waits for rivals", "interleaving ^claim", {
    file: CLAIM_AND_SETTLE,
    after: "due as",
    from: "for update skip locked",
    to: "for update",
  }),
  mutant("claim: counts two attempts", "model", {
    file: CLAIM_AND_SETTLE,
    after: "function runledger.claim_jobs",
    from: "attempt = queue.attempt + 1",
    to: "attempt = least(queue.attempt + 2, queue.max_attempts)",
  }),
  mutant("claim: not posted", "model", {
    file: CLAIM_AND_SETTLE,
    after: "posted as",
    from: "where queue.ctid = any (due_rows) )",
    to: "where queue.ctid = any (due_rows) and queue.attempt = 0 )",
  }),
  mutant("claim: ignores the due time", "model", {
    file: CLAIM_AND_SETTLE,
    after: "bound as",
    from: "statement_timestamp()",
    to: "'infinity'::timestamptz",
    isEverywhere: true,
  }),
  mutant("claim: lowest priority first", "model", {
    file: CLAIM_AND_SETTLE,
    after: "due as",
    from: "order by queue.priority desc",
    to: "order by queue.priority",
  }),
  mutant("claim: looks at the lowest priority first", "path", {
    file: CLAIM_AND_SETTLE,
    after: "candidates as",
    from: "order by candidate.priority desc",
    to: "order by candidate.priority",
  }),
  mutant("heartbeat: waits for rivals", "interleaving ^heartbeat", {
    file: LEASE,
    after: "const HEARTBEAT",
    from: "for update skip locked",
    to: "for update",
  }),
  mutant("heartbeat: extends an expired lease", "model", {
    file: LEASE,
    after: "const HEARTBEAT",
    from: "and locked.lease_expires_at > clock_timestamp()",
    to: "",
  }),
  mutant("heartbeat: token not compared", "model", {
    file: LEASE,
    after: "const HEARTBEAT",
    from: "and locked.lease_token = input.lease_token",
    to: "",
  }),
  mutant("progress: token not compared", "model", {
    file: LEASE,
    after: "const PROGRESS",
    from: "and locked.lease_token = $4::uuid",
    to: "and $4::uuid is not null",
  }),
  mutant("release: keeps the attempt", "model", {
    file: LEASE,
    after: "const RELEASE",
    from: "attempt = queue.attempt - 1",
    to: "attempt = queue.attempt",
  }),
  mutant("release: of a claim that reported progress", "model", {
    file: LEASE,
    after: "const RELEASE",
    from: "and held.is_unstarted",
    to: "",
  }),
  mutant("release: trusts a ledger that it cannot see", "interleaving ^release", {
    file: LEASE,
    after: "const RELEASE",
    from: "and held.is_ledger_seen",
    to: "",
  }),
  mutant("cancel: not posted", "model", {
    file: CANCEL,
    after: CANCEL_AFTER,
    from: "from canceled",
    to: "from canceled where false",
  }),
  mutant("cancel: overwrites what has ended", "model", {
    file: "postgres/job_cancel.ts",
    from: "where locked.status in ('PENDING', 'LEASED')",
    to: "where locked.status <> 'CANCELED'",
  }),
  mutant("reap: takes live leases", "model", {
    file: REAP,
    from: "queue.lease_expires_at <= statement_timestamp()",
    to: "queue.lease_expires_at <= statement_timestamp() + interval '1 day'",
    isEverywhere: true,
  }, {
    file: CLAIM_AND_SETTLE,
    from: "queue.lease_expires_at <= settled_at",
    to: "queue.lease_expires_at <= settled_at or reaps",
  }),
  mutant("reap: waits for rivals", "interleaving ^reap", {
    file: REAP,
    after: "expired as",
    from: "for update skip locked",
    to: "for update",
  }),
  mutant("requeue: run not compared", "model", {
    file: REQUEUE,
    after: "const REQUEUE",
    from: "and locked.run_number = $5::integer",
    to: "and $5::integer is not null",
  }),
  mutant("requeue: under a lease that still runs", "model", {
    file: REQUEUE,
    after: "const REQUEUE",
    from: "and (locked.lease_expires_at is null or locked.lease_expires_at <= clock_timestamp())",
    to: "",
  }),
  mutant("requeue: reports what is no longer so", "interleaving ^requeue dead letter$", {
    file: REQUEUE,
    after: "function requeueJob",
    from: `if (status !== expectedStatus || runNumber !== expectedRunNumber) return`,
    to: `if (leaseQuiescesAt === undefined) return`,
  }),
  mutant("requeue: dead letter stays", "model", {
    file: REQUEUE,
    after: "exhumed as",
    from: "where letter.job_id = requeued.id",
    to: "where letter.job_id = requeued.id and requeued.run_number > 2",
  }),
  mutant("replay: key not compared", "model", {
    file: REQUEUE,
    after: "const REPLAY",
    from: "and replay.replay_key = $5::text",
    to: "",
  }),
  mutant("enqueue: a key stands for its payload alone", "model", {
    file: ENQUEUE,
    after: KEYED_AFTER,
    from: "where compared.asked <> compared.stands",
    to: "where compared.asked -> 'payload' <> compared.stands -> 'payload'",
  }),
  mutant("enqueue: a key compares with the job as it is", "model", {
    file: ENQUEUE,
    after: "existing as",
    from: "queue.enqueue_request from",
    to: "queue.enqueue_request || jsonb_build_object('priority', queue.priority) as enqueue_request from",
    isEverywhere: true,
  }),
  mutant("enqueue: does not look again after a race", "interleaving ^enqueue", {
    file: ENQUEUE,
    after: KEYED_AFTER,
    from: "when (select count(*) from fresh) > (select count(*) from inserted)",
    to: "when false",
  }),
  mutant("enqueue: keys inserted in the order given", "interleaving keys", {
    file: ENQUEUE,
    after: KEYED_AFTER,
    from: "order by fresh.job_type, fresh.organization_id, fresh.idempotency_key, fresh.place",
    to: "order by fresh.place",
  }),
  mutant("enqueue: not all or nothing", "model", {
    file: ENQUEUE,
    from: "where (select undefined.job_types from undefined) is null",
    to: "",
  }),
  mutant("edit: of a job that does not wait", "model", {
    file: EDIT,
    from: "and queue.status = 'PENDING'",
    to: "and queue.status in ('PENDING', 'LEASED')",
  }),
  mutant("edit: job not locked", "interleaving ^edit", {
    file: EDIT,
    from: "order by queue.id for no key update",
    to: "order by queue.id",
  }),
  mutant("edit: jobs locked in the order given", "interleaving both, reversed", {
    file: EDIT,
    from: "order by queue.id for no key update",
    to: "order by queue.id desc for no key update",
  }),
  mutant("edit: version not compared", "model", {
    file: EDIT,
    from: "or asked.event_seq = locked.event_seq",
    to: "or asked.event_seq is not null",
  }),
  mutant("edit: not posted", "model", {
    file: EDIT,
    after: "posted as",
    from: "from edited )",
    to: "from edited where edited.attempt > 0 )",
  }),
  mutant("edit: forgets the payload", "model", {
    file: EDIT,
    from: "payload = case when change ? 'payload' then change -> 'payload' else queue.payload end",
    to: "payload = coalesce(change -> 'payload', 'null')",
  }),
  mutant("edit: reports what is no longer so", "interleaving ^edit", {
    file: "postgres/job_edits.ts",
    from: `if (status !== "PENDING" || (expectedEventSeq !== undefined && eventSeq !== expectedEventSeq)) { return`,
    to: "if (eventSeq > 0) { return",
  }),
  mutant("cancel many: jobs not locked", "interleaving ^cancel both", {
    file: BULK,
    after: "const CANCEL_MANY",
    from: "order by queue.id for no key update",
    to: "order by queue.id",
  }),
  mutant("cancel many: jobs locked in the order given", "interleaving ^cancel both", {
    file: BULK,
    after: "const CANCEL_MANY",
    from: "order by queue.id for no key update",
    to: "order by queue.id desc for no key update",
  }),
  mutant("cancel many: version not compared again", "interleaving ^cancel both", {
    file: BULK,
    after: "const CANCEL_MANY",
    from: "on fit.id = locked.id and fit.event_seq = locked.event_seq",
    to: "on fit.id = locked.id",
  }),
  mutant("requeue many: version not compared again", "interleaving ^requeue both", {
    file: BULK,
    after: "same as",
    from: "on fit.id = locked.id and fit.event_seq = locked.event_seq",
    to: "on fit.id = locked.id",
  }),
  mutant("requeue many: under a lease that still runs", "model", {
    file: BULK,
    after: "held as",
    from: "where same.is_quiesced",
    to: "",
  }),
  mutant("requeue many: what waits, too", "model", {
    file: BULK,
    after: "const REQUEUE_MANY",
    from: "where found.status in ('DEAD_LETTERED', 'CANCELED')",
    to: "where found.status in ('DEAD_LETTERED', 'CANCELED', 'PENDING')",
  }),
  mutant("retention: deletes keyed jobs", "model", {
    file: RETENTION,
    from: "where expires_keys",
    to: "where true",
  }),
  mutant("retention: deletes what may still run", "model", {
    file: RETENTION,
    from: "and (queue.lease_expires_at is null or queue.lease_expires_at < statement_timestamp())",
    to: "",
  }),
  mutant("retention: deletes replays before their source", "interleaving ^retention", {
    file: RETENTION,
    from: "and not exists (select from runledger.job_queue as source where source.id = queue.replay_of_job_id)",
    to: "",
  }),
];
