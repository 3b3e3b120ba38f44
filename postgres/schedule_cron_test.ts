/// <reference lib="deno.ns" />
/**
 * Cron expressions against an oracle that knows no parser: it is given the sets of values that an expression stands for,
 * and looks at every second or minute of a window whether it matches.
 *
 * @module
 */

import { isRunledgerError } from "@runledger/core";
import assert from "node:assert/strict";
import fc from "fast-check";
import { jitterSeconds, MAX_JITTER_SECONDS, nextFireAt, parseCron } from "./schedule_cron.ts";
import type { CronSchedule } from "./schedule_cron.ts";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** One field: its text, and what it stands for. */
interface Field {
  readonly text: string;
  readonly values: ReadonlySet<number>;
  /** Whether it restricts nothing. */
  readonly isStar: boolean;
  /** Whether all its values are given, without `*` or a step. */
  readonly isGiven: boolean;
}

const DAY_NAMES = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
const MONTH_NAMES = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];

/** A field of the values `min` to `max`, some of which have names, and where 7 may be another word for 0. */
function field(min: number, max: number, names: Readonly<Record<number, string>> = {}): fc.Arbitrary<Field> {
  const value = fc.integer({ min, max });
  const word = (number: number) =>
    fc.constantFrom(String(number), ...(names[number] === undefined ? [] : [names[number]]));
  const every = (from: number, to: number, step: number) => {
    const values = new Set<number>();
    for (let number = from; number <= to; number += step) values.add(number);
    return values;
  };
  const range = fc.tuple(value, value).map(([a, b]) => [Math.min(a, b), Math.max(a, b)] as const);
  const step = fc.integer({ min: 1, max: max - min });
  const part: fc.Arbitrary<Field> = fc.oneof(
    value.chain((number) =>
      word(number).map((text) => ({ text, values: new Set([number]), isStar: false, isGiven: true }))
    ),
    range.map(([from, to]) => ({ text: `${from}-${to}`, values: every(from, to, 1), isStar: false, isGiven: true })),
    fc.tuple(range, step).map(([[from, to], by]) => ({
      text: `${from}-${to}/${by}`,
      values: every(from, to, by),
      isStar: false,
      isGiven: false,
    })),
    step.map((by) => ({ text: `*/${by}`, values: every(min, max, by), isStar: false, isGiven: false })),
  );
  const list = fc.array(part, { minLength: 1, maxLength: 3 }).map((parts) => ({
    text: parts.map(({ text }) => text).join(","),
    values: new Set(parts.flatMap(({ values }) => [...values])),
    isStar: false,
    isGiven: parts.every(({ isGiven }) => isGiven),
  }));
  const star = fc.constantFrom("*", "?").map((text) => ({
    text,
    values: every(min, max, 1),
    isStar: true,
    isGiven: false,
  }));
  return fc.oneof({ weight: 2, arbitrary: star }, { weight: 3, arbitrary: list });
}

const named = (names: readonly string[], first: number) =>
  Object.fromEntries(names.map((name, index) => [index + first, name]));

/** What an expression of six fields stands for. */
interface Expression {
  readonly text: string;
  readonly second: Field;
  readonly minute: Field;
  readonly hour: Field;
  readonly dayOfMonth: Field;
  readonly month: Field;
  readonly dayOfWeek: Field;
}

const AT_ZERO: Field = { text: "", values: new Set([0]), isStar: false, isGiven: true };

const FIELDS = {
  minute: field(0, 59),
  hour: field(0, 23),
  dayOfMonth: field(1, 31),
  month: field(1, 12, named(MONTH_NAMES, 1)),
  dayOfWeek: field(0, 7, named(DAY_NAMES, 0)),
};

function textOf({ second, minute, hour, dayOfMonth, month, dayOfWeek }: Omit<Expression, "text">): string {
  return [second, minute, hour, dayOfMonth, month, dayOfWeek].map(({ text }) => text).join(" ").trim();
}

const fiveFields: fc.Arbitrary<Expression> = fc.record(FIELDS).map((fields) => {
  const expression = { second: AT_ZERO, ...fields };
  return { ...expression, text: textOf(expression) };
});

const sixFields: fc.Arbitrary<Expression> = fc.record({ second: field(0, 59), ...FIELDS }).map((fields) => ({
  ...fields,
  text: textOf(fields),
}));

/** A wall clock: what the hands and the calendar show, as if it were UTC. */
function matches(expression: Expression, wall: Date): boolean {
  const { second, minute, hour, dayOfMonth, month, dayOfWeek } = expression;
  if (!second.values.has(wall.getUTCSeconds()) || !minute.values.has(wall.getUTCMinutes())) return false;
  if (!hour.values.has(wall.getUTCHours()) || !month.values.has(wall.getUTCMonth() + 1)) return false;
  const weekday = wall.getUTCDay();
  const isDay = dayOfMonth.values.has(wall.getUTCDate());
  const isWeekday = dayOfWeek.values.has(weekday) || (weekday === 0 && dayOfWeek.values.has(7));
  if (dayOfMonth.isStar || dayOfWeek.isStar) return isDay && isWeekday;
  return isDay || isWeekday;
}

