// The error diagnosis.

const KINDS = { double: "#cc79a7", "wrong label": "#e69f00", localisation: "#0072b2", confusion: "#8c6d1f", background: "#9aa3ad" };
const CORRECT = "#009e73";

SECTIONS.push(["errors", "Errors", (root) => {
  const list = evaluations().filter((e) => e.diagnosis), redraw = () => drawSection("errors");
  if (!list.length) return root.append(note("No ground truth in these run folders; evaluating again writes it."));
  const tious = unique(list.flatMap((e) => e.diagnosis.tiou)).sort((a, b) => a - b);
  root.append(note("Every false positive is of the first kind that fits: double (its event is taken by a better detection), "
    + "wrong label, localisation (tIoU from 0.1 up to the threshold), confusion (both), background. The gain is what mAP "
    + "would be higher by without the false positives of one kind."));
  root.append(el("div", { class: "controls" },
    choice("error-tiou", "tIoU", [...tious.map((t) => [t, fixed(t)]), ["average", "average of all"]], redraw)));
  const pick = (e, values) => (chosen["error-tiou"] === "average" ? mean(values)
    : values[e.diagnosis.tiou.findIndex((t) => Math.abs(t - +chosen["error-tiou"]) < 1e-9)]);
  const index = (e) => Math.max(0, e.diagnosis.tiou.findIndex((t) => Math.abs(t - +chosen["error-tiou"]) < 1e-9));
  const most = Math.max(0.01, ...list.flatMap((e) => e.diagnosis.false_positives.map((f) => pick(e, f.gain) || 0)));
  const count = (value) => (value == null ? "" : Math.round(value).toLocaleString("en"));

  root.append(el("h3", {}, "Gain in mAP from fixing one kind, points"));
  root.append(table(["", ...list.map((e) => e.title)], Object.keys(KINDS).map((kind, k) => [kind, ...list.map((e) => {
    const gain = pick(e, e.diagnosis.false_positives[k].gain);
    return { text: gain == null ? "" : `+${percent(gain)}`, share: gain / most };
  })]), { id: "gain-table" }));

  root.append(el("h3", {}, "False positives"));
  root.append(table(["", ...list.map((e) => e.title)], Object.keys(KINDS).map((kind, k) =>
    [kind, ...list.map((e) => count(pick(e, e.diagnosis.false_positives[k].count)))])));

  root.append(el("h3", {}, "Among the best k·G detections of each class, G being its events"));
  root.append(swatches([["correct", CORRECT], ...Object.entries(KINDS)]));
  root.append(el("div", { class: "grid" }, ...list.map((e) => el("figure", { class: "cell" }, el("figcaption", {}, e.title),
    ...e.diagnosis.profile[index(e)].map((row, k) => {
      const total = row.reduce((a, b) => a + b, 0) || 1;
      const parts = [["correct", row[5], CORRECT], ...Object.entries(KINDS).map(([name, fill], i) => [name, row[i], fill])];
      const text = parts.map(([name, n]) => `${name} ${percent(n / total, 0)} %`).join(", ");
      return el("div", { class: "stack", role: "img", "aria-label": `best ${k + 1} G: ${text}`, title: text }, el("b", {}, `${k + 1}G`),
        ...parts.map(([, n, fill]) => el("i", { style: `width:${(100 * n) / total}%;background:${fill}` })));
    })))));

  root.append(el("h3", {}, "Missed events"));
  root.append(note("By what came nearest: taken (a detection of the class overlaps enough, but has taken another event), wrong label, "
    + "localisation, confusion, undetected."));
  root.append(table(["", ...list.map((e) => `${e.title} (of\u00a0${e.diagnosis.events})`)], list[0].diagnosis.misses.map((miss, k) =>
    [miss.kind, ...list.map((e) => count(pick(e, e.diagnosis.misses[k].count)))])));
  // a range includes its upper end, not its lower end
  const short = (x) => String(+x.toPrecision(3));
  const number = { length: short, instances: (x) => String(Math.floor(x)), coverage: share };
  const span = (name, { low, high }) => {
    const unit = { length: " s", instances: "", coverage: " %" }[name];
    if (high == null) return `> ${number[name](low)}${unit}`;
    const first = name === "instances" ? Math.floor(low) + 1 : low;
    if (name === "instances" && first === Math.floor(high)) return String(first);
    return `${number[name](first)} – ${number[name](high)}${unit}`;
  };
  const titles = { length: "length of the event", instances: "events of the class in the video", coverage: "share of the video" };
  root.append(el("div", { class: "grid", id: "miss-groups" }, ...list.flatMap((e) => Object.entries(e.diagnosis.groups).map(([name, rows]) =>
    el("figure", { class: "cell" }, el("figcaption", {}, e.title), table([titles[name], "events", "missed,\u00a0%"], rows.map((row) => {
      const missed = row.events ? pick(e, row.missed) / row.events : null;
      return [span(name, row), String(row.events), { text: percent(missed, 1), share: missed || 0 }];
    })))))));
}]);
