/**
 * One process that answers requests and runs the jobs they lead to, stopped by one AbortController.
 *
 * Run: `deno run -A examples/serve_and_work.ts`, then
 * `curl -i -d '{"to":"ada@example.com","subject":"Hello"}' http://localhost:8000/emails`
 *
 * @module
 */

import { isUuid } from "@runledger/core";
import { enqueueJob, getJob } from "@runledger/postgres";
import type { Queryable } from "@runledger/postgres";
import { consoleLogger, JobCatalog, shutdownSignal, Supervisor } from "@runledger/runtime";
import { sendEmail } from "./jobs.ts";
import { openDatabase } from "./support/database.ts";
import { errorResponse } from "./support/error_response.ts";

/** What an HTTP server calls for each request. */
export type RequestHandler = (request: Request) => Promise<Response>;

/**
 * Makes the HTTP side: web-standard requests in, responses out, so it runs on any server and needs none to be tested.
 *
 * `POST /emails` takes the payload of an email job, and an `idempotency-key` header for callers that repeat themselves.
 * `GET /jobs/<id>` says how a job stands.
 *
 * @param db The database.
 * @returns The handler.
 */
export function createHandler(db: Queryable): RequestHandler {
  return async (request) => {
    const { pathname } = new URL(request.url);
    try {
      if (request.method === "POST" && pathname === "/emails") return await postEmail(db, request);
      const jobId = /^\/jobs\/([^/]+)$/.exec(pathname)?.[1];
      if (request.method === "GET" && jobId !== undefined) return await getStatus(db, jobId);
      return Response.json({ error: "there is nothing here" }, { status: 404 });
    } catch (error) {
      return errorResponse(error);
    }
  };
}

async function postEmail(db: Queryable, request: Request): Promise<Response> {
  const payload = await request.json().catch(() => undefined);
  const idempotencyKey = request.headers.get("idempotency-key");
  // The schema looks at the payload, whatever it is.
  const email = sendEmail.request(payload, idempotencyKey === null ? {} : { idempotencyKey });
  const { jobId, disposition } = await enqueueJob(db, email);
  const status = disposition === "inserted" ? 202 : 200;
  return Response.json({ jobId, disposition }, { status, headers: { location: `/jobs/${jobId}` } });
}

async function getStatus(db: Queryable, jobId: string): Promise<Response> {
  const job = isUuid(jobId) ? await getJob(db, jobId, { scope: "global" }) : undefined;
  if (job === undefined) return Response.json({ error: "there is no such job" }, { status: 404 });
  const { status, attempt, output } = job;
  return Response.json({ jobId, status, attempt, output });
}

if (import.meta.main) {
  const stop = new AbortController();
  shutdownSignal().addEventListener("abort", () => stop.abort());

  await using database = await openDatabase();
  const catalog = new JobCatalog().handle(sendEmail, ({ to }) => {
    console.log(`sent to ${to}`);
    return { messageId: crypto.randomUUID() };
  });
  await catalog.sync(database.sql);

  const { signal } = stop;
  const supervisor = new Supervisor(database.sql, { catalog, signal, logger: consoleLogger });
  const port = Number(Deno.env.get("PORT") ?? "8000");
  const onListen = (address: Deno.NetAddr) => console.log(`listening on http://localhost:${address.port}`);
  const server = Deno.serve({ port, hostname: "localhost", signal, onListen }, createHandler(database.sql));
  await Promise.all([server.finished, supervisor.finished]);
  console.log("server and worker have stopped");
}
