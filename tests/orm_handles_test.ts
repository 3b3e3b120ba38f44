/**
 * What the handles over ORMs promise beyond those of drivers: what their transactions keep and undo, and what is refused.
 *
 * @module
 */

import { defineJob, isRunledgerError, newId } from "@runledger/core";
import type { RunledgerErrorCode } from "@runledger/core";
import {
  announceSleep,
  atomically,
  enqueueJob,
  getJob,
  notifyJobsDue,
  upsertJobDefinitions,
} from "@runledger/postgres";
import type { Queryable } from "@runledger/postgres";
import { fromDrizzle, fromKysely, fromPrisma } from "@runledger/postgres/orm";
import { JobCatalog, silentLogger, Supervisor } from "@runledger/runtime";
import { createEphemeralDatabase } from "@runledger/test-support";
// Not in the import map: only what is about ORMs needs them.
import { sql as drizzleSql } from "npm:drizzle-orm@0.45.4";
import { drizzle } from "npm:drizzle-orm@0.45.4/node-postgres";
import { Kysely, PostgresDialect } from "npm:kysely@0.28.18";
import assert from "node:assert/strict";
import { PrismaPg } from "npm:@prisma/adapter-pg@7.10.0";
import pg from "pg";
import { PrismaClient } from "../examples/support/prisma_client.ts";
import { runStatement } from "../postgres/queryable.ts";
import { request, testDefinition } from "./support/database.ts";

const database = await createEphemeralDatabase();
Deno.test.afterAll(async () => {
  await database[Symbol.asyncDispose]();
});

/** An ORM with a transaction of its own. */
interface Orm extends AsyncDisposable {
  /** Runs a function in a transaction that the ORM opens; its handles are made anew for each question. */
  readonly begin: <T>(fn: (handle: () => Queryable) => Promise<T>) => Promise<T>;
  readonly db: Queryable;
  readonly pool: pg.Pool;
}

function openPool(): pg.Pool {
  return new pg.Pool({ connectionString: database.url, idleTimeoutMillis: 0, max: 3 });
}

const ORMS: Readonly<Record<string, () => Orm>> = {
  Drizzle: () => {
    const pool = openPool();
    const db = drizzle(pool);
    return {
      pool,
      db: fromDrizzle(db, drizzleSql),
      begin: (fn) => db.transaction((tx) => fn(() => fromDrizzle(tx, drizzleSql))),
      [Symbol.asyncDispose]: () => pool.end(),
    };
  },
  Kysely: () => {
    const pool = openPool();
    const db = new Kysely<unknown>({ dialect: new PostgresDialect({ pool }) });
    return {
      pool,
      db: fromKysely(db),
      begin: (fn) => db.transaction().execute((trx) => fn(() => fromKysely(trx))),
      [Symbol.asyncDispose]: () => db.destroy(),
    };
  },
  Prisma: () => {
    const pool = openPool();
    const prisma = new PrismaClient({ adapter: new PrismaPg(pool) });
    return {
      pool,
      db: fromPrisma(prisma),
      begin: (fn) => prisma.$transaction((tx) => fn(() => fromPrisma(tx)), { timeout: 60_000 }),
      async [Symbol.asyncDispose]() {
        await prisma.$disconnect();
        await pool.end();
      },
    };
  },
};

function hasCode(code: RunledgerErrorCode): (error: unknown) => boolean {
  return (error) => {
    assert.ok(isRunledgerError(error), String(error));
    assert.equal(error.code, code, error.internalMessage);
    return true;
  };
}

const GLOBAL = { scope: "global" } as const;

