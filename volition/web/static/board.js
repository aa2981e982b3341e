"use strict";
{
  const BLACK = 1, NAMES = ["", "Black", "White"], COLUMNS = "ABCDEFGHJKLMNOPQRSTUVWXYZ", CELL = 40, KEY = "volition_go";
  const OLD = Symbol("an answer to what nobody asks any more");
  const byId = (id) => document.getElementById(id);
  const page = byId("page"), board = byId("board"), opponent = page.dataset.opponent;
  const layers = ["stones", "overlay", "marks"].map(byId);
  const toggles = ["priors", "visits", "values"].map((name) => byId(`show-${name}`));
  const fresh = () => ({ size: Number(page.dataset.size), komi: Number(page.dataset.komi), you: BLACK, moves: [], wins: [], resigned: 0, search: null });
  // the game lives here, in its tab: the server is told all of it each time, and keeps nothing
  let game = fresh(), state = null, busy = false, ticket = 0, cursor = -1, armed = -1;
  try { game = { ...game, ...JSON.parse(sessionStorage.getItem(KEY)) }; } catch { /* not ours */ }
  const keep = () => sessionStorage.setItem(KEY, JSON.stringify(game));

  const vertex = (a, n = game.size) => (a === n * n ? "pass" : COLUMNS[a % n] + (n - Math.floor(a / n)));
  const turn = () => (game.moves.length % 2 ? 3 - BLACK : BLACK);
  const over = () => Boolean(game.resigned || (state && state.over));
  const mine = () => Boolean(state) && !busy && !over() && turn() === game.you;
  const percent = (p) => `${(100 * p).toFixed(0)} %`;
  const say = (text, wrong = false) => { byId("message").textContent = text; byId("message").classList.toggle("wrong", wrong); };
  const notice = (text) => { byId("notice").textContent = text; byId("notice").hidden = !text; };
  const pause = (ms) => new Promise((done) => setTimeout(done, ms));
  const draw = (parent, name, attributes, text) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    parent.append(made);
    return made;
  };

  // ---- the server

  const ask = async (path, more = {}) => { // until there is an answer, or something else was asked
    const asked = ticket, body = JSON.stringify({ size: game.size, komi: game.komi, moves: game.moves, ...more });
    for (let wait = 1000; ; wait = Math.min(2 * wait, 15000)) {
      let answer = null, said = {};
      try {
        answer = await fetch(path, { method: "POST", headers: { "content-type": "application/json" }, body });
        said = await (answer.headers.get("content-type").startsWith("application/json") ? answer.json() : answer.text());
      } catch { answer = null; }
      if (asked !== ticket) throw OLD;
      if (answer && ![408, 503].includes(answer.status)) {
        notice("");
        if (answer.ok) return said;
        throw new Error(said.error || `the server answered ${answer.status}`);
      }
      notice(answer ? "The opponent is busy with other games; waiting for it." : "The server does not answer. Trying again; the game is kept in this tab.");
      await pause(wait);
      if (asked !== ticket) throw OLD;
    }
  };
  const act = async (job) => { // whatever was under way is forgotten
    const asked = ++ticket;
    [busy, armed] = [true, -1];
    show();
    try { await job(); } catch (error) {
      if (error === OLD) return;
      say(error.message, true);
    }
    if (asked !== ticket) return;
    busy = false;
    keep();
    show();
  };
  const seconds = () => Number(byId("seconds").value);
  const reply = async () => {
    if (over() || turn() === game.you) return;
    keep();
    show();
    const { state: next, ...search } = await ask("/reply", { seconds: seconds() });
    const at = game.moves.length;
    game.search = { ...search, turn: turn(), hint: false };
    game.wins[at] = search.win;
    if (search.action === null) game.resigned = turn();
    else game.moves = [...game.moves, search.action];
    state = next;
  };
  const look = async () => { state = await ask("/position"); await reply(); };
  const play = (a) => {
    if (!mine()) { if (state && !over()) say(`${opponent} is thinking.`); return; }
    act(async () => {
      const moves = [...game.moves, a], next = await ask("/position", { moves });
      [game.moves, game.search, state] = [moves, null, next];
      say("");
      await reply();
    });
  };
  const undo = () => {
    if (!undoable()) return;
    if (game.resigned !== game.you) do game.moves.pop(); while (turn() !== game.you);
    [game.resigned, game.search, game.wins.length] = [0, null, game.moves.length];
    say("");
    act(look);
  };
  const undoable = () => game.resigned === game.you || game.moves.length > (game.you === BLACK ? 0 : 1);
  const hint = () => mine() && act(async () => {
    say("Looking for a move …");
    const found = await ask("/hint", { seconds: seconds() });
    game.search = { ...found, turn: game.you, hint: true };
    if (!toggles.some((t) => t.checked)) toggles[1].checked = true;
    say(`Hint: ${vertex(found.action)}${found.win === null ? "" : `, which wins ${percent(found.win)} for you`}`);
  });
  const resign = () => { ticket += 1; [busy, game.resigned] = [false, game.you]; say(""); notice(""); keep(); show(); };
  const save = async () => {
    try {
      const text = await ask("/game.sgf", { you: game.you, resigned: game.resigned });
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([text], { type: "application/x-go-sgf" }));
      link.download = "game.sgf";
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    } catch (error) { if (error !== OLD) say(error.message, true); }
  };

  // ---- the picture

  const middle = (a) => [(a % game.size) * CELL, Math.floor(a / game.size) * CELL];
  const grid = () => {
    const n = game.size, end = (n - 1) * CELL, layer = byId("grid");
    if (layer.dataset.size === String(n)) return;
    layer.dataset.size = n;
    layer.replaceChildren();
    board.setAttribute("viewBox", `-36 -24 ${end + 60} ${end + 60}`);
    draw(layer, "rect", { x: -36, y: -24, width: end + 60, height: end + 60, class: "wood" });
    let lines = "";
    for (let i = 0; i < n; i++) {
      lines += `M0 ${i * CELL}H${end}M${i * CELL} 0V${end}`;
      draw(layer, "text", { x: i * CELL, y: end + 27 }, COLUMNS[i]);
      draw(layer, "text", { x: -27, y: i * CELL }, n - i);
    }
    draw(layer, "path", { d: lines, class: "lines" });
    const edge = n >= 13 ? 3 : 2, half = (n - 1) / 2, stars = n >= 9 ? [edge, n - 1 - edge] : [];
    const points = stars.flatMap((r) => stars.map((c) => [r, c]));
    if (n % 2 && n >= 5) points.push([half, half]);
    if (n % 2 && n >= 15) for (const s of stars) points.push([half, s], [s, half]);
    for (const [r, c] of points) draw(layer, "circle", { cx: c * CELL, cy: r * CELL, r: 3.6, class: "hoshi" });
  };
  const short = (count) => (count < 1000 ? count : count < 99500 ? `${(count / 1000).toFixed(count < 9950 ? 1 : 0)}k` : `${Math.round(count / 1000)}k`);
  const overlay = (layer) => {
    const found = game.search, n = game.size;
    if (!found) return;
    const [priors, visits, values] = toggles.map((t) => t.checked), most = Math.max(...found.visits, 1);
    const top = found.priors ? Math.max(...found.priors) : 1;
    for (let a = 0; a < n * n; a++) {
      const [x, y] = middle(a), count = found.visits[a], share = count / most, texts = [];
      if (priors && found.priors && found.priors[a] > 0.003)
        draw(layer, "rect", { x: x - 19, y: y - 19, width: 38, height: 38, rx: 5, class: "prior", opacity: (0.1 + 0.75 * Math.sqrt(found.priors[a] / top)).toFixed(2) });
      if (share < 0.03) continue; // tried now and then only
      if (visits) texts.push(short(count));
      if (values && found.values[a] !== null) texts.push(`${Math.round(50 * (found.values[a] + 1))}%`);
      if (!texts.length) continue;
      draw(layer, "circle", { cx: x, cy: y, r: 16.5, class: "plate" });
      if (visits) draw(layer, "circle", { cx: x, cy: y, r: 16.5, class: "visit", opacity: (0.08 + 0.87 * share).toFixed(2) });
      const strong = visits && share > 0.6 ? "strong" : "";
      texts.forEach((text, i) => draw(layer, "text", { x, y: y + 12 * (i - (texts.length - 1) / 2), class: strong }, text));
    }
    if (found.hint && found.action < n * n) { const [cx, cy] = middle(found.action); draw(layer, "circle", { cx, cy, r: 18, class: "best" }); }
  };
  const curve = () => {
    const svg = document.querySelector("#curve svg"), caption = document.querySelector("#curve figcaption");
    const points = game.wins.flatMap((win, i) => (typeof win === "number" ? [[i, win]] : []));
    const far = Math.max(game.moves.length, 10), y = (win) => (4 + 76 * (1 - win)).toFixed(1);
    svg.replaceChildren();
    draw(svg, "path", { d: "M0 42H300", class: "even" });
    if (points.length) draw(svg, "path", { d: `M${points.map(([i, win]) => `${((300 * i) / far).toFixed(1)} ${y(win)}`).join("L")}h.1`, class: "win" });
    caption.id = "caption";
    caption.textContent = points.length ? `It thinks that it wins: ${percent(points.at(-1)[1])}` : "How likely it thinks that it wins";
  };
  const verdict = () => {
    if (game.resigned) return `${NAMES[game.resigned]} resigned: ${game.resigned === game.you ? opponent : "you"} won.`;
    const s = state.score;
    return s === 0 ? "A draw." : `${NAMES[s > 0 ? 1 : 2]} wins by ${Math.abs(s)}.`;
  };
  const show = () => {
    grid();
    for (const layer of layers) layer.replaceChildren();
    const [stones, over_, marks] = layers, n = game.size, last = game.moves.at(-1), yours = turn() === game.you;
    if (state) {
      state.board.forEach((colour, a) => { const [cx, cy] = middle(a); if (colour) draw(stones, "circle", { cx, cy, r: 18.6, class: `s${colour}` }); });
      if (state.owner) state.owner.forEach((colour, a) => { const [x, y] = middle(a); if (colour) draw(marks, "rect", { x: x - 6, y: y - 6, width: 12, height: 12, class: `owner s${colour}` }); });
      else overlay(over_);
    }
    if (last !== undefined && last < n * n) { const [cx, cy] = middle(last); draw(marks, "circle", { cx, cy, r: 17, class: "last" }); }
    if (cursor >= 0 && cursor < n * n) { const [x, y] = middle(cursor); draw(marks, "rect", { x: x - 18, y: y - 18, width: 36, height: 36, rx: 6, class: "cursor" }); }
    for (const colour of [1, 2]) {
      const line = byId(`player-${colour}`), taken = state ? state.captures[colour - 1] : 0;
      line.classList.toggle("turn", !over() && turn() === colour);
      line.querySelector(".who").textContent = colour === game.you ? "You" : opponent;
      line.querySelector(".taken").textContent = `${taken} taken`;
    }
    const before = last === undefined ? "" : `${NAMES[3 - turn()]} ${last === n * n ? "passed" : vertex(last)}. `;
    byId("status").textContent = !state ? "…" : over() ? verdict() : before + (!yours ? "It is thinking …" : busy ? "…" : "Your turn.");
    if (state && state.over && !game.resigned)
      say(`Area: black ${state.area[0]}, white ${state.area[1]} and komi ${game.komi}. Dead stones count until they are taken: if some are left, undo and play on.`);
    board.classList.toggle("still", !mine());
    byId("pass").disabled = byId("hint").disabled = !mine();
    byId("undo").disabled = !undoable();
    byId("resign").disabled = over() || !state;
    const found = game.search, policy = !found || found.priors;
    toggles[0].disabled = !policy;
    byId("komi-now").textContent = `Komi ${game.komi}`;
    const what = found && `${found.hint ? "The hint's" : "Its last"} search: ${found.visits.reduce((a, b) => a + b, 0).toLocaleString("en")} visits, best ${found.action === null ? "to resign" : vertex(found.action)}.`;
    byId("legend").textContent = !found ? "Nothing was searched for this position yet." : `${what} Values are ${NAMES[found.turn].toLowerCase()}'s chance to win.${policy ? "" : " There is no policy without a network."}`;
    curve();
  };

  // ---- hands

  const point = (event) => { // the action under the pointer, or −1
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(board.getScreenCTM().inverse());
    const [c, r] = [at.x, at.y].map((v) => Math.round(v / CELL)), n = game.size;
    return c < 0 || r < 0 || c >= n || r >= n ? -1 : r * n + c;
  };
  board.addEventListener("click", (event) => {
    const a = point(event), small = board.getScreenCTM().a * CELL < 30;
    if (a < 0) return;
    if (event.pointerType === "touch" && small && armed !== a && mine()) { // a finger covers several points
      cursor = armed = a;
      show();
      return say(`Tap ${vertex(a)} again to play there.`);
    }
    cursor = -1;
    play(a);
  });
  const ghost = byId("ghost");
  board.addEventListener("pointermove", (event) => {
    const a = event.pointerType === "mouse" && mine() ? point(event) : -1, free = a >= 0 && !state.board[a];
    ghost.setAttribute("visibility", free ? "visible" : "hidden");
    if (free) { [ghost.cx, ghost.cy].forEach((at, i) => { at.baseVal.value = middle(a)[i]; }); ghost.setAttribute("class", `s${game.you}`); }
  });
  board.addEventListener("pointerleave", () => ghost.setAttribute("visibility", "hidden"));
  board.addEventListener("click", () => ghost.setAttribute("visibility", "hidden"));
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select, input[type=number]")) return;
    const n = game.size, step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key], key = event.key.toLowerCase();
    if (event.target === board && step) {
      const now = cursor >= 0 && cursor < n * n ? [Math.floor(cursor / n), cursor % n] : null;
      const [r, c] = now ? now.map((v, i) => Math.max(0, Math.min(n - 1, v + step[i]))) : [n >> 1, n >> 1];
      cursor = r * n + c;
      show();
      byId("said").textContent = `${vertex(cursor)} ${["empty", "black", "white"][state ? state.board[cursor] : 0]}`;
    } else if (event.target === board && (key === "enter" || key === " ") && cursor >= 0) play(cursor);
    else if (key === "p") mine() && play(n * n);
    else if (key === "u") undo();
    else if (key === "h") hint();
    else return;
    event.preventDefault();
  });
  byId("pass").onclick = () => play(game.size ** 2);
  byId("undo").onclick = undo;
  byId("hint").onclick = hint;
  byId("resign").onclick = resign;
  byId("save").onclick = save;
  for (const toggle of toggles) toggle.onchange = show;
  byId("begin").onsubmit = (event) => {
    event.preventDefault();
    game = { ...fresh(), size: Number(byId("size").value), komi: Number(byId("komi").value), you: Number(byId("you").value) };
    [state, cursor] = [null, -1];
    byId("setup").open = false;
    scrollTo(0, 0);
    say("");
    act(look);
  };
  if (!page.dataset.sizes.split(" ").includes(String(game.size))) game = fresh(); // another server's
  act(look);
}
