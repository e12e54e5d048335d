"use strict";

// In a tab of Airflow's UI: the theme and the colors of the document around the iframe, also when they change.
(() => {
  const root = document.documentElement;
  const colors = {
    "--bg": "bg", "--bg-subtle": "bg-subtle", "--bg-muted": "bg-muted",
    "--fg": "fg", "--fg-muted": "fg-muted", "--border": "border-emphasized",
  };
  let outer;
  try {
    outer = parent === window ? null : parent.document.documentElement;
  } catch {
    return; // another site's iframe
  }
  if (!outer) return;
  const follow = () => {
    for (const theme of ["light", "dark"]) root.classList.toggle(theme, outer.classList.contains(theme));
    const theirs = parent.getComputedStyle(outer);
    for (const [ours, name] of Object.entries(colors)) {
      const color = theirs.getPropertyValue(`--chakra-colors-${name}`);
      if (color) root.style.setProperty(ours, color);
      else root.style.removeProperty(ours);
    }
  };
  new MutationObserver(follow).observe(outer, { attributes: true, attributeFilter: ["class"] });
  follow();
})();

// In a tab of Airflow's UI: links out of the iframe. The iframe may neither navigate the window around it nor open
// another, but a link in that window's document may. Where that document can't be reached, the address is shown.
(() => {
  if (parent === window) return;
  const prefix = "/callphases/";
  const ours = location.pathname.slice(0, location.pathname.indexOf(prefix) + prefix.length);
  const follow = (event) => {
    const link = event.target.closest("a[href]");
    if (!link || event.defaultPrevented || event.button > 1 || !/^https?:$/.test(link.protocol)) return;
    const another = event.button === 1 || event.ctrlKey || event.metaKey || event.shiftKey || link.target === "_blank";
    if (!another && link.origin === location.origin && link.pathname.startsWith(ours)) return;
    event.preventDefault();
    try {
      const outside = parent.document.createElement("a");
      outside.href = link.href;
      outside.rel = "noopener";
      if (another) outside.target = "_blank";
      parent.document.body.append(outside);
      outside.click();
      outside.remove();
    } catch {
      const copy = document.getElementById("copy");
      copy.hidden = false;
      copy.querySelector("input").value = link.href;
      copy.querySelector("input").select();
    }
  };
  document.addEventListener("click", follow);
  document.addEventListener("auxclick", follow);
  const own = document.getElementById("own-tab");
  own.href = location.href;
  own.hidden = false;
})();

// A page in a file: the filter and the order of its table, which the server makes for other pages.
(() => {
  const find = document.getElementById("find");
  if (!find) return;
  const STEP = 500; // browsers need seconds to lay out many thousands of rows
  const body = document.querySelector("table.calls tbody");
  const more = document.getElementById("more");
  const shown = document.getElementById("shown");
  let rows = [...body.querySelectorAll("tr[data-call]")].map((row) => ({ row, text: row.textContent.toLowerCase() }));
  let most = STEP;
  const show = () => {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const { row, text } of rows) {
      const matches = words.every((word) => text.includes(word));
      count += matches ? 1 : 0;
      row.hidden = !matches || count > most;
    }
    shown.textContent = `${count.toLocaleString("en")} of ${rows.length.toLocaleString("en")} calls`;
    more.hidden = count <= most;
    more.textContent = `Show more than the first ${most.toLocaleString("en")}`;
  };
  const valueOf = (row, column) => {
    const cell = row.cells[column];
    const text = cell.dataset.value ?? cell.textContent.trim();
    return text === "" ? null : Number.isNaN(Number(text)) ? text.toLowerCase() : Number(text);
  };
  const compare = (a, b) => (typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1);
  const sort = (header) => {
    const down = header.getAttribute("aria-sort") === "ascending";
    for (const other of header.parentElement.cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", down ? "descending" : "ascending");
    const keyed = rows.map((one) => [valueOf(one.row, header.cellIndex), one]);
    // Calls without a value come last in either order.
    keyed.sort(([a], [b]) => (a === null || b === null ? (a === null) - (b === null) : (down ? -1 : 1) * compare(a, b)));
    rows = keyed.map(([, one]) => one);
    body.append(...rows.map((one) => one.row));
    show();
  };
  find.form.hidden = false;
  find.form.addEventListener("submit", (event) => event.preventDefault());
  find.addEventListener("input", show);
  more.addEventListener("click", () => {
    most += STEP;
    show();
  });
  for (const button of document.querySelectorAll("table.calls th button"))
    button.addEventListener("click", () => sort(button.parentElement));
  show();
})();

