import assert from "node:assert/strict";
import process from "node:process";
import { answerOf } from "../model/operation.ts";
import type { OperationResult } from "../model/operation.ts";
import { assertInvariants, openTestDatabase } from "../support/database.ts";
import { Choices, createRandom } from "./schedule.ts";
import { keepsTime, permutations } from "./serial_orders.ts";
import { openSteppedSessions } from "./stepped_sessions.ts";
import type { Ending, PartReport, SteppedSessions } from "./stepped_sessions.ts";
import { OPPOSED_WORKFLOW_CASES, WORKFLOW_CASES } from "./workflow_cases.ts";
import type { WorkflowCall, WorkflowCase } from "./workflow_cases.ts";
import { makeState, readStored, restoreState, withNames } from "./workflow_states.ts";
import type { WorkflowFixture, WorkflowState } from "./workflow_states.ts";

/** How many random triples are tried; each in one random order. */
const TRIPLES = Number(process.env["RUNLEDGER_INTERLEAVING_TRIPLES"] ?? 1000);
const SEED = Number(process.env["RUNLEDGER_INTERLEAVING_SEED"] ?? Date.now() % 2 ** 31);
/** Only pairs with an operation of which the name matches: for finding out about one of them. */
const ONLY = new RegExp(process.env["RUNLEDGER_INTERLEAVING_ONLY"] ?? "");
/** Of how many pairs one is tried: which one, the seed says. */
const EVERY = Number(process.env["RUNLEDGER_INTERLEAVING_EVERY"] ?? 1);

/** A statement that commits by itself is one that commits in its next step. */
const PAIR_ENDINGS: readonly (readonly [Ending, Ending])[] = [
  ["commit", "commit"],
  ["rollback", "commit"],
  ["commit", "rollback"],
];

Deno.test("three workflow operations that want the same rows or keys in opposite order do not deadlock in any order of their steps", async () => {
  await using tester = await openWorkflowTester(3);
  for (const [state, ...cases] of OPPOSED_WORKFLOW_CASES) {
    if (!cases.some(({ name }) => ONLY.test(name))) continue;
    const firstEndings: readonly Ending[] = cases[0]?.isTransaction === true ? ["autocommit"] : ["commit", "rollback"];
    for (const ending of firstEndings) {
      await tester.runAllOrders(cases, { state, endings: [ending, "commit", "commit"] });
    }
  }
  console.log(`opposed workflow operations: ${OPPOSED_WORKFLOW_CASES.length} triples, ${tester.figures()}`);
});

Deno.test("every order of the steps of every two workflow operations is as if one had run after the other", async () => {
  await using tester = await openWorkflowTester(2);
  let pairs = 0;
  let passedOver = SEED;
  for (const [index, first] of WORKFLOW_CASES.entries()) {
    for (const second of WORKFLOW_CASES.slice(index)) {
      if (!ONLY.test(first.name) && !ONLY.test(second.name)) continue;
      if (++passedOver % EVERY !== 0) continue;
      pairs++;
      for (const state of meetingStates(first, second)) {
        for (const endings of PAIR_ENDINGS) await tester.runAllOrders([first, second], { state, endings });
      }
    }
  }
  console.log(`workflow interleavings: ${pairs} pairs, ${tester.figures()}`);
});

Deno.test("random orders of three workflow operations are as if they had run one after the other", async () => {
  await using tester = await openWorkflowTester(3);
  console.log(`workflow triples: RUNLEDGER_INTERLEAVING_SEED=${SEED} RUNLEDGER_INTERLEAVING_TRIPLES=${TRIPLES}`);
  const random = createRandom(SEED);
  const pick = <T>(items: readonly T[]): T => items[random(items.length)] as T;
  for (let n = 0; n < TRIPLES; n++) {
    const state = pick(pick(WORKFLOW_CASES).states);
    const able = WORKFLOW_CASES.filter(({ states }) => states.includes(state));
    const cases = [0, 1, 2].map(() => pick(able));
    const endings = cases.map(() => pick<Ending>(["commit", "commit", "rollback", "autocommit"]));
    await tester.runOrder(cases, { state, endings, choose: random });
  }
  console.log(`workflow triples: ${tester.figures()}`);
});

/** Where two operations meet: where both have something to do, else where one has, if there is a run at all. */
function meetingStates(first: WorkflowCase, second: WorkflowCase): readonly WorkflowState[] {
  const shared = first.states.filter((state) => second.states.includes(state));
  if (shared.length > 0) return shared;
  return [...first.states, ...second.states].filter((state) => state !== "none").slice(0, 1);
}

interface Meeting {
  readonly state: WorkflowState;
  readonly endings: readonly Ending[];
}

interface WorkflowTester extends AsyncDisposable {
  runAllOrders(cases: readonly WorkflowCase[], meeting: Meeting): Promise<void>;
  runOrder(cases: readonly WorkflowCase[], meeting: Meeting & { choose: (of: number) => number }): Promise<void>;
  figures(): string;
}

type Report = PartReport<WorkflowCall & { readonly index: number }, OperationResult>;

/**
 * Runs orders of steps and compares each with what its operations do one after the other, on the same database: the answers
 * and what is stored must be equal to those of some serial order, in which an operation that skips what is locked may have
 * been left out if it was not alone. Every stored state that is new is checked for all invariants.
 */
