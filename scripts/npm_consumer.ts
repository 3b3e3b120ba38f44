/**
 * A stranger's folder: the packed packages installed by npm beside nothing but what a user would install, and the programs that
 * run in it.
 *
 * @module
 */

import { execFile } from "node:child_process";
import { copyFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";

/** A runtime that the packages are tested on. */
export interface NpmRuntime {
  /** For people. */
  readonly name: string;
  /** The npm package that holds it, with its version. */
  readonly specifier: string;
  /** The path of its program. */
  readonly program: string;
}

/** Compiler options of a consumer who is as strict as can be, and checks our declarations, too. */
const STRICT = {
  strict: true,
  exactOptionalPropertyTypes: true,
  noUncheckedIndexedAccess: true,
  noPropertyAccessFromIndexSignature: true,
  skipLibCheck: false,
  noEmit: true,
  target: "es2022",
  lib: ["es2022"],
  types: ["node"],
};

/** The ways to resolve imports that applications use, and a compiler for each. */
const RESOLUTIONS = {
  nodenext: { compiler: "typescript", options: { module: "nodenext", moduleResolution: "nodenext" } },
  bundler: { compiler: "typescript-native", options: { module: "esnext", moduleResolution: "bundler" } },
} as const;

/** What a consumer compiles with: two major versions of TypeScript, and the types of the oldest Node and of its driver. */
export const CONSUMER_TOOLS: readonly string[] = [
  "typescript@6.0.3",
  "typescript-native@npm:typescript@7.0.2",
  "@types/node@20.19.25",
  "@types/pg@8.23.1",
];

/**
 * Installs packages in an empty folder, which becomes an application of ECMAScript modules.
 *
 * @param folder The folder.
 * @param packages Paths of tarballs, and names with versions.
 */
export async function installConsumer(folder: string, packages: readonly string[]): Promise<void> {
  await writeFile(join(folder, "package.json"), JSON.stringify({ private: true, type: "module" }));
  await run(folder, "npm", ["install", "--ignore-scripts", "--no-package-lock", "--loglevel=error", ...packages]);
}

/**
 * Finds a runtime, which npm fetches if it is not there.
 *
 * @param name For people.
 * @param specifier The npm package, with its version.
 * @param folder Where to run npm.
 * @returns The runtime; undefined if it does not run on this machine.
 */
export async function findRuntime(name: string, specifier: string, folder: string): Promise<NpmRuntime | undefined> {
  try {
    const output = await run(folder, "npx", ["-y", specifier, "-p", "process.execPath"]);
    const program = output.trim().split("\n").at(-1) ?? "";
    return { name, specifier, program };
  } catch {
    return undefined;
  }
}

/**
 * Compiles a program against the declarations of the installed packages, strictly, in each way to resolve imports.
 *
 * @param folder The folder with the packages and {@linkcode CONSUMER_TOOLS}.
 * @param source The program.
 * @returns What is wrong, by resolution; empty if nothing is.
 */
export async function compileConsumer(folder: string, source: string): Promise<ReadonlyMap<string, string>> {
  await copyFile(source, join(folder, "consumer.ts"));
  const problems = new Map<string, string>();
  for (const [name, { compiler, options }] of Object.entries(RESOLUTIONS)) {
    const config = join(folder, `tsconfig.${name}.json`);
    const text = JSON.stringify({ compilerOptions: { ...STRICT, ...options }, files: ["consumer.ts"] });
    await writeFile(config, text);
    const tsc = join(folder, "node_modules", compiler, "bin", "tsc");
    await run(folder, "node", [tsc, "-p", config]).catch((error: unknown) => {
      problems.set(name, error instanceof Error ? String((error as { stdout?: string }).stdout) : String(error));
    });
  }
  return problems;
}

/**
 * Takes the program out of a section of a page.
 *
 * @param page The page.
 * @param heading The section's heading.
 * @param language The language of the block.
 * @returns The first such block of the section.
 * @throws {Error} There is none.
 */
export function programOf(page: string, heading: string, language: string): string {
  const section = page.split(/^## /m).find((part) => part.startsWith(`${heading}\n`)) ?? "";
  const program = new RegExp("^```" + language + "\\n([^]*?)^```$", "m").exec(section)?.[1];
  if (program === undefined) throw new Error(`The section "${heading}" has no program in ${language}.`);
  return program;
}

/** How a program ended. */
export interface ProgramEnd {
  /** The exit code, or the signal that ended it. */
  readonly end: number | string;
  /** What it printed. */
  readonly output: string;
}

/**
 * Runs a program until it prints a text, sends it SIGTERM, and waits for its end.
 *
 * @param runtime What runs it.
 * @param script Its path.
 * @param options Its environment, and the text.
 * @returns How it ended.
 */
export async function stopAfter(
  { program }: NpmRuntime,
  script: string,
  options: { readonly env: Readonly<Record<string, string>>; readonly text: string; readonly cwd: string },
): Promise<ProgramEnd> {
  // Not node:child_process, by which Deno says of whatever was sent a signal that the signal ended it.
  const child = new Deno.Command(program, {
    args: [script],
    cwd: options.cwd,
    env: options.env,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const deadline = setTimeout(() => child.kill("SIGKILL"), 60_000);
  let output = "";
  const listen = async (stream: ReadableStream<Uint8Array>) => {
    for await (const text of stream.pipeThrough(new TextDecoderStream())) {
      const isNew = !output.includes(options.text);
      output += text;
      if (isNew && output.includes(options.text)) child.kill("SIGTERM");
    }
  };
  try {
    const [{ code, signal }] = await Promise.all([child.status, listen(child.stdout), listen(child.stderr)]);
    return { end: signal ?? code, output };
  } finally {
    clearTimeout(deadline);
  }
}

async function run(cwd: string, program: string, args: readonly string[]): Promise<string> {
  const { stdout } = await promisify(execFile)(program, args, { cwd, maxBuffer: 64 * 1024 * 1024 });
  return stdout;
}
