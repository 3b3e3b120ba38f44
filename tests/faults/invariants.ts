/**
 * What must be true after every scenario, whatever was done to whom. Plain functions of what was recorded, so that each can
 * be shown to find what it is for.
 *
 * @module
 */

import type { JournalLine } from "./journal.ts";

/** An enqueue that was acknowledged to its caller. */
export interface Acknowledged {
  readonly jobId: string;
  /** What the job must have come to. */
  readonly expected: "SUCCEEDED" | "DEAD_LETTERED" | "either";
}

/** A job as it is stored. */
export interface StoredJob {
  readonly jobId: string;
  readonly jobType: string;
  readonly status: string;
  /** How many of its events end it. */
  readonly ends: number;
}

/** An attempt as the ledger tells it. */
export interface StoredAttempt {
  readonly jobId: string;
  readonly run: number;
  readonly attempt: number;
  /** The event that closed it, or the failure's kind. */
  readonly outcome: string | null;
}

/** A row that a handler wrote in the transaction that settled its job. */
export interface StoredEffect {
  readonly jobId: string;
  readonly run: number;
  readonly attempt: number;
}

/** Everything that was recorded. */
export interface Evidence {
  readonly acknowledged: readonly Acknowledged[];
  readonly jobs: readonly StoredJob[];
  readonly attempts: readonly StoredAttempt[];
  readonly effects: readonly StoredEffect[];
  readonly journal: readonly JournalLine[];
  /** The job type whose effects are rows. */
  readonly transactionalType: string;
  /** How many handlers a process may run at once. */
  readonly maxConcurrency: number;
}

/** What is wrong, in words; empty when nothing is. */
export type Verdict = readonly string[];

/** All checks by name. */
export const INVARIANTS: Readonly<Record<string, (evidence: Evidence) => Verdict>> = {
  "every acknowledged enqueue ended in exactly one terminal state": acknowledgedJobsEnded,
  "nothing was run that was not claimed, and no attempt was run twice": executionsWereClaimed,
  "executions overlap only where a lease was lost": executionsDoNotOverlap,
  "what succeeded was run to its end": successesWereRun,
  "transactional completions happened exactly once": effectsHappenedOnce,
  "concurrency was never above its limit": concurrencyWasKept,
  "no write of a zombie was accepted": zombiesWereRefused,
};

/** Runs all checks. */
export function verdictOn(evidence: Evidence): Verdict {
  return Object.entries(INVARIANTS).flatMap(([name, check]) => {
    const problems = check(evidence);
    const shown = problems.slice(0, 5);
    if (problems.length > shown.length) shown.push(`and ${problems.length - shown.length} more`);
    return shown.map((problem) => `${name}: ${problem}`);
  });
}

const TERMINAL = ["SUCCEEDED", "DEAD_LETTERED", "CANCELED"];

function acknowledgedJobsEnded({ acknowledged, jobs }: Evidence): Verdict {
  const problems: string[] = [];
  const stored = new Map(jobs.map((job) => [job.jobId, job]));
  const known = new Set<string>();
  for (const { jobId, expected } of acknowledged) {
    if (known.has(jobId)) problems.push(`job ${jobId} was given to two enqueues`);
    known.add(jobId);
    const job = stored.get(jobId);
    if (job === undefined) {
      problems.push(`job ${jobId} was acknowledged and is not there`);
      continue;
    }
    if (!TERMINAL.includes(job.status)) problems.push(`job ${jobId} is ${job.status}`);
    else if (expected !== "either" && job.status !== expected) {
      problems.push(`job ${jobId} (${job.jobType}) is ${job.status}, not ${expected}`);
    }
    if (job.ends !== 1) problems.push(`job ${jobId} has ended ${job.ends} times`);
  }
  for (const { jobId } of jobs) if (!known.has(jobId)) problems.push(`job ${jobId} was enqueued by nobody`);
  return problems;
}

/** From its first line to its last, or to the death of its process, as places in the journal. */
interface Execution {
  readonly key: string;
  readonly jobId: string;
  readonly pid: number;
  readonly from: number;
  to: number;
  /** Whether its handler came to its last line. */
  ended: boolean;
}

function keyOf({ jobId, run, attempt }: { jobId?: string; run?: number; attempt?: number }): string {
  return `job ${jobId}, run ${run}, attempt ${attempt}`;
}

