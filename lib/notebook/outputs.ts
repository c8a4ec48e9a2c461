// Messages of a cell -> outputs in a notebook. In: iopub messages. Out: the cell's list of outputs.
// Source: the Jupyter messaging protocol 5.3; nbclient's output handling.
import type { MimeBundle, Output } from './document.js';
import type { WireMessage } from './wire.js';

/** JSON types may come as text; a notebook file holds them parsed. */
function parseJsonTypes(data: MimeBundle): MimeBundle {
  const entries = Object.entries(data).map(([mime, value]) => {
    if (!/[/+]json$/.test(mime) || typeof value !== 'string') return [mime, value];
    try {
      return [mime, JSON.parse(value)];
    } catch {
      return [mime, value];
    }
  });
  return Object.fromEntries(entries) as MimeBundle;
}

/** Gathers the outputs of a notebook's cells; displays can be updated from any cell. */
export class OutputCollector {
  private readonly displays = new Map<string, { data: MimeBundle; metadata: object }[]>();

  /**
   * Adds a message to a cell's outputs.
   * @param outputs changed in place
   * @param onError told of each error message
   */
  add(
    outputs: Output[],
    { header, content }: WireMessage,
    onError: (name: string, value: string) => void,
  ): void {
    switch (header.msg_type) {
      case 'stream':
        this.addText(outputs, String(content.name), String(content.text));
        break;
      case 'display_data':
      case 'execute_result':
        this.addData(outputs, header.msg_type, content);
        break;
      case 'update_display_data':
        for (const shown of this.displays.get(displayId(content)) ?? [])
          Object.assign(shown, {
            data: parseJsonTypes(content.data as MimeBundle),
            metadata: content.metadata ?? {},
          });
        break;
      case 'clear_output':
        outputs.length = 0;
        break;
      case 'error': {
        const { ename, evalue, traceback } = content as {
          ename: string;
          evalue: string;
          traceback: string[];
        };
        outputs.push({ output_type: 'error', ename, evalue, traceback });
        onError(ename, evalue);
      }
    }
  }

  /** Joins text that follows text of the same stream. */
  private addText(outputs: Output[], name: string, text: string): void {
    const last = outputs.at(-1);
    if (last?.output_type === 'stream' && last.name === name) last.text += text;
    else outputs.push({ output_type: 'stream', name, text });
  }

  private addData(
    outputs: Output[],
    type: 'display_data' | 'execute_result',
    content: WireMessage['content'],
  ): void {
    const shown = {
      data: parseJsonTypes(content.data as MimeBundle),
      metadata: (content.metadata ?? {}) as object,
    };
    const output: Output =
      type === 'display_data'
        ? { output_type: type, ...shown }
        : { output_type: type, ...shown, execution_count: (content.execution_count as number) ?? null };
    outputs.push(output);
    const id = displayId(content);
    if (id) this.displays.set(id, [...(this.displays.get(id) ?? []), output]);
  }
}

const displayId = (content: WireMessage['content']) =>
  (content.transient as { display_id?: string } | undefined)?.display_id ?? '';
