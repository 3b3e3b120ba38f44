/**
 * How many tests passed, read from the report that `deno test --junit-path` writes.
 *
 * @module
 */

/** The figures of one test run. A step of a test counts as a test. */
export interface TestTotals {
  /** Tests that ran and passed. */
  readonly passed: number;
  /** Tests that failed, and modules that could not be run. */
  readonly failed: number;
  /** Tests marked as ignored. */
  readonly skipped: number;
}

/**
 * Reads the figures from a report.
 *
 * @param junit The report; empty when the run ended before it wrote one.
 * @param exitCode What the run ended with. A run that failed without a failed test (a module that does not compile or that
 * throws while it is loaded is not in the report) counts as one failure.
 * @returns The figures.
 */
export function readTestTotals(junit: string, exitCode: number): TestTotals {
  const head = /<testsuites[^>]*>/.exec(junit)?.[0] ?? "";
  const figure = (name: string) => Number(new RegExp(` ${name}="(\\d+)"`).exec(head)?.[1] ?? 0);
  const failed = figure("failures") + figure("errors");
  const skipped = junit.match(/<skipped\b/g)?.length ?? 0;
  return {
    passed: figure("tests") - failed - skipped,
    failed: failed === 0 && exitCode !== 0 ? 1 : failed,
    skipped,
  };
}

/**
 * Writes the figures as the last line of a test run.
 *
 * @param totals The figures.
 * @returns `N passed, N failed`, and `, N skipped` when there are any.
 */
export function renderTestTotals({ passed, failed, skipped }: TestTotals): string {
  return `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ""}`;
}
