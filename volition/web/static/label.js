"use strict";
// The labelling page. Nothing is lost on the way: what is being made is kept in the browser as it is made (draft), and
// what was submitted is kept there under its key until the server has acknowledged it (pending).

const page = document.getElementById("page");
if (page) start();

function start() {
  const byId = (id) => document.getElementById(id);
  const list = byId("list"), divider = byId("rest");
  const cards = list ? [...list.querySelectorAll(".card")].sort((a, b) => a.dataset.index - b.dataset.index) : [];
  const assignment = Number(page.dataset.assignment);
  const place = `volition:${page.dataset.labeler}:`;
  let busy = false;

  // ---- what is kept in the browser

  const memory = {};
  const keep = (name, value) => {
    memory[name] = value;
    try {
      if (value === null) localStorage.removeItem(place + name);
      else localStorage.setItem(place + name, JSON.stringify(value));
    } catch { /* a browser that keeps nothing: memory does until the page is left */ }
  };
  const kept = (name) => {
    try { return JSON.parse(localStorage.getItem(place + name)) ?? memory[name] ?? null; } catch { return memory[name] ?? null; }
  };
  const draft = `draft:${assignment}`;

  // ---- the ranking: groups of tied completions, best first, and the rest; each completion is its index

  const fresh = () => ({
    groups: [], rest: cards.map((_, i) => i), ratings: cards.map(() => null), flags: cards.map(() => []), note: "", seconds: 0,
  });
  const corrected = (before) => {
    const groups = [...new Set(before.rank)].sort((a, b) => a - b).map((r) => before.rank.flatMap((x, i) => (x === r ? [i] : [])));
    return { groups, rest: [], ratings: before.ratings, flags: before.flags, note: before.note, seconds: before.seconds || 0 };
  };
  let state = list && (kept(draft) || (page.dataset.before !== "null" ? corrected(JSON.parse(page.dataset.before)) : fresh()));

  const ranked = () => state.groups.flat();
  const take = (i) => {
    state.groups = state.groups.map((g) => g.filter((j) => j !== i)).filter((g) => g.length);
    state.rest = state.rest.filter((j) => j !== i);
  };
  // Put completion i at a place among the ranked ones. Between two that are tied it ties with them, or passes them
  // (down: past all of them, up: before all of them).
  const put = (i, at, pass = 0) => {
    take(i);
    let begin = 0;
    for (let g = 0; g <= state.groups.length; g++) {
      const size = g < state.groups.length ? state.groups[g].length : 0;
      if (at <= begin || !size) { state.groups.splice(g, 0, [i]); return; }
      if (at < begin + size) {
        if (pass) state.groups.splice(pass > 0 ? g + 1 : g, 0, [i]);
        else state.groups[g].splice(at - begin, 0, i);
        return;
      }
      begin += size;
    }
  };
  const takeOut = (i) => { take(i); state.rest.push(i); };
  const tie = (i) => { // with the one above, or no longer
    const g = state.groups.findIndex((group) => group.includes(i));
    if (g < 0) return;
    const at = state.groups[g].indexOf(i);
    if (at > 0) state.groups.splice(g, 1, state.groups[g].slice(0, at), state.groups[g].slice(at));
    else if (g > 0) state.groups.splice(g - 1, 2, [...state.groups[g - 1], ...state.groups[g]]);
  };

  // ---- showing it

  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const show = (changed) => {
    const order = ranked(), focus = document.activeElement;
    const was = new Map(cards.map((card) => [card, card.getBoundingClientRect().top]));
    const wanted = [...order.map((i) => cards[i]), divider, ...state.rest.map((i) => cards[i])];
    if (wanted.some((element, i) => list.children[i] !== element)) {
      list.append(...wanted);
      if (focus && focus !== document.activeElement) focus.focus({ preventScroll: true });
    }
    divider.hidden = !state.rest.length;
    divider.classList.toggle("empty", !order.length);
    divider.firstElementChild.textContent = order.length ? "not ranked yet" : "Drag the best one here, or press Rank on it";
    cards.forEach((card, i) => {
      const g = state.groups.findIndex((group) => group.includes(i)), at = order.indexOf(i);
      const tied = g >= 0 && state.groups[g].indexOf(i) > 0;
      card.classList.toggle("ranked", g >= 0);
      card.classList.toggle("tied", tied);
      card.querySelector(".place").textContent = g < 0 ? "" : g + 1;
      const relation = card.querySelector(".relation");
      relation.hidden = at < 1;
      relation.textContent = tied ? "tied with" : "better than";
      relation.setAttribute("aria-pressed", tied);
      card.querySelector(".up").disabled = at < 1 && g >= 0 && !(at === 0 && state.groups[0].length > 1);
      card.querySelector(".down").disabled = g < 0 || (at === order.length - 1 && !tied);
      card.querySelector(".put").textContent = g < 0 ? "Rank" : "Take out";
      card.querySelectorAll(".rating input").forEach((input) => { input.checked = Number(input.value) === state.ratings[i]; });
      card.querySelectorAll(".flags input").forEach((input) => { input.checked = state.flags[i].includes(input.value); });
      card.querySelector(".flags .count").textContent = state.flags[i].length || "";
    });
    if (changed !== undefined) {
      const g = state.groups.findIndex((group) => group.includes(changed));
      const letter = cards[changed].querySelector(".letter").textContent;
      byId("said").textContent = g < 0 ? `${letter} is not ranked` : `${letter} is at rank ${g + 1}` + (state.groups[g].length > 1 ? ", tied" : "");
      if (!calm.matches) for (const card of cards) {
        const moved = was.get(card) - card.getBoundingClientRect().top;
        if (moved) card.animate([{ transform: `translateY(${moved}px)` }, { transform: "none" }], { duration: 160, easing: "ease-out" });
      }
    }
    const submit = byId("submit");
    submit.disabled = busy || state.rest.length > 0;
    submit.textContent = state.rest.length ? `${order.length} of ${cards.length} ranked` : "Submit";
    keep(draft, state);
  };
  const change = (i, how) => { if (busy) return; how(); show(i); cards[i].scrollIntoView({ block: "nearest" }); };
  const step = (i, by) => {
    const at = ranked().indexOf(i);
    if (at < 0) { if (by < 0) put(i, ranked().length); return; }
    const group = state.groups.find((g) => g.includes(i));
    if (at + by >= 0 && at + by < ranked().length) put(i, at + by, by);
    else if (group.length > 1) put(i, by < 0 ? 0 : ranked().length); // out of the tie at either end
  };

  // ---- drag, by mouse, pen or finger: the card follows, a line says where it will come to lie

  const drag = (card, event) => {
    if (busy || event.button > 0) return;
    event.preventDefault();
    const i = Number(card.dataset.index), top = card.getBoundingClientRect().top;
    list.classList.add("dragging");
    card.classList.add("held");
    scrollBy(0, card.getBoundingClientRect().top - top); // the others got lower: stay under the pointer
    const from = event.clientY + scrollY, height = Math.min(card.offsetHeight, 60);
    const grip = event.clientY - card.getBoundingClientRect().top > height ? card.getBoundingClientRect().top + height / 2 - event.clientY : 0;
    const line = document.createElement("li");
    line.className = "line";
    list.append(line);
    let y = event.clientY, target = null, frame = 0, live = true;
    const follow = () => {
      const foot = innerHeight - 70, edge = 60;
      const push = y < edge ? y - edge : y > foot - edge ? y - foot + edge : 0;
      if (push) scrollBy(0, Math.max(-14, Math.min(14, push / 4)));
      card.style.transform = `translateY(${y + scrollY - from - grip}px)`;
      const others = [...list.children].filter((e) => e !== card && e !== line && !e.hidden);
      target = others.find((e) => {
        const box = e.getBoundingClientRect();
        return y < (e === divider ? box.bottom : (box.top + box.bottom) / 2);
      }) || null;
      const base = list.getBoundingClientRect().top, last = others.at(-1);
      const where = target ? target.getBoundingClientRect().top : last.getBoundingClientRect().bottom + 8;
      line.style.top = `${where - base - 5}px`;
      if (live) frame = requestAnimationFrame(follow);
    };
    const move = (e) => { if (e.pointerId === event.pointerId) y = e.clientY; };
    const end = (e) => {
      if (e.type === "keydown" ? e.key !== "Escape" : e.pointerId !== event.pointerId) return;
      live = false;
      cancelAnimationFrame(frame);
      if (e.type === "pointerup") { y = e.clientY; follow(); }
      for (const [name, what] of [["pointermove", move], ["pointerup", end], ["pointercancel", end], ["keydown", end]]) removeEventListener(name, what);
      line.remove();
      const before = card.getBoundingClientRect().top;
      card.style.transform = "";
      card.classList.remove("held");
      list.classList.remove("dragging");
      if (e.type === "pointerup") {
        const others = ranked().filter((j) => j !== i), rest = [...list.children].filter((c) => c !== card);
        const behind = target ? rest.indexOf(target) : rest.length;
        if (divider.hidden || behind <= rest.indexOf(divider)) put(i, Math.min(behind, others.length));
        else { take(i); state.rest.splice(behind - rest.indexOf(divider) - 1, 0, i); }
      }
      show(i);
      scrollBy(0, card.getBoundingClientRect().top - before);
      card.focus({ preventScroll: true });
    };
    for (const [name, what] of [["pointermove", move], ["pointerup", end], ["pointercancel", end], ["keydown", end]]) addEventListener(name, what);
    follow();
  };

  // ---- the server

  const notice = (text, link) => {
    const box = byId("notice");
    box.textContent = text;
    if (link) { const a = document.createElement("a"); a.href = link; a.textContent = " Sign in"; box.append(a); }
    box.hidden = !text;
  };
  const pause = (ms) => new Promise((done) => setTimeout(done, ms));
  const send = async (path, body) => { // until there is an answer
    for (let wait = 1000; ; wait = Math.min(2 * wait, 30000)) {
      const stop = new AbortController(), timer = setTimeout(() => stop.abort(), 15000);
      try {
        const headers = { "content-type": "application/json", "x-csrf-token": page.dataset.csrf };
        const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(body), signal: stop.signal });
        if (answer.status < 500 && answer.status !== 408) {
          const said = await answer.json().catch(() => ({}));
          return { ok: answer.ok, status: answer.status, error: said.error || `the server refused (${answer.status})` };
        }
      } catch { /* no connection */ } finally { clearTimeout(timer); }
      notice("Not saved yet: the server does not answer. Trying again; your work is kept in this browser.");
      await pause(wait);
    }
  };
  const lock = (on) => { busy = on; document.body.classList.toggle("busy", on); if (list) show(); };
  const go = () => location.replace("/");
  const act = async (path, body) => {
    if (busy) return;
    lock(true);
    const answer = await send(path, body);
    if (answer.ok) return go();
    notice(`Not done: ${answer.error}.`, answer.status === 401 && "/sign-in");
    lock(false);
  };
  const deliver = async (pending) => {
    lock(true);
    const answer = await send("/rank", pending);
    if (answer.ok) { keep("pending", null); keep(`draft:${pending.assignment}`, null); return go(); }
    if (answer.status === 401 || answer.status === 403) return notice(`Not saved yet: ${answer.error}.`, "/sign-in");
    keep("pending", null);
    notice(`Not saved: ${answer.error}.`);
    lock(false);
  };
  const submit = () => {
    if (busy || !list || state.rest.length) return;
    const rank = cards.map((_, i) => state.groups.findIndex((g) => g.includes(i)) + 1);
    const key = [...crypto.getRandomValues(new Uint8Array(16))].map((b) => b.toString(16).padStart(2, "0")).join("");
    const pending = { assignment, key, rank, ratings: state.ratings, flags: state.flags, note: state.note, seconds: state.seconds };
    keep("pending", pending);
    deliver(pending);
  };
  const skip = () => { if (list) act("/skip", { assignment }); };
  const undo = () => { if (page.dataset.last) act("/undo", { assignment: Number(page.dataset.last) }); };
  byId("undo").onclick = undo;
  byId("leave").onclick = async () => { if (busy) return; await send("/sign-out", {}); location.replace("/sign-in"); };

  addEventListener("keydown", (event) => {
    const at = event.target, writing = at.matches("textarea, input:not([type=radio]):not([type=checkbox])");
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) return submit();
    if (writing || event.ctrlKey || event.metaKey) return;
    const card = at.closest(".card"), i = card && Number(card.dataset.index), key = event.key.toLowerCase();
    const shown = list ? [...list.querySelectorAll(".card")] : [];
    const to = { j: 1, k: -1 }[key];
    if (to && shown.length) shown[card ? Math.max(0, Math.min(shown.length - 1, shown.indexOf(card) + to)) : 0].focus();
    else if (key === "s" && !event.altKey) skip();
    else if (key === "u" && !event.altKey) undo();
    else if (!card) return;
    else if (/^[1-9]$/.test(key)) change(i, () => put(i, Math.min(Number(key) - 1, ranked().filter((j) => j !== i).length), -1));
    else if (event.altKey && key === "arrowup") change(i, () => step(i, -1));
    else if (event.altKey && key === "arrowdown") change(i, () => step(i, 1));
    else if (key === "=") change(i, () => tie(i));
    else if (key === "f" && !event.altKey) { const marks = card.querySelector(".flags"); marks.open = !marks.open; }
    else if (key === "enter" && at === card) change(i, () => (ranked().includes(i) ? takeOut(i) : put(i, ranked().length)));
    else return;
    event.preventDefault();
  });

  if (list) {
    cards.forEach((card, i) => {
      card.querySelector(".grip").addEventListener("pointerdown", (event) => drag(card, event));
      card.querySelector(".up").onclick = () => change(i, () => step(i, -1));
      card.querySelector(".down").onclick = () => change(i, () => step(i, 1));
      card.querySelector(".put").onclick = () => change(i, () => (ranked().includes(i) ? takeOut(i) : put(i, ranked().length)));
      card.querySelector(".relation").onclick = () => change(i, () => tie(i));
      card.querySelector(".rating").onchange = (event) => { state.ratings[i] = Number(event.target.value); show(); };
      card.querySelector(".flags").onchange = () => {
        state.flags[i] = [...card.querySelectorAll(".flags input:checked")].map((input) => input.value);
        show();
      };
      const text = card.querySelector(".text"), more = card.querySelector(".more");
      if (text && text.scrollHeight > 340) {
        text.classList.add("long");
        more.hidden = false;
        more.onclick = () => { more.textContent = text.classList.toggle("long") ? "Show all" : "Show less"; };
      }
    });
    byId("submit").onclick = submit;
    byId("skip").onclick = skip;
    byId("note").value = state.note;
    byId("note").oninput = (event) => { state.note = event.target.value; keep(draft, state); };
    show();

    // time spent: seconds in which the page is looked at by somebody who has done something within the last minute
    let active = Date.now();
    for (const name of ["pointermove", "pointerdown", "keydown", "scroll", "touchmove"])
      addEventListener(name, () => { active = Date.now(); }, { passive: true });
    const clock = () => { byId("time").textContent = `${Math.floor(state.seconds / 60)}:${String(Math.floor(state.seconds) % 60).padStart(2, "0")}`; };
    clock();
    setInterval(() => {
      if (document.hidden || busy || Date.now() - active > 60000) return;
      state.seconds += 1;
      keep(draft, state);
      clock();
    }, 1000);
  }
  const pending = kept("pending");
  if (pending) deliver(pending);
}
