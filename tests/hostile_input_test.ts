/**
 * Whatever is passed in: it comes back exactly, or is refused by this library before any SQL. What PostgreSQL itself
 * refuses to take never decides.
 *
 * @module
 */

import { isJsonValue, isRunledgerError, newId } from "@runledger/core";
import type { JobLease, JsonValue, WorkflowRunRequest } from "@runledger/core";
import * as runledger from "@runledger/postgres";
import assert from "node:assert/strict";
import fc from "fast-check";
import type { Sql } from "postgres";
import { claimOne, jobIn, openTestDatabase, request, testDefinition } from "./support/database.ts";

const ALL = { scope: "all" } as const;
const MEGABYTE = "x".repeat(1_048_576);

/** Text that has broken something somewhere before. */
const HOSTILE_TEXTS: readonly string[] = [
  "'; drop table runledger.job_queue; --",
  "' or '1'='1",
  '"; select pg_sleep(10); --',
  "$1::text",
  "$$ || (select 1) || $$",
  "\\'; \\\\ \\x27",
  "${1+1} {{7*7}} %s %n %00",
  "null",
  "{}",
  '["a","b"]',
  "\0",
  "a\0b",
  "\ud800",
  "a\udfffb",
  "\u202e\u2066evil\u2069\u202c",
  "\u200b\u200c\u200d\ufeff",
  "\u200b",
  "\ufffd\ufffe\uffff",
  "\u{1f4a9}\u{10ffff}",
  "e\u0301\u0301\u0301",
  "\r\n\t\v\f\u001b[31m\u0007",
  "\u0085\u2028\u2029",
  "",
  " ",
  "__proto__",
  "constructor",
  "toString",
  "hasOwnProperty",
  "-0",
  "NaN",
  "infinity",
  "-infinity",
  "epoch",
  "../../etc/passwd",
  "<script>alert(1)</script>",
  "é".repeat(128),
  "x".repeat(255),
  "x".repeat(256),
  "x".repeat(512),
  "x".repeat(513),
  MEGABYTE,
];

/** What JavaScript callers pass in place of text. */
const NO_TEXTS: readonly unknown[] = [null, 0, 1.5, NaN, true, {}, [], ["a"], Symbol("s"), () => "a", 1n, new Date(0)];

const HOSTILE_NUMBERS: readonly unknown[] = [
  -1,
  0,
  0.5,
  NaN,
  Infinity,
  -Infinity,
  2 ** 31,
  -(2 ** 31) - 1,
  2 ** 53,
  Number.MAX_SAFE_INTEGER,
  Number.MIN_SAFE_INTEGER,
  Number.MAX_VALUE,
  Number.MIN_VALUE,
  "1",
  "1; drop table x",
  null,
  {},
  1n,
];

const HOSTILE_DATES: readonly unknown[] = [
  new Date(NaN),
  new Date(8.64e15),
  new Date(-8.64e15),
  new Date(-62_135_596_800_001),
  new Date(253_402_300_800_000),
  new Date(0),
  "2020-01-01",
  0,
  null,
  {},
];

/** Calls a public function with one field replaced. Types are what is attacked, so the compiler is not asked. */
interface Attack {
  readonly field: string;
  readonly values: readonly unknown[];
  readonly call: (value: never, target: Target) => Promise<unknown>;
}

interface Target {
  readonly sql: Sql;
  readonly lease: JobLease;
  readonly jobId: string;
  readonly succeededId: string;
  readonly pendingId: string;
  readonly deadId: string;
  readonly runId: string;
}

const TEXTS = [...HOSTILE_TEXTS, ...NO_TEXTS];
const IDS = [
  ...HOSTILE_TEXTS,
  ...NO_TEXTS,
  "00000000-0000-0000-0000-000000000000",
  "{00000000-0000-7000-8000-000000000000}",
];
const BOOLEANS = ["yes", "x", "", 2, null, {}];

const lost = ({ lease }: Target, fields: Record<string, unknown>): JobLease => ({ ...lease, ...fields }) as JobLease;
const failed = { kind: "failed", failure: { kind: "TERMINAL", code: "x.y", message: "no" } } as const;

/** A job that is not there. */
const NOBODY: runledger.FrozenJob = { jobId: newId(), eventSeq: 1 };

/** A bulk operation on jobs that may be none. */
function bulk(
  name: "cancelJobs" | "requeueJobs" | "editJobs",
  { sql }: Target,
  jobs: unknown,
  fields: Record<string, unknown> = {},
): Promise<unknown> {
  const options = { ...ALL, ...(name === "editJobs" ? { priority: 1 } : {}), ...fields };
  return runledger[name](sql, jobs as readonly runledger.FrozenJob[], options);
}

/** An edit of one job, by either function. */
function editing(name: string, sql: Sql, jobId: string, change: Record<string, unknown>): Promise<unknown> {
  return name === "editJob"
    ? runledger.editJob(sql, jobId, { ...ALL, ...change })
    : runledger.editJobs(sql, [{ jobId, eventSeq: 1 }], { ...ALL, ...change });
}

/** A run of one job, with fields of its step replaced. */
function run(fields: Record<string, unknown> = {}): WorkflowRunRequest {
  const step = { executionKind: "JOB", stepKey: "s", jobType: "b", payload: 1, dependencies: [], ...fields };
  return { workflowType: "w", metadata: null, steps: [step] } as WorkflowRunRequest;
}

/** A run of one gate, with fields of its timeout replaced. */
function gateRun(fields: Record<string, unknown> = {}): WorkflowRunRequest {
  const timeout = { afterMs: 3_600_000, outcome: "SUCCEEDED", ...fields };
  return run({ executionKind: "EXTERNAL", stepKey: "gate", jobType: undefined, timeout });
}

