/**
 * PostgreSQL that crashes, and PostgreSQL that comes and goes.
 *
 * @module
 */

import { setTimeout as delay } from "node:timers/promises";
import process from "node:process";
import type { Lab } from "./lab.ts";
import { DRIVERS } from "./pools.ts";
import type { Scenario } from "./scenario.ts";
import { steady, transactional } from "./work.ts";

function batch(lab: Lab) {
  const ms = () => Math.floor(lab.random() * 100);
  return Array.from({ length: 10 }, (_, n) => (n % 2 ? steady : transactional).request({ ms: ms() }));
}

/** Kills the whole server, or a backend of it, which makes the others start anew as well. */
async function crash(lab: Lab): Promise<void> {
  await Promise.all(DRIVERS.map((driver) => lab.startWorker({ driver })));
  const crashes = (async () => {
    for (let count = 0; count < lab.scaled(2, 10); count++) {
      await delay(500 + lab.random() * 1000);
      if (count % 2 === 0) {
        await lab.server.kill();
        await delay(lab.random() * 1000);
        await lab.server.start();
      } else {
        const [row] = await lab.sql<{ pid: number }[]>`
          select pid from pg_stat_activity
          where datname = current_database() and pid <> pg_backend_pid() order by random() limit 1`;
        if (row !== undefined) process.kill(row.pid, "SIGKILL");
      }
      lab.fault();
    }
    await delay(500);
  })();
  await lab.enqueueWhile(crashes, () => batch(lab));
}

/** An orderly stop every few seconds. */
async function comeAndGo(lab: Lab): Promise<void> {
  await Promise.all(DRIVERS.map((driver) => lab.startWorker({ driver })));
  const outages = (async () => {
    for (const until = performance.now() + lab.scaled(8000, 60_000); performance.now() < until;) {
      await delay(500 + lab.random() * 2000);
      await lab.server.stop();
      lab.fault();
      await delay(lab.random() * 1500);
      await lab.server.start();
      lab.fault(0);
    }
  })();
  await lab.enqueueWhile(outages, () => batch(lab));
}

/** The scenarios. */
export const KILL_POSTGRES: readonly Scenario[] = [
  {
    name: "PostgreSQL killed",
    injects: "SIGKILL of the server or of a backend, and a restart",
    harmsServer: true,
    run: crash,
  },
  {
    name: "PostgreSQL stopped every few seconds",
    injects: "a fast shutdown and a start, for a minute",
    harmsServer: true,
    run: comeAndGo,
  },
];
