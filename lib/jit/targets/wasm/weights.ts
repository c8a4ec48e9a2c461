// lib/jit/targets/wasm/weights.ts: Weights in the target's memory, in the forms that programs read them in.

import { float32Values, floatWeight, sizeOf, type Weight } from '../../../tensor.js';
import { formatOf, type WeightFormat } from '../../graph.js';
import type { BoundWeight, WeightUse } from '../../target.js';
import type { WeightForm } from './context.js';
import type { Heap } from './heap.js';
import { layoutOf, pack } from './pack.js';
import { unpack } from './unpack.js';

/** A Weight bound to the wasm target: where each of its forms lies. Almost every Weight has one. */
export interface WasmWeight extends BoundWeight {
  readonly heap: Heap;
  readonly path: string;
  readonly format: WeightFormat;
  readonly addresses: Map<WeightForm, number>;
}

/** Copies a Weight into memory in the form that its use asks for: matrices in panels, the rest whole. */
export function bindWeight(heap: Heap, weight: Weight, { path, outputAxis }: WeightUse): WasmWeight {
  const format = formatOf(weight);
  const form: WeightForm = weight.shape.length !== 2 ? 'whole' : outputAxis === 1 ? 'straight' : 'transposed';
  const { address, bytes } = writeForm(heap, weight, form, path);
  return { heap, path, format, bytes, addresses: new Map([[form, address]]) };
}

export function unbindWeight({ heap, addresses }: WasmWeight): void {
  for (const address of addresses.values()) heap.release(address);
  addresses.clear();
}

/** Address of one form of a bound Weight, made from another one if it is not there yet. */
export function weightAddress(bound: WasmWeight, form: WeightForm): number {
  const known = bound.addresses.get(form);
  if (known !== undefined) return known;
  const { address } = writeForm(bound.heap, readBack(bound, form), form, bound.path, bound.format);
  bound.addresses.set(form, address);
  return address;
}

function writeForm(
  heap: Heap,
  weight: Weight,
  form: WeightForm,
  path: string,
  format: WeightFormat = formatOf(weight),
): { readonly address: number; readonly bytes: number } {
  if (form === 'whole') {
    const values = float32Values(weight);
    const address = heap.allocate(values.byteLength, path);
    heap.float32(address, values.length).set(values);
    return { address, bytes: values.byteLength };
  }
  const layout = layoutOf(format, form === 'transposed');
  const address = heap.allocate(layout.bytes, path);
  pack(weight, form === 'transposed', layout, heap.uint8(address, layout.bytes));
  return { address, bytes: layout.bytes };
}

/** The Weight again, from a form that is there, in the type that packing `wanted` asks for. */
function readBack({ heap, format, addresses, path }: WasmWeight, wanted: WeightForm): Weight {
  const [form, address] = [...addresses][0] ?? [];
  if (form === undefined || address === undefined) throw new Error(`${path}: the weight was unbound`);
  const { shape } = format;
  if (form === 'whole') return floatWeight(heap.float32(address, sizeOf(shape)).slice(), shape);
  const layout = layoutOf(format, form === 'transposed');
  const values = unpack(heap.uint8(address, layout.bytes), layout, form === 'transposed');
  const kind = wanted === 'whole' ? 'f32' : layoutOf(format, wanted === 'transposed').kind;
  if (kind === 'bf16') {
    const words = Uint16Array.from(new Uint32Array(values.buffer), (bits) => bits >>> 16);
    return { kind: 'float', dtype: 'bf16', shape, bytes: new Uint8Array(words.buffer) };
  }
  if (kind === 'int8') {
    // Only one scale for all survives a change of the output axis; others are read as float32 then.
    const [scale = 1] = heap.float32(address, 1);
    const bytes = Int8Array.from(values, (value) => (scale === 0 ? 0 : Math.round(value / scale)));
    return { kind: 'int8', shape, bytes, scales: Float32Array.of(scale), granularity: { per: 'tensor' } };
  }
  return floatWeight(values, shape);
}
