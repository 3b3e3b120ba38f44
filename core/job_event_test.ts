/// <reference lib="deno.ns" />
import assert from "node:assert/strict";
import fc from "fast-check";
import { isRunledgerError } from "./errors.ts";
import { JOB_EVENT_TYPES, replayJobEvents, REQUEUE_KINDS } from "./job_event.ts";
import type { JobEvent, JobEventType } from "./job_event.ts";
import { JOB_STATUSES, JOB_TRANSITIONS } from "./job_status.ts";
import type { JobStatus } from "./job_status.ts";

type Given = Partial<Omit<JobEvent, "eventType">>;

/** Numbers the events, which belong to run 1 unless they say otherwise. */
function ledger(...given: readonly (readonly [JobEventType, Given?])[]): JobEvent[] {
  return given.map(([eventType, fields], index) => ({
    jobId: "0191d8a0-7c1e-7c3b-8f6a-1b2c3d4e5f60",
    seq: index + 1,
    runNumber: 1,
    eventType,
    payload: null,
    occurredAt: new Date(0),
    ...fields,
  }));
}

const enqueued = ["ENQUEUED", { stage: "queued" }] as const;
const leased = (attempt: number, runNumber = 1) => ["LEASED", { stage: "running", attempt, runNumber }] as const;
const failed = (attempt: number) =>
  ["FAILED", { attempt, payload: { kind: "RETRYABLE", error_code: "mail.busy", error_message: "later" } }] as const;
const retried = ["RETRY_SCHEDULED", { payload: { retry_delay_ms: 10 } }] as const;
const buried = ["DEAD_LETTERED", { payload: { reason: "ATTEMPTS_EXHAUSTED" } }] as const;
const requeued = (kind: string, payload: Record<string, string | boolean> = {}, fields: Given = {}) =>
  ["REQUEUED", { payload: { requeue_kind: kind, ...payload }, ...fields }] as const;

function refused(pattern: RegExp, ...given: readonly (readonly [JobEventType, Given?])[]): void {
  assert.throws(() => replayJobEvents(ledger(...given)), (error) => {
    assert(isRunledgerError(error, "job.invalid_state_transition"), String(error));
    assert.match(error.message, pattern);
    return true;
  });
}

Deno.test("an enqueued job is PENDING before its first attempt", () => {
  assert.deepEqual(replayJobEvents(ledger(["ENQUEUED", { stage: "scheduled" }])), {
    status: "PENDING",
    stage: "scheduled",
    runNumber: 1,
    attempt: 0,
    eventSeq: 1,
  });
});

Deno.test("success closes open errors and keeps progress", () => {
  const events = ledger(
    enqueued,
    leased(1),
    ["PROGRESS", { attempt: 1, progressDone: 1, progressTotal: 4 }],
    failed(1),
    retried,
    leased(2),
    ["HEARTBEAT", { attempt: 2 }],
    ["PROGRESS", { attempt: 2, progressDone: 3 }],
    ["SUCCEEDED", { attempt: 2, progressDone: 4 }],
  );
  assert.deepEqual(replayJobEvents(events), {
    status: "SUCCEEDED",
    stage: "completed",
    runNumber: 1,
    attempt: 2,
    progressDone: 4,
    progressTotal: 4,
    eventSeq: 9,
  });
});

Deno.test("a failure is shown while its retry waits and while the next attempt runs", () => {
  const shown = { statusReason: "RETRYABLE", lastErrorCode: "mail.busy", lastErrorMessage: "later" };
  assert.deepEqual(replayJobEvents(ledger(enqueued, leased(1), failed(1), retried)), {
    status: "PENDING",
    stage: "queued",
    runNumber: 1,
    attempt: 1,
    eventSeq: 4,
    ...shown,
  });
  assert.deepEqual(replayJobEvents(ledger(enqueued, leased(1), failed(1), retried, leased(2))), {
    status: "LEASED",
    stage: "running",
    runNumber: 1,
    attempt: 2,
    eventSeq: 5,
    ...shown,
  });
});

Deno.test("a dead letter keeps its stage, and a requeue begins a new run without its errors", () => {
  const dead = [enqueued, leased(1), ["PROGRESS", { progressDone: 1, progressTotal: 2 }], failed(1), buried] as const;
  const { status, stage } = replayJobEvents(ledger(...dead));
  assert.deepEqual([status, stage], ["DEAD_LETTERED", "running"]);
  const requeue = (reset: boolean) => requeued("COMPARE_AND_REQUEUE", { reason: "fixed", reset_progress: reset });
  const base = { status: "PENDING", stage: "queued", runNumber: 2, attempt: 0, statusReason: "fixed", eventSeq: 6 };
  assert.deepEqual(replayJobEvents(ledger(...dead, requeue(true))), base);
  assert.deepEqual(replayJobEvents(ledger(...dead, requeue(false))), { ...base, progressDone: 1, progressTotal: 2 });
  assert.equal(replayJobEvents(ledger(...dead, requeue(true), leased(1, 2))).attempt, 1);
});

