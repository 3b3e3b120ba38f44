/**
 * When a schedule fires: cron expressions, time zones and jitter. Pure; nobody else imports the parser.
 *
 * An expression has five fields (minute, hour, day of month, month, day of week), six with seconds in front, or seven with
 * a year at the end. `*`, lists, ranges, steps, names (`MON`, `JAN`), `?`, `L`, `W` and `#` are understood, and `@daily`
 * and the like. Sunday is 0 or 7. As in any crontab, a day matches if either its day of month or its day of week does
 * when both are given; `+` in front of the day of week asks for both.
 *
 * In a zone with daylight saving, an expression whose times are all given (`30 2 * * *`, `0 1,13 * * *`) fires once a day
 * for each: at the first of two equal times, and at the end of the gap for a time that is left out. One with `*` or a step
 * among its hours, minutes or seconds follows the clock that passes: both of two equal hours, none that is left out.
 *
 * @module
 */

import { RunledgerError } from "@runledger/core";
import { Cron } from "croner";

/** The longest jitter: a day. */
export const MAX_JITTER_SECONDS = 86_400;

/** The time zone of schedules that name none. */
export const DEFAULT_TIMEZONE = "UTC";

const MAX_CRON_LENGTH = 1000;
const FIELDS = /^\S+(?: \S+){4,6}$/;
const NICKNAME = /^@(?:yearly|annually|monthly|weekly|daily|midnight|hourly)$/i;
/** An IANA name. Numeric offsets are none, though JavaScript takes them for zones. */
const ZONE_NAME = /^[A-Za-z][A-Za-z0-9_+-]*(?:\/[A-Za-z0-9_+-]+)*$/;
const UTC_ALIASES: ReadonlySet<string> = new Set(["UTC", "Etc/UTC"]);

/**
 * How many dates the search for the next jittered fire looks at. A date costs some 40 µs (Deno 2.9, 2-core machine), and
 * a jitter of a day on a schedule of every second would make it 86,401.
 */
const MAX_CANDIDATES = 1000;

/** A parsed expression in its zone. */
export interface CronSchedule {
  /** The expression, its fields apart by single spaces. */
  readonly cron: string;
  /** The time zone. */
  readonly timezone: string;
  /** Gives the first date of the expression after an instant, or undefined if there is none. */
  next(after: Date): Date | undefined;
}

/** What a schedule adds to its dates. */
export interface Jitter {
  /** The schedule, a UUID. */
  readonly scheduleId: string;
  /** The most seconds that are added. */
  readonly maxJitterSeconds: number;
}

/**
 * Parses an expression.
 *
 * @param cron The expression.
 * @param timezone An IANA time zone.
 * @returns What it means.
 * @throws {RunledgerError} `job_schedule.invalid_timezone`; `job_schedule.invalid_cron`, also for a date that never comes.
 */
export function parseCron(cron: string, timezone: string = DEFAULT_TIMEZONE): CronSchedule {
  if (typeof cron !== "string") throw new TypeError("'cron' must be a string");
  if (typeof timezone !== "string") throw new TypeError("'timezone' must be a string");
  if (!isTimezone(timezone)) throw new RunledgerError("job_schedule.invalid_timezone", { details: { timezone } });
  const normal = cron.trim().split(/\s+/).join(" ");
  // The parser itself would also take ISO dates, which fire once and never again.
  if (normal.length > MAX_CRON_LENGTH || !(FIELDS.test(normal) || NICKNAME.test(normal))) {
    throw invalidCron("it must have five fields, six with seconds, or seven with seconds and a year");
  }
  let parsed: Cron;
  try {
    parsed = new Cron(normal, { timezone, fixedTimeRule: "no-wildcard" });
  } catch (error) {
    // The parser quotes the field that it does not take, which is no secret.
    throw invalidCron(error instanceof Error ? error.message.replace(/^CronPattern: /, "") : "it cannot be parsed");
  }
  if (parsed.nextRun(new Date(0)) === null) throw invalidCron("its date never comes");
  return { cron: normal, timezone, next: (after) => parsed.nextRun(after) ?? undefined };
}

/**
 * Gives the first fire of a schedule after an instant: the earliest of all its dates, each with its jitter.
 *
 * @param schedule The parsed expression.
 * @param jitter What is added to its dates.
 * @param after The instant.
 * @returns The fire, or undefined if there is none.
 */
export function nextFireAt(schedule: CronSchedule, jitter: Jitter, after: Date): Date | undefined {
  const { scheduleId, maxJitterSeconds } = jitter;
  if (maxJitterSeconds === 0) return schedule.next(after);
  const afterMs = after.getTime();
  let bestMs = Infinity;
  // A date before `after` may fire behind it: look back as far as jitter reaches.
  let date = schedule.next(new Date(afterMs - (maxJitterSeconds + 1) * 1000));
  for (let count = 1; date !== undefined && date.getTime() < bestMs; count++) {
    const fireMs = date.getTime() + jitterSeconds(scheduleId, date, maxJitterSeconds) * 1000;
    if (fireMs > afterMs && fireMs < bestMs) bestMs = fireMs;
    // Dates so close to each other that this many lie within the jitter: those between are passed over.
    date = schedule.next(count === MAX_CANDIDATES && date.getTime() < afterMs ? after : date);
    if (count >= 2 * MAX_CANDIDATES) break;
  }
  return bestMs === Infinity ? undefined : new Date(bestMs);
}

/**
 * Gives the jitter of one date: the same for everybody who computes it, evenly spread over schedules.
 *
 * @param scheduleId The schedule, a UUID.
 * @param date The date of the expression.
 * @param maxJitterSeconds The most seconds.
 * @returns Whole seconds from 0 to the most.
 */
export function jitterSeconds(scheduleId: string, date: Date, maxJitterSeconds: number): number {
  if (maxJitterSeconds <= 0) return 0;
  const id = BigInt(`0x${scheduleId.replaceAll("-", "")}`);
  return Number((id ^ BigInt(date.getTime())) % BigInt(maxJitterSeconds + 1));
}

function isTimezone(timezone: string): boolean {
  if (UTC_ALIASES.has(timezone)) return true;
  if (!ZONE_NAME.test(timezone)) return false;
  try {
    new Intl.DateTimeFormat("en", { timeZone: timezone });
    return true;
  } catch {
    return false;
  }
}

function invalidCron(problem: string): RunledgerError {
  return new RunledgerError("job_schedule.invalid_cron", {
    message: `The cron expression cannot be used: ${problem}.`,
    details: { problem },
  });
}
