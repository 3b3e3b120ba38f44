/**
 * `status`: what is queued, for how long, how jobs end, and who is at work.
 *
 * @module
 */

import {
  countDeadLetters,
  countWorkflowRuns,
  formatDuration,
  listActiveWorkers,
  listJobDefinitions,
  listJobSchedules,
  readJobMetrics,
} from "@runledger/postgres";
import type { ActiveWorker, BoundedCount, JobMetrics, Queryable } from "@runledger/postgres";
import type { CommandLine } from "./command_line.ts";
import { paint, printable, printableJson, table } from "./terminal.ts";
import type { Cell, Output } from "./terminal.ts";

/** Prints the status. */
export async function printStatus(db: Queryable, line: CommandLine, output: Output): Promise<void> {
  const { scope, jobType } = line;
  const types = await readJobMetrics(db, { scope, ...(jobType === undefined ? {} : { jobType }) });
  const workers = await listActiveWorkers(db, { scope });
  const runs = {
    running: await countWorkflowRuns(db, { scope, status: "RUNNING" }),
    waitingForExternal: await countWorkflowRuns(db, { scope, status: "WAITING_FOR_EXTERNAL" }),
  };
  const deadLetters = await countDeadLetters(db, { scope, ...(jobType === undefined ? {} : { jobType }) });
  const disabled = (await listJobDefinitions(db, { isEnabled: false, limit: 1000 })).items;
  const schedules = (await listJobSchedules(db, { scope, isActive: true, limit: 1000 })).items;
  const fires = schedules.flatMap(({ name, nextFireAt }) => nextFireAt === undefined ? [] : [{ name, nextFireAt }]);
  fires.sort((a, b) => a.nextFireAt.getTime() - b.nextFireAt.getTime());
  const [nextFire] = fires;
  const disabledTypes = disabled.map(({ type }) => type);
  if (line.isJson) {
    const told = { types, workers, runs, deadLetters, disabledTypes, activeSchedules: schedules.length, nextFire };
    output.write(`${printableJson(told, 2)}\n`);
    return;
  }
  output.write(typesText(types, output));
  output.write(`\n${workersText(workers, output)}`);
  output.write(
    `\nworkflow runs: ${countText(runs.running)} running, ${countText(runs.waitingForExternal)} waiting for gates\n`,
  );
  const letters = `dead letters: ${countText(deadLetters)}`;
  output.write(`${deadLetters.count > 0 ? paint(output, "odd", letters) : letters}\n`);
  const next = nextFire === undefined
    ? ""
    : `, next: ${printable(nextFire.name)} at ${nextFire.nextFireAt.toISOString()}`;
  output.write(`active schedules: ${schedules.length}${next}\n`);
  if (disabledTypes.length > 0) {
    output.write(paint(output, "odd", `disabled types: ${disabledTypes.map(printable).join(", ")}`) + "\n");
  }
}

function countText({ count, isComplete }: BoundedCount): string {
  return isComplete ? String(count) : `at least ${count}`;
}

function typesText(types: readonly JobMetrics[], output: Output): string {
  if (types.length === 0) return "no jobs wait, run or ended within a day\n";
  const ms = (value: number | undefined) => value === undefined ? "" : formatDuration(value);
  const rows = types.map((type): readonly Cell[] => [
    type.jobType,
    type.isDepthComplete ? String(type.due) : `${type.due}+`,
    toned(ms(type.oldestDueMs), (type.oldestDueMs ?? 0) > 300_000 ? "odd" : undefined),
    type.isDepthComplete ? String(type.scheduled) : `${type.scheduled}+`,
    String(type.leased),
    toned(type.leasesRunOut === 0 ? "" : String(type.leasesRunOut), "bad"),
    type.endedPerMinute.toFixed(1),
    String(type.succeeded),
    toned(type.deadLettered === 0 ? "" : String(type.deadLettered), "bad"),
    type.retries === 0 ? "" : String(type.retries),
    ms(type.waitMs?.p95),
    ms(type.runMs?.p50),
    ms(type.runMs?.p95),
  ]);
  const head = [
    "type",
    ">due",
    ">oldest",
    ">scheduled",
    ">leased",
    ">lost",
    ">ended/min",
    ">ok",
    ">dead",
    ">retries",
    ">wait p95",
    ">run p50",
    ">run p95",
  ];
  return table(output, head, rows);
}

function workersText(workers: readonly ActiveWorker[], output: Output): string {
  if (workers.length === 0) return "no worker holds a job or says that it is idle\n";
  const now = Date.now();
  const rows = workers.map((worker): readonly Cell[] => {
    const types = worker.jobTypes.slice(0, 5).join(", ") + (worker.jobTypes.length > 5 ? ", ..." : "");
    const { lastHeartbeatAt: heartbeat } = worker;
    return [
      worker.workerId,
      worker.leasedCount === 0 ? { text: "idle", tone: "dim" } : { text: String(worker.leasedCount), tone: "good" },
      toned(worker.runOutCount === 0 ? "" : String(worker.runOutCount), "bad"),
      heartbeat === undefined ? "" : `${formatDuration(now - heartbeat.getTime())} ago`,
      types,
    ];
  });
  return table(output, ["worker", ">leased", ">lost", "heartbeat", "types"], rows);
}

function toned(text: string, tone: "odd" | "bad" | undefined): Cell {
  return tone === undefined || text === "" ? text : { text, tone };
}
