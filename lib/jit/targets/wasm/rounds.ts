// lib/jit/targets/wasm/rounds.ts: what happens between two rounds of the outermost loop: thread 0 tells the main thread
// that a round is complete, and decides for all whether to stop and whether to go on together or alone.
//
// Alone: when another program keeps a core busy, a thread of ours sleeps while the others wait for it at every barrier,
// and two threads are slower than one (measured: 24 ms instead of 6). Thread 0 notices by the naps at the barrier, sends
// the others to wait, runs some rounds alone, and calls them back to try again.

import type { FunctionBuilder, Local } from './builder.js';
import { globalSet, globalValue } from './context.js';
import { CONTROL, DECISION, trap, word } from './control.js';
import { atomics } from './memory.js';
import { constant, type Expr } from './nodes.js';
import { i32, select } from './scalars.js';

/** Rounds that thread 0 runs alone before it tries the other cores again. */
const ALONE_ROUNDS = 24;
const PARK_NANOSECONDS = 5_000_000;

export class RoundTurns {
  private readonly allThreads: Local;
  private readonly napsBefore: Local;
  private readonly aloneLeft: Local;
  private readonly recallsSeen: Local;

  constructor(
    private readonly f: FunctionBuilder,
    private readonly round: Local,
    private readonly ended: Local,
    private readonly length: number,
    /** Naps of all threads in one round that make it a bad one. */
    private readonly badNaps: number,
  ) {
    this.allThreads = f.let('allThreads', globalValue('threads'));
    this.napsBefore = f.let('napsBefore', atomics.load(word(CONTROL.naps)));
    this.aloneLeft = f.let('aloneLeft', constant('i32', 0));
    this.recallsSeen = f.let('recallsSeen', atomics.load(word(CONTROL.recalls)));
  }

  /**
   * Before the barrier at the end of a round: thread 0 writes its decision where this round's is read. Not while it is
   * alone: another thread may be slow to read the decision that it is not needed.
   */
  decide(): void {
    const { f } = this;
    f.when(i32.and(i32.eqz(globalValue('thread')), i32.eqz(this.aloneLeft)), () => {
      const naps = f.let('naps', atomics.load(word(CONTROL.naps)));
      const isBad = i32.ge_u(i32.sub(naps, this.napsBefore), this.badNaps);
      const stay = select(DECISION.alone, DECISION.together, isBad, 'i32');
      const decision = select(DECISION.stop, stay, atomics.load(word(CONTROL.abort)), 'i32');
      f.do(atomics.store(this.decisionAt(this.round), decision));
      f.set(this.napsBefore, naps);
    });
  }

  /** The decisions of two rounds in turn have a place each: one may be read while the next is written. */
  private decisionAt(round: Expr): Expr {
    return i32.add(word(CONTROL.decisions), i32.shl(i32.and(round, 1), 6));
  }

  /** After the barrier, `round` already counting the one that ended: publish it, and do as was decided. */
  follow(): void {
    const { f, round, ended } = this;
    const isFirst = f.let('isFirst', i32.eqz(globalValue('thread')));
    const wasAlone = f.let('wasAlone', i32.ne(this.aloneLeft, 0));
    const decided = atomics.load(this.decisionAt(i32.sub(round, 1)));
    const aborted = select(DECISION.stop, DECISION.together, atomics.load(word(CONTROL.abort)), 'i32');
    const decision = f.let('decision', select(aborted, decided, wasAlone, 'i32'));
    f.when(i32.eq(decision, DECISION.stop), () => f.set(ended, 1));
    const goesOn = f.let('goesOn', i32.and(i32.lt_u(round, this.length), i32.eqz(ended)));
    f.when(isFirst, () => this.publish());
    f.when(wasAlone, () => this.countDown(goesOn));
    f.when(i32.and(i32.eq(decision, DECISION.alone), goesOn), () => {
      f.when(
        isFirst,
        () => {
          f.set(this.aloneLeft, ALONE_ROUNDS);
          f.do(globalSet('threads', constant('i32', 1)));
        },
        () => this.park(),
      );
    });
  }

  private publish(): void {
    const { f } = this;
    f.do(atomics.store(word(CONTROL.rounds), this.round));
    f.when(atomics.load(word(CONTROL.listens)), () => {
      const ignored = f.let('ignored', atomics.add(word(CONTROL.events), 1));
      f.set(ignored, atomics.notify(word(CONTROL.events), 1));
    });
  }

  /** Thread 0, alone: calls the others back after some rounds, once all are waiting for it, and at the end. */
  private countDown(goesOn: Expr): void {
    const { f } = this;
    const arePresent = () => i32.eq(atomics.load(word(CONTROL.parked)), i32.sub(this.allThreads, 1));
    f.when(i32.gt_u(this.aloneLeft, 1), () => f.increase(this.aloneLeft, -1));
    f.when(i32.eqz(goesOn), () => {
      f.set(this.aloneLeft, 1);
      f.repeat(() => {
        f.when(atomics.load(word(CONTROL.failed)), () => f.do(trap));
        return i32.eqz(arePresent());
      });
    });
    f.when(i32.and(i32.eq(this.aloneLeft, 1), arePresent()), () => {
      f.set(this.aloneLeft, 0);
      f.do(
        atomics.store(word(CONTROL.round), this.round),
        atomics.store(word(CONTROL.ended), this.ended),
        atomics.store(word(CONTROL.parked), 0),
        globalSet('threads', this.allThreads),
      );
      const ignored = f.let('ignored', atomics.add(word(CONTROL.recalls), 1));
      f.set(ignored, atomics.notify(word(CONTROL.recalls), this.allThreads));
    });
  }

  /** Another thread: waits until it is called back, and learns where thread 0 has got to. */
  private park(): void {
    const { f } = this;
    const ignored = f.let('ignored', atomics.add(word(CONTROL.parked), 1));
    const timeout = constant('i64', PARK_NANOSECONDS);
    f.repeat(() => {
      f.set(ignored, atomics.wait(word(CONTROL.recalls), this.recallsSeen, timeout));
      f.when(atomics.load(word(CONTROL.failed)), () => f.do(trap));
      return i32.eq(atomics.load(word(CONTROL.recalls)), this.recallsSeen);
    });
    f.set(this.recallsSeen, atomics.load(word(CONTROL.recalls)));
    f.set(this.round, atomics.load(word(CONTROL.round)));
    f.set(this.ended, atomics.load(word(CONTROL.ended)));
  }
}
