// Boxes and lengths of SVG elements, which happy-dom lacks: without them Plotly cuts legends and overlaps labels.
// In: SVG elements as Plotly writes them. Out: boxes. A shape is a list of points in its own coordinates.
// Source: SVG 2 (transforms, paths, text layout), as far as Plotly uses it.
import { lineHeight, textWidth } from './fonts.js';

/** [x, y] in pixels. */
type Point = readonly [number, number];

/** A DOMRect's fields. */
function boxOf(points: readonly Point[]) {
  if (points.length === 0) return { x: 0, y: 0, left: 0, top: 0, right: 0, bottom: 0, width: 0, height: 0 };
  const xs = points.map(([x]) => x);
  const ys = points.map(([, y]) => y);
  const [left, top, right, bottom] = [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
  return { x: left, y: top, left, top, right, bottom, width: right - left, height: bottom - top };
}

const numberOf = (element: Element, attribute: string) =>
  Number.parseFloat(element.getAttribute(attribute) ?? '') || 0;

const corners = (x: number, y: number, width: number, height: number): Point[] => [
  [x, y],
  [x + width, y],
  [x, y + height],
  [x + width, y + height],
];

const styleOf = (element: Element) => (element as SVGElement).style as CSSStyleDeclaration | undefined;

/** One step of a transform attribute; Plotly writes translate, rotate(degrees, x, y) and scale only. */
function transformStep(name: string, numbers: readonly number[]): (point: Point) => Point {
  const [first = 0, second, third = 0] = numbers;
  if (name === 'translate') return ([x, y]) => [x + first, y + (second ?? 0)];
  if (name === 'scale') return ([x, y]) => [x * first, y * (second ?? first)];
  const [cos, sin] = [Math.cos((first * Math.PI) / 180), Math.sin((first * Math.PI) / 180)];
  const [centerX, centerY] = [second ?? 0, third];
  return ([x, y]) => [
    centerX + cos * (x - centerX) - sin * (y - centerY),
    centerY + sin * (x - centerX) + cos * (y - centerY),
  ];
}

/** Points of an element's inside -> points outside it. */
function transformed(element: Element, points: readonly Point[]): readonly Point[] {
  const steps = [...(element.getAttribute('transform') ?? '').matchAll(/(\w+)\(([^)]*)\)/g)];
  return steps.reduceRight((moved, [, name, numbers]) => {
    const step = transformStep(
      name!,
      numbers!
        .trim()
        .split(/[\s,]+/)
        .map(Number),
    );
    return moved.map(step);
  }, points); // the last one acts first
}

function fontSize(element: Element): number {
  const size = styleOf(element)?.fontSize ?? '';
  const parent = element.parentElement;
  const inherited = () => (parent ? fontSize(parent) : 12);
  return size.endsWith('%')
    ? (inherited() * Number.parseFloat(size)) / 100
    : Number.parseFloat(size) || inherited();
}

function isBold(element: Element): boolean {
  const weight = styleOf(element)?.fontWeight;
  if (weight) return weight === 'bold' || Number(weight) >= 600;
  return element.parentElement !== null && isBold(element.parentElement);
}

/** How much of a line lies left of its anchor. */
const ANCHORS: Readonly<Record<string, number>> = { middle: 0.5, end: 1 };

/** Lays out a text element: a pen walks its tspans; a tspan with an x starts a line; the anchor counts by line. */
function textPoints(text: Element): readonly Point[] {
  const points: Point[] = [];
  const anchor = ANCHORS[styleOf(text)?.textAnchor || text.getAttribute('text-anchor') || ''] ?? 0;
  let [x, y] = [numberOf(text, 'x'), numberOf(text, 'y')];
  let runs: { y: number; size: number; width: number }[] = [];
  const endLine = () => {
    const width = runs.reduce((sum, run) => sum + run.width, 0);
    for (const run of runs) {
      const { ascent, descent } = lineHeight;
      points.push(
        ...corners(x - width * anchor, run.y - ascent * run.size, width, (ascent + descent) * run.size),
      );
    }
    runs = [];
  };
  const walk = (element: Element) => {
    if (element !== text && element.hasAttribute('x')) {
      endLine();
      x = numberOf(element, 'x');
    }
    if (element !== text && element.hasAttribute('y')) y = numberOf(element, 'y');
    const isInEm = element.getAttribute('dy')?.endsWith('em');
    y += numberOf(element, 'dy') * (isInEm ? fontSize(element) : 1);
    for (const child of element.childNodes) {
      if (child.nodeType === 1) walk(child as Element);
      else if (child.nodeType === 3 && child.nodeValue) {
        const size = fontSize(element);
        runs.push({ y, size, width: textWidth(child.nodeValue, size, isBold(element)) });
      }
    }
  };
  walk(text);
  endLine();
  return points;
}

