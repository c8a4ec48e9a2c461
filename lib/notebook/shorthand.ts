// Spells shorthand properties out: `{ a }` -> `{ a: a }`, which means the same. tslab turns each use of an earlier
// cell's name into `exports.a`, but overlooks shorthand, and the cell fails with "a is not defined".
// In: a cell's source. Out: the same source, line by line. Source: tslab 1.0.22 dist/converter.js, wrapPrevIdentifier.

/** What is used of TypeScript's syntax trees; tslab has its own copy of the compiler. */
export interface TypeScriptSyntax {
  readonly ScriptTarget: { readonly Latest: number };
  createSourceFile(name: string, text: string, target: number): SyntaxNode;
  forEachChild(node: SyntaxNode, visit: (child: SyntaxNode) => void): void;
  isShorthandPropertyAssignment(node: SyntaxNode): boolean;
}

/** A node; `name` is there where `isShorthandPropertyAssignment` says so. */
interface SyntaxNode {
  readonly name?: { readonly text: string; readonly end: number };
}

/**
 * @param typescript the compiler
 * @param source TypeScript, also with syntax errors
 * @returns the source with `: name` after each shorthand name; no line is added
 */
export function spellShorthand(typescript: TypeScriptSyntax, source: string): string {
  const names: { text: string; end: number }[] = [];
  const visit = (node: SyntaxNode): void => {
    if (node.name && typescript.isShorthandPropertyAssignment(node)) names.push(node.name);
    typescript.forEachChild(node, visit);
  };
  visit(typescript.createSourceFile('cell.ts', source, typescript.ScriptTarget.Latest));
  let spelled = source;
  for (const { text, end } of names.sort((a, b) => b.end - a.end))
    spelled = `${spelled.slice(0, end)}: ${text}${spelled.slice(end)}`;
  return spelled;
}
