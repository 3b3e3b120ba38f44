import assert from "node:assert/strict";
import process from "node:process";
import { perform } from "../model/operation.ts";
import { assertStoredJobs, defineModelTypes, readStoredJobs, removeAllJobs } from "../model/stored_jobs.ts";
import { openTestDatabase } from "../support/database.ts";
import { CASES, OPPOSED, prepare } from "./cases.ts";
import type { Case, StartState } from "./cases.ts";
import { Choices, createRandom } from "./schedule.ts";
import { assertSerial } from "./serial_orders.ts";
import { openSteppedSessions } from "./stepped_sessions.ts";
import type { Ending, SteppedSessions } from "./stepped_sessions.ts";

/** How many random triples are tried; each in one random order. */
const TRIPLES = Number(process.env["RUNLEDGER_INTERLEAVING_TRIPLES"] ?? 1000);
const SEED = Number(process.env["RUNLEDGER_INTERLEAVING_SEED"] ?? Date.now() % 2 ** 31);
/** Only pairs with an operation of which the name matches: for finding out about one of them. */
const ONLY = new RegExp(process.env["RUNLEDGER_INTERLEAVING_ONLY"] ?? "");
/** Of how many pairs one is tried: which one, the seed says. */
const EVERY = Number(process.env["RUNLEDGER_INTERLEAVING_EVERY"] ?? 1);

const PAIR_ENDINGS: readonly (readonly [Ending, Ending])[] = [
  ["commit", "commit"],
  ["rollback", "commit"],
  ["commit", "rollback"],
  ["autocommit", "commit"],
  ["commit", "autocommit"],
  ["autocommit", "autocommit"],
];

interface Figures {
  orders: number;
  blockedSteps: number;
}

Deno.test("three operations that want the same rows in opposite order do not deadlock in any order of their steps", async () => {
  await using database = await openTestDatabase();
  await using sessions = await openSteppedSessions(database.url, 3);
  await defineModelTypes(sessions.admin);
  const figures: Figures = { orders: 0, blockedSteps: 0 };
  for (const cases of OPPOSED) {
    if (!cases.some(({ name }) => ONLY.test(name))) continue;
    const [state] = cases[0].states;
    assert(state !== undefined);
    for (const ending of ["commit", "rollback"] as const) {
      await runAllOrders(sessions, cases, { state, endings: [ending, "commit", "commit"], figures });
    }
  }
  await removeAllJobs(sessions.admin);
  console.log(`opposed: ${OPPOSED.length} triples, ${figures.orders} orders, ${figures.blockedSteps} blocked steps`);
});

Deno.test("every order of the steps of every two operations is as if one had run after the other", async () => {
  await using database = await openTestDatabase();
  await using sessions = await openSteppedSessions(database.url, 2);
  await defineModelTypes(sessions.admin);
  const figures: Figures = { orders: 0, blockedSteps: 0 };
  let pairs = 0;
  let passedOver = SEED;
  for (const [index, first] of CASES.entries()) {
    for (const second of CASES.slice(index)) {
      if (!ONLY.test(first.name) && !ONLY.test(second.name)) continue;
      if (++passedOver % EVERY !== 0) continue;
      pairs++;
      for (const state of new Set([...first.states, ...second.states])) {
        for (const endings of PAIR_ENDINGS) await runAllOrders(sessions, [first, second], { state, endings, figures });
      }
    }
  }
  await removeAllJobs(sessions.admin);
  console.log(`interleavings: ${pairs} pairs, ${figures.orders} orders, ${figures.blockedSteps} blocked steps`);
});

Deno.test("random orders of three operations are as if they had run one after the other", async () => {
  await using database = await openTestDatabase();
  await using sessions = await openSteppedSessions(database.url, 3);
  await defineModelTypes(sessions.admin);
  console.log(`triples: RUNLEDGER_INTERLEAVING_SEED=${SEED} RUNLEDGER_INTERLEAVING_TRIPLES=${TRIPLES}`);
  const random = createRandom(SEED);
  const figures: Figures = { orders: 0, blockedSteps: 0 };
  const pick = <T>(items: readonly T[]): T => items[random(items.length)] as T;
  for (let n = 0; n < TRIPLES; n++) {
    const state = pick(pick(CASES).states);
    // Most of the three can do something in that state.
    const able = CASES.filter(({ states }) => states.includes(state));
    const cases = [0, 1, 2].map(() => pick(random(4) === 0 ? CASES : able));
    const endings = cases.map(() => pick<Ending>(["commit", "commit", "rollback", "autocommit"]));
    await runOrder(sessions, cases, { state, endings, figures, choose: random });
  }
  await removeAllJobs(sessions.admin);
  console.log(`triples: ${figures.orders} orders, ${figures.blockedSteps} blocked steps`);
});

interface Meeting {
  readonly state: StartState;
  readonly endings: readonly Ending[];
  readonly figures: Figures;
}

async function runAllOrders(sessions: SteppedSessions, cases: readonly Case[], meeting: Meeting): Promise<void> {
  const choices = new Choices();
  do await runOrder(sessions, cases, { ...meeting, choose: (of) => choices.choose(of) }); while (choices.next());
}

async function runOrder(
  sessions: SteppedSessions,
  cases: readonly Case[],
  meeting: Meeting & { readonly choose: (of: number) => number },
): Promise<void> {
  const { state, endings, figures } = meeting;
  const title = `${cases.map(({ name }, index) => `${name} (${endings[index]})`).join(", ")}; jobs ${state}`;
  try {
    const fixture = await prepare(sessions.admin, state);
    const parts = cases.map(({ operation }, index) => ({
      operation: operation(fixture),
      ending: endings[index] as Ending,
    }));
    const run = await sessions.run(parts, meeting.choose, perform);
    const stored = await readStoredJobs(sessions.admin);
    assertSerial(fixture.model, run, (model) => assertStoredJobs(stored, model));
    for (const [index, { blockedSteps }] of run.parts.entries()) {
      figures.blockedSteps += blockedSteps;
      assert(blockedSteps === 0 || cases[index]?.neverWaits !== true, `${cases[index]?.name} waited for a lock`);
    }
    figures.orders++;
  } catch (error) {
    throw new Error(title, { cause: error });
  }
}
