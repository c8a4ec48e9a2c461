// lib/jit/explain.ts: a compiled program -> what its kernels do and how long they took: a table to read, and a trace
// file for Perfetto (Chrome's trace event format).

import { costOf } from './cost.js';
import type { StructuredNode } from './graph.js';
import { bracket } from './infer.js';
import type { Program } from './program.js';
import { elementBytes, type Step, valueBytes } from './steps.js';

export interface ExplainOptions {
  /** Memory bandwidth of this machine, to take shares of; default: what the last `profile` measured of reading. */
  readonly bandwidthGBps?: number;
}

export interface KernelReport {
  /** Place in the plan; kernels of a loop follow it, indented by `depth`. */
  readonly step: number;
  readonly depth: number;
  readonly op: string;
  readonly shapes: string;
  /** What was fused into it, such as 'Mul, Sigmoid'. */
  readonly fused: string;
  readonly flops: number;
  readonly bytes: number;
  /** Null before a profiled run. For a loop's kernels: all rounds together. */
  readonly ms: number | null;
  /** Null before a profiled run, and of loops. */
  readonly bandwidthGBps: number | null;
  readonly bandwidthShare: number | null;
}

export interface Explanation {
  readonly kernels: readonly KernelReport[];
  /** Null before a profiled run, and where the target cannot measure it. */
  readonly bandwidthGBps: number | null;
  /** The same as a table. */
  readonly text: string;
}

/** Chrome's trace event format: complete events in microseconds. */
export interface TraceFile {
  readonly displayTimeUnit: 'ms';
  readonly traceEvents: readonly {
    readonly name: string;
    readonly ph: 'X';
    readonly ts: number;
    readonly dur: number;
    readonly pid: number;
    readonly tid: number;
    readonly args: Readonly<Record<string, string | number>>;
  }[];
}

interface PlacedStep {
  readonly step: Step;
  readonly depth: number;
  /** How often it runs in a run of the program, at most. */
  readonly rounds: number;
}

/** Steps depth first, as targets count them in RunReport.stepMs. */
function placedSteps(steps: readonly Step[], depth = 0, rounds = 1): PlacedStep[] {
  return steps.flatMap((step): PlacedStep[] => {
    const own = { step, depth, rounds };
    if (step.kind !== 'scan') return [own];
    return [own, ...placedSteps(step.steps, depth + 1, rounds * step.node.attrs.length)];
  });
}

/** Lists a program's kernels. */
export function explainProgram(program: Program, options: ExplainOptions = {}): Explanation {
  const bandwidthGBps = options.bandwidthGBps ?? program.readGBps;
  const { stepMs, stepPositions } = program.lastRun ?? {};
  const kernels = placedSteps(program.plan.steps).map(({ step, depth, rounds }, i): KernelReport => {
    const { op, shapes, fused, flops, bytes } = describe(step, program);
    const ms = stepMs?.[i] ?? null;
    const isLoop = step.kind === 'scan';
    const positions = stepPositions?.[i];
    const isRead = positions && step.kind === 'kernel';
    const moved = isRead ? cacheReadBytes(step.node, positions, rounds) : isLoop ? bytes : bytes * rounds;
    const isKnown = !isLoop && (op !== 'CachedAttention' || isRead);
    const achieved = ms === null || ms === 0 || !isKnown ? null : moved / 1e6 / ms;
    return {
      ...{ step: i, depth, op, shapes, fused, ms },
      flops: isLoop ? flops : flops * rounds,
      bytes: moved,
      bandwidthGBps: achieved,
      bandwidthShare: achieved === null || bandwidthGBps === null ? null : achieved / bandwidthGBps,
    };
  });
  return { kernels, bandwidthGBps, text: table(kernels, bandwidthGBps) };
}