// The page of a call: plays from phases and cues, shows what is playing, and follows it.
(() => {
  const call = document.querySelector("article.call");
  if (!call) return;
  const audio = document.getElementById("player");
  const cues = [...call.querySelectorAll("[data-cue]")];
  const phases = [...call.querySelectorAll("[data-phase]")];
  const sections = [...call.querySelectorAll("section.phase")];
  const timeline = call.querySelector(".timeline");
  const lengthS = timeline ? Number(timeline.dataset.length) : 0;
  const follow = document.getElementById("follow");
  const help = document.getElementById("help");
  const keys = document.getElementById("keys");
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const startOf = (element) => Number(element.dataset.start);
  const SLACK_S = 0.05; // players do not stop exactly at the time that they were sent to
  let atS = 0;
  let cue = -1;
  let phase = -1;

  // The last of some elements, in order of their starts, that has begun; -1 before the first.
  const begun = (elements, second) => {
    let low = 0;
    let high = elements.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (startOf(elements[middle]) <= second + SLACK_S) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  };

  const mark = (elements, before, now) => {
    elements[before]?.removeAttribute("aria-current");
    elements[now]?.setAttribute("aria-current", "true");
  };

  const reveal = (element) => {
    const box = element.getBoundingClientRect();
    const top = document.getElementById("bar")?.getBoundingClientRect().bottom ?? 0;
    if (box.top < top || box.bottom > innerHeight * 0.9)
      element.scrollIntoView({ block: "center", behavior: calm.matches ? "auto" : "smooth" });
  };

  const linkOf = (index) => cues[index]?.querySelector("a");

  // Show a time: the playhead, the cue and the phase. The cue's link is the one that Tab stops at.
  const show = (second, scroll) => {
    atS = second;
    const x = `${lengthS ? Math.min((100 * second) / lengthS, 100) : 0}%`;
    for (const line of call.querySelectorAll(".playhead line")) {
      line.setAttribute("x1", x);
      line.setAttribute("x2", x);
    }
    const nowPhase = begun(phases, second);
    if (nowPhase !== phase) {
      mark(phases, phase, nowPhase);
      mark(sections, phase, nowPhase);
      phase = nowPhase;
    }
    const nowCue = begun(cues, second);
    if (nowCue === cue) return;
    mark(cues, cue, nowCue);
    linkOf(Math.max(cue, 0))?.setAttribute("tabindex", "-1");
    linkOf(Math.max(nowCue, 0))?.setAttribute("tabindex", "0");
    cue = nowCue;
    if (scroll && cues[cue]) reveal(cues[cue]);
  };

  const seek = (second) => {
    if (audio) {
      audio.currentTime = second;
      // Some browsers forget a time that is set before they know the recording.
      if (audio.readyState === 0)
        audio.addEventListener("loadedmetadata", () => { audio.currentTime = second; }, { once: true });
    }
    show(second, false);
  };

  const playFrom = (second) => {
    seek(second);
    audio?.play().catch(() => {}); // the event "error" says why
  };

  const goTo = (index) => {
    const target = cues[Math.min(Math.max(index, 0), cues.length - 1)];
    if (!target) return;
    seek(startOf(target));
    target.focus({ preventScroll: true });
    reveal(target);
  };

  const goToPhase = (index) => {
    const target = phases[Math.min(Math.max(index, 0), phases.length - 1)];
    if (!target) return;
    seek(startOf(target));
    if (cues[cue]) reveal(cues[cue]);
  };

  const fromAddress = () => {
    const time = /^#t=(\d+(?:\.\d+)?)$/.exec(location.hash);
    const named = /^#cue-(\d+)$/.exec(location.hash) && document.getElementById(location.hash.slice(1));
    if (!time && !named) return;
    seek(time ? Number(time[1]) : startOf(named));
    if (cues[cue]) reveal(cues[cue]);
  };

  const startAt = (element) => {
    const target = element.closest("[data-seek], [data-cue], [data-phase]");
    return target && call.contains(target) ? target : null;
  };

  const play = (target) => {
    playFrom(Number(target.dataset.seek ?? target.dataset.start));
    if (target.dataset.cue) history.replaceState(null, "", `#cue-${target.dataset.cue}`);
    else if (cues[cue]) reveal(cues[cue]);
  };

  const showHelp = (shown) => {
    help.hidden = !shown;
    keys.setAttribute("aria-expanded", String(shown));
  };

  linkOf(0)?.setAttribute("tabindex", "0");
  for (const one of cues.slice(1)) one.querySelector("a").setAttribute("tabindex", "-1");

  call.addEventListener("click", (event) => {
    const lane = event.target.closest("svg.talk");
    if (lane && audio) {
      const box = lane.getBoundingClientRect();
      playFrom(((event.clientX - box.left) / box.width) * lengthS);
      return;
    }
    const target = startAt(event.target);
    if (!target || (!audio && !target.dataset.cue)) return;
    if (!event.target.closest("a") && !getSelection().isCollapsed) return; // somebody is copying text
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    if (event.detail && target.dataset.phase) target.blur(); // who uses a mouse pauses with the next Space
    play(target);
  });

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.defaultPrevented) return;
    const on = event.target instanceof Element ? event.target : document.body;
    const takesKeys = on.closest("input, textarea, select, [contenteditable]");
    const takesSpace = on.closest("button, summary, audio, input");
    if (takesKeys && on.type !== "checkbox") return;
    const inCue = on.closest("[data-cue]");
    const actions = {
      j: () => goTo(cue + 1),
      k: () => goTo(cue - 1),
      "]": () => goToPhase(phase + 1),
      "[": () => goToPhase(phase - 1),
    };
    if (!on.closest("audio")) Object.assign(actions, { ArrowRight: actions.j, ArrowLeft: actions.k });
    if (inCue) {
      actions.ArrowDown = () => goTo(cues.indexOf(inCue) + 1);
      actions.ArrowUp = () => goTo(cues.indexOf(inCue) - 1);
    }
    if (audio) {
      actions.f = () => { follow.checked = !follow.checked; };
      actions["?"] = () => showHelp(help.hidden);
      actions.Escape = () => showHelp(false);
      if (!takesSpace) actions[" "] = () => (audio.paused ? audio.play().catch(() => {}) : audio.pause());
      const focused = !on.closest("a, button, summary") && startAt(on);
      if (focused) actions.Enter = () => play(focused);
      if (on.matches("[data-phase]")) actions[" "] = actions.Enter; // as on any button
    }
    const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (action) {
      event.preventDefault();
      action();
    } else if (["PageUp", "PageDown", "Home", "End", "ArrowUp", "ArrowDown"].includes(event.key)) {
      stopFollowing();
    }
  });

  // Who scrolls is left alone from then on.
  const stopFollowing = () => {
    if (audio && !audio.paused) follow.checked = false;
  };
  addEventListener("wheel", stopFollowing, { passive: true });
  addEventListener("touchmove", stopFollowing, { passive: true });
  addEventListener("pointerdown", (event) => {
    if (event.clientX >= document.documentElement.clientWidth) stopFollowing(); // the scroll bar
  });

  if (audio) {
    for (const one of call.querySelectorAll(".scripted")) one.hidden = false;
    keys.addEventListener("click", () => showHelp(help.hidden));
    follow.addEventListener("change", () => { if (follow.checked && cues[cue]) reveal(cues[cue]); });
    audio.addEventListener("play", () => { follow.checked = true; });
    for (const name of ["timeupdate", "seeked"])
      audio.addEventListener(name, () => show(audio.currentTime, follow.checked && !audio.paused));
    const problem = document.getElementById("audio-problem");
    audio.addEventListener("error", () => { problem.hidden = false; });
    audio.addEventListener("loadedmetadata", () => { problem.hidden = true; });
    if (audio.error) problem.hidden = false;
  }
  addEventListener("hashchange", fromAddress);
  fromAddress();
})();
