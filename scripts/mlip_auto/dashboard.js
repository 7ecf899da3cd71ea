"use strict";
// Draws the figures, gives them the page's colours, and filters rows, figures and curves by generation and walker.
{
  const PAPER_WIDTH = 660;  // px: A4 and Letter, margins left out
  const all = selector => [...document.querySelectorAll(selector)];
  const byId = id => document.getElementById(id);
  const parse = id => JSON.parse(byId(id).textContent);
  const buttons = names => ({responsive: true, displaylogo: false, modeBarButtons: [names]});

  function pageColors() {
    const style = getComputedStyle(document.documentElement);
    return name => style.getPropertyValue(`--${name}`).trim();
  }

  // A browser that prints waits for no figure to take the paper's width.
  const printed = matchMedia("print");
  const sizeFigure = () => printed.matches ? {width: PAPER_WIDTH, autosize: false} : {width: null, autosize: true};

  // Changes of a layout that give it the colours of the light, the dark or the printed page.
  function colorLayout(layout) {
    const color = pageColors();
    const changes = {
      "font.color": color("ink"), paper_bgcolor: color("paper"), plot_bgcolor: color("paper"),
      "hoverlabel.bgcolor": color("head"), "hoverlabel.font.color": color("ink"), "hoverlabel.bordercolor": color("quiet"),
      "modebar.color": color("quiet"), "modebar.activecolor": color("ink"), "modebar.bgcolor": color("paper"),
    };
    for (const axis of Object.keys(layout).filter(key => /^[xy]axis\d*$/.test(key))) {
      for (const part of ["gridcolor", "zerolinecolor"]) changes[`${axis}.${part}`] = color("grid");
      for (const part of ["linecolor", "tickcolor"]) changes[`${axis}.${part}`] = color("quiet");
    }
    return changes;
  }

  // Whether the filters let a row, a figure or a curve of this generation and walker through.
  function shows({generation: g, walker: w}) {
    const generation = byId("filter-generation")?.value, walker = byId("filter-walker")?.value;
    return (!generation || g === undefined || String(g) === generation) && (!walker || !w || w === walker);
  }

  const plots = [];
  function draw(figure) {
    const plot = figure.querySelector(".plot");
    const {data, layout} = JSON.parse(figure.querySelector("script").textContent);
    for (const [path, value] of Object.entries(colorLayout(layout))) {
      const keys = path.split("."), last = keys.pop();
      keys.reduce((part, key) => part[key] ??= {}, layout)[last] = value;
    }
    for (const trace of data) if (trace.meta) trace.visible = shows(trace.meta);
    plots.push(plot);
    return Plotly.newPlot(plot, data, layout, buttons(["toImage", "resetScale2d"]));
  }

  // ---- the 3D view of one cut

  const cuts = byId("cut-data") ? parse("cut-data") : [];
  const view = byId("cut-plot");
  let shownCut = cuts.findIndex(cut => cut.atoms);

  const edgesOfCell = ([a, b, c]) => {
    const corner = (i, j, k) => [0, 1, 2].map(axis => (i - 0.5) * a[axis] + (j - 0.5) * b[axis] + (k - 0.5) * c[axis]);
    const points = [];
    for (const [i, j] of [[0, 0], [0, 1], [1, 0], [1, 1]]) {
      points.push(corner(0, i, j), corner(1, i, j), null, corner(i, 0, j), corner(i, 1, j), null, corner(i, j, 0), corner(i, j, 1), null);
    }
    return points;
  };

  // Pairs closer than 1.2 times the sum of their covalent radii, as lines; none through the faces of a cell.
  const findBonds = ({elements, x, radii}) => {
    const points = [];
    const at = i => [x[0][i], x[1][i], x[2][i]];
    for (let i = 0; i < elements.length; i++) {
      for (let j = 0; j < i; j++) {
        const distance = Math.hypot(x[0][i] - x[0][j], x[1][i] - x[1][j], x[2][i] - x[2][j]);
        if (distance < 1.2 * (radii[elements[i]] + radii[elements[j]])) points.push(at(i), at(j), null);
      }
    }
    return points;
  };

  const makeLines = (points, name, color, width) => ({
    type: "scatter3d", mode: "lines", name, hoverinfo: "skip", showlegend: false, line: {color, width},
    x: points.map(p => p && p[0]), y: points.map(p => p && p[1]), z: points.map(p => p && p[2]),
  });

  function makeAtoms(atoms, core, largest) {
    const chosen = atoms.core.flatMap((flag, i) => flag === core ? [i] : []);
    const pick = values => chosen.map(i => values[i]);
    const scale = Math.min(18, 80 / Math.cbrt(atoms.elements.length));  // of the balls; smaller where they are many
    const ticks = [0.5, 1, 2, 5, 10, 20, 50, 100, 1000, 1e4, 1e6].filter(tick => tick <= largest);
    return {
      type: "scatter3d", mode: "markers", name: core ? "core: forces count" : "buffer: masked", showlegend: true,
      x: pick(atoms.x[0]), y: pick(atoms.x[1]), z: pick(atoms.x[2]),
      text: chosen.map(i => `${atoms.elements[i]}, γ ${atoms.gamma[i]}${i === atoms.center ? ", the atom it was cut for" : ""}`),
      hovertemplate: `%{text}<extra>${core ? "core" : "buffer"}</extra>`,
      marker: {
        symbol: core ? "circle" : "diamond-open",
        size: chosen.map(i => (core ? 1 : 0.6) * (i === atoms.center ? 1.5 : 1) * scale * atoms.radii[atoms.elements[i]]),
        color: chosen.map(i => Math.log10(Math.max(atoms.gamma[i], 0.1))),
        colorscale: parse("gamma-scale"), cmin: Math.log10(0.5), cmax: Math.log10(largest), showscale: core === 1,
        line: {color: pageColors()("paper"), width: core ? 1 : 0}, opacity: 1,
        colorbar: {title: {text: "γ in MD"}, thickness: 12, len: 0.8, tickvals: ticks.map(Math.log10), ticktext: ticks},
      },
    };
  }

  function showCut(index) {
    const cut = cuts[index];
    shownCut = index;
    const {atoms} = cut, color = pageColors(), capitalise = text => text[0].toUpperCase() + text.slice(1), largest = Math.max(2, ...atoms.gamma);
    const traces = [makeAtoms(atoms, 1, largest)];
    if (atoms.core.includes(0)) traces.push(makeAtoms(atoms, 0, largest));
    if (atoms.cell) traces.push(makeLines(edgesOfCell(atoms.cell), "cell", color("quiet"), 2));
    if (byId("bonds").checked) traces.push(makeLines(findBonds(atoms), "bonds", color("line"), 3));
    const axis = {visible: false, showspikes: false};
    const away = view.clientWidth < 500 ? 1.5 : 1;
    const layout = {
      ...sizeFigure(), height: 480, margin: {l: 0, r: 0, t: 8, b: 0}, uirevision: "keep the camera", paper_bgcolor: color("paper"),
      font: {family: "system-ui, sans-serif", size: 13, color: color("ink")},
      legend: {orientation: "h", x: 0, y: 0}, scene: {xaxis: axis, yaxis: axis, zaxis: axis, aspectmode: "data", camera: {eye: {x: 1.7 * away, y: 0.9 * away, z: 0.6 * away}}},
    };
    const drawn = Plotly.react(view, traces, layout, buttons(["toImage", "resetCameraDefault3d"]));
    byId("cut-title").textContent = `Cut ${index + 1} of ${cuts.length}: generation ${cut.generation}, ${cut.run}, step ${cut.step}`;
    byId("cut-why").textContent =
      `${capitalise(cut.origin)}. ${cut.n_core} of ${cut.n_atoms} atoms are core, whose forces count. ${capitalise(cut.fate)}: ${cut.why}.`;
    for (const button of all("[data-cut]")) button.setAttribute("aria-pressed", String(Number(button.dataset.cut) === index));
    return drawn;
  }

  const shownButtons = () => all("[data-cut]").filter(button => !button.closest("[hidden]")).map(button => Number(button.dataset.cut));
  function step(by) {
    const shown = shownButtons();
    if (shown.length) showCut(shown[(Math.max(shown.indexOf(shownCut), 0) + by + shown.length) % shown.length]);
  }
  if (view && shownCut >= 0) {
    for (const button of all("[data-cut]")) button.addEventListener("click", () => showCut(Number(button.dataset.cut)));
    byId("bonds").addEventListener("change", () => showCut(shownCut));
    byId("previous-cut").addEventListener("click", () => step(-1));
    byId("next-cut").addEventListener("click", () => step(1));
  }

  // ---- filters

  function filterPage() {
    for (const element of all("[data-generation], [data-walker]")) element.hidden = !shows(element.dataset);
    const rows = all("#md-runs tbody tr");
    byId("filter-result").textContent = `${rows.filter(row => !row.hidden).length} of ${rows.length} MD runs`;
    if (view && shownCut >= 0 && !shownButtons().includes(shownCut)) step(0);
  }
  function filter() {
    filterPage();
    for (const plot of plots) {
      const visible = plot.data.map(trace => trace.meta ? shows(trace.meta) : trace.visible ?? true);
      if (plot.data.some(trace => trace.meta)) Plotly.restyle(plot, {visible});
      if (plot.offsetParent) Plotly.Plots.resize(plot);
    }
  }
  if (byId("filters")) {
    byId("filters").addEventListener("change", filter);
    byId("filters").addEventListener("reset", () => setTimeout(filter));
    filterPage();  // by what was chosen before this script ran, or kept by a browser that reloads the page
  }

  // ---- light, dark, print

  function recolor() {
    for (const plot of plots) Plotly.relayout(plot, {...colorLayout(plot.layout), ...sizeFigure()});
    if (view && shownCut >= 0) showCut(shownCut);
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolor);
  printed.addEventListener("change", recolor);

  // One figure at a time, so that the page can be read and scrolled meanwhile.
  async function drawAll() {
    for (const figure of all("figure[data-figure]")) {
      await draw(figure);
      await new Promise(resolve => setTimeout(resolve));
    }
    if (view && shownCut >= 0) await showCut(shownCut);
    document.documentElement.dataset.drawn = "true";
  }
  drawAll();
}
