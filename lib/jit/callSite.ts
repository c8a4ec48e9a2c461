// lib/jit/callSite.ts: the stack of calls while tracing -> the user's line and the tfjs operation that it called.

import { fileURLToPath } from 'node:url';

/** Where an operation was called, such as { op: 'randomUniform', source: '/home/me/model.ts:12:7' }. */
export interface CallSite {
  readonly op: string | undefined;
  readonly source: string | undefined;
}

const ownFolder = fileURLToPath(new URL('.', import.meta.url));
/** Also where source maps show tfjs's own TypeScript, and the helpers that it was compiled with. */
const tfjsFile = /@tensorflow[/\\]|[/\\]tfjs-(core|backend-\w+|layers)[/\\]|[/\\]tslib[/\\]/;
const opsFile = ownFolder.replace(/jit.$/, 'ops.');

/** The current stack, read only when someone asks: reading it costs more than all else in tracing an operation. */
export class Origin {
  readonly #error: Error;

  constructor() {
    const limit = Error.stackTraceLimit;
    Error.stackTraceLimit = 30; // tfjs and the compiler take some 20 of them
    this.#error = new Error();
    Error.stackTraceLimit = limit;
  }

  /** The first frame that is neither tfjs nor the compiler. */
  get site(): CallSite {
    return siteOf((this.#error.stack ?? '').split('\n').slice(1));
  }

  toString(): string {
    return this.site.source ?? 'an unknown line';
  }
}

/** The call site of what runs now. */
export function callSite(): CallSite {
  return new Origin().site;
}

function siteOf(frames: readonly string[]): CallSite {
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
