// The part of a canvas that Plotly's heat maps use, without one. In: filled cells or pixels. Out: SVG rectangles, or a
// small PNG for smoothed heat maps.
// Source: PNG specification, third edition (chunks, filter 0).
import { crc32, deflateSync } from 'node:zlib';

/** Pixels, four bytes each. */
interface Pixels {
  readonly width: number;
  readonly height: number;
  readonly data: Uint8ClampedArray; // [height, width, RGBA]
}

/** One chunk of a PNG file. */
function pngChunk(type: string, body: Uint8Array): Buffer {
  const typed = Buffer.concat([Buffer.from(type), body]);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(body.length);
  const check = Buffer.alloc(4);
  check.writeUInt32BE(crc32(typed));
  return Buffer.concat([length, typed, check]);
}

/** Pixels -> bytes of a PNG file. */
export function encodePng({ width, height, data }: Pixels): Buffer {
  const header = Buffer.from([0, 0, 0, 0, 0, 0, 0, 0, 8, 6, 0, 0, 0]); // 8 bits, RGBA
  header.writeUInt32BE(width);
  header.writeUInt32BE(height, 4);
  const rowBytes = 4 * width;
  const rows = Buffer.alloc(height * (rowBytes + 1)); // each row opens with its filter: 0, none
  for (let row = 0; row < height; row++)
    rows.set(data.subarray(rowBytes * row, rowBytes * (row + 1)), row * (rowBytes + 1) + 1);
  const signature = Buffer.from('\x89PNG\r\n\x1a\n', 'latin1');
  const chunks = [
    pngChunk('IHDR', header),
    pngChunk('IDAT', deflateSync(rows)),
    pngChunk('IEND', Buffer.alloc(0)),
  ];
  return Buffer.concat([signature, ...chunks]);
}

/** What Plotly draws on, and what it asks for afterwards. */
interface Canvas {
  toDataURL?: () => string;
}

/** The canvases of one figure. */
export class CellCanvases {
  private readonly drawings: string[][] = [];

  clear(): void {
    this.drawings.length = 0;
  }

  /** A 2d context that notes rectangles; the canvas's data URL then names them. */
  context(canvas: Canvas) {
    const rectangles: string[] = [];
    let pixels: Pixels | undefined;
    canvas.toDataURL = () =>
      pixels
        ? `data:image/png;base64,${encodePng(pixels).toString('base64')}`
        : `cells:${this.drawings.push(rectangles) - 1}`;
    return {
      fillStyle: '',
      fillRect(x: number, y: number, width: number, height: number) {
        rectangles.push(
          `<rect x="${x}" y="${y}" width="${width}" height="${height}" fill="${this.fillStyle}"/>`,
        );
      },
      createImageData: (width: number, height: number): Pixels => ({
        width,
        height,
        data: new Uint8ClampedArray(4 * width * height),
      }),
      putImageData(drawn: Pixels) {
        pixels = drawn;
      },
    };
  }

  /** Replaces each image that names rectangles by the rectangles. */
  replaceImages(svg: string): string {
    return svg.replace(/<image\b[^>]*"cells:(\d+)"[^>]*(?:\/>|><\/image>)/g, (tag, index: string) => {
      const offset = (name: string) => new RegExp(` ${name}="([^"]*)`).exec(tag)?.[1] ?? '0';
      const cells = this.drawings[Number(index)]?.join('') ?? '';
      return `<g transform="translate(${offset('x')},${offset('y')})" shape-rendering="crispEdges">${cells}</g>`;
    });
  }
}
