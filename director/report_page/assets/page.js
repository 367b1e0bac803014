"use strict";
// Draws the plots of a session's report. The values come deflated, see director/report_page/embed.py.
(async () => {
  const byId = (id) => document.getElementById(id);
  const plots = JSON.parse(byId("plots").textContent);
  const charts = byId("charts"), strip = byId("strip"), rangeText = byId("range"), atText = byId("at");
  const COLOURS = 10, PIXELS = 1.5, AXIS = 54, RIGHT = 28, NOT_MEASURED = 0xffff, LEAST_SPAN = 0.01;
  const whole = [plots.begin, plots.end];
  const state = { a: whole[0], b: whole[1], at: null, shown: plots.panels.map((p) => p.lines.map(() => true)) };
  const printing = matchMedia("print"), dark = matchMedia("(prefers-color-scheme: dark)");
  let drawn = [], lastWidth = 0, stripWidth = 0, colour;

  let values;
  try {
    values = await inflate(byId("values").textContent);
  } catch (error) {
    atText.textContent = "This browser cannot unpack the plots (" + error.message + "). Chrome 80, Firefox 113 and Safari 16.4 or newer can.";
    return;
  }
  const lines = decode(values);
  const legends = plots.panels.map((_, i) => charts.querySelectorAll(`.legend button[data-panel="${i}"] output`));

  async function inflate(text) {
    const packed = atob(text), bytes = new Uint8Array(packed.length);
    for (let i = 0; i < packed.length; i++) bytes[i] = packed.charCodeAt(i);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  function decode(bytes) {
    let from = 0;
    return plots.lines.map((h) => {
      const n = h.n, mean = new Float64Array(n), least = new Float64Array(n), most = new Float64Array(n);
      let number = 0;
      for (let i = 0; i < n; i++) {
        const at = from + i;
        number = (number + bytes[at] + 256 * bytes[at + n]) & 0xffff;
        if (number === NOT_MEASURED) { mean[i] = least[i] = most[i] = NaN; continue; }
        mean[i] = (h.base + number) * h.step;
        least[i] = (h.base + number - bytes[at + 2 * n] - 256 * bytes[at + 3 * n]) * h.step;
        most[i] = (h.base + number + bytes[at + 4 * n] + 256 * bytes[at + 5 * n]) * h.step;
      }
      from += 6 * n;
      return { t0: h.t0, w: h.w, n, mean, least, most, step: h.step };
    });
  }

  // One value per column of PIXELS: the extremes of all bins that touch it, so that no peak is lost.
  function resample(line, a, b, columns) {
    const most = new Array(columns), mean = new Array(columns), least = new Array(columns), width = (b - a) / columns;
    for (let c = 0; c < columns; c++) {
      const left = a + c * width;
      const i = Math.max(0, Math.floor((left - line.t0) / line.w + 1e-9));
      const j = Math.min(line.n, Math.max(i + 1, Math.ceil((left + width - line.t0) / line.w - 1e-9)));
      let high = -Infinity, low = Infinity, sum = 0, count = 0;
      if (left + width > line.t0) for (let k = i; k < j; k++) {
        const m = line.mean[k];
        if (m !== m) continue;
        sum += m; count++;
        if (line.most[k] > high) high = line.most[k];
        if (line.least[k] < low) low = line.least[k];
      }
      most[c] = count ? high : null; mean[c] = count ? sum / count : null; least[c] = count ? low : null;
    }
    return [most, mean, least];
  }

  function panelData(panel) {
    const columns = Math.max(60, Math.round((lastWidth - AXIS - RIGHT) / PIXELS)), width = (state.b - state.a) / columns;
    const data = [Array.from({ length: columns }, (_, c) => state.a + (c + 0.5) * width)];
    for (const line of panel.lines) data.push(...resample(lines[line.line], state.a, state.b, columns));
    return data;
  }

  function colours() {
    const style = getComputedStyle(document.documentElement), get = (name) => style.getPropertyValue(name).trim();
    return {
      line: Array.from({ length: COLOURS }, (_, i) => get("--c" + i)), text: get("--soft"), grid: get("--grid"), ink: get("--ink"),
      phase: [get("--p0"), get("--p1"), get("--p2"), get("--p3"), get("--p4"), get("--p5")],
      heat: get("--heat"), "power limit": get("--limit"), hardware: get("--hard"),
    };
  }

  function timeText(t, step) {
    const sign = t < 0 ? "−" : "", s = Math.abs(t);
    if (step < 1 || (s < 60 && step < 60)) return sign + s.toFixed(step < 1 ? Math.min(6, Math.ceil(-Math.log10(step))) : 0) + " s";
    const whole = Math.round(s), two = (n) => String(n).padStart(2, "0");
    const h = Math.floor(whole / 3600), m = Math.floor(whole / 60) % 60;
    return sign + (h || step >= 3600 ? h + ":" + two(m) + ":" + two(whole % 60) : m + ":" + two(whole % 60));
  }
  function clock(t) {
    const s = Math.abs(t), sign = t < 0 ? "−" : "";
    if (s < 60) return sign + s.toFixed(state.b - state.a < 10 ? 3 : 1) + " s";
    const h = Math.floor(s / 3600), m = Math.floor(s / 60) % 60, rest = s % 60;
    const seconds = (state.b - state.a < 600 ? rest.toFixed(1).padStart(4, "0") : String(Math.floor(rest)).padStart(2, "0")) + " s";
    return sign + (h ? h + " h " + String(m).padStart(2, "0") + " min " : m + " min ") + seconds;
  }
  const formats = new Map();  // making one takes longer than a plot
  function valueText(value, step) {
    const digits = step >= 1 ? 0 : Math.min(4, Math.ceil(-Math.log10(step) - 1e-9));
    if (!formats.has(digits)) formats.set(digits, new Intl.NumberFormat("en", { maximumFractionDigits: digits }));
    return formats.get(digits).format(value);
  }

  function make(panel, number, element) {
    const series = [{}], bands = [];
    panel.lines.forEach((line, i) => {
      const c = colour.line[line.colour], show = state.shown[number][i], at = series.length;
      const edge = { width: 0, points: { show: false }, show };
      series.push({ ...edge }, { stroke: c, width: 1.5, points: { show: false }, show }, { ...edge });
      bands.push({ series: [at, at + 2], fill: c + "66" });
    });
    const axis = { stroke: colour.text, grid: { stroke: colour.grid, width: 1 }, ticks: { stroke: colour.grid, width: 1 }, font: "12px system-ui, sans-serif" };
    const fromZero = panel.kind === "power";
    const plot = new uPlot({
      width: element.clientWidth, height: heightOf(panel), legend: { show: false }, series, bands, padding: [8, RIGHT, 0, 0],
      scales: {
        x: { time: false, range: () => [state.a, state.b] },
        y: { range: (u, low, high) => {
          if (low == null) return [0, 1];
          const room = Math.max((high - low) * 0.06, Math.abs(high) * 0.01, 1e-6);
          return [fromZero && low >= 0 ? 0 : low - room, high + room];
        } },
      },
      axes: [
        { ...axis, size: 32, space: 74, incrs: [1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800, 2592000, 31536000],
          values: (u, splits, i, space, step) => splits.map((t) => timeText(t, step)) },
        { ...axis, size: AXIS, values: (u, splits) => splits.map((v) => Math.abs(v) >= 1e5 ? valueText(v / 1e3, 1e-4) + " k" : valueText(v, 1e-4)) },
      ],
      cursor: {
        drag: { x: true, y: false, setScale: false }, y: false, sync: { key: "time", scales: ["x", null], filters: { pub: (type) => type === "mousemove" || type === "mouseleave" } }, points: { show: false },
        bind: { dblclick: () => () => { show(...whole); return null; } },
      },
      hooks: {
        drawClear: [(u) => shade(u, panel)],
        setSelect: [(u) => {
          if (u.select.width > 3) show(u.posToVal(u.select.left, "x"), u.posToVal(u.select.left + u.select.width, "x"));
          u.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
        }],
        setCursor: [(u) => read(u, panel, number)],
      },
    }, panelData(panel), element);
    return plot;
  }
  const heightOf = (panel) => printing.matches ? 150 : panel.kind === "power" ? 220 : 170;

  function shade(u, panel) {
    const { ctx, bbox } = u, px = (t) => u.valToPos(t, "x", true);
    ctx.save();
    ctx.beginPath(); ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height); ctx.clip();
    if (panel.kind === "power" || panel.kind === "meter") {
      const faint = Math.min(1, 3 / (plots.strip.length - 1));  // rows lie upon each other
      plots.strip.slice(1).forEach((row) => row.forEach((block, i) => {
        const [begin, end, name] = block;
        if (end < state.a || begin > state.b) return;
        const left = px(begin), width = px(end) - left;
        if (width < 2 * devicePixelRatio) return;
        ctx.globalAlpha = (i % 2 ? 0.05 : 0.1) * faint;
        ctx.fillStyle = colour.phase[name % colour.phase.length];
        ctx.fillRect(left, bbox.top, width, bbox.height);
      }));
    } else {
      for (const device of plots.throttling) for (const cause of Object.keys(device)) for (const [begin, end] of device[cause]) {
        if (end < state.a || begin > state.b) continue;
        ctx.globalAlpha = 0.18;
        ctx.fillStyle = colour[cause];
        const left = px(begin);
        ctx.fillRect(left, bbox.top, Math.max(px(end) - left, devicePixelRatio), bbox.height);
      }
    }
    ctx.restore();
  }

  function drawStrip() {
    if (!strip) return;
    const rows = plots.strip, height = 22, gap = 2, width = stripWidth, dpr = devicePixelRatio;
    strip.style.height = rows.length * (height + gap) + "px";
    strip.width = Math.round(width * dpr); strip.height = Math.round(rows.length * (height + gap) * dpr);
    const ctx = strip.getContext("2d"), inner = width - AXIS - RIGHT, px = (t) => AXIS + ((t - state.a) / (state.b - state.a)) * inner;
    ctx.scale(dpr, dpr);
    ctx.font = "12px system-ui, sans-serif"; ctx.textBaseline = "middle";
    ctx.beginPath(); ctx.rect(AXIS, 0, inner, rows.length * (height + gap)); ctx.clip();
    rows.forEach((row, r) => row.forEach((block, i) => {
      const [begin, end, name] = block;
      if (end < state.a || begin > state.b) return;
      const left = Math.max(px(begin), AXIS - 2), right = Math.min(px(end), width - RIGHT + 2), y = r * (height + gap);
      const wide = Math.max(right - left, 1);
      ctx.globalAlpha = r ? (i % 2 ? 0.3 : 0.45) : 0.2;
      ctx.fillStyle = r ? colour.phase[name % colour.phase.length] : colour.text;
      ctx.fillRect(left, y, Math.max(wide - (wide > 4 ? 1 : 0), 0.75), height);
      if (wide > 26) {
        ctx.globalAlpha = 1; ctx.fillStyle = colour.ink;
        const whose = phaseOf(block, r), text = ctx.measureText(whose).width <= wide - 10 ? whose : fit(ctx, phaseName(block), wide - 10);
        if (text) ctx.fillText(text, Math.max(left, AXIS) + 5, y + height / 2 + 0.5);
      }
    }));
  }
  function fit(ctx, text, width) {
    if (ctx.measureText(text).width <= width) return text;
    let n = Math.floor(text.length * width / ctx.measureText(text).width);
    while (n > 1 && ctx.measureText(text.slice(0, n) + "…").width > width) n--;
    return n > 1 ? text.slice(0, n) + "…" : "";
  }
  function phaseName([, , name, count, index]) {
    const text = name < 0 ? "" : plots.names[name];
    if (count > 1) return (text || "phases") + " ×" + count;
    return index == null ? text : text + " " + index;
  }

  function phaseOf(block, row) {
    return [plots.who[row], phaseName(block)].filter(Boolean).join(": ");
  }

  function phasesAt(t) {
    return plots.strip.map((row, r) => {
      const block = r ? row.find(([begin, end]) => begin <= t && t < end) : null;
      return block ? phaseOf(block, r) : "";
    }).filter(Boolean);
  }
  function read(u, panel, number) {
    const idx = u.cursor.left >= 0 ? u.cursor.idx : null, legend = legends[number];
    panel.lines.forEach((line, i) => {
      const step = lines[line.line].step, at = 1 + 3 * i;
      if (idx == null) { legend[i].textContent = ""; return; }
      const [most, mean, least] = [u.data[at][idx], u.data[at + 1][idx], u.data[at + 2][idx]];
      if (mean == null) { legend[i].textContent = "–"; return; }
      const spread = most - least > 2.5 * step ? " (" + valueText(least, step) + " … " + valueText(most, step) + ")" : "";
      legend[i].textContent = valueText(mean, step) + " " + panel.unit + spread;
    });
    if (u === drawn.find((d) => d.plot)?.plot && idx != null) {
      state.at = u.data[0][idx];
      atText.textContent = [clock(state.at), ...phasesAt(state.at)].join(" · ");
    }
  }

  function show(a, b) {
    const span = Math.min(Math.max(b - a, LEAST_SPAN), whole[1] - whole[0]);
    const middle = (a + b) / 2;
    state.a = Math.min(Math.max(middle - span / 2, whole[0]), whole[1] - span);
    state.b = state.a + span;
    state.marked = null;
    redraw();
  }
  function redraw() {
    drawn.forEach((one) => { one.stale = true; if (one.near) refresh(one); });
    drawStrip();
    const all = state.a === whole[0] && state.b === whole[1];
    rangeText.textContent = all ? "Everything, " + clock(whole[1] - whole[0]) : clock(state.a) + " to " + clock(state.b);
    charts.dataset.a = state.a; charts.dataset.b = state.b;
  }
  // Plots that nobody sees are made and redrawn when they come near the window.
  function refresh(one) {
    one.stale = false;
    if (!one.plot) { one.plot = make(one.panel, one.number, one.element); return; }
    one.plot.batch(() => {
      one.plot.setData(panelData(one.panel), false);
      one.plot.setScale("x", { min: state.a, max: state.b });
    });
  }
  const watch = new IntersectionObserver((entries) => entries.forEach((entry) => {
    const one = drawn.find((d) => d.element === entry.target);
    if (!one) return;
    one.near = entry.isIntersecting || printing.matches;
    if (one.near && one.stale) refresh(one);
  }), { rootMargin: "100px" });
  function build() {
    drawn.forEach(({ plot, element }) => { plot?.destroy(); watch.unobserve(element); });
    drawn = [...charts.querySelectorAll(".plot")].map((element, number) => {
      const panel = plots.panels[number];
      element.style.height = heightOf(panel) + "px";
      return { panel, number, element, plot: null, near: printing.matches, stale: true };
    });
    lastWidth = charts.clientWidth;
    stripWidth = strip?.clientWidth;
    colour = colours();
    redraw();
    drawn.forEach(({ element }) => watch.observe(element));
  }
  function point(t) {
    state.at = Math.min(Math.max(t, state.a), state.b);
    drawn.forEach(({ plot }) => plot?.setCursor({ left: plot.valToPos(state.at, "x"), top: 1 }, true, false));
  }
  function nextPhase(direction) {
    const edges = [...new Set(plots.strip.slice(1).flat().map((block) => block[0]))].sort((x, y) => x - y);
    const all = state.a === whole[0] && state.b === whole[1], here = state.marked ?? (all ? -Infinity : state.a);
    const target = direction > 0 ? edges.find((t) => t > here + 1e-9) : edges.reverse().find((t) => t < here - 1e-9);
    if (target == null) return;
    const block = plots.strip.slice(1).flat().filter((b) => b[0] === target).sort((x, y) => y[1] - x[1])[0];
    toPhase(block);
  }
  function toPhase(block) {
    const room = Math.max((block[1] - block[0]) * 0.08, LEAST_SPAN / 2);
    show(block[0] - room, block[1] + room);
    state.marked = block[0];
    point((block[0] + block[1]) / 2);
  }
  const doing = {
    in: () => zoom(0.5), out: () => zoom(2), left: () => pan(-0.25), right: () => pan(0.25), all: () => show(...whole),
    phase: () => nextPhase(1), before: () => nextPhase(-1),
    back: () => point((state.at ?? state.a) - (state.b - state.a) / 100), on: () => point((state.at ?? state.a) + (state.b - state.a) / 100),
  };
  function zoom(factor, around) {
    const t = around ?? (state.at != null && state.at > state.a && state.at < state.b ? state.at : (state.a + state.b) / 2);
    show(t - (t - state.a) * factor, t + (state.b - t) * factor);
    if (state.at != null) point(state.at);
  }
  const pan = (share) => show(state.a + share * (state.b - state.a), state.b + share * (state.b - state.a));

  const keys = { "+": "in", "=": "in", "-": "out", "−": "out", "0": "all", Escape: "all", "]": "phase", "[": "before", ArrowLeft: "back", ArrowRight: "on" };
  charts.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const what = event.shiftKey && event.key === "ArrowLeft" ? "left" : event.shiftKey && event.key === "ArrowRight" ? "right" : keys[event.key];
    if (!what) return;
    event.preventDefault();
    doing[what]();
  });
  charts.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.do) return doing[button.dataset.do]();
    const { panel, line } = button.dataset, on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", on);
    state.shown[panel][line] = on;
    for (let i = 0; i < 3; i++) drawn[panel].plot?.setSeries(1 + 3 * line + i, { show: on });
  });
  charts.addEventListener("wheel", (event) => {  // alone it scrolls the page
    const element = event.target.closest(".plot");
    if (!element || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    zoom(event.deltaY > 0 ? 1.25 : 0.8, timeUnder(element, event.clientX));
  }, { passive: false });
  if (strip) {
    const under = (event) => {
      const box = strip.getBoundingClientRect(), row = Math.floor((event.clientY - box.top) / 24);
      const t = timeUnder(strip, event.clientX), slack = (2 * (state.b - state.a)) / box.width;
      return [(plots.strip[row] ?? []).find(([begin, end]) => begin - slack <= t && t < end + slack), row];
    };
    strip.addEventListener("click", (event) => { const [block] = under(event); if (block) toPhase(block); });
    strip.addEventListener("mousemove", (event) => {
      const [block, row] = under(event);
      atText.textContent = block ? phaseOf(block, row) + ": " + clock(block[0]) + " to " + clock(block[1]) + ", " + clock(block[1] - block[0]) : "";
    });
  }
  function timeUnder(element, x) {
    const box = element.getBoundingClientRect();
    return state.a + ((x - box.left - AXIS) / (box.width - AXIS - RIGHT)) * (state.b - state.a);
  }
  // Two fingers zoom; one finger points, and scrolls the page as anywhere.
  const fingers = new Map();
  charts.addEventListener("pointerdown", (event) => { if (event.pointerType === "touch" && event.target.closest(".plot")) fingers.set(event.pointerId, event); });
  charts.addEventListener("pointermove", (event) => {
    if (!fingers.has(event.pointerId)) return;
    const element = event.target.closest(".plot");
    if (fingers.size === 2 && element) {
      const before = [...fingers.values()].map((f) => f.clientX);
      fingers.set(event.pointerId, event);
      const now = [...fingers.values()].map((f) => f.clientX), apart = (x) => Math.max(Math.abs(x[0] - x[1]), 8);
      zoom(apart(before) / apart(now), timeUnder(element, (now[0] + now[1]) / 2));
    } else if (element) {
      fingers.set(event.pointerId, event);
      point(timeUnder(element, event.clientX));
    }
  });
  for (const end of ["pointerup", "pointercancel"]) charts.addEventListener(end, (event) => fingers.delete(event.pointerId));

  build();
  new ResizeObserver(() => {
    if (charts.clientWidth !== lastWidth && charts.clientWidth) build();
  }).observe(charts);
  dark.addEventListener("change", build);
  printing.addEventListener("change", build);
  const opened = [];
  addEventListener("beforeprint", () => document.querySelectorAll("details:not([open])").forEach((d) => {
    if (opened.length < 30 && !d.classList.contains("rest")) { d.open = true; opened.push(d); }
  }));
  addEventListener("afterprint", () => { opened.splice(0).forEach((d) => { d.open = false; }); });
  charts.dataset.ready = "yes";
})();
