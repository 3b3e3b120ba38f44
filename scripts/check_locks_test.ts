import assert from "node:assert/strict";
import { findUnstatedLocks } from "./check_locks.ts";

Deno.test("a statement that locks must say what it locks, right above it", () => {
  const unstated =
    "const A = `select id from t for update`;\n\n// index: t_pkey\nconst B = `\nselect id\nfor no key update\n`;\n";
  assert.deepEqual(findUnstatedLocks(unstated, "ts"), [1, 4]);
  const stated =
    "// locks: the rows by id\n// index: t_pkey\nexport const A = `\nselect id\nfor key share of t skip locked\n`;\n";
  assert.deepEqual(findUnstatedLocks(stated, "ts"), []);
  assert.deepEqual(findUnstatedLocks("// locks: all\n\nconst A = `lock table t`;\n", "ts"), [3]);
});

Deno.test("a function that locks must say what it locks; the header of its file is not enough", () => {
  const file = [
    "-- purpose: more",
    "-- locks: none",
    "",
    "-- Reads for update: not a lock.",
    "create function one() returns void as $fn$",
    "select 1;",
    "-- for update",
    "$fn$;",
    "",
    "-- Takes a turn.",
    "create function two() returns void as $fn$",
    "select pg_advisory_xact_lock(1);",
    "$fn$;",
  ];
  assert.deepEqual(findUnstatedLocks(file.join("\n"), "sql"), [11]);
  assert.deepEqual(findUnstatedLocks(file.toSpliced(10, 0, "-- Locks: the turn.").join("\n"), "sql"), []);
});
