/**
 * One set of operations, over every kind of database handle: statements mean the same through each of them.
 *
 * @module
 */

import { isRunledgerError } from "@runledger/core";
import type { RunledgerErrorCode } from "@runledger/core";
import { atomically } from "@runledger/postgres";
import type { Queryable } from "@runledger/postgres";
import { createEphemeralDatabase } from "@runledger/test-support";
import assert from "node:assert/strict";
import { runScript, runStatement } from "../postgres/queryable.ts";
import { DRIVERS, sharedPGlite } from "./support/drivers.ts";
import { ORM_DRIVERS } from "./support/orm_drivers.ts";

const database = await createEphemeralDatabase({ migrated: false });
await sharedPGlite(); // before the first test: it is kept for all of them
Deno.test.afterAll(async () => {
  await database[Symbol.asyncDispose]();
});

const CREATE_ENTRIES = `
drop table if exists entries;
create table entries (
  id integer constraint entries_pkey primary key,
  parent integer constraint entries_parent_fkey references entries (id) deferrable initially deferred,
  amount integer not null constraint entries_amount_positive check (amount > 0)
);`;

async function insertEntry(db: Queryable, id: number, amount: number | null = 1, parent: number | null = null) {
  const text = "insert into entries (id, amount, parent) values ($1::integer, $2::integer, $3::integer)";
  await runStatement(db, text, [id, amount, parent], { write: true });
}

async function entryIds(db: Queryable): Promise<unknown> {
  const [row] = await runStatement(db, "select coalesce(jsonb_agg(id order by id), '[]') as ids from entries", []);
  return row?.ids;
}

function hasCode(code: RunledgerErrorCode): (error: unknown) => boolean {
  return (error) => {
    assert.ok(isRunledgerError(error), String(error));
    assert.equal(error.code, code);
    return true;
  };
}

/** A failing statement ends a transaction, so it runs in a scope of its own; pools give it a transaction. */
async function assertRefused(db: Queryable, code: RunledgerErrorCode, fn: (tx: Queryable) => Promise<unknown>) {
  await assert.rejects(atomically(db, fn), hasCode(code));
}

