/**
 * What the builders keep of their settings.
 *
 * @module
 */

/** Gives the settings without some of them. */
export function without<Settings extends object>(
  settings: Settings,
  fields: readonly (keyof Settings)[],
): Partial<Settings> {
  const kept: Partial<Settings> = { ...settings };
  for (const field of fields) delete kept[field];
  return kept;
}
