/**
 * Workers that are killed: at every point of an attempt, and at random.
 *
 * @module
 */

import { setTimeout as delay } from "node:timers/promises";
import type { Lab } from "./lab.ts";
import { DRIVERS } from "./pools.ts";
import type { Scenario } from "./scenario.ts";
import { doomed, isTransactional, POINTS, steady, transactional } from "./work.ts";

/** Each first attempt kills its process at one point; the others' claims die with it. */
async function killAtEveryPoint(lab: Lab): Promise<void> {
  const repeats = lab.scaled(1, 4);
  lab.keepAlive(DRIVERS.map((driver) => ({ driver })));
  for (let repeat = 0; repeat < repeats; repeat++) {
    for (const at of POINTS) {
      const definition = isTransactional(at) ? transactional : steady;
      await lab.enqueue([
        definition.request({ fault: { at, kind: "SIGKILL" } }),
        ...Array.from({ length: 5 }, () => steady.request({ ms: 5 })),
        ...Array.from({ length: 5 }, () => transactional.request({ ms: 5 })),
      ]);
    }
    await lab.enqueue([doomed.request({})]);
    await lab.untilDrained();
  }
}

/** Somebody kills processes without looking. */
async function killAtRandom(lab: Lab): Promise<void> {
  const kept = lab.keepAlive([...DRIVERS, "postgres.js" as const].map((driver) => ({ driver })));
  const kills = (async () => {
    for (let kill = 0; kill < lab.scaled(6, 40);) {
      await delay(100 + lab.random() * 500);
      const ready = kept.alive.filter((child) => child.output.includes("ready"));
      if (ready.length === 0 || !lab.pick(ready).kill("SIGKILL")) continue;
      lab.fault();
      kill++;
    }
  })();
  await lab.enqueueWhile(kills, () => [
    ...Array.from({ length: 10 }, () => steady.request({ ms: Math.floor(lab.random() * 40) })),
    ...Array.from({ length: 10 }, () => transactional.request({ ms: Math.floor(lab.random() * 40) })),
  ]);
}

/** The scenarios. */
export const KILL_WORKER: readonly Scenario[] = [
  {
    name: "worker killed at every point of an attempt",
    injects:
      "SIGKILL before, in and after the handler, between its side effect and its completion, and in its transaction",
    run: killAtEveryPoint,
  },
  { name: "workers killed at random", injects: "SIGKILL of one of three workers, again and again", run: killAtRandom },
];
