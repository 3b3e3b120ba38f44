import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { once } from "node:events";
import { createServer } from "node:http";
import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { runPeer } from "./_peer_process.ts";
import type { PeerResult } from "./_peer_process.ts";
import { createTemporaryFolder } from "./_temporary_folder.ts";
import { getProcessPresence } from "./process_presence.ts";

/** Runs code against `test_server.ts` with its own temporary directory and nothing of the caller's choice of a server. */
function runWithServer(tmp: string, code: string, env: Readonly<Record<string, string>> = {}): Promise<PeerResult> {
  const imports = `
    import { openTestServer, removeAbandonedTestServers } from ${
    JSON.stringify(import.meta.resolve("./test_server.ts"))
  };
    import { isContainerEngineUp } from ${JSON.stringify(import.meta.resolve("./container_postgres.ts"))};
    import { readPostmasterFile } from ${JSON.stringify(import.meta.resolve("./postmaster_file.ts"))};
    import { readdir } from "node:fs/promises";
    import process from "node:process";
    const pidOf = async (folder) => (await readPostmasterFile(${JSON.stringify(tmp)} + "/" + folder + "/data")).pid;
    const folders = async () => (await readdir(${
    JSON.stringify(tmp)
  })).filter((name) => name.startsWith("runledger-test-"));
  `;
  return runPeer(imports + code, {
    env: {
      TMPDIR: tmp,
      RUNLEDGER_TEST_DATABASE_URL: undefined,
      RUNLEDGER_TEST_BACKEND: undefined,
      RUNLEDGER_TEST_PG_BIN_DIR: undefined,
      RUNLEDGER_TEST_RUN: undefined,
      DOCKER_HOST: undefined,
      ...env,
    },
  });
}

async function report(tmp: string, code: string, env?: Readonly<Record<string, string>>) {
  const { code: exitCode, output, errors } = await runWithServer(tmp, code, env);
  assert.equal(exitCode, 0, errors);
  return JSON.parse(output);
}

const OPEN = `
  const { url, backend } = await openTestServer(options);
  const [folder] = await folders();
  console.log(JSON.stringify({ url, backend, pid: folder && await pidOf(folder) }));`;

Deno.test("test server: a URL in the environment comes first, and nothing is started", async () => {
  await using folder = await createTemporaryFolder();
  const env = { RUNLEDGER_TEST_DATABASE_URL: "postgres://elsewhere/db", RUNLEDGER_TEST_BACKEND: "container" };
  assert.deepEqual(await report(folder.path, `const options = {};${OPEN}`, env), {
    url: "postgres://elsewhere/db",
    backend: "external",
  });
});

Deno.test("test server: processes of one checkout share a server, a named run has one of its own", async () => {
  await using folder = await createTemporaryFolder();
  const first = await report(folder.path, `const options = {};${OPEN}`);
  const second = await report(folder.path, `const options = {};${OPEN}`);
  assert.equal(first.backend, "embedded");
  assert.deepEqual(second, first);
  const own = await report(folder.path, `const options = {};${OPEN}`, { RUNLEDGER_TEST_RUN: "another" });
  assert.notEqual(own.url, first.url);
});

Deno.test("test server: the servers of a dead run and of a deleted checkout are removed, those in use are not", async () => {
  await using folder = await createTemporaryFolder();
  const dead = await report(folder.path, `const options = { run: "dead", ownerPid: process.pid };${OPEN}`);
  assert.notEqual(await getProcessPresence(dead.pid), undefined, "the run's server outlives the run");
  const left = await report(
    folder.path,
    `
    const removed = await removeAbandonedTestServers();
    await openTestServer();
    console.log(JSON.stringify({ removed, again: await removeAbandonedTestServers(), folders: await folders() }));`,
  );
  assert.deepEqual([left.removed, left.again, left.folders.length], [1, 0, 1]);
  assert.equal(await getProcessPresence(dead.pid), undefined);

  const kept = join(folder.path, left.folders[0]);
  await writeFile(join(kept, "owner.json"), JSON.stringify({ checkout: join(folder.path, "deleted") }));
  assert.equal(await report(folder.path, "console.log(await removeAbandonedTestServers());"), 1);
  assert.equal(existsSync(kept), false);
});

Deno.test("test server: data that lost files is made anew", async () => {
  await using folder = await createTemporaryFolder();
  const first = await report(folder.path, `const options = { run: "lost" };${OPEN}`);
  const [name] = await report(folder.path, "console.log(JSON.stringify(await folders()));");
  await report(folder.path, `process.kill(${first.pid}, "SIGKILL"); console.log(1);`);
  while (await getProcessPresence(first.pid) !== undefined) await new Promise((resolve) => setImmediate(resolve));
  await rm(join(folder.path, name, "data", "global"), { recursive: true });
  const again = await report(folder.path, `const options = { run: "lost" };${OPEN}`);
  assert.notEqual(again.pid, first.pid);
});

Deno.test("test server: a container without an engine is one plain error, and so is an unknown backend", async () => {
  await using folder = await createTemporaryFolder();
  const env = { RUNLEDGER_TEST_BACKEND: "container", DOCKER_HOST: `unix://${folder.path}/docker.sock` };
  const { code, errors } = await runWithServer(folder.path, "await openTestServer();", env);
  assert.equal(code, 1);
  assert.match(
    errors,
    /needs a container engine, and none answers at unix:\/\/.*docker\.sock\. Start Docker, set DOCKER_HOST/,
  );
  const unknown = await runWithServer(folder.path, "await openTestServer();", { RUNLEDGER_TEST_BACKEND: "oracle" });
  assert.match(unknown.errors, /RUNLEDGER_TEST_BACKEND is "oracle"; it must be "container", "embedded" or not set/);
});

Deno.test("test server: a container engine is found by its ping, on a socket and on a port", async () => {
  await using folder = await createTemporaryFolder();
  const paths: (string | undefined)[] = [];
  const engine = createServer((request, response) => {
    paths.push(request.url);
    response.end("OK");
  });
  const ask = (DOCKER_HOST: string) =>
    report(folder.path, "console.log(await isContainerEngineUp());", { DOCKER_HOST });
  const close = async () => {
    engine.close();
    await once(engine, "close");
  };
  const socket = join(folder.path, "docker.sock");
  engine.listen(socket);
  await once(engine, "listening");
  assert.equal(await ask(`unix://${socket}`), true);
  await close();
  engine.listen(0, "127.0.0.1");
  await once(engine, "listening");
  const address = engine.address();
  assert.ok(address !== null && typeof address === "object");
  assert.equal(await ask(`tcp://127.0.0.1:${address.port}`), true);
  await close();
  assert.equal(await ask(`tcp://127.0.0.1:${address.port}`), false);
  assert.equal(await ask("ssh://somewhere"), false);
  assert.deepEqual(paths, ["/_ping", "/_ping"]);
});
