"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const el = (id) => document.getElementById(id);
  const canvas = el("disk");
  const context = canvas.getContext("2d");
  const count = data.names.length;
  const SHAPES = ["circle", "square", "triangle", "diamond", "flag", "plus"];
  const HIT = 14; // pixels
  const MILLISECONDS = 500;
  const STEP = 0.25; // of an arrow key, a hyperbolic distance

  // --- Isometries of the disk: z -> (p z + q) / (conj(q) z + conj(p)), as
  // [p, q] with |p|^2 - |q|^2 = 1; complex numbers are [re, im].
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

  function distance(a, b) {
    const gap = square([a[0] - b[0], a[1] - b[1]]);
    return 2 * Math.asinh(Math.sqrt(gap / ((1 - square(a)) * (1 - square(b)))));
  }

  // --- State
  const start = data.names.map((_, i) => [data.x[i], data.y[i]]);
  const fitting = (lengths) => Math.min(1 / (1.08 * Math.max(...lengths)), 20);
  const firstZoom = fitting([...data.radius, data.cap || 0].map((r) => Math.tanh(r / 2)));
  let view = IDENTITY;
  let now = start;
  let zoom = firstZoom;
  let chosen = -1;
  let hovered = -1;
  let found = new Set();
  let animation = 0;
  let look = () => [data.colours[0], "circle"];
  const place = new Array(count);
  data.order.forEach((index, i) => { place[index] = i; });

  function setView(isometry) {
    view = isometry;
    now = start.map((z) => apply(view, z));
    draw();
  }

  // --- Drawing
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function frame() {
    const size = Math.min(canvas.clientWidth, canvas.clientHeight);
    return {
      scale: (size / 2 - 6) * zoom,
      x: canvas.clientWidth / 2,
      y: canvas.clientHeight / 2,
    };
  }

  const toPixels = (z, f) => [f.x + f.scale * z[0], f.y - f.scale * z[1]];
  const fromPixels = (x, y, f) => [(x - f.x) / f.scale, (f.y - y) / f.scale];

  function shape(c, kind, x, y, r) {
    c.beginPath();
    if (kind === "circle") c.arc(x, y, r, 0, 7);
    else if (kind === "square") c.rect(x - 0.9 * r, y - 0.9 * r, 1.8 * r, 1.8 * r);
    else if (kind === "plus") {
      const a = 1.15 * r, b = 0.4 * r;
      [[-b, -a], [b, -a], [b, -b], [a, -b], [a, b], [b, b], [b, a], [-b, a], [-b, b], [-a, b], [-a, -b], [-b, -b]]
        .forEach(([u, v]) => c.lineTo(x + u, y + v));
      c.closePath();
    } else {
      const corners = { triangle: [3, -0.5], diamond: [4, -0.5], flag: [3, 0.5] }[kind];
      for (let i = 0; i < corners[0]; i++) {
        const angle = Math.PI * (corners[1] + 2 * i / corners[0]);
        c.lineTo(x + 1.25 * r * Math.cos(angle), y + 1.25 * r * Math.sin(angle));
      }
      c.closePath();
    }
  }

  let asked = false;
  function draw() {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; paint(); });
  }

  function paint() {
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const f = frame();
    const c = context;
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    c.clearRect(0, 0, width, height);
    c.beginPath();
    c.arc(f.x, f.y, f.scale, 0, 7);
    c.fillStyle = css("--disk");
    c.fill();
    c.strokeStyle = css("--edge");
    c.lineWidth = 1.5;
    c.stroke();
    if (data.cap !== null && data.hasRadius) {
      c.setLineDash([2, 4]);
      circle(c, Math.tanh(data.cap / 2), f, css("--ink"));
      c.setLineDash([]);
    }
    if (el("tree").checked) paintTree(c, f);
    const origin = toPixels(apply(view, [0, 0]), f);
    c.strokeStyle = css("--faint");
    c.beginPath();
    c.moveTo(origin[0] - 4, origin[1]);
    c.lineTo(origin[0] + 4, origin[1]);
    c.moveTo(origin[0], origin[1] - 4);
    c.lineTo(origin[0], origin[1] + 4);
    c.stroke();
    const r = Math.max(2, Math.min(6, 110 / Math.sqrt(count)) * Math.sqrt(zoom / firstZoom));
    const outline = css("--outline");
    for (let i = 0; i < count; i++) {
      const [x, y] = toPixels(now[i], f);
      const [colour, kind] = look(i);
      c.globalAlpha = found.size && !found.has(i) ? 0.25 : 1;
      shape(c, kind, x, y, r);
      c.fillStyle = colour;
      c.fill();
      c.lineWidth = 0.7;
      c.strokeStyle = outline;
      c.stroke();
    }
    c.globalAlpha = 1;
    c.strokeStyle = css("--stress");
    if (chosen >= 0) {
      for (const j of data.near[chosen]) ring(c, j, r + 3, 1.2, f);
      ring(c, chosen, r + 4, 2.5, f);
    }
    if (hovered >= 0) ring(c, hovered, r + 3, 1.8, f);
  }

  function ring(c, i, r, width, f) {
    const [x, y] = toPixels(now[i], f);
    c.lineWidth = width;
    c.beginPath();
    c.arc(x, y, r, 0, 7);
    c.stroke();
  }

  // A circle about the first origin stays a circle.
  function circle(c, radius, f, colour) {
    c.beginPath();
    for (let i = 0; i <= 120; i++) {
      const angle = i * Math.PI / 60;
      const z = apply(view, [radius * Math.cos(angle), radius * Math.sin(angle)]);
      c.lineTo(...toPixels(z, f));
    }
    c.strokeStyle = colour;
    c.lineWidth = 1;
    c.stroke();
  }

  function paintTree(c, f) {
    c.beginPath();
    const step = 2 * data.edgeSteps;
    for (let i = 0; i < data.edges.length; i += step) {
      for (let k = i; k < i + step; k += 2) {
        const [x, y] = toPixels(apply(view, [data.edges[k], data.edges[k + 1]]), f);
        if (k === i) c.moveTo(x, y);
        else c.lineTo(x, y);
      }
    }
    c.strokeStyle = css("--edge");
    c.lineWidth = count > 1000 ? 0.4 : 0.9;
    c.stroke();
  }

  // --- Colours
  function ramp(t) {
    const at = t * (data.stops.length - 1);
    const i = Math.min(Math.floor(at), data.stops.length - 2);
    const [a, b] = [data.stops[i], data.stops[i + 1]].map((s) =>
      [1, 3, 5].map((k) => parseInt(s.slice(k, k + 2), 16)));
    return `rgb(${a.map((v, k) => Math.round(v + (b[k] - v) * (at - i))).join(",")})`;
  }

  function colourBy(column) {
    el("legend").replaceChildren();
    el("bar").hidden = true;
    if (!column) {
      look = () => [data.colours[0], "circle"];
    } else if (column.categories) {
      byCategory(column.categories);
    } else {
      byNumber(column.values.map((v) => (v === "" ? NaN : Number(v))));
    }
    draw();
  }

  function byCategory(categories) {
    const counts = new Map();
    for (const name of categories) counts.set(name, (counts.get(name) || 0) + 1);
    const last = (name) => Number(name === "other") + 2 * Number(name === "unknown");
    const names = [...counts.keys()].sort((a, b) => last(a) - last(b) || (a < b ? -1 : 1));
    const looks = new Map();
    names.forEach((name, i) => looks.set(name, last(name)
      ? [data.grey, last(name) === 1 ? "plus" : "diamond"]
      : [data.colours[i % data.colours.length], SHAPES[i % SHAPES.length]]));
    for (const name of names) legendLine(`${name} (${counts.get(name)})`, looks.get(name));
    look = (i) => looks.get(categories[i]);
  }

  function legendLine(text, [colour, kind]) {
    const line = document.createElement("li");
    const sample = document.createElement("canvas");
    sample.width = sample.height = 36;
    sample.setAttribute("aria-hidden", "true");
    const c = sample.getContext("2d");
    shape(c, kind, 18, 18, 10);
    c.fillStyle = colour;
    c.fill();
    line.append(sample, text);
    el("legend").append(line);
  }

  function byNumber(numbers) {
    const known = numbers.filter(Number.isFinite);
    const low = known.reduce((a, b) => Math.min(a, b), Infinity);
    const high = known.reduce((a, b) => Math.max(a, b), -Infinity);
    const looks = numbers.map((v) => (Number.isFinite(v)
      ? [ramp(high > low ? (v - low) / (high - low) : 0.5), "circle"]
      : [data.grey, "diamond"]));
    look = (i) => looks[i];
    const c = el("ramp").getContext("2d");
    for (let x = 0; x < 256; x++) {
      c.fillStyle = ramp(x / 255);
      c.fillRect(x, 0, 1, 1);
    }
    el("low").textContent = Number(low.toPrecision(4));
    el("high").textContent = Number(high.toPrecision(4));
    el("bar").hidden = false;
    if (known.length < numbers.length) legendLine(`unknown (${numbers.length - known.length})`, [data.grey, "diamond"]);
  }

  // --- What is said of a speaker
  function facts(i) {
    const rows = data.columns.filter((c) => c.values[i] !== "").map((c) => [c.name, c.values[i]]);
    if (data.hasRadius) rows.push(["radius", data.radius[i].toFixed(3)]);
    return rows;
  }

  function tell(i) {
    const details = el("details");
    details.replaceChildren();
    if (i < 0) return;
    const add = (tag, text, parent = details) => {
      const node = document.createElement(tag);
      if (text !== undefined) node.textContent = text;
      parent.append(node);
      return node;
    };
    add("h2", data.names[i]);
    const list = add("dl");
    for (const [name, value] of facts(i)) {
      add("dt", name, list);
      add("dd", value, list);
    }
    add("h3", data.hasRadius ? "Nearest, and their distances" : "Nearest, and their angles");
    const near = add("ol");
    data.near[i].forEach((j, k) => {
      const button = add("button", undefined, add("li", undefined, near));
      button.type = "button";
      add("span", data.names[j], button);
      add("span", apart(data.distance[i][k]), button);
      button.addEventListener("click", () => { choose(j); canvas.focus(); });
    });
  }

  // All of one radius R: sinh(d / 2) = sinh(R) sin(angle / 2).
  function apart(d) {
    if (data.hasRadius) return d.toFixed(3);
    const sine = Math.min(1, Math.sinh(d / 2) / Math.sinh(data.radius[0]));
    return `${(360 / Math.PI * Math.asin(sine)).toFixed(1)}°`;
  }

  function hover(i, x, y) {
    const changed = hovered !== i;
    hovered = i;
    const tip = el("tip");
    tip.hidden = i < 0;
    if (i >= 0) {
      const first = data.near[i][0];
      tip.textContent = [data.names[i], ...facts(i).map((pair) => pair.join(" ")),
        `nearest ${data.names[first]} (${apart(data.distance[i][0])})`].join(", ");
      tip.style.left = `${Math.max(0, Math.min(x + 14, canvas.clientWidth - tip.offsetWidth))}px`;
      tip.style.top = `${Math.max(0, Math.min(y + 14, canvas.clientHeight - tip.offsetHeight))}px`;
    }
    if (!changed) return;
    tell(i >= 0 ? i : chosen);
    draw();
  }

  function choose(i, move = true) {
    chosen = i;
    hover(-1);
    tell(i);
    if (move) moveToOrigin(i);
    else draw();
  }

  // Along the geodesic, at a speed that is hyperbolic too; and so that all
  // that is then on the disk is seen.
  function moveToOrigin(i) {
    const from = view;
    const zoomed = zoom;
    const z = apply(view, start[i]);
    const length = Math.hypot(...z);
    const end = compose(toOrigin(z), from);
    const fit = fitting(start.map((other) => Math.hypot(...apply(end, other))));
    glide((share) => {
      const part = length ? Math.tanh(share * Math.atanh(length)) / length : 0;
      zoom = zoomed * (fit / zoomed) ** share;
      setView(compose(toOrigin(times(z, part)), from));
    });
  }

  function glide(at) {
    cancelAnimationFrame(animation);
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) {
      at(1);
      return;
    }
    const began = performance.now();
    const tick = (time) => {
      const t = Math.min(1, Math.max(0, time - began) / MILLISECONDS);
      at(t * t * (3 - 2 * t));
      if (t < 1) animation = requestAnimationFrame(tick);
    };
    animation = requestAnimationFrame(tick);
  }

  function reset() {
    cancelAnimationFrame(animation);
    chosen = hovered = -1;
    found = new Set();
    el("search").value = "";
    el("found").textContent = "";
    zoom = firstZoom;
    hover(-1);
    tell(-1);
    setView(IDENTITY);
  }

  function zoomBy(factor) {
    zoom = Math.max(0.95, Math.min(60, zoom * factor));
    draw();
  }

  // --- Pointer, keyboard, search
  function nearestTo(x, y) {
    const f = frame();
    let best = -1;
    let least = HIT * HIT;
    for (let i = 0; i < count; i++) {
      const [u, v] = toPixels(now[i], f);
      const gap = (u - x) ** 2 + (v - y) ** 2;
      if (gap < least) [best, least] = [i, gap];
    }
    return best;
  }

  // Not onto the rim, from where nothing comes back.
  function inDisk(z) {
    const length = Math.hypot(...z);
    return length > 0.97 ? times(z, 0.97 / length) : z;
  }

  let drag = null;
  canvas.addEventListener("pointerdown", (event) => {
    cancelAnimationFrame(animation);
    canvas.setPointerCapture(event.pointerId);
    drag = { x: event.offsetX, y: event.offsetY, from: view, moved: false };
  });
  canvas.addEventListener("pointermove", (event) => {
    const { offsetX: x, offsetY: y } = event;
    if (!drag) {
      hover(nearestTo(x, y), x, y);
      return;
    }
    if (!drag.moved && Math.hypot(x - drag.x, y - drag.y) < 4) return;
    drag.moved = true;
    canvas.classList.add("dragging");
    hover(-1);
    const f = frame();
    const before = toOrigin(inDisk(fromPixels(drag.x, drag.y, f)));
    const after = translation(inDisk(fromPixels(x, y, f)));
    setView(compose(compose(after, before), drag.from));
  });
  const drop = (event) => {
    if (drag && !drag.moved && event.type === "pointerup") {
      const i = nearestTo(event.offsetX, event.offsetY);
      if (i >= 0) choose(i);
    }
    drag = null;
    canvas.classList.remove("dragging");
  };
  canvas.addEventListener("pointerup", drop);
  canvas.addEventListener("pointercancel", drop);
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
      const step = key === "n" ? 1 : -1;
      const at = chosen < 0 ? (step > 0 ? -1 : 0) : place[chosen];
      choose(data.order[(at + step + count) % count], false);
    } else if (key === "Enter" && chosen >= 0) choose(chosen);
    else if (key === "+" || key === "=") zoomBy(1.25);
    else if (key === "-") zoomBy(0.8);
    else if (key === "Escape") reset();
    else return;
    event.preventDefault();
  });

  function search() {
    const wanted = el("search").value.trim().toLowerCase();
    found = new Set();
    if (wanted) {
      data.names.forEach((name, i) => { if (name.toLowerCase().includes(wanted)) found.add(i); });
      el("found").textContent = `${found.size} of ${count} speakers found`;
    } else {
      el("found").textContent = "";
    }
    draw();
  }
  el("search").addEventListener("input", search);
  el("controls").addEventListener("submit", (event) => {
    event.preventDefault();
    const wanted = el("search").value.trim().toLowerCase();
    const exact = [...found].find((i) => data.names[i].toLowerCase() === wanted);
    const first = exact ?? [...found][0];
    if (first !== undefined) choose(first);
  });
  el("column").addEventListener("change", (event) => {
    const i = Number(event.target.value);
    colourBy(i < 0 ? null : choices[i]);
  });
  el("tree").addEventListener("change", draw);
  el("reset").addEventListener("click", reset);
  el("closer").addEventListener("click", () => zoomBy(1.25));
  el("farther").addEventListener("click", () => zoomBy(0.8));
  new ResizeObserver(draw).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

  // --- Start
  document.title = data.title;
  el("title").textContent = data.title;
  const choices = data.columns.filter((c) => new Set(c.values).size > 1);
  if (data.hasRadius) choices.push({ name: "radius", values: data.radius, categories: null });
  choices.forEach((c, i) => el("column").add(new Option(c.name, i)));
  el("column").add(new Option("none", -1));
  if (count <= 1000) {
    for (const name of data.names) el("names").append(new Option(name, name));
  }
  el("truth").textContent = (data.hasRadius
    ? "At first a speaker's distance from the origin is its hyperbolic radius, which is true, and "
    : "This head has no radius: all speakers are drawn at one. ")
    + `${data.hasRadius ? "its" : "Their"} angle is the place in the tree of the distances in `
    + `${data.dimensions} dimensions: of the five nearest ${data.kept} % are nearest here too. The `
    + "distances in the list are true. Moving the disk keeps all distances on it.";
  colourBy(choices.length ? choices[0] : null);
  setView(IDENTITY);

  // For tests, and for the console.
  window.disk = {
    distance,
    translation,
    compose,
    apply,
    points: () => now.map((z) => [...z]),
    pixels: (i) => toPixels(now[i], frame()),
    chosen: () => chosen,
    setView,
  };
})();
