/**
 * TypeScript's own emit for the npm build: modules, declarations and source maps of all packages in one program.
 *
 * @module
 */

import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
// Not in the import map: only the npm build needs it.
import ts from "npm:typescript@6.0.3";
import type { PublishedMember } from "./npm_package.ts";

/** What is compiled. */
export interface EmitRequest {
  /** The workspace's folder. */
  readonly root: string;
  /** The packages. */
  readonly members: readonly PublishedMember[];
  /** A folder with the node_modules that the packages' imports are resolved in. */
  readonly dependencies: string;
  /** Where to write: a folder for each package, named as its sources' is. */
  readonly target: string;
  /** The compiler options of the workspace. */
  readonly compilerOptions: Readonly<Record<string, unknown>>;
}

/** A module, its declarations or its source map. */
export interface EmittedFile {
  /** The folder of its package. */
  readonly folder: string;
  /** Its path. */
  readonly path: string;
  /** What it imports, as it stands there. A specifier that is computed is not among it. */
  readonly imports: readonly string[];
}

/**
 * What runs on the oldest Node that is supported: the library is that of ES2023 and the few newer parts that Node 20 has, so
 * that the use of anything else is an error here.
 */
const NODE_OPTIONS: ts.CompilerOptions = {
  target: ts.ScriptTarget.ES2022,
  module: ts.ModuleKind.ESNext,
  moduleResolution: ts.ModuleResolutionKind.Bundler,
  lib: [
    "lib.es2023.d.ts",
    "lib.dom.d.ts",
    "lib.dom.iterable.d.ts",
    "lib.es2024.string.d.ts",
    "lib.esnext.disposable.d.ts",
  ],
  types: ["node"],
  declaration: true,
  sourceMap: true,
  inlineSources: true,
  rewriteRelativeImportExtensions: true,
  skipLibCheck: true,
  noEmitOnError: true,
};

/**
 * Compiles the entry points of all packages and what they import, and writes it. Tests are not reached, so they are left out.
 *
 * @param request What to compile.
 * @returns The files that were written.
 * @throws {Error} The sources do not compile for Node; the message has the compiler's.
 */
export async function emitPackages(request: EmitRequest): Promise<readonly EmittedFile[]> {
  const { root, members, target } = request;
  const options: ts.CompilerOptions = {
    ...ts.convertCompilerOptionsFromJson(request.compilerOptions, root).options,
    ...NODE_OPTIONS,
    typeRoots: [join(request.dependencies, "node_modules", "@types")],
    rootDir: root,
    outDir: target,
  };
  const host = ts.createCompilerHost(options);
  host.resolveModuleNameLiterals = (literals, importer) =>
    literals.map(({ text }) => resolveModule(request, text, importer, options));
  const entries = members.flatMap(({ folder, exports }) =>
    Object.values(exports).map((path) => join(root, folder, path))
  );
  const program = ts.createProgram(entries, options, host);
  const files: EmittedFile[] = [];
  const texts = new Map<string, string>();
  const { diagnostics } = program.emit(
    undefined,
    (path, text) => {
      const folder = relative(target, path).split(/[\\/]/)[0] ?? "";
      const isMap = path.endsWith(".map");
      const imports = isMap ? [] : ts.preProcessFile(text, true, true).importedFiles.map(({ fileName }) => fileName);
      files.push({ folder, path, imports });
      texts.set(path, isMap ? renameSource(text) : text);
    },
    undefined,
    false,
    { afterDeclarations: [rewriteDeclarationImports] },
  );
  const problems = ts.sortAndDeduplicateDiagnostics([...ts.getPreEmitDiagnostics(program), ...diagnostics]);
  if (problems.length > 0) throw new Error(`The packages do not compile for Node:\n${render(problems, root)}`);
  for (const [path, text] of texts) {
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, text);
  }
  return files;
}

/** A package of the workspace is its source; all others are looked for in the folder of dependencies. */
function resolveModule(
  { root, members, dependencies }: EmitRequest,
  specifier: string,
  importer: string,
  options: ts.CompilerOptions,
): ts.ResolvedModuleWithFailedLookupLocations {
  for (const { folder, name, exports } of members) {
    if (specifier !== name && !specifier.startsWith(`${name}/`)) continue;
    const path = exports[`.${specifier.slice(name.length)}`];
    if (path === undefined) break;
    return { resolvedModule: { resolvedFileName: join(root, folder, path), extension: ts.Extension.Ts } };
  }
  const isOwn = importer.startsWith(root) && !importer.includes("/node_modules/");
  const from = isOwn && !specifier.startsWith(".") ? join(dependencies, "index.ts") : importer;
  return ts.resolveModuleName(specifier, from, options, ts.sys, undefined, undefined, ts.ModuleKind.ESNext);
}

/** The compiler rewrites `./x.ts` in modules only; in declarations not every resolution accepts it. */
function rewriteDeclarationImports(
  context: ts.TransformationContext,
): ts.Transformer<ts.SourceFile | ts.Bundle> {
  const rename = (node: ts.StringLiteral) =>
    context.factory.createStringLiteral(node.text.replace(/^(\.\.?\/.*)\.ts$/, "$1.js"));
  // Nodes that the compiler made up have no parent, so each visit is told of it.
  const visitIn = (parent: ts.Node, isTypeArgument = false) => (node: ts.Node): ts.Node => {
    const isSpecifier = ts.isStringLiteral(node) &&
      (ts.isImportDeclaration(parent) || ts.isExportDeclaration(parent) || isTypeArgument);
    if (isSpecifier) return rename(node);
    return ts.visitEachChild(node, visitIn(node, ts.isLiteralTypeNode(node) && ts.isImportTypeNode(parent)), context);
  };
  return (file) => ts.isSourceFile(file) ? ts.visitEachChild(file, visitIn(file), context) : file;
}

/** The sources are inside the map: where they were is nobody's business, and no file has that name later. */
function renameSource(text: string): string {
  const map = JSON.parse(text) as { readonly sources: readonly string[] };
  return JSON.stringify({ ...map, sources: map.sources.map((source) => source.split("/").at(-1)) });
}

function render(problems: readonly ts.Diagnostic[], root: string): string {
  return ts.formatDiagnostics(problems, {
    getCanonicalFileName: (name) => name,
    getCurrentDirectory: () => root,
    getNewLine: () => "\n",
  }).trimEnd();
}
