/**
 * Whoever settles the steps of workflows is killed in the middle of it: the process, the session, the connection. Afterwards
 * others bring every run to the end that it would have had anyway.
 *
 * @module
 */

import { claimJobs, enqueueWorkflowRuns, expireWorkflowGates, reapExpiredLeases } from "@runledger/postgres";
import { isRunledgerError } from "@runledger/core";
import { startTcpProxy } from "@runledger/test-support";
import assert from "node:assert/strict";
import process from "node:process";
import { setTimeout as delay } from "node:timers/promises";
import postgres from "postgres";
import { createRandom } from "./interleaving/schedule.ts";
import { assertInvariants, openTestDatabase } from "./support/database.ts";
import {
  DOOMED_ENDS,
  DOOMED_RUN,
  IN_TRANSACTION,
  settleDoomedBatch,
  settleDoomedBatchWithEffects,
} from "./support/doomed_workflows.ts";

/** So many of each kind of death, at least. */
const DEATHS = 60;
/** So many runs are in flight while they die. */
const LIVE_RUNS = 20;
const PROCESSES = 3;
const SEED = Number(process.env["RUNLEDGER_KILL_SEED"] ?? Date.now() % 2 ** 31);
/** No machine takes so long. */
const PATIENCE_MS = 60_000;

Deno.test("settlers that die in the middle leave nothing half done: every run ends as it should, each step once", async () => {
  await using database = await openTestDatabase({ max: 8, checks: false });
  const { sql, url } = database;
  console.log(`kills: RUNLEDGER_KILL_SEED=${SEED}`);
  const random = createRandom(SEED);
  const deadline = Date.now() + PATIENCE_MS;
  const deadlocks = await countDeadlocks(sql);
  await using settlers = startSettlers(url);

  const deaths = { killed: 0, terminated: 0, cut: 0 };
  const isOver = () => Math.min(deaths.killed, deaths.terminated, deaths.cut) >= DEATHS || Date.now() > deadline;
  /** New runs come as old ones end; leases run out while their owners are alive; gates time out. */
  const disturb = async () => {
    while (!isOver()) {
      const [row] = await sql<{ live: number }[]>`
        select count(*)::integer as live from runledger.workflow_runs where finished_at is null`;
      const missing = LIVE_RUNS - (row?.live ?? 0);
      if (missing > 0) await enqueueWorkflowRuns(sql, Array.from({ length: missing }, () => DOOMED_RUN));
      await sql`
        update runledger.job_queue set lease_expires_at = clock_timestamp()
        where id in (
          select id from runledger.job_queue where status = 'LEASED' order by random() limit 2 for update skip locked
        )`;
      await reapExpiredLeases(sql, { retryDelayMs: 1 });
      await expireWorkflowGates(sql);
      await delay(10);
    }
  };
  /** Steps are held so that a settlement waits where it has changed jobs already; then its owner dies. */
  const strike = async () => {
    while (!isOver()) {
      await using middle = await holdSteps(sql);
      const victim = await middle.victim();
      if (victim === undefined) continue;
      const isKilled = deaths.killed < DEATHS && (deaths.terminated >= DEATHS || random(2) === 0);
      if (isKilled && await settlers.kill(victim.name)) deaths.killed++;
      else if (!isKilled) {
        await sql`select pg_terminate_backend(${victim.pid})`;
        deaths.terminated++;
      }
    }
  };
  /** At any moment, wherever it is just then. */
  const strikeBlindly = async () => {
    while (!isOver()) {
      await delay(100 + random(400));
      if (random(2) === 0) await settlers.killAny(random);
      else {
        await sql`
          select pg_terminate_backend(pid)
          from pg_stat_activity
          where datname = current_database() and application_name like 'settler %' and state <> 'idle'
          limit 1`;
      }
    }
  };
  /** The connection is cut before and after COMMIT. A driver sends its text once a connection, so each can be cut once. */
  const cut = async () => {
    await using proxy = await startTcpProxy({ target: url });
    const through = postgres(proxy.url, { max: 1, fetch_types: false, onnotice: () => {} });
    try {
      while (!isOver()) {
        const when = deaths.cut % 2 === 0 ? "before" : "after";
        if (deaths.cut < DEATHS) proxy.setMode({ kind: "cut-request", containing: "commit", when });
        await settleDoomedBatchWithEffects(through, 1 + random(9)).catch((error: unknown) => {
          if (!isRunledgerError(error, "db.unavailable") && !isRunledgerError(error, "db.commit_unknown")) throw error;
        });
        deaths.cut = proxy.counts.cut;
      }
    } finally {
      await through.end({ timeout: 1 });
    }
  };
  await Promise.all([disturb(), strike(), strikeBlindly(), cut()]);
  assert.deepEqual(await settlers.stop(), [], "nothing happened to settlers that must not");
  assert(Math.min(deaths.killed, deaths.terminated, deaths.cut) >= DEATHS, JSON.stringify(deaths));

  // What a killed process asked for is done by the server, or not, but not later than this.
  await until(deadline, "the sessions of the dead are over", async () => {
    const [row] = await sql<{ sessions: number }[]>`
      select count(*)::integer as sessions from pg_stat_activity
      where datname = current_database() and application_name like 'settler %'`;
    return row?.sessions === 0;
  });
  await until(deadline, "every run has ended", async () => {
    await sql`update runledger.job_queue set lease_expires_at = clock_timestamp() where status = 'LEASED'`;
    await reapExpiredLeases(sql, { retryDelayMs: 1, limit: 1000 });
    await expireWorkflowGates(sql);
    await Promise.all([settleDoomedBatch(sql, 100), settleDoomedBatch(sql, 100), settleDoomedBatchWithEffects(sql, 9)]);
    const [row] = await sql<{ live: number }[]>`
      select count(*)::integer as live from runledger.workflow_runs where finished_at is null`;
    return row?.live === 0;
  });
  await assertEnds(sql);
  await assertInvariants(sql);
  assert.equal(await countDeadlocks(sql), deadlocks, "PostgreSQL reports no deadlock");
  const [row] = await sql`select count(*)::integer as runs from runledger.workflow_runs`;
  console.log(`kills: ${JSON.stringify(deaths)}, ${settlers.started} processes, ${row?.["runs"]} runs`);
});

