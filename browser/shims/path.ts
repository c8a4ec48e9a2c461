// browser/shims/path.ts: what the library asks of node:path, for the server's paths: always with forward slashes.

/** Joins parts and resolves `.` and `..`. */
export function join(...parts: readonly string[]): string {
  const whole = parts.filter((part) => part !== '').join('/');
  const kept: string[] = [];
  for (const name of whole.split('/')) {
    if (name === '..') kept.pop();
    else if (name !== '' && name !== '.') kept.push(name);
  }
  return (whole.startsWith('/') ? '/' : '') + kept.join('/');
}

export const resolve = (path: string): string => join('/', path);
export const basename = (path: string): string => path.slice(path.lastIndexOf('/') + 1);
export const dirname = (path: string): string => path.slice(0, Math.max(0, path.lastIndexOf('/'))) || '/';
export const sep = '/';
export const delimiter = ':';
