/// <reference lib="deno.ns" />
import { isRunledgerError, RunledgerError } from "@runledger/core";
import type { RunledgerErrorCode } from "@runledger/core";
import assert from "node:assert/strict";
import { inspect } from "node:util";
import { isConnectionLost, mapDatabaseError, sqlStateOf } from "./_errors.ts";

/** What must never show: a value of a payload, and the password of a connection string. */
const SECRETS = ["4111-1111-1111-1111", "hunter2"];

/** An error as a driver throws it: the fields are assigned to an Error. */
function driverError(fields: Readonly<Record<string, unknown>>): Error {
  return Object.assign(new Error(String(fields.message ?? "driver text")), fields);
}

const SQLSTATES: readonly (readonly [string, RunledgerErrorCode])[] = [
  ["23505", "db.unique_violation"],
  ["23503", "db.related_resource_missing"],
  ["23001", "db.related_resource_still_referenced"],
  ["23514", "db.business_rule_violation"],
  ["23502", "db.required_field_missing"],
  ["42501", "db.permission_denied"],
  ["28P01", "db.permission_denied"],
  ["55P03", "db.lock_not_available"],
  ["40001", "db.serialization_failure"],
  ["40P01", "db.serialization_failure"],
  ["57014", "db.query_canceled"],
  ["08006", "db.unavailable"],
  ["57P01", "db.unavailable"],
  ["57P02", "db.unavailable"],
  ["57P03", "db.unavailable"],
  ["53300", "db.unavailable"],
  ["40003", "db.commit_unknown"],
  ["08007", "db.commit_unknown"],
  ["22012", "db.query_failed"],
  ["XX000", "db.query_failed"],
];

Deno.test("every SQLSTATE of the table has its code", () => {
  for (const [code, expected] of SQLSTATES) assert.equal(mapDatabaseError(driverError({ code })).code, expected, code);
});

Deno.test("a lost connection is an unknown outcome only where the outcome is open", () => {
  const lost = [
    { code: "CONNECTION_CLOSED" },
    { code: "CONNECTION_DESTROYED" },
    { code: "ECONNRESET", syscall: "read" },
    { code: "EPIPE", syscall: "write" },
    { code: "ETIMEDOUT", syscall: "read" },
    { code: "57P01" },
    { code: "57P02" },
    { code: "08006" },
    { message: "Connection terminated unexpectedly" },
    { message: "Connection terminated" },
    { message: "Query read timeout" },
  ];
  for (const fields of lost) {
    const error = driverError(fields);
    assert.equal(mapDatabaseError(error, { isOutcomeOpen: true }).code, "db.commit_unknown", Deno.inspect(fields));
    assert.equal(mapDatabaseError(error).code, "db.unavailable", Deno.inspect(fields));
    assert.ok(isConnectionLost(mapDatabaseError(error)));
  }
});

Deno.test("an error from before anything was sent is never an unknown outcome", () => {
  const unsent = [
    { code: "ECONNREFUSED", syscall: "connect" },
    { code: "ENOTFOUND", syscall: "getaddrinfo" },
    { code: "ETIMEDOUT", syscall: "connect" },
    { code: "CONNECT_TIMEOUT" },
    { code: "CONNECTION_ENDED" },
    { code: "53300" },
    { code: "57P03" },
    { message: "timeout expired" },
    { message: "timeout exceeded when trying to connect" },
    { message: "Connection terminated due to connection timeout" },
    { message: "Cannot use a pool after calling end on the pool" },
    { message: "Client was closed and is not queryable" },
    { message: "Client has encountered a connection error and is not queryable" },
    { message: "PGlite is closed" },
  ];
  for (const fields of unsent) {
    assert.equal(
      mapDatabaseError(driverError(fields), { isOutcomeOpen: true }).code,
      "db.unavailable",
      Deno.inspect(fields),
    );
  }
});

Deno.test("an error that the database sent while committing is that error", () => {
  for (const [code, expected] of SQLSTATES.filter(([code]) => /^(?:23|40|22)/.test(code))) {
    assert.equal(mapDatabaseError(driverError({ code }), { isOutcomeOpen: true }).code, expected);
  }
});

