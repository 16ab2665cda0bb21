// Line charts and scatter plots as SVG.

const WIDTH = 420, HEIGHT = 260, LEFT = 46, RIGHT = 10, TOP = 10, BOTTOM = 36;

function ticks(low, high) {
  const span = high - low || 1;
  const rough = span / 4, base = 10 ** Math.floor(Math.log10(rough));
  const step = base * [1, 2, 5, 10].find((m) => base * m >= rough);
  const found = [];
  for (let t = Math.ceil(low / step - 1e-9) * step; t <= high + step * 1e-9; t += step) found.push(t);
  return found;
}

const tidy = (t) => (Math.abs(t) >= 1e4 || (t !== 0 && Math.abs(t) < 1e-3) ? t.toExponential(0) : String(+t.toPrecision(4)));

function axes(plot, [x0, x1], [y0, y1], xLabel, yLabel) {
  const sx = (x) => LEFT + ((x - x0) / (x1 - x0 || 1)) * (WIDTH - LEFT - RIGHT);
  const sy = (y) => HEIGHT - BOTTOM - ((y - y0) / (y1 - y0 || 1)) * (HEIGHT - TOP - BOTTOM);
  for (const t of ticks(y0, y1)) {
    plot.append(svg("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: sy(t), y2: sy(t), stroke: "#dde1e6" }));
    plot.append(svg("text", { x: LEFT - 5, y: sy(t) + 4, "text-anchor": "end" }, tidy(t)));
  }
  for (const t of ticks(x0, x1)) {
    plot.append(svg("line", { x1: sx(t), x2: sx(t), y1: HEIGHT - BOTTOM, y2: HEIGHT - BOTTOM + 4, stroke: "#56606e" }));
    plot.append(svg("text", { x: sx(t), y: HEIGHT - BOTTOM + 16, "text-anchor": "middle" }, tidy(t)));
  }
  plot.append(svg("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: HEIGHT - BOTTOM, y2: HEIGHT - BOTTOM, stroke: "#56606e" }));
  plot.append(svg("text", { x: (LEFT + WIDTH) / 2, y: HEIGHT - 4, "text-anchor": "middle" }, xLabel));
  plot.append(svg("text", { x: 12, y: TOP + 90, "text-anchor": "middle", transform: `rotate(-90 12 ${TOP + 90})` }, yLabel));
  return [sx, sy];
}

// [min, max] of the numbers that are there
function range(values, low, high) {
  let a = low ?? Infinity, b = high ?? -Infinity;
  for (const v of values) if (v != null) { if (low == null && v < a) a = v; if (high == null && v > b) b = v; }
  if (!(a <= b)) return [0, 1];
  return a === b ? [a - (low == null ? 0.5 : 0), b + 0.5] : [a, b];
}

// series: [{name, x, y, index}]; y may hold null. yRange: [low, high], either may be null.
function lineChart({ title, xLabel, yLabel, series, yRange = [null, null] }) {
  const plot = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": title });
  const [sx, sy] = axes(plot, range(series.flatMap((s) => s.x)), range(series.flatMap((s) => s.y), ...yRange), xLabel, yLabel);
  for (const s of series) {
    const points = s.x.map((x, i) => [x, s.y[i]]).filter(([, y]) => y != null).map(([x, y]) => [sx(x), sy(y)]);
    if (!points.length) continue;
    const path = points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
    const stroke = color(s.index);
    plot.append(svg("path", { d: path, fill: "none", stroke, "stroke-width": 2, "stroke-dasharray": dash(s.index) },
      svg("title", {}, s.name)));
    if (points.length <= 12) for (const [x, y] of points) plot.append(svg("circle", { cx: x, cy: y, r: 3, fill: stroke }));
  }
  const legend = el("ul", { class: "legend" }, ...series.map((s) => el("li", {},
    svg("svg", { viewBox: "0 0 26 12" }, svg("line", { x1: 0, x2: 26, y1: 6, y2: 6, stroke: color(s.index), "stroke-width": 3,
      "stroke-dasharray": dash(s.index) })), s.name)));
  return el("figure", { class: "cell" }, el("figcaption", {}, title), plot, legend);
}

// One mark a kind: circle, cross, triangle, square
function mark(kind, x, y, fill) {
  const r = 3.2;
  if (kind % 4 === 1) {
    return svg("path", { d: `M${x - r} ${y - r}L${x + r} ${y + r}M${x - r} ${y + r}L${x + r} ${y - r}`, stroke: fill, "stroke-width": 1.4 });
  }
  if (kind % 4 === 2) return svg("path", { d: `M${x} ${y - r}L${x + r} ${y + r}L${x - r} ${y + r}Z`, fill, "fill-opacity": 0.75 });
  if (kind % 4 === 3) return svg("rect", { x: x - r, y: y - r, width: 2 * r, height: 2 * r, fill, "fill-opacity": 0.7 });
  return svg("circle", { cx: x, cy: y, r, fill, "fill-opacity": 0.65 });
}

// points: [[x, y, kind]]; kinds: [[kind, name, index of the colour or -1 for grey]], drawn in this order
function scatter(title, points, kinds) {
  const plot = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": title });
  const [sx, sy] = axes(plot, range(points.map((p) => p[0])), range(points.map((p) => p[1])), "first component", "second");
  for (const [kind, , index] of kinds) {
    const fill = index < 0 ? "#b4bac2" : color(index);
    for (const [x, y, k] of points) if (k === kind) plot.append(mark(Math.max(index, 0), sx(x), sy(y), fill));
  }
  const legend = el("ul", { class: "legend" }, ...kinds.map(([, name, index]) => el("li", {},
    svg("svg", { viewBox: "0 0 26 12" }, mark(Math.max(index, 0), 13, 6, index < 0 ? "#b4bac2" : color(index))), name)));
  return el("figure", { class: "cell" }, el("figcaption", {}, title), plot, legend);
}
