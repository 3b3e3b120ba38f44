import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { cp, mkdir, readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { dirname, join } from "node:path";
import process from "node:process";
import { setTimeout as delay } from "node:timers/promises";
import postgres from "postgres";
import { runPeer } from "./_peer_process.ts";
import { createTemporaryFolder, killServer } from "./_temporary_folder.ts";
import { startEmbeddedPostgres } from "./embedded_postgres.ts";
import type { EmbeddedPostgres } from "./embedded_postgres.ts";
import { EmbeddedPostgresError } from "./embedded_postgres_error.ts";
import { findPostgresInstallation } from "./postgres_installation.ts";
import { getProcessPresence } from "./process_presence.ts";

async function query(url: string, text: string): Promise<string> {
  const sql = postgres(url, { max: 1, onnotice: () => {} });
  try {
    const [row] = await sql.unsafe(text).values();
    return String(row?.[0]);
  } finally {
    await sql.end();
  }
}

/** A module that starts a server, prints what it got, and leaves the server running. */
function starterCode(options: Readonly<Record<string, unknown>>): string {
  return `
    import { startEmbeddedPostgres } from ${JSON.stringify(import.meta.resolve("./embedded_postgres.ts"))};
    const { url, reused, pid } = await startEmbeddedPostgres(${JSON.stringify(options)});
    console.log(JSON.stringify({ url, reused, pid }));`;
}

async function startInPeer(
  options: Readonly<Record<string, unknown>>,
  peer?: Parameters<typeof runPeer>[1],
): Promise<Pick<EmbeddedPostgres, "url" | "reused" | "pid">> {
  const { code, output, errors } = await runPeer(starterCode(options), peer);
  assert.equal(code, 0, errors);
  return JSON.parse(output);
}

Deno.test("embedded postgres: of three processes that start it at once one starts it and two reuse it", async () => {
  await using folder = await createTemporaryFolder();
  const dataDir = join(folder.path, "data");
  const starters = await Promise.all([1, 2, 3].map(() => startInPeer({ dataDir })));
  assert.deepEqual(starters.map(({ reused }) => reused).sort(), [false, true, true]);
  assert.equal(new Set(starters.map(({ url }) => url)).size, 1);
  assert.equal(new Set(starters.map(({ pid }) => pid)).size, 1);
});

Deno.test("embedded postgres: stop ends the server only for the call that started it", async () => {
  await using folder = await createTemporaryFolder();
  const dataDir = join(folder.path, "data");
  const starter = await startEmbeddedPostgres({ dataDir });
  const guest = await startEmbeddedPostgres({ dataDir });
  assert.deepEqual([starter.reused, guest.reused], [false, true]);
  assert.equal(starter.version, 18);
  await guest.stop();
  assert.equal(await query(starter.url, "select 1"), "1");
  await starter.stop();
  assert.equal(await getProcessPresence(starter.pid), undefined);

  const restarted = await startEmbeddedPostgres({ dataDir });
  await starter.stop();
  assert.equal(await query(restarted.url, "select 1"), "1", "the first starter has no say over a later server");
  await guest.stop({ evenIfReused: true });
  assert.equal(await getProcessPresence(restarted.pid), undefined);
});

Deno.test("embedded postgres: after kill -9 it starts again, with its data and on its port", async () => {
  await using folder = await createTemporaryFolder();
  const dataDir = join(folder.path, "data");
  const first = await startEmbeddedPostgres({ dataDir });
  await query(first.url, "create table kept as select 42 as answer");
  for (let round = 0; round < 3; round++) {
    await killServer(dataDir);
    const next = await startEmbeddedPostgres({ dataDir });
    assert.equal(next.reused, false);
    assert.equal(next.url, first.url);
    assert.equal(await query(next.url, "select answer from kept"), "42");
  }
});

Deno.test("embedded postgres: a port that was lost meanwhile is replaced by a free one", async () => {
  await using folder = await createTemporaryFolder();
  const dataDir = join(folder.path, "data");
  const first = await startEmbeddedPostgres({ dataDir });
  await killServer(dataDir);
  const squatter = createServer().listen(Number(new URL(first.url).port), "127.0.0.1");
  await once(squatter, "listening");
  try {
    await using next = await startEmbeddedPostgres({ dataDir });
    assert.notEqual(next.url, first.url);
    assert.equal(await query(next.url, "select 1"), "1");
  } finally {
    squatter.close();
    await once(squatter, "close");
  }
});

Deno.test("embedded postgres: a postmaster.pid whose process id is now another process or a zombie does not block it", async () => {
  await using folder = await createTemporaryFolder();
  const dataDir = join(folder.path, "data");
  await startEmbeddedPostgres({ dataDir });
  // The shell's child ends and the shell has become a program that never asks for it.
  const parent = spawn("sh", ["-c", "true & echo $!; exec sleep 600"], { stdio: ["ignore", "pipe", "ignore"] });
  try {
    const [line] = await once(parent.stdout, "data");
    const zombie = Number(String(line));
    while (await getProcessPresence(zombie) !== undefined) await delay(5);
    for (const pid of [process.pid, zombie]) {
      await killServer(dataDir);
      const file = join(dataDir, "postmaster.pid");
      await writeFile(file, (await readFile(file, "utf8")).replace(/^\d+/, String(pid)));
      const next = await startEmbeddedPostgres({ dataDir });
      assert.equal(next.reused, false);
      assert.equal(await query(next.url, "select 1"), "1");
    }
  } finally {
    parent.stdout.destroy();
    parent.kill("SIGKILL");
    await once(parent, "exit");
  }
});

Deno.test("embedded postgres: the caller's locale and PG variables do not reach it", async () => {
  await using folder = await createTemporaryFolder();
  const env = {
    LANG: "xx_YY.UTF-8",
    LC_ALL: "tr_TR.ISO-8859-9",
    LC_MESSAGES: "de_DE.UTF-8",
    PGDATA: "/nonexistent",
    PGPORT: "1",
    PGOPTIONS: "-c nonsense=1",
    TZ: "Nowhere/Never",
  };
  const { url } = await startInPeer({ dataDir: join(folder.path, "data") }, { env });
  assert.equal(await query(url, "show timezone"), "UTC");
  assert.equal(await query(url, "show server_encoding"), "UTF8");
});

Deno.test("embedded postgres: settings are passed through, and durable keeps fsync on", async () => {
  await using folder = await createTemporaryFolder();
  const settings = { log_line_prefix: 'it\'s "quoted" $HOME', max_connections: "17" };
  await using fast = await startEmbeddedPostgres({ dataDir: join(folder.path, "fast"), settings });
  await using durable = await startEmbeddedPostgres({ dataDir: join(folder.path, "durable"), durable: true });
  assert.equal(
    await query(fast.url, "select reset_val from pg_settings where name = 'log_line_prefix'"),
    settings.log_line_prefix,
  );
  assert.equal(await query(fast.url, "show max_connections"), "17");
  assert.equal(await query(fast.url, "show fsync"), "off");
  assert.equal(await query(durable.url, "show fsync"), "on");
  assert.equal(await query(durable.url, "show synchronous_commit"), "on");
});

Deno.test("embedded postgres: an ordinary user runs it from a read-only package whose install script never ran", async () => {
  await using folder = await createTemporaryFolder();
  const { binDir } = await findPostgresInstallation();
  const root = join(folder.path, "native");
  await copyWithoutLinks(dirname(binDir), root);
  const home = join(folder.path, "home");
  await mkdir(home);
  const options = { dataDir: join(home, "data"), binDir: join(root, "bin") };
  const isRoot = process.getuid?.() === 0;
  // What root has may be out of nobody's reach: the program, the sources and the caches are given to him. They stay root's.
  const command = [join(folder.path, "deno"), "run", "--quiet", "--no-config", "--no-lock", "--allow-all"];
  await cp(process.execPath, join(folder.path, "deno"));
  await cp(new URL(".", import.meta.url), join(folder.path, "test_support"), { recursive: true });
  await run("chmod", "-R", "a+rX,go-w", folder.path);
  await run("chmod", "-R", "a-w", root);
  if (isRoot) await run("chown", "-R", "65534:65534", home);
  const code = starterCode(options).replace(dirname(import.meta.url), `file://${folder.path}/test_support`);
  const { code: exitCode, output, errors } = await runPeer(code, {
    command,
    env: { DENO_DIR: join(home, "cache"), HOME: home, TMPDIR: home },
    ...(isRoot ? { account: { uid: 65534, gid: 65534 } } : {}),
  });
  assert.equal(exitCode, 0, errors);
  const { url, pid } = JSON.parse(output);
  assert.match(await query(url, "select version()"), /^PostgreSQL 18/);
  assert.match(await query(url, "select icu_unicode_version()"), /^\d/);
  if (process.platform === "linux") {
    assert.match(await readFile(`/proc/${pid}/status`, "utf8"), isRoot ? /^Uid:\s65534\s/m : /^Uid:\s(?!0\s)/m);
  }
  await run("chmod", "-R", "u+w", folder.path);
});

Deno.test("embedded postgres: the links that a blocked install script left out are made, by several processes at once", async () => {
  await using folder = await createTemporaryFolder();
  const root = join(folder.path, "native");
  await copyWithoutLinks(dirname((await findPostgresInstallation()).binDir), root);
  const names = ["one", "two", "three"];
  const started = await Promise.all(
    names.map((name) => startInPeer({ dataDir: join(folder.path, name), binDir: join(root, "bin") })),
  );
  for (const { url } of started) assert.equal(await query(url, "select 1"), "1");
});

Deno.test("embedded postgres: root without user namespaces runs it as an unprivileged account", async () => {
  await using folder = await createTemporaryFolder();
  const dataDir = join(folder.path, "data");
  await run("chmod", "755", folder.path);
  // Without unshare on the PATH the namespace cannot be had; chown is reached by its full path's folder.
  const bin = join(folder.path, "bin");
  await mkdir(bin);
  const { url, pid } = await startInPeer({ dataDir }, { env: { PATH: bin, TMPDIR: folder.path } });
  assert.equal(await query(url, "select 1"), "1");
  if (process.platform === "linux") {
    assert.doesNotMatch(await readFile(`/proc/${pid}/status`, "utf8"), /^Uid:\s0\s/m);
  }
  await killServer(dataDir);
  // With the namespace back, the data still belongs to the account that made it.
  const next = await startEmbeddedPostgres({ dataDir });
  assert.equal(await query(next.url, "select 1"), "1");
});

Deno.test("embedded postgres: where it cannot be had, one error says why and names DATABASE_URL", async () => {
  await using folder = await createTemporaryFolder();
  const dataDir = join(folder.path, "data");
  const refused = (why: RegExp) => (error: unknown) => {
    assert.ok(error instanceof EmbeddedPostgresError);
    assert.match(error.message, why);
    assert.match(error.message, /set DATABASE_URL=postgres:/);
    return true;
  };
  await assert.rejects(
    findPostgresInstallation(undefined, { platform: "win32", arch: "x64" }),
    refused(/no PostgreSQL binaries for win32-x64, only for linux-x64/),
  );
  await assert.rejects(
    startEmbeddedPostgres({ dataDir, binDir: join(folder.path, "nothing") }),
    refused(/nothing\/initdb does not exist\. binDir must name/),
  );
  await assert.rejects(
    startEmbeddedPostgres({ dataDir, settings: { shared_buffers: "plenty" } }),
    refused(/did not start:[^]*shared_buffers[^]*plenty/),
  );
  await assert.rejects(
    startEmbeddedPostgres({ dataDir: "/dev/null/data" }),
    refused(/\/dev\/null/),
  );
});

/** What an installation looks like whose install script was blocked. */
async function copyWithoutLinks(from: string, to: string): Promise<void> {
  await cp(from, to, { recursive: true, verbatimSymlinks: true });
  await run("find", to, "-type", "l", "-delete");
}

async function run(program: string, ...args: string[]): Promise<void> {
  const child = spawn(program, args, { stdio: ["ignore", "ignore", "inherit"] });
  const [code] = await once(child, "exit");
  assert.equal(code, 0, `${program} ${args.join(" ")}`);
}
