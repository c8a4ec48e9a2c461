// Mends how tslab runs a cell: what it publishes, how it reports errors, whose output it is.
// In: tslab's JupyterHandlerImpl. Out: the same one, mended.
// Source: tslab 1.0.22 dist/jupyter.js.
import { describeError, type RunningCells } from './cell.js';
import type { ExecuteReply, JupyterHandler } from './tslab-server.js';

const ABORT_WINDOW_MS = 250; // for 200 ms after an error, tslab aborts whatever it is asked

/**
 * Mends tslab's handler.
 * @param handler JupyterHandlerImpl's prototype
 * @param cells told of each cell that runs
 */
export function mendHandler(handler: JupyterHandler, cells: RunningCells): void {
  const { handleExecute, handleExecuteImpl, handleKernel } = handler;
  handler.handleExecute = async function (request, ...writers): Promise<ExecuteReply> {
    const reply = await handleExecute.call(this, request, ...writers);
    if (reply.status === 'abort') return { status: 'aborted' };
    if (reply.status === 'ok') return { ...reply, user_expressions: {}, payload: [] };
    await new Promise((resolve) => setTimeout(resolve, ABORT_WINDOW_MS));
    request.cell.error ??= describeError('the cell failed without an error');
    return { ...reply, ...request.cell.error };
  };
  handler.handleExecuteImpl = function (request, ...writers) {
    const { cell, code } = request;
    cell.count = this.execCount + 1;
    if (!request.silent) cell.publish('execute_input', { code, execution_count: cell.count });
    return cells.run(cell, async () => {
      const count = await handleExecuteImpl.call(this, request, ...writers);
      await new Promise((resolve) => setImmediate(resolve)); // a promise that nobody awaited is reported by now
      if (cell.error) throw count; // tslab's way of saying "failed"
      return count;
    });
  };
  handler.createWriteToIopub = (name) => {
    const decoder = new TextDecoder(); // a character may be split over two chunks
    return (chunk, encoding, done) => {
      const text = typeof chunk === 'string' ? chunk : decoder.decode(chunk, { stream: true });
      cells.current?.write(name, text);
      const callback = typeof encoding === 'function' ? encoding : done;
      if (callback) queueMicrotask(callback);
      return true;
    };
  };
  handler.handleKernel = function (this: JupyterHandler) {
    const reply = handleKernel.call(this);
    return { ...reply, status: 'ok', language_info: { ...reply.language_info, version: '5.0.4' } };
  };
}
