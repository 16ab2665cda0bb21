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
  const names = curveNames((name) => name.startsWith("pseudo/") || name.startsWith("hidden/"));
  if (!spaces.length && !names.length) return root.append(note("No self-training in these runs."));
  if (spaces.length) {
    root.append(el("h3", {}, "Sizes of the subspaces, classes in a distribution"));
    root.append(el("div", { class: "grid" }, ...spaces.map((run) => {
      const series = Object.values(PARTS).map(([part, stroke], i) => (
        { name: part, stroke, dash: i, x: run.curves.x, y: run.curves.series[`space/${part}`] || [] }));
      return lineChart({ title: run.name, xLabel: run.curves.key, yLabel: "classes", yRange: [0, null], whole: true, series });
    })));
  }
  root.append(el("h3", {}, "Number and quality"));
  if (!names.some((name) => name.startsWith("hidden/"))) {
    root.append(note("Their quality is known only where a run logs it from the hidden labels (semi_cfg.log_hidden: true)."));
  }
  const titles = { "pseudo/segments": "pseudo segments per video", "pseudo/projected": "left in the student's view, per video" };
  root.append(curveCharts(names, (name) => titles[name] || name.replace("hidden/", "").replaceAll("_", " ")));
}]);