/** Every list and bounded count: called with one option replaced. */
const LISTS: readonly {
  readonly name: string;
  // deno-lint-ignore no-explicit-any
  readonly read: (target: Target, options: any) => Promise<unknown>;
  readonly filters: readonly string[];
}[] = [
  {
    name: "listJobs",
    read: ({ sql }, options) => runledger.listJobs(sql, { ...ALL, ...options }),
    filters: ["status", "jobType", "errorCode", "text", "since", "until"],
  },
  {
    name: "countJobs",
    read: ({ sql }, options) => runledger.countJobs(sql, { ...ALL, ...options }),
    filters: ["status", "jobType", "errorCode", "text", "since", "until"],
  },
  {
    name: "listJobEvents",
    read: ({ sql, jobId }, options) => runledger.listJobEvents(sql, jobId, { ...ALL, ...options }),
    filters: ["eventType", "since", "until"],
  },
  {
    name: "listJobAttempts",
    read: ({ sql, jobId }, options) => runledger.listJobAttempts(sql, jobId, { ...ALL, ...options }),
    filters: ["errorCode"],
  },
  {
    name: "listJobLogs",
    read: ({ sql, jobId }, options) => runledger.listJobLogs(sql, jobId, { ...ALL, ...options }),
    filters: ["level"],
  },
  {
    name: "listDeadLetters",
    read: ({ sql }, options) => runledger.listDeadLetters(sql, { ...ALL, ...options }),
    filters: ["jobType", "errorCode", "since", "until"],
  },
  {
    name: "countDeadLetters",
    read: ({ sql }, options) => runledger.countDeadLetters(sql, { ...ALL, ...options }),
    filters: ["jobType", "errorCode", "since", "until"],
  },
  {
    name: "listJobDefinitions",
    read: ({ sql }, options) => runledger.listJobDefinitions(sql, options),
    filters: ["isEnabled", "text"],
  },
  {
    name: "listJobRuntimeConfigs",
    read: ({ sql }, options) => runledger.listJobRuntimeConfigs(sql, options),
    filters: ["text"],
  },
  {
    name: "listJobSchedules",
    read: ({ sql }, options) => runledger.listJobSchedules(sql, { ...ALL, ...options }),
    filters: ["jobType", "isActive", "text"],
  },
  {
    name: "listWorkflowRuns",
    read: ({ sql }, options) => runledger.listWorkflowRuns(sql, { ...ALL, ...options }),
    filters: ["status", "workflowType", "text", "since", "until"],
  },
  {
    name: "countWorkflowRuns",
    read: ({ sql }, options) => runledger.countWorkflowRuns(sql, { ...ALL, ...options }),
    filters: ["status", "workflowType", "text", "since", "until"],
  },
  {
    name: "listWorkflowSteps",
    read: ({ sql, runId }, options) => runledger.listWorkflowSteps(sql, runId, { ...ALL, ...options }),
    filters: ["status", "errorCode"],
  },
  {
    name: "listWorkflowStepDependencies",
    read: ({ sql, runId }, options) => runledger.listWorkflowStepDependencies(sql, runId, { ...ALL, ...options }),
    filters: [],
  },
  {
    name: "listWorkflowRunMutations",
    read: ({ sql, runId }, options) => runledger.listWorkflowRunMutations(sql, runId, { ...ALL, ...options }),
    filters: [],
  },
];

/** Cursors that no list gave, or another one. */
const CURSORS = [
  ...["jobs", "job_events", "job_logs", "dead_letters", "job_schedules", "workflow_steps"].flatMap((name) => [
    [name],
    [name, newId()],
    [name, newId(), "9".repeat(18)],
    [name, newId(), "9".repeat(19)],
    [name, newId(), "1\n"],
    [name, "99999999999.999999", newId()],
    [name, "1e9.000000", newId()],
    [name, "\ud800"],
    [name, "\0"],
    [name, "x".repeat(100_000)],
    [name, 1, null],
  ]).map((cursor) => encodeURIComponent(JSON.stringify(cursor))),
  "%",
  "%00",
  "[]",
  "null",
];

