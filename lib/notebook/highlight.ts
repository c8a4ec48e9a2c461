// TypeScript -> HTML with a few classes: enough to read by, no parser. In: code. Out: escaped HTML.
// Source: own; keywords of ECMAScript 2023 and TypeScript 5.0.

/** Makes text safe inside HTML, in attributes too. */
export function escapeHtml(text: string): string {
  const entities: Readonly<Record<string, string>> = {
    '&': '&amp;',
    '<': '&lt;',
    '>': '&gt;',
    '"': '&quot;',
  };
  return text.replace(/[&<>"]/g, (character) => entities[character]!);
}

const COMMENT = /\/\/[^\n]*|\/\*[\s\S]*?\*\//;
const STRING = /'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|`(?:\\.|[^`\\])*`/;
const NUMBER = /\b\d[\d_]*(?:\.\d+)?(?:e[-+]?\d+)?\b/;
const KEYWORD =
  /\b(?:as|async|await|break|case|catch|class|const|continue|default|do|else|export|extends|finally|for|from|function|if|import|in|interface|let|new|of|return|satisfies|switch|throw|try|type|typeof|undefined|null|true|false|void|while|yield)\b/;
const TOKEN = new RegExp(
  `(?<comment>${COMMENT.source})|(?<string>${STRING.source})|(?<number>${NUMBER.source})|(?<keyword>${KEYWORD.source})`,
  'g',
);

/** Highlights code. @returns HTML for inside `<code>` */
export function highlight(code: string): string {
  let html = '';
  let end = 0;
  for (const match of code.matchAll(TOKEN)) {
    const kind = Object.entries(match.groups ?? {}).find(([, text]) => text !== undefined)?.[0];
    html += `${escapeHtml(code.slice(end, match.index))}<span class="${kind}">${escapeHtml(match[0])}</span>`;
    end = match.index + match[0].length;
  }
  return html + escapeHtml(code.slice(end));
}
