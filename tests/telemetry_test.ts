/**
 * Traces and metrics, with OpenTelemetry's own SDK behind them.
 *
 * @module
 */

import { context, SpanKind, SpanStatusCode, trace } from "@opentelemetry/api";
import type { Meter, Tracer } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import { AggregationTemporality, InMemoryMetricExporter, MeterProvider } from "@opentelemetry/sdk-metrics";
import { PeriodicExportingMetricReader } from "@opentelemetry/sdk-metrics";
import type { MetricData } from "@opentelemetry/sdk-metrics";
import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } from "@opentelemetry/sdk-trace-base";
import type { ReadableSpan } from "@opentelemetry/sdk-trace-base";
import { defineJob, JobFailure, snooze, WorkflowDagBuilder } from "@runledger/core";
import { claimJobs, enqueueJob } from "@runledger/postgres";
import { JobCatalog, runReaper } from "@runledger/runtime";
import type { TelemetryMeter, TelemetryOptions, TelemetryTracer } from "@runledger/runtime";
import assert from "node:assert/strict";
import { openTestDatabase } from "./support/database.ts";
import { endedJobs, expireLease, gate, recordingLogger, startWorker } from "./support/worker_harness.ts";

const contexts = new AsyncLocalStorageContextManager().enable();
context.setGlobalContextManager(contexts);

/** A tracer and a meter of the real SDK, and what they have heard. */
interface Recorder extends AsyncDisposable {
  readonly telemetry: TelemetryOptions;
  readonly tracer: Tracer;
  /** Spans that have ended, by name. */
  spans(name: string): readonly ReadableSpan[];
  /** The data points of a metric. */
  points(name: string): Promise<readonly Point[]>;
}

interface Point {
  readonly attributes: Readonly<Record<string, unknown>>;
  readonly value: number | { readonly count: number; readonly sum?: number };
}

function recorder(): Recorder {
  const exporter = new InMemorySpanExporter();
  const traces = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] });
  const collected = new InMemoryMetricExporter(AggregationTemporality.CUMULATIVE);
  const reader = new PeriodicExportingMetricReader({ exporter: collected, exportIntervalMillis: 3_600_000 });
  const meters = new MeterProvider({ readers: [reader] });
  const tracer = traces.getTracer("test");
  return {
    telemetry: { tracer, meter: meters.getMeter("test") },
    tracer,
    spans: (name) => exporter.getFinishedSpans().filter((span) => span.name === name),
    async points(name) {
      collected.reset();
      await meters.forceFlush();
      const metrics: MetricData[] = collected.getMetrics()
        .flatMap(({ scopeMetrics }) => scopeMetrics).flatMap(({ metrics }) => metrics);
      const found = metrics.filter(({ descriptor }) => descriptor.name === name);
      return found.flatMap(({ dataPoints }) => dataPoints as Point[]);
    },
    async [Symbol.asyncDispose]() {
      await traces.shutdown();
      await meters.shutdown();
    },
  };
}

Deno.test("a tracer and a meter of @opentelemetry/api fit the types, which need no package", () => {
  const tracer: Tracer = trace.getTracer("test");
  const meter: Meter | undefined = undefined;
  const fits: TelemetryTracer = tracer;
  const alsoFits: TelemetryMeter | undefined = meter satisfies Meter | undefined;
  assert.equal(typeof fits.startActiveSpan, "function");
  assert.equal(alsoFits, undefined);
  const takes = (_meter: TelemetryMeter) => {};
  const given: (meter: Meter) => void = takes;
  assert.equal(given, takes);
});

Deno.test("an attempt is a consumer's span linked to the enqueue's, active in the handler", async () => {
  await using db = await openTestDatabase();
  await using otel = recorder();
  const job = defineJob({ type: "mail.send" });
  const catalog = new JobCatalog({ telemetry: otel.telemetry }).handle(job, async () => {
    await new Promise((resolve) => queueMicrotask(() => resolve(undefined)));
    otel.tracer.startSpan("deliver").end();
    return { activeTraceId: trace.getActiveSpan()?.spanContext().traceId ?? null };
  });
  await catalog.sync(db.sql);
  // The worker is started inside a span, which must not become the parent of everything.
  const ended = endedJobs(catalog, 1);
  const worker = otel.tracer.startActiveSpan("main", (span) => {
    const started = startWorker(db.sql, catalog, { config: { workerId: "w" } });
    span.end();
    return started;
  });
  await using _worker = worker;
  const { jobId } = await otel.tracer.startActiveSpan("request", async (span) => {
    const enqueued = await catalog.enqueueJob(db.sql, job.request({ to: "ada" }));
    span.end();
    return enqueued;
  });
  await ended;

  const [request] = otel.spans("request");
  const [producer] = otel.spans("enqueue mail.send");
  const [consumer] = otel.spans("process mail.send");
  const [child] = otel.spans("deliver");
  assert.ok(request && producer && consumer && child);
  assert.equal(producer.kind, SpanKind.PRODUCER);
  assert.equal(producer.parentSpanContext?.spanId, request.spanContext().spanId);
  assert.deepEqual(producer.attributes, {
    "messaging.system": "runledger",
    "messaging.operation.name": "enqueue",
    "messaging.operation.type": "send",
    "messaging.destination.name": "mail.send",
  });
  assert.equal(consumer.kind, SpanKind.CONSUMER);
  assert.equal(consumer.parentSpanContext, undefined);
  assert.notEqual(consumer.spanContext().traceId, producer.spanContext().traceId);
  const [link] = consumer.links;
  assert.equal(link?.context.traceId, producer.spanContext().traceId);
  assert.equal(link.context.spanId, producer.spanContext().spanId);
  assert.equal(link.context.isRemote, true);
  assert.deepEqual(consumer.attributes, {
    "messaging.system": "runledger",
    "messaging.operation.name": "process",
    "messaging.operation.type": "process",
    "messaging.destination.name": "mail.send",
    "messaging.message.id": jobId,
    "messaging.client.id": "w",
    "runledger.job.run_number": 1,
    "runledger.job.attempt": 1,
    "runledger.job.max_attempts": 3,
    "runledger.outcome": "succeeded",
  });
  assert.equal(consumer.status.code, SpanStatusCode.UNSET);
  assert.equal(child.parentSpanContext?.spanId, consumer.spanContext().spanId);
});

