// The Jupyter kernel of the notebooks: tslab 1.0.22 with what it lacks. Started by bin/kernel.js.
// In: `--config-path FILE`, a Jupyter connection file. Out: messages over zeromq until a shutdown request.
// Source: tslab 1.0.22 (dist/jupyter.js, converter.js, main.js), the Jupyter messaging protocol 5.3.
import { AsyncLocalStorage } from 'node:async_hooks';
import { createRequire } from 'node:module';
import { format } from 'node:util';
import { projectRoot } from '../paths.js';
import { Cell, describeError } from './cell.js';
import { setSession } from './session.js';
import { compileStrictly, refreshDependents } from './tslab-compiler.js';
import {
  type ExecuteReply,
  type ExecuteRequest,
  type JupyterHandler,
  mendSockets,
  type TslabServer,
} from './tslab-server.js';

const EXIT_MS = 300;
const PARENT_CHECK_MS = 1000;
const ABORT_WINDOW_MS = 250; // for 200 ms after an error, tslab aborts whatever it is asked
const NOISE =
  /TensorFlow\.js in Node\.js|already been set|already registered|unknown msg_type|backend was already/;

const require = createRequire(import.meta.url);
process.chdir(projectRoot()); // `response-time/...` and relative paths mean the same wherever a notebook lies
process.removeAllListeners('warning'); // deprecations and experimental features are not the reader's business
const warn = console.warn;
console.warn = (...values: unknown[]) => {
  if (!NOISE.test(format(...values))) warn(...values);
};
compileStrictly(require);
refreshDependents(require);
const { ZmqServer, JupyterHandlerImpl } = require('tslab/dist/jupyter.js') as {
  ZmqServer: { prototype: TslabServer };
  JupyterHandlerImpl: { prototype: JupyterHandler };
};
const { startKernel } = require('tslab/dist/main.js') as { startKernel(options: object): void };

// Which cell runs is carried along its asynchronous calls, so that late output and late errors find their cell.
const cells = new AsyncLocalStorage<Cell>();
let latest: Cell | undefined;
const currentCell = () => cells.getStore() ?? latest;
setSession({
  display: (data) => currentCell()?.publish('display_data', { data, metadata: {}, transient: {} }),
  get signal() {
    return currentCell()?.signal ?? new AbortController().signal;
  },
});

mendSockets(ZmqServer.prototype);
const { publishStatus, close } = ZmqServer.prototype;
ZmqServer.prototype.publishStatus = function (status, message) {
  publishStatus.call(this, status, message);
  if (status !== 'busy' || message.header.msg_type !== 'interrupt_request') return; // else: the first to see a message
  process.emit('SIGINT');
  const reply = message.createReply();
  reply.header.msg_type = 'interrupt_reply';
  reply.content = { status: 'ok' };
  reply.signAndSend(this.connInfo.key, this.control);
};
ZmqServer.prototype.close = function () {
  close.call(this);
  setTimeout(() => process.exit(0), EXIT_MS).unref(); // whatever a cell left running
};
ZmqServer.prototype.handleExecute = async function (this: TslabServer, socket, message) {
  const send = (type: string, content: object, to = this.iopub) => {
    const reply = message.createReply();
    reply.header.msg_type = type;
    reply.content = content;
    reply.signAndSend(this.connInfo.key, to);
  };
  const cell = new Cell(send);
  const display = (content: object, update: boolean) =>
    cell.publish(update ? 'update_display_data' : 'display_data', content);
  const request = { ...(message.content as ExecuteRequest), cell };
  const reply = await this.handler.handleExecute(request, undefined, display);
  cell.finished = true;
  if (reply.status === 'error' && cell.error) cell.publish('error', cell.error);
  cell.flush();
  send('execute_reply', reply, socket);
};

const { handleExecute, handleExecuteImpl, handleKernel } = JupyterHandlerImpl.prototype;
JupyterHandlerImpl.prototype.handleExecute = async function (request, ...writers): Promise<ExecuteReply> {
  const reply = await handleExecute.call(this, request, ...writers);
  if (reply.status === 'abort') return { status: 'aborted' };
  if (reply.status === 'ok') return { ...reply, user_expressions: {}, payload: [] };
  await new Promise((resolve) => setTimeout(resolve, ABORT_WINDOW_MS));
  request.cell.error ??= describeError('the cell failed without an error');
  return { ...reply, ...request.cell.error };
};
JupyterHandlerImpl.prototype.handleExecuteImpl = function (request, ...writers) {
  const { cell, code } = request;
  latest = cell;
  cell.count = this.execCount + 1;
  if (!request.silent) cell.publish('execute_input', { code, execution_count: cell.count });
  return cells.run(cell, async () => {
    const count = await handleExecuteImpl.call(this, request, ...writers);
    await new Promise((resolve) => setImmediate(resolve)); // a promise that nobody awaited is reported by now
    if (cell.error) throw count; // tslab's way of saying "failed"
    return count;
  });
};
JupyterHandlerImpl.prototype.createWriteToIopub = (name) => {
  const decoder = new TextDecoder(); // a character may be split over two chunks
  return (chunk, encoding, done) => {
    currentCell()?.write(name, typeof chunk === 'string' ? chunk : decoder.decode(chunk, { stream: true }));
    const callback = typeof encoding === 'function' ? encoding : done;
    if (callback) queueMicrotask(callback);
    return true;
  };
};
JupyterHandlerImpl.prototype.handleKernel = function (this: JupyterHandler) {
  const reply = handleKernel.call(this);
  return { ...reply, status: 'ok', language_info: { ...reply.language_info, version: '5.0.4' } };
};

// tslab keeps the console that it finds while it starts for a cell's last value and for its errors.
const { log, error } = console;
console.log = (value: unknown) => {
  const cell = currentCell();
  const data = { 'text/plain': format(value) };
  cell?.publish('execute_result', { data, metadata: {}, execution_count: cell.count });
};
console.error = (first: unknown, ...places: unknown[]) => {
  if (typeof first === 'string' && places.length > 0) currentCell()?.failToCompile(format(first, ...places));
  else currentCell()?.fail(describeError(first));
};
startKernel({ configPath: process.argv[process.argv.indexOf('--config-path') + 1], enableFindLocal: false });
Object.assign(console, { log, error });

process.on('SIGINT', () => latest?.abort());
for (const event of ['uncaughtException', 'unhandledRejection']) {
  process.removeAllListeners(event);
  process.on(event, (reason: unknown) => {
    const cell = currentCell();
    // A cell that still waits may wait forever for what has just failed: interrupt it.
    if (cell?.fail(describeError(reason)) && cell === latest) process.emit('SIGINT');
    else if (!cell) console.error(reason);
  });
}
const parent = process.ppid;
setInterval(() => process.ppid === parent || process.exit(0), PARENT_CHECK_MS).unref(); // no orphans
