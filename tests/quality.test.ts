import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  compareLogits,
  exactMatch,
  perplexity,
  rouge,
  rougeWords,
  summarizeDivergence,
  textQuality,
  tokenLogProbabilities,
  topToken,
} from '../lib/quality.js';

/** What Python computed: reference/golden_quality.py. */
function golden<Table>(name: string): Table {
  return JSON.parse(readFileSync(new URL(`golden/${name}.json`, import.meta.url), 'utf8'));
}

describe('ROUGE', () => {
  // [text, reference, rouge1, rouge2, rougeL] of rouge_score 0.1.2, RougeScorer(use_stemmer=False), F-measures.
  test.each<[string, string, number, number, number]>([
    ['', '', 0, 0, 0],
    ['a', '', 0, 0, 0],
    [' ', 'x', 0, 0, 0],
    ['日本', '日本', 0, 0, 0],
    ['one', 'one', 1, 0, 1],
    ['one two', 'one', 0.6666666666666666, 0, 0.6666666666666666],
    // Two sentences in another order: a summary-level score would be 1.
    ['The cat sat. The cat ran.', 'the cat ran. the cat sat.', 1, 0.8, 0.6666666666666666],
    [
      'U.S.A.',
      "日本 Dog's a emoji😀 sat line İstanbul U.S.A. the emoji😀 3.14",
      0.33333333333333337,
      0.25,
      0.33333333333333337,
    ],
    [
      'cat cat K on Å x_y sat naïve İstanbul sat 3.14 İstanbul the',
      'Å naïve ... -- K x_y café',
      0.4347826086956522,
      0.19047619047619047,
      0.2608695652173913,
    ],
    [
      'on a mat naïve x_y the world! hello, x_y --',
      "hello, café world! İstanbul café naïve Dog's a end",
      0.4166666666666667,
      0.09090909090909091,
      0.16666666666666666,
    ],
    [
      'naïve K',
      "don't\nnew the cat mat the mat 3.14 naïve don't\nnew cat 3.14",
      0.1904761904761905,
      0.10526315789473684,
      0.1904761904761905,
    ],
  ])('of %j against %j is that of rouge_score', (text, reference, rouge1, rouge2, rougeL) => {
    const scores = rouge(text, reference);
    expect(scores.rouge1).toBeCloseTo(rouge1, 12);
    expect(scores.rouge2).toBeCloseTo(rouge2, 12);
    expect(scores.rougeL).toBeCloseTo(rougeL, 12);
  });

  test('equals rouge_score on the golden table of 200 pairs', () => {
    type Scores = readonly [precision: number, recall: number, fmeasure: number];
    const { columns, pairs } = golden<{
      columns: string[];
      pairs: { text: string; reference: string; rouge1: Scores; rouge2: Scores; rougeL: Scores }[];
    }>('rouge');
    expect(columns[2]).toBe('fmeasure');
    expect(pairs).toHaveLength(200);
    for (const { text, reference, ...expected } of pairs) {
      for (const [name, score] of Object.entries(rouge(text, reference))) {
        expect(score, `${name} of ${text} against ${reference}`).toBeCloseTo(
          expected[name as 'rouge1'][2],
          12,
        );
      }
    }
  });

  test('lies between 0 and 1, is 1 for the same words, and does not depend on the order of its sides', () => {
    const words = fc.array(fc.constantFrom('the', 'cat', 'sat', 'On', 'mat.', '3.14', 'é'), {
      maxLength: 12,
    });
    fc.assert(
      fc.property(words, words, (left, right) => {
        const [text, reference] = [left.join(' '), right.join(' ')];
        const scores = rouge(text, reference);
        for (const [name, score] of Object.entries(scores)) {
          expect(score).toBeGreaterThanOrEqual(0);
          expect(score).toBeLessThanOrEqual(1);
          expect(score).toBeCloseTo(rouge(reference, text)[name as 'rouge1'], 12);
        }
        if (rougeWords(text).length > 0) expect(rouge(text, text).rougeL).toBe(1);
      }),
      { numRuns: 300 },
    );
  });
});

test('mean quality of texts keeps each ROUGE-L for the plots', () => {
  const quality = textQuality([
    { text: 'one two', reference: 'one two\n' },
    { text: 'one', reference: 'one two' },
    { text: 'nothing', reference: 'in common' },
  ]);
  expect(quality.samples).toBe(3);
  expect(quality.exactMatch).toBeCloseTo(1 / 3, 12);
  expect(quality.rougeLOfSamples).toEqual([1, expect.closeTo(2 / 3, 12), 0]);
  expect(quality.rougeL).toBeCloseTo(5 / 9, 12);
  expect(exactMatch('One', 'one')).toBe(false);
  expect(() => textQuality([])).toThrow(/expected at least one text/);
});

