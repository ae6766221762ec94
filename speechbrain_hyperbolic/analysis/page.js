"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const el = (id) => document.getElementById(id);
  const canvas = el("disk");
  const count = data.names.length;
  const HIT = 14; // pixels
  const MILLISECONDS = 500; // of a motion
  const STEP = 0.25; // hyperbolic, of an arrow key

  // --- Isometries of the disk: z -> (p z + q) / (conj(q) z + conj(p)), as
  // [p, q] with |p|^2 - |q|^2 = 1. Complex numbers are [re, im].
  const IDENTITY = [[1, 0], [0, 0]];
  const multiply = (a, b) => [a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]];
  const conjugate = (a) => [a[0], -a[1]];
  const sum = (a, b) => [a[0] + b[0], a[1] + b[1]];
  const times = (a, s) => [a[0] * s, a[1] * s];
  const square = (a) => a[0] * a[0] + a[1] * a[1];

  function apply([p, q], z) {
    const top = sum(multiply(p, z), q);
    const bottom = sum(multiply(conjugate(q), z), conjugate(p));
    return times(multiply(top, conjugate(bottom)), 1 / square(bottom));
  }

  // First b, then a; scaled back, or rounding would add up.
  function compose(a, b) {
    const p = sum(multiply(a[0], b[0]), multiply(a[1], conjugate(b[1])));
    const q = sum(multiply(a[0], b[1]), multiply(a[1], conjugate(b[0])));
    const scale = 1 / Math.sqrt(square(p) - square(q));
    return [times(p, scale), times(q, scale)];
  }

  // The translation that takes the origin to a point.
  function translation(to) {
    const scale = 1 / Math.sqrt(1 - square(to));
    return [[scale, 0], times(to, scale)];
  }
  const toOrigin = (from) => translation(times(from, -1));

  // --- State. The first points are the speakers, the rest the tree's nodes.
  const start = data.x.map((x, i) => [x, data.y[i]]);
  const capSize = data.cap === null ? 0 : Math.tanh(data.cap / 2);
  const fitting = (points) =>
    Math.min(20, 1 / (1.08 * Math.max(1e-6, capSize, ...points.map((z) => Math.hypot(...z)))));
  const firstZoom = fitting(start);
  const angle = (i) => Math.atan2(...start[i]);
  const order = [...data.names.keys()].sort((i, j) => angle(i) - angle(j));
  let [view, now, zoom] = [IDENTITY, start, firstZoom];
  let [chosen, hovered, animation, repaint] = [-1, -1, 0, 0];
  let [found, column] = [new Set(), null];

  function setView(isometry) {
    [view, now] = [isometry, start.map((z) => apply(isometry, z))];
    draw();
  }

  // --- Drawing
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function frame() {
    const [x, y] = [canvas.clientWidth / 2, canvas.clientHeight / 2];
    return { scale: (Math.min(x, y) - 6) * zoom, x, y };
  }
  const toPixels = (z, f) => [f.x + f.scale * z[0], f.y - f.scale * z[1]];

  // Matplotlib's markers: corners, place of the first one, inner radius of stars
  const CORNERS = { s: [4, 0.25], "^": [3, -0.5], D: [4, -0.5], v: [3, 0.5], P: [8, 0, 0.4], X: [8, 0.25, 0.4] };

  function shape(c, marker, x, y, r) {
    c.beginPath();
    const [corners, first, inner = 1] = CORNERS[marker] ?? [0];
    if (!corners) c.arc(x, y, r, 0, 7);
    for (let i = 0; i < corners; i++) {
      const angle = Math.PI * (first + 2 * i / corners);
      const length = 1.25 * r * (i % 2 ? inner : 1);
      c.lineTo(x + length * Math.cos(angle), y + length * Math.sin(angle));
    }
    c.closePath();
  }

  function draw() {
    cancelAnimationFrame(repaint);
    repaint = requestAnimationFrame(paint);
  }

  function paint() {
    const ratio = window.devicePixelRatio || 1;
    canvas.width = Math.round(canvas.clientWidth * ratio); // and clears it
    canvas.height = Math.round(canvas.clientHeight * ratio);
    const f = frame();
    const c = canvas.getContext("2d");
    const circle = (x, y, r, color, width) => {
      shape(c, "o", x, y, r);
      [c.strokeStyle, c.lineWidth] = [color, width];
      c.stroke();
    };
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    circle(f.x, f.y, f.scale, css("--edge"), 1.5);
    c.fillStyle = css("--disk");
    c.fill();
    if (el("tree").checked) paintTree(c, f);
    const origin = apply(view, [0, 0]);
    circle(...toPixels(origin, f), 2, css("--faint"), 1);
    if (capSize) {
      // A circle stays one; its diameter through the origin ends at +-cap.
      const away = Math.hypot(...origin);
      const [near, far] = [-1, 1].map((s) => Math.tanh(Math.atanh(away) + s * data.cap / 2));
      const middle = times(origin, away ? (near + far) / 2 / away : 0);
      c.setLineDash([2, 4]);
      circle(...toPixels(middle, f), f.scale * (far - near) / 2, css("--ink"), 1);
      c.setLineDash([]);
    }
    const r = Math.max(2, Math.min(6, 110 / Math.sqrt(count)) * Math.sqrt(zoom / firstZoom));
    [c.strokeStyle, c.lineWidth] = [css("--outline"), 0.7];
    for (let i = 0; i < count; i++) {
      const [color, marker] = column ? column.styles[column.groups[i]] : ["#0072B2", "o"];
      c.globalAlpha = found.size && !found.has(i) ? 0.25 : 1;
      shape(c, marker, ...toPixels(now[i], f), r);
      c.fillStyle = color;
      c.fill();
      c.stroke();
    }
    c.globalAlpha = 1;
    const ring = (i, more, width) => circle(...toPixels(now[i], f), r + more, css("--ink"), width);
    if (chosen >= 0) {
      data.nearest[chosen].forEach((i) => ring(i, 3, 1.2));
      ring(chosen, 4, 2.5);
    }
    if (hovered >= 0) ring(hovered, 3, 1.8);
  }

  // A geodesic is an arc of the circle through both ends that meets the rim at
  // right angles: its center m has 2 m . z = 1 + |z|^2 for both.
  function paintTree(c, f) {
    c.beginPath();
    data.parent.forEach((parent, i) => {
      if (parent < 0) return;
      const [a, b] = [now[i], now[parent]];
      const [s, t] = [(1 + square(a)) / 2, (1 + square(b)) / 2];
      const cross = a[0] * b[1] - a[1] * b[0];
      const [from, to] = [toPixels(a, f), toPixels(b, f)];
      c.moveTo(...from);
      const middle = times([s * b[1] - t * a[1], t * a[0] - s * b[0]], 1 / cross);
      const [x, y] = toPixels(middle, f);
      const [first, last] = [from, to].map(([u, v]) => Math.atan2(v - y, u - x));
      const radius = f.scale * Math.sqrt(square(middle) - 1);
      if (Math.abs(cross) < 1e-4) c.lineTo(...to); // nearly a diameter
      else c.arc(x, y, radius, first, last, Math.sin(last - first) < 0);
    });
    [c.strokeStyle, c.lineWidth] = [css("--edge"), count > 1000 ? 0.4 : 0.9];
    c.stroke();
  }

  function colorBy(index) {
    column = data.columns[index];
    el("legend").replaceChildren();
    for (const [name, [color, marker]] of Object.entries(column ? column.styles : {})) {
      const line = add("li", "", el("legend"));
      const sample = add("canvas", "", line);
      sample.width = sample.height = 36;
      const c = sample.getContext("2d");
      shape(c, marker, 18, 18, 10);
      c.fillStyle = color;
      c.fill();
      line.append(`${name} (${column.groups.filter((group) => group === name).length})`);
    }
    draw();
  }

  // --- What is known about a speaker
  function add(tag, text, parent) {
    const node = document.createElement(tag);
    node.textContent = text;
    parent.append(node);
    return node;
  }

  function showDetails(i) {
    const details = el("details");
    details.replaceChildren();
    if (i < 0) return;
    add("h2", data.names[i], details);
    const list = add("dl", "", details);
    const known = data.columns.map(({ name, values }) => [name, values[i]]);
    for (const [name, value] of [...known, ["radius", data.radius[i]]]) {
      if (value) { add("dt", name, list); add("dd", value, list); }
    }
    add("h3", "Nearest speakers", details);
    const near = add("ol", "", details);
    data.nearest[i].forEach((j, k) => {
      const button = add("button", "", add("li", "", near));
      button.type = "button";
      add("span", data.names[j], button);
      add("span", data.apart[i][k], button);
      button.addEventListener("click", () => { choose(j); canvas.focus(); });
    });
  }

  function hover(i) {
    if (hovered === i) return;
    hovered = i;
    canvas.title = data.names[i] ?? "";
    showDetails(i >= 0 ? i : chosen);
    draw();
  }

  function choose(i, move = true) {
    [chosen, hovered] = [i, -1];
    showDetails(i);
    draw();
    if (move) moveToOrigin(i);
  }

  // Along the geodesic; in the end the zoom shows all points.
  function moveToOrigin(i) {
    const [from, zoomed, z] = [view, zoom, now[i]];
    const length = Math.hypot(...z);
    const end = compose(toOrigin(z), from);
    const fit = fitting(start.map((other) => apply(end, other)));
    const quick = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const began = performance.now();
    const tick = (time) => {
      const t = quick ? 1 : Math.min(1, Math.max(0, time - began) / MILLISECONDS);
      const share = t * t * (3 - 2 * t);
      const part = length ? Math.tanh(share * Math.atanh(length)) / length : 0;
      zoom = zoomed * (fit / zoomed) ** share;
      setView(compose(toOrigin(times(z, part)), from));
      if (t < 1) animation = requestAnimationFrame(tick);
    };
    cancelAnimationFrame(animation);
    animation = requestAnimationFrame(tick);
  }

  function reset() {
    cancelAnimationFrame(animation);
    el("search").value = "";
    search();
    choose(-1, false);
    zoom = firstZoom;
    setView(IDENTITY);
  }

  function zoomBy(factor) {
    zoom = Math.max(0.95, Math.min(60, zoom * factor));
    draw();
  }

  // --- Pointer, keyboard, search
  function nearestTo(x, y) {
    const f = frame();
    let [best, least] = [-1, HIT * HIT];
    for (let i = 0; i < count; i++) {
      const [u, v] = toPixels(now[i], f);
      const gap = (u - x) ** 2 + (v - y) ** 2;
      if (gap < least) [best, least] = [i, gap];
    }
    return best;
  }

  // Stops short of the rim, from where no motion comes back.
  function fromPixels(x, y, f) {
    const z = [(x - f.x) / f.scale, (f.y - y) / f.scale];
    return times(z, Math.min(1, 0.97 / Math.hypot(...z)));
  }

  let drag = null;
  canvas.addEventListener("pointerdown", (event) => {
    cancelAnimationFrame(animation);
    canvas.setPointerCapture(event.pointerId);
    drag = { x: event.offsetX, y: event.offsetY, from: view, moved: false };
  });
  canvas.addEventListener("pointermove", ({ offsetX: x, offsetY: y }) => {
    if (!drag) hover(nearestTo(x, y));
    if (!drag || (!drag.moved && Math.hypot(x - drag.x, y - drag.y) < 4)) return;
    drag.moved = true;
    canvas.classList.add("dragging");
    hover(-1);
    const f = frame();
    const before = toOrigin(fromPixels(drag.x, drag.y, f));
    const after = translation(fromPixels(x, y, f));
    setView(compose(compose(after, before), drag.from));
  });
  canvas.addEventListener("pointerup", (event) => {
    const i = nearestTo(event.offsetX, event.offsetY);
    if (drag && !drag.moved && i >= 0) choose(i);
  });
  canvas.addEventListener("lostpointercapture", () => {
    drag = null;
    canvas.classList.remove("dragging");
  });
  canvas.addEventListener("pointerleave", () => { if (!drag) hover(-1); });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoomBy(Math.exp(-0.002 * event.deltaY));
  }, { passive: false });

  const ARROWS = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (ARROWS[key]) {
      cancelAnimationFrame(animation);
      setView(compose(translation(times(ARROWS[key], Math.tanh(STEP / 2))), view));
    } else if (key === "n" || key === "p") {
      const at = chosen < 0 && key === "p" ? 0 : order.indexOf(chosen);
      choose(order[(at + (key === "n" ? 1 : -1) + count) % count], false);
    } else if (key === "Enter" && chosen >= 0) choose(chosen);
    else if (key === "+" || key === "=") zoomBy(1.25);
    else if (key === "-") zoomBy(0.8);
    else if (key === "Escape") reset();
    else return;
    event.preventDefault();
  });

  function search() {
    const wanted = el("search").value.trim().toLowerCase();
    const matches = (name) => wanted && name.toLowerCase().includes(wanted);
    found = new Set([...data.names.keys()].filter((i) => matches(data.names[i])));
    el("found").textContent = wanted ? `${found.size} of ${count} speakers found` : "";
    draw();
  }
  el("search").addEventListener("input", search);
  el("controls").addEventListener("submit", (event) => {
    event.preventDefault();
    const wanted = el("search").value.trim().toLowerCase();
    const exact = [...found].find((i) => data.names[i].toLowerCase() === wanted);
    if (found.size) choose(exact ?? [...found][0]);
  });
  el("column").addEventListener("change", (event) => colorBy(event.target.value));
  el("tree").addEventListener("change", draw);
  el("reset").addEventListener("click", reset);
  el("closer").addEventListener("click", () => zoomBy(1.25));
  el("farther").addEventListener("click", () => zoomBy(0.8));
  new ResizeObserver(draw).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

  // --- Start
  document.title = el("title").textContent = data.title;
  el("caption").textContent = data.caption;
  data.columns.forEach(({ name }, i) => el("column").add(new Option(name, i)));
  el("column").add(new Option("none", -1));
  if (count <= 1000) data.names.forEach((name) => el("names").append(new Option(name, name)));
  colorBy(0);
  setView(IDENTITY);

  // For the tests and the console
  const pixels = (i) => toPixels(now[i], frame());
  window.disk = { points: () => now.slice(0, count), pixels, chosen: () => chosen };
})();
