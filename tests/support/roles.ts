/**
 * A database with the roles of docs/roles.sql and a login for each.
 *
 * @module
 */

import { randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createEphemeralDatabase, openTestServer } from "@runledger/test-support";
import { upsertJobDefinitions } from "@runledger/postgres";
import postgres from "postgres";
import { testDefinition } from "./database.ts";

/** The groups that docs/roles.sql makes, without their prefix. */
export type Role = "owner" | "enqueue" | "worker" | "operator";

/** Every {@linkcode Role}. */
export const ROLES: readonly Role[] = ["owner", "enqueue", "worker", "operator"];

/** A database, a connection of its superuser, and one of each role. */
export interface RoleDatabase extends AsyncDisposable {
  readonly url: string;
  /** The superuser, to prepare and to look. */
  readonly admin: postgres.Sql;
  readonly as: Readonly<Record<Role, postgres.Sql>>;
  /** The login of each role. */
  readonly logins: Readonly<Record<Role, string>>;
}

/** Runs docs/roles.sql, as `psql -f` would. */
export async function runRolesScript(url: string): Promise<void> {
  const text = await readFile(new URL("../../docs/roles.sql", import.meta.url), "utf8");
  const sql = postgres(url, { max: 1, onnotice: () => {} });
  try {
    await sql.unsafe(text);
  } finally {
    await sql.end({ timeout: 1 });
  }
}

/** Gives a database's URL for another login. */
export function urlOf(url: string, login: string): string {
  const own = new URL(url);
  own.username = login;
  own.password = login;
  return own.href;
}

/** Opens a migrated database with the job types `a`, `b` and `w`. Logins belong to the server, so they are removed at the end. */
export async function openRoleDatabase(): Promise<RoleDatabase> {
  const database = await createEphemeralDatabase();
  const admin = postgres(database.url, { max: 2, onnotice: () => {} });
  await upsertJobDefinitions(admin, ["a", "b", "w"].map(testDefinition));
  await runRolesScript(database.url);
  const suffix = randomUUID().slice(0, 8);
  const logins = Object.fromEntries(ROLES.map((role) => [role, `rl_${role}_${suffix}`])) as Record<Role, string>;
  for (const role of ROLES) {
    await admin.unsafe(`create role ${logins[role]} login password '${logins[role]}' in role runledger_${role}`);
  }
  const as = Object.fromEntries(
    ROLES.map((role) => [role, postgres(urlOf(database.url, logins[role]), { max: 2, onnotice: () => {} })]),
  ) as Record<Role, postgres.Sql>;
  return {
    url: database.url,
    admin,
    as,
    logins,
    async [Symbol.asyncDispose]() {
      await Promise.all(Object.values(as).map((sql) => sql.end({ timeout: 1 })));
      await admin.end({ timeout: 1 });
      await database[Symbol.asyncDispose]();
      await dropLogins(Object.values(logins));
    },
  };
}

/** Drops logins that own nothing in any database that is left. */
export async function dropLogins(logins: readonly string[]): Promise<void> {
  const server = postgres((await openTestServer()).url, { max: 1, onnotice: () => {} });
  try {
    for (const login of logins) await server.unsafe(`drop role if exists ${login}`);
  } finally {
    await server.end({ timeout: 1 });
  }
}
