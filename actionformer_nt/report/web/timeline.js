// The timeline browser: ground truth, pseudo labels and detections of one video as aligned bars.

const BAR = 16, LINE = 15, MAX_LANES = 6, LIST = 100, LEAST_LABEL = 3;
const seconds = (t) => `${t.toLocaleString("en")} s`;
chosen["score"] = "0.1";

function subsets() {
  return unique(runs().flatMap((run) => run.timelines.map((t) => t.subset)));
}

// Rows of a video: {title, bars: [[start, end, class name, score]]}. The ground truth is one row with score null.
function rowsOf(subset, id) {
  const rows = [];
  let duration = 0, known = false;
  for (const run of runs()) {
    for (const t of run.timelines) {
      const video = t.subset === subset && t.videos.find((v) => v.id === id);
      if (!video) continue;
      duration = Math.max(duration, video.duration || 0);
      if (video.truth && !known) {
        known = true;
        const bars = [];
        for (let k = 0; k < video.truth.length; k += 3) bars.push([video.truth[k], video.truth[k + 1], t.names[video.truth[k + 2]], null]);
        rows.unshift({ title: "ground truth", bars });
      }
      t.rows.forEach((name, r) => {
        if (r < t.earlier && chosen.earlier === "end") return;
        const bars = [], flat = video.bars[r];
        for (let k = 0; k < flat.length; k += 4) bars.push([flat[k], flat[k + 1], t.names[flat[k + 2]], flat[k + 3]]);
        rows.push({ title: `${run.name}, ${name}`, bars });
      });
    }
  }
  if (!known) rows.unshift({ title: "ground truth: hidden", bars: [] });
  for (const row of rows) for (const bar of row.bars) duration = Math.max(duration, bar[1]);
  return { rows, duration: duration || 1 };
}

// Puts overlapping bars into lanes below each other; from MAX_LANES on, all remaining bars share the last lane.
function lanes(bars) {
  const ends = [];
  return [...bars].sort((a, b) => (b[3] ?? 2) - (a[3] ?? 2)).map((bar) => {
    let lane = ends.findIndex((taken) => taken.every(([s, e]) => bar[1] <= s || bar[0] >= e));
    if (lane < 0) lane = ends.length < MAX_LANES ? ends.push([]) - 1 : MAX_LANES - 1;
    ends[lane].push(bar);
    return [bar, lane];
  });
}

SECTIONS.push(["timeline", "Timeline", (root) => {
  if (!subsets().length) return root.append(note("No detections in these run folders."));
  const redraw = () => drawSection("timeline");
  const controls = el("div", { class: "controls" }, choice("subset", "Videos", subsets(), redraw));
  const all = runs().flatMap((run) => run.timelines.filter((t) => t.subset === chosen.subset));
  const ids = unique(all.flatMap((t) => t.videos.map((v) => v.id))).sort();
  const pick = choice("video", "Video", ids, redraw);
  const step = (by) => () => {
    chosen.video = ids[(ids.indexOf(chosen.video) + by + ids.length) % ids.length];
    redraw();
    document.getElementById(by < 0 ? "previous" : "next").focus();
  };
  const moments = all.some((t) => t.earlier)
    ? choice("earlier", "Pseudo labels", [["end", "at the end"], ["all", "at all moments"]], redraw) : null;
  const { rows, duration } = rowsOf(chosen.subset, chosen.video);
  const present = unique(rows.flatMap((row) => row.bars.map((bar) => bar[2]))).sort();
  const canvas = el("canvas", { id: "bars", role: "img" });
  const shownScore = el("output", { id: "score-value", for: "score" });
  const slider = el("input", { id: "score", type: "range", min: 0, max: 1, step: 0.005, value: chosen.score });
  const count = el("output", { id: "shown", "aria-live": "polite" }), detail = el("p", { class: "note", id: "detail" }, " ");
  const list = el("div", { class: "list", tabindex: 0, role: "region", "aria-label": "Bars that are shown" });
  let hits = [], waiting = false;

  const draw = () => {
    waiting = false;
    const least = +slider.value, only = chosen["class"];
    const shown = rows.map((row) => ({ title: row.title, bars: row.bars.filter((bar) =>
      (bar[3] == null || bar[3] >= least) && (!only || bar[2] === only)) }));
    hits = paint(canvas, shown, duration);
    const detections = shown.flatMap((row) => row.bars.filter((bar) => bar[3] != null).map((bar) => [row.title, ...bar]));
    const total = rows.flatMap((row) => row.bars).filter((bar) => bar[3] != null).length;
    shownScore.textContent = least.toFixed(3);
    count.textContent = `${detections.length} of ${total} bars shown`;
    canvas.setAttribute("aria-label", `${chosen.video}, ${duration.toFixed(1)} s: ${shown.map((row) => `${row.title} ${row.bars.length}`).join(", ")}`);
    const truth = shown.filter((row) => row.bars.some((bar) => bar[3] == null)).flatMap((row) => row.bars.map((bar) => [row.title, ...bar]));
    list.replaceChildren(table(["row", "start, s", "end, s", "class", "score"],
      [...truth, ...detections.sort((a, b) => b[4] - a[4])].slice(0, LIST).map(([title, start, end, name, score]) =>
        [title, start.toFixed(1), end.toFixed(1), name, score == null ? "" : score.toFixed(3)])));
  };
  const later = () => { if (!waiting) { waiting = true; requestAnimationFrame(draw); } };
  slider.addEventListener("input", () => { chosen.score = slider.value; later(); });
  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    const hit = hits.findLast((h) => x >= h.x && x <= h.x + h.w && y >= h.y && y <= h.y + BAR);
    detail.textContent = hit ? `${hit.title}: ${hit.bar[2]}, ${hit.bar[0].toFixed(1)} – ${hit.bar[1].toFixed(1)} s`
      + (hit.bar[3] == null ? "" : `, score ${hit.bar[3].toFixed(3)}`) : " ";
  });
  window.onresize = later;

  controls.append(pick, el("button", { id: "previous", type: "button", onclick: step(-1) }, "Previous"),
    el("button", { id: "next", type: "button", onclick: step(1) }, "Next"),
    el("label", {}, "Lowest score", slider, shownScore),
    choice("class", "Class", [["", "all"], ...present], later), ...(moments ? [moments] : []), count);
  root.append(controls);
  const some = all.filter((t) => t.videos.length < t.total);
  if (some.length) root.append(note(`${some[0].videos.length} of ${some[0].total} videos, evenly chosen (--videos).`));
  root.append(canvas, detail, swatches(present.map((name) => [name, classColor(name)])),
    el("details", {}, el("summary", {}, `The first ${LIST} as a table`), list));
  draw();
}]);

