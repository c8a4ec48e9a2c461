// lib/pickle/machine.ts: the part of Python's pickle language that describes data, and nothing that runs.
// bytes -> dicts, lists, tuples, strings, numbers, and what the caller makes of the few globals that it allows.
// A pickle is a program for a stack machine; its power lies in naming any Python function and calling it. Here a
// name is looked up in the caller's table, and every other one is refused.
// Source: CPython, Lib/pickletools.py (protocol 2, which torch.save uses, and the parts of 4 that it could).

/** What a global stands for: a function of our own over its arguments, or a mere name. */
export interface PickleGlobal {
  readonly global: string;
  readonly call?: (args: readonly PickleValue[]) => PickleValue;
}

export type PickleValue =
  | null
  | boolean
  | number
  | string
  | PickleValue[]
  | PickleMap
  | PickleGlobal
  | PickleObject;
export type PickleMap = Map<PickleValue, PickleValue>;

/** Anything else that the caller's functions return: the machine only carries it about. */
export interface PickleObject {
  readonly object: string;
}

export interface PickleRules {
  /** By full name, 'collections.OrderedDict'. */
  readonly globals: ReadonlyMap<string, PickleGlobal>;
  /** Makes a value of a persistent id: something that lies outside the pickle. */
  readonly persistent: (id: PickleValue) => PickleValue;
}

/** A thousand tensors take some 40,000 steps. */
const maxSteps = 1_000_000;

/**
 * Runs a pickle.
 * @throws Error that names the global or the instruction that is refused, or says where the program is broken
 */
export function unpickle(bytes: Uint8Array, rules: PickleRules): PickleValue {
  const machine = new Machine(bytes, rules);
  for (let step = 0; step < maxSteps; step++) {
    const at = machine.position;
    const code = machine.byte();
    if (code === STOP) return machine.pop();
    const instruction = instructions.get(code);
    if (instruction) instruction(machine);
    else
      throw new Error(`pickle: instruction 0x${code.toString(16)} at byte ${at} is not one of data, refused`);
  }
  throw new Error(`pickle: expected at most ${maxSteps} steps, found more`);
}

const STOP = 0x2e;

class Machine {
  position = 0;
  readonly stack: PickleValue[] = [];
  readonly marks: number[] = [];
  readonly memo = new Map<number, PickleValue>();
  readonly #view: DataView;

  constructor(
    readonly bytes: Uint8Array,
    readonly rules: PickleRules,
  ) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  byte(): number {
    return this.take(1)[0]!;
  }

  uint16(): number {
    return this.#view.getUint16(this.#advance(2), true);
  }

  int32(): number {
    return this.#view.getInt32(this.#advance(4), true);
  }

  uint32(): number {
    return this.int32() >>> 0;
  }

