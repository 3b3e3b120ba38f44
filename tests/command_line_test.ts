/**
 * The command line: what it prints for people and for programs, its exit codes, and what it never prints.
 *
 * @module
 */

import { runCommandLine } from "@runledger/cli";
import { newId } from "@runledger/core";
import * as runledger from "@runledger/postgres";
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { claimOne, jobIn, openTestDatabase, request } from "./support/database.ts";
import { runRolesScript } from "./support/roles.ts";

/** What a command line printed, and how it ended. */
interface Ended {
  readonly code: number;
  readonly out: string;
  readonly error: string;
}

async function run(
  args: readonly string[],
  where: {
    readonly url?: string;
    readonly isTerminal?: boolean;
    readonly variables?: Readonly<Record<string, string>>;
    readonly signal?: AbortSignal;
    readonly onWrite?: (text: string) => void;
  },
): Promise<Ended> {
  let out = "";
  let error = "";
  const code = await runCommandLine(args, {
    variables: { ...(where.url === undefined ? {} : { DATABASE_URL: where.url }), ...where.variables },
    write: (text) => {
      out += text;
      where.onWrite?.(text);
    },
    writeError: (text) => void (error += text),
    isTerminal: where.isTerminal ?? false,
    ...(where.signal === undefined ? {} : { signal: where.signal }),
  });
  return { code, out, error };
}

// deno-lint-ignore no-control-regex
const ESCAPE = /\x1b/;

Deno.test("status tells what is queued and who is at work, in a table or as JSON", async () => {
  await using database = await openTestDatabase();
  const { sql, url } = database;
  await runledger.enqueueJobs(sql, [request(), request(), request({ jobType: "b" })]);
  await claimOne(sql, { jobTypes: ["b"] });
  await runledger.setJobDefinitionEnabled(sql, "b", { isEnabled: false });
  const { code, out } = await run(["status"], { url });
  assert.equal(code, 0);
  assert.match(out, /^a +2 /m);
  assert.match(out, /^w +1 /m);
  assert.match(out, /^dead letters: 0$/m);
  assert.match(out, /^disabled types: b$/m);
  assert.doesNotMatch(out, ESCAPE);
  assert.match((await run(["status"], { url, isTerminal: true })).out, ESCAPE);
  assert.doesNotMatch((await run(["status"], { url, isTerminal: true, variables: { NO_COLOR: "1" } })).out, ESCAPE);
  assert.doesNotMatch((await run(["status", "--no-color"], { url, isTerminal: true })).out, ESCAPE);
  const told = JSON.parse((await run(["status", "--json", "--type", "a"], { url, isTerminal: true })).out);
  assert.deepEqual(told.types.map(({ jobType, due }: { jobType: string; due: number }) => [jobType, due]), [["a", 2]]);
  assert.deepEqual(told.disabledTypes, ["b"]);
});

Deno.test("inspect explains a job with its attempts and logs, and a run with its graph", async () => {
  await using database = await openTestDatabase();
  const { sql, url } = database;
  const { jobId, lease } = await jobIn(sql, "LEASED", { payload: { secret: "s3cret" } });
  assert(lease !== undefined);
  await runledger.appendJobLogs(sql, [{ lease, level: "warn", message: "half of it is missing" }]);
  const failure = { kind: "TERMINAL", code: "app.broken", message: "\x1b[2Jno\u202e" } as const;
  await runledger.settleJob(sql, lease, { kind: "failed", failure });
  const { code, out } = await run(["inspect", jobId], { url, isTerminal: true });
  assert.equal(code, 0);
  for (const part of ["It failed for good", "app.broken", "half of it is missing", "DEAD_LETTERED", "TERMINAL"]) {
    assert(out.includes(part), part);
  }
  assert(!out.includes("s3cret"), "payloads are shown when asked for");
  assert(!out.includes("\x1b[2J") && !out.includes("\u202e"), "what is stored does not steer the terminal");
  assert((await run(["inspect", jobId, "--payload"], { url })).out.includes("s3cret"));
  const json = (await run(["inspect", jobId, "--json"], { url })).out;
  const told = JSON.parse(json);
  assert.equal(told.explanation.kind, "dead_lettered");
  assert.equal(told.attempts[0].errorMessage, failure.message, "escaped, and still the same");
  assert(!json.includes("\u202e") && !json.includes("s3cret"));

  const { runId } = await runledger.enqueueWorkflowRun(sql, {
    workflowType: "w",
    metadata: null,
    steps: [
      { executionKind: "EXTERNAL", stepKey: "approval", payload: 1, dependencies: [] },
      {
        executionKind: "JOB",
        stepKey: "notify",
        jobType: "a",
        payload: 1,
        dependencies: [{ prerequisiteStepKey: "approval", releaseMode: "ON_SUCCESS" }],
      },
    ],
  });
  const drawn = (await run(["inspect", runId], { url })).out;
  assert(drawn.includes("It waits for 1 gate to be completed."));
  assert(drawn.includes("└─ [ ] notify"));
  assert.equal(JSON.parse((await run(["inspect", runId, "--json"], { url })).out).kind, "waiting_for_gates");

  const missing = await run(["inspect", newId()], { url });
  assert.deepEqual([missing.code, missing.out], [4, ""]);
  assert.equal((await run(["inspect", jobId, "--organization", newId()], { url })).code, 4);
  assert.equal((await run(["inspect", jobId, "--global"], { url })).code, 0);
});

