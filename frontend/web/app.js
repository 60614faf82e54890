// What moves on the pages. Every page works without it.
"use strict";
(() => {
  const pulse = document.getElementById("pulse");
  function say(text, state) {
    if (!pulse) return;
    pulse.hidden = false;
    if (pulse.textContent !== text) pulse.textContent = text;
    pulse.className = "pulse " + state;
  }

  // listen keeps a stream open while the page is looked at.
  function listen(url, name, fn) {
    let source = null;
    function open() {
      if (source || document.hidden) return;
      source = new EventSource(url);
      source.addEventListener("open", () => say("live", "on"));
      source.addEventListener(name, (e) => { say("live", "on"); fn(JSON.parse(e.data)); });
      source.addEventListener("error", () => {
        say("reconnecting", "off");
        if (source && source.readyState === EventSource.CLOSED) { source = null; setTimeout(open, 5000); }
      });
    }
    function close() { if (source) { source.close(); source = null; } }
    document.addEventListener("visibilitychange", () => document.hidden ? close() : open());
    addEventListener("pagehide", close);
    addEventListener("pageshow", open);
    open();
  }

  // The relay renders and escapes; a part is put in as it comes. A part that
  // has the keyboard's focus, or of which something is selected, waits.
  const live = document.querySelector("[data-live]");
  if (live) {
    const busy = (el) => {
      const chosen = getSelection();
      return el.contains(document.activeElement) || !chosen.isCollapsed && chosen.containsNode(el, true);
    };
    const states = (el) => new Map([...el.querySelectorAll("tr[data-id]")].map((row) => [row.dataset.id, row.dataset.state]));
    listen(live.dataset.live, "parts", (parts) => {
      for (const [name, html] of Object.entries(parts)) {
        const el = live.querySelector(`[data-part="${CSS.escape(name)}"]`);
        if (!el || busy(el)) continue;
        const were = states(el), across = el.querySelector(".scroll")?.scrollLeft;
        el.innerHTML = html;
        if (across) el.querySelector(".scroll")?.scrollTo(across, 0);
        for (const row of el.querySelectorAll("tr[data-id]")) {
          const was = were.get(row.dataset.id);
          if (was && was !== row.dataset.state) row.classList.add("changed");
        }
      }
    });
  }

  const flow = document.querySelector("[data-flow]");
  if (flow) startFlow(flow);

  function startFlow(flow) {
    const NS = "http://www.w3.org/2000/svg";
    const nodes = document.getElementById("nodes"), sparks = document.getElementById("sparks");
    const list = document.getElementById("messages"), rate = document.getElementById("rate"), pause = document.getElementById("pause");
    const still = matchMedia("(prefers-reduced-motion: reduce)");
    const X = 500, Y = 300, MOST = 400; // dots in flight
    let paused = false, flying = [], frame = 0, counted = [], since = 0;

    pause.hidden = false;
    pause.addEventListener("click", () => {
      paused = !paused;
      pause.setAttribute("aria-pressed", paused);
      pause.textContent = paused ? "Go on" : "Pause";
    });

    const find = (id) => nodes.querySelector(`[data-id="${CSS.escape(id)}"]`) || nodes.querySelector('[data-id="others"]');
    const at = (n) => [Number(n.dataset.x), Number(n.dataset.y)];

    function blink(n, name) {
      if (!n) return;
      n.classList.remove(name);
      void n.getBoundingClientRect(); // so that the animation begins anew
      n.classList.add(name);
    }
    function fly(from, to, start, took, kind, done) {
      if (flying.length >= MOST) return;
      const dot = document.createElementNS(NS, "circle");
      dot.setAttribute("r", kind === "up" ? 6 : 4);
      dot.setAttribute("class", "dot " + kind);
      dot.setAttribute("cx", -200);
      sparks.append(dot);
      flying.push({ dot, from, to, start, took, done });
      if (!frame) frame = requestAnimationFrame(step);
    }
    function step(now) {
      flying = flying.filter((f) => {
        const t = (now - f.start) / f.took;
        if (t < 0) return true;
        if (t >= 1) { f.dot.remove(); if (f.done) f.done(now); return false; }
        const e = t < .5 ? 2 * t * t : 1 - (2 - 2 * t) ** 2 / 2;
        f.dot.setAttribute("cx", f.from[0] + (f.to[0] - f.from[0]) * e);
        f.dot.setAttribute("cy", f.from[1] + (f.to[1] - f.from[1]) * e);
        return true;
      });
      frame = flying.length ? requestAnimationFrame(step) : 0;
    }
    function show(message, start) {
      const sender = find(message.sender);
      blink(sender, "speaks");
      if (still.matches || !sender) return;
      fly(at(sender), [X, Y], start, 420, "up", (now) => {
        for (const n of nodes.querySelectorAll("[data-id]")) {
          if (n !== sender && !n.classList.contains("parked")) fly([X, Y], at(n), now, 560, "down", () => blink(n, "hears"));
        }
      });
    }
    function note(m) {
      const li = document.createElement("li"), time = document.createElement("time"), who = document.createElement("bdi"), size = document.createElement("span");
      li.dataset.id = m.id;
      time.dateTime = m.time;
      time.textContent = m.time.slice(11, 19);
      who.className = "who";
      who.textContent = m.nick.length > 60 ? m.nick.slice(0, 60) + "…" : m.nick;
      size.className = "dim";
      size.textContent = m.bytes < 1024 ? m.bytes + " bytes" : (m.bytes / 1024).toFixed(1) + " KiB";
      li.append(time, " ", who, " ", size);
      if (m.text) {
        const q = document.createElement("q"), b = document.createElement("bdi");
        b.textContent = m.text;
        q.append(b);
        li.append(q);
      }
      for (const old of list.querySelectorAll("li:not([data-id])")) old.remove();
      list.prepend(li);
      while (list.children.length > 20) list.lastElementChild.remove();
    }
    function speed() {
      const now = performance.now();
      counted = counted.filter((c) => now - c[0] < 5000);
      const v = counted.reduce((sum, c) => sum + c[1], 0) / Math.min(5, Math.max(1, (now - since) / 1000));
      rate.textContent = v === 0 ? "0" : v < 10 ? v.toFixed(1) : Math.round(v).toLocaleString("en");
    }
    setInterval(speed, 1000);
    listen(flow.dataset.flow, "flow", (event) => {
      if (event.nodes && !nodes.contains(document.activeElement)) nodes.innerHTML = event.nodes;
      if (!since) since = performance.now();
      if (event.count) counted.push([performance.now(), event.count]);
      if (paused || !event.messages) return;
      const shown = event.messages.slice(-4), gap = 450 / shown.length, now = performance.now();
      shown.forEach((m, i) => setTimeout(() => { if (!document.hidden) show(m, performance.now()); }, i * gap));
      event.messages.forEach(note);
    });
  }

  // A call's outcome is what the page was sent for.
  const outcome = document.getElementById("outcome");
  if (outcome) outcome.focus({ preventScroll: false });
})();
