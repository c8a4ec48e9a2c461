// lib/jit/debug.ts: what the compiler says on stderr, by the level in RT_DEBUG: 1 compilations and planned bytes,
// 2 milliseconds and GB/s a kernel, 3 the graph after each pass (and checks it), 4 generated code.

/** The level asked for; 0 where RT_DEBUG is not set. */
export function debugLevel(): number {
  const level = Number(process.env.RT_DEBUG ?? 0);
  return Number.isFinite(level) ? level : 0;
}

/** Writes a message to stderr if its level is asked for; the text is made only then. */
export function debug(level: 1 | 2 | 3 | 4, text: () => string): void {
  if (debugLevel() >= level) process.stderr.write(`${text()}\n`);
}

/** Bytes for people, such as '1.5 MB'. */
export function bytesText(bytes: number): string {
  if (bytes < 1e3) return `${bytes} B`;
  if (bytes < 1e6) return `${(bytes / 1e3).toFixed(1)} kB`;
  return `${(bytes / 1e6).toFixed(1)} MB`;
}