const ATTACKS: readonly Attack[] = [
  // Enqueue
  ...["jobType", "organizationId", "idempotencyKey", "stage"].map((field): Attack => ({
    field: `enqueueJob ${field}`,
    values: TEXTS,
    call: (value, { sql }) => runledger.enqueueJob(sql, { ...request(), [field]: value }),
  })),
  ...["priority", "maxAttempts", "timeoutSeconds"].map((field): Attack => ({
    field: `enqueueJob ${field}`,
    values: HOSTILE_NUMBERS,
    call: (value, { sql }) => runledger.enqueueJob(sql, { ...request(), [field]: value }),
  })),
  {
    field: "enqueueJob nextRunAt",
    values: HOSTILE_DATES,
    call: (value, { sql }) => runledger.enqueueJob(sql, request({ nextRunAt: value })),
  },
  {
    field: "enqueueJob nextRunAt with a key",
    values: HOSTILE_DATES,
    call: (value, { sql }) => runledger.enqueueJob(sql, request({ nextRunAt: value, idempotencyKey: newId() })),
  },
  {
    field: "enqueueJob request",
    values: [...NO_TEXTS, JSON.parse('{"__proto__": {"polluted": true}, "jobType": "a", "payload": 1}')],
    call: (value, { sql }) => runledger.enqueueJob(sql, value),
  },
  {
    field: "enqueueJobs requests",
    values: [...NO_TEXTS, [null], [undefined], Array(3)],
    call: (value, { sql }) => runledger.enqueueJobs(sql, value),
  },

  // Claim
  {
    field: "claimJobs jobTypes",
    values: [...TEXTS, ...TEXTS.map((text) => [text])],
    call: (value, { sql }) => runledger.claimJobs(sql, { jobTypes: value, workerId: "w", limit: 1 }),
  },
  {
    field: "claimJobs workerId",
    values: TEXTS,
    call: (value, { sql }) => runledger.claimJobs(sql, { jobTypes: ["a"], workerId: value, limit: 1 }),
  },
  {
    field: "claimJobs limit",
    values: HOSTILE_NUMBERS,
    call: (value, { sql }) => runledger.claimJobs(sql, { jobTypes: ["none"], workerId: "w", limit: value }),
  },
  {
    field: "claimJobs leaseMs",
    values: HOSTILE_NUMBERS,
    call: (value, { sql }) => runledger.claimJobs(sql, { jobTypes: ["none"], workerId: "w", limit: 1, leaseMs: value }),
  },

  // Leases
  ...["jobId", "leaseToken"].flatMap((field): Attack[] => [
    {
      field: `heartbeatJobs ${field}`,
      values: IDS,
      call: (value, target) => runledger.heartbeatJobs(target.sql, [lost(target, { [field]: value })]),
    },
    {
      field: `releaseJobs ${field}`,
      values: IDS,
      call: (value, target) => runledger.releaseJobs(target.sql, [lost(target, { [field]: value })]),
    },
    {
      field: `settleJobs ${field}`,
      values: IDS,
      call: (value, target) =>
        runledger.settleJobs(target.sql, [{ lease: lost(target, { [field]: value }), outcome: failed }]),
    },
    {
      field: `recordJobProgress ${field}`,
      values: IDS,
      call: (value, target) => runledger.recordJobProgress(target.sql, lost(target, { [field]: value }), {}),
    },
    {
      field: `appendJobLogs ${field}`,
      values: IDS,
      call: (value, target) =>
        runledger.appendJobLogs(target.sql, [{ lease: lost(target, { [field]: value }), level: "info", message: "m" }]),
    },
  ]),
  ...["runNumber", "attempt"].flatMap((field): Attack[] => [
    {
      field: `heartbeatJobs ${field}`,
      values: HOSTILE_NUMBERS,
      call: (value, target) => runledger.heartbeatJobs(target.sql, [lost(target, { [field]: value })]),
    },
    {
      field: `releaseJobs ${field}`,
      values: HOSTILE_NUMBERS,
      call: (value, target) => runledger.releaseJobs(target.sql, [lost(target, { [field]: value })]),
    },
    {
      field: `settleJob ${field}`,
      values: HOSTILE_NUMBERS,
      call: (value, target) => runledger.settleJob(target.sql, lost(target, { [field]: value }), failed),
    },
    {
      field: `recordJobProgress ${field}`,
      values: HOSTILE_NUMBERS,
      call: (value, target) => runledger.recordJobProgress(target.sql, lost(target, { [field]: value }), {}),
    },
    {
      field: `appendJobLogs ${field}`,
      values: HOSTILE_NUMBERS,
      call: (value, target) =>
        runledger.appendJobLogs(target.sql, [{ lease: lost(target, { [field]: value }), level: "info", message: "m" }]),
    },
  ]),
  {
    field: "heartbeatJobs leaseMs",
    values: HOSTILE_NUMBERS,
    call: (value, { sql, lease }) => runledger.heartbeatJobs(sql, [lease], { leaseMs: value }),
  },
  {
    field: "heartbeatJobs postsEvents",
    values: BOOLEANS,
    call: (value, { sql, lease }) => runledger.heartbeatJobs(sql, [lease], { postsEvents: value }),
  },
  {
    field: "releaseJobs reason",
    values: TEXTS,
    call: (value, { sql, lease }) => runledger.releaseJobs(sql, [{ ...lease, attempt: 77 }], { reason: value }),
  },
  ...["done", "total"].map((field): Attack => ({
    field: `recordJobProgress ${field}`,
    values: HOSTILE_NUMBERS,
    call: (value, { sql, lease }) =>
      runledger.recordJobProgress(sql, { ...lease, attempt: 77 }, { progress: { done: 0, [field]: value } }),
  })),
  ...["level", "message"].map((field): Attack => ({
    field: `appendJobLogs ${field}`,
    values: TEXTS,
    call: (value, { sql, lease }) =>
      runledger.appendJobLogs(sql, [{ lease, level: "info", message: "m", [field]: value }]),
  })),

  // Outcomes
  ...["code", "message", "kind"].map((field): Attack => ({
    field: `settleJob failure.${field}`,
    values: TEXTS,
    call: (value, { sql, lease }) =>
      runledger.settleJob(sql, { ...lease, attempt: 77 }, {
        kind: "failed",
        failure: { kind: "TERMINAL", code: "x.y", message: "no", [field]: value },
      }),
  })),
  ...(["snoozed", "canceled"] as const).map((kind): Attack => ({
    field: `settleJob ${kind} reason`,
    values: TEXTS,
    call: (value, { sql, lease }) =>
      runledger.settleJob(sql, { ...lease, attempt: 77 }, { kind, delayMs: 1, reason: value }),
  })),
  {
    field: "settleJob retryDelayMs",
    values: HOSTILE_NUMBERS,
    call: (value, { sql, lease }) =>
      runledger.settleJob(sql, { ...lease, attempt: 77 }, { ...failed, retryDelayMs: value }),
  },
  {
    field: "settleJob retryNotBefore",
    values: HOSTILE_DATES,
    call: (value, { sql, lease }) =>
      runledger.settleJob(sql, { ...lease, attempt: 77 }, { ...failed, retryNotBefore: { at: value } }),
  },
  {
    field: "settleJob kind",
    values: TEXTS,
    call: (value, { sql, lease }) => runledger.settleJob(sql, lease, { kind: value } as never),
  },

  // Reap and retention
  ...["limit", "retryDelayMs"].map((field): Attack => ({
    field: `reapExpiredLeases ${field}`,
    values: HOSTILE_NUMBERS,
    call: (value, { sql }) => runledger.reapExpiredLeases(sql, { [field]: value }),
  })),
  ...["limit", "olderThanMs"].map((field): Attack => ({
    field: `deleteFinishedJobs ${field}`,
    values: [...HOSTILE_NUMBERS, 3_155_760_000_000, 1e14],
    call: (value, { sql }) => runledger.deleteFinishedJobs(sql, { olderThanMs: 3_600_000, [field]: value }),
  })),
  {
    field: "deleteFinishedJobs statuses",
    values: [...TEXTS, ...TEXTS.map((text) => [text])],
    call: (value, { sql }) => runledger.deleteFinishedJobs(sql, { olderThanMs: 3_600_000, statuses: value }),
  },
  {
    field: "deleteFinishedJobs expiresIdempotencyKeys",
    values: BOOLEANS,
    call: (value, { sql }) =>
      runledger.deleteFinishedJobs(sql, { olderThanMs: 3_600_000, expiresIdempotencyKeys: value }),
  },

  // Operators
  ...["reason", "actor"].flatMap((field): Attack[] => [
    {
      field: `cancelJob ${field}`,
      values: TEXTS,
      call: (value, { sql }) => runledger.cancelJob(sql, newId(), { ...ALL, [field]: value }),
    },
    {
      field: `requeueJob ${field}`,
      values: TEXTS,
      call: (value, { sql, deadId }) =>
        runledger.requeueJob(sql, deadId, {
          ...ALL,
          expectedStatus: "CANCELED",
          expectedRunNumber: 1,
          [field]: value,
        }),
    },
    {
      field: `replayJob ${field}`,
      values: TEXTS,
      call: (value, { sql, succeededId }) =>
        runledger.replayJob(sql, succeededId, { ...ALL, replayKey: newId(), [field]: value }),
    },
  ]),
  {
    field: "requeueJob expectedStatus",
    values: TEXTS,
    call: (value, { sql, deadId }) =>
      runledger.requeueJob(sql, deadId, { ...ALL, expectedStatus: value, expectedRunNumber: 9 }),
  },
  {
    field: "requeueJob expectedRunNumber",
    values: HOSTILE_NUMBERS,
    call: (value, { sql, deadId }) =>
      runledger.requeueJob(sql, deadId, { ...ALL, expectedStatus: "CANCELED", expectedRunNumber: value }),
  },
  {
    field: "requeueJob progress",
    values: TEXTS,
    call: (value, { sql, deadId }) =>
      runledger.requeueJob(sql, deadId, {
        ...ALL,
        expectedStatus: "CANCELED",
        expectedRunNumber: 1,
        progress: value,
      }),
  },
  {
    field: "replayJob replayKey",
    values: TEXTS,
    call: (value, { sql, succeededId }) => runledger.replayJob(sql, succeededId, { ...ALL, replayKey: value }),
  },
  ...["jobType", "errorCode"].flatMap((field): Attack[] => [
    {
      field: `requeueDeadLetters ${field}`,
      values: TEXTS,
      call: (value, { sql }) => runledger.requeueDeadLetters(sql, { ...ALL, jobType: "none", [field]: value }),
    },
  ]),
  ...["failedFrom", "failedBefore"].map((field): Attack => ({
    field: `requeueDeadLetters ${field}`,
    values: HOSTILE_DATES,
    call: (value, { sql }) => runledger.requeueDeadLetters(sql, { ...ALL, jobType: "none", [field]: value }),
  })),
  {
    field: "editJob payload",
    values: [...TEXTS, undefined, [undefined], new Map(), { toJSON: () => 1n }],
    call: (value, { sql, pendingId }) => runledger.editJob(sql, pendingId, { ...ALL, payload: value }),
  },
  ...["reason", "actor", "jobId"].flatMap((field): Attack[] => [
    {
      field: `editJob ${field}`,
      values: field === "jobId" ? IDS : TEXTS,
      call: (value, { sql, pendingId }) =>
        runledger.editJob(sql, field === "jobId" ? value : pendingId, { ...ALL, priority: 1, [field]: value }),
    },
    ...(["cancelJobs", "requeueJobs", "editJobs"] as const).map((name): Attack => ({
      field: `${name} ${field}`,
      values: field === "jobId" ? IDS : TEXTS,
      call: (value, target) =>
        field === "jobId"
          ? bulk(name, target, [{ ...NOBODY, jobId: value }])
          : bulk(name, target, [NOBODY], { [field]: value }),
    })),
  ]),
  ...["editJob", "editJobs"].flatMap((name): Attack[] => [
    {
      field: `${name} nextRunAt`,
      values: HOSTILE_DATES,
      call: (value, { sql, pendingId }) => editing(name, sql, pendingId, { nextRunAt: value }),
    },
    {
      field: `${name} priority`,
      values: HOSTILE_NUMBERS,
      call: (value, { sql, pendingId }) => editing(name, sql, pendingId, { priority: value }),
    },
    {
      field: `${name} nothing`,
      values: [undefined],
      call: (_, { sql, pendingId }) => editing(name, sql, pendingId, {}),
    },
  ]),
  {
    field: "editJob expectedEventSeq",
    values: HOSTILE_NUMBERS,
    call: (value, { sql, pendingId }) =>
      runledger.editJob(sql, pendingId, { ...ALL, priority: 1, expectedEventSeq: value }),
  },
  ...(["cancelJobs", "requeueJobs", "editJobs"] as const).flatMap((name): Attack[] => [
    {
      field: `${name} jobs`,
      values: [...NO_TEXTS, [null], Array(2), [1], ["x"], [NOBODY, NOBODY]],
      call: (value, target) => bulk(name, target, value),
    },
    {
      field: `${name} eventSeq`,
      values: HOSTILE_NUMBERS,
      call: (value, target) => bulk(name, target, [{ ...NOBODY, eventSeq: value }]),
    },
  ]),
  {
    field: "requeueJobs progress",
    values: TEXTS,
    call: (value, { sql }) => runledger.requeueJobs(sql, [NOBODY], { ...ALL, progress: value }),
  },
  ...["status", "jobType", "errorCode", "text", "cursor"].map((field): Attack => ({
    field: `previewJobs ${field}`,
    values: TEXTS,
    call: (value, { sql }) => runledger.previewJobs(sql, { ...ALL, status: "PENDING", [field]: value }),
  })),
  ...["since", "until", "limit"].flatMap((field): Attack[] => {
    const values = field === "limit" ? HOSTILE_NUMBERS : HOSTILE_DATES;
    return [
      {
        field: `previewJobs ${field}`,
        values,
        call: (value, { sql }) => runledger.previewJobs(sql, { ...ALL, status: "CANCELED", [field]: value }),
      },
      {
        field: `listOperatorActions ${field}`,
        values,
        call: (value, { sql }) => runledger.listOperatorActions(sql, { ...ALL, [field]: value }),
      },
    ];
  }),
  ...["action", "subject", "actor", "cursor"].map((field): Attack => ({
    field: `listOperatorActions ${field}`,
    values: TEXTS,
    call: (value, { sql }) => runledger.listOperatorActions(sql, { ...ALL, [field]: value }),
  })),
  ...["reason", "actor"].flatMap((field): Attack[] => [
    {
      field: `setJobDefinitionEnabled ${field}`,
      values: TEXTS,
      call: (value, { sql }) => runledger.setJobDefinitionEnabled(sql, "b", { isEnabled: true, [field]: value }),
    },
    {
      field: `setJobScheduleActive ${field}`,
      values: TEXTS,
      call: (value, { sql }) => runledger.setJobScheduleActive(sql, "none", { ...ALL, isActive: true, [field]: value }),
    },
    {
      field: `setJobScheduleNextFireAt ${field}`,
      values: TEXTS,
      call: (value, { sql }) =>
        runledger.setJobScheduleNextFireAt(sql, "none", { ...ALL, nextFireAt: new Date(0), [field]: value }),
    },
    {
      field: `deleteJobSchedule ${field}`,
      values: TEXTS,
      call: (value, { sql }) => runledger.deleteJobSchedule(sql, "none", { ...ALL, [field]: value }),
    },
    {
      field: `runJobScheduleNow ${field}`,
      values: TEXTS,
      call: (value, { sql }) => runledger.runJobScheduleNow(sql, "none", { ...ALL, [field]: value }),
    },
  ]),
  {
    field: "runJobScheduleNow name",
    values: TEXTS,
    call: (value, { sql }) => runledger.runJobScheduleNow(sql, value, ALL),
  },
  {
    field: "requeueDeadLetters limit",
    values: HOSTILE_NUMBERS,
    call: (value, { sql }) => runledger.requeueDeadLetters(sql, { ...ALL, jobType: "none", limit: value }),
  },

  // Reads
  ...["getJob", "listJobEvents", "listJobAttempts", "listJobLogs", "getJobLineage", "explainJob", "cancelJob"].flatMap(
    (name): Attack[] => {
      const read = runledger[name as "getJob"];
      return [
        { field: `${name} jobId`, values: IDS, call: (value, { sql }) => read(sql, value, ALL) },
        {
          field: `${name} scope`,
          values: [...TEXTS, undefined, ...IDS.map((organizationId) => ({ organizationId }))],
          call: (value, { sql, jobId }) => read(sql, name === "cancelJob" ? newId() : jobId, { scope: value }),
        },
        {
          field: `${name} options`,
          values: [undefined, null, 1, "all"],
          call: (value, { sql }) => read(sql, newId(), value),
        },
      ];
    },
  ),
  ...LISTS.flatMap(({ name, read, filters }): Attack[] => [
    { field: `${name} limit`, values: HOSTILE_NUMBERS, call: (value, target) => read(target, { limit: value }) },
    {
      field: `${name} cursor`,
      values: [...TEXTS, ...CURSORS],
      call: (value, target) => read(target, { cursor: value }),
    },
    ...filters.map((field): Attack => ({
      field: `${name} ${field}`,
      values: field === "since" || field === "until" ? HOSTILE_DATES : field.startsWith("is") ? BOOLEANS : TEXTS,
      call: (value, target) => read(target, { [field]: value }),
    })),
  ]),
  ...["jobType", "windowSeconds", "sampleSize"].map((field): Attack => ({
    field: `readJobMetrics ${field}`,
    values: field === "jobType" ? TEXTS : HOSTILE_NUMBERS,
    call: (value, { sql }) => runledger.readJobMetrics(sql, { ...ALL, [field]: value }),
  })),
  ...["jobType", "since", "until", "maxJobs"].map((field): Attack => ({
    field: `countEndedJobs ${field}`,
    values: field === "jobType" ? TEXTS : field === "maxJobs" ? HOSTILE_NUMBERS : HOSTILE_DATES,
    call: (value, { sql }) => runledger.countEndedJobs(sql, { ...ALL, [field]: value }),
  })),
  ...["jobType", "idempotencyKey"].map((field): Attack => ({
    field: `getJobByIdempotencyKey ${field}`,
    values: TEXTS,
    call: (value, { sql }) =>
      runledger.getJobByIdempotencyKey(
        sql,
        { jobType: "a", idempotencyKey: "k", [field]: value },
        { scope: "global" },
      ),
  })),
  ...["workflowType", "idempotencyKey"].map((field): Attack => ({
    field: `getWorkflowRunByIdempotencyKey ${field}`,
    values: TEXTS,
    call: (value, { sql }) =>
      runledger.getWorkflowRunByIdempotencyKey(
        sql,
        { workflowType: "w", idempotencyKey: "k", [field]: value },
        { scope: "global" },
      ),
  })),
  {
    field: "nextScheduleFires count",
    values: HOSTILE_NUMBERS,
    call: async (value, { sql }) => {
      const schedule = await runledger.upsertJobSchedule(sql, {
        name: newId(),
        jobType: "a",
        cron: "@daily",
        payload: 1,
      });
      runledger.nextScheduleFires(schedule, value);
    },
  },

  // Workflows
  ...["workflowType", "organizationId", "idempotencyKey", "activeKey", "resultStepKey"].map((field): Attack => ({
    field: `enqueueWorkflowRun ${field}`,
    values: TEXTS,
    call: (value, { sql }) => runledger.enqueueWorkflowRun(sql, { ...run(), [field]: value }),
  })),
  {
    field: "enqueueWorkflowRun run",
    values: [...NO_TEXTS, undefined],
    call: (value, { sql }) => runledger.enqueueWorkflowRun(sql, value),
  },
  {
    field: "enqueueWorkflowRuns runs",
    values: [...NO_TEXTS, [null], Array(2)],
    call: (value, { sql }) => runledger.enqueueWorkflowRuns(sql, value),
  },
  {
    field: "enqueueWorkflowRun steps",
    values: [...NO_TEXTS, [null], Array(2)],
    call: (value, { sql }) => runledger.enqueueWorkflowRun(sql, { ...run(), steps: value }),
  },
  ...["stepKey", "jobType", "organizationId", "stage", "executionKind"].map((field): Attack => ({
    field: `enqueueWorkflowRun step.${field}`,
    values: TEXTS,
    call: (value, { sql }) => runledger.enqueueWorkflowRun(sql, run({ [field]: value })),
  })),
  ...["priority", "maxAttempts", "timeoutSeconds"].map((field): Attack => ({
    field: `enqueueWorkflowRun step.${field}`,
    values: HOSTILE_NUMBERS,
    call: (value, { sql }) => runledger.enqueueWorkflowRun(sql, run({ [field]: value })),
  })),
  {
    field: "enqueueWorkflowRun step.dependencies",
    values: [
      ...NO_TEXTS,
      [null],
      Array(2),
      ...HOSTILE_TEXTS.map((prerequisiteStepKey) => [{ prerequisiteStepKey, releaseMode: "ON_SUCCESS" }]),
    ],
    call: (value, { sql }) => runledger.enqueueWorkflowRun(sql, run({ dependencies: value })),
  },
  {
    field: "enqueueWorkflowRun step.allowsContinuation",
    values: BOOLEANS,
    call: (value, { sql }) => runledger.enqueueWorkflowRun(sql, run({ allowsContinuation: value })),
  },
  ...["afterMs", "outcome"].map((field): Attack => ({
    field: `enqueueWorkflowRun gate ${field}`,
    values: field === "afterMs" ? HOSTILE_NUMBERS : TEXTS,
    call: (value, { sql }) => runledger.enqueueWorkflowRun(sql, gateRun({ [field]: value })),
  })),
  ...["status", "reason", "errorCode", "errorMessage"].map((field): Attack => ({
    field: `completeExternalStep ${field}`,
    values: TEXTS,
    call: async (value, { sql }) => {
      const { runId } = await runledger.enqueueWorkflowRun(sql, gateRun());
      return await runledger.completeExternalStep(sql, runId, "gate", {
        ...ALL,
        completion: { status: "FAILED", [field]: value } as never,
      });
    },
  })),
  {
    field: "completeExternalStep stepKey",
    values: TEXTS,
    call: (value, { sql, runId }) =>
      runledger.completeExternalStep(sql, runId, value, { ...ALL, completion: { status: "SUCCEEDED" } }),
  },
  ...["windowStepKey", "mutationKey", "metadata"].map((field): Attack => ({
    field: `appendWorkflowSteps ${field}`,
    values: TEXTS,
    call: (value, { sql, runId }) =>
      runledger.appendWorkflowSteps(sql, runId, {
        ...ALL,
        windowStepKey: "gate",
        mutationKey: newId(),
        steps: [{ executionKind: "JOB", stepKey: newId(), jobType: "b", payload: 1, dependencies: [] }],
        [field]: value,
      }),
  })),
  {
    field: "appendWorkflowSteps steps",
    values: [...NO_TEXTS, [null], Array(2)],
    call: (value, { sql, runId }) =>
      runledger.appendWorkflowSteps(sql, runId, { ...ALL, windowStepKey: "gate", mutationKey: newId(), steps: value }),
  },
  ...["recoveryKey", "mode"].map((field): Attack => ({
    field: `recoverWorkflowRun ${field}`,
    values: TEXTS,
    call: (value, { sql, runId }) =>
      runledger.recoverWorkflowRun(sql, runId, { ...ALL, recoveryKey: newId(), mode: "REPLAY", [field]: value }),
  })),
  ...["reason", "actor"].map((field): Attack => ({
    field: `recoverWorkflowRun ${field}`,
    values: TEXTS,
    call: (value, { sql, runId }) =>
      runledger.recoverWorkflowRun(sql, runId, { ...ALL, recoveryKey: newId(), mode: "REPLAY", [field]: value }),
  })),
  ...["reason", "actor"].map((field): Attack => ({
    field: `cancelWorkflowRun ${field}`,
    values: TEXTS,
    call: async (value, { sql }) => {
      const { runId } = await runledger.enqueueWorkflowRun(sql, gateRun());
      return await runledger.cancelWorkflowRun(sql, runId, { ...ALL, [field]: value });
    },
  })),
  {
    field: "expireWorkflowGates limit",
    values: HOSTILE_NUMBERS,
    call: (value, { sql }) => runledger.expireWorkflowGates(sql, { limit: value }),
  },
  ...["limit", "olderThanMs", "expiresIdempotencyKeys"].map((field): Attack => ({
    field: `deleteFinishedWorkflowRuns ${field}`,
    values: field === "expiresIdempotencyKeys" ? BOOLEANS : [...HOSTILE_NUMBERS, 3_155_760_000_000, 1e14],
    call: (value, { sql }) => runledger.deleteFinishedWorkflowRuns(sql, { olderThanMs: 3_600_000, [field]: value }),
  })),
  ...[
    "getWorkflowRun",
    "explainWorkflowRun",
    "drawWorkflowRun",
    "listWorkflowSteps",
    "listWorkflowStepDependencies",
    "listWorkflowRunMutations",
  ].flatMap(
    (name): Attack[] => {
      const read = runledger[name as "getWorkflowRun"];
      return [
        { field: `${name} runId`, values: IDS, call: (value, { sql }) => read(sql, value, ALL) },
        {
          field: `${name} scope`,
          values: [...TEXTS, undefined, ...IDS.map((organizationId) => ({ organizationId }))],
          call: (value, { sql, runId }) => read(sql, runId, { scope: value }),
        },
      ];
    },
  ),
  ...["timeoutMs", "pollIntervalMs"].map((field): Attack => ({
    field: `getWorkflowResult ${field}`,
    // A long wait is what a large number asks for.
    values: HOSTILE_NUMBERS.filter((value) => field !== "timeoutMs" || !(Number(value) >= 0.5)),
    call: (value, { sql, runId }) => runledger.getWorkflowResult(sql, runId, { ...ALL, [field]: value }),
  })),

  // Definitions and configs
  ...["version", "maxAttempts", "timeoutSeconds", "priority"].map((field): Attack => ({
    field: `upsertJobDefinitions ${field}`,
    values: HOSTILE_NUMBERS,
    call: (value, { sql }) => runledger.upsertJobDefinitions(sql, [{ ...testDefinition(newId()), [field]: value }]),
  })),
  {
    field: "upsertJobDefinitions type",
    values: TEXTS,
    call: (value, { sql }) => runledger.upsertJobDefinitions(sql, [testDefinition(value)]),
  },
  {
    field: "upsertJobDefinitions definitions",
    values: [...NO_TEXTS, [null]],
    call: (value, { sql }) => runledger.upsertJobDefinitions(sql, value),
  },
  {
    field: "setJobDefinitionEnabled jobType",
    values: TEXTS,
    call: (value, { sql }) => runledger.setJobDefinitionEnabled(sql, value, { isEnabled: true }),
  },
  {
    field: "setJobDefinitionEnabled isEnabled",
    values: BOOLEANS,
    call: (value, { sql }) => runledger.setJobDefinitionEnabled(sql, "b", { isEnabled: value }),
  },
  ...["getJobRuntimeConfig", "getRequiredJobRuntimeConfig"].map((name): Attack => ({
    field: `${name} jobType`,
    values: TEXTS,
    call: (value, { sql }) => runledger[name as "getJobRuntimeConfig"](sql, value),
  })),
  ...["jobType", "updatedByUserId", "config"].map((field): Attack => ({
    field: `upsertJobRuntimeConfig ${field}`,
    values: TEXTS,
    call: (value, { sql }) =>
      runledger.upsertJobRuntimeConfig(sql, { jobType: "a", schemaVersion: 1, config: {}, [field]: value }),
  })),
  {
    field: "upsertJobRuntimeConfig schemaVersion",
    values: HOSTILE_NUMBERS,
    call: (value, { sql }) => runledger.upsertJobRuntimeConfig(sql, { jobType: "a", schemaVersion: value, config: {} }),
  },
];

