// lib/jit/variables.ts: keeps tf.Variables as they are while a function is traced. Assigning a traced tensor would leave
// the caller's variable without values once the trace has ended.

import * as tf from '@tensorflow/tfjs-core';
import { callSite } from './callSite.js';

/** From now on Variable.assign throws, with the line that called it. @returns what ends that */
export function refuseAssign(): () => void {
  const { prototype } = tf.Variable;
  const { assign } = prototype;
  prototype.assign = function (this: tf.Variable): never {
    const { source } = callSite();
    throw new Error(
      `jit: the variable ${this.name} was assigned at ${source ?? 'an unknown line'}: compiled code keeps no state. ` +
        'Return the new value, and assign it when the call has ended',
    );
  };
  return () => {
    prototype.assign = assign;
  };
}
