"use strict";
(() => {
  const make = (name, attributes) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const key in attributes) node.setAttribute(key, attributes[key]);
    return node;
  };
  const nearest = (sorted, value) => {
    let low = 0, high = sorted.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (sorted[middle] < value) low = middle; else high = middle;
    }
    return value - sorted[low] <= sorted[high] - value ? low : high;
  };
  const curves = [];

  /** Put a layer over a plot that takes pointer, touch and arrow keys; `at(x, y)` gets shares. */
  const layer = (frame, label, at, away, key) => {
    const hit = document.createElement("div");
    hit.className = "hit";
    hit.tabIndex = 0;
    hit.setAttribute("role", "slider");
    hit.setAttribute("aria-label", label);
    const move = (event) => {
      const box = hit.getBoundingClientRect();
      at((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
    };
    hit.addEventListener("pointermove", move);
    hit.addEventListener("pointerdown", move);
    hit.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") away(); });
    hit.addEventListener("keydown", (event) => { if (key(event.key)) event.preventDefault(); });
    hit.addEventListener("blur", away);
    frame.append(hit);
    return hit;
  };

  const curve = (figure) => {
    const data = JSON.parse(figure.querySelector("script.data").textContent);
    const plot = figure.querySelector("svg.plot");
    const values = [...figure.querySelectorAll(".keys .value")];
    const last = values.map((node) => node.textContent);
    const where = figure.querySelector(".where");
    const cursor = make("line", { class: "cursor", y1: "0", y2: "100%" });
    const dots = data.lines.map((_, i) =>
      make("circle", { class: "at " + figure.querySelectorAll(".keys .swatch")[i].className.replace("swatch ", ""), r: 4.5 }));
    const group = make("g", { class: "pointer", visibility: "hidden" });
    group.append(cursor, ...dots);
    plot.append(group);
    const longest = data.lines.reduce((a, b) => (b.x.length > a.x.length ? b : a));
    let index = longest.x.length - 1;

    const show = (x) => {
      group.setAttribute("visibility", "visible");
      cursor.setAttribute("x1", x / 10 + "%");
      cursor.setAttribute("x2", x / 10 + "%");
      const told = [];
      data.lines.forEach((line, i) => {
        const n = nearest(line.x, x);
        const gap = Math.abs(line.x[n] - x);
        const near = gap <= Math.max(12, 600 / line.x.length);
        dots[i].setAttribute("visibility", near ? "inherit" : "hidden");
        dots[i].setAttribute("cx", line.x[n] / 10 + "%");
        dots[i].setAttribute("cy", line.y[n] / 10 + "%");
        values[i].textContent = near ? line.t[n] : "–";
        values[i].title = near && line.r ? line.r[n] : "";
        if (near) told.push(line.t[n] + (line.r ? " (" + line.r[n] + ")" : ""));
      });
      const n = nearest(longest.x, x);
      const epoch = data.low + (data.high - data.low) * longest.x[n] / 1000;
      const text = data.x === "epoch"
        ? "epoch " + +epoch.toFixed(data.high < 10 ? 2 : 1) + ", step " + longest.s[n].toLocaleString("en").replace(/,/g, "\u202f")
        : "step " + longest.s[n].toLocaleString("en").replace(/,/g, "\u202f");
      where.textContent = text;
      where.hidden = false;
      hit.setAttribute("aria-valuetext", text + ": " + told.join(", "));
      hit.setAttribute("aria-valuenow", Math.round(x));
    };
    const clear = () => {
      group.setAttribute("visibility", "hidden");
      values.forEach((node, i) => { node.textContent = last[i]; node.title = ""; });
      where.hidden = true;
    };
    const all = (x) => curves.forEach((one) => one.show(x));
    const none = () => curves.forEach((one) => one.clear());
    const hit = layer(figure.querySelector(".frame"), figure.querySelector("h3").textContent,
      (x) => all(Math.min(1000, Math.max(0, x * 1000))), none, (key) => {
        const step = { ArrowLeft: -1, ArrowRight: 1, PageDown: -10, PageUp: 10, Home: -1e6, End: 1e6 }[key];
        if (key === "Escape") none();
        if (!step) return false;
        index = Math.min(longest.x.length - 1, Math.max(0, index + step));
        all(longest.x[index]);
        return true;
      });
    hit.setAttribute("aria-valuemin", 0);
    hit.setAttribute("aria-valuemax", 1000);
    hit.setAttribute("aria-valuenow", 1000);
    curves.push({ show, clear });
  };

  const matrix = (figure) => {
    const data = JSON.parse(figure.querySelector("script.data").textContent);
    const plot = figure.querySelector("svg.plot");
    const readout = figure.querySelector(".readout");
    const before = [...readout.childNodes];
    const k = data.k, part = 100 / k;
    const box = make("rect", { class: "chosen", width: part + "%", height: part + "%", visibility: "hidden" });
    plot.append(box);
    const rows = data.counts.map((row) => row.reduce((a, b) => a + b, 0));
    let i = 0, j = 0;
    const show = () => {
      box.setAttribute("visibility", "visible");
      box.setAttribute("x", j * part + "%");
      box.setAttribute("y", i * part + "%");
      const n = data.counts[i][j];
      const share = rows[i] ? " (" + (100 * n / rows[i]).toFixed(1) + "\u202f%)" : "";
      const text = "true " + data.names[i] + ", predicted " + data.names[j] + ": " + n + " of " + rows[i] + share;
      readout.textContent = text;
      hit.setAttribute("aria-valuetext", text);
      hit.setAttribute("aria-valuenow", i * k + j);
    };
    const clamp = (v) => Math.min(k - 1, Math.max(0, v));
    const hit = layer(figure.querySelector(".frame"), "Confusion matrix, arrow keys read the cells",
      (x, y) => { j = clamp(Math.floor(x * k)); i = clamp(Math.floor(y * k)); show(); },
      () => { box.setAttribute("visibility", "hidden"); readout.replaceChildren(...before); },
      (key) => {
        const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[key];
        if (!step) return false;
        i = clamp(i + step[0]);
        j = clamp(j + step[1]);
        show();
        return true;
      });
    hit.setAttribute("aria-valuemin", 0);
    hit.setAttribute("aria-valuemax", k * k - 1);
    hit.setAttribute("aria-valuenow", 0);
  };

  document.querySelectorAll("figure.curve").forEach(curve);
  document.querySelectorAll("figure.matrix").forEach(matrix);
})();
