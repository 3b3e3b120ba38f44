import assert from "node:assert/strict";
import { connect, createServer } from "node:net";
import type { AddressInfo, Socket } from "node:net";
import { startTcpProxy } from "./tcp_proxy.ts";
import type { TcpProxy } from "./tcp_proxy.ts";

/** Answers each chunk with itself in upper case, and keeps what it was sent. */
async function startEchoServer(): Promise<AsyncDisposable & { readonly url: string; readonly received: string[] }> {
  const received: string[] = [];
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    socket.on("data", (chunk) => {
      received.push(String(chunk));
      socket.write(String(chunk).toUpperCase());
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `tcp://127.0.0.1:${(server.address() as AddressInfo).port}/x`,
    received,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** A client that reads what it is sent; `end` is told of the end. */
class Client implements AsyncDisposable {
  readonly #socket: Socket;
  readonly #closed: Promise<void>;
  #text = "";
  #onData = () => {};

  constructor({ port }: TcpProxy) {
    this.#socket = connect({ host: "127.0.0.1", port });
    this.#socket.on("error", () => {});
    this.#closed = new Promise((resolve) => this.#socket.once("close", () => resolve()));
    this.#socket.on("data", (chunk) => {
      this.#text += String(chunk);
      this.#onData();
    });
  }

  get text(): string {
    return this.#text;
  }

  send(text: string): void {
    this.#socket.write(text);
  }

  async read(wanted: string): Promise<void> {
    while (this.#text !== wanted) await new Promise<void>((resolve) => this.#onData = resolve);
  }

  get closed(): Promise<void> {
    return this.#closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket.destroy();
    await this.#closed;
  }
}

Deno.test("what passes is forwarded in both directions and counted", async () => {
  await using server = await startEchoServer();
  await using proxy = await startTcpProxy({ target: server.url });
  await using client = new Client(proxy);
  client.send("hello");
  await client.read("HELLO");
  assert.deepEqual(proxy.counts, { accepted: 1, open: 1, cut: 0, toServer: 5, toClient: 5 });
  assert.equal(proxy.url, `tcp://127.0.0.1:${proxy.port}/x`);
});

Deno.test("more than a socket's buffer passes unchanged", async () => {
  await using server = await startEchoServer();
  await using proxy = await startTcpProxy({ target: server.url });
  await using client = new Client(proxy);
  client.send("a".repeat(3_000_000));
  await client.read("A".repeat(3_000_000));
});

Deno.test("a cut before a request keeps it from the server, also when it comes in two parts", async () => {
  await using server = await startEchoServer();
  await using proxy = await startTcpProxy({ target: server.url });
  await using client = new Client(proxy);
  proxy.setMode({ kind: "cut-request", containing: "COMMIT", when: "before" });
  client.send("begin;com");
  await client.read("BEGIN;COM");
  client.send("mit;");
  await Promise.all([client.closed, proxy.whenCut()]);
  assert.deepEqual(server.received, ["begin;com"]);
  assert.equal(proxy.counts.cut, 1);
});

Deno.test("a cut after a request lets the server have it and the client not know", async () => {
  await using server = await startEchoServer();
  await using proxy = await startTcpProxy({ target: server.url });
  await using client = new Client(proxy);
  proxy.setMode({ kind: "cut-request", containing: "commit", when: "after" });
  client.send("commit;");
  await Promise.all([client.closed, proxy.whenCut()]);
  assert.deepEqual(server.received, ["commit;"]);
  assert.equal(client.text, "");
});

Deno.test("a cut happens once, and the next connection passes", async () => {
  await using server = await startEchoServer();
  await using proxy = await startTcpProxy({ target: server.url, mode: { kind: "cut-reply" } });
  await using first = new Client(proxy);
  first.send("one");
  await first.closed;
  await using second = new Client(proxy);
  second.send("two");
  await second.read("TWO");
});

Deno.test("a cut at a reply waits for the reply it names", async () => {
  await using server = await startEchoServer();
  await using proxy = await startTcpProxy({ target: server.url, mode: { kind: "cut-reply", containing: "second" } });
  await using client = new Client(proxy);
  client.send("first");
  await client.read("FIRST");
  client.send("second");
  await client.closed;
  assert.equal(client.text, "FIRST");
});

Deno.test("a black hole swallows its direction and leaves the connection open", async () => {
  await using server = await startEchoServer();
  await using proxy = await startTcpProxy({ target: server.url });
  await using client = new Client(proxy);
  client.send("a");
  await client.read("A");
  proxy.setMode({ kind: "blackhole", direction: "to_server" });
  client.send("lost");
  proxy.setMode({ kind: "blackhole", direction: "both" });
  client.send("lost too");
  assert.equal(proxy.counts.open, 1);
  proxy.cut();
  await client.closed;
  assert.deepEqual(server.received, ["a"]);
});

Deno.test("connections may have modes of their own", async () => {
  await using server = await startEchoServer();
  await using proxy = await startTcpProxy({
    target: server.url,
    mode: (connection) => connection === 1 ? { kind: "cut-reply" } : { kind: "pass" },
  });
  await using first = new Client(proxy);
  first.send("a");
  await first.closed;
  await using second = new Client(proxy);
  await using third = new Client(proxy);
  second.send("b");
  await second.read("B");
  third.send("c");
  await third.read("C");
  proxy.setMode({ kind: "cut-request", containing: "d", when: "before" }, 3);
  second.send("d");
  await second.read("BD");
  third.send("d");
  await third.closed;
});

Deno.test("a delay keeps the order, and disposing does not wait for it", async () => {
  await using server = await startEchoServer();
  const proxy = await startTcpProxy({ target: server.url, mode: { kind: "delay", ms: 1 } });
  await using client = new Client(proxy);
  client.send("a");
  await client.read("A");
  client.send("b");
  await client.read("AB");
  proxy.setMode({ kind: "delay", ms: 3_600_000 });
  client.send("c");
  await proxy[Symbol.asyncDispose]();
  await client.closed;
});

Deno.test("a server that cannot be reached closes the client's connection", async () => {
  const server = await startEchoServer();
  const { url } = server;
  await server[Symbol.asyncDispose]();
  await using proxy = await startTcpProxy({ target: url });
  await using client = new Client(proxy);
  await client.closed;
});
