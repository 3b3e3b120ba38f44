/**
 * A pool of either driver, so that a scenario can run over both.
 *
 * @module
 */

import type { Queryable } from "@runledger/postgres";
import pg from "pg";
import postgres from "postgres";

/** How long a driver tries to connect, in milliseconds. */
export const CONNECT_TIMEOUT_MS = 5000;

/** Which driver, and how it connects. */
export interface PoolOptions {
  readonly url: string;
  readonly driver: Driver;
  /** Connections at most. @default {8} */
  readonly max?: number;
  /** Whether postgres.js prepares statements, which a pooler in transaction mode cannot stand. @default {true} */
  readonly prepares?: boolean;
  /** Called with each statement's text before it is sent, and when it was answered. */
  readonly onStatement?: (text: string, when: "sent" | "answered") => void;
}

/** The drivers that matter. */
export type Driver = "postgres.js" | "node-postgres";

/** Both, for scenarios that run over each. */
export const DRIVERS: readonly Driver[] = ["postgres.js", "node-postgres"];

/** An open pool. */
export interface Pool {
  readonly db: Queryable;
  /** Closes every connection, also those whose statements were never answered. */
  end(): Promise<void>;
}

/** Opens a pool; it connects when it is used. */
export function openPool(options: PoolOptions): Pool {
  return options.driver === "postgres.js" ? openPostgresJs(options) : openNodePostgres(options);
}

function openPostgresJs({ url, max = 8, prepares = true, onStatement }: PoolOptions): Pool {
  // Without fetch_types: the driver asks for types when it connects, and a session that ends then rejects a promise that
  // nobody has, which ends the process.
  const sql = postgres(url, {
    max,
    prepare: prepares,
    fetch_types: false,
    connect_timeout: CONNECT_TIMEOUT_MS / 1000,
    onnotice: () => {},
  });
  if (onStatement !== undefined) {
    const { unsafe } = sql;
    const observed: typeof unsafe = (text, ...rest) => {
      onStatement(text, "sent");
      const query = unsafe(text, ...rest);
      query.then(() => onStatement(text, "answered"), () => {});
      return query as never;
    };
    Object.assign(sql, { unsafe: observed });
  }
  return { db: sql, end: () => sql.end({ timeout: 1 }) };
}

function openNodePostgres({ url, max = 8, onStatement }: PoolOptions): Pool {
  const pool = new pg.Pool({
    connectionString: url,
    max,
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    idleTimeoutMillis: 0,
  });
  // Idle connections that break are reported here, and without a listener by the process.
  pool.on("error", () => {});
  if (onStatement !== undefined) {
    const query = pool.query.bind(pool) as (...args: unknown[]) => Promise<unknown>;
    const observed = async (statement: string | { readonly text: string }, ...rest: unknown[]) => {
      const text = typeof statement === "string" ? statement : statement.text;
      onStatement(text, "sent");
      const result = await query(statement, ...rest);
      onStatement(text, "answered");
      return result;
    };
    Object.assign(pool, { query: observed });
  }
  return {
    db: pool,
    async end() {
      const ended = pool.end();
      let timer: ReturnType<typeof setTimeout> | undefined;
      await Promise.race([ended, new Promise((resolve) => timer = setTimeout(resolve, 1000))]);
      clearTimeout(timer);
    },
  };
}
