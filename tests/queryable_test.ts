/**
 * What a database handle promises when connections break, and which handles are refused.
 *
 * @module
 */

import { isRunledgerError } from "@runledger/core";
import type { RunledgerErrorCode } from "@runledger/core";
import { atomically } from "@runledger/postgres";
import type { Queryable } from "@runledger/postgres";
import { createEphemeralDatabase } from "@runledger/test-support";
import assert from "node:assert/strict";
import pg from "pg";
import postgres from "postgres";
import { assertUsable, runStatement } from "../postgres/queryable.ts";
import { DRIVERS } from "./support/drivers.ts";
import { ORM_DRIVERS } from "./support/orm_drivers.ts";
import type { TestDriver } from "./support/drivers.ts";

const database = await createEphemeralDatabase({ migrated: false });
Deno.test.afterAll(async () => {
  await database[Symbol.asyncDispose]();
});

/** Waits on a lock that the administrator holds. */
const WAIT = "select pg_advisory_xact_lock($1::bigint)::text";
const LOCK = 4711;

/** An administrator who holds the lock, sees who waits for it, and ends sessions. */
class Administrator implements AsyncDisposable {
  readonly #sql = postgres(database.url, { max: 1, onnotice: () => {} });

  static async open(): Promise<Administrator> {
    const administrator = new Administrator();
    await administrator.#sql`select pg_advisory_lock(${LOCK})`;
    await administrator.#sql.unsafe(`
      drop table if exists marks;
      create table marks (id integer primary key);
      create or replace function wait_at_commit() returns trigger language plpgsql as $$
        begin perform pg_advisory_xact_lock(${LOCK}); return null; end $$;
      create constraint trigger marks_wait after insert on marks deferrable initially deferred
        for each row when (new.id < 0) execute function wait_at_commit();`);
    return administrator;
  }

  /** Ends the session that waits for the lock, as soon as there is one. */
  async endWaiting(): Promise<void> {
    while (true) {
      const rows = await this.#sql`
        select pg_terminate_backend(l.pid) from pg_locks l join pg_database d on d.oid = l.database
        where l.locktype = 'advisory' and not l.granted and d.datname = current_database()`;
      if (rows.length > 0) return;
    }
  }

  async end(pid: unknown): Promise<void> {
    await this.#sql`select pg_terminate_backend(${Number(pid)}, 10000)`;
  }

  async marks(): Promise<readonly number[]> {
    return (await this.#sql<{ id: number }[]>`select id from marks order by id`).map(({ id }) => id);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#sql.end();
  }
}

function hasCode(code: RunledgerErrorCode): (error: unknown) => boolean {
  return (error) => {
    assert.ok(isRunledgerError(error), Deno.inspect(error));
    assert.equal(error.code, code, error.internalMessage);
    return true;
  };
}

const mark = (db: Queryable, id: number) =>
  runStatement(db, "insert into marks (id) values ($1::integer)", [id], { write: true });

async function pidOf(db: Queryable): Promise<unknown> {
  return (await runStatement(db, "select pg_backend_pid() as pid", []))[0]?.pid;
}

/** PGlite has no connection, and the second plain object repeats a reserved connection. */
const NETWORKED = [...DRIVERS, ...ORM_DRIVERS].filter(({ name }) =>
  !name.startsWith("PGlite") && name !== "plain query object on postgres.js"
);
const COMMITTING = NETWORKED.filter(({ commits }) => commits);
const POOLS: readonly TestDriver[] = NETWORKED.filter(({ name }) => /pool/i.test(name) && !/client/i.test(name));

/** A node-postgres client without a listener ends the process when its connection breaks; that is its owner's duty. */
function listen(db: Queryable): void {
  if ("on" in db) db.on("error", () => {});
}

/** Closing a handle whose connection is gone may fail; the test is over. */
async function closeBroken(handle: AsyncDisposable): Promise<void> {
  await handle[Symbol.asyncDispose]().then(() => {}, () => {});
}

for (const driver of COMMITTING.filter(({ name }) => !name.startsWith("plain"))) {
  Deno.test(`${driver.name}: a connection lost during COMMIT is an unknown outcome`, async () => {
    await using administrator = await Administrator.open();
    const handle = await driver.open(database.url);
    listen(handle.db);
    const committing = atomically(handle.db, (tx) => mark(tx, -1));
    await Promise.all([
      assert.rejects(committing, hasCode("db.commit_unknown")),
      administrator.endWaiting(),
    ]);
    await closeBroken(handle);
  });
}

for (const driver of COMMITTING.filter(({ name }) => !name.startsWith("plain"))) {
  Deno.test(`${driver.name}: a write whose connection is lost is an unknown outcome, a read is not`, async () => {
    for (const [write, code] of [[true, "db.commit_unknown"], [false, "db.unavailable"]] as const) {
      await using administrator = await Administrator.open();
      const handle = await driver.open(database.url);
      listen(handle.db);
      await Promise.all([
        assert.rejects(runStatement(handle.db, WAIT, [LOCK], { write }), hasCode(code)),
        administrator.endWaiting(),
      ]);
      await closeBroken(handle);
    }
  });
}

// Not in a transaction that the user or Drizzle opened with postgres.js: when its connection breaks, `begin` itself writes
// to the closed socket and ends the process with an uncaught TypeError (3.4.9). `atomically` on the pool is safe from that.
const BEGUN_BY_POSTGRES_JS = /^postgres.js (?:transaction|savepoint)|^Drizzle .* on postgres.js/;
for (const driver of NETWORKED.filter(({ name }) => !name.startsWith("plain") && !BEGUN_BY_POSTGRES_JS.test(name))) {
  Deno.test(`${driver.name}: a connection lost before COMMIT is unavailable, and nothing was kept`, async () => {
    await using administrator = await Administrator.open();
    const handle = await driver.open(database.url);
    listen(handle.db);
    const failing = atomically(handle.db, async (tx) => {
      await mark(tx, 1);
      const waiting = runStatement(tx, WAIT, [LOCK], { write: true });
      await Promise.all([assert.rejects(waiting, hasCode("db.unavailable")), administrator.endWaiting()]);
      await assert.rejects(mark(tx, 2), hasCode("db.unavailable"));
    });
    await assert.rejects(failing, hasCode("db.unavailable"));
    assert.deepEqual(await administrator.marks(), []);
    await closeBroken(handle);
  });
}

for (const driver of POOLS) {
  Deno.test(`${driver.name}: after a connection broke between two statements the next transaction is whole`, async () => {
    await using administrator = await Administrator.open();
    await using handle = await driver.open(database.url);
    listen(handle.db);
    const failing = atomically(handle.db, async (tx) => {
      await mark(tx, 1);
      await administrator.end(await pidOf(tx));
      await atomically(tx, (inner) => mark(inner, 2));
    });
    await assert.rejects(failing, hasCode("db.unavailable"));
    const markTwice = (id: number) =>
      atomically(handle.db, async (tx) => {
        await mark(tx, id);
        await mark(tx, id + 1);
      });
    // The first ones may meet the broken connection, which the pool then drops: they are told so, and nothing is done.
    await Promise.all([10, 20, 30, 40].map((id) =>
      markTwice(id).catch((error) => {
        if (!hasCode("db.unavailable")(error)) throw error;
        return markTwice(id);
      })
    ));
    assert.deepEqual(await administrator.marks(), [10, 11, 20, 21, 30, 31, 40, 41]);
  });

  Deno.test(`${driver.name}: what a function throws passes through although its connection broke`, async () => {
    await using administrator = await Administrator.open();
    await using handle = await driver.open(database.url);
    listen(handle.db);
    const reason = new Error("of the caller");
    const failing = atomically(handle.db, async (tx) => {
      await mark(tx, 1);
      await administrator.end(await pidOf(tx));
      throw reason;
    });
    await assert.rejects(failing, (error: unknown) => error === reason);
    await mark(handle.db, 5).catch(() => {}); // may meet the broken connection, which the pool then drops
    await mark(handle.db, 6);
    assert.ok(!(await administrator.marks()).includes(1));
  });

  Deno.test(`${driver.name}: a server that cannot be reached is unavailable, also for a write`, async () => {
    const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const { port } = listener.addr;
    listener.close(); // nobody listens there now
    await using handle = await driver.open(`postgres://nobody@127.0.0.1:${port}/nowhere`);
    await assert.rejects(mark(handle.db, 1), hasCode("db.unavailable"));
    await assert.rejects(atomically(handle.db, (tx) => mark(tx, 1)), hasCode("db.unavailable"));
  });
}

