/**
 * One attempt of one job, from its stored payload to the outcome that is posted.
 *
 * @module
 */

import {
  assertJobOutcome,
  isJobCompletion,
  isJobFailure,
  isRunledgerError,
  retryDelayMs,
  storedFailure,
} from "@runledger/core";
import type { JobFailure, JobFailureKind, JobOutcome, RetryNotBefore } from "@runledger/core";
import type { RegisteredJob } from "./job_handler.ts";
import type { HeldJob } from "./held_job.ts";
import type { JobContext } from "./job_context.ts";
import { describeThrown } from "./thrown_value.ts";

/** A success without an output, which most jobs end in. */
const SUCCEEDED: JobOutcome = Object.freeze({ kind: "succeeded" });

/**
 * Runs one attempt: decode the payload, run the handler, make an outcome of what came back.
 *
 * Never rejects, whatever the handler does. Whether the outcome still counts is the worker's matter: the attempt may
 * have been timed out, cancelled or lost meanwhile.
 *
 * @param job The claimed job.
 * @param registered Its definition and handler; undefined when the catalog does not have its type.
 * @param context What the handler is given.
 * @returns How the attempt ended.
 */
export async function executeJob(
  job: HeldJob,
  registered: RegisteredJob | undefined,
  context: JobContext<unknown> | undefined,
): Promise<JobOutcome> {
  if (registered === undefined || context === undefined) return unregisteredOutcome(job);

  let payload: unknown;
  try {
    payload = registered.definition.decodePayload(job.claim.payload);
    if (payload instanceof Promise) payload = await payload;
  } catch (refusal) {
    return refusedPayloadOutcome(refusal, job, registered);
  }

  let returned: unknown;
  try {
    returned = await registered.handler(payload as never, context as never);
  } catch (thrown) {
    return thrownOutcome(thrown, job, registered);
  }

  if (job.isUncertain) return uncertainOutcome(job, registered);
  try {
    return await successOf(returned, registered);
  } catch (problem) {
    return panicOutcome(problem);
  }
}

/**
 * Makes an outcome of what a handler returned: a plain output, or a completion.
 *
 * @param returned What came back.
 * @param registered The definition, whose schema checks the output.
 * @returns The outcome, or a promise of it when the schema is asynchronous.
 * @throws {RunledgerError} `job.invalid_output`, `job.invalid_outcome`, `job.invalid_progress` or `job.invalid_payload`.
 */
export function successOf(returned: unknown, registered: RegisteredJob): JobOutcome | Promise<JobOutcome> {
  if (!isJobCompletion(returned)) return withOutput(SUCCEEDED, returned, registered);
  const { "~runledger": _mark, ...outcome } = returned;
  if (outcome.kind !== "succeeded") {
    assertJobOutcome(outcome);
    return outcome;
  }
  const { output, ...record } = outcome;
  assertJobOutcome(record);
  return withOutput(record, output, registered);
}

function withOutput(
  outcome: JobOutcome,
  output: unknown,
  registered: RegisteredJob,
): JobOutcome | Promise<JobOutcome> {
  const json = registered.definition.encodeOutput(output as never);
  if (json === undefined) return outcome;
  if (!(json instanceof Promise)) return { ...outcome, kind: "succeeded", output: json };
  return json.then((late) => late === undefined ? outcome : { ...outcome, kind: "succeeded", output: late });
}

/** The attempt ran longer than its timeout. */
export function timeoutOutcome(job: HeldJob, registered: RegisteredJob): JobOutcome {
  const message = `The attempt ran longer than its ${job.claim.timeoutSeconds} s.`;
  return failedOutcome("TIMEOUT", "job.timeout_exceeded", message, job, registered);
}

/** The handler broke its contract in a way that no retry can mend. */
export function panicOutcome(problem: unknown): JobOutcome {
  const message = `The handler's completion cannot be stored: ${describeThrown(problem)}`;
  return { kind: "failed", failure: storedFailure({ kind: "PANICKED", code: "job.handler_panic", message }) };
}

/** Only a worker whose catalog changed under it is ever given such a job. */
function unregisteredOutcome(job: HeldJob): JobOutcome {
  const message = `No handler is registered for the job type ${job.claim.jobType}.`;
  return { kind: "failed", failure: storedFailure({ kind: "TERMINAL", code: "job.handler_not_registered", message }) };
}

/** A refusal is final; a schema that failed in another way, such as by a look-up, may work next time. */
function refusedPayloadOutcome(refusal: unknown, job: HeldJob, registered: RegisteredJob): JobOutcome {
  if (!isRunledgerError(refusal, "job.invalid_payload")) return thrownOutcome(refusal, job, registered);
  const { message } = refusal;
  return { kind: "failed", failure: storedFailure({ kind: "TERMINAL", code: "job.invalid_payload", message }) };
}

function thrownOutcome(thrown: unknown, job: HeldJob, registered: RegisteredJob): JobOutcome {
  if (job.isUncertain) return uncertainOutcome(job, registered);
  if (isReadableFailure(thrown)) {
    try {
      const { kind, code, message } = storedFailure(thrown);
      const outcome = failedOutcome(kind, code, message, job, registered, thrown.retryNotBefore);
      assertJobOutcome(outcome);
      return outcome;
    } catch (problem) {
      return panicOutcome(problem);
    }
  }
  if (job.abortReason?.code === "worker.shutdown") {
    const message = "The worker was shut down before the attempt was over.";
    return failedOutcome("RETRYABLE", "worker.shutdown", message, job, registered);
  }
  return failedOutcome("RETRYABLE", "job.handler_threw", describeThrown(thrown), job, registered);
}

/** A thrown value may be a proxy that lets nobody look. */
function isReadableFailure(thrown: unknown): thrown is JobFailure {
  try {
    return isJobFailure(thrown);
  } catch {
    return false;
  }
}

/**
 * The handler's transaction may have settled the job: its commit was never answered. If it did, this outcome is refused
 * by the fence and changes nothing; if it did not, the side effects were rolled back and the attempt must be repeated.
 */
function uncertainOutcome(job: HeldJob, registered: RegisteredJob): JobOutcome {
  const message = "The connection was lost while the handler's transaction was being committed, and it was not.";
  return failedOutcome("RETRYABLE", "db.commit_unknown", message, job, registered);
}

function failedOutcome(
  kind: JobFailureKind,
  code: string,
  message: string,
  job: HeldJob,
  registered: RegisteredJob,
  retryNotBefore?: RetryNotBefore,
): JobOutcome {
  const { attempt, jobId } = job.claim;
  return {
    kind: "failed",
    failure: storedFailure({ kind, code, message }),
    retryDelayMs: retryDelayMs(registered.definition.retry, { attempt, jobId, failureCode: code }),
    ...(retryNotBefore === undefined ? {} : { retryNotBefore }),
  };
}
