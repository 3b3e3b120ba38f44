/**
 * An AbortSignal for the signals that ask a process to stop.
 *
 * @module
 */

/** The part of Node's `process` that is used; Deno and Bun have the same. */
interface SignalSource {
  on(name: string, listener: () => void): unknown;
  off(name: string, listener: () => void): unknown;
}

const SIGNALS = ["SIGINT", "SIGTERM"];

/**
 * Gives a signal that aborts when the process is asked to stop, by Ctrl-C (SIGINT) or by its manager (SIGTERM).
 *
 * The first one aborts the signal and stops the listening, so that a second one ends the process at once, as it would
 * have without this call. Where there are no such signals, as on the edge, the signal never aborts.
 *
 * @returns The signal; its reason is an `AbortError` that names what was received.
 */
export function shutdownSignal(): AbortSignal {
  const controller = new AbortController();
  const { process } = globalThis as { readonly process?: Partial<SignalSource> };
  if (typeof process?.on !== "function" || typeof process.off !== "function") return controller.signal;
  const source = process as SignalSource;
  const listeners = SIGNALS.map((name) => ({ name, listener: () => onSignal(name) }));
  const onSignal = (received: string) => {
    for (const { name, listener } of listeners) source.off(name, listener);
    controller.abort(new DOMException(`${received} was received`, "AbortError"));
  };
  for (const { name, listener } of listeners) source.on(name, listener);
  return controller.signal;
}
