/**
 * Splits TypeScript into code and texts, so that a rule about code is not broken by a comment.
 *
 * @module
 */

/** What is left of a source file when comments are taken out. */
export interface SourceTokens {
  /** The code, with comments, texts and regular expressions blanked. */
  readonly code: string;
  /** The content of every string and template; an expression inside a template is code, and reads as a blank in the text. */
  readonly texts: readonly string[];
}

/** After these a slash begins a regular expression; after anything else it divides. */
const BEFORE_REGEX = /(^|[([{,;:=!&|?+\-*%<>~^]|\b(return|typeof|case|in|of|do|else|void|throw|await|yield))\s*$/;

const REGEX = /\/(?![*/])(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\[\n])+\/[a-z]*/y;
const COMMENT = /\/\/[^\n]*|\/\*[^]*?\*\//y;
const QUOTED = /"(?:\\[^]|[^"\\\n])*"|'(?:\\[^]|[^'\\\n])*'/y;

/**
 * Reads one source file. Not a parser: it knows comments, strings, nested templates and regular expressions.
 *
 * @param source The file's text.
 * @returns Its code and its texts.
 */
export function readSourceTokens(source: string): SourceTokens {
  const texts: string[] = [];
  let code = "";
  let at = 0;

  const take = (pattern: RegExp): string | undefined => {
    pattern.lastIndex = at;
    const found = pattern.exec(source)?.[0];
    if (found !== undefined) at += found.length;
    return found;
  };

  /** Reads code up to the brace that closes a template's expression, or to the end. */
  const readCode = (nested: boolean): void => {
    for (let depth = 0; at < source.length;) {
      if (take(COMMENT) !== undefined) {
        code += " ";
        continue;
      }
      const quoted = take(QUOTED);
      if (quoted !== undefined) {
        texts.push(quoted.slice(1, -1));
        code += '""';
        continue;
      }
      if (source[at] === "/" && BEFORE_REGEX.test(code.slice(-40)) && take(REGEX) !== undefined) {
        code += "/./";
        continue;
      }
      const character = source[at++] ?? "";
      if (character === "`") {
        readTemplate();
        continue;
      }
      if (character === "{") depth++;
      if (character === "}" && nested && depth-- === 0) return;
      code += character;
    }
  };

  const readTemplate = (): void => {
    const index = texts.push("") - 1;
    let text = "";
    while (at < source.length) {
      const character = source[at++] ?? "";
      if (character === "`") break;
      if (character === "\\") text += character + (source[at++] ?? "");
      else if (character === "$" && source[at] === "{") {
        at++;
        text += " ";
        code += "(";
        readCode(true);
        code += ")";
      } else text += character;
    }
    texts[index] = text;
    code += '""';
  };

  readCode(false);
  return { code, texts };
}