/** Every handler's run, in the order of their beginnings. */
export function executionsOf(journal: readonly JournalLine[]): readonly Execution[] {
  const executions: Execution[] = [];
  const open = new Map<string, Execution>();
  for (const [place, line] of journal.entries()) {
    const { kind, pid, jobId } = line;
    if (kind === "start" && jobId !== undefined) {
      const execution = { key: keyOf(line), jobId, pid, from: place, to: Infinity, ended: false };
      executions.push(execution);
      open.set(`${pid} ${execution.key}`, execution);
    } else if (kind === "end") {
      const execution = open.get(`${pid} ${keyOf(line)}`);
      if (execution !== undefined) Object.assign(execution, { to: place, ended: true });
    } else if (kind === "dead") {
      for (const execution of open.values()) {
        if (execution.pid === pid && !execution.ended) execution.to = Math.min(execution.to, place);
      }
    }
  }
  return executions;
}

function executionsWereClaimed({ journal, attempts }: Evidence): Verdict {
  const problems: string[] = [];
  const claimed = new Set(attempts.map(keyOf));
  const seen = new Set<string>();
  for (const { key, pid } of executionsOf(journal)) {
    if (!claimed.has(key)) problems.push(`${key} was run by process ${pid} and never claimed`);
    if (seen.has(key)) problems.push(`${key} was run twice`);
    seen.add(key);
  }
  return problems;
}

/** After these the handler may still run, though its attempt is over: it was told, and did not stop in time. */
const OVER_WHILE_RUNNING = ["LEASE_EXPIRED", "TIMEOUT"];

function executionsDoNotOverlap({ journal, attempts }: Evidence): Verdict {
  const problems: string[] = [];
  const outcomes = new Map(attempts.map((attempt) => [keyOf(attempt), attempt.outcome]));
  const byJob = new Map<string, Execution[]>();
  for (const execution of executionsOf(journal)) {
    const before = byJob.get(execution.jobId) ?? [];
    for (const other of before) {
      if (other.to < execution.from) continue;
      if (OVER_WHILE_RUNNING.includes(outcomes.get(other.key) ?? "")) continue;
      // Its process was stopped after it had looked at the lease and before the handler's first line.
      if (outcomes.get(execution.key) === "LEASE_EXPIRED") continue;
      problems.push(`${execution.key} began while ${other.key} ran, which ended as ${outcomes.get(other.key)}`);
    }
    byJob.set(execution.jobId, [...before, execution]);
  }
  return problems;
}

function successesWereRun({ journal, attempts, jobs, transactionalType }: Evidence): Verdict {
  // A transaction settles the job before its handler is over, which may never come to its last line then.
  const settledInside = new Set(jobs.filter(({ jobType }) => jobType === transactionalType).map(({ jobId }) => jobId));
  const executions = new Map(executionsOf(journal).map((execution) => [execution.key, execution]));
  return attempts.filter(({ outcome }) => outcome === "SUCCEEDED").flatMap((attempt) => {
    const execution = executions.get(keyOf(attempt));
    if (execution === undefined) return [`${keyOf(attempt)} succeeded and was not run`];
    if (!execution.ended && !settledInside.has(attempt.jobId)) return [`${keyOf(attempt)} succeeded before its end`];
    return [];
  });
}

function effectsHappenedOnce({ attempts, effects, jobs, transactionalType }: Evidence): Verdict {
  const problems: string[] = [];
  const succeeded = new Set(attempts.filter(({ outcome }) => outcome === "SUCCEEDED").map(keyOf));
  const seen = new Set<string>();
  for (const effect of effects) {
    const key = keyOf(effect);
    if (!succeeded.has(key)) problems.push(`${key} has an effect and did not succeed`);
    if (seen.has(effect.jobId)) problems.push(`job ${effect.jobId} has several effects`);
    seen.add(effect.jobId);
  }
  for (const { jobId, jobType, status } of jobs) {
    if (jobType === transactionalType && status === "SUCCEEDED" && !seen.has(jobId)) {
      problems.push(`job ${jobId} succeeded without its effect`);
    }
  }
  return problems;
}

function concurrencyWasKept({ journal, maxConcurrency }: Evidence): Verdict {
  const problems: string[] = [];
  const running = new Map<number, number>();
  const most = new Map<number, number>();
  for (const { kind, pid } of journal) {
    if (kind !== "start" && kind !== "end") continue;
    const count = (running.get(pid) ?? 0) + (kind === "start" ? 1 : -1);
    running.set(pid, count);
    most.set(pid, Math.max(most.get(pid) ?? 0, count));
  }
  for (const [pid, count] of most) {
    if (count > maxConcurrency) problems.push(`process ${pid} ran ${count} handlers at once, not ${maxConcurrency}`);
  }
  return problems;
}

function zombiesWereRefused({ journal }: Evidence): Verdict {
  return journal.filter(({ kind }) => kind === "accepted").map((line) => `${keyOf(line)}: ${line.note}`);
}
