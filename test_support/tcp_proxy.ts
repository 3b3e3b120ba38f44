/**
 * A TCP proxy that breaks connections at the byte where a test wants them broken.
 *
 * @module
 */

import { connect, createServer } from "node:net";
import type { AddressInfo, Server, Socket } from "node:net";

/**
 * What the proxy does with what passes through it.
 *
 * - `pass`: nothing.
 * - `blackhole`: reads and drops one direction or both, as a network that lost its route does. The connection stays open
 *   and is of no use afterwards; end the test's patience with a timeout, `cut()` or by disposing.
 * - `cut-request`: cuts the connection when what the client sends contains a text. `before` drops those bytes, so that the
 *   server never sees them; `after` lets them through and cuts when the server's answer begins to come back, so that the
 *   server has done what they ask and the client is not told.
 * - `cut-reply`: cuts the connection in place of the next bytes from the server, or of the next that contain a text.
 * - `delay`: holds back each chunk of both directions.
 *
 * Texts are compared without regard to case, in the plain bytes of the connection: it must not be encrypted. A driver that
 * prepares a statement, COMMIT included, sends its text once per connection. A cut happens once; then the mode is `pass`
 * again.
 */
export type TcpProxyMode =
  | { readonly kind: "pass" }
  | { readonly kind: "blackhole"; readonly direction: "to_server" | "to_client" | "both" }
  | { readonly kind: "cut-request"; readonly containing: string; readonly when: "before" | "after" }
  | { readonly kind: "cut-reply"; readonly containing?: string }
  | { readonly kind: "delay"; readonly ms: number };

/** What {@linkcode startTcpProxy} can be told. */
export interface TcpProxyOptions {
  /** The server: a database URL, or any other URL with a host and a port. The port of PostgreSQL is the default. */
  readonly target: string;
  /** The mode to begin with, or the mode of each connection by its number, from 1. @default `{ kind: "pass" }` */
  readonly mode?: TcpProxyMode | ((connection: number) => TcpProxyMode);
}

/** What has happened so far. */
export interface TcpProxyCounts {
  /** Connections that clients opened. */
  readonly accepted: number;
  /** Of these, those that are open. */
  readonly open: number;
  /** Connections that the proxy cut. */
  readonly cut: number;
  /** Bytes that the server was sent. */
  readonly toServer: number;
  /** Bytes that clients were sent. */
  readonly toClient: number;
}

/** A running proxy. Disposing closes every connection and the port. */
export interface TcpProxy extends AsyncDisposable {
  /** The target's URL with the proxy in place of the server. */
  readonly url: string;
  /** The port it listens on, of 127.0.0.1. */
  readonly port: number;
  /** What has happened so far. */
  readonly counts: TcpProxyCounts;
  /**
   * Changes the mode at once.
   *
   * @param mode What to do from now on with every connection, those to come included.
   * @param connection Only this connection, by its number, from 1.
   */
  setMode(mode: TcpProxyMode, connection?: number): void;
  /** Cuts every open connection now. */
  cut(): void;
  /**
   * Waits for connections to be cut.
   *
   * @param count How many in all since the start. @default {1}
   */
  whenCut(count?: number): Promise<void>;
}

/**
 * Starts a proxy on a free port of 127.0.0.1.
 *
 * @example Lose the answer to COMMIT
 * ```ts ignore
 * await using proxy = await startTcpProxy({ target: database.url });
 * const sql = postgres(proxy.url);
 * proxy.setMode({ kind: "cut-request", containing: "commit", when: "after" });
 * await assert.rejects(sql.begin((tx) => enqueueJob(tx, request)));
 * ```
 *
 * @param options Where to forward to, and how to begin.
 * @returns The proxy. Use it with `await using`.
 * @throws {Error} No port can be had.
 */
export async function startTcpProxy(options: TcpProxyOptions): Promise<TcpProxy> {
  const proxy = new ForwardingProxy(options);
  await proxy.listen();
  return proxy;
}

const PASS: TcpProxyMode = { kind: "pass" };

class ForwardingProxy implements TcpProxy {
  readonly #target: URL;
  readonly #server: Server;
  readonly #links = new Map<number, Link>();
  readonly #waiting = new Set<() => void>();
  #mode: TcpProxyMode | ((connection: number) => TcpProxyMode);
  #accepted = 0;
  #cut = 0;
  #toServer = 0;
  #toClient = 0;

  constructor({ target, mode = PASS }: TcpProxyOptions) {
    this.#target = new URL(target);
    this.#mode = mode;
    this.#server = createServer((client) => this.#accept(client));
  }

