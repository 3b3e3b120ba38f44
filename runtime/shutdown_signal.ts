/**
 * An AbortSignal for the signals that ask a process to stop.
 *
 * @module
 */

/** The part of Node's `process` that is used; Deno and Bun have the same. */
interface SignalSource {
  readonly pid: number;
  on(name: string, listener: () => void): unknown;
  off(name: string, listener: () => void): unknown;
  kill(pid: number, name: string): unknown;
}

const SIGNALS = ["SIGINT", "SIGTERM"];

/**
 * How long a further signal counts as the same request, in milliseconds. Ctrl-C reaches every process of a terminal, and a
 * task runner among them passes it on once more.
 */
const ECHO_MS = 500;

/**
 * Gives a signal that aborts when the process is asked to stop, by Ctrl-C (SIGINT) or by its manager (SIGTERM).
 *
 * Another one within half a second is taken for an echo of the first; one that comes later ends the process at once, as it
 * would have without this call. Where there are no such signals, as on the edge, the signal never aborts.
 *
 * @returns The signal; its reason is an `AbortError` that names what was received.
 */
export function shutdownSignal(): AbortSignal {
  const controller = new AbortController();
  const { process } = globalThis as { readonly process?: Partial<SignalSource> };
  if (typeof process?.on !== "function" || typeof process.off !== "function") return controller.signal;
  const source = process as SignalSource;
  const listeners = SIGNALS.map((name) => ({ name, listener: () => onSignal(name) }));
  let firstAt = 0;
  const onSignal = (received: string) => {
    if (!controller.signal.aborted) {
      firstAt = performance.now();
      controller.abort(new DOMException(`${received} was received`, "AbortError"));
      return;
    }
    if (performance.now() - firstAt < ECHO_MS) return;
    for (const { name, listener } of listeners) source.off(name, listener);
    source.kill(source.pid, received);
  };
  for (const { name, listener } of listeners) source.on(name, listener);
  return controller.signal;
}
