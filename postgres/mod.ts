/** Placeholder.
 * @module */
export {};
