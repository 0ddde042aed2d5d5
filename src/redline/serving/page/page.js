"use strict";

const PHASES = ["queue", "decode", "infer", "encode"];
const SVG = "http://www.w3.org/2000/svg";
const AGAIN_MS = 1500;
const LEAST_ASKED = 0.05;
const COLORS = 8;
const MOST_NAMES = 60;
const MANY = 12;
const MOST_CLASSES = 8;
const of = id => document.getElementById(id);

let token = sessionStorage.getItem("redline-token") || "";
let status = null;
let chosen = null;
let described = "";
let timer = 0;
let boxes = null;
let pictured = null;

// Small helpers. Everything that comes from the server is set as text, never as markup.

function make(tag, text, name) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (name) made.className = name;
  return made;
}

function shape(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function milliseconds(value) {
  if (value < 0.01) return "0 ms";
  if (value >= 1000) return `${(value / 1000).toFixed(value < 10000 ? 2 : 1)} s`;
  return `${value < 1 ? value.toFixed(2) : value < 100 ? value.toFixed(1) : value.toFixed(0)} ms`;
}

function bytes(value) {
  const units = ["B", "kB", "MB", "GB"];
  let at = 0;
  while (value >= 1000 && at < units.length - 1) { value /= 1000; at += 1; }
  return `${at && value < 100 ? value.toFixed(1) : value.toFixed(0)} ${units[at]}`;
}

function duration(seconds) {
  if (seconds < 60) return `${Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${(seconds / 3600).toFixed(1)} h` : `${Math.round(seconds / 86400)} days`;
}

const count = value => value.toLocaleString("en-US");

function percent(value) {
  if (value > 0 && value < 0.0001) return "< 0.01 %";
  return `${(100 * value).toFixed(value > 0 && value < 0.1 ? 2 : 1)} %`;
}

async function ask(path, options = {}) {
  const headers = { ...(options.headers || {}) };
  if (token) headers.Authorization = `Bearer ${token}`;
  return fetch(path, { cache: "no-store", ...options, headers });
}

function quantile(sorted, share) {
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
}

// The state of the server, again and again.

async function refresh() {
  try {
    const reply = await ask("status");
    of("key").hidden = reply.status !== 401;
    if (reply.status === 401) {
      if (token) of("key-said").textContent = "The server does not know this token.";
      state("away", "needs a token");
    } else if (reply.ok) {
      status = await reply.json();
      show();
    } else {
      state("away", `answers ${reply.status}`);
    }
  } catch {
    state("away", "not reachable");
  }
  clearTimeout(timer);
  timer = setTimeout(refresh, document.hidden ? 4 * AGAIN_MS : AGAIN_MS);
}

function state(name, text) {
  of("state").className = `state ${name}`;
  of("state").lastElementChild.textContent = text;
}

function show() {
  state(status.state, status.state);
  const now = JSON.stringify(status.models.map(model => [model.name, model.versions.map(one => [one.version, one.precision, one.backend])]));
  if (now !== described) {
    described = now;
    showChoice();
    showCommands();
  }
  showFacts();
  showLine();
  showModels();
}

function answering() {
  return status.models.filter(model => model.versions.length);
}

function current() {
  return answering().find(model => model.name === chosen) || answering()[0] || null;
}

function showChoice() {
  const names = answering().map(model => model.name);
  if (!names.includes(chosen)) {
    const images = answering().filter(model => model.versions[0].image);
    chosen = (images[0] || answering()[0] || { name: null }).name;
  }
  of("model").replaceChildren(...names.map(name => {
    const option = make("option", name);
    option.value = name;
    option.selected = name === chosen;
    return option;
  }));
  of("model").hidden = names.length < 2;
  showChosen();
}

function showChosen() {
  const model = current();
  of("try").hidden = !model;
  if (!model) return;
  const version = model.versions[0];
  of("try-title").textContent = `Ask ${model.name}`;
  const said = [`version ${version.version}`, precision(version), `on ${version.backend}`];
  if (version.classes) said.push(`${count(version.classes)} classes`);
  if (version.image) said.push(`takes ${version.image.color === "gray" ? "gray " : ""}images, sees ${version.image.width_px} × ${version.image.height_px} pixels`);
  of("about").textContent = said.join(" · ");
  of("drop").hidden = of("samples").hidden = !version.image;
  of("no-image").hidden = Boolean(version.image);
  of("no-image").textContent = "This model does not say how an image becomes its input. Send it tensors: below is how.";
  of("waiting").hidden = !version.image;
}

const precision = version => version.precision.toUpperCase();

function lately(model) {
  return model.versions.flatMap(one => one.recent.map(([when, seconds]) => [when, 1000 * seconds])).sort((a, b) => a[0] - b[0]);
}

function showFacts() {
  const versions = status.models.flatMap(model => model.versions);
  const total = name => versions.reduce((sum, one) => sum + one[name], 0);
  const recent = status.models.flatMap(lately).map(([, ms]) => ms).sort((a, b) => a - b);
  const errors = Object.entries(status.errors);
  const facts = [
    ["Answered", count(total("requests"))],
    ["In flight", count(status.in_flight)],
    ["Waiting", count(total("waiting"))],
    ["Median", recent.length ? milliseconds(quantile(recent, 0.5)) : "–"],
    // Of fewer than a hundred answers one cannot say.
    recent.length < 100
      ? ["Slowest", recent.length ? milliseconds(Math.max(...recent)) : "–"]
      : ["99th percentile", milliseconds(quantile(recent, 0.99))],
    ["Errors", count(errors.reduce((sum, [, times]) => sum + times, 0)), errors.map(([why, times]) => `${why.replaceAll("_", " ")}: ${times}`).join(", ")],
  ];
  const judged = status.models.map(model => model.shadow).filter(shadow => shadow && shadow.rows);
  if (judged.length) {
    const sum = name => judged.reduce((total, shadow) => total + shadow[name], 0);
    facts.push(["Disagreement", percent(sum("rows_disagreed") / sum("rows"))]);
  }
  of("facts").replaceChildren(...facts.map(([name, value, title]) => {
    const fact = make("div");
    if (title) fact.title = title;
    const [, number, unit] = value.match(/^(.*?)(?: (\S+))?$/);
    const told = make("dd", number);
    if (unit) told.append(make("small", unit));
    fact.append(make("dt", name), told);
    return fact;
  }));
  of("since").textContent = `up for ${duration(status.uptime_s)}`;
}

function showLine() {
  const model = current();
  const points = model ? lately(model).slice(-200) : [];
  const empty = points.length < 2;
  of("line").toggleAttribute("hidden", empty);
  of("axis").hidden = of("scale").hidden = empty;
  if (empty) {
    of("line-said").textContent = points.length ? "One request so far: " + milliseconds(points[0][1]) : "No request yet.";
    return;
  }
  const times = points.map(([, ms]) => ms);
  const sorted = [...times].sort((a, b) => a - b);
  // A few that are far slower than the rest would flatten it: they end at the upper edge, and the words tell the worst.
  const top = Math.min(1.1 * sorted[sorted.length - 1], 1.6 * quantile(sorted, 0.96));
  const x = at => (800 * at / (times.length - 1)).toFixed(1);
  const y = ms => (150 - 146 * Math.min(1, ms / top)).toFixed(1);
  const path = times.map((ms, at) => `${x(at)},${y(ms)}`).join(" ");
  const middle = y(quantile(sorted, 0.5));
  of("line").replaceChildren(
    ...[37, 75, 113].map(at => shape("line", { class: "grid", x1: 0, x2: 800, y1: at, y2: at })),
    shape("polygon", { points: `0,150 ${path} 800,150` }),
    shape("line", { class: "mid", x1: 0, x2: 800, y1: middle, y2: middle }),
    shape("polyline", { points: path }),
  );
  of("scale").textContent = milliseconds(top);
  of("line-said").textContent = `The latest ${times.length} answers of ${model.name}: half within ${milliseconds(quantile(sorted, 0.5))} (dashed), the slowest ${milliseconds(sorted[sorted.length - 1])}`;
}

function showModels() {
  const rows = status.models.map(model => {
    const row = make("div", undefined, "model");
    if (!model.versions.length) {
      const head = make("h3", model.name);
      head.append(make("span", "not loaded", "tag"));
      row.append(head);
      return row;
    }
    model.versions.forEach(one => row.append(...version(model, one)));
    if (model.shadow) row.append(make("p", beside(model.shadow), "beside"));
    return row;
  });
  of("models").replaceChildren(...rows);
}

function version(model, one) {
  const head = make("h3", model.name);
  head.append(make("span", `version ${one.version}`, "tag"), make("span", precision(one), `tag${/int8|fp8|int4/i.test(one.precision) ? " hot" : ""}`));
  head.append(make("span", one.backend, "tag"), make("span", bytes(one.size_bytes), "tag"));
  if (one.batching) head.append(make("span", `batches up to ${one.batching}`, "tag"));
  const list = make("dl", undefined, "tensors");
  for (const [name, tensors] of [["takes", one.inputs], ["gives", one.outputs]]) {
    tensors.forEach((tensor, at) => list.append(make("dt", at ? "" : name), make("dd", `${tensor.name}  ${tensor.dtype} [${tensor.shape.join(", ")}]`)));
  }
  const made = [head, list];
  one.notes.forEach(note => made.push(make("p", note)));
  return made;
}

function beside(shadow) {
  const said = [`In its shadow, ${shadow.reference} answers ${percent(shadow.rate)} of the requests too.`];
  if (shadow.rows) said.push(`Of ${count(shadow.rows)} answers compared, ${percent(shadow.rows_disagreed / shadow.rows)} have another first class.`);
  else if (!shadow.compared) said.push("Nothing is compared yet.");
  if (shadow.compared && shadow.error.p50 !== null) said.push(`Half of the answers are within a relative error of ${shadow.error.p50.toPrecision(2)}.`);
  if (shadow.dropped) said.push(`${count(shadow.dropped)} found it busy.`);
  if (shadow.failed) said.push(`${count(shadow.failed)} times it did not answer.`);
  return said.join(" ");
}

// What to type.

function showCommands() {
  const model = current();
  if (!model) { of("commands").replaceChildren(); return; }
  const version = model.versions[0];
  const at = location.origin;
  const auth = token ? ' -H "Authorization: Bearer $TOKEN"' : "";
  const path = status.default ? "predict" : `predict/${model.name}`;
  const commands = [];
  if (version.image) commands.push(["An image", `curl${auth} -F image=@photo.jpg ${at}/${path}`]);
  commands.push(["The same model by the Open Inference Protocol", `curl${auth} ${at}/v2/models/${model.name}`]);
  commands.push(["Tensors as JSON", `curl${auth} -H 'Content-Type: application/json' -d @request.json \\\n  ${at}/v2/models/${model.name}/infer`]);
  commands.push(["Python, with binary tensors (pip install 'tritonclient[http]')", python(model.name, version)]);
  of("commands").replaceChildren(...commands.map(([said, text]) => {
    const made = make("div", undefined, "command");
    const head = make("div", undefined, "said");
    const copy = make("button", "Copy");
    copy.type = "button";
    copy.addEventListener("click", () => copyText(text, copy));
    head.append(make("span", said), copy);
    made.append(head, make("pre", text));
    return made;
  }));
}

function python(name, version) {
  const types = { float32: "FP32", float16: "FP16", float64: "FP64", bool: "BOOL", object: "BYTES" };
  const lines = ["import numpy as np, tritonclient.http as http", "", `client = http.InferenceServerClient("${location.host}")`, "inputs = []"];
  version.inputs.forEach(tensor => {
    const sizes = tensor.shape.map(size => typeof size === "number" ? size : 1);
    lines.push(`x = http.InferInput("${tensor.name}", [${sizes.join(", ")}], "${types[tensor.dtype] || tensor.dtype.toUpperCase()}")`);
    lines.push(`inputs.append(x.set_data_from_numpy(np.zeros([${sizes.join(", ")}], "${tensor.dtype}")))`);
  });
  lines.push(`print(client.infer("${name}", inputs).as_numpy("${version.outputs[0].name}"))`);
  return lines.join("\n");
}

async function copyText(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = make("textarea", text);
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
}

// An image and its answer.

async function predict(blob) {
  const model = current();
  if (!model) return;
  of("waiting").hidden = of("wrong").hidden = true;
  of("answer").setAttribute("aria-busy", "true");
  const begun = performance.now();
  try {
    const path = `predict/${encodeURIComponent(model.name)}?top=5&confidence=${LEAST_ASKED}`;
    const reply = await ask(path, { method: "POST", body: blob, headers: { "Content-Type": blob.type || "application/octet-stream" } });
    const answer = await reply.json();
    if (!reply.ok) throw new Error(answer.error);
    showAnswer(answer, performance.now() - begun);
  } catch (error) {
    showWrong(error.message);
  }
  of("answer").removeAttribute("aria-busy");
}

function showWrong(text) {
  of("waiting").hidden = true;
  of("bars").replaceChildren();
  showBoxes(null);
  of("raw").hidden = of("spent").hidden = true;
  of("wrong").hidden = false;
  of("wrong").textContent = text;
}

function showAnswer(answer, whole) {
  of("wrong").hidden = true;
  const guesses = answer.predictions ? answer.predictions[0] : [];
  of("bars").replaceChildren(...guesses.map(guess => {
    const row = make("li");
    const label = make("div", undefined, "label");
    label.append(make("span", guess.name === null ? `class ${guess.class}` : guess.name), make("b", percent(guess.probability)));
    const bar = shape("svg", { viewBox: "0 0 100 9", preserveAspectRatio: "none", "aria-hidden": "true" });
    bar.append(shape("rect", { width: Math.max(0.4, 100 * guess.probability), height: 9 }));
    row.append(label, bar);
    return row;
  }));
  showBoxes(answer.boxes ? answer.boxes[0] : null);
  of("raw").hidden = !answer.outputs;
  if (answer.outputs) {
    of("raw").textContent = answer.outputs.map(output => `${output.name}  ${output.datatype} [${output.shape.join(", ")}]\n${JSON.stringify(output.data).slice(0, 600)}`).join("\n\n");
  }
  showSpent(answer.ms, whole);
}

// Boxes of a detector, over the image and counted by class.

function showBoxes(found) {
  boxes = found;
  of("sure").hidden = !boxes;
  of("two").classList.toggle("found", Boolean(boxes));
  if (boxes) drawBoxes();
  else clearBoxes();
}

function clearBoxes() {
  of("drawn").toggleAttribute("hidden", true);
  of("drawn").replaceChildren();
  of("names").replaceChildren();
}

function drawBoxes() {
  const least = of("least").value / 100;
  const sure = boxes.filter(box => box.score > least);
  const said = make("b", `${count(sure.length)} ${sure.length === 1 ? "box" : "boxes"}`);
  of("found-said").replaceChildren(said, ` with a confidence above ${Math.round(100 * least)} %`);
  showKinds(sure);
  if (!pictured) { clearBoxes(); return; }
  of("drawn").toggleAttribute("hidden", false);
  of("drawn").setAttribute("viewBox", `0 0 ${pictured.width} ${pictured.height}`);
  // The best lie on top.
  of("drawn").replaceChildren(...[...sure].reverse().flatMap(outlines));
  showNames(sure);
}

const own = box => `own-${box.class % COLORS}`;
const called = box => box.name === null ? `class ${box.class}` : box.name;

function outlines(box) {
  const [x0, y0, x1, y1] = box.box;
  const place = { x: x0, y: y0, width: x1 - x0, height: y1 - y0 };
  const shapes = [shape("rect", { class: "under", ...place }), shape("rect", { class: own(box), ...place })];
  const said = shape("title", {});
  said.textContent = `${called(box)} ${percent(box.score)}`;
  shapes[1].append(said);
  if (box.polygon) shapes.unshift(shape("polygon", { class: own(box), points: box.polygon.map(point => point.join(",")).join(" ") }));
  return shapes;
}

function showNames(sure) {
  const names = sure.slice(0, MOST_NAMES).map(box => {
    const name = make("span", `${called(box)} ${Math.round(100 * box.score)} %`, own(box));
    const [x0, y0, x1] = box.box;
    // From the middle on a name ends where its box does, so that it does not run out of the picture.
    if (x0 + x1 > pictured.width) name.style.right = `${100 - 100 * x1 / pictured.width}%`;
    else name.style.left = `${100 * x0 / pictured.width}%`;
    name.style.top = `${100 * y0 / pictured.height}%`;
    if (y0 * of("drawn").clientHeight > 20 * pictured.height) name.classList.add("above");
    return name;
  });
  of("names").replaceChildren(...names);
  // Of names that would lie on one another the surest stays; where there are many boxes, only large ones have a name.
  const frame = of("drawn").getBoundingClientRect();
  const taken = [];
  for (const [at, name] of names.entries()) {
    let one = name.getBoundingClientRect();
    const [x0, , x1] = sure[at].box;
    const wide = frame.width * (x1 - x0) / pictured.width;
    if (sure.length > MANY && one.width > 1.5 * wide) { name.remove(); continue; }
    if (one.right > frame.right) { name.style.left = "auto"; name.style.right = "0"; }
    if (one.left < frame.left) { name.style.right = "auto"; name.style.left = "0"; }
    one = name.getBoundingClientRect();
    const covered = taken.some(other => one.left < other.right && other.left < one.right && one.top < other.bottom && other.top < one.bottom);
    if (covered) name.remove();
    else taken.push(one);
  }
}

function showKinds(sure) {
  const kinds = new Map();
  for (const box of sure) kinds.set(box.class, [...(kinds.get(box.class) || []), box]);
  const sorted = [...kinds.values()].sort((a, b) => b.length - a.length);
  const rows = sorted.slice(0, MOST_CLASSES).map(([best, ...others]) => {
    const row = make("li", undefined, own(best));
    const label = make("div", undefined, "label");
    const name = make("span");
    name.append(make("i"), called(best), make("small", `× ${count(1 + others.length)}`));
    label.append(name, make("b", percent(best.score)));
    const bar = shape("svg", { viewBox: "0 0 100 9", preserveAspectRatio: "none", "aria-hidden": "true" });
    bar.append(shape("rect", { width: Math.max(0.4, 100 * best.score), height: 9 }));
    row.append(label, bar);
    return row;
  });
  if (sorted.length > MOST_CLASSES) rows.push(make("li", `and ${count(sorted.length - MOST_CLASSES)} more classes`, "more"));
  of("bars").replaceChildren(...rows);
}

function showSpent(ms, whole) {
  const total = PHASES.reduce((sum, phase) => sum + ms[phase], 0);
  const split = shape("svg", { viewBox: "0 0 100 9", preserveAspectRatio: "none", "aria-hidden": "true" });
  let at = 0;
  of("legend").replaceChildren();
  for (const phase of PHASES) {
    const width = total ? 100 * ms[phase] / total : 0;
    split.append(shape("rect", { class: phase, x: at, width, height: 9 }));
    at += width;
    const item = make("li");
    item.append(make("i", undefined, phase), make("span", phase), make("b", milliseconds(ms[phase])));
    of("legend").append(item);
  }
  const item = make("li");
  item.append(make("span", "and on the way"), make("b", milliseconds(Math.max(0, whole - total))));
  of("legend").append(item);
  of("split").replaceChildren(split);
  of("spent").hidden = false;
}

async function take(blob) {
  try {
    const image = await createImageBitmap(blob);
    const canvas = of("shown");
    const scale = Math.min(1, 960 / Math.max(image.width, image.height));
    canvas.width = Math.max(1, Math.round(image.width * scale));
    canvas.height = Math.max(1, Math.round(image.height * scale));
    canvas.className = Math.max(image.width, image.height) < 100 ? "dots" : "";
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    pictured = { width: image.width, height: image.height };
    of("picture").style.setProperty("--ratio", image.width / image.height);
    clearBoxes();
    of("picture").hidden = false;
    of("hint").hidden = true;
  } catch {
    // The server says what is wrong with it.
    pictured = null;
    of("picture").hidden = true;
    of("hint").hidden = false;
  }
  await predict(blob);
}

const SAMPLES = {
  "a digit": draw => {
    draw.fillStyle = "#000";
    draw.fillRect(0, 0, 224, 224);
    draw.fillStyle = "#fff";
    draw.font = "bold 190px Georgia, serif";
    draw.textAlign = "center";
    draw.textBaseline = "middle";
    draw.fillText(String(Math.floor(10 * Math.random())), 112, 118);
  },
  "a sunset": draw => {
    const sky = draw.createLinearGradient(0, 0, 0, 224);
    [["#2b2a5a", 0], ["#b0446a", 0.5], ["#f7a03c", 0.68], ["#123", 0.69], ["#0b1620", 1]].forEach(([color, at]) => sky.addColorStop(at, color));
    draw.fillStyle = sky;
    draw.fillRect(0, 0, 224, 224);
    draw.fillStyle = "#ffe3a0";
    draw.beginPath();
    draw.arc(140, 152, 26, Math.PI, 0);
    draw.fill();
  },
  "a ball": draw => {
    draw.fillStyle = "#8fb98a";
    draw.fillRect(0, 0, 224, 224);
    const ball = draw.createRadialGradient(92, 84, 8, 112, 112, 76);
    [["#fff", 0], ["#ff9d5c", 0.35], ["#b8411c", 1]].forEach(([color, at]) => ball.addColorStop(at, color));
    draw.fillStyle = ball;
    draw.beginPath();
    draw.arc(112, 112, 74, 0, 2 * Math.PI);
    draw.fill();
  },
};

function sample(paint) {
  const canvas = make("canvas");
  canvas.width = canvas.height = 224;
  paint(canvas.getContext("2d"));
  canvas.toBlob(take, "image/png");
}

function begin() {
  for (const [name, paint] of Object.entries(SAMPLES)) {
    const button = make("button", name);
    button.type = "button";
    button.addEventListener("click", () => sample(paint));
    of("samples").append(button);
  }
  of("model").addEventListener("change", () => {
    chosen = of("model").value;
    showChosen();
    showCommands();
    showLine();
  });
  of("least").addEventListener("input", () => { if (boxes) drawBoxes(); });
  addEventListener("resize", () => { if (boxes) drawBoxes(); });
  of("file").addEventListener("change", () => {
    if (of("file").files.length) take(of("file").files[0]);
    of("file").value = "";
  });
  of("key").addEventListener("submit", event => {
    event.preventDefault();
    token = of("token").value.trim();
    sessionStorage.setItem("redline-token", token);
    described = "";
    refresh();
  });
  for (const name of ["dragover", "dragleave", "drop"]) {
    of("drop").addEventListener(name, event => {
      event.preventDefault();
      of("drop").classList.toggle("over", name === "dragover");
      if (name === "drop" && event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
    });
  }
  document.addEventListener("paste", event => {
    const file = [...event.clipboardData.files].find(one => one.type.startsWith("image/"));
    if (file) take(file);
  });
  refresh().then(() => {
    // A link may end in a sample's name, such as #sunset.
    const paint = SAMPLES[`a ${location.hash.slice(1)}`];
    if (paint && current()) sample(paint);
  });
}

begin();
