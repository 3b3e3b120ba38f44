import assert from "node:assert/strict";
import { readTestTotals, renderTestTotals } from "./test_totals.ts";

const REPORT = `<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="deno test" tests="5" failures="1" errors="0" time="0.185">
    <testsuite name="./a_test.ts" tests="5" disabled="1" errors="0" failures="1">
        <testcase name="a" classname="./a_test.ts" time="0.001" line="1" col="6">
        </testcase>
        <testcase name="b" classname="./a_test.ts"><failure message="9 passed &lt;skipped/&gt;"></failure></testcase>
        <testcase name="c" classname="./a_test.ts" time="0.000"><skipped/></testcase>
    </testsuite>
</testsuites>`;

Deno.test("test totals: passed, failed and skipped tests are told apart", () => {
  assert.deepEqual(readTestTotals(REPORT, 1), { passed: 3, failed: 1, skipped: 1 });
  assert.equal(renderTestTotals(readTestTotals(REPORT, 1)), "3 passed, 1 failed, 1 skipped");
});

Deno.test("test totals: a run that ended before it wrote a report is a failure", () => {
  assert.equal(renderTestTotals(readTestTotals("", 1)), "0 passed, 1 failed");
});

Deno.test("test totals: a module that could not be run is a failure, though the report does not know it", () => {
  const report = '<testsuites name="deno test" tests="2" failures="0" errors="0">';
  assert.deepEqual(readTestTotals(report, 1), { passed: 2, failed: 1, skipped: 0 });
  assert.deepEqual(readTestTotals(report, 0), { passed: 2, failed: 0, skipped: 0 });
});