Deno.test("a cancellation keeps the stage and says why", () => {
  const { statusReason } = replayJobEvents(ledger(enqueued, ["CANCELED"]));
  assert.equal(statusReason, "CANCELED");
  assert.deepEqual(
    replayJobEvents(ledger(enqueued, leased(1), ["CANCELED", { payload: { reason: "customer left" } }])),
    {
      status: "CANCELED",
      stage: "running",
      runNumber: 1,
      attempt: 1,
      statusReason: "customer left",
      eventSeq: 3,
    },
  );
});

Deno.test("a released or snoozed claim gives its attempt back", () => {
  for (const kind of ["UNSTARTED_RELEASE", "SNOOZE"]) {
    const events = [enqueued, leased(1), requeued(kind, {}, { attempt: 1 })] as const;
    const { status, attempt, statusReason, runNumber } = replayJobEvents(ledger(...events));
    assert.deepEqual([status, attempt, statusReason, runNumber], ["PENDING", 0, kind, 1]);
    assert.equal(replayJobEvents(ledger(...events, leased(1))).attempt, 1);
    refused(/belongs to attempt 2, not 1/, ...events, leased(2));
  }
  assert.equal(
    replayJobEvents(ledger(enqueued, leased(1), requeued("SNOOZE", { reason: "closed" }))).statusReason,
    "closed",
  );
});

Deno.test("a continuation begins a new run, keeps progress and closes errors", () => {
  const events = ledger(
    enqueued,
    leased(1),
    failed(1),
    retried,
    leased(2),
    requeued("HANDLER_CONTINUATION", {}, { attempt: 2, progressDone: 5 }),
  );
  assert.deepEqual(replayJobEvents(events), {
    status: "PENDING",
    stage: "queued",
    runNumber: 2,
    attempt: 0,
    progressDone: 5,
    statusReason: "HANDLER_CONTINUATION",
    eventSeq: 6,
  });
});

Deno.test("a change of stage changes nothing else", () => {
  const before = replayJobEvents(ledger(["ENQUEUED", { stage: "scheduled" }]));
  const events = ledger(["ENQUEUED", { stage: "scheduled" }], ["STAGE_CHANGED", { stage: "queued" }]);
  assert.deepEqual(replayJobEvents(events), { ...before, stage: "queued", eventSeq: 2 });
});

Deno.test("a ledger that is not in order is refused, and the error names the event", () => {
  assert.throws(() => replayJobEvents([]), { code: "job.invalid_state_transition" });
  refused(/before ENQUEUED/, leased(1));
  refused(/second time/, enqueued, enqueued);
  refused(/to no attempt/, ["ENQUEUED", { stage: "queued", attempt: 1 }]);
  refused(/stage queued or scheduled/, ["ENQUEUED", { stage: "running" }]);
  refused(/follows seq 1/, enqueued, ["LEASED", { seq: 3, attempt: 1 }]);
  refused(/another job/, enqueued, ["LEASED", { jobId: "other", attempt: 1 }]);
  refused(/attempt 2, not 1/, enqueued, leased(2));
  refused(/attempt undefined, not 1/, enqueued, ["LEASED"]);
  refused(/run 2, not 1/, enqueued, leased(1, 2));
  refused(/attempt 7, not 1/, enqueued, leased(1), ["PROGRESS", { attempt: 7 }]);
  refused(/which RETRY_SCHEDULED or DEAD_LETTERED must/, enqueued, leased(1), failed(1), ["HEARTBEAT"]);
  refused(/no end of an attempt/, enqueued, leased(1), failed(1));
  refused(/does not follow FAILED/, enqueued, leased(1), retried);
  refused(/does not follow FAILED/, enqueued, leased(1), buried);
  refused(/has no error_code/, enqueued, leased(1), ["FAILED", { payload: { kind: "TERMINAL" } }], buried);
  refused(/kind that is no text/, enqueued, leased(1), ["FAILED", { payload: { kind: 1 } }], buried);
  refused(/has no stage/, enqueued, ["STAGE_CHANGED"]);
  refused(/no known requeue_kind/, enqueued, leased(1), requeued("ODD"));
  refused(/while the job is LEASED/, enqueued, leased(1), requeued("COMPARE_AND_REQUEUE"));
  for (const kind of ["SNOOZE", "UNSTARTED_RELEASE", "HANDLER_CONTINUATION"]) {
    refused(/while the job is CANCELED/, enqueued, ["CANCELED"], requeued(kind));
  }
  refused(/while the job is SUCCEEDED/, enqueued, leased(1), ["SUCCEEDED"], requeued("COMPARE_AND_REQUEUE"));
  refused(/of an unknown type/, enqueued, ["PAUSED" as JobEventType]);
});

