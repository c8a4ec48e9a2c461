// Mends tslab's server, and says as types what is used of it: an iopub socket that loses nothing, interrupt requests,
// `error` messages. In: tslab's ZmqServer. Out: the same one, mended.
// Source: tslab 1.0.22 dist/jupyter.d.ts, zeromq.js 6.
import { Cell } from './cell.js';

const EXIT_MS = 300;

/** A Jupyter message on its way. */
export interface Message {
  readonly header: { msg_type: string };
  content: object;
  createReply(): Message;
  signAndSend(key: string, socket: Socket): void;
}

/** A zeromq socket, as far as tslab uses it. */
export interface Socket {
  send(parts: readonly (string | Buffer)[]): Promise<void>;
  close(): void;
  bind(address: string): Promise<void>;
}

export interface ExecuteRequest {
  readonly code: string;
  readonly silent?: boolean;
  readonly cell: Cell;
}

export interface ExecuteReply {
  readonly status: string;
  readonly execution_count?: number;
  readonly user_expressions?: object;
  readonly payload?: readonly object[];
}

type Write = (chunk: string | Uint8Array, encoding?: string | (() => void), done?: () => void) => boolean;

/** tslab's JupyterHandlerImpl. */
export interface JupyterHandler {
  readonly execCount: number;
  handleExecute(request: ExecuteRequest, ...writers: unknown[]): Promise<ExecuteReply>;
  handleExecuteImpl(request: ExecuteRequest, ...writers: unknown[]): Promise<unknown>;
  createWriteToIopub(name: string): Write;
  handleKernel(): { readonly language_info: object };
}

/** tslab's ZmqServer. */
export interface TslabServer {
  readonly connInfo: { readonly key: string; readonly transport: string; readonly ip: string };
  readonly handler: JupyterHandler;
  readonly control: Socket;
  iopub: Socket;
  publishStatus(status: string, parent: Message): void;
  handleExecute(socket: Socket, message: Message): Promise<void>;
  bindSocket(socket: Socket, port: number): Promise<void>;
  close(): void;
}

/**
 * Sends in order and waits for room: zeromq.js refuses a send (EBUSY) after 512 in one turn of the event loop.
 * @param socket the publisher, whose limit on waiting messages is taken off
 */
function queued(socket: Socket & { sendHighWaterMark?: number }): Socket {
  socket.sendHighWaterMark = 0;
  const waiting: (readonly (string | Buffer)[])[] = [];
  const isBusy = (error: unknown) => (error as { code?: string }).code === 'EBUSY';
  /** Sends all that waits, a turn later after each refusal. */
  const drain = async () => {
    for (let parts = waiting[0]; parts; parts = waiting[0]) {
      try {
        await socket.send(parts);
        waiting.shift();
      } catch (error) {
        if (!isBusy(error)) return void waiting.splice(0); // closed: nobody listens any more
        await new Promise((resolve) => setImmediate(resolve));
      }
    }
  };
  return {
    bind: (address) => socket.bind(address),
    close: () => socket.close(),
    async send(parts) {
      if (waiting.length > 0) return void waiting.push(parts);
      try {
        await socket.send(parts); // at once where there is room: a synchronous loop shows its progress
      } catch (error) {
        if (isBusy(error) && waiting.push(parts) === 1) setImmediate(drain);
      }
    },
  };
}

/** Puts a queue before the iopub socket when the server makes it, and names Unix sockets as Jupyter does. */
function mendSockets(server: TslabServer): void {
  Object.defineProperty(server, 'iopub', {
    configurable: true,
    set(socket: Socket) {
      Object.defineProperty(this, 'iopub', { value: queued(socket) });
    },
  });
  server.bindSocket = function (socket, port) {
    const { transport, ip } = this.connInfo;
    return socket.bind(`${transport}://${ip}${transport === 'ipc' ? '-' : ':'}${port}`);
  };
}

/** Answers interrupt requests; tslab knows SIGINT only. `publishStatus` is the first to see a message. */
function mendInterrupt(server: TslabServer): void {
  const { publishStatus } = server;
  server.publishStatus = function (status, message) {
    publishStatus.call(this, status, message);
    if (status !== 'busy' || message.header.msg_type !== 'interrupt_request') return;
    process.emit('SIGINT');
    sendReply(this, message, 'interrupt_reply', { status: 'ok' }, this.control);
  };
}

/** Sends a message that answers another. */
function sendReply(
  server: TslabServer,
  message: Message,
  type: string,
  content: object,
  socket: Socket,
): void {
  const reply = message.createReply();
  reply.header.msg_type = type;
  reply.content = content;
  reply.signAndSend(server.connInfo.key, socket);
}

/**
 * Mends tslab's server: sockets, interrupts, the end of the process, and the `error` message of a cell.
 * @param server ZmqServer's prototype
 */
export function mendServer(server: TslabServer): void {
  mendSockets(server);
  mendInterrupt(server);
  const { close } = server;
  server.close = function () {
    close.call(this);
    setTimeout(() => process.exit(0), EXIT_MS).unref(); // whatever a cell left running
  };
  server.handleExecute = async function (this: TslabServer, socket, message) {
    const cell = new Cell((type, content) => sendReply(this, message, type, content, this.iopub));
    const display = (content: object, update: boolean) =>
      cell.publish(update ? 'update_display_data' : 'display_data', content);
    const request = { ...(message.content as ExecuteRequest), cell };
    const reply = await this.handler.handleExecute(request, undefined, display);
    cell.finished = true;
    if (reply.status === 'error' && cell.error) cell.publish('error', cell.error);
    cell.flush();
    sendReply(this, message, 'execute_reply', reply, socket);
  };
}
