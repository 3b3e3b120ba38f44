/**
 * The one error of the embedded server.
 *
 * @module
 */

/**
 * The embedded PostgreSQL cannot be had on this machine. The message says what is wrong and which ways are left.
 */
export class EmbeddedPostgresError extends Error {
  /** Always `"EmbeddedPostgresError"`. */
  override readonly name: string = "EmbeddedPostgresError";

  /**
   * Says what is wrong, and adds the ways that are left.
   *
   * @param problem What is wrong, as a sentence.
   * @param options The cause, when something was caught.
   */
  constructor(problem: string, options?: ErrorOptions) {
    super(
      `Embedded PostgreSQL is not available: ${problem.trim().replace(/([^.!?])$/, "$1.")} ` +
        "To use a server of your own (PostgreSQL 15 or newer) set DATABASE_URL=postgres://user:password@host:port/database; " +
        "tests read RUNLEDGER_TEST_DATABASE_URL instead.",
      options,
    );
  }
}
