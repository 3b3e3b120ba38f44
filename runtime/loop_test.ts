/// <reference lib="deno.ns" />
import assert from "node:assert/strict";
import { DeadlineWatch } from "./deadline_watch.ts";
import { silentLogger } from "./logger.ts";
import { backoffMs, runLoop, settledWithin, Waker, within } from "./loop.ts";

Deno.test("a wake that comes while nobody waits ends the next wait, once", async () => {
  const waker = new Waker();
  waker.wake();
  waker.wake();
  await waker.wait();
  const second = waker.wait();
  assert.ok(waker.isWaiting);
  waker.wake();
  await second;
  assert.ok(!waker.isWaiting);
});

Deno.test("a wait ends by itself when its time is over, and leaves no timer when it is woken", async () => {
  const waker = new Waker();
  await waker.wait(1);
  const wait = waker.wait(60_000);
  waker.wake();
  await wait;
});

Deno.test("a loop goes on at once when a round asks for it, and ends when it is told to", async () => {
  const stop = new AbortController();
  let rounds = 0;
  await runLoop({
    name: "test",
    signal: stop.signal,
    intervalMs: 3_600_000,
    logger: silentLogger,
    round: () => {
      if (++rounds === 5) stop.abort();
      return Promise.resolve(0);
    },
  });
  assert.equal(rounds, 5);
});

Deno.test("a loop survives rounds that throw, and can be stopped while it waits", async () => {
  const stop = new AbortController();
  const lines: string[] = [];
  let rounds = 0;
  const loop = runLoop({
    name: "test",
    signal: stop.signal,
    intervalMs: 3_600_000,
    maxBackoffMs: 2,
    logger: { ...silentLogger, warn: (line) => lines.push(line), info: (line) => lines.push(line) },
    round: () => {
      if (++rounds <= 3) throw new Error("no");
      queueMicrotask(() => stop.abort());
      return Promise.resolve();
    },
  });
  await loop;
  assert.equal(rounds, 4);
  assert.equal(lines.filter((line) => line.includes("failed")).length, 3);
  assert.equal(lines.at(-1), "test works again");
});

Deno.test("waits after errors double from 100 ms up to their bound, and half of them is chance", () => {
  for (let failures = 1; failures < 40; failures++) {
    const fullMs = Math.min(100 * 2 ** (failures - 1), 5000);
    const waitMs = backoffMs(failures, 5000);
    assert.ok(waitMs >= Math.floor(fullMs / 2) && waitMs <= fullMs, `${failures}: ${waitMs}`);
  }
});

Deno.test("waiting for a promise can be limited by time and by a signal", async () => {
  const never = new Promise<never>(() => {});
  const late = () => new Error("late");
  await assert.rejects(within(never, { timeoutMs: 1, late }), /late/);
  const stop = new AbortController();
  const waiting = within(never, { timeoutMs: 60_000, signal: stop.signal, late });
  stop.abort();
  await assert.rejects(waiting, /late/);
  assert.equal(await within(Promise.resolve(7), { timeoutMs: 60_000, late }), 7);
  assert.equal(await settledWithin(Promise.reject(new Error("no")), 60_000), true);
  assert.equal(await settledWithin(never, -1), false);
  assert.equal(await settledWithin(never, Infinity, AbortSignal.abort()), false);
});

Deno.test("one timer serves every deadline, in order", async () => {
  const startedAt = performance.now();
  const deadlines = [30, 10, 20].map((afterMs) => startedAt + afterMs);
  const seen: number[] = [];
  const all = Promise.withResolvers<void>();
  const watch = new DeadlineWatch((now) => {
    // On a busy machine several may be due at once.
    for (const due of deadlines.filter((deadline) => deadline <= now).toSorted((a, b) => a - b)) {
      seen.push(Math.round(due - startedAt));
      deadlines.splice(deadlines.indexOf(due), 1);
    }
    if (deadlines.length === 0) all.resolve();
    return Math.min(...deadlines);
  });
  for (const deadline of deadlines) watch.expect(deadline);
  await all.promise;
  assert.deepEqual(seen, [10, 20, 30]);
  watch.expect(performance.now() + 60_000);
  watch.close();
  watch.expect(performance.now() + 1);
});
