// Executed notebooks -> one HTML file that needs nothing else. In: .ipynb files. Out: report.html.
// Source: nbformat 4.5; nbconvert for which form of an output is shown.
import { basename, dirname, join, relative, resolve } from 'node:path';
import { Marked } from 'marked';
import { projectRoot } from '../paths.js';
import { writeTextAtomically } from '../results/files.js';
import { type MimeBundle, type Notebook, type Output, readNotebook } from './document.js';
import { escapeHtml, highlight } from './highlight.js';
import { formatPage, insideJson, type PageSection } from './page.js';

const FIGURE_TYPE = 'application/vnd.plotly.v1+json';
// biome-ignore lint/suspicious/noControlCharactersInRegex: escape sequences begin with one
const ANSI = /\u001b\[[\d;]*[A-Za-z]/g;

/** Where a notebook stands in the page, what else is in the page, and where the page lies. */
interface Place {
  readonly section: string;
  readonly sections: ReadonlySet<string>;
  readonly htmlFolder: string;
}

const sectionId = (path: string) => basename(path, '.ipynb').replace(/[^\w-]+/g, '-');

/** Heading text -> a part of an id. */
const slug = (text: string) =>
  text
    .toLowerCase()
    .replace(/[^\p{L}\p{N}]+/gu, '-')
    .replace(/^-|-$/g, '');

/** A link of a notebook: to another notebook of the page it becomes a jump, to any other file a path from the page. */
function rewriteLink(href: string, place: Place): string {
  if (/^[a-z][a-z+.-]*:|^#|^\/\//i.test(href)) return href;
  const [path = '', anchor] = href.split('#');
  if (path.endsWith('.ipynb') && place.sections.has(sectionId(path))) return `#${sectionId(path)}`;
  const target = relative(place.htmlFolder, join(projectRoot(), 'notebooks', path)).replaceAll('\\', '/');
  return anchor ? `${target}#${anchor}` : target;
}

/** Markdown -> HTML, with ids on its headings. @param headings those of the second level are added */
function renderMarkdown(source: string, place: Place, headings: { id: string; title: string }[]): string {
  const marked = new Marked({
    renderer: {
      heading({ tokens, depth, text }) {
        const id = `${place.section}-${slug(text)}`;
        const html = this.parser.parseInline(tokens);
        if (depth === 2 || depth === 3) headings.push({ id, title: text.replace(/[`*_]/g, '') });
        return `<h${depth} id="${id}">${html}</h${depth}>\n`;
      },
      link({ href, tokens }) {
        return `<a href="${escapeHtml(rewriteLink(href, place))}">${this.parser.parseInline(tokens)}</a>`;
      },
      code({ text, lang }) {
        const html = /^(ts|typescript|js|javascript)$/.test(lang ?? '') ? highlight(text) : escapeHtml(text);
        return `<pre class="source"><code>${html}</code></pre>\n`;
      },
    },
  });
  return marked.parse(source, { async: false });
}

/** Text of a cell's output; the verdicts of checks and exercises stand out. */
function renderText(text: string, kind: string): string {
  const html = escapeHtml(text.replace(ANSI, '').trimEnd())
    .replace(/^(PASS|Exercise .*: passes)/gm, '<span class="pass">$1</span>')
    .replace(/^(FAIL|Exercise .*: FAIL)/gm, '<span class="fail">$1</span>');
  return html ? `<pre class="output ${kind}">${html}</pre>` : '';
}

/** Hands out ids for interactive figures; undefined: there are to be none. */
type NextFigure = (() => string) | undefined;

/** The richest form of an output that the page can show. */
function renderData(data: MimeBundle, place: Place, nextFigure: NextFigure): string {
  const text = typeof data['text/plain'] === 'string' ? data['text/plain'] : '';
  const png = data['image/png'];
  const picture =
    typeof png === 'string'
      ? `<img alt="${escapeHtml(text)}" src="data:image/png;base64,${png.trim()}">`
      : '';
  if (data[FIGURE_TYPE] && nextFigure) {
    const id = nextFigure();
    const json = `<script type="application/json" id="${id}">${insideJson(data[FIGURE_TYPE])}</script>`;
    return `<div class="figure" data-figure="${id}">${picture}</div>${json}`;
  }
  if (picture) return `<div class="figure">${picture}</div>`;
  if (typeof data['text/html'] === 'string') return `<div class="html">${data['text/html']}</div>`;
  if (typeof data['text/markdown'] === 'string') return renderMarkdown(data['text/markdown'], place, []);
  return renderText(text, 'result');
}

function renderOutput(output: Output, place: Place, nextFigure: NextFigure): string {
  if (output.output_type === 'stream') return renderText(output.text, output.name);
  if (output.output_type !== 'error') return renderData(output.data, place, nextFigure);
  return renderText(output.traceback.join('\n') || `${output.ename}: ${output.evalue}`, 'error');
}

/** One notebook's section. */
function renderNotebook(
  path: string,
  notebook: Notebook,
  page: Omit<Place, 'section'>,
  nextFigure: NextFigure,
): PageSection {
  const place = { ...page, section: sectionId(path) };
  const headings: { id: string; title: string }[] = [];
  const parts = notebook.cells.map(({ cell_type, source, outputs = [] }) => {
    if (cell_type === 'markdown') return renderMarkdown(source, place, headings);
    if (cell_type !== 'code' || !source.trim()) return '';
    const results = outputs.map((output) => renderOutput(output, place, nextFigure));
    return [`<pre class="source"><code>${highlight(source)}</code></pre>`, ...results].join('\n');
  });
  const first = notebook.cells.find(({ cell_type }) => cell_type === 'markdown')?.source;
  const title = /^#\s+(.+)$/m.exec(first ?? '')?.[1] ?? basename(path, '.ipynb');
  return { id: place.section, title: title.replace(/[`*_]/g, ''), headings, body: parts.join('\n') };
}

/**
 * Writes one self-contained HTML report of executed notebooks.
 * @param notebooks paths of executed .ipynb files, in order
 * @param htmlPath where the report goes; written whole or not at all
 * @param options interactive: false leaves out Plotly's 4.8 MB, and the figures are their pictures
 * @throws Error if a notebook cannot be read or the report cannot be written (names the file)
 */
export async function writeReport(
  notebooks: readonly string[],
  htmlPath: string,
  { interactive = true }: { readonly interactive?: boolean } = {},
): Promise<void> {
  const page = { sections: new Set(notebooks.map(sectionId)), htmlFolder: dirname(resolve(htmlPath)) };
  let figures = 0;
  const nextFigure = interactive ? () => `figure-${++figures}` : undefined;
  const sections = notebooks.map((path) => renderNotebook(path, readNotebook(path), page, nextFigure));
  await writeTextAtomically(htmlPath, formatPage('LLM response time: report', sections, figures > 0));
}