  uint64(): number {
    return Number(this.#view.getBigUint64(this.#advance(8), true));
  }

  float64(): number {
    return this.#view.getFloat64(this.#advance(8), false);
  }

  take(count: number): Uint8Array {
    const start = this.#advance(count);
    return this.bytes.subarray(start, start + count);
  }

  text(count: number): string {
    return new TextDecoder('utf-8', { fatal: true }).decode(this.take(count));
  }

  line(): string {
    const end = this.bytes.indexOf(10, this.position);
    if (end < 0) throw this.broken('a line that does not end');
    const text = this.text(end - this.position);
    this.position++;
    return text;
  }

  /** A two's complement number of up to 8 bytes. */
  long(count: number): number {
    if (count > 8) throw this.broken(`a number of ${count} bytes`);
    const value = this.take(count).reduceRight((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
    const number = Number(BigInt.asIntN(8 * count, value));
    if (!Number.isSafeInteger(number)) throw this.broken(`the number ${number}, beyond 2^53`);
    return number;
  }

  push(value: PickleValue): void {
    this.stack.push(value);
  }

  pop(): PickleValue {
    const value = this.stack.length > (this.marks.at(-1) ?? 0) ? this.stack.pop() : undefined;
    if (value === undefined) throw this.broken('an empty stack');
    return value;
  }

  top(): PickleValue {
    const value = this.pop();
    this.push(value);
    return value;
  }

  /** The values since the last mark. */
  popMark(): PickleValue[] {
    const mark = this.marks.pop();
    if (mark === undefined) throw this.broken('a mark too few');
    return this.stack.splice(mark);
  }

  recall(index: number): void {
    const value = this.memo.get(index);
    if (value === undefined) throw this.broken(`memo ${index}, which was never set`);
    this.push(value);
  }

  pushGlobal(module: PickleValue, name: PickleValue): void {
    const full = `${module}.${name}`;
    const global = this.rules.globals.get(full);
    if (!global)
      throw new Error(`pickle: refuses global ${JSON.stringify(full)}: only tensors and plain data are read`);
    this.push(global);
  }

  reduce(): void {
    const args = this.pop();
    const callee = this.pop();
    const isGlobal = typeof callee === 'object' && callee !== null && 'global' in callee;
    if (!isGlobal || !callee.call || !Array.isArray(args))
      throw this.broken('a call of something that is no function');
    this.push(callee.call(args));
  }

  setItems(items: readonly PickleValue[]): void {
    const map = this.top();
    if (!(map instanceof Map) || items.length % 2 !== 0)
      throw this.broken('items for something that is no dict');
    for (let i = 0; i < items.length; i += 2) {
      const key = items[i]!;
      if (typeof key === 'object' && key !== null) throw this.broken('a key that is no string or number');
      map.set(key, items[i + 1]!);
    }
  }

  append(items: readonly PickleValue[]): void {
    const list = this.top();
    if (!Array.isArray(list)) throw this.broken('items for something that is no list');
    for (const item of items) list.push(item);
  }

  broken(what: string): Error {
    return new Error(`pickle: expected data, found ${what} before byte ${this.position}`);
  }

  #advance(count: number): number {
    const start = this.position;
    if (!(count <= this.bytes.length - start)) throw this.broken('its end');
    this.position += count;
    return start;
  }
}

type Instruction = (machine: Machine) => void;

const table: readonly [code: string | number, instruction: Instruction][] = [
  [0x80, checkProtocol],
  [0x95, (m) => void m.take(8)], // a frame's length: nothing depends on it
  ['(', (m) => void m.marks.push(m.stack.length)],
  ['0', (m) => void m.pop()],
  ['1', (m) => void m.popMark()],
  [']', (m) => m.push([])],
  [')', (m) => m.push([])],
  ['}', (m) => m.push(new Map())],
  ['l', (m) => m.push(m.popMark())],
  ['t', (m) => m.push(m.popMark())],
  [0x85, (m) => m.push([m.pop()])],
  [0x86, (m) => m.push([m.pop(), m.pop()].reverse())],
  [0x87, (m) => m.push([m.pop(), m.pop(), m.pop()].reverse())],
  ['a', (m) => m.append([m.pop()])],
  ['e', (m) => m.append(m.popMark())],
  ['s', (m) => m.setItems([m.pop(), m.pop()].reverse())],
  ['u', (m) => m.setItems(m.popMark())],
  ['K', (m) => m.push(m.byte())],
  ['M', (m) => m.push(m.uint16())],
  ['J', (m) => m.push(m.int32())],
  ['G', (m) => m.push(m.float64())],
  [0x8a, (m) => m.push(m.long(m.byte()))],
  [0x8b, (m) => m.push(m.long(m.uint32()))],
  ['X', (m) => m.push(m.text(m.uint32()))],
  [0x8c, (m) => m.push(m.text(m.byte()))],
  [0x8d, (m) => m.push(m.text(m.uint64()))],
  ['T', (m) => m.push(m.text(m.uint32()))],
  ['U', (m) => m.push(m.text(m.byte()))],
  ['q', (m) => void m.memo.set(m.byte(), m.top())],
  ['r', (m) => void m.memo.set(m.uint32(), m.top())],
  [0x94, (m) => void m.memo.set(m.memo.size, m.top())],
  ['h', (m) => m.recall(m.byte())],
  ['j', (m) => m.recall(m.uint32())],
  ['c', (m) => m.pushGlobal(m.line(), m.line())],
  [0x93, pushStackGlobal],
  ['R', (m) => m.reduce()],
  ['Q', (m) => m.push(m.rules.persistent(m.pop()))],
  ['b', setState],
  ['N', (m) => m.push(null)],
  [0x88, (m) => m.push(true)],
  [0x89, (m) => m.push(false)],
  ['i', refuseInstance],
];

const instructions: ReadonlyMap<number, Instruction> = new Map(
  table.map(([code, instruction]) => [typeof code === 'string' ? code.charCodeAt(0) : code, instruction]),
);

function checkProtocol(machine: Machine): void {
  const protocol = machine.byte();
  if (protocol > 5) throw new Error(`pickle: expected protocol 0 to 5, found ${protocol}`);
}

function pushStackGlobal(machine: Machine): void {
  const name = machine.pop();
  machine.pushGlobal(machine.pop(), name);
}

/** The attributes of a dict, such as a state dict's _metadata, hold no parameters; on anything else they are refused. */
function setState(machine: Machine): void {
  machine.pop();
  if (!(machine.top() instanceof Map)) throw machine.broken('attributes of something that is no dict');
}

/** An instance of a class, as protocol 0 makes them: named, so that the message says what was asked for. */
function refuseInstance(machine: Machine): void {
  machine.pushGlobal(machine.line(), machine.line());
  throw machine.broken('an instance');
}
