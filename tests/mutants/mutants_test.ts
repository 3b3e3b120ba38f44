import { readFile } from "node:fs/promises";
import { MUTANTS } from "./mutants.ts";
import { applyEdit } from "./run_mutants.ts";
import { WORKFLOW_MUTANTS } from "./workflow_mutants.ts";

Deno.test("every mutant still applies to the code", async () => {
  for (const { edits } of [...MUTANTS, ...WORKFLOW_MUTANTS]) {
    for (const edit of edits) applyEdit(await readFile(new URL(`../../${edit.file}`, import.meta.url), "utf8"), edit);
  }
});
