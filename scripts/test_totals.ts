/**
 * How many tests passed, read from the report that `deno test --junit-path` writes, and which files failed.
 *
 * @module
 */

/** How often a file that failed must pass by itself to count as passed, where it may be run again. */
export const TIMES_AGAIN = 3;

/** More files than these do not fail by chance, and are not run again. */
const MOST_FILES_AGAIN = 3;

/**
 * What looks for what happens rarely, by random sequences or random ends, and what the library itself answered where no
 * test expected it: there, a failure that is rare is a finding.
 */
const NEVER_AGAIN =
  /_(model|interleaving|kill|storm|rivals)_test|\/(model|interleaving)_test|Property failed|^(error: )?(\(in promise\) )?RunledgerError/m;

/**
 * Says whether what failed may have failed by chance and may be run again.
 *
 * @param files The files that failed.
 * @param output What they printed.
 * @returns Whether it may.
 */
export function mayRunAgain(files: readonly string[], output: string): boolean {
  return files.length > 0 && files.length <= MOST_FILES_AGAIN && !NEVER_AGAIN.test([...files, output].join("\n"));
}

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
  const { passed, failed, skipped } = readFigures(junit, /<testsuites[^>]*>/);
  return { passed, failed: failed === 0 && exitCode !== 0 ? 1 : failed, skipped };
}

/**
 * Reads the figures of one file.
 *
 * @param junit The report.
 * @param file The file, as the report names it: `./tests/some_test.ts`.
 * @returns The figures; none when the report does not know it.
 */
export function readFileTotals(junit: string, file: string): TestTotals {
  const suite = new RegExp(`<testsuite name="${RegExp.escape(file)}"[^]*?</testsuite>`).exec(junit)?.[0] ?? "";
  return readFigures(suite, /<testsuite [^>]*>/);
}

function readFigures(junit: string, headPattern: RegExp): TestTotals {
  const head = headPattern.exec(junit)?.[0] ?? "";
  const figure = (name: string) => Number(new RegExp(` ${name}="(\\d+)"`).exec(head)?.[1] ?? 0);
  const failed = figure("failures") + figure("errors");
  const skipped = junit.match(/<skipped\b/g)?.length ?? 0;
  return { passed: figure("tests") - failed - skipped, failed, skipped };
}

/**
 * Reads which files failed from what `deno test` printed, those included that threw where no test was to blame.
 *
 * @param output What it printed, without colors.
 * @returns The files, as the report names them; empty when the run ended before it could tell.
 */
export function readFailedFiles(output: string): readonly string[] {
  const list = /^ FAILURES \n\n((?:.+\n)+)/m.exec(output)?.[1] ?? "";
  const files = list.trimEnd().split("\n").map((line) => / => (\S+?):\d+:\d+$|^(\S+) \(uncaught error\)$/.exec(line));
  // A line that is not understood may be any file.
  if (files.includes(null)) return [];
  return [...new Set(files.map((found) => found?.[1] ?? found?.[2] ?? ""))];
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
