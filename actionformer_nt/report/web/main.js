// Puts the sections on the page.

function drawSection(id) {
  const [, title, draw] = SECTIONS.find(([name]) => name === id);
  const root = document.getElementById(id), active = document.activeElement && document.activeElement.id;
  root.replaceChildren(el("h2", {}, title));
  draw(root);
  const again = active && root.querySelector(`#${CSS.escape(active)}`);
  if (again) again.focus(); // the control in use keeps the keyboard focus
}

function drawAll() {
  for (const [id] of SECTIONS) drawSection(id);
}

for (const [id, title] of SECTIONS) {
  document.getElementById("nav").append(el("a", { href: `#${id}` }, title));
  document.getElementById("main").append(el("section", { id }));
}
for (const run of data.runs) {
  const box = el("input", { type: "checkbox", checked: true, onchange: () => {
    run.shown = box.checked;
    drawAll();
  } });
  document.getElementById("runs").append(el("label", {}, box, ` ${run.name}`));
}
drawAll();
document.documentElement.dataset.ready = "yes";
