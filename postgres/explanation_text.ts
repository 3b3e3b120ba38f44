/**
 * Explanations of jobs and runs as text, for people.
 *
 * @module
 */

import type { ClaimOutlook } from "./claim_outlook.ts";
import type { FailedAttempt, JobExplanation, JobVerdict } from "./job_explanation.ts";
import type { LiveStep, LiveStepSituation } from "./job_situation.ts";
import type { StepSample, WorkflowRunExplanation } from "./workflow_explanation.ts";

/**
 * Makes a text of an explanation: what holds on the first line, and what else is known on the lines below.
 *
 * @param explanation What {@linkcode explainJob} gave.
 * @returns Lines; instants in UTC, and how far they are from the moment of the explanation.
 */
export function formatJobExplanation(explanation: JobExplanation): string {
  const { observedAt, step, isTypeEnabled, failedAttempts, requeued } = explanation;
  const lines = [...verdictLines(explanation, observedAt)];
  for (const failed of failedAttempts) lines.push(failedLine(failed, observedAt));
  if (requeued !== undefined) {
    lines.push(`It was requeued ${past(requeued.at, observedAt)}${by(requeued.actor)}${because(requeued.reason)}.`);
  }
  if (isTypeEnabled === false) {
    const what = explanation.kind === "blocked" || isLive(explanation)
      ? "new jobs of it are refused, this one still runs"
      : "new jobs of it are refused, replays too";
    lines.push(`Its type ${explanation.jobType} is disabled: ${what}.`);
  }
  if (step !== undefined) {
    const workflow = step.workflowType === undefined ? "" : ` of ${step.workflowType}`;
    lines.push(`It is step ${step.stepKey} of run ${step.runId}${workflow}.`);
  }
  return lines.join("\n");
}

function isLive({ kind }: JobVerdict): boolean {
  return kind === "scheduled" || kind === "waiting_to_retry" || kind === "due" || kind === "running" ||
    kind === "lease_run_out";
}

function verdictLines(verdict: JobVerdict, now: Date): readonly string[] {
  switch (verdict.kind) {
    case "scheduled":
    case "waiting_to_retry":
    case "running":
    case "lease_run_out":
    case "gate_open":
      return [sentence(situationText(verdict, now))];
    case "due":
      return [sentence(situationText(verdict, now)), ...outlookLines(verdict.outlook, now)];
    case "blocked": {
      const { pendingCount, waitsFor } = verdict;
      const lines = waitsFor.map(({ path, omittedCount }) => `  ${wayText(path, omittedCount, now)}`);
      const untold = pendingCount - waitsFor.length;
      if (untold > 0 && waitsFor.length > 0) lines.push(`  and ${untold} more`);
      return [`It waits for ${counted(pendingCount, "prerequisite")}${lines.length === 0 ? "." : ":"}`, ...lines];
    }
    case "succeeded":
      return [`It succeeded ${past(verdict.finishedAt, now)}, at attempt ${verdict.attempt}.`];
    case "dead_lettered": {
      const { attempt, maxAttempts, reason, finishedAt } = verdict;
      const why = reason === "FAILURE_KIND_NON_RETRYABLE" ? ", with a failure that is not retried" : "";
      return [`It failed for good ${past(finishedAt, now)}, after ${attempt} of ${maxAttempts} attempts${why}.`];
    }
    case "canceled": {
      const lines = [
        `It was cancelled ${past(verdict.finishedAt, now)}${by(verdict.actor)}${because(verdict.reason)}.`,
      ];
      const { leaseQuiescesAt } = verdict;
      if (leaseQuiescesAt !== undefined) lines.push(`Its handler may be at work ${until(leaseQuiescesAt, now)}.`);
      return lines;
    }
    case "ended_without_job": {
      const { status, finishedAt, reason, unsatisfied } = verdict;
      const lines = [`It ended ${past(finishedAt, now)} as ${status}${because(reason)}.`];
      for (const { path, omittedCount } of unsatisfied) {
        const steps = path.map(({ stepKey, status, errorCode }) =>
          `${stepKey} ${status === "FAILED" ? "failed" : "was cancelled"}${
            errorCode === undefined ? "" : ` (${errorCode})`
          }`
        );
        lines.push(`  ${joinWay(steps, omittedCount, ", because ")}`);
      }
      return lines;
    }
  }
}

