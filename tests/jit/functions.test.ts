// Functions as a reader may write them, with all passes on, against eager tfjs.
import * as tf from '@tensorflow/tfjs-core';
import { describe, expect, test } from 'vitest';
import { jit, scan } from '../../lib/jit/jit.js';
import { GREEDY, randomKey, type Sampling, sampleToken } from '../../lib/sample.js';
import { agrees, integers, numbers, defaultTarget as target } from './agree.js';

type Tree = { [name: string]: tf.Tensor };

describe('perceptrons', () => {
  test('two layers with parameters in a tree', async () => {
    const params = {
      w1: numbers([6, 16]),
      b1: numbers([16], 2),
      w2: numbers([16, 3], 3),
      b2: numbers([3], 4),
    };
    const mlp = (p: Tree, x: tf.Tensor) =>
      tf.softmax(tf.add(tf.matMul(tf.relu(tf.add(tf.matMul(x, p.w1!), p.b1!)), p.w2!), p.b2!));
    await agrees(mlp, [params, numbers([5, 6])]);
    await agrees(mlp, [params, numbers([1, 6])]);
  });

  test('a loss: cross-entropy, mean squared error, accuracy', async () => {
    const losses = (logits: tf.Tensor, labels: tf.Tensor) => {
      const target = tf.oneHot(labels, 4);
      return {
        crossEntropy: tf.losses.softmaxCrossEntropy(target, logits),
        squared: tf.losses.meanSquaredError(target, tf.softmax(logits)),
        accuracy: tf.mean(tf.cast(tf.equal(tf.argMax(logits, -1), labels), 'float32')),
      };
    };
    await agrees(losses, [numbers([6, 4]), integers([6], 4)]);
  });

  test('highway and gated units', async () => {
    const [a, b] = [numbers([8, 8]), numbers([8, 8], 2)];
    const highway = (x: tf.Tensor) => {
      const gate = tf.sigmoid(tf.matMul(x, a));
      return tf.add(tf.mul(gate, tf.elu(tf.matMul(x, b))), tf.mul(tf.sub(1, gate), x));
    };
    await agrees(highway, [numbers([3, 8])]);
  });
});

describe('recurrent cells under scan', () => {
  test('a GRU over a sequence, reading its input by a counter', async () => {
    const [w, u] = [numbers([3, 12]), numbers([4, 12], 2)];
    const gru = (xs: tf.Tensor, h0: tf.Tensor) =>
      scan(
        ({ t, h }) => {
          const x = tf.gather(xs, t); // [batch, 3]
          const [rx, zx, nx] = tf.split(tf.matMul(x, w), 3, 1) as tf.Tensor[];
          const [rh, zh, nh] = tf.split(tf.matMul(h, u), 3, 1) as tf.Tensor[];
          const reset = tf.sigmoid(tf.add(rx!, rh!));
          const update = tf.sigmoid(tf.add(zx!, zh!));
          const fresh = tf.tanh(tf.add(nx!, tf.mul(reset, nh!)));
          const next = tf.add(tf.mul(update, h), tf.mul(tf.sub(1, update), fresh));
          return { carry: { t: tf.add(t, tf.scalar(1, 'int32')), h: next }, output: next };
        },
        { t: tf.scalar(0, 'int32') as tf.Tensor, h: h0 },
        5,
      );
    await agrees(gru, [numbers([5, 2, 3]), tf.zeros([2, 4])]);
  });

  test("tfjs's own LSTM cell", async () => {
    const kernel = numbers([5, 8]) as tf.Tensor2D;
    const bias = numbers([8], 2) as tf.Tensor1D;
    const lstm = (x: tf.Tensor, state: { c: tf.Tensor; h: tf.Tensor }) =>
      scan(
        ({ c, h }) => {
          const next = tf.basicLSTMCell(
            tf.scalar(1),
            kernel,
            bias,
            x as tf.Tensor2D,
            c as tf.Tensor2D,
            h as tf.Tensor2D,
          );
          return { carry: { c: next[0] as tf.Tensor, h: next[1] as tf.Tensor }, output: next[1] };
        },
        state,
        4,
      );
    await agrees(lstm, [numbers([2, 3]), { c: tf.zeros([2, 2]), h: tf.zeros([2, 2]) }]);
  });

  test('a running mean and variance', async () => {
    const welford = (xs: tf.Tensor) =>
      scan(
        ({ i, mean, m2 }) => {
          const x = tf.gather(xs, i);
          const next = tf.add(i, tf.scalar(1, 'int32'));
          const delta = tf.sub(x, mean);
          const newMean = tf.add(mean, tf.div(delta, tf.cast(next, 'float32')));
          return { carry: { i: next, mean: newMean, m2: tf.add(m2, tf.mul(delta, tf.sub(x, newMean))) } };
        },
        {
          i: tf.scalar(0, 'int32') as tf.Tensor,
          mean: tf.scalar(0) as tf.Tensor,
          m2: tf.scalar(0) as tf.Tensor,
        },
        7,
      ).carry;
    await agrees(welford, [numbers([7])]);
  });
});

