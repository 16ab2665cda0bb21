// The partition of the label space at chosen iterations, and embeddings.

const TOP_CLASSES = 12, OTHER = "#b4bac2";

SECTIONS.push(["space", "Label space", (root) => {
  const list = runs().filter((run) => run.moments.length), redraw = () => drawSection("space");
  if (!list.length) return root.append(note("No samples of class distributions in these runs."));
  const moments = unique(list.flatMap((run) => run.moments.map((m) => m.iteration))).sort((a, b) => a - b);
  const videos = unique(list.flatMap((run) => run.moments.flatMap((m) => m.distributions.map((d) => d.video_id)))).sort();
  root.append(note("Class distributions of the teacher on unlabeled videos, and what the method makes of their classes: the target, "
    + "positive classes (almost as probable), negative ones (together no more probable) and ambiguous ones, from which nothing is learned."));
  root.append(el("div", { class: "controls" },
    choice("space-moment", "Iteration", moments, redraw), choice("space-video", "Video", [["", "all"], ...videos], redraw)));
  root.append(swatches(Object.values(PARTS)));
  root.append(el("div", { class: "grid", id: "space-grid" }, ...list.map((run) => {
    const moment = run.moments.find((m) => String(m.iteration) === chosen["space-moment"]);
    const distributions = moment ? moment.distributions.filter((d) => !chosen["space-video"] || d.video_id === chosen["space-video"]) : [];
    return el("div", { class: "cell" }, el("h3", {}, run.name), distributions.length ? null : note("Nothing at this moment."),
      ...distributions.slice(0, 24).map((d) => distribution(d, moment.classes)));
  })));
}]);

function distribution(d, classes) {
  const order = d.probs.map((_, c) => c).sort((a, b) => d.probs[b] - d.probs[a] || a - b);
  const row = (c) => {
    const [part, fill] = PARTS[d.parts[c]];
    const name = classes[c] + (c === d.truth ? " (true)" : "");
    return el("div", { class: "row" }, el("span", {}, words(name)), el("span", {}, part),
      el("span", {}, el("i", { style: `width:${100 * d.probs[c]}%;background:${fill}` })), el("span", {}, `${share(d.probs[c])} %`));
  };
  const rest = order.slice(TOP_CLASSES);
  const counts = Object.entries(PARTS).map(([code, [name]]) => [rest.filter((c) => d.parts[c] === code).length, name])
    .filter(([n]) => n).map(([n, name]) => `${n} ${name}`);
  const truth = d.truth == null ? "" : d.truth < 0 ? "; on no event" : "";
  return el("div", { class: "dist" }, el("div", {}, `${d.video_id}, ${d.segment.map((t) => t.toFixed(1)).join(" – ")} s, score ${d.score.toFixed(2)}${truth}`),
    el("div", { class: "rows" }, ...order.slice(0, TOP_CLASSES).map(row)), rest.length ? el("div", {}, `and ${counts.join(", ")} less probable`) : null);
}

SECTIONS.push(["embeddings", "Embeddings", (root) => {
  const list = runs().filter((run) => run.embeddings);
  if (!list.length) return root.append(note("No embeddings in these runs; semi-supervised runs keep them when they are evaluated."));
  root.append(note("The student's features in front of the classifier, in test videos, by their ground truth, on their two main axes. "
    + "“Nearest” is the share of points whose nearest point in another video, in all dimensions, is of the same kind."));
  const about = (plane) => `axes ${plane.explained.map((v) => percent(v, 0)).join(" + ")} % of the variance`
    + (plane.nearest == null ? "" : `, nearest ${percent(plane.nearest, 1)} %`);
  const actions = (run) => scatter(`${run.name}: actions and background; ${about(run.embeddings.foreground)}`,
    run.embeddings.foreground.points.map(([x, y, k]) => [x, y, k < 0 ? 0 : 1]), [[0, "background", OTHER, 0], [1, "action", "#6a3d9a", 2]]);
  const classes = (run) => {
    const { classes: plane, labels } = run.embeddings, most = COLORS.length;
    const count = (id) => plane.points.filter((p) => p[2] === +id).length;
    const ids = Object.keys(labels).sort((a, b) => count(b) - count(a)).map(Number);
    const points = plane.points.map(([x, y, k]) => [x, y, ids.indexOf(k) < most ? k : -2]);
    const kinds = ids.slice(0, most).map((id) => [id, labels[id], classColor(labels[id]), classNumber(labels[id])]);
    if (ids.length > most) kinds.unshift([-2, "other classes", OTHER, 0]);
    return scatter(`${run.name}: classes; ${about(plane)}`, points, kinds);
  };
  for (const draw of [actions, classes]) root.append(el("div", { class: "grid" }, ...list.map(draw)));
}]);
