/**
 * Measuring on a machine that others use too: contestants take turns within each round, and only what happened in the
 * same round is compared.
 *
 * @module
 */

/** One way of doing a piece of work. */
export interface Contestant {
  /** Makes what the run needs; not measured. */
  prepare(): Promise<void>;
  /** Does the work; measured. */
  run(): Promise<void>;
}

/** What came out of the rounds. */
export interface Comparison {
  /** Units per second, median over the rounds. */
  readonly rate: number;
  /** Of the reference, likewise. */
  readonly referenceRate: number;
  /** Rate by reference rate, in each round. */
  readonly ratios: readonly number[];
  /** The median of the ratios. */
  readonly ratio: number;
}

/** Runs contestant and reference in turns, the first turn changing from round to round, after one round that is not counted. */
export async function compare(
  contestant: Contestant,
  reference: Contestant,
  plan: { readonly rounds: number; readonly units: number; readonly referenceUnits?: number },
): Promise<Comparison> {
  const rates: number[] = [];
  const referenceRates: number[] = [];
  for (let round = 0; round <= plan.rounds; round++) {
    const turns = [
      { of: contestant, rates, units: plan.units },
      { of: reference, rates: referenceRates, units: plan.referenceUnits ?? plan.units },
    ];
    if (round % 2 === 1) turns.reverse();
    for (const turn of turns) {
      await turn.of.prepare();
      const started = performance.now();
      await turn.of.run();
      const seconds = (performance.now() - started) / 1000;
      if (round > 0) turn.rates.push(turn.units / seconds);
    }
  }
  const ratios = rates.map((rate, round) => rate / (referenceRates[round] as number));
  return { rate: median(rates), referenceRate: median(referenceRates), ratios, ratio: median(ratios) };
}

/** The middle one, or the mean of the two in the middle. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((left, right) => left - right);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? NaN) + upper) / 2;
}
