/**
 * Writes `docs/state_machines.md` from core's transition tables.
 *
 * What a status means and what leads on from it is read from the comments where both are declared. Which events of the
 * ledger move a job is found by trying each of them in each status.
 *
 * Run: `deno task docs:states`. With `--check` nothing is written, and the exit code is 1 when the page is out of date.
 *
 * @module
 */

import { readFile } from "node:fs/promises";
import { JOB_EVENT_TYPES, replayJobEvents, REQUEUE_KINDS } from "../core/job_event.ts";
import type { JobEvent } from "../core/job_event.ts";
import { isRunledgerError } from "../core/errors.ts";
import { JOB_TRANSITIONS } from "../core/job_status.ts";
import type { JobStatus } from "../core/job_status.ts";
import { WORKFLOW_RUN_TRANSITIONS, WORKFLOW_STEP_TRANSITIONS } from "../core/workflow_status.ts";
import { markdownTable, wrap, writePage } from "./generated_page.ts";

/** One machine of the page. */
interface Machine {
  readonly title: string;
  readonly introduction: string;
  /** The module that declares it, and its names there. */
  readonly source: { readonly path: string; readonly type: string; readonly table: string };
  readonly transitions: Readonly<Record<string, readonly string[]>>;
  /** In which statuses it may begin. */
  readonly initial: readonly string[];
  /** What moves it from one status to another, where that has names. */
  readonly eventsBetween?: (from: string, to: string) => readonly string[];
}

const HEADER = `# State machines

<!-- Generated from core/job_status.ts and core/workflow_status.ts by \`deno task docs:states\`. Do not edit. -->

${
  wrap(
    "The tables are data in core. The database refuses every change of a status that is not in them, whoever asks for it, " +
      "by triggers and checks; tests try each pair. A status without a way out is final.",
  )
}
`;

const MACHINES: readonly Machine[] = [
  {
    title: "Jobs",
    introduction:
      "A row of `runledger.job_queue`. The arrows bear the ledger's events that post them: a failure posts " +
      "FAILED and then what becomes of the job; a REQUEUED tells its kind.",
    source: { path: "core/job_status.ts", type: "JobStatus", table: "JOB_TRANSITIONS" },
    transitions: JOB_TRANSITIONS,
    initial: ["PENDING"],
    eventsBetween: jobEventsBetween,
  },
  {
    title: "Workflow steps",
    introduction: "A row of `runledger.workflow_steps`, as reads report it.",
    source: { path: "core/workflow_status.ts", type: "WorkflowStepStatus", table: "WORKFLOW_STEP_TRANSITIONS" },
    transitions: WORKFLOW_STEP_TRANSITIONS,
    initial: ["BLOCKED", "WAITING_FOR_EXTERNAL", "ENQUEUED"],
  },
  {
    title: "Workflow runs",
    introduction: "A row of `runledger.workflow_runs`.",
    source: { path: "core/workflow_status.ts", type: "WorkflowRunStatus", table: "WORKFLOW_RUN_TRANSITIONS" },
    transitions: WORKFLOW_RUN_TRANSITIONS,
    initial: ["RUNNING", "WAITING_FOR_EXTERNAL"],
  },
];

/**
 * Renders the page.
 *
 * @returns Markdown.
 * @throws {Error} A status or a line of a transition table has no comment.
 */
export async function renderStateDocs(): Promise<string> {
  const sections: string[] = [];
  for (const machine of MACHINES) {
    const source = await readFile(new URL(`../${machine.source.path}`, import.meta.url), "utf8");
    sections.push(renderMachine(machine, source));
  }
  return HEADER + sections.join("");
}

function renderMachine(machine: Machine, source: string): string {
  const { title, introduction, transitions, initial, eventsBetween } = machine;
  const { type, table } = machine.source;
  const statuses = Object.entries(transitions);
  const arrows = [
    ...initial.map((status) => `  [*] --> ${status}`),
    ...statuses.flatMap(([from, next]) =>
      next.flatMap((to) => {
        if (eventsBetween === undefined) return [`  ${from} --> ${to}`];
        const events = eventsBetween(from, to);
        if (events.length === 0) throw new Error(`No event leads from ${from} to ${to}.`);
        return events.map((event) => `  ${from} --> ${to}: ${event}`);
      })
    ),
    ...statuses.filter(([, next]) => next.length === 0).map(([from]) => `  ${from} --> [*]`),
  ];
  const rows = statuses.map(([status, next]) => [
    `\`${status}\``,
    meaningOf(source, type, status),
    next.length === 0 ? "none" : next.map((to) => `\`${to}\``).join(", "),
    reasonOf(source, table, status),
  ]);
  return `\n## ${title}\n\n${wrap(introduction)}\n\n\`\`\`mermaid\nstateDiagram-v2\n${arrows.join("\n")}\n\`\`\`\n\n` +
    markdownTable(["status", "what it means", "may become", "how"], rows);
}