Deno.test("what is missing from the schema is told apart from what is missing elsewhere", () => {
  const map = (code: string, message: string, statement: string) =>
    mapDatabaseError(driverError({ code, message }), { statement }).code;
  const ours = "select q.x from runledger.job_queue q";
  assert.equal(map("42P01", 'relation "runledger.job_queue" does not exist', ours), "schema.missing");
  assert.equal(map("3F000", 'schema "runledger" does not exist', ours), "schema.missing");
  assert.equal(map("42703", "column q.x does not exist", ours), "schema.outdated");
  assert.equal(map("42883", "function runledger.f() does not exist", "select runledger.f()"), "schema.outdated");
  assert.equal(map("42P01", 'relation "orders" does not exist', "select from orders"), "db.query_failed");
  assert.equal(map("42703", "column o.x does not exist", "select o.x from orders o"), "db.query_failed");
});

Deno.test("a raised stable code takes only details that a client may see", () => {
  const raise = (message: string, detail?: string) => mapDatabaseError(driverError({ code: "RL000", message, detail }));
  const error = raise(
    "job.not_found",
    '{"fields":["a"],"count":2,"yes":true,"nested":{"a":1},"mixed":["a",1],"none":null}',
  );
  assert.equal(error.code, "job.not_found");
  assert.deepEqual(error.details, { fields: ["a"], count: 2, yes: true });
  assert.equal(raise("job.not_found", "no JSON").details, undefined);
  assert.equal(raise("job.not_found", "[1]").details, undefined);
  assert.equal(raise("job.not_found").details, undefined);
  assert.equal(raise("no.such_code").code, "db.query_failed");
  assert.equal(raise("toString").code, "db.query_failed");
});

Deno.test("an error of Runledger passes through unchanged", () => {
  const error = new RunledgerError("job.not_found");
  assert.equal(mapDatabaseError(error), error);
});

Deno.test("anything that was thrown is mapped, whatever it is", () => {
  for (const thrown of [undefined, null, "text", 5, {}, { code: 5, message: 7 }, new Error("")]) {
    assert.equal(mapDatabaseError(thrown).code, "db.query_failed");
  }
});

function secretError(): Error {
  const [card, password] = SECRETS;
  return driverError({
    code: "23505",
    message: `duplicate key value, Key (payload)=(${card}) at postgres://app:${password}@db/x`,
    detail: `Key (payload)=(${card}) already exists.`,
    constraint_name: `constraint_${password}`,
    query: `insert into t values ('${card}')`,
    parameters: [card],
    address: `${password}@db`,
  });
}

Deno.test("server logs find the driver's text, SQLSTATE, constraint and error", () => {
  const cause = secretError();
  const error = mapDatabaseError(cause);
  assert.match(String(error.internalMessage), /duplicate key value.*\[23505\] \(constraint constraint_hunter2\)$/);
  assert.equal(error.internalCause, cause);
  assert.equal(sqlStateOf(error), "23505");
  assert.equal(sqlStateOf(driverError({ code: "EPIPE" })), undefined);
});

Deno.test("nothing of the driver's error shows in text, JSON or inspection", () => {
  const error = mapDatabaseError(secretError());
  assert.ok(isRunledgerError(error, "db.unique_violation"));
  const shown = [
    error.message,
    error.stack ?? "",
    String(error),
    JSON.stringify(error),
    JSON.stringify({ ...error }),
    Object.entries(error).join(),
    Deno.inspect(error, { depth: 10, showHidden: true }),
    Deno.inspect({ nested: [error] }, { depth: 10 }),
    inspect(error, { depth: 10, showHidden: true }),
    inspect({ nested: [error] }, { depth: 10 }),
    inspect(new Error("outer", { cause: error }), { depth: 10 }),
  ];
  for (const text of shown) for (const secret of SECRETS) assert.ok(!text.includes(secret), text);
});

Deno.test("nothing of the driver's error shows when it ends a Deno process", async () => {
  const code = `import { mapDatabaseError } from ${JSON.stringify(new URL("_errors.ts", import.meta.url).href)};
    throw mapDatabaseError(Object.assign(new Error(Deno.args.join()), { code: "23505", detail: Deno.args.join() }));`;
  const config = new URL("../deno.json", import.meta.url).pathname;
  const script = `data:application/typescript,${encodeURIComponent(code)}`;
  const args = ["run", "--no-check", "--quiet", "--config", config, script, ...SECRETS];
  const { success, stderr } = await new Deno.Command(Deno.execPath(), { args }).output();
  const shown = new TextDecoder().decode(stderr);
  assert.equal(success, false);
  assert.match(shown, /Such a row is already there/);
  for (const secret of SECRETS) assert.ok(!shown.includes(secret), shown);
});