describe('vision without convolution', () => {
  const patches = (image: tf.Tensor, size: number): tf.Tensor => {
    const [height, width, channels] = image.shape as [number, number, number];
    const grid = tf.reshape(image, [height / size, size, width / size, size, channels]);
    return tf.reshape(tf.transpose(grid, [0, 2, 1, 3, 4]), [-1, size * size * channels]);
  };

  test('a vision transformer block on patches', async () => {
    const p: Tree = {
      embed: numbers([12, 8]),
      qkv: numbers([8, 24], 2),
      out: numbers([8, 8], 3),
      up: numbers([8, 16], 4),
      down: numbers([16, 8], 5),
    };
    const norm = (x: tf.Tensor) => {
      const { mean, variance } = tf.moments(x, -1, true);
      return tf.div(tf.sub(x, mean), tf.sqrt(tf.add(variance, 1e-6)));
    };
    const block = (image: tf.Tensor) => {
      const x = tf.matMul(patches(image, 2), p.embed!); // [4, 8]
      const [q, k, v] = tf
        .split(tf.matMul(norm(x), p.qkv!), 3, 1)
        .map((part) => tf.transpose(tf.reshape(part, [4, 2, 4]), [1, 0, 2])) as [
        tf.Tensor,
        tf.Tensor,
        tf.Tensor,
      ];
      const weights = tf.softmax(tf.div(tf.matMul(q, k, false, true), 2));
      const mixed = tf.reshape(tf.transpose(tf.matMul(weights, v), [1, 0, 2]), [4, 8]);
      const attended = tf.add(x, tf.matMul(mixed, p.out!));
      const h = tf.matMul(norm(attended), p.up!);
      const gelu = tf.mul(tf.mul(h, 0.5), tf.add(tf.erf(tf.mul(h, Math.SQRT1_2)), 1));
      return tf.add(attended, tf.matMul(gelu, p.down!));
    };
    await agrees(block, [numbers([4, 4, 3])]);
  });

  test('a mixer: tokens, then channels; average over blocks', async () => {
    const [tokens, channels] = [numbers([4, 4]), numbers([12, 12], 2)];
    const mixer = (image: tf.Tensor) => {
      const x = patches(image, 2);
      const mixed = tf.add(x, tf.transpose(tf.matMul(tf.transpose(x), tokens)));
      return {
        out: tf.relu(tf.matMul(mixed, channels)),
        pooled: tf.mean(tf.reshape(image, [2, 2, 2, 2, 3]), [1, 3]),
      };
    };
    await agrees(mixer, [numbers([4, 4, 3])]);
  });

  test('flips, crops and normalization of a batch of images', async () => {
    await agrees(
      (images: tf.Tensor) => {
        const scaled = tf.div(tf.sub(images, tf.tensor1d([0.4, 0.5, 0.6])), tf.tensor1d([0.2, 0.3, 0.4]));
        const flipped = tf.reverse(scaled, 2);
        return tf.slice(tf.pad(flipped, [[0, 0], [1, 1], [1, 1], [0, 0]]), [0, 1, 0, 0], [-1, 4, 4, -1]); // biome-ignore format: one axis each
      },
      [numbers([2, 4, 4, 3])],
    );
  });

  test('pooling and resizing', async () => {
    await agrees(
      (x: tf.Tensor) => [
        tf.maxPool(x as tf.Tensor4D, 2, 2, 'same'),
        tf.avgPool(x as tf.Tensor4D, [3, 2], 1, 'same'),
        tf.avgPool(x as tf.Tensor4D, 2, 2, 'valid'),
        tf.image.resizeNearestNeighbor(x as tf.Tensor4D, [3, 8]),
        tf.image.resizeBilinear(x as tf.Tensor4D, [7, 3]),
        tf.image.resizeBilinear(x as tf.Tensor4D, [7, 3], true),
        tf.image.flipLeftRight(x as tf.Tensor4D),
      ],
      [numbers([1, 5, 4, 2])],
    );
  });
});

