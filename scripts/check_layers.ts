/**
 * Checks the architecture's arrow, core <- postgres <- runtime, on the real module graph, and that the published packages run
 * where there is neither Deno nor Node.
 *
 * Run: `deno task layers`. The exit code is 1 when a rule is broken.
 *
 * @module
 */

import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { fileURLToPath, pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { readSourceTokens } from "./source_tokens.ts";

/** What the modules of a package may do. Tests of a package may do anything. */
interface LayerRule {
  /** The package's folder. */
  readonly folder: string;
  /** Other packages of the workspace that it may import. */
  readonly packages: readonly string[];
  /** npm packages it may import, each with the modules that may. */
  readonly npm: Readonly<Record<string, RegExp>>;
  /** npm packages it may import types from. */
  readonly npmTypes: readonly string[];
  /** May import `node:` modules while it runs, never as it is loaded. */
  readonly nodeAtCallTime: boolean;
  /** Names of a runtime that its code must not contain. */
  readonly forbiddenNames: readonly string[];
  /** May hold SQL. */
  readonly sql: boolean;
}

const RULES: readonly LayerRule[] = [
  {
    folder: "core",
    packages: [],
    npm: {},
    npmTypes: [],
    nodeAtCallTime: false,
    forbiddenNames: ["Deno", "Bun", "process", "Buffer"],
    sql: false,
  },
  {
    folder: "postgres",
    packages: ["core"],
    npm: { croner: /schedule/ },
    npmTypes: ["postgres", "pg", "@types/pg", "@electric-sql/pglite"],
    nodeAtCallTime: false,
    forbiddenNames: ["Deno", "Bun", "process", "Buffer"],
    sql: true,
  },
  {
    folder: "runtime",
    packages: ["core", "postgres"],
    npm: { zod: /./ },
    npmTypes: ["postgres"],
    nodeAtCallTime: true,
    forbiddenNames: [],
    sql: false,
  },
];

/** A statement, not a sentence that happens to begin with such a word. */
const SQL = new RegExp(
  [
    "^\\s*(select\\s|insert\\s+into\\s|update\\s+\\S+\\s+(as\\s+\\w+\\s+)?set\\s|delete\\s+from\\s)",
    "^\\s*with\\s+(recursive\\s+)?\\w+\\s*(\\([^)]*\\)\\s*)?as\\s+(not\\s+)?(materialized\\s+)?\\(",
    "\\b(from|join|into|update)\\s+runledger\\.",
  ].join("|"),
);

/** A module as `deno info --json` describes it. */
interface GraphModule {
  readonly specifier: string;
  readonly error?: string;
  readonly dependencies?: readonly GraphDependency[];
}

interface GraphDependency {
  readonly specifier: string;
  /** There when the import remains after compilation. */
  readonly code?: { readonly specifier?: string; readonly error?: string };
  /** Alone when only types are imported. */
  readonly type?: { readonly specifier?: string; readonly error?: string };
  readonly isDynamic?: boolean;
}

/**
 * Checks every module of the three packages.
 *
 * @param root The workspace's folder, with a slash at its end.
 * @returns One line for every broken rule; empty when all hold.
 */
export async function checkLayers(root: URL): Promise<readonly string[]> {
  const violations: string[] = [];
  for (const rule of RULES) {
    const folder = new URL(`${rule.folder}/`, root);
    if (!existsSync(folder)) continue;
    const files = await sourceFiles(folder);
    const modules = await readGraph(root, files);
    for (const module of modules.values()) {
      const name = moduleName(module.specifier, root);
      if (module.error !== undefined) violations.push(`${name}: ${module.error}`);
      if (!name.startsWith(`${rule.folder}/`)) continue;
      for (const dependency of module.dependencies ?? []) {
        const problem = importProblem(rule, root, name, dependency);
        if (problem !== undefined) violations.push(`${name}: ${problem}`);
      }
    }
    for (const file of files) {
      const name = moduleName(file, root);
      const source = await readFile(new URL(file), "utf8");
      const seen = modules.get(file)?.dependencies?.map(({ specifier }) => specifier) ?? [];
      violations.push(...sourceProblems(rule, source, seen).map((problem) => `${name}: ${problem}`));
    }
  }
  return violations;
}

function importProblem(rule: LayerRule, root: URL, importer: string, imported: GraphDependency): string | undefined {
  const target = (imported.code ?? imported.type)?.specifier ?? imported.specifier;
  if (target.startsWith("node:")) {
    if (rule.nodeAtCallTime && imported.isDynamic === true) return undefined;
    return `imports ${target}, so it runs in Node only`;
  }
  if (target.startsWith("file:")) {
    const folder = moduleName(target, root).split("/")[0] ?? "";
    if (folder === rule.folder || rule.packages.includes(folder)) return undefined;
    return `imports ${moduleName(target, root)}; ${rule.folder} may import ${sentenceList(rule.packages)}`;
  }
  const name = /^npm:\/?((?:@[^/]+\/)?[^@/]+)/.exec(target)?.[1];
  if (name === undefined) return `imports ${target}`;
  if (rule.npm[name]?.test(importer) === true) return undefined;
  if (!rule.npmTypes.includes(name)) return `imports the npm package ${name}`;
  return imported.code === undefined ? undefined : `imports more than types from ${name}; write "import type"`;
}

/** @param seen The imports that the graph has, which are not reported twice. */
function sourceProblems(rule: LayerRule, source: string, seen: readonly string[]): readonly string[] {
  const { code, texts } = readSourceTokens(source);
  const problems: string[] = [];
  for (const name of rule.forbiddenNames) {
    // As a global: not a property of something, not a name that the module gives to something of its own.
    if (new RegExp(`(?<![.\\w$#])${name}\\s*(\\.|\\[|\\?\\.)`).test(code)) problems.push(`uses ${name}`);
    if (new RegExp(`\\bglobalThis\\s*(\\?\\.|\\.)\\s*${name}\\b`).test(code)) problems.push(`uses globalThis.${name}`);
  }
  for (const text of texts) {
    // An import whose specifier is computed is not in the graph.
    const isSpecifier = /^(node|npm|jsr):[\w@]\S*$/.test(text);
    if (isSpecifier && !rule.nodeAtCallTime && !seen.includes(text)) problems.push(`names the module ${text}`);
    if (!rule.sql && SQL.test(text)) problems.push(`contains SQL: "${text.trim().slice(0, 40)}"`);
  }
  return [...new Set(problems)];
}

async function sourceFiles(folder: URL): Promise<readonly string[]> {
  const names = await readdir(folder, { recursive: true });
  return names
    .filter((name) => /\.(ts|tsx|js|mjs)$/.test(name) && !/_test\.tsx?$/.test(name))
    .sort()
    .map((name) => pathToFileURL(fileURLToPath(new URL(name, folder))).href);
}

/** The modules that can be reached from the files, each once. Usually the first file, mod.ts or an early one, reaches most. */
async function readGraph(root: URL, files: readonly string[]): Promise<ReadonlyMap<string, GraphModule>> {
  const modules = new Map<string, GraphModule>();
  const entriesFirst = [...files].sort((a, b) => Number(b.endsWith("/mod.ts")) - Number(a.endsWith("/mod.ts")));
  for (const file of entriesFirst) {
    if (modules.has(file)) continue;
    const { stdout } = await promisify(execFile)(Deno.execPath(), ["info", "--json", fileURLToPath(file)], {
      cwd: fileURLToPath(root),
      maxBuffer: 64 * 1024 * 1024,
    });
    for (const module of (JSON.parse(stdout) as { readonly modules: readonly GraphModule[] }).modules) {
      modules.set(module.specifier, module);
    }
  }
  return modules;
}

function moduleName(specifier: string, root: URL): string {
  return specifier.startsWith(root.href) ? decodeURI(specifier.slice(root.href.length)) : specifier;
}

function sentenceList(names: readonly string[]): string {
  return names.length === 0 ? "nothing outside itself" : `only ${names.join(" and ")}`;
}

if (import.meta.main) {
  const violations = await checkLayers(new URL("../", import.meta.url));
  for (const violation of violations) console.error(violation);
  if (violations.length > 0) Deno.exitCode = 1;
}
