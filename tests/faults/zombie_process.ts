/**
 * A worker without a conscience: it claims jobs, is stopped until their leases are over, and then tries every write that a
 * lease allows, without looking at the clock: `deno run -A zombie_process.ts <options as JSON>`.
 *
 * @module
 */

import { isRunledgerError } from "@runledger/core";
import type { JobOutcome } from "@runledger/core";
import {
  appendJobLogs,
  atomically,
  claimJobs,
  heartbeatJobs,
  recordJobProgress,
  releaseJobs,
  settleJob,
} from "@runledger/postgres";
import type { ClaimedJob } from "@runledger/postgres";
import process from "node:process";
import { JournalWriter } from "./journal.ts";
import { openPool } from "./pools.ts";
import type { Driver } from "./pools.ts";
import { steady } from "./work.ts";

/** What it is given. */
export interface ZombieProcessOptions {
  readonly url: string;
  readonly driver: Driver;
  readonly journal: string;
  readonly leaseMs: number;
  readonly limit: number;
}

const { url, driver, journal: path, leaseMs, limit } = JSON.parse(process.argv[2] ?? "{}") as ZombieProcessOptions;
const journal = new JournalWriter(path);
const { db, end } = openPool({ url, driver, max: 2 });

const OUTCOMES: readonly JobOutcome[] = [
  { kind: "succeeded", output: "by a zombie" },
  { kind: "failed", failure: { kind: "RETRYABLE", code: "zombie", message: "again" } },
  { kind: "failed", failure: { kind: "TERMINAL", code: "zombie", message: "never again" } },
  { kind: "continued" },
  { kind: "snoozed", delayMs: 1 },
  { kind: "canceled" },
];

/** A write, and whether it was refused without an error. */
type Write = (lease: ClaimedJob) => Promise<boolean>;

const WRITES: Readonly<Record<string, Write>> = {
  heartbeat: async (lease) => (await heartbeatJobs(db, [lease], { leaseMs: 60_000 }))[0]?.state === "lost",
  release: async (lease) => (await releaseJobs(db, [lease])).length === 0,
  log: async (lease) => await appendJobLogs(db, [{ lease, level: "info", message: "a zombie's" }]) === 0,
  progress: (lease) => recordJobProgress(db, lease, { checkpoint: "a zombie's" }).then(() => false),
  transaction: (lease) =>
    atomically(db, async (tx) => {
      const text = "insert into effects (job_id, run_number, attempt) values ($1, $2, $3)";
      const values = [lease.jobId, lease.runNumber, lease.attempt];
      if ("unsafe" in tx && typeof tx.unsafe === "function") await tx.unsafe(text, values);
      else if ("query" in tx && typeof tx.query === "function") await tx.query(text, values);
      await settleJob(tx, lease, { kind: "succeeded" });
    }).then(() => false),
  ...Object.fromEntries(OUTCOMES.map((outcome): [string, Write] => [
    `settlement as ${outcome.kind}`,
    (lease) => settleJob(db, lease, outcome).then(() => false),
  ])),
};

const leases = await claimJobs(db, { jobTypes: [steady.type], workerId: "zombie", limit, leaseMs });
for (const lease of leases) journal.write("fault", { ...lease, note: "SIGSTOP with a claim in hand" });
process.kill(process.pid, "SIGSTOP");
for (const lease of leases) {
  for (const [name, write] of Object.entries(WRITES)) {
    const isRefused = await write(lease).catch((error: unknown) => {
      if (isRunledgerError(error, "job.lease_owner_mismatch")) return true;
      throw error;
    });
    journal.write(isRefused ? "refused" : "accepted", { ...lease, note: `database: ${name}` });
  }
}
await end();