const PROMISES: Readonly<Record<string, (db: Queryable) => Promise<void>>> = {
  "a value arrives with the type of its cast": async (db) => {
    const [row] = await runStatement(
      db,
      `select $1::integer as count, $2::boolean as yes, $3::boolean as no, $4::uuid::text as id, $5::text as word,
        ($6::bigint)::text as big, $7::numeric::text as price, $8::integer[]::text as list`,
      [-7, true, false, "00000000-0000-7000-8000-000000000001", "", "9223372036854775807", "1.50", "{1,2}"],
    );
    assert.deepEqual({ ...row }, {
      count: -7,
      yes: true,
      no: false,
      id: "00000000-0000-7000-8000-000000000001",
      word: "",
      big: "9223372036854775807",
      price: "1.50",
      list: "{1,2}",
    });
  },

  "null arrives as null under every cast": async (db) => {
    const [row] = await runStatement(
      db,
      `select $1::integer is null as a, $2::boolean is null as b, $3::text::jsonb is null as c, $4::uuid is null as d,
        $5::timestamptz as e`,
      [null, null, null, null, null],
    );
    assert.deepEqual({ ...row }, { a: true, b: true, c: true, d: true, e: null });
  },

  "one statement takes values of different types and null in turn": async (db) => {
    for (const value of [1, null, "2", 3]) {
      const [row] = await runStatement(db, "select $1::integer as n", [value]);
      assert.equal(row?.n, value === null ? null : Number(value));
    }
    for (const value of [true, null, false, "true", "f"]) {
      const [row] = await runStatement(db, "select $1::text::boolean as b", [value]);
      assert.equal(row?.b, value === null ? null : value === true || value === "true");
    }
  },

  "JSON is stored as it was written, whatever it looks like": async (db) => {
    const values = [null, true, 0, -1.5, "", "null", "[1]", '{"a":1}', '"', "\\", [], [null, [null]], {
      a_b: { cD: null },
    }];
    for (const value of values) {
      const [row] = await runStatement(
        db,
        "select $1::text::jsonb as value, jsonb_typeof($1::text::jsonb) as type, ($1::text::jsonb)::text as text",
        [JSON.stringify(value)],
      );
      const type = value === null ? "null" : Array.isArray(value) ? "array" : typeof value;
      assert.deepEqual([row?.value, row?.type], [value, type]);
      assert.deepEqual(JSON.parse(String(row?.text)), value);
    }
  },

  "JSON null is not SQL null": async (db) => {
    const [row] = await runStatement(
      db,
      "select $1::text::jsonb is null as json_null, $2::text::jsonb is null as sql_null",
      ["null", null],
    );
    assert.deepEqual({ ...row }, { json_null: false, sql_null: true });
  },

  "a batch is one JSON text, with its nulls and missing fields": async (db) => {
    const batch = [{ ord: 1, name: null, tags: ["a", null, "NULL"], payload: null }, {
      ord: 2,
      name: "x",
      payload: [1],
    }];
    const rows = await runStatement(
      db,
      `select b.ord, b.name, to_jsonb(b.tags) as tags, b.payload is null as is_missing
      from jsonb_to_recordset($1::text::jsonb) as b (ord integer, name text, tags text[], payload jsonb)
      order by b.ord`,
      [JSON.stringify(batch)],
    );
    assert.deepEqual(rows.map((row) => ({ ...row })), [
      { ord: 1, name: null, tags: ["a", null, "NULL"], is_missing: true },
      { ord: 2, name: "x", tags: null, is_missing: false },
    ]);
  },

  "an empty batch gives no rows": async (db) => {
    const text = "select b.ord from jsonb_to_recordset($1::text::jsonb) as b (ord integer)";
    assert.equal((await runStatement(db, text, ["[]"])).length, 0);
  },

  "a statement without a result gives no rows": async (db) => {
    assert.equal(
      (await runStatement(db, "delete from entries where id = $1::integer", [-1], { write: true })).length,
      0,
    );
    assert.equal((await runStatement(db, "delete from entries", [], { write: true })).length, 0);
  },

  "integers beyond 2^53 survive as text": async (db) => {
    const [row] = await runStatement(db, "select (9007199254740993::bigint + $1::bigint)::text as sum", ["2"]);
    assert.equal(row?.sum, "9007199254740995");
  },

  "microseconds survive as text": async (db) => {
    const text = "select to_char($1::text::timestamptz at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US') as at";
    const [row] = await runStatement(db, text, ["2031-02-03T04:05:06.789012Z"]);
    assert.equal(row?.at, "2031-02-03T04:05:06.789012");
  },

  "text survives with quotes, line breaks and characters beyond the BMP": async (db) => {
    const text = 'O\'Reilly \\ "q" $1 ::text\r\n\t𝄞😀 é e\u0301 \u202e';
    const [row] = await runStatement(db, "select $1::text as plain, $2::text::jsonb as json, length($1::text) as n", [
      text,
      JSON.stringify(text),
    ]);
    assert.deepEqual({ ...row }, { plain: text, json: text, n: [...text].length });
  },

  "a payload of a megabyte survives": async (db) => {
    const payload = { blob: 'ä😀x\\"'.repeat(150_000) };
    const [row] = await runStatement(db, "select ($1::text::jsonb)::text as payload, $2::integer as n", [
      JSON.stringify(payload),
      1,
    ]);
    assert.deepEqual(JSON.parse(String(row?.payload)), payload);
  },

  "a value of another type is refused before anything is sent": async (db) => {
    for (const value of [undefined, 1.5, NaN, 2 ** 53, 1n, new Date(), ["a"], {}, Symbol("s")]) {
      await assert.rejects(runStatement(db, "select $1::text", [value as string]), TypeError);
    }
    assert.equal((await runStatement(db, "select 1 as one", []))[0]?.one, 1);
  },

  "errors of the database have one code in every driver": async (db) => {
    await insertEntry(db, 1);
    await assertRefused(db, "db.unique_violation", (tx) => insertEntry(tx, 1));
    await assertRefused(db, "db.business_rule_violation", (tx) => insertEntry(tx, 2, 0));
    await assertRefused(db, "db.required_field_missing", (tx) => insertEntry(tx, 2, null));
    await assertRefused(db, "db.query_failed", (tx) => runStatement(tx, "select 1 / $1::integer", [0]));
    await assertRefused(db, "db.query_failed", (tx) => runStatement(tx, "selekt", []));
    await assertRefused(db, "db.query_failed", (tx) => runStatement(tx, "select from nowhere", []));
    await assertRefused(db, "schema.missing", (tx) => runStatement(tx, "select from runledger.job_queue", []));
    await assertRefused(
      db,
      "schema.outdated",
      (tx) => runStatement(tx, "select runledger.later from (select 1) as runledger", []),
    );
    await assertRefused(
      db,
      "db.lock_not_available",
      (tx) => runScript(tx, "do $$ begin raise exception using errcode = '55P03'; end $$"),
    );
    await assertRefused(
      db,
      "db.serialization_failure",
      (tx) => runScript(tx, "do $$ begin raise exception using errcode = '40P01'; end $$"),
    );
    assert.deepEqual(await entryIds(db), [1]);
  },

  "a constraint is named for the server's logs only": async (db) => {
    await insertEntry(db, 1);
    await assert.rejects(atomically(db, (tx) => insertEntry(tx, 1)), (error: unknown) => {
      assert.ok(isRunledgerError(error));
      assert.match(String(error.internalMessage), /\[23505\] \(constraint entries_pkey\)/);
      assert.doesNotMatch(JSON.stringify(error) + String(error), /entries/);
      return true;
    });
  },

  "a function of the schema can raise a stable code with details": async (db) => {
    const raise = (tx: Queryable) =>
      runScript(
        tx,
        `do $$ begin raise exception using errcode = 'RL000', message = 'job.idempotency_conflict',
          detail = '{"fields":["payload","priority"]}'; end $$`,
      );
    await assert.rejects(atomically(db, raise), (error: unknown) => {
      assert.ok(isRunledgerError(error, "job.idempotency_conflict"));
      assert.deepEqual(error.details, { fields: ["payload", "priority"] });
      return true;
    });
  },

  "atomically keeps everything and gives the function's value": async (db) => {
    const value = await atomically(db, async (tx) => {
      await insertEntry(tx, 1);
      await insertEntry(tx, 2);
      return "done";
    });
    assert.equal(value, "done");
    assert.deepEqual(await entryIds(db), [1, 2]);
  },

  "atomically undoes everything when the function throws, and throws the same": async (db) => {
    const reason = { not: "even an error" };
    const failing = atomically(db, async (tx) => {
      await insertEntry(tx, 1);
      throw reason;
    });
    await assert.rejects(failing, (error: unknown) => error === reason);
    assert.deepEqual(await entryIds(db), []);
  },

  "an inner atomically that fails leaves the outer one usable": async (db) => {
    await atomically(db, async (outer) => {
      await insertEntry(outer, 1);
      await assertRefused(outer, "db.unique_violation", async (inner) => {
        await insertEntry(inner, 2);
        await insertEntry(inner, 1);
      });
      await insertEntry(outer, 3);
      await atomically(outer, async (inner) => {
        await insertEntry(inner, 4);
        await atomically(inner, (innermost) => insertEntry(innermost, 5));
        await assertRefused(inner, "db.unique_violation", (innermost) => insertEntry(innermost, 5));
      });
    });
    assert.deepEqual(await entryIds(db), [1, 3, 4, 5]);
  },

  "a transaction whose failed statement was swallowed is not reported as committed": async (db) => {
    const swallowing = (tx: Queryable) =>
      atomically(tx, async (inner) => {
        await insertEntry(inner, 1);
        await insertEntry(inner, 1).catch(() => {});
      });
    await assert.rejects(swallowing(db), hasCode("db.unique_violation"));
    await atomically(db, async (tx) => {
      await insertEntry(tx, 7);
      await assert.rejects(swallowing(tx), hasCode("db.unique_violation"));
      await insertEntry(tx, 8);
    });
    assert.deepEqual(await entryIds(db), [7, 8]);
  },

  "a handle that atomically gave is refused after its end": async (db) => {
    const { promise, resolve } = Promise.withResolvers<Queryable>();
    await atomically(db, (tx) => Promise.resolve(resolve(tx)));
    const ended = await promise;
    await assert.rejects(runStatement(ended, "select 1", []), TypeError);
    await assert.rejects(atomically(ended, () => Promise.resolve()), TypeError);
  },

  "two calls at once on one transaction are refused rather than mixed": async (db) => {
    await atomically(db, async (tx) => {
      const first = atomically(tx, (inner) => insertEntry(inner, 1));
      await assert.rejects(atomically(tx, (inner) => insertEntry(inner, 2)), TypeError);
      await assert.rejects(insertEntry(tx, 3), TypeError);
      await first;
      await insertEntry(tx, 4);
    });
    assert.deepEqual(await entryIds(db), [1, 4]);
  },

  "a script of several statements runs, inside and outside of atomically": async (db) => {
    await runScript(
      db,
      "insert into entries (id, amount) values (1, 1); insert into entries (id, amount) values (2, 1);",
    );
    const failing = atomically(db, (tx) => runScript(tx, "delete from entries; insert into entries (id) values (3);"));
    await assert.rejects(failing, hasCode("db.required_field_missing"));
    assert.deepEqual(await entryIds(db), [1, 2]);
  },
};

/** Promises about COMMIT, which an outer transaction would only reach when it is closed. */
const COMMIT_PROMISES: typeof PROMISES = {
  "a commit that the database refuses is that error, and nothing is kept": async (db) => {
    await assertRefused(db, "db.related_resource_missing", (tx) => insertEntry(tx, 1, 1, 99));
    assert.deepEqual(await entryIds(db), []);
    await insertEntry(db, 2); // the handle is as good as before
    assert.deepEqual(await entryIds(db), [2]);
  },
};

for (const driver of [...DRIVERS, ...ORM_DRIVERS]) {
  const promises = driver.commits ? { ...PROMISES, ...COMMIT_PROMISES } : PROMISES;
  for (const [promise, check] of Object.entries(promises)) {
    Deno.test(`${driver.name}: ${promise}`, async () => {
      await using handle = await driver.open(database.url);
      await runScript(handle.db, CREATE_ENTRIES);
      await check(handle.db);
    });
  }
}
