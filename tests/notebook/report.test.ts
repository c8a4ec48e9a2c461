import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, expect, test } from 'vitest';
import { formatNotebook } from '../../lib/notebook/document.js';
import { highlight } from '../../lib/notebook/highlight.js';
import { writeReport } from '../../lib/notebook/report.js';
import { cell, notebookOf, temporaryFolder } from './helpers.js';

const folder = temporaryFolder();
const path = join(folder, 'report.html');
let html = '';

beforeAll(async () => {
  const code = cell("const a = '<b>'; // note");
  code.outputs = [
    { output_type: 'stream', name: 'stdout', text: 'PASS one: 1 <= 2\nFAIL two: 3, expected <= 2\n' },
    {
      output_type: 'display_data',
      metadata: {},
      data: {
        'image/png': 'iVBORw0KGgo=',
        'application/vnd.plotly.v1+json': {
          data: [{ name: '</script><script>alert(1)</script>' }],
          layout: {},
        },
        'text/plain': '[figure: "x"]',
      },
    },
    { output_type: 'error', ename: 'Error', evalue: 'odd', traceback: ['\u001b[31mError: odd\u001b[0m'] },
  ];
  const first = notebookOf(
    '# 00 First\n\n## Part `one`\n\n[on](01_second.ipynb), [code](../lib/tensor.ts)',
    code,
  );
  const second = notebookOf(
    '# 01 Second\n\n<details><summary>Solution</summary>\n\n```ts\nlet x = 1;\n```\n\n</details>',
  );
  const paths = ['00_first', '01_second'].map((name) => join(folder, `${name}.ipynb`));
  writeFileSync(paths[0]!, formatNotebook(first));
  writeFileSync(paths[1]!, formatNotebook(second));
  await writeReport(paths, path);
  html = readFileSync(path, 'utf8');
});

/** The page without the text of Plotly. */
const page = () => html.replace(/<script>[\s\S]*?<\/script>/g, '');

test('holds every notebook, with navigation and links inside the page', () => {
  expect(page()).toMatch(/<nav[\s\S]*href="#00_first">00 First<[\s\S]*href="#00_first-part-one">Part one</);
  expect(page()).toContain('<section class="notebook" id="01_second">');
  expect(page()).toContain('<a href="#01_second">on</a>');
  expect(page()).toMatch(/<a href="[./]+.*lib\/tensor\.ts">code<\/a>/);
});

test('shows code, text, pictures and errors', () => {
  expect(page()).toContain('<span class="string">\'&lt;b&gt;\'</span>');
  expect(page()).toContain('<span class="pass">PASS</span> one: 1 &lt;= 2');
  expect(page()).toContain('<span class="fail">FAIL</span> two');
  expect(page()).toContain('<img alt="[figure: &quot;x&quot;]" src="data:image/png;base64,iVBORw0KGgo=">');
  expect(page()).toContain('<pre class="output error">Error: odd</pre>');
  expect(page()).toContain('<span class="keyword">let</span> x');
});

test('carries one Plotly for all figures, and figures that cannot break out of their element', () => {
  expect(html.match(/<script>/g)).toHaveLength(2); // Plotly, and the page's own
  expect(page()).toContain('<div class="figure" data-figure="figure-1">');
  expect(html).toContain('\\u003c/script>\\u003cscript>alert(1)');
});

test('asks for nothing: only its own scripts may run', () => {
  const policy = /Content-Security-Policy" content="([^"]*)"/.exec(html)?.[1] ?? '';
  expect(policy).toMatch(
    /^default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src 'sha256-/,
  );
  expect(policy).not.toMatch(/https?:/);
  expect(page()).not.toMatch(/(?:src|href)="(?:https?:)?\/\//);
});

test('a report without figures leaves Plotly out', async () => {
  await writeReport([join(folder, '01_second.ipynb')], join(folder, 'small.html'));
  expect(readFileSync(join(folder, 'small.html')).length).toBeLessThan(20_000);
});

test('a static report has pictures, no Plotly, and no jump to a notebook that is not in it', async () => {
  await writeReport([join(folder, '00_first.ipynb')], join(folder, 'static.html'), { interactive: false });
  const text = readFileSync(join(folder, 'static.html'), 'utf8');
  expect(text.length).toBeLessThan(20_000);
  expect(text).toContain('src="data:image/png;base64,iVBORw0KGgo="');
  expect(text).not.toContain('data-figure="');
  expect(text).toMatch(/<a href="[./]+.*notebooks\/01_second\.ipynb">on<\/a>/);
});

test('names a notebook that is missing, and writes nothing', async () => {
  const never = join(folder, 'never.html');
  await expect(writeReport([join(folder, 'none.ipynb')], never)).rejects.toThrow(/none\.ipynb/);
  expect(existsSync(never)).toBe(false);
});

test('highlights comments, strings, numbers and keywords, and escapes all', () => {
  expect(highlight('if (a < 1) `x` // <i>')).toBe(
    '<span class="keyword">if</span> (a &lt; <span class="number">1</span>) <span class="string">`x`</span> <span class="comment">// &lt;i&gt;</span>',
  );
});