/** Codes of PostgreSQL's own refusals: seeing one means that a check is missing here. */
const UNCHECKED = /^db\.|^schema\./;

function shown(value: unknown): string {
  const text = typeof value === "string" ? JSON.stringify(value) : Deno.inspect(value);
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
}

Deno.test("each field of each public function takes hostile values or refuses them by itself, before any SQL", async () => {
  await using database = await openTestDatabase({ checks: false });
  const { sql } = database;
  const { jobId, lease } = await jobIn(sql, "LEASED");
  assert(lease !== undefined);
  const target: Target = {
    sql,
    lease,
    jobId,
    succeededId: (await jobIn(sql, "SUCCEEDED")).jobId,
    pendingId: (await jobIn(sql, "PENDING")).jobId,
    deadId: (await jobIn(sql, "DEAD_LETTERED")).jobId,
    runId: (await runledger.enqueueWorkflowRun(sql, gateRun())).runId,
  };
  const leaks: string[] = [];
  for (const { field, values, call } of ATTACKS) {
    for (const value of values) {
      try {
        await call(value as never, target);
      } catch (error) {
        const isOurs = isRunledgerError(error)
          ? !UNCHECKED.test(error.code)
          : error instanceof TypeError || error instanceof RangeError;
        if (!isOurs) {
          const why = isRunledgerError(error) ? `${error.code} ${error.internalMessage}` : String(error);
          leaks.push(`${field} = ${shown(value)}: ${why}`);
        }
      }
    }
  }
  assert.deepEqual(leaks, []);
  assert.equal(({} as Record<string, unknown>)["polluted"], undefined);
  const [{ count } = { count: 0 }] = await sql<{ count: number }[]>`
    select count(*)::integer as count from runledger.job_queue`;
  assert(count > 0, "the table is still there");
});

