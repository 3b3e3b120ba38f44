/**
 * A process that runs jobs until it is harmed or asked to stop: `deno run -A worker_process.ts <options as JSON>`.
 *
 * It prints "ready" when it runs, and its report as JSON when it has stopped. Nothing ends it then: if a timer or a socket
 * is left, it hangs, which the harness notices.
 *
 * @module
 */

import { isRunledgerError, snooze } from "@runledger/core";
import type { JobCompletion, JsonValue } from "@runledger/core";
import type { StatementRunner } from "@runledger/postgres";
import { JobCatalog, shutdownSignal, Supervisor } from "@runledger/runtime";
import type { JobContext, JobsConfig, LogFields } from "@runledger/runtime";
import process from "node:process";
import { setTimeout as delay } from "node:timers/promises";
import { JournalWriter, readJournal } from "./journal.ts";
import { openPool } from "./pools.ts";
import type { PoolOptions } from "./pools.ts";
import { doomed, poisons, steady, transactional } from "./work.ts";
import type { Point, Work } from "./work.ts";

/** What the harness says. */
export interface WorkerProcessOptions extends Omit<PoolOptions, "onStatement"> {
  readonly journal: string;
  readonly config: Partial<JobsConfig>;
  /** Which loops run; all by default. */
  readonly worker?: boolean;
  readonly reaper?: boolean;
  readonly scheduler?: boolean;
  /** Whether it claims the poisonous types, too. */
  readonly takesPoison?: boolean;
  /** How long a fault of the kind `block` lasts, in milliseconds. */
  readonly blockMs?: number;
  readonly shutdownTimeoutMs?: number;
}

const options = JSON.parse(process.argv[2] ?? "{}") as WorkerProcessOptions;
const journal = new JournalWriter(options.journal);

/** What the statement that settles jobs can be told by. */
const SETTLEMENT = /settle_jobs|is_progress_valid/;

/** The statement that is about to be sent does the harm, or the answer that comes next. */
let armed: { readonly point: Point; readonly harm: () => void } | undefined;
const pool = openPool({
  ...options,
  onStatement: (text, when) => {
    if (armed === undefined || !SETTLEMENT.test(text)) return;
    if (armed.point !== (when === "sent" ? "settling" : "settled")) return;
    const { harm } = armed;
    armed = undefined;
    harm();
  },
});
const { db } = pool;

type Attempt = Pick<JobContext, "jobId" | "runNumber" | "attempt" | "workerId">;

/** Whether the fault of a job has happened: in any process, since the file is everybody's. */
function hasHappened(jobId: string): boolean {
  return readJournal(options.journal).some((line) => line.kind === "fault" && line.jobId === jobId);
}

/** Whether the fault is this worker's to commit, now. */
function isMeant({ fault }: Work, { jobId, workerId }: Attempt): boolean {
  return fault !== undefined && (fault.target ?? workerId) === workerId && !hasHappened(jobId);
}

/** Whether another worker is to run it first. */
function isForAnother({ fault }: Work, { jobId, workerId }: Attempt): boolean {
  return fault?.target !== undefined && fault.target !== workerId && !hasHappened(jobId);
}

/** Harms the process if this is the point. What comes after a stop or a block goes on as if nothing had been. */
function harmAt(point: Point, work: Work, context: Attempt): void {
  const { fault } = work;
  if (fault?.at !== point || !isMeant(work, context)) return;
  const harm = () => {
    journal.write("fault", { ...attemptOf(context), note: `${fault.kind} at ${point}` });
    if (fault.kind !== "block") return void process.kill(process.pid, fault.kind);
    for (const until = performance.now() + (options.blockMs ?? 0); performance.now() < until;);
  };
  if (point === "settling" || point === "settled") armed = { point, harm };
  else harm();
}

function attemptOf({ jobId, runNumber, attempt }: Attempt) {
  return { jobId, runNumber, attempt };
}

/** Notes who refused a write: the database, or the worker, which knew already. */
async function refusable<T>(
  context: Attempt & Pick<JobContext, "signal">,
  name: string,
  write: () => Promise<T>,
): Promise<T> {
  try {
    return await write();
  } catch (error) {
    if (isRunledgerError(error, "job.lease_owner_mismatch")) {
      const by = error === context.signal.reason ? "worker" : "database";
      journal.write("refused", { ...attemptOf(context), note: `${by}: ${name}` });
    }
    throw error;
  }
}

