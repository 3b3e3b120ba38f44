/**
 * Prepares a release: checks the tree and the changelog, gives all packages the version, runs every gate, and prints what to
 * publish and how. It publishes nothing, commits nothing and pushes nothing.
 *
 * Run: `deno task release 0.2.0`; `deno task release --check v0.2.0` only checks that the tree is that release.
 *
 * @module
 */

import { spawnSync } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { readWorkspace } from "./npm_package.ts";
import type { PublishedMember } from "./npm_package.ts";

/** What a release must pass, each a command that must end with code 0. */
const GATES: readonly (readonly string[])[] = [["deno", "task", "ok"], ["deno", "task", "test:npm"]];

const CHANGELOG = "CHANGELOG.md";
const UNRELEASED = "## [Unreleased]";

/** Why there can be no release; for the person at the terminal. */
export class ReleaseProblem extends Error {
  /** Always `"ReleaseProblem"`. */
  override readonly name: string = "ReleaseProblem";
}

/** A version of the form 1.2.3 or 1.2.3-beta.4, in parts. */
type Version = readonly [major: number, minor: number, patch: number, prerelease: string];

/**
 * Reads a version.
 *
 * @param text As it was typed.
 * @returns Its parts; the prerelease is empty if there is none.
 * @throws {ReleaseProblem} It is no semantic version.
 */
export function parseVersion(text: string): Version {
  const parts = /^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-((?:alpha|beta|rc)\.(?:0|[1-9]\d*)))?$/.exec(text);
  if (parts === null) {
    throw new ReleaseProblem(`"${text}" is no version; it must look like 1.2.3, or 1.2.3-rc.1 (alpha, beta or rc).`);
  }
  return [Number(parts[1]), Number(parts[2]), Number(parts[3]), parts[4] ?? ""];
}

/**
 * Compares two versions.
 *
 * @param left One.
 * @param right The other.
 * @returns Below 0 if the first is older, above 0 if it is newer, 0 if they are the same.
 */
export function compareVersions(left: Version, right: Version): number {
  for (const part of [0, 1, 2] as const) {
    if (left[part] !== right[part]) return left[part] - right[part];
  }
  if (left[3] === right[3]) return 0;
  if (left[3] === "" || right[3] === "") return left[3] === "" ? 1 : -1;
  const [leftName = "", leftNumber] = left[3].split(".");
  const [rightName = "", rightNumber] = right[3].split(".");
  return leftName === rightName ? Number(leftNumber) - Number(rightNumber) : leftName < rightName ? -1 : 1;
}

/**
 * Checks that a version may follow those that the packages have: they have all the same, and it is not older. The same is
 * right for the first release, whose version stands there before it is out; the changelog tells that it is not out.
 *
 * @param members The packages.
 * @param version The version of the release.
 * @throws {ReleaseProblem} It may not.
 */
export function assertFollows(members: readonly PublishedMember[], version: string): void {
  const versions = [...new Set(members.map((member) => member.version))];
  const [current] = versions;
  if (current === undefined) throw new ReleaseProblem("There is no package to publish.");
  if (versions.length > 1) throw new ReleaseProblem(`The packages have the versions ${versions.join(" and ")}.`);
  if (compareVersions(parseVersion(version), parseVersion(current)) < 0) {
    throw new ReleaseProblem(`${version} is older than ${current}, which the packages have.`);
  }
}

/**
 * Gives the text of a deno.json another version.
 *
 * @param text The text.
 * @param version The version.
 * @returns The text, otherwise as it was.
 * @throws {ReleaseProblem} There is no version in it, or several.
 */