Deno.test("storable hostile text comes back exactly from every place that keeps it", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const storable = HOSTILE_TEXTS.filter((text) => !text.includes("\0") && text.isWellFormed());
  for (const text of storable) {
    const fitsName = text.trim() !== "" && !/^[\s\u0085]*$/.test(text) && new TextEncoder().encode(text).length <= 255;
    const jobType = fitsName ? text : "a";
    await runledger.upsertJobDefinitions(sql, [testDefinition(jobType)]);
    const payload = text === "__proto__" ? { text } : { text, [text]: [text] };
    const { jobId } = await runledger.enqueueJob(sql, {
      jobType,
      payload,
      ...(fitsName ? { idempotencyKey: text } : {}),
    });
    const lease = await claimOne(sql, { jobTypes: [jobType] });
    assert.deepEqual(lease.payload, payload);
    const message = new TextEncoder().encode(text).length <= 8192 ? text : "m";
    await runledger.settleJob(sql, lease, {
      kind: "failed",
      failure: { kind: "TERMINAL", code: fitsName ? text : "x.y", message },
      checkpoint: text,
    });
    const job = await runledger.getJob(sql, jobId, ALL);
    assert.deepEqual(
      [job?.jobType, job?.idempotencyKey, job?.checkpoint, job?.lastErrorCode, job?.lastErrorMessage],
      [jobType, fitsName ? text : undefined, text, fitsName ? text : "x.y", message],
    );
  }
});

