/**
 * Writes mod.ts, the front door: everything that the three packages export, name by name, in their groups and their order.
 *
 * Run: `deno task exports` after an export was added; with `--check` it writes nothing and the exit code says if it is stale.
 *
 * @module
 */

import { readFile, writeFile } from "node:fs/promises";

const HEAD = `/**
 * Runledger: durable jobs and workflows in the PostgreSQL that an application already has.
 *
 * This is the front door: all that \`@runledger/core\`, \`@runledger/postgres\` and \`@runledger/runtime\` export. A producer
 * needs only the first two, and a module that just declares jobs only the first; import those where size matters.
 *
 * @example Declare a job and the request for one
 * \`\`\`ts
 * import { defineJob } from "@runledger/core";
 * import assert from "node:assert/strict";
 * import { z } from "zod";
 *
 * const sendEmail = defineJob({ type: "email.send", payload: z.object({ to: z.email() }) });
 * const request = sendEmail.request({ to: "ada@example.com" }, { idempotencyKey: "order:1" });
 * assert.equal(request.jobType, "email.send");
 * \`\`\`
 *
 * @example Enqueue it in the transaction that it follows from, and run it in a worker
 * \`\`\`ts ignore
 * await sql.begin(async (tx) => {
 *   await tx\`insert into orders (id) values (\${orderId})\`;
 *   await enqueueJob(tx, sendEmail.request({ to }, { idempotencyKey: \`order:\${orderId}\` }));
 * });
 *
 * const catalog = new JobCatalog().handle(sendEmail, ({ to }) => deliver(to));
 * await migrate(sql);
 * await catalog.sync(sql);
 * await new Supervisor(sql, { catalog }).runUntilShutdown({ signal: shutdownSignal() });
 * \`\`\`
 *
 * Whole programs are in \`examples/\`.
 *
 * @module
 */

// Written by scripts/write_front_door.ts.
`;

const PACKAGES = ["core", "postgres", "runtime"];

/** A comment of a package's mod.ts, or one of its exports. */
const ENTRY = /^\/\/ (?<comment>.*)$|^export (?<type>type )?\{(?<names>[^}]*)\} from "[^"]*";$/gm;

/** What a package exports under one comment. */
interface Group {
  readonly comment: string;
  readonly values: string[];
  readonly types: string[];
}

/**
 * Makes the text of mod.ts.
 *
 * @param root The workspace's folder, with a slash at its end.
 * @returns The text, unformatted.
 */
export async function renderFrontDoor(root: URL): Promise<string> {
  let text = HEAD;
  for (const name of PACKAGES) {
    const specifier = `"@runledger/${name}"`;
    for (const group of readGroups(await readFile(new URL(`${name}/mod.ts`, root), "utf8"))) {
      text += `\n// ${name}: ${group.comment.charAt(0).toLowerCase()}${group.comment.slice(1)}\n`;
      if (group.values.length > 0) text += `export { ${group.values.join(", ")} } from ${specifier};\n`;
      if (group.types.length > 0) text += `export type { ${group.types.join(", ")} } from ${specifier};\n`;
    }
  }
  return text;
}

function readGroups(source: string): readonly Group[] {
  const groups: Group[] = [];
  let comment = "";
  for (const { groups: entry } of source.matchAll(ENTRY)) {
    if (entry?.comment !== undefined) {
      comment = comment === "" ? entry.comment : `${comment} ${entry.comment}`;
      continue;
    }
    if (comment !== "" || groups.length === 0) groups.push({ comment, values: [], types: [] });
    comment = "";
    const names = (entry?.names ?? "").split(",").map((name) => name.trim()).filter((name) => name !== "");
    groups.at(-1)?.[entry?.type === undefined ? "values" : "types"].push(...names);
  }
  return groups;
}

if (import.meta.main) {
  const file = new URL("../mod.ts", import.meta.url);
  const text = await format(await renderFrontDoor(new URL("../", import.meta.url)));
  if (!Deno.args.includes("--check")) await writeFile(file, text);
  else if (await readFile(file, "utf8").catch(() => "") !== text) {
    console.error('mod.ts does not export what the packages do. Run "deno task exports".');
    Deno.exitCode = 1;
  }
}

async function format(text: string): Promise<string> {
  const args = ["fmt", "--ext", "ts", "-"];
  const child = new Deno.Command(Deno.execPath(), { args, stdin: "piped", stdout: "piped" }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(text));
  await writer.close();
  const { code, stdout } = await child.output();
  if (code !== 0) throw new Error("deno fmt failed");
  return new TextDecoder().decode(stdout);
}