export function withVersion(text: string, version: string): string {
  const line = /^( {2}"version": ")[^"]*(",?)$/gm;
  if (text.match(line)?.length !== 1) throw new ReleaseProblem("A deno.json must have one line with its version.");
  return text.replace(line, `$1${version}$2`);
}

/**
 * Makes the section of unreleased changes that of a release, with an empty one above it.
 *
 * @param text The changelog.
 * @param version The version of the release.
 * @param date Its day, as 2026-11-21.
 * @returns The changelog of the release.
 * @throws {ReleaseProblem} There is no such section, nothing is in it, or the version is out already.
 */
export function releasedChangelog(text: string, version: string, date: string): string {
  if (text.includes(`\n## [${version}]`)) throw new ReleaseProblem(`${CHANGELOG} says that ${version} is out already.`);
  const [head = "", section] = text.split(`${UNRELEASED}\n`);
  if (section === undefined) throw new ReleaseProblem(`${CHANGELOG} has no section "${UNRELEASED}".`);
  const entries = section.split(/^## /m)[0] ?? "";
  if (!/^- \S/m.test(entries)) {
    throw new ReleaseProblem(`${CHANGELOG} says of nothing that is new since the last release.`);
  }
  return `${head}${UNRELEASED}\n\n## [${version}] - ${date}\n${section}`;
}

/**
 * Says what is left for a person to do.
 *
 * @param members The packages, in the order in which each can be published after those that it needs.
 * @param version The version of the release.
 * @returns Lines.
 */
export function publishingSteps(members: readonly PublishedMember[], version: string): readonly string[] {
  const tag = `v${version}`;
  const channel = version.includes("-") ? " --tag next" : "";
  return [
    `Ready: ${members.map(({ name }) => name).join(", ")}, all ${version}. Nothing is published yet.`,
    "",
    "Commit and tag; the tag starts .github/workflows/publish.yml, which publishes to JSR and npm:",
    `  git commit --all --message "Release ${version}"`,
    `  git tag ${tag}`,
    `  git push origin HEAD ${tag}`,
    "",
    "By hand instead, after the commit:",
    "  deno publish",
    "  deno task build:npm",
    ...members.map(({ folder }) => `  npm publish --access public${channel} ./npm/${folder}`),
  ];
}

/** What {@linkcode prepareRelease} needs to know besides the version. */
export interface ReleaseOptions {
  /** The workspace's folder, with a slash at its end. */
  readonly root: URL;
  /** The day of the release, as 2026-11-21. */
  readonly date: string;
  /** Commands that must end with code 0. */
  readonly gates: readonly (readonly string[])[];
}

/**
 * Makes the tree that of a release. If a gate fails, every file is as it was.
 *
 * @param version The version.
 * @param options Where, when and what must pass.
 * @returns What is left to do, in lines.
 * @throws {ReleaseProblem} There can be no release.
 */
export async function prepareRelease(
  version: string,
  { root, date, gates }: ReleaseOptions,
): Promise<readonly string[]> {
  const { members } = await readWorkspace(root);
  assertFollows(members, version);
  const changes = git(root, ["status", "--porcelain"]);
  if (changes !== "") throw new ReleaseProblem(`The tree has changes that are not committed:\n${changes}`);
  if (git(root, ["tag", "--list", `v${version}`]) !== "") throw new ReleaseProblem(`There is a tag v${version}.`);
  const edits: readonly (readonly [URL, (text: string) => string])[] = [
    [new URL(CHANGELOG, root), (text) => releasedChangelog(text, version, date)],
    ...members.map(({ folder }) =>
      [new URL(`${folder}/deno.json`, root), (text: string) => withVersion(text, version)] as const
    ),
  ];
  const before = await Promise.all(edits.map(async ([file]) => [file, await readFile(file, "utf8")] as const));
  const after = edits.map(([file, edit], index) => [file, edit(before[index]?.[1] ?? "")] as const);
  for (const [file, text] of after) await writeFile(file, text);
  for (const [program = "", ...args] of gates) {
    const executable = program === "deno" ? Deno.execPath() : program;
    const { status } = spawnSync(executable, args, { cwd: fileURLToPath(root), stdio: "inherit" });
    if (status === 0) continue;
    for (const [file, text] of before) await writeFile(file, text);
    throw new ReleaseProblem(`"${[program, ...args].join(" ")}" failed. All files are as they were.`);
  }
  return publishingSteps(members, version);
}

/**
 * Checks that the tree is the release of a tag, before anything of it is published.
 *
 * @param tag The tag, as v1.2.3.
 * @param root The workspace's folder, with a slash at its end.
 * @throws {ReleaseProblem} It is not.
 */
export async function checkRelease(tag: string, root: URL): Promise<void> {
  const version = tag.replace(/^v/, "");
  parseVersion(version);
  for (const { name, version: own } of (await readWorkspace(root)).members) {
    if (own !== version) throw new ReleaseProblem(`${name} has the version ${own}, and the tag is ${tag}.`);
  }
  const changelog = await readFile(new URL(CHANGELOG, root), "utf8");
  if (!changelog.includes(`\n## [${version}]`)) throw new ReleaseProblem(`${CHANGELOG} has no section of ${version}.`);
}

function git(root: URL, args: readonly string[]): string {
  const { status, stdout, stderr } = spawnSync("git", args, { cwd: fileURLToPath(root), encoding: "utf8" });
  if (status !== 0) throw new ReleaseProblem(`git ${args.join(" ")} failed: ${stderr}`);
  return stdout.trimEnd();
}

if (import.meta.main) {
  const root = new URL("../", import.meta.url);
  try {
    const [first = "", second = ""] = Deno.args;
    if (first === "--check") await checkRelease(second, root);
    else {
      const date = new Date().toISOString().slice(0, 10);
      console.log((await prepareRelease(first, { root, date, gates: GATES })).join("\n"));
    }
  } catch (error) {
    if (!(error instanceof ReleaseProblem)) throw error;
    console.error(error.message);
    Deno.exitCode = 1;
  }
}
