/**
 * Settings of a process that runs jobs: defaults, environment variables, and checks.
 *
 * @module
 */

import { newId } from "@runledger/core";
import { z } from "zod";

/** The settings. Units are in the names. */
export interface JobsConfig {
  /** Shown to operators as the holder of leases. `JOBS_WORKER_ID`. @default `worker-` and a new UUID */
  readonly workerId: string;
  /** How long an idle worker waits before it asks again, in milliseconds. `JOBS_POLL_INTERVAL_MS`. @default 500 */
  readonly pollIntervalMs: number;
  /** How many jobs one claim takes at most, 1 to 1000. `JOBS_CLAIM_BATCH_SIZE`. @default 16 */
  readonly claimBatchSize: number;
  /** How long a lease lasts without a heartbeat, in seconds, 1 to 86,400. `JOBS_LEASE_TTL_SECONDS`. @default 60 */
  readonly leaseTtlSeconds: number;
  /** How many handlers run at once in this process. `JOBS_MAX_GLOBAL_CONCURRENCY`. @default 32 */
  readonly maxGlobalConcurrency: number;
  /** How long the reaper waits between rounds, in seconds. `JOBS_REAPER_INTERVAL_SECONDS`. @default 15 */
  readonly reaperIntervalSeconds: number;
  /** How long the scheduler waits between rounds, in seconds. `JOBS_SCHEDULE_POLL_INTERVAL_SECONDS`. @default 30 */
  readonly schedulePollIntervalSeconds: number;
  /** How long reaped jobs wait for their next attempt, in milliseconds. `JOBS_REAPER_RETRY_DELAY_MS`. @default 30000 */
  readonly reaperRetryDelayMs: number;
}

/** How a setting is read and checked. */
interface Setting {
  readonly variable: string;
  readonly fallback: number;
  /** Smallest value that code may give. */
  readonly min: number;
  /** Smallest value that the environment may give; smaller ones are raised to it. */
  readonly envFloor: number;
  readonly max: number;
}

const DAY_SECONDS = 86_400;

const SETTINGS: Readonly<Record<Exclude<keyof JobsConfig, "workerId">, Setting>> = {
  pollIntervalMs: { variable: "JOBS_POLL_INTERVAL_MS", fallback: 500, min: 1, envFloor: 1, max: DAY_SECONDS * 1000 },
  claimBatchSize: { variable: "JOBS_CLAIM_BATCH_SIZE", fallback: 16, min: 1, envFloor: 1, max: 1000 },
  leaseTtlSeconds: { variable: "JOBS_LEASE_TTL_SECONDS", fallback: 60, min: 1, envFloor: 10, max: DAY_SECONDS },
  maxGlobalConcurrency: { variable: "JOBS_MAX_GLOBAL_CONCURRENCY", fallback: 32, min: 1, envFloor: 1, max: 100_000 },
  reaperIntervalSeconds: {
    variable: "JOBS_REAPER_INTERVAL_SECONDS",
    fallback: 15,
    min: 1,
    envFloor: 1,
    max: DAY_SECONDS,
  },
  schedulePollIntervalSeconds: {
    variable: "JOBS_SCHEDULE_POLL_INTERVAL_SECONDS",
    fallback: 30,
    min: 1,
    envFloor: 1,
    max: DAY_SECONDS,
  },
  reaperRetryDelayMs: {
    variable: "JOBS_REAPER_RETRY_DELAY_MS",
    fallback: 30_000,
    min: 1,
    envFloor: 1000,
    max: DAY_SECONDS * 1000,
  },
};

const SETTING_NAMES = Object.keys(SETTINGS) as (keyof typeof SETTINGS)[];
const WORKER_ID_VARIABLE = "JOBS_WORKER_ID";

/** Environment variables by name. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** Ways to make a {@linkcode JobsConfig}. */
export interface JobsConfigFactory {
  /**
   * Reads the settings from environment variables. Unset and blank ones have their defaults; numbers out of range are
   * moved to the nearest safe value.
   *
   * @param env The variables. @default those of the process, where there is one
   * @returns The settings.
   * @throws {TypeError} When a value is not a whole number; the message names every such variable.
   */
  fromEnv(env?: Environment): JobsConfig;

  /**
   * Completes settings that are given in code. Nothing is moved: what cannot be is refused.
   *
   * @param settings Any of the settings.
   * @returns All of them.
   * @throws {TypeError} When a setting cannot be; the message names every such setting.
   */
  of(settings?: Partial<JobsConfig>): JobsConfig;
}

