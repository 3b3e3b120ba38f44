/**
 * Roads to the database that are narrow, impatient or led through a pooler.
 *
 * @module
 */

import { setTimeout as delay } from "node:timers/promises";
import type { Lab } from "./lab.ts";
import { startPgBouncer } from "./pgbouncer.ts";
import { DRIVERS, openPool } from "./pools.ts";
import type { Scenario } from "./scenario.ts";
import { steady, transactional } from "./work.ts";

/** Claims, heartbeats, progress, settlements and the handlers' transactions share one connection, which is ended at times. */
async function poolOfOne(lab: Lab): Promise<void> {
  await Promise.all(DRIVERS.map((driver) => lab.startWorker({ driver, max: 1 })));
  await lab.enqueue(
    Array.from({ length: lab.scaled(200, 2000) }, (_, n) => (n % 2 ? steady : transactional).request({ ms: n % 20 })),
  );
  for (let round = 0; round < lab.scaled(10, 60); round++) {
    await delay(100);
    await lab.sql`
      select pg_terminate_backend(pid) from pg_stat_activity
      where datname = current_database() and application_name <> 'harness' and pid <> pg_backend_pid()
      order by random() limit 1`;
    lab.fault();
  }
}

/** Somebody locks what every statement needs, for longer than statements may take. */
async function statementTimeouts(lab: Lab): Promise<void> {
  const database = new URL(lab.url).pathname.slice(1);
  await lab.sql.unsafe(`alter database "${database}" set statement_timeout = '150ms'`);
  await Promise.all(DRIVERS.map((driver) => lab.startWorker({ driver })));
  const locks = (async () => {
    for (let round = 0; round < lab.scaled(6, 40); round++) {
      await delay(100 + lab.random() * 200);
      await lab.sql.begin(async (tx) => {
        await tx`set local statement_timeout = 0`;
        await tx.unsafe(`lock table runledger.${round % 2 ? "job_queue" : "job_events"} in exclusive mode`);
        await delay(300 + lab.random() * 400);
      });
      lab.fault();
    }
  })();
  await lab.enqueueWhile(locks, () => [
    ...Array.from({ length: 5 }, () => steady.request({ ms: 10 })),
    ...Array.from({ length: 5 }, () => transactional.request({ ms: 10 })),
  ]);
}

/** Transaction mode, with fewer connections to the server than clients; the pooler is killed, and so are its sessions. */
async function throughPgBouncer(lab: Lab): Promise<void> {
  const bouncer = await startPgBouncer({ serverUrl: lab.url, folder: lab.folder, poolSize: 3 });
  lab.defer(() => bouncer.stop());
  const pool = openPool({ url: bouncer.url, driver: "postgres.js", prepares: false, max: 2 });
  lab.defer(() => pool.end());
  await Promise.all(DRIVERS.map((driver) => lab.startWorker({ url: bouncer.url, driver, prepares: false })));
  let isInjecting = true;
  const injecting = (async () => {
    for (let round = 0; round < lab.scaled(8, 40); round++) {
      await delay(200 + lab.random() * 300);
      if (round % 4 === 3) await bouncer.restart();
      else {
        await lab.sql`
          select pg_terminate_backend(pid) from pg_stat_activity
          where datname = current_database() and application_name <> 'harness' and pid <> pg_backend_pid()
          order by random() limit 1`;
      }
      lab.fault();
    }
  })().finally(() => isInjecting = false);
  while (isInjecting) {
    await lab.enqueue(Array.from({ length: 8 }, (_, n) => (n % 2 ? steady : transactional).request({ ms: n })), {
      db: pool.db,
    });
    await delay(30);
  }
  await injecting;
}

/** The scenarios. */
export const NARROW_ROADS: readonly Scenario[] = [
  {
    name: "pool of one connection",
    injects: "one connection for eight handlers, ended at times",
    run: poolOfOne,
  },
  { name: "statement timeouts", injects: "locks held for longer than statement_timeout", run: statementTimeouts },
  {
    name: "PgBouncer between",
    injects: "transaction mode, three server connections; the pooler or its sessions are killed",
    needs: "pgbouncer",
    run: throughPgBouncer,
  },
];
