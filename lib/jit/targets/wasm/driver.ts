// lib/jit/targets/wasm/driver.ts: the function that every thread runs: all steps of the plan in order, loops included,
// with the threads meeting where hazards.ts says so. No step returns to JavaScript.

import { sizeOf } from '../../../tensor.js';
import type { CopyStep, KernelStep, Place, Plan, ScanStep, Step } from '../../steps.js';
import { elementBytes } from '../../steps.js';
import { callExpr, FunctionBuilder, type FunctionReference, type Local } from './builder.js';
import { globalValue, type Kernel, type KernelContext } from './context.js';
import { barrierFunction, PROFILE_AT, PROFILE_STEPS, type ProfileColumn } from './control.js';
import { type Access, Hazards, type Range } from './hazards.js';
import { emitStep } from './kernels.js';
import { copyMemory, fillMemory, loads, stores } from './memory.js';
import { constant, type Expr } from './nodes.js';
import { RoundTurns } from './rounds.js';
import { f64, i32, select } from './scalars.js';
import { expectedMs, tooManyNaps, workOf } from './work.js';

/** A kernel below this, in flops and half bytes, is done whole by every thread: about a microsecond. */
const SPLIT_FROM = 16_000;
/** A stacked output from this size on is copied by all threads. */
const SPLIT_COPY_BYTES = 1 << 16;

export class DriverBuilder {
  /** Steps of the plan, a Scan's own after it. */
  steps = 0;
  private readonly kernels = new Map<Step, Kernel>();
  private readonly barrier: FunctionReference;

  constructor(
    private readonly context: KernelContext,
    private readonly plan: Plan,
    private readonly clock: FunctionReference,
  ) {
    this.barrier = context.shared('barrier', barrierFunction);
    this.emitKernels(plan.steps);
  }

  private emitKernels(steps: readonly Step[]): void {
    for (const step of steps) {
      this.steps++;
      if (step.kind === 'scan') {
        this.emitKernels(step.steps);
        for (const copy of step.carries) this.emitKernel(copy);
      } else this.emitKernel(step);
    }
  }

  private emitKernel(step: KernelStep | CopyStep): void {
    this.kernels.set(step, emitStep(this.context, step, this.plan.weights));
  }

  /** Adds the exported function `name`; profiled, it measures each step and the threads meet after each. */
  add(name: string, profiled: boolean): void {
    const f = new FunctionBuilder(name);
    const driver = new DriverFunction(
      f,
      this.context,
      this.plan,
      this.barrier,
      this.kernels,
      profiled ? this.clock : undefined,
    );
    driver.steps(this.plan.steps, true);
    this.context.module.add(f.finish(), true);
  }
}

/** The statements of one driver function. */
class DriverFunction {
  private readonly hazards = new Hazards();
  private stepIndex = 0;
  private readonly lastMs: Local | undefined;
  private publishes = true;

  constructor(
    private readonly f: FunctionBuilder,
    private readonly context: KernelContext,
    private readonly plan: Plan,
    private readonly barrier: FunctionReference,
    private readonly kernels: ReadonlyMap<Step, Kernel>,
    private readonly clock: FunctionReference | undefined,
  ) {
    this.lastMs = clock && f.let('lastMs', callExpr(clock));
  }

  steps(steps: readonly Step[], isOutermost: boolean): void {
    for (const step of steps) {
      const index = this.stepIndex++;
      if (step.kind === 'scan') this.scan(step, index, isOutermost);
      else this.kernel(step);
      if (step.kind !== 'scan') this.measure(index);
      if (step.kind === 'kernel') this.countPositions(step, index);
    }
  }

  /** Where the threads meet. */
  private meet(): void {
    this.f.call(this.barrier);
    this.hazards.clear();
  }

  private meetIfNeeded(access: Access): void {
    if (this.hazards.needsBarrier(access)) this.f.call(this.barrier);
  }

  private kernel(step: KernelStep | CopyStep): void {
    const kernel = this.kernels.get(step)!;
    if (kernel.units === 0) return;
    const split = isSplit(step, kernel, this.plan);
    const ranges = rangesOf(step);
    this.meetIfNeeded({ ...ranges, split });
    this.share(kernel.code, kernel.units, split);
    const { join } = kernel;
    if (!join) return;
    this.meet();
    const splitJoin = join.units > 1 && join.work >= SPLIT_FROM;
    this.hazards.needsBarrier({ ...ranges, split: splitJoin });
    this.share(join.code, join.units, splitJoin);
  }

  /** Calls a kernel's code for this thread's part of the units, or for all. */
  private share(code: FunctionReference, units: number, split: boolean): void {
    if (!split) {
      this.f.call(code, 0, units);
      return;
    }
    const part = (thread: Expr) => i32.div_u(i32.mul(thread, units), globalValue('threads'));
    const thread = () => globalValue('thread');
    this.f.call(code, part(thread()), part(i32.add(thread(), 1)));
  }

  /** Adds the time since the last step to the profile. */
  private measure(index: number): void {
    if (!this.clock || !this.lastMs) return;
    this.meet();
    const now = this.f.let('now', callExpr(this.clock));
    this.addTime(index, f64.sub(now, this.lastMs));
    this.f.set(this.lastMs, now);
  }

  private addTime(index: number, ms: Expr): void {
    const isFirst = i32.eqz(globalValue('thread'));
    this.f.when(isFirst, () => this.addToProfile('ms', index, ms));
  }

