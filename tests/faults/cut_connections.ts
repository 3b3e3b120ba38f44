/**
 * Connections that break: around a commit, with an answer on the way, without a word, or by an administrator.
 *
 * @module
 */

import { startTcpProxy } from "@runledger/test-support";
import type { TcpProxy, TcpProxyMode } from "@runledger/test-support";
import { setTimeout as delay } from "node:timers/promises";
import { LEASE_MS } from "./lab.ts";
import type { Lab } from "./lab.ts";
import { DRIVERS, openPool } from "./pools.ts";
import type { Scenario } from "./scenario.ts";
import { steady, transactional } from "./work.ts";

/** The end of every answer outside a transaction: the server has committed before it sends this. */
const READY_FOR_QUERY = "Z\0\0\0\x05I";

/** A proxy for each driver, with a worker behind it and a producer that enqueues through it, while something goes on. */
async function throughProxies(lab: Lab, injectInto: (proxy: TcpProxy) => Promise<void>): Promise<void> {
  await Promise.all(DRIVERS.map(async (driver) => {
    const proxy = await startTcpProxy({ target: lab.url });
    lab.defer(() => proxy[Symbol.asyncDispose]());
    const pool = openPool({ url: proxy.url, driver, max: 2 });
    lab.defer(() => pool.end());
    await lab.startWorker({ url: proxy.url, driver });
    const ms = () => Math.floor(lab.random() * 30);
    let isInjecting = true;
    const injecting = injectInto(proxy).finally(() => isInjecting = false);
    while (isInjecting) {
      const requests = Array.from({ length: 6 }, (_, n) => (n % 3 ? transactional : steady).request({ ms: ms() }));
      await lab.enqueue(requests, { db: pool.db });
      await delay(20);
    }
    await injecting;
    proxy.setMode({ kind: "pass" });
    // What hangs behind a blackhole ends as it does when the operating system gives up.
    proxy.cut();
  }));
}

/** Sets a mode that cuts, until it has. Texts such as COMMIT are sent once a connection, so others are made to be new. */
async function cutOnce(proxy: TcpProxy, mode: TcpProxyMode): Promise<void> {
  const { cut } = proxy.counts;
  proxy.setMode(mode);
  for (const until = performance.now() + 2000; proxy.counts.cut === cut && performance.now() < until;) await delay(5);
  if (proxy.counts.cut === cut) proxy.cut();
}

async function cutAroundCommit(lab: Lab): Promise<void> {
  const rounds = lab.scaled(10, 60);
  await throughProxies(lab, async (proxy) => {
    for (let round = 0; round < rounds; round++) {
      const { cut } = proxy.counts;
      await cutOnce(proxy, { kind: "cut-request", containing: "commit", when: round % 2 ? "after" : "before" });
      // All of the others, too, every few times: their next COMMIT is then a text again.
      if (round % 4 === 3) proxy.cut();
      lab.fault(proxy.counts.cut - cut);
    }
  });
}

async function loseAnswers(lab: Lab): Promise<void> {
  const rounds = lab.scaled(20, 150);
  await throughProxies(lab, async (proxy) => {
    for (let round = 0; round < rounds; round++) {
      await delay(lab.random() * 60);
      await cutOnce(proxy, { kind: "cut-reply", containing: READY_FOR_QUERY });
      lab.fault();
    }
  });
}

/** Nothing comes through in one direction or both, for longer than the leases last; then the connections break. */
async function blackhole(lab: Lab): Promise<void> {
  const directions = ["to_client", "to_server", "both"] as const;
  const rounds = lab.scaled(2, 6);
  await lab.startWorker(); // takes over what hangs
  await throughProxies(lab, async (proxy) => {
    for (let round = 0; round < rounds; round++) {
      await delay(500 + lab.random() * 500);
      const direction = directions[round % 3] ?? "both";
      proxy.setMode({ kind: "blackhole", direction });
      lab.fault();
      await delay((lab.scaled(1, 2) + lab.random()) * LEASE_MS);
      proxy.setMode({ kind: "pass" });
      proxy.cut();
    }
    await delay(500);
  });
}

/** An administrator, or a pooler's timeout, ends sessions in whatever they do. */
async function terminateBackends(lab: Lab): Promise<void> {
  const rounds = lab.scaled(60, 600);
  await throughProxies(lab, async () => {
    for (let round = 0; round < rounds; round++) {
      await delay(lab.random() * 60);
      const [row] = await lab.sql<{ ended: number }[]>`
        select count(pg_terminate_backend(pid))::integer as ended from (
          select pid from pg_stat_activity
          where datname = current_database() and pid <> pg_backend_pid() and application_name <> 'harness'
          order by random() limit 1
        ) as victim`;
      lab.fault(row?.ended ?? 0);
    }
  });
}

/** The scenarios. */
export const CUT_CONNECTIONS: readonly Scenario[] = [
  {
    name: "connections cut before and after COMMIT",
    injects: "a cut before the server has COMMIT, or before its answer arrives",
    run: cutAroundCommit,
  },
  {
    name: "answers lost",
    injects: "a cut in place of the answer to a statement that is committed",
    run: loseAnswers,
  },
  { name: "blackholed", injects: "silence in one direction or both for longer than a lease", run: blackhole },
  { name: "sessions terminated", injects: "pg_terminate_backend at random", run: terminateBackends },
];
