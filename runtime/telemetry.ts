/**
 * Traces and metrics of what a process does to jobs, for whoever passes an OpenTelemetry tracer or meter.
 *
 * @module
 */

import { formatTraceparent, isRunledgerError, parseTraceparent } from "@runledger/core";
import type { JobOutcome, RunledgerErrorCode } from "@runledger/core";
import type { ReapedJob, SettledJob } from "@runledger/postgres";
import type { HeldJob } from "./held_job.ts";
import { errorFields } from "./logger.ts";
import type { Logger } from "./logger.ts";
import type { TelemetryAttributes, TelemetryOptions, TelemetrySpan, TelemetryTracer } from "./telemetry_api.ts";
import { MESSAGING_SYSTEM, TelemetryMetrics } from "./telemetry_metrics.ts";
import type { InstrumentName } from "./telemetry_metrics.ts";

const PRODUCER = 3;
const CONSUMER = 4;
const ERROR = 2;

/** What is remembered of an attempt until it is settled. */
export interface AttemptTelemetry {
  readonly span: TelemetrySpan | undefined;
  readonly startedAt: number;
  /** When its handler ended, by `performance.now()`. */
  endedAt: number | undefined;
}

/** What an enqueue is about. */
export interface EnqueueSubject {
  /** The job types or workflow types, one for each message. */
  readonly destinations: readonly string[];
}

/**
 * Tells a tracer and a meter of enqueues and attempts.
 *
 * Nothing that they throw reaches a job: it is logged once, and the work goes on. Without a tracer and a meter nothing is
 * done at all.
 */
export class Telemetry {
  readonly #tracer: TelemetryTracer | undefined;
  readonly #metrics: TelemetryMetrics | undefined;
  readonly #logger: Logger;
  readonly #clientId: string | undefined;
  #hasFailed = false;

  /** Makes the instruments. */
  constructor(options: TelemetryOptions, logger: Logger, clientId?: string) {
    this.#clientId = clientId;
    this.#logger = logger;
    this.#tracer = options.tracer;
    const { meter } = options;
    this.#metrics = meter && this.#attempt(() => new TelemetryMetrics(meter));
  }

  /** Whether anybody listens. */
  get isOn(): boolean {
    return this.#tracer !== undefined || this.#metrics !== undefined;
  }

