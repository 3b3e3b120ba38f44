/**
 * Many that do the same at once: schedulers and reapers, killed as they go.
 *
 * @module
 */

import { claimJobs } from "@runledger/postgres";
import assert from "node:assert/strict";
import { setTimeout as delay } from "node:timers/promises";
import { assertFiredOnce, firedJobs, killSchedulersUntilFired, openDueSchedules } from "../support/schedules.ts";
import type { Lab } from "./lab.ts";
import type { Scenario } from "./scenario.ts";
import { within } from "./waiting.ts";
import { steady } from "./work.ts";

/** A thousand schedules are due; five schedulers fire them and are killed at random. */
async function fireThousandSchedules(lab: Lab): Promise<void> {
  const { sql, url } = lab;
  const due = await openDueSchedules(sql, 1000, { jobType: steady.type, payload: {} });
  lab.fault(await killSchedulersUntilFired(sql, url));
  await assertFiredOnce(sql, due);
  for (const { jobId } of await firedJobs(sql)) lab.acknowledge(jobId);
  lab.figures.fires = due.size;
  await lab.startWorker();
}

/** Every lease of a dead worker is reaped once, whoever of five comes first; two of them are killed again and again. */
async function reapByFive(lab: Lab): Promise<void> {
  const rounds = lab.scaled(2, 8);
  const count = lab.scaled(400, 1000);
  const reaper = { worker: false, config: { reaperRetryDelayMs: 1 } };
  await Promise.all(Array.from({ length: 3 }, () => lab.startWorker(reaper)));
  const kept = lab.keepAlive([reaper, reaper]);
  await lab.enqueue(Array.from({ length: count }, () => steady.request({})));
  for (let round = 1; round <= rounds; round++) {
    for (let claimed = 0; claimed < count;) {
      const jobs = await claimJobs(lab.sql, { jobTypes: [steady.type], workerId: "gone", limit: 1000, leaseMs: 1500 });
      claimed += jobs.length;
      if (jobs.length === 0) await delay(20);
    }
    lab.fault();
    await within("every lease is reaped", async () => {
      if (lab.random() < 0.1) {
        for (const child of kept.alive.slice(0, 1)) if (child.kill("SIGKILL")) lab.fault();
      }
      const [row] = await lab.sql<{ leased: number }[]>`
        select count(*)::integer as leased from runledger.job_queue where status = 'LEASED'`;
      return row?.leased === 0;
    });
    const [row] = await lab.sql<{ failures: number }[]>`
      select count(*)::integer as failures from runledger.job_events where event_type = 'FAILED'`;
    assert.equal(row?.failures, round * count, "each lost attempt failed once");
  }
  await lab.startWorker();
}

/** The scenarios. */
export const RIVALS: readonly Scenario[] = [
  {
    name: "five schedulers on 1,000 schedules",
    injects: "SIGKILL of five schedulers at random",
    isLongOnly: true,
    run: fireThousandSchedules,
  },
  { name: "five reapers at once", injects: "a lost worker's leases, SIGKILL of reapers", run: reapByFive },
];
