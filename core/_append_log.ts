/**
 * The list behind immutable builders.
 *
 * @module
 */

/** What versions of one list share. */
interface Shared<Item> {
  readonly items: Item[];
  /** Where the first item of each key is. */
  readonly indexByKey: Map<string, number>;
}

/**
 * An immutable list that is only ever added to. Versions share one array as long as each is made from the newest, so that
 * adding n items one by one takes linear time; adding to an older version copies its part first.
 */
export class AppendLog<Item> {
  /** How many items this version has. */
  readonly length: number;
  readonly #shared: Shared<Item>;
  readonly #keyOf: (item: Item) => string | undefined;

  /**
   * Makes an empty list.
   *
   * @param keyOf The key that an item is found by, if it has one.
   * @param shared For later versions only.
   */
  constructor(
    keyOf: (item: Item) => string | undefined = () => undefined,
    shared: Shared<Item> = { items: [], indexByKey: new Map() },
  ) {
    this.#keyOf = keyOf;
    this.#shared = shared;
    this.length = shared.items.length;
  }

  /**
   * Gives the list with one more item at its end.
   *
   * @param item What to add.
   * @returns A new version. This one stays as it is.
   */
  appended(item: Item): AppendLog<Item> {
    const shared = this.#shared.items.length === this.length ? this.#shared : this.#copied();
    const key = this.#keyOf(item);
    if (key !== undefined && !shared.indexByKey.has(key)) shared.indexByKey.set(key, shared.items.length);
    shared.items.push(item);
    return new AppendLog(this.#keyOf, shared);
  }

  /**
   * Says whether this version has an item of a key.
   *
   * @param key The key.
   * @returns Whether it has one.
   */
  has(key: string): boolean {
    const index = this.#shared.indexByKey.get(key);
    return index !== undefined && index < this.length;
  }

  /**
   * Gives what is in this version.
   *
   * @returns A new array.
   */
  toArray(): Item[] {
    return this.#shared.items.slice(0, this.length);
  }

  #copied(): Shared<Item> {
    const ofThisVersion = [...this.#shared.indexByKey].filter(([, index]) => index < this.length);
    return { items: this.toArray(), indexByKey: new Map(ofThisVersion) };
  }
}
