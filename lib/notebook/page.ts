// The HTML page around a report: style, the one Plotly script, navigation. In: parts of the body. Out: a whole page
// that asks for nothing else, works from file://, prints, and follows the reader's light or dark setting.
// Source: HTML Living Standard; Content Security Policy Level 3 for script hashes.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { escapeHtml } from './highlight.js';

const STYLE = `
:root { color-scheme: light dark; --back: #ffffff; --text: #1f2328; --soft: #59636e; --line: #d1d9e0; --code: #f6f8fa;
  --link: #0969da; --good: #1a7f37; --bad: #cf222e; --keyword: #cf222e; --string: #0a3069; --number: #0550ae; }
@media (prefers-color-scheme: dark) { :root { --back: #0d1117; --text: #e6edf3; --soft: #9198a1; --line: #3d444d;
  --code: #151b23; --link: #4493f8; --good: #3fb950; --bad: #f85149; --keyword: #ff7b72; --string: #a5d6ff; --number: #79c0ff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--text); font: 16px/1.55 system-ui, sans-serif; }
a { color: var(--link); }
nav { position: fixed; inset: 0 auto 0 0; width: 17rem; overflow-y: auto; padding: 1.5rem 1rem; border-right: 1px solid var(--line); font-size: .875rem; }
nav ol { list-style: none; margin: 0; padding: 0; }
nav ol ol { padding-left: .9rem; display: none; }
nav li.open > ol { display: block; }
nav a { display: block; padding: .15rem 0; color: inherit; text-decoration: none; }
nav ol ol a { color: var(--soft); }
nav a:hover { color: var(--link); }
main { margin-left: 17rem; padding: 1.5rem 2.5rem 6rem; max-width: 66rem; }
section.notebook { border-top: 1px solid var(--line); margin-top: 3rem; }
section.notebook:first-of-type { border: 0; margin-top: 0; }
pre { overflow-x: auto; margin: .5rem 0; padding: .7rem .9rem; border-radius: 6px; font: .8125rem/1.5 ui-monospace, monospace; }
pre.source { background: var(--code); border: 1px solid var(--line); }
pre.output { border-left: 3px solid var(--line); border-radius: 0; max-height: 32rem; overflow-y: auto; }
pre.stderr, pre.error { border-left-color: var(--bad); }
pre.error { color: var(--bad); white-space: pre-wrap; }
code { font-family: ui-monospace, monospace; font-size: .9em; }
pre code { font-size: inherit; }
.comment { color: var(--soft); } .keyword { color: var(--keyword); } .string { color: var(--string); } .number { color: var(--number); }
.pass { color: var(--good); font-weight: 600; } .fail { color: var(--bad); font-weight: 600; }
table { border-collapse: collapse; } th, td { border: 1px solid var(--line); padding: .3rem .7rem; }
.figure { background: #fff; border: 1px solid var(--line); border-radius: 6px; margin: .8rem 0; max-width: 800px; overflow: hidden; }
.figure img { display: block; width: 100%; }
.figure.drawn img { display: none; }
@media (max-width: 60rem) { nav { position: static; width: auto; border: 0; } main { margin: 0; padding: 1rem; } }
@media print { nav { display: none; } main { margin: 0; max-width: none; } pre { white-space: pre-wrap; }
  pre.output { max-height: none; } .figure { break-inside: avoid; } .figure.drawn img { display: block; } .figure .plot { display: none; } }
`;

/** Runs in the reader's browser: draws a figure when it comes into view, and opens the navigation where the reader is. */
const SCRIPT = `
for (const box of document.querySelectorAll('.figure[data-figure]')) {
  const draw = () => {
    const figure = JSON.parse(document.getElementById(box.dataset.figure).textContent);
    const plot = document.createElement('div');
    plot.className = 'plot';
    box.append(plot);
    const { width, ...layout } = figure.layout;
    const height = layout.height ?? Math.round(box.clientWidth * 0.58);
    Plotly.newPlot(plot, figure.data, { ...layout, height, autosize: true }, { responsive: true, displaylogo: false, showSendToCloud: false })
      .then(() => box.classList.add('drawn'), () => plot.remove());
  };
  const watch = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    watch.disconnect();
    draw();
  }, { rootMargin: '400px' });
  watch.observe(box);
}
const items = new Map([...document.querySelectorAll('nav > ol > li')].map((item) => [item.dataset.section, item]));
const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) items.get(entry.target.id)?.classList.toggle('open', entry.isIntersecting);
}, { rootMargin: '-10% 0px -80% 0px' });
for (const section of document.querySelectorAll('section.notebook')) seen.observe(section);
`;

/** A notebook's part of the page. */
export interface PageSection {
  readonly id: string;
  readonly title: string;
  readonly headings: readonly { readonly id: string; readonly title: string }[];
  /** HTML of its cells. */
  readonly body: string;
}

/** Keeps script text from ending its element. */
const insideScript = (script: string) => script.replace(/<\/(script)/gi, '<\\/$1').replace(/<!--/g, '<\\!--');

/** JSON that may stand inside a script element. */
export const insideJson = (value: unknown) => JSON.stringify(value).replace(/</g, '\\u003c');

/** The navigation's list. */
function navigation(sections: readonly PageSection[]): string {
  const link = (id: string, title: string) => `<a href="#${id}">${escapeHtml(title)}</a>`;
  const items = sections.map(({ id, title, headings }) => {
    const inner = headings.map((heading) => `<li>${link(heading.id, heading.title)}</li>`).join('');
    return `<li data-section="${id}">${link(id, title)}<ol>${inner}</ol></li>`;
  });
  return `<nav aria-label="Notebooks"><ol>${items.join('')}</ol></nav>`;
}

/**
 * Puts a page together. Only its own two scripts may run (their hashes are in its policy), and nothing is fetched.
 * @param withPlots whether any figure needs Plotly
 */
export function formatPage(title: string, sections: readonly PageSection[], withPlots: boolean): string {
  const plotly = () => readFileSync(createRequire(import.meta.url).resolve('plotly.js-dist-min'), 'utf8');
  const scripts = [...(withPlots ? [plotly()] : []), SCRIPT].map(insideScript);
  const hashes = scripts.map((script) => `'sha256-${createHash('sha256').update(script).digest('base64')}'`);
  const policy = `default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src ${hashes.join(' ')}`;
  const body = sections.map(({ id, body }) => `<section class="notebook" id="${id}">\n${body}\n</section>`);
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<title>${escapeHtml(title)}</title>
<style>${STYLE}</style>
</head>
<body>
${navigation(sections)}
<main>
${body.join('\n')}
</main>
${scripts.map((script) => `<script>${script}</script>`).join('\n')}
</body>
</html>
`;
}