/** The dates of a schedule in a window. */
function datesOf(schedule: CronSchedule, fromMs: number, toMs: number): readonly string[] {
  const dates: string[] = [];
  for (let at = schedule.next(new Date(fromMs - 1)); at !== undefined && at.getTime() < toMs; at = schedule.next(at)) {
    dates.push(at.toISOString());
  }
  return dates;
}

Deno.test("an expression of five fields has the dates that its fields name, minute by minute", () => {
  fc.assert(
    fc.property(fiveFields, fc.integer({ min: 0, max: 4 * 366 }), (expression, day) => {
      const fromMs = Date.UTC(2024, 0, 1) + day * DAY;
      const expected: string[] = [];
      for (let at = fromMs; at < fromMs + 9 * DAY; at += MINUTE) {
        if (matches(expression, new Date(at))) expected.push(new Date(at).toISOString());
      }
      assert.deepEqual(datesOf(parseable(expression.text), fromMs, fromMs + 9 * DAY), expected, expression.text);
    }),
    { numRuns: 100 },
  );
});

Deno.test("an expression of six fields has the dates that its fields name, second by second", () => {
  fc.assert(
    fc.property(sixFields, fc.integer({ min: 0, max: 4 * 366 * 12 }), (expression, hours) => {
      const fromMs = Date.UTC(2024, 0, 1) + hours * 2 * HOUR;
      const expected: string[] = [];
      for (let at = fromMs; at < fromMs + 4 * HOUR; at += 1000) {
        if (matches(expression, new Date(at))) expected.push(new Date(at).toISOString());
      }
      assert.deepEqual(datesOf(parseable(expression.text), fromMs, fromMs + 4 * HOUR), expected, expression.text);
    }),
    { numRuns: 100 },
  );
});

/** A generated expression may name no date at all, such as February 31: it is only known by the oracle's silence. */
function parseable(text: string, timezone?: string): CronSchedule {
  try {
    return parseCron(text, timezone);
  } catch (error) {
    assert(isRunledgerError(error, "job_schedule.invalid_cron"));
    assert.deepEqual(error.details, { problem: "its date never comes" }, `${text}: ${error.message}`);
    return { cron: text, timezone: "UTC", next: () => undefined };
  }
}

/** Days on which clocks are changed, in several ways. */
const CLOCK_CHANGES = [
  ["America/New_York", "2026-03-08"], // 02:00 -> 03:00
  ["America/New_York", "2026-11-01"], // 02:00 -> 01:00
  ["Europe/Berlin", "2026-03-29"],
  ["Europe/Berlin", "2026-10-25"],
  ["Australia/Lord_Howe", "2026-10-04"], // half an hour
  ["Australia/Lord_Howe", "2026-04-05"],
  ["America/Sao_Paulo", "2017-10-15"], // at midnight
  ["America/Sao_Paulo", "2018-02-18"], // to the day before
] as const;

/** What a clock in the zone shows at each minute of a window, by `Intl` alone. */
function wallClock(timezone: string, fromMs: number, minutes: number): readonly Date[] {
  const format = new Intl.DateTimeFormat("en-US", {
    timeZone: timezone,
    hourCycle: "h23",
    year: "numeric",
    month: "numeric",
    day: "numeric",
    hour: "numeric",
    minute: "numeric",
  });
  return Array.from({ length: minutes }, (_, index) => {
    const part: Record<string, number> = {};
    for (const { type, value } of format.formatToParts(fromMs + index * MINUTE)) part[type] = Number(value);
    const { year = 0, month = 0, day = 0, hour = 0, minute = 0 } = part;
    return new Date(Date.UTC(year, month - 1, day, hour, minute));
  });
}

const given = (hours: readonly number[]): Field => ({
  text: hours.join(","),
  values: new Set(hours),
  isStar: false,
  isGiven: true,
});

const hourly = fc.record({
  minute: FIELDS.minute,
  // Clocks are changed at night.
  hour: fc.oneof(FIELDS.hour, fc.uniqueArray(fc.integer({ min: 0, max: 4 }), { minLength: 1 }).map(given)),
  dayOfMonth: fc.oneof({ weight: 3, arbitrary: fc.constant("*") }, { weight: 1, arbitrary: FIELDS.dayOfMonth }),
  dayOfWeek: fc.oneof({ weight: 3, arbitrary: fc.constant("*") }, { weight: 1, arbitrary: FIELDS.dayOfWeek }),
});
const starOf = (min: number, max: number): Field => ({
  text: "*",
  values: new Set(Array.from({ length: max - min + 1 }, (_, index) => index + min)),
  isStar: true,
  isGiven: false,
});

