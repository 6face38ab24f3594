// Arrows and mask are the kernel's, in pixels of the picture. What is under way (an arrow dragged, a stroke painted) is
// the view's until it ends: only then is it sent, as the kernel may be busy or far away.

const HINTS = {
  arrow: "Drag from what should move to where it should go.",
  paint: "Paint where the picture may change.",
  erase: "Erase where the picture must stay as it is.",
};
const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const LABEL = "picture to draw on: arrow keys move, Enter presses and lets go, Escape cancels, Delete removes an arrow";
const [DARK, HANDLE, TARGET, EDGE, VEIL] = ["#10161dcc", "#d1344b", "#2f6690", "#ffd23f", "#6d747bb3"];

const make = (tag, className, ...parts) => {
  const node = document.createElement(tag);
  node.className = `smoothnb-${className}`;
  node.append(...parts);
  return node;
};

const png = (text) => `data:image/png;base64,${text}`;

// To a tenth, as the kernel rounds too, and within the picture.
const clamp = (value, max) => Math.min(Math.max(Math.round(value * 10) / 10, 0), max);

function render({ model, el }) {
  const get = (key) => model.get(key);
  const save = (changes) => {
    Object.entries(changes).forEach(([key, value]) => model.set(key, value));
    model.save_changes();
  };

  const picture = make("img", "picture");
  const overlay = make("canvas", "overlay");
  const stage = make("div", "stage", picture, overlay);
  stage.style.width = `${get("_width")}px`;
  Object.assign(stage, { tabIndex: 0, role: "application", ariaLabel: LABEL });
  Object.assign(picture, { draggable: false, alt: "picture to draw on" });
  overlay.ariaHidden = true;
  // Opaque where the picture may change, in the colour of its edge.
  const mask = document.createElement("canvas");
  const brush = mask.getContext("2d", { willReadFrequently: true });

  const limits = () => [picture.naturalWidth, picture.naturalHeight];
  const inside = (point) => point.map((value, axis) => clamp(value, limits()[axis]));
  // How large a pixel of the picture is on screen, whatever the zoom.
  const scale = () => picture.getBoundingClientRect().width / picture.naturalWidth;
  const place = (event) => {
    const box = picture.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top].map((value) => value / scale());
  };

  let tool = "arrow";
  let held = null; // what is under way
  let cross = null; // where the keys are
  let hover = null; // where the pointer is
  let shown = ""; // the text that `mask` was made from

  const load = async () => {
    const text = (shown = get("_mask"));
    const image = Object.assign(new Image(), { src: png(text) });
    if (text) await image.decode();
    if (text !== shown) return;
    brush.globalCompositeOperation = "source-over";
    brush.clearRect(0, 0, ...limits());
    if (text) brush.drawImage(image, 0, 0);
    brush.globalCompositeOperation = "source-in";
    brush.fillStyle = EDGE;
    brush.fillRect(0, 0, ...limits());
    draw();
  };

  const paint = (from, to) => {
    brush.globalCompositeOperation = tool === "paint" ? "source-over" : "destination-out";
    Object.assign(brush, { strokeStyle: EDGE, lineCap: "round", lineWidth: size.valueAsNumber });
    brush.beginPath();
    brush.moveTo(...from);
    // A line of no length would leave nothing.
    brush.lineTo(to[0] + 0.001, to[1]);
    brush.stroke();
  };

  // The mask as text, without its soft edges; "" once nothing is left of it.
  const masked = () => {
    const pixels = brush.getImageData(0, 0, ...limits());
    for (let i = 3; i < pixels.data.length; i += 4) pixels.data[i] = pixels.data[i] > 127 ? 255 : 0;
    brush.putImageData(pixels, 0, 0);
    return pixels.data.some((value, i) => i % 4 === 3 && value) ? mask.toDataURL().split(",")[1] : "";
  };

  const end = (point, reach = 8) => {
    const ends = get("arrows").flatMap((arrow, i) =>
      [0, 2].map((at) => ({ i, at, away: Math.hypot(arrow[at] - point[0], arrow[at + 1] - point[1]) })),
    );
    ends.sort((a, b) => a.away - b.away);
    return ends.length && ends[0].away * scale() <= reach ? ends[0] : null;
  };

  // Pointer and keys do the same three things.
  const press = (point, pointer = null, reach = undefined) => {
    if (tool === "arrow") {
      const arrows = get("arrows").map((arrow) => [...arrow]);
      const found = end(point, reach);
      if (!found) arrows.push([...inside(point), ...inside(point)]);
      const { i, at } = found ?? { i: arrows.length - 1, at: 2 };
      // An end keeps its distance from the pointer: it does not jump when it is touched.
      const shift = [arrows[i][at] - point[0], arrows[i][at + 1] - point[1]];
      held = { pointer, arrows, arrow: arrows[i], at, shift };
    } else {
      // Without a mask all of the picture may change.
      brush.globalCompositeOperation = "source-over";
      if (tool === "erase" && !get("_mask")) brush.fillRect(0, 0, ...limits());
      held = { pointer, from: point };
      paint(point, point);
    }
    draw();
  };
  const move = (point) => {
    if (held.arrow) {
      held.arrow.splice(held.at, 2, ...inside(point.map((value, axis) => value + held.shift[axis])));
    } else {
      paint(held.from, point);
      held.from = point;
    }
  };
  const release = () => {
    const { arrows, arrow } = held;
    held = null;
    if (!arrow) save({ _mask: (shown = masked()) });
    // A shorter one was meant as a click.
    else if (Math.hypot(arrow[2] - arrow[0], arrow[3] - arrow[1]) >= 3 / Math.min(1, scale())) save({ arrows });
    draw();
  };
  const cancel = () => {
    if (held && !held.arrow) load();
    held = null;
    draw();
  };

  stage.addEventListener("pointerdown", (event) => {
    if (get("_busy") || event.button || !event.isPrimary || !picture.naturalWidth) return;
    // Another pointer has to wait; the keys do not.
    if (held && held.pointer !== null) return;
    if (held) cancel();
    stage.setPointerCapture(event.pointerId);
    cross = null;
    // A finger hides what it touches.
    press(place(event), event.pointerId, event.pointerType === "touch" ? 16 : 8);
  });
  stage.addEventListener("pointermove", (event) => {
    if (held?.pointer === event.pointerId) move(place(event));
    else if (held) return;
    hover = place(event);
    const grabs = tool === "arrow" && !get("_busy") && (held || end(hover));
    stage.style.cursor = grabs ? (held ? "grabbing" : "grab") : "";
    draw();
  });
  stage.addEventListener("pointerleave", () => {
    hover = null;
    draw();
  });
  stage.addEventListener("pointerup", (event) => held?.pointer === event.pointerId && release());
  stage.addEventListener("lostpointercapture", (event) => held?.pointer === event.pointerId && cancel());
  stage.addEventListener("blur", () => {
    cross = null;
    if (held?.pointer === null) cancel();
    else draw();
  });

  const undo = () => (held ? cancel() : model.send("undo"));
  const acts = {
    Enter: () => (held ? release() : press(cross)),
    Escape: cancel,
    Delete: () => (held ? cancel() : save({ arrows: get("arrows").slice(0, -1) })),
  };
  stage.addEventListener("keydown", (event) => {
    const act = acts[{ " ": "Enter", Backspace: "Delete" }[event.key] ?? event.key];
    if (get("_busy") || !picture.naturalWidth || !(act || event.key in KEYS)) return;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    cross ??= limits().map((limit) => limit / 2);
    if (act) return event.repeat || act();
    const step = event.shiftKey ? 10 : 1;
    cross = inside(cross.map((value, axis) => value + step * KEYS[event.key][axis]));
    if (held) move(cross);
    draw();
  });

  // White on dark can be seen on any picture.
  const contour = (pen) => {
    for (const [strokeStyle, lineWidth] of [[DARK, 5], ["#ffffff", 2.5]]) {
      Object.assign(pen, { strokeStyle, lineWidth, lineCap: "round", lineJoin: "round" });
      pen.stroke();
    }
  };
  const circle = (pen, [x, y], radius) => {
    pen.beginPath();
    pen.arc(x, y, radius, 0, 2 * Math.PI);
    contour(pen);
  };
  const dot = (pen, point, colour) => {
    circle(pen, point, 5);
    pen.fillStyle = colour;
    pen.fill();
  };
  const lines = (pen, ...points) => {
    pen.beginPath();
    points.forEach((point, i) => (i % 2 ? pen.lineTo(...point) : pen.moveTo(...point)));
    contour(pen);
  };

  const draw = () => {
    const { width, height } = picture.getBoundingClientRect();
    if (!width || !picture.naturalWidth) return;
    const pixels = [width, height].map((side) => Math.round(side * devicePixelRatio));
    if (overlay.width !== pixels[0] || overlay.height !== pixels[1]) [overlay.width, overlay.height] = pixels;
    const pen = overlay.getContext("2d");
    pen.setTransform(pixels[0] / width, 0, 0, pixels[1] / height, 0, 0);
    pen.clearRect(0, 0, width, height);
    const at = (point) => point.map((value) => value * scale());

    if (get("_mask") || (held && !held.arrow)) {
      // Its edge is what remains of the mask, moved to all sides, once the mask itself is cut out.
      for (let i = 0; i < 16; i++) {
        const turn = (i / 8) * Math.PI;
        pen.drawImage(mask, 2 * Math.cos(turn), 2 * Math.sin(turn), width, height);
      }
      pen.globalCompositeOperation = "destination-over";
      pen.fillStyle = VEIL;
      pen.fillRect(0, 0, width, height);
      pen.globalCompositeOperation = "destination-out";
      pen.drawImage(mask, 0, 0, width, height);
      pen.globalCompositeOperation = "source-over";
    }

    const arrows = held?.arrows ?? get("arrows");
    arrows.forEach((arrow, i) => {
      const [from, to] = [at(arrow.slice(0, 2)), at(arrow.slice(2))];
      const angle = Math.atan2(to[1] - from[1], to[0] - from[0]);
      const beside = ([x, y], away, turn = 0) => [x - away * Math.cos(angle + turn), y - away * Math.sin(angle + turn)];
      const tip = beside(to, 8);
      if (Math.hypot(to[0] - from[0], to[1] - from[1]) > 16) {
        lines(pen, from, tip, tip, beside(tip, 9, 0.5), tip, beside(tip, 9, -0.5));
      }
      dot(pen, from, HANDLE);
      dot(pen, to, TARGET);
      if (arrows.length < 2) return;
      Object.assign(pen, { font: "bold 13px sans-serif", textAlign: "center", textBaseline: "middle" });
      // Behind the handle, or to one of its sides where the picture ends.
      const spots = [0, 1.6, -1.6, Math.PI].map((turn) => {
        const [x, y] = beside(from, 17, turn);
        return [Math.min(Math.max(x, 8), width - 8), Math.min(Math.max(y, 8), height - 8)];
      });
      const spot = [i + 1, ...(spots.find(([x, y]) => Math.hypot(x - from[0], y - from[1]) > 14) ?? spots[0])];
      Object.assign(pen, { strokeStyle: DARK, lineWidth: 4, fillStyle: "#ffffff", lineJoin: "round" });
      pen.strokeText(...spot);
      pen.fillText(...spot);
    });

    const here = cross ?? hover;
    if (get("_busy") || !here) return;
    const [x, y] = at(here);
    if (tool !== "arrow") circle(pen, [x, y], (size.valueAsNumber / 2) * scale());
    if (!cross) return;
    const arms = [[-1, 0], [1, 0], [0, -1], [0, 1]];
    lines(pen, ...arms.flatMap(([right, under]) => [4, 12].map((away) => [x + away * right, y + away * under])));
  };

  const button = (name, title, act) => {
    const node = make("button", "button", name);
    node.title = title;
    node.addEventListener("click", act);
    return node;
  };
  const tools = Object.keys(HINTS).map((name) =>
    button(name, HINTS[name], () => {
      tool = name;
      refresh();
    }),
  );
  const size = make("input", "range");
  const sized = make("label", "brush", "brush", size);
  const others = [
    button("undo", "back to before the last change", undo),
    button("clear", "no arrows, and no mask", () => save({ arrows: [], _mask: "" })),
  ];
  const said = make("div", "status");
  said.role = "status";

  const refresh = () => {
    const busy = get("_busy");
    if (busy) cancel();
    tools.forEach((node) => (node.ariaPressed = node.textContent === tool));
    [...tools, ...others].forEach((node) => (node.disabled = busy));
    sized.hidden = tool === "arrow";
    el.classList.toggle("smoothnb-busy", busy);
    said.textContent = get("_status") || HINTS[tool];
    if (get("_mask") !== shown) load();
    draw();
  };

  picture.addEventListener("load", () => {
    [mask.width, mask.height] = limits();
    const most = Math.round(Math.min(...limits()) / 2);
    Object.assign(size, { type: "range", min: 1, max: most, value: Math.round(most / 4) });
    load();
  });
  picture.src = png(get("_picture"));
  model.on("change", refresh);
  // The first sees the layout, the second the zoom.
  const resized = new ResizeObserver(draw);
  resized.observe(stage);
  window.addEventListener("resize", draw);

  el.classList.add("smoothnb");
  el.addEventListener("keydown", (event) => {
    // JupyterLab has other uses for keys.
    event.stopPropagation();
    if (!(event.ctrlKey || event.metaKey) || event.key !== "z" || get("_busy")) return;
    event.preventDefault();
    undo();
  });
  el.append(stage, make("div", "line smoothnb-tools", ...tools, sized, ...others), said);
  refresh();
  return () => {
    model.off("change", refresh);
    resized.disconnect();
    window.removeEventListener("resize", draw);
  };
}

export default { render };
