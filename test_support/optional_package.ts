/**
 * npm packages that only some machines or runs need.
 *
 * @module
 */

/**
 * Loads a package at the moment it is needed, in Deno at exactly this version.
 *
 * Such a package must not stand in the import map, and so in the lock file: `deno task` fetches all that does before it runs
 * anything, which for the binaries of four systems is 400 MB. The specifier is computed, so the type check does not ask for
 * the package either; the lock file then has what the machines needed that wrote it.
 *
 * @param name The package's name.
 * @param version The version that Deno fetches; Node takes the one that is installed.
 * @returns What the package exports.
 */
export async function importOptionalPackage(name: string, version: string): Promise<unknown> {
  const specifier = "Deno" in globalThis ? `npm:${name}@${version}` : name;
  return await import(specifier);
}