for (const [timezone, day] of CLOCK_CHANGES) {
  Deno.test(`around a change of clocks: ${timezone}, ${day}`, () => {
    const fromMs = Date.parse(day) - 18 * HOUR;
    const minutes = 3 * 24 * 60;
    const wall = wallClock(timezone, fromMs, minutes);
    const isChange = wall.some((shown, index) =>
      index > 0 && shown.getTime() - (wall[index - 1]?.getTime() ?? 0) !== MINUTE
    );
    assert(isChange, "the clocks are changed in this window");
    fc.assert(
      fc.property(hourly, (parts) => {
        const expression = {
          second: AT_ZERO,
          minute: parts.minute,
          hour: parts.hour,
          dayOfMonth: typeof parts.dayOfMonth === "string" ? starOf(1, 31) : parts.dayOfMonth,
          month: starOf(1, 12),
          dayOfWeek: typeof parts.dayOfWeek === "string" ? starOf(0, 6) : parts.dayOfWeek,
          text: "",
        };
        const text = textOf(expression);
        const isFixed = expression.minute.isGiven && expression.hour.isGiven;
        const expected: string[] = [];
        const shownBefore = new Set<number>();
        wall.forEach((shown, index) => {
          const last = wall[index - 1]?.getTime() ?? shown.getTime() - MINUTE;
          let isDate = matches(expression, shown) && !(isFixed && shownBefore.has(shown.getTime()));
          if (isFixed) {
            // What the clock leaves out is made up for at the first minute that it shows again.
            for (let missed = last + MINUTE; missed < shown.getTime(); missed += MINUTE) {
              isDate ||= matches(expression, new Date(missed));
            }
          }
          shownBefore.add(shown.getTime());
          if (isDate) expected.push(new Date(fromMs + index * MINUTE).toISOString());
        });
        assert.deepEqual(datesOf(parseable(text, timezone), fromMs, fromMs + minutes * MINUTE), expected, text);
      }),
      { numRuns: 40 },
    );
  });
}

Deno.test("years, last days, weekdays and nicknames", () => {
  const first = (cron: string, after = "2026-01-01T10:00:30Z", timezone = "UTC") =>
    parseCron(cron, timezone).next(new Date(after))?.toISOString();
  assert.equal(first("0 0 12 * * * 2027"), "2027-01-01T12:00:00.000Z");
  assert.equal(first("0 0 12 1 1 * 2020"), undefined);
  assert.equal(first("0 0 0 29 2 *"), "2028-02-29T00:00:00.000Z");
  assert.equal(first("0 0 L * *"), "2026-01-31T00:00:00.000Z");
  assert.equal(first("0 0 * * FRI#2"), "2026-01-09T00:00:00.000Z");
  assert.equal(first("0 0 13 * +FRI"), "2026-02-13T00:00:00.000Z");
  assert.equal(first("@daily"), "2026-01-02T00:00:00.000Z");
  assert.equal(first("0 9 * * *", "2026-07-01T00:00:00Z", "Europe/Berlin"), "2026-07-01T07:00:00.000Z");
  assert.equal(first("0 9 * * *", "2026-01-01T00:00:00Z", "Europe/Berlin"), "2026-01-01T08:00:00.000Z");
  // A date is behind the instant, never at it, and instants between two seconds count.
  assert.equal(first("* * * * * *", "2026-01-01T00:00:00Z"), "2026-01-01T00:00:01.000Z");
  assert.equal(first("* * * * * *", "2026-01-01T00:00:00.999Z"), "2026-01-01T00:00:01.000Z");
  assert.equal(parseCron("  */5\t*  * * *\n").cron, "*/5 * * * *");
});

