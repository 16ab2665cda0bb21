// Overview of the runs, mAP and Recall@kx, AP per class, precision-recall curves.

const thresholds = () => unique(evaluations().flatMap((e) => e.metrics.tiou)).sort((a, b) => a - b);
const at = (e, values, tiou) => values[e.metrics.tiou.findIndex((t) => Math.abs(t - tiou) < 1e-9)];
const fixed = (t) => t.toFixed(2);
const styleOf = (e) => ({ stroke: color(e.run.index), dash: e.index });

SECTIONS.push(["about", "Runs", (root) => {
  const keys = unique(runs().flatMap((run) => run.about.map(([key]) => key)));
  root.append(table(["", ...runs().map((run) => run.name)],
    keys.map((key) => [key, ...runs().map((run) => (run.about.find(([k]) => k === key) || [])[1])]), { class: "about" }));
}]);

SECTIONS.push(["map", "mAP", (root) => {
  const list = evaluations(), tious = thresholds();
  const kinds = unique(list.flatMap((e) => Object.keys(e.metrics.recall)));
  const row = (e, values) => [e.title, ...tious.map((t) => percent(at(e, values, t)))];
  root.append(el("div", { class: "flow" },
    table(["mAP, %", ...tious.map(fixed), "average"],
      list.map((e) => [...row(e, e.metrics.mAP), percent(e.metrics.average_mAP)]), { id: "map-table" }),
    ...kinds.map((k) => table([`Recall@${k}, %`, ...tious.map(fixed)], list.map((e) => row(e, e.metrics.recall[k] || []))))));
  const line = (e, values) => ({ name: e.title, ...styleOf(e), x: e.metrics.tiou, y: values.map((v) => 100 * v) });
  const charts = [["mAP", (e) => e.metrics.mAP], ...kinds.map((k) => [`Recall@${k}`, (e) => e.metrics.recall[k] || []])];
  root.append(el("div", { class: "grid" }, ...charts.map(([name, of]) => lineChart({
    title: `${name} by tIoU`, xLabel: "tIoU", yLabel: "%", yRange: [0, null], series: list.map((e) => line(e, of(e))),
  }))));
  const counts = list.flatMap((e) => [["videos_without_predictions", "videos without predictions"],
    ["predictions_with_absent_label", "predictions of classes without events"]].filter(([key]) => e.metrics.counts[key])
    .map(([key, text]) => `${e.title}: ${e.metrics.counts[key]} ${text}.`));
  if (counts.length) root.append(note(counts.join(" ")));
}]);

SECTIONS.push(["classes", "AP per class", (root) => {
  const list = evaluations(), redraw = () => drawSection("classes");
  const options = [["average", "average of all"], ...thresholds().map((t) => [t, fixed(t)])];
  root.append(el("div", { class: "controls" }, choice("class-tiou", "tIoU", options, redraw),
    choice("class-order", "Order", [["name", "name"], ["events", "events"], ...list.map((e) => [e.index, `AP of ${e.title}`])], redraw)));
  const rows = new Map();
  list.forEach((e, column) => {
    for (const c of e.metrics.per_class) {
      const value = chosen["class-tiou"] === "average" ? mean(c.AP) : at(e, c.AP, +chosen["class-tiou"]);
      if (!rows.has(c.label)) rows.set(c.label, { label: c.label, events: c.events, ap: [] });
      rows.get(c.label).ap[column] = value;
    }
  });
  const order = chosen["class-order"], column = list.findIndex((e) => String(e.index) === order);
  const sorted = [...rows.values()].sort((a, b) => (column >= 0 ? (b.ap[column] ?? -1) - (a.ap[column] ?? -1)
    : order === "events" ? b.events - a.events : a.label.localeCompare(b.label)));
  root.append(table(["class", "events", ...list.map((e) => e.title)], sorted.map((row) => [row.label, String(row.events),
    ...list.map((_, i) => ({ text: percent(row.ap[i], 1), share: row.ap[i] }))])));
}]);

SECTIONS.push(["pr", "Precision and recall", (root) => {
  const list = evaluations().filter((e) => e.curves), redraw = () => drawSection("pr");
  if (!list.length) return root.append(note("No ground truth in these run folders; evaluating again writes it."));
  const name = (e, id) => (e.metrics.per_class.find((c) => c.label_id === id) || {}).label;
  const classes = unique(list.flatMap((e) => e.curves.label_id.map((id) => name(e, id)))).sort();
  root.append(el("div", { class: "controls" }, choice("pr-tiou", "tIoU", thresholds().map((t) => [t, fixed(t)]), redraw),
    choice("pr-class", "Class", [["", "mean of all classes"], ...classes], redraw)));
  const series = list.map((e) => {
    const curves = at(e, chosen["pr-class"] ? e.curves.classes : e.curves.mean, +chosen["pr-tiou"]);
    const y = chosen["pr-class"] ? (curves || [])[e.curves.label_id.findIndex((id) => name(e, id) === chosen["pr-class"])] : curves;
    return { name: e.title, ...styleOf(e), x: (y || []).map((_, i) => i / 40), y: (y || []).map((v) => v / 1000) };
  });
  root.append(el("div", { class: "grid" }, lineChart({
    title: `Interpolated precision, tIoU ${fixed(+chosen["pr-tiou"])}`, xLabel: "recall", yLabel: "precision", yRange: [0, 1], series,
  })));
}]);
