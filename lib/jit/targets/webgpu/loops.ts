// lib/jit/targets/webgpu/loops.ts: what a loop needs around its body, all on the GPU: counting rounds, stacking outputs,
// carries, the end. Control memory says whether the loop has ended; then every kernel of its body returns at once, so that
// rounds may be sent ahead of knowing.

import { Expr, literal } from '../../kernels/expression.js';
import type { Kernel, Statement } from '../../kernels/kernel.js';
import type { ScanStep } from '../../steps.js';
import type { LowerContext } from './context.js';
import { type BufferUse, controlWords, type Dispatch, useKey } from './dispatch.js';

const threads = 64;
/** Copies of a round up to so many words are done by one workgroup, one after another, in one dispatch. */
const mostWordsTogether = 8192;

const guardName = 'loopControl';

/** The same dispatch, which does nothing once a loop has ended. */
export function guarded(dispatch: Dispatch, loop: number): Dispatch {
  return {
    ...dispatch,
    kernel: guardedKernel(dispatch.kernel),
    buffers: [...dispatch.buffers, { kind: 'control', loop }],
  };
}

const guardedKernels = new WeakMap<Kernel, Kernel>();

function guardedKernel(kernel: Kernel): Kernel {
  const known = guardedKernels.get(kernel);
  if (known) return known;
  const index = literal('u32', controlWords.ended);
  const hasEnded = new Expr('u32', { kind: 'load', array: guardName, args: [index] }).ne(0);
  const leave: Statement = {
    kind: 'if',
    condition: hasEnded,
    whenTrue: [{ kind: 'return', value: null }],
    whenFalse: [],
  };
  const made: Kernel = {
    ...kernel,
    // As constants: every workgroup waits for it before it reads anything else (1 % of Mistral-7B's decode, H200).
    buffers: [...kernel.buffers, { name: guardName, element: 'u32', access: 'uniform' }],
    body: [leave, ...kernel.body],
  };
  guardedKernels.set(kernel, made);
  return made;
}

/** A copy at the end of a round: `stacked` ones go to the round's own place. */
interface RoundCopy {
  readonly from: BufferUse;
  readonly to: BufferUse;
  readonly words: number;
  readonly stacked: boolean;
}

export class LoopWriter {
  constructor(
    readonly step: ScanStep,
    readonly loop: number,
    /** The loop around this one whose end ends this one too. */
    readonly outer: number | null,
    readonly context: LowerContext,
  ) {}

