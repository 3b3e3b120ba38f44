/**
 * The part of OpenTelemetry's API that is used, so that nothing of it has to be installed.
 *
 * A tracer and a meter of `@opentelemetry/api` fit; a test compares these types with the real ones.
 *
 * @module
 */

/** What spans and measurements are described by. */
export interface TelemetryAttributes {
  /** By name. */
  [name: string]: string | number | boolean;
}

/** Where in a trace something is. */
export interface TelemetrySpanContext {
  /** 32 hexadecimal digits. */
  readonly traceId: string;
  /** 16 hexadecimal digits. */
  readonly spanId: string;
  /** 1 if it is sampled. */
  readonly traceFlags: number;
  /** Whether it came from another process. */
  readonly isRemote?: boolean;
}

/** A span that has begun. */
export interface TelemetrySpan {
  /** Where it is. */
  spanContext(): TelemetrySpanContext;
  /** Describes it. */
  setAttributes(attributes: TelemetryAttributes): unknown;
  /** Says how it ended: 2 is an error. */
  setStatus(status: { code: 2; message?: string }): unknown;
  /** Ends it. */
  end(): void;
}

/** How a span begins. */
export interface TelemetrySpanOptions {
  /** 3 for a producer, 4 for a consumer. */
  kind: 3 | 4;
  /** What it is about. */
  attributes: TelemetryAttributes;
  /** What it follows from. */
  links?: { context: TelemetrySpanContext }[];
  /** Whether it has no parent, whatever span is active. */
  root?: boolean;
}

/** A tracer, as `trace.getTracer(name)` gives it. */
export interface TelemetryTracer {
  /** Runs a function in a span. */
  startActiveSpan<Result>(
    name: string,
    options: TelemetrySpanOptions,
    fn: (span: TelemetrySpan) => Result,
  ): Result;
}

/** What an instrument is called and measures. */
export interface TelemetryInstrumentOptions {
  /** For people. */
  description: string;
  /** In UCUM, such as `s` or `{message}`. */
  unit: string;
  /** Advice on where to put the borders of a histogram. */
  advice?: { explicitBucketBoundaries?: number[] };
}

/** A number that only grows. */
export interface TelemetryCounter {
  /** Adds to it. */
  add(value: number, attributes: TelemetryAttributes): void;
}

/** A distribution. */
export interface TelemetryHistogram {
  /** Adds a measurement. */
  record(value: number, attributes: TelemetryAttributes): void;
}

/** Takes an observation. */
export interface TelemetryObserver {
  /** Says how much there is now. */
  observe(value: number, attributes?: TelemetryAttributes): void;
}

/** A number that is asked for whenever metrics are collected. */
export interface TelemetryObservable {
  /** Adds who is asked. */
  addCallback(callback: (observer: TelemetryObserver) => void): void;
  /** Removes him. */
  removeCallback(callback: (observer: TelemetryObserver) => void): void;
}

/** A meter, as `metrics.getMeter(name)` gives it. */
export interface TelemetryMeter {
  /** Makes a counter. */
  createCounter(name: string, options: TelemetryInstrumentOptions): TelemetryCounter;
  /** Makes a histogram. */
  createHistogram(name: string, options: TelemetryInstrumentOptions): TelemetryHistogram;
  /** Makes an observed sum. */
  createObservableUpDownCounter(name: string, options: TelemetryInstrumentOptions): TelemetryObservable;
}

/** Who is told of spans and measurements. */
export interface TelemetryOptions {
  /** Gets a span for each attempt and each enqueue. @default no spans */
  readonly tracer?: TelemetryTracer;
  /** Gets counters and histograms. @default no metrics */
  readonly meter?: TelemetryMeter;
}
