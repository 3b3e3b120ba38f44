/**
 * Sessions whose statements wait for a permit each, so that a test decides in which order they run. A statement that waits
 * for a lock is recognised by `pg_blocking_pids()`, asked from a connection of its own: nothing sleeps.
 *
 * @module
 */

import assert from "node:assert/strict";
import process from "node:process";
import type { Queryable, StatementRunner } from "@runledger/postgres";
import postgres from "postgres";

/** How the operation of a session is committed. `autocommit` has no transaction around its statements. */
export type Ending = "commit" | "rollback" | "autocommit";

/** What a session calls: anything with a name. */
export interface Named {
  readonly op: string;
}

/** What one session is to do in a run. */
export interface Part<Called extends Named> {
  readonly operation: Called;
  readonly ending: Ending;
}

/** What one session did in a run. Times count the steps of the run. */
export interface PartReport<Called extends Named, Result> extends Part<Called> {
  readonly result: Result;
  /** When its first statement was sent. */
  readonly startedAt: number;
  /** When its transaction was over. */
  readonly endedAt: number;
  /** How many of its steps had to wait for another session. */
  readonly blockedSteps: number;
}

/** What a run did. */
export interface RunReport<Called extends Named, Result> {
  readonly parts: readonly PartReport<Called, Result>[];
  /** The steps as they were sent, for people. */
  readonly trace: readonly string[];
}

/** A few connections and the one that watches them. */
export interface SteppedSessions extends AsyncDisposable {
  /** Watches, prepares and checks. */
  readonly admin: postgres.Sql;
  /**
   * Runs one part per session, step by step.
   *
   * @param parts At most as many as there are sessions.
   * @param choose Says which of so many sessions goes next.
   * @param perform Makes the call; each of its statements is a step.
   * @throws {Error} Whatever a part threw that is no answer, such as a deadlock.
   */
  run<Called extends Named, Result>(
    parts: readonly Part<Called>[],
    choose: (of: number) => number,
    perform: (db: Queryable, operation: Called) => Promise<Result>,
  ): Promise<RunReport<Called, Result>>;
}

interface Connection {
  readonly sql: postgres.Sql;
  readonly pid: number;
}

/** Opens sessions on a database. */
export async function openSteppedSessions(url: string, count: number): Promise<SteppedSessions> {
  // A test that hangs says less than one that fails.
  const options = { max: 1, fetch_types: false, onnotice: () => {}, connection: { statement_timeout: 30_000 } };
  const admin = postgres(url, options);
  const connections: Connection[] = [];
  for (let n = 0; n < count; n++) {
    const sql = postgres(url, options);
    const [row] = await sql`select pg_backend_pid() as pid`;
    connections.push({ sql, pid: row?.["pid"] as number });
  }
  return {
    admin,
    run: (parts, choose, perform) => {
      const actors = parts.map((part, index) => {
        const connection = connections[index];
        assert(connection !== undefined);
        return new Actor(connection, { ...part, perform }, index);
      });
      return runParts(admin, actors, choose);
    },
    async [Symbol.asyncDispose]() {
      for (const { sql } of [...connections, { sql: admin }]) await sql.end({ timeout: 1 });
    },
  };
}

/**
 * Whether `begin` is a step of its own. It takes no snapshot and no lock, so its place among the steps changes nothing, and
 * as a part of the first statement's step it makes three times fewer orders.
 */
const STEPS_BEGIN = process.env["RUNLEDGER_INTERLEAVING_STEPS_BEGIN"] === "1";

interface Role<Called extends Named, Result> extends Part<Called> {
  readonly perform: (db: Queryable, operation: Called) => Promise<Result>;
}

class Actor<Called extends Named, Result> {
  readonly name: string;
  readonly part: Role<Called, Result>;
  readonly connection: Connection;
  status: "ready" | "busy" | "ended" = "busy";
  nextStep = "";
  isInTransaction = false;
  isBlocked = false;
  blockedSteps = 0;
  startedAt = -1;
  endedAt = -1;
  result: { readonly of: Result } | undefined;
  error: unknown;
  changed: Promise<void>;
  #notify: () => void = () => {};
  #permit: () => void = () => {};

