/**
 * Workers that are away for longer than their leases, and workers that are asked to end.
 *
 * @module
 */

import assert from "node:assert/strict";
import { setTimeout as delay } from "node:timers/promises";
import type { Child } from "./child.ts";
import { CONCURRENCY, LEASE_MS } from "./lab.ts";
import type { Lab } from "./lab.ts";
import { DRIVERS } from "./pools.ts";
import type { Driver } from "./pools.ts";
import type { Scenario } from "./scenario.ts";
import { within } from "./waiting.ts";
import { isTransactional, steady, transactional } from "./work.ts";
import type { Point } from "./work.ts";
import type { ZombieProcessOptions } from "./zombie_process.ts";

/** Where a worker stops dead, its driver, and whether others can have its job meanwhile. */
interface Victim {
  readonly at: Point;
  readonly driver: Driver;
}

/** In the transaction that has settled the job its row is locked, and the fence was passed: it stays the worker's. */
function keepsItsJob({ at }: Victim): boolean {
  return at === "tx-finished";
}

function victimsOf(lab: Lab, points: readonly Point[]): readonly Victim[] {
  const drivers = DRIVERS.slice(0, lab.scaled(1, 2));
  const victims = drivers.flatMap((driver) => points.map((at) => ({ at, driver })));
  // The short form has the other driver where drivers matter most: with a transaction open.
  return lab.scaled(0, 1) === 1 ? victims : [...victims, { at: "tx-effect", driver: "node-postgres" }];
}

/** Starts victims, gives each the job that it harms itself with, and others beside. */
async function harm(lab: Lab, victims: readonly Victim[], kind: "SIGSTOP" | "block") {
  const harmed = victims.map((victim, number) => {
    const workerId = `victim ${number}`;
    return { ...victim, workerId, child: lab.spawnWorker({ driver: victim.driver, config: { workerId } }) };
  });
  await Promise.all(harmed.map(({ child }) => child.ready));
  const doomed = await Promise.all(harmed.map(async ({ at, workerId }) => {
    const definition = isTransactional(at) ? transactional : steady;
    const [jobId = ""] = await lab.enqueue([definition.request({ fault: { at, kind, target: workerId } })]);
    return jobId;
  }));
  await lab.enqueue(
    Array.from({ length: victims.length * 10 }, (_, n) => (n % 2 ? steady : transactional).request({ ms: 20 })),
  );
  return harmed.map((victim, number) => ({ ...victim, jobId: doomed[number] ?? "" }));
}

/** Each victim stops at its point until others have its job, and then goes on as if nothing had been. */
async function stopPastTheLease(lab: Lab): Promise<void> {
  const points: readonly Point[] = ["handler", "effect", "settling", "tx-open", "tx-effect", "tx-finished"];
  await lab.startWorker();
  const harmed = await harm(lab, victimsOf(lab, points), "SIGSTOP");
  await Promise.all(harmed.map((victim) => wakeAfterTheLease(lab, victim)));
}

async function wakeAfterTheLease(lab: Lab, victim: Victim & { readonly jobId: string; readonly child: Child }) {
  const { child, jobId } = victim;
  await child.stopped();
  const stopped = lab.journal().find(({ kind, pid }) => kind === "fault" && pid === child.pid)?.attempt ?? 0;
  const readJob = async () => {
    const [row] = await lab.sql<{ status: string; attempt: number; isOverdue: boolean | null }[]>`
      select status, attempt, lease_expires_at < clock_timestamp() as "isOverdue"
      from runledger.job_queue where id = ${jobId}`;
    return row;
  };
  if (!keepsItsJob(victim)) {
    await within("another worker has the job", async () => ((await readJob())?.attempt ?? 0) > stopped);
    child.kill("SIGCONT");
    return;
  }
  await within("the lease is over", async () => (await readJob())?.isOverdue === true);
  // Time for the reapers, which have to leave the job alone.
  await delay(LEASE_MS);
  child.kill("SIGCONT");
  await within("the transaction that was stopped is committed", async () => (await readJob())?.status === "SUCCEEDED");
  assert.equal((await readJob())?.attempt, stopped, "nobody else had the job");
}

/** How many jobs others still run when a zombie wakes. */
const TAKEN_OVER = 5;

/**
 * Claims by hand, and every write that a lease allows, after it is over: while nobody has noticed, and while others run
 * some of the jobs and have run the rest.
 */
