/**
 * The database that the examples run on: the one that `DATABASE_URL` names, else an embedded PostgreSQL of this checkout.
 *
 * @module
 */

import { isRunledgerError } from "@runledger/core";
import { migrate } from "@runledger/postgres";
import { startEmbeddedPostgres } from "@runledger/test-support";
import { createHash, randomUUID } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import postgres from "postgres";

/** A migrated database, for the time of one program. */
export interface ExampleDatabase extends AsyncDisposable {
  /** The pool. */
  readonly sql: postgres.Sql;
  /** Its URL, for other drivers. May hold a password. */
  readonly url: string;
  /** Where the database is, for people. Holds no password. */
  readonly place: string;
}

/** Why there is no database, in one line for the person at the terminal. */
export class DatabaseProblem extends Error {
  /** Always `"DatabaseProblem"`. */
  override readonly name: string = "DatabaseProblem";
}

/** The exit code of a program that SIGINT stopped, by the custom of shells. */
export const INTERRUPTED = 130;

/** The oldest server that has what the migrations need. */
const OLDEST_VERSION = 15;

/** Long enough for a database on another continent, short enough for somebody who mistyped a host. */
const CONNECT_TIMEOUT_SECONDS = 5;

/**
 * Opens the database and brings its schema up to date. A program that cannot have one says why in one line and ends with
 * code 1.
 *
 * The embedded server keeps its data in the system's temporary folder, one folder for each user and checkout. Programs that
 * run at once share it, and the last one stops it: so a worker in one terminal gets the jobs of a producer in another.
 *
 * @param signal Aborts when the program is asked to stop, which may be what made the start fail. @default never
 * @returns The database. Use it with `await using`.
 */
export async function openDatabase(signal?: AbortSignal): Promise<ExampleDatabase> {
  try {
    const url = process.env.DATABASE_URL?.trim() ?? "";
    return url === "" ? await openEmbedded() : await openGiven(url);
  } catch (error) {
    if (signal?.aborted === true) process.exit(INTERRUPTED);
    console.error(error instanceof DatabaseProblem ? error.message : String(error));
    process.exit(1);
  }
}

async function openGiven(text: string): Promise<ExampleDatabase> {
  const url = parseDatabaseUrl(text);
  const sql = connect(url.href);
  try {
    const version = await serverVersion(sql);
    if (version < OLDEST_VERSION) {
      throw new DatabaseProblem(
        `DATABASE_URL names PostgreSQL ${version}; Runledger needs ${OLDEST_VERSION} or newer.`,
      );
    }
    await migrate(sql);
    const place = `${url.hostname || "a local socket"}${url.port === "" ? "" : `:${url.port}`}${url.pathname}`;
    const close = () => sql.end({ timeout: 5 });
    return { sql, url: url.href, place: `PostgreSQL ${version} at ${place}`, [Symbol.asyncDispose]: close };
  } catch (error) {
    await sql.end({ timeout: 1 });
    throw error instanceof DatabaseProblem ? error : new DatabaseProblem(explainFailure(error, url));
  }
}

async function openEmbedded(): Promise<ExampleDatabase> {
  const checkout = fileURLToPath(new URL("../..", import.meta.url));
  const key = createHash("sha256").update(checkout).digest("hex").slice(0, 12);
  const folder = join(tmpdir(), `runledger-examples-${process.getuid?.() ?? 0}-${key}`);
  await mkdir(folder, { recursive: true, mode: 0o755 });
  // Tells the connections of this program from those of others.
  const program = `runledger example ${randomUUID().slice(0, 8)}`;
  for (let tries = 1;; tries++) {
    const server = await startEmbeddedPostgres({ dataDir: join(folder, "data"), durable: true });
    const sql = connect(server.url, program);
    try {
      await migrateOwn(sql);
      const close = async () => {
        const isLast = await othersConnected(sql, program).then((count) => count === 0, () => false);
        await sql.end({ timeout: 5 });
        if (isLast) await server.stop({ evenIfReused: true });
      };
      const place = `an embedded PostgreSQL ${server.version}`;
      return { sql, url: server.url, place, [Symbol.asyncDispose]: close };
    } catch (error) {
      await sql.end({ timeout: 1 });
      // Another program may have stopped the server between the two lines above.
      if (tries === 3 || !isRunledgerError(error, "db.unavailable")) throw error;
    }
  }
}

