/**
 * A session whose statements tell their plans, those within functions too: the server itself does, by auto_explain.
 *
 * @module
 */

import postgres from "postgres";

/** What a plan must not do. */
export interface PlanLimits {
  /** Tables that are large: none is read from end to end. */
  readonly tables: readonly string[];
  /** How many rows of them one node may read and throw away. */
  readonly fewRows: number;
  /** Whether a plan so dear that it is compiled is a fault. What a plan must not do costs as much to the planner. */
  readonly refusesCompilation?: boolean;
}

/** A join that compares each row of a batch with each other one throws a million pairs away. */
const FEW_PAIRS = 50_000;

/** A node of a plan, as `explain (analyze, format json)` writes it. */
interface PlanNode {
  readonly "Node Type": string;
  readonly "Relation Name"?: string;
  readonly "Actual Loops"?: number;
  readonly "Actual Rows"?: number;
  readonly "Rows Removed by Filter"?: number;
  readonly "Rows Removed by Index Recheck"?: number;
  readonly "Rows Removed by Join Filter"?: number;
  readonly Plans?: readonly PlanNode[];
}

/** One session whose statements tell their plans. */
export class ExplainingSession implements AsyncDisposable {
  readonly sql: postgres.Sql;
  /** What plans did that they must not, each with the name of the call. */
  readonly problems: string[] = [];
  /** How many plans each call told. */
  readonly calls: Map<string, number> = new Map();
  /** How many rows the nodes of each call's plans looked at, those that they threw away and those of no table too. */
  readonly visits: Map<string, number> = new Map();
  readonly #plans: string[] = [];
  readonly #limits: PlanLimits;

  constructor(url: string, limits: PlanLimits) {
    this.sql = postgres(url, { max: 1, onnotice: ({ message }) => this.#plans.push(String(message)) });
    this.#limits = limits;
  }

  /** Has every statement from now on tell its plan. */
  async begin(planCacheMode: "auto" | "force_custom_plan" | "force_generic_plan" = "auto"): Promise<void> {
    await this.sql.unsafe(`
      load 'auto_explain';
      set auto_explain.log_min_duration = 0;
      set auto_explain.log_nested_statements = on;
      set auto_explain.log_analyze = on;
      set auto_explain.log_timing = off;
      set auto_explain.log_format = json;
      set client_min_messages = log;
      set plan_cache_mode = ${planCacheMode}`);
  }

  /** Runs a call and examines the plans of its statements. */
  async explain<T>(name: string, call: () => Promise<T>): Promise<T> {
    this.#plans.length = 0;
    const result = await call();
    const plans = this.#plans.splice(0).filter((text) => text.includes("plan:"));
    this.calls.set(name, plans.length);
    this.visits.set(name, 0);
    for (const text of plans) {
      const told = JSON.parse(text.slice(text.indexOf("{"))) as { readonly Plan: PlanNode; readonly JIT?: unknown };
      this.#examine(name, told.Plan);
      if (told.JIT !== undefined && this.#limits.refusesCompilation === true) {
        this.problems.push(`${name}: compiled a statement`);
      }
    }
    return result;
  }

  #examine(name: string, node: PlanNode): void {
    const type = node["Node Type"];
    const table = node["Relation Name"];
    const loops = node["Actual Loops"] ?? 1;
    const looked = [
      node["Actual Rows"],
      node["Rows Removed by Filter"],
      node["Rows Removed by Index Recheck"],
      node["Rows Removed by Join Filter"],
    ].reduce<number>((sum, rows = 0) => sum + rows, 0);
    this.visits.set(name, (this.visits.get(name) ?? 0) + loops * looked);
    if (table !== undefined && this.#limits.tables.includes(table)) {
      // A scan that was never begun costs nothing.
      if (type === "Seq Scan" && loops > 0) this.problems.push(`${name}: sequential scan of ${table}`);
      const removed = loops * ((node["Rows Removed by Filter"] ?? 0) + (node["Rows Removed by Index Recheck"] ?? 0));
      if (removed > this.#limits.fewRows) this.problems.push(`${name}: ${type} of ${table} threw ${removed} rows away`);
    }
    const unjoined = loops * (node["Rows Removed by Join Filter"] ?? 0);
    if (unjoined > FEW_PAIRS) this.problems.push(`${name}: ${type} threw ${unjoined} pairs of rows away`);
    for (const child of node.Plans ?? []) this.#examine(name, child);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.sql.end({ timeout: 1 });
  }
}