Deno.test("each attempt has its span, and those that fail say with which code, never with what message", async () => {
  await using db = await openTestDatabase();
  await using otel = recorder();
  const job = defineJob({ type: "flaky", maxAttempts: 2, retry: { kind: "fixed", delayMs: 0 } });
  const catalog = new JobCatalog({ telemetry: otel.telemetry }).handle(job, (_payload, { attempt }) => {
    if (attempt === 1) throw new Error("card 4111");
    throw JobFailure.terminal("card.refused", "card 4111 was refused");
  });
  await catalog.sync(db.sql);
  await catalog.enqueueJob(db.sql, job.request(null));
  const ended = endedJobs(catalog, 1);
  await using _worker = startWorker(db.sql, catalog);
  await ended;
  const spans = otel.spans("process flaky");
  assert.deepEqual(
    spans.map(({ attributes, status }) => [
      attributes["runledger.job.attempt"],
      attributes["runledger.outcome"],
      attributes["error.type"],
      status.code,
      status.message,
    ]),
    [
      [1, "retried", "job.handler_threw", SpanStatusCode.ERROR, "job.handler_threw"],
      [2, "dead_lettered", "card.refused", SpanStatusCode.ERROR, "card.refused"],
    ],
  );
  assert.ok(
    !JSON.stringify(spans.map(({ attributes, events, status }) => [attributes, events, status])).includes("4111"),
  );
  // Both follow from the one enqueue.
  const [producer] = otel.spans("enqueue flaky");
  assert.deepEqual(
    spans.map(({ links }) => links[0]?.context.spanId),
    [producer?.spanContext().spanId, producer?.spanContext().spanId],
  );
});

Deno.test("the steps of a run are linked to where the run was enqueued", async () => {
  await using db = await openTestDatabase();
  await using otel = recorder();
  const step = defineJob({ type: "step" });
  const catalog = new JobCatalog({ telemetry: otel.telemetry }).handle(step, () => {});
  await catalog.sync(db.sql);
  const run = new WorkflowDagBuilder("flow").job("one", step.request(1)).job("two", step.request(2))
    .afterSuccess("two", ["one"]).build();
  await catalog.enqueueWorkflowRun(db.sql, run);
  const ended = endedJobs(catalog, 2);
  await using _worker = startWorker(db.sql, catalog);
  await ended;
  const [producer] = otel.spans("enqueue flow");
  const steps = otel.spans("process step");
  assert.deepEqual(steps.map(({ attributes }) => attributes["runledger.workflow.step.key"]), ["one", "two"]);
  for (const { links } of steps) assert.equal(links[0]?.context.spanId, producer?.spanContext().spanId);
});

Deno.test("a batch is one span with its count, and an enqueue that is refused is an error", async () => {
  await using db = await openTestDatabase();
  await using otel = recorder();
  const [left, right] = [defineJob({ type: "left" }), defineJob({ type: "right" })];
  const catalog = new JobCatalog({ telemetry: otel.telemetry }).define(left).define(right);
  await assert.rejects(catalog.enqueueJob(db.sql, left.request(1)), { code: "job.definition_not_found_or_disabled" });
  const [refused] = otel.spans("enqueue left");
  assert.deepEqual([refused?.status.code, refused?.attributes["error.type"]], [
    SpanStatusCode.ERROR,
    "job.definition_not_found_or_disabled",
  ]);
  await catalog.sync(db.sql);
  await catalog.enqueueJobs(db.sql, [left.request(1), right.request(2), left.request(3)]);
  const [batch] = otel.spans("enqueue");
  assert.equal(batch?.attributes["messaging.batch.message_count"], 3);
  assert.equal(batch.attributes["messaging.destination.name"], undefined);
  const sent = await otel.points("messaging.client.sent.messages");
  assert.deepEqual(sent.map(({ value }) => value), [3]);
  const durations = await otel.points("messaging.client.operation.duration");
  assert.equal(durations.length, 2);
  assert.equal(durations.some(({ attributes }) => "error.type" in attributes), true);
});