  get #control(): BufferUse {
    return { kind: 'control', loop: this.loop };
  }

  /** Starts counting; where the loop around has ended, this one has too. */
  begin(): Dispatch[] {
    const w = this.context.writer('loopBegin', 1);
    const { k } = w;
    const control = w.bindWritten('control', this.#control, 'u32');
    const outer =
      this.outer === null ? undefined : w.bind('outer', { kind: 'control', loop: this.outer }, 'u32');
    k.store(control, controlWords.rounds, 0);
    k.store(control, controlWords.ended, outer ? outer.at(controlWords.ended) : 0);
    k.store(control, controlWords.ends, 0);
    return [w.forWorkgroups(1, this.context.step)];
  }

  /** Stacks outputs, reads `until`, runs the carries in order, counts the round. */
  roundEnd(step: number): Dispatch[] {
    const { outputs, carries, until } = this.step;
    const use = (place: (typeof carries)[number]['from'], bytes: number) => this.context.place(place, bytes);
    const length = this.step.node.attrs.length;
    const stacks = outputs.map(({ from, to, bytes }): RoundCopy => {
      return { from: use(from, bytes), to: use(to, bytes * length), words: bytes / 4, stacked: true };
    });
    const moves = carries.map(({ from, to, bytes }): RoundCopy => {
      return { from: use(from, bytes), to: use(to, bytes), words: bytes / 4, stacked: false };
    });
    const flag = until && use(until, 4);
    const all = [...stacks, ...moves].filter(({ words }) => words > 0);
    const buffers = new Set(
      [...all.flatMap(({ from, to }) => [from, to]), ...(flag ? [flag] : [])].map((each) => wholeKey(each)),
    );
    const words = all.reduce((sum, copy) => sum + copy.words, 0);
    const { plan, bindingBytes, features } = this.context;
    const isArenaBindable = plan.arenaBytes <= bindingBytes;
    const fits = words <= mostWordsTogether && buffers.size < features.maxBuffers && isArenaBindable;
    return fits ? [this.#together(stacks, flag, moves, step)] : this.#apart(stacks, flag, moves, step);
  }

  /** One workgroup does it all; the arena is bound as a whole, since many of the places lie in it. */
  #together(
    stacks: readonly RoundCopy[],
    flag: BufferUse | null,
    moves: readonly RoundCopy[],
    step: number,
  ): Dispatch {
    const w = this.context.writer('roundEnd', threads);
    const { k } = w;
    const control = w.bindWritten('control', this.#control, 'u32');
    const arena = (use: BufferUse) =>
      isArena(use) ? { use: { kind: 'arena' } as const, base: use.place.offset / 4 } : { use, base: 0 };
    let names = 0;
    const bound = (use: BufferUse) => {
      const { use: all, base } = arena(use);
      return { array: w.bind(`memory${names++}`, all, 'u32'), base };
    };
    const round = k.uniform('round', control.at(controlWords.rounds));
    const hasEnded = k.uniform('hasEnded', control.at(controlWords.ended));
    k.if(hasEnded.ne(0), () => k.return());
    const run = ({ from, to, words, stacked }: RoundCopy): void => {
      const [source, target] = [bound(from), bound(to)];
      const copy = (i: Expr): void => {
        const place = stacked ? round.mul(words).add(i) : i;
        k.store(target.array, place.add(target.base), source.array.at(i.add(source.base)));
      };
      k.for('i', k.localIndex, words, copy, threads);
    };
    for (const copy of stacks) if (copy.words > 0) run(copy);
    const held = flag ? bound(flag) : undefined;
    const ends = held ? k.uniform('ends', held.array.at(held.base)) : undefined;
    for (const copy of moves) {
      k.barrier('storage');
      if (copy.words > 0) run(copy);
    }
    k.if(k.localIndex.eq(0), () => {
      k.store(control, controlWords.rounds, round.add(1));
      if (ends) k.store(control, controlWords.ended, ends.ne(0).to('u32'));
    });
    return w.forWorkgroups(1, step);
  }

  #apart(
    stacks: readonly RoundCopy[],
    flag: BufferUse | null,
    moves: readonly RoundCopy[],
    step: number,
  ): Dispatch[] {
    return [
      ...stacks.map((copy) => this.#copy(copy, step)),
      ...(flag ? [this.#latch(flag, step)] : []),
      ...moves.map((copy) => this.#copy(copy, step)),
      this.#advance(step),
    ].flat();
  }

  #copy({ from, to, words, stacked }: RoundCopy, step: number): Dispatch[] {
    if (words === 0) return [];
    const w = this.context.writer('roundCopy', threads);
    const index = w.threadIndex(words);
    const control = w.bind('control', this.#control, 'u32');
    const x = w.bind('x', from, 'u32');
    const y = w.bind('y', to, 'u32');
    w.k.if(control.at(controlWords.ended).eq(0), () => {
      const place = stacked ? control.at(controlWords.rounds).mul(words).add(index) : index;
      w.k.store(y, place, x.at(index));
    });
    return [w.forThreads(words, step)];
  }

  /** Keeps what `until` says: a carry may lie where it is read. */
  #latch(flag: BufferUse, step: number): Dispatch {
    const w = this.context.writer('roundLatch', 1);
    const control = w.bindWritten('control', this.#control, 'u32');
    const ends = w.bind('ends', flag, 'u32');
    w.k.store(control, controlWords.ends, ends.at(0));
    return w.forWorkgroups(1, step);
  }

  #advance(step: number): Dispatch {
    const w = this.context.writer('roundCount', 1);
    const { k } = w;
    const control = w.bindWritten('control', this.#control, 'u32');
    k.if(control.at(controlWords.ended).eq(0), () => {
      k.store(control, controlWords.rounds, control.at(controlWords.rounds).add(1));
      k.store(control, controlWords.ended, control.at(controlWords.ends));
    });
    return w.forWorkgroups(1, step);
  }

  /** Writes the number of rounds, and zeros into what the stacked outputs have left. */
  end(step: number): Dispatch[] {
    const { outputs, taken, node } = this.step;
    const zeros = outputs.flatMap(({ to, bytes }): Dispatch[] => {
      const words = (bytes / 4) * node.attrs.length;
      if (words === 0) return [];
      const w = this.context.writer('loopZeros', threads);
      const index = w.threadIndex(words);
      const control = w.bind('control', this.#control, 'u32');
      const y = w.bind('y', this.context.place(to, 4 * words), 'u32');
      const isLeft = index.ge(control.at(controlWords.rounds).mul(bytes / 4));
      w.k.if(isLeft, () => w.k.store(y, index, 0));
      return [w.forThreads(words, step)];
    });
    const w = this.context.writer('loopEnd', 1);
    const control = w.bind('control', this.#control, 'u32');
    w.k.store(w.bind('taken', this.context.place(taken, 4), 'u32'), 0, control.at(controlWords.rounds));
    const all = [...zeros, w.forWorkgroups(1, step)];
    const { outer } = this;
    return outer === null ? all : all.map((dispatch) => guarded(dispatch, outer));
  }
}

type ArenaUse = Extract<BufferUse, { kind: 'place' }> & {
  readonly place: { readonly space: 'arena'; readonly offset: number };
};

function isArena(use: BufferUse): use is ArenaUse {
  return use.kind === 'place' && use.place.space === 'arena';
}

const wholeKey = (use: BufferUse): string => (isArena(use) ? 'arena' : useKey(use));