Deno.test("a pool that was ended is unavailable, also for a write", async () => {
  const sql = postgres(database.url);
  await sql.end();
  await assert.rejects(mark(sql, 1), hasCode("db.unavailable"));
  const pool = new pg.Pool({ idleTimeoutMillis: 0, connectionString: database.url });
  await pool.end();
  await assert.rejects(mark(pool, 1), hasCode("db.unavailable"));
  await assert.rejects(atomically(pool, (tx) => mark(tx, 1)), hasCode("db.unavailable"));
});

Deno.test("a statement is prepared once per postgres.js connection, whatever its values", async () => {
  const sql = postgres(database.url, { max: 1 });
  for (const values of [[1, "a", true], [null, "b", null], ["2", null, false]]) {
    await runStatement(sql, "select $1::integer, $2::text, $3::boolean", values);
    await runStatement(sql, "select 'no values'", []);
  }
  const rows = await sql`
    select statement, generic_plans + custom_plans as runs from pg_prepared_statements
    where statement like 'select $1%' or statement like '%no values%' order by statement`;
  assert.deepEqual(rows.filter(({ statement }) => !statement.includes("runs")).map((row) => Number(row.runs)), [3, 3]);
  await sql.end();
});

Deno.test("a node-postgres client inside the user's own transaction gets a savepoint", async () => {
  await using administrator = await Administrator.open();
  const client = new pg.Client({ connectionString: database.url });
  await client.connect();
  await client.query("begin");
  await client.query("insert into marks (id) values (1)");
  await assert.rejects(atomically(client, (tx) => mark(tx, 1)), hasCode("db.unique_violation"));
  await atomically(client, (tx) => mark(tx, 2));
  assert.deepEqual(await administrator.marks(), []);
  await client.query("commit");
  assert.deepEqual(await administrator.marks(), [1, 2]);
  await client.end();
});

