import { fillOperatorData } from "../bench/operator_data.ts";
import { openTestDatabase } from "./support/database.ts";

Deno.test("the large database of the benchmark is as the library would have left it", async () => {
  // Disposing checks that every ledger replays to its job and that every counter equals its recount.
  await using database = await openTestDatabase();
  await fillOperatorData(database.sql, 2000);
});
