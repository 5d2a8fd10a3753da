"use strict";
/* Tables that sort, filter and turn pages; pictures that zoom; a page that loads itself again while a run goes on. */
(() => {
  const PAGE = 50;
  const store = (key, value) => {
    try {
      if (value === undefined) return JSON.parse(sessionStorage.getItem(key) || "null");
      sessionStorage.setItem(key, JSON.stringify(value));
    } catch (error) { /* storage may be closed to local files */ }
    return null;
  };
  const shown = (cell) => (Array.isArray(cell) ? cell[1] : cell);
  const sortable = (cell) => (Array.isArray(cell) ? cell[0] : cell);

  function setUpTable(box) {
    const table = box.querySelector("table");
    const data = JSON.parse(box.querySelector("script").textContent);
    const heads = [...table.querySelectorAll("thead th")];
    const body = table.tBodies[0];
    const tools = box.querySelector(".tools");
    tools.hidden = data.rows.length <= 8;
    const search = tools.querySelector("input");
    const count = tools.querySelector(".count");
    const [back, on] = tools.querySelectorAll("button");
    const key = `bayesbragg:${document.title}:${box.id}`;
    const state = Object.assign({ text: "", column: -1, down: false, page: 0 }, store(key));
    const levels = data.levels;

    function rows() {
      const words = state.text.toLowerCase().split(/\s+/).filter(Boolean);
      const kept = data.rows.filter((row) => {
        const text = row.map(shown).join(" ").toLowerCase();
        return words.every((word) => text.includes(word));
      });
      if (state.column >= 0) {
        const sign = state.down ? -1 : 1;
        kept.sort((one, other) => {
          const a = sortable(one[state.column]);
          const b = sortable(other[state.column]);
          if (a === null || a === "") return 1;
          if (b === null || b === "") return -1;
          return sign * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true }));
        });
      }
      return kept;
    }
    function cellOf(kind, cell, first) {
      const element = document.createElement(first ? "th" : "td");
      if (first) element.scope = "row";
      const text = String(shown(cell) ?? "");
      if (kind === "status") {
        const word = document.createElement("span");
        word.className = `status ${levels[text] || "bad"}`;
        word.textContent = text;
        element.append(word);
      } else {
        element.textContent = text;
        if (kind === "number") element.className = "number";
        if (kind === "long") element.className = "long";
      }
      return element;
    }
    function draw() {
      const found = rows();
      const pages = Math.max(1, Math.ceil(found.length / PAGE));
      state.page = Math.min(state.page, pages - 1);
      const part = found.slice(state.page * PAGE, (state.page + 1) * PAGE);
      body.replaceChildren(...part.map((row) => {
        const line = document.createElement("tr");
        line.append(...row.map((cell, number) => cellOf(data.kinds[number], cell, number === 0)));
        return line;
      }));
      heads.forEach((head, number) => {
        if (number === state.column) head.setAttribute("aria-sort", state.down ? "descending" : "ascending");
        else head.removeAttribute("aria-sort");
      });
      const range = found.length > PAGE ? `, page ${state.page + 1} of ${pages}` : "";
      count.textContent = `${found.length} of ${data.rows.length} rows${range}`;
      back.hidden = on.hidden = pages === 1;
      back.disabled = state.page === 0;
      on.disabled = state.page === pages - 1;
      store(key, state);
    }
    heads.forEach((head, number) => {
      const button = head.querySelector("button");
      button.addEventListener("click", () => {
        const numeric = data.kinds[number] === "number";
        if (state.column === number) state.down = !state.down;
        else { state.column = number; state.down = numeric; }
        state.page = 0;
        draw();
      });
    });
    search.value = state.text;
    search.addEventListener("input", () => { state.text = search.value; state.page = 0; draw(); });
    back.addEventListener("click", () => { state.page -= 1; draw(); });
    on.addEventListener("click", () => { state.page += 1; draw(); });
    draw();
  }

  /* Wheel, drag and the keys + - 0 and arrows move the view of an enlarged drawing. */
  function setUpZoom(stage, svg) {
    const home = svg.viewBox.baseVal;
    const start = [home.x, home.y, home.width, home.height];
    let view = [...start];
    const put = () => svg.setAttribute("viewBox", view.join(" "));
    const scale = (factor, fx = 0.5, fy = 0.5) => {
      const width = Math.min(start[2], Math.max(start[2] / 60, view[2] * factor));
      const change = width / view[2];
      view = [view[0] + fx * view[2] * (1 - change), view[1] + fy * view[3] * (1 - change), width, view[3] * change];
      put();
    };
    const place = (event) => {
      const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      return [(at.x - view[0]) / view[2], (at.y - view[1]) / view[3]];
    };
    stage.onwheel = (event) => { event.preventDefault(); scale(event.deltaY > 0 ? 1.2 : 1 / 1.2, ...place(event)); };
    stage.onpointerdown = (event) => {
      stage.setPointerCapture(event.pointerId);
      const unit = 1 / svg.getScreenCTM().a;
      let last = [event.clientX, event.clientY];
      stage.onpointermove = (move) => {
        view[0] -= (move.clientX - last[0]) * unit;
        view[1] -= (move.clientY - last[1]) * unit;
        last = [move.clientX, move.clientY];
        put();
      };
      stage.onpointerup = stage.onpointercancel = () => { stage.onpointermove = null; };
    };
    stage.onkeydown = (event) => {
      const step = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] }[event.key];
      if (event.key === "+" || event.key === "=") scale(1 / 1.3);
      else if (event.key === "-") scale(1.3);
      else if (event.key === "0") { view = [...start]; put(); }
      else if (step) { view[0] += step[0] * view[2]; view[1] += step[1] * view[3]; put(); }
      else return;
      event.preventDefault();
    };
    return { closer: () => scale(1 / 1.4), farther: () => scale(1.4), whole: () => { view = [...start]; put(); } };
  }

  const dialog = document.querySelector("dialog");
  function enlarge(figure) {
    const stage = dialog.querySelector(".stage");
    const source = figure.querySelector("svg, .images");
    const copy = source.cloneNode(true);
    copy.removeAttribute("id");
    stage.replaceChildren(copy);
    const drawing = copy.tagName.toLowerCase() === "svg";
    dialog.querySelector(".title").textContent = figure.dataset.title || "";
    const said = [...figure.querySelectorAll("figcaption > span, figcaption > .key")];
    dialog.querySelector(".said").replaceChildren(...said.map((part) => part.cloneNode(true)));
    const [closer, farther, whole] = dialog.querySelectorAll(".tools [data-zoom]");
    for (const button of [closer, farther, whole]) button.hidden = !drawing;
    dialog.showModal();
    if (drawing) {
      const zoom = setUpZoom(stage, copy);
      closer.onclick = zoom.closer;
      farther.onclick = zoom.farther;
      whole.onclick = zoom.whole;
    } else {
      stage.onwheel = stage.onpointerdown = stage.onkeydown = null;
    }
    stage.focus();
  }
  dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
  for (const button of document.querySelectorAll(".zoom")) {
    button.hidden = false;
    button.addEventListener("click", () => enlarge(button.closest("figure")));
  }
  for (const box of document.querySelectorAll(".table")) setUpTable(box);

  for (const group of document.querySelectorAll("[data-choice]")) {
    const buttons = [...group.querySelectorAll("button")];
    const choose = (button) => {
      for (const other of buttons) {
        other.setAttribute("aria-pressed", String(other === button));
        document.getElementById(other.dataset.shows).hidden = other !== button;
      }
    };
    for (const button of buttons) button.addEventListener("click", () => choose(button));
    group.hidden = false;
    choose(buttons[buttons.length - 1]);
  }

  for (const button of document.querySelectorAll("[data-copy]")) {
    button.hidden = !navigator.clipboard;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
      button.textContent = "Copied";
    });
  }

  const live = document.querySelector(".live[data-refresh]");
  if (live) {
    const seconds = Number(live.dataset.refresh);
    const button = live.querySelector("button");
    button.hidden = false;
    let timer = null;
    const key = "bayesbragg:paused";
    const set = (paused) => {
      clearTimeout(timer);
      if (!paused) timer = setTimeout(() => location.reload(), 1000 * seconds);
      button.setAttribute("aria-pressed", String(paused));
      store(key, paused);
    };
    button.addEventListener("click", () => set(button.getAttribute("aria-pressed") !== "true"));
    set(store(key) === true);
  }
})();