  /**
   * Runs an enqueue in a producer's span.
   *
   * @param subject What is enqueued.
   * @param send Enqueues; it is given where in the trace it is, as a `traceparent`, if that is known.
   * @returns What it gave.
   * @throws What it threw.
   */
  async enqueue<Result>(
    subject: EnqueueSubject,
    send: (traceparent: string | undefined) => Promise<Result>,
  ): Promise<Result> {
    if (!this.isOn) return await send(undefined);
    const types = new Set(subject.destinations);
    const [type] = types;
    const attributes: TelemetryAttributes = {
      "messaging.system": MESSAGING_SYSTEM,
      "messaging.operation.name": "enqueue",
      "messaging.operation.type": "send",
    };
    // A name for each would be as many names as there are batches.
    if (types.size === 1 && type !== undefined) attributes["messaging.destination.name"] = type;
    const count = subject.destinations.length;
    const name = types.size === 1 ? `enqueue ${type}` : "enqueue";
    const spanAttributes = count === 1 ? attributes : { ...attributes, "messaging.batch.message_count": count };
    const startedAt = performance.now();
    const options = { kind: PRODUCER, attributes: spanAttributes } as const;
    return await this.#inSpan(name, options, async (span) => {
      let problem: TelemetryAttributes = {};
      try {
        return await send(span && this.#attempt(() => formatTraceparent(span.spanContext())));
      } catch (error) {
        const code = isRunledgerError(error) ? error.code : "_OTHER";
        problem = { "error.type": code };
        this.#fail(span, code);
        throw error;
      } finally {
        this.#attempt(() => span?.end());
        this.#measure("enqueueDuration", (performance.now() - startedAt) / 1000, { ...attributes, ...problem });
        if (!("error.type" in problem)) this.#measure("sent", count, attributes);
      }
    });
  }

  /**
   * Runs an attempt in a consumer's span, which is active in the handler. The span ends when the attempt is settled.
   *
   * @param job The job.
   * @param run Runs the attempt; never rejects.
   * @returns What it gave.
   */
  run<Result>(job: HeldJob, run: () => Promise<Result>): Promise<Result> {
    if (!this.isOn) return run();
    const { claim } = job;
    const startedAt = performance.now();
    const metricAttributes = { "messaging.operation.name": "process", "messaging.destination.name": claim.jobType };
    this.#measure("consumed", 1, metricAttributes);
    this.#measure("waitDuration", (claim.waitedMs + startedAt - job.claimedAt) / 1000, metricAttributes);
    const parent = claim.traceparent === undefined ? undefined : parseTraceparent(claim.traceparent);
    const options = {
      kind: CONSUMER,
      attributes: { ...attemptAttributes(job), ...(this.#clientId && { "messaging.client.id": this.#clientId }) },
      links: parent === undefined ? [] : [{ context: { ...parent, isRemote: true } }],
      // Not a child of whatever span the worker was started in.
      root: true,
    } as const;
    return this.#inSpan(`process ${claim.jobType}`, { ...options, links: [...options.links] }, (span) => {
      const attempt: AttemptTelemetry = { span, startedAt, endedAt: undefined };
      job.telemetry = attempt;
      return run().then((result) => {
        attempt.endedAt = performance.now();
        return result;
      });
    });
  }

  /** An outcome was committed. */
  settled(job: HeldJob, outcome: JobOutcome, answer: SettledJob): void {
    if (!this.isOn || !answer.settled) return;
    if (outcome.kind !== "failed") return this.#end(job, outcome.kind);
    const { code } = outcome.failure;
    const isFinal = answer.nextRunAt === undefined;
    this.#measure(isFinal ? "deadLetters" : "retries", 1, failureAttributes(job.claim.jobType, code));
    this.#end(job, isFinal ? "dead_lettered" : "retried", code);
  }

  /** Somebody else cancelled the job. */
  canceled(job: HeldJob): void {
    if (this.isOn) this.#end(job, "canceled");
  }

  /** The lease is gone. */
  leaseLost(job: HeldJob): void {
    if (!this.isOn) return;
    this.#measure("leasesLost", 1, { "messaging.destination.name": job.claim.jobType });
    this.#end(job, "lease_lost", "job.lease_owner_mismatch");
  }

  /** The worker gives the job up and does not know what became of it. */
  left(job: HeldJob, code: RunledgerErrorCode): void {
    if (this.isOn) this.#end(job, "left", code);
  }

  /** A lease was reaped. */
  reaped(job: ReapedJob): void {
    const isFinal = job.nextRunAt === undefined;
    this.#measure(isFinal ? "deadLetters" : "retries", 1, failureAttributes(job.jobType, "job.lease_expired"));
  }

  /** A claim came back. */
  claimed(count: number): void {
    this.#measure("claimSize", count, {});
  }

  /** Has leases counted until the function that it gives is called. */
  observeLeases(count: () => number): () => void {
    const stop = this.#attempt(() => this.#metrics?.observeLeases(count));
    return () => void this.#attempt(() => stop?.());
  }

  #end(job: HeldJob, outcome: string, errorType?: string): void {
    const { telemetry: attempt } = job;
    if (attempt === undefined) return;
    job.telemetry = undefined;
    const problem: TelemetryAttributes = errorType === undefined ? {} : { "error.type": errorType };
    const seconds = ((attempt.endedAt ?? performance.now()) - attempt.startedAt) / 1000;
    this.#measure("processDuration", seconds, {
      "messaging.operation.name": "process",
      "messaging.destination.name": job.claim.jobType,
      "runledger.outcome": outcome,
      ...problem,
    });
    this.#attempt(() => attempt.span?.setAttributes({ "runledger.outcome": outcome }));
    if (errorType !== undefined) this.#fail(attempt.span, errorType);
    this.#attempt(() => attempt.span?.end());
  }

  /** Only the code: messages may quote what was processed. */
  #fail(span: TelemetrySpan | undefined, code: string): void {
    if (span === undefined) return;
    this.#attempt(() => {
      span.setAttributes({ "error.type": code });
      span.setStatus({ code: ERROR, message: code });
    });
  }

  /** Runs a function in a span; without one if there is no tracer or it throws. */
  #inSpan<Result>(
    name: string,
    options: Parameters<TelemetryTracer["startActiveSpan"]>[1],
    fn: (span: TelemetrySpan | undefined) => Promise<Result>,
  ): Promise<Result> {
    if (this.#tracer === undefined) return fn(undefined);
    let running: Promise<Result> | undefined;
    try {
      this.#tracer.startActiveSpan(name, options, (span) => running = fn(span));
    } catch (error) {
      this.#report(error);
    }
    return running ?? fn(undefined);
  }

  #measure(name: InstrumentName, value: number, attributes: TelemetryAttributes): void {
    if (this.#metrics !== undefined) this.#attempt(() => this.#metrics?.measure(name, value, attributes));
  }

  #attempt<Value>(fn: () => Value): Value | undefined {
    try {
      return fn();
    } catch (error) {
      this.#report(error);
      return undefined;
    }
  }

  #report(error: unknown): void {
    if (this.#hasFailed) return;
    this.#hasFailed = true;
    this.#logger.error("telemetry throws; this is reported once", errorFields(error));
  }
}

function attemptAttributes({ claim }: HeldJob): TelemetryAttributes {
  const { jobId, jobType, runNumber, attempt, maxAttempts, organizationId, workflow } = claim;
  return {
    "messaging.system": MESSAGING_SYSTEM,
    "messaging.operation.name": "process",
    "messaging.operation.type": "process",
    "messaging.destination.name": jobType,
    "messaging.message.id": jobId,
    "runledger.job.run_number": runNumber,
    "runledger.job.attempt": attempt,
    "runledger.job.max_attempts": maxAttempts,
    ...(organizationId === undefined ? {} : { "runledger.organization.id": organizationId }),
    ...(workflow === undefined
      ? {}
      : { "runledger.workflow.run.id": workflow.runId, "runledger.workflow.step.key": workflow.stepKey }),
  };
}

function failureAttributes(jobType: string, code: string): TelemetryAttributes {
  return { "messaging.destination.name": jobType, "error.type": code };
}
