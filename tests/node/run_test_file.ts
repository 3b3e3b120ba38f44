/**
 * Runs the tests of one module, one after the other, in Node or Bun: `run_test_file.js MODULE [PATTERN OF NAMES TO LEAVE OUT]`.
 * The last line that it prints are the figures, as JSON.
 *
 * @module
 */

import process from "node:process";
import { pathToFileURL } from "node:url";
import { inspect } from "node:util";
import { registered } from "./deno_on_node.ts";

/** Far longer than any test takes on a machine that is busy. */
const TEST_TIMEOUT_MS = 120_000;

const [path = "", leftOut = "^$"] = process.argv.slice(2);
const problems: unknown[] = [];
process.on("unhandledRejection", (reason) => problems.push(reason));
process.on("uncaughtException", (error) => problems.push(error));

try {
  await import(pathToFileURL(path).href);
} catch (error) {
  console.log(`FAILED to load\n${inspect(error)}`);
  console.log(JSON.stringify({ passed: 0, failed: 1, skipped: 0 }));
  process.exit(1);
}
const isLeftOut = new RegExp(leftOut);
let [passed, failed, skipped] = [0, 0, 0];
for (const { name, fn } of registered.tests) {
  if (isLeftOut.test(name)) {
    skipped++;
    continue;
  }
  await withTimeout(fn).catch((error: unknown) => problems.push(error));
  await new Promise((resolve) => setImmediate(resolve)); // rejections that nobody handled are told of after a turn
  if (problems.length === 0) passed++;
  else failed++;
  for (const problem of problems.splice(0)) console.log(`FAILED ${name}\n${inspect(problem)}`);
}
for (const fn of registered.afterAll.toReversed()) await fn();
if (problems.length > 0) {
  failed++;
  console.log(`FAILED at the end\n${inspect(problems)}`);
}
console.log(JSON.stringify({ passed, failed, skipped }));
process.exit(failed === 0 ? 0 : 1);

async function withTimeout(fn: () => void | Promise<void>): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`It has not ended after ${TEST_TIMEOUT_MS} ms.`)), TEST_TIMEOUT_MS);
  });
  try {
    await Promise.race([fn(), late]);
  } finally {
    clearTimeout(timer);
  }
}