// [3 positions, 4 tokens]; expected values from float64 arithmetic in Python.
const REFERENCE = new Float32Array([0.1, 2.5, -1, 0.7, 3, 3, -20, 1, -4, 0, 4, 8]);
const CANDIDATE = new Float32Array([0, 2, -1.5, 1, 2.9, 3.1, -18, 0.5, -4, 0.5, 4, 7.5]);

describe('perplexity', () => {
  test('comes from a log-softmax in float64', () => {
    const found = tokenLogProbabilities(REFERENCE, [1, 3, 2], 4);
    const expected = [-0.25170319288947063, -2.758623675727571, -4.018485334290705];
    expected.forEach((value, i) => {
      expect(found[i]).toBeCloseTo(value, 13);
    });
    expect(perplexity(found)).toBeCloseTo(10.411775247295898, 12);
  });

  test("over many texts is PyTorch's", () => {
    const tables =
      golden<Record<string, { perplexity: number; samples: { logProbabilities: number[] }[] }>>('perplexity');
    for (const { perplexity: expected, samples } of Object.values(tables)) {
      const all = samples.flatMap(({ logProbabilities }) => logProbabilities);
      expect(perplexity(all)).toBeCloseTo(expected, 6); // the table's log-probabilities have six digits
    }
  });

  test('of a model that knows nothing is its vocabulary, and large logits do not overflow', () => {
    expect(perplexity(tokenLogProbabilities(new Float32Array(2 * 50), [7, 0], 50))).toBeCloseTo(50, 10);
    const large = new Float32Array([1e4, 0, -1e4, 0]);
    expect([...tokenLogProbabilities(large, [0, 1], 2)]).toEqual([0, 0]);
    expect([...tokenLogProbabilities(large, [1, 0], 2)]).toEqual([-1e4, -1e4]);
  });

  test('bad input is refused with what was expected', () => {
    expect(() => tokenLogProbabilities(REFERENCE, [1, 3, 2], 5)).toThrow(/no multiple of 5/);
    expect(() => tokenLogProbabilities(REFERENCE, [1, 3], 4)).toThrow(/expected 3 ids.*received 2/);
    expect(() => tokenLogProbabilities(REFERENCE, [1, 4, 2], 4)).toThrow(/0 to 3, received 4 at position 1/);
    expect(() => tokenLogProbabilities(new Float32Array([0, Number.NaN]), [0], 2)).toThrow(/position 0/);
    expect(() => tokenLogProbabilities(new Float32Array([Number.POSITIVE_INFINITY, 0]), [0], 2)).toThrow(
      /expected finite numbers/,
    );
    expect(() => perplexity([])).toThrow(/at least one/);
  });
});

describe('two sets of logits', () => {
  test('KL divergence of each position and the same top token', () => {
    const { klDivergence, sameTop } = compareLogits(REFERENCE, CANDIDATE, 4);
    const expected = [0.04476713804848577, 0.011230944853399639, 0.0028372461161638583];
    expected.forEach((value, i) => {
      expect(klDivergence[i]).toBeCloseTo(value, 13);
    });
    expect([...sameTop]).toEqual([1, 0, 1]); // equal logits 3, 3: the first is on top
    const { positions, klMean, klP99, sameTopToken } = summarizeDivergence([
      compareLogits(REFERENCE.subarray(0, 4), CANDIDATE.subarray(0, 4), 4),
      compareLogits(REFERENCE.subarray(4), CANDIDATE.subarray(4), 4),
    ]);
    expect(positions).toBe(3);
    expect(klMean).toBeCloseTo(0.019611776339349754, 13);
    expect(klP99).toBeCloseTo(0.011230944853399639 + (0.04476713804848577 - 0.011230944853399639) * 0.98, 13);
    expect(sameTopToken).toBeCloseTo(2 / 3, 12);
  });

  test('of one model differ by nothing, whatever constant is added to a row', () => {
    const logit = fc.float({ min: -30, max: 30, noNaN: true });
    fc.assert(
      fc.property(fc.array(logit, { minLength: 2, maxLength: 20 }), (values) => {
        const row = Float32Array.from(values);
        const same = compareLogits(row, row, row.length);
        expect(same.klDivergence[0]).toBe(0);
        expect(same.sameTop[0]).toBe(1);
        const other = compareLogits(row, row.toReversed(), row.length);
        expect(other.klDivergence[0]).toBeGreaterThanOrEqual(0);
        expect(topToken(row)).toBe(values.indexOf(Math.max(...values)));
      }),
      { numRuns: 200 },
    );
  });

  test('of unlike sizes are refused', () => {
    expect(() => compareLogits(REFERENCE, CANDIDATE.subarray(4), 4)).toThrow(/expected 12.*received 8/);
    expect(() => summarizeDivergence([])).toThrow(/at least one position/);
  });
});