/** Of a cache only what is full is read. @param positions that all rounds saw together */
function cacheReadBytes(node: StructuredNode, positions: number, rounds: number): number {
  const [q, keys] = node.inputs;
  const [, kvHeads, , headDim] = keys!.shape as [number, number, number, number];
  return positions * 2 * kvHeads * headDim * elementBytes + 2 * valueBytes(q!) * rounds;
}

function describe(
  step: Step,
  program: Program,
): Pick<KernelReport, 'op' | 'shapes' | 'fused' | 'flops' | 'bytes'> {
  if (step.kind === 'copy') return { op: 'copy', shapes: '', fused: '', flops: 0, bytes: 2 * step.bytes };
  const node: StructuredNode = step.node;
  const shapes = node.outputs.map(({ dtype, shape }) => `${dtype}${bracket(shape)}`).join(' ');
  return { op: node.op, shapes, fused: fusedOps(node), ...costOf(node, program.graph) };
}

function fusedOps(node: StructuredNode): string {
  const programs =
    node.op === 'Elementwise'
      ? [node.attrs.program]
      : node.op === 'BatchMatMul'
        ? [node.attrs.epilogue.program]
        : node.op === 'Linear'
          ? node.attrs.epilogues.map((epilogue) => epilogue.program)
          : [];
  const ops = programs.map((program) =>
    program.flatMap((each) => ('args' in each ? [each.op] : [])).join(' '),
  );
  return ops.filter((text) => text !== '').join(' | ');
}

const longestCell = 48;

function clipped(text: string): string {
  return text.length > longestCell ? `${text.slice(0, longestCell - 3)}...` : text;
}

function table(kernels: readonly KernelReport[], bandwidthGBps: number | null): string {
  const header = ['kernel', 'output', 'MFLOP', 'MB', 'ms', 'GB/s', 'share', 'fused'];
  const rows = kernels.map((kernel) => [
    '  '.repeat(kernel.depth) + kernel.op,
    clipped(kernel.shapes),
    (kernel.flops / 1e6).toFixed(3),
    (kernel.bytes / 1e6).toFixed(3),
    kernel.ms?.toFixed(3) ?? '-',
    kernel.bandwidthGBps?.toFixed(1) ?? '-',
    kernel.bandwidthShare === null ? '-' : `${(100 * kernel.bandwidthShare).toFixed(0)} %`,
    clipped(kernel.fused),
  ]);
  const widths = header.map((_, i) => Math.max(...[header, ...rows].map((row) => row[i]!.length)));
  const isNumber = (i: number): boolean => i >= 2 && i <= 6;
  const lines = [header, ...rows].map((row) =>
    row
      .map((cell, i) => (isNumber(i) ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!)))
      .join('  ')
      .trimEnd(),
  );
  const share = bandwidthGBps === null ? [] : [`share: of ${bandwidthGBps.toFixed(1)} GB/s memory bandwidth`];
  return [...lines, ...share].join('\n');
}

/** The newest profiled run as a trace: kernels one after another, a loop's kernels inside it. */
export function traceFile(program: Program): TraceFile {
  const stepMs = program.lastRun?.stepMs;
  if (!stepMs) throw new Error('profile: the last run was not profiled');
  const placed = placedSteps(program.plan.steps);
  const durations = placed.map((_, i) => stepMs[i]! * 1000);
  const starts: number[] = [];
  const ends: number[] = [0]; // by depth: where the next kernel of that depth begins
  for (const [i, { depth }] of placed.entries()) {
    const start = ends[depth]!;
    starts.push(start);
    ends[depth] = start + durations[i]!;
    ends.length = depth + 1;
    ends.push(start);
  }
  const traceEvents = placed.map(({ step, rounds }, i) => {
    const { op, shapes, fused, flops, bytes } = describe(step, program);
    return {
      name: fused === '' ? op : `${op} (${fused})`,
      ph: 'X' as const,
      ts: starts[i]!,
      dur: durations[i]!,
      pid: 1,
      tid: 1,
      args: { shapes, flops, bytes, rounds },
    };
  });
  return { displayTimeUnit: 'ms', traceEvents };
}
