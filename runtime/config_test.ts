/// <reference lib="deno.ns" />
import assert from "node:assert/strict";
import fc from "fast-check";
import { JobsConfig } from "./config.ts";

Deno.test("settings have the contract's defaults", () => {
  const { workerId, ...rest } = JobsConfig.fromEnv({});
  assert.match(workerId, /^worker-[0-9a-f]{8}-[0-9a-f]{4}-7/);
  assert.deepEqual(rest, {
    pollIntervalMs: 500,
    claimBatchSize: 16,
    leaseTtlSeconds: 60,
    maxGlobalConcurrency: 32,
    reaperIntervalSeconds: 15,
    schedulePollIntervalSeconds: 30,
    reaperRetryDelayMs: 30_000,
  });
  assert.deepEqual({ ...JobsConfig.of({ workerId }) }, { workerId, ...rest });
});

Deno.test("blank variables mean defaults, and values are trimmed", () => {
  const config = JobsConfig.fromEnv({
    JOBS_WORKER_ID: " api-1 ",
    JOBS_POLL_INTERVAL_MS: "  ",
    JOBS_CLAIM_BATCH_SIZE: " 7 ",
  });
  assert.deepEqual([config.workerId, config.pollIntervalMs, config.claimBatchSize], ["api-1", 500, 7]);
});

Deno.test("numbers of the environment are moved to the nearest safe value", () => {
  const config = JobsConfig.fromEnv({
    JOBS_LEASE_TTL_SECONDS: "1",
    JOBS_CLAIM_BATCH_SIZE: "99999999999999999999999",
    JOBS_MAX_GLOBAL_CONCURRENCY: "-4",
    JOBS_REAPER_RETRY_DELAY_MS: "0",
  });
  assert.deepEqual(
    [config.leaseTtlSeconds, config.claimBatchSize, config.maxGlobalConcurrency, config.reaperRetryDelayMs],
    [10, 1000, 1, 1000],
  );
});

Deno.test("one error names every variable that cannot be used", () => {
  const env = {
    JOBS_WORKER_ID: "w".repeat(256),
    JOBS_POLL_INTERVAL_MS: "fast",
    JOBS_LEASE_TTL_SECONDS: "1.5",
    JOBS_CLAIM_BATCH_SIZE: "16",
  };
  assert.throws(() => JobsConfig.fromEnv(env), (error) => {
    assert.ok(error instanceof TypeError);
    assert.match(error.message, /JOBS_POLL_INTERVAL_MS: must be a whole number/);
    assert.match(error.message, /JOBS_WORKER_ID: must have at most 255 characters/);
    assert.match(error.message, /JOBS_LEASE_TTL_SECONDS: must be a whole number/);
    assert.doesNotMatch(error.message, /JOBS_CLAIM_BATCH_SIZE/);
    return true;
  });
});

Deno.test("the environment never gives settings that code could not give", () => {
  const text = fc.oneof(fc.string(), fc.integer().map(String), fc.bigInt().map(String));
  const names = ["JOBS_WORKER_ID", "JOBS_POLL_INTERVAL_MS", "JOBS_CLAIM_BATCH_SIZE", "JOBS_REAPER_INTERVAL_SECONDS"];
  fc.assert(fc.property(fc.dictionary(fc.constantFrom(...names), text), (env) => {
    let config;
    try {
      config = JobsConfig.fromEnv(env);
    } catch (error) {
      assert.ok(error instanceof TypeError);
      return;
    }
    assert.deepEqual(JobsConfig.of(config), config);
  }));
});

Deno.test("settings in code are refused, never moved, and one error names them all", () => {
  assert.throws(
    () => JobsConfig.of({ leaseTtlSeconds: 0, claimBatchSize: 1001, workerId: " ", speed: 9 } as never),
    /speed: there is no such setting[^]*workerId: must not be blank[^]*claimBatchSize[^]*leaseTtlSeconds/,
  );
  assert.equal(JobsConfig.of({ leaseTtlSeconds: 1 }).leaseTtlSeconds, 1);
});