describe('samplers', () => {
  const key = randomKey(42);
  const settings: Record<string, Sampling> = {
    greedy: GREEDY,
    temperature: { temperature: 0.7, topK: null, topP: null, seed: 42 },
    'top-k': { temperature: 1.3, topK: 5, topP: null, seed: 42 },
    'top-p': { temperature: 1, topK: null, topP: 0.8, seed: 42 },
    all: { temperature: 0.9, topK: 12, topP: 0.9, seed: 42 },
  };
  test.each(Object.entries(settings))(
    '%s: the same tokens as eager for the same seed',
    async (_, sampling) => {
      const draw = (logits: tf.Tensor) =>
        scan(
          ({ position }) => {
            const next = tf.add(position, tf.tensor1d([1, 1], 'int32')) as tf.Tensor1D;
            return {
              carry: { position: next },
              output: tf.cast(sampleToken(logits as tf.Tensor2D, sampling, key, next), 'int32'),
            };
          },
          { position: tf.tensor1d([3, 900], 'int32') },
          20,
        ).outputs;
      await agrees(draw, [numbers([2, 40])]);
    },
  );
});

describe('algorithms', () => {
  test('k-means', async () => {
    const step = (points: tf.Tensor, centres: tf.Tensor) => {
      const distance = tf.sum(tf.square(tf.sub(tf.expandDims(points, 1), tf.expandDims(centres, 0))), 2);
      const owner = tf.oneHot(tf.argMin(distance, 1), 3);
      const count = tf.maximum(tf.sum(owner, 0), 1);
      return tf.div(tf.matMul(tf.cast(owner, 'float32'), points, true), tf.reshape(count, [3, 1]));
    };
    await agrees(
      (points: tf.Tensor, centres: tf.Tensor) => scan((c) => ({ carry: step(points, c) }), centres, 5).carry,
      [numbers([20, 2]), numbers([3, 2], 2)],
    );
  });

  test('power iteration, Newton, Game of Life', async () => {
    await agrees(
      (m: tf.Tensor, v: tf.Tensor) =>
        scan(
          (x) => {
            const y = tf.matMul(m, x);
            return { carry: tf.div(y, tf.norm(y)), output: tf.norm(y) };
          },
          v,
          8,
        ),
      [tf.matMul(numbers([4, 4]), numbers([4, 4]), false, true), tf.ones([4, 1])],
    );
    await agrees(
      (x: tf.Tensor) => scan((r) => ({ carry: tf.mul(tf.add(r, tf.div(x, r)), 0.5) }), x, 20).carry,
      [tf.tensor1d([2, 9, 100])],
    );
    const life = (cells: tf.Tensor) => {
      const roll = (x: tf.Tensor, shift: number, axis: number) => {
        const size = x.shape[axis]!;
        const [a, b] = tf.split(x, [size - shift, shift], axis) as [tf.Tensor, tf.Tensor];
        return tf.concat([b, a], axis);
      };
      const rows = tf.addN([roll(cells, 1, 0), cells, roll(cells, 5, 0)]);
      const around = tf.addN([roll(rows, 1, 1), rows, roll(rows, 5, 1)]);
      const three = tf.equal(around, tf.scalar(3, 'int32'));
      const four = tf.logicalAnd(tf.equal(around, tf.scalar(4, 'int32')), tf.cast(cells, 'bool'));
      return tf.cast(tf.logicalOr(three, four), 'int32');
    };
    await agrees(
      (cells: tf.Tensor) => scan((c) => ({ carry: life(c), output: tf.sum(c) }), cells, 6),
      [integers([6, 6], 2)],
    );
  });

  test('beams: top-k over sequences, gathered by parent', async () => {
    const step = (scores: tf.Tensor, logits: tf.Tensor) => {
      const all = tf.add(tf.expandDims(scores, 1), tf.logSoftmax(logits)); // [beams, vocab]
      const { values, indices } = tf.topk(tf.reshape(all, [-1]), 3);
      const parent = tf.floorDiv(indices, tf.scalar(7, 'int32'));
      return { values, token: tf.mod(indices, tf.scalar(7, 'int32')), history: tf.gather(logits, parent) };
    };
    await agrees(step, [numbers([3]), numbers([3, 7], 2)]);
  });

  test('a causal mask by bandPart, positions by sine and cosine', async () => {
    await agrees(
      (q: tf.Tensor) => {
        const causal = tf.linalg.bandPart(tf.ones([5, 5]), -1, 0);
        const scores = tf.where(tf.greater(causal, 0), tf.matMul(q, q, false, true), tf.fill([5, 5], -1e9));
        const angles = tf.mul(tf.reshape(tf.range(0, 5), [5, 1]), tf.exp(tf.mul(tf.range(0, 4), -0.7)));
        return tf.add(tf.matMul(tf.softmax(scores), q), tf.concat([tf.sin(angles), tf.cos(angles)], 1));
      },
      [numbers([5, 8])],
    );
  });
});

