import { Resvg } from '@resvg/resvg-js';
import { describe, expect, test } from 'vitest';
import { fontFiles, textWidth } from '../../lib/notebook/fonts.js';
import { figureTitle, plainFigure, toPng, toSvg } from '../../lib/notebook/render.js';

const bars = {
  data: ['one', 'a second series with a long name'].map((name) => ({
    type: 'bar',
    name,
    x: ['a', 'b'],
    y: [1, 3],
  })),
  layout: { title: { text: 'Bars' }, yaxis: { title: { text: 'tokens/s' } } },
};

const numbersOf = (text: string | undefined) => (text?.match(/-?[\d.]+/g) ?? []).map(Number);

describe('toSvg', () => {
  test('gives the same bytes for the same figure, also after another one', async () => {
    const first = await toSvg(bars);
    await toSvg({ data: [{ y: [1, 2] }] });
    expect(await toSvg(bars)).toBe(first);
    expect(Buffer.from(toPng(first)).equals(Buffer.from(toPng(first)))).toBe(true);
  });

  test('measures text, so that a legend keeps its names inside the picture', async () => {
    const svg = await toSvg(bars);
    const [legendX = 0] = numbersOf(/class="legend"[^>]*transform="translate\(([^)]*)\)/.exec(svg)?.[1]);
    const [legendWidth = 0] = numbersOf(
      /<rect class="bg"[^>]* width="([^"]*)"/.exec(svg.slice(svg.indexOf('class="legend"')))?.[1],
    );
    expect(legendWidth).toBeGreaterThan(textWidth('a second series with a long name', 12, false));
    expect(legendX + legendWidth).toBeLessThanOrEqual(760);
  });

  test('turns long labels instead of letting them overlap', async () => {
    const x = Array.from({ length: 12 }, (_, index) => `configuration number ${index}`);
    const svg = await toSvg({ data: [{ type: 'bar', x, y: x.map((_, index) => index) }] });
    expect(svg).toMatch(/class="xtick"[\s\S]{0,400}rotate\((29\.9|30|90)/);
  });

  test('draws heat maps as rectangles and waterfalls as bars', async () => {
    const heat = await toSvg({
      data: [
        {
          type: 'heatmap',
          z: [
            [1, 2],
            [3, 4],
          ],
          showscale: false,
        },
      ],
    });
    expect(heat.match(/<rect [^>]*fill="rgba?\([^"]*"\/>/g)).toHaveLength(4);
    expect(heat).not.toContain('cells:');
    const waterfall = await toSvg({ data: [{ type: 'waterfall', x: ['a', 'b', 'c'], y: [3, -1, 2] }] });
    expect(waterfall.match(/<g class="point">/g)).toHaveLength(3);
  });

  test('draws smoothed heat maps as a picture', async () => {
    const svg = await toSvg({
      data: [
        {
          type: 'heatmap',
          z: [
            [1, 2],
            [3, 4],
          ],
          zsmooth: 'best',
        },
      ],
    });
    expect(svg).toContain('data:image/png;base64,');
    expect(toPng(svg).length).toBeGreaterThan(1000);
  });

  test('takes sizes from the layout, else from the caller', async () => {
    expect(await toSvg(bars, { width: 300, height: 200 })).toMatch(/^<svg[^>]* width="300" height="200"/);
    const wide = { ...bars, layout: { width: 900, height: 100 } };
    expect(await toSvg(wide, { width: 300, height: 200 })).toMatch(/^<svg[^>]* width="900" height="100"/);
  });

  test('refuses by name what it cannot draw, and goes on', async () => {
    await expect(toSvg({ data: [{ type: 'scattergl' }] })).rejects.toThrow(
      /trace type scattergl cannot be drawn/,
    );
    await expect(toSvg({ data: [{ type: 'nonsense' }] })).rejects.toThrow(RangeError);
    expect(await toSvg(bars)).toContain('<svg');
  });
});

test('a PNG is twice the size of its SVG', async () => {
  const png = Buffer.from(toPng(await toSvg(bars, { width: 300, height: 200 })));
  expect([png.readUInt32BE(16), png.readUInt32BE(20)]).toEqual([600, 400]);
});

test('a plain figure holds lists, and its title no markup', () => {
  const figure = plainFigure({
    data: [{ y: Float64Array.of(1, 2) }],
    layout: { title: { text: 'A<br><sub>b</sub>' } },
  });
  expect(figure.data).toEqual([{ y: [1, 2] }]);
  expect(figureTitle(figure)).toBe('A b');
});

test('text is measured as it is drawn', () => {
  for (const [text, weight] of [
    ['tokens per second', 400],
    ['Time to first token', 700],
    ['x → y ≤ 4096³', 400],
  ] as const) {
    const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="900" height="99"><text y="50" font-family="Open Sans" font-size="40" font-weight="${weight}">${text}</text></svg>`;
    const font = { loadSystemFonts: false, fontFiles, defaultFontFamily: 'Open Sans' };
    const drawn = new Resvg(svg, { font }).getBBox()!.width;
    const measured = textWidth(text, 40, weight === 700);
    expect(measured / drawn).toBeGreaterThan(0.99);
    expect(measured / drawn).toBeLessThan(1.05);
  }
});
