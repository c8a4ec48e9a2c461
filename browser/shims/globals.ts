// browser/shims/globals.ts: globals of Node that the library uses. Settings come from the page's address:
// ?RESPONSE_TIME_WEBGPU=swiftshader accepts a GPU that is emulated on the CPU, as in Node's environment.
const { searchParams } = new URL(location.href);

export const pageProcess = {
  env: Object.fromEntries(searchParams),
  versions: {},
  stderr: { write: (text: string) => console.log(text) },
};

/** Lets the page draw and listen before the work goes on. */
export function setImmediate(work: () => void): void {
  const { port1, port2 } = new MessageChannel(); // setTimeout would wait for 4 ms
  port1.onmessage = work;
  port2.postMessage(null);
}

export const Buffer = {
  /** 0 for equal bytes. */
  compare(left: Uint8Array, right: Uint8Array): number {
    const at = left.findIndex((byte, i) => byte !== right[i]);
    return at < 0 ? left.length - right.length : left[at]! - (right[at] ?? 0);
  },
};
