/**
 * Handlers that break every rule, among others that keep them.
 *
 * @module
 */

import assert from "node:assert/strict";
import type { Lab } from "./lab.ts";
import { DRIVERS } from "./pools.ts";
import type { Scenario } from "./scenario.ts";
import { poisons, steady, transactional } from "./work.ts";
import type { Poison } from "./work.ts";

/** What becomes of each, and under which code. */
const FATES: Readonly<Record<Poison, { readonly status: "DEAD_LETTERED" | "either"; readonly code?: string }>> = {
  throwsNull: { status: "DEAD_LETTERED", code: "job.handler_threw" },
  neverSettles: { status: "DEAD_LETTERED", code: "job.timeout_exceeded" },
  settlesAfterAbort: { status: "DEAD_LETTERED", code: "job.timeout_exceeded" },
  rejectsAfterAbort: { status: "DEAD_LETTERED", code: "job.timeout_exceeded" },
  exits: { status: "DEAD_LETTERED", code: "job.lease_expired" },
  // It may be settled before the rejection that nobody handles ends the process.
  leavesRejection: { status: "either" },
};

async function swallowPoison(lab: Lab): Promise<void> {
  const entries = Object.entries(FATES) as [Poison, typeof FATES[Poison]][];
  const repeats = lab.scaled(1, 3);
  const ids = new Map<string, string>();
  for (const [poison, { status, code }] of entries) {
    // Each that never settles keeps a slot for ever: fewer of them than slots.
    const count = poison === "neverSettles" ? 1 : repeats;
    // A process that dies costs every job that it holds an attempt, so those that are to end in one way get time for it.
    const maxAttempts = status === "DEAD_LETTERED" && poison !== "exits" ? 4 : 2;
    const requests = Array.from({ length: count }, (_, n) => poisons[poison].request({ n }, { maxAttempts }));
    for (const jobId of await lab.enqueue(requests, { expected: status })) if (code !== undefined) ids.set(jobId, code);
  }
  await lab.enqueue(
    Array.from({ length: 100 * repeats }, (_, n) => (n % 2 ? steady : transactional).request({ ms: n % 10 })),
  );
  lab.keepAlive(DRIVERS.map((driver) => ({ driver, takesPoison: true, shutdownTimeoutMs: 1000 })));
  lab.fault(entries.length);
  await lab.untilDrained(90_000);
  for (const [jobId, code] of ids) {
    const rows = await lab.sql<{ code: string }[]>`
      select error_code as code from runledger.job_attempts where job_id = ${jobId}`;
    const codes = rows.map((row) => row.code);
    // A neighbour that ended the process is a lost lease, too.
    const others = codes.filter((found) => found !== code && found !== "job.lease_expired");
    assert.deepEqual(others, [], `job ${jobId}: ${codes.join(", ")}`);
  }
}

/** The scenarios. */
export const POISON: readonly Scenario[] = [
  {
    name: "poison handlers",
    injects:
      "handlers that throw null, never settle, settle or reject after their abort, exit, leave a rejection behind",
    run: swallowPoison,
  },
];
