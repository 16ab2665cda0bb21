// Training curves, sizes of the subspaces, quality of pseudo labels. Runs that count epochs and runs that count
// iterations get separate charts.

function curveCharts(names, label) {
  return el("div", { class: "grid" }, ...names.flatMap((name) => {
    const list = runs().filter((run) => run.curves && run.curves.series[name]);
    const units = unique(list.map((run) => run.curves.key));
    return units.map((unit) => lineChart({
      title: label(name) + (units.length > 1 ? `, by ${unit}` : ""), xLabel: unit, yLabel: "", whole: true,
      series: list.filter((run) => run.curves.key === unit).map((run) => (
        { name: run.name, stroke: color(run.index), dash: run.index, x: run.curves.x, y: run.curves.series[name] })),
    }));
  }));
}

const curveNames = (test) => unique(runs().flatMap((run) => Object.keys((run.curves || { series: {} }).series))).filter(test);

SECTIONS.push(["training", "Training", (root) => {
  const names = curveNames((name) => name.includes("loss") || name === "lr" || name.includes("normalizer"));
  root.append(names.length ? curveCharts(names, (name) => (name === "lr" ? "learning rate" : name.replace("/", ": ").replaceAll("_", " ")))
    : note("No training record in these run folders."));
}]);

SECTIONS.push(["pseudo", "Pseudo labels", (root) => {
  const spaces = runs().filter((run) => run.curves && run.curves.series["space/target"]);
  const names = curveNames((name) => /^(pseudo|hidden|watch)\//.test(name));
  if (!spaces.length && !names.length) return root.append(note("No self-training in these runs."));
  if (spaces.length) {
    root.append(el("h3", {}, "Sizes of the subspaces, classes in a distribution"));
    root.append(el("div", { class: "grid" }, ...spaces.map((run) => {
      const series = Object.values(PARTS).map(([part, stroke], i) => (
        { name: part, stroke, dash: i, x: run.curves.x, y: run.curves.series[`space/${part}`] || [] }));
      return lineChart({ title: run.name, xLabel: run.curves.key, yLabel: "classes", yRange: [0, null], whole: true, series });
    })));
  }
  for (const run of runs().filter((run) => run.watch)) root.append(watchOf(run));
  root.append(el("h3", {}, "Number and quality"));
  if (!names.some((name) => name.startsWith("hidden/"))) {
    root.append(note("Their quality is known only where a run logs it from the hidden labels (semi_cfg.log_hidden: true)."));
  }
  const titles = { "pseudo/segments": "pseudo segments per video", "pseudo/projected": "left in the student's view, per video" };
  root.append(curveCharts(names, (name) => titles[name] || name.replace("hidden/", "").replace("/", ": ").replaceAll("_", " ")));
}]);

// The pseudo labels of a run beside its labeled videos, with the warnings of its watch.
function watchOf(run) {
  const { watch } = run, number = (value) => (value == null ? "" : String(+value.toPrecision(3)));
  const range = ([low, high]) => (low === high ? number(low) : `${number(low)} – ${number(high)}`);
  const expected = (q) => (q.high == null ? `at least ${number(q.low)}` : `${number(q.low)} – ${number(q.high)}`);
  const verdict = (q) => (q.outside ? { text: el("strong", {}, watch.videos < watch.of ? "outside so far" : "outside") } : "");
  return el("div", { class: "watch" },
    el("h3", {}, `${run.name}: beside the labeled videos`),
    watch.warnings.length ? el("ul", { class: "warnings" }, ...watch.warnings.map((w) => (
      el("li", {}, el("strong", {}, `Warning at iteration ${w.iteration}: `), words(w.message)))))
      : note("No warning."),
    note(`Pseudo labels of the last ${watch.videos} unlabeled videos before iteration ${watch.iteration}, and ${watch.recordings} labeled videos.`),
    table(["quantity", "pseudo labels", "labeled", "expected", ""], watch.quantities.map((q) => (
      [q.what + (q.class == null ? "" : `: ${q.class}`), number(q.found), range(q.labeled), expected(q), verdict(q)]))),
    el("details", {}, el("summary", {}, "Classes"),
      table(["class", "share of pseudo segments, %", "labeled, %", "pseudo segments per minute", "labeled"], watch.classes.map((c) => (
        [c.name, { text: percent(c.share, 1), share: c.share }, { text: percent(c.labeled_share, 1), share: c.labeled_share },
          number(c.rate), number(c.labeled_rate)])))));
}