async function openWorkflowTester(sessionCount: number): Promise<WorkflowTester> {
  await using stack = new AsyncDisposableStack();
  const database = stack.use(await openTestDatabase());
  const sessions: SteppedSessions = stack.use(await openSteppedSessions(database.url, sessionCount));
  const { admin } = sessions;
  const fixtures = new Map<WorkflowState, WorkflowFixture>();
  const checked = new Set<string>();
  let orders = 0;
  let blockedSteps = 0;

  const fixtureOf = async (state: WorkflowState): Promise<WorkflowFixture> => {
    const fixture = fixtures.get(state) ?? await makeState(admin, state);
    fixtures.set(state, fixture);
    return fixture;
  };
  const play = (fixture: WorkflowFixture, cases: readonly WorkflowCase[], endings: readonly Ending[]) =>
    cases.map(({ name, call }, index) => {
      const ending = endings[index];
      assert(ending !== undefined);
      return { operation: { op: name, index, call: (db: Parameters<typeof call>[0]) => call(db, fixture) }, ending };
    });
  const perform = (db: Parameters<WorkflowCall["call"]>[0], { op, call }: WorkflowCall) => answerOf(op, call(db));

  const storedNow = async (fixture: WorkflowFixture): Promise<string> => {
    const stored = await readStored(admin, fixture);
    if (!checked.has(stored)) await assertInvariants(admin);
    checked.add(stored);
    return stored;
  };
  /** The answers in the order of the parts, and what is stored. */
  const endOf = (fixture: WorkflowFixture, answers: readonly OperationResult[], stored: string): string =>
    [...answers.map((answer) => withNames(JSON.stringify(answer, withoutRelease), fixture)), stored].join("\n");

  /** Runs parts one after the other; those that are left out answer that they had nothing to do. */
  const serialEnd = async (
    cases: readonly WorkflowCase[],
    { state, endings }: Meeting,
    order: readonly number[],
    leftOut: ReadonlySet<number>,
  ): Promise<string> => {
    const fixture = await fixtureOf(state);
    await restoreState(admin, fixture);
    const parts = play(fixture, cases, endings);
    const answers: OperationResult[] = [];
    for (const index of order) {
      const part = parts[index];
      assert(part !== undefined);
      if (leftOut.has(index)) answers[index] = { value: cases[index]?.skipped?.(fixture) };
      else {
        const { parts: [report] } = await sessions.run([part], () => 0, perform);
        assert(report !== undefined);
        answers[index] = report.result;
      }
    }
    return endOf(fixture, answers, await storedNow(fixture));
  };

  const runOrder = async (
    cases: readonly WorkflowCase[],
    meeting: Meeting & { readonly choose: (of: number) => number },
    serialEnds: Map<string, string> = new Map(),
  ): Promise<void> => {
    const { state, endings, choose } = meeting;
    const title = `${cases.map(({ name }, index) => `${name} (${endings[index]})`).join(", ")}; main ${state}`;
    try {
      const fixture = await fixtureOf(state);
      await restoreState(admin, fixture);
      const { parts, trace } = await sessions.run(play(fixture, cases, endings), choose, perform);
      const end = endOf(fixture, parts.map(({ result }) => result), await storedNow(fixture));
      orders++;
      for (const [index, part] of parts.entries()) {
        blockedSteps += part.blockedSteps;
        const mayWait = cases[index]?.skipped === undefined;
        assert(part.blockedSteps === 0 || mayWait, `${part.operation.op} waited for a lock`);
      }
      const tried: string[] = [];
      for (const order of permutations(parts.toSorted((one, other) => one.endedAt - other.endedAt))) {
        if (!keepsTime(order)) continue;
        for (const leftOut of subsets(parts.filter((part) => mayBeLeftOut(part, parts, cases)))) {
          const indexes = order.map(({ operation }) => operation.index);
          const key = `${indexes} ${[...leftOut]}`;
          const serial = serialEnds.get(key) ?? await serialEnd(cases, meeting, indexes, leftOut);
          serialEnds.set(key, serial);
          if (serial === end) return;
          tried.push(`${order.map(({ operation }) => operation.op).join(", ")}:\n${serial}`);
        }
      }
      assert.fail(["no serial order explains this run:", ...trace, end, ...tried].join("\n"));
    } catch (error) {
      throw new Error(title, { cause: error });
    }
  };

  const opened = stack.move();
  return {
    runOrder,
    async runAllOrders(cases, meeting) {
      const choices = new Choices();
      const serialEnds = new Map<string, string>();
      do await runOrder(cases, { ...meeting, choose: (of) => choices.choose(of) }, serialEnds); while (choices.next());
    },
    figures: () => `${orders} orders, ${blockedSteps} blocked steps, ${checked.size} stored states`,
    [Symbol.asyncDispose]: () => opened.disposeAsync(),
  };
}

/** What was released is stored, too, and listed in no order. */
function withoutRelease(key: string, value: unknown): unknown {
  return key === "release" ? undefined : value;
}

/** Whether an operation skips what others hold, and was not alone. */
function mayBeLeftOut(part: Report, parts: readonly Report[], cases: readonly WorkflowCase[]): boolean {
  return cases[part.operation.index]?.skipped !== undefined &&
    parts.some((other) => other !== part && other.startedAt < part.startedAt && other.endedAt > part.startedAt);
}

function subsets(parts: readonly Report[]): readonly ReadonlySet<number>[] {
  const [first, ...rest] = parts;
  if (first === undefined) return [new Set()];
  return subsets(rest).flatMap((set) => [set, new Set([first.operation.index, ...set])]);
}
