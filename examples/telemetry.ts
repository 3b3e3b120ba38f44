/**
 * Traces and metrics: a span for each enqueue and each attempt, tied together across processes, and spans of the handler's
 * own work inside them. Runledger needs a tracer and a meter, and loads nothing itself.
 *
 * Run: `deno run -A examples/telemetry.ts`
 *
 * @module
 */

import { context, metrics, trace } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import {
  AggregationTemporality,
  InMemoryMetricExporter,
  MeterProvider,
  PeriodicExportingMetricReader,
} from "@opentelemetry/sdk-metrics";
import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } from "@opentelemetry/sdk-trace-base";
import { defineJob } from "@runledger/core";
import { consoleLogger, JobCatalog, Supervisor } from "@runledger/runtime";
import { z } from "zod";
import { openDatabase } from "./support/database.ts";

// What any program with OpenTelemetry does at its start; a real one exports to a collector instead of into memory.
const spans = new InMemorySpanExporter();
const collected = new InMemoryMetricExporter(AggregationTemporality.CUMULATIVE);
const reader = new PeriodicExportingMetricReader({ exporter: collected });
const traces = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(spans)] });
const meters = new MeterProvider({ readers: [reader] });
context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
trace.setGlobalTracerProvider(traces);
metrics.setGlobalMeterProvider(meters);

const tracer = trace.getTracer("example");
const resize = defineJob({
  type: "example.resize_photo",
  payload: z.object({ photo: z.int() }),
  retry: { kind: "fixed", delayMs: 50 },
});

const catalog = new JobCatalog({ telemetry: { tracer, meter: metrics.getMeter("example") } });
catalog.handle(resize, async ({ photo }, { attempt }) => {
  // The attempt's span is the active one, so this becomes its child; so do spans of instrumented drivers and fetch.
  await tracer.startActiveSpan("read photo", async (span) => {
    await Promise.resolve(photo);
    span.end();
  });
  if (attempt === 1) throw new Error("the disk is busy");
  return { photo };
});
const done = Promise.withResolvers<void>();
catalog.onJobSucceeded(() => done.resolve());

await using database = await openDatabase();
const { sql } = database;
await catalog.sync(sql);
const supervisor = new Supervisor(sql, { catalog, config: { pollIntervalMs: 25 }, logger: consoleLogger });

// A request of some web server, as its own instrumentation would trace it. The job keeps where it came from.
await tracer.startActiveSpan("POST /photos", async (span) => {
  await catalog.enqueueJob(sql, resize.request({ photo: 7 }));
  span.end();
});
await done.promise;
await supervisor.shutdown();

const finished = spans.getFinishedSpans();
const nameOf = (spanId: string | undefined) => finished.find((span) => span.spanContext().spanId === spanId)?.name;
for (const span of finished.toSorted((a, b) => a.name < b.name ? -1 : 1)) {
  const attempt = span.attributes["runledger.job.attempt"];
  const parent = nameOf(span.parentSpanContext?.spanId);
  const link = nameOf(span.links[0]?.context.spanId);
  const parts = [
    attempt === undefined ? "" : `, attempt ${attempt}: ${span.attributes["runledger.outcome"]}`,
    parent === undefined ? "" : `, inside ${parent}`,
    link === undefined ? "" : `, linked to ${link}`,
  ];
  console.log(`span ${span.name}${parts.join("")}`);
}

await meters.forceFlush();
const last = collected.getMetrics().at(-1);
for (const { descriptor, dataPoints } of last?.scopeMetrics.flatMap((scope) => scope.metrics) ?? []) {
  console.log(`metric ${descriptor.name}: ${dataPoints.length} series, in ${descriptor.unit}`);
}
await meters.shutdown();
await traces.shutdown();
