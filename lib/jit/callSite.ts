// lib/jit/callSite.ts: the stack of calls while tracing -> the user's line and the tfjs operation that it called.

import { fileURLToPath } from 'node:url';

/** Where an operation was called, such as { op: 'randomUniform', source: '/home/me/model.ts:12:7' }. */
export interface CallSite {
  readonly op: string | undefined;
  readonly source: string | undefined;
}

const ownFolder = fileURLToPath(new URL('.', import.meta.url));
/** Also where source maps show tfjs's own TypeScript. */
const tfjsFile = /@tensorflow[/\\]|[/\\]tfjs-(core|backend-\w+|layers)[/\\]/;
const opsFile = ownFolder.replace(/jit.$/, 'ops.');

/** Reads the call site off the current stack: the first frame that is neither tfjs nor the compiler. */
export function callSite(): CallSite {
  const limit = Error.stackTraceLimit;
  Error.stackTraceLimit = 40;
  const frames = (new Error().stack ?? '').split('\n').slice(2);
  Error.stackTraceLimit = limit;
  let op: string | undefined;
  for (const frame of frames) {
    const place = frame.match(/(?:file:\/\/)?([^\s()]+:\d+:\d+)\)?$/)?.[1];
    if (place && tfjsFile.test(place)) {
      op = frame.match(/at (?:async )?(?:\w+\.)*(\w+?)_(?:_op)? /)?.[1] ?? op;
      continue;
    }
    const isOwn = place === undefined || place.includes(ownFolder) || place.includes(opsFile);
    if (!isOwn && !place.startsWith('node:')) return { op, source: place };
  }
  return { op, source: undefined };
}
