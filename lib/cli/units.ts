// lib/cli/units.ts: numbers -> text for people: bytes, times, counts.

/** Decimal units, as disks and the papers count: 497_759_232 -> '497.8 MB'. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  const power = bytes < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log10(bytes) / 3));
  return `${power === 0 ? bytes : (bytes / 1000 ** power).toFixed(1)} ${units[power]}`;
}

/** 0.42 -> '0.42 ms', 1234 -> '1.23 s'. */
export function formatMs(ms: number): string {
  return ms < 1000 ? `${ms.toPrecision(3)} ms` : `${(ms / 1000).toPrecision(3)} s`;
}

/** 124439808 -> '124,439,808'. */
export function formatCount(count: number): string {
  return count.toLocaleString('en-US');
}
