/**
 * `inspect`: why a job, step or run stands where it stands.
 *
 * @module
 */

import {
  drawWorkflowRun,
  explainJob,
  explainWorkflowRun,
  formatJobExplanation,
  formatWorkflowRunExplanation,
  getJob,
  listJobAttempts,
  listJobLogs,
} from "@runledger/postgres";
import type { Job, JobAttempt, JobExplanation, JobLog, Queryable } from "@runledger/postgres";
import type { CommandLine } from "./command_line.ts";
import { paint, printable, printableJson, table } from "./terminal.ts";
import type { Cell, Output } from "./terminal.ts";

/** How many steps of a run are drawn. */
const DRAWN_STEPS = 200;

/**
 * Prints what is known of a job, step or run.
 *
 * @returns Whether there is one of this id in the scope.
 */
export async function printInspection(db: Queryable, line: CommandLine, output: Output): Promise<boolean> {
  const { id = "", scope } = line;
  const job = await explainJob(db, id, { scope });
  if (job !== undefined) {
    await printJob(db, { line, explanation: job }, output);
    return true;
  }
  const run = await explainWorkflowRun(db, id, { scope });
  if (run === undefined) return false;
  if (line.isJson) {
    const { metadata, ...rest } = run.run;
    output.write(`${printableJson({ ...run, run: line.showsPayload ? { ...rest, metadata } : rest }, 2)}\n`);
    return true;
  }
  output.write(
    `${paint(output, "bold", printable(`run ${run.run.runId} of ${run.run.workflowType}: ${run.run.status}`))}\n`,
  );
  output.write(lines(formatWorkflowRunExplanation(run)));
  output.write(`\n${lines(await drawWorkflowRun(db, id, { scope, maxSteps: DRAWN_STEPS }))}`);
  return true;
}

interface Inspected {
  readonly line: CommandLine;
  readonly explanation: JobExplanation;
}

async function printJob(db: Queryable, { line, explanation }: Inspected, output: Output): Promise<void> {
  const { scope } = line;
  const { jobId, step } = explanation;
  const job = await getJob(db, jobId, { scope });
  const attempts = (await listJobAttempts(db, jobId, { scope, limit: 1000 })).items;
  const logs = (await listJobLogs(db, jobId, { scope, limit: 1000 })).items;
  const shown = job === undefined || line.showsPayload ? job : withoutPayload(job);
  if (line.isJson) {
    output.write(`${printableJson({ explanation, job: shown, attempts, logs }, 2)}\n`);
    return;
  }
  const what = explanation.jobType === undefined ? "gate" : `${explanation.jobType}`;
  const title = `${job === undefined ? "step" : "job"} ${jobId}: ${what}${job === undefined ? "" : `, ${job.status}`}`;
  output.write(`${paint(output, "bold", printable(title))}\n${lines(formatJobExplanation(explanation))}`);
  if (attempts.length > 0) output.write(`\n${attemptsText(attempts.slice(-20), output)}`);
  if (logs.length > 0) output.write(`\n${logsText(logs.slice(-50), output)}`);
  if (line.showsPayload && job !== undefined) {
    for (const name of ["payload", "checkpoint", "output"] as const) {
      if (job[name] !== undefined) output.write(`\n${name}: ${printableJson(job[name], 2)}\n`);
    }
  }
  if (step?.workflowType !== undefined) {
    output.write(`\n${lines(await drawWorkflowRun(db, step.runId, { scope, maxSteps: DRAWN_STEPS }))}`);
  }
}

function withoutPayload(job: Job): Omit<Job, "payload" | "checkpoint" | "output"> {
  const { payload: _payload, checkpoint: _checkpoint, output: _output, ...rest } = job;
  return rest;
}

function lines(text: string): string {
  return text === "" ? "" : text.split("\n").map((line) => `${printable(line)}\n`).join("");
}

function attemptsText(attempts: readonly JobAttempt[], output: Output): string {
  const rows = attempts.map((attempt): readonly Cell[] => [
    `${attempt.runNumber}/${attempt.attempt}`,
    attempt.leasedAt.toISOString(),
    attempt.finishedAt === undefined ? "" : `${attempt.finishedAt.getTime() - attempt.leasedAt.getTime()} ms`,
    attempt.workerId,
    attempt.closedBy === undefined
      ? { text: "open", tone: "dim" }
      : { text: attempt.outcome ?? attempt.closedBy, tone: attempt.closedBy === "FAILED" ? "bad" : "good" },
    [attempt.errorCode, attempt.errorMessage?.split("\n")[0]].filter((text) => text !== undefined).join(": "),
  ]);
  return table(output, ["run/attempt", "began", ">took", "worker", "end", "error"], rows);
}

function logsText(logs: readonly JobLog[], output: Output): string {
  const rows = logs.map((log): readonly Cell[] => [
    log.occurredAt.toISOString(),
    `${log.runNumber}/${log.attempt}`,
    log.level === "error" ? { text: log.level, tone: "bad" } : log.level,
    log.message,
  ]);
  return table(output, ["logged", "run/attempt", "level", "message"], rows);
}
