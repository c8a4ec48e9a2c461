import { createRequire } from 'node:module';
import { expect, test } from 'vitest';
import { type NamedHost, namesOf, offerNames, withNames } from '../../lib/notebook/tslab-names.js';

const require = createRequire(createRequire(import.meta.url).resolve('tslab/package.json'));
const typescript = require('@tslab/typescript-for-tslab') as Parameters<typeof namesOf>[0];

test('the names of a cell are those that it declares for later ones', () => {
  const source = `import { x as y } from 'a';
const { a, b: [c] } = f();
{ var d = 1; let hidden = 2; }
function e() { const inner = 3; }
class F {}
type G = number;`;
  expect([...namesOf(typescript, source)!.locals!.keys()].sort()).toEqual([
    ...['F', 'G', 'a', 'c', 'd', 'e', 'y'],
  ]);
  expect(namesOf(typescript, 'console.log(1);')).toBeUndefined();
});

test('a program is saved where only names are asked for, unless imports have to be looked up again', () => {
  const [cell, other] = [
    { path: '/__tslab__.ts', text: 'export {};\nconst b = 1;\nexport {b}' },
    { path: '/other.ts', text: '' },
  ];
  let made = 0;
  const createProgram: NamedHost['createProgram'] = () => {
    made++;
    return { getProgram: () => ({ getSourceFiles: () => [cell, other] }), getSourceFile: () => other };
  };
  const host = offerNames({ createProgram });
  const ask = (old?: ReturnType<typeof createProgram>, lookups = {}) =>
    host.createProgram([], {}, lookups, old);
  const named = namesOf(typescript, 'const a = 1;')!;
  const real = ask();
  withNames(named, () => {
    const offered = ask(real);
    expect(made).toBe(1);
    expect(offered.getSourceFile('/__tslab__.ts')).toBe(named);
    expect(offered.getSourceFile('/other.ts')).toBe(other);
    ask(offered);
    expect(made).toBe(2); // the second question of a cell is about its types
  });
  withNames(named, () => ask(real, { hasInvalidatedResolutions: (path: string) => path === '/other.ts' }));
  withNames(named, () => ask(real, { hasChangedAutomaticTypeDirectiveNames: true }));
  withNames(namesOf(typescript, 'const b = 1;'), () => ask(real)); // the same cell again
  withNames(undefined, () => ask(real));
  ask(real);
  expect(made).toBe(7);
});
