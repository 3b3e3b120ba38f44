/**
 * The one server that a test run shares.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { startContainerPostgres } from "./container_postgres.ts";
import { startEmbeddedPostgres } from "./embedded_postgres.ts";
import { withFileLock } from "./file_lock.ts";
import { readPostmasterFile } from "./postmaster_file.ts";
import { classifyServerProcess, getProcessPresence } from "./process_presence.ts";

/** Where a test server comes from. */
export type TestBackend = "external" | "container" | "embedded";

/** A server for tests. */
export interface TestServer extends AsyncDisposable {
  /** Connects as a user who may create databases. */
  readonly url: string;
  /** Where the server comes from. */
  readonly backend: TestBackend;
  /**
   * Stops the server and deletes its data, if this call started it. A test file leaves the server to the next one; only the
   * test runner stops it.
   */
  stop(): Promise<void>;
}

/** What lies beside the data directory and says when it has become useless. */
interface ServerOwner {
  /** The checkout the server serves. */
  readonly checkout: string;
  /** The test run that started it, when it belongs to a single one. */
  readonly pid?: number;
}

/** What {@linkcode openTestServer} can be told. */
export interface TestServerOptions {
  /** Name of a test run that wants a server of its own. @default `RUNLEDGER_TEST_RUN`, else shared by the checkout */
  readonly run?: string;
  /** The process whose end makes the server useless. @default none: the next run of the checkout uses it again */
  readonly ownerPid?: number;
}

/**
 * Opens the server that tests run on: the one `RUNLEDGER_TEST_DATABASE_URL` names; else a container when
 * `RUNLEDGER_TEST_BACKEND=container`; else an embedded PostgreSQL, from the binaries in `RUNLEDGER_TEST_PG_BIN_DIR` if set.
 *
 * All processes of one user, checkout and binary folder get the same embedded server, however many open it at once.
 *
 * @param options Set by the test runner only.
 * @returns The running server.
 * @throws {EmbeddedPostgresError} The embedded server cannot be had.
 * @throws {Error} A container was asked for and there is no engine.
 */
export async function openTestServer(options: TestServerOptions = {}): Promise<TestServer> {
  const external = process.env.RUNLEDGER_TEST_DATABASE_URL;
  if (external !== undefined && external !== "") {
    return testServer(external, "external", () => Promise.resolve());
  }
  const backend = process.env.RUNLEDGER_TEST_BACKEND ?? "embedded";
  if (backend === "container") {
    const container = await startContainerPostgres({ shared: options.run === undefined });
    return testServer(container.url, "container", () => container.stop());
  }
  if (backend !== "embedded") {
    throw new Error(`RUNLEDGER_TEST_BACKEND is "${backend}"; it must be "container", "embedded" or not set.`);
  }
  return await openEmbeddedTestServer(options);
}

/**
 * Stops and deletes the embedded test servers of this user whose test run has died or whose checkout is gone.
 *
 * @returns How many there were.
 */
export async function removeAbandonedTestServers(): Promise<number> {
  let removed = 0;
  for (const entry of await readdir(tmpdir())) {
    if (!entry.startsWith(serverFolderPrefix())) continue;
    const folder = join(tmpdir(), entry);
    const text = await readFile(join(folder, "owner.json"), "utf8").catch(() => undefined);
    if (text === undefined) continue;
    const { checkout, pid } = JSON.parse(text) as ServerOwner;
    const alive = pid === undefined ? existsSync(checkout) : await getProcessPresence(pid) !== undefined;
    if (alive) continue;
    await removeData(folder);
    await rm(folder, { recursive: true, force: true });
    removed++;
  }
  return removed;
}

async function openEmbeddedTestServer(options: TestServerOptions): Promise<TestServer> {
  const binDir = process.env.RUNLEDGER_TEST_PG_BIN_DIR;
  const run = options.run ?? process.env.RUNLEDGER_TEST_RUN ?? "";
  // Loaded from a registry, this module lies in no checkout: its user's tests do.
  const here = new URL("..", import.meta.url);
  const checkout = here.protocol === "file:" ? fileURLToPath(here) : process.cwd();
  const key = createHash("sha256").update([checkout, binDir ?? "", run].join("\n")).digest("hex").slice(0, 12);
  const folder = join(tmpdir(), serverFolderPrefix() + key);
  const owner: ServerOwner = { checkout, ...(options.ownerPid === undefined ? {} : { pid: options.ownerPid }) };
  await mkdir(folder, { recursive: true, mode: 0o755 });
  await writeFile(join(folder, "owner.json"), JSON.stringify(owner));
  const start = () => startEmbeddedPostgres({ dataDir: join(folder, "data"), ...(binDir ? { binDir } : {}) });
  const server = await start().catch(() => {
    // Data written without fsync does not survive a power cut, nor a cleaner of the temporary directory. It is worth nothing.
    return withFileLock(join(folder, "recovery.lock"), () =>
      start().catch(async () => {
        await removeData(folder);
        return await start();
      }));
  });
  return testServer(server.url, "embedded", async () => {
    if (server.reused) return;
    await server.stop();
    await rm(folder, { recursive: true, force: true });
  });
}

/** Ends the server of a folder, whatever started it, and deletes its data. */
async function removeData(folder: string): Promise<void> {
  const dataDir = join(folder, "data");
  const pid = (await readPostmasterFile(dataDir))?.pid;
  if (pid !== undefined && await classifyServerProcess(pid, dataDir) === "server") {
    process.kill(pid, "SIGINT");
    const deadline = Date.now() + 10_000;
    while (await getProcessPresence(pid) !== undefined) {
      if (Date.now() > deadline) process.kill(pid, "SIGQUIT");
      await delay(25);
    }
  }
  await rm(dataDir, { recursive: true, force: true });
}

function serverFolderPrefix(): string {
  return `runledger-test-${process.getuid?.() ?? 0}-`;
}

function testServer(url: string, backend: TestBackend, stop: () => Promise<void>): TestServer {
  return { url, backend, stop, [Symbol.asyncDispose]: stop };
}