  constructor(connection: Connection, part: Role<Called, Result>, index: number) {
    this.connection = connection;
    this.part = part;
    this.name = String.fromCharCode(65 + index);
    this.changed = new Promise((resolve) => (this.#notify = resolve));
  }

  /** Runs until the first step waits for its permit, and to the end as permits come. */
  async start(): Promise<void> {
    try {
      await this.#play();
    } catch (error) {
      this.error = error;
    }
    this.isInTransaction = false;
    this.status = "ended";
    this.#notify();
  }

  /** Permits the next step. */
  permit(now: number): void {
    if (this.startedAt < 0 && this.nextStep !== "begin") this.startedAt = now;
    this.status = "busy";
    this.changed = new Promise((resolve) => (this.#notify = resolve));
    this.#permit();
  }

  async #play(): Promise<void> {
    const { sql } = this.connection;
    const { operation, ending, perform } = this.part;
    const begin = async () => {
      if (ending === "autocommit" || this.isInTransaction) return;
      this.isInTransaction = true;
      await sql.unsafe("begin", [], { prepare: true });
    };
    if (STEPS_BEGIN && ending !== "autocommit") {
      await this.#step("begin");
      await begin();
    }
    const db: StatementRunner = {
      query: async (text, values) => {
        await this.#step(operation.op);
        await begin();
        return await sql.unsafe(text, [...values ?? []], { prepare: true });
      },
    };
    try {
      this.result = { of: await perform(db, operation) };
    } catch (error) {
      if (ending !== "autocommit") await sql.unsafe("rollback");
      throw error;
    }
    if (ending === "autocommit") return;
    await this.#step(ending);
    await sql.unsafe(ending, [], { prepare: true });
  }

  async #step(name: string): Promise<void> {
    this.nextStep = name;
    const permitted = new Promise<void>((resolve) => (this.#permit = resolve));
    this.status = "ready";
    this.#notify();
    await permitted;
  }
}

async function runParts<Called extends Named, Result>(
  admin: postgres.Sql,
  actors: readonly Actor<Called, Result>[],
  choose: (of: number) => number,
): Promise<RunReport<Called, Result>> {
  const trace: string[] = [];
  const running = actors.map((actor) => actor.start());
  await Promise.all(actors.map((actor) => actor.changed));
  let now = 0;
  while (actors.some(({ status }) => status !== "ended")) {
    const ready = actors.filter(({ status }) => status === "ready");
    now++;
    if (ready.length > 0) {
      const actor = ready[choose(ready.length)];
      assert(actor !== undefined);
      const { nextStep } = actor;
      actor.permit(now);
      await settle(admin, actor, actors);
      trace.push(`${actor.name} ${nextStep}${actor.isBlocked ? " blocks" : ""}`);
      if (actor.isBlocked) actor.blockedSteps++;
    }
    // Whoever waited for a transaction that is over now must go on, or wait for another one.
    const blocked = actors.filter(({ isBlocked }) => isBlocked);
    // All wait for each other: the server ends one of them.
    if (ready.length === 0) await Promise.race(blocked.map(({ changed }) => changed));
    for (const actor of actors) {
      if (actor.isBlocked) {
        await settle(admin, actor, actors);
        if (!actor.isBlocked) trace.push(`${actor.name} goes on`);
      }
      if (actor.status === "ended" && actor.endedAt < 0) actor.endedAt = now;
    }
  }
  await Promise.all(running);
  // Who waited for the last of the others was done with it.
  for (const actor of actors) if (actor.endedAt < 0) actor.endedAt = now + 1;
  const failed = actors.find(({ error }) => error !== undefined);
  if (failed !== undefined) {
    throw new Error(`${failed.name} failed after: ${trace.join("; ")}`, { cause: failed.error });
  }
  return { parts: actors.map(reportOf), trace };
}

function reportOf<Called extends Named, Result>(actor: Actor<Called, Result>): PartReport<Called, Result> {
  const { part: { operation, ending }, result, startedAt, endedAt, blockedSteps } = actor;
  assert(result !== undefined);
  return { operation, ending, result: result.of, startedAt, endedAt, blockedSteps };
}

/** Waits until an actor's step is done or waits for another actor. */
async function settle<Called extends Named, Result>(
  admin: postgres.Sql,
  actor: Actor<Called, Result>,
  actors: readonly Actor<Called, Result>[],
): Promise<void> {
  // A call may open a transaction of its own, so who has begun may hold something until the end.
  const rivals = actors.filter((other) => other !== actor && other.startedAt >= 0 && other.status !== "ended");
  const pids = rivals.map(({ connection }) => connection.pid);
  while (actor.status === "busy") {
    if (pids.length === 0) {
      await actor.changed;
      break;
    }
    const [row] = await Promise.race([actor.changed.then(() => []), blockersOf(admin, actor.connection.pid)]);
    const blockers = row?.blockers ?? [];
    if (actor.status === "busy" && blockers.some((pid) => pids.includes(pid))) {
      actor.isBlocked = true;
      return;
    }
  }
  actor.isBlocked = false;
}

function blockersOf(admin: postgres.Sql, pid: number): Promise<readonly { readonly blockers: readonly number[] }[]> {
  return Promise.resolve(admin.unsafe<{ blockers: number[] }[]>(
    "select array_to_json(pg_blocking_pids($1::integer)) as blockers",
    [pid],
    { prepare: true },
  ));
}