Deno.test("what is no expression, names no date or no zone is refused with its own code", () => {
  const refused = (cron: string, timezone?: string) => {
    try {
      parseCron(cron, timezone);
    } catch (error) {
      assert(isRunledgerError(error), String(error));
      return error.code;
    }
    return assert.fail(`taken: ${cron} in ${timezone}`);
  };
  const expressions = [
    ["", " ", "* * *", "* * * *", "* * * * * * * *", "a b c d e", "@reboot", "@every 5m", "@", "2026-03-01T00:00:00"],
    ["60 * * * *", "* 24 * * *", "* * 0 * *", "* * 32 * *", "* * * 0 *", "* * * 13 *", "* * * * 8", "-1 * * * *"],
    ["5-1 * * * *", "*/0 * * * *", "1,,2 * * * *", "1.5 * * * *", "1e1 * * * *", "０ * * * *", "* * * * MONDAY"],
    // Dates that never come, and one that has been.
    ["0 0 31 2 *", "0 0 30 2 *", "0 0 31 4,6,9,11 *", "0 0 0 29 2 * 2027", "0 0 0 1 1 * 1969", "0 0 0 1 1 * 10000"],
    ["2026-03-01T00:00:00 * * * *", "2026-03-01 00:00:00", "*".repeat(5000), `${"1,".repeat(600)}1 * * * *`],
  ].flat();
  for (const cron of expressions) assert.equal(refused(cron), "job_schedule.invalid_cron", cron);
  const zones = [
    "",
    " ",
    "Nope/Zone",
    "Mars",
    "+02:00",
    "-05",
    "UTC+2",
    "local",
    "Europe/Berlin ",
    "Europe//Berlin",
    "../x",
  ];
  for (const zone of zones) assert.equal(refused("* * * * *", zone), "job_schedule.invalid_timezone", zone);
  assert.throws(() => parseCron(5 as never), TypeError);
  assert.throws(() => parseCron("* * * * *", null as never), TypeError);
});

const NIL = "00000000-0000-0000-0000-000000000000";

Deno.test("jitter is the id XOR the date, modulo the most seconds and one", () => {
  const vectors = [
    ["018fa1f8-0000-7000-8000-000000000123", "2026-05-26T12:01:00Z", 30, 3],
    [NIL, "2026-02-01T12:05:00Z", 60, 54],
    [NIL, "2026-02-01T12:00:01Z", 5, 4],
    [NIL, "2026-02-01T12:00:03Z", 5, 0],
    [NIL, "2026-02-01T12:00:03Z", 0, 0],
  ] as const;
  for (const [id, date, most, seconds] of vectors) assert.equal(jitterSeconds(id, new Date(date), most), seconds, date);
  fc.assert(
    fc.property(
      fc.uuid(),
      fc.date({ noInvalidDate: true, min: new Date(0) }),
      fc.nat(MAX_JITTER_SECONDS),
      (id, date, most) => {
        const seconds = jitterSeconds(id, date, most);
        assert(Number.isInteger(seconds) && seconds >= 0 && seconds <= most);
        assert.equal(jitterSeconds(id.toUpperCase(), date, most), seconds);
      },
    ),
  );
});

Deno.test("the next fire is the earliest of all jittered dates, also when jitter turns their order round", () => {
  const expressions = ["* * * * * *", "*/10 * * * * *", "* * * * *", "*/5 * * * *", "0 * * * *", "7,8,9 * * * *"];
  fc.assert(
    fc.property(
      fc.constantFrom(...expressions),
      fc.uuid(),
      fc.oneof(fc.nat(30), fc.nat(600)),
      fc.integer({ min: 0, max: DAY }),
      (cron, scheduleId, maxJitterSeconds, offset) => {
        const after = new Date(Date.UTC(2026, 0, 1) + offset);
        const schedule = parseCron(cron);
        const fires = datesOf(schedule, after.getTime() - 700_000, after.getTime() + 2 * HOUR).map((text) =>
          Date.parse(text) + jitterSeconds(scheduleId, new Date(text), maxJitterSeconds) * 1000
        ).filter((fire) => fire > after.getTime());
        const next = nextFireAt(schedule, { scheduleId, maxJitterSeconds }, after);
        assert.equal(next?.getTime(), Math.min(...fires));
      },
    ),
    { numRuns: 60 },
  );
});

Deno.test("a jitter of a day on a schedule of every second is found among a bounded number of dates", () => {
  const schedule = parseCron("* * * * * *");
  let looks = 0;
  const counted = { ...schedule, next: (after: Date) => (looks++, schedule.next(after)) };
  const after = new Date("2026-01-01T12:00:00Z");
  const next = nextFireAt(counted, { scheduleId: NIL, maxJitterSeconds: MAX_JITTER_SECONDS }, after);
  assert(next !== undefined && next > after && next.getTime() < after.getTime() + 2 * DAY);
  assert(looks <= 2001, `${looks} dates`);
});

Deno.test("an expression whose last date has passed has no next fire, with jitter or without", () => {
  const schedule = parseCron("0 0 12 1 1 * 2026");
  const scheduleId = NIL;
  assert.equal(nextFireAt(schedule, { scheduleId, maxJitterSeconds: 0 }, new Date("2026-01-01T12:00:00Z")), undefined);
  const jitter = { scheduleId, maxJitterSeconds: 600 };
  const only = nextFireAt(schedule, jitter, new Date("2026-01-01T12:00:00Z"));
  assert(only !== undefined, "its jitter is still to come");
  assert.equal(nextFireAt(schedule, jitter, only), undefined);
});
