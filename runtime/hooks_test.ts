/// <reference lib="deno.ns" />
import assert from "node:assert/strict";
import { emptyHooks, HookRunner } from "./hooks.ts";
import type { JobEnqueuedEvent } from "./hook_events.ts";
import type { LogFields, Logger } from "./logger.ts";

const EVENT: JobEnqueuedEvent = { jobId: "id", jobType: "type" };

function recorded(): { readonly lines: [string, LogFields | undefined][]; readonly logger: Logger } {
  const lines: [string, LogFields | undefined][] = [];
  const record = (message: string, fields?: LogFields) => void lines.push([message, fields]);
  return { lines, logger: { debug: record, info: record, warn: record, error: record } };
}

/** Runs a function while nothing but the test lets time pass. */
async function withTimers(fn: (passTime: () => void) => Promise<void>): Promise<void> {
  const { setTimeout: realSet, clearTimeout: realClear } = globalThis;
  const pending = new Map<number, () => void>();
  let ids = 0;
  const set = (callback: () => void) => {
    pending.set(++ids, callback);
    return ids;
  };
  Object.assign(globalThis, { setTimeout: set, clearTimeout: (id: number) => void pending.delete(id) });
  try {
    await fn(() => {
      for (const [id, callback] of [...pending]) {
        pending.delete(id);
        callback();
      }
    });
    assert.equal(pending.size, 0, "a timer was left");
  } finally {
    Object.assign(globalThis, { setTimeout: realSet, clearTimeout: realClear });
  }
}

Deno.test("whatever a hook does, the next one is called and the caller goes on", async () => {
  const hooks = emptyHooks();
  const { lines, logger } = recorded();
  const calls: string[] = [];
  const poison = {
    get then(): never {
      throw new Error("then throws");
    },
  };
  hooks.enqueued.push(
    () => {
      throw null;
    },
    () => Promise.reject(new Error("rejected")),
    () => poison,
    () => ({
      then: () => {
        throw new Error("thenable throws");
      },
    }),
    ({ jobId }) => calls.push(jobId),
  );
  const runner = new HookRunner(hooks, logger);
  runner.emit("enqueued", EVENT);
  assert.deepEqual(calls, ["id"]);
  await runner.drain();
  assert.deepEqual(
    lines.map(([message, fields]) => [message, fields?.["hook"], fields?.["jobId"], fields?.["error"]]),
    [
      ["a hook threw", "enqueued", "id", "null"],
      ["a hook threw", "enqueued", "id", "then throws"],
      ["a hook threw", "enqueued", "id", "rejected"],
      ["a hook threw", "enqueued", "id", "thenable throws"],
    ],
  );
});

Deno.test("a hook that hangs is reported after its time, and nobody waits for it any more", async () => {
  await withTimers(async (passTime) => {
    const hooks = emptyHooks();
    const { lines, logger } = recorded();
    hooks.runFinished.push(() => new Promise(() => {}), () => Promise.resolve());
    const runner = new HookRunner(hooks, logger);
    runner.emit("runFinished", { runId: "r", workflowType: "w", status: "SUCCEEDED" });
    const drained = runner.drain();
    assert.deepEqual(lines, []);
    await Promise.resolve();
    passTime();
    await drained;
    assert.deepEqual(lines[0], ["a hook hangs and is no longer waited for", { hook: "runFinished", runId: "r" }]);
  });
});

Deno.test("when a thousand hooks hang, further ones are dropped, counted and reported once", async () => {
  await withTimers(async (passTime) => {
    const hooks = emptyHooks();
    const { lines, logger } = recorded();
    let calls = 0;
    hooks.enqueued.push(() => {
      calls++;
      return new Promise(() => {});
    });
    const runner = new HookRunner(hooks, logger);
    for (let n = 0; n < 1005; n++) runner.emit("enqueued", EVENT);
    assert.equal(calls, 1000);
    const drained = runner.drain();
    passTime();
    await drained;
    const messages = lines.map(([message]) => message);
    assert.equal(messages.filter((message) => message.includes("further ones are dropped")).length, 1);
    assert.deepEqual(lines.at(-1), ["hooks were dropped", { dropped: 5 }]);
    // There is room again.
    runner.emit("enqueued", EVENT);
    assert.equal(calls, 1001);
    passTime();
    await runner.drain();
  });
});
