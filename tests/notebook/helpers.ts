// Notebooks and kernels for the tests of lib/notebook.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';
import type { KernelClient } from '../../lib/notebook/client.js';
import type { Notebook, NotebookCell, Output } from '../../lib/notebook/document.js';
import { OutputCollector } from '../../lib/notebook/outputs.js';

/** A folder that is gone after the tests of the file. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'response-time-test-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** A code cell, or a Markdown cell if its text begins with `#`, `<` or `*`. */
export function cell(source: string, ...tags: string[]): NotebookCell {
  const isMarkdown = /^[#<*]/.test(source);
  return {
    cell_type: isMarkdown ? 'markdown' : 'code',
    id: 'fixed',
    metadata: tags.length > 0 ? { tags } : {},
    source,
    ...(isMarkdown ? {} : { outputs: [], execution_count: null }),
  };
}

export function notebookOf(...cells: readonly (NotebookCell | string)[]): Notebook {
  const made = cells.map((one) => (typeof one === 'string' ? cell(one) : one));
  return { nbformat: 4, nbformat_minor: 5, metadata: {}, cells: made };
}

/** Writes a notebook. @returns its path */
export function saveNotebook(
  folder: string,
  name: string,
  ...cells: readonly (NotebookCell | string)[]
): string {
  const path = join(folder, `${name}.ipynb`);
  writeFileSync(path, JSON.stringify(notebookOf(...cells)));
  return path;
}

/** Runs code in a kernel. */
export async function execute(client: KernelClient, code: string, timeoutMs = 20_000) {
  const outputs: Output[] = [];
  const types: string[] = [];
  const collector = new OutputCollector();
  const content = { code, silent: false, store_history: true, allow_stdin: false, stop_on_error: true };
  const reply = await client.request(
    'execute_request',
    content,
    (message) => {
      types.push(message.header.msg_type);
      collector.add(outputs, message, () => {});
    },
    { timeoutMs },
  );
  return { reply, outputs, types };
}

/** All text of a stream. */
export function streamText(outputs: readonly Output[], name = 'stdout'): string {
  return outputs
    .map((output) => (output.output_type === 'stream' && output.name === name ? output.text : ''))
    .join('');
}
