import assert from "node:assert/strict";
import { mayRunAgain, readFailedFiles, readFileTotals, readTestTotals, renderTestTotals } from "./test_totals.ts";

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

Deno.test("test totals: the figures of one file are its own", () => {
  const other = '<testsuite name="./b_test.ts" tests="2" disabled="0" errors="2" failures="0"></testsuite>';
  const report = REPORT.replace("</testsuites>", `${other}</testsuites>`);
  assert.deepEqual(readFileTotals(report, "./a_test.ts"), { passed: 3, failed: 1, skipped: 1 });
  assert.deepEqual(readFileTotals(report, "./b_test.ts"), { passed: 0, failed: 2, skipped: 0 });
  assert.deepEqual(readFileTotals(report, "./c_test.ts"), { passed: 0, failed: 0, skipped: 0 });
});

Deno.test("test totals: files that failed are told by what was printed, and none if a line is not understood", () => {
  const output = (lines: string) =>
    `ok\n\n ERRORS \n\nb => ./t_test.ts:1:32\n\n FAILURES \n\n${lines}\n\nFAILED | 1 passed\n`;
  assert.deepEqual(
    readFailedFiles(output("b => ./t_test.ts:1:32\nc => d => ./t_test.ts:9:1\n./u_test.ts (uncaught error)")),
    ["./t_test.ts", "./u_test.ts"],
  );
  assert.deepEqual(readFailedFiles(output("b => ./t_test.ts:1:32\nsomething else")), []);
  assert.deepEqual(readFailedFiles("killed"), []);
});

Deno.test("test totals: what looks for rare things is never run again, nor are many files", () => {
  assert(mayRunAgain(["./tests/docs_test.ts", "./tests/worker_outage_test.ts"], "error: AssertionError: 1 != 2"));
  assert(!mayRunAgain(["./tests/sync_test.ts"], " ERRORS \n\na => b\nerror: RunledgerError: Such a row is there."));
  assert(!mayRunAgain(["tests/sync_test.ts"], "FAILED a sync\nRunledgerError [db.unique_violation]: Such a row"));
  for (
    const name of ["model", "workflow_model", "interleaving/workflow_interleaving", "workflow_kill", "workflow_storm"]
  ) {
    assert(!mayRunAgain([`./tests/${name}_test.ts`], ""), name);
  }
  assert(!mayRunAgain(["./tests/idempotency_test.ts"], "Error: Property failed after 3 tests"));
  assert(!mayRunAgain([], "killed"));
  assert(!mayRunAgain(["a", "b", "c", "d"], ""));
});