/** The shortest history that leads to each status. */
const HISTORIES: Readonly<Record<JobStatus, readonly (readonly [JobEventType, Given?])[]>> = {
  PENDING: [enqueued],
  LEASED: [enqueued, leased(1)],
  SUCCEEDED: [enqueued, leased(1), ["SUCCEEDED"]],
  DEAD_LETTERED: [enqueued, leased(1), failed(1), buried],
  CANCELED: [enqueued, ["CANCELED"]],
};

/** Every way to try to reach each status with further events. */
Deno.test("an edit changes nothing that the ledger adds up to, and is of a job that waits", () => {
  const edited = ["EDITED", { payload: { replaces_payload: false, priority: 3 } }] as const;
  for (const from of JOB_STATUSES) {
    const history = HISTORIES[from];
    if (from !== "PENDING") {
      refused(new RegExp(`cannot be while the job is ${from}`), ...history, edited);
      continue;
    }
    const before = replayJobEvents(ledger(...history));
    assert.deepEqual(replayJobEvents(ledger(...history, edited, edited)), {
      ...before,
      eventSeq: before.eventSeq + 2,
    });
  }
  const retrying = [enqueued, leased(1), failed(1), retried, ["EDITED", { attempt: 1 }], leased(2)] as const;
  assert.equal(replayJobEvents(ledger(...retrying)).attempt, 2);
});

const ENDINGS: readonly (readonly [JobStatus, readonly (readonly [JobEventType, Given?])[]])[] = [
  ["LEASED", [leased(1)]],
  ["LEASED", [leased(2)]],
  ["SUCCEEDED", [["SUCCEEDED"]]],
  ["CANCELED", [["CANCELED"]]],
  ["PENDING", [failed(1), retried]],
  ["DEAD_LETTERED", [failed(1), buried]],
  ...REQUEUE_KINDS.map((kind) => ["PENDING", [requeued(kind)]] as const),
];

Deno.test("a replay allows an edge exactly when JOB_TRANSITIONS has it", () => {
  for (const from of JOB_STATUSES) {
    assert.equal(replayJobEvents(ledger(...HISTORIES[from])).status, from);
    const reached = new Set<JobStatus>();
    for (const [to, ending] of ENDINGS) {
      try {
        assert.equal(replayJobEvents(ledger(...HISTORIES[from], ...ending)).status, to);
        reached.add(to);
      } catch (error) {
        assert(isRunledgerError(error, "job.invalid_state_transition"), String(error));
      }
    }
    assert.deepEqual([...reached].toSorted(), [...JOB_TRANSITIONS[from]].toSorted(), from);
  }
});

Deno.test("any events at all give a possible state or a coded error", () => {
  const event = fc.tuple(
    fc.constantFrom(...JOB_EVENT_TYPES),
    fc.record({
      runNumber: fc.constantFrom(1, 1, 1, 2),
      attempt: fc.constantFrom(1, 1, 2, 0),
      stage: fc.constantFrom("queued", "running"),
      progressDone: fc.nat(3),
      payload: fc.oneof(
        fc.constant(null),
        fc.record({
          kind: fc.constant("TIMEOUT"),
          error_code: fc.constant("c"),
          error_message: fc.constant("m"),
          requeue_kind: fc.constantFrom(...REQUEUE_KINDS),
        }),
      ),
    }, { requiredKeys: [] }),
  );
  fc.assert(
    fc.property(fc.array(event, { maxLength: 8 }), (given) => {
      const events = ledger(enqueued, ...given as readonly [JobEventType, Given][]);
      try {
        const state = replayJobEvents(events);
        assert.equal(state.eventSeq, events.length);
        assert(state.attempt >= 0 && state.runNumber >= 1);
        assert(state.status !== "LEASED" || state.attempt >= 1);
        for (const value of Object.values(state)) assert(value !== undefined);
      } catch (error) {
        if (!isRunledgerError(error, "job.invalid_state_transition")) throw error;
      }
    }),
    { numRuns: 2000 },
  );
});
