/**
 * The tests of the workspace as modules for Node, laid out so that they test packages that were installed by npm: a test that
 * lies beside its module goes into the package's folder, all others beside `node_modules`.
 *
 * @module
 */

import { existsSync, statSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { dirname, join, relative, resolve } from "node:path";
import { pathToFileURL } from "node:url";
// Not in the import map: only the npm build needs it.
import ts from "npm:typescript@6.0.3";
import { importedPackages } from "./npm_package.ts";
import type { PublishedMember } from "./npm_package.ts";

/** Where tests come from and go to. */
export interface TestLayout {
  /** The workspace's folder. */
  readonly root: string;
  /** The folder with the `node_modules` that the packages are in. */
  readonly target: string;
  /** The folder that the packages were built in. */
  readonly built: string;
  /** The packages. */
  readonly members: readonly PublishedMember[];
}

const SHIM = "tests/node/deno_on_node.ts";

/**
 * Finds test files.
 *
 * @param root The workspace's folder.
 * @param folders Where to look, not below them.
 * @returns Paths from the workspace's folder.
 */
export async function findTestFiles(root: string, folders: readonly string[]): Promise<readonly string[]> {
  const found: string[] = [];
  for (const folder of folders) {
    for (const name of (await readdir(join(root, folder))).sort()) {
      if (name.endsWith("_test.ts")) found.push(`${folder}/${name}`);
    }
  }
  return found;
}

/** The tests as they are run. */
export interface CompiledTests {
  /** The text of each module, by the path that it goes to. */
  readonly modules: ReadonlyMap<string, string>;
  /** The npm packages that they import by a name of the import map. */
  readonly imported: readonly string[];
  /** Those that they import with a version, as npm installs them: `kysely@0.28.18`. */
  readonly versioned: readonly string[];
}

/**
 * Compiles modules for Node, and all that they import or start.
 *
 * @param layout Where from and where to.
 * @param paths Paths from the workspace's folder.
 * @returns The modules. They may be written when the packages are installed, which deletes what it does not know.
 */
export async function compileTestFiles(layout: TestLayout, paths: readonly string[]): Promise<CompiledTests> {
  const modules = new Map<string, string>();
  const specifiers: string[] = [];
  const versioned = new Set<string>();
  const waiting = [...paths, SHIM];
  for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) {
    const target = targetOf(layout, path);
    if (modules.has(target)) continue;
    const { text, references, packages } = transpile(layout, path, await readFile(join(layout.root, path), "utf8"));
    modules.set(target, text);
    for (const name of packages) versioned.add(name);
    specifiers.push(...ts.preProcessFile(text, true, true).importedFiles.map(({ fileName }) => fileName));
    // What is in a package is there already: it must not be written over.
    waiting.push(
      ...references.filter((reference) => !existsSync(join(layout.built, reference.replace(/\.ts$/, ".js")))),
    );
  }
  return { modules, imported: importedPackages(specifiers), versioned: [...versioned] };
}

/** Where a module of the workspace is, or goes. */
export function targetOf({ target, members }: TestLayout, path: string): string {
  const member = members.find(({ folder }) => path.startsWith(`${folder}/`));
  const place = member === undefined ? path : `node_modules/${member.name}/${path.slice(member.folder.length + 1)}`;
  return join(target, place.replace(/\.ts$/, ".js"));
}

/**
 * Makes one module. Its references are those files of the workspace that it names by a path from itself; its packages those
 * that it imports as `npm:NAME@VERSION`.
 */
function transpile(
  layout: TestLayout,
  path: string,
  source: string,
): { readonly text: string; readonly references: readonly string[]; readonly packages: readonly string[] } {
  const from = dirname(targetOf(layout, path));
  const references = new Set<string>();
  const packages = new Set<string>();
  /** What a path from the source's folder is called from the target's; undefined if there is no such file. */
  const rename = (specifier: string): string | undefined => {
    const file = resolve(layout.root, dirname(path), specifier);
    if (!existsSync(file)) return undefined;
    if (!file.endsWith(".ts")) return pathToFileURL(file).href + (statSync(file).isDirectory() ? "/" : "");
    const reference = relative(layout.root, file);
    references.add(reference);
    return `./${relative(from, targetOf(layout, reference))}`;
  };
  const renamePaths = (context: ts.TransformationContext) => {
    const visit = (node: ts.Node): ts.Node => {
      if (isMetaProperty(node, "main")) {
        return context.factory.createCallExpression(context.factory.createIdentifier("isMainModule"), undefined, [
          context.factory.createIdentifier("import.meta.url"),
        ]);
      }
      if (ts.isStringLiteral(node) && (isModulePath(node) || isPathFromHere(node))) {
        const renamed = rename(node.text);
        if (renamed !== undefined) return context.factory.createStringLiteral(renamed);
      }
      const versioned = ts.isStringLiteral(node) ? /^npm:((?:@[^/]+\/)?[^@/]+)(@[^/]+)(.*)$/.exec(node.text) : null;
      if (versioned !== null && isImported(node)) {
        const [, name = "", version = "", rest = ""] = versioned;
        packages.add(name + version);
        return context.factory.createStringLiteral(name + rest);
      }
      return ts.visitEachChild(node, visit, context);
    };
    return (file: ts.SourceFile) => ts.visitEachChild(file, visit, context);
  };
  const { outputText } = ts.transpileModule(source, {
    fileName: path,
    compilerOptions: {
      target: ts.ScriptTarget.ES2022,
      module: ts.ModuleKind.ESNext,
      verbatimModuleSyntax: true,
      inlineSourceMap: true,
    },
    transformers: { before: [renamePaths] },
  });
  const shim = `./${relative(from, targetOf(layout, SHIM))}`;
  const head = `import { denoOnNode as Deno, isMainModule } from ${JSON.stringify(shim)};\n`;
  const wantsShim = path !== SHIM && /\bDeno\.|\bisMainModule\b|withResolvers/.test(outputText);
  return { text: wantsShim ? head + outputText : outputText, references: [...references], packages: [...packages] };
}

function isMetaProperty(node: ts.Node, name: string): boolean {
  return ts.isPropertyAccessExpression(node) && ts.isMetaProperty(node.expression) && node.name.text === name;
}

function isModulePath(node: ts.StringLiteral): boolean {
  return /^\.\.?\//.test(node.text) && isImported(node);
}

/** Of an import, an export or a dynamic import. */
function isImported({ parent }: ts.Node): boolean {
  return ts.isImportDeclaration(parent) || ts.isExportDeclaration(parent) || ts.isCallExpression(parent);
}

/** The first argument of `new URL(..., import.meta.url)`. */
function isPathFromHere(node: ts.StringLiteral): boolean {
  const { parent } = node;
  if (!ts.isNewExpression(parent) || parent.expression.getText() !== "URL") return false;
  return parent.arguments?.[0] === node && parent.arguments[1]?.getText() === "import.meta.url";
}