  listen(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#server.once("error", reject);
      this.#server.listen(0, "127.0.0.1", resolve);
    });
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get url(): string {
    const url = new URL(this.#target);
    url.hostname = "127.0.0.1";
    url.port = String(this.port);
    return url.href;
  }

  get counts(): TcpProxyCounts {
    return {
      accepted: this.#accepted,
      open: this.#links.size,
      cut: this.#cut,
      toServer: this.#toServer,
      toClient: this.#toClient,
    };
  }

  setMode(mode: TcpProxyMode, connection?: number): void {
    if (connection !== undefined) {
      this.#links.get(connection)?.setMode(mode);
      return;
    }
    this.#mode = mode;
    for (const link of this.#links.values()) link.setMode(mode);
  }

  cut(): void {
    for (const link of [...this.#links.values()]) link.cut();
  }

  async whenCut(count: number = 1): Promise<void> {
    while (this.#cut < count) await new Promise<void>((resolve) => this.#waiting.add(resolve));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    await Promise.all([...this.#links.values()].map((link) => link.close()));
    await closed;
  }

  #accept(client: Socket): void {
    const number = ++this.#accepted;
    const mode = typeof this.#mode === "function" ? this.#mode(number) : this.#mode;
    const server = connect({
      host: this.#target.hostname.replaceAll(/^\[|\]$/g, ""),
      port: Number(this.#target.port || 5432),
    });
    const link = new Link(client, server, mode, {
      passed: (direction, bytes) => {
        if (direction === "to_server") this.#toServer += bytes;
        else this.#toClient += bytes;
      },
      cut: () => {
        this.#cut++;
        if (typeof this.#mode !== "function" && this.#mode.kind.startsWith("cut")) this.setMode(PASS);
        for (const resolve of this.#waiting) resolve();
        this.#waiting.clear();
      },
      closed: () => this.#links.delete(number),
    });
    this.#links.set(number, link);
  }
}

type Direction = "to_server" | "to_client";

interface LinkEvents {
  passed(direction: Direction, bytes: number): void;
  cut(): void;
  closed(): void;
}

/** One client's connection and the one to the server that belongs to it. */
class Link {
  readonly #client: Socket;
  readonly #server: Socket;
  readonly #events: LinkEvents;
  readonly #timers = new Set<ReturnType<typeof setTimeout>>();
  readonly #closed: Promise<void>;
  #mode: TcpProxyMode;
  /** The end of what was seen of the direction that is searched, in case the text is spread over two chunks. */
  #seen = "";
  #isOver = false;

  constructor(client: Socket, server: Socket, mode: TcpProxyMode, events: LinkEvents) {
    this.#client = client;
    this.#server = server;
    this.#events = events;
    this.#mode = mode;
    this.#closed = Promise.all([client, server].map((socket) => {
      // Errors are what this is for: 'close' follows.
      socket.on("error", () => {});
      return new Promise<void>((resolve) => socket.once("close", () => resolve()));
    })).then(() => events.closed());
    client.on("data", (chunk: Uint8Array) => this.#receive("to_server", chunk));
    server.on("data", (chunk: Uint8Array) => this.#receive("to_client", chunk));
    for (const socket of [client, server]) socket.once("close", () => this.#end());
  }

  setMode(mode: TcpProxyMode): void {
    this.#mode = mode;
    this.#seen = "";
  }

  cut(): void {
    if (this.#isOver) return;
    this.#end();
    this.#events.cut();
  }

  close(): Promise<void> {
    this.#end();
    return this.#closed;
  }

  #end(): void {
    this.#isOver = true;
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
    this.#client.destroy();
    this.#server.destroy();
  }

  #receive(direction: Direction, chunk: Uint8Array): void {
    if (this.#isOver) return;
    const mode = this.#mode;
    switch (mode.kind) {
      case "blackhole":
        if (mode.direction === "both" || mode.direction === direction) return;
        break;
      case "cut-request":
        if (direction === "to_client" || !this.#contains(chunk, mode.containing)) break;
        if (mode.when === "before") return this.cut();
        this.#mode = { kind: "cut-reply" };
        break;
      case "cut-reply":
        if (direction === "to_server" || !this.#contains(chunk, mode.containing ?? "")) break;
        return this.cut();
      case "delay":
        return this.#later(mode.ms, direction, chunk);
      case "pass":
        break;
      default:
        mode satisfies never;
    }
    this.#forward(direction, chunk);
  }

  #contains(chunk: Uint8Array, text: string): boolean {
    const seen = this.#seen + new TextDecoder("latin1").decode(chunk).toLowerCase();
    this.#seen = text.length < 2 ? "" : seen.slice(1 - text.length);
    return seen.includes(text.toLowerCase());
  }

  #later(ms: number, direction: Direction, chunk: Uint8Array): void {
    // Timers of one length fire in the order in which they were set.
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      this.#forward(direction, chunk);
    }, ms);
    this.#timers.add(timer);
  }

  #forward(direction: Direction, chunk: Uint8Array): void {
    const [from, to] = direction === "to_server" ? [this.#client, this.#server] : [this.#server, this.#client];
    this.#events.passed(direction, chunk.length);
    if (to.write(chunk)) return;
    from.pause();
    to.once("drain", () => from.resume());
  }
}