/** Every step ended as its key says, once; the join was released once; an effect stands for each step that has one. */
async function assertEnds(sql: postgres.Sql): Promise<void> {
  const runs = await sql<{ status: string; steps: Record<string, string> }[]>`
    select run.status, jsonb_object_agg(step.step_key, step.status) as steps
    from runledger.workflow_runs as run
    join runledger.workflow_steps as step on step.run_id = run.id
    group by run.id`;
  for (const { status, steps } of runs) {
    assert.equal(status, "COMPLETED_WITH_ERRORS");
    assert.deepEqual(steps, DOOMED_ENDS);
  }
  const ends = await sql`
    select
      count(*) filter (where event_type = 'ENQUEUED')::integer as enqueued,
      count(*) filter (where event_type in ('SUCCEEDED', 'DEAD_LETTERED', 'CANCELED'))::integer as ended,
      count(distinct job_id)::integer as jobs
    from runledger.job_events
    where job_id in (select id from runledger.workflow_steps)
    group by job_id
    having count(*) filter (where event_type = 'ENQUEUED') <> 1
      or count(*) filter (where event_type in ('SUCCEEDED', 'DEAD_LETTERED', 'CANCELED')) <> 1`;
  assert.deepEqual([...ends], [], "each step is released once and ends once");
  const effects = await sql`
    select step.id, effect.count
    from (select id from runledger.job_queue where output = ${sql.json(IN_TRANSACTION)}) as step
    full join (
      select (payload ->> 'stepId')::uuid as step_id, count(*) from runledger.job_queue where job_type = 'b' group by 1
    ) as effect on effect.step_id = step.id
    where step.id is null or effect.count is distinct from 1`;
  const [row] = await sql`select count(*)::integer as effects from runledger.job_queue where job_type = 'b'`;
  assert(row?.["effects"] > 0);
  assert.deepEqual([...effects], [], "what a transaction did beside its settlements is there if and only if they are");
  assert.deepEqual(await claimJobs(sql, { jobTypes: ["a"], workerId: "w", limit: 1 }), []);
}