  private addToProfile(column: ProfileColumn, index: number, value: Expr): void {
    if (index >= PROFILE_STEPS) return;
    const offset = PROFILE_AT[column] + index * 8;
    const sum = f64.add(loads.f64(globalValue('control'), offset), value);
    this.f.do(stores.f64(globalValue('control'), sum, offset));
  }

  /** Adds the positions that attention saw: as many of a cache are read, and no shape tells. */
  private countPositions({ node, inputs }: KernelStep, index: number): void {
    if (!this.clock || node.op !== 'CachedAttention') return;
    const { f, context } = this;
    const [batch, capacity] = [node.inputs[0]!.shape[0]!, node.inputs[1]!.shape[2]!];
    const most = Math.min(node.attrs.window ?? capacity, capacity);
    const [start, count] = [inputs[3]!, inputs[4]!].map((place) => context.addresses.place(place));
    const row = f.local('i32', 'row');
    f.when(i32.eqz(globalValue('thread')), () =>
      f.loop(row, 0, batch * 4, 4, () => {
        const all = f.let('all', i32.add(loads.i32(i32.add(start!, row)), loads.i32(i32.add(count!, row))));
        const seen = select(all, most, i32.lt_s(all, most), 'i32');
        this.addToProfile('positions', index, f64.convert_i32_s(seen));
      }),
    );
  }

  // ---------------------------------------------------------------- loops

  private scan(step: ScanStep, index: number, isOutermost: boolean): void {
    const { f } = this;
    const { length } = step.node.attrs;
    const publishes = isOutermost && this.publishes;
    if (publishes) this.publishes = false;
    const started = this.clock && f.let('started', callExpr(this.clock));
    this.meet();
    const round = f.local('i32', 'round');
    const ended = f.local('i32', 'ended');
    const badNaps = tooManyNaps(expectedMs(step.steps, this.plan.graph));
    const turns = publishes ? new RoundTurns(f, round, ended, length, badNaps) : undefined;
    f.set(round, 0);
    f.set(ended, 0);
    if (length > 0) {
      f.repeat(() => {
        this.steps(step.steps, false);
        for (const output of step.outputs) this.stack(output, round);
        if (step.until) {
          this.meetIfNeeded({
            reads: [{ place: step.until, bytes: elementBytes }],
            writes: [],
            split: false,
          });
          f.set(ended, loads.i32(this.context.addresses.place(step.until)));
        }
        for (const carry of step.carries) this.kernel(carry);
        turns?.decide();
        this.meet();
        f.increase(round, 1);
        turns?.follow();
        return i32.and(i32.lt_u(round, length), i32.eqz(ended));
      });
    }
    this.finishScan(step, round);
    this.meet();
    if (this.clock && started && this.lastMs) {
      this.addTime(index, f64.sub(callExpr(this.clock), started));
      f.set(this.lastMs, callExpr(this.clock));
    }
  }

  /** Copies an output of this round to its place in the stack: thread 0 if it is small, else each thread a part. */
  private stack({ from, to, bytes }: ScanStep['outputs'][number], round: Local): void {
    const { f } = this;
    if (bytes === 0) return;
    this.meetIfNeeded({ reads: [{ place: from, bytes }], writes: [], split: true });
    const [source, target] = [this.context.addresses.place(from), this.context.addresses.place(to)];
    const start = f.let('start', i32.add(target, i32.mul(round, bytes)));
    if (bytes < SPLIT_COPY_BYTES) {
      f.when(i32.eqz(globalValue('thread')), () => f.do(copyMemory(start, source, bytes)));
      return;
    }
    const part = i32.div_u(constant('i32', bytes), globalValue('threads'));
    const first = f.let('first', i32.mul(globalValue('thread'), part));
    const isLast = i32.eq(i32.add(globalValue('thread'), 1), globalValue('threads'));
    const count = select(i32.sub(bytes, first), i32.add(part, 0), isLast, 'i32');
    f.do(copyMemory(i32.add(start, first), i32.add(source, first), count));
  }

  /** Writes the number of rounds, and zeros where the stacked outputs were not reached. */
  private finishScan(step: ScanStep, round: Local): void {
    const { f } = this;
    f.when(i32.eqz(globalValue('thread')), () => {
      f.do(stores.i32(this.context.addresses.place(step.taken), round));
      for (const { to, bytes } of step.outputs) {
        const done = f.let('done', i32.mul(round, bytes));
        const all = step.node.attrs.length * bytes;
        f.do(fillMemory(i32.add(this.context.addresses.place(to), done), 0, i32.sub(all, done)));
      }
    });
  }
}

function isSplit(step: KernelStep | CopyStep, { units, isRepeatable }: Kernel, { graph }: Plan): boolean {
  return !isRepeatable || (units > 1 && workOf(step, graph) >= SPLIT_FROM);
}

/** What a step reads and writes. */
function rangesOf(step: KernelStep | CopyStep): { reads: Range[]; writes: Range[] } {
  if (step.kind === 'copy')
    return {
      reads: [{ place: step.from, bytes: step.bytes }],
      writes: [{ place: step.to, bytes: step.bytes }],
    };
  const ranges = (values: readonly { shape: readonly number[] }[], places: readonly Place[]): Range[] =>
    places.map((place, i) => ({ place, bytes: sizeOf(values[i]!.shape) * elementBytes }));
  return { reads: ranges(step.node.inputs, step.inputs), writes: ranges(step.node.outputs, step.outputs) };
}