async function writeAsZombie(lab: Lab): Promise<void> {
  const limit = lab.scaled(10, 100);
  const countJobs = async () => {
    const [row] = await lab.sql<{ overdue: number; running: number; waiting: number }[]>`
      select count(*) filter (where lease_expires_at <= clock_timestamp())::integer as overdue,
        count(*) filter (where lease_expires_at > clock_timestamp() and attempt > 1)::integer as running,
        count(*) filter (where status in ('PENDING', 'LEASED'))::integer as waiting
      from runledger.job_queue`;
    return row ?? { overdue: 0, running: 0, waiting: 0 };
  };
  for (const driver of DRIVERS) {
    // The short form has each kind once, with one driver each.
    const kinds = lab.scaled(0, 1) === 1 ? [false, true] : [driver === "node-postgres"];
    for (const isTakenOver of kinds) {
      const long = (n: number) => isTakenOver && n < TAKEN_OVER ? 8000 : 0;
      await lab.enqueue(Array.from({ length: limit }, (_, n) => steady.request({ ms: long(n) })));
      const { url, journalPath: journal } = lab;
      const options: ZombieProcessOptions = { url, driver, journal, leaseMs: LEASE_MS, limit };
      const zombie = lab.startChild("zombie_process.ts", options);
      await zombie.stopped();
      await within("its leases are over", async () => (await countJobs()).overdue === limit);
      const rescuer = isTakenOver ? await lab.startWorker({ driver }) : undefined;
      if (isTakenOver) {
        await within("others have taken over", async () => {
          const { running, waiting } = await countJobs();
          return running === TAKEN_OVER && waiting === TAKEN_OVER;
        });
      }
      zombie.kill("SIGCONT");
      lab.fault();
      assert.deepEqual(await zombie.ended, { code: 0, signal: null }, zombie.errors);
      const last = rescuer ?? await lab.startWorker({ driver });
      await lab.untilDrained();
      last.kill("SIGTERM");
      await last.ended;
    }
  }
}

/** A handler that computes for so long that no heartbeat gets through. */
async function blockEventLoop(lab: Lab): Promise<void> {
  await lab.startWorker();
  const harmed = await harm(lab, victimsOf(lab, ["handler", "effect", "settling", "tx-open", "tx-effect"]), "block");
  const { length } = harmed;
  await lab.untilJournal(
    "the victims go on",
    (lines) => harmed.every(({ child }) => lines.some(({ pid, kind }) => pid === child.pid && kind === "lost")),
  );
  await within("the blocked jobs were run by others", async () => {
    const [row] = await lab.sql<{ ended: number }[]>`
      select count(*)::integer as ended from runledger.job_queue
      where id = any (${harmed.map(({ jobId }) => jobId)}::uuid[]) and status = 'SUCCEEDED' and attempt > 1`;
    return row?.ended === length;
  });
}

/** One signal drains: what runs is finished, what waits is handed back and costs no attempt. */
async function askOnce(lab: Lab): Promise<void> {
  for (let round = 0; round < lab.scaled(1, 5); round++) {
    const workers = await Promise.all(DRIVERS.map((driver) => lab.startWorker({ driver })));
    const ids = await lab.enqueue(
      Array.from({ length: 200 }, (_, n) => (n % 2 ? steady : transactional).request({ ms: 30 })),
    );
    await within(
      "both are at work",
      () => workers.every(({ pid }) => lab.journal().some((line) => line.pid === pid && line.kind === "start")),
    );
    for (const worker of workers) worker.kill("SIGTERM");
    lab.fault(workers.length);
    for (const worker of workers) {
      assert.deepEqual(await worker.ended, { code: 0, signal: null }, worker.errors);
      const report = JSON.parse(worker.output.split("\n")[1] ?? "");
      assert.deepEqual(report.worker.left, []);
      assert.equal(report.worker.aborted, 0);
    }
    const [row] = await lab.sql<{ leased: number; late: number }[]>`
      select count(*) filter (where status = 'LEASED')::integer as leased,
        count(*) filter (where status = 'PENDING' and attempt > 0)::integer as late
      from runledger.job_queue where id = any (${[...ids]}::uuid[])`;
    assert.deepEqual({ ...row }, { leased: 0, late: 0 }, "a drained worker leaves neither leases nor spent attempts");
  }
  await lab.startWorker();
}

/** A second signal ends at once: the leases run out, and others go on. */
async function askTwice(lab: Lab): Promise<void> {
  for (const driver of DRIVERS) {
    const worker = await lab.startWorker({ driver });
    // As many as it takes at once, and long enough that a drain would take longer than the second signal.
    await lab.enqueue(
      Array.from({ length: CONCURRENCY }, (_, n) => (n % 2 ? steady : transactional).request({ ms: 3000 })),
    );
    await within("it is at work", () => lab.journal().some(({ pid, kind }) => pid === worker.pid && kind === "start"));
    worker.kill("SIGTERM");
    // One that follows at once would be taken for an echo.
    await within("it ends by the second signal", () => !worker.kill("SIGTERM") || worker.hasEnded);
    assert.deepEqual(await worker.ended, { code: null, signal: "SIGTERM" }, worker.output + worker.errors);
    lab.fault(2);
  }
  await lab.startWorker();
}

/** The scenarios. */
export const STOP_WORKER: readonly Scenario[] = [
  {
    name: "worker stopped past its lease",
    injects: "SIGSTOP in six places of an attempt, SIGCONT when others have the job",
    run: stopPastTheLease,
  },
  {
    name: "writes of a zombie",
    injects: "SIGSTOP with claims in hand, then every write that a lease allows",
    run: writeAsZombie,
  },
  { name: "event loop blocked", injects: "a handler that computes for twice the lease", run: blockEventLoop },
  { name: "SIGTERM once", injects: "SIGTERM at work", run: askOnce },
  { name: "SIGTERM twice", injects: "SIGTERM at work, and again", run: askTwice },
];