function outlookLines(outlook: ClaimOutlook, now: Date): readonly string[] {
  const { aheadCount, isAheadComplete, leasedCount, idleWorkerCount, lastClaimedAt, lookedBackTo } = outlook;
  const lines: string[] = [];
  if (aheadCount > 0) {
    lines.push(
      `${isAheadComplete ? "" : "At least "}${counted(aheadCount, "due job")} of its type ${
        aheadCount === 1 ? "goes" : "go"
      } first.`,
    );
  }
  if (idleWorkerCount > 0) {
    lines.push(
      `${counted(idleWorkerCount, "worker")} with a handler for it ${
        idleWorkerCount === 1 ? "is" : "are"
      } idle and should claim it at the next poll.`,
    );
  }
  if (leasedCount > 0) {
    lines.push(`${counted(leasedCount, "job")} of its type ${leasedCount === 1 ? "is" : "are"} leased.`);
  }
  if (lastClaimedAt !== undefined) {
    const isSilent = leasedCount === 0 && idleWorkerCount === 0;
    lines.push(
      isSilent
        ? `No worker has claimed a job of its type for ${formatDuration(now.getTime() - lastClaimedAt.getTime())}.`
        : `A worker claimed a job of its type ${past(lastClaimedAt, now)}.`,
    );
  } else if (idleWorkerCount === 0) {
    lines.push(
      lookedBackTo === undefined
        ? "No worker has ever claimed a job of its type, as far as is still stored."
        : `No worker has claimed a job of its type for ${
          formatDuration(now.getTime() - lookedBackTo.getTime())
        } at least.`,
    );
  }
  if (leasedCount === 0 && idleWorkerCount === 0) {
    lines.push("Is a worker with a handler for this type running?");
  }
  return lines;
}

function failedLine(failed: FailedAttempt, now: Date): string {
  const { attempt, failureKind, errorCode, errorMessage, failedAt } = failed;
  const [message = ""] = errorMessage.split("\n");
  return `  attempt ${attempt} failed ${past(failedAt, now)}: ${failureKind} ${errorCode}: ${message}`;
}

/** Where a job or gate stands, as the end of a sentence that begins with its name. */
function situationText(situation: LiveStepSituation, now: Date): string {
  switch (situation.kind) {
    case "blocked":
      return "is blocked";
    case "gate_open": {
      const { openSince, expiresAt } = situation;
      const end = expiresAt === undefined ? "" : `; it gets its default outcome ${at(expiresAt, now)}`;
      return `is a gate that is open since ${instant(openSince)} (${ago(openSince, now)})${end}`;
    }
    case "scheduled":
      return `is scheduled: due ${at(situation.dueAt, now)}`;
    case "waiting_to_retry":
      return `waits to be tried again: ${triesText(situation)}, next attempt ${at(situation.dueAt, now)}`;
    case "due": {
      const tries = situation.attempt === 0 ? "" : `, ${triesText(situation)}`;
      return `is due since ${instant(situation.dueAt)} (${ago(situation.dueAt, now)}) and not claimed${tries}`;
    }
    case "running": {
      const { workerId, leaseExpiresAt, attempt, maxAttempts } = situation;
      return `is leased by ${workerId} ${until(leaseExpiresAt, now)}: attempt ${attempt} of ${maxAttempts}`;
    }
    case "lease_run_out": {
      const { workerId, leaseExpiresAt, attempt, maxAttempts } = situation;
      return `was lost by ${workerId} in attempt ${attempt} of ${maxAttempts}: its lease ran out ${
        past(leaseExpiresAt, now)
      }, and no reaper has come yet`;
    }
  }
}

function triesText(
  situation: { readonly attempt: number; readonly maxAttempts: number; readonly errorCode?: string },
): string {
  const { attempt, maxAttempts, errorCode } = situation;
  const failure = errorCode === undefined ? "" : ` with ${errorCode}`;
  return `attempt ${attempt} of ${maxAttempts} failed${failure}`;
}

function wayText(path: readonly LiveStep[], omittedCount: number, now: Date): string {
  const last = path.at(-1);
  if (last === undefined) return "";
  const steps = path.map(({ stepKey }) => stepKey);
  return `${joinWay(steps, omittedCount, ", which waits for ")}, which ${situationText(last.situation, now)}`;
}

function joinWay(steps: readonly string[], omittedCount: number, by: string): string {
  if (omittedCount === 0) return steps.join(by);
  return [...steps.slice(0, -2), `${omittedCount} more in a row`, ...steps.slice(-2)].join(by);
}

