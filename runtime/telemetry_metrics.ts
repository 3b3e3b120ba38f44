/**
 * The metrics of jobs, by OpenTelemetry's conventions for messaging where they have a name for it.
 *
 * @module
 */

import type { TelemetryAttributes, TelemetryMeter, TelemetryObserver } from "./telemetry_api.ts";

/** What everything is marked with. */
export const MESSAGING_SYSTEM = "runledger";

/** The conventions' borders for durations in seconds. */
const SECONDS: readonly number[] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10];

/** Handlers and queues may take much longer than requests. */
const LONG_SECONDS: readonly number[] = [...SECONDS, 30, 60, 300, 1800, 3600];

const BATCHES: readonly number[] = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000];

/** The name of an instrument. */
export type InstrumentName =
  | "sent"
  | "enqueueDuration"
  | "consumed"
  | "processDuration"
  | "waitDuration"
  | "retries"
  | "deadLetters"
  | "leasesLost"
  | "claimSize";

/** A counter; with borders, a histogram. */
interface Instrument {
  readonly name: string;
  readonly unit: string;
  readonly description: string;
  readonly borders?: readonly number[];
}

const INSTRUMENTS: Readonly<Record<InstrumentName, Instrument>> = {
  sent: { name: "messaging.client.sent.messages", unit: "{message}", description: "Jobs and runs that were enqueued." },
  enqueueDuration: {
    name: "messaging.client.operation.duration",
    unit: "s",
    description: "How long an enqueue took.",
    borders: SECONDS,
  },
  consumed: {
    name: "messaging.client.consumed.messages",
    unit: "{message}",
    description: "Attempts that were started.",
  },
  processDuration: {
    name: "messaging.process.duration",
    unit: "s",
    description: "How long a handler ran.",
    borders: LONG_SECONDS,
  },
  waitDuration: {
    name: "runledger.job.wait.duration",
    unit: "s",
    description: "From when a job was due to the start of its handler.",
    borders: LONG_SECONDS,
  },
  retries: {
    name: "runledger.job.retries",
    unit: "{attempt}",
    description: "Failed attempts after which another one follows.",
  },
  deadLetters: { name: "runledger.job.dead_letters", unit: "{job}", description: "Jobs that failed for good." },
  leasesLost: {
    name: "runledger.job.leases_lost",
    unit: "{lease}",
    description: "Leases that a worker found lost.",
  },
  claimSize: {
    name: "runledger.claim.batch.size",
    unit: "{job}",
    description: "Jobs that one claim gave.",
    borders: BATCHES,
  },
};

/** Takes measurements. */
export class TelemetryMetrics {
  readonly #meter: TelemetryMeter;
  readonly #instruments: Readonly<Record<string, (value: number, attributes: TelemetryAttributes) => void>>;

  /** Makes the instruments: once a meter, since some of them complain of doubles. */
  constructor(meter: TelemetryMeter) {
    this.#meter = meter;
    const entries = Object.entries(INSTRUMENTS).map(([key, { name, unit, description, borders }]) => {
      if (borders === undefined) {
        const counter = meter.createCounter(name, { unit, description });
        return [key, (value: number, attributes: TelemetryAttributes) => counter.add(value, attributes)] as const;
      }
      const advice = { explicitBucketBoundaries: [...borders] };
      const histogram = meter.createHistogram(name, { unit, description, advice });
      return [key, (value: number, attributes: TelemetryAttributes) => histogram.record(value, attributes)] as const;
    });
    this.#instruments = Object.fromEntries(entries);
  }

  /** Takes a measurement. */
  measure(name: InstrumentName, value: number, attributes: TelemetryAttributes): void {
    this.#instruments[name]?.(value, { "messaging.system": MESSAGING_SYSTEM, ...attributes });
  }

  /** Has the leases of a worker counted whenever metrics are collected, until the function that it gives is called. */
  observeLeases(count: () => number): () => void {
    const observable = this.#meter.createObservableUpDownCounter("runledger.leases.held", {
      unit: "{lease}",
      description: "Jobs that workers hold a lease on, running or not.",
    });
    const attributes = { "messaging.system": MESSAGING_SYSTEM };
    const callback = (observer: TelemetryObserver) => observer.observe(count(), attributes);
    observable.addCallback(callback);
    return () => observable.removeCallback(callback);
  }
}
