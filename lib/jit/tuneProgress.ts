// lib/jit/tuneProgress.ts: who is told how far a target is that times kernels on the user's device, once a device: some
// seconds in which nothing else can be seen. Loads nothing, so that a command can listen before anything is compiled.

/** @param done of `total`; equal when it is over, however it ended */
export type TuneListener = (done: number, total: number) => void;

let listener: TuneListener = () => {};

/** From now on this one is told, in place of who was before. */
export function onTuning(next: TuneListener): void {
  listener = next;
}

/** For targets. */
export function tellTuning(done: number, total: number): void {
  listener(done, total);
}
