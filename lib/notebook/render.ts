// Plotly figure -> SVG -> PNG in plain Node: plotly.js inside happy-dom, then resvg. No browser, no system fonts.
// In: a figure. Out: SVG text, PNG bytes; the same figure always gives the same bytes.
// Source: plotly.js 4 Plotly.toImage.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { crc32 } from 'node:zlib';
import { Resvg } from '@resvg/resvg-js';
import { Window } from 'happy-dom';
import { CellCanvases } from './canvas.js';
import { fontFiles } from './fonts.js';
import { svgGeometry } from './geometry.js';

/** A Plotly figure; any object with traces will do, so that plot.ts need not know this file. */
export interface Figure {
  readonly data: readonly object[];
  readonly layout?: object;
}

/** A figure as plain JSON: typed arrays became lists. */
export interface PlainFigure {
  readonly data: readonly (Record<string, unknown> & { readonly type?: string })[];
  readonly layout: Record<string, unknown> & {
    readonly title?: string | { readonly text?: string };
    readonly width?: number;
    readonly height?: number;
  };
}

/** Pixels. */
export interface Size {
  readonly width: number;
  readonly height: number;
}

/** Fits GitHub's and JupyterLab's columns. */
const DEFAULT_SIZE: Size = { width: 760, height: 440 };

/** What is used of Plotly. */
interface Plotly {
  PlotSchema: { get(): { traces: Readonly<Record<string, { categories: readonly string[] }>> } };
  toImage(figure: PlainFigure, options: Size & { format: 'svg'; imageDataOnly: true }): Promise<string>;
}

/** Copies a figure into plain JSON; JSON alone would make objects of typed arrays. */
export function plainFigure(figure: Figure): PlainFigure {
  const text = JSON.stringify({ data: figure.data, layout: figure.layout ?? {} }, (_, value: unknown) =>
    ArrayBuffer.isView(value) ? Array.from(value as unknown as ArrayLike<number>) : value,
  );
  return JSON.parse(text) as PlainFigure;
}

/** A figure's title without markup. */
export function figureTitle({ layout: { title } }: PlainFigure): string {
  const text = typeof title === 'string' ? title : title?.text;
  return text?.replace(/<br\s*\/?>/g, ' ').replace(/<[^>]*>/g, '') ?? 'Plotly';
}

/** Plotly in a window of its own, made when first needed: loading takes a second. */
class Studio {
  private readonly window = new Window();
  private readonly canvases = new CellCanvases();
  private readonly plotly: Plotly;
  private readonly drawable: ReadonlySet<string>;

  constructor() {
    const { window, canvases } = this;
    const members = window as unknown as Record<string, { prototype: object }>; // its classes, by name
    for (const name of Object.getOwnPropertyNames(window))
      if (/^SVG\w*Element$/.test(name)) Object.assign(members[name]!.prototype, svgGeometry); // each has dummies of its own
    Object.assign(window.HTMLCanvasElement.prototype, {
      getContext(this: object, kind: string) {
        return kind === '2d' ? canvases.context(this) : null;
      },
    });
    // "No pixelated images", so that heat maps are drawn by fillRect.
    Object.defineProperty(window, 'CSS', { value: { supports: () => false } });
    window.eval(readFileSync(createRequire(import.meta.url).resolve('plotly.js-dist-min'), 'utf8'));
    this.plotly = (window as unknown as { Plotly: Plotly }).Plotly;
    const { traces } = this.plotly.PlotSchema.get();
    // WebGL, maps and the like come out empty without a word.
    const needsMore = (type: string) =>
      traces[type]!.categories.some((category) => /^(gl|regl|geo|map)/.test(category));
    this.drawable = new Set(Object.keys(traces).filter((type) => !needsMore(type)));
  }

  async draw(figure: PlainFigure, size: Size): Promise<string> {
    for (const { type = 'scatter' } of figure.data)
      if (!this.drawable.has(type))
        throw new RangeError(`figure: trace type ${type} cannot be drawn without a browser`);
    // Plotly takes its ids from Math.random: same figure, same ids; other figures in one page, other ids.
    let seed = (crc32(JSON.stringify(figure)) % 2147483646) + 1;
    this.window.Math.random = () => {
      seed = (seed * 48271) % 2147483647;
      return seed / 2147483647;
    };
    this.canvases.clear();
    const { width = size.width, height = size.height } = figure.layout;
    const svg = await this.plotly.toImage(figure, { format: 'svg', width, height, imageDataOnly: true });
    const unquoted = svg.replace(/url\('(#[^']*)'\)/g, 'url($1)'); // resvg paints url('#x') black
    return this.canvases.replaceImages(unquoted);
  }
}

let studio: Studio | undefined;
let queue: Promise<unknown> = Promise.resolve();

/**
 * Draws a figure as SVG. One at a time: they share a window.
 * @param figure Plotly's `{ data, layout }`; layout.width and layout.height win over `size`
 * @param size pixels, 760 x 440 unless told
 * @throws RangeError if a trace type cannot be drawn without a browser (names it)
 */
export function toSvg(figure: Figure, size: Size = DEFAULT_SIZE): Promise<string> {
  const drawn = queue.then(() => {
    studio ??= new Studio();
    return studio.draw(plainFigure(figure), size);
  });
  queue = drawn.catch(() => {});
  return drawn;
}

/**
 * Draws SVG text as a PNG file.
 * @param scale pixels of the picture for each of the SVG
 * @returns the file's bytes
 */
export function toPng(svg: string, scale = 2): Uint8Array {
  const font = { loadSystemFonts: false, fontFiles, defaultFontFamily: 'Open Sans' };
  return new Resvg(svg, { font, fitTo: { mode: 'zoom', value: scale } }).render().asPng();
}