for (const [name, open] of Object.entries(ORMS)) {
  Deno.test(`${name}: a job is there when the ORM's transaction has committed, and not before or without`, async () => {
    await using orm = open();
    const jobType = `orm-${newId()}`;
    await upsertJobDefinitions(orm.pool, [testDefinition(jobType)]);
    const jobId = await orm.begin(async (handle) => {
      const enqueued = await enqueueJob(handle(), request({ jobType }));
      assert.equal(await getJob(orm.pool, enqueued.jobId, GLOBAL), undefined);
      assert.equal((await getJob(handle(), enqueued.jobId, GLOBAL))?.status, "PENDING");
      return enqueued.jobId;
    });
    assert.equal((await getJob(orm.pool, jobId, GLOBAL))?.status, "PENDING");
    const undo = new Error("undo");
    let undone = "";
    await assert.rejects(
      orm.begin(async (handle) => {
        undone = (await enqueueJob(handle(), request({ jobType }))).jobId;
        throw undo;
      }),
      undo,
    );
    assert.equal(await getJob(orm.pool, undone, GLOBAL), undefined);
  });

  Deno.test(`${name}: a conflict keeps its code and the names of what differs; a savepoint saves the rest`, async () => {
    await using orm = open();
    const jobType = `orm-${newId()}`;
    await upsertJobDefinitions(orm.pool, [testDefinition(jobType)]);
    const secret = "secret-of-a-payload";
    const first = request({ jobType, idempotencyKey: "k", payload: secret });
    const jobId = await orm.begin(async (handle) => {
      const enqueued = await enqueueJob(handle(), first);
      const other = request({ jobType, idempotencyKey: "k", payload: `${secret}-2` });
      await assert.rejects(atomically(handle(), (tx) => enqueueJob(tx, other)), (error: unknown) => {
        assert.ok(isRunledgerError(error, "job.idempotency_conflict"), String(error));
        assert.deepEqual(error.details, { fields: ["payload"] });
        assert.ok(!`${error} ${JSON.stringify(error)} ${error.internalMessage}`.includes(secret), "shows a payload");
        return true;
      });
      return enqueued.jobId;
    });
    assert.equal((await getJob(orm.pool, jobId, GLOBAL))?.payload, secret);
  });

  Deno.test(`${name}: a violated constraint of the schema has the code of its meaning`, async () => {
    await using orm = open();
    const jobType = `orm-${newId()}`;
    await upsertJobDefinitions(orm.pool, [testDefinition(jobType)]);
    const { jobId } = await enqueueJob(orm.pool, request({ jobType }));
    const text = "update runledger.job_queue set progress_done = 2, progress_total = 1 where id = $1::uuid";
    const breaking = orm.begin((handle) => runStatement(handle(), text, [jobId], { write: true }));
    await assert.rejects(breaking, (error: unknown) => {
      assert.ok(isRunledgerError(error, "job.invalid_progress"), String(error));
      assert.match(String(error.internalMessage), /job_queue_progress_check/);
      // Drizzle's own text quotes the values of the statement.
      assert.ok(!`${error} ${JSON.stringify(error)} ${error.internalMessage}`.includes(jobId), "shows a value");
      return true;
    });
  });

  Deno.test(`${name}: while a savepoint is open, its transaction is busy under every handle`, async () => {
    await using orm = open();
    await orm.begin(async (handle) => {
      const held = Promise.withResolvers<void>();
      const first = atomically(handle(), () => held.promise);
      await assert.rejects(runStatement(handle(), "select 1", []), TypeError);
      held.resolve();
      await first;
      await runStatement(handle(), "select 1", []);
    });
  });

  Deno.test(`${name}: a transaction that has ended opens no savepoint, and no other transaction instead`, async () => {
    await using orm = open();
    const ended = await orm.begin((handle) => Promise.resolve(handle()));
    let hasRun = false;
    const late = atomically(ended, () => Promise.resolve(hasRun = true));
    // Drizzle does not know that its transaction is over.
    await assert.rejects(late, (error) => name === "Drizzle" ? error instanceof TypeError : isRunledgerError(error));
    assert.equal(hasRun, false);
  });

  Deno.test(`${name}: transactions on the database itself do not mix, however many run at once`, async () => {
    await using orm = open();
    const jobType = `orm-${newId()}`;
    await upsertJobDefinitions(orm.pool, [testDefinition(jobType)]);
    const undo = new Error("undo");
    const results = await Promise.allSettled([1, 2, 3, 4, 5, 6].map((number) =>
      atomically(orm.db, async (tx) => {
        const { jobId } = await enqueueJob(tx, request({ jobType, payload: number }));
        await enqueueJob(tx, request({ jobType, payload: number }));
        if (number % 2 === 0) throw undo;
        return jobId;
      })
    ));
    assert.deepEqual(results.map(({ status }) => status === "fulfilled"), [true, false, true, false, true, false]);
    const [row] = await runStatement(
      orm.pool,
      "select jsonb_agg(payload order by payload) as payloads from runledger.job_queue where job_type = $1::text",
      [jobType],
    );
    assert.deepEqual(row?.payloads, [1, 1, 3, 3, 5, 5]);
  });
}

