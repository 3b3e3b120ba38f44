/**
 * Where the runtime reports what goes on: nowhere, unless a logger is given.
 *
 * @module
 */

/** Facts beside a log message. They may hold driver texts: they are for operators, not for clients. */
export type LogFields = Readonly<Record<string, unknown>>;

/** What the runtime reports to: four methods that most logging libraries have, or are quickly given. */
export interface Logger {
  /** What is of use only when looking for something. */
  debug(message: string, fields?: LogFields): void;
  /** What an operator may want to see: starts, stops, jobs handed back. */
  info(message: string, fields?: LogFields): void;
  /** What went wrong and was mended: a lost lease, a database that was away for a while. */
  warn(message: string, fields?: LogFields): void;
  /** What somebody must look at. */
  error(message: string, fields?: LogFields): void;
}

/** Reports nothing: the default. */
export const silentLogger: Logger = Object.freeze({
  debug() {},
  info() {},
  warn() {},
  error() {},
});

/** Writes to the console; debug lines too, which consoles hide by themselves. */
export const consoleLogger: Logger = Object.freeze({
  debug: (message: string, fields?: LogFields) => console.debug(...consoleParts(message, fields)),
  info: (message: string, fields?: LogFields) => console.info(...consoleParts(message, fields)),
  warn: (message: string, fields?: LogFields) => console.warn(...consoleParts(message, fields)),
  error: (message: string, fields?: LogFields) => console.error(...consoleParts(message, fields)),
});

function consoleParts(message: string, fields: LogFields | undefined): readonly unknown[] {
  return fields === undefined ? [`runledger: ${message}`] : [`runledger: ${message}`, fields];
}

/**
 * Makes a logger safe to call from a loop: what it throws is swallowed, since a full disk must not stop the jobs.
 *
 * @param logger Any logger.
 * @returns One that never throws.
 */
export function guardedLogger(logger: Logger): Logger {
  const guarded = (level: keyof Logger) => (message: string, fields?: LogFields) => {
    try {
      logger[level](message, fields);
    } catch {
      // There is nowhere left to report to.
    }
  };
  return { debug: guarded("debug"), info: guarded("info"), warn: guarded("warn"), error: guarded("error") };
}

/**
 * Describes a caught value for a log line, driver's text and SQLSTATE included.
 *
 * @param error Anything that was caught.
 * @returns Plain facts.
 */
export function errorFields(error: unknown): LogFields {
  try {
    if (!(error instanceof Error)) return { error: String(error) };
    const code = "code" in error && typeof error.code === "string" ? { code: error.code } : {};
    const internal = "internalMessage" in error && typeof error.internalMessage === "string"
      ? { internalMessage: error.internalMessage }
      : {};
    return { error: error.message, ...code, ...internal };
  } catch {
    return { error: "a thrown value that cannot be described" };
  }
}