Deno.test("tail prints each event once, the newest first and then as they come, until it is stopped", async () => {
  await using database = await openTestDatabase();
  const { sql, url } = database;
  await runledger.enqueueJobs(sql, [request(), request(), request({ jobType: "b" })]);
  const some = await run(["tail", "--no-follow", "--lines", "2"], { url });
  assert.equal(some.code, 0);
  assert.equal(some.out.trimEnd().split("\n").length, 2);
  const controller = new AbortController();
  const started = Promise.withResolvers<void>();
  const printed = Promise.withResolvers<void>();
  let text = "";
  const tail = run(["tail", "--json", "--type", "a"], {
    url,
    signal: controller.signal,
    onWrite: (line) => {
      text += line;
      started.resolve();
      if (text.includes("SUCCEEDED")) printed.resolve();
    },
  });
  await started.promise;
  await runledger.settleJob(sql, await claimOne(sql, { jobTypes: ["a"] }), { kind: "succeeded" });
  await printed.promise;
  controller.abort();
  const { code, out } = await tail;
  assert.equal(code, 0);
  const events = out.trimEnd().split("\n").map((line) => JSON.parse(line));
  assert.deepEqual(events.map(({ eventType }) => eventType), ["ENQUEUED", "ENQUEUED", "LEASED", "SUCCEEDED"]);
});

Deno.test("doctor says by its exit code whether something is wrong, and what can be ignored", async () => {
  await using database = await openTestDatabase({ checks: false });
  const { sql, url } = database;
  await runRolesScript(url);
  const healthy = await run(["doctor"], { url });
  assert.deepEqual(healthy, { code: 0, out: "nothing is wrong\n", error: "" });
  await sql`revoke all on all functions in schema runledger from runledger_worker`;
  const warned = await run(["doctor"], { url });
  assert.equal(warned.code, 1);
  assert.match(warned.out, /^warning {2}grants_missing\n.*\n.*fix: Run docs\/roles.sql/);
  assert.equal((await run(["doctor", "--ignore", "grants_missing"], { url })).code, 0);
  await sql`drop index runledger.job_queue_lease_index`;
  const broken = await run(["doctor", "--json"], { url });
  assert.equal(broken.code, 2);
  assert.deepEqual(
    JSON.parse(broken.out).findings.map(({ code }: { code: string }) => code),
    ["object_missing"],
  );
});

Deno.test("mistakes are told in words, and no error holds a password, a host's answer or SQL", async () => {
  const url = "postgres://ada:s3cret@127.0.0.1:1/nowhere";
  const usage: readonly (readonly [readonly string[], string | undefined])[] = [
    [[], url],
    [["nonsense"], url],
    [["status", "extra"], url],
    [["status", "--nonsense=s3cret"], url],
    [["inspect"], url],
    [["inspect", "no-id"], url],
    [["inspect", newId(), newId()], url],
    [["tail", "--lines", "0"], url],
    [["status", "--organization", "x"], url],
    [["status", "--organization", newId(), "--global"], url],
    [["status"], undefined],
    [["status"], ""],
    [["status"], "s3cret not a url"],
    [["status"], "mysql://ada:s3cret@localhost/x"],
  ];
  for (const [args, databaseUrl] of usage) {
    const ended = await run(args, databaseUrl === undefined ? {} : { url: databaseUrl });
    assert.equal(ended.code, 64, args.join(" "));
    assert.equal(ended.out, "");
    assert.match(ended.error, /^[A-Z'].*\n\nusage: runledger/);
    assert(!ended.error.includes("s3cret"), ended.error);
  }
  for (const command of ["status", "tail", "doctor", "inspect"]) {
    const args = command === "inspect" ? [command, newId()] : [command];
    const ended = await run(args, { url });
    assert.equal(ended.code, 3, command);
    assert.match(ended.error, /^db\.unavailable: /);
    assert(!/s3cret|127\.0\.0\.1|select/.test(ended.error), ended.error);
  }
  assert.equal((await run(["help"], {})).code, 0);
  assert.match((await run(["--help"], {})).out, /^usage: runledger/);
});

Deno.test("the program is the same on the outside: it reads DATABASE_URL and exits with the code", async () => {
  await using database = await openTestDatabase();
  const program = async (args: readonly string[], env: Readonly<Record<string, string>>) => {
    const path = fileURLToPath(new URL("../cli/main.ts", import.meta.url));
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "--allow-net", "--allow-env", "--allow-read", "--allow-sys", path, ...args],
      env,
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn().output();
    return { code, out: new TextDecoder().decode(stdout), error: new TextDecoder().decode(stderr) };
  };
  const status = await program(["status"], { DATABASE_URL: database.url });
  assert.deepEqual([status.code, status.error], [0, ""]);
  assert.match(status.out, /dead letters: 0/);
  assert.equal((await program(["nonsense"], { DATABASE_URL: database.url })).code, 64);
});