/** How many numbers a path command takes. */
const PATH_NUMBERS: Readonly<Record<string, number>> = {
  M: 2,
  L: 2,
  H: 1,
  V: 1,
  T: 2,
  Q: 4,
  S: 4,
  C: 6,
  A: 7,
};

/** Ends of a path's segments: enough for boxes, and exact for straight lines. */
function pathPoints(path: Element): readonly Point[] {
  const points: Point[] = [];
  let [x, y] = [0, 0];
  for (const [, command, text] of (path.getAttribute('d') ?? '').matchAll(/([a-df-z])([^a-df-z]*)/gi)) {
    const numbers = (text!.match(/-?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?/gi) ?? []).map(Number);
    const kind = command!.toUpperCase();
    const isRelative = command !== kind;
    const count = PATH_NUMBERS[kind];
    if (count === undefined) continue; // Z
    for (let end = count; end <= numbers.length; end += count) {
      const last = numbers[end - 1]!;
      const toX = kind === 'V' ? (isRelative ? 0 : x) : kind === 'H' ? last : numbers[end - 2]!;
      const toY = kind === 'H' ? (isRelative ? 0 : y) : last;
      x = isRelative ? x + toX : toX;
      y = isRelative ? y + toY : toY;
      points.push([x, y]);
    }
  }
  return points;
}

const rectanglePoints = (element: Element) =>
  corners(
    numberOf(element, 'x'),
    numberOf(element, 'y'),
    numberOf(element, 'width'),
    numberOf(element, 'height'),
  );

/** Points of each kind of shape; what is missing here is a group. */
const SHAPES: Readonly<Record<string, (element: Element) => readonly Point[]>> = {
  text: textPoints,
  path: pathPoints,
  rect: rectanglePoints,
  image: rectanglePoints,
  circle(element) {
    const radius = numberOf(element, 'r');
    return corners(
      numberOf(element, 'cx') - radius,
      numberOf(element, 'cy') - radius,
      2 * radius,
      2 * radius,
    );
  },
  line: (element) => [
    [numberOf(element, 'x1'), numberOf(element, 'y1')],
    [numberOf(element, 'x2'), numberOf(element, 'y2')],
  ],
  defs: () => [],
  clipPath: () => [],
};

/** Points of an element and of all inside it, in its own coordinates. */
function pointsOf(element: Element): readonly Point[] {
  if (styleOf(element)?.display === 'none') return [];
  const shape = SHAPES[element.localName];
  if (shape) return shape(element);
  return [...element.children].flatMap((child) => transformed(child, pointsOf(child)));
}

/** A path as straight legs. */
function legsOf(path: Element) {
  const points = pathPoints(path);
  return points.slice(1).map((to, index) => {
    const from = points[index]!;
    return { from, to, length: Math.hypot(to[0] - from[0], to[1] - from[1]) };
  });
}

/** What SVG elements of a browser answer; put onto happy-dom's prototypes. `this` is the element. */
export const svgGeometry = {
  getBBox(this: Element) {
    return boxOf(pointsOf(this));
  },
  getBoundingClientRect(this: Element) {
    let points = pointsOf(this);
    for (let element: Element | null = this; element; element = element.parentElement)
      points = transformed(element, points);
    return boxOf(points);
  },
  getComputedTextLength(this: Element) {
    return boxOf(textPoints(this)).width;
  },
  getTotalLength(this: Element) {
    return legsOf(this).reduce((sum, leg) => sum + leg.length, 0);
  },
  getPointAtLength(this: Element, length: number) {
    let rest = length;
    for (const { from, to, length: legLength } of legsOf(this)) {
      const part = rest / (legLength || 1);
      if (rest <= legLength)
        return { x: from[0] + (to[0] - from[0]) * part, y: from[1] + (to[1] - from[1]) * part };
      rest -= legLength;
    }
    const [x, y] = pathPoints(this).at(-1) ?? [0, 0];
    return { x, y };
  },
};
