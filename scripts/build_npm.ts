/**
 * Builds the npm packages in `npm/`: one for each published member of the workspace, as ECMAScript modules with declarations
 * and source maps.
 *
 * Run: `deno task build:npm`; with `--pack` the tarballs are made, too. Needs npm, for the types of the dependencies.
 *
 * @module
 */

import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { copyFile, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { emitPackages } from "./npm_emit.ts";
import type { EmittedFile } from "./npm_emit.ts";
import { firstSentence, importedPackages, npmExports, npmManifest, readWorkspace } from "./npm_package.ts";
import type { NpmManifest, PublishedMember } from "./npm_package.ts";

/** A package that was built. */
export interface NpmPackage {
  /** Its folder. */
  readonly folder: string;
  /** What stands in its package.json. */
  readonly manifest: NpmManifest;
}

/** The types of Node's builtins: those of the oldest Node that is supported. */
const NODE_TYPES = "20.19.25";

/**
 * Builds all packages.
 *
 * @param root The workspace's folder, with a slash at its end.
 * @param target Where to build; what is there is deleted.
 * @returns The packages, in the order of the workspace.
 * @throws {Error} The sources do not compile for Node, or a package is not what its deno.json says.
 */
export async function buildNpm(root: URL, target: string): Promise<readonly NpmPackage[]> {
  const workspace = await readWorkspace(root);
  const { compilerOptions = {} } = JSON.parse(await readFile(new URL("deno.json", root), "utf8")) as {
    readonly compilerOptions?: Readonly<Record<string, unknown>>;
  };
  const dependencies = await installDependencies(root, workspace.pins);
  await rm(target, { recursive: true, force: true });
  const files = await emitPackages({
    root: fileURLToPath(root).replace(/\/$/, ""),
    members: workspace.members,
    dependencies,
    target,
    compilerOptions,
  });
  const packages: NpmPackage[] = [];
  for (const member of workspace.members) {
    const folder = join(target, member.folder);
    const own = files.filter((file) => file.folder === member.folder);
    const repository = Deno.env.get("GITHUB_REPOSITORY");
    const program = await findProgram(folder, member);
    const manifest = npmManifest(member, workspace, {
      description: firstSentence(await readFile(new URL(`${member.folder}/README.md`, root), "utf8")),
      imports: importedPackages(own.flatMap(({ imports }) => imports)),
      ...(program === undefined ? {} : { program }),
      ...(repository === undefined ? {} : { repository }),
    });
    await writeFile(join(folder, "package.json"), JSON.stringify(manifest, null, 2) + "\n");
    await copyFile(new URL(`${member.folder}/README.md`, root), join(folder, "README.md"));
    for (const name of ["LICENSE", "CHANGELOG.md"]) await copyFile(new URL(name, root), join(folder, name));
    checkPackage({ folder, manifest }, member, own);
    packages.push({ folder, manifest });
  }
  return packages;
}

async function findProgram(folder: string, member: PublishedMember): Promise<string | undefined> {
  for (const { default: path } of Object.values(npmExports(member.exports))) {
    if ((await readFile(join(folder, path), "utf8")).startsWith("#!")) return path.slice(2);
  }
  return undefined;
}

/** What a mistake in the build would break at the user's first import. */
function checkPackage({ folder, manifest }: NpmPackage, member: PublishedMember, files: readonly EmittedFile[]): void {
  const subpaths = Object.keys(manifest.exports);
  if (subpaths.join() !== Object.keys(member.exports).join()) {
    throw new Error(`${member.name} exports ${subpaths.join(", ")}, which is not what its deno.json says.`);
  }
  for (const path of Object.values(manifest.exports).flatMap((conditions) => Object.values(conditions))) {
    if (!existsSync(join(folder, path))) throw new Error(`${member.name} exports ${path}, which was not built.`);
  }
  for (const { path, imports } of files) {
    const left = imports.find((specifier) => /^(npm|jsr|https?):|^\..*\.ts$/.test(specifier));
    if (left !== undefined) throw new Error(`${path} imports ${left}, which Node cannot.`);
  }
}

/** Installs the types that the sources need, once: later calls find them there. */
async function installDependencies(root: URL, pins: Readonly<Record<string, string>>): Promise<string> {
  const folder = fileURLToPath(new URL(".tmp/build_npm", root));
  const wanted = ["croner", "postgres", "zod"].flatMap((name) => {
    const version = pins[name];
    return version === undefined ? [] : [[name, version]];
  });
  const manifest = JSON.stringify({
    private: true,
    dependencies: { ...Object.fromEntries(wanted), "@types/node": NODE_TYPES },
  });
  const file = join(folder, "package.json");
  const isDone = await readFile(file, "utf8").then((text) => text === manifest, () => false);
  if (isDone && existsSync(join(folder, "node_modules"))) return folder;
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  await runNpm([
    "install",
    "--ignore-scripts",
    "--no-package-lock",
    "--prefix",
    folder,
    ...dependencyArguments(manifest),
  ], folder);
  await writeFile(file, manifest);
  return folder;
}

function dependencyArguments(manifest: string): readonly string[] {
  const { dependencies } = JSON.parse(manifest) as { readonly dependencies: Readonly<Record<string, string>> };
  return Object.entries(dependencies).map(([name, version]) => `${name}@${version}`);
}

/**
 * Packs the packages as npm would publish them.
 *
 * @param packages The packages.
 * @param target Where to put the tarballs.
 * @returns The paths of the tarballs.
 */
export async function packNpm(packages: readonly NpmPackage[], target: string): Promise<readonly string[]> {
  const folders = packages.map(({ folder }) => folder);
  const output = await runNpm(["pack", "--json", "--pack-destination", target, ...folders], target);
  const packed = JSON.parse(output) as unknown;
  const entries = (Array.isArray(packed) ? packed : Object.values(packed as object)) as { filename: string }[];
  return entries.map(({ filename }) => join(target, filename));
}

async function runNpm(args: readonly string[], cwd: string): Promise<string> {
  const { stdout } = await promisify(execFile)("npm", args, { cwd, maxBuffer: 64 * 1024 * 1024 });
  return stdout;
}

if (import.meta.main) {
  const root = new URL("../", import.meta.url);
  const target = fileURLToPath(new URL("npm", root));
  const packages = await buildNpm(root, target);
  for (const { folder, manifest } of packages) console.log(`${manifest.name} ${manifest.version}: ${folder}`);
  if (Deno.args.includes("--pack")) {
    for (const path of await packNpm(packages, target)) console.log(path);
  }
}