Deno.test("a postgres.js transaction of the user survives an atomically that failed inside", async () => {
  await using administrator = await Administrator.open();
  const sql = postgres(database.url);
  await sql.begin(async (tx) => {
    await tx`insert into marks (id) values (1)`;
    await assert.rejects(atomically(tx, (inner) => mark(inner, 1)), hasCode("db.unique_violation"));
    await mark(tx, 2);
  });
  assert.deepEqual(await administrator.marks(), [1, 2]);
  await sql.end();
});

Deno.test("a postgres.js pool that rewrites names or values is refused, and so are transactions of it", async () => {
  for (const transform of [postgres.camel, postgres.toCamel, postgres.pascal, postgres.kebab, { row: () => ({}) }]) {
    const sql = postgres(database.url, { max: 1, transform });
    assert.throws(() => assertUsable(sql), (error: unknown) => {
      assert.ok(isRunledgerError(error, "db.unsupported_driver"));
      assert.match(error.message, /transform\.(?:column|value|row)\.(?:from|to)/);
      return true;
    });
    await sql.end();
  }
  const sql = postgres(database.url, { max: 1, transform: postgres.camel });
  await sql.begin((tx) => {
    assert.throws(() => assertUsable(tx), hasCode("db.unsupported_driver"));
    return [];
  });
  await sql.end();
  const harmless = postgres(database.url, { max: 1, transform: { undefined: null } });
  assertUsable(harmless);
  await harmless.end();
});

Deno.test("what is no database handle is refused with a word on what it is", async () => {
  const wrong = [null, undefined, "postgres://localhost", 5, {}, [], () => {}, Promise.resolve({}), {
    query: "select",
  }];
  for (const value of wrong) {
    await assert.rejects(runStatement(value as never, "select 1", []), hasCode("db.unsupported_driver"));
    await assert.rejects(atomically(value as never, () => Promise.resolve()), hasCode("db.unsupported_driver"));
  }
  assert.throws(() => assertUsable(Promise.resolve() as never), /await it first/);
});

Deno.test("a plain object that answers with neither rows nor { rows } is reported as such", async () => {
  await assert.rejects(
    runStatement({ query: () => Promise.resolve("many") }, "select 1", []),
    hasCode("db.unexpected_result"),
  );
});

Deno.test("a plain object that hides a pool cannot hold a transaction, and says so", async () => {
  const clients = [1, 2].map(() => new pg.Client({ connectionString: database.url }));
  await Promise.all(clients.map((client) => client.connect()));
  let calls = 0;
  const query = async (text: string) => (await clients[calls++ % 2]?.query(text))?.rows;
  let hasRun = false;
  const holding = atomically({ query }, () => Promise.resolve(hasRun = true));
  await assert.rejects(holding, hasCode("db.unsupported_driver"));
  assert.equal(hasRun, false);
  await Promise.all(clients.map((client) => client.end()));
});

Deno.test("a plain object with its own transaction method is asked for it", async () => {
  await using administrator = await Administrator.open();
  const pool = new pg.Pool({ idleTimeoutMillis: 0, connectionString: database.url });
  const db = {
    query: async (text: string, values?: unknown[]) => (await pool.query(text, values)).rows,
    async transaction(fn: (tx: never) => Promise<unknown>) {
      const client = await pool.connect();
      try {
        await client.query("begin");
        const value = await fn({ query: (text: string, values?: unknown[]) => client.query(text, values) } as never);
        await client.query("commit");
        return value;
      } catch (error) {
        await client.query("rollback");
        throw error;
      } finally {
        client.release();
      }
    },
  };
  await atomically(db, async (tx) => {
    await mark(tx, 1);
    await assert.rejects(atomically(tx, (inner) => mark(inner, 1)), hasCode("db.unique_violation"));
  });
  const swallowing = atomically(db, async (tx) => {
    await mark(tx, 2);
    await mark(tx, 2).catch(() => {});
  });
  await assert.rejects(swallowing, hasCode("db.unique_violation"));
  assert.deepEqual(await administrator.marks(), [1]);
  await pool.end();
});
