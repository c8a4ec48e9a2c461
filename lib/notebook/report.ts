// Executed notebooks -> one HTML file that needs nothing else.

/**
 * Writes one self-contained HTML report of executed notebooks.
 * @param notebooks paths of executed .ipynb files, in order
 * @param htmlPath where the report goes
 * @throws Error if a notebook cannot be read or the file cannot be written (names it)
 */
export function writeReport(_notebooks: readonly string[], _htmlPath: string): void {
  throw new Error('not yet');
}