/**
 * Makes settings from the environment or from code.
 *
 * @example
 * ```ts
 * import { JobsConfig } from "@runledger/runtime";
 * import assert from "node:assert/strict";
 *
 * assert.equal(JobsConfig.fromEnv({ JOBS_CLAIM_BATCH_SIZE: "5000" }).claimBatchSize, 1000);
 * assert.throws(() => JobsConfig.fromEnv({ JOBS_POLL_INTERVAL_MS: "fast" }), /JOBS_POLL_INTERVAL_MS/);
 * assert.equal(JobsConfig.of({ maxGlobalConcurrency: 4 }).pollIntervalMs, 500);
 * ```
 */
export const JobsConfig: JobsConfigFactory = Object.freeze({
  fromEnv(env: Environment = processEnvironment()): JobsConfig {
    const parsed = environmentSchema().safeParse(trimmed(env));
    if (!parsed.success) {
      const lines = parsed.error.issues.map((issue) => `  ${issue.path.join(".")}: ${issue.message}`);
      throw new TypeError(`These environment variables cannot be used:\n${lines.join("\n")}`);
    }
    const values = parsed.data;
    const numbers = SETTING_NAMES.map((name) => [name, values[SETTINGS[name].variable]]);
    return Object.freeze({ workerId: values[WORKER_ID_VARIABLE], ...Object.fromEntries(numbers) }) as JobsConfig;
  },

  of(settings: Partial<JobsConfig> = {}): JobsConfig {
    if (typeof settings !== "object" || settings === null) throw new TypeError("Settings must be an object.");
    const problems: string[] = [];
    for (const name of Object.keys(settings)) {
      if (name !== "workerId" && !Object.hasOwn(SETTINGS, name)) problems.push(`${name}: there is no such setting`);
    }
    const workerId = settings.workerId ?? newWorkerId();
    const problem = workerIdProblem(workerId);
    if (problem !== undefined) problems.push(`workerId: ${problem}`);
    const numbers = SETTING_NAMES.map((name) => {
      const { fallback, min, max } = SETTINGS[name];
      const value = settings[name] ?? fallback;
      if (!Number.isInteger(value) || value < min || value > max) {
        problems.push(`${name}: must be a whole number from ${min} to ${max}, not ${String(value)}`);
      }
      return [name, value];
    });
    if (problems.length > 0) throw new TypeError(`These settings cannot be used:\n  ${problems.join("\n  ")}`);
    return Object.freeze({ workerId, ...Object.fromEntries(numbers) }) as JobsConfig;
  },
});

/** Built when it is asked for: importing the runtime must not cost the making of schemas. */
function environmentSchema(): z.ZodType<Readonly<Record<string, string | number>>> {
  const shape: Record<string, z.ZodType<string | number>> = {
    [WORKER_ID_VARIABLE]: z.string().optional().transform((text, context) => {
      const workerId = text ?? newWorkerId();
      const problem = workerIdProblem(workerId);
      if (problem !== undefined) context.addIssue(problem);
      return workerId;
    }),
  };
  for (const name of SETTING_NAMES) {
    const { variable, fallback, envFloor, max } = SETTINGS[name];
    shape[variable] = z.string().regex(/^[+-]?\d+$/, `must be a whole number, such as ${fallback}`)
      .transform((text) => Math.min(Math.max(Number(text), envFloor), max))
      .optional()
      .transform((value) => value ?? fallback);
  }
  return z.object(shape);
}

function trimmed(env: Environment): Environment {
  const variables = [WORKER_ID_VARIABLE, ...SETTING_NAMES.map((name) => SETTINGS[name].variable)];
  const values: Record<string, string> = {};
  for (const variable of variables) {
    const text = env[variable]?.trim();
    if (text !== undefined && text !== "") values[variable] = text;
  }
  return values;
}

function newWorkerId(): string {
  return `worker-${newId()}`;
}

function workerIdProblem(workerId: string): string | undefined {
  if (typeof workerId !== "string" || workerId.trim() === "") return "must not be blank";
  return workerId.length > 255 ? "must have at most 255 characters" : undefined;
}

/** Deno, Node and Bun have the same global; an edge runtime may have none. */
function processEnvironment(): Environment {
  return (globalThis as { readonly process?: { readonly env?: Environment } }).process?.env ?? {};
}
