import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { runPeer } from "./_peer_process.ts";
import { createTemporaryFolder } from "./_temporary_folder.ts";
import { withFileLock } from "./file_lock.ts";

Deno.test("file lock: only one holder at a time, and the lock is gone afterwards", async () => {
  await using folder = await createTemporaryFolder();
  const path = join(folder.path, "lock");
  let inside = 0;
  let most = 0;
  await Promise.all(Array.from({ length: 8 }, () =>
    withFileLock(path, async () => {
      most = Math.max(most, ++inside);
      await readdir(folder.path);
      inside--;
    }, { pollMs: 1 })));
  assert.equal(most, 1);
  assert.deepEqual(await readdir(folder.path), []);
});

Deno.test("file lock: a holder that fails gives the lock back", async () => {
  await using folder = await createTemporaryFolder();
  const path = join(folder.path, "lock");
  await assert.rejects(withFileLock(path, () => Promise.reject(new Error("failed inside"))), /failed inside/);
  assert.equal(await withFileLock(path, () => Promise.resolve("mine")), "mine");
});

Deno.test("file lock: a lock whose holder was killed goes to exactly one of those who wait", async () => {
  await using folder = await createTemporaryFolder();
  const path = join(folder.path, "lock");
  const { code } = await runPeer(
    `
    import { withFileLock } from ${JSON.stringify(import.meta.resolve("./file_lock.ts"))};
    await withFileLock(${JSON.stringify(path)}, () => {
      console.log("held");
      setInterval(() => {}, 1000);
      return new Promise(() => {});
    });`,
    { onStart: (child) => child.stdout?.once("data", () => child.kill("SIGKILL")) },
  );
  assert.equal(code, "SIGKILL");
  assert.equal((await readdir(folder.path)).includes("lock"), true, "the dead holder left its lock");
  let inside = 0;
  let most = 0;
  await Promise.all(Array.from({ length: 8 }, () =>
    withFileLock(path, async () => {
      most = Math.max(most, ++inside);
      await readdir(folder.path);
      inside--;
    }, { pollMs: 1, staleAfterMs: 3_600_000 })));
  assert.equal(most, 1);
});

Deno.test("file lock: a lock that is older than any work may take is taken over from a living process", async () => {
  await using folder = await createTemporaryFolder();
  const path = join(folder.path, "lock");
  const order: string[] = [];
  await withFileLock(path, async () => {
    await withFileLock(path, () => Promise.resolve(order.push("taken over")), { pollMs: 1, staleAfterMs: 0 });
  });
  assert.deepEqual(order, ["taken over"]);
});
