/**
 * An API for a place where no worker runs, such as Deno Deploy: it enqueues jobs and workflow runs, and tells how they
 * stand. The workers are somewhere else (`deno task worker`), on the same database.
 *
 * Run: `DATABASE_URL=postgres://... deno run --allow-net --allow-env examples/deploy_api.ts`, then
 * `curl -i -H 'idempotency-key: 2026-11' -d '{"month":"2026-11","pages":30,"to":"ada@example.com"}' localhost:8000/reports`
 *
 * @module
 */

import { isUuid, RunledgerError, WorkflowDagBuilder } from "@runledger/core";
import { getJob, getWorkflowResult, getWorkflowRun } from "@runledger/postgres";
import type { Queryable } from "@runledger/postgres";
import { enqueueJob, enqueueWorkflowRun } from "@runledger/postgres/enqueue";
import type { EnqueuedJob, EnqueuedWorkflowRun } from "@runledger/postgres/enqueue";
import postgres from "postgres";
import { makeReport, sendEmail } from "./jobs.ts";
import { errorResponse } from "./support/error_response.ts";

/** What an HTTP server calls for each request. */
export type RequestHandler = (request: Request) => Promise<Response>;

/**
 * Makes the API.
 *
 * `POST /emails` and `POST /reports` enqueue. Whoever repeats a request with the same `idempotency-key` header gets the
 * same job or run; with another body it is a conflict. `GET /jobs/<id>` and `GET /runs/<id>` tell how they stand.
 *
 * @param db A pool. It is not used before the first request.
 * @returns The handler.
 */
export function createHandler(db: Queryable): RequestHandler {
  return async (request) => {
    const { pathname } = new URL(request.url);
    const id = pathname.slice(pathname.lastIndexOf("/") + 1);
    try {
      switch (`${request.method} ${isUuid(id) ? pathname.replace(id, ":id") : pathname}`) {
        case "POST /emails":
          return await postEmail(db, request);
        case "POST /reports":
          return await postReport(db, request);
        case "GET /jobs/:id":
          return await showJob(db, id);
        case "GET /runs/:id":
          return await showRun(db, id);
        default:
          return Response.json({ code: "not_found", message: "There is nothing here." }, { status: 404 });
      }
    } catch (error) {
      return errorResponse(error);
    }
  };
}

async function postEmail(db: Queryable, request: Request): Promise<Response> {
  const idempotencyKey = request.headers.get("idempotency-key");
  // The schema of the job looks at the body, whatever it is.
  const payload = await request.json().catch(() => undefined);
  const email = sendEmail.request(payload, idempotencyKey === null ? {} : { idempotencyKey });
  const job = await enqueueJob(db, email);
  return accepted(`/jobs/${job.jobId}`, job);
}

/** A report is made, and then somebody is told. */
async function postReport(db: Queryable, request: Request): Promise<Response> {
  const idempotencyKey = request.headers.get("idempotency-key");
  const { month, pages, to } = await request.json().catch(() => undefined) ?? {};
  const run = new WorkflowDagBuilder("example.monthly_report", null)
    .job("report", makeReport.request({ month, pages }))
    .job("tell", sendEmail.request({ to, subject: `The report of ${month}` })).afterSuccess("tell", ["report"])
    .resultStep("report");
  const keyed = idempotencyKey === null ? run : run.idempotencyKey(idempotencyKey);
  const enqueued = await enqueueWorkflowRun(db, keyed.build());
  return accepted(`/runs/${enqueued.runId}`, enqueued);
}

/** An API with tenants passes the caller's organization here and when it enqueues, as authentication found it. */
const scope = "global";

async function showJob(db: Queryable, jobId: string): Promise<Response> {
  const job = await getJob(db, jobId, { scope });
  if (job === undefined) throw new RunledgerError("job.not_found");
  const { status, attempt, output } = job;
  return Response.json({ jobId, status, attempt, output });
}

async function showRun(db: Queryable, runId: string): Promise<Response> {
  const run = await getWorkflowRun(db, runId, { scope });
  if (run === undefined) throw new RunledgerError("workflow.run_not_found");
  if (run.status !== "SUCCEEDED") return Response.json({ runId, status: run.status });
  return Response.json({ runId, status: run.status, result: await getWorkflowResult(db, runId, { scope }) });
}

function accepted(location: string, enqueued: EnqueuedJob | EnqueuedWorkflowRun): Response {
  return Response.json(enqueued, { status: enqueued.disposition === "inserted" ? 202 : 200, headers: { location } });
}

if (import.meta.main) {
  const url = Deno.env.get("DATABASE_URL");
  if (url === undefined || url === "") {
    throw new Error("DATABASE_URL must name a PostgreSQL database that has the schema.");
  }
  // Each isolate has a pool of its own, and there may be many: few connections, closed soon after the last request.
  Deno.serve(createHandler(postgres(url, { max: 3, idle_timeout: 20, connect_timeout: 10 })));
}
