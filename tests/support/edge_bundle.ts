/**
 * Bundles for edge runtimes, made as their users make them: by esbuild, minified, with the conditions of workerd.
 *
 * @module
 */

import { mkdir, readFile, symlink } from "node:fs/promises";
import { createRequire, isBuiltin } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { createTemporaryFolder } from "../../test_support/_temporary_folder.ts";
// Only the tests of the edge bundle anything.
import { build, stop } from "npm:esbuild@0.28.2";
import type { ImportKind, OnResolveArgs, OnResolveResult, Plugin, PluginBuild } from "npm:esbuild@0.28.2";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));

/** The process that does the work stays until it is told to end. */
export async function stopBundler(): Promise<void> {
  await stop();
}

/**
 * Makes one minified module of a program and all that it imports.
 *
 * @param source The text of the program.
 * @returns The module's text.
 */
export async function bundleForEdge(source: string): Promise<string> {
  await using folder = await createTemporaryFolder();
  const { outputFiles } = await build({
    stdin: { contents: source, loader: "ts", resolveDir: ROOT, sourcefile: join(ROOT, "tests/edge/entry.ts") },
    bundle: true,
    minify: true,
    write: false,
    format: "esm",
    target: "es2022",
    conditions: ["workerd", "worker", "browser"],
    tsconfigRaw: {},
    logLevel: "silent", // what is wrong is in the error
    plugins: [denoPackages(folder.path)],
  });
  return outputFiles[0]?.text ?? "";
}

/** Finds packages where Deno has them: those of the workspace in their folders, those of npm in its cache. */
function denoPackages(folder: string): Plugin {
  const links = new Map<string, Promise<void>>();
  return {
    name: "packages of Deno",
    setup(bundler) {
      // Modules of ours are as the package.json of each package says: one that nothing is used of is left out.
      bundler.onResolve({ filter: /^@runledger\// }, ({ path }) => ({
        path: fileURLToPath(import.meta.resolve(path)),
        sideEffects: false,
      }));
      bundler.onResolve({ filter: /^\.\.?\/.*\.ts$/ }, ({ path, resolveDir }) => ({
        path: join(resolveDir, path),
        sideEffects: false,
      }));
      bundler.onResolve({ filter: /^[^./]/ }, ({ path, kind, importer, pluginData }) => {
        if (pluginData === LINKED) return undefined;
        if (EXTERNAL.test(path)) return { path, external: true };
        if (isBuiltin(path)) return resolveBuiltin(path, kind);
        return resolveLinked(bundler, { path, kind, importer }, folder, links);
      });
      // A module of Node has no `require` at the edge, so the old form of a package gets it by an import.
      bundler.onLoad({ filter: /^/, namespace: REQUIRED }, ({ path }) => ({
        contents: `import builtin from ${JSON.stringify(path)}; module.exports = builtin;`,
      }));
    },
  };
}

/** What workerd has itself, and what pg only tries to load. */
const EXTERNAL = /^cloudflare:|^pg-native$/;

/** Marks a question that this plugin asked itself. */
const LINKED = Symbol("linked");

/** Holds the modules of Node that packages ask for by `require`. */
const REQUIRED = "required";

function resolveBuiltin(name: string, kind: ImportKind): OnResolveResult {
  const path = name.startsWith("node:") ? name : `node:${name}`;
  return kind === "require-call" ? { path, namespace: REQUIRED } : { path, external: true };
}

/** There is no `node_modules`: a link to the package makes one, and esbuild then heeds the package's own exports. */
async function resolveLinked(
  bundler: PluginBuild,
  { path, kind, importer }: Pick<OnResolveArgs, "path" | "kind" | "importer">,
  folder: string,
  links: Map<string, Promise<void>>,
): Promise<OnResolveResult> {
  const name = path.split("/").slice(0, path.startsWith("@") ? 2 : 1).join("/");
  let link = links.get(name);
  if (link === undefined) links.set(name, link = linkPackage(name, importer, folder));
  await link;
  return await bundler.resolve(path, { kind, resolveDir: folder, pluginData: LINKED });
}

async function linkPackage(name: string, importer: string, folder: string): Promise<void> {
  const link = join(folder, "node_modules", name);
  await mkdir(dirname(link), { recursive: true });
  await symlink(await packageFolder(createRequire(pathToFileURL(importer)).resolve(name), name), link);
}

async function packageFolder(file: string, name: string): Promise<string> {
  for (let folder = dirname(file); folder !== dirname(folder); folder = dirname(folder)) {
    const text = await readFile(join(folder, "package.json"), "utf8").catch(() => "{}");
    if (JSON.parse(text).name === name) return folder;
  }
  throw new Error(`${file} is in no package named ${name}`);
}
