/**
 * A Worker as somebody writes it for Cloudflare: it enqueues over either driver and reads how things stand. The tests
 * bundle it and run it in workerd.
 *
 * @module
 */

import { defineJob, isRunledgerError, WorkflowDagBuilder } from "@runledger/core";
import { getJob, getWorkflowRun } from "@runledger/postgres";
import { atomically, enqueueJob, enqueueJobs, enqueueWorkflowRun } from "@runledger/postgres/enqueue";
import type { Queryable } from "@runledger/postgres/enqueue";
import { Client } from "pg";
import postgres from "postgres";

/** What the configuration binds. */
interface Environment {
  /** On Cloudflare: `env.HYPERDRIVE.connectionString`. */
  readonly DATABASE_URL: string;
}

/** What a Worker may leave to be done after its answer. */
interface ExecutionContext {
  /** Keeps the request alive until the promise settles. */
  waitUntil(promise: Promise<unknown>): void;
}

const sendEmail = defineJob<{ readonly to: string }>({ type: "edge.email" });
const charge = defineJob<{ readonly cents: number }>({ type: "edge.charge" });

/** A database handle for one request: sockets belong to the request that opened them. */
interface Connection {
  readonly db: Queryable;
  readonly close: () => Promise<void>;
}

async function connect(driver: string, url: string): Promise<Connection> {
  if (driver === "postgres.js") {
    const sql = postgres(url, { max: 1, fetch_types: false, onnotice: () => {} });
    return { db: sql, close: () => sql.end() };
  }
  const client = new Client({ connectionString: url });
  await client.connect();
  return { db: client, close: () => client.end() };
}

/** What can be asked for, by the last part of the path. */
const ACTIONS: Readonly<Record<string, (db: Queryable, name: string) => Promise<unknown>>> = {
  job: (db, name) => enqueueJob(db, sendEmail.request({ to: name }, { idempotencyKey: name })),
  conflict: (db, name) => enqueueJob(db, sendEmail.request({ to: `not ${name}` }, { idempotencyKey: name })),
  unknown: (db, name) => enqueueJob(db, { jobType: `edge.${name}`, payload: null }),
  batch: (db, name) =>
    enqueueJobs(db, Array.from({ length: 500 }, (_, n) => sendEmail.request({ to: `${name} ${n}` }, { priority: n }))),
  workflow: (db, name) =>
    enqueueWorkflowRun(
      db,
      new WorkflowDagBuilder("edge.order", { name })
        .job("charge", charge.request({ cents: 1200 }))
        .external("approval").afterSuccess("approval", ["charge"])
        .job("email", sendEmail.request({ to: name })).afterSuccess("email", ["approval"])
        .build(),
    ),
  job_status: async (db, name) => (await getJob(db, name, { scope: "global" }))?.status,
  run_status: async (db, name) => (await getWorkflowRun(db, name, { scope: "global" }))?.status,
  commit: (db, name) => atomically(db, (tx) => enqueueBoth(tx, name)),
  rollback: (db, name) =>
    atomically(db, async (tx) => {
      await enqueueBoth(tx, name);
      throw new TypeError("the order cannot be");
    }),
};

async function enqueueBoth(tx: Queryable, name: string): Promise<readonly string[]> {
  const first = await enqueueJob(tx, sendEmail.request({ to: `${name} 1` }));
  const second = await enqueueJob(tx, sendEmail.request({ to: `${name} 2` }));
  return [first.jobId, second.jobId];
}

export default {
  /** Answers `/<driver>/<action>?name=<name>`. */
  async fetch(request: Request, env: Environment, context: ExecutionContext): Promise<Response> {
    const url = new URL(request.url);
    const [, driver = "", action = ""] = url.pathname.split("/");
    const run = ACTIONS[action];
    if (run === undefined) return Response.json({ error: "there is nothing here" }, { status: 404 });
    try {
      const { db, close } = await connect(driver, env.DATABASE_URL);
      try {
        return Response.json(await run(db, url.searchParams.get("name") ?? "nobody"));
      } finally {
        context.waitUntil(close());
      }
    } catch (error) {
      if (isRunledgerError(error)) return Response.json(error, { status: 409 });
      return Response.json({ error: error instanceof Error ? error.message : "unknown" }, { status: 500 });
    }
  },
};
