/**
 * Arrays as PostgreSQL reads them. What goes to a function for a whole batch goes as one array for each field.
 *
 * @module
 */

/** Writes an array; the items are ids, numbers, words, or quoted already. */
export function arrayText(items: readonly (string | number)[]): string {
  return `{${items.join(",")}}`;
}

/** The same of items that are often equal; it ends where the last item begins to repeat. */
export function evenArrayText(items: readonly (string | number)[]): string {
  return arrayText(withoutRepeats(items));
}

/** The same of items that may hold anything. */
export function evenQuotedArrayText(items: readonly string[]): string {
  return arrayText(withoutRepeats(items).map(quoteItem));
}

function withoutRepeats<Item>(items: readonly Item[]): readonly Item[] {
  const last = items.at(-1);
  return items.slice(0, items.findLastIndex((item) => item !== last) + 2);
}

/** The same of items of which some are missing; it ends with the last one that is not. */
export function sparseArrayText(items: readonly (string | undefined)[]): string {
  const length = items.findLastIndex((item) => item !== undefined) + 1;
  return arrayText(Array.from({ length }, (_, index) => items[index] ?? "null"));
}

/** Quotes an item that may hold anything. */
export function quoteItem(text: string): string {
  return `"${text.replaceAll(/["\\]/g, "\\$&")}"`;
}
