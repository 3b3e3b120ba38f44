import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { openTestServer } from "../test_support/mod.ts";
import { runPeer } from "../test_support/_peer_process.ts";

Deno.test("published: the packages work when they are loaded over HTTP, as from a registry", async () => {
  const { url: databaseUrl } = await openTestServer();
  const root = new URL("../", import.meta.url);
  const asked: string[] = [];
  const server = createServer((request, response) => {
    // A package lies under its version, so nothing of another one is beside it.
    const path = request.url?.slice(1) ?? "";
    asked.push(path);
    readFile(new URL(path.replace("/0.1.0/", "/"), root)).then(
      (text) => response.setHeader("content-type", "text/typescript").end(text),
      () => response.writeHead(404).end(),
    );
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const { imports } = JSON.parse(await readFile(new URL("deno.json", root), "utf8")) as {
      readonly imports: Readonly<Record<string, string>>;
    };
    const map = {
      imports: {
        ...imports,
        "@runledger/core": `${origin}/core/0.1.0/mod.ts`,
        "@runledger/postgres": `${origin}/postgres/0.1.0/mod.ts`,
        "@runledger/postgres/enqueue": `${origin}/postgres/0.1.0/enqueue.ts`,
        "@runledger/runtime": `${origin}/runtime/0.1.0/mod.ts`,
        "@runledger/test-support": `${origin}/test_support/0.1.0/mod.ts`,
      },
    };
    const program = `
      import { defineJob } from "@runledger/core";
      import { enqueueJob } from "@runledger/postgres/enqueue";
      import { JobCatalog } from "@runledger/runtime";
      import { createTestKit } from "@runledger/test-support";
      const job = defineJob({ type: "remote" });
      await using kit = await createTestKit({ catalog: new JobCatalog().handle(job, () => {}) });
      const { jobId } = await enqueueJob(kit.db, job.request({}));
      console.log(await kit.runUntilIdle().then(() => jobId.length));`;
    const { code, output, errors } = await runPeer(program, {
      env: { RUNLEDGER_TEST_DATABASE_URL: databaseUrl },
      command: [
        ...[Deno.execPath(), "run", "--quiet", "--no-lock", "--no-config", "--allow-all", `--reload=${origin}`],
        `--import-map=data:application/json,${encodeURIComponent(JSON.stringify(map))}`,
      ],
    });
    assert.equal(code, 0, errors);
    assert.equal(output.trim(), "36");
  } finally {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
  assert.ok(asked.includes("test_support/0.1.0/mod.ts") && asked.includes("postgres/0.1.0/_migrations.ts"));
});

Deno.test("published: @runledger/postgres/enqueue brings the drivers and the enqueue statements, and nothing else", () => {
  const root = new URL("../", import.meta.url);
  const args = ["info", "--json", "./postgres/enqueue.ts"];
  const { stdout } = spawnSync(Deno.execPath(), args, { cwd: root, encoding: "utf8" });
  const { modules } = JSON.parse(stdout) as { readonly modules: readonly { readonly specifier: string }[] };
  const outside = modules
    .map(({ specifier }) => specifier.replace(root.href, ""))
    .filter((path) => !path.startsWith("core/"))
    .sort();
  assert.deepEqual(outside, [
    "postgres/_array_text.ts",
    "postgres/_driver.ts",
    "postgres/_driver_pglite.ts",
    "postgres/_driver_postgres_js.ts",
    "postgres/_driver_session.ts",
    "postgres/_errors.ts",
    "postgres/enqueue.ts",
    "postgres/job_enqueue.ts",
    "postgres/queryable.ts",
    "postgres/workflow_enqueue.ts",
  ]);
});
