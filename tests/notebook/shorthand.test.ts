import typescript from 'typescript';
import { expect, test } from 'vitest';
import { spellShorthand, type TypeScriptSyntax } from '../../lib/notebook/shorthand.js';

// The interface names only what is used; TypeScript's own node types are wider.
const syntax = typescript as unknown as TypeScriptSyntax;

test.each([
  ['show({ a, b: 1, c });', 'show({ a: a, b: 1, c: c });'],
  ['f(() => ({ x, inner: { y } }));', 'f(() => ({ x: x, inner: { y: y } }));'],
  ['({ a, b = 2 } = value);', '({ a: a, b: b = 2 } = value);'],
  ['const { a } = value;', 'const { a } = value;'],
  ['// { a }\nconst text = "{ a }";', '// { a }\nconst text = "{ a }";'],
  ['{ a }', '{ a }'],
])('%s', (source, expected) => {
  expect(spellShorthand(syntax, source)).toBe(expected);
});

test('a cell with a syntax error keeps its lines', () => {
  expect(spellShorthand(syntax, 'show({ a,\n b ').split('\n')).toHaveLength(2);
});
