/**
 * A job in a test: what it is, what its ledger says, and whether that is what the test expects.
 *
 * @module
 */

import { RunledgerError } from "@runledger/core";
import type { JobEvent, JobStatus, JsonValue } from "@runledger/core";
import { getJob, listJobEvents } from "@runledger/postgres";
import type { Job, Queryable } from "@runledger/postgres";
import { AssertionError } from "node:assert";
import { compareLedger, eventLine, holds } from "./ledger_text.ts";
import type { LedgerExpectation } from "./ledger_text.ts";
import { readAll } from "./whole_lists.ts";

/** What a job gives, as far as the compiler knows. */
export type TestJobOutput<Output> = unknown extends Output ? JsonValue : Exclude<Output, void | undefined>;

/**
 * A job in a test. Its asserts throw an `AssertionError` that shows the job's ledger.
 *
 * @typeParam Output What its handler returns, if that is known.
 */
export class TestJob<Output = unknown> {
  /** The job. */
  readonly jobId: string;
  readonly #db: Queryable;

  /** Refers to a job, which need not be there yet: a step's job is not before the step is released. */
  constructor(db: Queryable, jobId: string) {
    this.#db = db;
    this.jobId = jobId;
  }

  /**
   * Reads the job as it stands.
   *
   * @returns The job.
   * @throws {RunledgerError} `job.not_found`; `db.*` codes.
   */
  async get(): Promise<Job> {
    const job = await getJob(this.#db, this.jobId, { scope: "all" });
    if (job === undefined) throw new RunledgerError("job.not_found");
    return job;
  }

  /**
   * Reads the whole ledger of the job.
   *
   * @returns Its events, in order; none for a job that is not there.
   * @throws {RunledgerError} `db.*` codes.
   */
  async ledger(): Promise<readonly JobEvent[]> {
    return await readAll((page) => listJobEvents(this.#db, this.jobId, { scope: "all", limit: 1000, ...page }));
  }

  /**
   * Reads what the job gave.
   *
   * @returns The stored output. Its type is that of the definition, which nothing checks here.
   * @throws {AssertionError} When it has not succeeded, or gave nothing.
   * @throws {RunledgerError} `job.not_found`; `db.*` codes.
   */
  async output(): Promise<TestJobOutput<Output>> {
    const { output, status } = await this.get();
    if (output !== undefined) return output as TestJobOutput<Output>;
    const problem = status === "SUCCEEDED" ? "succeeded without an output" : `has no output: it is ${status}`;
    throw await this.#failure(problem, { actual: status, expected: "SUCCEEDED" });
  }

  /**
   * Asserts where the job stands.
   *
   * @param expected Its status.
   * @throws {AssertionError} When it stands elsewhere.
   * @throws {RunledgerError} `job.not_found`; `db.*` codes.
   */
  async assertStatus(expected: JobStatus): Promise<void> {
    const { status } = await this.get();
    if (status !== expected) throw await this.#failure(`is ${status}, not ${expected}`, { actual: status, expected });
  }

  /**
   * Asserts what the job gave.
   *
   * @param expected The output; objects may have more fields, at any depth.
   * @throws {AssertionError} When it gave something else, or nothing.
   * @throws {RunledgerError} `job.not_found`; `db.*` codes.
   */
  async assertOutput(expected: TestJobOutput<Output>): Promise<void> {
    const actual = await this.output();
    if (holds(actual, expected)) return;
    const problem = `gave ${JSON.stringify(actual)}, not ${JSON.stringify(expected)}`;
    throw await this.#failure(problem, { actual, expected });
  }

  /**
   * Asserts the whole ledger of the job, event by event.
   *
   * @param expected What happened: types of events, or types with attempts, codes and the like.
   * @throws {AssertionError} When something else happened; it compares the two line by line.
   * @throws {RunledgerError} `db.*` codes.
   *
   * @example
   * ```ts ignore
   * await job.assertLedger([
   *   "ENQUEUED",
   *   "LEASED",
   *   { event: "FAILED", attempt: 1, code: "card.busy" },
   *   "RETRY_SCHEDULED",
   * ]);
   * ```
   */
  async assertLedger(expected: readonly LedgerExpectation[]): Promise<void> {
    const events = await this.ledger();
    const comparison = compareLedger(events, expected);
    if (comparison === undefined) return;
    throw new AssertionError({
      message: `${await this.#name()} has another ledger than expected (- missing, + not expected):\n${comparison}`,
      actual: events.map(({ eventType }) => eventType),
      expected: expected.map((event) => typeof event === "string" ? event : event.event),
      operator: "assertLedger",
      stackStartFn: this.assertLedger,
    });
  }

  /**
   * Writes the ledger as text, one line an event.
   *
   * @returns The lines.
   * @throws {RunledgerError} `db.*` codes.
   */
  async draw(): Promise<string> {
    return (await this.ledger()).map((event) => `  ${String(event.seq).padStart(3)}  ${eventLine(event)}`).join("\n");
  }

  async #failure(
    problem: string,
    values: { readonly actual: unknown; readonly expected: unknown },
  ): Promise<AssertionError> {
    return new AssertionError({
      message: `${await this.#name()} ${problem}. Its ledger:\n${await this.draw()}`,
      operator: "assert",
      ...values,
    });
  }

  async #name(): Promise<string> {
    const job = await getJob(this.#db, this.jobId, { scope: "all" });
    return job === undefined ? `Job ${this.jobId}, which is not there,` : `Job ${this.jobId} (${job.jobType})`;
  }
}