for (const [name, open] of Object.entries(ORMS)) {
  Deno.test(`${name}: a worker runs on the database, with its definitions, hints and transactions`, async () => {
    await using orm = open();
    const job = defineJob({ type: `orm-${newId()}` });
    const { promise: hasEnded, resolve } = Promise.withResolvers<void>();
    const catalog = new JobCatalog().handle(job, async (_payload, context) => {
      await context.transaction(async (tx) => void await enqueueJob(tx, last.request({})));
    });
    const last = defineJob({ type: `orm-${newId()}` });
    catalog.handle(last, () => resolve());
    await catalog.sync(orm.db);
    await announceSleep(orm.db, { workerId: "w", jobTypes: [job.type], sleepMs: 1000 });
    const { jobId } = await enqueueJob(orm.db, job.request({}));
    const supervisor = new Supervisor(orm.db, { catalog, config: { pollIntervalMs: 25 }, logger: silentLogger });
    await hasEnded;
    await supervisor.shutdown({ timeoutMs: 10_000 });
    await notifyJobsDue(orm.db);
    assert.equal((await getJob(orm.db, jobId, GLOBAL))?.status, "SUCCEEDED");
  });
}

Deno.test("Prisma: a transaction that ran out of its time keeps nothing, and says that it may be tried again", async () => {
  const pool = openPool();
  const prisma = new PrismaClient({ adapter: new PrismaPg(pool) });
  const jobType = `orm-${newId()}`;
  await upsertJobDefinitions(pool, [testDefinition(jobType)]);
  const running = prisma.$transaction(async (tx) => {
    while (true) await enqueueJob(fromPrisma(tx), request({ jobType })); // until Prisma ends it
  }, { timeout: 250 });
  await assert.rejects(running, hasCode("db.unavailable"));
  const stored = await runStatement(pool, "select from runledger.job_queue where job_type = $1::text", [jobType]);
  assert.equal(stored.length, 0);
  await prisma.$disconnect();
  await pool.end();
});

Deno.test("Prisma: a server that cannot be reached is unavailable, also for a write", async () => {
  const prisma = new PrismaClient({
    adapter: new PrismaPg({ connectionString: "postgres://nobody@127.0.0.1:1/nowhere" }),
  });
  const db = fromPrisma(prisma);
  await assert.rejects(runStatement(db, "select 1", [], { write: true }), hasCode("db.unavailable"));
  await assert.rejects(atomically(db, () => Promise.resolve()), hasCode("db.unavailable"));
  await prisma.$disconnect();
});

Deno.test("an ORM's own transaction or database is refused, with the function that makes a handle of it", async () => {
  const pool = openPool();
  const prisma = new PrismaClient({ adapter: new PrismaPg(pool) });
  const dialect = new PostgresDialect({ pool });
  const refused = async (db: object, adapter: string) => {
    // A wrong type in TypeScript; JavaScript may pass anything.
    await assert.rejects(getJob(db as Queryable, newId(), GLOBAL), (error: unknown) => {
      assert.ok(isRunledgerError(error, "db.unsupported_driver"), String(error));
      assert.match(error.message, new RegExp(`make one of it with ${adapter} of @runledger/postgres/orm`));
      return true;
    });
  };
  await refused(drizzle(pool), "fromDrizzle");
  await drizzle(pool).transaction((tx) => refused(tx, "fromDrizzle"));
  await refused(new Kysely<unknown>({ dialect }), "fromKysely");
  await new Kysely<unknown>({ dialect }).transaction().execute((trx) => refused(trx, "fromKysely"));
  await refused(prisma, "fromPrisma");
  await prisma.$transaction((tx) => refused(tx, "fromPrisma"));
  await prisma.$disconnect();
  await pool.end();
});

Deno.test("handles over ORMs: what lacks the ORM's methods is refused with the name of what is missing", () => {
  const refusals: readonly (readonly [() => unknown, RegExp])[] = [
    [() => fromDrizzle({ execute: () => Promise.resolve([]) } as never, drizzleSql), /no method transaction/],
    [() => fromDrizzle(undefined as never, drizzleSql), /type undefined/],
    [() => fromDrizzle(drizzle.mock(), "sql" as never), /tag `sql` of drizzle-orm/],
    [() => fromKysely({ selectFrom: () => {} } as never), /no method executeQuery, withoutPlugins, transaction/],
    [() => fromPrisma({ $queryRaw: () => {}, $executeRawUnsafe: () => {} } as never), /no method \$queryRawUnsafe/],
    [() => fromPrisma("postgres://me:s3cret@h/db" as never), /^(?!.*s3cret).*type string/],
  ];
  for (const [make, text] of refusals) {
    assert.throws(make, (error: unknown) => {
      assert.ok(isRunledgerError(error, "db.unsupported_driver"), String(error));
      assert.match(error.message, text);
      return true;
    });
  }
});
