// Line charts and scatter plots as SVG.

const WIDTH = 420, HEIGHT = 272, LEFT = 54, RIGHT = 18, TOP = 10, BOTTOM = 44;

// Ticks in [low, high]: multiples of the largest step (1, 2 or 5 times a power of ten) with at least `least` ticks.
function ticks(low, high, least = 4) {
  if (!(high > low)) return [low];
  for (let power = Math.ceil(Math.log10(high - low)); ; power--) {
    for (const digit of [5, 2, 1]) {
      const step = digit * 10 ** power, first = Math.ceil(low / step - 1e-9), last = Math.floor(high / step + 1e-9);
      if (last - first + 1 < least) continue;
      return Array.from({ length: last - first + 1 }, (_, i) => +((first + i) * step).toPrecision(12));
    }
  }
}

// Extends a range to the next ticks outside it.
function widen([low, high]) {
  const [first, second] = ticks(low, high), step = second - first;
  return [Math.floor(low / step + 1e-9) * step, Math.ceil(high / step - 1e-9) * step];
}

// A short text for a tick that keeps ticks distinguishable.
function tidy(t) {
  const size = Math.abs(t);
  if (size >= 1e6) return `${+(t / 1e6).toPrecision(6)}M`;
  if (size >= 1e4) return `${+(t / 1e3).toPrecision(6)}k`;
  return size > 0 && size < 1e-3 ? t.toExponential() : String(t);
}

function axes(plot, [x0, x1], [y0, y1], xLabel, yLabel, whole = false) {
  const sx = (x) => LEFT + ((x - x0) / (x1 - x0 || 1)) * (WIDTH - LEFT - RIGHT);
  const sy = (y) => HEIGHT - BOTTOM - ((y - y0) / (y1 - y0 || 1)) * (HEIGHT - TOP - BOTTOM);
  for (const t of ticks(y0, y1)) {
    plot.append(svg("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: sy(t), y2: sy(t), stroke: "#dde1e6" }));
    plot.append(svg("text", { x: LEFT - 5, y: sy(t) + 4.5, "text-anchor": "end" }, tidy(t)));
  }
  for (const t of ticks(x0, x1).filter((t) => !whole || Number.isInteger(t))) {
    plot.append(svg("line", { x1: sx(t), x2: sx(t), y1: HEIGHT - BOTTOM, y2: HEIGHT - BOTTOM + 4, stroke: "#56606e" }));
    plot.append(svg("text", { x: sx(t), y: HEIGHT - BOTTOM + 19, "text-anchor": "middle" }, tidy(t)));
  }
  plot.append(svg("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: HEIGHT - BOTTOM, y2: HEIGHT - BOTTOM, stroke: "#56606e" }));
  plot.append(svg("text", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 6, "text-anchor": "middle", class: "x-title" }, xLabel));
  const middle = (TOP + HEIGHT - BOTTOM) / 2;
  plot.append(svg("text", { x: 13, y: middle, "text-anchor": "middle", transform: `rotate(-90 13 ${middle})`, class: "y-title" }, yLabel));
  return [sx, sy];
}

// [min, max] of the values that are not null; low, high: fixed ends
function range(values, low, high) {
  let a = low ?? Infinity, b = high ?? -Infinity;
  for (const v of values) if (v != null) { if (low == null && v < a) a = v; if (high == null && v > b) b = v; }
  if (!(a <= b)) return [0, 1];
  const margin = Math.abs(a) / 2 || 1;
  return a === b ? [a - (low == null && a !== 0 ? margin : 0), b + margin] : [a, b];
}

// series: [{name, x, y, stroke, dash}], stroke a colour, dash a number; y may hold null.
// yRange: [low, high], null: from the data. whole: only integer ticks on x.
function lineChart({ title, xLabel, yLabel, series, yRange = [null, null], whole = false }) {
  const plot = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": title });
  const xs = range(series.flatMap((s) => s.x)), ys = widen(range(series.flatMap((s) => s.y), ...yRange));
  const [sx, sy] = axes(plot, xs, ys, xLabel, yLabel, whole);
  for (const s of series) {
    const points = s.x.map((x, i) => [x, s.y[i]]).filter(([, y]) => y != null).map(([x, y]) => [sx(x), sy(y)]);
    if (!points.length) continue;
    const path = points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
    plot.append(svg("path", { d: path, fill: "none", stroke: s.stroke, "stroke-width": 2, "stroke-dasharray": dash(s.dash) },
      svg("title", {}, s.name)));
    if (points.length <= 12) for (const [x, y] of points) plot.append(svg("circle", { cx: x, cy: y, r: 3, fill: s.stroke }));
  }
  const legend = el("ul", { class: "legend" }, ...series.map((s) => el("li", {},
    svg("svg", { viewBox: "0 0 26 12" }, svg("line", { x1: 0, x2: 26, y1: 6, y2: 6, stroke: s.stroke, "stroke-width": 3,
      "stroke-dasharray": dash(s.dash) })), s.name)));
  return el("figure", { class: "cell" }, el("figcaption", {}, title), plot, legend);
}

// The mark of a kind: circle, cross, triangle or square
function mark(kind, x, y, fill) {
  const r = 3.2;
  if (kind % 4 === 1) {
    return svg("path", { d: `M${x - r} ${y - r}L${x + r} ${y + r}M${x - r} ${y + r}L${x + r} ${y - r}`, stroke: fill, "stroke-width": 1.4 });
  }
  if (kind % 4 === 2) return svg("path", { d: `M${x} ${y - r}L${x + r} ${y + r}L${x - r} ${y + r}Z`, fill, "fill-opacity": 0.75 });
  if (kind % 4 === 3) return svg("rect", { x: x - r, y: y - r, width: 2 * r, height: 2 * r, fill, "fill-opacity": 0.7 });
  return svg("circle", { cx: x, cy: y, r, fill, "fill-opacity": 0.65 });
}

// points: [[x, y, kind]]; kinds: [[kind, name, colour, number of the mark]], drawn in this order
function scatter(title, points, kinds) {
  const plot = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": title });
  const [xs, ys] = [0, 1].map((axis) => widen(range(points.map((p) => p[axis]))));
  const [sx, sy] = axes(plot, xs, ys, "first component", "second component");
  for (const [kind, , fill, shape] of kinds) {
    for (const [x, y, k] of points) if (k === kind) plot.append(mark(shape, sx(x), sy(y), fill));
  }
  const legend = el("ul", { class: "legend" }, ...kinds.map(([, name, fill, shape]) => el("li", {},
    svg("svg", { viewBox: "0 0 26 12" }, mark(shape, 13, 6, fill)), name)));
  return el("figure", { class: "cell" }, el("figcaption", {}, title), plot, legend);
}
