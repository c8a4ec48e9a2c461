// What a cell's code may know of the kernel that runs it. The kernel puts one Session on globalThis; display.ts
// reads it. A global, not a module variable: the kernel and the cells may load this package by different paths.
// In: - Out: the current Session, or undefined in a plain Node process.

const KEY = Symbol.for('response-time.kernel.session');

/** The kernel's side of a running cell. */
export interface Session {
  /** Sends a display_data message of the running cell: data by MIME type. */
  display(data: Readonly<Record<string, unknown>>): void;
  /** Aborts when the running cell is interrupted. */
  readonly signal: AbortSignal;
}

/** The kernel's session. @returns undefined outside the kernel */
export function currentSession(): Session | undefined {
  return (globalThis as { [KEY]?: Session })[KEY];
}

/** Makes a session known to cells. @param session the kernel's own */
export function setSession(session: Session): void {
  (globalThis as { [KEY]?: Session })[KEY] = session;
}
