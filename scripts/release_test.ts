import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import {
  assertFollows,
  checkRelease,
  compareVersions,
  parseVersion,
  prepareRelease,
  publishingSteps,
  releasedChangelog,
  withVersion,
} from "./release.ts";

const CHANGES =
  "# Changelog\n\n## [Unreleased]\n\n### Added\n\n- Something.\n\n## [0.1.0] - 2026-01-01\n\n- The first.\n";

function member(folder: string, version: string) {
  return { folder, name: `@runledger/${folder}`, version, license: "MIT", exports: { ".": "./mod.ts" } };
}

/** A git repository of two packages of version 0.1.0. */
async function withRepository(work: (root: URL, folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "runledger-release-"));
  const git = (...args: string[]) => assert.equal(spawnSync("git", args, { cwd: folder }).status, 0, args.join(" "));
  const config = (name: string) =>
    `{\n  "name": "${name}",\n  "version": "0.1.0",\n  "license": "MIT",\n  "exports": "./mod.ts"\n}\n`;
  const files: Readonly<Record<string, string>> = {
    "deno.json": JSON.stringify({ workspace: ["./core", "./postgres", "./examples"] }),
    "core/deno.json": config("@runledger/core"),
    "postgres/deno.json": config("@runledger/postgres"),
    "examples/deno.json": "{}",
    "CHANGELOG.md": CHANGES,
  };
  try {
    for (const [path, text] of Object.entries(files)) {
      await mkdir(dirname(join(folder, path)), { recursive: true });
      await writeFile(join(folder, path), text);
    }
    git("init", "--quiet");
    git("add", ".");
    git("-c", "user.name=test", "-c", "user.email=test@example.com", "commit", "--quiet", "--message", "all");
    await work(pathToFileURL(`${folder}/`), folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

Deno.test("release: versions are ordered as semantic versions are", () => {
  const ordered = [
    "0.1.0-alpha.2",
    "0.1.0-beta.1",
    "0.1.0-rc.2",
    "0.1.0-rc.10",
    "0.1.0",
    "0.1.2",
    "0.1.10",
    "0.2.0",
    "1.0.0",
  ];
  for (const [index, left] of ordered.entries()) {
    for (const [other, right] of ordered.entries()) {
      assert.equal(Math.sign(compareVersions(parseVersion(left), parseVersion(right))), Math.sign(index - other));
    }
  }
  for (const text of ["", "1", "1.2", "v1.2.3", "01.2.3", "1.2.3-", "1.2.3-rc", "1.2.3+build", "1.2.3 "]) {
    assert.throws(() => parseVersion(text), /is no version/, text);
  }
});

Deno.test("release: all packages have one version, and a release is never older", () => {
  assertFollows([member("core", "0.1.0"), member("postgres", "0.1.0")], "0.1.0");
  assertFollows([member("core", "0.1.0")], "0.2.0-rc.1");
  assert.throws(() => assertFollows([member("core", "0.2.0")], "0.2.0-rc.1"), /older than 0\.2\.0/);
  assert.throws(
    () => assertFollows([member("core", "0.1.0"), member("postgres", "0.1.1")], "0.2.0"),
    /0\.1\.0 and 0\.1\.1/,
  );
  assert.throws(() => assertFollows([], "0.2.0"), /no package/);
});

Deno.test("release: only the version of a deno.json changes", () => {
  const text = '{\n  "name": "x",\n  "version": "0.1.0",\n  "imports": { "version": "0.1.0" }\n}\n';
  assert.equal(withVersion(text, "0.2.0"), text.replace('"version": "0.1.0",\n', '"version": "0.2.0",\n'));
  assert.throws(() => withVersion("{}", "0.2.0"), /one line with its version/);
});

Deno.test("release: unreleased changes become those of the version, and there must be some", () => {
  assert.equal(
    releasedChangelog(CHANGES, "0.2.0", "2026-11-21"),
    CHANGES.replace("## [Unreleased]\n", "## [Unreleased]\n\n## [0.2.0] - 2026-11-21\n"),
  );
  assert.throws(() => releasedChangelog(CHANGES, "0.1.0", "2026-11-21"), /is out already/);
  assert.throws(
    () => releasedChangelog(CHANGES.replace("- Something.\n", ""), "0.2.0", "2026-11-21"),
    /nothing that is new/,
  );
  assert.throws(() => releasedChangelog("# Changelog\n", "0.2.0", "2026-11-21"), /no section/);
});

Deno.test("release: the steps name every package in order, and a prerelease does not become the latest", () => {
  const members = [member("core", "0.1.0"), member("postgres", "0.1.0")];
  const steps = publishingSteps(members, "0.2.0").filter((line) => line.includes("npm publish"));
  assert.deepEqual(steps, [
    "  npm publish --access public ./npm/core",
    "  npm publish --access public ./npm/postgres",
  ]);
  assert.match(
    publishingSteps(members, "0.2.0-rc.1").join("\n"),
    /npm publish --access public --tag next \.\/npm\/core/,
  );
});

Deno.test("release: a clean tree becomes the release; a changed one, a failed gate and a known tag leave all as it was", async () => {
  await withRepository(async (root, folder) => {
    const date = "2026-11-21";
    const status = () => spawnSync("git", ["status", "--porcelain"], { cwd: folder, encoding: "utf8" }).stdout;
    await assert.rejects(prepareRelease("0.2.0", { root, date, gates: [["true"], ["false"]] }), /"false" failed/);
    assert.equal(status(), "");
    spawnSync("git", ["tag", "v0.3.0"], { cwd: folder });
    await assert.rejects(prepareRelease("0.3.0", { root, date, gates: [] }), /There is a tag v0\.3\.0/);
    await writeFile(join(folder, "new.ts"), "");
    await assert.rejects(prepareRelease("0.2.0", { root, date, gates: [] }), /\?\? new\.ts/);
    await rm(join(folder, "new.ts"));

    await assert.rejects(checkRelease("v0.2.0", root), /has the version 0\.1\.0/);
    // The gates see the tree of the release.
    const gates = [["grep", "--quiet", '"version": "0.2.0"', "core/deno.json", "postgres/deno.json"]];
    const steps = await prepareRelease("0.2.0", { root, date, gates });
    assert.match(steps.join("\n"), /@runledger\/core, @runledger\/postgres, all 0\.2\.0/);
    assert.equal(status(), " M CHANGELOG.md\n M core/deno.json\n M postgres/deno.json\n");
    assert.match(await readFile(join(folder, "CHANGELOG.md"), "utf8"), /^## \[0\.2\.0\] - 2026-11-21$/m);
    await checkRelease("v0.2.0", root);
    await assert.rejects(checkRelease("0.2", root), /is no version/);
  });
});