async function runSteady(work: Work, context: JobContext): Promise<void | JobCompletion<never>> {
  if (isForAnother(work, context)) return snooze(100);
  const about = attemptOf(context);
  journal.write("start", about);
  const isHarmful = isMeant(work, context);
  harmAt("handler", work, context);
  try {
    // It carries on where it is, however little the lease is worth now: the fence has to hold.
    if (isHarmful) await refusable(context, "progress", () => context.progress({ checkpoint: 1 }));
    if (work.ms > 0) await delay(work.ms);
    journal.write("effect", about);
    harmAt("effect", work, context);
    harmAt("settling", work, context);
    harmAt("settled", work, context);
  } finally {
    journal.write("end", about);
  }
}

async function runTransactional(work: Work, context: JobContext): Promise<JobCompletion<JsonValue | void>> {
  if (isForAnother(work, context)) return snooze(100);
  const about = attemptOf(context);
  journal.write("start", about);
  try {
    const completion = await refusable(
      context,
      "transaction",
      () =>
        context.transaction(async (tx: StatementRunner, finish) => {
          harmAt("tx-open", work, context);
          if (work.ms > 0) await delay(work.ms);
          await writeEffect(tx, context);
          harmAt("tx-effect", work, context);
          const finished = await finish();
          harmAt("tx-finished", work, context);
          return finished;
        }),
    );
    harmAt("tx-committed", work, context);
    return completion;
  } finally {
    journal.write("end", about);
  }
}

/** The same statement by either driver's transaction. */
async function writeEffect(tx: object, { jobId, runNumber, attempt }: Attempt): Promise<void> {
  const text = "insert into effects (job_id, run_number, attempt) values ($1, $2, $3)";
  const values = [jobId, runNumber, attempt];
  if ("unsafe" in tx && typeof tx.unsafe === "function") await tx.unsafe(text, values, { prepare: false });
  else if ("query" in tx && typeof tx.query === "function") await tx.query(text, values);
}

/** Runs a poisonous handler between its lines in the journal. */
function poisonous(run: (context: JobContext) => unknown, isDeadly: boolean = false) {
  return async (_payload: unknown, context: JobContext): Promise<void> => {
    journal.write("start", attemptOf(context));
    if (isDeadly) journal.write("fault", { ...attemptOf(context), note: "a handler that ends its process" });
    try {
      await run(context);
    } finally {
      journal.write("end", attemptOf(context));
    }
  };
}

function whenAborted({ signal }: JobContext): Promise<void> {
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}

const log = (level: string) => (message: string, fields?: LogFields) => {
  journal.write("log", { note: `${level} ${message} ${JSON.stringify(fields ?? {})}` });
};

const catalog = new JobCatalog()
  .handle(steady, runSteady)
  .handle(doomed, runSteady)
  .handle(transactional, runTransactional)
  .onLeaseLost((event) => journal.write("lost", event));

catalog.onJobStarted((event) => {
  if (event.jobType !== doomed.type || hasHappened(event.jobId)) return;
  journal.write("fault", { ...event, note: "SIGKILL before the handler" });
  process.kill(process.pid, "SIGKILL");
});

if (options.takesPoison === true) {
  catalog
    .handle(poisons.throwsNull, poisonous(() => Promise.reject(null)))
    .handle(poisons.neverSettles, poisonous(() => new Promise(() => {})))
    .handle(poisons.settlesAfterAbort, poisonous(whenAborted))
    .handle(
      poisons.rejectsAfterAbort,
      poisonous(async (context) => {
        await whenAborted(context);
        await delay(100);
        throw new Error("too late to be heard");
      }),
    )
    .handle(poisons.exits, poisonous(() => process.exit(3), true))
    .handle(
      poisons.leavesRejection,
      poisonous(() => {
        setTimeout(() => void Promise.reject(new Error("nobody waits for this")), 20);
      }),
    );
}

const signal = shutdownSignal();
// The database may be harmed already.
for (let isSynced = false; !isSynced && !signal.aborted;) {
  isSynced = await catalog.sync(db).then(() => true, () => delay(100).then(() => false));
}
const { config, worker, reaper, scheduler, shutdownTimeoutMs = 20_000 } = options;
const loops = { ...(worker === undefined ? {} : { worker }), ...(reaper === undefined ? {} : { reaper }) };
const supervisor = new Supervisor(db, {
  catalog,
  config,
  ...loops,
  scheduler: scheduler ?? false,
  logger: { debug() {}, info() {}, warn: log("warn"), error: log("error") },
});
console.log("ready");
const report = await supervisor.runUntilShutdown({ signal, timeoutMs: shutdownTimeoutMs });
console.log(JSON.stringify(report));
await pool.end();
console.log("pool ended");