/**
 * Makes a text of an explanation: what has to happen next on the first line, and the steps in question below.
 *
 * @param explanation What {@linkcode explainWorkflowRun} gave.
 * @returns Lines; instants in UTC, and how far they are from the moment of the explanation.
 */
export function formatWorkflowRunExplanation(explanation: WorkflowRunExplanation): string {
  const { run, observedAt: now, stepCounts, failed } = explanation;
  const lines: string[] = [runVerdict(explanation, now)];
  const counts = Object.entries(stepCounts).filter(([, count]) => count > 0).map(([status, count]) =>
    `${count} ${status}`
  );
  lines.push(`${counted(run.stepCount, "step")}: ${counts.join(", ")}.`);
  const tell = <Step>(sample: StepSample<Step>, line: (step: Step) => string) => {
    lines.push(...sample.steps.map((step) => `  ${line(step)}`));
    if (sample.count > sample.steps.length) lines.push(`  and ${sample.count - sample.steps.length} more`);
  };
  if ("gates" in explanation) {
    for (const sample of [explanation.running, explanation.due, explanation.scheduled, explanation.gates]) {
      tell(sample, ({ stepKey, situation }) => `${stepKey} ${situationText(situation, now)}`);
    }
  }
  tell(failed, ({ stepKey, failedAt, errorCode, errorMessage }) => {
    const when = failedAt === undefined ? "" : ` ${past(failedAt, now)}`;
    const [message = ""] = (errorMessage ?? "").split("\n");
    return `${stepKey} failed${when}: ${
      [errorCode, message].filter((text) => text !== undefined && text !== "").join(": ")
    }`;
  });
  return lines.join("\n");
}

function runVerdict(explanation: WorkflowRunExplanation, now: Date): string {
  switch (explanation.kind) {
    case "running":
      return `It runs: ${counted(explanation.running.count, "step")} in the hands of workers.`;
    case "waiting_for_workers":
      return `It waits for a worker to claim ${counted(explanation.due.count, "step")}.`;
    case "waiting_for_time":
      return `It waits for the time of ${counted(explanation.scheduled.count, "step")}.`;
    case "waiting_for_gates":
      return `It waits for ${counted(explanation.gates.count, "gate")} to be completed.`;
    case "succeeded":
      return `It succeeded ${past(explanation.finishedAt, now)}.`;
    case "completed_with_errors":
      return `It ended ${past(explanation.finishedAt, now)}, but not all of it went well.`;
    case "canceled":
      return `It was cancelled ${past(explanation.finishedAt, now)}${because(explanation.run.statusReason)}.`;
  }
}

function sentence(text: string): string {
  return `It ${text}.`;
}

function by(actor: string | undefined): string {
  return actor === undefined ? "" : ` by ${actor}`;
}

function because(reason: string | undefined): string {
  return reason === undefined ? "" : `: ${reason}`;
}

function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

function past(when: Date, now: Date): string {
  return `${ago(when, now)}, at ${instant(when)}`;
}

function at(when: Date, now: Date): string {
  const ms = when.getTime() - now.getTime();
  return `at ${instant(when)} (${ms > 0 ? `in ${formatDuration(ms)}` : ago(when, now)})`;
}

function until(when: Date, now: Date): string {
  return `until ${instant(when)} (${formatDuration(when.getTime() - now.getTime())})`;
}

function ago(when: Date, now: Date): string {
  return `${formatDuration(now.getTime() - when.getTime())} ago`;
}

/** An instant to the second, in UTC. */
function instant(when: Date): string {
  return `${when.toISOString().slice(0, 19)}Z`;
}

const UNITS: readonly (readonly [suffix: string, ms: number])[] = [
  ["d", 86_400_000],
  ["h", 3_600_000],
  ["min", 60_000],
  [
    "s",
    1000,
  ],
];

/**
 * Writes a length of time in its two largest units, as `2 h 5 min`.
 *
 * @param ms The time, in milliseconds; less than nothing counts as nothing.
 * @returns The text.
 */
export function formatDuration(ms: number): string {
  const index = UNITS.findIndex(([, unit]) => ms >= unit);
  const [large, small] = [UNITS[index], UNITS[index + 1]];
  if (large === undefined) return `${Math.max(Math.round(ms), 0)} ms`;
  const count = Math.floor(ms / large[1]);
  const rest = small === undefined ? 0 : Math.floor((ms % large[1]) / small[1]);
  return `${count} ${large[0]}${rest === 0 || small === undefined ? "" : ` ${rest} ${small[0]}`}`;
}