describe('odd results', () => {
  test('nothing, plain values, the arguments themselves', async () => {
    expect(await jit(() => undefined, { target })()).toBeUndefined();
    expect(
      await jit((x: tf.Tensor) => ({ shape: x.shape, size: x.size }), { target })(tf.ones([2, 3])),
    ).toEqual({ shape: [2, 3], size: 6 });
    const x = tf.ones([2]);
    const [a, b] = await jit((t: tf.Tensor) => [t, t], { target })(x);
    x.dispose();
    a!.dispose();
    expect(Array.from(await b!.data())).toEqual([1, 1]);
  });
  test('constants alone', async () => {
    await agrees(() => [tf.scalar(3), tf.range(0, 4), tf.zeros([2, 2])], []);
  });
});

describe('odd shapes and types', () => {
  test.each([[[1]], [[7]], [[1, 1, 1]], [[3, 1, 5]], [[17]], [[2, 3, 4, 5]], [[1, 31]], [[0]], [[2, 0, 3]]])(
    'a chain over %j',
    async (shape) => {
      const chain = (x: tf.Tensor, y: tf.Tensor) => {
        const z = tf.tanh(tf.sub(tf.mul(x, y), 0.5));
        return {
          z,
          sum: tf.sum(z),
          flags: tf.greater(z, 0),
          whole: tf.cast(tf.round(tf.mul(z, 4)), 'int32'),
          mean: tf.sum(z, -1),
        };
      };
      await agrees(chain, [numbers(shape), numbers(shape, 2)]);
    },
  );

  test('integers and flags all the way', async () => {
    await agrees(
      (a: tf.Tensor, b: tf.Tensor) => {
        const both = tf.logicalAnd(tf.greater(a, b), tf.notEqual(b, 0));
        return {
          both,
          any: tf.any(both),
          count: tf.sum(tf.cast(both, 'int32')),
          chosen: tf.where(both, a, b),
          product: tf.prod(tf.add(tf.abs(a), tf.scalar(1, 'int32'))),
        };
      },
      [integers([3, 4]), integers([4])],
    );
  });

  test('eight axes', async () => {
    await agrees(
      (x: tf.Tensor) => tf.sum(tf.transpose(x, [5, 4, 3, 2, 1, 0]), [1, 3]),
      [numbers([1, 2, 3, 1, 2, 2])],
    );
  });
});

test('a compiled function´s result feeds another one, and itself', async () => {
  const double = jit((x: tf.Tensor) => tf.mul(x, 2), { target });
  const shift = jit((x: tf.Tensor) => tf.add(x, 1), { target });
  let x: tf.Tensor = tf.tensor1d([1, 2, 3]);
  for (let i = 0; i < 3; i++) x = await shift(await double(x));
  expect(Array.from(await x.data())).toEqual([15, 23, 31]);
});
