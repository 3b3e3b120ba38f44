import assert from "node:assert/strict";

/** What a run of CI said and how it ended, with each of its tasks replaced by what `steps` prints; one that prints "!" at the end fails. */
async function runCi(steps: Record<string, string>): Promise<{ code: number; lines: string[] }> {
  const machine = await Deno.makeTempDir();
  try {
    const all: Record<string, string> = {
      "task test": "4 passed, 0 failed",
      "task test tests": "3 passed, 0 failed",
      "task test:npm": "2 passed, 0 failed",
      "task test:faults": "1 passed, 0 failed",
      "task test:mutants": "caught 25 of 25",
      ...steps,
    };
    // The longest name that a call begins with is its step.
    const cases = Object.entries(all).sort(([one], [other]) => other.length - one.length).map(([step, output]) => {
      const prints = `printf '%s\\n' ${output.replace(/!$/, "").split("\n").map((line) => `'${line}'`).join(" ")}`;
      return `  "${step}"*) ${prints}; exit ${output.endsWith("!") ? 1 : 0} ;;`;
    });
    await putCommand(machine, "npx", `shift 2\ncase "$*" in\n${cases.join("\n")}\nesac`);
    await putCommand(machine, "node", "exit 0");
    await putCommand(machine, "initdb", "exit 0");
    const { code, stdout } = await new Deno.Command("bash", {
      args: [new URL("../.ci/run", import.meta.url).pathname],
      env: {
        PATH: `${machine}:${Deno.env.get("PATH")}`,
        CI_FLOOR_BIN: machine,
        CI_PGBOUNCER: `${machine}/initdb`,
      },
      stderr: "inherit",
    }).output();
    return { code, lines: new TextDecoder().decode(stdout).trimEnd().split("\n") };
  } finally {
    await Deno.remove(machine, { recursive: true });
  }
}

async function putCommand(directory: string, name: string, body: string): Promise<void> {
  await Deno.writeTextFile(`${directory}/${name}`, `#!/bin/sh\n${body}\n`, { mode: 0o755 });
}

Deno.test("CI in which nothing failed ends with the sum and exits with 0", async () => {
  const { code, lines } = await runCi({});
  assert.equal(lines.at(-1), "10 passed, 0 failed");
  assert.equal(code, 0, lines.join("\n"));
});

Deno.test("CI in which tests failed says once more which, right before the sum, and exits with 1", async () => {
  const failures = ` ERRORS\n${"a line of it\n".repeat(2_000)} FAILURES\n3 passed, 2 failed!`;
  const { code, lines } = await runCi({ "task test": failures });
  assert.equal(lines.at(-1), "9 passed, 2 failed");
  assert.equal(code, 1);
  const end = lines.slice(-90);
  assert.equal(end.filter((line) => line === "a line of it").length, 79);
  assert.deepEqual(end.slice(-3, -1), ["failed:", "tests on PostgreSQL 18 (embedded)"]);
});

Deno.test("CI counts a step without tests that failed, and tests that ended without a sum", async () => {
  const gates = await runCi({ "task ok": "layers!" });
  assert.deepEqual([gates.lines.at(-1), gates.code], ["10 passed, 1 failed", 1]);
  const crashed = await runCi({ "task test:faults": "Segmentation fault!" });
  assert.deepEqual([crashed.lines.at(-1), crashed.code], ["9 passed, 1 failed", 1]);
});