/** JSON as PostgreSQL gives it back: the one thing that changes is -0, which JSON text does not have. */
const jsonValues = fc.jsonValue({ maxDepth: 5, stringUnit: "binary" })
  .map((value) => JSON.parse(JSON.stringify(value)) as JsonValue)
  .filter((value) => isJsonValue(value));

Deno.test("payloads, checkpoints and outputs come back exactly, whatever JSON they are", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  await fc.assert(
    fc.asyncProperty(jsonValues, jsonValues, jsonValues, async (payload, checkpoint, output) => {
      const { jobId } = await runledger.enqueueJob(sql, { jobType: "a", payload });
      const lease = await claimOne(sql);
      assert.deepEqual(lease.payload, payload);
      await runledger.appendJobLogs(sql, [{ lease, level: "info", message: "m", payload: output }]);
      assert.deepEqual((await runledger.listJobLogs(sql, jobId, ALL)).items[0]?.payload, output);
      await runledger.settleJob(sql, lease, { kind: "succeeded", output, checkpoint });
      const job = await runledger.getJob(sql, jobId, ALL);
      assert.deepEqual([job?.payload, job?.checkpoint, job?.output], [payload, checkpoint, output]);
    }),
    { numRuns: 60 },
  );
});

Deno.test("numbers are IEEE doubles on this side and come back as the same double", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const extremes = [
    Number.MAX_VALUE,
    Number.MIN_VALUE,
    Number.EPSILON,
    Number.MAX_SAFE_INTEGER,
    2 ** 53 + 2,
    0.1 + 0.2,
    1e21,
    1e-7,
    -1.5e300,
    123456789.123456789,
  ];
  const doubles = fc.sample(fc.double({ noNaN: true, noDefaultInfinity: true }), 200).filter((n) => !Object.is(n, -0));
  const { jobId } = await runledger.enqueueJob(sql, { jobType: "a", payload: [...extremes, ...doubles] });
  assert.deepEqual((await runledger.getJob(sql, jobId, ALL))?.payload, [...extremes, ...doubles]);
  const zero = await runledger.enqueueJob(sql, { jobType: "a", payload: -0 });
  assert.equal((await runledger.getJob(sql, zero.jobId, ALL))?.payload, 0, "JSON text has no -0");
});

