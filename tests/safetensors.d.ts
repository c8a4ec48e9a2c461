declare module 'safetensors' {
  /** The independent reader: takes a whole file, checks nothing, and cannot read one with `__metadata__`. */
  export class SafeTensor {
    constructor(file: Uint8Array);
    readonly metadata: Map<string, { dtype: string; shape: number[]; data_offsets: [number, number] }>;
    getTensor(name: string): Uint8Array;
  }
}
