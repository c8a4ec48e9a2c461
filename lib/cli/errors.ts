// lib/cli/errors.ts: errors -> one line for the user.

/** The user asked to stop; the exit code is the shell's for the signal that said so. */
export class Interrupted extends Error {
  constructor(
    message: string,
    readonly exitCode: number,
  ) {
    super(message);
  }
}

/** What the operating system's codes mean to somebody who has not read its manual. */
const SYSTEM_ERRORS: Readonly<Record<string, string | undefined>> = {
  EACCES: 'no permission',
  EPERM: 'no permission',
  EROFS: 'the file system is read-only',
  ENOENT: 'no such file or folder',
  ENOTDIR: 'a part of the path is no folder',
  EISDIR: 'this is a folder, a file is needed',
  ENOSPC: 'the disk is full',
  EDQUOT: 'your quota of disk space is used up',
};

/** One line that says what is wrong; lists inside a message are joined. */
export function formatError(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (/^Array buffer allocation failed/.test(error.message)) {
    return `not enough memory (${error.message}); \`response-time inspect MODEL\` says what each scheme needs`;
  }
  const { code, path } = error as NodeJS.ErrnoException;
  const meaning = SYSTEM_ERRORS[code ?? ''];
  // Only what Node itself says begins with its code; a message of ours is clearer than its code.
  const isSystems = meaning !== undefined && path !== undefined && error.message.startsWith(`${code}:`);
  const message = isSystems ? `${path}: ${meaning} (${code})` : error.message || error.name;
  return message
    .replace(/^error: /, '') // commander's own
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '')
    .reduce((text, line) =>
      /[:;,.]$/.test(text) || line.startsWith('(') ? `${text} ${line}` : `${text}; ${line}`,
    );
}