Deno.test("payloads that aim at prototypes, depth and size are refused or kept as plain data", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const deep = (levels: number): JsonValue => {
    let value: JsonValue = 1;
    for (let level = 0; level < levels; level++) value = [value];
    return value;
  };
  const refused: readonly unknown[] = [
    JSON.parse('{"__proto__": {"polluted": true}}'),
    { nested: JSON.parse('[{"__proto__": {"polluted": true}}]') },
    deep(257),
    deep(100_000),
    { toJSON: () => ({ toJSON: 1, big: 1n }) },
    new Proxy({}, {
      ownKeys: () => {
        throw new Error("trap");
      },
    }),
    "x".repeat(16_777_216),
    1n,
    Symbol.iterator,
    new Map([["a", 1]]),
  ];
  for (const payload of refused) {
    await assert.rejects(
      runledger.enqueueJob(sql, { jobType: "a", payload: payload as JsonValue }),
      (error) => isRunledgerError(error, "job.invalid_payload"),
      shown(payload),
    );
  }
  const kept: readonly JsonValue[] = [
    { constructor: { prototype: { polluted: true } } },
    { toString: "x", valueOf: 1, hasOwnProperty: null, then: "x" },
    deep(256),
    "x".repeat(1_048_576),
  ];
  for (const payload of kept) {
    const { jobId } = await runledger.enqueueJob(sql, { jobType: "a", payload });
    assert.deepEqual((await runledger.getJob(sql, jobId, ALL))?.payload, payload);
  }
  assert.equal(({} as Record<string, unknown>)["polluted"], undefined);
});

Deno.test("a few bytes of exponents do not become gigabytes of digits on the way back", async () => {
  await using database = await openTestDatabase();
  const { sql } = database;
  const bomb = Array<number>(1_000_000).fill(1e300);
  await assert.rejects(
    runledger.enqueueJob(sql, { jobType: "a", payload: bomb }),
    (error) => isRunledgerError(error, "job.invalid_payload"),
  );
  const few = [1e300, 1e-300, 5e-324];
  const { jobId } = await runledger.enqueueJob(sql, { jobType: "a", payload: few });
  assert.deepEqual((await runledger.getJob(sql, jobId, ALL))?.payload, few);
});