Deno.test("counters and histograms tell what a worker and a reaper did", async () => {
  await using db = await openTestDatabase();
  await using otel = recorder();
  const job = defineJob({ type: "counted", maxAttempts: 2, retry: { kind: "fixed", delayMs: 0 } });
  const held = gate();
  const release = gate();
  const catalog = new JobCatalog({ telemetry: otel.telemetry }).handle(job, async (payload, { attempt, runNumber }) => {
    if (payload === "bad") throw new Error("no");
    if (payload === "later" && attempt === 1 && runNumber === 1) {
      held.open();
      await release.opened;
    }
    if (payload === "nap" && !napped) {
      napped = true;
      return snooze(0);
    }
  });
  let napped = false;
  await catalog.sync(db.sql);
  await catalog.enqueueJobs(db.sql, ["good", "bad", "later", "nap"].map((payload) => job.request(payload)));
  const ended = endedJobs(catalog, 4);
  await using worker = startWorker(db.sql, catalog);
  await held.opened;
  const leases = await otel.points("runledger.leases.held");
  assert.equal(leases.length, 1);
  assert.ok(typeof leases[0]?.value === "number" && leases[0].value >= 1);
  release.open();
  await ended;
  await worker.stop();

  const outcomes = new Map<unknown, unknown>();
  for (const { attributes, value } of await otel.points("messaging.process.duration")) {
    assert.equal(attributes["messaging.destination.name"], "counted");
    outcomes.set(attributes["runledger.outcome"], typeof value === "object" ? value.count : value);
  }
  assert.deepEqual(Object.fromEntries(outcomes), { succeeded: 3, retried: 1, dead_lettered: 1, snoozed: 1 });
  const total = async (name: string) => (await otel.points(name)).map(({ value }) => value);
  assert.deepEqual(await total("messaging.client.consumed.messages"), [6]);
  assert.deepEqual(await total("runledger.job.retries"), [1]);
  assert.deepEqual(await total("runledger.job.dead_letters"), [1]);
  const [waits] = await otel.points("runledger.job.wait.duration");
  assert.ok(typeof waits?.value === "object" && waits.value.count === 6 && (waits.value.sum ?? -1) >= 0);
  const [claims] = await otel.points("runledger.claim.batch.size");
  assert.ok(typeof claims?.value === "object" && claims.value.sum === 6);

  const { jobId } = await enqueueJob(db.sql, job.request("good"));
  await claimJobs(db.sql, { jobTypes: ["counted"], workerId: "gone", limit: 1 });
  await expireLease(db.sql, jobId);
  const stop = new AbortController();
  catalog.onJobRetryScheduled(() => stop.abort());
  await runReaper(db.sql, { catalog, signal: stop.signal, config: { reaperIntervalSeconds: 1 } });
  const retries = await otel.points("runledger.job.retries");
  assert.deepEqual(retries.map(({ attributes }) => attributes["error.type"]).sort(), [
    "job.handler_threw",
    "job.lease_expired",
  ]);
});

Deno.test("telemetry that throws is reported once and harms no job", async () => {
  await using db = await openTestDatabase();
  const thrower = () => {
    throw new Error("telemetry is broken");
  };
  const broken = [
    { tracer: { startActiveSpan: thrower } as never, meter: { createCounter: thrower } as never },
    {
      // A span that cannot be used, and a tracer that throws after it has run the function.
      tracer: {
        startActiveSpan(_name: string, _options: unknown, fn: (span: never) => unknown) {
          fn(new Proxy({}, { get: thrower }) as never);
          throw new Error("telemetry is broken");
        },
      } as never,
      meter: {
        createCounter: () => ({ add: thrower }),
        createHistogram: () => ({ record: thrower }),
        createObservableUpDownCounter: thrower,
      } as never,
    },
  ];
  for (const [index, telemetry] of broken.entries()) {
    const job = defineJob({ type: `broken_${index}` });
    const log = recordingLogger();
    let runs = 0;
    const catalog = new JobCatalog({ telemetry, logger: log }).handle(job, () => {
      runs++;
    });
    await catalog.sync(db.sql);
    const ended = endedJobs(catalog, 2);
    await using worker = startWorker(db.sql, catalog);
    await catalog.enqueueJobs(db.sql, [job.request(1), job.request(2)]);
    await ended;
    assert.deepEqual((await worker.stop()).left, []);
    assert.equal(runs, 2);
    const reports = [...log.lines, ...worker.logger.lines].filter((line) => line.includes("telemetry throws"));
    assert.equal(reports.length, 2, "one by the catalog, one by the worker");
  }
});
