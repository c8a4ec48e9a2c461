// lib/jit/targets/webgpu/store.ts: what was found out about an adapter and its driver, kept between runs: in Node in the
// cache folder, in a browser in the page's own storage. Not kept where neither is there.

/** Topics: 'guard' (kernels that were compared with the reference), 'tuning' (shapes that were measured). */
export type StoreTopic = 'guard' | 'tuning';

const inNode = (): boolean => typeof process !== 'undefined' && Boolean(process.versions?.node);
const pageKey = (adapter: string, topic: StoreTopic): string => `response-time webgpu ${topic} ${adapter}`;
const pageStorage = (): Storage | undefined => {
  try {
    return globalThis.localStorage;
  } catch {
    return undefined; // forbidden to this page
  }
};

/** What was kept of an adapter; undefined if nothing was, or it cannot be read. */
export async function readStored(adapter: string, topic: StoreTopic): Promise<unknown> {
  const text = inNode()
    ? await (await import('../../../adapterFiles.js')).readAdapterFile(adapter, topic)
    : pageStorage()?.getItem(pageKey(adapter, topic));
  try {
    return text ? JSON.parse(text) : undefined;
  } catch {
    return undefined; // half written by an older version: found out anew
  }
}

/** Keeps a value that JSON can hold. */
export async function writeStored(adapter: string, topic: StoreTopic, value: unknown): Promise<void> {
  const text = JSON.stringify(value);
  if (inNode()) await (await import('../../../adapterFiles.js')).writeAdapterFile(adapter, topic, text);
  else pageStorage()?.setItem(pageKey(adapter, topic), text);
}
