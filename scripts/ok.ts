/**
 * Everything that must hold before a change is merged, one line a gate, with details only of what failed.
 *
 * Run: `deno task ok`, or `deno task ok --no-tests` for all that needs no database.
 *
 * @module
 */

import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";

/** A command that must end with code 0. */
interface Gate {
  readonly name: string;
  readonly args: readonly string[];
}

if (import.meta.main) Deno.exitCode = await runGates(!Deno.args.includes("--no-tests"));

async function runGates(withTests: boolean): Promise<number> {
  const gates: readonly Gate[] = [
    { name: "format", args: ["fmt", "--check"] },
    { name: "lint", args: ["lint"] },
    { name: "types", args: ["check", "."] },
    { name: "api docs", args: ["doc", "--lint", ...await entryPoints()] },
    { name: "layers", args: ["run", "--allow-all", "scripts/check_layers.ts"] },
    { name: "locks", args: ["run", "--allow-read", "scripts/check_locks.ts"] },
    { name: "migrations", args: ["run", "--allow-read", "scripts/embed_migrations.ts", "--check"] },
    { name: "error docs", args: ["run", "--allow-read", "scripts/write_error_docs.ts", "--check"] },
    { name: "state docs", args: ["run", "--allow-read", "scripts/write_state_docs.ts", "--check"] },
    { name: "front door", args: ["run", "--allow-all", "scripts/write_front_door.ts", "--check"] },
    { name: "docs code", args: ["task", "docs:check"] },
    { name: "npm build", args: ["run", "--allow-all", "scripts/build_npm.ts"] },
    { name: "publish", args: ["publish", "--dry-run", "--allow-dirty"] },
    ...(withTests ? [{ name: "tests", args: ["run", "--allow-all", "scripts/run_tests.ts"] }] : []),
  ];
  let failures = 0;
  for (const { name, args } of gates) {
    const started = performance.now();
    const { code, output } = await runDeno(args);
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    const remark = name === "tests" ? output.trimEnd().split("\n").at(-1) : "";
    console.log(`${code === 0 ? "ok  " : "FAIL"}  ${name.padEnd(12)} ${seconds.padStart(6)} s  ${remark}`.trimEnd());
    if (code === 0) continue;
    failures++;
    console.log(output.trimEnd().replaceAll(/^/gm, "      "));
  }
  console.log(failures === 0 ? "all gates passed" : `${failures} of ${gates.length} gates failed`);
  return failures === 0 ? 0 : 1;
}

/** The modules that users import: what each member of the workspace exports, and the front door. */
async function entryPoints(): Promise<readonly string[]> {
  const { workspace } = JSON.parse(await readFile("deno.json", "utf8")) as { readonly workspace: readonly string[] };
  const entries = existsSync("mod.ts") ? ["mod.ts"] : [];
  for (const member of workspace) {
    const { exports } = JSON.parse(await readFile(`${member}/deno.json`, "utf8")) as {
      readonly exports: string | Readonly<Record<string, string>>;
    };
    const paths = typeof exports === "string" ? [exports] : Object.values(exports);
    entries.push(...paths.map((path) => `${member}/${path.replace(/^\.\//, "")}`));
  }
  return entries;
}

function runDeno(args: readonly string[]): Promise<{ code: number; output: string }> {
  const env = { ...Deno.env.toObject(), NO_COLOR: "1" };
  const child = spawn(Deno.execPath(), args, { stdio: ["ignore", "pipe", "pipe"], env });
  let output = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => output += text);
  child.stderr.setEncoding("utf8").on("data", (text: string) => output += text);
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code) => resolve({ code: code ?? 1, output }));
  });
}
