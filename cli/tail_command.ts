/**
 * `tail`: the ledger, live.
 *
 * @module
 */

import { readLedger } from "@runledger/postgres";
import type { LedgerEntry, Queryable } from "@runledger/postgres";
import type { CommandLine } from "./command_line.ts";
import { paint, printable, printableJson } from "./terminal.ts";
import type { Output, Tone } from "./terminal.ts";

/** How long to wait when nothing has happened, in milliseconds. */
const PAUSE_MS = 500;

const TONES: Partial<Record<LedgerEntry["eventType"], Tone>> = {
  SUCCEEDED: "good",
  FAILED: "odd",
  RETRY_SCHEDULED: "odd",
  DEAD_LETTERED: "bad",
  CANCELED: "odd",
  HEARTBEAT: "dim",
  PROGRESS: "dim",
};

/** Prints events until the signal; all of them, each once. */
export async function printLedger(
  db: Queryable,
  line: CommandLine,
  { output, signal }: { readonly output: Output; readonly signal: AbortSignal },
): Promise<void> {
  const { scope, jobType, isJson, follows } = line;
  const print = (entries: readonly LedgerEntry[]) => {
    for (const entry of entries) {
      if (jobType !== undefined && entry.jobType !== jobType) continue;
      output.write(isJson ? `${printableJson(entry)}\n` : entryLine(entry, output));
    }
  };
  let piece = await readLedger(db, { scope, limit: line.lines });
  print(piece.entries);
  while (follows && !signal.aborted) {
    if (!piece.hasMore) await pause(PAUSE_MS, signal);
    if (signal.aborted) return;
    piece = await readLedger(db, { scope, position: piece.position, limit: 1000 });
    print(piece.entries);
  }
}

function entryLine(entry: LedgerEntry, output: Output): string {
  const { occurredAt, jobId, jobType, runNumber, attempt, eventType } = entry;
  const place = `${runNumber}/${attempt ?? "-"}`;
  const type = paint(output, TONES[eventType] ?? "bold", eventType.padEnd(15));
  const time = paint(output, "dim", occurredAt.toISOString());
  return `${time}  ${jobId}  ${type}  ${place.padEnd(5)}  ${printable(jobType)}  ${printable(detailOf(entry))}`
    .trimEnd() + "\n";
}

/** What matters about an event, by its type. */
function detailOf({ details, progressDone, progressTotal }: LedgerEntry): string {
  switch (details?.eventType) {
    case "LEASED":
    case "HEARTBEAT":
      return details.workerId;
    case "FAILED":
      return `${details.failureKind} ${details.errorCode}: ${details.errorMessage.split("\n")[0]}`;
    case "RETRY_SCHEDULED":
      return `next attempt at ${details.nextRunAt.toISOString()}`;
    case "DEAD_LETTERED":
      return details.reason;
    case "PROGRESS":
      return `${progressDone ?? "?"} of ${progressTotal ?? "?"}`;
    case "REQUEUED":
      return [details.requeueKind, details.actor, details.reason].filter((text) => text !== undefined).join(": ");
    case "CANCELED":
    case "EDITED":
      return [details.actor, details.reason].filter((text) => text !== undefined).join(": ");
    default:
      return "";
  }
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal.addEventListener("abort", end);
  });
}