async function countDeadlocks(sql: postgres.Sql): Promise<number> {
  const [row] = await sql<{ deadlocks: number }[]>`
    select deadlocks::integer from pg_stat_database where datname = current_database()`;
  return row?.deadlocks ?? 0;
}

async function until(deadline: number, what: string, isSo: () => Promise<boolean>): Promise<void> {
  while (!await isSo()) {
    assert(Date.now() < deadline, `in vain: ${what}`);
    await delay(10);
  }
}

/** Steps that are held, and who waits for one of them. */
interface HeldSteps extends AsyncDisposable {
  /** A session that waits in the middle of a settlement; undefined when none does for a while. */
  victim(): Promise<{ readonly pid: number; readonly name: string } | undefined>;
}

async function holdSteps(sql: postgres.Sql): Promise<HeldSteps> {
  const session = await sql.reserve();
  await session`begin`;
  await session`
    select from runledger.workflow_steps
    where id in (
      select id from runledger.workflow_steps where status in ('BLOCKED', 'ENQUEUED') order by random() limit 30
    )
    for update skip locked`;
  return {
    async victim() {
      for (let looks = 0; looks < 100; looks++) {
        const [found] = await sql<{ pid: number; name: string }[]>`
          select pid, application_name as name from pg_stat_activity
          where datname = current_database() and application_name like 'settler %' and wait_event_type = 'Lock'
          order by random() limit 1`;
        if (found !== undefined) return found;
        await delay(5);
      }
      return undefined;
    },
    async [Symbol.asyncDispose]() {
      await session`rollback`;
      session.release();
    },
  };
}

/** Processes that settle steps; another one is started for each that dies. */
interface Settlers extends AsyncDisposable {
  readonly started: number;
  /** Kills the process whose sessions have the name; false when it is dead already. */
  kill(name: string): Promise<boolean>;
  killAny(random: (below: number) => number): Promise<void>;
  /** Kills them all. Gives what those said that ended by themselves. */
  stop(): Promise<readonly string[]>;
}

function startSettlers(url: string): Settlers {
  const script = new URL("support/settler_process.ts", import.meta.url).pathname;
  const children = new Map<string, Deno.ChildProcess>();
  const problems: string[] = [];
  let started = 0;
  let isOver = false;
  const live = async () => {
    while (!isOver) {
      const name = `settler ${++started}`;
      const child = new Deno.Command(Deno.execPath(), {
        args: ["run", "--allow-all", "--no-check", "--quiet", script, url, name],
        stdout: "piped",
        stderr: "piped",
      }).spawn();
      children.set(name, child);
      const [{ signal, code }, ...said] = await Promise.all([
        child.status.finally(() => children.delete(name)),
        new Response(child.stdout).text(),
        new Response(child.stderr).text(),
      ]);
      if (signal !== "SIGKILL") problems.push(`${name} ended with ${code}: ${said.join("")}`);
    }
  };
  const lives = Array.from({ length: PROCESSES }, live);
  const kill = async (name: string): Promise<boolean> => {
    const child = children.get(name);
    if (child === undefined) return false;
    try {
      child.kill("SIGKILL");
    } catch (error) {
      // It has ended by itself, which its life reports.
      if (error instanceof TypeError) return false;
      throw error;
    }
    await child.status;
    return true;
  };
  const stop = async () => {
    isOver = true;
    await Promise.all([...children.keys()].map(kill));
    await Promise.all(lives);
    return problems;
  };
  return {
    get started() {
      return started;
    },
    kill,
    async killAny(random) {
      await kill([...children.keys()][random(PROCESSES)] ?? "");
    },
    stop,
    async [Symbol.asyncDispose]() {
      await stop();
    },
  };
}
