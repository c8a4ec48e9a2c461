// browser/shims/url.ts: what the library asks of node:url: where its own code lies, to leave it out of call sites.
export const fileURLToPath = (url: string | URL): string => new URL(url, location.href).pathname;
