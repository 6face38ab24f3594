// Pictures lie in rows, and all of them are here: a move swaps them without asking the kernel, which may be busy or far
// away. Which picture stands at a place is the kernel's to say (`_shown`): while some are still being drawn, the nearest.

const make = (tag, className, ...parts) => {
  const node = document.createElement(tag);
  node.className = `smoothnb-${className}`;
  node.append(...parts);
  return node;
};

const range = (max, label) => {
  const node = make("input", "range");
  Object.assign(node, { type: "range", min: 0, max, step: 1, ariaLabel: label });
  return node;
};

const clamp = (value, max) => Math.min(Math.max(value, 0), max);

function render({ model, el }) {
  const get = (key) => model.get(key);
  const [control, names, places] = [get("_control"), get("_names"), get("_captions")[0].length];
  const width = `${get("_width")}px`;
  const stopping = [];

  // Pictures come once and never change: each is unpacked once.
  const addresses = new Map();
  const address = (name) => {
    if (!addresses.has(name)) {
      const bytes = Uint8Array.from(atob(get(name)), (character) => character.charCodeAt(0));
      addresses.set(name, URL.createObjectURL(new Blob([bytes], { type: "image/png" })));
    }
    return addresses.get(name);
  };
  const show = (image, row, place) => {
    const found = get("_shown")[row][place];
    if (found < 0) return;
    const source = address(`_picture_${row}_${found}`);
    if (image.src !== source) image.src = source;
  };
  stopping.push(() => addresses.forEach((address) => URL.revokeObjectURL(address)));

  // One after the other, pictures are decoded before they are asked for: the first move is as quick as later ones.
  const decoded = new Map();
  const all = names.flatMap((_, row) => [...Array(places).keys()].map((place) => `_picture_${row}_${place}`));
  let decoding = false;
  let closed = false;
  const decode = async () => {
    if (decoding) return;
    decoding = true;
    for (let name; !closed && (name = all.find((name) => get(name) && !decoded.has(name))); ) {
      decoded.set(name, Object.assign(new Image(), { src: address(name) }));
      await decoded.get(name).decode().catch(() => {});
    }
    decoding = false;
  };
  stopping.push(() => (closed = true));

  const move = (key, value) => {
    if (value === get(key)) return;
    model.set(key, value);
    model.save_changes();
  };

  const image = () => {
    const node = make("img", "picture");
    node.style.width = width;
    node.draggable = false;
    return node;
  };
  // A slider over places shows every row; the other two controls choose the row as well.
  const images = control === "slider" ? names.map(image) : [image()];
  const rows = () => (control === "slider" ? names.keys() : [get("level")]);
  const columns = images.map((node, i) => {
    const name = control === "slider" ? names[i] : "";
    return make("div", "column", ...(name ? [make("div", "name", name)] : []), node);
  });

  const caption = make("span", "caption");
  const status = make("span", "status");
  // Readers of the screen are told what changes.
  status.role = "status";
  const stop = make("button", "button", "stop");
  stop.title = "draw no more pictures";
  stop.addEventListener("click", () => model.send("stop"));
  const under = make("div", "line", status, stop);
  const said = () => (get("_captions")[get("level")] ?? get("_captions")[0])[get("index")];
  const refreshers = [
    () =>
      [...rows()].forEach((row, i) => {
        show(images[i], row, get("index"));
        images[i].alt = control === "pad" ? said() : [names[row], said()].filter(Boolean).join(", ");
      }),
    () => (caption.textContent = said()),
    () => {
      status.textContent = get("_status");
      stop.hidden = !get("_drawing");
      under.hidden = !get("_status");
    },
  ];

  const lines = [];
  if (control === "pad") {
    const cells = names.map((_, row) => [...Array(places).keys()].map(() => make("img", "cell")));
    const grid = make("div", "grid", ...cells.flat());
    grid.style.gridTemplateColumns = `repeat(${places}, 1fr)`;
    Object.assign(grid, { tabIndex: 0, role: "application", ariaLabel: "pad: drag, or use the arrow keys" });
    caption.role = "status";
    const to = (row, place) => {
      move("level", clamp(row, names.length - 1));
      move("index", clamp(place, places - 1));
    };
    const at = (event) => {
      const box = grid.getBoundingClientRect();
      const part = (offset, size, count) => clamp(Math.floor((offset / size) * count), count - 1);
      to(
        part(event.clientY - box.top, box.height, names.length),
        part(event.clientX - box.left, box.width, places),
      );
    };
    grid.addEventListener("pointerdown", (event) => {
      grid.setPointerCapture(event.pointerId);
      at(event);
    });
    grid.addEventListener("pointermove", (event) => event.buttons && at(event));
    const turns = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    grid.addEventListener("keydown", (event) => {
      if (!(event.key in turns)) return;
      event.preventDefault();
      const [down, right] = turns[event.key];
      to(get("level") + down, get("index") + right);
    });
    refreshers.push(() =>
      cells.forEach((row, i) =>
        row.forEach((cell, j) => {
          show(cell, i, j);
          Object.assign(cell, { draggable: false, alt: "" });
          cell.classList.toggle("smoothnb-here", i === get("level") && j === get("index"));
        }),
      ),
    );
    const corners = get("_corners");
    const edge = (a, b) => make("div", "edge", make("span", "corner", a), make("span", "corner", b));
    const pad = make("div", "pad", edge(corners[0], corners[1]), grid, edge(corners[2], corners[3]));
    pad.style.width = width;
    columns.push(pad);
    lines.push(make("div", "line", caption));
  } else {
    const slider = range(places - 1, get("_axis"));
    slider.style.width = width;
    slider.addEventListener("input", () => move("index", slider.valueAsNumber));
    refreshers.push(() => Object.assign(slider, { value: get("index"), ariaValueText: said() }));

    const play = make("button", "button");
    play.title = "play there and back";
    let timer = null;
    let turn = 1;
    // Readers of the screen would read the sign.
    const sign = (text, name) => Object.assign(play, { textContent: text, ariaLabel: name });
    const pause = () => {
      clearInterval(timer);
      timer = null;
      sign("▶", "play");
    };
    pause();
    const tick = () => {
      if (get("index") + turn < 0 || get("index") + turn >= places) turn = -turn;
      move("index", clamp(get("index") + turn, places - 1));
    };
    play.addEventListener("click", () => {
      if (timer) return pause();
      timer = setInterval(tick, get("_interval"));
      sign("⏸", "pause");
    });
    slider.addEventListener("pointerdown", pause);
    stopping.push(pause);
    lines.push(make("div", "line", play, make("span", "symbol", get("_axis").split(" ").pop()), slider, caption));
  }

  const levels = get("_levels");
  if (levels.length) {
    const slider = range(levels.length - 1, "smoothness");
    slider.style.width = width;
    slider.addEventListener("input", () => move("level", slider.valueAsNumber));
    const level = make("span", "caption");
    refreshers.push(
      () => Object.assign(slider, { value: get("level"), ariaValueText: levels[get("level")] }),
      () => (level.textContent = levels[get("level")]),
    );
    lines.push(make("div", "line", make("span", "symbol", "smooth"), slider, level));
  }

  const refresh = () => refreshers.forEach((refresher) => refresher());
  refresh();
  decode();
  model.on("change", refresh);
  model.on("change", decode);
  stopping.push(() => {
    model.off("change", refresh);
    model.off("change", decode);
  });

  el.classList.add("smoothnb");
  // Arrow keys would also move from cell to cell.
  el.addEventListener("keydown", (event) => event.stopPropagation());
  el.append(make("div", "columns", ...columns), ...lines, under);
  return () => stopping.forEach((end) => end());
}

export default { render };