// Shortens a text to a width by leaving out its middle, since names often differ at their ends; "" if too little fits
function fit(pen, text, width) {
  if (pen.measureText(text).width <= width) return text;
  for (let letters = text.length - 1; letters >= LEAST_LABEL; letters--) {
    const short = `${text.slice(0, Math.ceil(letters / 2))}…${text.slice(text.length - Math.floor(letters / 2))}`;
    if (pen.measureText(short).width <= width) return short;
  }
  return "";
}

// Wraps a text into lines of at most this width, at spaces, or inside a word that is wider than a line
function wrap(pen, text, width) {
  const lines = [];
  for (let word of text.split(" ")) {
    const longer = lines.length ? `${lines.at(-1)} ${word}` : word;
    if (lines.length && pen.measureText(longer).width <= width) { lines[lines.length - 1] = longer; continue; }
    while (pen.measureText(word).width > width && word.length > 1) {
      let end = word.length - 1;
      while (end > 1 && pen.measureText(word.slice(0, end)).width > width) end--;
      lines.push(word.slice(0, end));
      word = word.slice(end);
    }
    lines.push(word);
  }
  return lines;
}

// Draws the rows and returns the position of each bar in CSS pixels.
function paint(canvas, rows, duration) {
  const width = canvas.clientWidth || canvas.parentElement.clientWidth || 320, ratio = window.devicePixelRatio || 1;
  const pen = canvas.getContext("2d"), font = "12px system-ui, sans-serif";
  pen.font = font;
  const placed = rows.map((row) => ({ title: row.title, lines: wrap(pen, row.title, width - 8), bars: lanes(row.bars) }));
  const heights = placed.map((row) => LINE * row.lines.length + 3 + BAR * Math.max(1, ...row.bars.map(([, lane]) => lane + 1)) + 6);
  const height = heights.reduce((a, b) => a + b, 0) + 22;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.height = `${height}px`;
  const scale = (t) => 4 + (t / duration) * (width - 8), hits = [];
  pen.scale(ratio, ratio);
  pen.font = font; // resizing the canvas has reset the font
  const wide = (t) => pen.measureText(seconds(t)).width;
  const room = (times) => times.length * (wide(times.at(-1)) + 8) <= width;
  for (const t of [4, 3, 2].map((least) => ticks(0, duration, least)).find(room) || [0]) {
    pen.fillStyle = "#dde1e6";
    pen.fillRect(scale(t), 0, 1, height - 18);
    pen.fillStyle = "#1c2430";
    pen.fillText(seconds(t), Math.min(scale(t), width - 2 - wide(t)), height - 5);
  }
  let top = 0;
  placed.forEach((row, r) => {
    pen.fillStyle = "#1c2430";
    row.lines.forEach((line, k) => pen.fillText(line, 4, top + LINE * k + 13));
    const boxes = row.bars.map(([bar, lane]) => {
      const x = scale(bar[0]), w = Math.max(2, scale(bar[1]) - x), y = top + LINE * row.lines.length + 3 + lane * BAR;
      pen.globalAlpha = bar[3] == null ? 1 : 0.35 + 0.65 * bar[3];
      pen.fillStyle = classColor(bar[2]);
      pen.fillRect(x, y, w, BAR - 2);
      pen.globalAlpha = 1;
      pen.strokeStyle = "#333";
      pen.lineWidth = 0.5;
      pen.strokeRect(x, y, w, BAR - 2);
      return { x, y, w, bar, title: row.title };
    });
    // bars come by falling score; in the shared lane, a label that would cover an earlier label is left out
    const labels = [];
    for (const { x, y, w, bar } of boxes) {
      const label = fit(pen, bar[2], w - 10), right = x + 8 + pen.measureText(label).width;
      if (!label || labels.some((other) => other.y === y && x < other.right && other.x < right)) continue;
      labels.push({ x, y, right });
      pen.fillStyle = "rgba(255,255,255,.82)";
      pen.fillRect(x + 2, y + 1, right - x - 2, BAR - 4);
      pen.fillStyle = "#000";
      pen.fillText(label, x + 5, y + 11);
    }
    hits.push(...boxes);
    top += heights[r];
  });
  return hits;
}
