// The Jupyter kernel of the notebooks: tslab 1.0.22 with what it lacks. Started by bin/kernel.js.
// In: `--config-path FILE`, a Jupyter connection file. Out: messages over zeromq until a shutdown request.
// Source: tslab 1.0.22 (dist/jupyter.js, converter.js, main.js), the Jupyter messaging protocol 5.3.
import { createRequire } from 'node:module';
import { format } from 'node:util';
import { projectRoot } from '../paths.js';
import { describeError, RunningCells } from './cell.js';
import { setSession } from './session.js';
import { compileStrictly, refreshDependents } from './tslab-compiler.js';
import { mendHandler } from './tslab-handler.js';
import { type JupyterHandler, mendServer, type TslabServer } from './tslab-server.js';

const PARENT_CHECK_MS = 1000;
const NOISE =
  /TensorFlow\.js in Node\.js|already been set|already registered|unknown msg_type|backend was already/;

/** What packages say to themselves is not the reader's business: banners, deprecations, experimental features. */
function silenceNoise(): void {
  process.removeAllListeners('warning');
  const { warn } = console;
  console.warn = (...values: unknown[]) => {
    if (!NOISE.test(format(...values))) warn(...values);
  };
}

/** Starts tslab, which keeps the console that it finds for a cell's last value and for its errors. */
function startTslab(startKernel: (options: object) => void, cells: RunningCells): void {
  const { log, error } = console;
  console.log = (value: unknown) => {
    const data = { 'text/plain': format(value) };
    const execution_count = cells.current?.count;
    cells.current?.publish('execute_result', { data, metadata: {}, execution_count });
  };
  console.error = (first: unknown, ...places: unknown[]) => {
    if (typeof first === 'string' && places.length > 0)
      cells.current?.failToCompile(format(first, ...places));
    else cells.current?.fail(describeError(first));
  };
  const configPath = process.argv[process.argv.indexOf('--config-path') + 1];
  startKernel({ configPath, enableFindLocal: false });
  Object.assign(console, { log, error });
}

/** Blames errors that nobody caught on the cell that they came from, in place of tslab's line on stderr. */
function reportUncaught(cells: RunningCells): void {
  for (const event of ['uncaughtException', 'unhandledRejection']) {
    process.removeAllListeners(event);
    process.on(event, (reason: unknown) => {
      const cell = cells.current;
      // A cell that still waits may wait forever for what has just failed: interrupt it.
      if (cell?.fail(describeError(reason)) && cell === cells.latest) process.emit('SIGINT');
      else if (!cell) console.error(reason);
    });
  }
}

/** Ends the kernel when whoever started it is gone. */
function endWithParent(): void {
  const parent = process.ppid;
  setInterval(() => process.ppid === parent || process.exit(0), PARENT_CHECK_MS).unref();
}

const require = createRequire(import.meta.url);
process.chdir(projectRoot()); // `response-time/...` and relative paths mean the same wherever a notebook lies
silenceNoise();
compileStrictly(require);
refreshDependents(require);
const { ZmqServer, JupyterHandlerImpl } = require('tslab/dist/jupyter.js') as {
  ZmqServer: { prototype: TslabServer };
  JupyterHandlerImpl: { prototype: JupyterHandler };
};
const cells = new RunningCells();
mendServer(ZmqServer.prototype);
mendHandler(JupyterHandlerImpl.prototype, cells);
setSession({
  display: (data) => cells.current?.publish('display_data', { data, metadata: {}, transient: {} }),
  get signal() {
    return cells.current?.signal ?? new AbortController().signal;
  },
});
startTslab(require('tslab/dist/main.js').startKernel, cells);
process.on('SIGINT', () => cells.latest?.abort());
reportUncaught(cells);
endWithParent();
