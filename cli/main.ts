#!/usr/bin/env node
/**
 * The program: `runledger status|tail|inspect|doctor`.
 *
 * @module
 */

import process from "node:process";
import { runCommandLine } from "./mod.ts";

const controller = new AbortController();
for (const name of ["SIGINT", "SIGTERM"] as const) process.once(name, () => controller.abort());
// Whoever reads may stop before the end: `runledger tail | head`.
process.stdout.on("error", () => controller.abort());

process.exitCode = await runCommandLine(process.argv.slice(2), {
  variables: process.env,
  write: (text) => void process.stdout.write(text),
  writeError: (text) => void process.stderr.write(text),
  isTerminal: process.stdout.isTTY === true,
  signal: controller.signal,
});