/** The data of the embedded server is worth nothing: if another version of the migrations made it, it is made anew. */
async function migrateOwn(sql: postgres.Sql): Promise<void> {
  try {
    await migrate(sql);
  } catch (error) {
    if (!isRunledgerError(error, "schema.changed") && !isRunledgerError(error, "schema.newer")) throw error;
    await sql`drop schema runledger cascade`;
    await migrate(sql);
  }
}

async function othersConnected(sql: postgres.Sql, program: string): Promise<number> {
  const [row] = await sql<{ count: number }[]>`
    select count(*)::integer as count
    from pg_stat_activity
    where backend_type = 'client backend'
      and application_name <> ${program}`;
  return row?.count ?? 0;
}

async function serverVersion(sql: postgres.Sql): Promise<number> {
  const [row] = await sql<{ version: string }[]>`select current_setting('server_version_num') as version`;
  return Math.floor(Number(row?.version) / 10_000);
}

function connect(url: string, program = "runledger example"): postgres.Sql {
  return postgres(url, {
    connect_timeout: CONNECT_TIMEOUT_SECONDS,
    connection: { application_name: program },
    onnotice: () => {},
  });
}

function parseDatabaseUrl(text: string): URL {
  const url = URL.parse(text);
  if (url !== null && /^postgres(ql)?:$/.test(url.protocol) && isDecodable(text)) return url;
  // The text is not repeated: it may hold a password.
  throw new DatabaseProblem(
    "DATABASE_URL is not the URL of a PostgreSQL database: it must look like postgres://user:password@host:5432/database, " +
      "with special characters percent-encoded.",
  );
}

function isDecodable(text: string): boolean {
  try {
    decodeURIComponent(text);
    return true;
  } catch {
    return false;
  }
}

/**
 * Says in one line why a database cannot be used.
 *
 * @param error What the driver or Runledger threw.
 * @param url The URL that was tried.
 * @returns The line.
 */
function explainFailure(error: unknown, url: URL): string {
  const cause = isRunledgerError(error) ? error.internalCause ?? error : error;
  const code = cause instanceof Error && "code" in cause ? String(cause.code) : "";
  const place = `${url.hostname || "localhost"}:${url.port || "5432"}`;
  const problems: Readonly<Record<string, string>> = {
    ECONNREFUSED: `nothing listens at ${place}. Is PostgreSQL running there?`,
    ENOTFOUND: `there is no host named ${url.hostname}.`,
    EAI_AGAIN: `there is no host named ${url.hostname}, or names cannot be looked up now.`,
    CONNECT_TIMEOUT: `${place} does not answer as PostgreSQL does within ${CONNECT_TIMEOUT_SECONDS} seconds.`,
    CONNECTION_CLOSED: `${place} closes the connection. Is it PostgreSQL, and does it want TLS (?sslmode=require)?`,
    "28P01": `PostgreSQL at ${place} refuses the password of user ${decodeURIComponent(url.username)}.`,
    "28000": `PostgreSQL at ${place} does not let user ${decodeURIComponent(url.username)} in.`,
    "3D000": `PostgreSQL at ${place} has no database named ${decodeURIComponent(url.pathname.slice(1))}.`,
    "42501": `user ${decodeURIComponent(url.username)} may not create the schema runledger in this database.`,
  };
  const text = problems[code] ?? (cause instanceof Error ? cause.message : String(cause));
  return `DATABASE_URL cannot be used: ${text.replace(/\s+/g, " ")}`;
}