/** What the comment of a type says about one of its values. */
function meaningOf(source: string, type: string, status: string): string {
  const comment = new RegExp(String.raw`/\*\*((?:(?!\*/)[^])*)\*/\nexport type ${type} =`).exec(source)?.[1] ?? "";
  const text = oneLine(comment);
  const found = new RegExp(String.raw`(?:^| )- \`${status}\`: (.*?)(?= - \`[A-Z_]+\`: |$)`).exec(text)?.[1];
  if (found === undefined) throw new Error(`The comment of ${type} does not tell what ${status} means.`);
  return found;
}

/** What the comment above one line of a transition table says. */
function reasonOf(source: string, table: string, status: string): string {
  const body = new RegExp(String.raw`\nexport const ${table}\b[^]*?\n\};`).exec(source)?.[0] ?? "";
  const found = new RegExp(String.raw`/\*\* ((?:(?!\*/)[^])*) \*/\n  ${status}: \[`).exec(body)?.[1];
  if (found === undefined) throw new Error(`${table} does not say how it goes on from ${status}.`);
  return oneLine(found);
}

function oneLine(comment: string): string {
  return comment.replaceAll(/\n \* ?/g, " ").replaceAll(/\{@linkcode (\w+)\}/g, "`$1`").replaceAll(/\s+/g, " ").trim();
}

/** What has happened to a job, in pairs of an event's type and what else it says. */
type History = readonly (readonly [JobEvent["eventType"], Partial<JobEvent>?])[];

const FAILED = ["FAILED", { payload: { kind: "RETRYABLE", error_code: "c", error_message: "m" } }] as const;
const LEASED = ["LEASED", { attempt: 1 }] as const;

/** The shortest story that ends in each status. */
const HISTORIES: Readonly<Record<JobStatus, History>> = {
  PENDING: [],
  LEASED: [LEASED],
  SUCCEEDED: [LEASED, ["SUCCEEDED"]],
  DEAD_LETTERED: [LEASED, FAILED, ["DEAD_LETTERED"]],
  CANCELED: [["CANCELED"]],
};

/** An event that could come next, and what to call it. */
interface NextEvent {
  readonly label: string;
  readonly events: History;
}

const NEXT_EVENTS: readonly NextEvent[] = JOB_EVENT_TYPES.flatMap((type): readonly NextEvent[] => {
  if (type === "LEASED") return [{ label: type, events: [LEASED] }];
  if (type === "RETRY_SCHEDULED" || type === "DEAD_LETTERED") {
    return [{ label: `FAILED, ${type}`, events: [FAILED, [type]] }];
  }
  if (type !== "REQUEUED") return [{ label: type, events: [[type, { stage: "queued" }]] }];
  return REQUEUE_KINDS.map((kind) => ({
    label: `REQUEUED ${kind}`,
    events: [[type, { payload: { requeue_kind: kind } }]],
  }));
});

function jobEventsBetween(from: string, to: string): readonly string[] {
  const before = Object.entries(HISTORIES).find(([status]) => status === from)?.[1] ?? [];
  return NEXT_EVENTS.filter(({ events }) => statusAfter([...before, ...events]) === to).map(({ label }) => label);
}

function statusAfter(history: History): JobStatus | undefined {
  const events = [["ENQUEUED", { stage: "queued" }] as const, ...history].map((
    [eventType, fields],
    index,
  ): JobEvent => ({
    jobId: "0191d8a0-7c1e-7c3b-8f6a-1b2c3d4e5f60",
    seq: index + 1,
    runNumber: 1,
    eventType,
    payload: null,
    occurredAt: new Date(0),
    ...fields,
  }));
  try {
    return replayJobEvents(events).status;
  } catch (error) {
    if (isRunledgerError(error, "job.invalid_state_transition")) return undefined;
    throw error;
  }
}

if (import.meta.main) await writePage("docs/state_machines.md", await renderStateDocs(), "docs:states");
